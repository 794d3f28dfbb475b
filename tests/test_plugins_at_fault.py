"""A stranger's plugin that raises, returns rubbish or never returns hurts its own hits only; what isolation costs."""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import isolation, sender
from gateway.errors import PluginFailed
from gateway.hookspecs import hookimpl
from gateway.interfaces import Batch, Context, Delivered
from gateway.isolation import HUNG_LIMIT, Guard
from tests.harness import stranger
from tests.harness.inprocess import World, event, tables, world
from tests.harness.load import event_of
from tests.harness.processes import SECRET, Pair, plain_config, say, until
from tests.harness.stranger import WAYS, BadDestination, BadEnricher, BadObserver

#: What an answer of another route may take while a plugin hangs; the machine runs other tests too.
BOUND_S = 2.0
SOURCE = {"adapter": "stranger", "secrets": ["a-secret-of-more-than-sixteen-bytes"], "destinations": ["pinterest"]}
ACCEPTED = {"well", "print", "huge", "many"}


def config(**more: Any) -> dict[str, Any]:
    """Return tables with a stranger's source beside ours."""
    found = tables(linger_s=0.01)
    found["sources"]["stranger"] = SOURCE
    found["sources"]["api"]["destinations"] = ["pinterest"]
    return {**found, **more}


def play(folder: Path, scene: Callable[[World], Awaitable[None]], **how: Any) -> World:
    """Run one scene in a gateway with the stranger; returns the world it left."""

    async def main() -> World:
        plugins = {"stranger": stranger, **how.pop("plugins", {})}
        async with world(folder, how.pop("tables", config()), plugins=plugins, **how) as here:
            await scene(here)
            return here

    return asyncio.run(main())


async def ask(here: World, way: str) -> tuple[int, Any]:
    """Send the stranger's source one hit."""
    return await here.running.request("POST", "/in/stranger", way.encode())


async def is_well(here: World, event_id: str) -> None:
    """Fail when another route does not take an event in time."""
    started = time.monotonic()
    (answer,) = await here.post(event(event_id, here.clock()))
    assert answer["outcome"] == "accepted"
    assert time.monotonic() - started < BOUND_S


def test_every_way_to_go_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What raises anything or returns rubbish is answered 503 and accepts nothing; our route goes on."""
    ways = [way for way in WAYS if way not in ("sleep", "spin")]

    async def scene(here: World) -> None:
        for way in ways:
            status, answer = await ask(here, way)
            assert status == (200 if way in ACCEPTED else 503), (way, answer)
            if status == 503:
                assert answer["error"]["code"] == "plugin_failed", way
                assert "jo@" not in json.dumps(answer)
            await is_well(here, f"after-{way.replace(' ', '-')}")
        assert here.gateway.switched_off == set(), "a call that returns is not hung"
        assert (await ask(here, "well"))[0] == 200
        await here.drain(60.0)

    here = play(tmp_path, scene)
    failed = here.gateway.tally.plugin_failures[("stranger",)]
    assert failed >= len(ways) - len(ACCEPTED) - 1
    assert {f"after-{way.replace(' ', '-')}" for way in ways} <= here.copies().keys()
    assert "jo@" not in capsys.readouterr().out


def test_a_planted_guard_without_its_net_ends_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without carrying what is raised as a value, a stranger's SystemExit ends the whole process."""
    monkeypatch.setattr(isolation, "_attempt", lambda call: call())

    async def scene(here: World) -> None:
        await ask(here, "SystemExit")

    with pytest.raises(SystemExit):
        play(tmp_path, scene)


def test_a_slow_call_is_given_up_and_another_route_is_not(tmp_path: Path) -> None:
    """A call that sleeps is answered 503 at its deadline; hits of other routes do not wait for it."""

    async def scene(here: World) -> None:
        here.gateway._guard._deadline_s = 0.3
        started = time.monotonic()
        slow = asyncio.create_task(ask(here, "sleep"))
        await asyncio.sleep(0)
        await is_well(here, "meanwhile")
        status, _ = await slow
        assert status == 503
        assert time.monotonic() - started < stranger.SLEEP_S - 0.2

    play(tmp_path, scene)


def test_a_plugin_that_never_returns_is_switched_off(tmp_path: Path) -> None:
    """Five calls in a real process spin for ever: it lives, other routes answer, the plugin is not called any more."""
    text = (
        plain_config()
        + "\n[sources.stranger]\n"
        + "\n".join(f"{key} = {json.dumps(value)}" for key, value in SOURCE.items())
    )
    with Pair(tmp_path, text, {"HARNESS_PLUGINS": "tests.harness.stranger"}) as pair:
        pid = pair.gateway.pid
        with httpx.Client(base_url=f"http://127.0.0.1:{pair.gateway.port}", timeout=20.0, trust_env=False) as client:
            bearer = {"Authorization": f"Bearer {SECRET}"}
            took = []

            def well(event_id: str) -> None:
                started = time.monotonic()
                answer = client.post("/in/api", json=event_of(event_id, time.time()), headers=bearer)
                took.append(time.monotonic() - started)
                assert answer.status_code == 200

            for number in range(HUNG_LIMIT):
                assert client.post("/in/stranger", content=b"spin").status_code == 503
                well(f"e-{number}")
            started = time.monotonic()
            answer = client.post("/in/stranger", content=b"well")
            assert (answer.status_code, "switched off" in answer.text) == (503, True)
            assert time.monotonic() - started < BOUND_S
            for number in range(HUNG_LIMIT, 2 * HUNG_LIMIT):
                well(f"e-{number}")
        status = pair.gateway.status()
        assert status["switched_off"] == ["stranger"]
        assert pair.gateway.pid == pid
        until(lambda: len(pair.sandbox.ids()) == 2 * HUNG_LIMIT, 20.0, "all are delivered")
    say(f"five spinning threads: other route median {statistics.median(took):.3f} s, most {max(took):.3f} s")
    assert max(took) < BOUND_S


ENRICHER_WAYS: dict[str, Callable[[], Any]] = {
    "raise": WAYS["raise"], "recursion": WAYS["recursion"], "text": WAYS["text"], "number": WAYS["number"],
    "SystemExit": WAYS["SystemExit"], "KeyboardInterrupt": WAYS["KeyboardInterrupt"],
    "TimeoutError": WAYS["TimeoutError"],
}  # fmt: skip


def bad_plugin() -> Any:
    """Return a stranger's plugin with :class:`BadEnricher`."""

    @hookimpl
    def register_enrichers() -> list[Any]:
        return [BadEnricher()]

    return type("Plugin", (), {"register_enrichers": staticmethod(register_enrichers), "__name__": "bad"})()


@pytest.mark.parametrize("way", ENRICHER_WAYS)
def test_an_enricher_at_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """An enricher that raises or returns rubbish costs at most its own hit; the next one is taken as ever."""
    monkeypatch.setattr(BadEnricher, "way", staticmethod(ENRICHER_WAYS[way]))

    async def scene(here: World) -> None:
        page = event("fault", here.clock(), event_source_url="https://shop.example/fault")
        status, answer = await here.running.post("api", page, {"Authorization": "Bearer server-secret"})
        assert status in (200, 503)
        if status == 200:
            assert answer["events"][0]["outcome"] == "accepted"
            assert "bad_enricher: failed" in answer["events"][0]["notes"]
        await is_well(here, "after")
        assert sum(here.gateway.tally.plugin_failures.values()) == 1

    play(tmp_path, scene, plugins={"bad": bad_plugin()})


def test_an_enricher_that_hangs_is_given_up_and_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hit goes on without it after the deadline; five in a row, and it is not called any more."""
    monkeypatch.setattr(BadEnricher, "way", staticmethod(asyncio.Event().wait))

    async def scene(here: World) -> None:
        here.gateway._guard._deadline_s = 0.05
        for number in range(HUNG_LIMIT + 1):
            page = event(f"fault-{number}", here.clock(), event_source_url="https://shop.example/fault")
            (answer,) = await here.post(page)
            assert (answer["outcome"], "bad_enricher: failed" in answer["notes"]) == ("accepted", True)
        assert here.gateway.switched_off == {"bad_enricher"}
        assert here.gateway.tally.plugin_failures[("bad_enricher",)] == HUNG_LIMIT

    play(tmp_path, scene, plugins={"bad": bad_plugin()})


@pytest.mark.parametrize("way", ["raise", "SystemExit", "KeyboardInterrupt", "CancelledError", "recursion"])
def test_an_observer_at_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """An observer that raises anything is counted, and events go on being settled."""
    monkeypatch.setattr(BadObserver, "way", staticmethod(WAYS[way]))

    @hookimpl
    def register_observers(context: Context) -> list[Any]:
        return [BadObserver()]

    plugin = type("Plugin", (), {"register_observers": staticmethod(register_observers), "__name__": "bad"})

    async def scene(here: World) -> None:
        for number in range(3):
            await is_well(here, f"e{number}")
        await here.drain()
        assert here.gateway.tally.plugin_failures[("bad_observer",)] == 3

    here = play(tmp_path, scene, plugins={"bad": plugin()})
    assert set(here.copies().values()) == {1}


def _hang(_batch: Batch) -> Any:
    return asyncio.sleep(3_600)


VERDICTS: dict[str, Callable[[Batch], Any]] = {
    "raise": lambda _: WAYS["raise"](), "SystemExit": lambda _: WAYS["SystemExit"](),
    "CancelledError": lambda _: WAYS["CancelledError"](), "recursion": lambda _: WAYS["recursion"](),
    "none": lambda _: None, "text": lambda _: "x", "number": lambda _: 7,
    "numbers": lambda batch: [1] * len(batch.events),
    "short": lambda batch: [Delivered()] * (len(batch.events) - 1), "hang": _hang,
}  # fmt: skip


@pytest.mark.parametrize("way", VERDICTS)
def test_a_destination_at_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A verdict that is none, or no end, is a retry of this lane alone; when the plugin works everything arrives."""
    monkeypatch.setattr(sender, "_CAP_S", 0.05)
    monkeypatch.setattr(sender, "_CALL_S", 0.3)
    monkeypatch.setattr(BadDestination, "taken", [])
    monkeypatch.setattr(BadDestination, "way", staticmethod(VERDICTS[way]))

    @hookimpl
    def register_destinations(context: Context) -> list[Any]:
        return [BadDestination]

    plugin = type("Plugin", (), {"register_destinations": staticmethod(register_destinations), "__name__": "bad"})
    found = config()
    found["destinations"]["bad"] = {"type": "bad"}
    found["sources"]["api"]["destinations"] = ["pinterest", "bad"]

    async def scene(here: World) -> None:
        await is_well(here, "e")
        lane = next(lane for lane in here.gateway.sender.lanes if lane.state.destination == "bad")
        await here.until(lambda: lane.state.state == "backing_off", "the lane backs off")
        assert lane.state.reason == "plugin_failed"
        await here.running.delivered(1)
        BadDestination.way = staticmethod(lambda batch: [Delivered() for _ in batch.events])
        await here.drain()
        assert len(here.running.settled) == 2

    here = play(tmp_path, scene, plugins={"bad": plugin()}, tables=found)
    assert here.copies() == {"e": 1}
    assert BadDestination.taken[-1] == "e"


def test_what_isolation_costs() -> None:
    """One call inline and one in a thread, in microseconds; printed, and bounded loosely."""

    async def main() -> tuple[float, float]:
        guard = Guard(lambda _: None)
        try:
            for _ in range(200):
                await guard.threaded("acme", tuple)
            started = time.perf_counter()
            for _ in range(1_000):
                guard.inline("acme", tuple)
            middle = time.perf_counter()
            for _ in range(1_000):
                await guard.threaded("acme", tuple)
            return (middle - started) * 1_000, (time.perf_counter() - middle) * 1_000
        finally:
            guard.close()

    inline, threaded = asyncio.run(main())
    say(f"isolation: {inline:.2f} us a call inline, {threaded:.0f} us in a thread")
    assert inline < 100
    assert threaded < 20_000


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_question_that_ends_the_process_does_not(error: BaseException) -> None:
    """What a page asks a plugin fails like a hit's call does."""

    async def ask_it() -> None:
        raise error

    async def main() -> None:
        guard = Guard(lambda _name: None)
        try:
            with pytest.raises(PluginFailed):
                await guard.asked("stranger", ask_it, 1.0)
        finally:
            guard.close()

    asyncio.run(main())
