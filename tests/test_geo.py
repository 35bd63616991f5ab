"""Countries and networks of bans: real files, a real daemon."""

from __future__ import annotations

import json
import signal
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from guard.app._geo import NOWHERE, Databases, Place
from tests.cli.test_documented_json import free_port
from tests.daemon import Daemon, failure
from tests.geo import database


def scraped(port: int) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return {
        (sample.name, sample.labels["country"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "country" in sample.labels
    }


def test_bans_are_counted_by_country_and_network_and_sighup_takes_a_new_file(tmp_path):
    port, file = free_port(), database(tmp_path / "geo.mmdb")
    daemon = Daemon(tmp_path)
    daemon.configure(
        f'[firewall]\nbackend = "none"\n[http]\nlisten = "127.0.0.1:{port}"\n[geo]\ndatabase = "{file}"'
    )
    with daemon:
        for ip in ("198.51.100.7", "198.51.100.8", "203.0.113.9", "192.0.2.77"):
            daemon.write(*[failure(ip)] * 5)
        daemon.until(lambda: daemon.ask("origins")["bans"] == 4)
        assert daemon.ask("unban", net="198.51.100.8")["done"]
        daemon.until(lambda: daemon.ask("origins")["bans"] == 3)
        total, now = "mailward_country_bans_total", "mailward_country_banned"
        found = scraped(port)
        assert found == {
            (total, "NL"): 2, (total, "DE"): 1, (total, "unknown"): 1,
            (now, "NL"): 1, (now, "DE"): 1, (now, "unknown"): 1,
        }  # fmt: skip
        assert daemon.ask("origins")["networks"] == [
            {"asn": 64496, "name": "Example Net", "country": "NL", "bans": 1},
            {"asn": 64497, "name": "Other Net", "country": "DE", "bans": 1},
        ]
        assert daemon.ask("explain", ip="203.0.113.9")["address"]["country"] == "DE"
        assert "Other Net" in daemon.command("origins").stdout
        shown = json.loads(daemon.command("bans", "--format", "json").stdout)["bans"]
        assert {ban["net"]: ban["asn"] for ban in shown}["198.51.100.7/32"] == 64496

        database(file, {"192.0.2.0/24": ("FR", 64499, "New Net")})
        daemon.signal(signal.SIGHUP)
        daemon.until(lambda: scraped(port).get((now, "FR")) == 1)
        assert scraped(port)[now, "unknown"] == 2
        assert scraped(port)[total, "NL"] == 2

        file.write_bytes(b"no database")
        daemon.signal(signal.SIGHUP)
        daemon.until(lambda: not daemon.ask("status")["configuration"]["ok"])
        assert scraped(port)[now, "FR"] == 1


@pytest.mark.parametrize("content", [None, b"no database"])
def test_a_file_that_cannot_be_read_is_refused_with_status_2(tmp_path, content):
    file = tmp_path / "geo.mmdb"
    if content is not None:
        file.write_bytes(content)
    daemon = Daemon(tmp_path, more=f'[geo]\ndatabase = "{file}"')
    done = daemon.command("run")
    assert done.returncode == 2
    assert f"geo.database: {file}: " in done.stderr


def test_a_damaged_file_raises_nothing(tmp_path):
    file = database(tmp_path / "geo.mmdb")
    whole = file.read_bytes()
    end = whole.rindex(b"\xab\xcd\xefMaxMind.com")
    told = 0
    for at in range(0, end, 7):
        (tmp_path / "bad.mmdb").write_bytes(
            whole[:at] + b"\xff" * min(40, end - at) + whole[min(at + 40, end) :]
        )
        place = Databases([str(tmp_path / "bad.mmdb")]).place("198.51.100.7")
        told += place != Place("NL", 64496, "Example Net")
    assert told


def test_an_address_of_the_other_family_and_of_no_net_is_nowhere(tmp_path):
    databases = Databases([str(database(tmp_path / "geo.mmdb"))])
    assert databases.place("192.0.2.1") == NOWHERE
    assert databases.country("2001:db8::1") == "NL"
    assert databases.country("not an address") is None
