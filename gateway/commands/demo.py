"""
``tag-gateway demo``: gateway and sandbox in one process on loopback, real-shaped hits through the real listener.

Everything it writes (configuration, store, log) is in one temporary folder, which goes when it stops.
"""

import asyncio
import logging
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, ClassVar

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from gateway import config as configuration
from gateway import logs
from gateway.commands import render
from gateway.commands.demo_hits import ORIGIN, SECRET, DemoHit, hits
from gateway.commands.serve import address, new_event_loop, run_gateway
from gateway.errors import ConfigError, GatewayError
from gateway.hookspecs import hookimpl
from gateway.http import Client
from gateway.interfaces import Answer, Context, Observer
from gateway.outcome import Settled
from gateway.runtime import Gateway
from gateway.sandbox import PinterestSandbox
from gateway.server import Listener, tcp_socket

_ACCOUNT = "549755885175"
_TOKEN = "sandbox-token"  # noqa: S105 - the sandbox's own, it opens nothing else
#: Far longer than deliveries take; then the demo says what is missing.
_DEADLINE_S = 20.0
#: Without a terminal there is no width to adapt to: wide enough for the table.
_PLAIN_WIDTH = 118

_PAGE_EVENT = '{"event_name": "add_to_cart", "value": 12.5, "currency": "EUR", "user": {"email": "ada@example.com"}}'
_SERVER_EVENT = '{"event_name": "checkout", "order_id": "1002", "value": 59, "user": {"email": "ada@example.com"}}'

_CONFIG = """\
# What the demo runs with.
[server]
bind = "{public}"
graceful_s = 2.0

[operator]
bind = "{operator}"
password = {{ file = "operator-password" }}

[store]
url = "sqlite:///gateway.db"

[sites.shop]
default_country = "US"
hold_s = 1.0

[sources.tag]
adapter = "browser_tag"
site = "shop"
allowed_origins = ["{origin}"]
destinations = ["pinterest"]

[sources.server]
adapter = "browser_tag"
site = "shop"
secrets = [{{ file = "secret" }}]
destinations = ["pinterest"]

[sources.shop]
adapter = "shopify"
site = "shop"
secrets = [{{ file = "secret" }}]
options = {{ shop = "example.myshopify.com" }}
destinations = ["pinterest"]

[sources.shop_pixel]
adapter = "shopify_pixel"
site = "shop"
allowed_origins = ["{origin}", "null"]
destinations = ["pinterest"]

[sources.gtm]
adapter = "gtm"
site = "shop"
secrets = [{{ file = "secret" }}]
destinations = ["pinterest"]

[sources.ga4]
adapter = "gtm"
site = "shop"
allowed_origins = ["{origin}"]
destinations = ["pinterest"]

[sources.tealium]
adapter = "tealium"
site = "shop"
secrets = [{{ file = "secret" }}]
destinations = ["pinterest"]

[destinations.pinterest]
type = "pinterest"
ad_account_id = "{account}"
token = {{ file = "pinterest-token" }}
base_url = "http://{sandbox}/v5"
linger_s = 0.2
"""


class DemoFailed(GatewayError):
    """Something that the demo sent did not arrive; the message names the log."""


class Ends(Observer):
    """Keeps how each unit ended, by event id."""

    name: ClassVar[str] = "demo"

    def __init__(self) -> None:
        self.by_id: dict[str, Settled] = {}
        self.changed = asyncio.Event()

    def settled(self, settled: Settled) -> None:
        """Keep one end."""
        self.by_id[settled.event_id] = settled
        self.changed.set()

    @hookimpl
    def register_observers(self, context: Context) -> Sequence[Observer]:  # noqa: ARG002 - the hook's signature
        """Observe deliveries."""
        return [self]


class Row:
    """One hit, its answer, and the events that must still be delivered."""

    def __init__(self, hit: DemoHit, answer: Answer) -> None:
        self.hit = hit
        self.status = answer.status
        self.body: dict[str, Any] = {}
        if answer.headers.get("content-type", "").startswith("application/json"):
            self.body = msgspec.json.decode(answer.body)
        events = self.body.get("events", [])
        self.events: list[dict[str, Any]] = events
        self.waits_for = [event["event_id"] for event in events if event["outcome"] == "accepted"]
        if hit.event_id and self.status == 200 and not self.body:
            self.waits_for = [hit.event_id]

    def follow(self, earlier: Sequence["Row"]) -> None:
        """Tell earlier copies of the same conversion under which id it goes on."""
        if self.hit.conversion and self.events and self.events[0]["outcome"] == "merged":
            for row in earlier:
                if row.hit.conversion == self.hit.conversion and row.waits_for:
                    row.waits_for = [self.events[0]["of"]]

    def answered(self) -> str:
        """Return the answer as text: status, fate, reason."""
        if "error" in self.body:
            return f"[red]{self.status}[/] {self.body['error']['code']}"
        if not self.events:
            return f"[green]{self.status}[/] (an image)"
        first = self.events[0]
        many = f", all {len(self.events)}" if len(self.events) > 1 else ""
        text = f"[green]{self.status}[/] {render.fate(first['outcome'])}{many}"
        if first.get("of"):
            return f"{text} {'into' if first['outcome'] == 'merged' else 'of'} {first['of']}"
        return f"{text}: {first['reason']}" if first.get("reason") else text

    def arrived(self, ends: Ends) -> str:
        """Return what became of the accepted events."""
        if not self.waits_for:
            return "[dim]nothing to send[/]"
        known = [ends.by_id[event_id] for event_id in self.waits_for if event_id in ends.by_id]
        if len(known) < len(self.waits_for):
            return "[dim]…[/]"
        text = ", ".join(render.fate(end) for end in sorted({str(one.end) for one in known}))
        return f"{text} [dim]({self.hit.remark})[/]" if self.hit.remark else text


def demo(bind: str, *, once: bool) -> None:
    """
    Show the gateway at work; with ``once`` it stops after the examples.

    Raises:
        ConfigError: The port is taken.
        DemoFailed: An event was not delivered.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    folder = Path(tempfile.mkdtemp(prefix="tag-gateway-demo-"))
    try:
        with (
            (folder / "gateway.log").open("w", encoding="utf-8") as log,
            _logging_to(log),
            asyncio.Runner(loop_factory=new_event_loop) as runner,
        ):
            runner.run(_Demo(folder, log, console, once=once).run(bind))
    except DemoFailed:
        raise  # the log stays, to be looked at
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    console.print("Stopped; the demo's folder is gone.")


@contextmanager
def _logging_to(stream: IO[str]) -> Iterator[None]:
    logs.configure(stream=stream)
    try:
        yield
    finally:
        logging.getLogger().handlers.clear()


class _Demo:
    """One run; ``folder`` holds what it writes."""

    def __init__(self, folder: Path, log: IO[str], console: Console, *, once: bool) -> None:
        self._folder = folder
        self._log = log
        self._console = console
        self._once = once
        self._sandbox = PinterestSandbox()
        self._password = secrets.token_urlsafe(9)
        self._failure: GatewayError | None = None

    async def run(self, bind: str) -> None:
        """Serve, tell, and serve on until a signal."""
        public = tcp_socket(bind, "demo")
        sandbox, operator = _free_socket(8010), _free_socket(8081)
        self._public, self._operator, self._pinterest = address(public), address(operator), address(sandbox)
        path = self._write_config()
        self._ends = Ends()
        gateway = Gateway(configuration.load(path), hit_log=logs.HitLog(self._log), extra_plugins={"demo": self._ends})
        stop = asyncio.Event()
        stories: list[asyncio.Task[None]] = []
        pinterest = Listener(self._sandbox.app, sandbox, "hypercorn", 1.0)
        await run_gateway(
            gateway,
            public,
            operator,
            stop,
            lambda: stories.append(asyncio.create_task(self._tell(stop))),
            path,
            [pinterest],
        )
        for story in stories:
            story.cancel()
            with suppress(asyncio.CancelledError):
                await story
        if self._failure is not None:
            raise self._failure

    def _write_config(self) -> Path:
        for name, content in (("secret", SECRET), ("operator-password", self._password), ("pinterest-token", _TOKEN)):
            (self._folder / name).write_text(content, encoding="utf-8")
        path = self._folder / "gateway.toml"
        text = _CONFIG.format(
            public=self._public, operator=self._operator, sandbox=self._pinterest, origin=ORIGIN, account=_ACCOUNT
        )
        path.write_text(text, encoding="utf-8")
        return path

    async def _tell(self, stop: asyncio.Event) -> None:
        """Send the examples and show their fates; then either stop or say what to try."""
        try:
            self._introduce()
            await self._examples()
            self._summarise()
            if not self._once:
                self._invite()
                return
        except GatewayError as error:
            self._failure = error
        stop.set()

    def _introduce(self) -> None:
        say = self._say
        say(f"Gateway   http://{self._public}   takes hits at /in/NAME")
        say(f"Sandbox   http://{self._pinterest}   stands in for Pinterest; nothing leaves this machine")
        say(f"Operator  http://{self._operator}   pages, /metrics and /api/status, password {self._password}")
        say(f"Log       {self._folder / 'gateway.log'}")
        say("")

    async def _examples(self) -> None:
        rows: list[Row] = []
        client = Client()
        live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        try:
            with live or nullcontext():
                for hit in hits():
                    row = await self._send(client, hit)
                    row.follow(rows)
                    rows.append(row)
                    if live:
                        live.update(self._table(rows), refresh=True)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_DEADLINE_S):
                        await self._delivered(rows, live)
                if live:
                    live.update(self._table(rows), refresh=True)
        finally:
            await client.close()
        if live is None:
            self._console.print(self._table(rows))
        missing = [event_id for row in rows for event_id in row.waits_for if event_id not in self._ends.by_id]
        if missing:
            raise DemoFailed(
                f"{len(missing)} events were accepted and not delivered in {_DEADLINE_S:g} s: "
                f"see {self._folder / 'gateway.log'}"
            )

    async def _send(self, client: Client, hit: DemoHit) -> Row:
        url = f"http://{self._public}/in/{hit.source}{hit.tail}"
        return Row(hit, await client.request(hit.method, url, headers=hit.headers, content=hit.body))

    async def _delivered(self, rows: Sequence[Row], live: Live | None) -> None:
        expected = {event_id for row in rows for event_id in row.waits_for}
        while not expected <= self._ends.by_id.keys():
            self._ends.changed.clear()
            await self._ends.changed.wait()
            if live:
                live.update(self._table(rows), refresh=True)

    def _table(self, rows: Sequence[Row]) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("What was sent", "to /in/", "Answer", "At Pinterest (the sandbox)"):
            table.add_column(heading)
        for row in rows:
            table.add_row(row.hit.title, row.hit.source, row.answered(), row.arrived(self._ends))
        return table

    def _summarise(self) -> None:
        counts, calls = self._sandbox.record.counts, self._sandbox.record.calls
        names = ", ".join(f"{count} {name}" for name, count in sorted(counts.by_name.items()))
        self._say("")
        self._say(
            f"The sandbox received {counts.received} events in {calls} calls, {counts.unique} conversions: {names}."
        )

    def _invite(self) -> None:
        say = self._say
        say("")
        say(f"Look at http://{self._operator} in a browser, password {self._password}")
        say("")
        say("Try it (copy and paste into another terminal):")
        say("")
        say(f"curl -sS http://{self._public}/in/tag --data '{_PAGE_EVENT}'")
        say('  # as a page would: "accepted":1, and half a second later it is at the sandbox')
        say(f"curl -sS http://{self._public}/in/server -H 'Authorization: Bearer {SECRET}' --data '{_SERVER_EVENT}'")
        say('  # as a server would: "accepted":1; send it again and it is "duplicate":1')
        say(f"curl -sS 'http://{self._pinterest}/_sandbox/events?limit=2'")
        say("  # what the sandbox got last: identifiers are hashes, amounts are text")
        say("")
        say(f"{sys.argv[0]} status --config {self._folder / 'gateway.toml'}")
        say("  # what came in, what went out, what waits")
        say("")
        say("Ctrl-C stops.")

    def _say(self, text: str) -> None:
        """Print one line as it is: a line to copy is never wrapped or coloured."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _free_socket(port: int) -> socket.socket:
    """Open the port on loopback, or any free one when it is taken."""
    try:
        return tcp_socket(f"127.0.0.1:{port}", "demo")
    except ConfigError:
        return tcp_socket("127.0.0.1:0", "demo")
