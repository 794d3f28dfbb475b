"""What is kept of a person, for how long, and that nothing of them leaves sideways."""

import asyncio
import base64
import hashlib
import io
import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import httpx
import pytest

from gateway import Adapter, Context, Hit, Normalized, hookimpl
from gateway.logs import configure
from gateway.outbox import DeadFilter, Lane, Settlement, upkeep
from gateway.urls import strip_personal
from tests.harness.canary import Canary
from tests.harness.inprocess import Clock, World, event, tables, world
from tests.test_canary import base as sound
from tests.test_canary import person
from tests.test_ingress import CONFIG, PAGE, Served, serving

ROOT = Path(__file__).parents[1]
AGENT = "Mozilla/5.0 (X11; Linux x86_64) CanaryBrowser/77"
DAY = 86_400


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Give what the process's log would say, and put the root logger back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure(stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def files(folder: Path) -> list[tuple[str, bytes]]:
    """Return name and content of each file."""
    return [(path.name, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]


def on_disk(folder: Path, *needles: bytes) -> list[str]:
    """Return which of the needles stand in which file."""
    return [f"{name}: {needle!r}" for name, content in files(folder) for needle in needles if needle in content]


# -- exports and explanations


def test_exports_and_explanations_hold_no_detail(tmp_path: Path) -> None:
    """What the operator reads of a person, or of a captured hit, has hashes and lengths, no detail in any writing."""
    canary = Canary()

    async def main() -> list[str]:
        async with world(tmp_path, tables()) as here:
            here.sandbox.faults.down()
            who = person(canary, "exported")
            told = {**sound("e1", who), "search_string": canary.mail("search")}
            (answer,) = await here.post(told)
            assert answer["outcome"] == "accepted"
            file = tmp_path / "export.json"
            written = await here.api("POST", "/api/export", {"email": who["email"], "output": str(file)})
            assert "error" not in written, written
            assert hashlib.sha256(who["email"].encode()).hexdigest() in file.read_text(), "the control"
            asked = {"source": "api", "capture": base64.b64encode(json.dumps(told).encode()).decode(), "verify": False}
            said = await here.api("POST", "/api/explain", asked)
            assert said["payloads"], said
            pages = [await here.api("GET", path) for path in ("/api/status", "/metrics", "/api/plugins")]
            texts = {"export": file.read_bytes(), "explain": json.dumps(said).encode(), "pages": repr(pages).encode()}
            return [leak for where, text in texts.items() for leak in canary.find(where, text)]

    assert asyncio.run(main()) == []


@pytest.mark.parametrize("form", ["lower", "upper", "spaces"])
def test_what_is_hashed_already_is_sent_as_it_is(form: str, tmp_path: Path) -> None:
    """A SHA-256 is recognised in any case and never hashed again; other lengths are no hashes and are left out."""
    digest = hashlib.sha256(b"jo@example.com").hexdigest()
    given = {"lower": digest, "upper": digest.upper(), "spaces": f" {digest} "}[form]
    others = [digest[:-1], digest + "0", hashlib.md5(b"jo").hexdigest(), hashlib.sha1(b"jo").hexdigest(), "$2b$12$abc"]

    async def main() -> None:
        async with world(tmp_path, tables()) as here:
            user = {"email": [given, *others], "external_id": "crm-1"}
            (answer,) = await here.post(event("e1", here.clock(), user=user))
            assert answer["outcome"] == "accepted"
            await here.drain()
            (sent,) = here.sandbox.record.events()
            assert sent["user_data"]["em"] == [digest]

    asyncio.run(main())


# -- how long


def test_what_was_delivered_is_gone_within_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the gateway runs on, no file holds the address, agent or hash of an event that was delivered."""
    assert upkeep._TRUNCATE_EVERY_S + 2 * upkeep._AGAIN_S + upkeep._SLICE_EVERY_S <= 60
    for name in ("_TRUNCATE_EVERY_S", "_SLICE_EVERY_S", "_AGAIN_S"):
        monkeypatch.setattr(upkeep, name, 0.02)
    digest = hashlib.sha256(b"e1@example.com").hexdigest().encode()

    async def main() -> None:
        async with world(tmp_path, tables()) as here:
            here.sandbox.faults.down()
            client = {"ip": "8.8.77.66", "user_agent": AGENT}
            await here.post(event("e1", here.clock(), client=client))
            held = on_disk(tmp_path, digest, AGENT.encode(), b"8.8.77.66")
            assert len({one.partition(": ")[2] for one in held}) == 3, "the control: waiting, it is there"
            here.sandbox.faults.clear()
            await here.drain()
            end = time.monotonic() + 10
            while on_disk(tmp_path, digest, AGENT.encode(), b"8.8.77.66"):
                assert time.monotonic() < end, on_disk(tmp_path, digest, AGENT.encode(), b"8.8.77.66")
                await asyncio.sleep(0.05)

    asyncio.run(main())


def test_dead_letters_end_with_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day before `dead_keep_s` the letter is there, a day after it no byte of it is, in any file."""
    for name in ("_TRUNCATE_EVERY_S", "_SLICE_EVERY_S", "_AGAIN_S"):
        monkeypatch.setattr(upkeep, name, 0.02)
    clock = Clock()
    digest = hashlib.sha256(b"e1@example.com").hexdigest().encode()

    async def main() -> None:
        async with world(tmp_path, {**tables(), "pipeline": {"dead_keep_s": 14 * DAY}}, clock=clock) as here:
            await here.gateway.stop_sending()
            await here.post(event("e1", clock(), client={"ip": "8.8.77.66", "user_agent": AGENT}))
            outbox = here.gateway.outbox
            lease = await outbox.claim(Lane(destination="pinterest", kind="live"), 10, clock())
            assert lease is not None
            await outbox.settle(lease, [Settlement(unit=unit.unit, end="dead", reason="r") for unit in lease.units])
            clock.step(13 * DAY)
            await asyncio.sleep(0.2)
            assert len(await outbox.dead(DeadFilter())) == 1
            assert on_disk(tmp_path, digest), "the control"
            clock.step(2 * DAY)
            await until_gone(here, digest, AGENT.encode(), b"8.8.77.66")
            assert await outbox.dead(DeadFilter()) == []

    async def until_gone(here: World, *needles: bytes) -> None:
        end = time.monotonic() + 10
        while on_disk(tmp_path, *needles):
            assert time.monotonic() < end, on_disk(tmp_path, *needles)
            await here.gateway.outbox.ping()
            await asyncio.sleep(0.05)

    asyncio.run(main())


def test_the_page_says_how_long() -> None:
    """The data map names every kind of data, its place and its time, with the configuration's own keys."""
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    section = text.partition("## What is kept, where, for how long")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section, re.MULTILINE)[2:]
    assert len(rows) >= 12
    everything = " ".join(" ".join(row) for row in rows)
    for key in ("retry_life_s", "dead_keep_s", "dedup_window_s", "business_key_s", "memory_s", "keep_s"):
        assert f"{key}`" in everything, key
    for word in ("uarantine", "audiences.db", "tokens.json", "exports/", "Log", "Backups"):
        assert word in everything, word


# -- URLs


@pytest.mark.parametrize(
    "given",
    [
        "https://s.example/reset?token=T0k3n&x=1", "https://s.example/?Access-Token=T0k3n&x=1",
        "https://s.example/?x=1&%74oken=T0k3n", "https://s.example/?x=1&tok%65n=T0k3n", "https://s.example/?x=1#T0k3n",
        "https://s.example/?x=1&user[password]=T0k3n", "https://s.example/?x=1&api.key=T0k3n",
        "https://T0k3n@s.example/?x=1", "https://a:T0k3n@s.example/?x=1", "https://s.example/?SID=T0k3n&x=1",
        "https://s.example/?x=1&session_id=T0k3n", "https://s.example/?otp=T0k3n&x=1", "https://s.example/?sig=T0k3n&x=1",
        "https://s.example/?x=1&auth=T0k3n&auth=T0k3n", "https://s.example/?x=1&&client-secret=T0k3n",
    ],
)  # fmt: skip
def test_no_credential_stays_in_a_url(given: str) -> None:
    """Tokens, sessions and passwords go under every spelling of their name; what is no one's stays."""
    left = strip_personal(given)
    assert "T0k3n" not in left
    assert left.endswith("x=1")


# -- logs and errors

FORGERIES = (
    'x\n{"level":"error","event":"forged"}', "x\r\nforged", "x\u2028forged", "x\x85forged", "x\x1b[2Jforged",
    "x\u202eforged", "x\x00forged", "%0aforged",
)  # fmt: skip


def test_no_hit_writes_a_line_of_its_own(tmp_path: Path) -> None:
    """Ids, names, paths, methods and headers with line breaks: one JSON line a hit, holding the id alone."""

    async def main() -> None:
        async with serving(tmp_path, CONFIG) as served:
            count = 0
            for number, forged in enumerate(FORGERIES):
                count += await hits(served, forged, number)
            served.gateway.hit_log.flush()
            lines = served.log.getvalue().splitlines()
            assert len(lines) == count
            for line in lines:
                found = json.loads(line)
                assert found["event"] == "hit"
                assert found["source"] in ("tag", "-")
                assert line.isprintable() or "\u202e" in line
                assert "mallory" not in line

    async def hits(served: Served, forged: str, number: int) -> int:
        told = {
            "event_name": "lead",
            "event_id": f"{forged}-{number}",
            "event_time": 1_795_305_595,
            "user": {"email": "a@b.co"},
        }
        await served.post("tag", {**told, "search_string": f"mallory {forged}"})
        await served.post("tag", {**told, "event_name": f"mallory {forged}"})
        await served.post("tag", told, {**PAGE, "Referer": "https://mallory.example/", "X-A": "mallory"})
        await served.client.post(f"/in/mallory{httpx.QueryParams({'a': forged})}", content=b"{}")
        await served.client.post("/in/tag?mallory=1", content=b"{", headers={**PAGE, "User-Agent": "mallory"})
        return 5

    asyncio.run(main())


class Broken(Adapter):
    """An adapter with a bug, whose exception quotes all that it was given."""

    name = "broken"
    side = "either"
    methods = frozenset({"GET", "POST"})
    where = "normalize"

    def verify(self, hit: Hit) -> None:
        if self.where == "verify":
            self._fail(hit)

    def normalize(self, hit: Hit) -> Sequence[Normalized]:
        self._fail(hit)

    def _fail(self, hit: Hit) -> NoReturn:
        everything = f"{hit.body!r} {hit.headers} {hit.query} {hit.tail} {hit.peer} {hit.source.secrets}"
        raise ValueError(f"cannot read {everything}") from KeyError(everything)


class Plugin:
    @hookimpl
    def register_adapters(self, context: Context) -> Sequence[Adapter]:
        return [Broken()]


@pytest.mark.parametrize("where", ["verify", "normalize"])
@pytest.mark.parametrize("inline", [False, True], ids=["in a thread", "inline"])
def test_a_failing_adapter_tells_nobody_what_it_saw(
    where: str, inline: bool, tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exception quotes all that it got: answer, log, pages and files hold none of it."""
    canary = Canary()
    monkeypatch.setattr(Broken, "where", where)
    if inline:
        monkeypatch.setattr("gateway.pluginhost.PluginHost.is_ours", lambda *_: True)
    sources = {"broken": {"adapter": "broken", "secrets": [canary.word("secret") + "-secret"]}}

    async def main() -> list[str]:
        async with world(tmp_path, {**tables(), "sources": sources}, plugins={"broken": Plugin()}) as here:
            body = json.dumps({"user": {"email": canary.mail("body")}, canary.word("key"): canary.phone("phone")})
            headers = {
                "Authorization": f"Bearer {canary.word('authorization')}", "Cookie": f"a={canary.word('cookie')}",
                "Referer": f"https://x.example/?{canary.word('referer')}", "User-Agent": canary.word("agent"),
                "X-Any": canary.word("header"), "Content-Type": f"text/{canary.word('type')}",
            }  # fmt: skip
            path = f"/in/broken/{canary.word('path')}?q={canary.word('query')}"
            answers = [await here.running.request(method, path, body.encode(), headers) for method in ("POST", "GET")]
            assert [status for status, _ in answers] == [503, 503]
            pages = [await here.api("GET", one) for one in ("/api/status", "/metrics", "/api/dead")]
            assert "broken" in pages[1], "the control: the failure is counted by name"
            said = {"answers": repr(answers), "pages": repr(pages), "log": log.getvalue()}
            assert "plugin_failed" in said["log"], "the control"
            leaks = [leak for name, text in said.items() for leak in canary.find(name, text.encode())]
            return leaks + [leak for name, content in files(tmp_path) for leak in canary.find(name, content)]

    assert asyncio.run(main()) == []
