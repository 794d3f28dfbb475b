"""Test events: a pasted request or a source's next hit, its steps, its answer; kept in memory, never shown raw."""

import asyncio
import json
import timeit
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import Batch, Context, Destination, Paused, Refused, Retry, Unclear, Verdict, hookimpl
from gateway import config as configuration
from gateway.captures import KEEP_S, MOST_PASTED, MOST_WATCHED, WATCH_S, Captures
from gateway.event import SealedEvent
from gateway.hit import Secret
from gateway.interfaces import Delivered
from gateway.logs import HitLog
from gateway.operator import operator_app
from gateway.operator.pages.testing import EXAMPLE
from gateway.outbox import DeadFilter
from gateway.runtime import Gateway
from gateway.sandbox import PinterestSandbox
from gateway.sandbox.faults import Fault
from gateway.testing.app import complete
from gateway.testing.asgi import AppClient
from gateway.testing.doubles import NOW, Clock, RecordingDestination, hit, source
from gateway.trial import MOST_EVENTS, tried
from tests.harness.canary import Canary
from tests.harness.operator_site import Visitor

CONFIG: dict[str, Any] = {
    "sites": {"shop": {}},
    "sources": {
        "api": {"adapter": "browser_tag", "site": "shop", "secrets": ["a-secret-of-the-api"]},
        "tag": {"adapter": "browser_tag", "site": "shop", "allowed_origins": ["https://shop.example"]},
    },
}
BASE = "/test-events"
BEARER = {"Authorization": "Bearer a-secret-of-the-api"}
HOSTILE = "<script>alert(1)</script>"


class Broken(RecordingDestination):
    """A destination that fails when it is called."""

    type = "broken"

    async def send(self, batch: Batch) -> Verdict:
        """Raise."""
        raise RuntimeError(f"{len(batch.events)} of them")


class Plugins:
    @hookimpl
    def register_destinations(self, context: Context) -> list[type[Destination]]:
        return [Broken]


class Site:
    """A gateway that delivers nothing by itself, its sandbox, and its operator's app."""

    def __init__(self, gateway: Gateway, sandbox: PinterestSandbox, clock: Clock) -> None:
        self.gateway = gateway
        self.sandbox = sandbox
        self.clock = clock
        self.app = operator_app(gateway, Secret(value="op-password"), Secret(value="view-password"))

    @asynccontextmanager
    async def visitor(self, password: str = "op-password") -> AsyncIterator[Visitor]:
        async with Visitor(self.app) as found:
            await found.login(password)
            yield found

    async def hit(self, body: Any, *, to: str = "api", **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.gateway.ingress)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            given = {**(BEARER if to == "api" else {}), **headers}
            return await client.post(f"/in/{to}", json=body, headers=given)

    async def kept(self) -> tuple[Any, ...]:
        """Return what the gateway keeps: what waits, what is dead, what the latest outcomes and the counts are."""
        counts = await self.gateway.outbox.counts()
        lanes = [(lane.kind, lane.waiting, lane.leased, lane.dead) for lane in counts.lanes]
        letters = await self.gateway.outbox.dead(DeadFilter(), limit=10)
        return lanes, letters, self.gateway.recent.last, dict(self.gateway.tally.hits)


def event(event_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_name": "checkout", "event_id": event_id, "event_time": int(NOW) - 5, "value": "12.50", "currency": "EUR",
        "user": {"email": "ada@example.com"}, **changes,
    }  # fmt: skip


@asynccontextmanager
async def site(folder: Path, **destinations: Any) -> AsyncIterator[Site]:
    clock = Clock()
    sandbox = PinterestSandbox(clock=clock)
    tables = complete({**CONFIG, **({"destinations": destinations} if destinations else {})})
    parsed = configuration.parse(tables, folder / "gateway.toml")
    gateway = Gateway(
        parsed, http=AppClient(sandbox.app), clock=clock, hit_log=HitLog(enabled=False),
        extra_plugins={"testing": Plugins()},
    )  # fmt: skip
    try:
        yield Site(gateway, sandbox, clock)
    finally:
        await gateway.stop()
        sandbox.record.close()


Scenario = Callable[[Site], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    """Return a runner of one scenario."""

    def start(scenario: Scenario) -> None:
        async def main() -> None:
            async with site(tmp_path) as found:
                await scenario(found)

        asyncio.run(main())

    return start


async def paste(visitor: Visitor, capture: str, **fields: str) -> str:
    """Paste a request; returns the address of its page."""
    answer = await visitor.send(f"{BASE}/read", BASE, capture=capture, **{"source": "api", **fields})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


# -- pasted


def test_every_step_of_a_pasted_request_is_shown(run: Callable[[Scenario], None]) -> None:
    """The bare body of a request: received, normalised, each enricher, sealed, what would be sent; nothing is kept."""

    async def scenario(here: Site) -> None:
        before = await here.kept()
        async with here.visitor() as operator:
            text = await operator.page(await paste(operator, json.dumps(event("order-1"))))
        for step in ("Received", "Normalised", "Enriched by client", "Sealed for pinterest"):
            assert f"<h3>{step}</h3>" in text, step
        assert "Would be sent to pinterest" in text
        assert "order-1" in text
        assert await here.kept() == before
        assert here.sandbox.tests.events() == []

    run(scenario)


def test_the_example_is_one(run: Callable[[Scenario], None]) -> None:
    """The capture that the page shows is read, and its proof is asked for when the box is ticked."""

    async def scenario(here: Site) -> None:
        async with here.visitor() as operator:
            assert "shop.example" in await operator.page(BASE)
            text = await operator.page(await paste(operator, EXAMPLE, source="tag", verify="yes"))
            assert "refuses it" not in text
            assert "order-1001" in text
            refused = await operator.page(await paste(operator, EXAMPLE, source="api", verify="yes"))
            assert "401" in refused

    run(scenario)


def test_the_answer_to_a_test_is_shown_and_leaves_nothing(run: Callable[[Scenario], None]) -> None:
    """Sent as a test Pinterest's answer stands on the page; no mark, memory, count or outcome is left."""

    async def scenario(here: Site) -> None:
        async with here.visitor() as operator:
            address = await paste(operator, json.dumps([event("order-1"), event("order-2")]))
            before = await here.kept()
            answer = await operator.send(f"{address}/send", address)
            assert (answer.status_code, answer.headers["location"]) == (303, address)
            text = await operator.page(address)
            assert text.count(">taken<") == 2
            assert {one["event_id"] for one in here.sandbox.tests.events()} == {"order-1", "order-2"}
            assert here.sandbox.record.events() == []
            assert await here.kept() == before
            # a mark would make the real one a duplicate
            assert (await here.hit([event("order-1")])).json()["accepted"] == 1
            lines = (here.gateway.audit.path).read_text().splitlines()
            told = [json.loads(line) for line in lines]
            assert [one["what"] for one in told if one["what"].startswith("test_")] == ["test_capture", "test_send"]

    run(scenario)


def test_what_pinterest_says_is_shown_in_its_words(run: Callable[[Scenario], None]) -> None:
    """A refusal of the sandbox and events that are not sent at all stand side by side."""

    async def scenario(here: Site) -> None:
        here.sandbox.faults.stand(Fault(kind="partial"))
        async with here.visitor() as operator:
            address = await paste(operator, json.dumps([event("order-1"), event("nobody", user={})]))
            await operator.send(f"{address}/send", address)
            text = await operator.page(address)
        assert ">refused<" in text
        assert ">not sent<" in text
        assert "no_identity" in text

    run(scenario)


def test_too_many_events_are_cut(run: Callable[[Scenario], None]) -> None:
    """Of a large batch the first twenty are sent, and the page says how many were not."""

    async def scenario(here: Site) -> None:
        async with here.visitor() as operator:
            address = await paste(operator, json.dumps([event(f"e{number}") for number in range(MOST_EVENTS + 5)]))
            await operator.send(f"{address}/send", address)
            assert "5 events beyond the first 20" in await operator.page(address)
        assert len(here.sandbox.tests.events()) == MOST_EVENTS

    run(scenario)


def test_a_destination_that_fails_costs_only_the_test(tmp_path: Path) -> None:
    """A plugin that raises is named on the page; nothing else happens."""

    async def main() -> None:
        async with site(tmp_path, broken={"type": "broken"}) as here, here.visitor() as operator:
            address = await paste(operator, json.dumps(event("order-1")))
            await operator.send(f"{address}/send", address)
            text = await operator.page(address)
            assert "It could not be sent" in text
            assert "RuntimeError" in text

    asyncio.run(main())


@pytest.mark.parametrize(
    ("verdict", "result", "words"),
    [
        ([Delivered()], "taken", ""),
        ([Delivered(warning="w")], "taken", "w"),
        ([Refused(reason="refused: why")], "refused", "refused: why"),
        ([Retry(reason="rate_limited")], "later", "rate_limited"),
        (Retry(reason="unreachable"), "later", "unreachable"),
        (Unclear(reason="invalid_request"), "unclear", "invalid_request"),
        (Paused(reason="unauthorized"), "paused", "unauthorized"),
    ],
)
def test_every_verdict_has_its_word(verdict: Verdict, result: str, words: str) -> None:
    """Whatever a destination says, of one event or of the call, is said of each event."""
    sealed = SealedEvent(
        event_id="e", event_name="lead", event_time=0, accepted_at=0.0, source="api", site="shop", born="server"
    )
    found = tried("pinterest", sealed, verdict, 0)
    assert (found.result, found.words) == (result, words)


@pytest.mark.parametrize("capture", ["", "   ", "x" * ((1 << 20) + 1)])
def test_what_cannot_be_taken_is_said(run: Callable[[Scenario], None], capture: str) -> None:
    """Nothing, and too much, are refused with a page that says so."""

    async def scenario(here: Site) -> None:
        async with here.visitor() as operator:
            answer = await operator.send(f"{BASE}/read", BASE, capture=capture, source="api")
            assert answer.status_code == 400

    run(scenario)


@pytest.mark.parametrize(
    "capture",
    ["{", "null", "[1, 2]", '{"hit": {"received_at": "x"}}', '{"hit": {"headers": []}}', '{"hit": {"path": "http://["}}',
     "[" * 3_000, '{"hit": {"tail": "/../<b>", "headers": {"<b>": "1"}, "body": {"event_name": "<script>"}}}'],
)  # fmt: skip
def test_hostile_captures(run: Callable[[Scenario], None], capture: str) -> None:
    """A capture that is none is refused or explained as such; never a fault, never markup."""

    async def scenario(here: Site) -> None:
        async with here.visitor() as operator:
            answer = await operator.send(f"{BASE}/read", BASE, capture=capture, source="api")
            assert answer.status_code in (303, 400, 409), answer.text
            if answer.status_code == 303:
                text = await operator.page(answer.headers["location"])
                assert "<script>alert" not in text
                assert "<b>" not in text

    run(scenario)


def test_an_unknown_source(run: Callable[[Scenario], None]) -> None:
    """A source that is not configured cannot be read for or watched; its name is not echoed."""

    async def scenario(here: Site) -> None:
        async with here.visitor() as operator:
            for path in ("read", "watch", "unwatch"):
                answer = await operator.send(f"{BASE}/{path}", BASE, capture="{}", source=HOSTILE)
                assert answer.status_code == 409
                assert "alert" not in answer.text

    run(scenario)


# -- the next hit


def test_the_next_hit_of_a_source(run: Callable[[Scenario], None]) -> None:
    """A watched source's next hit is taken, once, and shown with what really became of it; the hit goes its way."""

    async def scenario(here: Site) -> None:
        async with here.visitor() as operator:
            await operator.send(f"{BASE}/watch", BASE, source="api")
            assert (await operator.client.get(f"{BASE}/state")).json() == {"api": ""}
            assert "waiting" in await operator.page(BASE)
            await here.hit([event("of-another")], to="tag", Origin="https://shop.example")
            assert (await operator.client.get(f"{BASE}/state")).json() == {"api": ""}
            assert (await here.hit([event("order-1")])).json()["accepted"] == 1
            await here.hit([event("order-2")])
            state = (await operator.client.get(f"{BASE}/state")).json()
            text = await operator.page(f"{BASE}/{state['api']}")
            assert here.gateway.captures.watched == {}
        assert "order-1" in text
        assert "order-2" not in text
        assert "What became of it" in text
        assert ">accepted<" in text  # not "duplicate", as a rehearsal after the fact would say

    run(scenario)


def test_a_hit_that_is_refused_is_shown_too(run: Callable[[Scenario], None]) -> None:
    """Somebody with a wrong secret: the page says what is wrong, which is what one looks for."""

    async def scenario(here: Site) -> None:
        async with here.visitor() as operator:
            await operator.send(f"{BASE}/watch", BASE, source="api")
            assert (await here.hit([event("order-1")], Authorization="Bearer wrong")).status_code == 401
            state = (await operator.client.get(f"{BASE}/state")).json()
            text = await operator.page(f"{BASE}/{state['api']}")
            assert "refuses it" in text
            assert "401" in text

    run(scenario)


def test_a_source_is_watched_for_five_minutes(run: Callable[[Scenario], None]) -> None:
    """After that a hit is not taken; one that was taken is gone after ten minutes, and at any erasure."""

    async def scenario(here: Site) -> None:
        async with here.visitor() as operator:
            await operator.send(f"{BASE}/watch", BASE, source="api")
            here.clock.advance(WATCH_S + 1)
            await here.hit([event("too-late")])
            assert (await operator.client.get(f"{BASE}/state")).json() == {}
            await operator.send(f"{BASE}/watch", BASE, source="api")
            await here.hit([event("in-time")])
            identity = (await operator.client.get(f"{BASE}/state")).json()["api"]
            here.clock.advance(KEEP_S + 1)
            assert "no longer here" in await operator.page(f"{BASE}/{identity}", 404)
            address = await paste(operator, json.dumps(event("order-1")))
            await operator.page(address)
            transport = httpx.ASGITransport(here.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://operator") as client:
                erased = await client.post(
                    "/api/erase", json={"email": "jo@example.com"}, headers={"Authorization": "Bearer op-password"}
                )
                assert erased.status_code == 200
            await operator.page(address, 404)

    run(scenario)


def test_what_is_kept_is_forgotten_by_itself() -> None:
    """A timer lets go of what has had its time, although nobody looks."""

    async def main() -> None:
        clock = Clock()
        captures = Captures(clock)
        captures.watch("example")
        captures.take(hit(source("browser_tag"), {"event_name": "lead"}))
        captures.paste(hit(source("browser_tag"), {"event_name": "lead"}), verify=False)
        assert captures._sweeper is not None
        clock.advance(KEEP_S + 1)
        captures._sweep_again()
        assert captures._next == {}
        assert captures._pasted == {}
        assert captures._sweeper is None

    asyncio.run(main())


def test_what_is_kept_is_bounded() -> None:
    """So many sources are watched, so many pasted requests are kept; the oldest makes room."""

    async def main() -> None:
        captures = Captures(Clock())
        assert all(captures.watch(f"s{number}") for number in range(MOST_WATCHED))
        assert captures.watch("one more") is None
        assert captures.watch("s0") is not None  # again
        kept = [captures.paste(hit(source("browser_tag"), {}), verify=False) for _ in range(MOST_PASTED + 1)]
        assert captures.get(kept[0].id) is None
        assert len(captures.pasted()) == MOST_PASTED
        captures.forget(kept[-1].id)
        assert captures.get(kept[-1].id) is None
        assert "lead" not in repr(kept[-1])
        captures.close()
        assert captures.pasted() == []

    asyncio.run(main())


def test_a_hit_that_nobody_awaits_costs_a_look_up() -> None:
    """For a source that is not watched the ingress asks one dictionary, in well under a microsecond."""
    watched: dict[str, float] = {}
    seconds = min(timeit.repeat(lambda: "api" in watched, number=10_000, repeat=5)) / 10_000
    assert seconds < 2e-6


# -- who may, and what is seen


def test_a_viewer_looks_and_changes_nothing(run: Callable[[Scenario], None]) -> None:
    """A viewer sees the page and what was captured; taking, sending and forgetting are the operator's."""

    async def scenario(here: Site) -> None:
        async with here.visitor() as operator, here.visitor("view-password") as viewer:
            address = await paste(operator, json.dumps(event("order-1")))
            assert "<textarea" not in await viewer.page(BASE)
            text = await viewer.page(address)
            assert "Normalised" in text
            assert "as a test</button>" not in text
            for path in (f"{BASE}/read", f"{BASE}/watch", f"{BASE}/unwatch", f"{address}/send", f"{address}/forget"):
                answer = await viewer.send(path, BASE, source="api", capture="{}")
                assert answer.status_code == 403, path
            assert here.sandbox.tests.events() == []
            assert here.gateway.captures.watched == {}
            forgery = await operator.client.post(f"{address}/send", data={"csrf": "x"})
            assert forgery.status_code == 403

    run(scenario)


def test_nothing_raw_is_shown_or_written(run: Callable[[Scenario], None], tmp_path: Path) -> None:
    """People with details that exist nowhere else, pasted, awaited and sent: none is on a page or in a file."""
    canary = Canary()
    person = {
        "email": canary.mail("email"), "phone": canary.phone("phone"), "first_name": canary.word("first name"),
        "last_name": canary.word("last name"), "city": canary.word("city"), "external_id": canary.word("external id"),
    }  # fmt: skip
    told = event(
        "order-1", user=person, client={"ip": "216.3.128.12", "user_agent": "Mozilla/5.0"},
        event_source_url=f"https://shop.example/?email={canary.mail('url')}",
    )  # fmt: skip
    capture = {
        "hit": {
            "query": f"who={canary.mail('query')}", "body": told, "peer": "216.3.128.13",
            "headers": {"cookie": f"a={canary.word('cookie')}", "authorization": f"Bearer {canary.word('secret')}"},
        }
    }  # fmt: skip

    async def scenario(here: Site) -> None:
        leaks: list[str] = []
        async with here.visitor() as operator:
            address = await paste(operator, json.dumps(capture))
            await operator.send(f"{address}/send", address)
            await operator.send(f"{BASE}/watch", BASE, source="api")
            await here.hit([told, {**told, "event_id": "order-2"}], Cookie=f"b={canary.word('live cookie')}")
            state = (await operator.client.get(f"{BASE}/state")).json()
            for path in (BASE, address, f"{BASE}/{state['api']}", f"{BASE}/state"):
                text = await operator.page(path)
                leaks += canary.find(path, text.encode())
                assert "216.3.128.1" not in text, path
        leaks += in_files()
        assert here.sandbox.tests.events(), "the test was sent"
        assert not leaks, leaks

    def in_files() -> list[str]:
        found: list[str] = []
        for file in tmp_path.iterdir():
            if file.is_file():
                found += canary.find(file.name, file.read_bytes())
        return found

    run(scenario)
