"""The page Deduplication and its two detectors: counts of a real run, hostile ids, bounded memory."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from gateway import Client, Event
from gateway.detectors import CLIENTS, MOST_EXAMPLES, Detectors
from gateway.history import Rolled
from gateway.hit import Secret
from gateway.operator import operator_app
from gateway.operator.dedup import Unmet, deduplication_of
from gateway.operator.pages.deduplication import plotted
from gateway.operator.periods import period_of
from tests.harness.inprocess import BEARER, SECRET, Clock, World, event, world
from tests.harness.operator_site import Visitor

NOW = 1_790_000_000.0
PASSWORD = "the operator's password"
PAGE = {"Origin": "https://shop.example", "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0)"}
CONFIG: dict[str, Any] = {
    "sites": {"shop": {"hold_s": 0.0}},
    "sources": {
        "page": {"adapter": "browser_tag", "site": "shop", "allowed_origins": ["https://shop.example"]},
        "api": {"adapter": "browser_tag", "site": "shop", "secrets": [SECRET]},
    },
}
HOSTILE = "<script>alert(1)</script>\"'`{{7*7}}"


async def shown(running: World, path: str) -> str:
    """Log in and return a page's text."""
    async with Visitor(operator_app(running.gateway, Secret(value=PASSWORD))) as visitor:
        await visitor.login(PASSWORD)
        return await visitor.page(path)


async def page(running: World, *events: dict[str, Any], peer: str = "81.2.69.144") -> None:
    """Send a page's hit from an address."""
    status, answer = await running.running.post("page", list(events), PAGE, peer=peer)
    assert status == 200, answer


def test_the_page_counts_what_was_sent(tmp_path: Path) -> None:
    """30 pages' leads, 20 of them told by the server too, 5 sent twice: received, unique and pairs are exact."""

    async def scenario() -> None:
        async with world(tmp_path, CONFIG, clock=Clock(NOW)) as running:
            leads = [event(f"lead-{number}", NOW, event_name="lead") for number in range(30)]
            await page(running, *leads)
            await running.drain()
            for number in range(0, 20, 10):
                await running.running.post("api", leads[number : number + 10], BEARER)
            await page(running, *leads[:5])
            await running.drain()
            text = await shown(running, "/deduplication?period=24h")
            found = deduplication_of(
                await running.gateway.outbox.history(NOW - 3_600, NOW, whats=()), {"page": "shop", "api": "shop"}
            )
        total = found.total
        assert (total.received, total.unique, total.merged + total.duplicate, total.keyless) == (55, 30, 25, 0)
        pairs = {(one.source, one.other): one.merged + one.duplicate for one in found.pairs}
        assert pairs == {("api", "page"): 20, ("page", "page"): 5}
        assert found.unmet == ()
        for label, value in (("Received", 55), ("Unique", 30)):
            assert f'<dt>{label}</dt>\n<dd><span class="value">{value}</span>' in text
        assert '<td data-label="met events of">page</td>' in text
        assert "(sent again)" in text
        assert text.count("none found") == 2

    asyncio.run(scenario())


def test_a_cached_page_is_found_and_its_id_is_harmless(tmp_path: Path) -> None:
    """The same id from three addresses is shown with its number; the id is text, whatever is in it."""

    async def scenario() -> None:
        async with world(tmp_path, CONFIG, clock=Clock(NOW)) as running:
            visit = event(HOSTILE, NOW, event_name="page_visit", user={"email": "ada@people.example"})
            for last in (144, 145):
                await page(running, visit, peer=f"81.2.69.{last}")
            assert running.gateway.detectors.shared() == []
            await page(running, visit, peer="81.2.69.146")
            (found,) = running.gateway.detectors.shared()
            assert (found.source, found.event, found.event_id, found.clients) == ("page", "page_visit", HOSTILE, 3)
            text = await shown(running, "/deduplication")
            assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
            assert "<script>alert" not in text
            assert "A page that a cache keeps carries the id of its first visitor" in text
            assert "81.2.69" not in text

    asyncio.run(scenario())


def test_random_ids_are_found(tmp_path: Path) -> None:
    """Page and server tell of 25 sign-ups under ids of their own: they are said never to have met."""

    async def scenario() -> None:
        async with world(tmp_path, CONFIG, clock=Clock(NOW)) as running:
            for source in ("page", "api"):
                told = [event(f"{source}-{number}", NOW, event_name="signup") for number in range(25)]
                headers = PAGE if source == "page" else BEARER
                assert (await running.running.post(source, told, headers, peer="81.2.69.144"))[0] == 200
            await running.drain()
            text = await shown(running, "/deduplication?period=7d")
            assert "25 and 25" in text
            assert "under ids of their own" in text

    asyncio.run(scenario())


def test_an_empty_page_says_what_to_do(tmp_path: Path) -> None:
    """Before the first event there is no plot of nothing; an unknown period is refused."""

    async def scenario() -> None:
        async with world(tmp_path, CONFIG, clock=Clock(NOW)) as running:
            text = await shown(running, "/deduplication")
            assert "No event was taken in during this period." in text
            async with Visitor(operator_app(running.gateway, Secret(value=PASSWORD))) as visitor:
                await visitor.login(PASSWORD)
                assert "period must be one of" in await visitor.page("/deduplication?period=1y", 400)

    asyncio.run(scenario())


# -- from roll-ups made by hand


def row(source: str, what: str, count: int, detail: str = "", name: str = "checkout") -> Rolled:
    """Return one roll-up."""
    return Rolled(0, source, "pinterest", name, what, detail, count)


def test_what_turns_out_to_be_a_copy_is_not_unique() -> None:
    """An accepted event that was joined with another later is a copy; one that was withdrawn stays unique."""
    rows = [row("a", "accepted", 10), row("a", "ended", 2, "merged"), row("a", "ended", 1, "duplicate")]
    found = deduplication_of([*rows, row("a", "ended", 3, "consent"), row("a", "duplicate", 4)], {})
    (flow,) = found.flows
    assert (flow.received, flow.unique, flow.merged, flow.duplicate) == (14, 7, 2, 5)
    assert flow.received == flow.unique + flow.merged + flow.duplicate


@pytest.mark.parametrize(
    ("mine", "theirs", "met", "is_found"),
    [(100, 40, 19, True), (100, 40, 20, False), (100, 19, 0, False), (20, 20, 0, True)],
)
def test_half_of_the_smaller_side_must_meet(mine: int, theirs: int, met: int, is_found: bool) -> None:
    """Under half is found, half is not; the smaller side needs 20 events of its own."""
    rows = [row("page", "accepted", mine), row("api", "accepted", theirs - met), row("api", "merged", met)]
    rows.append(row("api", "pair", met, "merged:page"))
    found = deduplication_of(rows, {"page": "shop", "api": "shop"})
    assert bool(found.unmet) is is_found
    if is_found:
        (one,) = found.unmet
        assert isinstance(one, Unmet)
        assert (one.met, set(one.events)) == (met, {mine, theirs})
    assert deduplication_of(rows, {"page": "shop", "api": "other"}).unmet == ()


def test_repeats_of_one_source_meet_nobody() -> None:
    """A source that sends everything twice does not look as if it told of more."""
    rows = [row("page", "accepted", 15), row("page", "duplicate", 15), row("page", "pair", 15, "duplicate:page")]
    assert deduplication_of([*rows, row("api", "accepted", 50)], {"page": "s", "api": "s"}).unmet == ()


def test_every_step_of_a_period_is_plotted() -> None:
    """An hour without events is a zero, not a gap; the plot's sum is the total."""
    now = NOW - NOW % 3_600 + 1_800
    moments = deduplication_of([Rolled(int(now) - 1_800 - 7_200, "a", "p", "lead", "accepted", "", 5)], {}).moments
    labels, series = plotted(moments, period_of("24h", now))
    assert len(labels) == 25
    assert series[0][1][-3:] == [5, 0, 0]
    assert sum(series[0][1]) == 5
    assert len(plotted(moments, period_of("28d", now))[0]) == 29


# -- the detector alone


def visit(event_id: str | None, client: str, *, by: str = "client_id") -> Event:
    """Return a page visit of a client."""
    if by == "client_id":
        return Event(name="page_visit", id=event_id, client_id=client)
    return Event(name="page_visit", id=event_id, client=Client(ip=client, user_agent="Mozilla/5.0"))


@pytest.mark.parametrize("by", ["client_id", "ip"])
def test_three_clients_are_too_many(by: str) -> None:
    """Two are a change of network; repeats of one client are one; the third is told, and others counted on."""
    watch = Detectors(Clock(NOW))
    for client in ("1.1.1.1", "1.1.1.1", "1.1.1.2", "1.1.1.2"):
        watch.note("page", visit("x", client, by=by))
    assert watch.shared() == []
    for number in range(CLIENTS, 10):
        watch.note("page", visit("x", f"1.1.1.{number}", by=by))
    (found,) = watch.shared()
    assert found.clients == 9


def test_what_is_no_explicit_id_is_not_watched() -> None:
    """No id, another name, another source, no client: nothing of it is one id on many clients."""
    watch = Detectors(Clock(NOW))
    for number in range(9):
        watch.note("page", visit(None, f"c{number}"))
        watch.note(f"source{number}", visit("same", f"c{number}"))
        watch.note("page", Event(name=f"name{number}", id="same", client_id=f"c{number}"))
        watch.note("page", Event(name="lead", id="same"))
        watch.note("page", Event(name="signup", id="same", client=Client(ip=f"1.1.1.{number}")))
    assert watch.shared() == []


def test_an_id_is_forgotten_after_two_windows() -> None:
    """Clients hours apart are not many at once; an example is shown for a day."""
    clock = Clock(NOW)
    watch = Detectors(clock, window_s=3_600)
    for _ in range(4):
        watch.note("page", visit("slow", f"c{clock.now}"))
        clock.step(7_300)
        watch.shared()
    assert watch.shared() == []
    for number in range(3):
        watch.note("page", visit("fast", f"c{number}"))
    assert len(watch.shared()) == 1
    clock.step(23 * 3_600)
    assert len(watch.shared()) == 1
    clock.step(2 * 3_600)
    assert watch.shared() == []


def test_memory_is_bounded_and_holds_no_client() -> None:
    """A flood pushes the oldest ids out; examples and clients are kept up to a limit, and no text of a client."""
    watch = Detectors(Clock(NOW), most_ids=100)
    for number in range(10_000):
        watch.note("page", visit(f"id-{number}", "c"))
    assert len(watch._ids) + len(watch._before) <= 200
    for number in range(200):
        for client in range(3):
            watch.note("page", visit(f"shared-{number}", f"client-{client}"))
    for client in range(1_000):
        watch.note("page", visit("one", f"client-{client}"))
    assert len(watch.shared()) == MOST_EXAMPLES
    assert watch.shared()[0].clients == 100
    watch.note("page", visit("i" * 5_000, "a"))
    assert "client-" not in repr((watch._ids, watch._before, watch._examples))


def test_watching_is_cheap() -> None:
    """Well under a microsecond on a quiet core; ten times that is allowed on a busy one."""
    events = [visit(f"id-{number}", f"81.2.{number % 250}.{number // 250}", by="ip") for number in range(20_000)]
    best = 1.0
    for _ in range(5):
        watch, started = Detectors(Clock(NOW)), time.process_time()
        for one in events:
            watch.note("page", one)
        best = min(best, (time.process_time() - started) / len(events))
    assert best < 10e-6
