"""Deliveries: calls and warnings by destination, lanes, and dead letters by reason."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.event import Struct
from gateway.operator.pages.framework import Pages
from gateway.operator.pages.letters import letter_routes
from gateway.operator.reasons import Meaning, meaning_of, remedy_of_lane
from gateway.outbox import Counts
from gateway.outbox.census import DeadGroup, Letters
from gateway.runtime import Gateway
from gateway.sender import LaneState

_DAY_S = 86_400.0
_MOST_WARNINGS = 50
#: Of a lane's state, how it looks.
_LOOKS = {"running": "good", "backing_off": "warn", "paused": "bad"}


class DestinationRow(Struct, frozen=True, kw_only=True):
    """
    One destination: ``delivered``, ``dead`` and so on of the last 24 hours; ``calls``, ``late`` and ``maybe_twice``
    since start; ``waiting`` and ``letters`` (dead ones) now.
    """

    lane: LaneState
    look: str
    remedy: str
    waiting: int
    letters: int
    calls: tuple[tuple[str, int], ...]
    late: int
    maybe_twice: int
    delivered: int
    dead: int
    test_delivered: int


class GroupRow(Struct, frozen=True, kw_only=True):
    """One group of dead letters, with what its reason means."""

    group: DeadGroup
    meaning: Meaning


class Deliveries:
    """The page."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._gateway = pages.gateway
        self._letters = Letters(pages.gateway.parts.config.store_path)

    async def show(self, request: Request) -> Response:
        """Show everything."""
        gateway = self._gateway
        counts, census = await gateway.outbox.counts(), await self._letters.census()
        warned = gateway.warnings_seen.list()
        groups = [GroupRow(group=group, meaning=meaning_of(group.code)) for group in census.groups]
        return await self._pages.render(
            request,
            "deliveries.html",
            rows=_rows(gateway, counts, await self._day()),
            warnings=warned[:_MOST_WARNINGS],
            more_warnings=max(0, len(warned) - _MOST_WARNINGS) + gateway.warnings_seen.forgotten,
            ours=[row for row in groups if row.meaning.side == "ours"],
            theirs=[row for row in groups if row.meaning.side == "theirs"],
            census=census,
            started_at=gateway.started_at,
            keep_s=gateway.parts.config.pipeline.dead_keep_s,
        )

    async def _day(self) -> Mapping[tuple[str, str], int]:
        """Return the roll-ups of the last 24 hours by (destination, what)."""
        now = self._gateway.clock()
        rolled = await self._gateway.outbox.history(
            now - _DAY_S, now, by="all", whats=("delivered", "dead", "test_delivered")
        )
        found: dict[tuple[str, str], int] = {}
        for one in rolled:
            found[one.destination, one.what] = found.get((one.destination, one.what), 0) + one.count
        return found


def _rows(gateway: Gateway, counts: Counts, day: Mapping[tuple[str, str], int]) -> Sequence[DestinationRow]:
    return [_row(gateway, lane.state, counts, day) for lane in gateway.sender.lanes]


def _row(gateway: Gateway, lane: LaneState, counts: Counts, day: Mapping[tuple[str, str], int]) -> DestinationRow:
    name, tally = lane.destination, gateway.tally
    own: list[Any] = [one for one in counts.lanes if one.destination == name]
    return DestinationRow(
        lane=lane,
        look=_LOOKS[lane.state],
        remedy=remedy_of_lane(lane.state, lane.reason),
        waiting=sum(one.waiting + one.leased for one in own),
        letters=sum(one.dead for one in own),
        calls=tuple((result, count) for (known, result), count in sorted(tally.calls.items()) if known == name),
        late=tally.late[(name,)],
        maybe_twice=tally.maybe_twice[(name,)],
        delivered=day.get((name, "delivered"), 0),
        dead=day.get((name, "dead"), 0),
        test_delivered=day.get((name, "test_delivered"), 0),
    )


def routes(pages: Pages) -> list[Route]:
    """Return the routes."""
    return [pages.route("/deliveries", Deliveries(pages).show), *letter_routes(pages)]
