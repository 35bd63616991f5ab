#!/bin/sh
# Writes what holds secrets or depends on the network, becomes rspamd.
set -eu
install -d -m 750 -o root -g _rspamd /run/stack
install -d -o _rspamd -g _rspamd /var/lib/rspamd
hash=$(rspamadm pw -e -p "$(cat /secrets/rspamd_controller)")
umask 027
cat >/run/stack/redis.conf <<CONF
servers = "redis:6379";
password = "$(cat /secrets/redis)";
CONF
cat >/run/stack/controller.inc <<CONF
password = "$hash";
enable_password = "$hash";
secure_ip = [${RSPAMD_READERS:-}];
CONF
resolver=$(sed -n 's/^nameserver //p' /etc/resolv.conf | head -1)
cat >/run/stack/options.inc <<CONF
dns { nameserver = ["$resolver:53"]; timeout = 2s; retransmits = 3; }
CONF
chgrp _rspamd /run/stack/*
exec rspamd -f -u _rspamd -g _rspamd
