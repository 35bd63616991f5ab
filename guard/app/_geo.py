"""Where banned nets are: countries and networks (ASN), from MaxMind DB files (`[geo] database`).

Asked once a ban, never a line, and never by the pure core.  A file is read whole into memory: one that is overwritten
or cut while we run cannot end the process, as it could if it were mapped.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from guard.app._place import CannotRunError
from guard.log import logger
from guard.model import Action, Ban, readable

if TYPE_CHECKING:
    from maxminddb import Reader

SCHEMA: Final = "mailward.origins/1"
UNKNOWN: Final = "unknown"
_WRONG: Final = 2
_SLICE: Final = 128  # nets looked up before the loop has its turn: 128 take some 10 ms
_REMEMBERED: Final = 16_384  # answers
_TOP: Final = 100
_NAME: Final = 100  # characters of a network's name


class Place(NamedTuple):
    """Where an address is; None for what no database tells."""

    country: str | None = None  # ISO 3166-1 alpha-2
    asn: int | None = None
    name: str | None = None  # of the network


NOWHERE: Final = Place()


class Databases:
    """The files, opened.  Raises CannotRunError, naming file and remedy, where one cannot be read."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = tuple(files)
        self._readers = [_opened(file) for file in files]
        self._damaged = False
        self.place = lru_cache(_REMEMBERED)(self._place)

    def _place(self, ip: str) -> Place:
        found = NOWHERE
        for reader in self._readers:
            try:
                record = reader.get(ip)
            except Exception as error:  # noqa: BLE001 - a damaged file raises anything; an IPv4 file refuses IPv6
                if not self._damaged and not isinstance(error, ValueError):
                    self._damaged = True
                    logger().error("a geo database is damaged", files=list(self.files), error=repr(error))
                continue
            if isinstance(record, dict):
                found = _read(record, found)
        return found

    def country(self, ip: str) -> str | None:
        """Return the ISO code of an address's country; never raises."""
        return self.place(ip).country


class Geo:
    """Follows the bans in force.  `bans` counts all that were decided, `banned` those in force, by country."""

    def __init__(self, databases: Databases, bans: Iterable[Ban]) -> None:
        self.bans: Counter[str] = Counter()
        self.banned: Counter[str] = Counter()
        self._places: dict[str, Place] = {}  # of the nets in force
        self._todo: deque[Action | str] = deque()  # a net: in force from before, not decided again
        self._ready = asyncio.Event()
        self.load(databases, bans)

    def load(self, databases: Databases, bans: Iterable[Ban]) -> None:
        """Take databases, the first or others; every ban in force is looked up anew."""
        self.databases = databases
        self._places.clear()
        self.banned = Counter()
        actions = [action for action in self._todo if not isinstance(action, str)]
        self._todo = deque(ban.net for ban in bans) if databases.files else deque()
        self._todo.extend(actions if databases.files else ())
        self._ready.set()

    def take(self, actions: Sequence[Action]) -> None:
        """Take decisions; returns at once."""
        if actions and self.databases.files:
            self._todo.extend(actions)
            self._ready.set()

    async def run(self) -> None:
        """Look up what was taken, a slice at a time, until cancelled."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._todo:
                for _ in range(min(_SLICE, len(self._todo))):
                    self._do(self._todo.popleft())
                await asyncio.sleep(0)

    def place(self, net: str) -> Place:
        """Return where a banned net or an address is."""
        return self._places.get(net) or self.databases.place(net.partition("/")[0])

    def country(self, ip: str) -> str | None:
        """Return the ISO code of an address's country, where that is known."""
        return self.databases.country(ip)

    def origins(self) -> dict[str, object]:
        """Return where the bans in force come from, most bans first."""
        networks = Counter((p.asn, p.name, p.country) for p in self._places.values() if p.asn is not None)
        return {
            "schema": SCHEMA,
            "bans": len(self._places),
            "countries": [
                {"country": None if country == UNKNOWN else country, "bans": n}
                for country, n in sorted(self.banned.items(), key=lambda item: (-item[1], item[0]))
                if n
            ],
            "networks": [
                {"asn": asn, "name": name, "country": country, "bans": n}
                for (asn, name, country), n in networks.most_common(_TOP)
            ],
        }

    def _do(self, action: Action | str) -> None:
        if isinstance(action, str):
            self._enter(action)
        elif isinstance(action, Ban):
            self.bans[self._enter(action.net)] += 1
        else:
            place = self._places.pop(action.net, None)
            if place is not None:
                self.banned[place.country or UNKNOWN] -= 1

    def _enter(self, net: str) -> str:
        known = self._places.get(net)
        if known is None:
            known = self._places[net] = self.databases.place(net.partition("/")[0])
            self.banned[known.country or UNKNOWN] += 1
        return known.country or UNKNOWN


def _opened(file: str) -> Reader:
    try:
        import maxminddb  # noqa: PLC0415 - an extra that only some hosts have
    except ImportError:
        raise CannotRunError(
            _WRONG,
            "geo.database: needs the Python package maxminddb, which is not installed: pip install mailward[geo]",
        ) from None
    try:
        return maxminddb.open_database(file, maxminddb.MODE_MEMORY)
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        text = f"geo.database: {file}: {why}; expected a MaxMind DB file (.mmdb) that can be read"
        raise CannotRunError(_WRONG, text) from None


def _read(record: dict[str, Any], found: Place) -> Place:
    """Return `found`, completed by what a record says: GeoLite2's and DB-IP's keys."""
    country = record.get("country")
    code = country.get("iso_code") if isinstance(country, dict) else None
    if not (
        isinstance(code, str) and len(code) == 2 and code.isascii() and code.isalpha() and code.isupper()
    ):
        code = None
    asn, name = record.get("autonomous_system_number"), record.get("autonomous_system_organization")
    return Place(
        found.country or code,
        found.asn if found.asn is not None or type(asn) is not int else asn,
        found.name if found.name is not None or not isinstance(name, str) else readable(name)[:_NAME],
    )
