"""
The engine inside the gateway: made from the configuration, opened when first needed, run by ``serve``.

Events come first: the engine has a file of its own, runs beside the lanes, and whatever befalls it ends in the log and
in the status, never in a hit.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway import identifiers
from gateway import settings as tables
from gateway.audience import AudienceSink, AudienceSource
from gateway.audiences import AskBarred, Audiences, Meter, Settings, Status
from gateway.audiences.accounts import FILE as ACCOUNTS
from gateway.audiences.accounts import Accounts
from gateway.audiences.jobs import Jobs
from gateway.audiences.logins import Logins
from gateway.config import Config
from gateway.errors import ConfigError, GatewayError
from gateway.event import Struct
from gateway.interfaces import Context
from gateway.pluginhost import PluginHost

_log = logging.getLogger("gateway.audiences")
T = TypeVar("T", AudienceSource, AudienceSink)
FILE = "audiences.db"
#: After a failure of the engine itself, which is a bug or a full disk.
_AGAIN_S = 60.0


class Plugged(Struct, frozen=True, kw_only=True):
    """The sources and sinks of a configuration by name."""

    sources: dict[str, Any] = msgspec.field(default_factory=dict)  # AudienceSource
    sinks: dict[str, Any] = msgspec.field(default_factory=dict)  # AudienceSink
    settings: Settings = Settings()
    path: Path = Path(FILE)


def plugged(config: Config, host: PluginHost, context: Context, warnings: list[str]) -> Plugged:
    """
    Make the objects of ``[audience_sources.NAME]`` and ``[audience_sinks.NAME]``.

    Raises:
        ConfigError: A type that no plugin provides, or options that it does not take.
    """
    return Plugged(
        sources={
            name: _made(config, f"audience_sources.{name}", table, host.audience_source_types, context, warnings)
            for name, table in config.audience_sources.items()
        },
        sinks={
            name: _made(config, f"audience_sinks.{name}", table, host.audience_sink_types, context, warnings)
            for name, table in config.audience_sinks.items()
        },
        settings=Settings(**msgspec.structs.asdict(config.audiences)),
        path=config.store_path.with_name(FILE),
    )


def _made(
    config: Config, where: str, table: Any, types: Mapping[str, type[T]], context: Context, warnings: list[str]
) -> T:
    if not isinstance(table, dict):
        raise ConfigError(f"{config.path}: [{where}] must be a table.")
    options = dict(table)
    name = where.partition(".")[2]
    kind = options.pop("type", name)
    cls = types.get(kind) if isinstance(kind, str) else None
    if cls is None:
        known = ", ".join(sorted(types)) or "none, for no plugin provides any"
        raise ConfigError(f"{config.path}: [{where}] type (without one: its name) must be one of {known}.")
    decoded = tables.options(config, options, cls.Options, where, warnings)
    try:
        return cls(name, decoded, context)
    except ValueError as error:
        raise ConfigError(f"{config.path}: [{where}] {error}") from error


class Mirror:
    """
    The engine's life: :meth:`engine` opens it, :meth:`start` runs its schedule, :meth:`replace` gives it a new
    configuration.

    Args:
        wired: What it works with. ``barred`` says who is left out, ``meter`` counts what happened.
    """

    def __init__(self, wired: Plugged, clock: Callable[[], float], barred: AskBarred, meter: Meter) -> None:
        self.plugged = wired
        #: What commands asked for, and logins under way.
        self.jobs = Jobs()
        self.logins = Logins()
        self._clock = clock
        self._barred = barred
        self._meter = meter
        self._engine: Audiences | None = None
        self._changing = asyncio.Lock()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_started = False
        self._is_closed = False

    @property
    def is_configured(self) -> bool:
        """Whether there is anything to mirror from and to."""
        return bool(self.plugged.sources and self.plugged.sinks)

    @property
    def accounts(self) -> Accounts:
        """The accounts that are meant where none is named."""
        return Accounts(self.plugged.path.with_name(ACCOUNTS), self.plugged.sinks)

    async def engine(self) -> Audiences:
        """
        Return the engine, open.

        Raises:
            ConfigError: No source or no sink is configured.
            StoreError: Its file cannot be opened.
        """
        if not self.is_configured:
            raise ConfigError(
                "Audiences need a table [audience_sources.NAME] and a table [audience_sinks.NAME] in the "
                "configuration: see docs/audiences.md."
            )
        async with self._changing:
            if self._is_closed:
                raise ConfigError("The gateway is being stopped.")
            if self._engine is None:
                wired = self.plugged
                self._engine = await Audiences(
                    wired.path, wired.sources, wired.sinks, wired.settings, self._clock, self._barred,
                    meter=self._meter,
                ).open()  # fmt: skip
            return self._engine

    async def connections(self) -> list[Status]:
        """Return every connection of an engine that is open; metrics never open it."""
        engine = self._engine
        return [] if engine is None else await engine.connections()

    async def bar(self, email: str) -> None:
        """Have an erased person leave every audience at the next pass; a later full pass would find them, too."""
        try:
            hashed = identifiers.digest(identifiers.email, email)
            if self.is_configured:
                await (await self.engine()).bar([hashed])
        except identifiers.Unusable:
            return  # nor can it be in an audience
        except GatewayError as error:
            _log.error("audiences_failed", extra={"detail": str(error)})

    def start(self) -> None:
        """Run the schedule from now on, beside everything else."""
        self._is_started = True
        if self.is_configured and self._task is None:
            self._stop = asyncio.Event()
            self._task = asyncio.create_task(self._run(self._stop))

    async def _run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            (failure,) = await asyncio.gather(self._serve(stop), return_exceptions=True)
            if isinstance(failure, BaseException) and not stop.is_set():
                _log.error("audiences_failed", exc_info=failure, extra={"again_in_s": _AGAIN_S})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _AGAIN_S)

    async def _serve(self, stop: asyncio.Event) -> None:
        await (await self.engine()).run(stop)

    async def stop(self, limit_s: float) -> None:
        """End the schedule, in ``limit_s`` seconds at most; what was under way goes on at the next start."""
        self._stop.set()
        await self.jobs.stop()
        task, self._task = self._task, None
        if task is not None:
            _, late = await asyncio.wait([task], timeout=limit_s)
            for one in late:
                one.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def replace(self, wired: Plugged, limit_s: float) -> None:
        """Go on with another configuration; passes under way go on under it where they were."""
        await self.stop(limit_s)
        async with self._changing:
            await self._close()
            self.plugged = wired
        if self._is_started:
            self.start()

    async def close(self, limit_s: float) -> None:
        """Stop, and give the file back; harmless twice."""
        await self.stop(limit_s)
        async with self._changing:
            self._is_closed = True
            await self._close()

    async def _close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
