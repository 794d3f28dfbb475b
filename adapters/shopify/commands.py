"""``tag-gateway shopify``: what is done at Shopify itself, through the shop's Admin API."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from adapters.shopify import reconciliation, subscriptions, webhook
from adapters.shopify.admin import Admin
from adapters.shopify.reconciliation import FATES, Count
from adapters.shopify.subscriptions import Row
from gateway import CommandContext, Source, command_context, config_option

_COLOURS = {"ok": "green", "created": "green", "updated": "cyan", "none": "yellow"}
#: Where there is no progress bar: a line for so many orders.
_LINE_EVERY = 1_000
_BY_HAND = (
    "customers/redact, shop/redact and customers/data_request cannot be made by the API: set them in the app's "
    "configuration (shopify.app.toml or Dev Dashboard) to the same address."
)


@click.group()
def shopify() -> None:
    """Look after webhooks and orders of a Shopify shop."""


@shopify.command()
@click.option("--source", required=True, help='The source with adapter = "shopify".')
@click.option("--url", required=True, help="The gateway's public https address.")
@click.option("--check", "--dry-run", "check", is_flag=True, help="Change nothing; exit 1 if something is missing.")
@config_option
def connect(source: str, url: str, config_file: str | None, *, check: bool) -> None:
    """Register the shop's webhooks, and the app's web pixel where it has one; run it again at any time."""

    async def run() -> list[Row]:
        async with command_context(config_file) as context:
            return await connected(context, context.source(source, webhook.NAME), base_of(url, source), check=check)

    rows = asyncio.run(run())
    _show(rows)
    click.echo(_BY_HAND)
    if not all(row.is_in_place for row in rows if row.name != "web pixel"):
        sys.exit(1)


async def connected(context: CommandContext, source: Source, base: str, *, check: bool) -> list[Row]:
    """Bring webhooks and pixel of a source into order; ``base`` is the gateway's public address."""
    admin = Admin(context.http, source)
    address = f"{base}/in/{source.name}"
    rows = [row async for row in subscriptions.subscribe(admin, webhook.topics(source), address, check=check)]
    pixels = [name for name, adapter in context.sources_of(source.site).items() if adapter == "shopify_pixel"]
    if pixels:
        rows.append(await subscriptions.activate(admin, f"{base}/in/{pixels[0]}", check=check))
    else:
        note = f'site {source.site} has no source with adapter = "shopify_pixel"'
        rows.append(Row(name="web pixel", state="none", note=note))
    return rows


def base_of(url: str, source: str) -> str:
    """
    Return the gateway's address without a trailing slash or ``/in/NAME``.

    Raises:
        click.BadParameter: It is no https address that Shopify could deliver to.
    """
    parts = urlsplit(url.strip())
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
        raise click.BadParameter(
            "Shopify delivers to https only: give the public address, such as https://tags.example.com.",
            param_hint="--url",
        )
    return url.strip().rstrip("/").removesuffix(f"/in/{source}")


def _show(rows: Sequence[Row]) -> None:
    console = Console()
    if not console.is_terminal:
        for row in rows:
            click.echo("  ".join(part for part in (row.name, row.state, row.note) if part))
        return
    table = Table("topic", "state", "note", box=None, header_style="bold")
    for row in rows:
        table.add_row(row.name, f"[{_COLOURS.get(row.state, 'red')}]{row.state}[/]", escape(row.note))
    console.print(table)


@shopify.command()
@click.option("--source", required=True, help='The source with adapter = "shopify".')
@click.option("--since", "given", default="2h", show_default=True, help="30m, 2h, 3d, or a date: orders changed since.")
@click.option(
    "--topic",
    type=click.Choice(["orders/create", "orders/paid"]),
    default="orders/create",
    show_default=True,
    help="The webhook to make up for; orders/paid reads paid orders only.",
)
@click.option("--page-size", type=click.IntRange(1, 250), default=250, show_default=True, help="Orders in one call.")
@config_option
def reconcile(source: str, given: str, topic: str, page_size: int, config_file: str | None) -> None:
    """Read recent orders again and hand each to the gateway: what it has already is a duplicate."""

    async def run() -> Count:
        async with command_context(config_file) as context:
            try:
                start = reconciliation.since(given, context.clock())
            except (ValueError, OverflowError):
                raise click.BadParameter(
                    "write 30m, 2h, 3d, or a date such as 2026-11-21.", param_hint="--since"
                ) from None
            found = context.source(source, webhook.NAME)
            return await _watched(context, found, start, topic, page_size)

    _report(asyncio.run(run()))


async def _watched(context: CommandContext, source: Source, start: str, topic: str, page_size: int) -> Count:
    """Reconcile with a progress bar on a terminal, with a line now and then elsewhere."""
    query = reconciliation.selection(start, topic)
    console = Console()

    async def run(on_progress: Callable[[Count], None]) -> Count:
        return await reconciliation.reconcile(
            context, source, query, topic, page_size=page_size, on_progress=on_progress
        )

    if not console.is_terminal:
        return await run(_line_now_and_then())
    expected = await reconciliation.total(Admin(context.http, source), query)
    said = TextColumn("{task.description}")
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), said, console=console) as progress:
        task = progress.add_task("", total=expected)
        return await run(lambda count: progress.update(task, completed=count.read, description=_line(count)))


def _line_now_and_then() -> Callable[[Count], None]:
    said = 0

    def say(count: Count) -> None:
        nonlocal said
        if count.read >= said + _LINE_EVERY:
            said = count.read
            click.echo(f"{count.read} orders read: {_line(count)}")

    return say


def _line(count: Count) -> str:
    return ", ".join(f"{fate} {count.fates[fate]}" for fate in FATES if count.fates[fate]) or "nothing yet"


def _report(count: Count) -> None:
    console = Console()
    numbers = [("read", count.read), *((fate, count.fates[fate]) for fate in FATES)]
    if console.is_terminal:
        table = Table(*(name for name, _ in numbers), box=None, header_style="bold")
        table.add_row(*(str(number) for _, number in numbers))
        console.print(table)
    else:
        click.echo("  ".join(f"{name} {number}" for name, number in numbers))
    for (fate, reason), number in sorted(count.reasons.items()):
        click.echo(f"{fate}: {reason} {number}")
