#!/bin/sh
set -eu
for file in nginx.conf autodiscover.conf; do
    envsubst "\$MAIL_HOSTNAME \$MAIL_DOMAIN" <"/etc/nginx/stack/$file.template" >"/etc/nginx/$file"
done
nginx -t -q
stamp() { stat -c %Y-%i /certs/fullchain.pem 2>/dev/null || true; }
before=$(stamp)
( while sleep 20; do
    now=$(stamp)
    [ "$now" = "$before" ] || { nginx -s reload && before=$now; }
  done ) &
exec nginx -g 'daemon off;'
