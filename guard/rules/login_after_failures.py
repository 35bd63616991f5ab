"""A success from an address that had failed for that account: the administrator's most urgent news."""

from __future__ import annotations

from typing import Final

from guard.model import Finding, Policy, readable


class LoginAfterFailures:
    """Rule `login_after_failures`: an address logs in to an account for which it failed at least `failures` times.

    Detects: a guess that was right.
    Why it is bad: the account is the guesser's now.
    Example: three wrong passwords for alice from 198.51.100.7, then a login as alice from there.
    False positives: a person who remembers her password at the fourth try; `failures` says how many are human.
    It reports and does not ban.  Options: failures.
    """

    __slots__ = ("_policy",)

    name: Final = "login_after_failures"

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def reconfigure(self, policy: Policy) -> None:
        """Take other numbers."""
        self._policy = policy

    def judge(self, at: float, ip: str, user: str, failures: int) -> Finding | None:
        """Return the finding if an address that now logs in as `user` had failed often enough for that account."""
        if failures < self._policy.login_failures:
            return None
        text = f"{ip} logged in as {readable(user)} after {failures} failed attempts for that account"
        return Finding(at, self.name, ip, user, text)
