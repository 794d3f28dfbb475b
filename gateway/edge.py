"""
What is refused before anything else is done with a request, on every engine and listener.

The engines parse; this looks at what they agree or disagree about: how a body ends, which host is meant, how much there
is. It runs for each hit, so it goes over the headers once and remembers the hosts that it has seen to be good.
"""

import re
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import refusal
from gateway.refusal import Refusal
from gateway.tally import Tally

MAX_HEADERS = 100
#: Names and values of all headers; path and query. Bytes.
MAX_HEADER_BYTES, MAX_TARGET_BYTES = 32 << 10, 16 << 10
#: Whether a listed method fits a path is for the app to say; others exist nowhere.
_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})
#: For who watches the process and knows only its address.
_PROBES = frozenset({"/livez", "/readyz"})
#: A name, an IPv4 address or an IPv6 address in brackets, and perhaps a port: RFC 3986, 3.2.2.
_HOST = re.compile(rb"([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_KNOWN_HOSTS = 256


class Edge:
    """
    Middleware that refuses what is malformed or too large.

    Args:
        app: What serves the rest.
        hosts: Returns the names of ``[server] hosts``; empty: any host is served.
        tally: Counts what is refused, as hits of no source.
    """

    def __init__(self, app: ASGIApp, hosts: Callable[[], Iterable[str]] = tuple, tally: Tally | None = None) -> None:
        self._app = app
        self._hosts = hosts
        self._tally = tally
        self._listed: Iterable[str] = ()
        self._names: frozenset[bytes] = frozenset()
        self._good: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on."""
        if scope["type"] == "http":
            problem = self._problem(scope)
            if problem is None:
                await self._app(scope, receive, send)
            else:
                await self._refuse(problem, scope, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._app(scope, receive, send)

    def _problem(self, scope: Scope) -> Refusal | None:
        headers = scope["headers"]
        listed = self._hosts()
        if listed is not self._listed:
            self._list(listed)
        found = dict(headers)
        # what nearly every request is: nothing twice, a host that was good before, a length or no body
        if (
            len(found) == len(headers) <= MAX_HEADERS
            and found.get(b"host") in self._good
            and scope["method"] in _METHODS
            and scope["http_version"] == "1.1"
            and b"transfer-encoding" not in found
            and b"upgrade" not in found
            and len(scope.get("raw_path") or b"") + len(scope["query_string"]) <= MAX_TARGET_BYTES
            and sum(map(len, found)) + sum(map(len, found.values())) <= MAX_HEADER_BYTES
            and found.get(b"content-length", b"0").isdigit()
        ):
            return None
        return self._examine(scope, headers, found)

    def _examine(self, scope: Scope, headers: list[tuple[bytes, bytes]], found: dict[bytes, bytes]) -> Refusal | None:
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            return refusal.LARGE_HEADERS
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET_BYTES:
            return refusal.LONG_TARGET
        if scope["http_version"] not in ("1.1", "1.0"):
            return refusal.MALFORMED
        names = [name for name, _ in headers]
        coding = found.get(b"transfer-encoding")
        lengths = names.count(b"content-length")
        if coding is not None and (coding != b"chunked" or lengths or scope["http_version"] == "1.0"):
            return refusal.BAD_FRAMING
        if lengths > 1 or names.count(b"transfer-encoding") > 1 or not found.get(b"content-length", b"0").isdigit():
            return refusal.BAD_FRAMING
        if scope["method"] not in _METHODS:
            return refusal.BAD_METHOD
        if b"websocket" in found.get(b"upgrade", b"").lower():
            return refusal.UPGRADE
        return self._foreign(scope, found.get(b"host"), names.count(b"host"))

    def _foreign(self, scope: Scope, host: bytes | None, count: int) -> Refusal | None:
        if count > 1 or (host is None and scope["http_version"] != "1.0"):
            return refusal.BAD_HOST
        if host is not None:
            if host in self._good:
                return None
            match = _HOST.fullmatch(host)
            if match is None:
                return refusal.BAD_HOST
            if not self._names or match[1].lower().rstrip(b".") in self._names:
                if len(self._good) < _KNOWN_HOSTS:
                    self._good.add(host)
                return None
        return refusal.UNKNOWN_HOST if self._names and scope["path"] not in _PROBES else None

    def _list(self, listed: Iterable[str]) -> None:
        self._listed = listed
        self._names = frozenset(name.lower().rstrip(".").encode() for name in listed)
        self._good = set()

    async def _refuse(self, problem: Refusal, scope: Scope, send: Send) -> None:
        if self._tally is not None:
            self._tally.hits[("-", str(problem.status))] += 1
        await send({"type": "http.response.start", "status": problem.status, "headers": problem.headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else problem.body})
