"""``tag-gateway events``: the latest events of the running gateway, and new ones as they come."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.text import Text

from gateway.command import config_option
from gateway.commands.options import json_option

Row = dict[str, Any]
Print = Callable[[Row], None]
#: As :data:`gateway.livestream.SHOWN`, which would load the server.
FATES = ("accepted", "delivered", "merged", "duplicate", "dropped", "rejected", "dead")
_MOST = 200


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with new ones, until Ctrl-C.")
@click.option("--source", default="", help="Only of this source.")
@click.option("--name", default="", help="Only with this event name.")
@click.option("--fate", type=click.Choice(FATES), help="Only with this fate or end.")
@click.option("--limit", type=click.IntRange(0, _MOST), default=20, show_default=True, help="So many of the latest.")
@config_option
@json_option
def events(
    config_file: str | None, source: str, name: str, fate: str | None, limit: int, *, follow: bool, as_json: bool
) -> None:
    """
    Show what became of the latest events, oldest first; --follow goes on with new ones.

    With --json one object a line. An event that ends (delivered, dead) while it is followed is shown again.
    """
    from gateway.config import default_path

    which = {key: value for key, value in (("source", source), ("name", name), ("fate", fate or "")) if value}
    show = _print_json if as_json else Lines(Console(soft_wrap=True, highlight=False)).print
    try:
        asyncio.run(tell(default_path(config_file), which, limit, show, follow=follow))
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # ``| head`` has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def tell(path: Path, which: dict[str, str], limit: int, show: Print, *, follow: bool) -> None:
    """
    Show the latest events, and with ``follow`` new ones until the gateway stops.

    Raises:
        CommandFailed: No gateway runs, or it stopped.
    """
    from gateway import config as configuration
    from gateway.commands.control import Caller, is_running
    from gateway.errors import CommandFailed
    from gateway.http import Control
    from gateway.interfaces import Unreachable

    config = configuration.load(path)
    if not is_running(config.socket_path):
        raise CommandFailed(
            "No gateway runs with this configuration. The latest events are in a running gateway's memory: start it "
            "with tag-gateway serve. What waits and what is dead is in the store: see tag-gateway status and "
            "tag-gateway dead list."
        )
    control = Control(socket=config.socket_path)
    try:
        found = await Caller(control).get("/api/events", limit=max(1, limit), **which)
        for row in reversed(found["events"][:limit]):
            show(row)
        if follow:
            lines = control.stream("/api/events/stream", {**which, "after": str(found["last"])})
            async for message in messages(lines):
                if message["skipped"]:
                    click.echo(f"({message['skipped']} more came too fast to be shown)", err=True)
                for row in message["rows"]:
                    if row["serial"] > found["last"] or row["ended_at"] > found["now"]:
                        show(row)
            raise CommandFailed("The gateway stopped.")
    except Unreachable as error:
        raise CommandFailed(str(error)) from error
    finally:
        await control.close()


async def messages(lines: AsyncIterator[tuple[int, str]]) -> AsyncIterator[dict[str, Any]]:
    """
    Give the messages of a stream of server-sent events.

    Raises:
        CommandFailed: The answer is an error.
    """
    from gateway.errors import CommandFailed

    async for status, line in lines:
        if status != 200:
            raise CommandFailed("The gateway has no place for one more stream: end another one, or wait.")
        if line.startswith("data: "):
            yield msgspec.json.decode(line[6:])


class Lines:
    """Prints a line for each event."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def print(self, row: Row) -> None:
        """Print one."""
        self._console.print(line_of(row))


def line_of(row: Row) -> Text:
    """Return one event as a line; nothing in it is taken for markup."""
    from gateway.commands.render import FATE_COLOURS

    colour = "yellow" if row["warning"] else FATE_COLOURS.get(row["shown"], "default")
    parts: Sequence[tuple[str, str]] = (
        (row["clock"], "dim"),
        (f"{row['shown']:<9}", colour),
        (f"{row['source']:<12}", "default"),
        (f"{row['event_name'] or '-':<16}", "bold"),
        (row["event_id"] or "-", "default"),
        (f"→ {row['destination']}" if row["destination"] else "", "dim"),
        ("test" if row["is_test"] else "", "magenta"),
        (f"({row['reason']})" if row["reason"] else "", colour),
        (f"of {row['of']}" if row["of"] and row["of"] != row["event_id"] else "", "dim"),
        (f"warning: {row['warning']}" if row["warning"] else "", "yellow"),
    )
    line = Text()
    for content, style in parts:
        if content:
            line.append("  " if line else "").append(content, style)
    return line


def _print_json(row: Row) -> None:
    click.echo(msgspec.json.encode(row))
