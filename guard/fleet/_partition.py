"""How far a partition's stream was read, and what of it is new to us."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Final

from guard.fleet import BODY, Told
from guard.fleet._scripts import REMEMBERED

NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)  # of a node
ID: Final = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)
BACK: Final = 60_000  # ms read again after a break: a failover may have moved the ids back, and known numbers are dropped

Fields = Mapping[bytes, bytes]


class Partition:
    """One stream, as this node has read it.  `text` is what is saved beside what the events changed."""

    def __init__(self, text: str | None) -> None:
        self.cursor = ""  # read what comes after this id
        self.lost = 0  # events that were trimmed before we read them, and what nobody can read
        self._id = ""  # of the last event read
        self._n = 0  # its number in the partition; 0: none was read
        self._seen: dict[str, int] = {}  # node -> its last number, the latest heard at the end
        try:
            saved = json.loads(text or "{}")
            if ID.fullmatch(saved["id"]):
                self._id, self._n = saved["id"], int(saved["n"])
                self._seen = {str(node): int(seq) for node, seq in saved["seen"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            self._id = ""  # begin as a new node does

    @property
    def text(self) -> str:
        """What `__init__` takes."""
        return json.dumps({"id": self._id, "n": self._n, "seen": self._seen})

    def start(self, since: float) -> None:
        """Read on from a little before the last event; from `since` (epoch seconds, the server's) where there is none."""
        first = int(self._id.partition("-")[0]) - BACK if self._id else int(since * 1000)
        self.cursor = f"{max(first, 0)}-0"

    def take(self, entry: bytes, fields: Fields | None, own: str) -> Told | None:
        """Return what the entry tells; None where we know it, wrote it, or cannot read it."""
        self.cursor = self._id = entry.decode("ascii")
        try:
            if fields is None:
                raise ValueError("deleted")  # noqa: TRY301 - as any other that cannot be read
            n, told = int(fields[b"n"]), _told(fields)
        except (ValueError, KeyError):
            self.lost += 1
            return None
        if self._n and n > self._n + 1:
            self.lost += n - self._n - 1
        self._n = n
        if told.node == own or told.seq <= self._seen.get(told.node, -1):
            return None
        self._seen.pop(told.node, None)
        self._seen[told.node] = told.seq
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return told


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def number(text: str | bytes) -> float:
    """Return a moment.  Raises `ValueError`, also for what is none."""
    value = float(text)
    if math.isnan(value):
        raise ValueError("not a number")
    return value


def _told(fields: Fields) -> Told:
    told = Told(
        _text(fields[b"node"]),
        int(fields[b"seq"]),
        _text(fields[b"net"]),
        _text(fields[b"register"]),
        fields[b"live"] == b"1",
        number(fields[b"at"]),
        number(fields[b"ends"]),
        _text(fields[b"body"]),
    )
    return _sane(told)


def _sane(told: Told) -> Told:
    """Return what a link may have sent.  Raises `ValueError` for what none did."""
    if not NAME.fullmatch(told.node) or math.isinf(told.at) or max(len(told.body), len(told.register)) > BODY:
        raise ValueError(told.node)
    return told


def register(name: bytes, value: bytes) -> Told | None:
    """Return a register as the script keeps it; None for what is none."""
    try:
        live, at, ends, node, body = value.split(b"|", 4)
        text = _text(name)
        net = text.rpartition(" ")[2]
        return _sane(Told(_text(node), 0, net, text, live == b"1", number(at), number(ends), _text(body)))
    except ValueError:
        return None
