"""One received request, and the source it came to."""

from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from gateway.errors import Rejected
from gateway.event import Struct


class Secret(Struct, frozen=True, kw_only=True):
    """A secret value that hides itself; compare with :func:`gateway.verify.matches`."""

    value: str

    def __repr__(self) -> str:
        """Never the value."""
        return "Secret(…)"

    __str__ = __repr__


class Source(Struct, frozen=True, kw_only=True):
    """
    One configured source: ``[sources.NAME]``.

    ``options`` is the adapter's own options Struct, decoded. A source with ``secrets`` is a *server* source: the
    shopper's IP, user agent and privacy signals come only from its payload. One with ``allowed_origins`` is *public*:
    they come from the connection.
    """

    name: str
    adapter: str
    site: str
    destinations: tuple[str, ...]
    options: Any = None  # the adapter declares the type
    secrets: tuple[Secret, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    event_names: dict[str, str] = msgspec.field(default_factory=dict)
    default_country: str | None = None

    @property
    def is_server(self) -> bool:
        """Whether hits of this source carry a secret or signature."""
        return bool(self.secrets)


class Hit(Struct, frozen=True, kw_only=True):
    """
    One received request.

    Args:
        source: Where it was sent to.
        method: Upper case.
        tail: What follows ``/in/{source}`` in the path, "" or starting with "/".
        query: The raw query string.
        headers: Names in lower case; values of repeated headers joined by ", " ("; " for cookies).
        body: The exact bytes received.
        peer: The address of the connection's other end, None when unknown. Not the shopper behind a proxy: see the
            ``client`` enricher.
        received_at: Unix seconds.
    """

    source: Source
    method: str = "POST"
    tail: str = ""
    query: str = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    peer: str | None = None
    received_at: float = 0.0

    def __repr__(self) -> str:
        """Source and method only: everything else may be personal."""
        return f"Hit({self.source.name}, {self.method}, {len(self.body)} bytes)"

    def header(self, name: str) -> str:
        """Return the header's value, "" when absent; ``name`` in lower case."""
        return self.headers.get(name, "")

    def params(self) -> dict[str, str]:
        """
        Return the query parameters, the first of each name; names without "=" count as empty.

        Raises:
            Rejected: There are more than 500.
        """
        try:
            pairs = parse_qsl(self.query, keep_blank_values=True, max_num_fields=500, errors="replace")
        except ValueError as error:
            raise Rejected("too_complex", "The query has more than 500 parameters.") from error
        return dict(reversed(pairs))

    def cookie(self, name: str) -> str | None:
        """Return the cookie's value, None when absent or unreadable."""
        header = self.headers.get("cookie")
        if not header or name not in header:
            return None
        jar: SimpleCookie = SimpleCookie()
        for part in header[:16_384].split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                return jar.value_decode(value)[0] or None
        return None
