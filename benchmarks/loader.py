"""
The loader: HTTP/1.1 clients on bare protocols, so that one core can load any of the servers.

A worker (see :mod:`benchmarks.machine`): each command is one run. Requests are made before the clock starts. A run is
either closed (each connection sends as soon as it has its answer) or has a rate (requests are due at fixed times,
latency counts from when one is due, whether or not a connection is free).
"""

import asyncio
import gc
import re
import time
from collections import deque
from collections.abc import Iterator
from typing import cast

import msgspec

from benchmarks.hits import SECRET, batch, body
from benchmarks.machine import answer, commands, cpu_s
from gateway.commands.serve import new_event_loop

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_HEAD = (
    f"POST /in/api HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nauthorization: Bearer {SECRET}\r\n"
).encode()
_TICK_S = 0.001
#: How long the last answers are waited for.
_TAIL_S = 10.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """
    One run against a port of this machine.

    ``pid`` is the server; ``size`` events a request; ``most`` requests are prepared, and the run ends early when they
    are used up; ``rate`` is requests a second, none: as many as possible.
    """

    port: int
    pid: int
    seconds: float
    connections: int = 64
    size: int = 1
    most: int = 60_000
    rate: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """
    What came of a run.

    ``events`` were accepted in ``elapsed_s``; ``accepted`` counts also those whose answer came after the end;
    ``failed`` are requests that had another answer, or none. ``cpu_us`` is the server's CPU time an event, ``busy`` the
    loader's share of its own core. Latencies in ms.
    """

    events: int
    accepted: int
    failed: int
    elapsed_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    busy: float

    @property
    def rate(self) -> float:
        """Accepted events a second."""
        return self.events / self.elapsed_s


class Client(asyncio.Protocol):
    """One connection; one request is under way at a time."""

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None
        self.sent_at = 0.0
        self.is_waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def send(self, request: bytes, at: float) -> None:
        assert self._transport is not None
        self.sent_at = at
        self.is_waiting = True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end) if end >= 0 else None
        if length is None or len(data) < end + 4 + int(length[1]):
            self._buffer = data
            return
        self._buffer = b""
        self.is_waiting = False
        self._run.answered(self, data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.is_waiting:
            self.is_waiting = False
            self._run.lost()

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


class Run:
    """The state of one run."""

    def __init__(self, load: Load, requests: Iterator[bytes]) -> None:
        self._load = load
        self._requests = requests
        self._marker = f'"accepted":{load.size}'.encode()
        self._idle: list[Client] = []
        self._due: deque[float] = deque()
        self._under_way = 0
        self._has_ended = False
        self._done = asyncio.Event()
        self._counted = self._good = self._bad = 0
        self._latencies: list[float] = []
        self._cpu_s = 0.0

    async def run(self) -> Report:
        loop = asyncio.get_running_loop()
        load = self._load
        clients = [
            (await loop.create_connection(lambda: Client(self), "127.0.0.1", load.port))[1]
            for _ in range(load.connections)
        ]
        cpu, own = cpu_s(load.pid), time.process_time()
        started = time.perf_counter()
        self._deadline = started + load.seconds
        if load.rate is None:
            for client in clients:
                self._next(client, started)
        else:
            self._idle = clients[:]
            self._due_at = started
            self._tick()
        try:
            async with asyncio.timeout(load.seconds + _TAIL_S):
                await self._done.wait()
        except TimeoutError:
            self._end(time.perf_counter())
            self._bad += self._under_way
        own = time.process_time() - own
        total = time.perf_counter() - started
        for client in clients:
            client.close()
        found = sorted(self._latencies) or [float("nan")]
        return Report(
            events=self._counted * load.size, accepted=self._good * load.size, failed=self._bad,
            elapsed_s=self._deadline - started, p50_ms=found[len(found) // 2] * 1e3,
            p99_ms=found[int(len(found) * 0.99)] * 1e3,
            cpu_us=(self._cpu_s - cpu) / max(1, self._counted * load.size) * 1e6, busy=own / total,
        )  # fmt: skip

    def answered(self, client: Client, data: bytes) -> None:
        now = time.perf_counter()
        self._under_way -= 1
        in_time = now <= self._deadline and not self._has_ended
        if data.startswith(b"HTTP/1.1 200") and self._marker in data:
            self._good += 1
            self._counted += in_time
        else:
            self._bad += 1
        if in_time or self._load.rate is not None:
            self._latencies.append(now - client.sent_at)
        self._next(client, now)

    def lost(self) -> None:
        self._under_way -= 1
        self._bad += 1
        self._finish()

    def _next(self, client: Client, now: float) -> None:
        if self._load.rate is not None and not self._due:
            self._idle.append(client)
        elif now < self._deadline and (request := next(self._requests, None)) is not None:
            self._under_way += 1
            client.send(request, self._due.popleft() if self._due else now)
        else:
            self._end(now)
        self._finish()

    def _tick(self) -> None:
        now = time.perf_counter()
        if now >= self._deadline:
            self._end(now)
            self._finish()
            return
        while self._due_at <= now:
            self._due_at += 1 / (self._load.rate or 1.0)
            self._due.append(now)
        while self._due and self._idle:
            self._next(self._idle.pop(), now)
        asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _end(self, now: float) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._deadline = min(self._deadline, now)
            self._cpu_s = cpu_s(self._load.pid)

    def _finish(self) -> None:
        if self._has_ended and self._under_way == 0:
            self._done.set()


def prepare(load: Load) -> list[bytes]:
    """Return distinct requests."""
    contents = ((body() if load.size == 1 else batch(load.size)) for _ in range(load.most))
    return [b"%scontent-length: %d\r\n\r\n%s" % (_HEAD, len(content), content) for content in contents]


def main() -> None:
    """Carry out runs until the input ends."""
    gc.disable()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        for load in commands(Load):
            answer(runner.run(Run(load, iter(prepare(load))).run()))
            gc.collect()


if __name__ == "__main__":
    main()
