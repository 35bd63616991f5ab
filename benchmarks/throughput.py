"""Lines a second of `mailward replay`, whole process on one core, against `grep -c` on the same file.

    python benchmarks/throughput.py [LINES]     # default 3 000 000

Two logs of benchmarks/generate.py: failures are 10 % and 90 % of the lines, from over 100 000 distinct addresses and
sessions.  Each pair of runs is mailward, then grep, on the same core; the medians of three pairs count.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import generate  # type: ignore[import-not-found]  # beside this script

RUNS = 3
SHARES = (0.1, 0.9)


def timed(command: list[str]) -> tuple[float, int]:
    """Return the seconds a command took and its peak memory in KiB."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out:  # not the null device, on which grep stops at the first match
        child = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = status
    if status:
        sys.exit(f"{command[0]} failed: status {status}")
    return time.perf_counter() - start, usage.ru_maxrss


def main() -> None:
    """Measure and print."""
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000_000
    mailward = str(Path(sys.executable).with_name("mailward"))
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the children inherit it: one core
    with tempfile.TemporaryDirectory() as folder:
        for share in SHARES:
            log = Path(folder) / f"mail-{share}.log"
            with log.open("w") as out:
                generate.write(out, lines, share)
            ours, theirs, peak = [], [], 0
            for _ in range(RUNS):
                seconds, memory = timed([mailward, "replay", "--format", "json", str(log)])
                ours.append(seconds)
                peak = max(peak, memory)
                theirs.append(timed(["grep", "-c", "authentication failed", str(log)])[0])
            mine, grep = statistics.median(ours), statistics.median(theirs)
            print(
                f"failures {share:.0%} of {lines} lines, {log.stat().st_size / 1e6:.0f} MB: mailward replay "
                f"{lines / mine:,.0f} lines/s ({mine:.2f} s, {peak / 1024:.0f} MiB), grep -c {lines / grep:,.0f} lines/s; "
                f"ratio of the times {mine / grep:.1f}"
            )
            log.unlink()


if __name__ == "__main__":
    main()
