#!/bin/sh
# Makes the database at the first start; brings users and passwords in line with the secrets at every start.
set -eu
install -d -o mysql -g mysql /run/mysqld /var/lib/mysql
if [ ! -d /var/lib/mysql/mysql ]; then
    mariadb-install-db --user=mysql --datadir=/var/lib/mysql --skip-test-db >/dev/null
fi
read_secret() { cat "/secrets/$1"; } # made by us: letters, digits, - and _: nothing that SQL would read
umask 077
cat >/run/mysqld/users.sql <<SQL
CREATE DATABASE IF NOT EXISTS mail CHARACTER SET utf8mb4;
CREATE DATABASE IF NOT EXISTS sogo CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS 'root'@'%';
ALTER USER 'root'@'%' IDENTIFIED BY '$(read_secret database_root)';
GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;
CREATE USER IF NOT EXISTS 'mail'@'%';
ALTER USER 'mail'@'%' IDENTIFIED BY '$(read_secret database_mail)';
GRANT SELECT ON mail.* TO 'mail'@'%';
CREATE USER IF NOT EXISTS 'sogo'@'%';
ALTER USER 'sogo'@'%' IDENTIFIED BY '$(read_secret database_sogo)';
GRANT ALL ON sogo.* TO 'sogo'@'%';
CREATE USER IF NOT EXISTS 'exporter'@'%';
ALTER USER 'exporter'@'%' IDENTIFIED BY '$(read_secret database_exporter)' WITH MAX_USER_CONNECTIONS 3;
GRANT PROCESS, REPLICATION CLIENT, SLAVE MONITOR ON *.* TO 'exporter'@'%';
CREATE USER IF NOT EXISTS 'health'@'localhost';
SQL
chown mysql /run/mysqld/users.sql
exec mariadbd --user=mysql --init-file=/run/mysqld/users.sql
