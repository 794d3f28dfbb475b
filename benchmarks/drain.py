"""
How fast a gateway delivers what is queued: ``tag-gateway serve`` on one core, on the other a sink that takes
everything.

The queue is filled before the server starts. Time and CPU count from the first call at the sink to the last event
there. Afterwards nothing may be left in the store, and the sink must have had each event once.
"""

import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.events import queue
from benchmarks.figures import Figure
from benchmarks.machine import LOADING, cpu_s, end, folder, free_port, memory_mb, start, wait_for
from benchmarks.servers import start_gateway, write_config

QUEUED = 50_000
MANY = 1_000_000
_POLL_S = 0.02
_WATCHED_S = 20.0
#: A drain that is slower than this is ended.
_MOST_S = 60.0


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """Events a second, CPU µs an event, events that did not arrive or came twice, events still in the store."""

    rate: float
    cpu_us: float
    astray: int
    left: int


def run(full: bool = False, rounds: int = 2) -> Iterator[Figure]:
    """Measure; with ``full`` also memory with a million events queued."""
    drained = [_drain(QUEUED) for _ in range(rounds)]
    yield Figure(
        name="drain", values=[one.rate for one in drained], unit=" events/s", target=5_000,
        reference=f"{QUEUED:,} queued, one core for the server",
    )  # fmt: skip
    yield Figure(
        name="drain: CPU from row to settled delivery", values=[one.cpu_us for one in drained], unit=" µs/event",
        target=30, at_most=True,
    )  # fmt: skip
    yield Figure(
        name="drain: events not delivered exactly once", values=[one.astray + one.left for one in drained], target=0,
        at_most=True,
    )  # fmt: skip
    if full:
        yield from _memory()


def _drain(count: int) -> Drained:
    with folder() as place:
        port, sink_port = free_port(), free_port()
        config = write_config(place, port, "hypercorn", f"http://127.0.0.1:{sink_port}/v5")
        store = place / "var" / "gateway.db"
        queue(store, count)
        sink = _start_sink(sink_port)
        try:
            server = start_gateway(config, port)
            try:
                first, began, cpu = _until(sink_port, 1, server.pid)
                last, ended, cpu_then = _until(sink_port, count, server.pid)
            finally:
                end(server)
            arrived, events = _taken(sink_port), max(1, last - first)
        finally:
            end(sink)
        return Drained(
            rate=events / (ended - began), cpu_us=(cpu_then - cpu) / events * 1e6,
            astray=abs(arrived - count), left=_left(store),
        )  # fmt: skip


def _start_sink(port: int) -> "subprocess.Popen[bytes]":
    sink = start(["-m", "benchmarks.sink", str(port)], LOADING, stderr=subprocess.DEVNULL)
    wait_for(port, sink)
    return sink


def _until(port: int, count: int, pid: int) -> tuple[int, float, float]:
    """Wait for so many events; returns how many there are, when, and the server's CPU time by then."""
    deadline = time.perf_counter() + _MOST_S
    while (taken := _taken(port)) < count and time.perf_counter() < deadline:
        time.sleep(_POLL_S)
    return taken, time.perf_counter(), cpu_s(pid)


def _taken(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10.0) as answer:
        return int(answer.read())


def _left(store: Path) -> int:
    connection = sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)
    (count,) = connection.execute("SELECT count(*) FROM unit").fetchone()
    connection.close()
    return int(count)


def _memory() -> Iterator[Figure]:
    """Serve and deliver for a while with a million events queued, and yield the highest memory use."""
    with folder() as place:
        port, sink_port = free_port(), free_port()
        config = write_config(place, port, "hypercorn", f"http://127.0.0.1:{sink_port}/v5")
        store = place / "var" / "gateway.db"
        queue(store, MANY)
        size_mb = store.stat().st_size / 1e6
        sink = _start_sink(sink_port)
        try:
            server = start_gateway(config, port)
            try:
                time.sleep(_WATCHED_S)
                most, taken = memory_mb(server.pid, "VmHWM"), _taken(sink_port)
            finally:
                end(server)
        finally:
            end(sink)
    yield Figure(
        name="memory while a million queued events are delivered", values=[most], unit=" MB", target=200, at_most=True,
        reference=f"highest in {_WATCHED_S:.0f} s, {taken:,} delivered; the queue has {size_mb:,.0f} MB on disk",
    )  # fmt: skip


if __name__ == "__main__":
    for figure in run():
        print(figure, flush=True)
