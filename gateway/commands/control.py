"""
How commands reach the gateway: through the running server's socket, or, when none runs, by opening the store
themselves.

Either way they speak to the operator's API; without a server it is served in this process, and nothing is delivered
meanwhile.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from gateway import config as configuration
from gateway.config import Config
from gateway.errors import CommandFailed
from gateway.hit import Hit
from gateway.http import Control
from gateway.interfaces import Answer, Unreachable

T = TypeVar("T")


class Busy(CommandFailed):
    """The gateway cannot take this now, and nothing of it was taken; ``retry_after_s`` says when to try again."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Caller:
    """Calls the API and turns its errors into exceptions."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def get(self, path: str, **params: str | int | None) -> Any:
        """GET, without parameters that are None."""
        given = {name: value for name, value in params.items() if value is not None}
        return self._checked(*await self._control.call("GET", path, params=given))

    async def post(self, path: str, body: Any) -> Any:
        """POST as JSON; bytes are JSON already."""
        if isinstance(body, bytes):
            headers = {"content-type": "application/json"}
            return self._checked(*await self._control.call("POST", path, content=body, headers=headers))
        return self._checked(*await self._control.call("POST", path, json=body))

    async def submit(self, hit: Hit) -> Answer:
        """Hand a hit to the public app; returns its answer, whatever it is."""
        query = f"?{hit.query}" if hit.query else ""
        path = f"/in/{hit.source.name}{hit.tail}{query}"
        return await self._control.send(hit.method, path, headers=hit.headers, content=hit.body)

    def _checked(self, status: int, answer: Any) -> Any:
        if status >= 400:
            error = answer.get("error", {}) if isinstance(answer, dict) else {}
            message = f"{error.get('message', 'The gateway refused.')} {error.get('hint', '')}".strip()
            if status == 503 and "retry_after_s" in error:
                raise Busy(message, error["retry_after_s"])
            raise CommandFailed(message)
        return answer


def is_running(path: Path) -> bool:
    """Whether a server listens on the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@asynccontextmanager
async def caller(config: Config) -> AsyncIterator[Caller]:
    """
    Give a caller of the running gateway, or of one in this process.

    Raises:
        StoreLocked: A gateway holds the store but does not answer.
    """
    if is_running(config.socket_path):
        control = Control(socket=config.socket_path)
        try:
            yield Caller(control)
        finally:
            await control.close()
        return
    # these know the whole program; a command that talks to a server needs none of it
    from gateway import logs
    from gateway.operator import operator_app
    from gateway.runtime import Gateway

    logs.configure(logging.ERROR)
    gateway = Gateway(config)
    control = Control(app=operator_app(gateway))
    try:
        yield Caller(control)
    finally:
        await control.close()
        await gateway.stop()


def call(path: Path, work: Callable[[Caller], Awaitable[T]]) -> T:
    """Run one command's work against the gateway of a configuration file."""

    async def main() -> T:
        async with caller(configuration.load(path)) as ready:
            try:
                return await work(ready)
            except Unreachable as error:
                raise CommandFailed(str(error)) from error

    return asyncio.run(main())
