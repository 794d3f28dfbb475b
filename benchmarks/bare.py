"""The reference: a Starlette app that reads a hit, decodes it and answers, served with the same settings."""

import asyncio
import sys
from typing import Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.commands.serve import new_event_loop
from gateway.server import Engine, Listener, run, tcp_socket


def bare_app() -> Starlette:
    """Return the app; it answers how many events it read."""

    async def endpoint(request: Request) -> JSONResponse:
        found: Any = msgspec.json.decode(await request.body())
        return JSONResponse({"accepted": len(found) if isinstance(found, list) else 1})

    return Starlette(routes=[Route("/in/{source}", endpoint, methods=["POST"])])


async def _serve(engine: Engine, port: int) -> None:
    listener = Listener(bare_app(), tcp_socket(f"127.0.0.1:{port}", "server"), engine, 1.0)
    await run([listener], asyncio.Event(), on_ready=lambda: None, on_hangup=lambda: None)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(cast("Engine", sys.argv[1]), int(sys.argv[2])))
