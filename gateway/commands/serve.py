"""``tag-gateway serve``."""

import asyncio
import contextlib
import importlib.util
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway import config as configuration
from gateway import logs
from gateway.config import Config
from gateway.connections import Limits, fitting
from gateway.edge import Edge
from gateway.errors import ConfigError, StoreError
from gateway.floors import assert_floors
from gateway.hit import Secret
from gateway.ingress import public_app
from gateway.operator import operator_app
from gateway.operator.guard import Guard
from gateway.operator.headers import Hardened
from gateway.operator.passwords import checked
from gateway.outbox.schema import sqlite_version
from gateway.runtime import Gateway
from gateway.server import Listener, assert_guarded, run, tcp_socket, unix_socket

_log = logging.getLogger("gateway.serve")
#: The operator's own, so that a flood of the public listener never locks the operator out.
_OPERATOR = Limits(connections=64)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's loop where it exists: it costs a fifth less per hit."""
    if sys.platform != "win32":
        with contextlib.suppress(ImportError):
            import uvloop

            return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def address(sock: socket.socket) -> str:
    """Return host:port of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve(path: Path) -> None:
    """
    Serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: The file is wrong, a port is taken, or a library is not fit to serve.
        StoreError: The store cannot be opened, or failed while it was in use.
    """
    # until there is something to reload: a hangup while it starts would end the process
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logs.configure()
    assert_floors()
    config = configuration.load(path)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(config, path))


async def _serve(config: Config, path: Path) -> None:
    if config.server.engine == "uvicorn" and importlib.util.find_spec("uvicorn") is None:
        raise ConfigError('[server] engine "uvicorn" is not installed: pip install "tag-gateway[uvicorn]".')
    await assert_guarded(config.server.engine)
    gateway = Gateway(config)  # first: a store that is in use says more than a port that is
    try:
        public = tcp_socket(config.server.bind, "server")
        operator = _operator_socket(config)
    except ConfigError:
        await gateway.stop()
        raise

    def ready() -> None:
        _log.info(
            "serving",
            extra={
                "public": f"http://{address(public)}",
                "operator": f"http://{address(operator)}" if operator else "off: set [operator] password",
                "store": str(config.store_path),
                "sqlite": sqlite_version()[0],
                "engine": config.server.engine,
                "sources": sorted(config.sources),
                "recovered": getattr(gateway.outbox, "recovered", 0),
            },
        )

    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)

    gateway.outbox.on_failure = end
    if gateway.outbox.failure is not None:  # before anybody listened
        stop.set()
    await run_gateway(gateway, public, operator, stop, ready, path)
    if gateway.outbox.failure is not None:
        raise StoreError(f"{gateway.outbox.failure} The next start checks the file.")


def _operator_socket(config: Config) -> socket.socket | None:
    return tcp_socket(config.operator.bind, "operator") if config.operator.password is not None else None


def _passwords(config: Config) -> tuple[Secret | None, Secret | None]:
    table = config.operator
    password, viewer = (
        checked(configuration.secret(value, config, f"[operator] {key}"), f"{config.path}: [operator] {key}")
        if value
        else None
        for key, value in (("password", table.password), ("viewer_password", table.viewer_password))
    )
    return password, viewer


async def _reload(gateway: Gateway, path: Path, guard: Guard | None) -> None:
    """Take the file over, the passwords with it; one that cannot be read changes nothing."""
    try:
        password, viewer = _passwords(configuration.load(path))
    except ConfigError as error:
        _log.error("reload_refused", extra={"detail": str(error)})
        problem: str | None = "refused"
    else:
        problem = await gateway.reload(path)
        if problem is None and guard is not None and password is not None:
            guard.adopt(password, viewer)
    gateway.audit.note("signal", "reload", detail="taken over" if problem is None else "refused, see the log")


async def run_gateway(
    gateway: Gateway,
    public: socket.socket,
    operator: socket.socket | None,
    stop: asyncio.Event,
    on_ready: Callable[[], None],
    path: Path | None = None,
    more: Sequence[Listener] = (),
) -> None:
    """
    Serve a gateway on open sockets, with its control socket, until a signal or ``stop``; then finish what is in flight.
    """
    config = gateway.parts.config
    engine, graceful_s = config.server.engine, config.server.graceful_s
    control = unix_socket(config.socket_path)
    door = Edge(public_app(gateway.ingress, gateway.ready), lambda: gateway.parts.config.server.hosts, gateway.tally)
    limits = Limits(connections=fitting(config.server.max_connections))
    listeners = [
        Listener(door, public, engine, graceful_s, limits),
        # closed with the others, but nobody waits for a command to finish
        Listener(operator_app(gateway), control, engine, 1.0, _OPERATOR, "control"),
        *more,
    ]
    password, viewer = _passwords(config)
    guard: Guard | None = None
    if operator is not None and password is not None:
        console = operator_app(gateway, password, viewer)
        guard = console if isinstance(console, Guard) else None
        app = Hardened(Edge(console, tally=gateway.tally))
        listeners.append(Listener(app, operator, engine, 1.0, _OPERATOR, "operator"))
    reloads: set[asyncio.Task[None]] = set()

    def hangup() -> None:
        if path is not None:
            task = asyncio.create_task(_reload(gateway, path, guard))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    async def halt() -> None:
        await stop.wait()
        await gateway.stop_sending()

    await gateway.start()
    # lanes stop beside the listeners, not after them: the time to stop is counted once
    halting = asyncio.create_task(halt())
    try:
        await run(listeners, stop, on_ready=on_ready, on_hangup=hangup)
        await halting
    finally:
        halting.cancel()
        await gateway.stop()
        with contextlib.suppress(FileNotFoundError):
            config.socket_path.unlink()
        _log.info("stopped")
