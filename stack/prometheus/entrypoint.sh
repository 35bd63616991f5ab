#!/bin/sh
# Gives Prometheus' user what it must know, and becomes it.
set -eu
install -d -m 700 -o prometheus /run/prometheus /var/lib/prometheus/data
install -m 400 -o prometheus /secrets/guard_metrics /run/prometheus/
envsubst '$MAIL_HOSTNAME $GUARD_METRICS' </etc/prometheus/stack/prometheus.yml.template >/run/prometheus/prometheus.yml
chown -R prometheus: /var/lib/prometheus
exec setpriv --reuid=prometheus --regid=prometheus --init-groups prometheus --config.file=/run/prometheus/prometheus.yml \
    --storage.tsdb.path=/var/lib/prometheus/data --storage.tsdb.retention.time=31d --web.enable-lifecycle
