"""One keep-alive connection on a plain socket, opened again after it broke."""

import asyncio
import json
from typing import Any

from gateway.event import Struct

#: A client gives up here; no answer may take so long.
ANSWER_S = 20.0


class Answer(Struct, frozen=True, kw_only=True):
    """Status, whether it says when to try again, and the decoded body: None when it broke off or is no JSON."""

    status: int
    has_retry_after: bool
    body: Any


class Wire:
    """A connection to the gateway."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> Answer | None:
        """
        Send one request; None when nobody listens.

        Raises:
            OSError: The connection broke, or nothing came in time, before a status line: nobody knows.
        """
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                return None
        reader, writer = self._streams
        try:
            async with asyncio.timeout(ANSWER_S):
                writer.write(request)
                await writer.drain()
                line = await reader.readline()
                if not line.endswith(b"\n"):
                    raise ConnectionResetError("no status line")
                return await self._answer(int(line.split()[1]), reader)
        except OSError:
            self.close()
            raise

    async def _answer(self, status: int, reader: asyncio.StreamReader) -> Answer:
        headers: dict[str, str] = {}
        body: Any = None
        try:
            while (line := await reader.readline()) not in (b"\r\n", b""):
                key, _, text = line.decode("latin-1").partition(":")
                headers[key.strip().lower()] = text.strip().lower()
            content = await reader.readexactly(int(headers.get("content-length", "0")))
            if "json" in headers.get("content-type", ""):
                body = json.loads(content)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            self.close()
        if headers.get("connection") == "close":
            self.close()
        return Answer(status=status, has_retry_after="retry-after" in headers, body=body)

    def close(self) -> None:
        """Drop the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
