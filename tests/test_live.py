"""Live events: the page, one event, and the stream; bounded, masked, for viewers too, and ending when it should."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import config as configuration
from gateway import livestream
from gateway.event import Client, SealedEvent
from gateway.hit import Secret
from gateway.livestream import MOST_ROWS, MOST_STREAMS, Choice, row
from gateway.logs import HitLog
from gateway.operator import operator_app
from gateway.operator.pages.stages import lines_of
from gateway.operator.veil import veiled
from gateway.outcome import Outcome, Settled
from gateway.runtime import Gateway
from gateway.sandbox import PinterestSandbox
from gateway.server import Listener, tcp_socket
from gateway.testing.app import complete
from gateway.testing.asgi import AppClient
from gateway.testing.doubles import NOW, Clock
from tests.harness.canary import Canary
from tests.harness.operator_site import Visitor
from tests.harness.streams import Reader, reading

CONFIG: dict[str, Any] = {
    "sites": {"shop": {}},
    "sources": {
        "api": {"adapter": "browser_tag", "site": "shop", "secrets": ["a-secret-of-the-api"]},
        "tag": {"adapter": "browser_tag", "site": "shop", "allowed_origins": ["https://shop.example"]},
    },
}
BEARER = {"Authorization": "Bearer op-password"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"


class Site:
    """A gateway and its operator's app."""

    def __init__(self, gateway: Gateway, clock: Clock) -> None:
        self.gateway = gateway
        self.clock = clock
        self.app = operator_app(gateway, Secret(value="op-password"), Secret(value="view-password"))
        self.sandbox: PinterestSandbox | None = None

    async def hit(self, *events: dict[str, Any], source: str = "api", **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.gateway.ingress)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            given = {"Authorization": "Bearer a-secret-of-the-api"} if source == "api" else {}
            return await client.post(f"/in/{source}", json=list(events), headers={**given, **headers})

    def visitor(self) -> Visitor:
        return Visitor(self.app)

    async def stream(self, visitor: Visitor) -> dict[str, str]:
        """Return the headers of a stream of a visitor's session."""
        return {"cookie": "; ".join(f"{name}={value}" for name, value in visitor.client.cookies.items())}


def event(event_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_name": "checkout", "event_id": event_id, "event_time": int(NOW) - 5, "value": "12.50", "currency": "EUR",
        "user": {"email": "ada@example.com"}, **changes,
    }  # fmt: skip


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    clock = Clock()
    sandbox = PinterestSandbox(clock=clock)
    parsed = configuration.parse(complete(CONFIG), folder / "gateway.toml")
    gateway = Gateway(parsed, http=AppClient(sandbox.app), clock=clock, hit_log=HitLog(enabled=False))
    found = Site(gateway, clock)
    found.sandbox = sandbox
    try:
        yield found
    finally:
        await gateway.stop()
        sandbox.record.close()


Scenario = Callable[[Site], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    """Return a runner of one scenario; streams speak at once."""
    monkeypatch.setattr(livestream, "TICK_S", 0.0)

    def start(scenario: Scenario) -> None:
        async def main() -> None:
            async with site(tmp_path) as found:
                await scenario(found)

        asyncio.run(main())

    return start


def settle(gateway: Gateway, serial: int, end: Any = "delivered", **more: Any) -> None:
    """End the unit of an entry, as a lane would tell it."""
    entry = gateway.recent.get(serial)
    assert entry is not None
    assert entry.unit is not None
    gateway.recent.settled(
        Settled(
            unit=entry.unit, destination="pinterest", event_id=entry.event_id or "", event_name=entry.event_name,
            source=entry.source, end=end, **more,
        ),
        NOW,
    )  # fmt: skip


# -- the page


def test_the_page_shows_the_latest_events_newest_first(run: Callable[[Scenario], None]) -> None:
    """A viewer sees rows with time, fate, source, name and id, and links to each; no script is needed."""

    async def scenario(here: Site) -> None:
        await here.hit(event("first"), event("second", event_name="add_to_cart"))
        async with here.visitor() as viewer:
            await viewer.login("view-password")
            text = await viewer.page("/live")
        assert text.index(">second<") < text.index(">first<")
        assert 'href="/live/1"' in text
        assert "00:00:00" in text  # the frozen clock's time of day

    run(scenario)


def test_the_filter_is_part_of_the_address(run: Callable[[Scenario], None]) -> None:
    """Source, event name and fate choose rows, by reload; the stream's address carries them."""

    async def scenario(here: Site) -> None:
        await here.hit(event("server-1"), event("server-2", event_name="lead"))
        await here.hit(event("page-1"), source="tag", Origin="https://shop.example")
        async with here.visitor() as viewer:
            await viewer.login("view-password")
            by_source = await viewer.page("/live?source=tag")
            by_name = await viewer.page("/live?name=lead")
            by_fate = await viewer.page("/live?fate=dead")
        assert ">page-1<" in by_source
        assert ">server-1<" not in by_source
        assert "source=tag&amp;name=&amp;fate=&amp;after=3" in by_source
        assert (">server-2<" in by_name, ">server-1<" in by_name) == (True, False)
        assert ">server-1<" not in by_fate
        assert "Nothing that fits the filter." in by_fate

    run(scenario)


def test_hostile_texts_are_shown_as_text(run: Callable[[Scenario], None]) -> None:
    """Markup in an event id, a name or a filter reaches page, event page and data of the stream as text only."""

    async def scenario(here: Site) -> None:
        await here.hit(event(HOSTILE, order_id=HOSTILE, content_name=HOSTILE, search_string=HOSTILE))
        async with here.visitor() as viewer:
            await viewer.login("view-password")
            pages = [await viewer.page("/live"), await viewer.page("/live/1")]
            pages.append(await viewer.page(f"/live?source={httpx.QueryParams({'a': HOSTILE})['a']}"))
            async with reading(here.app, "/live/stream?after=0", await here.stream(viewer)) as stream:
                (found,) = await stream.count(1)
        for page in pages:
            assert "<script>alert" not in page
            assert "<img src=x" not in page
        assert "&lt;script&gt;alert(1)" in pages[0]
        assert found["event_id"].startswith("<script>")
        assert stream.headers["content-type"].startswith("text/event-stream")  # which no browser renders

    run(scenario)


def test_who_is_not_logged_in_sees_nothing(run: Callable[[Scenario], None]) -> None:
    """Without a session page, event and stream are refused."""

    async def scenario(here: Site) -> None:
        await here.hit(event("secret-1"))
        async with here.visitor() as stranger:
            for path in ("/live", "/live/1", "/live/stream", "/test-events"):
                answer = await stranger.client.get(path)
                assert answer.status_code in (303, 401), path
                assert "secret-1" not in answer.text
        async with reading(here.app, "/live/stream") as stream:
            assert stream.status == 401

    run(scenario)


@pytest.mark.parametrize("serial", ["0", "2", "9" * 30, "-1", "x", "%C2%B2", "1.0"])
def test_an_event_that_is_not_there(run: Callable[[Scenario], None], serial: str) -> None:
    """A serial that is unknown or none is a page that says so."""

    async def scenario(here: Site) -> None:
        await here.hit(event("first"))
        async with here.visitor() as viewer:
            await viewer.login("view-password")
            assert "no such event" in await viewer.page(f"/live/{serial}", 404)

    run(scenario)


# -- one event


def test_one_event_opened(run: Callable[[Scenario], None]) -> None:
    """Steps from received to answer, what was sent, and the vendor's warning; masked."""

    async def scenario(here: Site) -> None:
        await here.hit(
            event(
                "order-1", event_source_url="https://shop.example/thanks?epik=dj0yabcdefgh&who=x#top",
                click_id="dj0yabcdefgh", client={"ip": "216.3.128.12", "user_agent": "Mozilla/5.0 (X11)"},
            )
        )  # fmt: skip
        settle(here.gateway, 1, warning="A warning in the vendor's words")
        async with here.visitor() as viewer:
            await viewer.login("view-password")
            text = await viewer.page("/live/1")
        for step in ("Received", "Normalised", "Decided", "Sent", "Answer"):
            assert f"<h3>{step}</h3>" in text, step
        assert "A warning in the vendor" in text
        assert "216.3.128.0/24" in text
        assert "https://shop.example/thanks" in text
        for raw in ("ada@example.com", "216.3.128.12", "dj0yabcdefgh", "epik=", "who=x"):
            assert raw not in text, raw

    run(scenario)


def test_a_dead_event_leads_to_its_dead_letter(run: Callable[[Scenario], None]) -> None:
    """The page of a dead event links to the letter, where it can be replayed."""

    async def scenario(here: Site) -> None:
        await here.hit(event("order-1"))
        settle(here.gateway, 1, "dead", reason="refused: value")
        entry = here.gateway.recent.get(1)
        assert entry is not None
        async with here.visitor() as viewer:
            await viewer.login("view-password")
            text = await viewer.page("/live/1")
            assert f'href="/deliveries/dead/{entry.unit}"' in text
            assert "refused: value" in text

    run(scenario)


def test_no_raw_identifier_on_any_page_or_stream(run: Callable[[Scenario], None]) -> None:
    """Made-up people are sent in with every field: no detail of theirs is on a page or in the stream."""
    canary = Canary()
    person = {
        "email": canary.mail("email"), "phone": canary.phone("phone"), "first_name": canary.word("first name"),
        "last_name": canary.word("last name"), "city": canary.word("city"), "external_id": canary.word("external id"),
        "postal_code": canary.word("postal code"),
    }  # fmt: skip

    async def scenario(here: Site) -> None:
        url = f"https://shop.example/a/{canary.mail('path')}?email={canary.mail('query')}"
        told = event("order-1", user=person, event_source_url=url, client={"ip": "216.3.128.12", "user_agent": "U"})
        await here.hit(told, event("order-2", user={**person, "country": "DE"}), event("order-1", user=person))
        await here.hit({"event_name": canary.mail("name"), "user": person})
        leaks: list[str] = []
        async with here.visitor() as viewer:
            await viewer.login("view-password")
            for path in ("/live", *(f"/live/{one}" for one in range(1, here.gateway.recent.last + 1))):
                text = await viewer.page(path)
                leaks += canary.find(path, text.encode())
                assert "216.3.128.12" not in text
            async with reading(here.app, "/live/stream?after=0", await here.stream(viewer)) as stream:
                await stream.count(here.gateway.recent.last)
                leaks += canary.find("stream", stream.text.encode())
        assert here.gateway.recent.last >= 4
        assert not leaks, leaks

    run(scenario)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("216.3.128.12", "216.3.128.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("https://a.example/b?c=d#e", "https://a.example/b"),
        ("a" * 64, "aaaaaa…"),
        ("1.2.3", "1.2.3"),
        ("12:30", "12:30"),
        ("nothing of that kind", "nothing of that kind"),
    ],
)
def test_what_is_masked(given: str, shown: str) -> None:
    """Addresses show their network, hashes six digits, URLs their path; other texts stay."""
    assert veiled({"field": [given]}) == {"field": [shown]}


def test_ids_of_a_browser_are_cut() -> None:
    """A click id and what else names one browser keeps six characters, wherever it stands."""
    found = veiled({"click_ids": {"epik": "dj0yabcdef"}, "user_data": {"click_id": "dj0yabcdef"}, "client_id": "c1"})
    assert found == {"click_ids": {"epik": "dj0yab…"}, "user_data": {"click_id": "dj0yab…"}, "client_id": "c1"}


def test_lines_are_bounded() -> None:
    """However deep and long a step's detail is, a page shows so many lines of so many characters."""
    lines = lines_of({f"field{number}": {"deep": ["x" * 1_000, "y"]} for number in range(500)})
    assert len(lines) == 81
    assert max(len(text) for _, text in lines) <= 301


# -- the stream


def test_events_arrive_live_and_again_when_they_end(run: Callable[[Scenario], None]) -> None:
    """A stream tells a new event at once, and the same serial again when it was delivered."""

    async def scenario(here: Site) -> None:
        await here.hit(event("before"))
        async with reading(here.app, "/api/events/stream", BEARER) as stream:
            await here.hit(event("after"))
            (arrived,) = await stream.count(1)
            settle(here.gateway, arrived["serial"])
            _, ended = await stream.count(2)
        assert (arrived["event_id"], arrived["shown"]) == ("after", "accepted")
        assert (ended["serial"], ended["shown"], ended["kind"]) == (arrived["serial"], "delivered", "good")

    run(scenario)


def test_a_reader_who_comes_back_misses_nothing(run: Callable[[Scenario], None]) -> None:
    """With Last-Event-ID the stream goes on behind it, and tells the ends that fell in between."""

    async def scenario(here: Site) -> None:
        async with reading(here.app, "/api/events/stream", BEARER) as stream:
            await here.hit(event("one"))
            await stream.count(1)
        settle(here.gateway, 1)
        await here.hit(event("two"))
        async with reading(here.app, "/api/events/stream", {**BEARER, "last-event-id": stream.last_id}) as again:
            found = await again.count(2)
        assert [(one["event_id"], one["shown"]) for one in found] == [("one", "delivered"), ("two", "accepted")]
        async with reading(here.app, "/api/events/stream", {**BEARER, "last-event-id": "999"}) as restarted:
            assert len(await restarted.count(2)) == 2  # a serial of before a restart means nothing now

    run(scenario)


def test_a_stream_is_filtered(run: Callable[[Scenario], None]) -> None:
    """Only rows that fit are told."""

    async def scenario(here: Site) -> None:
        async with reading(here.app, "/api/events/stream?name=lead", BEARER) as stream:
            await here.hit(event("no"), event("yes", event_name="lead"), event("no, either"))
            await here.hit(event("yes too", event_name="lead"))
            assert [one["event_id"] for one in await stream.count(2)] == ["yes", "yes too"]

    run(scenario)


def test_a_quiet_stream_gives_a_sign_of_life(run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without events a comment comes every so often, so that proxies and browsers keep the connection."""
    monkeypatch.setattr(livestream, "HEARTBEAT_S", 0.01)

    async def scenario(here: Site) -> None:
        async with reading(here.app, "/api/events/stream", BEARER) as stream:
            await stream.until(lambda: stream.text.count(": still here") >= 2, "two signs of life")
            assert stream.rows == []

    run(scenario)


def test_a_burst_is_cut_to_the_newest(run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand events at once the newest are told, and how many were not."""
    monkeypatch.setattr(livestream, "TICK_S", 0.05)

    async def scenario(here: Site) -> None:
        async with reading(here.app, "/api/events/stream", BEARER) as stream:
            for number in range(1_000):
                here.gateway.recent.add("api", Outcome(fate="dropped", event_name="lead", event_id=f"e{number}"))
            await stream.until(lambda: stream.rows and stream.rows[-1]["event_id"] == "e999", "the newest")
            told = {one["serial"] for one in stream.rows}
            skipped = sum(message["skipped"] for message in stream.messages)
        assert all(len(message["rows"]) <= MOST_ROWS for message in stream.messages)
        assert len(told) + skipped == 1_000
        assert 0 < len(told) < 1_000

    run(scenario)


def test_there_are_so_many_streams_and_no_more(run: Callable[[Scenario], None]) -> None:
    """The twenty-first reader is answered 503; a place is free again when one goes."""

    async def scenario(here: Site) -> None:
        opened = [reading(here.app, "/api/events/stream", BEARER) for _ in range(MOST_STREAMS)]
        readers: list[Reader] = [await one.__aenter__() for one in opened]
        assert {one.status for one in readers} == {200}
        async with reading(here.app, "/api/events/stream", BEARER) as refused:
            assert refused.status == 503
            assert refused.headers["retry-after"]
        await opened.pop().__aexit__(None, None, None)
        async with reading(here.app, "/api/events/stream", BEARER) as next_one:
            assert next_one.status == 200
        for one in opened:
            await one.__aexit__(None, None, None)
        assert len(here.gateway.live) == 0

    run(scenario)


def test_a_stream_ends_with_its_session(run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who logs out, or is logged out, reads no further event."""
    monkeypatch.setattr(livestream, "HEARTBEAT_S", 0.01)

    async def scenario(here: Site) -> None:
        async with here.visitor() as viewer:
            await viewer.login("view-password")
            headers = await here.stream(viewer)
            async with reading(here.app, "/live/stream", headers) as stream:
                await viewer.send("/logout", "/live")
                await here.hit(event("after the logout"))
                await stream.over()
                assert "after the logout" not in stream.text
            async with reading(here.app, "/live/stream", headers) as again:
                assert again.status == 401

    run(scenario)


@pytest.mark.parametrize("engine", ["hypercorn", "uvicorn"])
def test_a_stop_does_not_wait_for_streams(tmp_path: Path, engine: Any) -> None:
    """On a real listener with eight seconds to stop: the reader hears the end, and the listener is gone at once."""

    async def main() -> None:
        async with site(tmp_path) as here:
            sock = tcp_socket("127.0.0.1:0", "test")
            stop = asyncio.Event()
            url = f"http://127.0.0.1:{sock.getsockname()[1]}/api/events/stream"
            server = asyncio.create_task(Listener(here.app, sock, engine, 8.0).run(stop))
            async with (
                httpx.AsyncClient(trust_env=False) as client,
                client.stream("GET", url, headers=BEARER) as answer,
            ):
                lines = answer.aiter_lines()
                assert await anext(lines) == "retry: 3000"
                began = time.monotonic()
                stop.set()
                await here.gateway.stop_sending()
                rest = [line async for line in lines]
            assert all(line == "" or line.startswith(":") for line in rest)
            await asyncio.wait_for(server, 10.0)
            assert time.monotonic() - began < 5.0
            sock.detach() if engine == "hypercorn" else sock.close()  # the former closed it by its number

    asyncio.run(main())


# -- the API


def test_the_api_tells_the_same(run: Callable[[Scenario], None]) -> None:
    """``/api/events`` gives rows newest first, bounded; numbers that are none are refused."""

    async def scenario(here: Site) -> None:
        await here.hit(*(event(f"e{number}") for number in range(5)))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(here.app), base_url="http://operator", headers=BEARER
        ) as client:
            found = (await client.get("/api/events?limit=2")).json()
            later = (await client.get("/api/events?after=4")).json()
            assert [one["event_id"] for one in found["events"]] == ["e4", "e3"]
            assert (found["last"], len(later["events"])) == (5, 1)
            for bad in ("limit=0", "limit=201", "limit=x", "limit=%C2%B2", "after=-1", "after=" + "9" * 30, "a=1"):
                assert (await client.get(f"/api/events?{bad}")).status_code == 400, bad
            assert (await client.get("/api/events/stream?after=x")).status_code == 400

    run(scenario)


def test_a_row_holds_nothing_personal() -> None:
    """What a sealed event has beside names and ids is not part of a row, and texts are cut."""
    sealed = SealedEvent(
        event_id="x" * 500, event_name="lead", event_time=0, accepted_at=0.0, source="api", site="s", born="server",
        user={"em": ("a" * 64,)}, client=Client(ip="216.3.128.12", user_agent="Mozilla"),
    )  # fmt: skip
    from gateway.recent import Recent

    recent = Recent(clock=lambda: NOW)
    recent.add("api", Outcome(fate="accepted", event_id=sealed.event_id, event_name="li\nne", unit="1"), sealed)
    (entry,) = recent.since()
    found = row(entry)
    assert (len(found.event_id), found.event_name) == (121, "li·ne")
    assert "216.3" not in repr(found)
    assert "aaaa" not in repr(found)
    assert Choice(fate="accepted").takes(entry)
    assert not Choice(fate="dead").takes(entry)
