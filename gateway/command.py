"""
What a plugin's command works with.

An installed package adds commands to ``tag-gateway`` by naming click commands in the entry-point group
``tag_gateway.commands``. Such a command gets what it needs here: its source as configured, the one outgoing client, and
a way to hand hits to the gateway. It never sees the store.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.errors import ConfigError
from gateway.hit import Hit, Source
from gateway.interfaces import Answer, Context, HttpClient

if TYPE_CHECKING:
    from gateway.commands.control import Caller
    from gateway.config import Config

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F) -> F:
    """Add ``--config``; the command gets it as ``config_file``, for :func:`command_context`."""
    import click

    return click.option(
        "--config",
        "config_file",
        metavar="FILE",
        help="Configuration file (default: TAG_GATEWAY_CONFIG, then ./gateway.toml).",
    )(command)


class CommandContext:
    """
    One command's access to configuration, network and gateway, as :func:`command_context` gives it.

    ``http`` is the one outgoing client: TLS verified, no redirects. ``clock`` gives Unix seconds.
    """

    def __init__(self, config: "Config", http: HttpClient, stack: AsyncExitStack) -> None:
        self.http = http
        self.clock: Callable[[], float] = time.time
        self._config = config
        self._stack = stack
        self._caller: Caller | None = None
        self._opening = asyncio.Lock()

    def source(self, name: str, adapter: str) -> Source:
        """
        Return ``[sources.NAME]`` with its options and secrets decoded.

        Raises:
            ConfigError: There is no such source, it has another adapter, or one of its secrets is missing.
        """
        from gateway import settings
        from gateway.pluginhost import PluginHost

        table = self._config.sources.get(name)
        if table is None or table.adapter != adapter:
            fitting = [other for other, one in self._config.sources.items() if one.adapter == adapter]
            known = f"Such are {', '.join(fitting)}." if fitting else "None is."
            what = "there is no such source" if table is None else f"its adapter is '{table.adapter}'"
            raise ConfigError(
                f'{self._config.path}: [sources.{name}]: {what}; name one with adapter = "{adapter}". {known}'
            )
        context = Context(
            http=self.http, trusted_proxies=self._config.server.trusted_proxies, options=self._config.plugins,
            folder=self._config.folder, state=self._config.store_path.parent,
        )  # fmt: skip
        host = PluginHost(context, self._config.disabled_plugins)
        if adapter not in host.adapters:
            raise ConfigError(f"{self._config.path}: [sources.{name}] adapter '{adapter}' is not installed.")
        return settings.source(self._config, name, host.adapters[adapter], [])

    def sources_of(self, site: str) -> dict[str, str]:
        """Return the names of a site's sources, each with its adapter's name."""
        return {
            name: table.adapter for name, table in self._config.sources.items() if self._config.site_of(name) == site
        }

    async def submit(self, hit: Hit) -> Answer:
        """
        Hand a hit to the gateway as if it had come to its public listener; returns what the listener answers.

        It is verified, enriched, deduplicated and merged as any other. When no gateway runs it is kept in the store,
        and sent once one does.

        Raises:
            Unreachable: The running gateway does not answer.
            StoreError: No gateway runs and the store cannot be opened.
        """
        async with self._opening:
            if self._caller is None:
                from gateway.commands.control import caller

                self._caller = await self._stack.enter_async_context(caller(self._config))
        return await self._caller.submit(hit)


@asynccontextmanager
async def command_context(config_file: str | None, http: HttpClient | None = None) -> AsyncIterator[CommandContext]:
    """
    Load the configuration that ``--config`` names, and give what a command works with until the end of the block.

    Args:
        config_file: As :func:`config_option` gives it.
        http: The network, in place of the one outgoing client, for tests.

    Raises:
        ConfigError: The file is wrong.
    """
    from gateway import config as configuration
    from gateway.http import Client

    config = configuration.load(configuration.default_path(config_file))
    async with AsyncExitStack() as stack:
        if http is None:
            http = client = Client()
            stack.push_async_callback(client.close)
        yield CommandContext(config, http, stack)
