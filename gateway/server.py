"""
Runs the apps: Hypercorn or uvicorn, in this process, on sockets that we open.

Hypercorn runs by its ``serve()`` and never with worker processes: there a dead worker ends the whole server with exit
code 0. Its access log stays off (it can be made to write forged lines). The stop is bounded here, because Hypercorn
waits for idle clients on Python 3.12 and newer. What one client may take of either engine: :mod:`gateway.connections`.
"""

import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from hypercorn.asyncio import serve as hypercorn_serve

from gateway import engines
from gateway.connections import Connections, Limits
from gateway.errors import CommandFailed, ConfigError

_log = logging.getLogger("gateway.server")
Engine = Literal["hypercorn", "uvicorn"]
_BACKLOG = 1_024
#: Beyond the graceful time: what the server itself may need to notice.
_STOP_MARGIN_S = 2.0
_COLLECT_EVERY_S = 2.0
_LIMITS = Limits()


class Listener:
    """One app on one socket; ``name`` is for the log."""

    def __init__(
        self, app: Any, sock: socket.socket, engine: Engine, graceful_s: float,
        limits: Limits = _LIMITS, name: str = "public",
    ) -> None:  # fmt: skip
        self.app = app
        self.sock = sock
        self.engine = engine
        self.graceful_s = graceful_s
        self.connections = Connections(limits, name)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set."""
        closing = asyncio.create_task(self._close(stop))
        try:
            await (self._hypercorn(stop) if self.engine == "hypercorn" else self._uvicorn(stop))
        finally:
            closing.cancel()
            self.connections.abort()

    async def _close(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await self.connections.stop(self.graceful_s)

    async def _hypercorn(self, stop: asyncio.Event) -> None:
        config = engines.GuardedConfig()
        config.connections = self.connections
        config.bind = [f"fd://{self.sock.fileno()}"]
        config.accesslog = None
        config.errorlog = logging.getLogger("hypercorn.error")
        config.include_server_header = False
        # our own comes first; this is for handlers that do not end by themselves
        config.graceful_timeout = self.graceful_s + _STOP_MARGIN_S / 2
        config.keep_alive_max_requests = 1_000_000
        config.backlog = _BACKLOG
        await hypercorn_serve(self.app, config, shutdown_trigger=stop.wait)

    async def _uvicorn(self, stop: asyncio.Event) -> None:
        from gateway import uvicorn_engine

        config = uvicorn_engine.configured(self.app, self.connections)
        config.backlog = _BACKLOG
        config.timeout_graceful_shutdown = math.ceil(self.graceful_s)
        server = uvicorn_engine.GuardedServer(config)

        async def watch() -> None:
            await stop.wait()
            server.should_exit = True

        watcher = asyncio.create_task(watch())
        try:
            await server.serve(sockets=[self.sock])
        finally:
            watcher.cancel()


async def assert_guarded(engine: Engine) -> None:
    """
    Look whether an engine keeps to our limits.

    Raises:
        ConfigError: It does not; the message names the remedy.
    """
    if engine == "uvicorn":
        from gateway import uvicorn_engine

        await uvicorn_engine.assert_guarded()
    else:
        await engines.assert_guarded()


def tcp_socket(bind: str, where: str) -> socket.socket:
    """
    Open a listening socket for ``host:port`` or ``[v6]:port``; port 0 takes a free one.

    Raises:
        ConfigError: The text is no address, or the port is taken.
    """
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        raise ConfigError(f"[{where}] bind must be HOST:PORT, such as 127.0.0.1:8000.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, int(port)))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"[{where}] bind {bind} cannot be used ({error.strerror}): is something else listening there?"
        ) from error
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


def unix_socket(path: Path) -> socket.socket:
    """
    Open the control socket, mode 600; one that a dead process left behind is replaced (the store's lock is held by
    now).
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(mask)
    sock.listen(64)
    sock.setblocking(False)
    return sock


async def _collect(stop: asyncio.Event) -> None:
    """
    Free what refers to itself, every few seconds.

    The thresholds above suit many small hits; a call to a vendor makes few objects but large ones, in cycles that would
    wait for a collection until they fill the memory.
    """
    while not stop.is_set():
        await asyncio.sleep(_COLLECT_EVERY_S)
        gc.collect(1)


async def run(
    listeners: Sequence[Listener], stop: asyncio.Event, *, on_ready: Callable[[], None], on_hangup: Callable[[], None]
) -> None:
    """
    Serve all listeners until SIGTERM, SIGINT or ``stop``; returns in bounded time after that.

    Raises:
        CommandFailed: A listener ended by itself: who supervises the process must start it again.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    tasks = [asyncio.create_task(listener.run(stop)) for listener in listeners]
    # what exists now lives as long as the process: the collector need not look at it again
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    on_ready()
    collector = asyncio.create_task(_collect(stop))
    waiter = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*tasks, waiter], return_when=asyncio.FIRST_COMPLETED)
    broken = [task for task in done if task is not waiter and not stop.is_set()]
    for task in broken:
        _log.error("listener_failed", exc_info=task.exception())
    stop.set()
    waiter.cancel()
    collector.cancel()
    graceful_s = max(listener.graceful_s for listener in listeners)
    _, late = await asyncio.wait(tasks, timeout=graceful_s + _STOP_MARGIN_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if broken:
        raise CommandFailed("A listener ended by itself; the log names the error. Start the gateway again.")
