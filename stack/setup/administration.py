"""The stack's directory of mailboxes, and the command that administers it.

    init                                     secrets, DKIM folders, a self-signed certificate: before anything else runs
    provision                                schema, first domain and mailbox: when the database is up
    domain  add NAME | remove NAME | list
    dns     NAME                             what the domain's DNS should say
    password first | rspamd                  a secret that people type
    mailbox add ADDRESS [--name N] [--quota 5G] [--password-stdin] | password ADDRESS | remove ADDRESS | list
    alias   add ADDRESS GOTO | remove ADDRESS [GOTO] | list

`docker compose run --rm setup mailbox add alice@example.org` prints the password it made, once.
For example:

    docker compose run --rm setup domain add example.net
    docker compose run --rm setup mailbox add alice@example.net --name Alice --quota 5G
    docker compose run --rm setup alias add info@example.net alice@example.net
    docker compose run --rm setup dns example.net

Every step is safe to run again.  Exit status: 0 done, 1 it is not so (no such mailbox), 2 wrong use, 3 no database.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
import time
from pathlib import Path

import bcrypt
import pymysql
from first_start import init, secret, signing_key
from pymysql.cursors import Cursor

ADDRESS = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+")
SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class NotSoError(Exception):
    """What was asked for is not so; the text says why."""


# -------------------------------------------------------------------------------------------------------- directory


def database() -> pymysql.Connection:
    """Return the directory; waits for the server up to a minute."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return pymysql.connect(
                host="mariadb",
                user="root",
                password=secret("database_root"),
                database="mail",
                autocommit=True,
            )
        except pymysql.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def provision() -> None:
    """Bring the schema up to date; the first domain and mailbox where there is none."""
    with database() as db, db.cursor() as cursor:
        for statement in Path("/opt/setup/schema.sql").read_text().split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        cursor.execute("GRANT SELECT ON mail.sogo_user TO 'sogo'@'%'")
        cursor.execute("SELECT COUNT(*) FROM domain")
        if cursor.fetchone()[0]:
            return
        domain = os.environ["MAIL_DOMAIN"]
        add_domain(cursor, domain)
        first = os.environ.get("MAIL_FIRST_MAILBOX") or f"postmaster@{domain}"
        password = secret("first_mailbox")
        add_mailbox(cursor, first, password, "", 0)
        for name in ("abuse", "postmaster"):
            if f"{name}@{domain}" != first:
                add_alias(cursor, f"{name}@{domain}", first)
    print(f"first mailbox: {first}; its password: docker compose run --rm setup password first")


def address(text: str) -> str:
    """Return an address in lower case.  Raises ArgumentTypeError."""
    if not ADDRESS.fullmatch(text.lower()) or not DOMAIN.fullmatch(text.lower().rpartition("@")[2]):
        raise argparse.ArgumentTypeError(f"{text!r}: expected an address, such as alice@example.org")
    return text.lower()


def target(text: str) -> str:
    """Return what an alias may be for: an address, or @domain for all of it.  Raises ArgumentTypeError."""
    if text.startswith("@"):
        return "@" + domain_name(text[1:])
    return address(text)


def domain_name(text: str) -> str:
    """Return a domain in lower case.  Raises ArgumentTypeError."""
    if not DOMAIN.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a domain, such as example.org")
    return text.lower()


def size(text: str) -> int:
    """Return bytes of `5G`.  Raises ArgumentTypeError."""
    match = re.fullmatch(r"(\d{1,9})([KMGT]?)", text.upper())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a size, such as 500M or 5G")
    return int(match[1]) * SIZES[match[2]]


def add_domain(cursor: Cursor, name: str) -> None:
    signing_key(name)
    cursor.execute("INSERT IGNORE INTO domain (name) VALUES (%s)", (name,))


def records(domain: str) -> None:
    """Print what the domain's DNS should say."""
    host = os.environ["MAIL_HOSTNAME"]
    key = f"v=DKIM1; k=rsa; p={signing_key(domain)}"
    parts = " ".join(f'"{key[n : n + 255]}"' for n in range(0, len(key), 255))
    print(f"""\
{domain}.\tMX\t10 {host}.
{domain}.\tTXT\t"v=spf1 mx -all"
mail._domainkey.{domain}.\tTXT\t{parts}
_dmarc.{domain}.\tTXT\t"v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}"
_mta-sts.{domain}.\tTXT\t"v=STSv1; id={time.strftime("%Y%m%d")}"
mta-sts.{domain}.\tCNAME\t{host}.
autoconfig.{domain}.\tCNAME\t{host}.
autodiscover.{domain}.\tCNAME\t{host}.
_submissions._tcp.{domain}.\tSRV\t0 1 465 {host}.
_imaps._tcp.{domain}.\tSRV\t0 1 993 {host}.""")


def add_mailbox(cursor: Cursor, address: str, password: str, name: str, quota: int) -> None:
    domain = of_domain(cursor, address)
    if not cursor.execute(
        "INSERT IGNORE INTO mailbox (address, domain, password, name, quota_bytes) VALUES (%s, %s, %s, %s, %s)",
        (address, domain, hashed(password), name, quota),
    ):
        raise NotSoError(f"{address} is there already: mailbox password {address} gives it another password")


def add_alias(cursor: Cursor, address: str, goto: str) -> None:
    cursor.execute(
        "INSERT IGNORE INTO alias (address, goto, domain) VALUES (%s, %s, %s)",
        (address, goto, of_domain(cursor, address)),
    )


def of_domain(cursor: Cursor, address: str) -> str:
    domain = address.rpartition("@")[2]
    if not cursor.execute("SELECT 1 FROM domain WHERE name = %s", (domain,)):
        raise NotSoError(f"{domain} is no domain of this server: domain add {domain}")
    return domain


def hashed(password: str) -> str:
    """Return what Dovecot and SOGo verify.  bcrypt reads 72 bytes."""
    if not 8 <= len(password.encode()) <= 72:
        raise NotSoError("a password has 8 to 72 bytes")
    return f"{{BLF-CRYPT}}{bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()}"


def remove(cursor: Cursor, statement: str, values: tuple[str, ...], what: str) -> None:
    if not cursor.execute(statement, values):
        raise NotSoError(f"there is no {what}")


def rows(cursor: Cursor, statement: str) -> None:
    cursor.execute(statement)
    for row in cursor.fetchall():
        print("\t".join(map(str, row)))


def act(given: argparse.Namespace) -> None:
    """Do what was asked for."""
    with database() as db, db.cursor() as cursor:
        match given.thing, given.do:
            case "domain", "add":
                add_domain(cursor, given.name)
            case "domain", "remove":
                try:
                    remove(
                        cursor, "DELETE FROM domain WHERE name = %s", (given.name,), f"domain {given.name}"
                    )
                except pymysql.IntegrityError:
                    raise NotSoError(f"{given.name} has mailboxes or aliases: remove those first") from None
            case "domain", "list":
                rows(cursor, "SELECT name, IF(active, '', 'off') FROM domain ORDER BY name")
            case "mailbox", "add" | "password":
                password = (
                    sys.stdin.readline().rstrip("\n") if given.password_stdin else secrets.token_urlsafe(15)
                )
                if given.do == "add":
                    add_mailbox(cursor, given.address, password, given.name, given.quota)
                else:
                    values = (hashed(password), given.address)
                    text = "UPDATE mailbox SET password = %s WHERE address = %s"
                    remove(cursor, text, values, f"mailbox {given.address}")
                if not given.password_stdin:
                    print(f"{given.address}\t{password}")
            case "mailbox", "remove":
                text = "DELETE FROM mailbox WHERE address = %s"
                remove(cursor, text, (given.address,), f"mailbox {given.address}")
            case "mailbox", "list":
                rows(
                    cursor,
                    "SELECT address, name, quota_bytes, IF(active, '', 'off') FROM mailbox ORDER BY address",
                )
            case "alias", "add":
                add_alias(cursor, given.address, given.goto)
            case "alias", "remove":
                text = "DELETE FROM alias WHERE address = %s AND goto LIKE %s"
                remove(cursor, text, (given.address, given.goto or "%"), f"alias {given.address}")
            case "alias", "list":
                rows(cursor, "SELECT address, goto, IF(active, '', 'off') FROM alias ORDER BY address, goto")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="setup", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    things = parser.add_subparsers(dest="thing", required=True, metavar="COMMAND")
    things.add_parser("init")
    things.add_parser("provision")
    things.add_parser("dns").add_argument("name", type=domain_name)
    things.add_parser("password").add_argument("which", choices=["first", "rspamd"])
    domain = things.add_parser("domain").add_subparsers(dest="do", required=True)
    for do in ("add", "remove"):
        domain.add_parser(do).add_argument("name", type=domain_name)
    domain.add_parser("list")
    mailbox = things.add_parser("mailbox").add_subparsers(dest="do", required=True)
    add = mailbox.add_parser("add")
    add.add_argument("--name", default="")
    add.add_argument("--quota", type=size, default=0)
    password = mailbox.add_parser("password")
    for one in (add, password, mailbox.add_parser("remove")):
        one.add_argument("address", type=address)
    for one in (add, password):
        one.add_argument(
            "--password-stdin", action="store_true", help="take it from standard input, one line"
        )
    mailbox.add_parser("list")
    alias = things.add_parser("alias").add_subparsers(dest="do", required=True)
    add = alias.add_parser("add")
    add.add_argument("address", type=target)
    add.add_argument("goto", type=address)
    away = alias.add_parser("remove")
    away.add_argument("address", type=target)
    away.add_argument("goto", type=address, nargs="?")
    alias.add_parser("list")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    try:
        if given.thing == "init":
            init()
        elif given.thing == "provision":
            provision()
        elif given.thing == "dns":
            records(given.name)
        elif given.thing == "password":
            print(secret("first_mailbox" if given.which == "first" else "rspamd_controller"))
        else:
            act(given)
    except NotSoError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except pymysql.MySQLError as error:
        print(f"setup: the database: {error}; is the service mariadb up?", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
