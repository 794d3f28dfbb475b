"""Raw HTTP/1.1 over TCP: what no proper client would send, against a listener on an event loop of its own."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Self

from gateway.connections import Limits
from gateway.server import Engine, Listener, tcp_socket

#: What a busy machine may need on top of a deadline.
SLACK_S = 6.0


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, first: bytes = b"") -> Self:
        """Connect, and send the first bytes."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        await client.send(first)
        return client

    async def send(self, data: bytes) -> bool:
        """Send; returns whether the connection takes it."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except (OSError, RuntimeError):  # uvloop has its own word for a closed transport
            return False
        return True

    async def answer(self, within_s: float = SLACK_S) -> tuple[int, dict[str, str], bytes] | None:
        """Return status, headers and body of the next answer; None at the end of the connection."""
        try:
            async with asyncio.timeout(within_s):
                head = await self.reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines[1:] if line)
                }
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return int(lines[0].split()[1]), headers, body

    async def answers(self) -> list[int]:
        """Return the statuses of all answers until the connection ends."""
        found = []
        while (answer := await self.answer()) is not None:
            found.append(answer[0])
        return found

    async def status(self) -> int:
        """Return the status of the next answer, 0 at the end of the connection."""
        answer = await self.answer()
        return 0 if answer is None else answer[0]

    async def end(self, within_s: float = SLACK_S) -> float:
        """Wait until the other side ends it; returns the seconds it took. Raises TimeoutError after the time."""
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(within_s):
                while await self.reader.read(65_536):
                    pass
        return time.monotonic() - began

    def close(self) -> None:
        """End it with a reset, as a client that dies does."""
        self.writer.transport.abort()


def code_of(body: bytes) -> str:
    """Return the code of an error; the body has the form of all errors, with a message and a hint."""
    error: dict[str, Any] = json.loads(body)["error"]
    assert error.keys() == {"code", "message", "hint"}
    assert error["message"]
    assert error["hint"]
    return str(error["code"])


@contextlib.asynccontextmanager
async def served(
    app: Any, engine: Engine, limits: Limits | None = None, graceful_s: float = 0.3
) -> AsyncIterator[tuple[int, Listener]]:
    """Serve an app; gives its port and the listener, whose connections have all ended with the block."""
    sock = tcp_socket("127.0.0.1:0", "test")
    stop = asyncio.Event()
    listener = Listener(app, sock, engine, graceful_s, limits or Limits(), "test")
    server = asyncio.create_task(listener.run(stop))
    try:
        yield sock.getsockname()[1], listener
    finally:
        stop.set()
        await asyncio.wait_for(server, 10)
        with contextlib.suppress(OSError):
            sock.close()
    await asyncio.sleep(0.01)
    assert len(listener.connections) == 0
