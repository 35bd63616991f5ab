"""What counting the mail flow costs: the same log with `[exporters] mail` off and on, turn about, on one core.

    python benchmarks/traffic.py [LINES [SHARE]]     # default 1 000 000, 0.1

The log is benchmarks/generate.py's of a whole mail host, SHARE of its lines failures.  Two engines take it piece by piece
(256 KiB, as the daemon does), now one first, now the other, so that whatever else the machine does meets both.  Each is
a process of its own: in one process a run of the garbage collector looks through both engines' objects, and is charged
to the one that happens to set it off.  What counts is each one's processor time: others that wait for the same core
cost none.
Printed: lines a second of processor time of each and their ratio, by round, and the median, with that of the wall
clock beside it.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import statistics
import sys
import time
from multiprocessing.connection import Connection

import generate  # type: ignore[import-not-found]  # beside this script

import guard.engine
from guard.clock import Clock
from guard.engine import Engine
from guard.model import Policy
from guard.traffic import Traffic

PIECE = 256 * 1024
ROUNDS = 11


def engine(traffic: Traffic | None) -> Engine:
    """Return a fresh engine."""
    return Engine(Policy(), clock=Clock(year=generate.START.year, now=time.time()), traffic=traffic)


def feed(data: bytes, traffic: Traffic | None, turn: Connection) -> None:
    """Take the log, a piece at each turn; tell the lines read, and the seconds of the processor's and the wall's clock."""
    fed = engine(traffic)
    seconds = wall = 0.0
    for start in range(0, len(data), PIECE):
        turn.recv()
        piece = data[start : start + PIECE]
        at, begin = time.perf_counter(), time.process_time()
        fed.feed("mail", piece)
        seconds += time.process_time() - begin
        wall += time.perf_counter() - at
        turn.send(None)
    turn.send((fed.lines_read, seconds, wall))


def round_of(data: bytes) -> tuple[float, float, float]:
    """Return lines a second of processor time off and on, and the ratio by the wall clock."""
    fork = multiprocessing.get_context("fork")  # the log is not copied
    turns, runs = [], []
    for traffic in (None, Traffic()):
        ours, theirs = fork.Pipe()
        turns.append(ours)
        runs.append(fork.Process(target=feed, args=(data, traffic, theirs)))
        runs[-1].start()
        theirs.close()
    for n in range(-(-len(data) // PIECE)):
        for turn in turns if n % 2 else reversed(turns):
            turn.send(None)
            turn.recv()
    (lines, off, off_wall), (_, on, on_wall) = (turn.recv() for turn in turns)
    for run in runs:
        run.join()
    return lines / off, lines / on, off_wall / on_wall


def main() -> None:
    """Measure and print."""
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    share = float(sys.argv[2]) if len(sys.argv) > 2 else 0.1
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    gc.set_threshold(50_000, 20, 1000)  # as the daemon sets it
    text = io.StringIO()
    generate.write(text, lines, share, rest=generate.host)
    data = text.getvalue().encode()
    del text
    kind = "compiled" if guard.engine.__file__.endswith(".so") else "plain Python"
    print(f"{lines} lines, {len(data) / 1e6:.0f} MB, {share:.0%} failures, the core is {kind}")
    ratios, walls = [], []
    for _ in range(ROUNDS):
        off, on, wall = round_of(data)
        ratios.append(on / off)
        walls.append(wall)
        print(f"off {off:,.0f} lines/s, on {on:,.0f} lines/s, on / off {on / off:.3f}")
    print(
        f"median on / off {statistics.median(ratios):.3f} (by the wall clock {statistics.median(walls):.3f})"
    )


if __name__ == "__main__":
    main()
