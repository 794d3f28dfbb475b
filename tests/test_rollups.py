"""Roll-ups: exact against a model of everything that was answered and ended, after kills too; quick to read."""

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.event import Client, Purchase, SealedEvent
from gateway.history import Cell, Rolled, coverage, limited
from gateway.merge import join, signals
from gateway.outbox import DeadFilter, Lane, Lease, Mark, Settlement, Unit, rollups, schema
from gateway.outbox.door import Door
from gateway.outbox.rollups import read
from gateway.outbox.sqlite import SqliteOutbox
from gateway.outcome import Settled
from tests.harness.inprocess import Clock, event, tables, world
from tests.harness.oracle import snapshot
from tests.harness.processes import SECRET, Pair, plain_config, say

START = 1_795_305_600.0 - 1_795_305_600.0 % 86_400
HOUR, DAY = 3_600, 86_400
LANES = [Lane(destination=name, kind=kind) for name in ("pin", "other") for kind in ("live", "offline", "test")]
NAMES = ("checkout", "add_to_cart", "page_visit")


def sealed(event_id: str, at: float = START, **more: Any) -> SealedEvent:
    """Return a sealed event; ``source`` "tag" is a browser's."""
    told = {"event_name": "checkout", "source": "api", **more}
    born: Any = "browser" if told["source"] == "tag" else "server"
    return SealedEvent(event_id=event_id, event_time=int(at), accepted_at=at, site="shop", born=born, **told)


def unit_of(outbox: SqliteOutbox, one: SealedEvent, key: str | None = None, lane: Lane = LANES[0], **more: Any) -> Unit:
    """Return the unit of an event with its id as a mark, and perhaps an order."""
    scope = (lane.destination, lane.kind, one.event_name)
    marks = [Mark(digest=outbox.digest(*scope, "id", one.event_id), lifetime_s=1_000)]
    if key is not None:
        marks.append(Mark(digest=outbox.digest(*scope, "key", key), lifetime_s=10_000, business=True))
    return Unit(lane=lane, event=one, marks=tuple(marks), **more)


def run(folder: Path, scenario: Callable[[SqliteOutbox, Clock], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run a scenario against an outbox of its own, on a clock that stands."""

    async def main() -> None:
        clock = Clock(START)
        outbox = SqliteOutbox(folder / "store.db", clock=clock, linger_s=0.0, **options)
        try:
            await scenario(outbox, clock)
        finally:
            await outbox.close()

    asyncio.run(main())


async def totals(outbox: SqliteOutbox, *whats: str) -> Counter[Cell]:
    """Return every count there ever was, by cell."""
    rows = await outbox.history(0, 4e9, by="all", whats=whats)
    assert {row.start for row in rows} <= {0}
    return Counter({Cell(row.source, row.destination, row.event, row.what, row.detail): row.count for row in rows})


def by_detail(found: Counter[Cell], what: str) -> dict[tuple[str, str], int]:
    """Return the counts of one kind by (source, detail)."""
    return {(cell.source, cell.detail): count for cell, count in found.items() if cell.what == what}


async def deliver(outbox: SqliteOutbox, clock: Clock, end: Any = "delivered", **more: Any) -> list[Settled]:
    """Let everything end that waits."""
    ended: list[Settled] = []
    for lane in LANES:
        while lease := await outbox.claim(lane, 1_000, clock.now):
            ended += await outbox.settle(lease, [Settlement(unit=one.unit, end=end, **more) for one in lease.units])
    return ended


# -- everything, against a model


class Model:
    """Counts what answers and ends say, knowing of each unit only its state and its first source."""

    def __init__(self) -> None:
        self.cells: Counter[Cell] = Counter()
        self.dead: set[str] = set()
        self.sources: dict[str, str] = {}

    def told(self, one: SealedEvent, destination: str, what: str, detail: str = "") -> None:
        """Count one event."""
        what = f"test_{what}" if one.test else what
        self.cells[Cell(one.source, destination, one.event_name, what, detail)] += 1

    def admitted(self, unit: Unit, admission: Any) -> None:
        """Count an answer."""
        destination, reason = unit.lane.destination, admission.reason or ""
        self.told(unit.event, destination, admission.fate, reason)
        if admission.fate == "accepted":
            self.sources[admission.unit] = unit.event.source
            if not unit.marks and not unit.event.test:
                self.told(unit.event, destination, "keyless")
        elif admission.fate in ("merged", "duplicate"):
            met = self.sources.get(admission.unit, "?")
            if not unit.event.test:
                self.told(unit.event, destination, "pair", f"{admission.fate}:{met}")
            if admission.fate == "merged" and admission.unit in self.dead:
                self.dead.discard(admission.unit)
                self.told(admission.event, destination, "revived")
        for ended in admission.ended:
            same = ended.end == "merged" or ended.reason == "duplicate"
            self.taken(ended, self.sources.get(admission.unit, "?") if same else None)

    def taken(self, ended: Settled, met: str | None = None) -> None:
        """Count a unit that was taken away; ``met``: the source of the event that it turned out to be."""
        what = "discarded" if ended.unit in self.dead else "ended"
        self.dead.discard(ended.unit)
        name = f"test_{what}" if ended.is_test else what
        detail = ended.reason or ended.end
        self.cells[Cell(ended.source, ended.destination, ended.event_name, name, detail)] += 1
        if met is not None and not ended.is_test:
            fate = "merged" if ended.end == "merged" else "duplicate"
            self.cells[Cell(ended.source, ended.destination, ended.event_name, "pair", f"{fate}:{met}")] += 1

    def settled(self, lease: Lease, ended: Iterable[Settled]) -> None:
        """Count how leased units ended."""
        events = {one.unit: one.event for one in lease.units}
        for one in ended:
            found = events[one.unit]
            self.told(found, one.destination, "ended" if one.end == "dropped" else one.end, one.reason or "")
            if one.end == "dead":
                self.dead.add(one.unit)
            if one.end == "delivered" and not found.test:
                for detail in coverage(signals(found)):
                    self.told(found, one.destination, "signal", detail)

    def of(self, *whats: str) -> int:
        """Return how many of these there were."""
        return sum(count for cell, count in self.cells.items() if cell.what.removeprefix("test_") in whats)


def anything(rng: random.Random, outbox: SqliteOutbox, now: float, erased: list[bytes]) -> Unit:
    """Return some unit: few ids and keys, so that most meet another."""
    lane = rng.choice(LANES)
    number = rng.randrange(400)
    one = sealed(
        f"e{number}", now, source=rng.choice(("tag", "api", "shop")), event_name=rng.choice(NAMES),
        test=lane.kind == "test", action_source="offline" if lane.kind == "offline" else "web",
        explicit_id=rng.random() < 0.5, source_url=rng.choice((None, "https://x.example/")),
        user=rng.choice(({}, {"em": ("0" * 64,)}, {"em": ("0" * 64,), "hashed_maids": ("1" * 64,)})),
        client=rng.choice((Client(), Client(ip="203.0.113.7"), Client(ip="203.0.113.7", user_agent="Browser"))),
        click_ids=rng.choice(({}, {"epik": "dj0yxyz"})),
        purchase=rng.choice((Purchase(), Purchase(order_id=f"o{number}"))),
    )  # fmt: skip
    subject = outbox.digest("subject", str(number % 50))
    if number % 50 == 0:
        erased.append(subject)
    more: dict[str, Any] = {"subjects": (subject,), "refusal": rng.choice((None, None, None, "no_identity"))}
    more["consent"] = "denied" if rng.random() < 0.02 else None
    unit = unit_of(outbox, one, rng.choice((None, None, f"o{rng.randrange(200)}")), lane, **more)
    return unit if rng.random() < 0.95 else Unit(lane=lane, event=one, subjects=unit.subjects)


class Mix:
    """A store to which random things are done, and its model."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng, self.clock, self.model = random.Random(seed), Clock(START), Model()
        self.outbox = SqliteOutbox(folder / "store.db", clock=self.clock, linger_s=0.0, dead_keep_s=1e9)
        self.erased: list[bytes] = []

    async def run(self, rounds: int) -> None:
        """Hits, deliveries, and now and then an operator."""
        rejected = Cell("tag", "-", "-", "rejected", "no_json")
        for number in range(rounds):
            await self.admit(self.rng.randrange(1, 30))
            self.outbox.count({rejected: 2})
            self.model.cells[rejected] += 2
            leases = [await self.outbox.claim(lane, self.rng.randrange(1, 20), self.clock.now) for lane in LANES]
            if self.rng.random() < 0.5:
                await self.admit(10)  # copies that come while the first is under way
            for lease in filter(None, leases):
                await self.settle(lease)
            await self.operate(number % 20)
            self.clock.step(self.rng.choice((0, 1, 40, 600)))

    async def admit(self, count: int) -> None:
        """One request."""
        units = [anything(self.rng, self.outbox, self.clock.now, self.erased) for _ in range(count)]
        for unit, admission in zip(units, await self.outbox.admit(units, join), strict=True):
            self.model.admitted(unit, admission)

    async def settle(self, lease: Lease) -> None:
        """End leased units in every way."""
        ends: list[Any] = self.rng.choices(["delivered", "dead", "dropped", "retry"], [8, 3, 1, 2], k=len(lease.units))
        told = [
            Settlement(unit=one.unit, end=end, reason=None if end == "delivered" else "why")
            for one, end in zip(lease.units, ends, strict=True)
        ]
        self.model.settled(lease, await self.outbox.settle(lease, told))

    async def operate(self, turn: int) -> None:
        """Replay, discard, erase."""
        if turn in (7, 13):
            letters = await self.outbox.dead(DeadFilter(), limit=20)
            which = DeadFilter(units=tuple(letter.unit for letter in letters))
            kept: tuple[str, ...] = ()
            if turn == 7:
                kept = (await self.outbox.replay(which)).duplicates
            else:
                await self.outbox.discard(which)
            for letter in letters:
                if letter.unit not in kept:
                    what = ("replayed", "") if turn == 7 else ("discarded", "operator")
                    self.model.told(letter.event, letter.destination, *what)
                    self.model.dead.discard(letter.unit)
        if turn == 19 and self.erased:
            for one in await self.outbox.erase([self.erased.pop()], requested_at=self.clock.now - 100):
                self.model.taken(one)
                self.model.sources.pop(one.unit)  # nothing is known of it any more, but that it was


def test_roll_ups_equal_a_model(tmp_path: Path) -> None:
    """Thousands of events, every fate, replays, erasures, test events: each cell is what the answers and ends say."""

    async def main() -> None:
        mix = Mix(tmp_path, 6)
        await mix.run(220)
        model, found = mix.model, await totals(mix.outbox)
        lanes = (await mix.outbox.counts()).lanes
        await mix.outbox.close()
        assert model.of("accepted", "merged", "duplicate", "dropped") > 4_000
        kinds = {"merged", "revived", "replayed", "discarded", "ended", "dead", "test_delivered", "keyless"}
        assert kinds <= {cell.what for cell in found}
        assert found == model.cells
        taken_in, out = model.of("accepted", "replayed", "revived"), model.of("delivered", "dead", "ended")
        assert taken_in == out + sum(lane.waiting + lane.leased for lane in lanes)
        gone = model.of("replayed", "revived", "discarded")
        assert model.of("dead") == gone + sum(lane.dead for lane in lanes)

    asyncio.run(main())


def test_the_model_finds_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: units that a copy takes away are not counted, and the model says so."""
    monkeypatch.setattr(Door, "ended", lambda *_: None)

    async def main() -> None:
        mix = Mix(tmp_path, 6)
        await mix.run(80)
        found = await totals(mix.outbox)
        await mix.outbox.close()
        assert found != mix.model.cells

    asyncio.run(main())


# -- what is counted


def test_a_tag_is_seen_once_and_met_under_its_id(tmp_path: Path) -> None:
    """However many copies say ``tag``, the event is seen once; it is met when it leaves, or has left, under that id."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        tag: dict[str, Any] = {"source": "tag", "tag": True, "explicit_id": True}

        async def admit(one: SealedEvent, key: str | None = None) -> str:
            return (await outbox.admit([unit_of(outbox, one, key)], join))[0].fate

        # waits, and comes again; then a server's copy with another id of the same order: the tag's id wins
        assert [await admit(sealed("t1", **tag), "o1") for _ in range(2)] == ["accepted", "duplicate"]
        assert await admit(sealed("s1", explicit_id=True), "o1") == "merged"
        # the server first, then the tag with an id of its own, twice
        assert await admit(sealed("s2", explicit_id=True), "o2") == "accepted"
        assert [await admit(sealed("t2", **tag), "o2") for _ in range(2)] == ["merged", "merged"]
        # the server first under the tag's id, attempted, then the tag: nothing changes but what the id is
        assert await admit(sealed("t3", explicit_id=True)) == "accepted"
        # gone before the tag came: under its id, and under another
        assert await admit(sealed("t4", explicit_id=True)) == "accepted"
        assert await admit(sealed("s5", explicit_id=True), "o5") == "accepted"
        lease = await outbox.claim(LANES[0], 100, clock.now)
        assert lease is not None
        assert [await admit(sealed("t3", **tag)) for _ in range(2)] == ["merged", "merged"]
        ends: list[Any] = ["retry" if one.event.event_id == "t3" else "delivered" for one in lease.units]
        await outbox.settle(
            lease, [Settlement(unit=one.unit, end=end) for one, end in zip(lease.units, ends, strict=True)]
        )
        await deliver(outbox, clock)
        assert [await admit(sealed("t4", **tag)) for _ in range(2)] == ["duplicate", "duplicate"]
        assert [await admit(sealed("t5", **tag), "o5") for _ in range(2)] == ["duplicate", "duplicate"]
        assert [await admit(sealed("t6", test=True, **tag))] == ["accepted"]
        found = await totals(outbox, "tag_seen", "tag_met")
        assert by_detail(found, "tag_seen") == {("tag", ""): 5}
        assert by_detail(found, "tag_met") == {("tag", ""): 4}, "t5 was delivered as s5"

    run(tmp_path, scenario)


def test_the_other_side_of_a_pair_is_known_for_a_while(tmp_path: Path) -> None:
    """A copy names the source that it met, waiting or delivered; a restart forgets those of delivered ones."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        async def admit(source: str) -> None:
            await outbox.admit([unit_of(outbox, sealed("e1", source=source))], join)

        for source in ("tag", "api", "api"):
            await admit(source)
        await deliver(outbox, clock)
        await admit("shop")

    run(tmp_path, scenario)

    async def again(outbox: SqliteOutbox, _clock: Clock) -> None:
        await outbox.admit([unit_of(outbox, sealed("e1", source="shop"))], join)
        expected = {("api", "merged:tag"): 2, ("shop", "duplicate:tag"): 1, ("shop", "duplicate:?"): 1}
        found = by_detail(await totals(outbox, "pair"), "pair")
        assert found == expected

    run(tmp_path, again)


def test_signals_in_groups() -> None:
    """A signal counts by its name, and the groups that Pinterest judges by need all, or one, of theirs."""
    assert coverage(frozenset({"client_ip", "fn"})) == ("client_ip", "fn")
    assert set(coverage(frozenset({"client_ip", "client_user_agent", "fn", "ln", "epik", "hashed_maids"}))) == {
        "client_ip", "client_user_agent", "fn", "ln", "hashed_maids", "ip_ua", "fn_ln", "click_id", "em_or_maid",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "note", "expected"),
    [
        (
            "6959097001d10501ac7d54c0bdb8db61420f658f2922cc26e46d536119a31126",
            "privacy: limited by gpc, gpp",
            "CA:gpc+gpp",
        ),
        (None, "privacy: limited by limited_data", "?:source"),
        (None, None, "?:?"),
    ],
)
def test_limited_data_by_state_and_signal(state: str | None, note: str | None, expected: str) -> None:
    """The state is told by its hash, the signal by the privacy plugin's note."""
    one = sealed("e", user={"st": (state,)} if state else {}, notes=(note,) if note else (), limited_data=True)
    assert limited(one) == expected


def test_test_events_count_apart(tmp_path: Path) -> None:
    """A test event has its fate and its end, and is in nothing else."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await outbox.admit([unit_of(outbox, sealed("e", test=True, limited_data=True), lane=LANES[2])], join)
        await outbox.admit([Unit(lane=LANES[2], event=sealed("f", test=True))], join)
        await deliver(outbox, clock)
        assert {cell.what: count for cell, count in (await totals(outbox)).items()} == {
            "test_accepted": 2, "test_delivered": 2,
        }  # fmt: skip

    run(tmp_path, scenario)


# -- the store


def test_counts_without_a_commit_are_written_by_upkeep_and_at_close(tmp_path: Path) -> None:
    """What has no commit of its own is in the file about a second later, and the rest at a clean stop."""
    cell = Cell("tag", "-", "-", "dropped", "bot")

    async def scenario(outbox: SqliteOutbox, _clock: Clock) -> None:
        outbox.count({cell: 2})
        end = time.monotonic() + 10
        while not read(tmp_path / "store.db", START, START + 1, "all", frozenset(), (None, None, None)):
            assert time.monotonic() < end, "not written"
            await asyncio.sleep(0.05)
        outbox.count({cell: 1})

    run(tmp_path, scenario)
    found = read(tmp_path / "store.db", START, START + 1, "hour", frozenset(), (None, None, None))
    assert found == [Rolled(int(START), *cell, 3)]


def test_a_commit_that_fails_counts_nothing(tmp_path: Path) -> None:
    """Counts, and the numbers of their keys, are those of what was committed; what was pending waits for the next."""

    async def scenario(outbox: SqliteOutbox, _clock: Clock) -> None:
        def broken(*_: Any) -> SealedEvent:
            raise RuntimeError("a bug")

        await outbox.admit([unit_of(outbox, sealed("e1"))])
        outbox.count({Cell("tag", "-", "-", "dropped", "bot"): 1})
        fresh = unit_of(outbox, sealed("e2", source="shop"))
        with pytest.raises(RuntimeError, match="a bug"):
            await outbox.admit([fresh, unit_of(outbox, sealed("e1"))], broken)
        await outbox.rehearse([fresh])
        assert {(cell.source, cell.what): count for cell, count in (await totals(outbox)).items()} == {
            ("api", "accepted"): 1, ("tag", "dropped"): 1,
        }  # fmt: skip
        await outbox.admit([fresh])
        assert (await totals(outbox, "accepted"))[Cell("shop", "pin", "checkout", "accepted")] == 1

    run(tmp_path, scenario)


def test_hours_days_and_filters(tmp_path: Path) -> None:
    """Counts are told by hour, by UTC day or in one, the days that are over from their own table, chosen by name."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        for hour in range(0, 72, 3):
            clock.now = START + hour * HOUR + 30
            outbox.count({Cell("a", "pin", "checkout", "accepted"): 1, Cell("b", "pin", "search", "dropped", "bot"): 2})
            await outbox.history(0, 1)
        for _ in range(5):
            await outbox._writer.run(lambda: (None, outbox._rollups.tend()))
        with closing(sqlite3.connect(tmp_path / "store.db")) as db:
            assert db.execute("SELECT DISTINCT day FROM rollup_day").fetchall() == [
                (START // DAY,),
                (START // DAY + 1,),
            ]

        async def told(since: float, until: float, **more: Any) -> list[tuple[float, str, int]]:
            found = await outbox.history(since, until, **more)
            return [(row.start - START, row.source, row.count) for row in found]

        end = START + 3 * DAY
        assert await told(START, START + HOUR) == [(0, "a", 1), (0, "b", 2)]
        assert await told(START + HOUR, START + 3 * HOUR + 1, source="a") == [(3 * HOUR, "a", 1)]
        assert await told(START, end, by="day", whats=("accepted",)) == [(0, "a", 8), (DAY, "a", 8), (2 * DAY, "a", 8)]
        assert await told(START + 5 * HOUR, end, by="day", event="search") == [
            (0, "b", 16), (DAY, "b", 16), (2 * DAY, "b", 16),
        ]  # fmt: skip
        # the first six hours are left out, by the hour
        assert await told(START + 6 * HOUR, end, by="all", source="a", destination="pin") == [(-START, "a", 22)]
        assert await told(START, end, by="all", destination="nowhere") == []

    run(tmp_path, scenario)


def test_a_clock_that_was_set_back_adds_its_day_up_again(tmp_path: Path) -> None:
    """Counts of a day that was added up already are in its sum a little later."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        async def tend() -> None:
            for _ in range(3):
                await outbox._writer.run(lambda: (None, outbox._rollups.tend()))

        cell = Cell("a", "-", "-", "accepted")
        outbox.count({cell: 1})
        await tend()
        clock.step(DAY)
        outbox.count({cell: 1})
        await tend()
        clock.step(-DAY)
        outbox.count({cell: 1})
        await outbox.history(0, 1)
        clock.step(DAY)
        await tend()
        found = await outbox.history(START, START + 2 * DAY, by="day")
        assert [(row.start - START, row.count) for row in found] == [(0, 2), (DAY, 1)]

    run(tmp_path, scenario)


def test_roll_ups_expire_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours older than ``rollup_keep_s`` are deleted, so many rows a slice, and a day when all of it is too old."""
    monkeypatch.setattr(rollups, "_EXPIRED_A_SLICE", 4)

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        with closing(sqlite3.connect(tmp_path / "store.db")) as db:

            def rows(table: str) -> int:
                (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
                return int(count)

            for hour in range(10):
                clock.now = START + hour * HOUR
                outbox.count({Cell("a", "-", "-", "accepted"): 1, Cell("b", "-", "-", "accepted"): 1})
                await outbox.history(0, 1)
            clock.now = START + 2 * DAY + 7 * HOUR
            seen = [rows("rollup")]
            for _ in range(5):
                await outbox._writer.run(lambda: (None, outbox._rollups.tend()))
                seen.append(rows("rollup"))
            assert all(0 <= before - after <= 4 for before, after in pairwise(seen))
            assert (seen[0], seen[-1], rows("rollup_day")) == (20, 6, 2)
            clock.now = START + 4 * DAY
            for _ in range(5):
                await outbox._writer.run(lambda: (None, outbox._rollups.tend()))
            assert (rows("rollup"), rows("rollup_day")) == (0, 0)

    run(tmp_path, scenario, rollup_keep_s=2 * DAY)


def test_an_older_store_is_migrated(tmp_path: Path) -> None:
    """A store of version 2 gets the tables, keeps its events, and is counted from then on."""
    path = tmp_path / "store.db"

    async def old(outbox: SqliteOutbox, _clock: Clock) -> None:
        await outbox.admit([unit_of(outbox, sealed("e1"))])

    run(tmp_path, old)
    with closing(sqlite3.connect(path)) as db:
        for table in ("rollup", "rollup_day", "rollup_key"):
            db.execute(f"DROP TABLE {table}")
        db.execute("DROP INDEX IF EXISTS unit_dead")  # of version 3 too
        db.execute("UPDATE meta SET value = 2 WHERE name = 'format'")
        db.execute("PRAGMA user_version = 2")
        db.commit()

    async def new(outbox: SqliteOutbox, clock: Clock) -> None:
        assert len(await deliver(outbox, clock)) == 1
        assert {cell.what for cell in await totals(outbox)} == {"delivered"}

    run(tmp_path, new)
    assert path.with_name(f"store.db.before-{schema.VERSION}").exists()


def test_a_backup_has_the_roll_ups(tmp_path: Path) -> None:
    """A copy of the store counts as the store does."""

    async def scenario(outbox: SqliteOutbox, _clock: Clock) -> None:
        await outbox.admit([unit_of(outbox, sealed("e1"))])
        await outbox.backup(str(tmp_path / "copy.db"))
        found = read(tmp_path / "copy.db", START, START + 1, "all", frozenset(), (None, None, None))
        assert [row.what for row in found] == ["accepted"]

    run(tmp_path, scenario)


def test_what_is_salvaged_is_counted_as_such(tmp_path: Path) -> None:
    """Events of a damaged store are counted once more, by what they came back as; salvaging twice adds nothing."""

    async def lost(outbox: SqliteOutbox, clock: Clock) -> None:
        await outbox.admit([unit_of(outbox, sealed("e1"))])
        await deliver(outbox, clock, "dead", reason="why")
        await outbox.admit([unit_of(outbox, sealed(f"e{number}")) for number in (2, 3)])

    async def again(outbox: SqliteOutbox, _clock: Clock) -> None:
        for _ in range(2):
            await outbox.salvage(tmp_path / "lost" / "store.db")
        assert by_detail(await totals(outbox), "salvaged") == {("api", "queued"): 2, ("api", "dead"): 1}

    (tmp_path / "lost").mkdir()
    run(tmp_path / "lost", lost)
    run(tmp_path, again)


# -- reading


def filled(folder: Path, days: int) -> Path:
    """Return a store of five sources, ten events and twenty whats, with a row for each in every hour, added up."""
    path = folder / "large.db"
    connection = schema.connect(path)
    cells = [
        (f"source{a}", "pinterest", f"event{b}", f"what{c}") for a in range(5) for b in range(10) for c in range(20)
    ]
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO rollup_key (source, destination, event, what, detail) VALUES (?, ?, ?, ?, '')", cells
    )
    first = int(START) // HOUR
    connection.execute(
        "WITH RECURSIVE h(n) AS (VALUES (?) UNION ALL SELECT n + 1 FROM h WHERE n + 1 < ?)"
        " INSERT INTO rollup SELECT n, k.id, (n * 7 + k.id) % 5 + 1 FROM h CROSS JOIN rollup_key k ORDER BY n, k.id",
        (first, first + days * 24),
    )
    connection.execute(
        "INSERT INTO rollup_day SELECT hour / 24, key, sum(count) FROM rollup WHERE hour < ? GROUP BY 1, 2",
        (first + (days - 1) * 24,),
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


def test_a_month_is_read_quickly(tmp_path: Path) -> None:
    """From roll-ups of millions of events, a month by day and a day by hour are read in milliseconds."""
    path = filled(tmp_path, 32)
    now = START + 32 * DAY - 600
    with closing(sqlite3.connect(path)) as db:
        (events,) = db.execute("SELECT sum(count) FROM rollup").fetchone()
    assert events > 1_000_000

    def took(since: float, by: Any, whats: frozenset[str]) -> float:
        """Return the best of a few: other tests run beside this one."""
        best = 1e9
        for _ in range(5):
            started = time.perf_counter()
            found = read(path, since, now, by, whats, (None, None, None))
            best = min(best, time.perf_counter() - started)
            assert found
        return best * 1000

    few = frozenset({"what1", "what2", "what3"})
    figures = {
        "30 days by day, 3 of 20 whats": took(now - 30 * DAY, "day", few),
        "30 days in one, 3 of 20 whats": took(now - 30 * DAY, "all", few),
        "30 days in one, all": took(now - 30 * DAY, "all", frozenset()),
        "a day by hour, 3 of 20 whats": took(now - DAY, "hour", few),
        "a day by hour, all": took(now - DAY, "hour", frozenset()),
    }
    say(str({name: f"{ms:.1f} ms" for name, ms in figures.items()}))
    assert max(figures.values()) < 400


def test_reading_uses_the_primary_keys(tmp_path: Path) -> None:
    """Each statement of a read looks up its range and walks no table."""
    with closing(schema.connect(tmp_path / "store.db")) as db:
        for statement in (rollups.HOURS, rollups.DAYS):
            for text, values in ((statement, (1, 2)), (statement + rollups.CHOSEN, (1, 2, "[1]"))):
                plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text}", values)]
                assert any("SEARCH rollup" in step and "USING PRIMARY KEY" in step for step in plan), plan
                assert not any(step.startswith("SCAN rollup") for step in plan), plan


# -- through the gateway, and over kills


def test_the_gateway_counts_what_it_answers(tmp_path: Path) -> None:
    """Hits by status, dropped and rejected events and fates: as many as were answered, by source and event."""

    async def main() -> None:
        async with world(tmp_path, tables(), clock=Clock(START)) as here:
            now = here.clock()
            told = [await here.post(event("a", now), event("a", now), event("b", now, event_name="no such"))]
            told.append(
                await here.post({"event_name": "checkout", "event_id": 7 * "x" * 5000}, event("old", now - 9e6))
            )
            await here.running.post("api", [event("c", now)], {})  # without the secret: 401
            await here.drain()
            fates = Counter(one["outcome"] for answer in told for one in answer)
            found = await here.gateway.outbox.history(0, now + 1, by="all")
            counted = Counter(dict.fromkeys(fates, 0))
            for row in found:
                counted[row.what] += row.count
            assert {what: counted[what] for what in fates} == dict(fates)
            assert {row.detail: row.count for row in found if row.what == "hit"} == {"200": 2, "401": 1}
            assert {row.event for row in found} <= {"-", "checkout", "custom"}

    asyncio.run(main())


def rolled(store: Path) -> Counter[str]:
    """Return the counts of a store that nobody has open, by what."""
    found = read(store, 0, 4e9, "all", frozenset(), (None, None, None))
    counted: Counter[str] = Counter()
    for row in found:
        counted[row.what] += row.count
    return counted


def test_counts_are_exact_after_kills(tmp_path: Path) -> None:
    """``kill -9`` again and again under load: what was accepted, merged, delivered and died is counted exactly."""
    config = plain_config(batch_size=20)
    rng = random.Random(66)
    fates: Counter[str] = Counter()
    unknown = 0
    with Pair(tmp_path, config) as pair:
        pair.sandbox.queue(*({"kind": "status", "status": 422} for _ in range(2)))
        number = 0
        for _ in range(2):
            with httpx.Client(base_url=f"http://127.0.0.1:{pair.gateway.port}", timeout=10, trust_env=False) as client:
                until = time.monotonic() + rng.uniform(0.4, 1.0)
                while time.monotonic() < until:
                    number += 1
                    batch = [posted(number), posted(number), posted(max(1, number - 7))]
                    fates.update(sent(client, batch))
            # one more is under way when the process ends
            unknown += 1
            kill_while_posting(pair, posted(1_000_000 + unknown))
            at_kill = sqlite_counts(pair.gateway.store, tmp_path)
            assert at_kill["accepted"] == at_kill["units"]
            assert (
                at_kill["accepted"] + at_kill["revived"] == at_kill["delivered"] + at_kill["dead"] + at_kill["waiting"]
            )
            pair.gateway.start()
        pair.sandbox.clear()
        pair.gateway.drain()
        dead = len(pair.gateway.api("GET", "/api/dead?limit=1000")["letters"])
        arrived = len(pair.sandbox.ids())
        pair.gateway.terminate(20)
        found = rolled(pair.gateway.store)
    assert (found["delivered"], found["dead"]) == (arrived, dead + found["revived"])
    assert found["accepted"] == arrived + dead
    for what in ("accepted", "duplicate", "merged"):
        assert fates[what] <= found[what] <= fates[what] + unknown, (what, found, fates)
    assert fates["duplicate"] > 20
    assert fates["accepted"] > 20


def posted(number: int) -> dict[str, Any]:
    """Return an event; the number makes the id."""
    return {
        "event_name": "checkout", "event_id": f"k{number}", "event_time": int(time.time()) - 5,
        "user": {"email": f"k{number}@example.com"},
    }  # fmt: skip


def sent(client: httpx.Client, batch: list[dict[str, Any]]) -> list[str]:
    """Post events; returns their fates."""
    answer = client.post("/in/api", json=batch, headers={"Authorization": f"Bearer {SECRET}"})
    assert answer.status_code == 200, answer.text
    return [one["outcome"] for one in answer.json()["events"]]


def kill_while_posting(pair: Pair, one: dict[str, Any]) -> None:
    """End the process while a hit is on its way."""

    async def main() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pair.gateway.port}", trust_env=False) as client:
            head = {"Authorization": f"Bearer {SECRET}"}
            hit = asyncio.create_task(client.post("/in/api", json=[one], headers=head))
            await asyncio.sleep(0.002)
            await asyncio.to_thread(pair.gateway.kill)
            await asyncio.gather(hit, return_exceptions=True)

    asyncio.run(main())


def sqlite_counts(store: Path, folder: Path) -> Counter[str]:
    """Return what a killed store holds and counts, from a copy of its files: opening them would do the recovery."""
    assert snapshot(store).is_sound
    place = folder / "killed"
    place.mkdir(exist_ok=True)
    for suffix in ("", "-wal"):
        part = store.with_name(store.name + suffix)
        (place / part.name).unlink(missing_ok=True)
        if part.exists():
            (place / part.name).write_bytes(part.read_bytes())
    with closing(sqlite3.connect(place / store.name)) as db:
        (waiting,) = db.execute("SELECT count(*) FROM unit WHERE state = 0").fetchone()
        (units,) = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()
        counted = Counter(
            dict(db.execute("SELECT what, sum(count) FROM rollup JOIN rollup_key ON id = key GROUP BY what"))
        )
    return counted + Counter({"waiting": waiting, "units": units})
