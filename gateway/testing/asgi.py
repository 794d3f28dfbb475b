"""Calls to ASGI apps in this process: what a listener or a vendor would get, without a socket."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from gateway.interfaces import Answer, Unreachable


class AppClient:
    """
    An :class:`gateway.interfaces.HttpClient` whose whole network is one ASGI app.

    Args:
        app: It answers whatever host is called.
        peer: The address that the app sees as the other end of the connection.
    """

    def __init__(self, app: Any, peer: str = "127.0.0.1") -> None:
        self._app = app
        self._peer = peer

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout_s: float = 30.0,
        max_bytes: int = 1_048_576,
    ) -> Answer:
        """
        Call the app once; a longer answer is cut at ``max_bytes``.

        Raises:
            Unreachable: The app broke the connection, sent no complete answer, or took more than ``timeout_s`` seconds.
        """
        exchange = _Exchange(content or b"", max_bytes)
        scope = _scope(method, url, headers or {}, len(content or b""), self._peer)
        try:
            async with asyncio.timeout(timeout_s):
                await self._app(scope, exchange.receive, exchange.send)
        except TimeoutError as error:
            raise Unreachable(f"no answer in {timeout_s:g} s", sent=True) from error
        except OSError as error:
            raise Unreachable(f"the connection broke ({type(error).__name__})", sent=True) from error
        return exchange.answer()


def _scope(method: str, url: str, headers: Mapping[str, str], length: int, peer: str) -> dict[str, Any]:
    parts = urlsplit(url)
    given = {"host": parts.netloc, "content-length": str(length)}
    given.update((key.lower(), text) for key, text in headers.items())
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": parts.scheme,
        "path": unquote(parts.path), "raw_path": parts.path.encode(), "query_string": parts.query.encode(),
        "headers": [(key.encode("latin-1"), text.encode("latin-1")) for key, text in given.items()],
        "root_path": "", "client": (peer, 50_000), "server": (parts.hostname, parts.port or 80),
    }  # fmt: skip


class _Exchange:
    """One request and its answer, as the app sees them."""

    def __init__(self, content: bytes, max_bytes: int) -> None:
        self._content: bytes | None = content
        self._max_bytes = max_bytes
        self._status: int | None = None
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._complete = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        """Give the body, then wait until the answer is complete: the caller stays connected."""
        if self._content is not None:
            body, self._content = self._content, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._complete.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        """Take a part of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = {key.decode("latin-1").lower(): text.decode("latin-1") for key, text in message["headers"]}
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")[: self._max_bytes - len(self._body)]
            if not message.get("more_body", False):
                self._complete.set()

    def answer(self) -> Answer:
        """Return the complete answer."""
        if self._status is None or not self._complete.is_set():
            raise Unreachable("the app ended without a complete answer", sent=True)
        return Answer(status=self._status, headers=self._headers, body=bytes(self._body))
