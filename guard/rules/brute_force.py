"""One client address fails too often."""

from __future__ import annotations

from typing import Final

from guard.bounded import Bounded
from guard.model import Policy
from guard.rules._window import Window

_SPAN: Final = 3600.0  # a generation shorter than this would only move entries about


class BruteForce:
    """Rule `brute_force`: one net fails `failures` times within `window`.

    Detects: password guessing from one address (or one IPv6 /64), whatever the protocol or the account, also within
    a single session.  The window slides exactly: the attempts in (newest - window, newest] count.
    Why it is bad: each guess that the server judges is a chance to be right.
    Example: 5 failures in 10 minutes; failures at 0, 500, 500, 500, 1000 and 1001 s ban, at 1001 s.
    False positives: a phone with an old password retries for hours; many users behind one address add up.  Allow such
    nets (`lists.allow`), or raise `failures`.
    Options: failures, window, ban, ban_max, forget, prefix4, prefix6.
    """

    __slots__ = ("_policy", "windows")

    name: Final = "brute_force"

    def __init__(self, policy: Policy, *, keep: bool) -> None:
        self._policy = policy
        self.windows: Bounded[Window] = Bounded(
            "window", policy.max_addresses, max(_SPAN, policy.window), keep=keep
        )

    def reconfigure(self, policy: Policy) -> None:
        """Take other numbers; the windows stay."""
        self._policy = policy

    def window(self, net: str, at: float) -> Window:
        """Return the window of a net, a new one if need be."""
        window = self.windows.get(net)
        if window is None:
            window = Window()
            self.windows.put(net, window, at)
        return window

    def feed(self, net: str, window: Window, at: float, line: str) -> bool:
        """Enter one attempt of a net; whether it is one too many: then the window is the net's no more."""
        self.windows.touch(net)
        if window.add(at, line, self._policy.window) < self._policy.failures:
            return False
        self.windows.discard(net)
        return True

    def take_back(self, net: str, at: float) -> bool:
        """Take one attempt back; whether it was in the window."""
        window = self.windows.peek(net)
        if window is None or not window.remove(at):
            return False
        self.windows.touch(net)
        if not len(window):
            self.windows.discard(net)
        return True

    def shed(self, net: str, edge: float) -> list[tuple[float, str]]:
        """Take the attempts before `edge` out of a net's window, and return them."""
        window = self.windows.peek(net)
        if window is None:
            return []
        attempts = window.shed(edge)
        self.windows.touch(net)
        if not len(window):
            self.windows.discard(net)
        return attempts
