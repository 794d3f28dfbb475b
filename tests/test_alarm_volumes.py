"""A source that falls silent, and copies that go out of balance: found in roll-ups, and not at night."""

import asyncio
import math
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from gateway.alarms import Alarms
from gateway.alarms.volumes import LOOK_BACK, WEEK, Volumes
from gateway.alarms.watch import Watch
from gateway.history import Rolled
from gateway.outbox.sqlite import SqliteOutbox
from gateway.testing.doubles import NOW, Clock
from tests.test_alarms import FakeGateway, FakeOutbox

HOUR_S = 3_600
#: The hour that begins at NOW, a Sunday at midnight UTC.
FIRST = int(NOW) // HOUR_S
Counts = Callable[[int], int]


def day_and_night(hour: int) -> int:
    """Return a shop's events: 100 an hour by day, 2 by night."""
    return 100 if 8 <= hour % 24 < 22 else 2


class History(FakeOutbox):
    """Roll-ups made by functions of the hour: (source, destination, event, what) → count."""

    def __init__(self, rows: dict[tuple[str, str, str, str], Counts], first: int = FIRST) -> None:
        super().__init__()
        self.rows = rows
        self.first = first
        self.read: list[tuple[float, float]] = []

    async def history(self, since: float, until: float, **_named: Any) -> list[Rolled]:
        self.read.append((since, until))
        hours = range(max(int(since) // HOUR_S, self.first), int(until) // HOUR_S)
        found = [Rolled(hour * HOUR_S, *key, "", count(hour)) for hour in hours for key, count in self.rows.items()]
        return [row for row in found if row.count]


class Shop:
    """A gateway of two sources at one site, with made-up roll-ups, some weeks after its start."""

    def __init__(self, rows: dict[tuple[str, str, str, str], Counts], hour: int, first: int = FIRST) -> None:
        self.clock = Clock(first * HOUR_S)
        self.gateway = FakeGateway(self.clock)
        self.gateway.outbox = self.history = History(rows, first)
        self.gateway.parts.routes = {
            "tag": SimpleNamespace(source=SimpleNamespace(site="shop", is_server=False)),
            "api": SimpleNamespace(source=SimpleNamespace(site="shop", is_server=True)),
        }
        self.alarms = Alarms(self.clock)
        self.watch = Watch(self.gateway, self.alarms, SimpleNamespace())
        self.at(hour)

    def at(self, hour: int) -> dict[str, str]:
        """Look a minute after this hour began; returns detail by id."""
        self.clock.now = hour * HOUR_S + 60.0
        asyncio.run(self.watch.look())
        return {one.id: one.detail for one in self.alarms.active()}


def one_source(count: Counts) -> dict[tuple[str, str, str, str], Counts]:
    return {("tag", "pinterest", "page_visit", "accepted"): count}


NOON = FIRST + 3 * WEEK + 12


def stopped(at: int, until: int | None = None, usual: Counts = day_and_night) -> Counts:
    """Return a volume that is nothing from an hour on."""
    return lambda hour: 0 if at <= hour and (until is None or hour < until) else usual(hour)


def fallen(left: int) -> Counts:
    """Return a volume that is so many an hour from noon on."""
    return lambda hour: left if hour >= NOON else day_and_night(hour)


# -- silent


def test_a_busy_source_that_stops_is_heard_of_within_an_hour() -> None:
    """The first full hour of nothing raises it, the first full hour of usual volume clears it."""
    shop = Shop(one_source(stopped(NOON, NOON + 5)), NOON)
    assert shop.alarms.active() == []
    told = "Events in the last full hour: none of 'tag'; 100 are usual at this time of the week."
    assert shop.at(NOON + 1) == {"silent_source:tag": told}
    since = shop.alarms.active()[0].since
    assert list(shop.at(NOON + 5)) == ["silent_source:tag"]
    assert shop.alarms.active()[0].since == since
    assert shop.at(NOON + 6) == {}


def test_a_trickle_is_silence_too() -> None:
    """Less than a fifth of what is usual raises it, a quarter does not."""
    for left, is_raised in ((19, True), (25, False)):
        shop = Shop(one_source(fallen(left)), NOON + 1)
        assert (shop.at(NOON + 2) != {}) == is_raised, left


def test_the_night_raises_nothing() -> None:
    """Four weeks of days and nights, hour by hour, raise nothing, also when summer time begins."""
    shop = Shop(one_source(lambda hour: day_and_night(hour if hour < NOON else hour + 1)), FIRST + 1)
    for hour in range(FIRST + 2, FIRST + 5 * WEEK):
        assert shop.at(hour) == {}, hour - FIRST


def test_chance_raises_nothing() -> None:
    """Random volumes of the same mean, from an event in ten hours to fifty an hour, raise nothing in a week."""
    rng = random.Random(7)
    for mean in (0.1, 1.0, 7.0, 50.0):
        drawn = {hour: _poisson(rng, mean) for hour in range(FIRST, FIRST + 6 * WEEK)}
        shop = Shop(one_source(drawn.__getitem__), FIRST + 5 * WEEK)
        for hour in range(FIRST + 5 * WEEK, FIRST + 6 * WEEK):
            assert shop.at(hour) == {}, (mean, hour - FIRST)


def _poisson(rng: random.Random, mean: float) -> int:
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product, count = product * rng.random(), count + 1
    return count


def test_a_small_source_takes_longer() -> None:
    """With one event an hour nothing is said for ten hours of silence, and something within a day."""
    shop = Shop(one_source(stopped(NOON, usual=lambda _hour: 1)), NOON)
    assert shop.at(NOON + 10) == {}
    told = "Events in the last 12 full hours: none of 'tag'; 12 are usual at this time of the week."
    assert shop.at(NOON + 12) == {"silent_source:tag": told}


def test_a_new_source_is_not_judged() -> None:
    """With less than two weeks of its own a source may be as silent as it likes; with two it may not."""
    for days, is_raised in ((3, False), (13, False), (16, True)):
        stop = FIRST + days * 24 + 12
        assert (Shop(one_source(stopped(stop)), stop).at(stop + 2) != {}) == is_raised, days
    assert Shop({}, NOON).at(NOON + 1) == {}


def test_one_busy_week_is_not_usual() -> None:
    """A campaign in one of the weeks before does not make a usual week look silent."""
    busy = range(NOON - WEEK - 24, NOON - WEEK + 24)
    shop = Shop(one_source(lambda hour: 5_000 if hour in busy else day_and_night(hour)), NOON)
    assert all(shop.at(hour) == {} for hour in range(NOON, NOON + 24))


def test_a_source_that_recovers_slowly_is_cleared() -> None:
    """A day of silence does not outlast its end by more than hours: the later half is what counts."""
    shop = Shop(one_source(stopped(NOON, NOON + 20)), NOON)
    assert shop.at(NOON + 20) != {}
    assert shop.at(NOON + 24 + 2) == {}


def test_a_gateway_that_was_down_blames_no_source() -> None:
    """Hours without a gateway are no silence; the hours after the start count."""
    rows = one_source(stopped(NOON, NOON + 6))
    shop = Shop(rows, NOON)
    shop.gateway.started_at = (NOON + 6) * HOUR_S + 600.0
    shop.watch = Watch(shop.gateway, shop.alarms, SimpleNamespace())
    for hour in range(NOON + 6, NOON + 10):
        assert shop.at(hour) == {}, hour - NOON
    shop.history.rows = one_source(stopped(NOON))
    shop.watch = Watch(shop.gateway, shop.alarms, SimpleNamespace())
    assert shop.at(NOON + 8) != {}


def test_dropped_events_are_events_and_rejected_ones_are_not() -> None:
    """A source whose events are all dropped works; one whose hits cannot be read does not."""
    for what, is_raised in (("dropped", False), ("rejected", True), ("hit", True), ("test_accepted", True)):
        rows = one_source(stopped(NOON))
        rows["tag", "-", "-", what] = lambda hour: 100 if hour >= NOON else 0
        assert ("silent_source:tag" in Shop(rows, NOON).at(NOON + 2)) == is_raised, what


def test_two_destinations_count_once() -> None:
    """An event that goes to two destinations is one event."""
    volumes = Volumes()
    row = Rolled(FIRST * HOUR_S, "tag", "one", "lead", "accepted", "", 7)
    other = replace(row, destination="two", count=6)
    aside = replace(row, destination="-", what="dropped", count=2)
    volumes.take(FIRST, FIRST, [row, other, aside])
    assert volumes._total("tag", [FIRST]) == 9


def test_each_hour_is_read_once() -> None:
    """At the start all weeks are read, in slices; then each new hour alone, and nothing in between."""
    shop = Shop(one_source(day_and_night), NOON)
    spans = [(until - since) / HOUR_S for since, until in shop.history.read]
    assert sum(spans) == LOOK_BACK + 1
    assert max(spans) <= 48
    shop.history.read.clear()
    for _ in range(3):
        shop.at(NOON + 1)
    assert shop.history.read == [(NOON * HOUR_S, (NOON + 1) * HOUR_S)]
    assert len(shop.watch._volumes._events) <= LOOK_BACK + 2


def test_in_the_real_store(tmp_path: Path) -> None:
    """Three weeks in a store's roll-ups, then a silent hour: raised; a usual one: cleared."""
    file, clock = tmp_path / "gateway.db", Clock(FIRST * HOUR_S)
    asyncio.run(SqliteOutbox(file, clock=clock).close())
    with closing(sqlite3.connect(file)) as store:
        store.execute("INSERT INTO rollup_key VALUES (1, 'tag', 'pinterest', 'page_visit', 'accepted', '')")
        hours = [hour for hour in range(FIRST, NOON + 3) if hour != NOON]
        store.executemany("INSERT INTO rollup VALUES (?, 1, 40)", [(hour,) for hour in hours])
        store.commit()

    async def scenario() -> None:
        gateway = FakeGateway(clock)
        gateway.outbox = SqliteOutbox(file, clock=clock)
        gateway.parts.routes = {"tag": SimpleNamespace(source=SimpleNamespace(site="shop", is_server=False))}
        alarms = Alarms(clock)
        watch = Watch(gateway, alarms, SimpleNamespace())
        raised = []
        for hour in range(NOON - 1, NOON + 3):
            clock.now = hour * HOUR_S + 60.0
            await watch.look()
            raised.append([one.kind for one in alarms.active()])
        assert raised == [[], [], ["silent_source"], []]
        await gateway.outbox.close()

    asyncio.run(scenario())


# -- out of balance


def two_sides(tag: Counts, api: Counts, event: str = "checkout") -> dict[tuple[str, str, str, str], Counts]:
    return {
        ("tag", "pinterest", event, "accepted"): tag,
        ("api", "pinterest", event, "merged"): api,
        # both have other events too, so that neither is silent
        ("tag", "pinterest", "page_visit", "accepted"): lambda _hour: 50,
        ("api", "pinterest", "lead", "accepted"): lambda _hour: 50,
    }


def test_a_lost_half_is_found() -> None:
    """A page's tag that no longer tells of checkouts raises it within a day, in words that name both sides."""
    shop = Shop(two_sides(stopped(NOON, usual=lambda _hour: 4), lambda _hour: 4), NOON)
    assert shop.alarms.active() == []
    found = shop.at(NOON + 24)
    told = (
        "checkout: 0 copies from pages and 96 from servers in the last 24 hours; "
        "in the 7 days before it were 96 and 96 a day."
    )
    assert found == {"ratio_off:shop/pinterest": told}


def test_a_changed_ratio_is_found_and_becomes_usual() -> None:
    """A third of the former ratio raises it; after a week it is what is usual."""
    shop = Shop(two_sides(lambda hour: 4 if hour >= NOON else 12, lambda _hour: 12), NOON)
    assert "ratio_off:shop/pinterest" in shop.at(NOON + 24)
    assert shop.at(NOON + 24 + WEEK) == {}


def test_a_ratio_within_bounds_is_none() -> None:
    """Ratios far from one, a change of less than a factor of two, and both sides falling together raise nothing."""
    for tag, api in (
        (lambda hour: 7 if hour >= NOON else 12, lambda _hour: 12),
        (lambda _hour: 1, lambda _hour: 40),
        (lambda hour: 1 if hour >= NOON else 12, lambda hour: 1 if hour >= NOON else 12),
    ):
        assert Shop(two_sides(tag, api), NOON).at(NOON + 24) == {}


def test_few_copies_mean_nothing() -> None:
    """A shop with six orders a day may lose a half for a day; what is too little to tell is not told."""
    shop = Shop(two_sides(stopped(NOON, usual=lambda hour: hour % 4 == 0), lambda hour: hour % 4 == 0), NOON)
    assert shop.at(NOON + 24) == {}


def test_a_side_that_is_new_is_not_judged() -> None:
    """A source that was added in these days makes no ratio yet."""
    start = NOON - 3 * 24
    rows = two_sides(lambda _hour: 8, lambda hour: 8 if hour >= start else 0)
    rows["api", "pinterest", "lead", "accepted"] = lambda hour: 50 if hour >= start else 0
    shop = Shop(rows, NOON)
    assert all(shop.at(hour) == {} for hour in range(NOON, NOON + 3 * 24, 6))


def test_checkouts_come_first() -> None:
    """Of several events the checkout is named first, in one alarm."""
    rows = {
        **two_sides(stopped(NOON, usual=lambda _hour: 9), lambda _hour: 9, "add_to_cart"),
        **two_sides(stopped(NOON, usual=lambda _hour: 9), lambda _hour: 9),
    }
    (detail,) = Shop(rows, NOON).at(NOON + 24).values()
    assert detail.startswith("checkout: 0 copies")
    assert "add_to_cart: 0 copies" in detail


def test_chance_moves_no_ratio() -> None:
    """Ten random copies a day on each side differ by more than a factor of two now and then, and raise nothing."""
    rng = random.Random(11)
    hours = range(FIRST, FIRST + 4 * WEEK)
    tag, api = ({hour: _poisson(rng, mean) for hour in hours} for mean in (0.4, 0.5))
    shop = Shop(two_sides(tag.__getitem__, api.__getitem__), FIRST + 3 * WEEK)
    assert all(shop.at(hour) == {} for hour in range(FIRST + 3 * WEEK, FIRST + 4 * WEEK))
