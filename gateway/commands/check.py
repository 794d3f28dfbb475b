"""``tag-gateway check``: configuration, plugins, store, and with ``--online`` the credentials."""

import asyncio
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from gateway import config as configuration
from gateway.alarms import webhook
from gateway.alarms.receiver import Receiver
from gateway.commands.control import is_running
from gateway.config import Config
from gateway.floors import assert_floors
from gateway.http import Client
from gateway.outbox.opening import inspect
from gateway.outbox.schema import sqlite_version
from gateway.runtime import assemble, open_outbox


def check(path: Path, *, online: bool, alert: bool = False, console: Console) -> bool:
    """
    Print what is good and what is not; returns whether everything is.

    Raises:
        ConfigError: The file is wrong. PluginError, StoreError: likewise.
    """
    assert_floors()
    config = configuration.load(path)
    _good(console, f"configuration {path}")
    client = Client() if online else None
    parts = assemble(config, client)
    provided = sum(not loaded.disabled for loaded in parts.host.listing())
    counted = f"plugins {provided}, sources {len(parts.routes)}, destinations {len(parts.destinations)}"
    sides = {f"audience source {name}": one for name, one in parts.audiences.sources.items()}
    sides |= {f"audience sink {name}": one for name, one in parts.audiences.sinks.items()}
    counted += f", audience sources and sinks {len(sides)}" if sides else ""
    _good(console, counted)
    _passwords(config, console)
    is_sound = _store(config, console)
    for warning in parts.warnings:
        console.print(f"[yellow]![/] {escape(warning)}", highlight=False)
    if client is None:
        return is_sound
    receiver = parts.alerts if alert else None
    return asyncio.run(_probe(parts.destinations, sides, receiver, client, console)) and is_sound


def _good(console: Console, text: str) -> None:
    console.print(f"[green]✓[/] {text}", highlight=False)


def _passwords(config: Config, console: Console) -> None:
    if config.operator.password is None:
        console.print(
            "[yellow]![/] [operator] has no password: status and metrics are not served on TCP.",
            highlight=False,
            markup=True,
        )
    else:
        configuration.secret(config.operator.password, config, "[operator] password")


def _store(config: Config, console: Console) -> bool:
    version, affected = sqlite_version()
    note = " (has the WAL-reset bug; harmless here: one connection writes)" if affected else ""
    if is_running(config.socket_path):
        _good(console, f"store {config.store_path}: in use by the running gateway, SQLite {version}{note}")
        return True
    problem = inspect(config.store_path)
    if problem is not None:
        told = f"damaged ({problem}). The next start moves it aside, begins a new one, and names what to do"
        console.print(f"[red]✗[/] store {config.store_path}: {escape(told)}", highlight=False)
        return False
    outbox = open_outbox(config)
    wrong = [*outbox.damaged, *([outbox.trouble] if outbox.trouble else [])]
    asyncio.run(outbox.close())
    for told in wrong:
        console.print(f"[red]✗[/] store {config.store_path}: {escape(told)}", highlight=False)
    if not wrong:
        _good(console, f"store {config.store_path}: opens, SQLite {version}{note}")
    return not wrong


async def _probe(
    destinations: dict[str, object],
    sides: dict[str, object],
    receiver: Receiver | None,
    client: Client,
    console: Console,
) -> bool:
    good = True
    if receiver is not None:
        problem = await webhook.post(client, receiver, webhook.body(webhook.sample(time.time()), "raised"))
        good = problem is None
        if problem is None:
            _good(console, f"{escape('[alerts] url')}: a test alarm was taken")
        else:
            console.print(f"[red]✗[/] {escape('[alerts] url')}: {escape(problem)}", highlight=False)
    for name, side in sides.items():
        problem = await side.probe()  # type: ignore[attr-defined]
        if problem is None:
            _good(console, f"{name}: its credentials work")
        else:
            good = False
            console.print(f"[red]✗[/] {name}: {escape(problem)}", highlight=False)
    for name, destination in destinations.items():
        problem = await destination.probe()  # type: ignore[attr-defined]
        if problem is None:
            _good(console, f"destination {name}: a test event was accepted")
        else:
            good = False
            console.print(f"[red]✗[/] destination {name}: {problem}", highlight=False)
    await client.close()
    return good
