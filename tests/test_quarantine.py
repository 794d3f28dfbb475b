"""Hits that an adapter fails to read: kept encrypted, only when authentic, and taken in after the fix exactly once."""

import asyncio
import base64
import contextlib
import json
import logging
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from gateway import Adapter, Client, Context, Event, Hit, Rejected, User, cli, hookimpl
from gateway import config as configuration
from gateway import verify as proofs
from gateway.errors import ConfigError, Unavailable, Unreadable
from gateway.hit import Secret
from gateway.logs import HitLog
from gateway.operator import operator_app
from gateway.pipeline import Pipeline
from gateway.runtime import Gateway
from gateway.testing.app import complete
from gateway.testing.asgi import AppClient
from tests.harness import inprocess
from tests.harness.canary import Canary
from tests.harness.inprocess import BEARER, SECRET, Clock, World, event
from tests.harness.processes import GatewayProcess

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()
COUNTS = {"accepted": 0, "merged": 0, "duplicate": 0, "dropped": 0, "rejected": 0, "events": []}


def tables(key: str | None = KEY, **quarantine: Any) -> dict[str, Any]:
    """Two server sources and a public one, a quarantine with or without a key."""
    whole = inprocess.tables()
    whole["sources"]["crm"] = {"adapter": "browser_tag", "secrets": [SECRET]}
    whole["sources"]["tag"] = {"adapter": "browser_tag", "allowed_origins": ["https://shop.example"]}
    whole["quarantine"] = {**({"key": key} if key else {}), **quarantine}
    return whole


class Bug:
    """Our adapter with a bug in it, until :meth:`mend`."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, failure: Any = None) -> None:
        self._adapter = world.gateway.parts.host.adapters["browser_tag"]
        self._failure = failure or KeyError("jo@example.com")
        self.calls = 0
        self._patch = monkeypatch
        monkeypatch.setattr(self._adapter, "normalize", self._normalize, raising=False)

    def _normalize(self, _hit: Hit) -> Sequence[Event]:
        self.calls += 1
        if isinstance(self._failure, BaseException):
            raise self._failure
        return self._failure  # type: ignore[no-any-return]

    def mend(self) -> None:
        """Deploy the fix."""
        self._patch.undo()


@asynccontextmanager
async def kept_world(folder: Path, config: dict[str, Any] | None = None, **more: Any) -> AsyncIterator[World]:
    """Run a gateway with a quarantine."""
    async with inprocess.world(folder, config or tables(), **more) as world:
        yield world


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario."""
    asyncio.run(scenario())


async def send(world: World, body: Any, source: str = "api", **headers: str) -> tuple[int, Any]:
    """Send one hit."""
    return await world.running.post(source, body, {**(BEARER if source != "tag" else {}), **headers})


def files(folder: Path) -> list[Path]:
    """Return the files of the quarantine."""
    return sorted((folder / "quarantine").glob("*"))


def alarms(world: World) -> dict[tuple[str, ...], int]:
    """Return the alarms by reason and source."""
    return dict(world.gateway.tally.alarms)


async def replay(world: World, **which: Any) -> list[dict[str, Any]]:
    """Replay; returns the results."""
    found: list[dict[str, Any]] = (await world.api("POST", "/api/quarantine/replay", which))["results"]
    return found


async def listed(world: World) -> list[dict[str, Any]]:
    """Return what is listed."""
    found: list[dict[str, Any]] = (await world.api("GET", "/api/quarantine"))["hits"]
    return found


# -- what is kept


def test_without_a_key_it_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written, and the sender is asked to try again."""

    async def scenario() -> None:
        async with kept_world(tmp_path, tables(None)) as world:
            Bug(world, monkeypatch)
            status, answer = await send(world, event("e1", world.clock()))
            assert (status, answer["error"]["code"]) == (503, "plugin_failed")
            assert not (tmp_path / "quarantine").exists()

    run(scenario)


def test_kept_and_replayed_exactly_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is 202 with no event counted; after the fix each event is delivered once, with its time and client."""

    async def scenario() -> None:
        clock = Clock()
        async with kept_world(tmp_path, clock=clock) as world:
            bug = Bug(world, monkeypatch)
            no_time = {"event_name": "lead", "user": {"email": "b@example.com"}}
            status, answer = await send(world, [event("e1", clock.now), no_time])
            assert (status, answer) == (202, {**COUNTS, "quarantined": 1})
            assert [path.suffix for path in files(tmp_path)] == [".hit"]
            (shown,) = await listed(world)
            assert shown["id"] == files(tmp_path)[0].stem
            assert (shown["source"], shown["plugin"], shown["error"]) == ("api", "browser_tag", "KeyError")
            assert shown["where"].startswith("tests/test_quarantine.py:")
            assert (shown["state"], shown["expires_at"]) == ("kept", clock.now + 259_200)
            assert 'gateway_quarantined{source="api"} 1.0' in await world.api("GET", "/metrics")
            assert (await world.api("GET", "/api/status"))["quarantined"] == {"api": 1}
            received = clock.now
            clock.step(90_000)
            # still broken: it stays, with what it failed of this time
            (result,) = await replay(world)
            assert (result["what"], result["error"]) == ("failed", "KeyError")
            assert (await listed(world))[0]["tries"] == 1
            bug.mend()
            (result,) = await replay(world)
            assert (result["what"], result["counts"]) == ("replayed", {"accepted": 2})
            assert files(tmp_path) == []
            assert await replay(world) == []
            sent = await world.running.delivered(2)
            assert sorted(one["event_time"] for one in sent) == [int(received) - 5, int(received)]
            assert "e1" in [one["event_id"] for one in sent]
            await world.drain()
            assert set(world.copies().values()) == {1}
            tally = world.gateway.tally.quarantine
            assert (tally[("api", "kept")], tally[("api", "replayed")]) == (1, 1)

    with caplog.at_level(logging.INFO):
        run(scenario)
    assert "jo@example.com" not in caplog.text + str([vars(record) for record in caplog.records])


def test_a_public_hit_keeps_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, browser and click id come from the connection of then, not from the replay's."""

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            bug = Bug(world, monkeypatch)
            agent = (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
            )
            headers = {"Origin": "https://shop.example", "User-Agent": agent, "Cookie": "_epik=dj0yJnU9NmlYaDVo"}
            body = {"event_name": "signup", "event_id": "p1", "event_time": int(world.clock()) - 1}
            assert (await world.running.request("POST", "/in/tag", body, headers, peer="81.2.69.160"))[0] == 202
            # a pixel is answered with its picture, as ever
            encoded = base64.urlsafe_b64encode(json.dumps({**body, "event_id": "p2"}).encode()).decode().rstrip("=")
            path = f"/in/tag?d={encoded}"
            status, picture = await world.running.request("GET", path, headers=headers, peer="81.2.69.160")
            assert (status, picture[:3]) == (202, b"GIF")
            bug.mend()
            assert [one["counts"] for one in await replay(world)] == [{"accepted": 1}] * 2
            for one in await world.running.delivered(2):
                assert one["user_data"]["client_ip_address"] == "81.2.69.160"
                assert one["user_data"]["client_user_agent"] == agent
                assert one["user_data"]["click_id"] == "dj0yJnU9NmlYaDVo"

    run(scenario)


def test_nothing_readable_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No detail of a person stands in any file, in any usual writing; no credential either; modes are 700 and 600."""
    canary = Canary()
    mail = canary.mail("e-mail")

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            Bug(world, monkeypatch, RuntimeError(mail))
            for text in (mail, mail.upper(), quote(mail, safe=""), base64.b64encode(mail.encode()).decode()):
                body = {**event("e1", world.clock()), "user": {"email": text, "first_name": canary.word("name")}}
                headers = {"User-Agent": f"Agent {canary.word('agent')}", "Cookie": f"session={canary.word('cookie')}"}
                path = f"/in/api/{canary.word('tail')}?q={quote(text)}"
                assert (await world.running.request("POST", path, body, {**BEARER, **headers}))[0] == 202
            shown = await world.api("GET", "/api/quarantine")
            assert canary.find("list", json.dumps(shown).encode()) == []
            content = await world.gateway.quarantine.open(shown["hits"][0]["id"])
            assert content is not None
            assert "authorization" not in content.headers
            assert "cookie" not in content.headers

    run(scenario)
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in found if path.suffix == ".hit"]) == 4
    assert [line for path in found for line in canary.find(path.name, path.read_bytes())] == []
    assert all(SECRET.encode() not in path.read_bytes() for path in found)
    assert stat.S_IMODE((tmp_path / "quarantine").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path)} == {0o600}


def test_the_search_finds_what_is_in_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a quarantine without its cipher is found by the search above."""
    canary = Canary()
    mail = canary.mail("e-mail")

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            Bug(world, monkeypatch)
            key = world.gateway.parts.quarantine.key
            assert key is not None
            monkeypatch.setattr(key, "cipher", SimpleNamespace(encrypt=lambda _nonce, plain, _head: plain))
            assert (await send(world, {**event("e1", world.clock()), "user": {"email": mail}}))[0] == 202

    run(scenario)
    assert [line for path in files(tmp_path) for line in canary.find(path.name, path.read_bytes())] != []


# -- authenticity first


def forged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Send a hit with a wrong secret to a broken adapter; returns the answer's status and what is kept."""
    found: list[tuple[int, int]] = []

    async def scenario() -> None:
        async with kept_world(folder) as world:
            Bug(world, monkeypatch)
            status, _ = await world.running.post("api", event("e1", world.clock()), {"Authorization": "Bearer wrong"})
            found.append((status, len(await listed(world))))

    run(scenario)
    return found[0]


def test_a_forged_hit_is_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong secret is 401 although the adapter is broken, and leaves nothing."""
    assert forged(tmp_path, monkeypatch) == (401, 0)


def test_reading_before_the_proof_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: were hits kept without their proof, the test above would see it."""
    real = Pipeline.read

    async def careless(self: Pipeline, route: Any, hit: Hit, *, verify: bool) -> Any:
        return await real(self, route, hit, verify=False)

    monkeypatch.setattr(Pipeline, "read", careless)
    assert forged(tmp_path, monkeypatch) == (202, 1)


def test_a_failing_proof_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in ``verify`` itself proves nothing, so nothing is kept."""

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            adapter = world.gateway.parts.host.adapters["browser_tag"]

            def failing(_hit: Hit) -> None:
                raise KeyError("x")

            monkeypatch.setattr(adapter, "verify", failing, raising=False)
            assert (await send(world, event("e1", world.clock())))[0] == 503
            assert files(tmp_path) == []

    run(scenario)


def test_a_refused_or_busy_hit_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the adapter says of a hit (400) and what the gateway cannot take now (503) are no bugs."""

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            Bug(world, monkeypatch, Rejected("not_an_event", "No."))
            assert (await send(world, {}))[0] == 400
            Bug(world, monkeypatch, Unavailable("busy", "Later."))
            assert (await send(world, {}))[0] == 503
            assert files(tmp_path) == []

    run(scenario)


def event_of(**fields: Any) -> Event:
    """Return what only looks like an event."""
    return Event(name="lead", **fields)


@pytest.mark.parametrize(
    "rubbish",
    [None, 7, [1], [Event(name="lead"), "x"], [event_of(time="yesterday")], [event_of(user=5)]],
    ids=["nothing", "number", "numbers", "mixed", "time", "user"],
)
def test_rubbish_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rubbish: Any) -> None:
    """What only looks like an event is a bug as well, ours included; the whole hit is kept, and nothing accepted."""

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            Bug(world, monkeypatch, rubbish)
            assert (await send(world, event("e1", world.clock())))[0] == 202
            assert len(files(tmp_path)) == 1
            assert not world.gateway.tally.events

    run(scenario)


# -- strangers


class Stranger(Adapter):
    """A stranger's adapter, with a bug of each kind, chosen by the hit's tail."""

    name: ClassVar[str] = "acme"

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.hang = threading.Event()
        self.is_fixed = False

    def verify(self, hit: Hit) -> None:
        """Ask for the bearer token."""
        self.threads.append(threading.current_thread().name)
        if hit.tail == "/slow-proof":
            self.hang.wait(20)
        proofs.bearer(hit)

    def normalize(self, hit: Hit) -> Sequence[Event]:
        """Fail, or give one event."""
        self.threads.append(threading.current_thread().name)
        if not self.is_fixed:
            if hit.tail == "/hang":
                self.hang.wait(20)
            elif hit.tail == "/raise":
                raise ValueError(hit.body.decode())
            elif hit.tail == "/rubbish":
                return "abc"  # type: ignore[return-value]
        return [
            Event(
                name="lead", source_name="lead", user=User(email=("a@example.com",)),
                client=Client(ip="198.51.100.9", user_agent="x"), action_source="web",
            )
        ]  # fmt: skip


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """Let every hanging call go at the end."""
    made = Stranger()
    yield made
    made.hang.set()
    deadline = time.monotonic() + 10
    for thread in threading.enumerate():
        if thread.name.startswith("plugin"):
            thread.join(max(0.0, deadline - time.monotonic()))


def plugin(adapter: Stranger) -> object:
    """Return a plugin that registers the adapter."""

    @hookimpl
    def register_adapters(context: Context) -> Sequence[Adapter]:
        return [adapter]

    return SimpleNamespace(register_adapters=register_adapters, __name__="acme")


@pytest.mark.parametrize("how", ["hang", "raise", "rubbish"])
def test_a_strangers_hit_is_kept(tmp_path: Path, stranger: Stranger, how: str) -> None:
    """Whether it hangs, raises or returns rubbish; proof and reading share one thread and one hop."""

    async def scenario() -> None:
        config = tables()
        config["sources"]["acme"] = {"adapter": "acme", "secrets": [SECRET]}
        async with kept_world(tmp_path, config, plugins={"acme": plugin(stranger)}) as world:
            world.gateway._guard._deadline_s = 0.2
            assert (await world.running.post(f"acme/{how}", {}, {"Authorization": "Bearer no"}))[0] == 401
            stranger.threads.clear()
            assert (await send(world, {}, f"acme/{how}"))[0] == 202
            assert len(stranger.threads) == 2
            assert len(set(stranger.threads)) == 1
            assert stranger.threads[0].startswith("plugin")
            (shown,) = await listed(world)
            assert (shown["plugin"], shown["source"]) == ("acme", "acme")
            stranger.is_fixed = True
            stranger.hang.set()
            (result,) = await replay(world)
            assert result["what"] == "replayed"
            assert len(await world.running.delivered(1)) == 1

    run(scenario)


def test_a_hanging_proof_or_a_plugin_switched_off_is_503(tmp_path: Path, stranger: Stranger) -> None:
    """Where the proof cannot be had nothing is kept."""

    async def scenario() -> None:
        config = tables()
        config["sources"]["acme"] = {"adapter": "acme", "secrets": [SECRET]}
        async with kept_world(tmp_path, config, plugins={"acme": plugin(stranger)}) as world:
            world.gateway._guard._deadline_s = 0.1
            assert (await send(world, {}, "acme/slow-proof"))[0] == 503
            world.gateway._guard.switched_off.add("acme")
            assert (await send(world, {}, "acme/raise"))[0] == 503
            assert files(tmp_path) == []

    run(scenario)


# -- once, whatever happens


@pytest.mark.parametrize("fields", [{}, {"event_id": "e1"}, {"order_id": "o1"}], ids=["keyless", "id", "order"])
def test_a_crash_between_commit_and_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    """The second replay finds what the first one committed: also events that have neither id nor time."""
    body = [{"event_name": "lead", "user": {"email": f"{n}@example.com"}, **fields} for n in "ab"[: 1 if fields else 2]]

    class Crash(BaseException):
        pass

    async def before() -> None:
        async with kept_world(tmp_path) as world:
            bug = Bug(world, monkeypatch)
            assert (await send(world, body))[0] == 202
            bug.mend()

            async def crash(*_: Any) -> int:
                raise Crash

            monkeypatch.setattr(world.gateway.quarantine, "remove", crash)
            with pytest.raises(Crash):
                await world.gateway.replays.replay((await listed(world))[0]["id"])
            await world.running.delivered(len(body))

    async def after() -> None:
        async with kept_world(tmp_path) as world:
            (result,) = await replay(world)
            assert (result["what"], result["counts"]) == ("replayed", {"duplicate": len(body)})
            assert files(tmp_path) == []
            await world.drain()
            assert world.calls == []

    run(before)
    run(after)


def test_two_replays_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A double click takes the hit in once."""

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            bug = Bug(world, monkeypatch)
            await send(world, {"event_name": "lead", "user": {"email": "a@example.com"}})
            bug.mend()
            name = (await listed(world))[0]["id"]
            found = await asyncio.gather(*(world.gateway.replays.replay(name) for _ in range(3)))
            assert sorted(one.what for one in found) == ["gone", "gone", "replayed"]
            await world.drain()
            assert len(world.copies()) == 1

    run(scenario)


def test_a_sender_that_is_told_to_repeat_is_not_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hit whose answer was cut off before it was durable leaves no file behind."""

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            Bug(world, monkeypatch)
            quarantine = world.gateway.quarantine
            go = threading.Event()
            blocking = asyncio.get_running_loop().run_in_executor(quarantine._pool, go.wait, 20)
            sending = asyncio.create_task(send(world, event("e1", world.clock())))
            while not quarantine._waiting:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            go.set()
            await blocking
            await asyncio.gather(*quarantine._tasks)
            assert files(tmp_path) == []
            assert quarantine.counts() == {}
            assert quarantine._waiting == 0

    run(scenario)


def test_a_refused_replay_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the mended adapter refuses is listed as refused until it is discarded."""

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            bug = Bug(world, monkeypatch)
            await send(world, {"event_name": ""})
            bug.mend()
            (result,) = await replay(world)
            assert result["what"] == "refused"
            (shown,) = await listed(world)
            assert (shown["state"], shown["error"]) == ("refused", result["error"])
            assert await world.api("POST", "/api/quarantine/discard", {"ids": [shown["id"]]}) == {"discarded": 1}
            assert (await listed(world), files(tmp_path)) == ([], [])

    run(scenario)


# -- its bounds


def test_expiry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody replayed in time is deleted, counted and alarmed; also by a later process and without the key."""

    async def before(clock: Clock) -> None:
        async with kept_world(tmp_path, clock=clock) as world:
            Bug(world, monkeypatch)
            await send(world, event("e1", clock.now))
            clock.step(200_000)
            await send(world, event("e2", clock.now))
            clock.step(59_199)
            assert await world.gateway.quarantine.expire() == 0
            clock.step(1)
            assert await world.gateway.quarantine.expire() == 1
            assert len(files(tmp_path)) == len(await listed(world)) == 1
            assert world.gateway.tally.quarantine[("api", "expired")] == 1
            assert alarms(world)[("quarantine_expired", "api")] == 1

    async def after(clock: Clock) -> None:
        async with kept_world(tmp_path, tables(None), clock=clock) as world:
            clock.step(259_200)
            assert await world.gateway.quarantine.expire() == 1
            assert files(tmp_path) == []

    clock = Clock()
    asyncio.run(before(clock))
    asyncio.run(after(clock))


def test_the_periodic_task_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that starts deletes by itself what is too old."""

    async def scenario() -> None:
        clock = Clock()
        async with kept_world(tmp_path, clock=clock) as world:
            Bug(world, monkeypatch)
            await send(world, event("e1", clock.now))
        clock.step(300_000)
        async with kept_world(tmp_path, clock=clock) as world:
            await world.until(lambda: files(tmp_path) == [], "the old hit is gone")

    run(scenario)


def test_full_is_503_and_one_source_leaves_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of one source ends at half of the room; another is still kept; then it is full, and alarmed."""

    async def scenario() -> None:
        async with kept_world(tmp_path, tables(max_mb=1)) as world:
            Bug(world, monkeypatch)
            page = {"Origin": "https://shop.example"}
            body = {"event_name": "lead", "content_name": "x" * 60_000}
            flood = [(await send(world, body, "tag", **page))[0] for _ in range(12)]
            assert flood == sorted(flood)
            assert set(flood) == {202, 503}
            assert alarms(world)[("quarantine_full", "tag")] == 1
            others = [(await send(world, body))[0] for _ in range(12)]
            assert set(others) == {202, 503}
            assert abs(others.count(202) - flood.count(202)) <= 1
            last = [await send(world, body, "crm") for _ in range(4)][-1]
            assert (last[0], last[1]["error"]["code"]) == (503, "plugin_failed")
            assert sum(path.stat().st_size for path in files(tmp_path)) <= 1 << 20
            kept = len(files(tmp_path))
            assert await world.api("POST", "/api/quarantine/discard", {"source": "tag"}) == {
                "discarded": flood.count(202)
            }
            assert len(files(tmp_path)) == kept - flood.count(202)
            assert (await send(world, body, "crm"))[0] == 202

    run(scenario)


def test_many_small_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file counts as what it takes on the disk, so that tiny hits cannot fill a folder with millions."""

    async def scenario() -> None:
        async with kept_world(tmp_path, tables(max_mb=1)) as world:
            Bug(world, monkeypatch)
            answers = [(await send(world, {}))[0] for _ in range(140)]
            assert answers.count(202) == 128

    run(scenario)


@pytest.mark.parametrize("fault", ["folder", "disk", "fsync", "burst"])
def test_what_cannot_be_written_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Never 202 before it is durable; nothing is left behind."""

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            Bug(world, monkeypatch)
            if fault == "folder":
                (tmp_path / "quarantine").write_text("in the way")
            elif fault == "disk":
                monkeypatch.setattr("gateway.vault.shutil.disk_usage", lambda _path: SimpleNamespace(free=1_000))
            elif fault == "fsync":
                monkeypatch.setattr("gateway.vault.os.fsync", failing_fsync)
            else:
                monkeypatch.setattr(world.gateway.quarantine, "_waiting", 32)
            status, answer = await send(world, event("e1", world.clock()))
            assert (status, answer["error"]["code"]) == (503, "plugin_failed")
            assert await listed(world) == []
            what = "full" if fault == "burst" else "failed"
            assert world.gateway.tally.quarantine == {("api", what): 1}
            if fault != "folder":
                assert files(tmp_path) == []
            monkeypatch.undo()

    def failing_fsync(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    run(scenario)


def test_answered_only_when_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File and folder are synced, and the file has its name, before the answer is made."""
    steps: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        steps.append("name")
        return real_replace(self, target)

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            Bug(world, monkeypatch)
            await send(world, {})
            monkeypatch.setattr("gateway.vault.os.fsync", sync)
            monkeypatch.setattr("gateway.vault.Path.replace", replace)
            assert (await send(world, {}))[0] == 202
            assert steps == ["file", "name", "folder"]

    run(scenario)


# -- keys and files


def test_bad_keys(tmp_path: Path) -> None:
    """A key that is none is an error at start, with the remedy and without the value; a literal one is warned about."""
    for bad in (
        "short",
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        "é" * 44,
        "=" * 44,
    ):
        with pytest.raises(ConfigError, match="openssl rand -base64 32") as caught:
            start(tmp_path, bad)
        assert "[quarantine] key" in str(caught.value)
        assert bad not in str(caught.value)
    assert any("[quarantine] key" in warning for warning in start(tmp_path, KEY).parts.warnings)


def start(folder: Path, key: str) -> Gateway:
    """Return a gateway that is closed again."""

    async def main() -> Gateway:
        config = configuration.parse(complete(tables(key)), folder / "gateway.toml")
        gateway = Gateway(config, http=AppClient(None), hit_log=HitLog(enabled=False))
        await gateway.stop()
        return gateway

    return asyncio.run(main())


def test_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload with a new key keeps under it from then on; what is under the old one is told and left."""
    path = tmp_path / "gateway.toml"

    async def scenario() -> None:
        clock = Clock()
        async with kept_world(tmp_path, clock=clock) as world:
            bug = Bug(world, monkeypatch)
            await send(world, event("e1", world.clock()))
            clock.step(1)

            def loaded(_path: Path) -> configuration.Config:
                return configuration.parse(complete({**tables(current[0]), "store": {}}), path)

            monkeypatch.setattr("gateway.runtime.configuration.load", loaded)
            gateway = world.gateway
            monkeypatch.setattr(gateway.parts.config.__class__, "store", gateway.parts.config.store, raising=False)
            current[0] = "bad"
            assert "openssl" in str(await gateway.reload(path))
            current[0] = OTHER
            assert await gateway.reload(path) is None
            bug.mend()
            bug = Bug(world, monkeypatch)
            await send(world, event("e2", world.clock()))
            bug.mend()
            assert [one["state"] for one in await listed(world)] == ["another_key", "kept"]
            assert [one["what"] for one in await replay(world)] == ["another_key", "replayed"]
            assert len(files(tmp_path)) == 1

    current = [KEY]
    run(scenario)


@pytest.mark.parametrize("change", ["body", "label", "name", "cut", "empty"])
def test_a_changed_file_is_told_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """One bit of the content or the label, another name, or half a file: damaged, not taken in, not deleted."""

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            Bug(world, monkeypatch)
            await send(world, event("e1", world.clock()))
        (path,) = files(tmp_path)
        content = path.read_bytes()
        if change == "body":
            path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
        elif change == "label":
            path.write_bytes(content.replace(b'"source":"api"', b'"source":"crm"', 1))
        elif change == "name":
            path.rename(path.with_name(f"{'0' * 13}-{'a' * 12}.hit"))
        else:
            path.write_bytes(content[:40] if change == "cut" else b"")
        monkeypatch.undo()
        async with kept_world(tmp_path) as world:
            (result,) = await replay(world)
            assert result["what"] == "damaged"
            assert [one["state"] for one in await listed(world)] == ["damaged"]
            assert len(files(tmp_path)) == 1
            assert not world.gateway.tally.events

    run(scenario)


def test_what_a_crash_left_half_written_is_deleted(tmp_path: Path) -> None:
    """A part of a file was told to nobody."""
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / "1-a.part").write_bytes(b"half")
    start(tmp_path, KEY)
    assert files(tmp_path) == []


# -- erasure


def test_erasure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's hits that can be read by then are deleted; what is replayed of others is dropped as erased."""

    async def scenario() -> None:
        clock = Clock()
        async with kept_world(tmp_path, clock=clock) as world:
            bug = Bug(world, monkeypatch)
            ada, bob = (
                {**event(f"{name}1", clock.now), "user": {"email": f"{name}@example.com"}} for name in ("ada", "bob")
            )
            await send(world, ada)
            clock.step(1)
            await send(world, [{**ada, "event_id": "ada2"}, bob])
            clock.step(10)
            # not readable yet: both stay
            await world.api("POST", "/api/erase", {"email": "ada@example.com"})
            assert len(files(tmp_path)) == 2
            failures = dict(world.gateway.tally.plugin_failures)
            bug.mend()
            await world.api("POST", "/api/erase", {"email": "ada@example.com"})
            assert dict(world.gateway.tally.plugin_failures) == failures
            assert len(files(tmp_path)) == 1
            assert world.gateway.tally.quarantine[("api", "erased")] == 1
            (result,) = await replay(world)
            assert result["counts"] == {"accepted": 1, "dropped": 1}
            assert [one["event_id"] for one in await world.running.delivered(1)] == ["bob1"]

    run(scenario)


def test_a_request_for_erasure_can_be_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redaction that could not be read erases what came before it, and nothing that came after, at its replay."""

    async def scenario() -> None:
        clock = Clock()
        config = tables()
        config["sources"]["acme"] = {"adapter": "acme", "secrets": [SECRET], "site": "api"}
        config["sites"] = {"api": {}}
        config["sources"]["api"]["site"] = "api"
        redactor = Redactor()
        async with kept_world(tmp_path, config, clock=clock, plugins={"acme": plugin(redactor)}) as world:
            assert (await send(world, {}, "acme/redact"))[0] == 202
            clock.step(100)
            redactor.is_fixed = True
            assert (await replay(world))[0]["what"] == "replayed"
            person: dict[str, Any] = {"user": {"email": "ada@example.com"}}
            person["event_name"] = "lead"
            old = await world.post({**event("old", clock.now), **person, "event_time": int(clock.now) - 200})
            new = await world.post({**event("new", clock.now), **person, "event_time": int(clock.now) - 50})
            assert (old[0]["outcome"], old[0]["reason"], new[0]["outcome"]) == ("dropped", "erased", "accepted")
            await world.drain()

    run(scenario)


class Redactor(Stranger):
    """Its hits ask for the erasure of one person."""

    def normalize(self, hit: Hit) -> Any:
        """Fail, or give the request."""
        from gateway import Erasure

        if not self.is_fixed:
            raise KeyError("x")
        return [Erasure(scope="customer", user=User(email=("ada@example.com",)), source_name="redact")]


# -- who hears of it


def test_the_alarm_comes_once_until_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that begins to fail is news once; after a hit that it read it is news again."""

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            bug = Bug(world, monkeypatch)
            for source in ("api", "api", "crm"):
                await send(world, {}, source)
            assert alarms(world) == {("quarantined", "api"): 1}
            bug.mend()
            await world.post(event("ok", world.clock()))
            Bug(world, monkeypatch)
            await send(world, {})
            assert alarms(world) == {("quarantined", "api"): 2}
            await world.drain()

    run(scenario)


def test_the_api_is_guarded(tmp_path: Path) -> None:
    """Nothing without the password; a viewer may list, only an operator may replay and discard."""
    import httpx

    async def scenario() -> None:
        async with kept_world(tmp_path) as world:
            app = operator_app(world.gateway, Secret(value="op"), Secret(value="view"))
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://operator") as client:
                for method, path, viewer in (
                    ("GET", "/api/quarantine", 200), ("POST", "/api/quarantine/replay", 403),
                    ("POST", "/api/quarantine/discard", 403),
                ):  # fmt: skip
                    body: dict[str, Any] | None = {} if method == "POST" else None
                    assert (await client.request(method, path, json=body)).status_code == 401
                    for word, status in (("view", viewer), ("op", 200)):
                        headers = {"Authorization": f"Bearer {word}"}
                        assert (await client.request(method, path, json=body, headers=headers)).status_code == status
                bad = await client.get("/api/quarantine?limit=0", headers={"Authorization": "Bearer op"})
                assert bad.status_code == 400

    run(scenario)


def test_unreadable_is_unavailable() -> None:
    """Whoever knows nothing of the quarantine answers 503, as before."""
    error = Unreadable("acme", "KeyError", "acme.py:3")
    assert isinstance(error, Unavailable)
    assert (error.reason, error.retry_after_s) == ("plugin_failed", 30)


# -- the command

CONFIG = """
[store]
url = "sqlite:///gateway.db"
[sources.api]
adapter = "browser_tag"
secrets = ["server-secret"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "549755885175"
token = "sandbox-token"
base_url = "http://127.0.0.1:1/v5"
[quarantine]
key = { env = "QUARANTINE_KEY" }
"""


def invoke(*arguments: str, code: int = 0) -> str:
    """Run a command; returns its output."""
    result = CliRunner().invoke(cli.cli, ["quarantine", *arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output if code == 2 else result.stdout


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a configuration, go there, and put three hits into its quarantine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUARANTINE_KEY", KEY)
    monkeypatch.delenv("TAG_GATEWAY_CONFIG", raising=False)
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG)

    async def main() -> None:
        gateway = Gateway(configuration.load(path), http=AppClient(None), hit_log=HitLog(enabled=False))
        route = gateway.parts.routes["api"]
        for number in range(3):
            body = json.dumps({"event_name": "lead", "user": {"email": f"{number}@example.com"}}).encode()
            hit = Hit(source=route.source, body=body, received_at=gateway.clock() - 3 + number)
            await gateway.quarantine.keep(hit, Unreadable("browser_tag", "Key[b]Error", "x.py:1"))
        await gateway.stop()

    asyncio.run(main())
    return path


def work(folder: Path) -> None:
    """Go through the commands, with or without a server."""
    hits = json.loads(invoke("list", "--json"))["hits"]
    assert [hit["state"] for hit in hits] == ["kept"] * 3
    assert set(hits[0]) == {
        "id", "source", "plugin", "error", "where", "received_at", "expires_at", "tries", "bytes", "state",
    }  # fmt: skip
    text = invoke("list", "--source", "api")
    assert all(hit["id"] in text for hit in hits)
    assert "example.com" not in text
    assert json.loads(invoke("replay", "--all", "--dry-run")) == {"would_replay": 3}
    assert "1 of 1 replayed: 1 accepted." in invoke("replay", "--id", hits[0]["id"])
    assert json.loads(invoke("discard", "--id", hits[1]["id"], "--json")) == {"discarded": 1}
    results = json.loads(invoke("replay", "--source", "api", "--json"))["results"]
    assert [one["what"] for one in results] == ["replayed"]
    assert invoke("list").strip() == "Nothing is in quarantine."
    assert files(folder) == []
    for command in ("replay", "discard"):
        assert "--all" in invoke(command, code=2)


def test_the_command_without_a_server(filled: Path) -> None:
    """It opens the store itself; what it takes in waits there."""
    work(filled.parent)

    async def waiting() -> int:
        gateway = Gateway(configuration.load(filled), http=AppClient(None), hit_log=HitLog(enabled=False))
        counts = await gateway.outbox.counts()
        await gateway.stop()
        return sum(lane.waiting for lane in counts.lanes)

    assert asyncio.run(waiting()) == 2


def test_the_command_with_a_server(filled: Path) -> None:
    """It reaches the running gateway through its socket."""
    server = GatewayProcess(filled.parent, '[server]\nbind = "127.0.0.1:{port}"\n' + CONFIG)
    server.start()
    try:
        work(filled.parent)
        assert server.status()["quarantined"] == {}
        assert 'gateway_quarantine_total{source="api",what="replayed"} 2.0' in server.api("GET", "/metrics")
    finally:
        server.kill()


def test_the_command_says_what_stays(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another key nothing is taken in: exit code 1, and each is named with why."""
    monkeypatch.setenv("QUARANTINE_KEY", OTHER)
    text = invoke("replay", "--all", code=1)
    assert text.count("stays: another key") == 3
    assert "0 of 3 replayed." in text
    assert len(files(filled.parent)) == 3
