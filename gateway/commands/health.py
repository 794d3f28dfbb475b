"""``tag-gateway health``: the figures of the page Health."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.command import config_option
from gateway.commands.options import json_option

_LOOKS = {"good": "[green]Good[/]", "weak": "[yellow]Weak[/]", "few": "[dim]too few events[/]"}


@click.command()
@click.option(
    "--period", type=click.Choice(["24h", "7d", "28d"]), default="7d", show_default=True, help="How far back."
)
@click.option("--destination", help="This one only.")
@config_option
@json_option
def health(period: str, destination: str | None, config_file: str | None, *, as_json: bool) -> None:
    """Show how well delivered events can be matched to people, as Pinterest judges it, and what would change it."""
    from gateway.commands import render
    from gateway.commands.control import call
    from gateway.config import default_path

    path: Path = default_path(config_file)
    answer = call(path, lambda api: api.get("/api/health", period=period, destination=destination))
    if as_json:
        click.echo(render.plain_json(answer))
    else:
        show(Console(soft_wrap=True), answer)


def show(console: Console, answer: dict[str, Any]) -> None:
    """Print a report."""
    if not answer["destinations"]:
        console.print("There is no destination.")
    for vitals in answer["destinations"]:
        total = vitals["health"]["total"]
        name = escape(vitals["health"]["destination"])
        span = answer["period"]["name"]
        console.print(f"[bold]{name}[/] {_LOOKS[total['status']]}  {total['events']:,} delivered events, {span}")
        console.print(escape(total["why"]), highlight=False)
        _criteria(console, total)
        for one in total["advice"]:
            console.print(f"[yellow]![/] {escape(one['text'])}", highlight=False)
            for step in one["steps"]:
                console.print(f"    {escape(step['source'])}: {escape(step['text'])} ({step['doc']})", highlight=False)
        _signals(console, total)
        _parts(console, vitals["health"])
        _scores(console, vitals)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _criteria(console: Console, judged: dict[str, Any]) -> None:
    table = Table("criterion", "have it", "share", "needed", "met", box=None, header_style="bold")
    for one in judged["criteria"]:
        met = {True: "[green]yes[/]", False: "[yellow]no[/]", None: "[dim]not judged[/]"}[one["met"]]
        have = "-" if one["name"] == "match_rate" else f"{one['have']:,} of {one['of']:,}"
        table.add_row(one["label"], have, _percent(one["percent"]), f"{one['needed']} %", met)
    console.print(table)


def _signals(console: Console, judged: dict[str, Any]) -> None:
    table = Table("signal", "weight", "events", "share", box=None, header_style="bold")
    for one in judged["signals"]:
        table.add_row(one["label"], one["weight"], f"{one['have']:,}", _percent(one["percent"]))
    console.print(table)


def _parts(console: Console, health_: dict[str, Any]) -> None:
    table = Table("source", "event", "delivered", "status", box=None, header_style="bold")
    for one in [*health_["sources"], *health_["events"]]:
        source, event = one["source"] or "[dim]all[/]", one["event"] or "[dim]all[/]"
        table.add_row(source, event, f"{one['events']:,}", _LOOKS[one["status"]])
    if table.row_count:
        console.print(table)


def _scores(console: Console, vitals: dict[str, Any]) -> None:
    if vitals["problem"]:
        console.print(f"[dim]event quality score:[/] {escape(vitals['problem'])}", highlight=False)
    for score in vitals["scores"]:
        console.print(
            f"event quality score: {escape(score['platform'])} {escape(score['status'])} ({escape(score['lookback'])})"
        )
        table = Table("component", "theirs", "ours", box=None, header_style="bold")
        for row in score["means"]:
            table.add_row(escape(row["label"]), _percent(row["theirs"]), _percent(row["ours"]))
        console.print(table)
