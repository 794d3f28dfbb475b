"""``tag-gateway events``: the latest events of a running gateway, new ones as they come, and a clean end."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway import config as configuration
from gateway import livestream
from gateway.commands.events import FATES, line_of, tell
from gateway.errors import CommandFailed
from gateway.livestream import SHOWN
from gateway.logs import HitLog
from gateway.operator import operator_app
from gateway.outcome import Outcome, Settled
from gateway.runtime import Gateway
from gateway.server import Listener, unix_socket
from gateway.testing.asgi import AppClient

CONFIG = """
[store]
url = "sqlite:///gateway.db"
[sources.api]
adapter = "browser_tag"
secrets = ["a-secret-of-the-api"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "549755885175"
token = "sandbox-token"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a configuration file."""
    found = tmp_path / "gateway.toml"
    found.write_text(CONFIG)
    return found


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[Gateway]:
    """Serve a gateway's control socket, as ``serve`` does."""
    config = configuration.load(path)
    gateway = Gateway(config, http=AppClient(None), hit_log=HitLog(enabled=False))
    sock = unix_socket(config.socket_path)
    stop = asyncio.Event()
    server = asyncio.create_task(Listener(operator_app(gateway), sock, "hypercorn", 1.0).run(stop))
    try:
        yield gateway
    finally:
        gateway.live.close()
        stop.set()
        await asyncio.wait_for(server, 10.0)
        sock.detach()
        await gateway.stop()


def run(path: Path, scenario: Callable[[Gateway], Coroutine[Any, Any, None]]) -> None:
    """Run one scenario against a served gateway."""

    async def main() -> None:
        async with served(path) as gateway:
            await scenario(gateway)

    asyncio.run(main())


def add(gateway: Gateway, event_id: str, **changes: Any) -> None:
    """Put an outcome among the latest."""
    outcome = {
        "fate": "accepted", "event_name": "checkout", "destination": "pinterest", "unit": event_id, **changes,
        "event_id": event_id,
    }  # fmt: skip
    gateway.recent.add("api", Outcome(**outcome))


class Shown:
    """What was shown, and a way to wait for more of it."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    def __call__(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._changed.set()

    async def count(self, number: int) -> list[dict[str, Any]]:
        """Wait for so many rows."""
        async with asyncio.timeout(10.0):
            while len(self.rows) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.rows


async def streaming(gateway: Gateway) -> None:
    """Wait until a stream is open."""
    end = time.monotonic() + 20.0
    while not len(gateway.live):
        assert time.monotonic() < end, "no stream was opened"
        await asyncio.sleep(0.005)


async def command(path: Path, *words: str) -> asyncio.subprocess.Process:
    """Start the command in a process of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "events", "--config", str(path), *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[1],
    )  # fmt: skip


def test_the_latest_are_told_oldest_first(path: Path) -> None:
    """Without --follow it tells the latest that fit, the newest at the end, and ends."""

    async def scenario(gateway: Gateway) -> None:
        for number in range(5):
            add(gateway, f"e{number}", event_name="lead" if number % 2 else "checkout")
        shown = Shown()
        await tell(path, {}, 2, shown, follow=False)
        assert [row["event_id"] for row in shown.rows] == ["e3", "e4"]
        leads = Shown()
        await tell(path, {"name": "lead"}, 20, leads, follow=False)
        assert [row["event_id"] for row in leads.rows] == ["e1", "e3"]
        nothing = Shown()
        await tell(path, {}, 0, nothing, follow=False)
        assert nothing.rows == []

    run(path, scenario)


def test_new_ones_are_followed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --follow each new event is told once, again when it ends, and the stop of the gateway is said."""
    monkeypatch.setattr(livestream, "TICK_S", 0.0)

    async def scenario(gateway: Gateway) -> None:
        add(gateway, "old")
        ended = Settled(
            unit="old", destination="pinterest", event_id="old", event_name="checkout", source="api", end="delivered"
        )
        gateway.recent.settled(ended)
        shown = Shown()
        following = asyncio.create_task(tell(path, {}, 20, shown, follow=True))
        await shown.count(1)
        await streaming(gateway)
        add(gateway, "new")
        await shown.count(2)
        gateway.recent.settled(msgspec.structs.replace(ended, unit="new", event_id="new", end="dead", reason="refused"))
        await shown.count(3)
        found = [(row["event_id"], row["shown"], row["reason"]) for row in shown.rows]
        assert found == [("old", "delivered", ""), ("new", "accepted", ""), ("new", "dead", "refused")]
        gateway.live.close()
        with pytest.raises(CommandFailed, match="stopped"):
            await asyncio.wait_for(following, 10.0)

    run(path, scenario)


def test_all_places_taken_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no place for one more stream, the command says so."""
    monkeypatch.setattr(livestream, "MOST_STREAMS", 0)

    async def scenario(_gateway: Gateway) -> None:
        with pytest.raises(CommandFailed, match="no place"):
            await tell(path, {}, 1, Shown(), follow=True)

    run(path, scenario)


def test_without_a_running_gateway_it_says_what_to_do(path: Path) -> None:
    """Nothing runs: one clear line, exit code 1, and the store is not opened."""

    async def main() -> None:
        process = await command(path)
        out, err = await process.communicate()
        assert (process.returncode, out) == (1, b"")
        told = " ".join(err.decode().split())
        assert "No gateway runs with this configuration." in told
        assert "tag-gateway serve" in told

    asyncio.run(main())
    assert not (path.parent / "gateway.db").exists()


def test_ctrl_c_ends_it_cleanly(path: Path) -> None:
    """Followed in a process of its own, one JSON object a line; SIGINT ends it with code 0 and without a traceback."""

    async def scenario(gateway: Gateway) -> None:
        add(gateway, "e1")
        process = await command(path, "--follow", "--json", "--fate", "accepted")
        assert process.stdout is not None
        async with asyncio.timeout(30.0):
            first = msgspec.json.decode(await process.stdout.readline())
            await streaming(gateway)
            add(gateway, "e2", fate="dropped", reason="bot", unit=None)
            add(gateway, "e3")
            second = msgspec.json.decode(await process.stdout.readline())
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
        assert (first["event_id"], second["event_id"]) == ("e1", "e3")
        assert (process.returncode, out, err) == (0, b"", b"")

    run(path, scenario)


def test_a_line(path: Path) -> None:
    """One event is one line: time, fate, source, name, id, destination, why; markup in it stays text."""

    async def scenario(gateway: Gateway) -> None:
        add(gateway, "[red]x[/]\u202e\x1b[2J", fate="duplicate", of="order-1", reason="known")
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(operator_app(gateway)), base_url="http://gateway"
        ) as client:
            (row,) = (await client.get("/api/events")).json()["events"]
        line = line_of(row).plain
        assert line.split()[1:6] == ["duplicate", "api", "checkout", "[red]x[/]··[2J", "→"]
        assert line.endswith("pinterest  (known)  of order-1")

    run(path, scenario)


def test_the_fates_are_all_of_them() -> None:
    """The command's choices, kept apart so that it starts fast, are those of the stream."""
    assert tuple(SHOWN) == FATES
