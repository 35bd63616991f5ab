"""What the control socket can be asked: the table of requests, each a method of `Requests`.

A request that changes something is answered when the firewall has done it, with the reason where it has not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast

from guard import addresses
from guard.app._enforcer import Enforcer
from guard.app._fleet import Fleet
from guard.app._geo import Geo
from guard.app._lists import Lists
from guard.app._pipeline import Pipeline
from guard.app._view import View
from guard.config import LISTS, ListKey
from guard.control import ControlError
from guard.log import logger
from guard.model import Action, Ban, readable
from guard.reader import when
from guard.report import ban_values

_WRONG: Final = 2
_NOT_SO: Final = 1
_REFUSED: Final = 3
_REASON: Final = 200  # characters kept of why somebody bans by hand
_REASONS: Final = 10_000
_BY: Final = {"messages": "messages", "recipients": "distinct_recipients", "networks": "networks"}
REASON_TABLE: Final = "reason"

Request = dict[str, Any]


class Requests:
    """Answers requests.  `reasons` are what administrators gave with a ban, by net; `unsaved` goes to the checkpoint.

    `geo` names the country of an address.  `lists` is what stands in configuration and files; `reassert` has the lists in force again.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        enforcer: Enforcer,
        view: View,
        reasons: dict[str, str],
        lists: Lists,
        reassert: Callable[[], list[Action]],
        fleet: Fleet | None,
        geo: Geo,
    ) -> None:
        self.unsaved: list[tuple[str, str, str | None]] = []
        self._pipeline = pipeline
        self._engine = pipeline.engine
        self._enforcer = enforcer
        self._view = view
        self._reasons = reasons
        self._configured = lists
        self._reassert = reassert
        self._geo = geo
        self._origins = {} if fleet is None else fleet.origins
        self._table: dict[str, Callable[[Request], Awaitable[object]]] = {
            "status": self._status,
            "report": self._report,
            "bans": self._bans,
            "ban": self._ban,
            "unban": self._unban,
            "lists": self._lists,
            "allow": self._allow,
            "disallow": self._disallow,
            "deny": self._deny,
            "undeny": self._undeny,
            "explain": self._explain,
            "origins": self._origins_of_bans,
            "top": self._top,
        }

    async def handle(self, request: Request) -> object:
        """Return the result.  Raises `ControlError`, also for a defect of ours, which goes to the log."""
        work = self._table.get(request["do"])
        if work is None:
            raise ControlError(_WRONG, f"no such request; there is {', '.join(self._table)}")
        try:
            return await work(request)
        except ControlError:
            raise
        except Exception as error:
            logger().exception("a request failed", request=request["do"])
            raise ControlError(_REFUSED, "the daemon failed at this request; its log says why") from error

    async def _status(self, _: Request) -> object:
        return self._view.status()

    async def _report(self, _: Request) -> object:
        return self._engine.report()

    async def _bans(self, _: Request) -> object:
        bans = sorted(self._engine.active_bans(), key=lambda ban: ban.at)
        return {
            "schema": "mailward.bans/1",
            "bans": [self.shown(ban) for ban in bans],
            "foreign": list(self._enforcer.strangers()),
        }

    def shown(self, ban: Ban) -> dict[str, object]:
        """Return a ban as docs/json.md has it."""
        endless = math.isinf(ban.until)
        return {
            **ban_values(ban),
            "until": None if endless else when(ban.until),
            "left": None if endless else max(0, math.ceil(ban.until - time.time())),
            "enforced": self._enforcer.holds(ban.net),
            "reason": self._reasons.get(ban.net),
            "node": self._origins.get(ban.net),
            **self._where(ban.net),
        }

    async def _ban(self, request: Request) -> object:
        net = _net(request)
        seconds = request.get("seconds")
        if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
            raise ControlError(_WRONG, "seconds: expected a number above 0, or null for a ban without end")
        length = math.inf if seconds is None else float(seconds)
        self._may_be_banned(net)
        try:
            actions = self._engine.ban(net, length, time.time(), force=bool(request.get("force")))
        except ValueError as error:
            raise ControlError(_NOT_SO, str(error)) from None
        reason = readable(str(request.get("reason") or ""))[:_REASON]
        self._pipeline.act(actions)
        if reason and len(self._reasons) < _REASONS:
            self._remember(net, reason)
        logger().warning("banned by hand", net=net, reason=reason)
        return await self._done(actions)

    async def _unban(self, request: Request) -> object:
        net = _net(request)
        denied = set(self._engine.lists()["deny"])
        if net in denied:
            place = self._place_of(net, "deny")
            remedy = f"{place}: take it away there" if place else "the entries by hand: mailward deny remove"
            raise ControlError(_NOT_SO, f"{net} is on the deny list, in {remedy}")
        actions = self._engine.unban(net, time.time())
        if not actions:
            raise ControlError(_NOT_SO, f"{net} is not banned, and nothing inside it is")
        self._pipeline.act(actions)
        if any(action.net in denied for action in actions):  # a wider net was named: the list stands
            back = {action.net for action in self._reassert()}
            actions = [action for action in actions if action.net not in back]
        return await self._done(actions)

    async def _lists(self, _: Request) -> object:
        hand = self._engine.by_hand()
        origins = {f"{key}_origins": self._configured.origins(key, hand[key]) for key in LISTS}
        return {"schema": "mailward.lists/1", **self._engine.lists(), **origins}

    async def _allow(self, request: Request) -> object:
        try:
            net = _net(request)
        except ControlError as error:
            raise ControlError(
                _WRONG, f"{error}; a host name goes into lists.allow or one of its files"
            ) from None
        actions = self._engine.allow(net, time.time())
        self._pipeline.act(actions)
        return await self._done(actions)

    async def _disallow(self, request: Request) -> object:
        net = _net(request)
        if not self._engine.disallow(net, time.time()):
            raise ControlError(_NOT_SO, self._not_there(net, "allow"))
        actions = self._reassert()  # a deny entry that it kept out comes into force
        self._still_there(net, "allow")
        return await self._done(actions)

    async def _deny(self, request: Request) -> object:
        net = _net(request)
        self._may_be_banned(net)
        try:
            actions = self._engine.deny(net, time.time(), force=bool(request.get("force")))
        except ValueError as error:
            raise ControlError(_NOT_SO, str(error)) from None
        self._pipeline.act(actions)
        return await self._done(actions)

    async def _undeny(self, request: Request) -> object:
        net = _net(request)
        if net not in self._engine.by_hand()["deny"]:
            raise ControlError(_NOT_SO, self._not_there(net, "deny"))
        actions = self._engine.undeny(net, time.time())
        self._pipeline.act(actions)
        self._still_there(net, "deny")
        return await self._done(actions)

    async def _explain(self, request: Request) -> object:
        ip = addresses.read(str(request.get("ip", "")))
        if ip is None:
            raise ControlError(_WRONG, f"{request.get('ip')!r}: expected one address, such as 198.51.100.7")
        known = {**self._engine.explain_address(ip), **self._where(ip)}
        return {"schema": "mailward.explain/1", "address": known}

    def _where(self, net: str) -> dict[str, object]:
        place = self._geo.place(net)
        return {"country": place.country, "asn": place.asn}

    async def _origins_of_bans(self, _: Request) -> object:
        if not self._geo.databases.files:
            raise ControlError(_NOT_SO, "geo.database names no file: nobody knows where addresses are")
        return self._geo.origins()

    async def _top(self, request: Request) -> object:
        by, limit = request.get("by", "messages"), request.get("limit", 20)
        if by not in _BY:
            raise ControlError(_WRONG, f"by: expected one of {', '.join(_BY)}")
        if type(limit) is not int or limit < 1:
            raise ControlError(_WRONG, "limit: expected a number of accounts above 0")
        traffic, now = self._engine.traffic, time.time()
        count = accounts = None
        if traffic is not None:
            rows = traffic.senders.top(now, self._geo.country if self._geo.databases.files else None)
            rows.sort(key=lambda row: getattr(row, _BY[by]), reverse=True)  # stable: then by messages
            count = len(rows)
            accounts = [{**row._asdict(), "account": readable(row.account)} for row in rows[:limit]]
        targets = self._engine.attacked.top(now)
        return {
            "schema": "mailward.top/1",
            "seconds": 3600,
            "count": count,
            "accounts": accounts,
            "attacked_count": len(targets),
            "attacked": [{**row._asdict(), "account": readable(row.account)} for row in targets[:limit]],
        }

    async def _done(self, actions: Sequence[Action]) -> object:
        """Wait for the firewall; return what was done, each with the reason where it was not."""
        reasons = await self._enforcer.settled() if actions else {}
        return {
            "backend": self._enforcer.backend,
            "done": [
                {
                    "do": "ban" if isinstance(action, Ban) else "unban",
                    "net": action.net,
                    "enforced": action.net not in reasons and self._enforcer.backend != "none",
                    "why_not": reasons.get(action.net),
                }
                for action in actions
            ],
        }

    def _remember(self, net: str, reason: str) -> None:
        self._reasons[net] = reason
        self.unsaved.append((REASON_TABLE, net, json.dumps(reason)))

    def prune(self) -> None:
        """Forget the reasons of bans that have ended."""
        if self._reasons:
            active = {ban.net for ban in self._engine.active_bans()}
            for net in [net for net in self._reasons if net not in active]:
                del self._reasons[net]
                self.unsaved.append((REASON_TABLE, net, None))

    def _may_be_banned(self, net: str) -> None:
        objection = self._pipeline.lockout.objection(net)
        if objection is not None:
            raise ControlError(_NOT_SO, objection)

    def _not_there(self, net: str, key: ListKey) -> str:
        place = self._place_of(net, key)
        return f"{net} stands in {place}: take it away there" if place else f"{net} is not in the {key} list"

    def _still_there(self, net: str, key: ListKey) -> None:
        place = self._place_of(net, key)
        if place:
            text = f"{net} is taken from the {key} list's entries by hand, and still stands in {place}"
            raise ControlError(_NOT_SO, text)

    def _place_of(self, net: str, key: ListKey) -> str:
        """Return where a net stands other than by hand, in words; "" where it does not."""
        for origin in self._configured.origins(key, []):
            if net in cast("list[str]", origin["nets"]):
                place = str(origin["file"] or f"the configuration's lists.{key}")
                return f"{place} as {origin['name']}" if origin["name"] else place
        return ""


def _net(request: Request) -> str:
    try:
        return addresses.network(str(request["net"]))
    except (KeyError, ValueError) as error:
        raise ControlError(
            _WRONG, f"{request.get('net')!r}: expected an address or a net, such as 198.51.100.0/24"
        ) from error
