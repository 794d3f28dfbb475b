"""``tag-gateway salvage``: what can be read of a damaged store goes into the current one."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from gateway.command import config_option
from gateway.commands.options import json_option


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--acknowledge", is_flag=True, help="Read nothing; only stop telling of it.")
@config_option
@json_option
def salvage(file: Path, config_file: str | None, *, acknowledge: bool, as_json: bool) -> None:
    """Bring back what can be read of FILE, a store that was moved aside as damaged; FILE itself stays as it is."""
    from gateway.commands import render
    from gateway.commands.control import call
    from gateway.config import default_path

    # a bare name, as the log tells it, is beside the store
    path = str(file.absolute()) if file.exists() else str(file)
    body = {"path": path, "acknowledge": acknowledge}
    found = call(default_path(config_file), lambda api: api.post("/api/salvage", body))
    if as_json:
        click.echo(render.plain_json(found))
    else:
        _print(Console(), path, found, acknowledge=acknowledge)


def _print(console: Console, path: str, found: dict[str, Any], *, acknowledge: bool) -> None:
    if acknowledge:
        console.print(f"{path}: acknowledged, nothing was read.", highlight=False)
        return
    console.print(
        f"{found['read']} events read: {found['queued']} queued, {found['dead']} dead, "
        f"{found['duplicates']} duplicates, {found['erased']} erased since; {found['unreadable']} unreadable.",
        highlight=False,
    )
    console.print(
        f"{found['marks']} keys, {found['erasures']} erasures, {found['memories']} remembered.", highlight=False
    )
    if not found["is_comparable"]:
        console.print(
            "[yellow]![/] Its key could not be read: events that came again meanwhile are sent twice, and erasures "
            "do not find these events.",
            highlight=False,
        )
