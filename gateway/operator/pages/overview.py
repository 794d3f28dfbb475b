"""Is it working? What comes in, what goes out, what waits, and what is wrong."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import Unavailable
from gateway.event import Struct
from gateway.history import Rolled
from gateway.operator.pages.framework import Pages
from gateway.operator.status import troubles
from gateway.outbox import LaneCount
from gateway.runtime import Gateway
from gateway.sender import LaneState

HOUR_S = 3_600
_HOURS = 168
_WEEK_KEPT_S = 60.0
_DOOR = ("accepted", "merged", "duplicate", "dropped", "rejected")
_ENDS = ("delivered", "dead", "ended")
_KINDS = {
    "accepted": "good", "merged": "c1", "duplicate": "c2", "dropped": "neutral", "rejected": "bad",
    "delivered": "good", "dead": "bad", "ended": "neutral",
}  # fmt: skip
_WORDS = {"accepted": "Accepted", "merged": "Merged", "duplicate": "Duplicate", "dropped": "Dropped",
          "rejected": "Rejected", "delivered": "Delivered", "dead": "Dead letter", "ended": "Withdrawn"}  # fmt: skip


class Day(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The last 24 hours by the store's roll-ups: by fate, and by source."""

    door: tuple[tuple[str, int, str], ...]
    ends: tuple[tuple[str, int, str], ...]
    by_source: dict[str, int]


class Week(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The last seven days by hour; ``last_hour`` is when the last hour began in which a source sent anything."""

    at: float
    hours: tuple[str, ...]
    lines: tuple[tuple[str, list[float], str], ...]
    last_hour: dict[str, int]


class LaneRow(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One destination: what its lane does, what waits, and what to do."""

    name: str
    state: str
    kind: str
    told: str
    waiting: int
    dead: int
    oldest_at: float | None
    in_flight: int


class SourceRow(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One source: when it was heard of last; ``by_hour``: known to the hour only, from before the start."""

    name: str
    adapter: str
    seen_at: float | None
    by_hour: bool
    day: int


class Overview:
    """The page of one gateway."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._week: Week | None = None

    async def show(self, request: Request) -> Response:
        """Show the whole page."""
        return await self._pages.render(request, "overview.html", **await self._values())

    async def fragment(self, request: Request) -> Response:
        """Show what the page fetches again every few seconds."""
        return await self._pages.render(request, "overview_now.html", **await self._values())

    async def acknowledge(self, request: Request) -> Response:
        """Take note of an alarm."""
        gateway, name = self._pages.gateway, self._pages.form(request).get("alarm", "")
        if not gateway.alarms.acknowledge(name):
            return self._pages.redirect("/", "That alarm is over already.")
        self._pages.note(request, "acknowledge", 1, name)
        await gateway.watch.save()
        return self._pages.redirect("/", "The alarm is acknowledged. One that tells of a state stays until it is over.")

    async def _values(self) -> dict[str, Any]:
        gateway = self._pages.gateway
        counts, now = await gateway.outbox.counts(), gateway.clock()
        day = week = None
        with suppress(Unavailable):  # the page says that the store cannot be read
            await gateway.watch.fresh()
            day, week = await _day(gateway, now), await self._recent_week(now)
        minutes, alarms = gateway.minutes.last(), gateway.alarms.active()
        oldest = [lane.oldest_at for lane in counts.lanes if lane.oldest_at is not None]
        return {
            "is_ready": await gateway.ready() is None,
            "uptime_s": now - gateway.started_at,
            "troubles": troubles(gateway),
            "quarantined": sum(gateway.quarantine.counts().values()),
            "alarms": [one for one in alarms if not one.acknowledged],
            "noted": [one for one in alarms if one.acknowledged],
            "lanes": _lanes([lane.state for lane in gateway.sender.lanes], counts.lanes),
            "sources": _sources(gateway, day, week),
            "day": day,
            "week": week,
            "labels": [_clock(one.start) for one in minutes],
            "lines": [
                ("Events in", [float(one.received) for one in minutes], "c1"),
                ("Delivered", [float(one.delivered) for one in minutes], "c2"),
                ("Dead letters", [float(one.dead) for one in minutes], "bad"),
            ],
            "received": sum(one.received for one in minutes),
            "delivered": sum(one.delivered for one in minutes),
            "waiting": sum(lane.waiting + lane.leased for lane in counts.lanes),
            "oldest_at": min(oldest, default=None),
            "dead": sum(lane.dead for lane in counts.lanes),
            "is_new": now - gateway.minutes.begun_at < HOUR_S,
            "begun_at": gateway.minutes.begun_at,
        }

    async def _recent_week(self, now: float) -> Week:
        """Return the week; it is read once a minute, however many look."""
        if self._week is None or not 0 <= now - self._week.at < _WEEK_KEPT_S:
            first = (int(now) // HOUR_S - _HOURS + 1) * HOUR_S
            rows = await self._pages.gateway.outbox.history(first, now + 1, by="hour", whats=(*_DOOR, *_ENDS))
            self._week = week_of(rows, first, now)
        return self._week


async def _day(gateway: Gateway, now: float) -> Day:
    since = (int(now) // HOUR_S - 23) * HOUR_S
    return day_of(await gateway.outbox.history(since, now + 1, by="all", whats=(*_DOOR, *_ENDS)))


def day_of(rows: Sequence[Rolled]) -> Day:
    """Return the sums of the last 24 hours."""
    fates: Counter[str] = Counter()
    by_source: Counter[str] = Counter()
    for row in rows:
        fates[row.what] += row.count
        by_source[row.source] += row.count if row.what in _DOOR else 0
    return Day(door=_parts(fates, _DOOR), ends=_parts(fates, _ENDS), by_source=dict(by_source))


def week_of(rows: Sequence[Rolled], first: int, now: float) -> Week:
    """Return the sums by hour; ``first`` is when the first hour begins (Unix s)."""
    lines: dict[str, list[float]] = {name: [0.0] * _HOURS for name in ("in", "delivered", "dead")}
    last_hour: dict[str, int] = {}
    for row in rows:
        at, is_door = (row.start - first) // HOUR_S, row.what in _DOOR
        if 0 <= at < _HOURS and row.what != "ended":
            lines["in" if is_door else row.what][at] += row.count
        if is_door:
            last_hour[row.source] = max(last_hour.get(row.source, 0), row.start)
    hours = tuple(datetime.fromtimestamp(first + at * HOUR_S, UTC).strftime("%d %b %H:00") for at in range(_HOURS))
    shown = (("Events in", lines["in"], "c1"), ("Delivered", lines["delivered"], "c2"), ("Dead", lines["dead"], "bad"))
    return Week(at=now, hours=hours, lines=shown, last_hour=last_hour)


def _parts(counts: Counter[str], names: Sequence[str]) -> tuple[tuple[str, int, str], ...]:
    return tuple((_WORDS[name], counts[name], _KINDS[name]) for name in names)


def _lanes(lanes: Sequence[LaneState], counts: Sequence[LaneCount]) -> list[LaneRow]:
    rows = []
    for lane in lanes:
        queue = [one for one in counts if one.destination == lane.destination]
        oldest = [one.oldest_at for one in queue if one.oldest_at is not None]
        state, kind, told = {
            "running": ("Running", "good", ""),
            "backing_off": ("Backing off", "warn", "It tries again by itself; nothing is lost."),
            "paused": (
                "Paused", "bad",
                (
                    "The vendor refuses the token or the account. Renew the token in gateway.toml and reload; "
                    "it resumes by itself, and nothing is lost."
                ),
            ),
        }[lane.state]  # fmt: skip
        if lane.reason and lane.state != "running":
            told = f"{lane.reason}. {told}"
        rows.append(
            LaneRow(
                name=lane.destination, state=state, kind=kind, told=told, in_flight=lane.in_flight,
                waiting=sum(one.waiting + one.leased for one in queue), dead=sum(one.dead for one in queue),
                oldest_at=min(oldest, default=None),
            )
        )  # fmt: skip
    return rows


def _sources(gateway: Gateway, day: Day | None, week: Week | None) -> list[SourceRow]:
    rows = []
    for name, route in sorted(gateway.parts.routes.items()):
        seen = gateway.minutes.seen_at.get(name)
        hour = week.last_hour.get(name) if week is not None else None
        rows.append(
            SourceRow(
                name=name, adapter=route.source.adapter, seen_at=seen if seen is not None else hour,
                by_hour=seen is None and hour is not None, day=day.by_source.get(name, 0) if day is not None else 0,
            )
        )  # fmt: skip
    return rows


def _clock(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%H:%M")


def routes(pages: Pages) -> list[Route]:
    """Return the routes."""
    overview = Overview(pages)
    return [
        pages.route("/", overview.show),
        pages.route("/overview/now", overview.fragment),
        pages.route("/overview/acknowledge", overview.acknowledge, role="operator", methods=("POST",)),
    ]
