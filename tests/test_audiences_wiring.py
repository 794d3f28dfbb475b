"""Audiences inside the gateway: configuration, who is barred, jobs, logins, start, reload and stop."""

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import httpx
import msgspec
import pytest
from rich.console import Console

from gateway import config as configuration
from gateway import tables
from gateway.audience import AudienceError, AudienceSink, AudienceSource, Group, Member, Page
from gateway.audiences import Audiences, Settings
from gateway.audiences.accounts import Accounts
from gateway.audiences.barred import Refusals
from gateway.audiences.jobs import Jobs, Tell
from gateway.audiences.logins import LIFE_S, Logins
from gateway.commands.audience_progress import Bars, Lines
from gateway.errors import ConfigError
from gateway.hit import Secret
from gateway.hookspecs import hookimpl
from gateway.interfaces import Context
from gateway.oauth import OAuth
from gateway.operator import operator_app
from gateway.operator.callback import callback_of
from gateway.outbox import LIMITED, OPTED_OUT, Memorandum, Remembered
from gateway.outbox.sqlite import SqliteOutbox
from gateway.runtime import Gateway, assemble
from gateway.testing import running
from gateway.testing.doubles import NOW, Clock

HASHES = [f"{number:064x}" for number in range(4)]
TABLES = {"audience_sources": {"mail": {"type": "street"}}, "audience_sinks": {"board": {}}}


class Street(AudienceSource):
    """A list of one person."""

    type: ClassVar[str] = "street"

    async def groups(self, search: str = "") -> Sequence[Group]:
        """Return the list."""
        return [Group(id="l1", name="Neighbours", kind="list", size=1)] if search.lower() in "neighbours" else []

    async def group(self, kind: str, group_id: str) -> Group:
        """Return it again."""
        return Group(id=group_id, name="Neighbours", kind=kind, size=1)

    async def page(self, group: Group, cursor: str | None = None, *, since: float | None = None) -> Page:
        """Return the person."""
        return Page(members=(Member(id="p1", email="ada@example.com"),))


class Board(AudienceSink):
    """Two accounts, one audience, and what it was told."""

    type: ClassVar[str] = "board"
    held: ClassVar[set[str]] = set()
    opened: ClassVar[list[Group]] = [
        Group(id="1", name="Home", kind="account"), Group(id="2", name="Office", kind="account"),
    ]  # fmt: skip

    async def accounts(self) -> Sequence[Group]:
        """Return both."""
        return self.opened

    async def groups(self, account: str, search: str = "") -> Sequence[Group]:
        """Return the audience."""
        return [Group(id="a1", name="Readers", kind="CUSTOMER_LIST", feed="f1")]

    async def group(self, account: str, audience: str) -> Group:
        """Return it again."""
        return Group(id=audience, name="Readers", kind="CUSTOMER_LIST", feed="f1")

    async def create_feed(self, account: str, name: str, hashes: Sequence[str]) -> str:
        """Take the first ones."""
        self.held.update(hashes)
        return "f1"

    async def create_audience(self, account: str, name: str, feed: str) -> Group:
        """Return it."""
        return Group(id="a1", name=name, kind="CUSTOMER_LIST", feed=feed)

    async def apply(self, account: str, feed: str, operation: Literal["add", "remove"], hashes: Sequence[str]) -> None:
        """Add or remove."""
        (self.held.update if operation == "add" else self.held.difference_update)(hashes)


class Plugin:
    """Registers both."""

    @hookimpl
    def register_audience_sources(self, context: Context) -> list[type[AudienceSource]]:
        """Register the street."""
        return [Street]

    @hookimpl
    def register_audience_sinks(self, context: Context) -> list[type[AudienceSink]]:
        """Register the board."""
        return [Board]


PLUGINS = {"street": Plugin()}


def configured(folder: Path, **tables: Any) -> configuration.Config:
    """Return a configuration with these tables."""
    return configuration.parse(tables, folder / "gateway.toml")


def gateway_of(folder: Path, clock: Callable[[], float] | None = None, **tables: Any) -> Gateway:
    """Return a gateway with the street and the board."""
    folder.joinpath("var").mkdir(exist_ok=True)
    return Gateway(configured(folder, **TABLES, **tables), extra_plugins=PLUGINS, clock=clock or Clock())


async def call(gateway: Gateway, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
    """Call the operator's API as the commands do."""
    app = operator_app(gateway, **more)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        return await client.request(method, path, json=body)


async def job(gateway: Gateway, path: str, body: Any) -> dict[str, Any]:
    """Run a job to its end."""
    begun = await call(gateway, "POST", f"/api/audiences{path}", body)
    assert begun.status_code == 202, begun.text
    state: dict[str, Any] = {"state": "running"}
    while state["state"] == "running":
        state = (await call(gateway, "GET", f"/api/audiences/jobs/{begun.json()['job']}?wait_s=5")).json()
    return state


# -- configuration


def test_settings_and_their_table_agree() -> None:
    """Each key of [audiences] is a setting of the engine, with the same default."""
    table = msgspec.structs.asdict(tables.Audiences())
    engine = msgspec.structs.asdict(Settings())
    assert {name: engine[name] for name in table} == table


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"audience": {}}, "did you mean 'audiences'?"),
        ({"audiences": {"quick_every": 5}}, "did you mean 'quick_every_s'?"),
        ({"audiences": {"max_removal": 20}}, "[audiences] max_removal is a share"),
        ({"audiences": {"parallel": 0}}, "[audiences] parallel must be 1 or more"),
        ({"audience_sources": {"Klaviyo": {}}}, "a name is lower-case letters"),
    ],
)
def test_wrong_tables_are_refused(tables: dict[str, Any], said: str, tmp_path: Path) -> None:
    """A misspelt table or key names the nearest one, a wrong value what is right."""
    with pytest.raises(ConfigError) as error:
        configured(tmp_path, **tables)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"audience_sources": {"mailer": {}}}, "[audience_sources.mailer] type (without one: its name) must be one of"),
        ({"audience_sources": {"klaviyo": {"api_kee": "x"}}}, "did you mean 'api_key'?"),
        ({"audience_sources": {"klaviyo": {}}}, "give either api_key"),
        ({"audience_sources": {"klaviyo": {"api_key": {"env": "NOT_SET"}}}}, "NOT_SET is not set"),
        ({"audience_sinks": {"pinterest": {"app_id": "1"}}}, "give token, or app_id and app_secret"),
        ({"audience_sinks": {"pinterest": 1}}, "[audience_sinks.pinterest] must be a table"),
    ],
)
def test_wrong_options_are_refused(tables: dict[str, Any], said: str, tmp_path: Path) -> None:
    """What a plugin does not take is named with file, table and remedy."""
    with pytest.raises(ConfigError) as error:
        assemble(configured(tmp_path, **tables), None)
    assert said in str(error.value)


def test_the_name_is_the_type_and_a_literal_key_is_warned_about(tmp_path: Path) -> None:
    """[audience_sources.klaviyo] needs no type; another name does, and a secret in the file is a warning."""
    parts = assemble(
        configured(
            tmp_path,
            audience_sources={"klaviyo": {"api_key": "k"}, "other": {"type": "klaviyo", "api_key": "k2"}},
            audience_sinks={"pinterest": {"token": "t"}},
        ),
        None,
    )
    assert sorted(parts.audiences.sources) == ["klaviyo", "other"]
    assert parts.audiences.path == tmp_path / "var" / "audiences.db"
    assert sum("a literal secret" in warning for warning in parts.warnings) == 3


@pytest.mark.parametrize(
    ("operator", "address"),
    [
        ({"password": "p"}, "http://127.0.0.1:8081/oauth/callback"),
        ({"password": "p", "bind": "0.0.0.0:9"}, "http://127.0.0.1:9/oauth/callback"),
        ({"password": "p", "url": "https://ops.example/"}, "https://ops.example/oauth/callback"),
    ],
)
def test_where_a_login_comes_back_to(operator: dict[str, Any], address: str, tmp_path: Path) -> None:
    """The operator's listener, by its own address or the one that a browser sees."""
    assert callback_of(configured(tmp_path, operator=operator)) == address


def test_without_a_password_nobody_can_come_back(tmp_path: Path) -> None:
    """The error says what to set."""
    with pytest.raises(ConfigError, match=r"set \[operator\] password"):
        callback_of(configured(tmp_path))


# -- who is barred


def test_choices_and_erasures_bar(tmp_path: Path) -> None:
    """Opted out, limited, refused and erased are barred, at any site, as long as that is known; others are not."""

    async def scenario() -> None:
        clock = Clock()
        outbox = SqliteOutbox(tmp_path / "gateway.db", clock=clock)
        barred = Refusals(outbox, lambda: ["shop", "blog"], clock, lambda: 1_000.0)
        said = Remembered()
        records = {0: ("shop", OPTED_OUT, None), 1: ("blog", LIMITED, None), 2: ("shop", None, False)}
        memories = []
        for number, (site, sale, marketing) in records.items():
            said = Remembered()
            said.expires = int(NOW) + 5_000
            said.sale, said.sale_at, said.marketing, said.marketing_at = sale, NOW, marketing, NOW
            memories.append(Memorandum(outbox.digest("subject", site, "email", HASHES[number]), said, NOW))
        await outbox.admit([], memories=memories)
        assert await barred(HASHES) == set(HASHES[:3])
        await outbox.erase([outbox.digest("subject", "blog", "email", HASHES[3])], requested_at=NOW)
        assert await barred(HASHES) == set(HASHES)
        clock.advance(1_001)
        assert await barred(HASHES) == {HASHES[3]}
        assert await barred([]) == set()
        await outbox.close()

    asyncio.run(scenario())


def test_a_limited_event_and_an_erasure_keep_a_person_out(tmp_path: Path) -> None:
    """What an event or an erasure says of a person holds for audiences of the same gateway."""

    async def scenario() -> None:
        Board.held.clear()
        config = {
            "sources": {"api": {"adapter": "browser_tag", "secrets": ["s"], "destinations": ["pinterest"]}}, **TABLES,
        }  # fmt: skip
        async with running(config, tmp_path, plugins=PLUGINS) as world:
            gateway = world.gateway
            body = {"kind": "list", "group": "l1", "account": "1", "audience": "a1"}
            assert (await job(gateway, "/connect", body))["state"] == "done"
            (outcome,) = (await job(gateway, "/sync", {}))["result"]
            assert (outcome["added"], outcome["state"]) == (1, "ok")
            assert len(Board.held) == 1
            assert (await call(gateway, "POST", "/api/erase", {"email": "ADA@example.com "})).status_code == 200
            (outcome,) = (await job(gateway, "/sync", {"full": True}))["result"]
            assert outcome["removed"] == 1
            assert Board.held == set()
            (status,) = (await call(gateway, "GET", "/api/audiences")).json()["connections"]
            assert status["skipped"] == {"opted_out": 1}
            metrics = (await call(gateway, "GET", "/metrics")).text
            assert 'gateway_audience_total{connection="1",what="removed"} 1.0' in metrics
            assert 'gateway_audience_waiting{connection="1"} 0.0' in metrics

    asyncio.run(scenario())


# -- accounts


def test_an_account_is_chosen_once(tmp_path: Path) -> None:
    """Of several one must be named; the choice is kept in a file for its owner, and can be changed."""

    async def scenario() -> None:
        path = tmp_path / "accounts.json"
        accounts = Accounts(path, {"board": Board("board", None, Context())})
        with pytest.raises(AudienceError, match=r"name one by --account: 1 \(Home\), 2 \(Office\)"):
            await accounts.of("board")
        accounts.choose("board", (await accounts.of("board", "office")).id)
        assert path.stat().st_mode & 0o077 == 0
        assert (await accounts.of("board")).id == "2"
        assert (await accounts.of("board", "1")).id == "1"
        with pytest.raises(AudienceError, match="'3' is not open"):
            await accounts.of("board", "3")
        path.write_text("{")
        with pytest.raises(AudienceError, match="remove it"):
            await accounts.of("board")

    asyncio.run(scenario())


# -- jobs


def test_a_job_tells_how_it_goes() -> None:
    """It runs, tells, and ends in a result, in words for the operator, or in none of an unknown error's text."""

    async def scenario() -> None:
        jobs, go = Jobs(), asyncio.Event()

        async def good(tell: Tell) -> int:
            tell("half")
            await go.wait()
            return 7

        async def refused(_tell: Tell) -> None:
            raise AudienceError("Log in first.")

        async def broken(_tell: Tell) -> None:
            raise KeyError("ada@example.com")

        one = jobs.start(good)
        state = await jobs.look(one, 0.01)
        assert (state.state, state.progress) == ("running", "half")
        go.set()
        state = await jobs.look(one, 5)
        assert (state.state, state.result) == ("done", 7)
        assert (await jobs.look(jobs.start(refused), 5)).error == "Log in first."
        state = await jobs.look(jobs.start(broken), 5)
        assert state.state == "failed"
        assert "ada" not in state.error
        with pytest.raises(ValueError, match="no such job"):
            await jobs.look("x")
        go.clear()
        late = jobs.start(good)
        await jobs.stop()
        assert "interrupted" in (await jobs.look(late)).error

    asyncio.run(scenario())


# -- progress


def test_progress_is_a_line_now_and_then_or_a_bar() -> None:
    """Without a terminal a phase is a line when it begins and every few seconds; on one it is a bar."""
    now, steps = [0.0], [(0, "scan", 100, 300), (1, "scan", 200, 300), (6, "scan", 250, 300), (6, "add", 5, None)]
    plain, terminal = io.StringIO(), io.StringIO()
    lines = Lines(Console(file=plain), lambda: now[0])
    with lines, Bars(Console(file=terminal, force_terminal=True, width=120)) as bars:
        for at, phase, done, total in steps:
            now[0] = at
            told = [{"connection": 1, "phase": phase, "done": done, "total": total}]
            lines.update(told)
            bars.update(told)
    assert plain.getvalue().splitlines() == [
        "1: reading members, 100 of 300", "1: reading members, 250 of 300", "1: adding, 5",
    ]  # fmt: skip
    assert "250/300" in terminal.getvalue()


# -- logins


class Vendor(OAuth):
    """A vendor's side of a login: knows one code, and the verifier of the address."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.completed: list[tuple[str, str, str]] = []

    def authorize_url(self, redirect_uri: str, state: str, verifier: str = "") -> str:
        """Note what was asked."""
        self.asked.append((redirect_uri, state, verifier))
        return f"https://vendor.example/?state={state}"

    async def complete(self, code: str, redirect_uri: str, verifier: str = "") -> None:
        """Take the code "good"."""
        if code != "good":
            raise AudienceError("The vendor does not accept the code.")
        self.completed.append((code, redirect_uri, verifier))


def test_a_state_is_good_once_and_for_ten_minutes() -> None:
    """Its answer is taken with the verifier of its address; a second one, a foreign one and a late one are not."""

    async def scenario() -> None:
        now = [0.0]
        logins, vendor = Logins(lambda: now[0]), Vendor()
        url, state = logins.begin(vendor, "http://here/callback")
        assert url.endswith(state)
        assert len(state) >= 43
        assert (await logins.look(state, 0.01)).state == "waiting"
        assert await logins.answer("foreign", "good", "") is not None
        assert await logins.answer(state, "good", "") is None
        assert vendor.completed == [("good", *vendor.asked[0][::2])]
        assert (await logins.look(state, 5)).state == "done"
        assert await logins.answer(state, "good", "") is not None
        assert len(vendor.completed) == 1
        _, late = logins.begin(vendor, "http://here/callback")
        now[0] += LIFE_S
        assert await logins.answer(late, "good", "") is not None
        assert "in time" in (await logins.look(late, 0)).error

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "refusal", "said"),
    [("", "access_denied", "was not granted"), ("", "", "was not granted"), ("bad", "", "does not accept the code"),
     ("x" * 5_000, "", "was not granted")],
)  # fmt: skip
def test_a_refused_login_says_why(code: str, refusal: str, said: str) -> None:
    """The waiting command hears what went wrong."""

    async def scenario() -> None:
        logins = Logins()
        _, state = logins.begin(Vendor(), "http://here/callback")
        assert said in str(await logins.answer(state, code, refusal))
        assert said in (await logins.look(state, 5)).error

    asyncio.run(scenario())


def test_the_callback_needs_no_password_and_reflects_nothing(tmp_path: Path) -> None:
    """It alone is open on the operator's listener; what a stranger writes into its address is nowhere in the answer."""

    async def scenario() -> None:
        gateway = gateway_of(tmp_path)
        password = Secret(value="p")
        answer = await call(gateway, "GET", "/oauth/callback?state=<script>&code=evil", password=password)
        assert answer.status_code == 400
        assert "script" not in answer.text
        assert "evil" not in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert (await call(gateway, "GET", "/api/audiences", password=password)).status_code == 401
        assert (await call(gateway, "POST", "/oauth/callback", {}, password=password)).status_code == 405
        await gateway.stop()

    asyncio.run(scenario())


# -- the engine's life


def test_without_tables_audiences_cost_nothing(tmp_path: Path) -> None:
    """No file is made, status says what is missing, metrics and erasure work."""

    async def scenario() -> None:
        gateway = Gateway(configured(tmp_path), clock=Clock())
        await gateway.start()
        answer = await call(gateway, "GET", "/api/audiences")
        assert answer.status_code == 409
        assert "[audience_sources.NAME]" in answer.json()["error"]["message"]
        assert (await call(gateway, "GET", "/metrics")).status_code == 200
        await gateway.stop()
        assert not (tmp_path / "var" / "audiences.db").exists()

    asyncio.run(scenario())


def test_an_engine_that_fails_is_logged_and_hurts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A schedule that raises is told in the log; the gateway starts, answers and stops as ever."""

    async def broken(self: Audiences, stop: asyncio.Event) -> None:
        raise RuntimeError("boom")

    async def scenario() -> None:
        monkeypatch.setattr(Audiences, "run", broken)
        gateway = gateway_of(tmp_path)
        await gateway.start()
        await settled(lambda: any(record.message == "audiences_failed" for record in caplog.records))
        assert await gateway.ready() is None
        assert (await call(gateway, "GET", "/api/audiences")).status_code == 200
        async with asyncio.timeout(5):
            await gateway.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())


def test_a_pass_that_hangs_does_not_hold_up_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop takes the graceful time at most, whatever the engine does; a job under way is interrupted."""

    async def deaf(self: Audiences, stop: asyncio.Event) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        monkeypatch.setattr(Audiences, "run", deaf)
        gateway = gateway_of(tmp_path, server={"graceful_s": 0.2})
        await gateway.start()

        async def endless(_tell: Tell) -> None:
            await asyncio.Event().wait()

        gateway.audiences.jobs.start(endless)
        await call(gateway, "GET", "/api/audiences")
        async with asyncio.timeout(5):
            await gateway.stop()
        await gateway.stop()

    asyncio.run(scenario())


def test_a_reload_takes_new_tables_over(tmp_path: Path) -> None:
    """A source that is added is there after the reload, one that is removed is not, and connections stay."""

    async def scenario() -> None:
        gateway = gateway_of(tmp_path)
        await gateway.start()
        body = {"kind": "list", "group": "l1", "account": "1", "audience": "a1"}
        assert (await job(gateway, "/connect", body))["state"] == "done"
        path = tmp_path / "gateway.toml"
        path.write_text('[audience_sources.mail]\ntype = "street"\n[audience_sources.post]\ntype = "street"\n'
                        "[audience_sinks.board]\n")  # fmt: skip
        assert await gateway.reload(path) is None
        answer = (await call(gateway, "GET", "/api/audiences/sides")).json()
        assert [one["name"] for one in answer["sources"]] == ["mail", "post"]
        assert len((await call(gateway, "GET", "/api/audiences")).json()["connections"]) == 1
        refused = await call(gateway, "POST", "/api/audiences/connect", body)
        assert "Known are mail, post" in refused.json()["error"]["message"]
        path.write_text("")
        assert await gateway.reload(path) is None
        assert (await call(gateway, "GET", "/api/audiences")).status_code == 409
        await gateway.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/connect", {"kind": "list", "group": "l1", "sinc": "x"}, "sinc"),
        ("/connect", {"kind": "list", "group": "l1", "sink": "wall"}, "Known are board"),
        ("/sync", {"connection": "1"}, "connection"),
        ("/login", {"name": "nobody"}, "Known are board, mail"),
        ("/login/look", {"state": "x"}, "no such login"),
        ("/login/answer", {"url": "http://x/?state=a&code=b"}, "Begin again"),
    ],
)
def test_a_wrong_call_is_refused(path: str, body: Any, said: str, tmp_path: Path) -> None:
    """The answer names the field or the remedy."""

    async def scenario() -> None:
        gateway = gateway_of(tmp_path)
        answer = await call(gateway, "POST", f"/api/audiences{path}", body)
        assert answer.status_code in (400, 409)
        assert said in answer.json()["error"]["message"]
        await gateway.stop()

    asyncio.run(scenario())


async def settled(reached: Callable[[], bool]) -> None:
    """Wait for a condition."""
    waited: Awaitable[None] = _until(reached)
    await asyncio.wait_for(waited, 10)


async def _until(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110 - a log cannot be awaited
        await asyncio.sleep(0.01)
