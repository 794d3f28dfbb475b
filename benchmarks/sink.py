"""
A stand-in of the vendor that costs next to nothing: it counts events and says of each that it was processed.

``GET`` anything answers the number of events taken so far.
"""

import asyncio
import re
import sys
from typing import cast

import msgspec

from gateway.commands.serve import new_event_loop

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


class Sink(asyncio.Protocol):
    """One connection."""

    events = 0
    _answers: dict[int, bytes] = {}  # noqa: RUF012 - shared on purpose

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._buffer:
            if not self._wanted:
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                length = _LENGTH.search(self._buffer, 0, end)
                self._wanted = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < self._wanted:
                return
            request = bytes(self._buffer[: self._wanted])
            del self._buffer[: self._wanted]
            self._wanted = 0
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        assert self._transport is not None
        if request.startswith(b"GET"):
            self._transport.write(_response(str(Sink.events).encode()))
            return
        count = request.count(b'"event_id":')
        if count not in self._answers:
            report = {
                "num_events_received": count,
                "num_events_processed": count,
                "events": [{"status": "processed", "error_message": "", "warning_message": ""}] * count,
            }
            self._answers[count] = _response(msgspec.json.encode(report))
        Sink.events += count
        self._transport.write(self._answers[count])


def _response(content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        len(content), content,
    )  # fmt: skip


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1])))
