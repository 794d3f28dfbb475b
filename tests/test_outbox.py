"""The SQLite outbox: identity, windows, leases, dead letters, erasure, restarts, and a model of all of it."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.errors import StoreLocked, StoreTooNew, Unavailable
from gateway.event import SealedEvent
from gateway.outbox import Admission, DeadFilter, Lane, Lease, Mark, Settlement, Unit, schema, upkeep
from gateway.outbox.sqlite import SqliteOutbox

LANE = Lane(destination="pinterest", kind="live")
NOW = 1_795_305_600.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def event(event_id: str = "e1", name: str = "checkout", time: float = NOW, **more: Any) -> SealedEvent:
    return SealedEvent(
        event_id=event_id, event_name=name, event_time=int(time), accepted_at=time, source="api", site="shop",
        born="server", **more,
    )  # fmt: skip


def unit(outbox: SqliteOutbox, sealed: SealedEvent, *keys: str, lane: Lane = LANE, **more: Any) -> Unit:
    digest = outbox.digest("id", sealed.event_name, sealed.event_id)
    marks = [Mark(digest=digest, lifetime_s=172_800)]
    for key in keys:
        digest = outbox.digest("key", sealed.event_name, key)
        marks.append(Mark(digest=digest, lifetime_s=2_592_000, business=True))
    return Unit(lane=lane, event=sealed, marks=tuple(marks), **more)


def run(tmp_path: Path, scenario: Callable[[SqliteOutbox, Clock], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario against an outbox of its own."""

    async def main() -> None:
        clock = Clock()
        outbox = SqliteOutbox(tmp_path / "store.db", clock=clock, linger_s=0.0)
        try:
            await scenario(outbox, clock)
        finally:
            await outbox.close()

    asyncio.run(main())


async def one(outbox: SqliteOutbox, admitted: Unit, **more: Any) -> Admission:
    return (await outbox.admit([admitted], **more))[0]


async def claim(outbox: SqliteOutbox, clock: Clock, limit: int = 1000, lane: Lane = LANE) -> Lease:
    lease = await outbox.claim(lane, limit, clock.now)
    assert lease is not None
    return lease


async def settle_all(outbox: SqliteOutbox, lease: Lease, end: Any = "delivered", **more: Any) -> None:
    await outbox.settle(lease, [Settlement(unit=claimed.unit, end=end, **more) for claimed in lease.units])


def join(kept: SealedEvent, copy: SealedEvent, frozen: bool) -> SealedEvent:
    """Fill the search string; let an explicit id win while nothing is frozen."""
    merged = kept if kept.search_string else msgspec.structs.replace(kept, search_string=copy.search_string)
    if copy.explicit_id and not kept.explicit_id and not frozen:
        merged = msgspec.structs.replace(merged, event_id=copy.event_id, explicit_id=True)
    return merged


def test_a_second_copy_is_a_duplicate_of_the_waiting_one(tmp_path: Path) -> None:
    """The same id again, waiting or delivered, in the same request or later, is a duplicate that names the first."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        first, again = await outbox.admit([unit(outbox, event()), unit(outbox, event())])
        assert (first.fate, again.fate, again.of) == ("accepted", "duplicate", "e1")
        assert (await one(outbox, unit(outbox, event()))).fate == "duplicate"
        await settle_all(outbox, await claim(outbox, clock))
        assert (await one(outbox, unit(outbox, event()))).fate == "duplicate"

    run(tmp_path, scenario)


def test_names_and_lanes_have_ids_of_their_own(tmp_path: Path) -> None:
    """One id under two event names is two events, as at Pinterest."""

    async def scenario(outbox: SqliteOutbox, _clock: Clock) -> None:
        assert (await one(outbox, unit(outbox, event(name="checkout")))).fate == "accepted"
        assert (await one(outbox, unit(outbox, event(name="page_visit")))).fate == "accepted"

    run(tmp_path, scenario)


@pytest.mark.parametrize(("after_s", "fate"), [(172_799, "duplicate"), (172_860, "accepted")])
def test_the_window_of_an_id_has_sharp_edges(tmp_path: Path, after_s: int, fate: str) -> None:
    """An id is suppressed one second before its 48 hours end, and accepted one minute after, across a restart."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await one(outbox, unit(outbox, event()))
        await settle_all(outbox, await claim(outbox, clock))

    async def later(outbox: SqliteOutbox, clock: Clock) -> None:
        clock.now += after_s
        assert (await one(outbox, unit(outbox, event(time=clock.now)))).fate == fate

    run(tmp_path, scenario)
    run(tmp_path, later)


def test_no_key_expires_while_its_event_waits(tmp_path: Path) -> None:
    """A waiting event keeps its marks beyond their lifetime, also when upkeep walks over them."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await one(outbox, unit(outbox, event()))
        clock.now += 10 * 172_800
        await outbox.close()

    async def later(outbox: SqliteOutbox, clock: Clock) -> None:
        clock.now += 10 * 172_800
        assert (await one(outbox, unit(outbox, event()))).fate == "duplicate"

    run(tmp_path, scenario)
    run(tmp_path, later)


def test_expired_marks_leave_the_disk(tmp_path: Path) -> None:
    """Upkeep deletes marks whose time is over and whose unit is gone."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await outbox.admit([unit(outbox, event(f"e{number}")) for number in range(50)])
        await settle_all(outbox, await claim(outbox, clock))
        clock.now += 172_801

    run(tmp_path, scenario)
    with sqlite3.connect(tmp_path / "store.db") as connection:
        assert connection.execute("SELECT count(*) FROM mark").fetchone() == (0,)
    connection.close()


def test_business_keys_chain_copies_with_different_ids(tmp_path: Path) -> None:
    """Pixel {token}, created {token, order}, paid {order}: one conversion, each copy named after the first."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        assert (await one(outbox, unit(outbox, event("sh-1"), "checkout:t"))).fate == "accepted"
        created = await one(outbox, unit(outbox, event("shop-7"), "checkout:t", "order:7"))
        assert (created.fate, created.of) == ("duplicate", "sh-1")
        await settle_all(outbox, await claim(outbox, clock))
        paid = await one(outbox, unit(outbox, event("shop-7b"), "order:7"))
        assert (paid.fate, paid.of) == ("duplicate", "sh-1")
        assert (await one(outbox, unit(outbox, event("shop-7b")))).fate == "duplicate"

    run(tmp_path, scenario)


def test_a_copy_is_merged_into_the_waiting_event(tmp_path: Path) -> None:
    """With a join a copy fills what is missing, an explicit id replaces a derived one, marks stand for the first."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await one(outbox, unit(outbox, event("shop-7"), "order:7"), join=join)
        copy = event("sh-1", explicit_id=True, search_string="lamp")
        merged = await one(outbox, unit(outbox, copy, "order:7", "checkout:t"), join=join)
        assert (merged.fate, merged.of) == ("merged", "sh-1")
        third = await one(outbox, unit(outbox, event("x"), "checkout:t"), join=join)
        assert third.fate == "duplicate", "it adds nothing"
        lease = await claim(outbox, clock)
        assert [(claimed.event.event_id, claimed.event.search_string) for claimed in lease.units] == [("sh-1", "lamp")]

    run(tmp_path, scenario)


def test_a_copy_joins_two_waiting_events(tmp_path: Path) -> None:
    """A copy with keys of two waiting events makes them one; the second one ends as merged, and none is sent twice."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await one(outbox, unit(outbox, event("a"), "checkout:t"), join=join)
        await one(outbox, unit(outbox, event("b"), "order:7"), join=join)
        both = await one(outbox, unit(outbox, event("c"), "checkout:t", "order:7"), join=join)
        assert both.fate == "merged"
        assert [(ended.event_id, ended.end) for ended in both.ended] == [("b", "merged")]
        assert outbox.waiting(LANE) == 1
        assert (await one(outbox, unit(outbox, event("b")), join=join)).fate == "duplicate"
        assert len((await claim(outbox, clock)).units) == 1

    run(tmp_path, scenario)


def test_a_copy_of_a_sent_and_a_waiting_event_ends_the_waiting_one(tmp_path: Path) -> None:
    """When one of two was sent, the other becomes its duplicate."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await one(outbox, unit(outbox, event("a"), "checkout:t"))
        await settle_all(outbox, await claim(outbox, clock))
        await one(outbox, unit(outbox, event("b"), "order:7"))
        both = await one(outbox, unit(outbox, event("c"), "checkout:t", "order:7"))
        assert (both.fate, both.of) == ("duplicate", "a")
        assert [(ended.event_id, ended.end, ended.reason) for ended in both.ended] == [("b", "dropped", "duplicate")]
        assert outbox.waiting(LANE) == 0
        assert (await one(outbox, unit(outbox, event("b")))).fate == "duplicate"

    run(tmp_path, scenario)


def test_a_leased_event_keeps_its_id(tmp_path: Path) -> None:
    """After the first attempt a copy may only fill what is missing."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await one(outbox, unit(outbox, event("shop-7"), "order:7"), join=join)
        lease = await claim(outbox, clock)
        copy = event("sh-1", explicit_id=True, search_string="lamp")
        assert (await one(outbox, unit(outbox, copy, "order:7"), join=join)).fate == "merged"
        await settle_all(outbox, lease, "retry")
        again = await claim(outbox, clock)
        assert [(claimed.event.event_id, claimed.event.search_string) for claimed in again.units] == [
            ("shop-7", "lamp")
        ]
        assert again.units[0].attempts == 1

    run(tmp_path, scenario)


def test_a_dropped_event_leaves_no_mark(tmp_path: Path) -> None:
    """What could not be sent does not stand in the way of a better copy, at admission and at the last look."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        refused = await one(outbox, unit(outbox, event(), refusal="no_identity"))
        assert (refused.fate, refused.reason) == ("dropped", "no_identity")
        assert (await one(outbox, unit(outbox, event()))).fate == "accepted"
        await settle_all(outbox, await claim(outbox, clock), "dropped", reason="too_old")
        assert (await one(outbox, unit(outbox, event()))).fate == "accepted"

    run(tmp_path, scenario)


def test_denied_consent_withdraws_and_remembers(tmp_path: Path) -> None:
    """A denial withdraws the waiting copy, later copies are dropped under all its keys, a newer grant is heard."""

    async def scenario(outbox: SqliteOutbox, _clock: Clock) -> None:
        await one(outbox, unit(outbox, event("a"), "checkout:t"))
        denied = await one(outbox, unit(outbox, event("b", time=NOW + 10), "checkout:t", "order:7", consent="denied"))
        assert (denied.fate, denied.reason) == ("dropped", "consent")
        assert [(ended.event_id, ended.reason) for ended in denied.ended] == [("a", "consent")]
        assert outbox.waiting(LANE) == 0
        later = await one(outbox, unit(outbox, event("c", time=NOW + 20), "order:7"))
        assert (later.fate, later.reason) == ("dropped", "consent")
        assert (await one(outbox, unit(outbox, event("a", time=NOW + 30)))).reason == "consent"
        older = await one(outbox, unit(outbox, event("d", time=NOW), "order:7", consent="granted"))
        assert older.reason == "consent"
        newer = await one(outbox, unit(outbox, event("e", time=NOW + 40), "order:7", consent="granted"))
        assert newer.fate == "accepted"

    run(tmp_path, scenario)


def test_a_denial_of_a_leased_event_lets_no_retry_out(tmp_path: Path) -> None:
    """An event that is in flight while consent is denied is not sent again, and not queued again."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await one(outbox, unit(outbox, event("a")))
        lease = await claim(outbox, clock)
        await one(outbox, unit(outbox, event("a", time=NOW + 1), consent="denied"))
        await settle_all(outbox, lease, "retry")
        assert outbox.waiting(LANE) == 0
        assert await outbox.claim(LANE, 10, clock.now) is None
        assert (await one(outbox, unit(outbox, event("a")))).reason == "consent"

    run(tmp_path, scenario)


def test_fresh_events_go_before_late_ones(tmp_path: Path) -> None:
    """Events of the last hour go first, newest first; then the others, oldest first."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        ages = {"old": 9_000, "older": 90_000, "fresh": 60, "newest": 1}
        await outbox.admit([unit(outbox, event(name, time=NOW - age)) for name, age in ages.items()])
        lease = await claim(outbox, clock)
        assert [claimed.event.event_id for claimed in lease.units] == ["newest", "fresh", "older", "old"]

    run(tmp_path, scenario)


def test_held_and_backed_off_units_wait_for_their_time(tmp_path: Path) -> None:
    """A held unit and one put back with a due time are not claimed before it."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await one(outbox, unit(outbox, event("held"), hold_s=30))
        assert await outbox.claim(LANE, 10, clock.now) is None
        assert await outbox.next_due(LANE) == pytest.approx(NOW + 30)
        clock.now += 31
        await settle_all(outbox, await claim(outbox, clock), "retry", due=clock.now + 60)
        assert await outbox.claim(LANE, 10, clock.now) is None
        clock.now += 61
        assert len((await claim(outbox, clock)).units) == 1

    run(tmp_path, scenario)


def test_a_lost_lease_settles_nothing(tmp_path: Path) -> None:
    """
    After its deadline a lease is given up; its late settlement changes nothing and its units go to the next sender.
    """

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await one(outbox, unit(outbox, event()))
        lost = await claim(outbox, clock)
        clock.now = lost.deadline + 1
        again = await claim(outbox, clock)
        assert again.units[0].attempts == 1
        assert again.units[0].maybe_twice
        assert await outbox.settle(lost, [Settlement(unit=lost.units[0].unit, end="dead", reason="late")]) == []
        await settle_all(outbox, again)
        assert (await outbox.counts()).lanes[0].dead == 0

    run(tmp_path, scenario)


def test_leases_of_a_crash_are_attempts(tmp_path: Path) -> None:
    """After a kill the units of a lease wait again, counted as attempted and maybe sent twice."""

    async def crash() -> None:
        outbox = SqliteOutbox(tmp_path / "store.db", clock=Clock(), linger_s=0.0)
        await one(outbox, unit(outbox, event()))
        await claim(outbox, Clock())
        # what a kill leaves behind: the files as they are, and no lock
        for name in ("store.db", "store.db-wal"):
            (tmp_path / f"killed-{name}").write_bytes((tmp_path / name).read_bytes())
        await outbox.close()

    async def after() -> None:
        for name in ("store.db", "store.db-wal"):
            (tmp_path / "after").mkdir(exist_ok=True)
            (tmp_path / f"killed-{name}").rename(tmp_path / "after" / name)
        clock = Clock()
        outbox = SqliteOutbox(tmp_path / "after" / "store.db", clock=clock, linger_s=0.0)
        assert outbox.recovered == 1
        claimed = (await claim(outbox, clock)).units[0]
        assert (claimed.attempts, claimed.maybe_twice) == (1, True)
        await outbox.close()

    asyncio.run(crash())
    asyncio.run(after())


def test_replay_keeps_id_and_refuses_what_was_delivered_since(tmp_path: Path) -> None:
    """A dead letter goes again under its own id; not when another event with one of its keys was delivered since."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await outbox.admit([unit(outbox, event("a"), "order:1"), unit(outbox, event("b"), "order:2")])
        await settle_all(outbox, await claim(outbox, clock), "dead", reason="refused")
        with sqlite3.connect(outbox.path) as other:
            held = outbox.digest("key", "checkout", "order:2")
            other.execute("UPDATE mark SET unit = 9999 WHERE digest = ?", (held,))
        other.close()
        clock.now += 3 * 172_800
        done = await outbox.replay(DeadFilter())
        assert done.queued == 1
        assert len(done.duplicates) == 1
        lease = await claim(outbox, clock)
        assert [(claimed.event.event_id, claimed.event.event_time) for claimed in lease.units] == [("a", int(NOW))]
        await settle_all(outbox, lease)
        assert (await one(outbox, unit(outbox, event("a2", time=clock.now), "order:1"))).fate == "duplicate"

    run(tmp_path, scenario)


def test_a_copy_of_a_dead_event_brings_it_back(tmp_path: Path) -> None:
    """A copy of a dead event is merged with it and queued; the dead letter is gone."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await one(outbox, unit(outbox, event("a")))
        await settle_all(outbox, await claim(outbox, clock), "dead", reason="refused")
        assert (await one(outbox, unit(outbox, event("a", time=NOW + 5)))).fate == "merged"
        assert await outbox.dead(DeadFilter()) == []
        assert len((await claim(outbox, clock)).units) == 1

    run(tmp_path, scenario)


def test_dead_letters_can_be_filtered_and_discarded(tmp_path: Path) -> None:
    """Filters choose letters by reason and name; a discarded letter frees its keys."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await outbox.admit([unit(outbox, event("a")), unit(outbox, event("b", name="lead"))])
        await settle_all(outbox, await claim(outbox, clock), "dead", reason="refused")
        assert [letter.event.event_id for letter in await outbox.dead(DeadFilter(event_name="lead"))] == ["b"]
        assert await outbox.dead(DeadFilter(reason="other")) == []
        assert await outbox.discard(DeadFilter(event_name="lead")) == 1
        assert (await one(outbox, unit(outbox, event("b", name="lead")))).fate == "accepted"
        assert [letter.event.event_id for letter in await outbox.dead(DeadFilter())] == ["a"]

    run(tmp_path, scenario)


def test_erasure_takes_waiting_leased_and_dead_units(tmp_path: Path) -> None:
    """Everything of a subject from before the request goes, in flight too; marks and later events stay."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        person, other = outbox.digest("subject", "jane"), outbox.digest("subject", "joe")
        units = [unit(outbox, event(name), subjects=(person,)) for name in ("dead", "leased")]
        await outbox.admit(units[:1])
        await settle_all(outbox, await claim(outbox, clock), "dead", reason="refused")
        await outbox.admit(units[1:])
        lease = await claim(outbox, clock)
        await outbox.admit(
            [unit(outbox, event("waiting"), subjects=(person,)), unit(outbox, event("joe"), subjects=(other,))]
        )
        clock.now += 100
        erased = await outbox.erase([person], requested_at=clock.now)
        assert sorted((ended.event_id, ended.reason) for ended in erased) == [
            ("dead", "erased"), ("leased", "erased"), ("waiting", "erased"),
        ]  # fmt: skip
        await settle_all(outbox, lease, "retry")
        assert outbox.waiting(LANE) == 1
        assert await outbox.dead(DeadFilter()) == []
        late = await one(outbox, unit(outbox, event("late copy"), subjects=(person,)))
        assert (late.fate, late.reason) == ("dropped", "erased")
        assert (await one(outbox, unit(outbox, event("waiting")))).fate == "duplicate"
        newer = await one(outbox, unit(outbox, event("new", time=clock.now + 1), subjects=(person,)))
        assert newer.fate == "accepted"

    run(tmp_path, scenario)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """While one holds the store another one gets a clear error."""

    async def scenario(outbox: SqliteOutbox, _clock: Clock) -> None:
        with pytest.raises(StoreLocked, match="in use"):
            SqliteOutbox(outbox.path)

    run(tmp_path, scenario)


def test_a_newer_store_is_refused_and_a_broken_file_moved_aside(tmp_path: Path) -> None:
    """A store of a newer program is refused with the remedy; a file that is no store is kept aside, untouched."""
    newer = tmp_path / "newer.db"
    with sqlite3.connect(newer) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    with pytest.raises(StoreTooNew, match="newer version"):
        SqliteOutbox(newer)
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"not a database" * 100)
    outbox = SqliteOutbox(broken)
    assert "not a database" in outbox.damaged[0]
    asyncio.run(outbox.close())
    (aside,) = tmp_path.glob("broken.db.corrupt-*")
    assert aside.read_bytes() == b"not a database" * 100


def test_migrations_run_once_and_keep_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older store is brought forward step by step, after a copy was made; its events are still there."""

    async def scenario(outbox: SqliteOutbox, _clock: Clock) -> None:
        await one(outbox, unit(outbox, event()))

    run(tmp_path, scenario)

    def add_column(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE erased ADD COLUMN note TEXT")

    newer = schema.VERSION + 1
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add_column))
    monkeypatch.setattr(schema, "VERSION", newer)

    async def later(outbox: SqliteOutbox, _clock: Clock) -> None:
        assert outbox.waiting(LANE) == 1

    run(tmp_path, later)
    run(tmp_path, later)
    assert (tmp_path / f"store.db.before-{newer}").exists()


def test_payloads_leave_the_disk_after_delivery(tmp_path: Path) -> None:
    """After delivery and a checkpoint the bytes of the event are in none of the store's files."""
    marker = "marker-7f3a9c51d2"

    def holds(text: str) -> bool:
        return any(text.encode() in path.read_bytes() for path in tmp_path.glob("store.db*"))

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await one(outbox, unit(outbox, event("e", search_string=marker)))
        assert holds(marker)
        await settle_all(outbox, await claim(outbox, clock))

    run(tmp_path, scenario)
    assert not holds(marker)


def test_backup_is_a_whole_store(tmp_path: Path) -> None:
    """A backup made while the store is in use opens with the same units, and refuses to overwrite."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await outbox.admit([unit(outbox, event(f"e{number}")) for number in range(30)])
        assert await outbox.backup(str(tmp_path / "copy.db")) > 0
        with pytest.raises(FileExistsError):
            await outbox.backup(str(tmp_path / "copy.db"))
        copy = SqliteOutbox(tmp_path / "copy.db", clock=clock)
        assert copy.waiting(LANE) == 30
        await copy.close()

    run(tmp_path, scenario)


def test_a_failed_commit_accepts_nothing(tmp_path: Path) -> None:
    """When the store cannot be written the request is told so, and the next one works."""

    async def scenario(outbox: SqliteOutbox, _clock: Clock) -> None:
        await one(outbox, unit(outbox, event("before")))
        outbox._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(Unavailable) as caught:
            await one(outbox, unit(outbox, event("during")))
        assert caught.value.reason == "store_failed"
        outbox._connection.execute("PRAGMA query_only = 0")
        assert (await one(outbox, unit(outbox, event("during")))).fate == "accepted"
        assert outbox.waiting(LANE) == 2

    run(tmp_path, scenario)


def test_counts_agree_with_the_tables(tmp_path: Path) -> None:
    """The counters kept in memory are those of a fresh count, after every kind of change and after a restart."""

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        await outbox.admit([unit(outbox, event(f"e{number}")) for number in range(20)])
        lease = await claim(outbox, clock, limit=10)
        half = [Settlement(unit=claimed.unit, end="dead", reason="x") for claimed in lease.units[:4]]
        await outbox.settle(lease, [*half, *(Settlement(unit=c.unit, end="retry") for c in lease.units[4:6])])
        lane = (await outbox.counts()).lanes[0]
        assert (lane.waiting, lane.leased, lane.dead) == (16, 0, 4)

    async def later(outbox: SqliteOutbox, _clock: Clock) -> None:
        lane = (await outbox.counts()).lanes[0]
        assert (lane.waiting, lane.leased, lane.dead) == (16, 0, 4)

    run(tmp_path, scenario)
    run(tmp_path, later)


def test_the_wal_is_emptied_while_the_store_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivered payloads leave the disk by themselves, without a restart, and again after a reader was in the way."""
    monkeypatch.setattr(upkeep, "_TRUNCATE_EVERY_S", 0.05)
    monkeypatch.setattr(upkeep, "_SLICE_EVERY_S", 0.01)
    monkeypatch.setattr(upkeep, "_AGAIN_S", 0.05)
    marker = b"marker-5d1c77"

    def is_kept() -> bool:
        return any(marker in path.read_bytes() for path in tmp_path.glob("store.db*"))

    async def scenario(outbox: SqliteOutbox, clock: Clock) -> None:
        reader = schema.connect_reader(outbox.path)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM unit").fetchone()
        await one(outbox, unit(outbox, event("e", search_string=marker.decode())))
        await settle_all(outbox, await claim(outbox, clock))
        assert is_kept()
        reader.close()
        deadline = asyncio.get_running_loop().time() + 10
        while is_kept():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)

    run(tmp_path, scenario)
