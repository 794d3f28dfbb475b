"""``tag-gateway sandbox``."""

import asyncio

from rich.console import Console

from gateway import logs
from gateway.commands.serve import address, new_event_loop
from gateway.sandbox import PinterestSandbox, SandboxConfig
from gateway.server import Listener, run, tcp_socket


def sandbox(bind: str, tokens: tuple[str, ...], rate: int | None) -> None:
    """Serve the sandbox until SIGTERM or SIGINT."""
    logs.configure()
    config = SandboxConfig(rate=rate) if not tokens else SandboxConfig(tokens=tokens, rate=rate)
    app = PinterestSandbox(config).app
    sock = tcp_socket(bind, "sandbox")
    shown = f"http://{address(sock)}"

    def ready() -> None:
        out = Console()
        out.print(
            f"Sandbox of the Pinterest Conversions API: [bold]{shown}/v5[/], token {config.tokens[0]}", highlight=False
        )
        out.print(f"Its audiences: the same; its OAuth: {shown}/oauth/ and {shown}/v5/oauth/token", highlight=False)
        out.print(f"Sandbox of Klaviyo: [bold]{shown}[/], private key {config.klaviyo_keys[0]}", highlight=False)
        out.print(
            f"What it received: {shown}/_sandbox/counts, /_sandbox/events, /_sandbox/calls; Ctrl-C stops it.",
            highlight=False,
        )

    async def main() -> None:
        await run([Listener(app, sock, "hypercorn", 1.0)], asyncio.Event(), on_ready=ready, on_hangup=lambda: None)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
