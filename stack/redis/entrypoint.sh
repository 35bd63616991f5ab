#!/bin/sh
# The password goes through a file, never through the command line.
set -eu
install -d -o valkey -g valkey /var/lib/valkey /run/valkey
umask 077
cat >/run/valkey/valkey.conf <<CONF
bind * -::*
protected-mode no
dir /var/lib/valkey
appendonly yes
save 900 1
maxmemory-policy noeviction
requirepass $(cat /secrets/redis)
CONF
chown valkey /run/valkey/valkey.conf
chown -R valkey: /var/lib/valkey
exec setpriv --reuid=valkey --regid=valkey --init-groups valkey-server /run/valkey/valkey.conf
