"""What the gateway makes of every kind of answer: nothing lost, nothing sent twice without need."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from gateway import sender
from gateway.outbox import Lane, Lease
from gateway.outbox.sqlite import SqliteOutbox
from gateway.sandbox import Fault
from tests.harness.inprocess import Clock, World, event, tables, world
from tests.harness.processes import ACCOUNT


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-offs and probes take moments: what is tested is what happens, not how long it takes."""
    monkeypatch.setattr(sender, "_BASE_S", 0.01)
    monkeypatch.setattr(sender, "_CAP_S", 0.05)
    monkeypatch.setattr(sender, "_PROBE_S", 0.3)


def play(folder: Path, scene: Callable[[World], Awaitable[None]], **how: Any) -> World:
    """Run one scene in a gateway of its own; returns the world it left."""

    async def main() -> World:
        async with world(folder, **how) as here:
            await scene(here)
            return here

    return asyncio.run(main())


def called(here: World, times: int) -> bool:
    """Say whether so many calls were made and settled."""
    return len(here.calls) == times and not here.gateway.sender.lanes[0].state.in_flight


def ended(here: World) -> dict[str, tuple[str, str | None]]:
    """Event id → how it ended."""
    return {unit.event_id: (unit.end, unit.reason) for unit in here.running.settled}


def test_one_poison_event_of_a_thousand(tmp_path: Path) -> None:
    """A batch of 1,000 is refused because of one event: it alone dies, in at most 22 calls more, the rest once each."""

    async def scene(here: World) -> None:
        here.sandbox.faults.stand(Fault(kind="status", status=400, event_ids=("poison",)))
        now = here.clock()
        ids = [f"e{number}" for number in range(999)]
        ids.insert(617, "poison")
        await here.post(*(event(event_id, now) for event_id in ids))
        await here.running.ended(1000)
        assert len(here.calls[0].body["data"]) == 1000
        assert len(here.calls) - 1 <= 22
        assert here.copies() == dict.fromkeys(set(ids) - {"poison"}, 1)
        (letter,) = await here.letters()
        assert letter["event_id"] == "poison"
        assert letter["reason"].startswith("invalid_request")
        assert letter["maybe_twice"] is False

    play(tmp_path, scene, config=tables(linger_s=0.3), clock=Clock())


def test_a_revoked_token_pauses_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """401: the lane pauses after one call, nothing dies, few probes, and it goes on by itself when the token works."""
    monkeypatch.setattr(sender, "_PROBE_S", 30.0)
    clock = Clock()

    async def scene(here: World) -> None:
        here.sandbox.revoke()
        await here.post(*(event(f"e{number}", clock()) for number in range(50)))
        lane = here.gateway.sender.lanes[0]
        await here.until(lambda: lane.state.state == "paused" and not lane.state.in_flight, "the lane pauses")
        assert len(here.calls) == 1
        for probes in (2, 3):
            here.step(29.0)
            await asyncio.sleep(0.05)
            assert len(here.calls) == probes - 1, "a probe before its time"
            here.step(2.0)
            await here.until(functools.partial(called, here, probes), "a probe")
            assert len(here.calls[-1].ids) == 1, "a probe risks one event"
        assert lane.state.reason == "unauthorized"
        assert await here.letters() == []
        here.sandbox.restore()
        here.step(31.0)
        await here.running.delivered(50)
        assert len([call for call in here.calls if call.at < clock() - 1]) <= 4
        assert here.copies() == {f"e{number}": 1 for number in range(50)}
        assert lane.state.state == "running"
        status = await here.api("GET", "/api/status")
        assert {"reason": "lane_paused", "source": "pinterest", "count": 1} in status["alarms"]

    play(tmp_path, scene, clock=clock)


@pytest.mark.parametrize(
    ("retry_after", "least_s", "most_s"),
    [(120, 120, 122), ("date", 120, 122), (10**9, 900, 902), ("soon", 0, 1), ("-5", 0, 1), ("²", 0, 1)],
)
def test_retry_after_is_honoured(tmp_path: Path, retry_after: int | str, least_s: int, most_s: int) -> None:
    """429 with Retry-After: no call before it has passed, at most 15 minutes; what cannot be read is left out."""
    clock = Clock()
    wish = formatdate(clock() + 120.5, usegmt=True) if retry_after == "date" else retry_after

    async def scene(here: World) -> None:
        here.sandbox.faults.queue(Fault(kind="status", status=429, retry_after=wish))
        await here.post(event("e", clock()))
        lane = here.gateway.sender.lanes[0]
        await here.until(lambda: lane.state.state == "backing_off" and not lane.state.in_flight, "the lane backs off")
        if least_s:
            here.step(least_s - 1)
            await here.post(event("f", clock()))
            await asyncio.sleep(0.1)
            assert len(here.calls) == 1, "called before Retry-After had passed"
            here.step(1)
        here.step(most_s - least_s)
        await here.running.delivered(2 if least_s else 1)
        assert await here.letters() == []
        assert set(here.copies().values()) == {1}

    play(tmp_path, scene, clock=clock)


DAMAGED = [
    Fault(kind="status", status=500), Fault(kind="status", status=503), Fault(kind="status", status=502, body="html"),
    Fault(kind="reset_before"), Fault(kind="reset_after"), Fault(kind="answer", body="html"),
    Fault(kind="answer", body="empty"), Fault(kind="answer", body="truncated"), Fault(kind="answer", body="short"),
    Fault(kind="answer", body="long"), Fault(kind="answer", body="unknown_status"),
    Fault(kind="answer", body="missing_status"), Fault(kind="answer", body="no_events"),
    Fault(kind="answer", body="error", status=500), Fault(kind="status", status=500, body="huge", size_mb=8),
    Fault(kind="answer", body="gzip_bomb", size_mb=32), Fault(kind="hang"), Fault(kind="hang", recorded=True),
    Fault(kind="status", status=408), Fault(kind="status", status=429),
]  # fmt: skip


def test_damaged_answers_are_retried_with_the_same_ids(tmp_path: Path) -> None:
    """5xx, resets, silence and answers that nobody can read: the same events go again, and all arrive in the end."""
    names = [f"{fault.kind}-{fault.body}-{number}" for number, fault in enumerate(DAMAGED)]

    async def scene(here: World) -> None:
        for name, fault in zip(names, DAMAGED, strict=True):
            ids = [f"{name}-{number}" for number in range(3)]
            before = len(here.calls)
            here.sandbox.faults.queue(fault)
            await here.post(*(event(event_id, here.clock()) for event_id in ids))
            await here.until(lambda before=before: len(here.calls) >= before + 2, f"{name} is sent again")  # type: ignore[misc]
            await here.drain()
            assert here.sandbox.faults.queued == 0
            assert [sorted(call.ids) for call in here.calls[before : before + 2]] == [ids, ids], name
            bodies = [sorted(call.body["data"], key=str) for call in here.calls[before : before + 2]]
            assert bodies[0] == bodies[1], name
            assert all(1 <= here.copies()[event_id] <= 2 for event_id in ids), name
        assert await here.letters() == []

    here = play(tmp_path, scene, listener=True, config=tables(timeout_s=0.4, linger_s=0.05))
    assert {end for end, _ in ended(here).values()} == {"delivered"}


def test_a_huge_answer_is_read_no_further_than_needed(tmp_path: Path) -> None:
    """A sound answer with 200 MB behind it: what counts stands in front, nobody waits for the rest."""

    async def scene(here: World) -> None:
        here.sandbox.faults.queue(Fault(kind="answer", body="huge", size_mb=200))
        await here.post(event("e", here.clock()))
        await here.running.delivered(1)
        assert here.copies() == {"e": 1}
        assert len(here.calls) == 1

    play(tmp_path, scene, listener=True)


@pytest.mark.parametrize("status", [200, 422])
def test_a_list_is_taken_event_by_event(tmp_path: Path, status: int) -> None:
    """With a per-event list those that failed die with the vendor's words, the others are not sent again."""

    async def scene(here: World) -> None:
        here.sandbox.faults.queue(Fault(kind="partial", status=status, event_ids=("e3", "e7")))
        await here.post(*(event(f"e{number}", here.clock()) for number in range(10)))
        await here.running.ended(10)
        await here.drain()
        assert len(here.calls) == 1
        assert {letter["event_id"] for letter in await here.letters()} == {"e3", "e7"}
        assert here.copies() == {f"e{number}": 1 for number in range(10) if number not in (3, 7)}

    play(tmp_path, scene, config=tables(linger_s=0.1))


def test_a_422_without_a_list_is_bisected(tmp_path: Path) -> None:
    """Nobody says which event failed: halves are sent until one event is left, which dies; the others arrive."""

    async def scene(here: World) -> None:
        here.sandbox.faults.stand(Fault(kind="status", status=422, event_ids=("bad",)))
        await here.post(*(event(f"e{number}", here.clock()) for number in range(15)), event("bad", here.clock()))
        await here.running.ended(16)
        assert [letter["event_id"] for letter in await here.letters()] == ["bad"]
        assert set(here.copies()) == {f"e{number}" for number in range(15)}
        assert len(here.calls) <= 1 + 2 * 4

    play(tmp_path, scene, config=tables(linger_s=0.1))


def offline(event_id: str, now: float, **changes: Any) -> dict[str, Any]:
    return event(event_id, now, action_source="offline", **changes)


def test_an_offline_event_that_may_have_arrived_is_listed(tmp_path: Path) -> None:
    """Pinterest cannot tell copies of offline events apart: one that may have arrived twice is counted and listed."""

    async def scene(here: World) -> None:
        here.sandbox.faults.queue(Fault(kind="answer", status=500), Fault(kind="status", status=422))
        await here.post(offline("twice", here.clock()))
        await here.running.ended(1)
        (letter,) = await here.letters()
        assert (letter["event_id"], letter["maybe_twice"], letter["attempts"]) == ("twice", True, 2)
        here.sandbox.faults.queue(Fault(kind="reset_after"))
        await here.post(offline("sent", here.clock()))
        await here.running.delivered(1)
        await here.drain()
        assert here.copies()["sent"] == 2
        status = await here.api("GET", "/api/status")
        assert status["maybe_twice"] == {"pinterest": 2}
        (lane,) = [lane for lane in status["queue"] if lane["kind"] == "offline"]
        assert lane["maybe_twice"] == 1

    play(tmp_path, scene)


def test_unclear_offline_events_are_not_bisected(tmp_path: Path) -> None:
    """A 422 without a list about offline events: no part of them is sent again by itself, all are dead(unclear)."""

    async def scene(here: World) -> None:
        here.sandbox.faults.queue(Fault(kind="partial", event_ids=("e1",), listed=False))
        await here.post(*(offline(f"e{number}", here.clock()) for number in range(6)))
        await here.running.ended(6)
        await here.drain()
        assert len(here.calls) == 1
        letters = await here.letters()
        assert {letter["event_id"] for letter in letters} == {f"e{number}" for number in range(6)}
        assert all(letter["reason"].startswith("unclear") for letter in letters)

    play(tmp_path, scene, config=tables(linger_s=0.1))


def test_unclear_offline_events_are_marked_for_who_replays_them(tmp_path: Path) -> None:
    """A 422 without a list says that some were processed: the letters warn that a replay may double them."""

    async def scene(here: World) -> None:
        here.sandbox.faults.queue(Fault(kind="partial", event_ids=("e1",), listed=False))
        await here.post(*(offline(f"e{number}", here.clock()) for number in range(3)))
        await here.running.ended(3)
        assert [letter["maybe_twice"] for letter in await here.letters()] == [True] * 3

    play(tmp_path, scene, config=tables(linger_s=0.1))


def test_the_retry_life_ends(tmp_path: Path) -> None:
    """An event that could not be delivered for its whole retry life is dead(expired), and can be replayed."""
    clock = Clock()
    config = {**tables(), "pipeline": {"retry_life_s": 3600}}

    async def scene(here: World) -> None:
        here.sandbox.faults.down()
        moment = int(clock()) - 100
        await here.post(event("e", clock(), event_time=moment))
        await here.until(lambda: len(here.calls) == 1, "one attempt")
        await here.until(lambda: not here.gateway.sender.lanes[0].state.in_flight, "settled")
        here.step(3601)
        await here.running.ended(1)
        (letter,) = await here.letters()
        assert (letter["reason"], letter["event_id"]) == ("expired", "e")
        assert len(here.calls) == 1
        here.sandbox.faults.clear()
        assert await here.api("POST", "/api/dead/replay", {"units": [letter["unit"]]}) == {
            "queued": 1,
            "duplicates": [],
        }
        await here.running.delivered(1)
        (sent,) = here.calls[-1].body["data"]
        assert (sent["event_id"], sent["event_time"]) == ("e", moment)
        assert await here.letters() == []

    play(tmp_path, scene, config=config, clock=clock)


async def one_dead(here: World, body: dict[str, Any]) -> dict[str, Any]:
    """Let one event die; returns its letter."""
    before = len(here.running.settled)
    here.sandbox.faults.queue(Fault(kind="status", status=400))
    await here.post(body)
    await here.running.ended(before + 1)
    (letter,) = await here.letters()
    return letter


def test_a_dead_event_and_a_later_copy_are_one_conversion(tmp_path: Path) -> None:
    """Another event with the dead one's key comes later: it takes its place, and nothing is left to replay."""
    clock = Clock()

    async def scene(here: World) -> None:
        letter = await one_dead(here, event("first", clock(), order_id="A1"))
        here.step(200_000)
        (answer,) = await here.post(event("second", clock(), order_id="A1"))
        assert answer["outcome"] == "merged"
        await here.running.delivered(1)
        replayed = await here.api("POST", "/api/dead/replay", {"units": [letter["unit"]]})
        assert replayed == {"queued": 0, "duplicates": []}
        await here.drain()
        assert sum(here.copies().values()) == 1, "one order, one conversion"

    play(tmp_path, scene, clock=clock)


def test_a_replay_is_refused_when_another_was_delivered(tmp_path: Path) -> None:
    """A key of the dead event stands for a delivered one by now: the letter stays, or it would count twice."""

    async def scene(here: World) -> None:
        letter = await one_dead(here, event("first", here.clock(), order_id="A1"))
        await here.post(event("other", here.clock(), order_id="B2"))
        await here.running.delivered(1)
        # the store as a merge on another node leaves it: the dead event's order now means the delivered one
        store = here.gateway.outbox
        assert isinstance(store, SqliteOutbox)
        units = store._connection.execute("SELECT DISTINCT unit FROM mark ORDER BY unit").fetchall()
        key = store.digest("pinterest", "checkout", "key", "api", "order", "A1")
        changed = store._connection.execute("UPDATE mark SET unit = ? WHERE digest = ?", (units[-1][0], key))
        assert changed.rowcount == 1
        replayed = await here.api("POST", "/api/dead/replay", {"units": [letter["unit"]]})
        assert replayed == {"queued": 0, "duplicates": [letter["unit"]]}
        assert [found["unit"] for found in await here.letters()] == [letter["unit"]]

    play(tmp_path, scene)


def test_a_discard_frees_the_marks(tmp_path: Path) -> None:
    """A discarded event leaves no trace: the same id is a new event."""

    async def scene(here: World) -> None:
        letter = await one_dead(here, event("e", here.clock()))
        assert await here.api("POST", "/api/dead/discard", {"units": [letter["unit"]]}) == {"discarded": 1}
        assert await here.letters() == []
        (answer,) = await here.post(event("e", here.clock()))
        assert answer["outcome"] == "accepted"
        await here.running.delivered(1)

    play(tmp_path, scene)


def test_a_copy_of_a_dead_event_revives_it(tmp_path: Path) -> None:
    """A copy of a dead event is queued in its place: the letter is superseded and the event arrives once."""

    async def scene(here: World) -> None:
        await one_dead(here, event("e", here.clock()))
        (answer,) = await here.post(event("e", here.clock()))
        assert answer["outcome"] == "merged"
        await here.running.delivered(1)
        assert here.copies() == {"e": 1}
        assert await here.letters() == []
        (answer,) = await here.post(event("e", here.clock()))
        assert answer["outcome"] == "duplicate"

    play(tmp_path, scene)


def test_a_stop_sends_nothing_that_it_cannot_settle(tmp_path: Path) -> None:
    """A lease that a lane gets while the gateway stops is not sent any more, or it would be sent again."""
    config = tables()
    config["destinations"]["slow"] = {"ad_account_id": "549000000002"}
    config["server"] = {"graceful_s": 0.5}

    async def first(here: World) -> None:
        claim, claimed, let_go = here.gateway.outbox.claim, asyncio.Event(), asyncio.Event()

        async def late(lane: Lane, limit: int, now: float) -> Lease | None:
            lease = await claim(lane, limit, now)
            if lane.destination == "pinterest":
                claimed.set()
                await let_go.wait()
            return lease

        here.gateway.outbox.claim = late  # type: ignore[method-assign]
        here.sandbox.faults.stand(
            Fault(kind="hang", ad_account_id="549000000002"), Fault(kind="delay", delay_s=1.0, ad_account_id=ACCOUNT)
        )
        await here.post(event("e", here.clock()))
        await claimed.wait()
        await here.until(lambda: here.sandbox.faults.hanging == 1, "the other lane's call hangs")
        stopping = asyncio.create_task(here.gateway.stop())
        await asyncio.sleep(0.05)
        let_go.set()
        await stopping

    async def second(here: World) -> None:
        await here.drain()

    calls = [call for scene in (first, second) for call in play(tmp_path, scene, config=config).calls]
    assert [call.ids for call in calls if ACCOUNT in call.url] == [["e"]]


def test_a_stop_ends_a_bisection_and_settles_what_it_delivered(tmp_path: Path) -> None:
    """A batch of which halves are delivered is not sent again as a whole because the gateway stops meanwhile."""
    config = tables(linger_s=0.1)
    config["server"] = {"graceful_s": 5.0}

    async def first(here: World) -> None:
        here.sandbox.faults.stand(Fault(kind="status", status=422, event_ids=("bad",)))
        request = here.wire.request
        stopping: list[asyncio.Task[None]] = []

        async def stop_at_the_third(*args: Any, **named: Any) -> Any:
            answer = await request(*args, **named)
            if len(here.calls) == 3:
                stopping.append(asyncio.create_task(here.gateway.stop_sending()))
                await here.until(lambda: all(lane._stopping for lane in here.gateway.sender.lanes), "lanes stop")
            return answer

        here.wire.request = stop_at_the_third  # type: ignore[method-assign]
        # the newest of a second goes first, so that the half with the bad one is the last
        await here.post(event("bad", here.clock()), *(event(f"e{number}", here.clock()) for number in range(15)))
        await here.until(lambda: bool(stopping), "the third call")
        await stopping[0]

    async def second(here: World) -> None:
        here.sandbox.faults.stand(Fault(kind="status", status=422, event_ids=("bad",)))
        await here.drain()

    before, after = [play(tmp_path, scene, config=config).calls for scene in (first, second)]
    assert [len(call.ids) for call in before] == [16, 8, 8]
    delivered = [one for call in [*before, *after] if "bad" not in call.ids for one in call.ids]
    assert sorted(delivered) == sorted(f"e{number}" for number in range(15))
