"""Answers to requests that are refused before an app looks at them, in the form of all errors."""

from http import HTTPStatus

import msgspec

from gateway.event import Struct


class Refusal(Struct, frozen=True, kw_only=True):
    """
    Why a request is not served.

    Args:
        status: HTTP status.
        code: Short ``snake_case`` code, stable; ``message`` and ``hint`` are for a person.
        ends: Whether the connection cannot be used after it: where the request ends is in doubt.
        more: Further headers.
    """

    status: int
    code: str
    message: str
    hint: str
    ends: bool = False
    more: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def body(self) -> bytes:
        """The JSON."""
        return msgspec.json.encode({"error": {"code": self.code, "message": self.message, "hint": self.hint}})

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All headers."""
        ending = ((b"connection", b"close"),) if self.ends else ()
        length = str(len(self.body)).encode()
        kind = (b"content-type", b"application/json")
        return [kind, (b"cache-control", b"no-store"), (b"content-length", length), *self.more, *ending]

    @property
    def raw(self) -> bytes:
        """The whole answer in HTTP/1.1, for where there is no request yet."""
        head = [b"HTTP/1.1 %d %b" % (self.status, HTTPStatus(self.status).phrase.encode())]
        return b"\r\n".join([*head, *(b"%b: %b" % pair for pair in self.headers), b"", self.body])


_METHODS = "GET, HEAD, POST, OPTIONS"

MALFORMED = Refusal(
    status=400, code="malformed_request", ends=True, message="This is no HTTP/1.1 request.",
    hint="Speak HTTP/1.1; this server does not take HTTP/2 without a proxy in front.",
)  # fmt: skip
BAD_FRAMING = Refusal(
    status=400, code="bad_framing", ends=True, message="Where the body ends is in doubt.",
    hint="Send one Content-Length, or Transfer-Encoding: chunked, and never both.",
)  # fmt: skip
BAD_HOST = Refusal(
    status=400, code="bad_host", message="The Host header is missing, malformed, or there is more than one.",
    hint="Send one Host header with a name and at most a port.",
)  # fmt: skip
UNKNOWN_HOST = Refusal(
    status=400, code="unknown_host", message="This host is not served here.", hint="See [server] hosts of gateway.toml."
)  # fmt: skip
LARGE_HEADERS = Refusal(
    status=431, code="large_headers", ends=True, message="The headers are too many or too large.",
    hint="At most 100 headers of 32 KB together are read.",
)  # fmt: skip
LONG_TARGET = Refusal(
    status=414, code="long_target", message="Path and query are too long.",
    hint="At most 16 KB are read: send large hits by POST.",
)  # fmt: skip
BAD_METHOD = Refusal(
    status=405, code="method_not_allowed", message="This method is not served.", hint=f"Use {_METHODS}.",
    more=((b"allow", _METHODS.encode()),),
)  # fmt: skip
UPGRADE = Refusal(
    status=400, code="no_websocket", ends=True, message="WebSockets are not served.",
    hint="Send plain HTTP/1.1 requests.",
)  # fmt: skip
FULL = Refusal(
    status=503, code="too_many_connections", ends=True, message="Too many connections are open; nothing was accepted.",
    hint="Send the same request again after the seconds in Retry-After.", more=((b"retry-after", b"5"),),
)  # fmt: skip
