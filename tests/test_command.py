"""Commands of plugins: found by name, imported when called, each on its own; and what they may use."""

import asyncio
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway import Hit, Secret, command_context
from gateway.cli import cli, main
from gateway.commands import extension
from gateway.errors import ConfigError, PluginError

CONFIG = """
[store]
url = "sqlite:///gateway.db"
[sites.shop]
[sources.api]
adapter = "browser_tag"
site = "shop"
secrets = [{ env = "API_SECRET" }]
destinations = ["pinterest"]
[sources.tag]
adapter = "browser_tag"
site = "shop"
allowed_origins = ["https://shop.example"]
destinations = ["pinterest"]
[sources.other]
adapter = "gtm"
secrets = [{ env = "ANOTHER_SECRET" }]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "549755885175"
token = "sandbox-token"
base_url = "http://127.0.0.1:9/v5"
"""

Install = Callable[..., None]


@click.command()
def greet() -> None:
    """Say hello."""
    click.echo("hello from a plugin")


class Entry(importlib.metadata.EntryPoint):
    """An entry point of a package that is not installed."""

    @property
    def dist(self) -> importlib.metadata.Distribution | None:  # type: ignore[override]
        return None


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that gives the group entry points: name → value."""
    entries: list[Entry] = []

    def add(**values: str) -> None:
        entries.extend(Entry(name=name, value=value, group=extension.GROUP) for name, value in values.items())

    def found(*, group: str) -> list[Entry]:
        assert group == extension.GROUP
        return entries

    monkeypatch.setattr(importlib.metadata, "entry_points", found)
    return add


def test_an_installed_command_runs(install: Install) -> None:
    """A click command of another package is a command of ours."""
    install(greet="tests.test_command:greet")
    result = CliRunner().invoke(cli, ["greet"])
    assert result.output == "hello from a plugin\n"


def test_help_imports_nothing(install: Install) -> None:
    """``--help`` names a command without importing it, and a broken one does not break it."""
    install(greet="tests.test_command:greet", broken="no_such_package.commands:x")
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    assert "Commands of plugins:" in result.output
    assert "broken" in result.output
    assert "serve" in result.output
    assert "no_such_package" not in sys.modules


def test_a_broken_command_costs_itself(
    install: Install, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Called, it ends with one line that names it, exit code 2; the others work."""
    install(greet="tests.test_command:greet", broken="no_such_package.commands:x")
    assert CliRunner().invoke(cli, ["greet"]).exit_code == 0
    monkeypatch.setattr(sys, "argv", ["tag-gateway", "broken"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    said = capfd.readouterr().err
    assert "The command 'broken'" in said
    assert "ModuleNotFoundError" in said
    assert "Traceback" not in said


def test_what_is_no_command_is_named(install: Install) -> None:
    """An entry point that leads to anything else is refused."""
    install(wrong="tests.test_command:CONFIG")
    with pytest.raises(PluginError, match="is a str, not a click command"):
        CliRunner().invoke(cli, ["wrong"], catch_exceptions=False)


def test_two_packages_with_one_name_are_refused(install: Install) -> None:
    """Neither is chosen silently."""
    install(greet="tests.test_command:greet")
    install(greet="tests.test_command:greet")
    with pytest.raises(PluginError, match="Two packages give the command 'greet'"):
        CliRunner().invoke(cli, ["greet"], catch_exceptions=False)


def test_the_gateways_own_commands_win(install: Install) -> None:
    """A package cannot put itself in the place of ``serve``, and is not listed as if it had."""
    install(plugins="no_such_package.commands:x")
    result = CliRunner().invoke(cli, ["plugins", "--help"])
    assert "List plugins" in result.output
    assert "Commands of plugins" not in CliRunner().invoke(cli, ["--help"]).output


def test_an_unknown_command_is_a_usage_error(install: Install) -> None:
    """A misspelt command is told as such."""
    result = CliRunner().invoke(cli, ["gret"])
    assert result.exit_code == 2
    assert "No such command 'gret'" in result.output


# -- what a command gets


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a configuration; only the secret of one source is there."""
    monkeypatch.setenv("API_SECRET", "s3cret")
    monkeypatch.delenv("ANOTHER_SECRET", raising=False)
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG)
    return str(path)


def test_a_command_gets_its_source_decoded(config: str) -> None:
    """It needs the secrets of its own source, and of no other."""

    async def run() -> None:
        async with command_context(config) as context:
            source = context.source("api", "browser_tag")
            assert source.secrets == (Secret(value="s3cret"),)
            assert context.sources_of("shop") == {"api": "browser_tag", "tag": "browser_tag"}
            assert context.sources_of("other") == {"other": "gtm"}
            with pytest.raises(ConfigError, match="ANOTHER_SECRET is not set"):
                context.source("other", "gtm")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "adapter", "said"),
    [
        ("shop", "browser_tag", "there is no such source; .* Such are api, tag"),
        ("other", "browser_tag", "its adapter is 'gtm'; .* Such are api, tag"),
        ("api", "shopify", "its adapter is 'browser_tag'; .* None is"),
    ],
)
def test_another_source_is_refused(config: str, name: str, adapter: str, said: str) -> None:
    """The message names the sources that would do."""

    async def run() -> None:
        async with command_context(config) as context:
            context.source(name, adapter)

    with pytest.raises(ConfigError, match=said):
        asyncio.run(run())


def test_a_hit_is_taken_as_from_the_public_listener(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is verified, admitted and deduplicated; without its secret it is refused."""
    monkeypatch.setenv("ANOTHER_SECRET", "x")
    body = b'{"event_name": "lead", "event_id": "e1", "user": {"email": "jo@example.com"}}'

    async def run() -> list[tuple[int, bytes]]:
        answers = []
        async with command_context(config) as context:
            source = context.source("api", "browser_tag")
            for headers in ({"authorization": "Bearer s3cret"}, {"authorization": "Bearer s3cret"}, {}):
                answer = await context.submit(Hit(source=source, headers=headers, body=body))
                answers.append((answer.status, answer.body))
        return answers

    (first, told), (second, again), (third, refused) = asyncio.run(run())
    assert (first, second, third) == (200, 200, 401)
    assert b'"accepted":1' in told
    assert b'"accepted":0' in again
    assert b"unauthorized" in refused
