"""Our table in the kernel: made, made again in place, and read.

One thread at a time, but for `held`, which reads beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guard.firewall import FirewallError, nft_dump, nft_outline
from guard.firewall.differences import paced
from guard.firewall.libnftables import NOT_PERMITTED, Library
from guard.firewall.nets import read_net
from guard.firewall.nft_outline import INTERVAL, OWNED
from guard.firewall.ruleset import hash_set, sets_of
from guard.model import Ban

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from guard.firewall.nets import Net
    from guard.firewall.nft_outline import Outline
    from guard.firewall.ruleset import Ruleset, Width
    from guard.model import Unban

_TRIES: Final = 5


class Table(Library):
    """`inet <table>` as `ruleset` has it; `shape` is how the kernel tells our structure while it is whole."""

    def __init__(self, ruleset: Ruleset) -> None:
        super().__init__(ruleset.table)
        self.shape: dict[str, object] = {}
        self._ruleset = ruleset

    def outline(self) -> Outline | None:
        """Return the table's structure, None where it is gone.  Raises FirewallError."""
        try:
            found = nft_outline.outline(self.name)
        except OSError as error:
            raise self.failure(str(error)) from None
        if found and found.flags & OWNED:
            raise FirewallError(f"another process owns the table inet {self.name} (nft list tables): end it")
        return found

    def adopt(self) -> None:
        """Make our structure, and take what is there already: bans of widths of an earlier configuration, too."""
        outline = self.outline()
        self._ruleset.widths |= {width for width, _ in sets_of(outline)}
        self.make(outline)

    def run(self, commands: Sequence[str]) -> None:
        """Do `commands` or raise FirewallError."""
        said = self.transact(commands)
        if said:
            raise self.failure(said)

    def differs(self, outline: Outline | None) -> set[str]:
        """Return the parts of our structure that an outline shows otherwise than we made them, or not at all."""
        shape = self._ruleset.shape(outline)
        sets = {f"set {hash_set(width)}" for width in self._ruleset.widths}
        parts = {part for part in self.shape | shape if self.shape.get(part) != shape.get(part)}
        return parts | sets - shape.keys()

    def make(self, outline: Outline | None, spare: Iterable[Width] = (), more: Sequence[str] = ()) -> bool:
        """Make our structure in one transaction, and learn how the kernel tells it; return whether `more` is done.

        `outline` is what there was before; the sets of `spare` widths go.
        """
        stale = [hash_set(width) for width in spare if outline and hash_set(width) in outline.sets]
        rules = self._ruleset
        fits = rules.fits(outline)
        done = bool(more)
        for _ in range(_TRIES):
            before = nft_dump.generation()
            commands = rules.structure() + rules.deletions(stale)
            said = self.transact([*commands, *more]) if fits else "a set of ours is of another type"
            if said and more:
                done, more = False, ()
                said = self.transact(commands) if fits else said
            if said and outline and not any(word in said for word in NOT_PERMITTED):
                carried = self._carried(outline)
                commands = rules.replacement() + rules.structure() + rules.additions(carried, 0.0)
                said = self.transact(commands)
            if said:
                raise self.failure(said)
            self.shape = rules.shape(self.outline())
            if nft_dump.generation() == before + 1:
                break  # nobody else was at work: what is there is what we made
            fits, stale, more = True, [], ()
        return done

    def _carried(self, outline: Outline) -> list[tuple[Net, Ban | Unban]]:
        """Return the bans in our table, whatever its shape, as of the time 0; their widths are made with the rest."""
        held: dict[str, float] = {}
        for width, made in sets_of(outline):
            if not made.flags & INTERVAL:
                held |= self._held(width, lambda: 0.0)
                self._ruleset.widths.add(width)
        return [
            (read_net(text), Ban(text, 0.0, max(seconds, 1.0), "carried")) for text, seconds in held.items()
        ]

    def held(self, clock: Callable[[], float]) -> dict[str, float]:
        """Return net -> end of all that our sets hold; nothing of a set that is gone."""
        held: dict[str, float] = {}
        for width in sorted(self._ruleset.widths):
            held |= self._held(width, clock)
        return held

    def _held(self, width: Width, clock: Callable[[], float]) -> dict[str, float]:
        held: dict[str, float] = {}
        size = 4 if width.family == 4 else 16
        try:
            for key, left in paced(nft_dump.elements(self.name, hash_set(width))):
                if len(key) == size:
                    held[f"{nft_dump.address(key)}/{width.length}"] = clock() + left
        except FileNotFoundError:
            return held
        except OSError as error:
            raise FirewallError(f"the kernel does not tell what it holds: {error}") from error
        return held
