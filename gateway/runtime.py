"""
The running gateway: configuration and plugins put together, started, reloaded, stopped.

A reload builds everything new before anything old is let go: a bad file keeps the old wiring and says why.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from gateway import config as configuration
from gateway import identifiers, settings
from gateway.audiences.barred import Refusals
from gateway.audiences.wiring import Mirror, Plugged, plugged
from gateway.config import Config
from gateway.errors import ConfigError, GatewayError
from gateway.event import Struct
from gateway.hit import Source
from gateway.http import Client
from gateway.identity import Windows
from gateway.ingress import Ingress, Wiring
from gateway.interfaces import Context, Destination, HttpClient
from gateway.isolation import Guard
from gateway.logs import HitLog
from gateway.memory import Memory
from gateway.outbox import Kind, Lane, Outbox
from gateway.outbox.sqlite import SqliteOutbox
from gateway.overload import Budget, Limits
from gateway.pipeline import Pipeline, Reply, Route
from gateway.pluginhost import PluginHost
from gateway.quarantine import Quarantine, Terms, key_of
from gateway.ratelimit import RateLimit
from gateway.replaying import Replays
from gateway.sender import Sender
from gateway.tables import Pipeline as PipelineTable
from gateway.tables import Site
from gateway.tally import Tally

_log = logging.getLogger("gateway.runtime")
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
        quarantine=_terms(config, warnings), warnings=tuple(warnings),
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


def open_outbox(config: Config, clock: Clock = time.time) -> SqliteOutbox:
    """
    Open the store that the configuration names.

    Raises:
        StoreError: It is in use, newer than this program, or cannot be read; a damaged one is moved aside.
    """
    return SqliteOutbox(
        config.store_path,
        clock=clock,
        linger_s=config.store.linger_ms / 1000,
        business_key_s=config.pipeline.business_key_s,
        dead_keep_s=config.pipeline.dead_keep_s,
        memory_keys=config.pipeline.memory_keys,
        min_free=config.store.min_free_mb << 20,
        ballast=config.store.ballast_mb << 20,
    )


def _limits(config: Config) -> Limits:
    server = config.server
    return Limits(requests=server.max_requests, body_bytes=server.max_body_mb << 20, waiting=config.store.max_waiting)


class Gateway:
    """
    One running gateway: store, pipeline, lanes, and the public app's ingress.

    Args:
        config: Already loaded. ``http`` replaces the network, ``outbox`` the store, for tests.
        extra_plugins: Plugins that are not installed.
    """

    def __init__(
        self,
        config: Config,
        *,
        outbox: Outbox | None = None,
        http: HttpClient | None = None,
        clock: Clock = time.time,
        hit_log: HitLog | None = None,
        extra_plugins: Mapping[str, object] | None = None,
    ) -> None:
        self._http = http or Client()
        self._extra_plugins = extra_plugins
        self.clock = clock
        identifiers.load()  # tables that the first hit would otherwise wait for
        self.parts = assemble(config, self._http, extra_plugins, clock)
        self.outbox = outbox or open_outbox(config, clock)
        self.memory = Memory(self.outbox, clock, config.pipeline.memory_s)
        self.tally = Tally()
        self.started_at = clock()
        self.hit_log = hit_log or HitLog()
        self._guard = Guard(self._count_failure)
        self.quarantine = Quarantine(
            config.store_path.parent / "quarantine", self.parts.quarantine, clock, self.tally.kept, self._alarm
        )
        self.replays = Replays(self.quarantine, lambda: self.parts.routes, lambda: self.pipeline, self.outbox.digest)
        self.budget = Budget(_limits(config), self._waiting)
        server = config.server
        self.rate_limit = RateLimit(server.rate_per_s, server.rate_burst, server.trusted_proxies)
        self._wiring = self._wire(self.parts)
        self.sender = self._make_sender(self.parts)
        self.ingress = Ingress(
            lambda: self._wiring, clock, self.tally, self.hit_log, self._guard, self.budget, self.rate_limit
        )
        self.audiences = self._mirror()
        self._ready: tuple[float, str | None] = (-1e9, None)
        for warning in self.parts.warnings:
            _log.warning("config_warning", extra={"warning": warning})
        for found in self.outbox.damaged:
            self._alarm("store_damaged", found, "-")

    def _waiting(self) -> int:
        """Return how many units wait, by the outbox's counters in memory."""
        return sum(
            self.outbox.waiting(Lane(destination=name, kind=kind))
            for name in self.parts.destinations
            for kind in get_args(Kind)
        )

    def _count_failure(self, plugin: str) -> None:
        self.tally.plugin_failures[(plugin,)] += 1

    def _wire(self, parts: Parts) -> Wiring:
        table: PipelineTable = parts.config.pipeline
        enrichers = parts.host.ordered_enrichers(table.enrichers)
        pipeline = Pipeline(
            self.outbox,
            self.memory,
            enrichers,
            self._guard,
            Windows(dedup_s=table.dedup_window_s, business_s=table.business_key_s),
            self.clock,
            self._alarm,
            self._observe,
            lambda ended: self.sender.settled(ended),
            self.replays.erased,
            self.budget.judge,
            [one.name for one in enrichers if not parts.host.is_ours(one)],
        )
        return Wiring(parts.routes, pipeline, self.quarantine)

    def _make_sender(self, parts: Parts) -> Sender:
        observers = list(parts.host.observers.values())
        retry_life_s = parts.config.pipeline.retry_life_s
        return Sender(list(parts.destinations.values()), self.outbox, retry_life_s, observers, self.tally)

    def _mirror(self) -> Mirror:
        def sites() -> set[str]:
            return {route.source.site for route in self.parts.routes.values()}

        refusals = Refusals(self.outbox, sites, self.clock, lambda: self.memory.life_s)
        return Mirror(self.parts.audiences, self.clock, refusals, self.tally.mirrored)

    def _alarm(self, reason: str, message: str, source: str) -> None:
        self.tally.alarms[(reason, source)] += 1
        _log.error("alarm", extra={"reason": reason, "detail": message, "source": source})

    def _observe(self, source: Source, reply: Reply) -> None:
        for outcomes in reply.items:
            self.tally.admitted(source.name, outcomes)

    @property
    def switched_off(self) -> set[str]:
        """Plugins that hung too often."""
        return self._guard.switched_off

    @property
    def pipeline(self) -> Pipeline:
        """The current pipeline, for ``explain``."""
        return self._wiring.pipeline

    async def start(self) -> None:
        """Start delivering, mirroring, and deleting what is kept for too long."""
        self.sender.start()
        self.audiences.start()
        self.quarantine.start()

    async def reload(self, path: Path) -> str | None:
        """Take the file over; returns why not, and everything stays as it was."""
        try:
            config = configuration.load(path)
            if config.store != self.parts.config.store or config.server.bind != self.parts.config.server.bind:
                raise ConfigError(f"{path}: [store] and [server] bind change only with a restart.")
            parts = assemble(config, self._http, self._extra_plugins, self.clock)
        except GatewayError as error:
            _log.error("reload_refused", extra={"detail": str(error)})
            return str(error)
        old = self.sender
        self.memory.life_s = config.pipeline.memory_s
        self.parts, self._wiring = parts, self._wire(parts)
        self.quarantine.adopt(parts.quarantine)
        self.budget.limit(_limits(config))
        self.rate_limit.limit(config.server.rate_per_s, config.server.rate_burst, config.server.trusted_proxies)
        await old.stop(parts.config.server.graceful_s)
        self.sender = self._make_sender(parts)
        self.sender.start()
        await self.audiences.replace(parts.audiences, parts.config.server.graceful_s)
        _log.info("reloaded", extra={"file": str(path)})
        return None

    async def ready(self) -> str | None:
        """Return why hits are refused or the store cannot be written, None when neither; asked once a second."""
        now = time.monotonic()
        if now - self._ready[0] >= 1.0:
            problem: str | None = None
            try:
                async with asyncio.timeout(3.0):
                    await self.outbox.ping()
            except TimeoutError:
                problem = "the store does not answer"
            except GatewayError as error:
                problem = str(error)
            self._ready = (now, self.outbox.trouble or problem)
        return self._ready[1]

    async def stop_sending(self) -> None:
        """Claim no more, and finish the calls under way in bounded time; harmless twice."""
        limit_s = self.parts.config.server.graceful_s
        await asyncio.gather(self.sender.stop(limit_s), self.audiences.close(limit_s))

    async def stop(self) -> None:
        """Finish what is in flight in bounded time, then release the store."""
        await self.stop_sending()
        await self.replays.close()
        await self.quarantine.close()
        await self.outbox.close()
        self._guard.close()
        with contextlib.suppress(RuntimeError):
            self.hit_log.flush()
        if isinstance(self._http, Client):
            await self._http.close()
