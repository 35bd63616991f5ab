#!/bin/sh
# Root only until here, and without a right to others' files: the configuration, with its secrets, is written by the
# user mailward, who has to read it; then this process becomes that user with CAP_NET_ADMIN and nothing else.
set -eu
as_mailward() { setpriv --reuid=mailward --regid=0 --clear-groups "$@"; } # the group: root must be able to read it, too
# The secrets go through a descriptor: a command line can be read by everybody on the host.
sed -f - /etc/mailward/mailward.toml.template <<SED |
s|@GATEWAY@|$GUARD_GATEWAY|
s|@PROJECT@|$GUARD_PROJECT|
s|@NETWORKS@|$GUARD_NETWORKS|
s|@METRICS@|$(cat /secrets/guard_metrics)|
s|@AUTH_POLICY@|$(cat /secrets/guard_auth_policy)|
SED
    as_mailward sh -c 'umask 027; cat >/run/mailward/mailward.toml'
exec /opt/mailward/bin/mailward run --user mailward --config /run/mailward/mailward.toml
