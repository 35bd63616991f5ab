#!/bin/sh
# Keeps the certificate fresh: http-01 through nginx' folder, renewal 30 days before its end.  Who uses it looks at the
# file's time: nobody needs the engine's socket for a reload.
set -eu
if [ -z "${ACME_EMAIL:-}" ]; then
    echo "acme: ACME_EMAIL is not set in .env: the self-signed certificate stays"
    exec sleep infinity
fi
names=$MAIL_HOSTNAME
for name in "mta-sts.$MAIL_DOMAIN" "autoconfig.$MAIL_DOMAIN" "autodiscover.$MAIL_DOMAIN" ${ACME_EXTRA_NAMES:-}; do names="$names $name"; done
set --
for name in $names; do set -- "$@" --domains "$name"; done
place=/var/lib/lego/certificates/$MAIL_HOSTNAME
ask() {
    lego --accept-tos --email "$ACME_EMAIL" ${ACME_SERVER:+--server "$ACME_SERVER"} --path /var/lib/lego \
        --key-type ec256 --http --http.webroot /srv/acme "$@"
}
give() { # whole or not at all: the key first, each by a rename
    umask 077
    cmp -s "$place.crt" /certs/fullchain.pem && return
    cp "$place.key" /certs/privkey.pem.new && mv /certs/privkey.pem.new /certs/privkey.pem
    cp "$place.crt" /certs/fullchain.pem.new && mv /certs/fullchain.pem.new /certs/fullchain.pem
    echo "acme: a new certificate is in place"
}
while true; do
    if [ -e "$place.crt" ]; then ask "$@" renew --days 30 || true; else ask "$@" run || true; fi
    if [ -e "$place.crt" ]; then give; pause=${ACME_PAUSE:-43200}; else pause=${ACME_RETRY:-600}; fi
    sleep "$pause"
done
