#!/bin/sh
# Root only until here: reads the secrets, then becomes the user mailward with CAP_NET_ADMIN and nothing else.
set -eu
umask 077
exec /opt/mailward/bin/mailward run --user mailward
