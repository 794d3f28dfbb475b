"""The command line: exit codes, one clear line for each error, JSON for programs."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway import cli
from gateway.config import load
from gateway.runtime import open_outbox

CONFIG = """
[store]
url = "sqlite:///gateway.db"
[sites.shop]
[sources.api]
adapter = "browser_tag"
site = "shop"
secrets = ["s3cret"]
destinations = ["pinterest"]
[sources.tag]
adapter = "browser_tag"
site = "shop"
allowed_origins = ["https://shop.example"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "549755885175"
token = { env = "TEST_TOKEN" }
"""
EVENT = {"event_name": "lead", "event_id": "e1", "event_time": 1_795_305_600, "user": {"email": "jo@example.com"}}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a good configuration where the command looks for it, and go there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAG_GATEWAY_CONFIG", raising=False)
    monkeypatch.setenv("TEST_TOKEN", "sandbox-token")
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG)
    return path


def invoke(*arguments: str) -> Result:
    """Run a command that must succeed; returns its result."""
    result = CliRunner().invoke(cli.cli, list(arguments))
    assert result.exit_code == 0, (result.output, result.exception)
    return result


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a runner of ``main`` for commands that must fail: gives exit code and what stands on standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tag-gateway", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, capfd.readouterr().err

    return run


def assert_one_line(text: str) -> None:
    """Check that an error is one line, without a traceback."""
    assert len(text.strip().splitlines()) == 1, text
    assert text.startswith("error: ")
    assert "Traceback" not in text


Failing = Callable[..., tuple[int, str]]


@pytest.mark.parametrize("command", [["check"], ["status"], ["dead", "list"], ["serve"]])
def test_a_wrong_configuration_is_exit_2(config: Path, failing: Failing, command: list[str]) -> None:
    """One line with file, key and the nearest valid key."""
    config.write_text(CONFIG.replace("adapter =", "adaptor ="))
    code, text = failing(*command)
    assert code == 2
    assert_one_line(text)
    for part in (str(config), "[sources.api]", "adaptor", "did you mean 'adapter'?"):
        assert part in text


def test_a_secret_that_is_not_set_is_exit_2(config: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named."""
    monkeypatch.delenv("TEST_TOKEN")
    code, text = failing("check")
    assert (code, "TEST_TOKEN" in text) == (2, True)
    assert_one_line(text)


def test_an_unknown_adapter_and_destination_are_exit_2(config: Path, failing: Failing) -> None:
    """What is installed is listed."""
    config.write_text(CONFIG.replace('"browser_tag"', '"broswer_tag"', 1))
    code, text = failing("check")
    assert (code, "shopify" in text) == (2, True)
    config.write_text(CONFIG.replace('type = "pinterest"', 'type = "pintrest"'))
    code, text = failing("check")
    assert (code, "pinterest" in text) == (2, True)


def test_a_wrong_option_of_a_plugin_is_exit_2(config: Path, failing: Failing) -> None:
    """A destination's own keys are checked as strictly as ours."""
    config.write_text(CONFIG + "batchsize = 5\n")
    code, text = failing("check")
    assert code == 2
    assert "[destinations.pinterest]" in text
    assert "did you mean 'batch_size'?" in text
    assert_one_line(text)


def test_a_missing_file_is_exit_2(config: Path, failing: Failing) -> None:
    """The remedy is the command that writes one."""
    config.unlink()
    code, text = failing("check")
    assert code == 2
    assert "tag-gateway init" in text
    assert_one_line(text)


def test_a_store_that_cannot_be_opened_is_exit_3(config: Path, failing: Failing) -> None:
    """A store of a newer program says so in one line."""
    with closing(sqlite3.connect(config.parent / "gateway.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    code, text = failing("check")
    assert code == 3
    assert "gateway.db" in text
    assert "newer version" in text
    assert_one_line(text)


def test_a_damaged_store_fails_the_check(config: Path) -> None:
    """The check says so and leaves the file where it is; after the next start it names what to do until it is done."""
    store = config.parent / "gateway.db"
    store.write_bytes(b"this is not a database, not at all" * 100)
    for _ in range(2):
        done = CliRunner().invoke(cli.cli, ["check", "--config", str(config)])
        assert (done.exit_code, "damaged" in done.output) == (1, True)
        assert store.read_bytes().startswith(b"this is not a database")
    asyncio.run(open_outbox(load(config)).close())
    done = CliRunner().invoke(cli.cli, ["check", "--config", str(config)])
    assert (done.exit_code, "corrupt-" in done.output) == (1, True)


def test_text_in_brackets_is_not_lost(config: Path, failing: Failing) -> None:
    """Names of tables survive the terminal's markup."""
    config.write_text("[sorces]\n")
    code, text = failing("check")
    assert code == 2
    assert "[sorces]" in text


def test_usage_errors_are_exit_2(config: Path, failing: Failing) -> None:
    """A command without its argument, and a discard of everything by accident, are refused."""
    for command in (
        ["dead", "discard"],
        ["dead", "replay"],
        ["erase"],
        ["explain", "none.json", "--source", "api"],
        ["nonsense"],
        ["explain"],
    ):
        code, text = failing(*command)
        assert code == 2, command
        assert "Traceback" not in text


def test_check(config: Path) -> None:
    """A good configuration is confirmed part by part, warnings included."""
    text = invoke("check").output
    assert "sources 2, destinations 1" in text
    assert "literal secret" in text
    assert "no password" in text
    assert "✗" not in text
    assert "s3cret" not in text


def test_plugins_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program gets every plugin with version, hooks and what it provides; no configuration is needed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAG_GATEWAY_CONFIG", raising=False)
    listed = {plugin["name"]: plugin for plugin in json.loads(invoke("plugins", "--json").output)}
    assert {"browser_tag", "client", "click_id", "privacy", "bots", "pinterest", "shopify", "gtm", "tealium"} <= set(
        listed
    )
    assert listed["privacy"]["provides"] == ["enricher privacy"]
    assert listed["privacy"]["hooks"] == ["register_enrichers"]
    assert listed["privacy"]["distribution"] == "tag-gateway"


def test_a_disabled_plugin_is_listed_as_such(config: Path) -> None:
    """Leaving a plugin out by configuration shows."""
    config.write_text(CONFIG + '[plugins]\ndisabled = ["gtm"]\n')
    listed = {plugin["name"]: plugin for plugin in json.loads(invoke("plugins", "--json").output)}
    assert (listed["gtm"]["disabled"], listed["shopify"]["disabled"]) == (True, False)
    assert "disabled" in invoke("plugins").output


def test_explain_a_bare_body(config: Path, tmp_path: Path) -> None:
    """A body alone is explained without its proof: what would be sent, with identifiers masked; nothing is kept."""
    capture = tmp_path / "body.json"
    capture.write_text(json.dumps(EVENT))
    answer = json.loads(invoke("explain", str(capture), "--source", "api", "--no-verify", "--json").output)
    assert answer["payloads"][0]["event"]["event_id"] == "e1"
    assert "jo@example.com" not in json.dumps(answer)
    refused = json.loads(invoke("explain", str(capture), "--source", "api", "--json").output)
    assert refused["error"].startswith("401")
    assert json.loads(invoke("status", "--json").output)["queue"] == []
    text = invoke("explain", str(capture), "--source", "api", "--no-verify").output
    assert "would be sent to pinterest" in text
    assert "jo@example.com" not in text


def test_explain_an_example(config: Path, tmp_path: Path) -> None:
    """A step example carries its own headers, so its proof is checked too."""
    capture = tmp_path / "example.json"
    headers = {"Authorization": "Bearer s3cret", "Content-Type": "application/json"}
    capture.write_text(json.dumps({"title": "A lead", "hit": {"headers": headers, "body": EVENT}}))
    answer = json.loads(invoke("explain", str(capture), "--source", "api", "--json").output)
    assert answer["outcomes"][0]["fate"] in ("accepted", "dropped")
    assert answer.get("error") is None


def test_explain_for_an_unknown_source(config: Path, tmp_path: Path, failing: Failing) -> None:
    """The known sources are named."""
    capture = tmp_path / "body.json"
    capture.write_text("{}")
    code, text = failing("explain", str(capture), "--source", "nobody")
    assert code == 1
    assert "api, tag" in text
    assert_one_line(text)


@pytest.mark.parametrize("event_id", ["plain", "[bold]e1[/bold]", "e1[/]", "[/nope]e1"])
def test_explain_shows_text_in_brackets(config: Path, tmp_path: Path, event_id: str) -> None:
    """A payload's own text is no markup for the terminal: it is shown as it is in the outcome's line, too."""
    capture = tmp_path / "body.json"
    capture.write_text(json.dumps({**EVENT, "event_id": event_id}))
    text = invoke("explain", str(capture), "--source", "api", "--no-verify").output
    assert any(event_id in line and "for pinterest" in line for line in text.splitlines())


def test_an_empty_store(config: Path) -> None:
    """No dead letters is an answer, not an error."""
    assert invoke("dead", "list").output.strip() == "No dead letters."
    assert json.loads(invoke("dead", "list", "--json").output) == {"letters": [], "after": None}
    assert json.loads(invoke("dead", "replay", "--all").output) == {"queued": 0, "duplicates": []}
    assert json.loads(invoke("dead", "discard", "--all", "--dry-run").output) == {"would_discard": 0}
    assert json.loads(invoke("erase", "--email", "jo@example.com").output) == {"erased": 0}


def test_show_a_dead_letter_that_is_not_there(config: Path, failing: Failing) -> None:
    """One line says so."""
    code, text = failing("dead", "show", "ffff")
    assert code == 1
    assert_one_line(text)


def test_backup(config: Path, tmp_path: Path, failing: Failing) -> None:
    """The copy is written where the caller stands; a folder that is missing is one line."""
    answer = json.loads(invoke("backup", "copy.db").output)
    assert answer["bytes"] == (tmp_path / "copy.db").stat().st_size > 0
    code, text = failing("backup", str(tmp_path / "none" / "copy.db"))
    assert code == 1
    assert_one_line(text)


def test_status(config: Path) -> None:
    """The status of a store that nobody serves is readable for people and programs."""
    assert json.loads(invoke("status", "--json").output)["ready"] is True
    assert "ready" in invoke("status").output


def test_which_file_is_read(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Failing) -> None:
    """--config wins over TAG_GATEWAY_CONFIG, which wins over ./gateway.toml."""
    broken = tmp_path / "broken.toml"
    broken.write_text("[from_the_environment]\n")
    other = tmp_path / "other.toml"
    other.write_text("[from_the_option]\n")
    invoke("check")
    monkeypatch.setenv("TAG_GATEWAY_CONFIG", str(broken))
    assert "from_the_environment" in failing("check")[1]
    assert "from_the_option" in failing("check", "--config", str(other))[1]
    invoke("check", "--config", str(config))


def test_help_and_version() -> None:
    """Every command explains itself."""
    commands = [[], *([name] for name in cli.cli.commands), *(["dead", name] for name in cli.dead.commands)]
    for command in commands:
        text = invoke(*command, "--help").output
        assert "Usage:" in text
        assert len(text.splitlines()) > 3
    assert "tag-gateway" in invoke("--version").output
