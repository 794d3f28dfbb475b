"""A gateway inside the test, with a wire to its sandbox that records every call, and a clock that can be stepped."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.event import Struct
from gateway.http import Client
from gateway.interfaces import Answer
from gateway.operator import operator_app
from gateway.outbox.sqlite import SqliteOutbox
from gateway.sandbox import PinterestSandbox, SandboxConfig
from gateway.server import Listener, tcp_socket
from gateway.testing import Running, running
from tests.harness import conformance
from tests.harness.processes import ACCOUNT

SECRET = "server-secret"
BEARER = {"Authorization": f"Bearer {SECRET}"}


class Clock:
    """Wall time that stands still until it is stepped."""

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        """Return the time, Unix seconds."""
        return self.now

    def step(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Call(Struct, frozen=True):
    """One call to the vendor; ``at`` by the gateway's clock."""

    at: float
    url: str
    body: Any

    @property
    def ids(self) -> list[str]:
        """The events' ids, in order."""
        return [event["event_id"] for event in self.body["data"]]


class Wire:
    """An HTTP client that notes every call with events before it is made."""

    def __init__(self, inner: Client, clock: Callable[[], float]) -> None:
        self._inner = inner
        self._clock = clock
        self.calls: list[Call] = []

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
        """Note the call, unless it only asks, and make it."""
        if method != "GET":
            self.calls.append(Call(at=self._clock(), url=url, body=json.loads(content or b"null")))
        return await self._inner.request(
            method, url, headers=headers, content=content, timeout_s=timeout_s, max_bytes=max_bytes
        )


class World:
    """A running gateway, its sandbox, its clock and its wire."""

    def __init__(self, running: Running, wire: Wire, clock: Callable[[], float]) -> None:
        self.running = running
        self.gateway = running.gateway
        self.sandbox = running.sandbox
        self.wire = wire
        self.clock = clock

    def step(self, seconds: float) -> None:
        """Let time pass on a stepped clock, and let the lanes notice."""
        assert isinstance(self.clock, Clock)
        self.clock.step(seconds)
        self.gateway.sender.poke()

    @property
    def calls(self) -> list[Call]:
        """The calls so far."""
        return self.wire.calls

    async def post(self, *events: dict[str, Any], source: str = "api") -> list[dict[str, Any]]:
        """Send events as one request of a server source; returns what became of each."""
        status, answer = await self.running.post(source, list(events), BEARER)
        assert status == 200, answer
        found: list[dict[str, Any]] = answer["events"]
        return found

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the operator's API; returns the decoded JSON, or the text."""
        transport = httpx.ASGITransport(operator_app(self.gateway))
        async with httpx.AsyncClient(transport=transport, base_url="http://operator") as client:
            answer = await client.request(method, path, json=body)
        is_json = answer.headers["content-type"].startswith("application/json")
        return answer.json() if is_json else answer.text

    async def letters(self) -> list[dict[str, Any]]:
        """Return the dead letters, as ``dead list`` has them."""
        found: list[dict[str, Any]] = (await self.api("GET", "/api/dead?limit=1000"))["letters"]
        return found

    def copies(self) -> dict[str, int]:
        """How many copies of each event id the sandbox took."""
        return {key.partition(" ")[2]: count for key, count in self.sandbox.record.ids().items()}

    async def until(self, reached: Callable[[], bool], what: str, deadline_s: float = 20.0) -> None:
        """Wait for a condition; fails with ``what`` after the deadline."""
        end = time.monotonic() + deadline_s
        while not reached():
            assert time.monotonic() < end, f"{what}: not within {deadline_s:g} s"
            await asyncio.sleep(0.005)

    async def drain(self, deadline_s: float = 20.0) -> None:
        """Wait until nothing waits and nothing is under way."""

        def empty() -> bool:
            # a claim under way is neither waiting nor in flight yet, but leased
            assert isinstance(self.gateway.outbox, SqliteOutbox)
            lanes = self.gateway.sender.lanes
            idle = all(lane.state.in_flight == 0 and not lane._has_work() for lane in lanes)
            return idle and not self.gateway.outbox._ledger.units

        await self.until(empty, "the queue is empty", deadline_s)


def event(event_id: str, now: float, **changes: Any) -> dict[str, Any]:
    """Return a sound event of the tag's JSON."""
    return {
        "event_name": "checkout", "event_id": event_id, "event_time": int(now) - 5, "value": "12.50", "currency": "EUR",
        "user": {"email": f"{event_id}@example.com"}, **changes,
    }  # fmt: skip


def tables(**destination: Any) -> dict[str, Any]:
    """One server source ``api``, one destination; ``destination`` are more of its options."""
    return {
        "sources": {"api": {"adapter": "browser_tag", "secrets": [SECRET]}},
        "destinations": {"pinterest": {"ad_account_id": ACCOUNT, **destination}},
    }


@asynccontextmanager
async def world(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    clock: Callable[[], float] = time.time,
    listener: bool = False,
    sandbox: SandboxConfig | None = None,
    plugins: Mapping[str, object] | None = None,
) -> AsyncIterator[World]:
    """
    Run a gateway; at the end every body that it sent is held against the vendor's description.

    Args:
        config: See :func:`gateway.testing.running`; :func:`tables` without one.
        listener: The sandbox listens on a real port, for faults that only a network has.
    """
    stand_in = PinterestSandbox(sandbox or SandboxConfig(), clock=clock)
    tables_ = {name: dict(table) for name, table in (config or tables()).items()}
    if listener:
        async with listening(stand_in.app) as url:
            wire = Wire(Client(), clock)
            for table in tables_.setdefault("destinations", {"pinterest": {}}).values():
                table["base_url"] = f"{url}/v5"
            async with _running(tables_, folder, stand_in, wire, clock, plugins) as found:
                yield found
    else:
        wire = Wire(Client(transport=httpx.ASGITransport(stand_in.app)), clock)
        async with _running(tables_, folder, stand_in, wire, clock, plugins) as found:
            yield found
    assert conformance.problems(call.body for call in wire.calls) == []


@asynccontextmanager
async def _running(
    config: Mapping[str, Any], folder: Path, sandbox: PinterestSandbox, wire: Wire, clock: Callable[[], float],
    plugins: Mapping[str, object] | None,
) -> AsyncIterator[World]:  # fmt: skip
    try:
        async with running(config, folder, clock=clock, sandbox=sandbox, http=wire, plugins=plugins) as found:
            for destination in found.gateway.parts.destinations.values():
                destination.clock = clock
            yield World(found, wire, clock)
    finally:
        await wire._inner.close()


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """Serve an app on a free port; gives its URL."""
    sock = tcp_socket("127.0.0.1:0", "test")
    stop = asyncio.Event()
    server = asyncio.create_task(Listener(app, sock, "hypercorn", 0.2).run(stop))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        stop.set()
        await asyncio.wait_for(server, 10)
        sock.detach()
