"""A reader of server-sent events at an ASGI app, without a socket: messages as they come, and an end when it goes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec


class Reader:
    """One stream: its status, what was sent, and its messages."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.is_over = False
        self._changed = asyncio.Condition()
        self._gone = asyncio.Event()
        self._asked = False

    async def receive(self) -> dict[str, Any]:
        """Give the empty body, then nothing until the reader goes."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take a part of the answer."""
        async with self._changed:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            else:
                self.text += message.get("body", b"").decode()
                self.is_over = self.is_over or not message.get("more_body", False)
            self._changed.notify_all()

    def leave(self) -> None:
        """Close the connection."""
        self._gone.set()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The decoded data of every message so far."""
        lines = self.text.splitlines()
        return [msgspec.json.decode(line[6:]) for line in lines if line.startswith("data: ")]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every row so far, oldest first."""
        return [row for message in self.messages for row in message["rows"]]

    @property
    def last_id(self) -> str:
        """The id of the newest message."""
        return [line[4:] for line in self.text.splitlines() if line.startswith("id: ")][-1]

    async def until(self, reached: Any, what: str) -> None:
        """Wait for a condition; it is asked again after each part. Fails after ten seconds."""
        try:
            async with asyncio.timeout(10.0), self._changed:
                await self._changed.wait_for(reached)
        except TimeoutError:
            raise AssertionError(f"{what}: not within 10 s; so far: {self.text[-500:]}") from None

    async def count(self, number: int) -> list[dict[str, Any]]:
        """Wait for so many rows; returns them all."""
        await self.until(lambda: len(self.rows) >= number, f"{number} rows")
        return self.rows

    async def over(self) -> None:
        """Wait for the end of the answer."""
        await self.until(lambda: self.is_over, "the end of the stream")


@asynccontextmanager
async def reading(app: Any, url: str, headers: dict[str, str] | None = None) -> AsyncIterator[Reader]:
    """Open a stream; at the end of the block the reader goes, and the app must notice."""
    parts, reader = urlsplit(url), Reader()
    given = {"host": "operator", "accept": "text/event-stream", **(headers or {})}
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": parts.path, "raw_path": parts.path.encode(), "query_string": parts.query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 50_001), "server": ("operator", 80), "root_path": "",
    }  # fmt: skip
    task = asyncio.create_task(app(scope, reader.receive, reader.send))
    try:
        await reader.until(lambda: reader.status, "an answer")
        if reader.status == 200:
            await reader.until(lambda: reader.text or reader.is_over, "the begin of the stream")
        yield reader
    finally:
        reader.leave()
        await asyncio.wait_for(task, 10.0)
