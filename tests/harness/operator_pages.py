"""A gateway with something on every page of the operator's, and its vendors' stand-ins, on loopback in a thread."""

import asyncio
import math
import sqlite3
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from gateway import config as configuration
from gateway.commands.demo_hits import ORIGIN, SECRET, hits
from gateway.edge import Edge
from gateway.hit import Secret
from gateway.ingress import public_app
from gateway.logs import HitLog
from gateway.operator import operator_app
from gateway.operator.headers import Hardened
from gateway.outbox.sqlite import SqliteOutbox
from gateway.runtime import Gateway
from gateway.sandbox import PinterestSandbox
from gateway.sandbox.faults import Fault
from gateway.server import Listener, tcp_socket
from tests.harness.processes import ACCOUNT, until

T = TypeVar("T")
OPERATOR, VIEWER = "operator-password", "viewer-password"
#: Orders that the vendor refuses while the office is filled, and takes when they are replayed.
REFUSED = ("refused-one", "refused-two", "refused-three")
_HOUR, _DAYS = 3_600, 16
_EVENTS = {"page_visit": 60, "add_to_cart": 14, "checkout": 5, "signup": 3}
#: Share of delivered events with each signal, in per cent.
_SIGNALS = {
    "ip_ua": 96, "em": 31, "external_id": 64, "click_id": 12, "em_or_maid": 31, "ph": 6, "fn_ln": 9, "ct": 10,
    "country": 11, "value": 40, "order_id": 7, "source_url": 88,
}  # fmt: skip

_CONFIG = """
[server]
bind = "{public}"
graceful_s = 0.2
[operator]
bind = "{operator}"
url = "http://{operator}"
password = "{password}"
[store]
url = "sqlite:///gateway.db"
[sites.shop]
default_country = "US"
hold_s = 0.2
[sources.tag]
adapter = "browser_tag"
destinations = ["pinterest"]
site = "shop"
allowed_origins = ["{origin}"]
[sources.server]
adapter = "browser_tag"
destinations = ["pinterest"]
site = "shop"
secrets = ["{secret}"]
[sources.shop]
adapter = "shopify"
destinations = ["pinterest"]
site = "shop"
secrets = ["{secret}"]
options = {{ shop = "example.myshopify.com" }}
[sources.shop_pixel]
adapter = "shopify_pixel"
destinations = ["pinterest"]
site = "shop"
allowed_origins = ["{origin}", "null"]
[sources.gtm]
adapter = "gtm"
destinations = ["pinterest"]
site = "shop"
secrets = ["{secret}"]
[sources.ga4]
adapter = "gtm"
destinations = ["pinterest"]
site = "shop"
allowed_origins = ["{origin}"]
[sources.tealium]
adapter = "tealium"
destinations = ["pinterest"]
site = "shop"
secrets = ["{secret}"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "{account}"
token = "sandbox-token"
base_url = "{sandbox}/v5"
linger_s = 0.0
[audience_sources.klaviyo]
api_key = "sandbox-klaviyo-key"
base_url = "{sandbox}"
authorize_url = "{sandbox}/oauth/authorize"
[audience_sinks.pinterest]
app_id = "1500000"
app_secret = "sandbox-app-secret"
base_url = "{sandbox}/v5"
authorize_url = "{sandbox}/oauth/"
"""


class Office:
    """
    A gateway that serves on ports of its own; ``operator`` and ``public`` are its addresses.

    Args:
        folder: Where its files are.
        is_old: It has counts of the last weeks, and one source that has fallen silent.
    """

    def __init__(self, folder: Path, *, is_old: bool = True) -> None:
        self.folder = folder
        self._is_old = is_old
        self._ready = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30), "the gateway serves: not within 30 s"
        if self._problem is not None:
            raise self._problem
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the gateway stops: not within 20 s"

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the gateway's loop; returns its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    # -- traffic

    def post(self, source: str, *events: dict[str, Any]) -> dict[str, Any]:
        """Send events to the public route, as a page of the shop or as its server; returns the answer."""
        headers = {"Authorization": f"Bearer {SECRET}"} if source == "server" else {"Origin": ORIGIN}
        answer = httpx.post(f"{self.public}/in/{source}", json=list(events), headers=headers, trust_env=False)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def fill(self) -> None:
        """Let everything happen that the pages tell of: merged copies, duplicates, drops, refusals, dead letters."""
        self.sandbox.faults.stand(Fault(kind="partial", event_ids=REFUSED))
        with httpx.Client(base_url=self.public, trust_env=False) as client:
            for hit in hits():
                client.request(hit.method, f"/in/{hit.source}{hit.tail}", headers=hit.headers, content=hit.body)
        self.post("server", *map(sale, REFUSED))
        self.post("server", sale("unknown", event_name="NotAStandardEvent"))
        self.drain()
        self.sandbox.faults.clear()

    def drain(self) -> None:
        """Wait until nothing waits."""

        def empty() -> bool:
            lanes = self.call(self.gateway.outbox.counts()).lanes
            return all(lane.waiting + lane.leased == 0 for lane in lanes)

        until(empty, 30, "the queue is empty", 0.05)

    def people(self) -> None:
        """Make lists and segments at the one vendor, and audiences at the other."""
        self.call(self._people())

    async def _people(self) -> None:
        made, audiences = self.sandbox.klaviyo.people, self.sandbox.audiences
        made.create("list", "Newsletter", count=240)
        made.create("list", "Customers of the winter sale, all countries", first=100, count=57)
        made.create("segment", "VIPs", count=12)
        audiences.accounts = {ACCOUNT: "Shop EU"}
        feed = audiences.new_list(ACCOUNT, "Readers", [])
        audiences.new_audience(ACCOUNT, "Readers", "CUSTOMER_LIST", {"customer_list_id": feed.id})
        audiences.new_audience(ACCOUNT, "Visitors of the shop", "VISITOR", {})

    # -- the thread

    def _run(self) -> None:
        try:
            if self._is_old:
                _age(self.folder / "gateway.db")
            asyncio.run(self._serve())
        except BaseException as error:
            self._problem = error
            self._ready.set()
            raise

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        sockets = [tcp_socket("127.0.0.1:0", name) for name in ("server", "operator", "sandbox")]
        ports = [sock.getsockname()[1] for sock in sockets]
        self.public, self.operator, vendors = (f"http://127.0.0.1:{port}" for port in ports)
        text = _CONFIG.format(
            public=f"127.0.0.1:{ports[0]}", operator=f"127.0.0.1:{ports[1]}", sandbox=vendors, password=OPERATOR,
            secret=SECRET, origin=ORIGIN, account=ACCOUNT,
        )  # fmt: skip
        path = self.folder / "gateway.toml"
        path.write_text(text)
        self.sandbox = PinterestSandbox()
        self.gateway = Gateway(configuration.load(path), hit_log=HitLog(enabled=False))
        tally = self.gateway.tally
        console = operator_app(self.gateway, Secret(value=OPERATOR), Secret(value=VIEWER))
        door = Edge(public_app(self.gateway.ingress, self.gateway.ready), lambda: (), tally)
        apps = (door, Hardened(Edge(console, tally=tally)), self.sandbox.app)
        await self.gateway.start()
        servers = [
            asyncio.create_task(Listener(app, sock, "hypercorn", 0.2).run(self._stop))
            for app, sock in zip(apps, sockets, strict=True)
        ]
        self._ready.set()
        try:
            await self._stop.wait()
            await asyncio.wait_for(asyncio.gather(*servers), 15)
        finally:
            await self.gateway.stop()
            self.sandbox.record.close()
            for sock in sockets:
                sock.detach()  # the engine has closed it


def sale(event_id: str, **changes: Any) -> dict[str, Any]:
    """Return an order as a shop's server sends it."""
    return {
        "event_name": "checkout", "event_id": event_id, "order_id": f"order-{event_id}", "event_time": int(time.time()),
        "value": "19.90", "currency": "EUR",
        "user": {"email": f"{event_id}@example.com", "external_id": f"customer-{event_id}"}, **changes,
    }  # fmt: skip


# -- the past


def _age(store: Path) -> None:
    """Give a store counts of the last weeks, up to the hour before this one."""

    async def create() -> None:
        await SqliteOutbox(store).close()

    asyncio.run(create())
    with closing(sqlite3.connect(store)) as db, db:
        cells: dict[tuple[str, ...], int] = {}
        rows = []
        for hour, *cell, count in _past(int(time.time()) // _HOUR):
            key = cells.setdefault(tuple(map(str, cell)), len(cells) + 1)
            rows.append((hour, key, count))
        keys = [(key, *cell) for cell, key in cells.items()]
        db.executemany("INSERT INTO rollup_key VALUES (?, ?, ?, ?, ?, ?)", keys)
        db.executemany("INSERT INTO rollup VALUES (?, ?, ?)", sorted(rows))


def _past(now: int) -> Iterator[tuple[int, str, str, str, str, str, int]]:
    """Give hour, source, destination, event, what, detail and count: days and nights, a page and its server."""
    for hour in range(now - _DAYS * 24, now):
        daylight = 1 + math.sin((hour % 24 - 9) / 24 * 2 * math.pi)
        for name, usual in _EVENTS.items():
            count = round(usual * (0.15 + daylight)) + (hour * 7 + usual) % 5
            yield from _counted(hour, "tag", name, count)
            if name == "checkout":
                yield hour, "server", "pinterest", name, "merged", "", count - 1
                yield hour, "server", "pinterest", name, "pair", "merged:tag", count - 1
                yield hour, "server", "pinterest", name, "duplicate", "", 1
                yield hour, "server", "pinterest", name, "pair", "duplicate:server", 1
        if hour < now - 30:
            yield from _counted(hour, "tealium", "page_visit", round(12 * (0.3 + daylight)))


def _counted(hour: int, source: str, name: str, count: int) -> Iterator[tuple[int, str, str, str, str, str, int]]:
    def cell(what: str, count: int, detail: str = "") -> tuple[int, str, str, str, str, str, int]:
        return hour, source, "pinterest", name, what, detail, count

    yield cell("accepted", count)
    yield cell("delivered", count)
    yield cell("tag_seen", count)
    yield cell("tag_met", count - count // 12)
    if count > 5:
        yield hour, source, "-", name, "dropped", "bot", count // 6
        yield cell("limited", count // 5, "CA:gpc")
        yield cell("limited", 1, "VA:us_privacy")
    for signal, share in _SIGNALS.items():
        if count * share // 100:
            yield cell("signal", count * share // 100, signal)
