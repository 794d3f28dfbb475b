"""Commands of installed packages, beside the gateway's own: the entry-point group ``tag_gateway.commands``."""

import importlib.metadata
from collections.abc import Iterable

import click

from gateway.errors import PluginError

GROUP = "tag_gateway.commands"
Entry = importlib.metadata.EntryPoint


class ExtensibleGroup(click.Group):
    """
    A group whose further commands are entry points: name → a click command or group.

    Only a command that is called is imported, so that a broken one costs itself alone.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every name."""
        return sorted({*super().list_commands(ctx), *_entries()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """
        Return a command, the gateway's own before an installed one.

        Raises:
            PluginError: It cannot be loaded, or two packages give it.
        """
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        found = _entries().get(cmd_name)
        return None if found is None else _load(found)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the gateway's own with their help, then the installed ones with where they come from."""
        own = super().list_commands(ctx)
        commands = [(name, super(ExtensibleGroup, self).get_command(ctx, name)) for name in own]
        width = formatter.width - 6 - max(map(len, own), default=0)
        rows = [(name, command.get_short_help_str(width)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        installed = [
            (name, f"From {_origins(entries)}.") for name, entries in sorted(_entries().items()) if name not in own
        ]
        if installed:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(installed)


def _entries() -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def _load(entries: list[Entry]) -> click.Command:
    name = entries[0].name
    if len(entries) > 1:
        raise PluginError(f"Two packages give the command '{name}': {_origins(entries)}. Uninstall one of them.")
    remedy = "Mend, upgrade or uninstall the package."
    try:
        command = entries[0].load()
    except Exception as error:  # a stranger's import may fail in any way
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise PluginError(f"The command '{name}' ({_origins(entries)}) cannot be loaded: {why}. {remedy}") from error
    if not isinstance(command, click.Command):
        raise PluginError(
            f"The command '{name}' ({_origins(entries)}) is a {type(command).__name__}, not a click command. {remedy}"
        )
    return command


def _origins(entries: Iterable[Entry]) -> str:
    dists = [entry.dist for entry in entries]
    return ", ".join(f"{dist.name} {dist.version}" if dist else "?" for dist in dists)
