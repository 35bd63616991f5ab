"""The embedded store: one SQLite file.

Write-ahead log with ``synchronous=NORMAL``: a commit is in the kernel's hands when `save` returns, so a kill -9 of
the process loses nothing; after a power cut the file is whole, and at worst the last saves before it are missing,
together with their positions: their lines are read again.  FULL would cost an fsync per save and buy only those.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from guard.model import Action, Ban, Unban
from guard.store import State, StoreError

# One entry a schema version: what leads to it from the one before.  Never change an entry that was released.
MIGRATIONS: Final = (
    """
    CREATE TABLE row (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
    CREATE TABLE position (stream TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE history (id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, net TEXT NOT NULL,
                          value TEXT NOT NULL);
    CREATE INDEX history_at ON history (at);
    """,
    # Books of addresses have other fields: they begin anew.  Bans, repeat offenders, sessions and positions stay.
    "DELETE FROM row WHERE kind IN ('client', 'source', 'window');",
)
DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
PRUNE: Final = 3600.0  # seconds between two prunings of the history
HISTORY: Final = 200_000  # the most that is kept of it, the newest: with its evidence some 300 MB
WAIT: Final = 5.0  # seconds to wait for another process that holds the file


def _bytes(text: str) -> bytes:
    """Keys hold what attackers type: any Python string must come back as it was, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


class SqliteStore:
    """Keeps the state in the file `path` (`:memory:`: in memory), mode 0600, its directory 0700 where made here.

    A damaged file is set aside as `<path>.corrupt-<time>`, `trouble` says so, and an empty one takes its place.
    The history forgets what is older than `keep` seconds, and all but the newest `HISTORY`.
    """

    def __init__(self, path: str, *, keep: float) -> None:
        self.trouble = ""
        self._path = path
        self._keep = keep
        self._pruned = 0.0
        self._lock = threading.Lock()
        self._closed = False
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                raise StoreError(f"{path}: {error}") from error
            self.trouble = self._set_aside(error)
            with self._telling():
                self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        if self._path != ":memory:":
            self._create()
        db = sqlite3.connect(self._path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        try:
            db.text_factory = _text
            db.execute("PRAGMA journal_mode=WAL").close()
            db.execute("PRAGMA synchronous=NORMAL").close()
            _check(db)
            self._migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def _create(self) -> None:
        path = Path(self._path)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)  # SQLite gives the write-ahead log the same mode
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}") from error

    def _migrate(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self._path}: written by a newer mailward (schema {version}, this one knows {len(MIGRATIONS)})"
            )
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={number}; COMMIT;")

    def _set_aside(self, error: sqlite3.Error) -> str:
        aside = f"{self._path}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        try:
            for suffix in ("", "-wal", "-shm"):
                if Path(self._path + suffix).exists():
                    Path(self._path + suffix).rename(aside + suffix)
        except OSError as failure:
            raise StoreError(f"{self._path}: {error}, and it cannot be set aside: {failure}") from failure
        return f"{self._path}: {error}: set aside as {aside}; counts and positions start afresh"

    @contextmanager
    def _telling(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self._path}: closed")
            try:
                yield
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._telling():
            self._db.execute("BEGIN IMMEDIATE").close()
            try:
                yield self._db
                self._db.execute("COMMIT").close()
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK").close()
                raise

    def load(self) -> State:
        """Return what was saved last."""
        with self._telling():
            rows = self._db.execute("SELECT kind, key, value FROM row").fetchall()
            return State(rows, dict(self._db.execute("SELECT stream, value FROM position").fetchall()))

    def save(
        self,
        rows: Sequence[tuple[str, str, str | None]],
        positions: Mapping[str, str | None],
        actions: Sequence[Action] = (),
    ) -> None:
        """Write what changed in one transaction; a row named twice ends as its last mention says.

        Sorted: neighbours lie on one page.  300 000 rows in the order in which they changed take three times as long.
        """
        last = {(table, key): value for table, key, value in rows}
        gone = sorted((_bytes(table), _bytes(key)) for (table, key), value in last.items() if value is None)
        kept = sorted(
            (_bytes(t), _bytes(k), _bytes(value)) for (t, k), value in last.items() if value is not None
        )
        left = [(_bytes(stream),) for stream, value in positions.items() if value is None]
        stand = [(_bytes(stream), _bytes(value)) for stream, value in positions.items() if value is not None]
        with self._transaction() as db:
            db.executemany("DELETE FROM row WHERE kind = CAST(? AS TEXT) AND key = CAST(? AS TEXT)", gone)
            db.executemany(
                "REPLACE INTO row VALUES (CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT))", kept
            )
            db.executemany("DELETE FROM position WHERE stream = CAST(? AS TEXT)", left)
            db.executemany("REPLACE INTO position VALUES (CAST(? AS TEXT), CAST(? AS TEXT))", stand)
            db.executemany(
                "INSERT INTO history (at, kind, net, value) VALUES (?, ?, ?, ?)", map(_entry, actions)
            )
            if time.monotonic() - self._pruned >= PRUNE or not self._pruned:
                self._pruned = time.monotonic()
                db.execute("DELETE FROM history WHERE at < ?", (time.time() - self._keep,))
                db.execute("DELETE FROM history WHERE id <= (SELECT MAX(id) FROM history) - ?", (HISTORY,))

    def history(self, limit: int = 1000) -> list[Action]:
        """Return the latest bans and unbans, newest first."""
        with self._telling():
            found = self._db.execute(
                "SELECT kind, value FROM history ORDER BY id DESC LIMIT ?", (limit,)
            ).fetchall()
        return [_action(kind, json.loads(value)) for kind, value in found]

    def healthy(self) -> bool:
        """Can the file be read at this moment?"""
        try:
            with self._telling():
                self._db.execute("SELECT 1 FROM position LIMIT 1").close()
        except StoreError:
            return False
        return self._path == ":memory:" or Path(self._path).exists()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._db.close()


def _check(db: sqlite3.Connection) -> None:
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        error = sqlite3.DatabaseError(verdict)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _damaged(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in DAMAGED  # the low byte: the primary code


def _entry(action: Action) -> tuple[float, str, str, str]:
    kind = "ban" if isinstance(action, Ban) else "unban"
    return action.at, kind, action.net, json.dumps(action._asdict())


def _action(kind: str, fields: dict[str, object]) -> Action:
    if kind == "unban":
        return Unban(**fields)  # type: ignore[arg-type]  # what _entry wrote
    evidence = fields.pop("evidence")
    return Ban(**fields, evidence=tuple(evidence))  # type: ignore[arg-type]
