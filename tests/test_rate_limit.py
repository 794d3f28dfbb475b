"""The rate limit of public hits: exact by a frozen clock, bounded in memory, and told to whom it concerns."""

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway import config as configuration
from gateway import ratelimit
from gateway.ingress import public_app
from gateway.interfaces import Answer
from gateway.ratelimit import Buckets, RateLimit, TooManyHits, network
from gateway.testing import Running, running
from gateway.testing.app import complete
from gateway.testing.asgi import AppClient

ORIGIN = "https://shop.example"
ABUSER, OTHER = "203.0.113.7", "203.0.113.8"


class Clock:
    """Monotonic time that stands still until it is stepped."""

    def __init__(self) -> None:
        self.now = 123_456.7

    def __call__(self) -> float:
        return self.now


def taken(buckets: Buckets, key: bytes, most: int) -> int:
    """Take tokens until there is none; returns how many there were."""
    return next((count for count in range(most) if buckets.take(key)), most)


def test_burst_and_rate_are_exact() -> None:
    """1,000 hits at once pass and no more; then 50 a second, one every 20 ms; after 20 s of rest 1,000 again."""
    clock = Clock()
    buckets = Buckets(50.0, 1_000, clock=clock)
    assert taken(buckets, b"a", 2_000) == 1_000
    assert buckets.take(b"a") == pytest.approx(0.02)
    clock.now += 0.0199
    assert buckets.take(b"a")
    clock.now += 0.0001
    assert (taken(buckets, b"a", 10), taken(buckets, b"a", 10)) == (1, 0)
    for _ in range(20):
        clock.now += 1.0
        assert taken(buckets, b"a", 100) == 50
    clock.now += 20.0
    assert taken(buckets, b"a", 2_000) == 1_000
    clock.now += 3_600.0
    assert taken(buckets, b"a", 2_000) == 1_000


def test_one_bucket_does_not_touch_another() -> None:
    """Whoever emptied a bucket hurts no other address and no other source."""
    limit = RateLimit(50.0, 3, (), Clock())
    for _ in range(3):
        limit.check("web", ABUSER, {})
    for source, peer in (("web", OTHER), ("app", ABUSER), ("web", "2001:db8::1")):
        limit.check(source, peer, {})
    with pytest.raises(TooManyHits) as found:
        limit.check("web", ABUSER, {})
    assert (found.value.status, found.value.reason, found.value.retry_after_s) == (429, "too_many_hits", 1)


def test_a_million_addresses_are_bounded_and_reset_nobody() -> None:
    """A million addresses leave at most 100,000 buckets of some 12 MB, and an empty bucket stays empty."""
    clock = Clock()
    buckets = Buckets(50.0, 1_000, clock=clock)
    assert flood(buckets) == 0
    assert len(buckets) <= ratelimit.MAX_BUCKETS
    size = sum(
        sys.getsizeof(table) + sum(sys.getsizeof(key) + sys.getsizeof(at) for key, at in table.items())
        for table in (buckets._young, buckets._old)
    )
    sys.stdout.write(f"\n{len(buckets):,} buckets take {size / 1e6:.1f} MB\n")
    assert size <= 20e6


def flood(buckets: Buckets, addresses: int = 1_000_000) -> int:
    """Empty one bucket, send from many other addresses, and return how many hits the first may send again."""
    assert taken(buckets, b"web\0abuser", 2_000) == 1_000
    for number in range(addresses):
        buckets.take(b"web\0" + number.to_bytes(4))
    return taken(buckets, b"web\0abuser", 2_000)


def test_a_table_that_forgets_by_age_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the test above fails on a table that forgets whoever came first."""

    def turn(self: Buckets, now: float) -> None:
        self._young, self._old = {}, self._young

    monkeypatch.setattr(Buckets, "_turn", turn)
    assert flood(Buckets(50.0, 1_000, clock=Clock()), 150_000) == 1_000


def test_memory_goes_before_memory_of_abuse() -> None:
    """With more empty buckets than fit, the table is bounded all the same."""
    buckets = Buckets(50.0, 2, capacity=1_000, clock=Clock())
    for number in range(10_000):
        key = number.to_bytes(4)
        assert taken(buckets, key, 5) == 2
        assert len(buckets) <= 1_000


def test_a_generation_keeps_the_newest_value() -> None:
    """A bucket that was used in two generations is kept as it was last."""
    clock = Clock()
    buckets = Buckets(1.0, 10, capacity=8, clock=clock)
    buckets.take(b"abuser")
    for number in range(4):
        buckets.take(bytes([number]))
    assert taken(buckets, b"abuser", 20) == 9
    for number in range(4, 40):
        buckets.take(bytes([number]))
    assert taken(buckets, b"abuser", 20) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("198.51.100.1", "198.51.100.2", False),
        ("198.51.100.1", "198.51.100.1:40123", True),
        ("198.51.100.1", "::ffff:198.51.100.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("2001:db8:0:1::1", "[2001:db8:0:1::2]:443", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("unknown", "x" * 5_000, True),
        ("", "a:b:c", True),
        ("nul\0", "nu\udc80l", True),
    ],
)
def test_addresses(one: str, other: str, same: bool) -> None:
    """IPv4 counts whole, IPv6 by /64, with or without a port; whatever is no address shares one bucket."""
    assert (network(one) == network(other)) is same
    assert len(network(one)) in (1, 4, 8)


def config(**server: Any) -> dict[str, Any]:
    """Return a public and a server source; a bucket of 3 that fills far more slowly than a test runs."""
    return {
        "server": {"rate_per_s": 0.001, "rate_burst": 3, **server},
        "sources": {
            "web": {"adapter": "browser_tag", "allowed_origins": [ORIGIN]},
            "api": {"adapter": "browser_tag", "secrets": ["s3cret"]},
        },
    }


EVENT = {"event_name": "lead", "user": {"email": "jo@example.com"}}


async def send(
    gateway: Running, peer: str = ABUSER, *, method: str = "POST", path: str = "/in/web", **headers: str
) -> Answer:
    """Send a hit, or something else; returns the answer."""
    client = AppClient(public_app(gateway.gateway.ingress, gateway.gateway.ready), peer)
    body = b'{"event_name": "lead", "user": {"email": "jo@example.com"}}' if method == "POST" else b""
    return await client.request(
        method, f"http://127.0.0.1{path}", content=body,
        headers={"Origin": ORIGIN, **{name.replace("_", "-"): value for name, value in headers.items()}},
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    """Return a runner of one scenario against a fresh gateway."""

    def start(scenario: Callable[[Running], Any], tables: Mapping[str, Any] | None = None) -> None:
        async def main() -> None:
            async with running(tables or config(), tmp_path) as gateway:
                await scenario(gateway)

        asyncio.run(main())

    return start


def test_the_answer(run: Callable[..., None]) -> None:
    """The fourth hit is answered 429 with Retry-After, code, hint and CORS headers, is counted, and is not accepted."""

    async def scenario(gateway: Running) -> None:
        assert [(await send(gateway)).status for _ in range(4)] == [200, 200, 200, 429]
        refused = await send(gateway)
        assert 1 <= int(refused.headers["retry-after"]) <= 1_000
        assert refused.headers["access-control-allow-origin"] == ORIGIN
        assert b'"code":"too_many_hits"' in refused.body
        assert b"trusted_proxies" not in refused.body
        assert (await send(gateway, OTHER)).status == 200
        assert gateway.gateway.tally.shed[("web", "rate")] == 2
        assert gateway.gateway.tally.hits[("web", "429")] == 2
        assert gateway.gateway.budget.requests == 0

    run(scenario)


def test_what_does_not_count(run: Callable[..., None]) -> None:
    """Server sources, files and preflights are not limited and take no token."""

    async def scenario(gateway: Running) -> None:
        for _ in range(5):
            assert (await send(gateway, method="GET", path="/in/web/tag.js")).status == 200
            preflight = await send(gateway, method="OPTIONS", Access_Control_Request_Method="POST")
            assert preflight.status == 204
            signed = await send(gateway, path="/in/api", Authorization="Bearer s3cret")
            assert signed.status == 200
        assert [(await send(gateway)).status for _ in range(4)] == [200, 200, 200, 429]

    run(scenario)


def test_a_batch_counts_once(run: Callable[..., None]) -> None:
    """What is counted are requests, at the door."""

    async def scenario(gateway: Running) -> None:
        events = [{**EVENT, "event_id": f"e{number}"} for number in range(5)]
        status, answer = await gateway.post("web", events, {"Origin": ORIGIN}, peer=ABUSER)
        assert (status, answer["accepted"]) == (200, 5)
        assert [(await send(gateway)).status for _ in range(3)] == [200, 200, 429]

    run(scenario)


def test_behind_a_trusted_proxy(run: Callable[..., None]) -> None:
    """The shopper's address counts, not the proxy's; what the shopper wrote before it does not."""

    async def scenario(gateway: Running) -> None:
        for number in range(5):
            answer = await send(gateway, "10.0.0.1", X_Forwarded_For=f"198.51.100.{number}")
            assert answer.status == 200
        statuses = [
            (await send(gateway, "10.0.0.1", X_Forwarded_For=f"192.0.2.{number}, {ABUSER}")).status
            for number in range(4)
        ]
        assert statuses == [200, 200, 200, 429]

    run(scenario, config(trusted_proxies=["10.0.0.0/8"]))


def test_behind_a_proxy_that_is_not_trusted(run: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    """Its header cannot evade the limit; the hint and one warning say that trusted_proxies may lack it."""
    caplog.set_level(logging.WARNING, "gateway.ratelimit")

    async def scenario(gateway: Running) -> None:
        answers = [await send(gateway, "10.0.0.1", X_Forwarded_For=f"198.51.100.{number}") for number in range(8)]
        assert [answer.status for answer in answers] == [200] * 3 + [429] * 5
        assert b"trusted_proxies" in answers[-1].body
        said = [record.getMessage() for record in caplog.records if record.name == "gateway.ratelimit"]
        assert said == ["rate_limited_proxy"]
        assert b"198.51.100" not in answers[-1].body

    run(scenario)


def test_off_and_reloaded(tmp_path: Path) -> None:
    """0 is no limit; a reload sets a new one."""

    async def main() -> None:
        async with running(config(rate_per_s=0), tmp_path) as gateway:
            assert [(await send(gateway)).status for _ in range(6)] == [200] * 6
            changed = configuration.parse(complete(config()), tmp_path / "gateway.toml")
            server = changed.server
            gateway.gateway.rate_limit.limit(server.rate_per_s, server.rate_burst, server.trusted_proxies)
            assert [(await send(gateway)).status for _ in range(4)] == [200, 200, 200, 429]

    asyncio.run(main())
