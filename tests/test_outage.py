"""A vendor that is away: everything waits on disk, nothing grows in memory, nobody else waits, and all arrives."""

import asyncio
import os
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from gateway import sender
from gateway.hookspecs import hookimpl
from gateway.interfaces import Context, Observer
from gateway.outcome import Settled
from gateway.sandbox import Fault
from tests.harness import conformance
from tests.harness.inprocess import Clock, World, event, tables, world
from tests.harness.load import Load
from tests.harness.oracle import Balance, Oracle
from tests.harness.processes import ACCOUNT, Pair, plain_config, say

SOAK = os.environ.get("GATEWAY_SOAK") == "1"
#: How long the vendor is away, in seconds.
OUTAGE_S = 300.0 if SOAK else 15.0
GROWTH_MB = 50.0
OTHER = "549000000002"


async def outage(folder: Path) -> tuple[Balance, list[float], float]:
    """Put on 100 events a second while the vendor refuses, drops and hangs; returns account, memory, drain time."""
    # long enough for a batch of 1,000 on a busy machine, short enough for the hanging part
    config = plain_config(batch_size=1000, linger_s=0.1, more="timeout_s = 3.0")
    memory = []
    with Pair(folder, config, {"HARNESS_CAP_S": "30" if SOAK else "0.5"}) as pair:
        oracle = Oracle(pair.sandbox, pair.gateway, is_whole=not SOAK)
        load = Load(pair.gateway.port, 4, random.Random(11), pause_s=0.085)
        load.start()
        try:
            await load.accepting(0.0, 10.0)
            await asyncio.sleep(1.0)
            memory.append(pair.gateway.rss_mb())
            for kind in ("status", "reset_before", "hang"):
                await asyncio.to_thread(pair.sandbox.clear)
                await asyncio.to_thread(lambda kind=kind: pair.sandbox.stand(kind=kind))  # type: ignore[misc]
                end = time.monotonic() + OUTAGE_S / 3
                while time.monotonic() < end:
                    began = time.monotonic()
                    await load.accepting(began, 5.0)
                    await asyncio.sleep(0.25)
                    memory.append(pair.gateway.rss_mb())
            waiting = await asyncio.to_thread(pair.gateway.queued)
            assert waiting > len(load.accepted) / 2, "the outage was none"
        finally:
            await load.stop()
        await asyncio.to_thread(pair.sandbox.clear)
        drained_s = await asyncio.to_thread(pair.gateway.drain, 60.0)
        memory.append(pair.gateway.rss_mb())
        balance = oracle.balance(load)
        assert load.problems == []
        assert conformance.problems_of_events(oracle.sample) == []
    return balance, memory, drained_s


def test_an_outage_loses_nothing_and_costs_no_memory(tmp_path: Path) -> None:
    """The vendor answers 503, then drops connections, then hangs: hits are accepted all the time and all arrive."""
    balance, memory, drained_s = asyncio.run(outage(tmp_path))
    say(
        f"outage {OUTAGE_S:g} s: accepted {balance.accepted}, drained in {drained_s:.1f} s, "
        f"memory {memory[0]:.0f} MB to at most {max(memory):.0f} MB, twice {len(balance.again)}"
    )
    assert balance.accepted > 50 * OUTAGE_S
    assert (balance.lost, balance.phantom, balance.corrupt, balance.dead) == (frozenset(), frozenset(), 0, 0)
    assert balance.again == {}, "nothing was processed before its answer was lost"
    assert max(memory) - memory[0] < GROWTH_MB


class Latency(Observer):
    """Notes when each event was delivered, per destination."""

    name: ClassVar[str] = "latency"

    def __init__(self) -> None:
        self.accepted: dict[str, float] = {}
        self.delivered: dict[tuple[str, str], float] = {}

    def settled(self, settled: Settled) -> None:
        """Note it."""
        if settled.end == "delivered":
            self.delivered[settled.destination, settled.event_id] = time.monotonic()

    def median_s(self, destination: str, prefix: str) -> float:
        """Median seconds from acceptance to delivery of the events with this prefix."""
        return statistics.median(
            self.delivered[destination, event_id] - accepted
            for event_id, accepted in self.accepted.items()
            if event_id.startswith(prefix)
        )

    def plugin(self) -> object:
        """Return a plugin that registers this observer."""

        @hookimpl
        def register_observers(context: Context) -> Sequence[Observer]:
            return [self]

        return SimpleNamespace(register_observers=register_observers, __name__="latency")


def test_a_destination_in_trouble_hurts_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One account hangs: the other's events arrive as fast as before, and the first gets everything in the end."""
    monkeypatch.setattr(sender, "_CAP_S", 0.2)
    config = tables(linger_s=0.05)
    config["destinations"]["other"] = {"ad_account_id": OTHER, "linger_s": 0.05, "timeout_s": 1.0}
    watch = Latency()

    async def send(here: World, prefix: str) -> None:
        for number in range(60):
            event_id = f"{prefix}-{number}"
            (answer,) = await here.post(event(event_id, here.clock()))
            assert answer["outcome"] == "accepted"
            watch.accepted[event_id] = time.monotonic()
            await asyncio.sleep(0.02)

    async def main() -> World:
        async with world(tmp_path, config, plugins={"latency": watch.plugin()}) as here:
            await send(here, "before")
            await here.until(lambda: len(watch.delivered) == 120, "both deliver")
            here.sandbox.faults.stand(Fault(kind="hang", ad_account_id=OTHER))
            await send(here, "during")
            await here.until(lambda: ("pinterest", "during-59") in watch.delivered, "the healthy lane delivers")
            # between two attempts nothing hangs for a moment; without any the test would show nothing
            await here.until(lambda: here.sandbox.faults.hanging >= 1, "the other one hangs")
            assert not [key for key in watch.delivered if key[0] == "other" and key[1].startswith("during")]
            here.sandbox.faults.clear()
            await here.until(lambda: len(watch.delivered) == 240, "both deliver everything")
            return here

    here = asyncio.run(main())
    before, during = watch.median_s("pinterest", "before"), watch.median_s("pinterest", "during")
    say(f"healthy lane: median {before * 1000:.0f} ms before, {during * 1000:.0f} ms during the other's outage")
    assert during < min(3.0, before + 0.5)
    assert set(here.sandbox.record.ids(ACCOUNT)) == set(here.sandbox.record.ids(OTHER))
    assert len(here.sandbox.record.ids(OTHER)) == 120


def test_fresh_events_go_before_late_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage what is younger than an hour goes first, so that it still counts as web, then the oldest."""
    monkeypatch.setattr(sender, "_BASE_S", 0.01)
    monkeypatch.setattr(sender, "_CAP_S", 0.02)
    clock = Clock()

    async def main() -> list[str]:
        async with world(tmp_path, tables(batch_size=5, in_flight=1, linger_s=0.0), clock=clock) as here:
            here.sandbox.faults.down()
            early = int(clock()) - 7_000
            await here.post(*(event(f"late-{n}", clock(), event_time=early + n) for n in range(12)))
            await here.post(*(event(f"fresh-{n}", clock()) for n in range(12)))
            lane = here.gateway.sender.lanes[0]
            await here.until(lambda: bool(here.calls) and not lane.state.in_flight, "a first attempt")
            here.sandbox.faults.clear()
            seen = len(here.calls)
            here.step(1.0)
            await here.running.delivered(24)
            return [event_id for call in here.calls[seen:] for event_id in call.ids]

    order = asyncio.run(main())
    assert [event_id.partition("-")[0] for event_id in order] == ["fresh"] * 12 + ["late"] * 12
    assert order[12:] == [f"late-{n}" for n in range(12)]
