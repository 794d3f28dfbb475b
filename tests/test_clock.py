"""A wall clock that jumps: nothing is deleted early, no retry stalls, no window is longer or shorter than it says."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.interfaces import Retry
from gateway.outbox import DeadFilter, Memorandum, Remembered, Settlement
from gateway.outbox.sqlite import SqliteOutbox
from gateway.outcome import Settled
from gateway.sender import DestinationLane
from gateway.steady import BELIEVED_S, Anchor, Steady
from gateway.tally import Tally
from gateway.testing.doubles import RecordingDestination
from tests.test_outbox import LANE, NOW, event, one, settle_all, unit

HOUR, DAY = 3_600.0, 86_400.0
JUMPS = [2 * HOUR, -2 * HOUR, -DAY, 7 * DAY]


class World:
    """Real time, and a wall clock that may be wrong; ``boot`` changes with a reboot."""

    def __init__(self) -> None:
        self.passed = 1_000.0
        self.offset = NOW
        self.boot = "one"
        self.is_frozen = False
        self._stood = 0.0

    def wall(self) -> float:
        return self._stood if self.is_frozen else self.passed + self.offset

    def up(self) -> float:
        return self.passed

    def jump(self, seconds: float) -> None:
        self.offset += seconds

    def freeze(self) -> None:
        self._stood, self.is_frozen = self.wall(), True

    def step(self, seconds: float) -> None:
        self.passed += seconds

    def steady(self) -> Steady:
        return Steady(self.wall, self.up, self.boot)

    def open(self, folder: Path, **more: Any) -> SqliteOutbox:
        return SqliteOutbox(folder / "store.db", clock=self.wall, linger_s=0.0, steady=self.steady(), **more)


# -- the clock itself


@pytest.mark.parametrize("jump", JUMPS)
def test_the_stores_time_does_not_jump(jump: float) -> None:
    """It advances as time does, before and after a jump, across restarts and reboots."""
    world = World()
    steady = world.steady()
    begin = steady.now()
    world.step(100)
    world.jump(jump)
    assert steady.now() == begin + 100
    saved = steady.anchor()
    world.step(50)
    again = world.steady()
    again.resume(saved)
    assert again.now() == begin + 150
    saved = again.anchor()
    world.step(60)
    world.passed, world.offset, world.boot = 5.0, world.offset + world.passed - 5.0, "two"
    rebooted = world.steady()
    rebooted.resume(saved)
    assert rebooted.now() == begin + 210


def test_ages_are_judged_by_the_smaller_one() -> None:
    """A clock set back is believed at once, one set forward after two days."""
    world = World()
    steady = world.steady()
    world.jump(-HOUR)
    assert steady.guarded() == world.wall()
    world.jump(HOUR + 7 * DAY)
    assert steady.guarded() == world.wall() - 7 * DAY
    steady.anchor()
    world.step(BELIEVED_S - 10)
    steady.anchor()
    assert steady.guarded() == world.wall() - 7 * DAY
    world.step(20)
    assert steady.guarded() == world.wall()


def test_a_frozen_wall_clock_stops_nothing() -> None:
    """The store's time goes on while the wall clock stands."""
    world = World()
    steady = world.steady()
    begin = steady.now()
    world.freeze()
    world.step(500)
    assert steady.now() == begin + 500


def test_an_anchor_of_an_uptime_to_come_is_another_boot() -> None:
    """Where boots have no names, an uptime that went back tells; and time never goes back with it."""
    world = World()
    steady = world.steady()
    steady.resume(Anchor(wall=world.wall(), uptime=world.passed + 500, store=NOW + 5_000, boot="one"))
    assert steady.now() == NOW + 5_000
    steady.resume(Anchor(wall=world.wall() + DAY, uptime=1.0, store=NOW + 5_000, boot="old"))
    assert steady.now() == NOW + 5_000


# -- the store


@pytest.mark.parametrize("jump", [0.0, *JUMPS])
@pytest.mark.parametrize("reopens", [False, True])
def test_the_window_is_as_long_as_it_says(tmp_path: Path, jump: float, reopens: bool) -> None:
    """48 h less a second: suppressed; 48 h and a minute: accepted; wherever the wall clock went meanwhile."""

    async def main() -> None:
        world = World()
        outbox = world.open(tmp_path)
        await one(outbox, unit(outbox, event("a")))
        await settle_all(outbox, await _claimed(outbox))
        world.step(HOUR)
        world.jump(jump)
        if reopens:
            await outbox.close()
            outbox = world.open(tmp_path)
        world.step(47 * HOUR - 1)
        await outbox._writer.run(lambda: (outbox._upkeep._expire_marks(), None))  # type: ignore[func-returns-value]
        assert (await one(outbox, unit(outbox, event("a")))).fate == "duplicate"
        world.step(61)
        assert (await one(outbox, unit(outbox, event("a")))).fate == "accepted"
        await outbox.close()

    asyncio.run(main())


async def _claimed(outbox: SqliteOutbox) -> Any:
    lease = await outbox.claim(LANE, 1000, outbox.steady.now())
    assert lease is not None
    return lease


@pytest.mark.parametrize("jump", JUMPS)
def test_a_jump_deletes_nothing_early(tmp_path: Path, jump: float) -> None:
    """Dead letters, memories and erasures are there after a jump and a restart, and go when their time is over."""

    async def main() -> None:
        world = World()
        outbox = world.open(tmp_path, dead_keep_s=6 * DAY)
        await one(outbox, unit(outbox, event("dead")))
        lease = await _claimed(outbox)
        await outbox.settle(lease, [Settlement(unit=lease.units[0].unit, end="dead", reason="refused")])
        record = Remembered((outbox.digest("s", "ada"),))
        record.expires, record.clicks, record.click_at = int(world.wall() + 5 * DAY), {"pinterest": "c"}, NOW
        await outbox.admit([], memories=[Memorandum(outbox.digest("m"), record, NOW)])
        await outbox.erase([outbox.digest("s", "gone")], requested_at=world.wall())
        world.step(HOUR)
        world.jump(jump)
        for _ in range(3):  # each close and each start does all upkeep
            await outbox.close()
            outbox = world.open(tmp_path, dead_keep_s=6 * DAY)
        assert len(await outbox.dead(DeadFilter())) == 1
        assert outbox._memories.rows == 1
        assert len(outbox.erasures) == 1
        world.step(40 * DAY)
        world.jump(-jump)
        for _ in range(2):
            await outbox.close()
            outbox = world.open(tmp_path, dead_keep_s=6 * DAY)
        assert await outbox.dead(DeadFilter()) == []
        assert outbox._memories.rows == 0
        assert len(outbox.erasures) == 0
        await outbox.close()

    asyncio.run(main())


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("reopens", [False, True])
def test_a_retry_is_due_when_it_was_to_be(tmp_path: Path, jump: float, reopens: bool) -> None:
    """A backed-off event and a held one are due after their time, not a day later and not at once."""

    async def main() -> None:
        world = World()
        outbox = world.open(tmp_path)
        await outbox.admit([unit(outbox, event("retried"))])
        lease = await _claimed(outbox)
        due = outbox.steady.now() + 200
        await outbox.settle(lease, [Settlement(unit=lease.units[0].unit, end="retry", due=due)])
        await outbox.admit([unit(outbox, event("held"), hold_s=3_300.0)])
        world.jump(jump)
        if reopens:
            await outbox.close()
            outbox = world.open(tmp_path)
        world.step(190)
        assert await outbox.claim(LANE, 10, outbox.steady.now()) is None
        world.step(20)
        again = await _claimed(outbox)
        assert [claimed.event.event_id for claimed in again.units] == ["retried"]
        await settle_all(outbox, again)
        world.step(3_000)
        assert await outbox.claim(LANE, 10, outbox.steady.now()) is None
        world.step(100)
        assert [claimed.event.event_id for claimed in (await _claimed(outbox)).units] == ["held"]
        await outbox.close()

    asyncio.run(main())


def test_a_due_time_far_ahead_is_brought_back(tmp_path: Path) -> None:
    """A store of an older program, written by a clock that was ahead: what waits is due at the next start."""

    async def main() -> None:
        world = World()
        outbox = world.open(tmp_path)
        await outbox.admit([unit(outbox, event("held"), hold_s=3_300.0), unit(outbox, event("far"))])
        await outbox._writer.run(
            lambda: (outbox._connection.execute("UPDATE unit SET due = ? WHERE due = 0", (NOW + DAY,)), None)
        )
        await outbox.close()
        outbox = world.open(tmp_path)
        assert [claimed.event.event_id for claimed in (await _claimed(outbox)).units] == ["far"]
        await outbox.close()

    asyncio.run(main())


# -- the lane


@pytest.mark.parametrize("jump", JUMPS)
def test_a_lane_tries_again_and_gives_nothing_up(tmp_path: Path, jump: float) -> None:
    """After a failure and a jump the next try comes within a minute, and a week ahead ends no event as expired."""

    async def main() -> None:
        world = World()
        outbox = world.open(tmp_path)
        destination = RecordingDestination()
        destination.verdicts.append(Retry(reason="down"))
        ended: list[Settled] = []
        lane = DestinationLane(destination, outbox, outbox.steady, 7 * DAY, ended.append, Tally(), random.Random(1))
        lane._linger_s, lane._destination.name = 0.0, "pinterest"
        await one(outbox, unit(outbox, event("a")))
        task = asyncio.create_task(lane.run())
        await until(lambda: lane.state.state == "backing_off")
        world.step(1)
        world.jump(jump)
        world.step(60)
        lane.poke()
        await until(lambda: bool(ended))
        assert [(one.event_id, one.end) for one in ended] == [("a", "delivered")]
        assert len(destination.sent) == 2
        lane.stop_claiming()
        await task
        await outbox.close()

    asyncio.run(main())


async def until(reached: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(20):
        while not reached():  # noqa: ASYNC110 - what is waited for is another task's doing
            await asyncio.sleep(0.005)


def test_wall_time_alone_fails(tmp_path: Path) -> None:
    """Planted: by wall time alone, a day back suppresses an id for three, and a week ahead takes a copy for new."""

    async def main(jump: float, wait_s: float) -> str:
        world = World()
        folder = tmp_path / str(jump)
        outbox = SqliteOutbox(folder / "store.db", clock=world.wall, linger_s=0.0)
        await one(outbox, unit(outbox, event("a")))
        await settle_all(outbox, await _claimed(outbox))
        world.jump(jump)
        world.step(wait_s)
        outbox.steady.now = world.wall  # type: ignore[method-assign]
        fate = (await one(outbox, unit(outbox, event("a")))).fate
        await outbox.close()
        return fate

    assert asyncio.run(main(-DAY, 48 * HOUR + 60)) == "duplicate"
    assert asyncio.run(main(7 * DAY, 60)) == "accepted"
