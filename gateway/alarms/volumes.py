"""
What sources usually bring: the rules for a silent source and for copies of pages and servers out of balance.

Hours are numbered by UTC (Unix seconds / 3600); only full ones are judged.

**Silent.** The last hours of a source are compared with the same stretch of the week before, and of the two, three and
four weeks before; what is usual is the lower median of these, and of the same stretch an hour earlier and an hour later
the smallest counts, so that summer time raises nothing. Weeks before the source's first event do not count, and two are
needed. It is silent when

* of 20 or more usual events fewer than a fifth came, in the last 1, 3, 6, 12 or 24 hours, and fewer than a fifth in
  the later half of them, too; or
* none came in the last 1 to 72 hours in which 12 or more are usual (by chance: once in 100,000, e to the power of -12).

At night, and for a source of few events, little is usual and the stretch grows until it means something. Hours in which
the gateway was not running, or only for a part, are left out on both sides.

**Out of balance.** For the sources of one site that tell of the same event to the same destination, public ones on one
side and server ones on the other, the copies of the last 24 hours are compared with those of the seven days before. The
share is off when the ratio changed by more than a factor of two, and chance would do that less than once in 100,000
times (Chernoff's bound of the binomial distribution). It takes 100 copies in the seven days, 20 of each side, and both
sides must be older than these.
"""

import math
from collections.abc import Collection, Iterable
from statistics import median_low
from typing import NamedTuple

from gateway.history import Rolled

WEEK = 168
WEEKS = 4
STRETCHES = (1, 2, 3, 6, 12, 24, 48, 72)
#: Hours that are needed.
LOOK_BACK = WEEKS * WEEK + STRETCHES[-1] + 1
UNDERSTOOD = frozenset({"accepted", "merged", "duplicate", "dropped"})
COPIES = frozenset({"accepted", "merged", "duplicate"})
#: Everything that shows that the gateway was running.
WHATS = (*sorted(UNDERSTOOD), "rejected", "hit")
_LOW, _ENOUGH, _NONE = 0.2, 20, 12.0
_FACTOR, _CHANCE = 2.0, 12.0
_LEAST, _LEAST_SIDE = 100, 20
_DAY = 24

Flow = tuple[str, str, str]  # source, destination, event


class Quiet(NamedTuple):
    """A silent source: the stretch in hours, what came in it, and what is usual."""

    hours: int
    came: int
    usual: int


class Off(NamedTuple):
    """Copies of (public, server) sources in the last 24 hours, and a day's worth of the seven days before."""

    now: tuple[int, int]
    before: tuple[float, float]


class Volumes:
    """Counts of the last weeks, by hour."""

    def __init__(self) -> None:
        self._events: dict[int, dict[str, int]] = {}
        self._copies: dict[int, dict[Flow, int]] = {}
        self._first: dict[str, int] = {}

    def take(self, first: int, last: int, rolled: Iterable[Rolled]) -> None:
        """Take the roll-ups of these hours in place of what was known of them."""
        for hour in range(first, last + 1):
            self._events.pop(hour, None)
            self._copies.pop(hour, None)
        by_destination: dict[tuple[int, str], dict[str, int]] = {}
        for row in rolled:
            hour = row.start // 3_600
            self._events.setdefault(hour, {})
            if row.what in UNDERSTOOD:
                counts = by_destination.setdefault((hour, row.source), {})
                counts[row.destination] = counts.get(row.destination, 0) + row.count
            if row.what in COPIES:
                flow = (row.source, row.destination, row.event)
                copies = self._copies.setdefault(hour, {})
                copies[flow] = copies.get(flow, 0) + row.count
        for (hour, source), counts in by_destination.items():
            # an event with two destinations is counted at both; what was dropped before it had any, at "-"
            aside = counts.pop("-", 0)
            self._events[hour][source] = aside + max(counts.values(), default=0)
            self._first[source] = min(hour, self._first.get(source, hour))

    def forget(self, before: int) -> None:
        """Drop the hours before this one."""
        for hours in (self._events, self._copies):
            for hour in [hour for hour in hours if hour < before]:
                del hours[hour]
        self._first = {source: max(hour, before) for source, hour in self._first.items()}

    # -- a silent source

    def quiet(self, source: str, last: int, started: int) -> Quiet | None:
        """
        Return how a source is silent, None when it is not.

        Args:
            last: The last full hour. ``started``: the hour in which the gateway was started.
        """
        if source not in self._first:
            return None
        for length in STRETCHES:
            hours = [hour for hour in range(last - length + 1, last + 1) if self._is_sound(hour, started)]
            if not hours or hours[-1] != last:
                continue
            came, usual = self._total(source, hours), self._usual(source, hours)
            if usual is None:
                return None
            if came == 0 and usual >= _NONE:
                return Quiet(length, came, usual)
            if length <= _DAY and usual >= _ENOUGH and came < _LOW * usual and self._is_low(source, hours):
                return Quiet(length, came, usual)
        return None

    def _is_low(self, source: str, hours: list[int]) -> bool:
        later = hours[len(hours) // 2 :]
        return self._total(source, later) < _LOW * (self._usual(source, later) or 0)

    def _is_sound(self, hour: int, started: int) -> bool:
        """Whether the gateway ran for the whole hour, as far as can be told."""
        if hour > started:
            return True
        return hour < started - 1 and hour in self._events and hour + 1 in self._events

    def _total(self, source: str, hours: Iterable[int]) -> int:
        return sum(self._events.get(hour, {}).get(source, 0) for hour in hours)

    def _usual(self, source: str, hours: list[int]) -> int | None:
        """Return what is usual, None when that is not known yet."""
        known = [week * WEEK for week in range(1, WEEKS + 1) if hours[0] - week * WEEK - 1 >= self._first[source]]
        if len(known) < 2:
            return None
        return min(
            median_low([self._total(source, (hour - back + shift for hour in hours)) for back in known])
            for shift in (-1, 0, 1)
        )

    # -- out of balance

    def off(
        self, public: Collection[str], server: Collection[str], destination: str, event: str, last: int
    ) -> Off | None:
        """Return how the copies of two sides are out of balance up to the last full hour, None when they are not."""
        end, middle, start = last + 1, last + 1 - _DAY, last + 1 - _DAY - WEEK
        if any(self._first.get(source, end) > start for source in (*public, *server)):
            return None
        now = tuple(self._flow(side, destination, event, middle, end) for side in (public, server))
        before = tuple(self._flow(side, destination, event, start, middle) for side in (public, server))
        if min(before) < _LEAST_SIDE or sum(before) < _LEAST or not sum(now):
            return None
        share, usual = now[0] / sum(now), before[0] / sum(before)
        is_far = not 1 / _FACTOR <= _ratio(now) / _ratio(before) <= _FACTOR
        if not is_far or sum(now) * _divergence(share, usual) < _CHANCE:
            return None
        return Off((now[0], now[1]), (before[0] / 7, before[1] / 7))

    def _flow(self, side: Collection[str], destination: str, event: str, start: int, end: int) -> int:
        found = (self._copies.get(hour, {}) for hour in range(start, end))
        return sum(copies.get((source, destination, event), 0) for copies in found for source in side)

    def events_of(self, sources: Collection[str]) -> set[tuple[str, str]]:
        """Return the (destination, event) that these sources brought."""
        return {flow[1:] for copies in self._copies.values() for flow in copies if flow[0] in sources}


def _ratio(counts: tuple[int, ...]) -> float:
    return (counts[0] + 0.5) / (counts[1] + 0.5)


def _divergence(share: float, usual: float) -> float:
    """Return the relative entropy of two shares; n times it bounds the chance of such a share of n: e^-nD."""
    return sum(one * math.log(one / other) for one, other in ((share, usual), (1 - share, 1 - usual)) if one > 0)
