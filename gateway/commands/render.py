"""How commands show things on a terminal."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.json import JSON
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

FATE_COLOURS = {
    "accepted": "green", "delivered": "green", "merged": "cyan", "duplicate": "yellow", "dropped": "magenta",
    "rejected": "red", "dead": "red",
}  # fmt: skip


def fate(name: str) -> str:
    """Return a fate in its colour."""
    return f"[{FATE_COLOURS.get(name.removeprefix('test_'), 'default')}]{name}[/]"


def plain_json(value: Any) -> str:
    """Return indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def plugins(console: Console, listing: Sequence[Any]) -> None:
    """Print the plugins."""
    table = Table("plugin", "distribution", "version", "provides", "hooks", box=None, header_style="bold")
    for loaded in listing:
        provides = "[dim]disabled[/]" if loaded.disabled else ", ".join(loaded.provides)
        table.add_row(loaded.name, loaded.distribution, loaded.version, provides, ", ".join(loaded.hooks))
    console.print(table)


def dead_letters(console: Console, answer: dict[str, Any]) -> None:
    """Print a page of dead letters."""
    if not answer["letters"]:
        console.print("No dead letters.")
        return
    table = Table(
        "unit", "event", "id", "destination", "source", "reason", "died", "tries", box=None, header_style="bold"
    )
    for letter in answer["letters"]:
        died = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(letter["died_at"]))
        twice = " (maybe twice)" if letter["maybe_twice"] else ""
        table.add_row(
            letter["unit"],
            *(escape(letter[key]) for key in ("event_name", "event_id", "destination", "source")),
            f"[red]{escape(letter['reason'])}[/]{twice}", died, str(letter["attempts"]),
        )  # fmt: skip
    console.print(table)


def alarms(console: Console, active: Sequence[dict[str, Any]]) -> None:
    """Print the alarms that are up, with what to do."""
    for one in active:
        where = f" ({one['where']})" if one["where"] != "-" else ""
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one["since"]))
        noted = " [dim]acknowledged[/]" if one["acknowledged"] else ""
        console.print(f"[red]alarm[/] [bold]{escape(one['title'] + where)}[/], since {since}{noted}", highlight=False)
        for line in filter(None, (one["detail"], one["remedy"])):
            console.print(f"      {escape(line)}", highlight=False)


def status(console: Console, answer: dict[str, Any]) -> None:
    """Print the status."""
    ready = "[green]ready[/]" if answer["ready"] else "[red]the store cannot be written[/]"
    console.print(
        f"{ready}, up {answer['uptime_s']:.0f} s, SQLite {answer['sqlite']}, store {answer['store_bytes'] / 1e6:.1f} MB"
    )
    alarms(console, answer["active"])
    lanes = Table("destination", "state", "kind", "waiting", "in flight", "dead", box=None, header_style="bold")
    states = {lane["destination"]: lane for lane in answer["lanes"]}
    for row in answer["queue"]:
        lane = states.get(row["destination"], {})
        state = lane.get("state", "-")
        colour = "green" if state == "running" else "yellow" if state == "backing_off" else "red"
        reason = f" ({lane['reason']})" if lane.get("reason") else ""
        lanes.add_row(
            row["destination"],
            f"[{colour}]{state}[/]{reason}",
            row["kind"],
            str(row["waiting"]),
            str(row["leased"]),
            str(row["dead"]),
        )
    console.print(lanes)
    columns = ("source", "destination", "event", "fate", "reason", "last 24 h", "since start")
    events = Table(*columns, box=None, header_style="bold")
    for row in answer["events"]:
        events.add_row(
            *(escape(row[key]) for key in ("source", "destination", "event")), fate(row["fate"]), escape(row["reason"]),
            str(row["day"]), str(row["count"]),
        )  # fmt: skip
    console.print(events)
    for source, count in answer["quarantined"].items():
        console.print(f"[red]in quarantine[/] {escape(source)}: {count} (tag-gateway quarantine list)", highlight=False)
    for told in answer["degraded"]:
        console.print(f"[red]degraded[/] {escape(told)}", highlight=False)
    for alarm in answer["alarms"]:
        told = f"{alarm['reason']} ({alarm['source']}): {alarm['count']} since the start"
        console.print(f"[red]alarms[/] {escape(told)}", highlight=False)
    for warning in answer["warnings"]:
        console.print(f"[yellow]![/] {escape(warning)}", highlight=False)


def explanation(console: Console, answer: dict[str, Any]) -> None:
    """Print each step of one request."""
    for step in answer["steps"]:
        console.print(Panel(JSON(msgspec.json.encode(step["detail"]).decode()), title=step["name"], title_align="left"))
    for payload in answer.get("payloads", ()):
        title = f"would be sent to {payload['destination']}"
        console.print(
            Panel(
                JSON(msgspec.json.encode(payload["event"]).decode()),
                title=title,
                title_align="left",
                border_style="green",
            )
        )
    if answer.get("error"):
        console.print(f"[red]refused[/] {escape(answer['error'])}", highlight=False)
    for outcome in answer.get("outcomes", ()):
        reason = f" ({outcome['reason']})" if outcome.get("reason") else ""
        where = f" for {outcome['destination']}" if outcome.get("destination") else ""
        named = f"{reason} {outcome.get('event_name', '')} {outcome.get('event_id') or ''}{where}"
        console.print(f"{fate(outcome['fate'])}{escape(named)}", highlight=False)
        for note in outcome.get("notes", ()):
            console.print(f"  [dim]note: {escape(note)}[/]", highlight=False)
