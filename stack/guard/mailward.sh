#!/bin/sh
# `docker compose exec guard mailward ...`: as the daemon's own user, who may use its socket, with the daemon's right.
set -eu
export MAILWARD_CONFIG="${MAILWARD_CONFIG:-/run/mailward/mailward.toml}"
[ "$(id -u)" = 0 ] || exec /opt/mailward/bin/mailward "$@"
exec setpriv --reuid=mailward --regid=mailward --clear-groups --inh-caps=+net_admin --ambient-caps=+net_admin \
    /opt/mailward/bin/mailward "$@"
