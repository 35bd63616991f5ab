"""Which nets may become bans at all, and what a batch of actions comes to.

The decision layer asks the same questions (`guard.firewall.protected`) and has its own never-ban list; this is the
last door before the kernel, and it stands against what would cut the host off from the world or its administrator,
or smuggle text into a command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.firewall import Refused
from guard.firewall.nets import Net, read_net
from guard.firewall.protected import Protected
from guard.model import Ban

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.model import Unban


class Admission:
    """Admits a net as a ban, or says why not."""

    __slots__ = ("_protected",)

    def __init__(self, trusted: Sequence[str] | Protected = ()) -> None:
        """Take what is protected, or only the nets of `lists.trusted`; raises ValueError for one that is no net."""
        self._protected = trusted if isinstance(trusted, Protected) else Protected(trusted)

    def sort_out(
        self, actions: Sequence[Ban | Unban], now: float
    ) -> tuple[list[tuple[Net, Ban | Unban]], list[Refused]]:
        """Return the last action on each net, without bans that ended by `now`; and the refused actions."""
        protected = self._protected
        protected.look()
        last: dict[str, tuple[Net, Ban | Unban]] = {}
        refused: list[Refused] = []
        for action in actions:
            try:
                net = read_net(action.net)
            except ValueError as error:
                refused.append(Refused(action, str(error)))
                continue
            if isinstance(action, Ban):
                objection = protected.objection(net, action.rule)
                if objection is not None:
                    refused.append(Refused(action, objection.text, objection.label))
                    continue
                if not action.until > now:
                    continue
            last[net.text] = net, action
        return list(last.values()), refused
