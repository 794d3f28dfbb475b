"""
Hypercorn with limits that it does not have: no HTTP/2 and no WebSockets, so many connections, so much time.

Two of its classes are subclassed, and one name is replaced so that its ``serve()`` uses ours. This is bound to one
version (:mod:`gateway.floors`), and :func:`assert_guarded` looks at every start whether it still works.
See docs/decisions/0012-limits-inside-the-engines.md.
"""

import asyncio
import contextlib
import logging
import socket
from typing import Any

import h11
from hypercorn.asyncio import run as hypercorn_run
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from gateway import refusal
from gateway.connections import Connections, Limits, Phase, Transport
from gateway.errors import ConfigError

_log = logging.getLogger("gateway.engines")
#: A head may grow to this while it is read; what is too large in it is for :mod:`gateway.edge` to say.
HEAD_BYTES = 64 << 10
#: How long a refused connection may take to read why.
REFUSAL_S = 1.0
#: How much is taken, and thrown away, of a body that was refused.
LINGER_BYTES = 16 << 20


class GuardedConfig(Config):
    """Hypercorn's configuration, with the connections of its one listener."""

    h11_max_incomplete_size = HEAD_BYTES
    connections: Connections


class GuardedH11(H11Protocol):
    """HTTP/1.1 and nothing else: an upgrade is not answered, HTTP/2 is not spoken."""

    stream: HTTPStream | None
    #: Whether the last answer was complete before the body was.
    answered_early = False

    async def _create_stream(self, request: h11.Request) -> None:
        if request.http_version not in (b"1.1", b"1.0"):
            await self._send_error_response(400)
            await self.send(Closed())
            return
        self.stream = HTTPStream(
            self.app, self.config, self.context, self.task_group, self.ssl, self.client, self.server,
            self.stream_send, STREAM_ID,
        )  # fmt: skip
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii"),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1

    async def _check_protocol(self, event: h11.Request) -> None:
        """Where Hypercorn would change to HTTP/2."""

    async def _close_stream(self) -> None:
        stream = self.stream
        if stream is not None and stream.state is ASGIHTTPState.CLOSED:
            # answered before the body was there: whoever puts more of it into a full queue would wait for ever
            queue: asyncio.Queue[Any] = stream.app_put.__self__  # type: ignore[attr-defined]
            stream.closed = True
            self.stream = None
            self.answered_early = self.connection.their_state is h11.SEND_BODY
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait({"type": "http.disconnect"})
        else:
            await super()._close_stream()

    async def _send_error_response(self, status_code: int) -> None:
        problem = refusal.LARGE_HEADERS if status_code == 431 else refusal.MALFORMED
        await self._send_h11_event(h11.Response(status_code=problem.status, headers=problem.headers))
        await self._send_h11_event(h11.Data(data=problem.body))
        await self._send_h11_event(h11.EndOfMessage())


class GuardedServer(TCPServer):
    """One connection of Hypercorn, which is counted and has so much time."""

    config: GuardedConfig
    protocol: GuardedH11  # type: ignore[assignment]
    phase: Phase
    since: float
    heard: float
    unread_since: float | None
    _reads = False
    _lingers = False

    async def run(self) -> None:
        """Serve the connection until it ends."""
        connections = self.config.connections
        if not connections.admit(self):
            await self._refuse()
            return
        try:
            await self._serve()
        except OSError:
            pass
        except ExceptionGroup as group:
            # a client that broke off while it was answered; the app's own errors are caught before
            if group.split(OSError)[1] is not None:
                _log.warning("connection_failed", extra={"errors": [type(one).__name__ for one in group.exceptions]})
        finally:
            try:
                await self._close()
            finally:
                connections.release(self)

    async def _serve(self) -> None:
        sock = self.writer.get_extra_info("socket")
        client = parse_socket_addr(sock.family, sock.getpeername())
        server = parse_socket_addr(sock.family, sock.getsockname())
        self._ended = asyncio.Event()
        async with TaskGroup(self.loop) as task_group:
            self._task_group = task_group
            self.protocol = GuardedH11(
                self.app, self.config, self.context, task_group, ConnectionState(self.state), False,
                client, server, self.protocol_send,
            )  # fmt: skip
            await self._read_data()

    async def _read_data(self) -> None:
        reader, protocol, loop, thrown = self.reader, self.protocol, self.loop, 0
        while True:
            self._reads = True
            try:
                data = await reader.read(MAX_RECV)
            except OSError:
                break
            self._reads = False
            if not data:
                break
            if self._lingers:
                thrown += len(data)
                if thrown > LINGER_BYTES:
                    break
                continue
            self.heard = loop.time()
            if self.phase == "idle":
                self.phase, self.since = "head", self.heard
            await protocol.handle(RawData(data))
        self._ended.set()
        await protocol.handle(Closed())

    async def protocol_send(self, event: Event) -> None:
        """Send what the protocol says, and follow where it is."""
        if not isinstance(event, Updated):
            await super().protocol_send(event)
        elif not event.idle:
            self.phase = "busy"
        else:
            # the next request may have begun to arrive during this one
            self.phase = "head" if self.protocol.connection.trailing_data[0] else "idle"
            self.since = self.loop.time()
            if self.config.connections.stopping:
                self.writer.close()

    def wire(self) -> Transport:
        """Return the transport."""
        return self.writer.transport

    def awaits_body(self) -> bool:
        """Whether it waits for more of a body."""
        return self._reads and self.protocol.connection.their_state is h11.SEND_BODY

    async def _close(self) -> None:
        protocol = getattr(self, "protocol", None)
        if protocol is not None and not self._lingers and protocol.answered_early and not self._ended.is_set():
            self._lingers = True
            with contextlib.suppress(OSError, RuntimeError, TimeoutError):
                self.writer.write_eof()
                async with asyncio.timeout(self.config.connections.limits.linger_s):
                    await self._ended.wait()
        await super()._close()

    async def _refuse(self) -> None:
        """Say that there are too many, and wait a little for the client to read it."""
        connections = self.config.connections
        if not connections.may_refuse():
            self.writer.transport.abort()
            return
        try:
            with contextlib.suppress(OSError, TimeoutError):
                self.writer.write(refusal.FULL.raw)
                self.writer.write_eof()
                async with asyncio.timeout(REFUSAL_S):
                    while await self.reader.read(MAX_RECV):
                        pass
            self.writer.transport.abort()
        finally:
            connections.refused()


def connection(app: Any, loop: Any, config: Config, *rest: Any) -> TCPServer:
    """Return what serves one connection: ours where it has limits, for others in this process may use Hypercorn too."""
    return (GuardedServer if isinstance(config, GuardedConfig) else TCPServer)(app, loop, config, *rest)


hypercorn_run.TCPServer = connection  # type: ignore[attr-defined, assignment]


async def assert_guarded() -> None:
    """
    Look whether Hypercorn still serves by our classes: no upgrade to HTTP/2, no connection over the limit.

    Raises:
        ConfigError: It does not.
    """
    serve = hypercorn_run.worker_serve
    nested = [code.co_names for code in serve.__code__.co_consts if hasattr(code, "co_names")]
    if serve.__globals__["TCPServer"] is not connection or not any("TCPServer" in names for names in nested):
        raise _unguarded("its serve() does not use our connections")
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n"
    if not (await _answer(upgrade, Limits())).startswith(b"HTTP/1.1 204 "):
        raise _unguarded("it upgrades to HTTP/2")
    if not (await _answer(upgrade, Limits(connections=0))).startswith(b"HTTP/1.1 503 "):
        raise _unguarded("it takes connections over the limit")


async def _answer(request: bytes, limits: Limits) -> bytes:
    """Return what a connection answers to a request, after which the client is done."""

    async def nothing(_scope: Any, _receive: Any, send: Any, _spawn: Any, _call: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b""})

    ours, theirs = socket.socketpair()
    config = GuardedConfig()
    config.errorlog = logging.getLogger("hypercorn.error")  # or it adds a handler of its own, for good
    config.connections = Connections(limits, "")
    reader, writer = await asyncio.open_connection(sock=ours)
    client_reader, client_writer = await asyncio.open_connection(sock=theirs)
    loop = asyncio.get_running_loop()
    context = WorkerContext(None)
    server = GuardedServer(nothing, loop, config, context, {}, reader, writer)  # type: ignore[arg-type]
    serving = asyncio.create_task(server.run())
    try:
        client_writer.write(request)
        async with asyncio.timeout(REFUSAL_S):
            return await client_reader.read(1_024)
    except TimeoutError:
        return b""
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        for each in (writer, client_writer):
            each.transport.abort()
        await asyncio.sleep(0)


def _unguarded(what: str) -> ConfigError:
    return ConfigError(
        f"Hypercorn cannot be guarded: {what}. Install the version of requirements.lock, or use "
        '[server] engine = "uvicorn".'
    )
