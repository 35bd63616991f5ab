"""Programs of the host: found in its own folders, fed through standard input, never through a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final, NamedTuple

from guard.firewall import FirewallError

PATIENCE: Final = 60.0  # seconds: 100,000 elements take one
_FOLDERS: Final = "/usr/sbin:/sbin:/usr/local/sbin"  # a service's PATH may lack them


class Outcome(NamedTuple):
    """How a program ended: its exit status, and what it wrote."""

    status: int
    output: str
    error: str


def find(*names: str) -> str | None:
    """Return the path of the first of `names` that this host has."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_FOLDERS}"
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def run(program: str, *arguments: str, given: str = "") -> Outcome:
    """Run a program to its end.  Raises FirewallError where it cannot be started or does not end.

    In the C locale: what it says of a failure is read.
    """
    try:
        done = subprocess.run(
            [program, *arguments],
            input=given,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise FirewallError(
            f"{program} did not end within {PATIENCE:.0f} s: something holds its lock"
        ) from None
    except OSError as error:
        raise FirewallError(f"{program} cannot be run: {error.strerror}") from None
    return Outcome(done.returncode, done.stdout, done.stderr)
