"""A list of 100 000 nets read from its file.

    python benchmarks/list_files.py [NETS]

Baseline: the same nets written into the configuration itself, which checks each as it checks any value.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from guard.config import load, read_list

T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what `work` returns and the best of three runs, in seconds."""
    best, result = float("inf"), work()
    for _ in range(3):
        began = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - began)
    return result, best


def nets(count: int) -> list[str]:
    """Return addresses, IPv4 and IPv6 nets in the proportion of a block list."""
    made = random.Random(1)
    hosts = [
        f"{made.randrange(11, 223)}.{made.randrange(256)}.{made.randrange(256)}.{n % 256}"
        for n in range(count // 2)
    ]
    wide = [f"{made.randrange(11, 223)}.{made.randrange(256)}.{n % 256}.0/24" for n in range(count // 4)]
    return hosts + wide + [f"2001:db8:{n:x}::/48" for n in range(count // 4)]


def main() -> None:
    """Write, read, print."""
    made = nets(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
    with tempfile.TemporaryDirectory() as folder:
        file, inline = Path(folder, "nets"), Path(folder, "inline.toml")
        file.write_text("\n".join(made))
        inline.write_text(f"lists.allow = {made!r}")
        content, seconds = timed(lambda: read_list(str(file), "allow"))
        _, baseline = timed(lambda: load(inline))
    print(
        f"{len(content.nets)} nets: read from a file in {seconds:.2f} s, from the configuration itself in {baseline:.2f} s "
        f"({baseline / seconds:.0f} times as long)"
    )


if __name__ == "__main__":
    main()
