"""How audiences are shown on a terminal."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway import audience_words as words

_COLOURS = {"ok": "green", "held": "red", "attention": "red", "new": "cyan"}


def _name(one: dict[str, Any]) -> str:
    return escape(one["name"]) or f"[dim]{escape(one['id'])}[/]"


def _size(one: dict[str, Any]) -> str:
    return "" if one.get("size") is None else f"{one['size']:,}"


def _table(out: Console, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], none: str) -> None:
    if not rows:
        out.print(none, highlight=False)
        return
    shown = [number for number in range(len(heads)) if any(row[number] for row in rows)]
    table = Table(*[heads[number] for number in shown], box=None, header_style="bold", show_edge=False)
    for row in rows:
        table.add_row(*[row[number] for number in shown])
    out.print(table)


def logins(out: Console, answer: dict[str, Any]) -> None:
    """Print at which sides the credentials work, and the account of each."""
    for one in answer["logins"]:
        account = one["account"]
        chosen = f", ad account {_name(account)} ({escape(account['id'])})" if account else ""
        out.print(f"[green]✓[/] {escape(one['name'])}: logged in{chosen}", highlight=False)


def sources(out: Console, answer: dict[str, Any]) -> None:
    """Print lists and segments."""
    rows = [
        (escape(one["source"]), one["kind"], escape(one["id"]), _name(one), _size(one), _state(one))
        for one in answer["groups"]
    ]
    _table(out, ("source", "kind", "id", "name", "members", "state"), rows, "No list or segment.")


def _state(one: dict[str, Any]) -> str:
    return escape(one.get("refusal") or one.get("state") or "ready")


def accounts(out: Console, answer: dict[str, Any]) -> None:
    """Print accounts."""
    rows = [
        (escape(one["sink"]), escape(one["id"]), _name(one), "chosen" if one["chosen"] else "")
        for one in answer["accounts"]
    ]
    _table(out, ("sink", "id", "name", ""), rows, "No account: grant the credentials access to one.")


def audiences(out: Console, answer: dict[str, Any]) -> None:
    """Print audiences."""
    rows = [
        (escape(one["id"]), _name(one), one.get("kind", ""), _size(one), _state(one)) for one in answer["audiences"]
    ]
    _table(out, ("id", "name", "type", "size", "state"), rows, "No audience.")


def _line(one: dict[str, Any]) -> str:
    audience = one["audience_name"] or one["audience"]
    return (
        f'[bold]{one["id"]}[/]  {one["kind"]} "{escape(one["group_name"])}" ({escape(one["source"])}) → '
        f'audience "{escape(audience)}" ({escape(one["sink"])}, account {escape(one["account"])})'
    )


def connected(out: Console, answer: dict[str, Any]) -> None:
    """Print a new connection, and what its owner must know."""
    status = answer["status"]
    out.print(f"{'Would connect' if answer['dry_run'] else 'Connected'}: {_line(status)}", highlight=False)
    for note in answer["notes"]:
        out.print(f"[yellow]![/] {escape(note)}", highlight=False)
    if not answer["dry_run"]:
        now = f"or now: tag-gateway audiences sync {status['id']}"
        out.print(f"The first pass follows by itself while the gateway serves, {now}", highlight=False)


def disconnected(out: Console, answer: dict[str, Any]) -> None:
    """Print the end of a connection."""
    what = "stay in the audience" if answer["keep"] else "were removed from the audience"
    out.print(f"Disconnected {answer['connection']}: those whom it added {what}.", highlight=False)


def outcomes(out: Console, answer: list[dict[str, Any]]) -> None:
    """Print what passes did."""
    if not answer:
        out.print("Nothing to do: there is no connection yet.", highlight=False)
    for one in answer:
        out.print(f"{one['connection']}: {words.did(one)}: {_coloured(one['state'])}", highlight=False)
        if one["message"]:
            out.print(f"   {escape(one['message'])}", highlight=False)


def _coloured(state: str) -> str:
    return f"[{_COLOURS.get(state, 'yellow')}]{state}[/]"


def status(out: Console, answer: dict[str, Any], clock: Callable[[], float] = time.time) -> None:
    """Print every connection."""
    if not answer["connections"]:
        out.print("No connection yet: tag-gateway audiences connect", highlight=False)
    for one in answer["connections"]:
        lines = [f"{_line(one)}  {_coloured(one['state'])}"]
        if one["message"]:
            lines.append(escape(one["message"]))
        lines += [_members(one), _audience(one)]
        if one["audience_state"] == "TOO_SMALL":
            lines.append(words.TOO_SMALL)
        lines.append(_passes(one, clock()))
        out.print("\n   ".join(lines), highlight=False)


def _members(one: dict[str, Any]) -> str:
    members = "not counted" if one["members"] is None else f"{one['members']:,}"
    left_out = words.left_out(one["skipped"])
    state = f" ({escape(one['group_state'])})" if one["group_state"] not in ("", "ready") else ""
    return f"members   {members} at the source{state}, {one['mirrored']:,} mirrored; left out: {left_out}"


def _audience(one: dict[str, Any]) -> str:
    size = "" if one["audience_size"] is None else f", size {one['audience_size']:,}"
    vendor = f"; the vendor says {escape(one['audience_state'])}{size}" if one["audience_state"] else ""
    removals = "" if one["remove"] else " (removals are off)"
    return (
        f"audience  {one['in_audience']:,} e-mails from here; added {one['added']:,}, "
        f"removed {one['removed']:,}{removals}{vendor}"
    )


def _passes(one: dict[str, Any], now: float) -> str:
    last = one["last"]
    text = "never"
    if last is not None:
        text = f"{last['kind']}, {words.span(now - last['ended_at'])} ago, took {last['duration_s']:.1f} s"
        if last["failed"]:
            text += f", {last['failed']:,} records failed"
    due = one["next_at"]
    following = "now" if due is None or due <= now else f"in {words.span(due - now)}"
    return f"passes    last {text}; next {'under way' if one['state'] == 'running' else following}"


def lookalike(out: Console, answer: dict[str, Any]) -> None:
    """Print a new audience."""
    out.print(f"Created {_name(answer)} ({escape(answer['id'])}): {escape(answer['state'])}.", highlight=False)
