"""A vendor at its worst, and how often the gateway calls meanwhile: deadlines, jitter, no amplification."""

import asyncio
import json
import random
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import sender
from gateway.http import Client
from gateway.sandbox import Fault
from gateway.testing import running
from tests.harness.inprocess import BEARER, Clock, World, event, tables, world
from tests.harness.processes import say

TIMEOUT_S = 0.5
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


# -- a vendor on a plain socket


async def _read(reader: asyncio.StreamReader) -> list[str]:
    """Read one whole request; returns the ids of its events."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = (line.partition(":") for line in head.decode().split("\r\n"))
    length = next(int(value) for name, _, value in lines if name.lower() == "content-length")
    return [one["event_id"] for one in json.loads(await reader.readexactly(length))["data"]]


def _answer(count: int) -> bytes:
    report = {"status": "processed", "error_message": "", "warning_message": ""}
    body = json.dumps(
        {"num_events_received": count, "num_events_processed": count, "events": [report] * count}
    ).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def _hang(_streams: Streams, _count: int) -> None:
    await asyncio.sleep(30)


async def _head_then_hang(streams: Streams, count: int) -> None:
    streams[1].write(_answer(count).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    await asyncio.sleep(30)


async def _dribble(streams: Streams, count: int) -> None:
    for byte in _answer(count):
        streams[1].write(bytes([byte]))
        await asyncio.sleep(0.05)


async def _reset(streams: Streams, _count: int) -> None:
    sock = streams[1].get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    streams[1].transport.abort()


async def _half_an_answer(streams: Streams, count: int) -> None:
    streams[1].write(_answer(count)[:-20])


async def _no_http(streams: Streams, _count: int) -> None:
    streams[1].write(b"SSH-2.0-nothing-of-the-kind\r\n")


async def _close(_streams: Streams, _count: int) -> None:
    return


WORST: dict[str, Callable[[Streams, int], Awaitable[None]]] = {
    "accepts and hangs": _hang, "head, then nothing": _head_then_hang, "a byte at a time": _dribble,
    "reset after the whole body": _reset, "half an answer": _half_an_answer, "no HTTP": _no_http, "closes": _close,
}  # fmt: skip


@asynccontextmanager
async def vendor(first: Callable[[Streams, int], Awaitable[None]]) -> AsyncIterator[tuple[str, list[list[str]]]]:
    """Serve a vendor whose first answer is another; gives its URL and the ids of each call."""
    calls: list[list[str]] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                ids = await _read(reader)
                calls.append(ids)
                if len(calls) == 1:
                    await first((reader, writer), len(ids))
                    return
                writer.write(_answer(len(ids)))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v5", calls
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("way", WORST)
def test_a_call_ends_in_time_and_goes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Whatever the vendor does with a connection, the call ends at its deadline and the same events go again, once."""
    monkeypatch.setattr(sender, "_CAP_S", 0.05)

    async def main() -> tuple[list[list[str]], float, list[Any]]:
        client = Client()
        async with vendor(WORST[way]) as (url, calls):
            config = tables(base_url=url, timeout_s=TIMEOUT_S, linger_s=0.02)
            async with running(config, tmp_path, http=client) as found:
                started = time.monotonic()
                events = [event(f"e{number}", time.time()) for number in range(3)]
                await found.post("api", events, BEARER)
                await found.ended(3)
                took = time.monotonic() - started
                ends = [unit.end for unit in found.settled]
        await client.close()
        return calls, took, ends

    calls, took, ends = asyncio.run(main())
    assert [sorted(ids) for ids in calls] == [["e0", "e1", "e2"]] * 2
    assert ends == ["delivered"] * 3
    # one deadline, not one for each byte; the machine runs other tests too
    assert took < TIMEOUT_S + 2.0


def test_the_check_finds_a_call_without_a_deadline(tmp_path: Path) -> None:
    """The control: with a deadline of half a minute the same vendor holds the call for longer than the bound."""

    async def main() -> None:
        client = Client()
        async with vendor(_dribble) as (url, _):
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(TIMEOUT_S + 2.0):
                    await client.request("POST", url, content=b'{"data": []}', timeout_s=30.0)
            assert time.monotonic() - started >= TIMEOUT_S + 2.0
        await client.close()

    asyncio.run(main())


def test_a_name_that_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such host: nothing was sent, nobody is in doubt, and everything goes when the name is known again."""
    monkeypatch.setattr(sender, "_CAP_S", 0.05)
    lookups = 0

    async def main() -> tuple[list[list[str]], list[bool]]:
        loop = asyncio.get_running_loop()
        look_up = loop.getaddrinfo

        async def failing(host: Any, *rest: Any, **more: Any) -> Any:
            nonlocal lookups
            if host in ("localhost", b"localhost"):
                lookups += 1
                if lookups <= 3:
                    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
                host = "127.0.0.1"
            return await look_up(host, *rest, **more)

        monkeypatch.setattr(loop, "getaddrinfo", failing)
        client = Client()
        async with vendor(_close) as (url, calls):
            calls.append([])  # its first answer is a sound one
            config = tables(base_url=url.replace("127.0.0.1", "localhost"), linger_s=0.02)
            async with running(config, tmp_path, http=client) as found:
                await found.post("api", event("e", time.time(), action_source="offline"), BEARER)
                await found.ended(1)
                doubts = [unit.maybe_twice for unit in found.settled]
        await client.close()
        return calls, doubts

    calls, doubts = asyncio.run(main())
    assert calls == [[], ["e"]]
    assert doubts == [False]
    assert lookups >= 4


# -- how often the gateway calls, on a clock that is stepped


async def minutes(here: World, count: int, step_s: float, each: Callable[[int], Awaitable[None]]) -> None:
    """Let so many minutes pass in steps, with something at each."""
    for number in range(int(count * 60 / step_s)):
        await each(number)
        here.step(step_s)
        await asyncio.sleep(0.005)  # the lanes look every millisecond
        await here.until(lambda: not any(lane.state.in_flight for lane in here.gateway.sender.lanes), "no call is out")


@pytest.fixture
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a blocked lane look at the stepped clock at once."""
    monkeypatch.setattr(sender.DestinationLane, "_pause", _soon)


async def _soon(self: sender.DestinationLane, seconds: float | None, *, wake: bool = True) -> None:
    await asyncio.sleep(0.001)


def test_an_hour_without_the_vendor(tmp_path: Path, quick_look: None) -> None:
    """Sixty minutes of 503 on a stepped clock: everything is kept, few calls are made, and all arrive afterwards."""
    clock = Clock()

    async def main() -> World:
        async with world(tmp_path, tables(linger_s=0.0), clock=clock) as here:
            here.sandbox.faults.down()

            async def each(number: int) -> None:
                await here.post(event(f"e{number}", clock()))

            await minutes(here, 60, 30.0, each)
            assert await here.letters() == []
            here.calls_down = len(here.calls)  # type: ignore[attr-defined]
            here.sandbox.faults.clear()
            for _ in range(5):
                here.step(61.0)
                await asyncio.sleep(0.01)
            await here.drain()
            return here

    here = asyncio.run(main())
    down: int = here.calls_down  # type: ignore[attr-defined]
    say(f"an hour of 503: {down} calls, then {len(here.calls) - down} for {len(here.copies())} events")
    assert here.copies() == {f"e{number}": 1 for number in range(120)}
    assert 30 <= down <= 60 * 60 / 30, "about one probe in half a minute"
    assert len(here.calls) - down <= 8, "the backlog goes in full batches"


def test_two_lanes_do_not_march_in_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_look: None) -> None:
    """Two accounts of one vendor fail together: their waits differ by more than a tenth, again and again."""
    monkeypatch.setattr(random, "SystemRandom", lambda: random.Random(7))
    clock = Clock()
    waits: dict[str, list[float]] = {}
    back_off = sender.DestinationLane._back_off

    def noting(self: sender.DestinationLane, verdict: Any) -> None:
        back_off(self, verdict)
        waits.setdefault(self.state.destination, []).append(self._blocked_until - self._clock())

    monkeypatch.setattr(sender.DestinationLane, "_back_off", noting)
    config = tables(linger_s=0.0)
    config["destinations"]["other"] = {"ad_account_id": "549000000002", "linger_s": 0.0}

    async def main() -> None:
        async with world(tmp_path, config, clock=clock) as here:
            here.sandbox.faults.down()
            await here.post(event("e", clock()))

            async def each(_number: int) -> None:
                return

            await minutes(here, 20, 10.0, each)
            here.sandbox.faults.clear()
            here.step(100.0)
            await here.drain()

    asyncio.run(main())
    pairs = list(zip(waits["pinterest"], waits["other"], strict=False))
    alike = "".join("x" if abs(one - other) <= 0.1 * max(one, other) else "." for one, other in pairs)
    say(f"waits of two lanes: {alike}")
    assert len(pairs) > 10
    assert "xxxx" not in alike
    assert is_in_step([(wait, wait) for wait, _ in pairs]), "the control: without jitter they march in step"


def is_in_step(pairs: list[tuple[float, float]]) -> bool:
    """Whether two lanes waited alike more than three times in a row."""
    alike = "".join("x" if abs(one - other) <= 0.1 * max(one, other) else "." for one, other in pairs)
    return "xxxx" in alike


def test_a_vendor_that_comes_and_goes_is_not_called_more(tmp_path: Path, quick_look: None) -> None:
    """Ten minutes with twelve seconds down in each: at most 1.2 calls where a healthy vendor gets one."""

    async def calls(folder: Path, *, flapping: bool) -> int:
        clock = Clock()
        async with world(folder, tables(linger_s=0.0), clock=clock) as here:

            async def each(number: int) -> None:
                here.sandbox.faults.clear()
                if flapping and number % 15 < 3:
                    here.sandbox.faults.down()
                await here.post(event(f"e{number}", clock()))

            await minutes(here, 10, 4.0, each)
            here.sandbox.faults.clear()
            here.step(61.0)
            await here.drain()
            assert len(here.copies()) == 150
            return len(here.calls)

    for name in ("healthy", "flapping"):
        (tmp_path / name).mkdir()
    healthy = asyncio.run(calls(tmp_path / "healthy", flapping=False))
    flapping = asyncio.run(calls(tmp_path / "flapping", flapping=True))
    say(f"calls: {healthy} to a healthy vendor, {flapping} to one that comes and goes")
    assert flapping <= 1.2 * healthy


@pytest.mark.parametrize("listed", [True, False])
def test_a_poisoned_stream(tmp_path: Path, listed: bool) -> None:
    """One event in twenty is refused: with a list no call more is made; without one each costs a bisection."""
    count, batch = 800, 200

    async def main() -> World:
        async with world(tmp_path, tables(batch_size=batch, linger_s=0.5)) as here:
            poisons = tuple(f"e{number}" for number in range(7, count, 20))
            how: dict[str, Any] = {"kind": "partial"} if listed else {"kind": "status", "status": 400}
            here.sandbox.faults.stand(Fault(event_ids=poisons, **how))
            for start in range(0, count, batch):
                await here.post(*(event(f"e{number}", time.time()) for number in range(start, start + batch)))
            await here.running.ended(count, 60.0)
            assert {letter["event_id"] for letter in await here.letters()} == set(poisons)
            return here

    here = asyncio.run(main())
    say(f"5 % poison, {'listed' if listed else 'not listed'}: {len(here.calls)} calls for {count // batch} batches")
    assert set(here.copies().values()) == {1}
    assert len(here.copies()) == count - count // 20
    # 80 % of the calls carry what they would without the poison
    assert len(here.calls) <= (count // batch) * 1.25 if listed else len(here.calls) <= 22 * (count // 20)
