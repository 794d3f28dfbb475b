"""The documents say what the code does: commands, keys, hooks, metrics, reasons, links, files for deployment."""

import configparser
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml

from gateway import config as configuration
from gateway import hookspecs, tables
from gateway.cli import cli
from gateway.event import STANDARD_NAMES
from gateway.interfaces import Context
from gateway.pluginhost import PluginHost
from gateway.plugins.browser_tag.payload import FIELDS, USER_ALIASES
from gateway.plugins.csv_list import CsvOptions
from gateway.plugins.klaviyo.options import KlaviyoOptions
from gateway.plugins.pinterest.audience_options import AudienceOptions
from gateway.plugins.pinterest.options import PinterestOptions
from gateway.runtime import assemble
from gateway.tally import Tally

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("adapters/*/README.md")])
OURS = [page for page in PAGES if "adapters" not in page.parts]


def name_of(path: Path) -> str:
    """Return the path from the root, for test ids."""
    return str(path.relative_to(ROOT))


def read(path: str) -> str:
    """Return a document."""
    return (ROOT / path).read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """Return the text under each heading of the second level."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(text: str) -> dict[str, str]:
    """Return first and second cell of each row whose first cell is one name in backticks."""
    return dict(re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", text, re.MULTILINE))


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# -- links and commands


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    """Every link to a file leads to one, and every anchor to a heading."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def commands(group: click.Command, prefix: str = "") -> dict[str, click.Command]:
    """Return every command by its words."""
    if not isinstance(group, click.Group):
        return {prefix: group}
    found: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        found |= commands(command, f"{prefix} {name}".strip())
    return found


KNOWN = commands(cli)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    """Every ``tag-gateway WORD`` of code in the documents is a command, and its options are its own."""
    text = page.read_text(encoding="utf-8")
    code = "\n".join([*blocks(text, "sh"), *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)])
    for line in re.findall(r"(?:^|[ /])tag-gateway ((?:[a-z]).*)$", code, re.MULTILINE):
        words = line.split()
        name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in KNOWN), None)
        assert name is not None, line
        options = {option for parameter in KNOWN[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options | {"--help"}, line


def test_every_command_is_documented() -> None:
    """The table of commands names each command once, and no other."""
    rows = re.findall(r"^\| `tag-gateway ([^`]+)` \|", read("docs/operations.md"), re.MULTILINE)
    assert sorted(rows) == sorted(KNOWN)


@pytest.mark.parametrize("target", ["run", "test"])
def test_readme_names_the_two_commands(target: str) -> None:
    """The README's make targets exist."""
    assert f"make {target}\n" in read("README.md")
    assert re.search(rf"^{target}:", read("Makefile"), re.MULTILINE)


def test_no_page_is_an_orphan() -> None:
    """Every page of docs/ is linked from the README or from another page."""
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    }
    for page in ROOT.glob("docs/*.md"):
        assert page.resolve() in linked, page.name
    assert (ROOT / "docs/decisions").resolve() in linked


# -- configuration

CONFIGURATION = sections(read("docs/configuration.md"))
TABLES: dict[str, Any] = {
    "`[server]`": tables.Server,
    "`[operator]`": tables.Operator,
    "`[store]`": tables.Store,
    "`[pipeline]`": tables.Pipeline,
    "`[quarantine]`": tables.Quarantine,
    "`[alerts]`": tables.Alerts,
    "`[sites.NAME]`": tables.Site,
    "`[sources.NAME]`": tables.SourceTable,
    '`[destinations.NAME]` with `type = "pinterest"`': PinterestOptions,
    "`[audiences]`": tables.Audiences,
    '`[audience_sources.NAME]` with `type = "klaviyo"`': KlaviyoOptions,
    '`[audience_sources.NAME]` with `type = "csv"`': CsvOptions,
    '`[audience_sinks.NAME]` with `type = "pinterest"`': AudienceOptions,
}


@pytest.mark.parametrize("heading", TABLES)
def test_configuration_keys_are_documented(heading: str) -> None:
    """Each table has exactly the keys of its Struct, with their defaults."""
    documented = table(CONFIGURATION[heading])
    fields = {field.encode_name: field for field in msgspec.structs.fields(TABLES[heading])}
    assert documented.keys() == fields.keys()
    for name, cell in documented.items():
        field = fields[name]
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if cell == "required":
            assert field.required, name
        elif cell == "none":
            assert default is None, name
        else:
            shown = tomllib.loads(f"key = {cell.strip('`')}")["key"]
            assert shown == (list(default) if isinstance(default, tuple) else default), name


def test_every_configuration_table_is_documented() -> None:
    """Every table that the file may have is a heading, and each heading is such a table."""
    known = set(configuration.Config.__struct_fields__) - {"path", "warnings", "disabled_plugins"}
    headings = {re.findall(r"[a-z_]+", heading)[0] for heading in CONFIGURATION}
    assert headings == known


@pytest.mark.parametrize("page", OURS, ids=name_of)
def test_toml_blocks_are_valid(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every configuration that a page shows is taken by the gateway, completed by what it leaves out."""
    found = [block for block in blocks(page.read_text(encoding="utf-8"), "toml") if "[project." not in block]
    for block in found:
        raw = tomllib.loads(block)
        for name in re.findall(r'env = "([A-Z_]+)"', block):
            monkeypatch.setenv(name, "https://hooks.example.com/1" if name.endswith("_URL") else "secret-value")
        raw.setdefault("destinations", {"pinterest": {"type": "pinterest", "ad_account_id": "1", "token": "t"}})
        for source in raw.get("sources", {}).values():
            source.setdefault("adapter", "tealium")
            source.setdefault("destinations", ["pinterest"])
            if not source.keys() & {"secrets", "allowed_origins"}:
                source["secrets"] = ["s"]
            if "site" in source:
                raw.setdefault("sites", {}).setdefault(source["site"], {})
        assemble(configuration.parse(raw, tmp_path / "gateway.toml"), None)


# -- the event


def test_fields_of_the_event_are_documented() -> None:
    """The table of fields has every key of the tag's JSON, and the identifiers are named with their aliases."""
    text = read("docs/event.md")
    cells = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", sections(text)["Fields"], re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)} == FIELDS
    for name, alias in USER_ALIASES.items():
        assert f"`{name}`" in text
        assert not alias or f"`{alias}`" in text


def test_standard_names_are_documented() -> None:
    """The list of standard names is the code's."""
    paragraph = sections(read("docs/event.md"))["Standard names"].strip().split("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", paragraph)) == STANDARD_NAMES


# -- hooks

HOOKS = {
    name: hook
    for name, hook in vars(hookspecs).items()
    if inspect.isfunction(hook) and hasattr(hook, f"{hookspecs.PROJECT}_spec")
}
HOOK_PAGES = sections(read("docs/hooks.md"))


def test_every_hook_is_documented() -> None:
    """Each hook has a heading with its signature, and no heading names another."""
    assert set(HOOK_PAGES) == {
        f"{name}({', '.join(inspect.signature(hook).parameters)})" for name, hook in HOOKS.items()
    }
    assert len(HOOKS) == 7


@pytest.mark.parametrize("heading", HOOK_PAGES)
def test_hook_examples_work(heading: str) -> None:
    """The example under each hook is a plugin that the gateway loads, and it implements that hook."""
    (example,) = blocks(HOOK_PAGES[heading], "python")
    module = type(inspect)("example")
    exec(compile(example, heading, "exec"), module.__dict__)
    host = PluginHost(Context(), extra={"example": module})
    (loaded,) = [loaded for loaded in host.listing() if loaded.name == "example"]
    assert loaded.hooks == (heading.partition("(")[0],)


# -- metrics, reasons


def test_metrics_are_documented() -> None:
    """The table of metrics has every metric with its labels, and no other."""
    rows = re.findall(r"^\| `(gateway_[a-z_]+)` \| (.*?) ?\|", read("docs/operations.md"), re.MULTILINE)
    documented = {name: tuple(labels.split(", ")) if labels else () for name, labels in rows}
    tally = Tally()
    expected: dict[str, tuple[str, ...]] = {}
    for metric in tally.registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        expected[name] = tuple(getattr(metric, "_labelnames", ()))
    expected["gateway_delivery_lateness_seconds"] = ("destination",)
    gauges = read("gateway/operator/status.py")
    for name, rest in re.findall(r'Gauge\(\s*"(gateway_[a-z_]+)"(.*?)registry=', gauges, re.DOTALL):
        labels = re.search(r"\[(.*?)\]", rest)
        expected[name] = tuple(re.findall(r'"([a-z]+)"', labels[1])) if labels else ()
    assert documented == expected


def reasons() -> set[str]:
    """Return every reason that the code gives to an event, a hit or an alarm."""
    found: set[str] = set()
    for folder in ("gateway", "adapters"):
        for path in (ROOT / folder).rglob("*.py"):
            if {"sandbox", "testing", "commands", "operator"} & set(path.relative_to(ROOT).parts):
                continue
            code = path.read_text(encoding="utf-8")
            found |= set(re.findall(r'(?:Rejected|Unavailable)\(\s*"([a-z_]+)"', code))
            if path.name != "sender.py":
                found |= set(re.findall(r'(?:Skipped|Invalid|Alarm)\(\s*reason="([a-z_]+)"', code))
    return found


def test_reasons_are_documented() -> None:
    """Every reason and error code of the code stands in the operations page."""
    text = read("docs/operations.md")
    found = reasons()
    assert {"unauthorized", "consent", "bot", "plugin_failed", "not_an_event"} <= found
    assert sorted(reason for reason in found if f"`{reason}`" not in text) == []


# -- versions and deployment


def test_changelog_has_the_version() -> None:
    """The version of pyproject.toml has a dated entry, and compose and SECURITY name it."""
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", read("CHANGELOG.md"), re.MULTILINE)
    assert yaml.safe_load(read("compose.yaml"))["services"]["gateway"]["image"] == f"tag-gateway:{version}"
    assert f"| {version.rpartition('.')[0]} | yes |" in read("SECURITY.md")


def test_compose_is_sound() -> None:
    """Named volumes, networks and mounted files exist, the gateway is not root, root file systems are read-only."""
    compose = yaml.safe_load(read("compose.yaml"))
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert set(service["networks"]) <= set(compose["networks"])
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("./deploy"):
                assert (ROOT / source).is_file()
            elif not source.startswith("."):
                assert source in compose["volumes"]
        assert set(service.get("depends_on", {})) <= set(compose["services"])
    gateway = compose["services"]["gateway"]
    assert gateway["user"] not in ("0", "root", "0:0")
    assert all(port.startswith("127.0.0.1:") for port in gateway["ports"])
    subnet = compose["networks"]["edge"]["ipam"]["config"][0]["subnet"]
    assert f'trusted_proxies = ["{subnet}"]' in read("docs/operations.md")


def test_dockerfile_is_sound() -> None:
    """Dependencies are installed by hash, what is copied exists, and the last user is the one of compose."""
    text = read("Dockerfile").replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    assert any("--require-hashes -r requirements.lock" in rest for word, rest in lines if word == "RUN")
    for word, rest in lines:
        if word == "COPY" and not rest.startswith("--from"):
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    users = [rest for word, rest in lines if word == "USER"]
    assert users == [yaml.safe_load(read("compose.yaml"))["services"]["gateway"]["user"]]
    (health,) = [rest for word, rest in lines if word == "HEALTHCHECK"]
    assert "/livez" in health
    assert any(word == "VOLUME" and rest == "/data" for word, rest in lines)


def test_unit_is_sound() -> None:
    """The unit restarts the gateway, reloads it by SIGHUP, has its own user, and gives up on a bad configuration."""
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names of settings have capitals
    unit.read_string(read("deploy/tag-gateway.service"))
    service = dict(unit["Service"])
    assert service["Restart"] == "always"
    assert service["RestartPreventExitStatus"] == "2"
    assert service["User"] not in ("", "root")
    assert service["ExecStart"].endswith("tag-gateway serve")
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["StateDirectory"] == "tag-gateway"
    assert "sqlite:////var/lib/tag-gateway/" in read("docs/operations.md")


def test_caddyfile_is_sound() -> None:
    """Braces are balanced, both variables of the documents are used, and only public paths are handed on."""
    text = read("deploy/Caddyfile")
    assert text.count("{") == text.count("}")
    assert {"GATEWAY_HOST", "GATEWAY_UPSTREAM"} <= set(re.findall(r"\{\$([A-Z_]+)", text))
    assert "@public path /in/* /livez /readyz" in text
    assert "metrics" not in text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_are_invented(page: Path) -> None:
    """No page shows an e-mail address or phone number that could be somebody's."""
    text = page.read_text(encoding="utf-8")
    for domain in re.findall(r"[\w.+-]+@([\w-]+\.[\w.-]+\w)", text):
        assert domain.endswith(("example.com", "example.org", ".example")), domain
    for number in re.findall(r"\+\d[\d ]{8,}", text):
        assert "555 01" in number or "555 0" in number, number
