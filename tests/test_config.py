"""gateway.toml: every table, and errors that name file, key and remedy."""

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import config
from gateway.config import Config, load, parse, secret
from gateway.errors import ConfigError
from gateway.tables import SecretRef

SAMPLE = """
[server]
bind = "0.0.0.0:9000"
engine = "uvicorn"
trusted_proxies = ["127.0.0.1/32", "2001:db8::/48"]
[operator]
bind = "127.0.0.1:9001"
password = { env = "OPERATOR" }
viewer_password = { file = "viewer.txt" }
[store]
url = "sqlite:///data/events.db"
linger_ms = 2
[pipeline]
dedup_window_s = 100
business_key_s = 2000
max_event_age_s = 1000
retry_life_s = 300
dead_keep_s = 400
[sites.boutique]
hold_s = 20
default_country = "AT"
checkout = "signed"
[sources.orders]
adapter = "shopify"
site = "boutique"
options = { shop = "boutique.myshopify.com" }
secrets = [{ env = "ORDERS" }, { env = "ORDERS_OLD" }]
destinations = ["main"]
[sources.page]
adapter = "browser_tag"
site = "boutique"
allowed_origins = ["https://boutique.example", "null"]
destinations = ["main"]
[sources.page.event_names]
"my event" = "lead"
[destinations.main]
type = "pinterest"
ad_account_id = "1"
token = { env = "TOKEN" }
[plugins]
disabled = ["gtm"]
[plugins.click_id]
"""
PATH = Path("/etc/gateway/gateway.toml")
LEAST: dict[str, Any] = {
    "sources": {"api": {"adapter": "browser_tag", "secrets": [{"env": "X"}], "destinations": ["main"]}},
    "destinations": {"main": {"type": "pinterest"}},
}


def sample() -> dict[str, Any]:
    return tomllib.loads(SAMPLE)


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    raw = copy.deepcopy(sample())
    change(raw)
    return raw


def test_every_table_of_the_sample_is_read() -> None:
    """What the file says is what the gateway gets."""
    found = parse(sample(), PATH)
    assert (found.server.bind, found.server.engine) == ("0.0.0.0:9000", "uvicorn")
    assert found.server.trusted_proxies == ("127.0.0.1/32", "2001:db8::/48")
    assert found.operator.password == SecretRef(env="OPERATOR")
    assert found.operator.viewer_password == SecretRef(file="viewer.txt")
    assert (found.store.url, found.store.linger_ms) == ("sqlite:///data/events.db", 2.0)
    assert (found.pipeline.dedup_window_s, found.pipeline.business_key_s, found.pipeline.dead_keep_s) == (
        100,
        2000,
        400,
    )
    assert (found.sites["boutique"].default_country, found.sites["boutique"].checkout) == ("AT", "signed")
    assert found.sources["orders"].secrets == (SecretRef(env="ORDERS"), SecretRef(env="ORDERS_OLD"))
    assert found.sources["page"].event_names == {"my event": "lead"}
    assert found.sources["page"].allowed_origins == ("https://boutique.example", "null")
    assert found.destinations["main"]["token"] == {"env": "TOKEN"}
    assert (found.disabled_plugins, found.plugins) == (("gtm",), {"click_id": {}})
    assert found.warnings == ()


def test_defaults() -> None:
    """A file of one source and one destination is enough; the rest has the contract's defaults."""
    found = parse(LEAST, PATH)
    assert (found.server.bind, found.server.engine, found.operator.bind) == (
        "127.0.0.1:8000",
        "hypercorn",
        "127.0.0.1:8081",
    )
    table = found.pipeline
    assert (table.dedup_window_s, table.business_key_s, table.max_event_age_s) == (172_800, 2_592_000, 604_800)
    assert (table.retry_life_s, table.dead_keep_s) == (604_800, 1_209_600)
    assert found.site_of("api") == "api"
    assert parse({}, PATH).sources == {}


def test_paths_are_relative_to_the_file() -> None:
    """The store and its socket lie where the file says, whatever the working directory is."""
    found = parse(sample(), PATH)
    assert found.store_path == Path("/etc/gateway/data/events.db")
    assert found.socket_path == Path("/etc/gateway/data/events.db.sock")
    absolute = parse(changed(lambda raw: raw["store"].update(url="sqlite:////srv/events.db")), PATH)
    assert absolute.store_path == Path("/srv/events.db")


WRONG: list[tuple[str, Callable[[dict[str, Any]], Any], list[str]]] = [
    (
        "any origin",
        lambda raw: raw["sources"]["page"].update(allowed_origins=["*"]),
        ["[sources.page]", "'*' is no origin", "scheme://host[:port]"],
    ),
    (
        "origin with a path",
        lambda raw: raw["sources"]["page"].update(allowed_origins=["https://boutique.example/"]),
        ["[sources.page]", "'https://boutique.example/' is no origin"],
    ),
    ("table", lambda raw: raw.update(serer={}), ["unknown table [serer]", "did you mean 'server'?"]),
    ("strange table", lambda raw: raw.update(zzzz={}), ["unknown table [zzzz]", "valid are", "sources"]),
    ("no table", lambda raw: raw.update(server=5), ["server", "[server]"]),
    ("key", lambda raw: raw["server"].update(bindd="x"), ["[server]", "unknown key 'bindd'", "did you mean 'bind'?"]),
    (
        "strange key",
        lambda raw: raw["store"].update(qqqq=1),
        ["[store]", "unknown key 'qqqq'", "valid are ballast_mb, linger_ms, max_waiting, min_free_mb, url"],
    ),
    (
        "source key",
        lambda raw: raw["sources"]["page"].update(origins=[]),
        ["[sources.page]", "'origins'", "'allowed_origins'"],
    ),
    ("missing", lambda raw: raw["sources"]["page"].pop("adapter"), ["[sources.page]", "'adapter' is missing"]),
    (
        "type",
        lambda raw: raw["pipeline"].update(dedup_window_s="two days"),
        ["[pipeline]", "'dedup_window_s'", "expected `int`"],
    ),
    ("choice", lambda raw: raw["server"].update(engine="gunicorn"), ["[server]", "'engine'"]),
    ("nested type", lambda raw: raw["sources"]["orders"].update(secrets=[5]), ["[sources.orders]", "secrets"]),
    (
        "secret ref",
        lambda raw: raw["operator"].update(password={"environ": "X"}),
        ["[operator]", "environ", "did you mean 'env'?"],
    ),
    (
        "secret in a list",
        lambda raw: raw["sources"]["orders"].update(secrets=[{"flie": "X"}]),
        ["secrets[0]", "did you mean 'file'?"],
    ),
    ("source no table", lambda raw: raw["sources"].update(page=1), ["[sources.page]", "must be a table"]),
    ("sources no table", lambda raw: raw.update(sources=1), ["sources", "[sources]"]),
    (
        "both",
        lambda raw: raw["sources"]["page"].update(secrets=["s"]),
        ["[sources.page]", "secrets", "allowed_origins", "not both"],
    ),
    (
        "neither",
        lambda raw: raw["sources"]["page"].pop("allowed_origins"),
        ["[sources.page]", "give secrets", "allowed_origins"],
    ),
    ("empty secrets", lambda raw: raw["sources"]["orders"].update(secrets=[]), ["[sources.orders]", "give secrets"]),
    (
        "site",
        lambda raw: raw["sources"]["page"].update(site="botique"),
        ["[sources.page]", "'botique'", "did you mean 'boutique'?"],
    ),
    (
        "destination",
        lambda raw: raw["sources"]["page"].update(destinations=["mian"]),
        ["[sources.page]", "'mian'", "'main'"],
    ),
    (
        "no destination",
        lambda raw: raw["sources"]["page"].update(destinations=[]),
        ["[sources.page]", "destinations is empty"],
    ),
    ("twice", lambda raw: raw["sources"]["page"].update(destinations=["main", "main"]), ["[sources.page]", "twice"]),
    (
        "proxy",
        lambda raw: raw["server"].update(trusted_proxies=["lb.local"]),
        ["[server] trusted_proxies", "'lb.local'", "CIDR"],
    ),
    ("store", lambda raw: raw["store"].update(url="redis://x"), ["[store] url", "sqlite:///"]),
    (
        "name",
        lambda raw: raw["sources"].update({"My Shop": raw["sources"]["page"]}),
        ["[sources.My Shop]", "lower-case"],
    ),
    (
        "windows",
        lambda raw: raw["pipeline"].update(business_key_s=999),
        ["[pipeline]", "business_key_s", "max_event_age_s"],
    ),
    (
        "country",
        lambda raw: raw["sites"]["boutique"].update(default_country="Austria"),
        ["default_country", "two capital letters"],
    ),
    (
        "template",
        lambda raw: raw["sites"]["boutique"].update(event_id="order"),
        ["[sites.boutique] event_id", "{order_id}"],
    ),
    ("disabled", lambda raw: raw["plugins"].update(disabled="gtm"), ["[plugins] disabled", "list"]),
]


@pytest.mark.parametrize(("change", "parts"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_an_error_names_file_key_and_remedy(change: Callable[[dict[str, Any]], Any], parts: list[str]) -> None:
    """Whoever wrote it finds the place and knows what to write."""
    with pytest.raises(ConfigError) as caught:
        parse(changed(change), PATH)
    message = str(caught.value)
    assert message.startswith(f"{PATH}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("proxy", ["10.0.0.0/8", "10.0.0.1", "::1/128", "10.0.0.1/8"])
def test_proxies_in_any_notation(proxy: str) -> None:
    """An address, a range and a range with host bits are all understood."""
    parse(changed(lambda raw: raw["server"].update(trusted_proxies=[proxy])), PATH)


def test_warnings() -> None:
    """A literal secret and sources that share a destination without a site are warned about, without the secret."""
    raw = copy.deepcopy(LEAST)
    raw["sources"]["api"]["secrets"] = ["hunter2-literal"]
    raw["sources"]["tag"] = {
        "adapter": "browser_tag",
        "allowed_origins": ["https://a.example"],
        "destinations": ["main"],
    }
    literal, shared = parse(raw, PATH).warnings
    assert "[sources.api]" in literal
    assert "env" in literal
    assert "hunter2" not in literal
    assert "api" in shared
    assert "tag" in shared
    assert "event_id" in shared


def configured(folder: Path) -> Config:
    return parse(LEAST, folder / "gateway.toml")


def test_secrets_from_everywhere(tmp_path: Path) -> None:
    """A secret comes from the environment, from a file beside the configuration, or stands there."""
    (tmp_path / "secret.txt").write_text("from-file\n")
    found = configured(tmp_path)
    assert secret(SecretRef(env="S"), found, "w", {"S": "from-env"}).value == "from-env"
    assert secret(SecretRef(file="secret.txt"), found, "w", {}).value == "from-file"
    assert secret("literal", found, "w", {}).value == "literal"


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (SecretRef(env="GATEWAY_X"), ["environment variable GATEWAY_X", "not set"]),
        (SecretRef(file="none.txt"), ["file none.txt", "cannot be read"]),
        (SecretRef(file="empty.txt"), ["empty"]),
        (SecretRef(file="latin1.txt"), ["latin1.txt"]),
        (SecretRef(env="GATEWAY_X", file="none.txt"), ["env", "file"]),
        (SecretRef(), ["env", "file"]),
        ("", ["empty"]),
    ],
)
def test_a_secret_that_is_not_there(tmp_path: Path, value: SecretRef | str, parts: list[str]) -> None:
    """An unset variable, and a file that is missing, empty or no text, are named with the place that wants them."""
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin1.txt").write_bytes(b"gr\xfc\xdfe")
    with pytest.raises(ConfigError) as caught:
        secret(value, configured(tmp_path), "[sources.api] secrets", {"GATEWAY_X": ""})
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'gateway.toml'}: [sources.api] secrets: ")
    for part in parts:
        assert part in message


def test_load(tmp_path: Path) -> None:
    """A file that is missing, no TOML, no text or a folder is named with what to do."""
    path = tmp_path / "gateway.toml"
    with pytest.raises(ConfigError, match=r"no such file.*tag-gateway init"):
        load(path)
    path.write_text("[server\n")
    with pytest.raises(ConfigError, match=r"gateway\.toml: not TOML"):
        load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    path.write_text(SAMPLE)
    assert load(path).path == path


def test_the_order_of_default_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The option wins over the environment, the environment over ./gateway.toml."""
    monkeypatch.chdir(tmp_path)
    assert config.default_path("a.toml", {"TAG_GATEWAY_CONFIG": "/b.toml"}) == tmp_path / "a.toml"
    assert config.default_path(None, {"TAG_GATEWAY_CONFIG": "/b.toml"}) == Path("/b.toml")
    assert config.default_path(None, {}) == tmp_path / "gateway.toml"
