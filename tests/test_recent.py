"""The latest outcomes: a ring that knows how each ended, streams, forgets, and shows nobody."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from gateway.event import Client, SealedEvent
from gateway.explain import mask
from gateway.outcome import Fate, Outcome, Settled
from gateway.recent import Entry, Recent
from gateway.steps import steps_of
from tests.harness.inprocess import Clock, event, tables, world

HASH = "ab12cd" + "0" * 58


def outcome(number: int, fate: Fate = "accepted", **more: Any) -> Outcome:
    """Return the outcome of one event."""
    told = {"event_name": "checkout", "destination": "pinterest", "unit": f"{number:x}", **more}
    return Outcome(fate=fate, event_id=f"e{number}", **told)


def sealed(**more: Any) -> SealedEvent:
    """Return a sealed event with every kind of identifier."""
    return SealedEvent(
        event_id="e1", event_name="checkout", event_time=1, accepted_at=2.0, source="api", site="shop", born="server",
        user={"em": (HASH,)}, client=Client(ip="203.0.113.77", user_agent="Browser"),
        click_ids={"epik": "dj0yJmsecret"},
        **more,
    )  # fmt: skip


def settled(number: int, end: Any = "delivered", **more: Any) -> Settled:
    """Return the end of a unit."""
    return Settled(
        unit=f"{number:x}", destination="pinterest", event_id=f"e{number}", event_name="checkout", source="api",
        end=end, **more,
    )  # fmt: skip


def test_the_ring_keeps_the_newest() -> None:
    """Newest first, a page at a time; what fell out is gone, and so is what only it knew."""
    recent = Recent(size=4, clock=Clock(100.0))
    for number in range(1, 8):
        recent.add("api", outcome(number))
    assert [one.serial for one in recent.since()] == [7, 6, 5, 4]
    assert [one.serial for one in recent.since(5)] == [7, 6]
    assert [one.serial for one in recent.since(limit=2, before=7)] == [6, 5]
    assert (recent.get(3), recent.get(8), recent.get(0), recent.last) == (None, None, None, 7)
    found = recent.get(4)
    assert found is not None
    assert (found.event_id, found.at, found.unit, found.end) == ("e4", 100.0, "4", None)
    assert recent._units.keys() == {"4", "5", "6", "7"}
    for number in range(10, 20):
        recent.settled(settled(number))
    assert len(recent._ends) == 4


def test_an_entry_knows_how_its_unit_ended() -> None:
    """The first copy and those that met it tell the end of their unit; a replayed one may end again."""
    clock = Clock(100.0)
    recent = Recent(clock=clock)
    recent.add("api", outcome(1))
    recent.add("tag", outcome(1, "merged", of="e1"))
    recent.add("tag", outcome(2, "dropped", unit=None, reason="bot"))
    clock.step(5)
    recent.settled(settled(1, "dead", reason="refused: bad"))
    ends = [(one.fate, one.end, one.end_reason, one.ended_at) for one in recent.since()]
    assert ends == [
        ("dropped", None, None, None),
        ("merged", "dead", "refused: bad", 105.0),
        ("accepted", "dead", "refused: bad", 105.0),
    ]  # fmt: skip
    recent.settled(settled(1, warning="late"), 110.0)
    first = recent.get(1)
    assert first is not None
    assert (first.end, first.warning, first.ended_at) == ("delivered", "late", 110.0)
    assert [one.serial for one in recent.since(fate="delivered")] == [2, 1]
    assert [one.serial for one in recent.since(fate="dropped", source="tag", name="checkout")] == [3]
    assert recent.since(source="shop") == recent.since(name="search") == []


def test_hits_that_are_refused_alike_push_nobody_out() -> None:
    """Of many refused hits of a source one a second is kept for each reason."""
    clock = Clock(100.0)
    recent = Recent(size=50, clock=clock)
    recent.add("api", outcome(1))
    for _ in range(500):
        recent.refused("tag", 401, "bad_secret")
        recent.refused("tag", 413, "too_large")
        clock.step(0.01)
    assert [one.reason for one in recent.since(limit=4)] == ["too_large", "bad_secret"] * 2
    assert (recent.last, recent.get(1) is None) == (11, False)
    newest = recent.since(limit=1)[0]
    assert (newest.status, newest.fate, newest.event) == (413, "rejected", None)


def test_subscribers_hear_of_entries_and_their_ends() -> None:
    """From the subscription on, each entry and each end; a slow one misses the oldest, a closed one ends."""

    async def main() -> None:
        recent = Recent(clock=Clock(100.0))
        recent.add("api", outcome(1))
        one, slow, lost = recent.subscribe(), recent.subscribe(), recent.subscribe()
        assert len(recent._subscriptions) == 3
        del lost
        gc.collect()
        assert len(recent._subscriptions) == 2, "nobody holds it"
        recent.add("api", outcome(2))
        recent.settled(settled(2))
        recent.settled(settled(99))
        heard: list[Entry] = [await anext(one), await anext(one)]
        assert [(entry.serial, entry.end) for entry in heard] == [(2, None), (2, "delivered")]
        waiting = asyncio.create_task(anext(one))
        await asyncio.sleep(0)
        await one.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
        for number in range(3, 1_000):
            recent.add("api", outcome(number))
        assert (await anext(slow)).serial == 744

    asyncio.run(main())


def test_an_erasure_lets_go_of_events() -> None:
    """What was decided stays, of whom it was goes."""
    recent = Recent(clock=Clock(100.0))
    recent.add("api", outcome(1), sealed())
    recent.forget()
    found = recent.get(1)
    assert found is not None
    assert (found.event, found.signals, found.fate) == (None, {}, "accepted")


def test_steps_tell_everything_and_show_nobody() -> None:
    """Received, normalised, enriched, joined, decided, sent, answered: with masked identifiers."""
    recent = Recent(clock=Clock(100.0))
    joint = sealed(origins={"epik": "memory:visitor", "client_ip": "browser:tag"})
    recent.add("api", outcome(1, "merged", of="e0", notes=("email: not_an_email",)), joint)
    recent.settled(settled(1, warning="value is low"), 104.0)
    found = recent.get(1)
    assert found is not None
    steps = steps_of(found)
    assert [step.name for step in steps] == [
        "received", "normalised", "enriched by memory:visitor", "joined with an event that waits", "decided", "sent",
        "answer",
    ]  # fmt: skip
    shown = repr(steps)
    assert "ab12cd…" in shown
    assert "203.0.113.0/24" in shown
    for secret in (HASH, "203.0.113.77", "dj0yJmsecret"):
        assert secret not in shown
    assert steps[-1].detail == {"end": "delivered", "at": 104.0, "warning": "value is low"}


def test_steps_of_what_never_was_an_event() -> None:
    """An item that cannot be read, and a hit that was refused, have what is known of them."""
    recent = Recent(clock=Clock(100.0))
    recent.refused("tag", 401, "bad_secret")
    found = recent.get(1)
    assert found is not None
    assert [(step.name, step.detail) for step in steps_of(found)] == [
        ("received", {"at": 100.0, "source": "tag", "status": 401}),
        ("decided", {"fate": "rejected", "reason": "bad_secret"}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "shown"), [("203.0.113.77", "203.0.113.0/24"), ("2001:db8:1:2::7", "2001:db8:1::/48"), ("odd", "odd")]
)
def test_addresses_are_shortened(address: str, shown: str) -> None:
    """Of an address the network stays."""
    assert mask({"client": {"ip": address}}) == {"client": {"ip": shown}}


def test_an_erasure_by_the_operator_empties_what_is_shown(tmp_path: Path) -> None:
    """Whose the sealed events in memory are is not known there, so all of them go; the outcomes stay."""

    async def main() -> None:
        async with world(tmp_path, tables(), clock=Clock()) as here:
            await here.post(event("a", here.clock()))
            assert [one.event is None for one in here.gateway.recent.since()] == [False]
            await here.api("POST", "/api/erase", {"email": "somebody@example.com"})
            assert [(one.fate, one.event) for one in here.gateway.recent.since()] == [("accepted", None)]

    asyncio.run(main())


def test_the_gateway_fills_the_ring(tmp_path: Path) -> None:
    """Every outcome is there, dropped and rejected too, with its end; a refused hit is; nothing of the person is."""

    async def main() -> None:
        async with world(tmp_path, tables(), clock=Clock()) as here:
            now = here.clock()
            await here.post(event("a", now), event("a", now), event("b", now - 9e6), {"event_id": "z"})
            await here.running.post("api", [event("c", now)], {})
            await here.drain()
            found = here.gateway.recent.since()
            assert [(one.fate, one.end) for one in found if one.status is None] == [
                ("rejected", None), ("dropped", None), ("duplicate", "delivered"), ("accepted", "delivered"),
            ]  # fmt: skip
            assert [one.status for one in found if one.status is not None] == [401]
            assert "a@example.com" not in repr(found)

    asyncio.run(main())
