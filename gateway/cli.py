"""The command line: each command's work is in :mod:`gateway.commands`, imported only when it runs."""

import base64
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape

from gateway.command import config_option
from gateway.commands.audiences import audiences
from gateway.commands.events import events
from gateway.commands.extension import ExtensibleGroup
from gateway.commands.hash_password import hash_password
from gateway.commands.health import health
from gateway.commands.options import json_option
from gateway.commands.quarantine import quarantine
from gateway.commands.salvage import salvage
from gateway.errors import ConfigError, GatewayError, PluginError, StoreError

F = TypeVar("F", bound=Callable[..., Any])
_out = Console(soft_wrap=False)
_err = Console(stderr=True, soft_wrap=True)


def _path(config_file: str | None) -> Path:
    from gateway.config import default_path

    return default_path(config_file)


@click.group(cls=ExtensibleGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tag-gateway", prog_name="tag-gateway")
def cli() -> None:
    """Take conversion events in, keep them safe, deliver them to the Pinterest Conversions API."""


@cli.command()
@config_option
def serve(config_file: str | None) -> None:
    """Serve until SIGTERM; SIGHUP reloads the configuration."""
    from gateway.commands.serve import serve as run

    run(_path(config_file))


@cli.command()
@config_option
@click.option(
    "--online", is_flag=True, help="Also send one test event to each destination (?test=true, recorded nowhere)."
)
@click.option("--alert", is_flag=True, help="With --online: also send a test alarm to [alerts] url.")
def check(config_file: str | None, *, online: bool, alert: bool) -> None:
    """Check configuration, plugins and store without serving."""
    from gateway.commands.check import check as run

    if alert and not online:
        raise click.UsageError("--alert sends something: it needs --online.")
    if not run(_path(config_file), online=online, alert=alert, console=_out):
        sys.exit(1)


@cli.command()
@config_option
@json_option
def plugins(config_file: str | None, *, as_json: bool) -> None:
    """List plugins: what is installed, in which version, and what it provides."""
    from gateway.commands import render
    from gateway.config import load
    from gateway.interfaces import Context
    from gateway.pluginhost import PluginHost

    path = _path(config_file)
    disabled = load(path).disabled_plugins if path.exists() else ()
    listing = PluginHost(Context(), disabled).listing()
    if as_json:
        click.echo(render.plain_json(listing))
    else:
        render.plugins(_out, listing)


@cli.command()
@click.argument("capture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--source", required=True, help="The source that the request was sent to.")
@click.option("--no-verify", is_flag=True, help="Leave the proof of authenticity out.")
@config_option
@json_option
def explain(capture: Path, source: str, config_file: str | None, *, no_verify: bool, as_json: bool) -> None:
    """Show each step of one captured request and what would be sent; sends nothing."""
    from gateway.commands import render
    from gateway.commands.control import call

    body = {"source": source, "capture": base64.b64encode(capture.read_bytes()).decode(), "verify": not no_verify}
    answer = call(_path(config_file), lambda api: api.post("/api/explain", body))
    if as_json:
        click.echo(render.plain_json(answer))
    else:
        render.explanation(_out, answer)


@cli.command()
@config_option
@json_option
def status(config_file: str | None, *, as_json: bool) -> None:
    """Show what came in, what went out, what waits."""
    from gateway.commands import render
    from gateway.commands.control import call

    answer = call(_path(config_file), lambda api: api.get("/api/status"))
    if as_json:
        click.echo(render.plain_json(answer))
    else:
        render.status(_out, answer)


@cli.group()
def dead() -> None:
    """Look at dead letters: events that will not be sent again by themselves."""


def dead_filter(command: F) -> F:
    """Add the options that choose dead letters."""
    for name, text in (
        ("--source", "Only of this source."),
        ("--event-name", "Only of this event name."),
        ("--reason", "Only with this reason."),
        ("--destination", "Only of this destination."),
    ):
        command = click.option(name, help=text)(command)
    return config_option(command)


@dead.command("list")
@dead_filter
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@json_option
def dead_list(config_file: str | None, limit: int, *, as_json: bool, **which: str | None) -> None:
    """List dead letters, oldest first."""
    from gateway.commands import render
    from gateway.commands.control import call

    answer = call(_path(config_file), lambda api: api.get("/api/dead", limit=limit, **which))
    if as_json:
        click.echo(render.plain_json(answer))
    else:
        render.dead_letters(_out, answer)


@dead.command("show")
@click.argument("unit")
@config_option
def dead_show(unit: str, config_file: str | None) -> None:
    """Show one dead letter and what would be sent today, identifiers masked."""
    from gateway.commands import render
    from gateway.commands.control import call

    click.echo(render.plain_json(call(_path(config_file), lambda api: api.get(f"/api/dead/{unit}"))))


def _change_dead(
    action: str,
    config_file: str | None,
    units: tuple[str, ...],
    which: dict[str, str | None],
    *,
    every: bool,
    dry_run: bool,
) -> None:
    from gateway.commands import render
    from gateway.commands.control import call

    if not units and not any(which.values()) and not every:
        raise click.UsageError(
            "Name units, filter with --reason, --destination, --event-name or --source, or say --all."
        )
    body = {**which, "units": list(units), "dry_run": dry_run}
    click.echo(render.plain_json(call(_path(config_file), lambda api: api.post(f"/api/dead/{action}", body))))


@dead.command("replay")
@click.argument("units", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@dead_filter
def dead_replay(
    units: tuple[str, ...], config_file: str | None, *, every: bool, dry_run: bool, **which: str | None
) -> None:
    """Queue dead letters again, with their own id and time, encoded by today's code."""
    _change_dead("replay", config_file, units, which, every=every, dry_run=dry_run)


@dead.command("discard")
@click.argument("units", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@dead_filter
def dead_discard(
    units: tuple[str, ...], config_file: str | None, *, every: bool, dry_run: bool, **which: str | None
) -> None:
    """Delete dead letters for good."""
    _change_dead("discard", config_file, units, which, every=every, dry_run=dry_run)


def person_options(command: F) -> F:
    """Add the options that name a person."""
    for name, text in (
        ("--site", "Only at this site (default: all)."),
        ("--external-id", "The person's id at the source."),
        ("--phone", "The person's phone number."),
        ("--email", "The person's e-mail address."),
    ):
        command = click.option(name, help=text)(command)
    return config_option(command)


def _call_about(person: dict[str, str | None], config_file: str | None, path: str) -> None:
    from gateway.commands import render
    from gateway.commands.control import call

    if not (person["email"] or person["phone"] or person["external_id"]):
        raise click.UsageError("Name the person by --email, --phone or --external-id.")
    click.echo(render.plain_json(call(_path(config_file), lambda api: api.post(path, person))))


@cli.command()
@person_options
def erase(config_file: str | None, **person: str | None) -> None:
    """Erase what is kept of a person, and refuse late copies of their earlier events."""
    _call_about(person, config_file, "/api/erase")


@cli.command()
@person_options
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="A new file (default: in exports/ by the store)."
)
def export(config_file: str | None, output: Path | None, **person: str | None) -> None:
    """Write what is kept of a person to a file: hashes, addresses, click ids, and until when."""
    _call_about({**person, "output": str(output.absolute()) if output else None}, config_file, "/api/export")


@cli.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--source", required=True, help="The source that the rows belong to; its adapter is browser_tag.")
@click.option("--map", "columns", multiple=True, metavar="COLUMN=FIELD", help="What a column is; may be repeated.")
@click.option("--delimiter", help="Between cells of a CSV file (default: found in the header).")
@click.option("--timezone", help="Of times that name none: Europe/Berlin, UTC, +02:00.")
@click.option("--event-name", default="checkout", show_default=True, help="Of rows that name none.")
@click.option(
    "--action-source",
    type=click.Choice(["offline", "web", "app_ios", "app_android"]),
    default="offline",
    show_default=True,
    help="Of rows that name none.",
)
@click.option("--currency", help="Of rows with a value that name none.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Rows that were not taken.")
@click.option("--dry-run", is_flag=True, help="Check every row and commit nothing.")
@click.option("--restart", is_flag=True, help="Begin anew instead of going on where an earlier run stopped.")
@config_option
@json_option
def import_(
    file: Path,
    source: str,
    config_file: str | None,
    report: Path | None,
    *,
    dry_run: bool,
    restart: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Take past or in-store conversions in from a CSV or JSON lines file; goes on where it was interrupted."""
    from gateway.commands.importing import Defaults, Options, import_file

    defaults = Defaults(**{name: given.pop(name) for name in Defaults.__struct_fields__})
    options = Options(
        file=file, source=source, report=report, dry_run=dry_run, restart=restart, defaults=defaults, **given
    )
    sys.exit(import_file(_path(config_file), options, out=_out, err=_err, as_json=as_json))


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@config_option
def backup(file: Path, config_file: str | None) -> None:
    """Write a consistent copy of the store to FILE, also while the gateway runs."""
    from gateway.commands import render
    from gateway.commands.control import call

    click.echo(
        render.plain_json(call(_path(config_file), lambda api: api.post("/api/backup", {"path": str(file.absolute())})))
    )


@cli.command()
@click.option("--bind", default="127.0.0.1:8010", show_default=True, help="HOST:PORT.")
@click.option("--token", "tokens", multiple=True, help="A valid token (default: sandbox-token); may be repeated.")
@click.option("--rate", type=int, help="Calls a minute before 429.")
def sandbox(bind: str, tokens: tuple[str, ...], rate: int | None) -> None:
    """Run the local stand-ins of Pinterest (events, audiences, OAuth) and Klaviyo."""
    from gateway.commands.sandbox import sandbox as run

    run(bind, tokens, rate)


@cli.command()
@click.option("--bind", default="127.0.0.1:8000", show_default=True, help="HOST:PORT of the gateway.")
@click.option("--once", is_flag=True, help="Stop after the examples.")
def demo(bind: str, *, once: bool) -> None:
    """Run gateway and sandbox on loopback, send real-shaped hits through, show the fate of each."""
    from gateway.commands.demo import demo as run

    run(bind, once=once)


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default="gateway.toml")
def init(file: Path) -> None:
    """Ask for platform and account, and write a working configuration to FILE."""
    from gateway.commands.init import init as run

    run(file)


@cli.command("new-adapter")
@click.argument("name")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where to write it (default: here).")
def new_adapter(name: str, folder: Path | None) -> None:
    """Write a small adapter package to start from."""
    from gateway.commands.new_adapter import new_adapter as run

    run(name, folder or Path.cwd())


cli.add_command(audiences)
cli.add_command(salvage)
cli.add_command(quarantine)
cli.add_command(hash_password)
cli.add_command(events)
cli.add_command(health)


def main() -> None:
    """Run a command; errors that a person can mend are one clear line: exit 2 for configuration, 3 for the store."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except GatewayError as error:
        _err.print(f"[red]error:[/] {escape(str(error))}", highlight=False)
        code = 2 if isinstance(error, ConfigError | PluginError) else 3 if isinstance(error, StoreError) else 1
        sys.exit(code)


if __name__ == "__main__":
    main()
