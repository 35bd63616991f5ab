"""The host names of the allow list and the addresses that they stand for, looked up again by their TTL.

/etc/hosts goes before DNS, as on most hosts.  A name that does not resolve keeps its last good addresses, also over
a restart: a name server that fails must not shut an office out.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from guard import addresses
from guard.log import logger

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

NAME_TABLE: Final = "name"
KINDS: Final = ("A", "AAAA")
FLOOR: Final = (
    30.0  # seconds: a name is not looked up more often, whatever its TTL; and this often while it fails
)
CEILING: Final = 3600.0
PATIENCE: Final = 5.0  # seconds for all the name servers together
AT_ONCE: Final = 16  # look-ups under way
MOST: Final = 64  # addresses of a kind that one name may stand for
HOSTS: Final = Path("/etc/hosts")


class Name:
    """One host name.  `at` and `ttl` are of the last good answer, in seconds; `at` is 0.0 before there is one."""

    __slots__ = ("at", "due", "found", "trouble", "ttl")

    def __init__(self) -> None:
        self.found: dict[str, tuple[str, ...]] = {}  # kind -> nets of one address
        self.at = 0.0
        self.ttl = 0.0
        self.trouble = ""  # why it is not resolved at present, in words
        self.due = 0.0  # monotonic

    @property
    def nets(self) -> tuple[str, ...]:
        """The addresses as nets."""
        return tuple(net for kind in KINDS for net in self.found.get(kind, ()))


def system_resolver() -> Resolver:
    """Return a resolver that asks the name servers of /etc/resolv.conf as it is now."""
    from dns.asyncresolver import Resolver  # noqa: PLC0415 - a fifth of a second that a host without names saves

    return Resolver()


class Names:
    """Owns the names.  `saved` are their rows (key, text) in the state; `unsaved` goes to the next checkpoint."""

    def __init__(
        self,
        saved: Iterable[tuple[str, str]] = (),
        *,
        resolver: Callable[[], Resolver] = system_resolver,
        hosts: Path = HOSTS,
        floor: float = FLOOR,
        ceiling: float = CEILING,
        patience: float = PATIENCE,
    ) -> None:
        self.unsaved: list[tuple[str, str, str | None]] = []
        self._saved = dict(saved)
        self._resolver = resolver
        self._hosts = hosts
        self._floor = floor
        self._ceiling = ceiling
        self._patience = patience
        self._names: dict[str, Name] = {}
        self._wake = asyncio.Event()

    def want(self, names: Iterable[str], *, again: bool = False) -> None:
        """Resolve these names from now on, with `again` all of them at once, and forget every other."""
        wanted = dict.fromkeys(names)
        for name in [name for name in {**self._names, **self._saved} if name not in wanted]:
            self._names.pop(name, None)
            self._saved.pop(name, None)
            self.unsaved.append((NAME_TABLE, name, None))
        for name in wanted:
            if name not in self._names:
                self._names[name] = _loaded(self._saved.pop(name, None))
            elif again:
                self._names[name].due = 0.0
        self._wake.set()

    def __getitem__(self, name: str) -> Name:
        return self._names[name]

    def nets(self) -> tuple[str, ...]:
        """Return the addresses of all names as nets."""
        return tuple(net for name in self._names.values() for net in name.nets)

    async def begin(self) -> None:
        """Look up once what has no address yet; what takes too long is told, and tried again by `run`."""
        new = [name for name, known in self._names.items() if not known.nets]
        try:
            async with asyncio.timeout(self._patience + 1):
                await self._look_up(new)
        except TimeoutError:
            logger().warning("lists.allow: not every name is resolved yet", names=len(new))

    async def run(self, changed: Callable[[], None]) -> None:
        """Look up what is due until cancelled; `changed` is called where that gives other addresses."""
        while True:
            self._wake.clear()
            now = time.monotonic()
            due = [name for name, known in self._names.items() if known.due <= now]
            if due:
                before = self.nets()
                await self._look_up(due)
                if self.nets() != before:
                    changed()
                continue
            pause = min((known.due - now for known in self._names.values()), default=None)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look_up(self, names: Sequence[str]) -> None:
        if not names:
            return
        local = await asyncio.to_thread(_read_hosts, self._hosts, frozenset(names))
        resolver: Resolver | None = None
        why = ""
        try:
            resolver = self._resolver()
            resolver.lifetime = self._patience
        except Exception as error:  # noqa: BLE001 - resolv.conf is missing, empty or torn: told with each name
            why = str(error) or type(error).__name__
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with slots:
                if name in local:
                    self._take(name, local[name], self._floor, [])
                elif resolver is None:
                    self._take(name, {}, self._floor, [why])
                else:
                    self._take(name, *await _ask_both(resolver, name))

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one(name))

    def _take(
        self, name: str, found: dict[str, tuple[str, ...]], ttl: float, troubles: Sequence[str]
    ) -> None:
        """Take what a look-up gave: `found` holds the kinds that were answered, `troubles` why others were not."""
        known = self._names.get(name)
        if known is None:  # no longer wanted
            return
        before = known.nets
        ttl = max(self._floor, min(ttl, self._ceiling))
        if any(found.values()):
            known.found |= {kind: nets[:MOST] for kind, nets in found.items()}
            known.at, known.ttl = time.time(), ttl
            if any(len(nets) > MOST for nets in found.values()):
                troubles = [*troubles, f"it has more than {MOST} addresses: the others are left out"]
            row = json.dumps({"found": known.found, "at": known.at, "ttl": known.ttl})
            self.unsaved.append((NAME_TABLE, name, row))
        elif not troubles:
            troubles = ["it has no address"]
        trouble = "; ".join(dict.fromkeys(troubles))
        known.due = time.monotonic() + (self._floor if trouble else ttl)
        if trouble and not known.trouble:
            logger().warning(
                "lists.allow: a name does not resolve: its last addresses stay",
                name=name, reason=trouble, addresses=known.nets,
            )  # fmt: skip
        elif known.trouble and not trouble:
            logger().info("lists.allow: a name resolves again", name=name, addresses=known.nets)
        elif known.nets != before:
            logger().info("lists.allow: a name has other addresses", name=name, addresses=known.nets)
        known.trouble = trouble


async def _ask_both(resolver: Resolver, name: str) -> tuple[dict[str, tuple[str, ...]], float, list[str]]:
    """Ask for both kinds of address; return what was answered, its TTL in seconds, and why not all was."""
    found: dict[str, tuple[str, ...]] = {}
    troubles: list[str] = []
    ttl = CEILING
    answers = await asyncio.gather(*(_ask(resolver, name, kind) for kind in KINDS), return_exceptions=True)
    for kind, answer in zip(KINDS, answers, strict=True):
        if isinstance(answer, Exception):  # also one of the library's own defects must not end the guard
            troubles.append(_words(answer))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found[kind] = answer[0]
            ttl = min(ttl, answer[1])
    return found, ttl, troubles


async def _ask(resolver: Resolver, name: str, kind: str) -> tuple[tuple[str, ...], float]:
    # A name without a dot is completed by the search list of resolv.conf, as the system does it.
    answer: Any = await resolver.resolve(name, kind, raise_on_no_answer=False, search="." not in name)
    nets = {addresses.network(record.address) for record in answer.rrset or ()}
    return tuple(sorted(nets)), float(answer.chaining_result.minimum_ttl)  # the least of a chain of CNAMEs


def _words(error: Exception) -> str:
    kind = type(error).__name__
    known = {
        "NXDOMAIN": "there is no such name (NXDOMAIN)",
        "LifetimeTimeout": "no name server answers",
        "NoNameservers": "every name server fails (SERVFAIL or refused)",
    }
    return known.get(kind, f"{kind}: {error}"[:200])


def _loaded(text: str | None) -> Name:
    name = Name()
    if text is not None:
        values = json.loads(text)
        name.found = {kind: tuple(nets) for kind, nets in values["found"].items()}
        name.at, name.ttl = values["at"], values["ttl"]
    return name


def _read_hosts(path: Path, names: frozenset[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return what hosts(5) says of `names`: name -> kind -> nets."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        address, *called = line.partition("#")[0].lower().split() or [""]
        for name in names.intersection(name.rstrip(".") for name in called):
            try:
                net = addresses.network(address.partition("%")[0])
            except ValueError:
                continue
            kinds = found.setdefault(name, dict.fromkeys(KINDS, ()))
            kind = KINDS[":" in net]
            kinds[kind] = tuple(dict.fromkeys((*kinds[kind], net)))
    return found
