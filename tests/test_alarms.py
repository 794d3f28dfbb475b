"""Alarms: each kind comes and goes with its cause, is kept over a restart, acknowledged, and told to a receiver."""

import asyncio
import re
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
import yaml
from click.testing import CliRunner

from gateway import config as configuration
from gateway.alarms import LASTS_S, MOST_LASTING, Alarms
from gateway.alarms.kinds import KINDS
from gateway.alarms.receiver import receiver_of
from gateway.alarms.states import States
from gateway.alarms.watch import Watch
from gateway.audiences import Status as Connection
from gateway.cli import cli
from gateway.errors import ConfigError, Unavailable
from gateway.hit import Secret
from gateway.operator import operator_app
from gateway.outbox import Counts, LaneCount
from gateway.tally import Event, Tally
from gateway.testing.app import running
from gateway.testing.doubles import NOW, Clock

ROOT = Path(__file__).parents[1]
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
SHOP = {
    "sites": {"shop": {"hold_s": 0.0}},
    "sources": {
        "api": {"adapter": "browser_tag", "site": "shop", "secrets": ["a-secret-of-the-api"]},
        "tag": {"adapter": "browser_tag", "site": "shop", "allowed_origins": ["https://shop.example"]},
    },
}


class FakeOutbox:
    """A store with whatever is said of it."""

    def __init__(self) -> None:
        self.lanes: list[LaneCount] = []
        self.failure: str | None = None
        self.trouble: str | None = None
        self.damaged: Sequence[str] = ()
        self.is_broken = False

    async def counts(self) -> Counts:
        if self.is_broken:
            raise Unavailable("store_failed", "The store cannot be read.")
        return Counts(lanes=tuple(self.lanes), file_bytes=0)

    async def history(self, *_arguments: Any, **_named: Any) -> list[Any]:
        return []


class FakeGateway:
    """What the watch looks at, set by hand."""

    def __init__(self, clock: Clock) -> None:
        self.clock: Callable[[], float] = clock
        self.started_at = clock()
        self.outbox: Any = FakeOutbox()
        self.tally = Tally()
        self.lane = SimpleNamespace(destination="pinterest", state="running", reason=None)
        self.sender = SimpleNamespace(lanes=[SimpleNamespace(state=self.lane)])
        self.kept: dict[str, int] = {}
        self.quarantine = SimpleNamespace(counts=lambda: self.kept)
        self.connected: list[Connection] = []
        self.audiences = SimpleNamespace(connections=self._connections)
        self.parts = SimpleNamespace(routes={}, alerts=SimpleNamespace(url=None))
        self.switched_off: set[str] = set()
        self.problem: str | None = None

    async def _connections(self) -> list[Connection]:
        return self.connected

    async def ready(self) -> str | None:
        return self.problem


class Scene:
    """A fake gateway with its alarms and its watch."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.gateway = FakeGateway(self.clock)
        self.alarms = Alarms(self.clock)
        self.watch = Watch(self.gateway, self.alarms, SimpleNamespace())

    def look(self, after_s: float = 0.0) -> dict[str, str]:
        """Let time pass, looking once a minute; returns detail by id."""

        async def looks() -> None:
            left = after_s
            while left > MINUTE:
                self.clock.advance(MINUTE)
                await self.watch.look()
                left -= MINUTE
            self.clock.advance(left)
            await self.watch.look()

        asyncio.run(looks())
        return {one.id: one.detail for one in self.alarms.active()}


async def until(reached: Callable[[], bool]) -> None:
    """Wait for what another task does."""
    async with asyncio.timeout(10.0):
        while not reached():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)


def waiting(count: int, age_s: float | None = None) -> LaneCount:
    oldest = None if age_s is None else NOW - age_s
    return LaneCount(destination="pinterest", kind="live", waiting=count, leased=0, dead=0, oldest_at=oldest)


# -- states


def test_nothing_is_wrong_with_a_new_gateway() -> None:
    """A gateway that does nothing wrong has no alarm."""
    scene = Scene()
    assert scene.look() == {}
    assert scene.look(15.0) == {}


def test_a_paused_lane() -> None:
    """Refused credentials are an alarm from when they are found until they work; its queue is no second one."""
    scene = Scene()
    scene.gateway.outbox.lanes = [waiting(3, 2 * HOUR)]
    scene.gateway.lane.state, scene.gateway.lane.reason = "paused", "unauthorized: whatever the vendor said"
    assert scene.look() == {"lane_paused:pinterest": "'pinterest' answers unauthorized; 3 events wait."}
    (alarm,) = scene.alarms.active()
    assert (alarm.since, alarm.remedy) == (NOW, KINDS["lane_paused"].remedy)
    scene.look(90.0)
    assert scene.alarms.active()[0].since == NOW
    scene.gateway.lane.state, scene.gateway.outbox.lanes = "running", []
    assert scene.look(15.0) == {}


def test_an_old_queue() -> None:
    """An event that waits for over 30 minutes is an alarm, one of 29 minutes is none."""
    scene = Scene()
    scene.gateway.outbox.lanes = [waiting(1, 29 * MINUTE)]
    assert scene.look() == {}
    scene.gateway.outbox.lanes = [waiting(1_200, 29 * MINUTE)]
    assert scene.look(2 * MINUTE) == {
        "queue_old:pinterest": "1,200 events wait for 'pinterest', the oldest for 31 minutes."
    }
    scene.gateway.outbox.lanes = [waiting(1_200, 0.0)]
    assert scene.look() == {}


def test_dead_letters_grow() -> None:
    """New dead letters are an alarm with their reasons, until none came for an hour; dead tests are none."""
    scene = Scene()
    events = scene.gateway.tally.events
    events[Event("api", "pinterest", "lead", "test_dead", "refused")] += 1
    assert scene.look() == {}
    events[Event("api", "pinterest", "lead", "dead", "refused")] += 2
    events[Event("api", "pinterest", "checkout", "dead", "late")] += 1
    told = "3 dead letters in the last hour (refused: 2, late: 1)."
    assert scene.look(15.0) == {"dead_grows:pinterest": told}
    assert "dead_grows:pinterest" in scene.look(50 * MINUTE)
    assert scene.look(15 * MINUTE) == {}


def test_a_damaged_store() -> None:
    """Each store that was moved aside is an alarm, until it is settled."""
    scene = Scene()
    scene.gateway.outbox.damaged = ["one.db: torn (moved aside at 1)", "two.db: torn (moved aside at 2)"]
    assert set(scene.look()) == {"store_damaged:one.db", "store_damaged:two.db"}
    scene.gateway.outbox.damaged = scene.gateway.outbox.damaged[1:]
    assert set(scene.look()) == {"store_damaged:two.db"}


def test_a_full_disk() -> None:
    """Too little room is told as such, and not as a store that fails."""
    scene = Scene()
    scene.gateway.outbox.trouble = scene.gateway.problem = "The disk has 12 MB free."
    assert scene.look() == {"disk_low:-": "The disk has 12 MB free."}
    scene.gateway.outbox.trouble = scene.gateway.problem = None
    assert scene.look() == {}


def test_a_store_that_cannot_be_written() -> None:
    """A store that fails, or does not answer, or cannot even be read, is an alarm."""
    scene = Scene()
    scene.gateway.problem = "the store does not answer"
    assert scene.look() == {"store_unwritable:-": "the store does not answer"}
    scene.gateway.outbox.is_broken = True
    assert scene.look() == {"store_unwritable:-": "the store does not answer"}
    scene.gateway.outbox.is_broken, scene.gateway.problem = False, None
    assert scene.look() == {}
    scene.gateway.outbox.failure = scene.gateway.outbox.trouble = "The store is damaged."
    assert scene.look() == {"store_unwritable:-": "The store is damaged."}


def test_hits_in_quarantine() -> None:
    """Hits in quarantine are an alarm by source until none is left; refused ones for an hour."""
    scene = Scene()
    scene.gateway.kept = {"shop": 1}
    scene.gateway.tally.kept("shop", "full", 2)
    found = scene.look()
    assert found["quarantined:shop"] == "1 hit of 'shop' could not be read."
    assert found["quarantine_full:shop"] == "2 hits in the last hour (full: 2)."
    scene.gateway.kept = {}
    assert set(scene.look(30 * MINUTE)) == {"quarantine_full:shop"}
    assert scene.look(35 * MINUTE) == {}


def test_plugins() -> None:
    """A plugin that fails five times in ten minutes, or is switched off, is an alarm."""
    scene = Scene()
    scene.gateway.tally.plugin_failures[("acme",)] += 4
    assert scene.look() == {}
    scene.gateway.tally.plugin_failures[("acme",)] += 1
    scene.gateway.switched_off = {"other"}
    assert set(scene.look(MINUTE)) == {"plugin_failed:acme", "plugin_switched_off:other"}
    scene.gateway.switched_off = set()
    assert scene.look(20 * MINUTE) == {}


def test_an_audience_waits() -> None:
    """A connection that a guard stopped, or that needs the operator, is an alarm; any other is none."""
    scene = Scene()
    one = Connection(
        id=7, source="klaviyo", kind="list", group="L", group_name="Customers", sink="pinterest", account="1",
        audience="2", audience_name="Buyers", feed="", remove=True, state="ok",
    )  # fmt: skip
    scene.gateway.connected = [one]
    assert scene.look() == {}
    for state in ("held", "attention"):
        scene.gateway.connected = [msgspec.structs.replace(one, state=state, message="Too many would leave.")]
        assert scene.look() == {"audience_waiting:7": "Customers → Buyers: Too many would leave."}
    scene.gateway.connected = []
    assert scene.look() == {}


def test_shed_hits() -> None:
    """Ten hits refused for want of room in ten minutes are an alarm; what the rate limit refuses is none."""
    scene = Scene()
    scene.gateway.tally.shed[("tag", "rate")] += 500
    scene.gateway.tally.shed[("tag", "requests")] += 9
    assert scene.look() == {}
    scene.gateway.tally.shed[("tag", "bytes")] += 1
    assert scene.look(MINUTE) == {"shed:tag": "10 hits refused in the last 10 minutes (requests: 9, bytes: 1)."}
    assert scene.look(11 * MINUTE) == {}


def test_refused_signatures() -> None:
    """Five refusals count where nothing is taken (a changed secret), a hundred where hits are (somebody guesses)."""
    scene = Scene()
    refusals, hits = scene.gateway.tally.refusals, scene.gateway.tally.hits
    refusals[("api", "wrong_secret")] += 4
    assert scene.look() == {}
    refusals[("api", "wrong_secret")] += 1
    told = "5 hits refused with 401 in the last hour (wrong_secret: 5). None was taken."
    assert scene.look(MINUTE) == {"signature_refused:api": told}
    hits[("api", "200")] += 1
    assert scene.look(MINUTE) == {}
    refusals[("api", "wrong_secret")] += 95
    assert scene.look(MINUTE)["signature_refused:api"].endswith("(wrong_secret: 100). Others were taken.")
    assert scene.look(2 * HOUR) == {}


def test_a_clock_that_is_set_back_raises_nothing() -> None:
    """What was counted before the clock was set back is not counted as new."""
    scene = Scene()
    scene.gateway.tally.plugin_failures[("acme",)] += 50
    scene.look(MINUTE)
    scene.look(20 * MINUTE)
    assert scene.look(-2 * DAY) == {}
    assert scene.look(MINUTE) == {}


# -- what lasts


def test_what_happened_stays_until_it_is_acknowledged() -> None:
    """Two requests of customers at one shop are two alarms; each goes with its own acknowledgement, or after a week."""
    clock = Clock()
    alarms = Alarms(clock)
    alarms.heard("data_request", "A customer asks for their data: what is kept is in a.json.", "shop")
    clock.advance(DAY)
    alarms.heard("data_request", "A customer asks for their data: what is kept is in b.json.", "shop")
    alarms.heard("data_request", "A customer asks for their data: what is kept is in b.json.", "shop")
    newer, older = alarms.active()
    assert newer.detail.endswith("b.json.")
    assert older.detail.endswith("a.json.")
    assert not alarms.acknowledge("data_request:shop:none")
    assert alarms.acknowledge(newer.id)
    assert alarms.active() == [older]
    clock.advance(LASTS_S - DAY - 1.0)
    assert alarms.active() == [older]
    clock.advance(1.0)
    assert alarms.active() == []


def test_what_a_plugin_reports_lasts_and_is_bounded() -> None:
    """A reason that nobody knows is an alarm too; a flood of them pushes out the oldest."""
    clock = Clock()
    alarms = Alarms(clock)
    for number in range(MOST_LASTING + 5):
        alarms.heard("app_moved", f"Number {number}.", "shop")
        clock.advance(1.0)
    assert len(alarms.active()) == MOST_LASTING
    assert alarms.active()[-1].detail == "Number 5."
    assert alarms.active()[0].title == "A source reports: app_moved"


def test_an_acknowledged_state_stays_until_it_is_over() -> None:
    """Acknowledging does not end a state, and the next of its kind is news."""
    scene = Scene()
    scene.gateway.lane.state = "paused"
    scene.look()
    assert scene.alarms.acknowledge("lane_paused:pinterest")
    scene.look(MINUTE)
    assert [one.acknowledged for one in scene.alarms.active()] == [True]
    scene.gateway.lane.state = "running"
    scene.look()
    scene.gateway.lane.state = "paused"
    scene.look()
    assert [one.acknowledged for one in scene.alarms.active()] == [False]


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """What happened is there again; a state goes on from its own time if it still holds, and else is gone."""
    file, clock = tmp_path / "gateway.db.alarms", Clock()
    before = Alarms(clock, file)
    before.raise_("app_uninstalled", "shop", "The app was removed.")
    before.raise_("lane_paused", "pinterest", "3 events wait.")
    before.raise_("disk_low", "-", "12 MB")
    content = before.journal()
    assert content is not None
    assert before.journal() is None
    before.write(content)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    clock.advance(HOUR)
    after = Alarms(clock, file)
    assert [one.kind for one in after.active()] == ["app_uninstalled"]
    after.settle("lane_paused", {"pinterest": "4 events wait."})
    after.settle("disk_low", {})
    after.looked()
    assert {one.kind: one.since for one in after.active()} == {"app_uninstalled": NOW, "lane_paused": NOW}
    after.raise_("disk_low", "-", "11 MB")
    assert {one.kind: one.since for one in after.active()}["disk_low"] == NOW + HOUR


@pytest.mark.parametrize("content", [b"", b"{", b'{"alarms": 3}', b"\xff"])
def test_a_file_that_cannot_be_read_costs_only_what_it_held(tmp_path: Path, content: bytes) -> None:
    """A damaged file of alarms keeps nobody from starting."""
    file = tmp_path / "gateway.db.alarms"
    file.write_bytes(content)
    assert Alarms(Clock(), file).active() == []


def test_a_disk_that_takes_no_file_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Alarms that cannot be written down are still up, and the log says so."""
    caplog.set_level("WARNING")
    alarms = Alarms(Clock(), tmp_path / "missing" / "alarms")
    alarms.raise_("disk_low", "-", "12 MB")
    alarms.write(alarms.journal() or b"")
    assert "alarms_not_written" in caplog.text
    assert len(alarms.active()) == 1


# -- the watch's tasks


def test_the_watch_looks_at_once_when_it_is_told_to() -> None:
    """A report of the gateway's own parts is looked at without waiting for the next round."""

    async def scenario() -> None:
        scene = Scene()
        scene.watch.start()
        await until(lambda: scene.watch._read_to is not None)
        scene.gateway.kept = {"shop": 1}
        scene.alarms.heard("quarantined", "The plugin fails.", "shop")
        await until(lambda: bool(scene.alarms.active()))
        await scene.watch.stop()

    asyncio.run(scenario())


def test_a_bug_in_the_watch_costs_the_watch_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A look that raises is logged and tried again."""
    caplog.set_level("WARNING")

    async def scenario() -> None:
        scene, raised = Scene(), 0

        async def bad(_self: States) -> Any:
            nonlocal raised
            raised += 1
            raise KeyError("a bug")

        monkeypatch.setattr("gateway.alarms.watch._AGAIN_S", 0.001)
        monkeypatch.setattr(States, "look", bad)
        scene.watch.start()
        await until(lambda: raised >= 3)
        await scene.watch.stop()

    asyncio.run(scenario())
    assert "alarms_failed" in caplog.text


# -- in the gateway


def test_api_metrics_and_status(tmp_path: Path) -> None:
    """An alarm is in the API, the status and the metrics; the operator acknowledges it, a viewer may not."""

    async def scenario() -> None:
        async with running(SHOP, tmp_path) as app:
            gateway = app.gateway
            gateway._alarm("app_uninstalled", "The app was removed.", "api")
            served = operator_app(gateway, Secret(value="op-password"), Secret(value="view-password"))
            transport = httpx.ASGITransport(served)
            async with httpx.AsyncClient(transport=transport, base_url="http://operator") as client:
                viewer = {"Authorization": "Bearer view-password"}
                operator = {"Authorization": "Bearer op-password"}
                answer = (await client.get("/api/alarms", headers=viewer)).json()
                (alarm,) = answer["alarms"]
                assert (alarm["kind"], alarm["where"], answer["are_sent"]) == ("app_uninstalled", "api", False)
                assert (await client.get("/api/status", headers=viewer)).json()["active"] == [alarm]
                metrics = (await client.get("/metrics", headers=viewer)).text
                assert 'gateway_alarm{kind="app_uninstalled",where="api"} 1.0' in metrics
                assert 'gateway_alarms_total{reason="app_uninstalled",source="api"} 1.0' in metrics
                path, which = "/api/alarms/acknowledge", {"id": alarm["id"]}
                assert (await client.post(path, headers=viewer, json=which)).status_code == 403
                assert (await client.post(path, headers=operator, json={})).status_code == 400
                assert (await client.post(path, headers=operator, json={"id": "none"})).status_code == 404
                assert (await client.post(path, headers=operator, json=which)).json() == {"acknowledged": alarm["id"]}
                assert (await client.get("/api/alarms", headers=viewer)).json()["alarms"] == []
            assert gateway.audit.last()[0].what == "acknowledge"

    asyncio.run(scenario())


def test_alarms_of_a_gateway_outlive_it(tmp_path: Path) -> None:
    """A gateway that stops writes its alarms beside the store, and the next one has them."""

    async def scenario() -> None:
        async with running(SHOP, tmp_path) as app:
            app.gateway._alarm("data_request", "A customer asks for their data.", "api")
        async with running(SHOP, tmp_path) as app:
            assert [one.kind for one in app.gateway.alarms.active()] == ["data_request"]

    asyncio.run(scenario())
    assert (tmp_path / "gateway.db.alarms").exists()


FILE = """
[destinations.pinterest]
type = "pinterest"
ad_account_id = "1"
token = "a-token"
[sources.api]
adapter = "browser_tag"
secrets = ["a-secret-of-the-api"]
destinations = ["pinterest"]
"""


def test_status_shows_alarms_first(tmp_path: Path) -> None:
    """``tag-gateway status`` without a server looks itself, and says what to do before it says anything else."""
    file = tmp_path / "gateway.toml"
    file.write_text(FILE)
    (tmp_path / "var").mkdir()
    kept = Alarms(time.time, tmp_path / "var" / "gateway.db.alarms")
    kept.raise_("app_uninstalled", "api", "The app [was] removed.")
    kept.write(kept.journal() or b"")
    result = CliRunner().invoke(cli, ["status", "--config", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.output.splitlines()]
    first = next(index for index, line in enumerate(lines) if line.startswith("alarm "))
    assert lines[first].startswith("alarm The shop removed the app (api), since ")
    assert lines[first + 1] == "The app [was] removed."
    assert lines[first + 2].startswith("Its webhooks have ended.")
    assert first < next(index for index, line in enumerate(lines) if line.startswith("destination"))


# -- configuration and the rules for Prometheus


def parsed(url: Any, folder: Path, **table: Any) -> configuration.Config:
    return configuration.parse({"alerts": {"url": url, **table}}, folder / "gateway.toml")


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/T/B/token", "ftp://hooks.example.com/token", "hooks.example.com/token", "https://",
        "https://user:token@hooks.example.com/", "https://10.0.0.8/token", "https://0x7f.1/token",
        "https://hooks.example.com/token#part", "https://hooks.example.com/?key=a token", "https://[::1/token",
        "https://hooks.example.com/?key=tökén",
    ],
)  # fmt: skip
def test_a_bad_address_is_refused(tmp_path: Path, url: str) -> None:
    """Only https to a public host, or http to this machine; the message quotes nothing of the address."""
    with pytest.raises(ConfigError, match=re.escape("[alerts] url")) as caught:
        receiver_of(parsed(url, tmp_path), [])
    assert "token" not in str(caught.value)
    assert "hooks" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://hooks.example.com/T/B/x", "https://chat.example.com/m?key=a&token=b%3D", "http://127.0.0.1:9/x"]
)
def test_a_good_address_is_taken(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token may be in the path or the query; a literal one is warned about, and none is ever shown."""
    warnings: list[str] = []
    receiver = receiver_of(parsed(url, tmp_path), warnings)
    assert receiver.url is not None
    assert receiver.url.value == url
    assert url not in repr(receiver)
    assert len(warnings) == 1
    assert url not in warnings[0]
    monkeypatch.setenv("ALERTS_URL", url)
    again = receiver_of(parsed({"env": "ALERTS_URL"}, tmp_path), warnings)
    assert again == receiver
    assert len(warnings) == 1


def test_other_mistakes_of_the_table(tmp_path: Path) -> None:
    """A missing variable, a wrong key and too small a time are named."""
    with pytest.raises(ConfigError, match="ALERTS_NONE is not set"):
        receiver_of(parsed({"env": "ALERTS_NONE"}, tmp_path), [])
    with pytest.raises(ConfigError, match=r"did you mean 'repeat_s'"):
        parsed("https://hooks.example.com/x", tmp_path, repeat=1)
    with pytest.raises(ConfigError, match="repeat_s must be 60 or more"):
        parsed("https://hooks.example.com/x", tmp_path, repeat_s=5)
    assert receiver_of(configuration.parse({}, tmp_path / "gateway.toml"), []).url is None


RULES = yaml.safe_load((ROOT / "deploy/prometheus-rules.yaml").read_text(encoding="utf-8"))


def named(rules: Any) -> set[str]:
    """Return the metrics that the rules name."""
    return {name for group in rules["groups"] for rule in group["rules"] for name in metrics_in(rule["expr"])}


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"gateway_[a-z_]+", expression))


def test_the_rules_cover_what_wakes() -> None:
    """Each rule is whole, and every metric of the table of what to be woken for has one."""
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description"}
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    section = text.split("### What to be woken for")[1].split("\n| reason of")[0]
    documented = set(re.findall(r"^\| `(gateway_[a-z_]+)` \|", text, re.MULTILINE))
    assert metrics_in(section) - {"gateway_alarm", *named(RULES)} == set()
    assert named(RULES) <= documented


def test_the_rules_name_metrics_that_exist(tmp_path: Path) -> None:
    """Every metric of the rules, with every label that they use, is served by a gateway that had cause for it."""

    async def scenario() -> str:
        async with running(SHOP, tmp_path) as app:
            tally = app.gateway.tally
            tally.shed[("tag", "requests")] += 1
            tally.refusals[("api", "wrong_secret")] += 1
            tally.plugin_failures[("acme",)] += 1
            tally.kept("api", "kept", 1)
            tally.events[Event("api", "pinterest", "lead", "dead", "refused")] += 1
            app.gateway._alarm("app_uninstalled", "Removed.", "api")
            await app.post("tag", b"{", {"Origin": "https://shop.example"})
            served = operator_app(app.gateway)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://operator") as client:
                return (await client.get("/metrics")).text

    text = asyncio.run(scenario())
    families = set(re.findall(r"^# TYPE (gateway_[a-z_]+) ", text, re.MULTILINE))
    assert named(RULES) <= families
    for group in RULES["groups"]:
        for rule in group["rules"]:
            used = set(re.findall(r"\$labels\.([a-z_]+)", str(rule["annotations"])))
            used |= set(re.findall(r"[{,]([a-z]+)=", rule["expr"]))
            served_labels = {
                label
                for name in metrics_in(rule["expr"])
                for line in re.findall(rf"^{name}\{{(.*?)\}} ", text, re.MULTILINE)
                for label in re.findall(r'([a-z_]+)="', line)
            }
            if metrics_in(rule["expr"]) & {"gateway_audience_waiting", "gateway_quarantined", "gateway_lane_state",
                                           "gateway_queue_oldest_seconds", "gateway_queue"}:  # fmt: skip
                continue  # gauges with no row in this gateway; their labels are held by the table of metrics
            assert used <= served_labels, rule["alert"]
