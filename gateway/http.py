"""
The one outgoing client, and the only module that knows httpx.

TLS is always verified, redirects are never followed, the environment's proxies are ignored, every call has a total time
limit and every answer a cap.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from gateway.interfaces import Answer, Unreachable

#: Errors that prove that the other side has not read the request.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Client:
    """
    An :class:`gateway.interfaces.HttpClient` on httpx.

    Args:
        transport: A replacement for the network, for tests.
        connections: How many calls may be under way at once.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None, connections: int = 64) -> None:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=16, keepalive_expiry=30.0)
        self._client = httpx.AsyncClient(
            transport=transport,
            limits=limits,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=10.0, pool=10.0),
            headers={"User-Agent": "tag-gateway", "Accept-Encoding": "identity"},
        )

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
        Send one request; a longer answer is cut at ``max_bytes``.

        Raises:
            Unreachable: No complete answer came in ``timeout_s`` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._request(method, url, headers, content, max_bytes)
        except _NOT_SENT as error:
            raise Unreachable(f"no connection ({type(error).__name__})", sent=False) from error
        except TimeoutError as error:
            raise Unreachable(f"no answer in {timeout_s:g} s", sent=True) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unreachable(f"the connection broke ({type(error).__name__})", sent=True) from error

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str] | None, content: bytes | None, max_bytes: int
    ) -> Answer:
        async with self._client.stream(method, url, headers=headers, content=content) as response:
            body = bytearray()
            # raw: a compressed answer was not asked for, and could be a bomb
            async for part in response.aiter_raw():
                body += part[: max_bytes - len(body)]
                if len(body) >= max_bytes:
                    break
            return Answer(
                status=response.status_code,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=bytes(body),
            )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class Control:
    """
    A client of the operator's API: of a running server through its Unix socket, or of an app in this process.

    Args:
        socket: The server's socket; ``app`` an ASGI app in its place.
    """

    def __init__(self, *, socket: Path | None = None, app: Any = None) -> None:
        transport = httpx.ASGITransport(app) if socket is None else httpx.AsyncHTTPTransport(uds=str(socket))
        self._client = httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=300.0, trust_env=False)

    async def call(self, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
        """
        Call the API; returns status and decoded JSON.

        Raises:
            Unreachable: No server listens on the socket.
        """
        response = await self._request(method, path, **arguments)
        return response.status_code, response.json()

    async def send(self, method: str, path: str, *, headers: Mapping[str, str], content: bytes) -> Answer:
        """
        Send a request as it is.

        Raises:
            Unreachable: No server listens on the socket.
        """
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        response = await self._request(method, path, headers=raw, content=content)
        return Answer(
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=response.content,
        )

    async def stream(self, path: str, params: Mapping[str, str]) -> AsyncIterator[tuple[int, str]]:
        """
        Give the answer's status with each line of it as it comes, until the server ends it.

        Raises:
            Unreachable: No server listens on the socket, or it went away.
        """
        limits = httpx.Timeout(30.0, read=60.0)  # a stream gives a sign of life more often
        try:
            async with self._client.stream("GET", path, params=dict(params), timeout=limits) as response:
                async for line in response.aiter_lines():
                    yield response.status_code, line
        except httpx.HTTPError as error:
            raise Unreachable(f"the running gateway does not answer ({type(error).__name__})", sent=True) from error

    async def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return await self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise Unreachable(f"the running gateway does not answer ({type(error).__name__})", sent=False) from error

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()
