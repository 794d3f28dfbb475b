"""
Runs the apps: Hypercorn or uvicorn, in this process, on sockets that we open.

Hypercorn runs by its ``serve()`` and never with worker processes: there a dead worker ends the whole server with exit
code 0. Its access log stays off (it can be made to write forged lines). The stop is bounded here, because Hypercorn
waits for idle clients on Python 3.12 and newer.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config as HypercornConfig

from gateway.errors import ConfigError

_log = logging.getLogger("gateway.server")
Engine = Literal["hypercorn", "uvicorn"]
_BACKLOG = 1_024
#: Beyond the graceful time: what the server itself may need to notice.
_STOP_MARGIN_S = 2.0
_COLLECT_EVERY_S = 2.0


class Listener:
    """One app on one socket."""

    def __init__(self, app: Any, sock: socket.socket, engine: Engine, graceful_s: float) -> None:
        self.app = app
        self.sock = sock
        self.engine = engine
        self.graceful_s = graceful_s

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set."""
        await (self._hypercorn(stop) if self.engine == "hypercorn" else self._uvicorn(stop))

    async def _hypercorn(self, stop: asyncio.Event) -> None:
        config = HypercornConfig()
        config.bind = [f"fd://{self.sock.fileno()}"]
        config.accesslog = None
        config.errorlog = logging.getLogger("hypercorn.error")
        config.include_server_header = False
        config.graceful_timeout = self.graceful_s
        config.keep_alive_timeout = 75.0
        config.keep_alive_max_requests = 1_000_000
        config.backlog = _BACKLOG
        await hypercorn_serve(self.app, config, shutdown_trigger=stop.wait)

    async def _uvicorn(self, stop: asyncio.Event) -> None:
        import uvicorn

        config = uvicorn.Config(
            self.app, fd=self.sock.fileno(), log_config=None, access_log=False, server_header=False,
            lifespan="off", timeout_keep_alive=75, timeout_graceful_shutdown=int(self.graceful_s),
            backlog=_BACKLOG, proxy_headers=False,
        )  # fmt: skip
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]

        async def watch() -> None:
            await stop.wait()
            server.should_exit = True

        watcher = asyncio.create_task(watch())
        try:
            await server.serve(sockets=[self.sock])
        finally:
            watcher.cancel()


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
    """Serve all listeners until SIGTERM, SIGINT or ``stop``; returns in bounded time after that."""
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
    for task in done:
        if task is not waiter and task.exception() is not None:
            stop.set()
            _log.error("listener_failed", exc_info=task.exception())
    stop.set()
    waiter.cancel()
    collector.cancel()
    graceful_s = max(listener.graceful_s for listener in listeners)
    _, late = await asyncio.wait(tasks, timeout=graceful_s + _STOP_MARGIN_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
