"""Replay of many dead letters: interrupted, repeated, by two at once, of an erased person. Nothing goes out twice."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.outbox.sqlite import SqliteOutbox
from gateway.sandbox import Fault
from tests.harness.inprocess import World, event, tables, world
from tests.harness.load import Client, event_of
from tests.harness.mix import email_of
from tests.harness.oracle import held, snapshot
from tests.harness.processes import Pair, plain_config, say, until
from tests.harness.zygote import ForkedGateway, Zygote

SOAK = os.environ.get("GATEWAY_SOAK") == "1"
LETTERS = 10_000 if SOAK else 1_200
BATCH = 200


async def die(here: World, count: int) -> list[str]:
    """Let so many events die; returns their ids."""
    here.sandbox.faults.stand(Fault(kind="partial"))
    ids = [f"e{number}" for number in range(count)]
    for start in range(0, count, 500):
        await here.post(*(event(event_id, here.clock()) for event_id in ids[start : start + 500]))
    await here.until(lambda: len(here.running.settled) >= count, "all die", 60.0)
    here.sandbox.faults.clear()
    return ids


def play(folder: Path, count: int, scene: Callable[[World, list[str]], Awaitable[None]]) -> World:
    """Run a scene on a gateway with so many dead letters, until nothing waits; returns the world it left."""

    async def main() -> World:
        async with world(folder, tables(batch_size=BATCH, linger_s=0.02)) as here:
            ids = await die(here, count)
            await scene(here, ids)
            await here.drain(60.0)
            return here

    return asyncio.run(main())


async def replay(here: World) -> int:
    """Replay everything that is dead; returns how many were queued."""
    done: dict[str, Any] = await here.api("POST", "/api/dead/replay", {})
    return int(done["queued"])


def test_two_at_once_and_once_more(tmp_path: Path) -> None:
    """A double-click, and another one when all are delivered: each letter is sent exactly once, in full batches."""

    async def scene(here: World, ids: list[str]) -> None:
        calls = len(here.calls)
        queued = await asyncio.gather(replay(here), replay(here))
        assert sum(queued) == LETTERS
        await here.drain(60.0)
        assert await replay(here) == 0
        say(f"replayed {LETTERS} by two requests: {queued}, in {len(here.calls) - calls} calls")
        # the rate of calls is that of any other event: as few as there are batches
        assert len(here.calls) - calls <= 3 * (LETTERS // BATCH) + 5

    here = play(tmp_path, LETTERS, scene)
    assert here.copies() == {f"e{number}": 1 for number in range(LETTERS)}


def test_an_erased_person_is_not_replayed(tmp_path: Path) -> None:
    """Erased before the replay, and while it runs: what the first erasure took is never sent, the rest once."""

    async def scene(here: World, ids: list[str]) -> None:
        await here.api("POST", "/api/erase", {"email": f"{ids[3]}@example.com"})
        late = here.api("POST", "/api/erase", {"email": f"{ids[-1]}@example.com"})
        await asyncio.gather(replay(here), late)

    here = play(tmp_path, 600, scene)
    copies = here.copies()
    assert "e3" not in copies
    assert set(copies.values()) == {1}
    assert {f"e{number}" for number in range(600)} - copies.keys() <= {"e3", "e599"}


def test_a_letter_that_dies_again_waits_for_the_next_request(tmp_path: Path) -> None:
    """One request sends a letter once: what is refused again is dead again, until somebody asks once more."""

    async def scene(here: World, ids: list[str]) -> None:
        here.sandbox.faults.stand(Fault(kind="partial", event_ids=("e1", "e2")))
        before = len(here.calls)
        assert await replay(here) == 20
        await here.drain()
        sent = Counter(event_id for call in here.calls[before:] for event_id in call.ids)
        assert set(sent.values()) == {1}
        assert {letter["event_id"] for letter in await here.letters()} == {"e1", "e2"}

    play(tmp_path, 20, scene)


def test_the_check_finds_a_replay_that_doubles(tmp_path: Path) -> None:
    """The control: a replay that queues a letter a second time is found by the copies that arrive."""

    async def scene(here: World, ids: list[str]) -> None:
        store = here.gateway.outbox
        assert isinstance(store, SqliteOutbox)
        here.sandbox.faults.stand(Fault(kind="delay", delay_s=0.5))
        assert await replay(here) == 20
        columns = "lane, state, event_time, due, accepted_at, attempts, twice, ended_at, reason, marks, subjects, event"

        def double() -> tuple[None, Callable[[], None]]:
            store._connection.execute(f"INSERT INTO unit ({columns}) SELECT {columns} FROM unit WHERE state = 0")
            ((lane, count),) = store._connection.execute(
                "SELECT lane, count(*) FROM unit WHERE state = 0 GROUP BY lane"
            )
            return None, lambda: store._holdings.waiting.update({lane: count})

        await store._writer.run(double)

    here = play(tmp_path, 20, scene)
    assert set(here.copies().values()) != {1}


async def accept(port: int, count: int) -> None:
    """Send so many events."""
    client = Client(port)
    for start in range(0, count, 500):
        events = [event_of(f"e-{number}", time.time()) for number in range(start, min(start + 500, count))]
        answer = await client.post(json.dumps(events).encode())
        assert answer is not None
        assert answer[0] == 200
    client.close()


def test_a_replay_that_is_killed_half_way(tmp_path: Path) -> None:
    """The process ends within a replay; asked again it goes on: each letter arrives once, but what was in flight."""
    config = plain_config(batch_size=BATCH)
    with Zygote() as zygote:
        pair = Pair(tmp_path, config)
        config = config.replace("{sandbox}", f"{pair.sandbox.url}/v5")
        gateway = pair.gateway = ForkedGateway(tmp_path, config, zygote)
        with pair:
            pair.sandbox.stand(kind="partial")
            asyncio.run(accept(gateway.port, LETTERS))
            until(lambda: held(gateway.store).dead.total() == LETTERS, 60.0, "all die")
            gateway.api("POST", "/api/erase", {"email": email_of("e-7")})
            gateway.kill()
            pair.sandbox.clear()
            pair.sandbox.stand(kind="delay", delay_s=0.05)
            gateway.environ["HARNESS_FAILPOINT"] = "replay:exit:3"
            gateway.start()
            with pytest.raises(httpx.TransportError):  # it ends while it answers
                gateway.api("POST", "/api/dead/replay", {})
            assert gateway.wait(10.0) == 9
            left = held(gateway.store)
            in_flight = snapshot(gateway.store).in_flight
            assert 0 < left.dead.total() < LETTERS - 1, "not half-way"
            gateway.environ["HARNESS_FAILPOINT"] = ""
            gateway.start()
            gateway.api("POST", "/api/dead/replay", {})
            gateway.drain(60.0)
            assert held(gateway.store).dead.total() == 0
            copies = {key.partition(" ")[2]: count for key, count in pair.sandbox.ids().items()}
    assert set(copies) == {f"e-{number}" for number in range(LETTERS)} - {"e-7"}
    again = {event_id for event_id, count in copies.items() if count > 1}
    say(f"killed half-way: {left.dead.total()} of {LETTERS} still dead, in flight {len(in_flight)}, twice {len(again)}")
    assert again <= in_flight
    assert max(copies.values()) <= 2
