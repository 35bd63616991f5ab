#!/bin/sh
# Root only until here, and without a right to others' files: the configuration, with its secrets, is written by the
# user mailward, who has to read it; then this process becomes that user with CAP_NET_ADMIN and nothing else.
set -eu
as_mailward() { setpriv --reuid=mailward --regid=0 --clear-groups "$@"; } # the group: root must be able to read it, too
sed -e "s|@GATEWAY@|$GUARD_GATEWAY|" -e "s|@PROJECT@|$GUARD_PROJECT|" -e "s|@NETWORKS@|$GUARD_NETWORKS|" \
    -e "s|@METRICS@|$(cat /secrets/guard_metrics)|" -e "s|@AUTH_POLICY@|$(cat /secrets/guard_auth_policy)|" /etc/mailward/mailward.toml.template |
    as_mailward sh -c 'umask 027; cat >/run/mailward/mailward.toml'
exec /opt/mailward/bin/mailward run --user mailward --config /run/mailward/mailward.toml
