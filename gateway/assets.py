"""Static files of adapters, ``GET /in/{source}/{name}``: a browser tag, code for copying into a shop."""

import gzip
import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b

from gateway.interfaces import Asset
from gateway.isolation import Guard
from gateway.pipeline import Route

Header = tuple[bytes, bytes]
FILE_METHODS = frozenset({"GET", "HEAD"})
#: A page loads the file anew after at most this time; in between it costs nobody a request.
_MAX_AGE_S = 3_600
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")
_REFUSED = re.compile(r"q=0(?:\.0{0,3})?")
_LOOPBACK = re.compile(r"localhost(?::|\Z)|127\.|\[::1\]", re.IGNORECASE)


class Assets:
    """
    Answers what an adapter has as a file; everything else is a hit.

    Args:
        guard: Isolates strangers' adapters.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def answer(
        self, route: Route, name: str, headers: Mapping[str, str]
    ) -> tuple[int, bytes, list[Header]] | None:
        """
        Return status, body and headers of the file; None when the adapter has none of this name.

        Raises:
            Rejected: What the adapter says of the request.
            Unavailable: The adapter failed.
        """
        source, adapter = route.source, route.adapter
        url = f"{_base(headers)}/in/{source.name}"

        def call() -> Asset | None:
            found: Asset | None = adapter.asset(source, name, url)
            return found

        if route.inline:
            asset = self._guard.inline(adapter.name, call)
        else:
            asset = await self._guard.threaded(adapter.name, call)
            if not isinstance(asset, Asset | None):
                raise self._guard.failure(adapter.name, TypeError())
        return None if asset is None else _file(asset, headers)


def _base(headers: Mapping[str, str]) -> str:
    """Return scheme and host as the browser has them; pages and shops speak https, only this machine may do without."""
    host = headers.get("host", "")
    if not _HOST.fullmatch(host):
        host = "localhost"
    return f"{'http' if _LOOPBACK.match(host) else 'https'}://{host}"


def _file(asset: Asset, headers: Mapping[str, str]) -> tuple[int, bytes, list[Header]]:
    content, encoding = asset.content, []
    if _takes_gzip(headers.get("accept-encoding", "")):
        content, encoding = _compressed(asset.content), [(b"content-encoding", b"gzip")]
    tag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
    answered = [
        (b"etag", tag.encode()),
        (b"vary", b"Accept-Encoding"),
        (b"cache-control", b"public, max-age=%d" % _MAX_AGE_S),
        (b"cross-origin-resource-policy", b"cross-origin"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if _is_known(tag, headers.get("if-none-match", "")):
        return 304, b"", answered
    return 200, content, [(b"content-type", asset.media_type.encode("latin-1")), *encoding, *answered]


@lru_cache(16)
def _compressed(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)


def _takes_gzip(accepted: str) -> bool:
    """Whether gzip is named, and not refused. Source: RFC 9110, 12.5.3."""
    codings = [part.replace(" ", "").partition(";") for part in accepted.lower().split(",")]
    return any(name == "gzip" and not _REFUSED.fullmatch(weight) for name, _, weight in codings)


def _is_known(tag: str, given: str) -> bool:
    """Whether the client has it already; weak tags count too. Source: RFC 9110, 13.1.2."""
    names = [part.strip().removeprefix("W/") for part in given.split(",")]
    return tag in names or "*" in names
