"""Overload: who is refused first, that every budget holds and is given back, and that nobody waits for a dead disk."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from gateway import Context, Enricher, Hit, hookimpl, ingress, overload
from gateway import Event as CanonicalEvent
from gateway.errors import Unavailable
from gateway.event import PAGE_EVENTS, STANDARD_NAMES, Invalid, Skipped
from gateway.hit import Secret, Source
from gateway.ingress import public_app
from gateway.memory import Memory
from gateway.operator.status import queue_metrics
from gateway.outbox import gathering
from gateway.outbox.sqlite import SqliteOutbox
from gateway.overload import Budget, Limits, Overloaded, Share, is_likely_page, is_page
from gateway.testing import Running, running

ORIGIN = "https://shop.example"
WEB = Source(name="web", adapter="browser_tag", site="shop", destinations=(), allowed_origins=(ORIGIN,))
API = Source(name="api", adapter="browser_tag", site="shop", destinations=(), secrets=(Secret(value="s3cret"),))
PAGE, ORDER = CanonicalEvent(name="page_visit"), CanonicalEvent(name="checkout")


# -- the budget by itself


class Clock:
    """Monotonic time that stands still until it is stepped."""

    def __init__(self) -> None:
        self.now = 5_000.0

    def __call__(self) -> float:
        return self.now


def budget(waiting: Callable[[], int] = lambda: 0, clock: Clock | None = None, **limits: int) -> Budget:
    """Return a budget of ten requests, 1,000 bytes and 100 events, unless said otherwise."""
    return Budget(Limits(**{"requests": 10, "body_bytes": 1_000, "waiting": 100, **limits}), waiting, clock or Clock())


def why(call: Callable[..., object], *arguments: object) -> str:
    """Return why a call is refused, "" when it is not."""
    try:
        call(*arguments)
    except Overloaded as error:
        return error.why
    return ""


def hit(source: Source, name: str) -> Hit:
    return Hit(source=source, body=json.dumps({"event_name": name}).encode())


def test_the_order_of_shedding() -> None:
    """Page events go first, then what looks like them, then all of public sources, then everything."""
    one = budget()
    refused: dict[str, int] = {}
    calls: dict[str, tuple[Any, ...]] = {
        "page": (one.judge, WEB, [PAGE]),
        "likely page": (one.screen, hit(WEB, "page_visit")),
        "order": (one.judge, WEB, [PAGE, ORDER]),
        "order's body": (one.screen, hit(WEB, "checkout")),
        "server's page": (one.judge, API, [PAGE]),
        "server's body": (one.screen, hit(API, "page_visit")),
    }
    for under_way in range(1, 11):
        one.enter(API)
        for name, (call, *arguments) in calls.items():
            if why(call, *arguments):
                refused.setdefault(name, under_way)
        if why(lambda: one.enter(WEB).leave()):
            refused.setdefault("at the door", under_way)
    assert why(one.enter, API) == "requests"
    assert refused == {"page": 6, "likely page": 8, "at the door": 9}
    assert one.requests == 10


@pytest.mark.parametrize(
    ("room", "refused"),
    [
        (1.0, []),
        (0.6, []),
        (0.4, ["page"]),
        (0.2, ["page", "likely page"]),
        (0.1, ["door", "page", "likely page"]),
        (0.0, []),  # the store refuses by itself, and says why
    ],
)
def test_page_events_end_before_the_disk_is_full(room: float, refused: list[str]) -> None:
    """The last room on the disk is left to conversions, and then to server sources, as every budget is."""
    clock = Clock()
    one = Budget(Limits(), lambda: 0, clock, room=lambda: room)
    one.enter(API).leave()
    found = [why(one.enter, WEB), why(one.judge, WEB, [PAGE]), why(one.screen, hit(WEB, "page_visit"))]
    names = ("door", "page", "likely page")
    assert [name for name, reason in zip(names, found, strict=True) if reason == "disk"] == refused
    assert why(one.judge, WEB, [ORDER]) == ""
    assert why(one.enter, API) == ""


def test_the_public_part_leaves_room_for_servers() -> None:
    """However many public requests come, a tenth is left to server sources."""
    one = budget()
    assert [why(one.enter, WEB) for _ in range(12)] == [""] * 9 + ["requests"] * 3
    assert [why(one.enter, API) for _ in range(2)] == ["", "requests"]


def test_bytes() -> None:
    """Bytes are counted as they arrive, public ones up to nine tenths, and are given back."""
    one = budget()
    public, server = one.enter(WEB), one.enter(API)
    public.grow(400)
    public.grow(500)
    assert why(public.grow, 1) == "bytes"
    assert why(one.judge, WEB, [PAGE]) == "bytes"
    assert why(one.enter, WEB) == "bytes"
    assert why(server.grow, 100) == ""
    assert why(server.grow, 1) == "bytes"
    assert why(one.enter, API) == "bytes"
    assert one.body_bytes == 1_000
    public.leave()
    assert (one.requests, one.body_bytes) == (1, 100)
    server.leave()
    assert (one.requests, one.body_bytes) == (0, 0)


def test_events_on_disk() -> None:
    """What waits on disk is a budget too; it is asked for twice a second, not for each hit."""
    waiting, asked, clock = 0, 0, Clock()

    def ask() -> int:
        nonlocal asked
        asked += 1
        return waiting

    one = budget(ask, clock)
    for count, page, public, server in ((50, "", "", ""), (51, "waiting", "", ""), (90, "waiting", "waiting", "")):
        waiting = count
        clock.now += 0.5
        for _ in range(3):
            one.enter(API).leave()
            assert why(one.judge, WEB, [PAGE]) == page
            assert why(lambda: one.enter(WEB).leave()) == public
            assert why(lambda: one.enter(API).leave()) == server
    assert asked == 3
    waiting = 100
    clock.now += 0.5
    assert why(one.enter, API) == "waiting"


def test_retry_after_differs() -> None:
    """Who is refused together is not told to come back together."""
    one = budget(requests=1)
    one.enter(API)
    seen = set()
    for _ in range(200):
        with pytest.raises(Overloaded) as found:
            one.enter(API)
        seen.add(found.value.retry_after_s)
    assert seen == set(range(1, overload.RETRY_S + 1))


def test_what_counts_as_a_page_event() -> None:
    """The source's own names count; one conversion makes the hit one; nothing at all is none."""
    renamed = CanonicalEvent(name="custom", source_name="look"), CanonicalEvent(name="page_visit", source_name="buy")
    names = {"look": "search", "buy": "checkout", "scroll": ""}
    for name in PAGE_EVENTS:
        assert is_page([CanonicalEvent(name=name)], {})
    assert is_page([PAGE, Skipped(reason="test"), CanonicalEvent(name="", source_name="x")], {})
    assert is_page([renamed[0], CanonicalEvent(name="lead", source_name="scroll")], names)
    for items in ([PAGE, ORDER], [renamed[1]], [CanonicalEvent(name="custom")], [], [Invalid(reason="r", message="m")]):
        assert not is_page(items, names)


def test_likely_pages_by_their_look() -> None:
    """No standard conversion is taken for a page event, nor one of a source's own name; page events mostly are."""
    for name in STANDARD_NAMES - PAGE_EVENTS - {"custom"}:
        body = json.dumps({"event_name": name, "event_source_url": "https://shop.example/view"}).encode()
        assert not is_likely_page(body, {}), name
    for name in (*PAGE_EVENTS, "page_viewed", "PageView", "view_item"):
        assert is_likely_page(json.dumps({"event": name}).encode(), {"kauf": "checkout"}), name
    assert not is_likely_page(b'{"event": "Kauf", "url": "/view"}', {"Kauf": "checkout"})
    assert is_likely_page(b'{"event": "kauf", "url": "/view"}', {"kauf": "search"})
    assert not is_likely_page(b'{"event": "hi"}', {})
    assert not is_likely_page(b"", {})
    assert not is_likely_page(b"view" * 20_000, {})


# -- the whole gateway


def config(**more: Any) -> dict[str, Any]:
    """Return a public and a server source of one site; ``more`` are tables."""
    return {
        "sites": {"shop": {"hold_s": 0}},
        "sources": {
            "web": {"adapter": "browser_tag", "site": "shop", "allowed_origins": [ORIGIN]},
            "api": {"adapter": "browser_tag", "site": "shop", "secrets": ["s3cret"]},
            "hook": {"adapter": "shopify", "site": "shop", "secrets": ["h"], "options": {"shop": "s.myshopify.com"}},
        },
        **more,
    }


HEADERS = {"web": {"Origin": ORIGIN, "User-Agent": "Mozilla/5.0"}, "api": {"Authorization": "Bearer s3cret"}}


def event(event_id: str, name: str = "checkout", **more: Any) -> dict[str, Any]:
    return {
        "event_name": name, "event_id": event_id, "event_time": int(time.time()) - 5,
        "user": {"email": f"{event_id}@example.com"}, **more,
    }  # fmt: skip


class Post:
    """A request whose body arrives when the test says so."""

    def __init__(self, gateway: Running, source: str, headers: dict[str, str] | None = None) -> None:
        self._app = public_app(gateway.gateway.ingress, gateway.gateway.ready)
        self._parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent: list[dict[str, Any]] = []
        raw = [(name.lower().encode(), value.encode()) for name, value in (headers or HEADERS[source]).items()]
        self._scope = {
            "type": "http", "method": "POST", "path": f"/in/{source}", "query_string": b"", "headers": raw,
            "client": ("198.51.100.7", 5000),
        }  # fmt: skip
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> tuple[int, dict[str, str], Any]:
        async def send(message: Any) -> None:
            self._sent.append(message)

        await self._app(cast("Any", self._scope), self._parts.get, send)
        start, body = self._sent
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], headers, json.loads(body["body"])

    def part(self, content: bytes, *, is_last: bool = False) -> "Post":
        """Let a part of the body arrive."""
        self._parts.put_nowait({"type": "http.request", "body": content, "more_body": not is_last})
        return self

    def whole(self, content: Any) -> "Post":
        """Let everything arrive."""
        return self.part(json.dumps(content).encode(), is_last=True)

    def disconnect(self) -> None:
        """Let the sender go away."""
        self._parts.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and decoded body."""
        return await asyncio.wait_for(self.task, 10)


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def gateway_of(folder: Path, tables: dict[str, Any], **arguments: Any) -> AsyncIterator[Running]:
    async with running(tables, folder, **arguments) as gateway:
        yield gateway


Scenario = Callable[[Running], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    """Return a runner of one scenario against a fresh gateway."""

    def start(scenario: Scenario, tables: dict[str, Any] | None = None, **arguments: Any) -> None:
        async def main() -> None:
            async with gateway_of(tmp_path, tables or config(), **arguments) as gateway:
                await scenario(gateway)
                assert (gateway.gateway.budget.requests, gateway.gateway.budget.body_bytes) == (0, 0)

        asyncio.run(main())

    return start


async def page_then_order(gateway: Running) -> None:
    """With more than half of the requests taken a page event must go, and a conversion must not."""
    held = [Post(gateway, "api").part(b"[") for _ in range(6)]
    await settle()
    status, headers, answer = await Post(gateway, "web").whole(event("p1", "page_visit")).answer()
    assert (status, answer.get("error", {}).get("code")) == (503, "overloaded")
    assert 1 <= int(headers["retry-after"]) <= overload.RETRY_S
    assert headers["access-control-allow-origin"] == ORIGIN
    assert (await Post(gateway, "web").whole(event("o1")).answer())[0] == 200
    assert (await Post(gateway, "api").whole(event("p2", "page_visit")).answer())[0] == 200
    for post in held:
        post.part(b"]", is_last=True)
        assert (await post.answer())[0] == 400
    assert (await Post(gateway, "web").whole(event("p3", "page_visit")).answer())[0] == 200
    assert gateway.gateway.tally.shed == {("web", "requests"): 1}


SMALL = {"server": {"max_requests": 10}}


def test_page_events_first(run: Callable[..., None]) -> None:
    """At 60 % a public page event is answered 503, conversions and server sources are taken; after it all are again."""
    run(page_then_order, config(**SMALL))


def test_shedding_by_arrival_is_found(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the test above fails on a budget that does not look at what it refuses."""
    monkeypatch.setattr(Budget, "judge", lambda *_: None)
    with pytest.raises(AssertionError):
        run(page_then_order, config(**SMALL))


def test_likely_pages_are_not_decoded(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 75 % a body that looks like a page event costs no decoding; beyond 90 % public hits end at the door."""
    read: list[bytes] = []

    async def scenario(gateway: Running) -> None:
        adapter = gateway.gateway.parts.routes["web"].adapter
        plain = adapter.normalize

        def normalize(hit: Hit) -> Any:
            read.append(hit.body)
            return plain(hit)

        monkeypatch.setattr(adapter, "normalize", normalize)
        held = [Post(gateway, "api").part(b"[") for _ in range(8)]
        await settle()
        assert (await Post(gateway, "web").whole(event("p1", "page_visit")).answer())[0] == 503
        assert read == []
        assert (await Post(gateway, "web").whole(event("o1")).answer())[0] == 200
        assert len(read) == 1
        held.append(Post(gateway, "api").part(b"["))
        await settle()
        # no part of the body ever arrives: it is not waited for
        assert (await Post(gateway, "web").answer())[0] == 503
        assert (await Post(gateway, "api").whole(event("s1")).answer())[0] == 200
        held.append(Post(gateway, "api").part(b"["))
        await settle()
        assert (await Post(gateway, "api").answer())[0] == 503
        for post in held:
            post.disconnect()
            await post.answer()
        assert gateway.gateway.tally.shed == {("web", "requests"): 2, ("api", "requests"): 1}

    run(scenario, config(**SMALL))


def test_bodies_together(run: Callable[..., None]) -> None:
    """The bodies under way never take more than they may; what does not fit is 503, and room is given back."""
    megabyte = b" " * (1 << 20)

    async def scenario(gateway: Running) -> None:
        budget = gateway.gateway.budget
        held = [Post(gateway, "web").part(megabyte) for _ in range(10)]
        await settle()
        assert budget.body_bytes == 7 << 20  # nine tenths of eight
        refused = [await post.answer() for post in held[7:]]
        assert {(status, answer["error"]["code"]) for status, _, answer in refused} == {(503, "overloaded")}
        large = Post(gateway, "api").part(b" " * 900_000)
        await settle()
        assert (7 << 20) < budget.body_bytes <= 8 << 20
        large.part(b" " * 200_000)
        assert (await large.answer())[0] == 503
        for post in held[:7]:
            post.disconnect()
            await post.answer()
        assert (await Post(gateway, "web").whole(event("o1")).answer())[0] == 200
        assert gateway.gateway.tally.shed == {("web", "bytes"): 3, ("api", "bytes"): 1}

    run(scenario, config(server={"max_body_mb": 8}))


async def every_end(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """End requests in every way; each must give back what it had."""
    budget = gateway.gateway.budget

    async def ended(post: Post, *statuses: int) -> None:
        await settle()
        with suppress(asyncio.CancelledError):
            assert (await post.answer())[0] in statuses
        assert (budget.requests, budget.body_bytes) == (0, 0), statuses

    await ended(Post(gateway, "api").whole(event("e1")), 200)
    await ended(Post(gateway, "api").part(b" " * (5 << 20)).part(b" " * (5 << 20)), 413)
    await ended(Post(gateway, "api", {**HEADERS["api"], "Content-Length": "99999999"}), 413)
    await ended(Post(gateway, "api", {**HEADERS["api"], "Content-Encoding": "gzip"}), 415)
    await ended(Post(gateway, "api").whole({"no": "name"}), 400)
    await ended(Post(gateway, "api").part(b"{", is_last=True), 400)
    await ended(Post(gateway, "api", {"Authorization": "Bearer wrong"}).whole(event("e2")), 401)
    gone = Post(gateway, "api").part(b"{")
    gone.disconnect()
    await ended(gone, 400)
    cut = Post(gateway, "api").part(b"{")
    await settle()
    assert (budget.requests, budget.body_bytes) == (1, 1)
    cut.task.cancel()
    await ended(cut)

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def refuse(*_: object) -> None:
        raise Unavailable("store_failed", "No.")

    for broken in (fail, refuse):
        with monkeypatch.context() as patch:
            patch.setattr(gateway.gateway.outbox, "admit", broken)
            await ended(Post(gateway, "api").whole(event("e3")), 503)


def test_everything_is_given_back(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """However a request ends, the budget has its share again."""
    run(lambda gateway: every_end(gateway, monkeypatch))


def test_a_share_that_is_kept_is_found(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the test above fails on a budget to which nothing is given back."""
    monkeypatch.setattr(Share, "leave", lambda _: None)
    with pytest.raises(AssertionError):
        run(lambda gateway: every_end(gateway, monkeypatch))


def test_a_full_store(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting events count: page events go at half of max_waiting, everything at the whole; delivery opens it again."""
    monkeypatch.setattr(overload, "_ASK_EVERY_S", 0.0)

    async def scenario(gateway: Running) -> None:
        await gateway.gateway.sender.stop(1.0)
        said: dict[str, int] = {}
        for number in range(12):
            for source, name in (("web", "page_visit"), ("api", "checkout")):
                status, headers, _ = await Post(gateway, source).whole(event(f"{source}{number}", name)).answer()
                if status == 503:
                    said.setdefault(source, number)
                    assert 1 <= int(headers["retry-after"]) <= overload.DISK_RETRY_S
        assert said == {"web": 3, "api": 7}
        assert gateway.gateway._waiting() == 10

    run(scenario, config(store={"url": "sqlite:///gateway.db", "max_waiting": 10}))


def test_gauges(run: Callable[..., None]) -> None:
    """The metrics show what is under way."""

    async def scenario(gateway: Running) -> None:
        post = Post(gateway, "api").part(b"{123")
        await settle()
        text = queue_metrics(gateway.gateway, await gateway.gateway.outbox.counts()).decode()
        assert "gateway_requests 1.0" in text
        assert "gateway_body_bytes 4.0" in text
        post.disconnect()
        await post.answer()

    run(scenario)


# -- a disk that does not answer


class Block:
    """A job that holds up the writer's thread."""

    def __init__(self, gateway: Running) -> None:
        self._free = threading.Event()
        self._held = threading.Event()
        assert isinstance(gateway.gateway.outbox, SqliteOutbox)
        self._outbox = gateway.gateway.outbox

    def _hold(self) -> None:
        self._held.set()
        assert self._free.wait(20)

    async def before(self) -> None:
        """Block what comes after this on the thread."""

        def job() -> tuple[None, None]:
            self._hold()
            return None, None

        self._outbox._writer.hand_over(job, lambda *_: None)
        await asyncio.to_thread(self._held.wait, 20)

    def within(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Block the next commit of hits, after it has begun."""
        admit = self._outbox._admit

        def held(requests: Any) -> Any:
            self._hold()
            return admit(requests)

        monkeypatch.setattr(self._outbox, "_admit", held)

    def free(self) -> None:
        """Let the thread go on."""
        self._free.set()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the times: patience 0.4 s, a stall from 0.15 s."""
    monkeypatch.setattr(ingress, "PATIENCE_S", 0.4)
    monkeypatch.setattr(ingress, "PATIENCE_STEP_S", 0.05)
    monkeypatch.setattr(gathering, "STALLED_S", 0.15)


async def stalled(gateway: Running, again: Sequence[dict[str, Any]], *, ids: set[str]) -> None:
    """
    Stall the writer with hits waiting for it; repeat what was answered 503 afterwards.

    ``again`` are the events that are sent in the stall and after it.
    """
    block = Block(gateway)
    await block.before()
    started = time.monotonic()
    waiting = [Post(gateway, "api").whole(one) for one in again]
    await asyncio.sleep(0.25)
    late_at = time.monotonic()
    status, _, answer = await Post(gateway, "api").whole(event("late")).answer()
    assert (status, answer["error"]["code"]) == (503, "overloaded")
    assert time.monotonic() - late_at < 0.1  # at once: the others still wait
    assert not any(post.task.done() for post in waiting)
    for post in waiting:
        status, _, answer = await post.answer()
        assert (status, answer["error"]["code"]) == (503, "overloaded")
    assert time.monotonic() - started < 2.0
    block.free()
    freed = time.monotonic()
    while (await Post(gateway, "api").whole(event("after")).answer())[0] != 200:
        assert time.monotonic() - freed < 1.0
        await asyncio.sleep(0.01)
    for one in again:
        assert (await Post(gateway, "api").whole(one).answer())[0] == 200
    sent = await gateway.delivered(len(ids) + 1 if ids else len(again) + 1)
    counts = Counter(one["event_id"] for one in sent)
    assert set(counts.values()) == {1}
    assert "late" not in counts
    if ids:
        assert counts.keys() == ids | {"after"}
    else:
        assert len(counts) == len(again) + 1
    shed = gateway.gateway.tally.shed
    assert shed[("api", "time")] == len(again)
    assert shed[("api", "commit")] >= 1


@pytest.mark.usefixtures("short")
def test_a_stalled_writer(run: Callable[..., None]) -> None:
    """Hits are answered 503 in bounded time, later ones at once; nothing is lost or doubled when it goes on."""
    ids = {f"e{number}" for number in range(20)}
    run(lambda gateway: stalled(gateway, [event(one) for one in sorted(ids)], ids=ids))


KEYLESS = {"event_name": "lead", "user": {"email": "jo@example.com"}}


@pytest.mark.usefixtures("short")
def test_a_stalled_writer_and_events_without_keys(run: Callable[..., None]) -> None:
    """What the writer has not begun with is taken back: a repeat of an event without any key is no second one."""
    run(twice)


@pytest.mark.usefixtures("short")
def test_a_request_that_is_not_taken_back_is_found(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the test above fails when answered requests are written all the same."""
    monkeypatch.setattr(gathering.Batch, "take_back", lambda *_: 0)
    with pytest.raises(AssertionError):
        run(twice)


async def twice(gateway: Running) -> None:
    """Do the same, and wait for the copy that must not come."""
    await stalled(gateway, [KEYLESS], ids=set())
    await asyncio.sleep(0.3)
    assert len(gateway.sandbox.record.events()) == 2


@pytest.mark.usefixtures("short")
def test_a_stalled_commit(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is under way is not waited for either: 503 and "may have been"; the repeat is a copy of it."""

    async def scenario(gateway: Running) -> None:
        block = Block(gateway)
        block.within(monkeypatch)
        first = Post(gateway, "api").whole(event("e1"))
        await asyncio.sleep(0.05)
        second = Post(gateway, "web").whole(event("e2"))
        for post in (first, second):
            status, headers, answer = await post.answer()
            assert (status, answer["error"]["code"]) == (503, "overloaded")
            assert "may have been accepted" in answer["error"]["hint"]
            assert "retry-after" in headers
        block.free()
        await gateway.delivered(1)
        for one in ("e1", "e2"):
            assert (await Post(gateway, "api").whole(event(one)).answer())[0] == 200
        sent = await gateway.delivered(2)
        assert Counter(one["event_id"] for one in sent) == {"e1": 1, "e2": 1}

    run(scenario)


class Slow(Enricher):
    """An enricher that never returns while it is told to."""

    name: ClassVar[str] = "slow"
    order: ClassVar[int] = 15

    async def enrich(self, event: CanonicalEvent, hit: Hit) -> CanonicalEvent:
        if event.id == "slow":
            await asyncio.Event().wait()
        return event


class Slowness:
    @hookimpl
    def register_enrichers(self, context: Context) -> list[Enricher]:
        return [Slow()]


@pytest.mark.usefixtures("short")
def test_a_slow_enricher(run: Callable[..., None]) -> None:
    """A hit that waits for a plugin is answered in bounded time too, and hurts no other."""

    async def scenario(gateway: Running) -> None:
        slow = Post(gateway, "api").whole(event("slow"))
        assert (await Post(gateway, "api").whole(event("e1")).answer())[0] == 200
        status, _, answer = await slow.answer()
        assert (status, answer["error"]["code"]) == (503, "overloaded")
        assert [one["event_id"] for one in await gateway.delivered(1)] == ["e1"]

    run(scenario, plugins={"slow": Slowness()})


@pytest.mark.usefixtures("short")
def test_a_memory_that_does_not_answer(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Recalling counts towards the same time."""

    async def recall(*_: object) -> None:
        await asyncio.Event().wait()

    async def scenario(gateway: Running) -> None:
        monkeypatch.setattr(Memory, "recall", recall)
        started = time.monotonic()
        assert (await Post(gateway, "api").whole(event("e1")).answer())[0] == 503
        assert time.monotonic() - started < 2.0

    run(scenario)


@pytest.mark.usefixtures("short")
def test_a_cancelled_request_leaves_the_others_alone(run: Callable[..., None]) -> None:
    """A server that cancels one of several requests that share a commit takes back that one only."""

    async def scenario(gateway: Running) -> None:
        block = Block(gateway)
        await block.before()
        posts = [Post(gateway, "api").whole(event(f"e{number}")) for number in range(3)]
        await asyncio.sleep(0.05)
        posts[1].task.cancel()
        await settle()
        block.free()
        assert [(await posts[number].answer())[0] for number in (0, 2)] == [200, 200]
        assert sorted(one["event_id"] for one in await gateway.delivered(2)) == ["e0", "e2"]
        with pytest.raises(asyncio.CancelledError):
            await posts[1].answer()

    run(scenario)


async def redact(gateway: Running) -> int:
    """Send a signed request for erasure, always the same one; returns the status."""
    body = json.dumps({"shop_domain": "s.myshopify.com", "customer": {"id": 7, "email": "jo@example.com"}}).encode()
    headers = {
        "X-Shopify-Topic": "customers/redact", "X-Shopify-Shop-Domain": "s.myshopify.com",
        "X-Shopify-Triggered-At": "2026-11-20T10:00:00Z",
        "X-Shopify-Hmac-Sha256": base64.b64encode(hmac.new(b"h", body, hashlib.sha256).digest()).decode(),
    }  # fmt: skip
    status, _, _ = await Post(gateway, "hook", headers).part(body, is_last=True).answer()
    return status


@pytest.mark.usefixtures("short")
def test_a_long_erasure(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """An erasure that takes longer than a hit may is done all the same, once; the repeated request finds that."""
    begun: list[float] = []
    free = asyncio.Event()
    erase = Memory.erase

    async def slowly(self: Memory, subjects: Sequence[bytes], *, requested_at: float) -> Any:
        begun.append(requested_at)
        await free.wait()
        return await erase(self, subjects, requested_at=requested_at)

    async def scenario(gateway: Running) -> None:
        monkeypatch.setattr(Memory, "erase", slowly)
        assert await redact(gateway) == 503
        assert await redact(gateway) == 503
        free.set()
        assert await redact(gateway) == 200
        assert await redact(gateway) == 200
        assert len(begun) == 1

    run(scenario)
