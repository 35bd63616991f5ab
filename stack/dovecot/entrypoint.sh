#!/bin/sh
# Writes what holds secrets or depends on the network into /run (a tmpfs), compiles the sieve scripts, becomes Dovecot.
set -eu
umask 077
install -d -m 700 /run/stack
cat >/run/stack/secrets.conf <<CONF
mysql mariadb {
  user = mail
  password = $(cat /secrets/database_mail)
  dbname = mail
}
auth_policy_server_url = ${GUARD_AUTH_POLICY_URL:-}
auth_policy_server_api_header = X-API-Key: $(cat /secrets/guard_auth_policy)
auth_policy_hash_nonce = $(cat /secrets/auth_policy_nonce)
CONF
# The mail users' scripts run as vmail, and report to rspamd with its password.
install -o vmail -g vmail -m 400 /secrets/rspamd_controller /run/stack/rspamd_controller
chmod 711 /run/stack
umask 022
for script in /etc/dovecot/sieve/*.sieve; do sievec "$script"; done
# Certificates are renewed by another container: take them when they change, without a socket to the engine.
stamp() { stat -c %Y-%i /certs/fullchain.pem 2>/dev/null || true; }
before=$(stamp)
( while sleep 20; do
    now=$(stamp)
    [ "$now" = "$before" ] || { doveadm reload && before=$now; }
  done ) &
exec dovecot -F
