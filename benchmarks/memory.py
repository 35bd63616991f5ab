"""Memory of `mailward replay -` while a log of 2 GB streams through: it must not grow with the log.

    python benchmarks/memory.py [GIGABYTES]     # default 2

The stream repeats a log of benchmarks/generate.py (10 % failures, over 100 000 addresses), one day later each time.
Printed: resident memory after each tenth; baseline is the memory at half, when every map is warm.
"""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import generate  # type: ignore[import-not-found]  # beside this script

LINES = 1_000_000


def resident(pid: int) -> float:
    """Return a process's resident memory in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    """Stream, sample, print."""
    wanted = float(sys.argv[1] if len(sys.argv) > 1 else 2) * 1e9
    text = io.StringIO()
    generate.write(text, LINES, 0.1)
    block = text.getvalue().encode()
    day = f"{generate.START:%b} {generate.START.day:2d} ".encode()
    mailward = str(Path(sys.executable).with_name("mailward"))
    child = subprocess.Popen([mailward, "replay", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert child.stdin is not None
    written = n = 0
    samples: list[float] = []
    while written < wanted:
        at = generate.START + timedelta(days=n)
        child.stdin.write(block.replace(day, f"{at:%b} {at.day:2d} ".encode()))
        written += len(block)
        n += 1
        while written >= wanted * (len(samples) + 1) / 10 and len(samples) < 10:
            samples.append(resident(child.pid))
    child.stdin.close()
    if child.wait():
        sys.exit("mailward failed")
    print(
        f"{written / 1e9:.2f} GB, {n * LINES} lines: resident MiB after each tenth: "
        f"{' '.join(f'{mib:.0f}' for mib in samples)}; last / half {samples[-1] / samples[4]:.2f}"
    )


if __name__ == "__main__":
    main()
