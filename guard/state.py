"""What a restart needs, as rows of (table, key, JSON): only what changed since the last call.

The rows of one call and the positions of the sources belong into one transaction: after a kill at any moment the
sources deliver again what came after them, and the counts are those of an uninterrupted run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from guard.bans import Active, Bans, Offender, dump_ban, load_ban
from guard.bounded import Bounded, Entry
from guard.rules._window import Window
from guard.rules.brute_force import BruteForce
from guard.sessions import Sessions
from guard.sessions._client import Client
from guard.sessions._host import Host, Smtpd
from guard.sessions._session import Session
from guard.stats import Counter, Stats
from guard.tally import Source, Tally

Row = tuple[str, str, str | None]

_COUNTERS: Final = (
    "auth_failures", "auth_revoked", "auth_successes", "auth_unjudged", "bans", "findings", "ignored", "lines", "parse", "told", "unbans",
    "unparsed", "witness_suppressed",
)  # fmt: skip


_text: Final = json.JSONEncoder(separators=(",", ":")).encode


class Keeper:
    """Knows every part of the engine that outlives it."""

    __slots__ = ("_bans", "_brute", "_history", "_sessions", "_small", "_stats", "_tally")

    def __init__(self, sessions: Sessions, tally: Tally, brute: BruteForce, bans: Bans, stats: Stats) -> None:
        self._sessions = sessions
        self._tally = tally
        self._brute = brute
        self._bans = bans
        self._stats = stats
        self._small: dict[tuple[str, str], str] = {}  # rows that are compared instead of tracked
        self._history = 0

    def changes(self, extra: dict[str, object]) -> list[Row]:
        """Return the rows that changed since the last call; `extra` is the engine's own, by key."""
        rows: list[Row] = []
        ledger = self._sessions.ledger
        small: dict[tuple[str, str], Entry] = {}
        _changed(ledger.clients, rows)
        for name, host in ledger.books():
            small["host", name] = host
            _changed(host.sessions, rows)
            _changed(host.smtpd, rows)
        for source, book in ledger.sogo.items():
            small["sogo", source] = book
        _changed(self._tally.sources, rows)
        _changed(self._brute.windows, rows)
        _changed(self._bans.offenders, rows)
        for net in self._bans.changed:
            active = self._bans.active.get(net)
            rows.append(("ban", net, None if active is None else _text(active.dump())))
        self._bans.changed.clear()
        for n, ban in enumerate(self._bans.history[self._history :], self._history):
            rows.append(("history", str(n), _text(dump_ban(ban))))
        self._history = len(self._bans.history)
        texts = {row: _text(entry.dump()) for row, entry in small.items()}
        for name in _COUNTERS:
            counter: Counter = getattr(self._stats, name)
            texts["counter", name] = _text([[list(labels), n] for labels, n in counter.values.items()])
        for key, value in extra.items():
            texts["engine", key] = _text(value)
        for row, text in texts.items():
            if self._small.get(row) != text:
                self._small[row] = text
                rows.append((row[0], row[1], text))
        return rows

    def restore(self, rows: Iterable[tuple[str, str, str]]) -> dict[str, Any]:
        """Take the rows of the saved state; return the engine's own."""
        extra: dict[str, Any] = {}
        history: dict[int, list[Any]] = {}
        hosts: list[tuple[str, Any]] = []
        ledger = self._sessions.ledger
        for table, key, text in rows:
            values = json.loads(text)
            kind, _, name = table.partition(" ")
            if kind == "session":
                _restored(ledger.book(name).sessions, key, Session("", 0.0), values)
            elif kind == "smtpd":
                _restored(ledger.book(name).smtpd, key, Smtpd(""), values)
            elif kind == "client":
                _restored(ledger.clients, key, Client(), values)
            elif kind == "source":
                _restored(self._tally.sources, key, Source(0.0), values)
            elif kind == "window":
                _restored(self._brute.windows, key, Window(), values)
            elif kind == "offender":
                _restored(self._bans.offenders, key, Offender(0, 0.0), values)
            elif kind == "ban":
                active = Active(load_ban(values[0]), [], [])
                active.load(values)
                self._bans.restore(active)
            elif kind == "host":
                hosts.append((key, values))
            elif kind == "sogo":
                ledger.sogo_book(key).load(values)
            elif kind == "counter" and key in _COUNTERS:
                counter: Counter = getattr(self._stats, key)
                counter.values = {tuple(labels): n for labels, n in values}
            elif kind == "history":
                history[int(key)] = values
            elif kind == "engine":
                extra[key] = values
        for name, values in hosts:
            self._host(name, values)
        self._bans.history = [load_ban(history[n]) for n in sorted(history)]
        self._history = len(self._bans.history)
        return extra

    def _host(self, name: str, values: list[Any]) -> None:
        ledger = self._sessions.ledger
        host: Host = ledger.book(name)
        host.load(values)
        if host.has_postfix and host not in ledger.orphans:
            ledger.orphans.append(host)
        if host.verbose or host.faceless:
            ledger.dovecot_speaks = True


def _changed(entries: Bounded[Any], rows: list[Row]) -> None:
    for key in entries.changed:
        entry = entries.peek(key)
        rows.append((entries.table, key, None if entry is None else _text(entry.dump())))
    entries.changed.clear()


def _restored(entries: Bounded[Any], key: str, entry: Entry, values: list[Any]) -> None:
    entry.load(values)
    entries.restore(key, entry)
