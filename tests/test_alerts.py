"""The receiver of alarms: told once, again after a while, when it is over; and whatever it does hurts nobody."""

import asyncio
import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.alarms import Alarms
from gateway.alarms.receiver import Receiver
from gateway.alarms.webhook import MOST_AN_HOUR, Webhook, body, sample, text_of
from gateway.cli import cli
from gateway.hit import Secret
from gateway.http import Client
from gateway.interfaces import Answer, Unreachable
from gateway.logs import JsonFormatter
from gateway.sandbox import PinterestSandbox
from gateway.sandbox.faults import Fault
from gateway.testing.app import running
from gateway.testing.asgi import AppClient
from gateway.testing.doubles import NOW, Clock
from tests.test_alarms import FILE, SHOP, until

URL = "https://hooks.example.com/T01/B02/a-token-in-the-path"
MINUTE, HOUR = 60.0, 3_600.0


class Chat:
    """An outgoing client that only knows the receiver; ``answers`` are given in turn, then 200."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.answers: list[int | Unreachable] = []

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None,
        timeout_s: float = 30.0, max_bytes: int = 1_048_576,
    ) -> Answer:  # fmt: skip
        assert (method, url, timeout_s) == ("POST", URL, 10.0)
        assert max_bytes <= 65_536
        assert headers == {"content-type": "application/json"}
        self.calls.append(json.loads(content or b""))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Unreachable):
            raise answer
        return Answer(status=answer, headers={"location": "https://elsewhere.example"}, body=b"ok")

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(call["state"], call["alarm"]["kind"]) for call in self.calls]


class Told:
    """Alarms, and a receiver that is told of them."""

    def __init__(self, repeat_s: float = 6 * HOUR, url: str | None = URL) -> None:
        self.clock = Clock()
        self.chat = Chat()
        self.alarms = Alarms(self.clock)
        self.receiver = Receiver(url=None if url is None else Secret(value=url), repeat_s=repeat_s)
        self.webhook = Webhook(self.chat, self.clock, self.alarms, lambda: self.receiver)

    def tick(self, after_s: float = 0.0) -> list[tuple[str, str]]:
        """Let time pass, with a tick a minute; returns what was said meanwhile."""
        before = len(self.chat.calls)

        async def ticks() -> None:
            left = after_s
            while left > MINUTE:
                self.clock.advance(MINUTE)
                await self.webhook.tick()
                left -= MINUTE
            self.clock.advance(left)
            await self.webhook.tick()

        asyncio.run(ticks())
        return self.chat.said[before:]


def test_an_alarm_is_told_once_and_again_after_a_while() -> None:
    """One message when it is raised, one each ``repeat_s`` while it stands, one when it is over."""
    told = Told()
    told.alarms.raise_("lane_paused", "pinterest", "'pinterest' answers unauthorized; 3 events wait.")
    assert told.tick() == [("raised", "lane_paused")]
    assert told.tick(6 * HOUR - 1.0) == []
    told.alarms.raise_("lane_paused", "pinterest", "'pinterest' answers unauthorized; 4 events wait.")
    assert told.tick(1.0) == [("raised", "lane_paused")]
    assert "4 events" in told.chat.calls[-1]["text"]
    told.alarms.clear("lane_paused", "pinterest")
    assert told.tick(9 * MINUTE) == []
    assert told.tick(2 * MINUTE) == [("cleared", "lane_paused")]
    assert told.tick(12 * HOUR) == []
    told.alarms.raise_("lane_paused", "pinterest", "Again.")
    assert told.tick() == [("raised", "lane_paused")]


def test_a_message_is_whole() -> None:
    """``text`` says what, where, since when and what to do; the alarm is there for programs."""
    told = Told()
    told.alarms.raise_("disk_low", "-", "The disk has 12 MB free.", "Make room.")
    told.tick()
    assert told.chat.calls == [
        {
            "text": "tag-gateway: Hits are refused: the disk is nearly full, since 2026-11-22 00:00 UTC. "
            "The disk has 12 MB free. Make room.",
            "alarm": {
                "id": "disk_low:-", "kind": "disk_low", "title": "Hits are refused: the disk is nearly full",
                "where": "-", "since": NOW, "detail": "The disk has 12 MB free.", "remedy": "Make room.",
            },
            "state": "raised",
        }
    ]  # fmt: skip


def test_one_that_comes_back_soon_had_not_gone() -> None:
    """An alarm that flickers is one message, not one each time."""
    told = Told()
    for _ in range(20):
        told.alarms.raise_("plugin_failed", "acme", "5 calls failed.")
        told.tick()
        told.alarms.clear("plugin_failed", "acme")
        told.tick(5 * MINUTE)
    assert told.chat.said == [("raised", "plugin_failed")]


def test_acknowledged_is_told_no_more() -> None:
    """A state that was acknowledged is not repeated; what happened is over with it, without another word."""
    told = Told()
    told.alarms.raise_("lane_paused", "pinterest", "It refuses.")
    told.alarms.heard("app_uninstalled", "The app was removed.", "shop")
    assert len(told.tick()) == 2
    for alarm in told.alarms.active():
        told.alarms.acknowledge(alarm.id)
    assert told.tick(8 * HOUR) == []
    told.alarms.clear("lane_paused", "pinterest")
    assert told.tick(HOUR) == [("cleared", "lane_paused")]


def test_an_hour_has_a_limit() -> None:
    """A storm of alarms is cut at so many messages an hour, the last of which says so; the rest follows later."""
    told = Told()
    for number in range(50):
        told.alarms.raise_("silent_source", f"shop-{number}", "None came.")
    assert len(told.tick(59 * MINUTE)) == MOST_AN_HOUR
    assert "No more messages within this hour" in told.chat.calls[-1]["text"]
    assert "No more messages" not in told.chat.calls[-2]["text"]
    assert len(told.tick(3 * MINUTE)) == 20
    assert len({call["alarm"]["where"] for call in told.chat.calls}) == 50


@pytest.mark.parametrize(
    "answer",
    [500, 404, 302, 429, Unreachable("no answer in 10 s", sent=True)],
    ids=["500", "404", "302", "429", "none"],
)
def test_a_failing_receiver(answer: int | Unreachable, caplog: pytest.LogCaptureFixture) -> None:
    """It is tried again with growing pauses, is an alarm of its own after three times, and told once it is back."""
    told = Told()
    caplog.set_level("WARNING")
    told.chat.answers = [answer] * 12
    told.alarms.raise_("lane_paused", "pinterest", "It refuses.")
    told.tick(10 * MINUTE)
    assert 5 <= len(told.chat.calls) <= 10
    assert set(told.chat.said) == {("raised", "lane_paused")}
    (failing,) = [one for one in told.alarms.active() if one.kind == "alerts_failing"]
    assert failing.detail.startswith("The receiver of [alerts] fails: ")
    said = caplog.text + " ".join(JsonFormatter().format(record) for record in caplog.records)
    assert "alert_not_sent" in said
    assert "hooks.example.com" not in said
    assert "token" not in said
    assert "hooks" not in failing.detail
    told.tick(2 * HOUR)
    assert len(told.chat.calls) == 13
    assert [one.kind for one in told.alarms.active()] == ["lane_paused"]


def test_a_receiver_that_was_away_is_told_what_holds() -> None:
    """Alarms that came and went while it was away are not told; nothing queues up."""
    told = Told()
    told.chat.answers = [503] * 100
    for number in range(100):
        told.alarms.raise_("plugin_failed", f"plugin-{number}", "It failed.")
        told.tick(15.0)
        told.alarms.clear("plugin_failed", f"plugin-{number}")
    told.chat.answers, before = [], len(told.chat.calls)
    told.alarms.raise_("disk_low", "-", "12 MB")
    told.tick(HOUR)
    assert told.chat.said[before:] == [("raised", "disk_low")]


def test_without_an_address_nobody_is_told() -> None:
    """No address, no call; an address taken away ends the alarm of its failure."""
    told = Told(url=None)
    told.alarms.raise_("disk_low", "-", "12 MB")
    told.alarms.raise_("alerts_failing", "-", "It fails.")
    assert told.tick(HOUR) == []
    assert [one.kind for one in told.alarms.active()] == ["disk_low"]


def test_a_restart_repeats_nothing(tmp_path: Path) -> None:
    """What was told before a restart is not told again after it, and its end is."""
    told = Told()
    told.alarms.raise_("lane_paused", "pinterest", "It refuses.")
    told.tick()
    file = tmp_path / "gateway.db.alarms"
    told.alarms._file = file
    told.alarms.write(told.alarms.journal() or b"")
    after = Told()
    after.alarms = Alarms(after.clock, file)
    after.webhook = Webhook(after.chat, after.clock, after.alarms, lambda: after.receiver)
    after.alarms.settle("lane_paused", {"pinterest": "It refuses."})
    assert after.tick(HOUR) == []
    after.alarms.settle("lane_paused", {})
    assert after.tick(HOUR) == [("cleared", "lane_paused")]


def test_a_clock_that_is_set_back_silences_nobody() -> None:
    """Neither a repeat nor a retry waits for a time that is years away."""
    told = Told()
    told.chat.answers = [500]
    told.alarms.raise_("disk_low", "-", "12 MB")
    told.tick()
    told.clock.advance(-30 * 86_400.0)
    assert told.tick() == [("raised", "disk_low")]
    told.clock.advance(-30 * 86_400.0)
    assert told.tick() == [("raised", "disk_low")]


def test_text_is_plain_and_short() -> None:
    """Names cannot call a whole channel, break the line or make it endless."""
    alarms = Alarms(Clock())
    alarm = alarms.raise_("audience_waiting", "3", "<!channel> \r\nlist\u2028two " + "x" * 5_000)
    text = text_of(alarm, "raised")
    assert "<" not in text
    assert "\n" not in text
    assert "\u2028" not in text
    assert len(text) <= 1_000
    assert json.loads(body(alarm, "cleared"))["state"] == "cleared"


# -- in the gateway

CANARY = "jo.canary@example.com"


def test_no_person_and_no_secret_is_told(tmp_path: Path) -> None:
    """Events with a person's data that die, are refused and cannot be read make alarms without any of it."""

    async def scenario() -> None:
        chat, sandbox = Chat(), PinterestSandbox()
        vendor = AppClient(sandbox.app)

        class Network:
            async def request(self, method: str, url: str, **named: Any) -> Answer:
                client: Any = chat if url == URL else vendor
                answer: Answer = await client.request(method, url, **named)
                return answer

        config = {**SHOP, "alerts": {"url": URL}}
        async with running(config, tmp_path, sandbox=sandbox, http=Network()) as app:
            sandbox.faults.stand(Fault(kind="status", status=401))
            event = {"event_name": "lead", "event_id": "canary-id", "user": {"email": CANARY}, "search_string": CANARY}
            api = {"Authorization": "Bearer a-secret-of-the-api"}
            await app.post("api", event, api)
            for _ in range(6):
                await app.post("api", event, {"Authorization": "Bearer canary-wrong-secret"})
            await until(lambda: app.gateway.sender.lanes[0].state.state == "paused")
            app.gateway.tally.hits.clear()
            app.gateway.alarms.hint()
            await until(lambda: len(chat.calls) >= 2)
            kinds = {call["alarm"]["kind"] for call in chat.calls}
            assert kinds == {"lane_paused", "signature_refused"}
            told = json.dumps(chat.calls) + "".join(str(one) for one in app.gateway.alarms.active())
            for secret in (CANARY, "canary", URL, "a-token", "a-secret", "sandbox-token"):
                assert secret not in told
        kept = (tmp_path / "gateway.db.alarms").read_text()
        assert "lane_paused" in kept
        assert "canary" not in kept
        assert "-token" not in kept

    asyncio.run(scenario())


def test_a_receiver_that_hangs_hurts_no_delivery(tmp_path: Path) -> None:
    """While the receiver does not answer, events are delivered, and the gateway stops in time."""

    async def scenario() -> None:
        sandbox = PinterestSandbox()
        vendor, called = AppClient(sandbox.app), asyncio.Event()

        class Network:
            async def request(self, method: str, url: str, **named: Any) -> Answer:
                if url == URL:
                    called.set()
                    await asyncio.Event().wait()
                return await vendor.request(method, url, **named)

        async with running({**SHOP, "alerts": {"url": URL}}, tmp_path, sandbox=sandbox, http=Network()) as app:
            app.gateway._alarm("app_uninstalled", "Removed.", "api")
            async with asyncio.timeout(10.0):
                await called.wait()
                event = {"event_name": "lead", "event_id": "one", "user": {"email": CANARY}}
                status, _ = await app.post("api", event, {"Authorization": "Bearer a-secret-of-the-api"})
                assert status == 200
                await app.delivered(1)

    async def limited() -> None:
        async with asyncio.timeout(30.0):
            await scenario()

    asyncio.run(limited())


# -- the command


def served(answers: Callable[[BaseHTTPRequestHandler], int]) -> tuple[HTTPServer, list[Any]]:
    """Return a receiver on loopback, and what it gets."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(answers(self))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return server, got


@pytest.mark.parametrize(("status", "words"), [(204, "a test alarm was taken"), (403, "it answered 403")])
def test_the_command_sends_a_test_when_asked(
    tmp_path: Path, status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``check --online --alert`` sends one test alarm; ``check --online`` sends none."""
    server, got = served(lambda _request: status)
    monkeypatch.setattr("gateway.plugins.pinterest.destination.Pinterest.probe", _fine)
    try:
        address = f"http://127.0.0.1:{server.server_port}/a-token"
        file = tmp_path / "gateway.toml"
        (tmp_path / "var").mkdir()
        monkeypatch.setenv("ALERTS_URL", address)
        file.write_text(f'{FILE}\n[alerts]\nurl = {{ env = "ALERTS_URL" }}\n')
        result = CliRunner().invoke(cli, ["check", "--online", "--config", str(file)])
        assert result.exit_code == 0, result.output
        assert not got
        result = CliRunner().invoke(cli, ["check", "--online", "--alert", "--config", str(file)])
        assert result.exit_code == (0 if status == 204 else 1)
        assert words in result.output
        assert "a-token" not in result.output
        (message,) = got
        assert message["alarm"]["kind"] == "test"
        assert message["text"].startswith("tag-gateway: A test, since ")
        assert CliRunner().invoke(cli, ["check", "--alert", "--config", str(file)]).exit_code == 2
    finally:
        server.shutdown()
        server.server_close()


async def _fine(_self: Any) -> None:
    return None


def test_the_real_client_follows_no_redirect() -> None:
    """A receiver that redirects is not followed, and told of as failing."""
    server, got = served(lambda _request: 307)

    async def scenario() -> None:
        client = Client()
        from gateway.alarms.webhook import post

        receiver = Receiver(url=Secret(value=f"http://127.0.0.1:{server.server_port}/x"))
        assert await post(client, receiver, body(sample(NOW), "raised")) == "it answered 307"
        await client.close()

    try:
        asyncio.run(scenario())
        assert len(got) == 1
    finally:
        server.shutdown()
        server.server_close()
