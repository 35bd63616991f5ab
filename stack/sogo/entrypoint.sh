#!/bin/sh
# Writes the configuration from the environment and the secrets; becomes SOGo.
set -eu
install -d -o sogo -g sogo /run/sogo /var/lib/sogo /var/spool/sogo
umask 027
# The secrets go through a descriptor: a command line can be read by everybody on the host.
sed -f - /opt/sogo/sogo.conf >/etc/sogo/sogo.conf <<SED
s|@DATABASE@|mysql://sogo:$(cat /secrets/database_sogo)@mariadb:3306|
s|@DOMAIN@|$MAIL_DOMAIN|
s|@ZONE@|${TZ:-UTC}|
s|@KEY@|$(cut -c1-32 /secrets/sogo_encryption)|
SED
chgrp sogo /etc/sogo/sogo.conf
as_sogo() { setpriv --reuid=sogo --regid=sogo --init-groups env HOME=/var/lib/sogo "$@"; }
( while sleep 300; do as_sogo sogo-tool expire-sessions 60 >/dev/null 2>&1; done ) &
( while sleep 60; do as_sogo sogo-ealarms-notify >/dev/null 2>&1; done ) &
# SOGo writes what happened to one stream and the requests to the other.  The guard joins the two, and needs them in the
# order in which they were written: into one stream.
# Where its database is away SOGo writes the address with the password in it: that is taken out.
rm -f /run/sogo.log && mkfifo -m 600 /run/sogo.log
sed -u 's#\(mysql://[^:/@]*\):[^@]*@#\1@#g' </run/sogo.log &
exec >/run/sogo.log 2>&1
exec setpriv --reuid=sogo --regid=sogo --init-groups env HOME=/var/lib/sogo \
    sogod -WONoDetach YES -WOLogFile - -WOPidFile /run/sogo/sogo.pid -WOPort 0.0.0.0:20000
