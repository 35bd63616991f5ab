"""A live run that is killed again and again: a real daemon, a log that is written and rotated meanwhile.

    whole = live_run(folder / "whole", log, kills=0)
    killed = live_run(folder / "killed", log, kills=50, store="redis://127.0.0.1:6390/0", more="[fleet]...")
    assert killed == whole

`log` is bytes of whole lines whose stamps lie within the last hour (`captured` makes them of a capture): what is older
is clamped to an hour before the clock, and then depends on the moment at which it is read.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.daemon import Daemon, stamp
from tests.replay.cases import clock, content, expected

PIECES: Final = 40  # writes between two kills
SECONDS: Final = 1.6  # that these take: a start takes about one
KEPT: Final = 300  # rotated files: what is deleted before a daemon has come up is lost, and proves nothing
EARLY: Final = 0.2  # of the kills come while the daemon starts
PATIENCE: Final = 120.0  # seconds


class Outcome(NamedTuple):
    """What a run came to."""

    report: dict[str, Any]
    bans: list[dict[str, Any]]  # in force at the end


def captured(*cases: str, until: float) -> bytes:
    """Return captured logs one after the other, with their stamps moved so that the last line is of `until`."""
    lines: list[tuple[float, bytes]] = []
    end = 0.0
    for case in cases:
        (log,) = expected(case)["logs"]
        read = clock(case)
        own = content(case, log).splitlines(keepends=True)
        first = read.read(own[0][:15].decode())
        lines += [(end + max(0.0, read.read(line[:15].decode()) - first), line) for line in own]
        end = max(at for at, _ in lines) + 1.0
    late = until - max(at for at, _ in lines)
    return b"".join(stamp(at + late).encode() + line[15:] for at, line in lines)


class Writer(threading.Thread):
    """Appends `log` in pieces that end anywhere, a share of it whenever told to, and rotates at the ends of lines."""

    def __init__(self, path: Path, log: bytes, shares: int, seed: int, rotation: str) -> None:
        super().__init__(daemon=True)
        self._rotate = ROTATIONS[rotation]
        self.rotations = 0
        self._path = path
        self._log = log
        self._shares = shares
        self._dice = random.Random(seed)
        self._turn = threading.Semaphore(0)

    def go_on(self) -> None:
        """Write one share more."""
        self._turn.release()

    def run(self) -> None:
        size = len(self._log)
        done = 0
        for share in range(1, self._shares + 1):
            self._turn.acquire()
            end = size * share // self._shares
            places = sorted({*(self._dice.randrange(done, end + 1) for _ in range(PIECES)), end})
            rotate = {
                self._dice.choice(places): self._dice.choice(self._rotate)
                for _ in range(self._dice.randrange(3))
            }
            for place in places:
                if place in rotate:  # a rotation never cuts a line: syslog daemons write whole ones
                    line = self._log.rfind(b"\n", 0, place) + 1
                    if line > done:
                        self._append(self._log[done:line])
                        done = line
                    if self._log[:done].endswith(b"\n"):
                        rotate[place](self._path)
                        self.rotations += 1
                self._append(self._log[done:place])
                done = max(done, place)
                time.sleep(SECONDS / PIECES * self._dice.random() * 2)

    def _append(self, data: bytes) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        while data:
            data = data[os.write(fd, data) :]
        os.close(fd)


def _shift(path: Path) -> Path:
    for number in range(KEPT, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    return path.with_name(f"{path.name}.1")


def _rename(path: Path) -> None:
    """As logrotate does it with `nocreate`: for a moment there is no file."""
    first = _shift(path)
    if path.exists():
        path.rename(first)


def _create(path: Path) -> None:
    """As logrotate does it with `create`."""
    _rename(path)
    path.touch()


def _copytruncate(path: Path) -> None:
    if path.exists():
        shutil.copyfile(path, _shift(path))
        os.truncate(path, 0)


# What one log is rotated by: a host has one manner.
ROTATIONS: Final[dict[str, tuple[Callable[[Path], None], ...]]] = {
    "rename": (_rename, _create),
    "copytruncate": (_copytruncate,),
}


def live_run(
    folder: Path,
    log: bytes,
    *,
    kills: int,
    seed: int = 1,
    rotation: str = "rename",
    store: str = "",
    more: str = "",
    backend: str = "none",
    within: Sequence[str] = (),
    look: Callable[[], object] = lambda: None,
) -> Outcome:
    """Have a daemon read `log` while it is written, kill it -9 at `kills` random moments, and return what it came to.

    `rotation` is a key of ROTATIONS, `store` the URL of another store than SQLite, `more` TOML for the configuration; `look` is called while the last
    daemon still runs.
    """
    folder.mkdir()
    dice = random.Random(seed)
    lines = log.count(b"\n")
    daemon = Daemon(folder, within=within, backend=backend, more=more, store=store, source='from = "start"')
    writer = Writer(daemon.log, log, kills + 1, seed, rotation)
    with daemon:
        daemon.until(lambda: daemon.ask("report")["lines"]["read"] == 0)
        daemon.has_saved()  # before, nobody has promised anything
        writer.start()
        for _ in range(kills):
            writer.go_on()
            if dice.random() > EARLY:
                daemon.until(lambda: daemon.ask("status"), PATIENCE)
            time.sleep(dice.random() * SECONDS)
            daemon.kill()
            time.sleep(dice.random() ** 4)  # now and then a second without a daemon
            daemon.launch()
        daemon.until(lambda: daemon.ask("status")["ready"], PATIENCE)
        writer.go_on()
        writer.join()
        daemon.until(lambda: daemon.ask("report")["lines"]["read"] >= lines, PATIENCE)
        time.sleep(0.3)  # nothing comes twice either
        report = daemon.ask("report")
        bans = sorted(daemon.ask("bans")["bans"], key=lambda ban: str(ban["net"]))
        look()
        print(f"{lines} lines, {writer.rotations} rotations, {kills} kills")
    return Outcome(report, [{key: ban[key] for key in ban if key != "left"} for ban in bans])
