"""
The running gateway: configuration and plugins put together, started, reloaded, stopped.

A reload builds everything new before anything old is let go: a bad file keeps the old wiring and says why.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from gateway import config as configuration
from gateway import history, identifiers
from gateway.alarms import Alarms
from gateway.alarms.watch import Watch
from gateway.assembly import Clock
from gateway.assembly import Parts as Parts
from gateway.assembly import assemble as assemble
from gateway.audiences.barred import Refusals
from gateway.audiences.wiring import Mirror
from gateway.audit import Audit
from gateway.captures import Captures
from gateway.config import Config
from gateway.detectors import Detectors
from gateway.errors import ConfigError, GatewayError
from gateway.event import SealedEvent
from gateway.hit import Source
from gateway.http import Client
from gateway.identity import Windows
from gateway.ingress import Ingress, Wiring
from gateway.interfaces import HttpClient
from gateway.isolation import Guard
from gateway.livestream import LiveStreams
from gateway.logs import HitLog
from gateway.memory import Memory
from gateway.minutes import Minutes
from gateway.outbox import Kind, Lane, Outbox
from gateway.outbox.sqlite import SqliteOutbox
from gateway.outcome import Outcome
from gateway.overload import Budget, Limits
from gateway.pipeline import Pipeline, Reply
from gateway.quality import QualityBook
from gateway.quarantine import Quarantine
from gateway.ratelimit import RateLimit
from gateway.recent import Recent
from gateway.replaying import Replays
from gateway.sender import Sender
from gateway.tables import Pipeline as PipelineTable
from gateway.tally import Tally
from gateway.trial import Trials
from gateway.warnings_seen import WarningsSeen

_log = logging.getLogger("gateway.runtime")


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
        rollup_keep_s=config.pipeline.rollup_keep_s,
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
        self.minutes = Minutes(clock)
        self.audit = Audit(config.store_path.with_name("audit.log"), clock)
        self.alarms = Alarms(clock, config.store_path.with_name(f"{config.store_path.name}.alarms"))
        self.hit_log = hit_log or HitLog()
        self._guard = Guard(self._count_failure)
        self.warnings_seen = WarningsSeen(clock)
        self.recent = Recent(clock=clock)
        self.live = LiveStreams(self.recent)
        self.captures = Captures(clock)
        self.trials = Trials(self._guard, lambda: self._wiring.pipeline)
        self.detectors = Detectors(clock)
        self.quality = QualityBook(
            config.store_path.parent / "quality.jsonl", clock, self._guard, lambda: self.parts.destinations
        )
        self.quarantine = Quarantine(
            config.store_path.parent / "quarantine", self.parts.quarantine, clock, self.tally.kept, self._alarm
        )
        self.replays = Replays(self.quarantine, lambda: self.parts.routes, lambda: self.pipeline, self.outbox.digest)
        self.budget = Budget(_limits(config), self._waiting, room=lambda: self.outbox.room)
        server = config.server
        self.rate_limit = RateLimit(server.rate_per_s, server.rate_burst, server.trusted_proxies)
        self._wiring = self._wire(self.parts)
        self.sender = self._make_sender(self.parts)
        self.ingress = Ingress(
            lambda: self._wiring,
            clock,
            self.tally,
            self.hit_log,
            self._guard,
            self.budget,
            self.rate_limit,
            self.captures,
            self._answered,
        )
        self.audiences = self._mirror()
        self._ready: tuple[float, str | None] = (-1e9, None)
        self.watch = Watch(self, self.alarms, self._http)
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
            self._erased,
            self.budget.judge,
            self.detectors.note,
            self._told,
            [one.name for one in enrichers if not parts.host.is_ours(one)],
        )
        return Wiring(parts.routes, pipeline, self.quarantine)

    def _erased(self, subjects: Sequence[bytes]) -> None:
        self.replays.erased(subjects)
        self.forget_shown()

    def forget_shown(self) -> None:
        """Forget what pages could show of anybody: whose it is is not known there, so an erasure takes it all."""
        self.captures.clear()
        self.recent.forget()

    def _make_sender(self, parts: Parts) -> Sender:
        observers = [self.recent, self.warnings_seen, self.minutes, *parts.host.observers.values()]
        retry_life_s = parts.config.pipeline.retry_life_s
        return Sender(list(parts.destinations.values()), self.outbox, retry_life_s, observers, self.tally)

    def _mirror(self) -> Mirror:
        def sites() -> set[str]:
            return {route.source.site for route in self.parts.routes.values()}

        refusals = Refusals(self.outbox, sites, self.clock, lambda: self.memory.life_s)
        return Mirror(self.parts.audiences, self.clock, refusals, self.tally.mirrored)

    def _alarm(self, reason: str, message: str, source: str) -> None:
        self.tally.alarms[(reason, source)] += 1
        self.alarms.heard(reason, message, source)
        _log.error("alarm", extra={"reason": reason, "detail": message, "source": source})

    def _told(self, source: str, outcome: Outcome, event: SealedEvent | None) -> None:
        self.recent.add(source, outcome, event)
        if event is None:  # everything else is counted in its commit
            self.outbox.count({history.aside(source, outcome): 1})

    def _answered(self, source: str, status: int, refusal: str | None) -> None:
        self.outbox.count({history.hit(source, status): 1})
        if refusal is not None:
            self.recent.refused(source, status, refusal)

    def _observe(self, source: Source, reply: Reply) -> None:
        for outcomes in reply.items:
            self.tally.admitted(source.name, outcomes)
            if not any(one.is_test for one in outcomes):
                self.minutes.received(source.name)

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
        self.quality.start()
        self.watch.start()

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
        """End the streams, claim no more, and finish the calls under way in bounded time; harmless twice."""
        self.live.close()
        await self.watch.stop()
        limit_s = self.parts.config.server.graceful_s
        await asyncio.gather(self.sender.stop(limit_s), self.audiences.close(limit_s))

    async def stop(self) -> None:
        """Finish what is in flight in bounded time, then release the store."""
        await self.stop_sending()
        self.captures.close()
        await self.replays.close()
        await self.quality.close()
        await self.quarantine.close()
        await self.outbox.close()
        self._guard.close()
        with contextlib.suppress(RuntimeError):
            self.hit_log.flush()
        if isinstance(self._http, Client):
            await self._http.close()
