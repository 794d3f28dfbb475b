"""The group ``tag-gateway quarantine``: hits that could not be read, kept until the fix."""

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from gateway.command import config_option
from gateway.commands.options import json_option

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def quarantine() -> None:
    """Look at hits that an adapter failed to read, and take them in after the fix."""


def _filter(command: F) -> F:
    command = click.option("--source", help="Only of this source.")(command)
    command = click.option("--id", "ids", multiple=True, help="Only this one, as listed; may be repeated.")(command)
    return config_option(json_option(command))


@quarantine.command("list")
@_filter
def list_(source: str | None, ids: tuple[str, ...], config_file: str | None, *, as_json: bool) -> None:
    """List them, oldest first: what failed and where, never what is in them."""
    found = _call(config_file, lambda api: _every(api, source))
    hits = [hit for hit in found if not ids or hit["id"] in ids]
    if as_json:
        from gateway.commands.render import plain_json

        click.echo(plain_json({"hits": hits}))
    else:
        _show(hits)


@quarantine.command()
@_filter
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Only count.")
def replay(
    source: str | None, ids: tuple[str, ...], config_file: str | None, *, as_json: bool, every: bool, dry_run: bool
) -> None:
    """Take them in as they came then; what still fails stays. Exit code 1: some stayed."""
    body = _body(source, ids, every=every, dry_run=dry_run)
    if dry_run:
        _echo(_call(config_file, lambda api: api.post("/api/quarantine/replay", body)))
        return
    results = _call(config_file, lambda api: _replay(api, body))
    if as_json:
        _echo({"results": results})
    else:
        _tell(results)
    if any(one["what"] not in ("replayed", "gone") for one in results):
        sys.exit(1)


@quarantine.command()
@_filter
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Only count.")
def discard(
    source: str | None, ids: tuple[str, ...], config_file: str | None, *, as_json: bool, every: bool, dry_run: bool
) -> None:
    """Delete them for good: their events are lost."""
    body = _body(source, ids, every=every, dry_run=dry_run)
    answer = _call(config_file, lambda api: api.post("/api/quarantine/discard", body))
    if as_json or dry_run:
        _echo(answer)
    else:
        click.echo(f"{answer['discarded']} discarded.")


def _body(source: str | None, ids: tuple[str, ...], *, every: bool, dry_run: bool) -> dict[str, Any]:
    if not (source or ids or every):
        raise click.UsageError("Choose with --id or --source, or say --all.")
    return {"source": source, "ids": list(ids), "dry_run": dry_run}


def _call(config_file: str | None, work: Callable[[Any], Any]) -> Any:
    from gateway.commands.control import call
    from gateway.config import default_path

    return call(default_path(config_file), work)


async def _every(api: Any, source: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = await api.get("/api/quarantine", source=source, after=after, limit=1_000)
        found += page["hits"]
        after = page["after"]
        if not page["left"]:
            return found


async def _replay(api: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    after = ""
    while True:
        answer = await api.post("/api/quarantine/replay", {**body, "after": after})
        results += answer["results"]
        after = answer["after"] or after
        if not answer["left"]:
            return results


def _echo(value: Any) -> None:
    from gateway.commands.render import plain_json

    click.echo(plain_json(value))


def _show(hits: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not hits:
        console.print("Nothing is in quarantine.")
        return
    table = Table(box=None, header_style="bold")
    table.add_column("id", no_wrap=True, min_width=26)
    for column in ("source", "received", "failed", "size", "expires", "state"):
        table.add_column(column, overflow="fold")
    for hit in hits:
        plugin, error, where, source = (escape(hit[key]) for key in ("plugin", "error", "where", "source"))
        colour = "default" if hit["state"] == "kept" else "red"
        received, expires = _time(hit["received_at"]), _time(hit["expires_at"])
        table.add_row(
            hit["id"], source, received, f"{plugin}: {error} {where}", f"{hit['bytes'] / 1024:.0f} KiB", expires,
            f"[{colour}]{hit['state']}[/]",
        )  # fmt: skip
    console.print(table)


def _tell(results: list[dict[str, Any]]) -> None:
    counts: dict[str, int] = {}
    for one in results:
        if one["what"] == "replayed":
            for fate, number in one["counts"].items():
                counts[fate] = counts.get(fate, 0) + number
        elif one["what"] != "gone":
            click.echo(f"{one['id']} ({one['source']}) stays: {' '.join(_why(one))}")
    taken = sum(one["what"] == "replayed" for one in results)
    events = ", ".join(f"{number} {fate}" for fate, number in counts.items())
    click.echo(f"{taken} of {len(results)} replayed{f': {events}' if events else ''}.")


def _why(one: dict[str, Any]) -> list[str]:
    place = f"at {one['where']}" if one["where"] else ""
    return [part for part in (one["what"].replace("_", " "), one["error"], place) if part]


def _time(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))
