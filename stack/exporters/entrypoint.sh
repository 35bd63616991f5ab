#!/bin/sh
# Root only to read a secret or a queue; everything else runs as nobody.
set -eu
nobody="setpriv --reuid=nobody --regid=nogroup --clear-groups"
alive() { echo "http://127.0.0.1:$1/" >/tmp/alive; } # where the health check looks
case $1 in
blackbox)
    alive 9115
    exec $nobody prometheus-blackbox-exporter --config.file=/etc/exporters/blackbox.yml ;;
mysqld)
    alive 9104
    umask 077
    printf '[client]\nuser = exporter\npassword = %s\n' "$(cat /secrets/database_exporter)" >/tmp/my.cnf
    chown nobody /tmp/my.cnf
    exec $nobody prometheus-mysqld-exporter --config.my-cnf=/tmp/my.cnf --mysqld.address=mariadb:3306 ;;
nginx)
    alive 9113
    exec $nobody prometheus-nginx-exporter --nginx.scrape-uri=http://nginx:8080/stub_status ;;
node)
    alive 9100
    exec $nobody prometheus-node-exporter --path.rootfs=/host --path.procfs=/host/proc --path.sysfs=/host/sys \
        --collector.filesystem.mount-points-exclude='^/(dev|proc|sys|run|var/lib/docker)($|/)' ;;
postfix) # the queue by way of showq's socket, which postfix' group may open
    alive 9154
    exec prometheus-postfix-exporter --postfix.showq_path=/var/spool/postfix/public/showq --postfix.logfile_path=/dev/null ;;
redis)
    alive 9121
    umask 077
    printf '{"redis://redis:6379": "%s"}' "$(cat /secrets/redis)" >/tmp/redis.json
    chown nobody /tmp/redis.json
    exec $nobody prometheus-redis-exporter -redis.addr redis://redis:6379 -redis.password-file /tmp/redis.json ;;
*)
    echo "exporters: $1: expected blackbox, mysqld, nginx, node, postfix or redis" >&2
    exit 2 ;;
esac
