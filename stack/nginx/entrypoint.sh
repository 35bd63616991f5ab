#!/bin/sh
set -eu
for file in nginx.conf autodiscover.conf; do
    envsubst "\$MAIL_HOSTNAME \$MAIL_DOMAIN" <"/etc/nginx/stack/$file.template" >"/etc/nginx/$file"
done
nginx -t -q
( while sleep 60; do
    now=$(stat -c %Y-%i /certs/fullchain.pem 2>/dev/null || true)
    [ "$now" = "${before:-$now}" ] || nginx -s reload
    before=$now
  done ) &
exec nginx -g 'daemon off;'
