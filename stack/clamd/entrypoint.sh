#!/bin/sh
# clamd starts on whatever signatures there are; at a first start without internet that is the test file's alone.
set -eu
chown clamav: /var/lib/clamav
[ -n "$(find /var/lib/clamav -name '*.c[vl]d' -o -name '*.ndb')" ] || install -o clamav /opt/clamd/eicar.ndb /var/lib/clamav/eicar.ndb
# By itself freshclam would let nobody else read its log.
log=/var/lib/clamav/freshclam.log
[ -e $log ] || install -o clamav -g clamav -m 644 /dev/null $log
exec setpriv --reuid=clamav --regid=clamav --init-groups clamd --foreground --config-file=/etc/clamav/clamd.conf
