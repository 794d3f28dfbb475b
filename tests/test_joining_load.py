"""Browser and server copies under load, on a real gateway: none lost, none doubled; a hold outlives a kill."""

import asyncio
import base64
import heapq
import hmac
import itertools
import json
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.event import Struct
from tests.harness import conformance
from tests.harness.load import Client
from tests.harness.oracle import snapshot
from tests.harness.orders import EPIK, IP, ORIGIN, UA, conversion, order, pixel
from tests.harness.processes import ACCOUNT, SECRET, Pair, Process, say, until

SOAK = os.environ.get("GATEWAY_SOAK") == "1"
PAIRS = 100_000 if SOAK else 2_500
CLIENTS = 32
HOLD_S = 2.0
#: Which browser copy belongs to which server copy, by the remainder of the order's number.
KINDS = (("tag", "api"), ("pixel", "shop"), ("tag", "gtm"))


def config(hold_s: float = HOLD_S) -> str:
    """Return the configuration of one shop with public and server sources."""
    server = f'site = "shop"\nsecrets = ["{SECRET}"]\ndestinations = ["pinterest"]'
    public = f'site = "shop"\nallowed_origins = ["{ORIGIN}"]\ndestinations = ["pinterest"]'
    return f"""
[server]
bind = "127.0.0.1:{{port}}"
trusted_proxies = ["127.0.0.1/32"]
graceful_s = 3.0
[store]
url = "sqlite:///gateway.db"
[sites.shop]
hold_s = {hold_s}
[sources.shop]
adapter = "shopify"
{server}
[sources.api]
adapter = "browser_tag"
{server}
[sources.gtm]
adapter = "gtm"
{server}
[sources.tag]
adapter = "browser_tag"
{public}
[sources.pixel]
adapter = "shopify_pixel"
{public}
[destinations.pinterest]
type = "pinterest"
ad_account_id = "{ACCOUNT}"
token = "sandbox-token"
base_url = "{{sandbox}}"
batch_size = 500
linger_s = 0.1
"""


class SourceClient(Client):
    """A keep-alive connection that speaks to any source, each with its own proof."""

    async def send(self, source: str, told: dict[str, Any]) -> Any:
        """Send one event until it is answered with 200; returns its entry of the answer. Raises AssertionError."""
        body = json.dumps(told).encode()
        request = (_head(source, body) + body,)
        while True:
            try:
                answer = await self._exchange(*request)
            except (OSError, asyncio.IncompleteReadError):
                answer = None
            if answer is not None and answer[0] == 200 and answer[1] is not None:
                return answer[1]["events"][0]
            assert answer is None or answer[0] in (200, 503), answer
            self.close()
            await asyncio.sleep(0.03)

    async def _exchange(self, request: bytes) -> tuple[int, Any]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("no status line")
        return int(line.split()[1]), await self._body(reader)


def _head(source: str, body: bytes) -> bytes:
    lines = [f"POST /in/{source} HTTP/1.1", "Host: gateway", f"Content-Length: {len(body)}"]
    if source == "shop":
        proof = base64.b64encode(hmac.digest(SECRET.encode(), body, "sha256")).decode()
        lines += ["X-Shopify-Topic: orders/create", f"X-Shopify-Hmac-Sha256: {proof}"]
    elif source in ("api", "gtm"):
        lines += [f"Authorization: Bearer {SECRET}", "Content-Type: application/json"]
    else:
        lines += [f"Origin: {ORIGIN}", "Content-Type: text/plain", f"User-Agent: {UA}", f"X-Forwarded-For: {IP}"]
    return "\r\n".join([*lines, "", ""]).encode()


def email(number: int) -> str:
    """Return who bought."""
    return f"buyer-{number}@example.com"


def copy_of(source: str, number: int, at: float) -> dict[str, Any]:
    """Return what a source tells of an order; the amount is the server's alone."""
    if source == "pixel":
        return pixel(number, at=at)
    if source == "tag":
        return conversion(number, at=at, event_id=f"sh-{number}", click_id=EPIK)
    if source == "shop":
        return order(number, at=at)
    if source == "gtm":
        return {
            "event_name": "purchase", "event_time": int(at) - 7, "transaction_id": str(number), "value": 12,
            "currency": "USD", "user_data": {"email_address": email(number)},
        }  # fmt: skip
    return conversion(number, at=at, value="12.00", currency="USD", user={"email": email(number)})


class Traffic:
    """
    Pairs of copies, told by many clients in any order.

    A fifth is told at the same moment, half soon after one another, the others when the hold is long over; a tenth of
    all copies is repeated. ``outcomes`` are by order.
    """

    def __init__(self, port: int, pairs: int, rng: random.Random) -> None:
        self._port = port
        self._rng = rng
        self._numbers = iter(range(pairs))
        self._later: list[tuple[float, int, str, int]] = []
        self._serial: Iterator[int] = itertools.count()
        self._is_over = False
        self.outcomes: dict[int, list[str]] = {number: [] for number in range(pairs)}
        self._left = pairs
        #: Done when as many copies are answered as there are pairs: about half of all.
        self.half = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Tell all."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client())

    async def _client(self) -> None:
        client = SourceClient(self._port)
        try:
            while True:
                found = self._next()
                if found is not None:
                    source, number = found
                    entry = await client.send(source, copy_of(source, number, time.time()))
                    self.outcomes[number].append(entry["outcome"])
                    self._left -= 1
                    if self._left == 0:
                        self.half.set_result(None)
                elif self._is_over and not self._later:
                    return
                else:
                    await asyncio.sleep(0.01)
        finally:
            client.close()

    def _next(self) -> tuple[str, int] | None:
        if self._later and self._later[0][0] <= time.monotonic():
            _, _, source, number = heapq.heappop(self._later)
            return source, number
        number = next(self._numbers, -1)
        if number < 0:
            self._is_over = True
            return None
        first, second = self._rng.sample(KINDS[number % 3], 2)
        chance = self._rng.random()
        gap = 0.0 if chance < 0.2 else self._rng.uniform(0.0, 0.5) if chance < 0.7 else HOLD_S + 1.0
        self._push(second, number, gap)
        if self._rng.random() < 0.2:
            self._push(self._rng.choice((first, second)), number, gap + self._rng.choice((0.0, 0.2, HOLD_S + 1.0)))
        return first, number

    def _push(self, source: str, number: int, gap: float) -> None:
        heapq.heappush(self._later, (time.monotonic() + gap, next(self._serial), source, number))


class Account(Struct, frozen=True):
    """What became of all pairs, by order number: ``copies`` how often each id of it arrived."""

    copies: dict[int, dict[str, int]]
    in_flight: frozenset[str]
    phantoms: int
    dead: int
    events: tuple[dict[str, Any], ...]
    outcomes: dict[int, list[str]]
    seconds: float
    peak_mb: float

    @property
    def lost(self) -> list[int]:
        """Orders that never arrived."""
        return [number for number in self.outcomes if number not in self.copies]

    @property
    def doubled(self) -> list[int]:
        """Orders that arrived under two ids, or again without having been in flight when the process was killed."""
        return [
            number
            for number, ids in self.copies.items()
            if len(ids) > 1 or any(count > 1 and one not in self.in_flight for one, count in ids.items())
        ]

    @property
    def merged(self) -> list[int]:
        """Orders of which a copy was merged into one that waited."""
        return [number for number, outcomes in self.outcomes.items() if "merged" in outcomes]

    @property
    def whole(self) -> float:
        """The share of merged orders that arrived with both sides' signals, of those whose content is known."""
        merged = set(self.merged)
        known = [event for event in self.events if number_of(event["event_id"]) in merged]
        return sum(map(is_whole, known)) / len(known)


def number_of(event_id: str) -> int:
    """Return the order that an id belongs to."""
    return int(event_id.rpartition("-")[2])


def is_whole(event: dict[str, Any]) -> bool:
    """Whether an event has the browser's id and click, and the server's person and amount."""
    user, bought = event["user_data"], event["custom_data"]
    return bool(
        event["event_id"].startswith("sh-")
        and user.get("click_id") == EPIK
        and user.get("em")
        and float(bought["value"]) == 12.0
        and bought["currency"] == "USD"
    )


def peak_mb(process: Process) -> float:
    """Return the most memory that a process ever had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024


async def tell_pairs(folder: Path, pairs: int, *, kill: bool) -> Account:
    """Tell all pairs to a real gateway, killed once in the middle or not; drain; settle the account."""
    in_flight: frozenset[str] = frozenset()
    with Pair(folder, config()) as pair:
        traffic = Traffic(pair.gateway.port, pairs, random.Random(20_261_122))
        began = time.monotonic()
        telling = asyncio.create_task(traffic.run())
        if kill:
            await traffic.half
            await asyncio.to_thread(pair.gateway.kill)
            in_flight = (await asyncio.to_thread(snapshot, pair.gateway.store)).in_flight
            await asyncio.to_thread(pair.gateway.start)
        await telling
        seconds = time.monotonic() - began
        await asyncio.to_thread(pair.gateway.drain, 60.0)
        copies: dict[int, dict[str, int]] = {}
        for key, count in pair.sandbox.ids().items():
            event_id = key.partition(" ")[2]
            copies.setdefault(number_of(event_id), {})[event_id] = count
        return Account(
            copies=copies, in_flight=in_flight, phantoms=len(copies.keys() - traffic.outcomes.keys()),
            dead=len(pair.gateway.api("GET", "/api/dead?limit=1000")["letters"]),
            events=tuple(pair.sandbox.events(10_000)), outcomes=traffic.outcomes, seconds=seconds,
            peak_mb=peak_mb(pair.gateway),
        )  # fmt: skip


@pytest.mark.parametrize("kill", [True] if not SOAK else [False, True], ids=lambda kill: "killed" if kill else "whole")
def test_pairs_under_load(tmp_path: Path, kill: bool) -> None:
    """Mixed pairs of 32 clients: each order arrives once, also over a ``kill -9``, and who was in time is merged."""
    account = asyncio.run(tell_pairs(tmp_path, PAIRS, kill=kill))
    told = sum(map(len, account.outcomes.values()))
    again = sum(count - 1 for ids in account.copies.values() for count in ids.values())
    share = len(account.merged) / PAIRS
    say(
        f"{PAIRS} pairs in {told} copies from {CLIENTS} clients{', one kill -9' if kill else ''}: "
        f"{account.seconds:.1f} s, {told / account.seconds:.0f} copies/s; merged {share:.1%}, whole "
        f"{account.whole:.1%} of them; lost {len(account.lost)}, doubled {len(account.doubled)}, sent again after the "
        f"kill {again}; peak {account.peak_mb:.0f} MB; {Counter(itertools.chain(*account.outcomes.values()))}"
    )
    assert (account.lost, account.doubled, account.phantoms, account.dead) == ([], [], 0, 0)
    assert all(len(outcomes) >= 2 for outcomes in account.outcomes.values())
    # seven in ten come in time; a kill makes some late
    assert 0.5 < share < 0.8
    assert account.whole > (0.9 if kill else 0.999)
    assert conformance.problems_of_events(account.events[:300]) == []


def held(store: Path) -> list[tuple[float, float]]:
    """Return (due, accepted_at) of each unit that waits, from the files as they are."""
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT due, accepted_at FROM unit WHERE state = 0 ORDER BY id").fetchall()
    finally:
        connection.close()


def test_a_hold_survives_a_kill(tmp_path: Path) -> None:
    """After ``kill -9`` what was held waits on until the time that it had, and still meets its other half."""
    hold_s = 8.0

    async def tell(port: int, source: str, number: int) -> str:
        client = SourceClient(port)
        try:
            entry = await client.send(source, copy_of(source, number, time.time()))
        finally:
            client.close()
        return str(entry["outcome"])

    with Pair(tmp_path, config(hold_s)) as pair:
        port = pair.gateway.port
        assert [asyncio.run(tell(port, "shop", number)) for number in (1, 2)] == ["accepted"] * 2
        pair.gateway.kill()
        before = held(pair.gateway.store)
        assert [round(due - accepted_at, 1) for due, accepted_at in before] == [hold_s] * 2
        pair.gateway.start()
        assert asyncio.run(tell(port, "pixel", 1)) == "merged"
        until(lambda: held(pair.gateway.store) == before[1:], 5, "the pair leaves, the other one waits as before", 0.05)
        assert time.time() < before[1][0], "the machine was too slow for this test to show anything"
        (first,) = pair.sandbox.events(1)
        assert (first["event_id"], is_whole(first)) == ("sh-1", True)
        until(lambda: pair.sandbox.counts()["processed"] == 2, hold_s + 5, "the other one arrives alone")
        assert time.time() >= before[1][0]
        assert pair.sandbox.ids() == {"checkout sh-1": 1, "checkout shop-2": 1}
