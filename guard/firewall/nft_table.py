"""Our table in the kernel: made, made again in place, and read.

One thread at a time, but for `held`, which reads beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guard.firewall import FirewallError, nft_dump
from guard.firewall.differences import paced
from guard.firewall.libnftables import NOT_PERMITTED, Library
from guard.firewall.nets import read_net
from guard.firewall.ruleset import LEFTOVERS, Width, bans_in, hash_set, width_of
from guard.model import Ban

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from guard.firewall.nets import Net
    from guard.firewall.ruleset import Listing, Ruleset
    from guard.model import Unban

_TRIES: Final = 5


class Table(Library):
    """`inet <table>` as `ruleset` has it; `shape` is how the kernel lists our structure while it is whole."""

    def __init__(self, ruleset: Ruleset) -> None:
        super().__init__(ruleset.table)
        self.shape: dict[str, str] = {}
        self._ruleset = ruleset

    def adopt(self) -> None:
        """Make our structure, and take what is there already: bans of widths of an earlier configuration, too."""
        listing = self.outline()
        for entry in listing:
            width = width_of(entry["set"]["name"]) if "set" in entry else None
            if width is not None:
                self._ruleset.widths.add(width)
        self.make(listing)

    def run(self, commands: Sequence[str]) -> None:
        """Do `commands` or raise FirewallError."""
        said = self.transact(commands)
        if said:
            raise self.failure(said)

    def differs(self, listing: Listing) -> set[str]:
        """Return the parts of our structure that an outline shows otherwise than we made them, or not at all."""
        shape = self._ruleset.shape(listing)
        sets = {f"set {hash_set(width)}" for width in self._ruleset.widths}
        parts = {part for part in self.shape | shape if self.shape.get(part) != shape.get(part)}
        return parts | sets - shape.keys()

    def make(self, listing: Listing, spare: Iterable[Width] = (), more: Sequence[str] = ()) -> bool:
        """Make our structure in one transaction, and learn how the kernel lists it; return whether `more` is done.

        `listing` is the outline before; sets of version 0.1 and of `spare` widths go, the bans of the first into ours.
        """
        names = {entry["set"]["name"] for entry in listing if "set" in entry}
        stale = [name for name in (*LEFTOVERS, *map(hash_set, spare)) if name in names]
        carried = self._carried() if any(name in LEFTOVERS[:2] for name in stale) else []
        rules = self._ruleset
        fits = rules.fits(listing)
        done = bool(more)
        for _ in range(_TRIES):
            before = nft_dump.generation()
            commands = rules.structure() + rules.deletions(stale) + rules.additions(carried, 0.0)
            said = self.transact([*commands, *more]) if fits else "a set of ours is of another type"
            if said and more:
                done, more = False, ()
                said = self.transact(commands) if fits else said
            if said and listing and not any(word in said for word in NOT_PERMITTED):
                carried = self._carried()
                commands = rules.replacement() + rules.structure() + rules.additions(carried, 0.0)
                said = self.transact(commands)
            if said:
                raise self.failure(said)
            self.shape = rules.shape(self.outline())
            if nft_dump.generation() == before + 1:
                break  # nobody else was at work: what is listed is what we made
            fits, stale, carried, more = True, [], [], ()
        return done

    def _carried(self) -> list[tuple[Net, Ban | Unban]]:
        """Return the bans in our table, whatever its shape, as of the time 0; their widths are made with the rest."""
        carried: dict[str, tuple[Net, Ban | Unban]] = {}
        for entry in self.whole():
            for text, seconds in bans_in(entry["set"]) if "set" in entry else ():
                try:
                    net = read_net(text)
                except ValueError:
                    continue  # no net in that set: it is of another shape
                carried[net.text] = net, Ban(net.text, 0.0, max(seconds, 1.0), "carried")
                self._ruleset.widths.add(Width(net.family, net.width))
        return list(carried.values())

    def held(self, clock: Callable[[], float]) -> dict[str, float]:
        """Return net -> end of all that our sets hold; nothing of a set that is gone."""
        held: dict[str, float] = {}
        for width in sorted(self._ruleset.widths):
            size = 4 if width.family == 4 else 16
            try:
                for key, left in paced(nft_dump.elements(self.name, hash_set(width))):
                    if len(key) == size:
                        held[f"{nft_dump.address(key)}/{width.length}"] = clock() + left
            except FileNotFoundError:
                continue
            except OSError as error:
                raise FirewallError(f"the kernel does not tell what it holds: {error}") from error
        return held
