"""The group ``tag-gateway audiences``: what each command takes; what it does is in :mod:`audience_work`."""

import sys
from typing import Any

import click

from gateway.command import config_option
from gateway.commands.options import json_option


def _work(config_file: str | None, *, as_json: bool) -> Any:
    from gateway.commands.audience_work import Work
    from gateway.config import default_path

    return Work(default_path(config_file), as_json=as_json)


@click.group()
def audiences() -> None:
    """Mirror lists and segments into audiences, one to one."""


@audiences.command()
@click.argument("name", required=False)
@click.option("--account", default="", help="The ad account, by id or name, where there are several.")
@click.option("--again", is_flag=True, help="Log in anew although the credentials work.")
@click.option(
    "--answer", metavar="URL", help="The address that the browser ended on, where it cannot reach this machine."
)
@config_option
@json_option
def login(
    name: str | None, account: str, answer: str | None, config_file: str | None, *, again: bool, as_json: bool
) -> None:
    """Log in at NAME, a source or sink (default: at each), and choose the ad account."""
    work = _work(config_file, as_json=as_json)
    if answer is not None:
        work.answer(answer)
    else:
        work.login(name, account, again=again)


@audiences.command("list")
@click.argument("what", type=click.Choice(["sources", "accounts", "audiences"]))
@click.option("--search", default="", help="Only those whose name contains this.")
@click.option("--source", help="Only of this source.")
@click.option("--sink", help="Only of this sink.")
@click.option("--account", default="", help="The account of the audiences (default: the chosen one).")
@config_option
@json_option
def list_(what: str, config_file: str | None, *, as_json: bool, **which: str | None) -> None:
    """List the lists and segments of sources, the ad accounts, or the audiences of one account."""
    _work(config_file, as_json=as_json).show(what, **which)


@audiences.command()
@click.option("--list", "list_", metavar="ID|NAME", help="The list to mirror.")
@click.option("--segment", metavar="ID|NAME", help="The segment to mirror.")
@click.option("--audience", metavar="ID|NAME", help="An existing audience; whoever is in it stays.")
@click.option("--create", metavar="NAME", help="A new audience of this name.")
@click.option("--source", help="The source (default: the only one).")
@click.option("--sink", help="The sink (default: the only one).")
@click.option("--account", default="", help="The account (default: the one chosen at the login).")
@click.option("--no-remove", is_flag=True, help="Never remove anybody from the audience.")
@click.option("--dry-run", is_flag=True, help="Only say what would be connected.")
@config_option
@json_option
def connect(
    list_: str | None, segment: str | None, config_file: str | None, *, no_remove: bool, as_json: bool, **given: Any
) -> None:
    """Connect one list or segment to one audience."""
    if (list_ is None) == (segment is None):
        raise click.UsageError("Name what to mirror: --list or --segment.")
    if (given["audience"] is None) == (given["create"] is None):
        raise click.UsageError("Name the audience: --audience for an existing one, --create for a new one.")
    kind, group = ("segment", segment) if list_ is None else ("list", list_)
    _work(config_file, as_json=as_json).connect({**given, "kind": kind, "group": group, "remove": not no_remove})


@audiences.command()
@click.argument("connection", type=int)
@click.option("--keep", "fate", flag_value="keep", help="Those whom it added stay in the audience.")
@click.option("--remove", "fate", flag_value="remove", help="Those whom it added leave the audience.")
@config_option
@json_option
def disconnect(connection: int, fate: str | None, config_file: str | None, *, as_json: bool) -> None:
    """End CONNECTION (its number), and keep or remove whom it added."""
    if fate is None:
        raise click.UsageError("Say what becomes of those whom it added: --keep or --remove.")
    _work(config_file, as_json=as_json).disconnect(connection, keep=fate == "keep")


@audiences.command()
@click.argument("connection", type=int, required=False)
@click.option("--full", is_flag=True, help="Read the whole list: only so it shows who left.")
@click.option("--dry-run", is_flag=True, help="Only say how many would be added and removed.")
@click.option("--confirm", is_flag=True, help="Remove although a guard stopped it.")
@config_option
@json_option
def sync(connection: int | None, config_file: str | None, *, as_json: bool, **how: bool) -> None:
    """Run a pass now: of CONNECTION (its number), or of all."""
    sys.exit(_work(config_file, as_json=as_json).sync({"connection": connection, **how}))


@audiences.command()
@config_option
@json_option
def status(config_file: str | None, *, as_json: bool) -> None:
    """Show each connection: members, what was added, removed and left out, and what the vendor says."""
    _work(config_file, as_json=as_json).status()


@audiences.command("create-actalike")
@click.argument("connection", type=int)
@click.option("--name", required=True, help="Of the new audience.")
@click.option("--country", required=True, help="Two capital letters.")
@click.option("--percent", type=click.IntRange(1, 10), default=1, show_default=True, help="Of the country's users.")
@config_option
@json_option
def create_actalike(connection: int, config_file: str | None, *, as_json: bool, **given: Any) -> None:
    """Create an audience of people who resemble those of CONNECTION's audience."""
    _work(config_file, as_json=as_json).lookalike({"connection": connection, **given})
