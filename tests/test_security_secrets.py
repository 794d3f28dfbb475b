"""Secrets whose every character is a canary: in no file, log line, page, answer, error or ``repr``."""

import asyncio
import base64
import io
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from gateway import FixedToken, Secret
from gateway import config as configuration
from gateway.cli import cli
from gateway.errors import GatewayError
from gateway.logs import HitLog, configure
from gateway.operator import operator_app
from gateway.runtime import Gateway, assemble
from gateway.sandbox import PinterestSandbox
from gateway.testing.app import complete
from gateway.testing.asgi import AppClient
from gateway.testing.doubles import Clock

SECRETS = {
    name: f"Zq{name}Qz-7f3a9c51e2d8b604"
    for name in ("api", "api2", "hook", "gtm", "tealium", "token", "operator", "viewer", "klaviyo", "sink", "app")
}


def tables(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with a secret wherever one may stand."""
    return complete(
        {
            "operator": {"password": values["operator"], "viewer_password": values["viewer"]},
            "sources": {
                "api": {"adapter": "browser_tag", "secrets": [values["api"], values["api2"]]},
                "hook": {"adapter": "shopify", "secrets": [values["hook"]], "options": {"admin_token": values["app"]}},
                "gtm": {"adapter": "gtm", "secrets": [values["gtm"]]},
                "tealium": {"adapter": "tealium", "secrets": [values["tealium"]]},
            },
            "destinations": {"pinterest": {"token": values["token"]}},
            "audience_sources": {"klaviyo": {"api_key": values["klaviyo"], "base_url": "http://127.0.0.1:1"}},
            "audience_sinks": {
                "pinterest": {"ad_account_id": "1", "token": values["sink"], "base_url": "http://127.0.0.1:1/v5"}
            },
        }
    )


def leaks(where: str, content: str | bytes) -> list[str]:
    """Return which secrets stand in the content, plain, in any case, or as base64 at any offset."""
    raw = (content if isinstance(content, bytes) else content.encode("utf-8", "replace")).lower()
    found = []
    for name, secret in SECRETS.items():
        forms = [secret.lower().encode()]
        for offset in range(3):
            encoded = base64.b64encode(b"\0" * offset + secret.encode()).decode().rstrip("=")
            forms.append(encoded[(offset * 8 + 5) // 6 : -1].lower().encode())
        if any(form in raw for form in forms):
            found.append(f"{where}: {name}")
    return found


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Give what the process's log says, and put the root logger back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure(logging.DEBUG, stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_search_finds_a_secret_in_any_writing() -> None:
    """The control."""
    for offset in range(3):
        pair = "x" * offset + ":" + SECRETS["api"] + ":"
        for text in (pair, pair.upper(), base64.b64encode(pair.encode()).decode()):
            assert leaks("here", text), text
    assert leaks("here", base64.b64encode(b"nothing of the kind, only words" * 9)) == []


def test_no_secret_is_shown_kept_or_logged(tmp_path: Path, log: io.StringIO) -> None:
    """A gateway with secrets in every place: used, misused, reloaded, made to fail: nothing shows one."""
    sandbox = PinterestSandbox(clock=Clock())
    parsed = configuration.parse(tables(SECRETS), tmp_path / "gateway.toml")
    hits = io.StringIO()
    pages: dict[str, str] = {}

    async def main() -> None:
        gateway = Gateway(parsed, http=AppClient(sandbox.app), clock=Clock(), hit_log=HitLog(hits))
        await gateway.start()
        app = operator_app(gateway, Secret(value=SECRETS["operator"]), Secret(value=SECRETS["viewer"]))
        try:
            await use(gateway)
            await read(app)
            pages["reload"] = str(await gateway.reload(tmp_path / "gateway.toml"))
            everything = [
                gateway,
                gateway.parts,
                gateway.parts.audiences,
                gateway.sender,
                parsed.sources,
                parsed.operator,
            ]
            everything += [*gateway.parts.routes.values(), *gateway.parts.destinations.values()]
            everything += [*gateway.parts.audiences.sources.values(), *gateway.parts.audiences.sinks.values()]
            pages["repr"] = " ".join(map(repr, everything))
        finally:
            await gateway.stop()

    async def use(gateway: Gateway) -> None:
        answers = []
        event = {"event_name": "lead", "event_id": "e1", "event_time": 1_795_305_595, "user": {"email": "a@b.example"}}
        transport = httpx.ASGITransport(gateway.ingress)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            for name, secret in (("api", "api"), ("api", "api2"), ("gtm", "gtm"), ("tealium", "tealium")):
                headers = {"Authorization": f"Bearer {SECRETS[secret]}", "Cookie": f"s={SECRETS[secret]}"}
                for path in (f"/in/{name}", f"/in/{name}?key={SECRETS[secret]}", f"/in/{name}/{SECRETS[secret]}"):
                    bodies = (json.dumps(event), "{", "[" * 40)
                    answers += [await client.post(path, content=body, headers=headers) for body in bodies]
                    answers.append(await client.post(path, content=json.dumps(event)))
            answers.append(
                await client.post("/in/hook", content=b"{}", headers={"X-Shopify-Hmac-Sha256": SECRETS["hook"]})
            )
        assert {answer.status_code for answer in answers} >= {200, 400, 401}, "the control"
        pages.update({f"answer {n}": f"{one.headers} {one.text}" for n, one in enumerate(answers)})

    async def read(app: Any) -> None:
        headers = {"Authorization": f"Bearer {SECRETS['operator']}"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://o", headers=headers
        ) as client:
            for path in (
                "/metrics",
                "/api/status",
                "/api/plugins",
                "/api/dead",
                "/api/audiences",
                "/api/audiences/sides",
            ):
                answer = await client.get(path)
                assert answer.status_code == 200, path
                pages[path] = answer.text
            capture = {
                "hit": {"headers": {"authorization": f"Bearer {SECRETS['api']}"}, "body": {"event_name": "lead"}}
            }
            asked = {"source": "api", "capture": base64.b64encode(json.dumps(capture).encode()).decode()}
            pages["explain"] = (await client.post("/api/explain", json=asked)).text
            wrong = {"Authorization": f"Bearer {SECRETS['operator']}x"}
            pages["wrong password"] = (await client.get("/api/status", headers=wrong)).text
            pages["groups"] = (await client.get("/api/audiences/groups")).text

    asyncio.run(main())
    pages |= {"log": log.getvalue(), "hit log": hits.getvalue()}
    assert "config_warning" in pages["log"], "the control"
    assert len(pages["hit log"].splitlines()) > 30, "the control"
    found = [leak for name, text in pages.items() for leak in leaks(name, text)]
    for path in tmp_path.rglob("*"):
        found += leaks(path.name, path.read_bytes()) if path.is_file() else []
    assert found == []


@pytest.mark.parametrize("kind", ["env", "file"])
def test_a_secret_from_outside_is_read_and_hidden(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From environment or file, with or without the line break at its end; what holds it shows nothing."""
    (tmp_path / "secret").write_text(SECRETS["api"] + "\n")
    monkeypatch.setenv("CANARY_SECRET", SECRETS["api"])
    given = {"env": "CANARY_SECRET"} if kind == "env" else {"file": "secret"}
    config = configuration.parse(tables({**SECRETS, "api": given}), tmp_path / "gateway.toml")
    secret = configuration.secret(config.sources["api"].secrets[0], config, "here")
    assert secret.value == SECRETS["api"]
    for shown in (repr(secret), str(secret), f"{secret}", repr([secret]), repr(FixedToken(secret)), repr(config)):
        assert leaks("repr", shown) == []


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("sources.api", "secrets", SECRETS["api"]), ("sources.api", "secrets", [5]),
        ("sources.api", "secrets", [{"env": SECRETS["api"], "file": "x"}]), ("operator", "password", [SECRETS["api"]]),
        ("sources.api", "secret", SECRETS["api"]), ("destinations.pinterest", "token", SECRETS["token"] + "\u00e9"),
        ("destinations.pinterest", "token", [SECRETS["token"]]), ("destinations.pinterest", "tokn", SECRETS["token"]),
        ("destinations.pinterest", "base_url", f"https://u:{SECRETS['token']}@api.example"),
        ("audience_sources.klaviyo", "api_key", SECRETS["klaviyo"] + " x"),
        ("audience_sources.klaviyo", "api_key", {"value": SECRETS["klaviyo"]}),
        ("sources.hook.options", "admin_token", {"env": "A", "x": SECRETS["app"]}),
    ],
)  # fmt: skip
def test_an_error_of_the_configuration_quotes_no_secret(table: str, key: str, value: Any, tmp_path: Path) -> None:
    """Whatever is wrong about a secret, message and chained errors name the key only."""
    raw: Any = tables(SECRETS)
    place = raw
    for part in table.split("."):
        place = place.setdefault(part, {})
    place[key] = value
    with pytest.raises(GatewayError) as caught:
        assemble(configuration.parse(raw, tmp_path / "gateway.toml"), None)
    assert key in str(caught.value)
    assert leaks("message", str(caught.value)) == []
    assert leaks("chain", "".join(traceback.format_exception(caught.value))) == []


def test_commands_show_no_secret(tmp_path: Path) -> None:
    """`check`, `status`, `plugins`: with literal secrets in the file none is printed, though each is warned about."""
    lines = [
        "[store]", 'url = "sqlite:///gateway.db"', "[operator]", f'password = "{SECRETS["operator"]}"', "[sources.api]",
        'adapter = "browser_tag"', f'secrets = ["{SECRETS["api"]}"]', 'destinations = ["pinterest"]',
        "[destinations.pinterest]", 'type = "pinterest"', 'ad_account_id = "1"', f'token = "{SECRETS["token"]}"',
    ]  # fmt: skip
    config = tmp_path / "gateway.toml"
    config.write_text("\n".join(lines))
    said = ""
    for command in (["check"], ["plugins", "--json"], ["status", "--json"], ["dead", "list", "--json"]):
        result = CliRunner().invoke(cli, [*command, "--config", str(config)])
        assert result.exit_code == 0, result.output
        said += result.output
    assert "literal secret" in said
    assert leaks("commands", said) == []


def test_a_crash_shows_no_secret(tmp_path: Path, log: io.StringIO) -> None:
    """An exception that quotes the whole configuration and a secret: the line has its type and place, no text."""
    config = configuration.parse(tables(SECRETS), tmp_path / "gateway.toml")
    try:
        int(f"{config} {SECRETS['api']} {config.sources}")
    except ValueError:
        logging.getLogger("gateway.any").exception("crashed")
    assert "ValueError" in log.getvalue()
    assert leaks("log", log.getvalue()) == []
