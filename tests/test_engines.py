"""
What one client may do to a listener, on each engine and event loop, by raw connections.

Beside each kind of limit stands the same attack without it, which must succeed: else the test shows nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvloop
from hypercorn.asyncio import run as hypercorn_run
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol

from gateway import engines, ingress, uvicorn_engine
from gateway.connections import Connections, Limits, fitting
from gateway.deadline import Deadline
from gateway.edge import Edge
from gateway.errors import ConfigError, GatewayError, Rejected
from gateway.server import Engine, Listener, assert_guarded, tcp_socket
from tests.harness.raw import SLACK_S, Raw, code_of, served

LIMIT = 1 << 20
BIG = b"x" * (8 << 20)
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /in/api HTTP/1.1\r\nHost: a\r\n"


class Under(NamedTuple):
    """What serves, and how its loop is made."""

    engine: Engine
    parser: str
    loop: Callable[[], asyncio.AbstractEventLoop]

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        """Run a scenario on this kind of loop."""
        with asyncio.Runner(loop_factory=self.loop) as runner:
            runner.run(scenario)


USUAL = {
    "hypercorn": Under("hypercorn", "", uvloop.new_event_loop),
    "uvicorn": Under("uvicorn", "httptools", uvloop.new_event_loop),
}
#: And what serves where uvloop or httptools is not installed.
ALL = {
    **USUAL,
    "hypercorn-asyncio": Under("hypercorn", "", asyncio.new_event_loop),
    "uvicorn-h11-asyncio": Under("uvicorn", "h11", asyncio.new_event_loop),
}


@pytest.fixture(params=USUAL)
def under(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Under:
    """Each engine as it usually runs."""
    found = USUAL[request.param]
    monkeypatch.setattr(uvicorn_engine, "PARSER", found.parser)
    return found


@pytest.fixture(params=ALL)
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Under:
    """Each engine in each way."""
    found = ALL[request.param]
    monkeypatch.setattr(uvicorn_engine, "PARSER", found.parser)
    return found


class Shares:
    """Takes note of how much of a body is read."""

    def __init__(self) -> None:
        self.read = 0

    def grow(self, size: int) -> None:
        """More of it."""
        self.read += size


class App:
    """Reads bodies as the ingress does; other paths answer at length, commit slowly, wait for the end, never read."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.share = Shares()
        self.committed = 0
        self.committing = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        self.requests.append(f"{scope['method']} {path}")
        status, body = 200, b"ok\n"
        if path == "/big":
            body = BIG
        elif path == "/refuse":
            await asyncio.sleep(0.2)
            status = 429
        elif path == "/slow":
            self.committing.set()
            await asyncio.sleep(1.0)
            self.committed += 1
        elif path == "/deaf":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.committed += 1
        elif scope["method"] == "POST":
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            try:
                self.bodies.append(await ingress.read_body(receive, headers, LIMIT, self.share))  # type: ignore[arg-type]
            except Rejected as error:
                status, body = error.status, error.reason.encode()
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(
    under: Under, limits: Limits | None = None, graceful_s: float = 0.3
) -> AsyncIterator[tuple[int, App, Listener]]:
    """Serve the app behind the edge; gives port, app and listener."""
    app = App()
    async with served(Edge(app), under.engine, limits, graceful_s) as (port, listener):
        yield port, app, listener


async def until(reached: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(SLACK_S):
        while not reached():  # noqa: ASYNC110  # what is waited for is the engine's
            await asyncio.sleep(0.01)
    assert reached(), what


# -- how many


async def fill(under: Under, cap: int) -> tuple[int, dict[str, str], bytes]:
    """Return the answer to one connection too many, once those in use still work and an ended one has made room."""
    async with serving(under, Limits(connections=cap)) as (port, _, listener):
        clients = [await Raw.open(port, LIVEZ) for _ in range(cap)]
        assert [await client.status() for client in clients] == [200] * cap
        extra = await Raw.open(port, LIVEZ)
        answer = await extra.answer()
        assert answer is not None
        if answer[0] == 503:
            await extra.end()
        await clients[0].send(LIVEZ)
        assert await clients[0].status() == 200
        clients.pop().close()
        await until(lambda: len(listener.connections) < cap or answer[0] == 200, "there is room")
        again = await Raw.open(port, LIVEZ)
        assert await again.status() == 200
        for client in (*clients, again, extra):
            client.close()
    return answer


def test_one_connection_too_many_is_told_so(anywhere: Under) -> None:
    """The 21st gets 503 with Retry-After and is closed; the others are served; when one ends, there is room."""

    async def scenario() -> None:
        status, headers, body = await fill(anywhere, 20)
        assert (status, code_of(body)) == (503, "too_many_connections")
        assert int(headers["retry-after"]) >= 1
        assert headers["connection"] == "close"

    anywhere.run(scenario())


def test_without_a_cap_one_more_is_served(under: Under, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a cap that is not looked at."""
    admit = Connections.admit

    def unlimited(self: Connections, line: Any) -> bool:
        self.limits = Limits()
        return admit(self, line)

    async def scenario() -> None:
        monkeypatch.setattr(Connections, "admit", unlimited)
        assert (await fill(under, 5))[0] == 200

    under.run(scenario())


def test_a_flood_over_the_cap_is_bounded(under: Under) -> None:
    """Of a flood a few are told, the rest is cut, and the operator's listener serves meanwhile."""

    async def scenario() -> None:
        limits = Limits(connections=5, refusals=5)
        async with serving(under, limits) as (port, app, _), served(Edge(app), under.engine) as (other, _):
            held = [await Raw.open(port, LIVEZ) for _ in range(5)]
            assert [await client.status() for client in held] == [200] * 5
            flood = [await Raw.open(port) for _ in range(60)]
            operator = await Raw.open(other, LIVEZ)
            assert await operator.status() == 200
            statuses = [await client.status() for client in flood]
            assert set(statuses) <= {503, 0}
            assert statuses.count(503) > 0
            for client in (*held, *flood, operator):
                client.close()

    under.run(scenario())


# -- how long

QUICK = Limits(head_s=0.3, body_s=0.3, unread_s=0.4, idle_s=30.0, linger_s=0.2)


async def dribble(client: Raw, data: bytes, every_s: float = 0.05) -> None:
    """Send byte for byte until the other side has had enough."""
    for byte in data:
        if not await client.send(bytes([byte])):
            return
        await asyncio.sleep(every_s)


def test_a_slow_head_is_cut(anywhere: Under) -> None:
    """Nothing, a byte, or most of a head, also of a second request: cut at the deadline."""

    async def scenario() -> None:
        async with serving(anywhere, QUICK) as (port, _, listener):
            clients = [await Raw.open(port, first) for first in (b"", b"G", LIVEZ[:-4], LIVEZ + LIVEZ[:9])]
            for client in clients:
                await client.end()
            await until(lambda: len(listener.connections) == 0, "they are gone")
            for client in clients:
                client.close()

    anywhere.run(scenario())


def test_a_dribbled_head_is_cut(under: Under) -> None:
    """A byte now and then does not prolong the deadline, neither in the first request nor in the next."""

    async def scenario() -> None:
        async with serving(under, QUICK) as (port, _, _):
            for first in (b"", LIVEZ):
                client = await Raw.open(port, first)
                if first:
                    assert await client.status() == 200
                    await asyncio.sleep(0.5)  # idle for longer than a head may take
                sending = asyncio.create_task(dribble(client, LIVEZ[:-4] + b"\r\nX-A: " + b"a" * 500))
                await client.end()
                await sending
                client.close()

    under.run(scenario())


def test_an_idle_connection_stays(under: Under) -> None:
    """Between two requests a connection may rest for longer than a head may take."""

    async def scenario() -> None:
        async with serving(under, QUICK) as (port, _, _):
            client = await Raw.open(port, LIVEZ)
            assert await client.status() == 200
            await asyncio.sleep(0.7)
            await client.send(LIVEZ)
            assert await client.status() == 200
            client.close()

    under.run(scenario())


def test_an_idle_connection_ends_at_last(under: Under) -> None:
    """Between two requests there is a deadline too."""

    async def scenario() -> None:
        async with serving(under, Limits(head_s=0.4, idle_s=0.5)) as (port, _, _):
            client = await Raw.open(port, LIVEZ)
            assert await client.status() == 200
            await client.end()
            client.close()

    under.run(scenario())


def test_without_deadlines_a_slow_head_stays(under: Under, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: nobody looks at the times."""

    async def scenario() -> None:
        monkeypatch.setattr(Connections, "_look", lambda self, line, now: None)
        async with serving(under, QUICK) as (port, _, _):
            client = await Raw.open(port, LIVEZ[:-4])
            with pytest.raises(TimeoutError):
                await client.end(1.0)
            client.close()

    under.run(scenario())


def test_a_dribbled_body_is_cut(under: Under, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole body has one deadline, of the ingress: 408, and the connection ends; nothing of it was taken."""
    monkeypatch.setattr(ingress, "_deadline", Deadline(0.5, 0.1))

    async def scenario() -> None:
        async with serving(under, Limits(linger_s=0.2)) as (port, app, _):
            for length in (b"Content-Length: 900\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n384\r\n"):
                client = await Raw.open(port, POST + length)
                sending = asyncio.create_task(dribble(client, b"a" * 500))
                assert await client.status() == 408
                await client.end()
                await sending
                client.close()
            assert app.bodies == []

    under.run(scenario())


def test_a_body_that_never_comes_is_cut(under: Under) -> None:
    """Also where an app has no deadline of its own: it is told that the client is gone."""

    async def scenario() -> None:
        async with serving(under, QUICK) as (port, app, _):
            client = await Raw.open(port, b"POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n{")
            await client.end()
            await until(lambda: app.committed == 1, "the app knows")
            client.close()

    under.run(scenario())


def test_an_answer_that_is_not_read_is_cut(anywhere: Under) -> None:
    """A client that asks for much and takes nothing is let go, with what was kept for it."""

    async def scenario() -> None:
        async with serving(anywhere, QUICK) as (port, _, listener):
            clients = [await Raw.open(port) for _ in range(3)]
            for client in clients:
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: len(listener.connections) == 3, "all are there")
            await until(lambda: len(listener.connections) == 0, "all are cut")
            for client in clients:
                client.close()

    anywhere.run(scenario())


def test_work_under_way_is_never_cut_short(under: Under) -> None:
    """A commit that takes longer than every deadline, of a client that is gone, is made."""

    async def scenario() -> None:
        async with serving(under, QUICK, graceful_s=3.0) as (port, app, _):
            stays = await Raw.open(port, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            leaves = await Raw.open(port, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await app.committing.wait()
            await asyncio.sleep(0.1)
            leaves.close()
            assert await stays.status() == 200
            await until(lambda: app.committed == 2, "both are committed")
            stays.close()

    under.run(scenario())


def test_a_stop_is_bounded(anywhere: Under) -> None:
    """With idle, half-sent and unread connections the stop takes no longer than the graceful time and a little."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            port, _, _ = await stack.enter_async_context(serving(anywhere, graceful_s=0.5))
            clients = [
                await Raw.open(port, first) for first in (b"", LIVEZ, LIVEZ[:9], POST + b"Content-Length: 9\r\n\r\n{")
            ]
            assert await clients[1].status() == 200
            deaf = await Raw.open(port)
            deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await deaf.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.sleep(0.2)
            began = loop.time()
        assert loop.time() - began < 0.5 + 2.0
        for client in (*clients, deaf):
            client.close()

    anywhere.run(scenario())


def test_good_clients_are_served_beside_slow_ones(under: Under, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 slow clients of four kinds: every good request succeeds, and all slow ones are cut."""
    monkeypatch.setattr(ingress, "_deadline", Deadline(1.0, 0.2))
    limits = Limits(head_s=1.0, body_s=1.0, unread_s=1.0, linger_s=0.2, connections=400)
    kinds = (b"", LIVEZ[:12], POST + b"Content-Length: 900\r\n\r\n{", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")

    async def scenario() -> None:
        async with serving(under, limits) as (port, app, listener):
            slow = [await Raw.open(port) for _ in range(200)]
            for number, client in enumerate(slow):
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                # few of the long answers: each is kept in memory
                await client.send(kinds[3 if number < 4 else number % 3])
            good = await Raw.open(port)
            for number in range(200):
                await good.send(POST + b"Content-Length: 4\r\n\r\n%04d" % number)
                assert await good.status() == 200
            good.close()
            assert app.bodies[-1] == b"0199"
            await until(lambda: len(listener.connections) == 0, "all are cut")
            for client in slow:
                client.close()

    under.run(scenario())


# -- how much


def resident_mb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096 / (1 << 20)


def test_an_endless_body_is_refused_early(under: Under) -> None:
    """100 MB in chunks without a length: 413 once the limit is read, little more is read, and memory stays."""

    async def scenario() -> None:
        async with serving(under, graceful_s=2.0) as (port, app, listener):
            before = resident_mb()
            client = await Raw.open(port, POST + b"Transfer-Encoding: chunked\r\n\r\n")
            chunk = b"%x\r\n%b\r\n" % (65_536, b"a" * 65_536)
            answer = asyncio.create_task(client.status())
            sent = 0
            while sent < 100 << 20 and await client.send(chunk):
                sent += 65_536
            assert sent < 50 << 20
            assert await answer == 413
            await until(lambda: len(listener.connections) == 0, "nothing of it stays")
            assert app.share.read <= LIMIT
            assert resident_mb() - before < 40
            client.close()

    under.run(scenario())


async def refuse(under: Under, within_s: float) -> int:
    """Send a long body to who never reads it; returns the status. Raises TimeoutError when the connection stays."""
    async with served(Edge(App()), under.engine, Limits(linger_s=0.2)) as (port, listener):
        client = await Raw.open(port, b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n")
        answer = asyncio.create_task(client.status())
        sending = asyncio.create_task(client.send(b"a" * (8 << 20)))
        status = await answer
        client.writer.write_eof()
        try:
            async with asyncio.timeout(within_s):
                while len(listener.connections):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            client.close()
            await sending
    return status


def test_a_refused_body_leaves_nothing(anywhere: Under) -> None:
    """Who is answered before the body was read gets the answer, and the connection ends."""

    async def scenario() -> None:
        assert await refuse(anywhere, SLACK_S) == 429

    anywhere.run(scenario())


def test_without_our_end_a_refused_body_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: Hypercorn's own end of a request waits for room in a queue that nobody reads."""

    async def scenario() -> None:
        monkeypatch.setattr(engines.GuardedH11, "_close_stream", H11Protocol._close_stream)
        with pytest.raises(TimeoutError):
            await refuse(USUAL["hypercorn"], 1.0)

    USUAL["hypercorn"].run(scenario())


def test_heads_have_limits(anywhere: Under) -> None:
    """A cookie of 8 KB is fine; a flood of headers, one header without end, and a long target are refused."""

    async def scenario() -> None:
        async with serving(anywhere) as (port, app, _):
            for head, statuses in (
                (b"GET /a HTTP/1.1\r\nHost: a\r\nCookie: " + b"c" * 8_192 + b"\r\n\r\n", {200}),
                (b"GET /b HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 101 + b"\r\n", {431}),
                (b"GET /c HTTP/1.1\r\nHost: a\r\nX-A: " + b"b" * 40_000 + b"\r\n\r\n", {431}),
                (b"GET /d HTTP/1.1\r\nHost: a\r\nX-A: " + b"b" * 2_000_000, {431}),
                (b"GET /e HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 200_000, {431}),
                (b"GET /f?" + b"q" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {414}),
                # where the target alone is more than the parser keeps, it does not know that it is the target
                (b"GET /g?" + b"q" * 2_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {414, 431}),
            ):
                client = await Raw.open(port)
                sending = asyncio.create_task(client.send(head))
                assert await client.status() in statuses, head[:8]
                client.close()
                await sending
            assert app.requests == ["GET /a"]

    anywhere.run(scenario())


# -- what it means

NEXT = b"GET /in/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
#: Name, request, and the statuses that may be the only answer.
DOUBTFUL = [
    ("CL.TE", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("TE.CL", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("CL.CL", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("CL list", POST + b"Content-Length: 5, 6\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("CL sign", POST + b"Content-Length: +5\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("CL hex", POST + b"Content-Length: 0x5\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("CL huge", POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n0\r\n\r\n" + NEXT, {400, 413}),
    ("TE.TE", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("TE list", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("TE unknown", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("TE tab", POST + b"Transfer-Encoding:\tchunked\x0b\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("TE in 1.0", b"POST /in/api HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("space before colon", POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + NEXT, {400}),
    ("space before name", POST[:-2] + b"\r\n Transfer-Encoding: chunked\r\nContent-Length : 5\r\n\r\n" + NEXT, {400}),
    ("no colon", POST + b"Transfer-Encoding\r\n\r\n" + NEXT, {400}),
    ("NUL", POST + b"X-A: a\x00b\r\n\r\n" + NEXT, {400}),
    ("bare CR", POST + b"X-A: a\rContent-Length: 5\r\n\r\n" + NEXT, {400}),
    ("chunk size", POST + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n" + NEXT, {400}),
    ("chunk end", POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n" + NEXT, {400}),
    ("two hosts", b"POST /in/api HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n", {400}),
    ("no host", b"GET /in/api HTTP/1.1\r\n\r\n", {400}),
    ("bad host", b"GET /in/api HTTP/1.1\r\nHost: a b\r\n\r\n", {400}),
    ("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 600, {400}),
    ("HTTP/0.9", b"GET /in/api\r\n\r\n", {400}),
    ("HTTP/3.7", b"GET /in/api HTTP/3.7\r\nHost: a\r\n\r\n", {400}),
    ("non-ASCII target", "GET /in/ä HTTP/1.1\r\nHost: a\r\n\r\n".encode(), {400, 200}),
]


def test_a_doubtful_request_is_one_at_most(anywhere: Under) -> None:
    """It is refused; what stands behind it is no request, for the connection ends; no event came of it."""

    async def scenario() -> None:
        async with serving(anywhere) as (port, app, _):
            for name, request, statuses in DOUBTFUL:
                client = await Raw.open(port, request)
                client.writer.write_eof()
                found = await client.answers()
                assert len(found) == 1, name
                assert found[0] in statuses, name
                assert "GET /in/smuggled" not in app.requests, name
                assert app.bodies == [], name
                client.close()

    anywhere.run(scenario())


def test_odd_line_ends_and_folds_are_one_request(anywhere: Under) -> None:
    """Lines that end in LF, and a folded header, are refused or read as one request, never as two."""

    async def scenario() -> None:
        async with serving(anywhere) as (port, app, _):
            for request in (
                b"POST /in/api HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello",
                POST + b"X-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
                POST + b"X-A: b\r\n Content-Length: 50\r\nContent-Length: 5\r\n\r\nhello",
            ):
                app.bodies.clear()
                client = await Raw.open(port, request)
                client.writer.write_eof()
                found = await client.answers()
                assert len(found) == 1
                assert found[0] in (200, 400)
                assert app.bodies == ([b"hello"] if found == [200] else [])
                client.close()

    anywhere.run(scenario())


def test_lying_lengths(under: Under, monkeypatch: pytest.MonkeyPatch) -> None:
    """A length too long is cut at the deadline, one too short leaves rubbish that is no event; an end is an end."""
    monkeypatch.setattr(ingress, "_deadline", Deadline(0.5, 0.1))

    async def scenario() -> None:
        async with serving(under, Limits(linger_s=0.2)) as (port, app, _):
            long = await Raw.open(port, POST + b"Content-Length: 50\r\n\r\nhello")
            assert await long.answers() == [408]
            short = await Raw.open(port, POST + b'Content-Length: 5\r\n\r\nhello{"event_name": "checkout"}\r\n\r\n')
            assert (await short.answers())[:1] == [200]
            ended = await Raw.open(port, POST + b"Content-Length: 50\r\n\r\nhello")
            ended.writer.write_eof()
            assert await ended.answers() in ([400], [])
            assert app.bodies == [b"hello"]
            for client in (long, short, ended):
                client.close()

    under.run(scenario())


def test_pipelined_requests_are_answered_in_order(under: Under) -> None:
    """Several requests in one go, and the next while the first is under way."""

    async def scenario() -> None:
        async with serving(under) as (port, app, _):
            client = await Raw.open(port, b"".join(POST + b"Content-Length: 1\r\n\r\n%d" % n for n in range(5)))
            assert [await client.status() for _ in range(5)] == [200] * 5
            assert app.bodies == [b"0", b"1", b"2", b"3", b"4"]
            flood = await Raw.open(port, LIVEZ * 300)
            flood.writer.write_eof()
            assert set(await flood.answers()) == {200}
            for each in (client, flood):
                each.close()

    under.run(scenario())


def test_expectations_are_met(under: Under) -> None:
    """Who waits for ``100 Continue`` gets it, and then the answer."""

    async def scenario() -> None:
        async with serving(under) as (port, app, _):
            client = await Raw.open(port, POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            assert await client.status() == 100
            await client.send(b"hello")
            assert await client.status() == 200
            assert app.bodies == [b"hello"]
            client.close()

    under.run(scenario())


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: An empty SETTINGS frame; a HEADERS frame of a request and its RST_STREAM.
FRAMES = b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\1\5\0\0\0\1\x82" + b"\0\0\4\3\0\0\0\0\1\0\0\0\x08"


def test_there_is_no_http_2(anywhere: Under) -> None:
    """An upgrade gets a plain answer, the preface ends the connection, and a flood of resets meets nobody."""

    async def scenario() -> None:
        async with serving(anywhere) as (port, app, listener):
            client = await Raw.open(port, b"GET /livez HTTP/1.1\r\nHost: a\r\n" + UPGRADE)
            assert await client.status() == 200
            assert app.requests == ["GET /livez"]
            for first in (PREFACE, b"GET /livez HTTP/1.1\r\nHost: a\r\n" + UPGRADE + PREFACE):
                other = await Raw.open(port)
                await other.send(first + FRAMES * 2_000)
                assert set(await other.answers()) <= {400, 200}
                other.close()
            client.close()
            await until(lambda: len(listener.connections) == 0, "nothing stays")
            assert set(app.requests) == {"GET /livez"}

    anywhere.run(scenario())


def test_other_methods_are_refused(under: Under) -> None:
    """405 by the edge; a parser that knows no such method says 400 before. Never the app."""
    allowed = {(405, "method_not_allowed")} | ({(400, "malformed_request")} if under.engine == "uvicorn" else set())

    async def scenario() -> None:
        async with serving(under) as (port, app, _):
            for method in (b"TRACE", b"CONNECT", b"BREW", b"PROPFIND", b"get"):
                for target in (b"/in/api", b"/livez", b"/"):
                    client = await Raw.open(port, method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                    answer = await client.answer()
                    assert answer is not None
                    assert (answer[0], code_of(answer[2])) in allowed
                    client.close()
            assert app.requests == []

    under.run(scenario())


def test_websockets_are_not_spoken(under: Under) -> None:
    """A proper handshake is refused."""

    async def scenario() -> None:
        async with serving(under) as (port, app, _):
            handshake = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            head = b"GET /in/api HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            client = await Raw.open(port, head + handshake)
            answer = await client.answer()
            assert answer is not None
            assert (answer[0], code_of(answer[2])) == (400, "no_websocket")
            await client.end()
            assert app.requests == []
            client.close()

    under.run(scenario())


def test_attacks_leave_no_traces_in_the_log(under: Under, caplog: pytest.LogCaptureFixture) -> None:
    """Clients that break off, talk rubbish or never read cause no traceback: a log is not theirs to fill."""
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with serving(under, QUICK) as (port, _, listener):
            clients = []
            for first in (*[case[1] for case in DOUBTFUL], LIVEZ[:9], POST + b"Content-Length: 9\r\n\r\n{", PREFACE):
                for ends in (True, False):
                    clients.append(await Raw.open(port, first))
                    await asyncio.sleep(0.01)
                    if ends:
                        clients[-1].close()
                    else:
                        clients[-1].writer.write_eof()
            await until(lambda: len(listener.connections) == 0, "all are gone")
            for client in clients:
                client.close()

    under.run(scenario())
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


# -- the hooks


def admit_always(_self: Connections, line: Any) -> bool:
    """Plant: any connection is taken."""
    line.phase = "idle"
    return True


def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: Hypercorn serves by its own class again."""
    monkeypatch.setattr(hypercorn_run, "TCPServer", TCPServer)


def test_hypercorn_alone_speaks_http_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: without our classes the same upgrade succeeds, and one connection too many is served."""

    async def scenario() -> None:
        unguarded(monkeypatch)
        sock, stop = tcp_socket("127.0.0.1:0", "test"), asyncio.Event()
        config = Config()
        config.bind = [f"fd://{sock.fileno()}"]
        server = asyncio.create_task(hypercorn_serve(App(), config, shutdown_trigger=stop.wait))
        client = await Raw.open(sock.getsockname()[1], b"GET /livez HTTP/1.1\r\nHost: a\r\n" + UPGRADE)
        assert await client.status() == 101
        client.close()
        stop.set()
        await server
        sock.detach()

    asyncio.run(scenario())


def test_a_hypercorn_without_our_hooks_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hook that no longer bites is found at start, with what to do."""
    asyncio.run(assert_guarded("hypercorn"))
    with monkeypatch.context() as patch:
        unguarded(patch)
        with pytest.raises(ConfigError, match=r"Hypercorn cannot be guarded: its serve\(\) .* requirements.lock"):
            asyncio.run(assert_guarded("hypercorn"))
    with monkeypatch.context() as patch:
        patch.setattr(Connections, "admit", admit_always)
        with pytest.raises(ConfigError, match="connections over the limit"):
            asyncio.run(assert_guarded("hypercorn"))
    with monkeypatch.context() as patch:
        patch.setattr(engines, "GuardedH11", H11Protocol)
        with pytest.raises(ConfigError, match="upgrades to HTTP/2"):
            asyncio.run(assert_guarded("hypercorn"))


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith("uvicorn")])
def test_an_uvicorn_without_our_hooks_does_not_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise, for both of its parsers."""
    anywhere = ALL[name]
    monkeypatch.setattr(uvicorn_engine, "PARSER", anywhere.parser)
    anywhere.run(assert_guarded("uvicorn"))
    with monkeypatch.context() as patch:
        patch.setattr(uvicorn_engine.GuardedH11, "_should_upgrade", lambda self: False)
        if anywhere.parser == "h11":
            with pytest.raises(ConfigError, match="when it serves"):
                anywhere.run(assert_guarded("uvicorn"))
    with monkeypatch.context() as patch:
        patch.setattr(Connections, "admit", admit_always)
        with pytest.raises(ConfigError, match=r"uvicorn cannot be guarded: .* requirements.lock"):
            anywhere.run(assert_guarded("uvicorn"))


def test_the_process_may_open_files_for_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of open files is raised as far as it goes; then fewer connections are taken than are configured."""
    limits = [1_024, 4_096]

    def set_limit(_which: int, pair: tuple[int, int]) -> None:
        limits[:] = pair

    monkeypatch.setattr("resource.getrlimit", lambda _which: tuple(limits))
    monkeypatch.setattr("resource.setrlimit", set_limit)
    assert fitting(100) == 100
    assert limits == [1_024, 4_096]
    assert fitting(2_000) == 2_000
    assert limits == [2_256, 4_096]
    assert fitting(50_000) == 4_096 - 256


def test_errors_are_ours() -> None:
    """What the start-up says is an error that the command line shows in one line."""
    assert issubclass(ConfigError, GatewayError)
    assert "\n" not in str(engines._unguarded("x"))


def test_who_uses_hypercorn_without_limits_gets_its_own_connections() -> None:
    """The replaced name serves everybody in the process: only our configuration has limits to hold."""
    loop = asyncio.new_event_loop()
    try:
        made = [
            engines.connection(None, loop, config, None, {}, None, None)
            for config in (Config(), engines.GuardedConfig())
        ]
    finally:
        loop.close()
    assert [type(one) for one in made] == [TCPServer, engines.GuardedServer]
