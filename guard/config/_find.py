"""Where this host's mail servers log: looked for where no source is configured."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from guard.config._docker import SOCKET, find_docker
from guard.config._problems import ConfigError, Problem
from guard.config._sources import UNITS, AnySource, FileTable, JournalTable, named

DEFAULT_PATH: Final = Path("/etc/mailward/mailward.toml")
SYSLOG: Final = ("/var/log/mail.log", "/var/log/maillog")
SOGO: Final = ("/var/log/sogo/sogo.log", "/var/log/sogo.log")
DAYS: Final = (
    7  # "lately": Postfix writes a few lines each time it starts, and a quiet host may do so once a week
)
PATIENCE: Final = 20.0  # seconds
PLACES: Final = ("/var/log/journal", "/run/log/journal")


class JournalError(Exception):
    """The journal is not where the mail servers log; the text says why, as a part of a sentence."""


def find_sources(root: str = "/", file: str = "") -> list[AnySource]:
    """Return where this host's mail servers log.  Raises `ConfigError` when that is nowhere.

    The journal where it can be read and they have written there lately, else the files of syslog: one of the two,
    since a host with both has every line twice.  SOGo's own file beside either.
    """
    found = [Path(root, log.lstrip("/")) for log in (*SYSLOG, *SOGO)]
    there: list[AnySource] = [FileTable(type="file", path=str(log)) for log in found if log.is_file()]
    missing = ""
    try:
        directory = journal_with_mail(root)
    except JournalError as error:
        missing = str(error)
    else:
        own = {str(path) for path in found[len(SYSLOG) :]}
        there = [source for source in there if isinstance(source, FileTable) and source.path in own]
        there.insert(0, JournalTable(type="journal", directory=directory))
    there = there or find_docker(root)
    if not there:
        looked = ", ".join(map(str, (*found, Path(root, SOCKET))))
        text = f"expected a [[source]]: none is configured, {missing}, and none of {looked} is there"
        raise ConfigError([Problem(file or str(DEFAULT_PATH), 0, "source", text)])
    return named(there)


def journal_with_mail(root: str = "/") -> str:
    """Return the directory of the journal in which the mail servers' units wrote lately; "" for this machine's own.

    Raises `JournalError`: there is none, we may not read it, or they did not write there.
    """
    places = [place for place in (Path(root, name.lstrip("/")) for name in PLACES) if place.is_dir()]
    journals = [file for place in places for file in place.glob("*/system.journal")]
    if not journals:
        raise JournalError("there is no journal")
    if not any(os.access(file, os.R_OK) for file in journals):
        raise JournalError(
            f"the journal cannot be read ({journals[0]}; put its user into the group systemd-journal)"
        )
    directory = "" if root == "/" else str(journals[0].parent.parent)
    # A template by its slice, as guard/sources/_journal_entry.py does.
    terms = [
        f"_SYSTEMD_SLICE=system-{unit.partition('@')[0]}.slice" if "*" in unit else f"_SYSTEMD_UNIT={unit}"
        for unit in UNITS
    ]
    matches = [part for term in terms for part in ("+", term)][1:]
    command = [
        "journalctl", *([f"--directory={directory}"] if directory else []), "--quiet", "--no-pager", "--lines=1",
        "--output=cat", "--output-fields=_SYSTEMD_UNIT", f"--since=-{DAYS}d", *matches,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PATIENCE
        )
    except FileNotFoundError:
        raise JournalError("there is no journalctl to read the journal with") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JournalError(f"the journal cannot be read ({error})") from None
    if not done.stdout.strip():
        raise JournalError(f"the journal has nothing of {', '.join(UNITS)} of the last {DAYS} days")
    return directory
