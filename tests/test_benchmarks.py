"""The benchmarks' own parts: what they print, and that loader, sink and fillings tell the truth."""

import asyncio
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from benchmarks.events import queue
from benchmarks.figures import Figure
from benchmarks.loader import Load, Report, Run, prepare
from benchmarks.outbox import admit, fill
from benchmarks.sink import Sink
from gateway.event import SealedEvent
from gateway.outbox import Lane
from gateway.outbox.sqlite import SqliteOutbox

linux = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc")
ACCEPTED = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"accepted":1}'
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Server(asyncio.Protocol):
    """Gives each request the next of some answers, in two pieces."""

    answers: list[bytes]
    given = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        answer = self.answers[Server.given % len(self.answers)]
        Server.given += 1
        self.transport.write(answer[:20])
        asyncio.get_running_loop().call_soon(self.transport.write, answer[20:])


def loaded(answers: list[bytes], *, rate: float | None = None, most: int = 40) -> Report:
    async def run() -> Report:
        Server.answers, Server.given = answers, 0
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        load = Load(
            port=port, pid=os.getpid(), seconds=5.0 if rate is None else 0.2, connections=4, most=most, rate=rate
        )
        async with server:
            return await Run(load, iter(prepare(load))).run()

    return asyncio.run(run())


def test_a_figure_says_value_spread_and_goal() -> None:
    """A line has the median, the spread, the goal and whether it is met, in either direction."""
    high = Figure(name="ratio", values=[0.9, 0.7, 0.8], target=0.75)
    assert str(high) == "ratio: 0.80 (0.70 to 0.90) [target ≥ 0.75: met]"
    low = Figure(name="memory", values=[250.0], unit=" MB", target=200, at_most=True)
    assert str(low) == "memory: 250 MB [target ≤ 200 MB: missed]"
    assert Figure(name="rows", values=[1.0]).is_met


@linux
def test_the_loader_counts_only_what_was_accepted() -> None:
    """Refusals are counted as failed, and a run ends early when its requests are used up."""
    report = loaded([ACCEPTED, REFUSED])
    assert (report.accepted, report.failed) == (20, 20)
    assert report.events <= report.accepted
    assert report.elapsed_s < 5.0


@linux
def test_a_run_at_a_rate_sends_that_many() -> None:
    """With a rate, requests are due at fixed times, and each has a latency."""
    report = loaded([ACCEPTED], rate=200.0, most=1_000)
    assert 1 <= report.accepted <= 42
    assert report.failed == 0
    assert 0.0 < report.p50_ms <= report.p99_ms


def test_the_sink_counts_events_and_answers_each() -> None:
    """A call of two events is answered with two statuses, and counted."""

    async def run() -> bytes:
        Sink.events = 0
        server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            content = b'{"data":[{"event_id":"a"},{"event_id":"b"}]}'
            writer.write(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content))
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.rsplit(b": ", 1)[1]))
            writer.close()
            await writer.wait_closed()
            return body

    body = asyncio.run(run())
    assert body.count(b'"processed"') == 2
    assert Sink.events == 2


def test_a_filled_queue_is_claimed_like_any_other(tmp_path: Path) -> None:
    """Queued events have ids of their own and are due."""
    path = tmp_path / "var" / "gateway.db"
    queue(path, 1_500)

    async def claimed() -> set[str]:
        outbox = SqliteOutbox(path)
        found: set[str] = set()
        lane = Lane(destination="pinterest", kind="live")
        while (lease := await outbox.claim(lane, 1_000, 2e9)) is not None:
            found.update(unit.event.event_id for unit in lease.units)
        await outbox.close()
        return found

    assert len(asyncio.run(claimed())) == 1_500


@linux
def test_filled_keys_are_there_and_new_ones_are_accepted(tmp_path: Path) -> None:
    """A store with filled keys takes new events under unit numbers that were not used."""
    path = tmp_path / "gateway.db"

    async def close() -> None:
        await SqliteOutbox(path).close()

    asyncio.run(close())
    fill(path, 1_000)
    event = SealedEvent(
        event_id="1", event_name="checkout", event_time=1, accepted_at=1.0, source="api", site="api", born="server"
    )

    async def run() -> float:
        outbox = SqliteOutbox(path)
        result = await admit(outbox, event, 0.05)
        await outbox.close()
        return result.rate

    assert asyncio.run(run()) > 0
    connection = sqlite3.connect(path)
    marks, units, lowest = connection.execute(
        "SELECT (SELECT count(*) FROM mark), (SELECT count(*) FROM unit), (SELECT min(id) FROM unit)"
    ).fetchone()
    connection.close()
    assert marks == 1_000 + units
    assert lowest > 1_000
