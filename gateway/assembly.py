"""A configuration and the installed plugins put together, before anything runs."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway import config as configuration
from gateway import settings
from gateway.alarms.receiver import Receiver, receiver_of
from gateway.audiences.wiring import Plugged, plugged
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.event import Struct
from gateway.interfaces import Context, Destination, HttpClient
from gateway.pipeline import Route
from gateway.pluginhost import PluginHost
from gateway.quarantine import Terms, key_of
from gateway.tables import Site

_SERVER_BYTES = 8 << 20
_PUBLIC_BYTES = 1 << 20
Clock = Callable[[], float]


class Parts(Struct, frozen=True, kw_only=True):
    """What a configuration means: plugins, destinations by name, routes by source, and who mirrors lists."""

    config: Config
    host: Any  # PluginHost
    destinations: dict[str, Any]  # Destination
    routes: dict[str, Route]
    audiences: Plugged
    quarantine: Terms = Terms()
    alerts: Receiver = Receiver()
    warnings: tuple[str, ...] = ()


def assemble(
    config: Config,
    http: HttpClient | None,
    extra_plugins: Mapping[str, object] | None = None,
    clock: Clock = time.time,
) -> Parts:
    """
    Put plugins and configuration together without starting anything.

    Raises:
        ConfigError: The file names something that no plugin provides, or options that a plugin does not take.
        PluginError: A plugin cannot be used.
    """
    context = Context(
        http=http,
        trusted_proxies=config.server.trusted_proxies,
        clock=clock,
        options=config.plugins,
        folder=config.path.parent,
        state=config.store_path.parent,
    )
    host = PluginHost(context, config.disabled_plugins, extra_plugins)
    _check_plugin_tables(config, host)
    warnings = list(config.warnings)
    destinations = {
        name: _destination(config, name, table, host, context, warnings) for name, table in config.destinations.items()
    }
    routes = {name: _route(config, name, host, destinations, warnings) for name in config.sources}
    audiences = plugged(config, host, context, warnings)
    host.ordered_enrichers(config.pipeline.enrichers)
    return Parts(
        config=config, host=host, destinations=destinations, routes=routes, audiences=audiences,
        quarantine=_terms(config, warnings), alerts=receiver_of(config, warnings), warnings=tuple(warnings),
    )  # fmt: skip


def _terms(config: Config, warnings: list[str]) -> Terms:
    table, key = config.quarantine, None
    if table.key is not None:
        if isinstance(table.key, str):
            warnings.append('[quarantine] key: a literal secret in the file; use { env = "…" }.')
        given = configuration.secret(table.key, config, "[quarantine] key")
        key = key_of(given.value, f"{config.path}: [quarantine] key")
    return Terms(
        key=key, keep_s=table.keep_s, max_bytes=table.max_mb << 20, min_free_bytes=config.store.min_free_mb << 20
    )  # fmt: skip


def _check_plugin_tables(config: Config, host: PluginHost) -> None:
    known = {loaded.name for loaded in host.listing()}
    for name in config.plugins:
        if name not in known:
            raise ConfigError(f"{config.path}: [plugins.{name}] names no plugin. Known are {', '.join(sorted(known))}.")


def _destination(
    config: Config, name: str, table: Mapping[str, Any], host: PluginHost, context: Context, warnings: list[str]
) -> Destination:
    where = f"destinations.{name}"
    if not isinstance(table, dict):
        raise ConfigError(f"{config.path}: [{where}] must be a table.")
    options = dict(table)
    kind = options.pop("type", None)
    if kind not in host.destination_types:
        raise ConfigError(
            f"{config.path}: [{where}] type must be one of {', '.join(sorted(host.destination_types))}"
            f"{f', not {kind!r}' if kind is not None else ''}."
        )
    cls = host.destination_types[kind]
    decoded = settings.options(config, options, cls.Options, where, warnings)
    try:
        destination = cls(name, decoded, context)
    except ValueError as error:
        raise ConfigError(f"{config.path}: [{where}] {error}") from error
    destination.default_max_age_s = config.pipeline.max_event_age_s
    return destination


def _route(
    config: Config, name: str, host: PluginHost, destinations: Mapping[str, Destination], warnings: list[str]
) -> Route:
    table = config.sources[name]
    adapter = host.adapters.get(table.adapter)
    if adapter is None:
        known = ", ".join(sorted(host.adapters))
        raise ConfigError(
            f"{config.path}: [sources.{name}] adapter '{table.adapter}' is not installed. Known are {known}."
        )
    source = settings.source(config, name, adapter, warnings)
    site = config.sites.get(source.site, Site())
    return Route(
        source=source,
        adapter=adapter,
        destinations=tuple(destinations[destination] for destination in table.destinations),
        inline=host.is_ours(adapter),
        id_template=site.event_id,
        max_bytes=_SERVER_BYTES if source.is_server else _PUBLIC_BYTES,
        hold_s=site.hold_s,
        held_for=_shared(config, name),
        signed_checkout=site.checkout == "signed",
    )


def _shared(config: Config, name: str) -> frozenset[str]:
    """Return the destinations that other sources of the same site feed too."""
    site = config.site_of(name)
    others = {
        destination
        for other, table in config.sources.items()
        if other != name and config.site_of(other) == site
        for destination in table.destinations
    }
    return frozenset(others.intersection(config.sources[name].destinations))
