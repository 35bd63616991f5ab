#!/bin/sh
# Writes the configuration from the environment and the secrets; becomes Postfix.
set -eu
cd /etc/postfix
cp stack/main.cf stack/master.cf stack/header_checks .
postconf -e "myhostname=$MAIL_HOSTNAME" "mydomain=$MAIL_DOMAIN" "mynetworks=127.0.0.0/8 [::1]/128"
install -d -m 750 -o root -g postfix maps
query() { # query NAME SQL: a table that looks up in the directory
    (umask 027
    cat >"maps/$1.cf" <<CONF
hosts = inet:mariadb
user = mail
password = $(cat /secrets/database_mail)
dbname = mail
query = $2
CONF
    chgrp postfix "maps/$1.cf")
}
query domains "SELECT 1 FROM domain WHERE name = '%s' AND active"
query mailboxes "SELECT 1 FROM mailbox m JOIN domain d ON d.name = m.domain WHERE m.address = '%s' AND m.active AND d.active"
query aliases "SELECT a.goto FROM alias a JOIN domain d ON d.name = a.domain WHERE a.address = '%s' AND a.active AND d.active"
# Who may send as which address: its own, and the aliases that lead to it.
query senders "SELECT address FROM mailbox WHERE address = '%s' AND active UNION SELECT goto FROM alias WHERE address = '%s' AND active"
newaliases
stamp() { stat -c %Y-%i /certs/fullchain.pem 2>/dev/null || true; }
before=$(stamp)
( while sleep 20; do
    now=$(stamp)
    [ "$now" = "$before" ] || { postfix reload && before=$now; }
  done ) &
exec postfix start-fg
