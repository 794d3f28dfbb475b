"""
``gateway.toml`` as frozen Structs.

Every table is closed: an unknown key is an error that names file, key and the nearest valid key. Secrets are ``{ env =
"NAME" }``, ``{ file = "path" }``, or a literal text, which ``check`` warns about. The environment is read here and
nowhere else.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from gateway.errors import ConfigError
from gateway.event import Struct
from gateway.hit import Secret
from gateway.tables import (
    Alerts,
    Audiences,
    Operator,
    Pipeline,
    Quarantine,
    SecretValue,
    Server,
    Site,
    SourceTable,
    Store,
    Table,
)
from gateway.verify import origin_of

T = TypeVar("T")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_COUNTRY = re.compile(r"[A-Z]{2}\Z")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Config(Struct, frozen=True, kw_only=True):
    """
    The whole file, decoded; the tables of destinations, audience sources and sinks, and plugins stay plain until their
    plugins decode them.

    ``path`` is the file, ``folder`` what relative paths in it are relative to.
    """

    path: Path
    server: Server = Server()
    operator: Operator = Operator()
    store: Store = Store()
    pipeline: Pipeline = Pipeline()
    audiences: Audiences = Audiences()
    quarantine: Quarantine = Quarantine()
    alerts: Alerts = Alerts()
    sites: dict[str, Site] = msgspec.field(default_factory=dict)
    sources: dict[str, SourceTable] = msgspec.field(default_factory=dict)
    destinations: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    audience_sources: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    audience_sinks: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    plugins: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    disabled_plugins: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Only the file's name: its tables may hold literal secrets."""
        return f"Config({self.path})"

    @property
    def store_path(self) -> Path:
        """The SQLite file."""
        return self.folder / self.store.url.removeprefix("sqlite:///")

    @property
    def socket_path(self) -> Path:
        """The Unix socket through which commands reach the running server."""
        return self.store_path.with_name(self.store_path.name + ".sock")

    @property
    def folder(self) -> Path:
        """The folder of the file."""
        return self.path.parent

    def site_of(self, source: str) -> str:
        """Return the site's name: without ``site`` a source is its own."""
        return self.sources[source].site or source


_SECTIONS: Mapping[str, type[Table]] = {
    "server": Server, "operator": Operator, "store": Store, "pipeline": Pipeline, "audiences": Audiences,
    "quarantine": Quarantine, "alerts": Alerts,
}  # fmt: skip
_KEYED: Mapping[str, type[Table]] = {"sites": Site, "sources": SourceTable}
_PLUGGED = ("destinations", "audience_sources", "audience_sinks")


def default_path(given: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the configuration file: ``--config``, else TAG_GATEWAY_CONFIG, else ./gateway.toml."""
    return Path(given or environ.get("TAG_GATEWAY_CONFIG") or "gateway.toml").absolute()


def load(path: Path) -> Config:
    """
    Read and check the file; plugins' own tables are decoded later, by :func:`convert`.

    Raises:
        ConfigError: Names file, key and remedy.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file. Write one with 'tag-gateway init', or name it with --config."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}.") from error
    return parse(raw, path)


def parse(raw: Mapping[str, Any], path: Path) -> Config:
    """Check a decoded file; see :func:`load`."""
    known = [*_SECTIONS, *_KEYED, *_PLUGGED, "plugins"]
    for name, value in raw.items():
        if name not in known:
            raise ConfigError(f"{path}: unknown table [{name}]{_nearest(name, known)}")
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {name} must be a table: write [{name}].")
    values: dict[str, Any] = {name: convert(raw.get(name, {}), table, path, name) for name, table in _SECTIONS.items()}
    for name, table in _KEYED.items():
        values[name] = {key: convert(item, table, path, f"{name}.{key}") for key, item in raw.get(name, {}).items()}
    plugins = dict(raw.get("plugins", {}))
    disabled = plugins.pop("disabled", [])
    if not isinstance(disabled, list) or not all(isinstance(name, str) for name in disabled):
        raise ConfigError(f"{path}: [plugins] disabled must be a list of plugin names.")
    values["plugins"], values["disabled_plugins"] = plugins, tuple(disabled)
    values |= {name: raw.get(name, {}) for name in _PLUGGED}
    config = Config(path=path, **values)
    _check(config)
    return msgspec.structs.replace(config, warnings=_warnings(config))


def convert(value: Any, table: type[T], path: Path, where: str) -> T:
    """
    Decode one table.

    Raises:
        ConfigError: Names file, key, what is expected, and the nearest valid key.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: [{where}] must be a table.")
    try:
        return msgspec.convert(value, table)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: [{where}] {_readable(str(error), value, table)}") from error


def _readable(message: str, value: Mapping[str, Any], table: Any) -> str:
    """Turn a validation message into key, problem and remedy, without the value."""
    place = re.search(r" - at `\$\.?(.*?)`", message)
    unknown = re.search(r"unknown field `(.+?)`", message)
    if unknown:
        inside = f" in '{place[1]}'" if place and place[1] else ""
        return f"unknown key '{unknown[1]}'{inside}{_nearest(unknown[1], _keys_at(table, place[1] if place else ''))}"
    missing = re.search(r"missing required field `(.+?)`", message)
    if missing:
        near = difflib.get_close_matches(missing[1], list(value), 1)
        return f"'{missing[1]}' is missing{f', did you mean it by {near[0]!r}?' if near else '.'}"
    text = re.sub(r" - at `.*", "", message)
    key = place[1] if place and place[1] else "value"
    return f"'{key}': {text[:1].lower()}{text[1:]}."


def _keys_at(table: Any, place: str) -> list[str]:
    """Return the keys that the Struct at a place such as ``secrets[0]`` may have."""
    nodes: list[Any] = [msgspec.inspect.type_info(table)]
    for part in filter(None, place.replace("[", ".[").split(".")):
        below: list[Any] = []
        for node in nodes:
            if part.startswith("["):
                below.append(getattr(node, "value_type", None) or getattr(node, "item_type", None))
            else:
                below += [field.type for field in getattr(node, "fields", ()) if field.encode_name == part]
        nodes = [one for node in below for one in getattr(node, "types", (node,))]
    return [field.encode_name for node in nodes for field in getattr(node, "fields", ())]


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    if near:
        return f": did you mean '{near[0]}'?"
    return f": valid are {', '.join(sorted(known))}." if known else ": none is valid here."


def _check(config: Config) -> None:
    path = config.path
    if not config.store.url.startswith("sqlite:///"):
        raise ConfigError(f"{path}: [store] url must be sqlite:///PATH, relative to this file.")
    for proxy in config.server.trusted_proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError as error:
            raise ConfigError(
                f"{path}: [server] trusted_proxies: '{proxy}' is not an address or CIDR range."
            ) from error
    _check_limits(config)
    _check_operator_url(config)
    for kind in (*_KEYED, *_PLUGGED):
        for name in getattr(config, kind):
            if not _NAME.match(name):
                raise ConfigError(f"{path}: [{kind}.{name}]: a name is lower-case letters, digits, '_' and '-'.")
    _check_audiences(config)
    if config.pipeline.business_key_s < config.pipeline.max_event_age_s:
        raise ConfigError(
            f"{path}: [pipeline] business_key_s must not be less than max_event_age_s, "
            "or an old copy of an order would be counted again."
        )
    for name, site in config.sites.items():
        if site.default_country is not None and not _COUNTRY.match(site.default_country):
            raise ConfigError(f'{path}: [sites.{name}] default_country must be two capital letters, such as "US".')
        if "{order_id}" not in site.event_id:
            raise ConfigError(
                f"{path}: [sites.{name}] event_id must contain {{order_id}}, or all orders would share one id."
            )
    for name, source in config.sources.items():
        _check_source(config, name, source)
    _check_signed(config)


#: Table, key, and the least that it may be.
_LEAST: Sequence[tuple[str, str, float]] = (
    ("server", "max_connections", 1), ("server", "max_requests", 1), ("server", "max_body_mb", 8),
    ("server", "rate_per_s", 0), ("server", "rate_burst", 1), ("server", "graceful_s", 0),
    ("store", "min_free_mb", 0), ("store", "ballast_mb", 0), ("store", "max_waiting", 1),
    ("quarantine", "keep_s", 1), ("quarantine", "max_mb", 1), ("alerts", "repeat_s", 60),
)  # fmt: skip


def _check_limits(config: Config) -> None:
    for table, key, least in _LEAST:
        if getattr(getattr(config, table), key) < least:
            raise ConfigError(f"{config.path}: [{table}] {key} must be {least:g} or more.")


def _check_operator_url(config: Config) -> None:
    """Refuse http over a network: the code that a vendor's page sends there opens the account."""
    if config.operator.url is None:
        return
    try:
        parts = urlsplit(config.operator.url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    if not host or not is_safe or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(
            f"{config.path}: [operator] url must be https://HOST[:PORT], or http://127.0.0.1, http://[::1] or "
            "http://localhost with a port."
        )


def _check_audiences(config: Config) -> None:
    table, where = config.audiences, f"{config.path}: [audiences]"
    for name in ("max_removal", "max_missing"):
        if not 0 <= getattr(table, name) <= 1:
            raise ConfigError(f"{where} {name} is a share: from 0 to 1, such as 0.2.")
    for name in ("quick_every_s", "full_every_s", "parallel"):
        if getattr(table, name) < 1:
            raise ConfigError(f"{where} {name} must be 1 or more.")


def _check_signed(config: Config) -> None:
    """``checkout = "signed"`` needs a server source that tells the signed orders, for each destination."""
    for name, site in config.sites.items():
        if site.checkout != "signed":
            continue
        members = [source for key, source in config.sources.items() if config.site_of(key) == name]
        signed = {destination for source in members if source.secrets for destination in source.destinations}
        for source in members:
            for destination in source.destinations:
                if destination not in signed:
                    raise ConfigError(
                        f'{config.path}: [sites.{name}] checkout = "signed", but no source of the site with secrets '
                        f"sends to '{destination}': no checkout would ever be sent. "
                        'Add the signed source, or set checkout = "any".'
                    )


def _check_source(config: Config, name: str, source: SourceTable) -> None:
    where = f"{config.path}: [sources.{name}]"
    if source.secrets and source.allowed_origins:
        raise ConfigError(f"{where}: give secrets (a server source) or allowed_origins (a public one), not both.")
    if not source.secrets and not source.allowed_origins:
        raise ConfigError(f"{where}: give secrets (a server source) or allowed_origins (a public one).")
    for origin in source.allowed_origins:
        if origin != "null" and origin_of(origin) != origin:
            raise ConfigError(
                f"{where}: allowed_origins: '{origin}' is no origin, and no page would ever match it: "
                "write scheme://host[:port] in lower case, such as https://shop.example.com."
            )
    if source.site is not None and source.site not in config.sites:
        near = _nearest(source.site, list(config.sites))
        raise ConfigError(f"{where}: site '{source.site}' has no table [sites.{source.site}]{near}")
    if not source.destinations:
        raise ConfigError(f"{where}: destinations is empty: nothing would be sent.")
    for destination in source.destinations:
        if destination not in config.destinations:
            raise ConfigError(
                f"{where}: destination '{destination}' has no table "
                f"[destinations.{destination}]{_nearest(destination, list(config.destinations))}"
            )
    if len(set(source.destinations)) != len(source.destinations):
        raise ConfigError(f"{where}: destinations names one twice.")


def _warnings(config: Config) -> tuple[str, ...]:
    """Collect what works but is probably not meant."""
    found = []
    shared: dict[str, list[str]] = {}
    for name, source in config.sources.items():
        if any(isinstance(secret, str) for secret in source.secrets):
            found.append(f'[sources.{name}] secrets: a literal secret in the file; use {{ env = "…" }}.')
        if source.site is None:
            for destination in source.destinations:
                shared.setdefault(destination, []).append(name)
    for destination, names in shared.items():
        if len(names) > 1:
            found.append(
                f"Sources {', '.join(names)} send to '{destination}' without a common site: one purchase told by two "
                "of them counts twice unless both use the same event_id. Give them one site if they are one shop's."
            )
    return tuple(found)


def secret(value: SecretValue, config: Config, where: str, environ: Mapping[str, str] = os.environ) -> Secret:
    """
    Read a secret.

    Raises:
        ConfigError: The variable is not set or empty, or the file cannot be read.
    """
    if isinstance(value, str):
        found = value
    elif value.env is not None and value.file is None:
        found = environ.get(value.env, "")
        if not found:
            raise ConfigError(f"{config.path}: {where}: the environment variable {value.env} is not set.")
    elif value.file is not None and value.env is None:
        try:
            found = (config.folder / value.file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(
                f"{config.path}: {where}: the file {value.file} cannot be read ({error.strerror})."
            ) from error
        except UnicodeDecodeError:
            # not chained: the error's text shows bytes of the secret
            raise ConfigError(f"{config.path}: {where}: the file {value.file} is not text in UTF-8.") from None
    else:
        raise ConfigError(f'{config.path}: {where}: write {{ env = "NAME" }} or {{ file = "PATH" }}.')
    if not found:
        raise ConfigError(f"{config.path}: {where}: the secret is empty.")
    return Secret(value=found)
