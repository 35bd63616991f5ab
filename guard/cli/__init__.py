"""The command line: `mailward`.  Exit status 0 done, 1 not so, 2 wrong use or configuration, 3 the world refused.

One command a file.  A command is imported when it is called, and imports what it needs when it needs it: `replay`
starts in a tenth of a second because it never loads what only the daemon uses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn

import cyclopts

from guard.cli._failure import DONE, WRONG, Failure

_COMMANDS: Final = {
    "run": ("guard.cli.run:run", "Guard this host: read its logs, count, ban."),
    "replay": ("guard.cli.replay:replay", "Play captured logs through the engine, on the logs' own time."),
    "parse": ("guard.cli.parse:parse", "Show what each line means, without counting."),
    "explain": ("guard.cli.explain:explain", "Say why a line counts or not, or what is known of an address."),
    "bans": ("guard.cli.bans:bans", "List the bans in force."),
    "ban": ("guard.cli.bans:ban", "Ban a net by hand."),
    "unban": ("guard.cli.bans:unban", "End the bans of a net."),
    "allow": ("guard.cli.lists:allow", "List, add or remove nets that are never banned."),
    "deny": ("guard.cli.lists:deny", "List, add or remove nets that are always banned."),
    "origins": ("guard.cli.origins:origins", "Show where the bans in force come from."),
    "status": ("guard.cli.status:status", "Show how the daemon does."),
    "top": ("guard.cli.top:top", "List the accounts that send most, and that are guessed at most."),
    "check": ("guard.cli.check:check", "Check the configuration."),
    "doctor": ("guard.cli.doctor:doctor", "Look at what makes a guard useless on this host."),
}
_STDIN: Final = "/dev/stdin"


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415 - 30 ms that only --version needs

    return metadata.version("mailward")


def _app(words: Sequence[str]) -> cyclopts.App:
    app = cyclopts.App(
        name="mailward",
        help="Counts every failed login on a mail host exactly once, and bans who guesses passwords.",
        help_format="plaintext",
        version=_version,
        result_action="return_value",
    )
    for name, (place, text) in _COMMANDS.items():
        app.command(place, name=name, help=None if name in words[:1] else text)  # its own docstring says more
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; never a traceback for what the world or the user does."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    words = [_STDIN if word == "-" else word for word in words]  # a lone dash is no option
    try:
        status = _app(words)(words, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        return _say(WRONG, f"{' '.join(str(error).split())} (see mailward --help)")
    except Failure as failure:
        return _say(failure.status, str(failure))
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return DONE
    except KeyboardInterrupt:
        return 130
    return status if isinstance(status, int) else DONE


def script() -> NoReturn:
    """Be the command `mailward`; leave without taking a million objects apart first."""
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _say(status: int, text: str) -> int:
    for line in text.splitlines():
        print(f"mailward: {line}", file=sys.stderr)
    return status
