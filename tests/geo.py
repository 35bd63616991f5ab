"""A small MaxMind DB file, made as a test needs it: nets of the documentation ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

NETS = {
    "198.51.100.0/24": ("NL", 64496, "Example Net"),
    "203.0.113.0/24": ("DE", 64497, "Other Net"),
    "2001:db8::/32": ("NL", 64496, "Example Net"),
}


def database(path: Path, nets: dict[str, tuple[str, int, str]] | None = None) -> Path:
    """Write a file that holds countries and networks; return its path."""
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="Test")
    for net, (country, asn, name) in (NETS if nets is None else nets).items():
        record: dict[str, Any] = {
            "country": {"iso_code": country},
            "autonomous_system_number": asn,
            "autonomous_system_organization": name,
        }
        writer.insert_network(IPSet([net]), record)
    made = path.with_suffix(".new")
    writer.to_db_file(str(made))
    made.rename(path)
    return path
