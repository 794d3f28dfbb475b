"""
The rate limit of public hits: a token bucket for each client address and source, in bounded memory.

A request counts once, when it comes to the door: what is in it, how many events it brings and whether it is accepted
changes nothing. Files (``tag.js``) and preflights do not count. Server sources are not limited: who signs is known.
"""

import logging
import math
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from gateway.errors import Rejected
from gateway.proxies import TrustedProxies

_log = logging.getLogger("gateway.ratelimit")

#: So many buckets are kept. One takes about 120 bytes, the table 12 MB at most.
MAX_BUCKETS = 100_000
#: A part of one token by which rounding may be off.
_SLACK = 1e-3
_MAPPED = bytes(10) + b"\xff\xff"
_HINT = "One address sent too many hits; send slower, or several events in one request."
_PROXY_HINT = (
    "One address sent too many hits. It sent an X-Forwarded-For and is not in [server] trusted_proxies: if it is your "
    "proxy, name it there, or all visitors share one limit."
)


class TooManyHits(Rejected):
    """The address sent too many hits; ``retry_after_s`` (whole seconds) says when the next one is taken."""

    def __init__(self, retry_after_s: int, hint: str) -> None:
        super().__init__("too_many_hits", "Too many hits came from this address.", status=429, hint=hint)
        self.retry_after_s = retry_after_s


class Buckets:
    """
    Token buckets by key, of which those used longest ago are forgotten when there are too many.

    A bucket is one number: when it will be full again. It is as if new once it is full, so forgetting a full one
    changes nothing. One that is at least half empty is kept when its generation goes, so that nobody gets a new one by
    making the table forget: that takes ``capacity / 4`` addresses with as much to be forgotten. Beyond them the table
    forgets those too: memory is bounded first, and who has that many addresses has as many times the rate anyway.

    Args:
        rate_per_s: Tokens that a bucket gains in a second, above 0.
        burst: Tokens in a full one.
        capacity: Buckets at most.
        clock: Monotonic seconds.
    """

    def __init__(
        self, rate_per_s: float, burst: int, *, capacity: int = MAX_BUCKETS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every_s = 1.0 / rate_per_s
        self._depth_s = burst * self._every_s
        self._half = max(2, capacity // 2)
        self._clock = clock
        # two generations in place of an order by use: as bounded, and a hit moves at most one entry
        self._young: dict[bytes, float] = {}
        self._old: dict[bytes, float] = {}

    def __len__(self) -> int:
        """Return how many buckets are kept."""
        return len(self._young) + len(self._old)

    def take(self, key: bytes) -> float:
        """Take a token; returns 0, or the seconds until there is one."""
        now = self._clock()
        young = self._young
        full_at = young.get(key)
        if full_at is None:
            full_at = self._old.pop(key, now)
            if len(young) >= self._half:
                self._turn(now)
                young = self._young
            young[key] = full_at
        if full_at < now:
            full_at = now
        full_at += self._every_s
        missing_s = full_at - now - self._depth_s
        if missing_s > self._every_s * _SLACK:
            return missing_s
        young[key] = full_at
        return 0.0

    def _turn(self, now: float) -> None:
        """Begin a new generation: the old one goes, but for buckets that are half empty."""
        heavy_at = now + self._depth_s / 2
        heavy = ((key, full_at) for key, full_at in self._old.items() if full_at > heavy_at)
        self._young, self._old = dict(islice(heavy, self._half // 2)), self._young


class RateLimit:
    """
    Limits the hits of public sources.

    Args:
        rate_per_s: Hits a second in the long run; 0: no limit.
        burst: Hits at once.
        trusted_proxies: As in ``[server]``: whose ``X-Forwarded-For`` is believed.
        clock: Monotonic seconds.
    """

    def __init__(
        self, rate_per_s: float, burst: int, trusted_proxies: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._warned: set[str] = set()
        self._set = (0.0, 0)
        self.limit(rate_per_s, burst, trusted_proxies)

    def limit(self, rate_per_s: float, burst: int, trusted_proxies: Sequence[str]) -> None:
        """Set everything anew; buckets stay when their size does."""
        self._proxies = TrustedProxies(trusted_proxies)
        if self._set != (rate_per_s, burst):
            self._set = (rate_per_s, burst)
            self._buckets = Buckets(rate_per_s, burst, clock=self._clock) if rate_per_s else None

    def check(self, source: str, peer: str | None, headers: Mapping[str, str]) -> None:
        """
        Count a hit.

        Raises:
            TooManyHits: 429, the address's bucket of this source is empty.
        """
        buckets = self._buckets
        if buckets is None or peer is None:
            return
        forwarded = headers.get("x-forwarded-for", "")
        address = self._proxies.client(peer, forwarded) or peer
        wait_s = buckets.take(f"{source}\0".encode() + network(address))
        if wait_s:
            raise self._refusal(source, peer, forwarded, wait_s)

    def _refusal(self, source: str, peer: str, forwarded: str, wait_s: float) -> TooManyHits:
        is_proxied = bool(forwarded) and not self._proxies.trusts(peer)
        if is_proxied and source not in self._warned:
            self._warned.add(source)
            _log.warning("rate_limited_proxy", extra={"source": source, "hint": _PROXY_HINT})
        return TooManyHits(max(1, math.ceil(wait_s)), _PROXY_HINT if is_proxied else _HINT)


def network(address: str) -> bytes:
    """
    Return what stands for an address in a bucket's key: four bytes of an IPv4 address, eight of an IPv6 one.

    Who has one IPv6 address usually has its /64. A port (some load balancers write one) is left out; whatever is no
    address shares one bucket.
    """
    try:
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        if address.count(":") == 1:
            return socket.inet_pton(socket.AF_INET, address.partition(":")[0])
        if address[0] == "[":
            address = address[1:].partition("]")[0]
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return b"?"
    return packed[12:] if packed[:12] == _MAPPED else packed[:8]
