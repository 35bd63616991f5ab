"""A success from an address that had failed for that account: the administrator's most urgent news."""

from __future__ import annotations

from typing import Final

from guard.bounded import Bounded, Entry
from guard.model import Finding, Policy, readable

_SPAN: Final = 86400.0


class Account(Entry):
    """How often one address failed for one account."""

    __slots__ = ("failures", "last")

    def __init__(self) -> None:
        self.failures = 0
        self.last = 0.0

    def worth_keeping(self, at: float) -> bool:
        """Keep what is on its way to a finding."""
        return self.failures > 1 and at - self.last < _SPAN

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("failures", "last")


class LoginAfterFailures:
    """Rule `login_after_failures`: an address logs in to an account for which it failed at least `failures` times.

    Detects: a guess that was right.
    Why it is bad: the account is the guesser's now.
    Example: three wrong passwords for alice from 198.51.100.7, then a login as alice from there.
    False positives: a person who remembers her password at the fourth try; `failures` says how many are human.
    It reports and does not ban.  Options: failures.
    """

    __slots__ = ("_policy", "accounts")

    name: Final = "login_after_failures"

    def __init__(self, policy: Policy, *, keep: bool) -> None:
        self._policy = policy
        self.accounts: Bounded[Account] = Bounded("account", policy.max_accounts, _SPAN, keep=keep)

    def reconfigure(self, policy: Policy) -> None:
        """Take other numbers."""
        self._policy = policy

    def failed(self, ip: str, user: str, at: float, n: int) -> None:
        """Enter one failure (n = 1), or one taken back (n = -1)."""
        key = f"{ip} {user.lower()}"
        account = self.accounts.get(key)
        if account is None:
            if n < 0:
                return
            account = Account()
            self.accounts.put(key, account, at)
        account.failures = max(0, account.failures + n)
        account.last = at
        self.accounts.touch(key)

    def succeeded(self, ip: str, user: str, at: float) -> Finding | None:
        """Enter a success; return the finding if the address had failed often enough for that account."""
        key = f"{ip} {user.lower()}"
        account = self.accounts.peek(key)
        if account is None:
            return None
        failures = account.failures
        self.accounts.discard(key)
        if failures < self._policy.login_failures or at - account.last > _SPAN:
            return None
        text = f"{ip} logged in as {readable(user)} after {failures} failed attempts for that account"
        return Finding(at, self.name, ip, user, text)
