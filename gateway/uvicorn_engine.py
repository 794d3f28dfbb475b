"""uvicorn with the limits of :mod:`gateway.connections`; imported only where it is the engine."""

import asyncio
import contextlib
import importlib.util
import logging
from collections.abc import Callable, Generator
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway import refusal
from gateway.connections import Connections, Limits, Phase, Transport
from gateway.engines import HEAD_BYTES, LINGER_BYTES, REFUSAL_S
from gateway.errors import ConfigError

#: Requests that may be sent before the first of them is answered.
_PIPELINE = 32
#: The parser: Node.js' where it is installed.
PARSER = "httptools" if importlib.util.find_spec("httptools") else "h11"


class GuardedServer(uvicorn.Server):
    """uvicorn's server, which leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Not here: the process has one place for signals, and many listeners."""
        yield


class _Guard:
    """What both protocols have in common; the first base, before uvicorn's class."""

    open_connections: ClassVar[Connections]
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    cycle: Any
    flow: Any
    phase: Phase
    since: float
    heard: float
    unread_since: float | None
    _refused = False
    _told = False
    _head = 0
    _thrown: int | None = None

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or say that there are too many."""
        connections = self.open_connections
        if connections.admit(self):
            super().connection_made(transport)  # type: ignore[misc]
            return
        self._refused = True
        self.transport = transport
        if not connections.may_refuse():
            transport.abort()
            return
        self._told = True
        transport.write(refusal.FULL.raw)
        transport.write_eof()
        self.loop.call_later(REFUSAL_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self._told:
            self.open_connections.refused()
        if not self._refused:
            self.open_connections.release(self)
            super().connection_lost(exc)  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        """Read on, and follow how far the request is."""
        if self._refused:
            return
        if self._thrown is not None:
            self._thrown += len(data)
            if self._thrown > LINGER_BYTES:
                self.transport.abort()
            return
        self.heard = self.loop.time()
        if self.phase == "idle":
            self.phase, self.since, self._head = "head", self.heard, 0
        if self.phase == "head":
            self._head += len(data)
        super().data_received(data)  # type: ignore[misc]
        if self.phase == "head" and self._head > HEAD_BYTES:
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what is no request, in our form; sound requests before it are answered first, and their own way."""
        cycle = self.cycle
        if self.transport.is_closing():
            return
        if cycle is None or cycle.response_complete:
            self.transport.write((refusal.LARGE_HEADERS if self._head > HEAD_BYTES else refusal.MALFORMED).raw)
            self.transport.close()
        elif not cycle.more_body:
            cycle.keep_alive = False
        else:
            # the broken one may wait behind others: whose answer this would be is in doubt
            if not cycle.response_started and not getattr(self, "pipeline", None):
                self.transport.write(refusal.MALFORMED.raw)
            self.transport.close()

    def wire(self) -> Transport:
        """Return the transport."""
        return self.transport

    def awaits_body(self) -> bool:
        """Whether it waits for more of a body."""
        return bool(self.cycle is not None and self.cycle.more_body and not self.flow.read_paused)

    def _rest(self, *, has_part: bool) -> None:
        """After an answer: wait for the next request, of which a part may be there."""
        self.phase, self.since, self._head = "head" if has_part else "idle", self.loop.time(), 0
        if self.cycle.response_complete and self.cycle.more_body:
            # answered before the body was there, which nobody will read
            self._thrown = 0
            if self.transport.can_write_eof() and not self.transport.is_closing():
                self.transport.write_eof()
            self.loop.call_later(self.open_connections.limits.linger_s, self.transport.abort)
        elif self.open_connections.stopping:
            self.transport.close()


class GuardedH11(_Guard, H11Protocol):
    """uvicorn's own parser."""

    def _should_upgrade(self) -> bool:
        """Where uvicorn would change to another protocol; also the one place that each request passes."""
        self.phase = "busy"
        return False

    def on_response_complete(self) -> None:
        """Rest, or go on with what has come meanwhile."""
        self._rest(has_part=bool(self.conn.trailing_data[0]))
        super().on_response_complete()

    def shutdown(self) -> None:
        """End as soon as may be: uvicorn would tell its parser first, which refuses in the middle of a head."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def timeout_keep_alive_handler(self) -> None:
        """End: likewise."""
        self.transport.close()


def _with_httptools() -> Callable[..., asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class GuardedHttpTools(_Guard, HttpToolsProtocol):
        """The parser of Node.js."""

        _has_part = False

        def on_message_begin(self) -> None:
            self._has_part = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            if len(self.pipeline) >= _PIPELINE:
                raise ValueError("too many requests at once")
            self._has_part, self.phase = False, "busy"
            super().on_headers_complete()

        def _unsupported_upgrade_warning(self) -> None:
            # what follows an upgrade cannot be read as a request any more
            if self.cycle is not None:
                self.cycle.keep_alive = False

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.cycle.response_complete:
                self._rest(has_part=self._has_part)

    return GuardedHttpTools


def configured(app: Any, connections: Connections) -> uvicorn.Config:
    """Return uvicorn's configuration for one listener; its times to stop are the caller's."""
    base: Any = _with_httptools() if PARSER == "httptools" else GuardedH11
    # it has a line for each request that is none: whoever sends them would fill the log
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return uvicorn.Config(
        app, http=type(base.__name__, (base,), {"open_connections": connections}), ws="none", log_config=None,
        access_log=False, server_header=False, lifespan="off", proxy_headers=False,
        timeout_keep_alive=max(1, int(connections.limits.idle_s)), h11_max_incomplete_event_size=HEAD_BYTES,
    )  # fmt: skip


class _Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return False

    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


async def assert_guarded() -> None:
    """
    Look whether uvicorn serves by our protocols: no upgrade, no connection over the limit, and phases are followed.

    Raises:
        ConfigError: It does not.
    """
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n"
    if not (await _answer(upgrade, Limits())).startswith(b"busy HTTP/1.1 204 "):
        raise _unguarded("it upgrades, or does not say when it serves")
    if b"HTTP/1.1 503 " not in await _answer(upgrade, Limits(connections=0)):
        raise _unguarded("it takes connections over the limit")


async def _answer(request: bytes, limits: Limits) -> bytes:
    """Return the phase after a request, and the answer to it."""

    async def nothing(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b""})

    connections = Connections(limits, "")
    config = configured(nothing, connections)
    config.load()
    state = uvicorn.server.ServerState()
    protocol: Any = config.http_protocol_class(config, state, {})  # type: ignore[call-arg]
    wire = _Wire()
    protocol.connection_made(wire)
    protocol.data_received(request)
    phase = getattr(protocol, "phase", "none")
    await asyncio.gather(*state.tasks)
    protocol.connection_lost(None)
    return f"{phase} ".encode() + wire.written


def _unguarded(what: str) -> ConfigError:
    return ConfigError(
        f"uvicorn cannot be guarded: {what}. Install the version of requirements.lock, or leave out [server] engine."
    )
