"""
Fuzzing of both listeners: what is sent, the gateway that gets it (in this process, or a real one), and the judge who
says what must never happen. What inputs there are is in :mod:`tests.harness.fuzz_inputs`.
"""

import asyncio
import base64
import gc
import hashlib
import hmac
import io
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import msgspec

from gateway import config as configuration
from gateway.edge import Edge
from gateway.event import Struct
from gateway.ingress import public_app
from gateway.logs import HitLog, JsonFormatter
from gateway.operator import operator_app
from gateway.outcome import Settled
from gateway.runtime import Gateway
from gateway.testing.app import Ends, complete, observing
from gateway.testing.asgi import AppClient
from gateway.testing.doubles import Clock

#: Planted in inputs; no answer and no log line may repeat it, but for an event's own id.
CANARY = "kestrel7q"
SECRET = "fuzz-secret"
HOOK_SECRET = "fuzz-hook-secret"
SHOP = "fuzz.myshopify.com"
ORIGIN = "https://shop.example"
#: Every kind of source; nothing limits their rate, which is not what is looked for here.
TABLES: dict[str, Any] = {
    "server": {"rate_per_s": 0.0, "trusted_proxies": ["127.0.0.1/32"]},
    "sites": {"shop": {"default_country": "US"}, "gtm": {"default_country": "DE"}, "tealium": {}},
    "sources": {
        "tag": {"adapter": "browser_tag", "site": "shop", "allowed_origins": [ORIGIN, "null"]},
        "api": {"adapter": "browser_tag", "site": "shop", "secrets": [SECRET]},
        "hook": {"adapter": "shopify", "site": "shop", "secrets": [HOOK_SECRET], "options": {"shop": SHOP}},
        "pixel": {"adapter": "shopify_pixel", "site": "shop", "allowed_origins": [ORIGIN, "null"]},
        "gtm": {"adapter": "gtm", "site": "gtm", "secrets": [SECRET]},
        "ga": {"adapter": "gtm", "site": "gtm", "allowed_origins": [ORIGIN]},
        "tealium": {"adapter": "tealium", "site": "tealium", "secrets": [SECRET]},
        "utag": {"adapter": "tealium", "site": "tealium", "allowed_origins": [ORIGIN]},
    },
}
SOURCES: tuple[str, ...] = tuple(TABLES["sources"])
ADAPTERS: dict[str, str] = {name: table["adapter"] for name, table in TABLES["sources"].items()}
#: The parameter of a GET that holds JSON, and whether it is base64.
PIXELS = {"tag": ("d", True), "api": ("d", True), "gtm": ("dtdc", True), "ga": ("dtcd", False),
          "tealium": ("data", False), "utag": ("data", False)}  # fmt: skip
_STATUSES = frozenset({200, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 429, 431})
#: On any machine.
_HANG_S = 20.0
_FATES = ("accepted", "merged", "duplicate", "dropped", "rejected")
Headers = tuple[tuple[bytes, bytes], ...]


class Input(Struct, frozen=True, kw_only=True):
    """One request, byte for byte; ``target`` is path and query as they stand in the request line."""

    label: str
    target: bytes
    method: str = "POST"
    headers: Headers = ()
    body: bytes = b""
    listener: str = "public"
    version: str = "1.1"

    def shown(self) -> str:
        """Return it short enough for a failed test's message; the whole of it is worth a file in ``fuzz_corpus``."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")[:120]) for name, value in self.headers]
        return (
            f"{self.label}: {self.method} {self.target[:300]!r} {headers} "
            f"{len(self.body)} bytes: {self.body[:600]!r}"
        )  # fmt: skip


class Answer(Struct, frozen=True, kw_only=True):
    """
    What came back. Status 0: the connection ended without an answer.

    ``seconds`` from sending to the last byte; ``cpu_s`` of this process meanwhile, where the gateway runs in it.
    """

    status: int
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    cpu_s: float | None = None


def proof(source: str, body: bytes) -> Headers:
    """Return the headers that make a body authentic at a source."""
    if source in ("api", "gtm", "tealium"):
        return ((b"authorization", f"Bearer {SECRET}".encode()),)
    if source == "hook":
        digest = hmac.digest(HOOK_SECRET.encode(), body, hashlib.sha256)
        return ((b"x-shopify-hmac-sha256", base64.b64encode(digest)), (b"x-shopify-shop-domain", SHOP.encode()))
    return ((b"origin", ORIGIN.encode()),)


def hit(source: str, body: bytes, label: str, headers: Headers = (), tail: bytes = b"") -> Input:
    """Return an authentic POST; ``headers`` win over the proof's of the same name."""
    names = {name for name, _ in headers}
    proven = tuple(pair for pair in proof(source, body) if pair[0] not in names)
    return Input(label=label, target=b"/in/" + source.encode() + tail, headers=(*proven, *headers), body=body)


def pixel(source: str, query: bytes, label: str, headers: Headers = ()) -> Input:
    """Return an authentic GET."""
    target = b"/in/" + source.encode() + b"?" + query
    return Input(label=label, method="GET", target=target, headers=(*proof(source, b""), *headers))


class World:
    """
    A whole gateway in this process, without sockets; nothing is delivered, so that what was accepted can be counted.

    ``log`` has every line that it wrote.
    """

    def __init__(self, folder: Path, plugins: Mapping[str, object] | None = None) -> None:
        self.folder = folder
        self._thresholds = gc.get_threshold()
        gc.set_threshold(20_000, 50, 100)  # as gateway.server has it
        self.loop = asyncio.new_event_loop()
        self.log = io.StringIO()
        self._ends = Ends()
        self._handler = logging.StreamHandler(self.log)
        self._handler.setFormatter(JsonFormatter())
        logging.getLogger().addHandler(self._handler)
        parsed = configuration.parse(complete(TABLES), folder / "gateway.toml")
        try:
            self.gateway = self.loop.run_until_complete(self._made(parsed, plugins or {}))
        except BaseException:
            self._close()
            raise
        self._apps = {
            "public": Edge(public_app(self.gateway.ingress, self.gateway.ready)),
            "operator": Edge(operator_app(self.gateway)),
        }  # fmt: skip

    async def _made(self, parsed: Any, plugins: Mapping[str, object]) -> Gateway:
        return Gateway(
            parsed, http=AppClient(None), clock=Clock(), hit_log=HitLog(self.log),
            extra_plugins={**plugins, "testing": observing(self._ends)},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run_until_complete(self.gateway.stop())
        self._close()

    def _close(self) -> None:
        logging.getLogger().removeHandler(self._handler)
        self.loop.close()
        gc.set_threshold(*self._thresholds)

    def send(self, *inputs: Input) -> list[Answer]:
        """Send inputs at the same time; returns their answers in order."""
        return self.loop.run_until_complete(self._send(inputs))

    async def _send(self, inputs: Sequence[Input]) -> list[Answer]:
        return await asyncio.gather(*map(self._one, inputs))

    async def _one(self, given: Input) -> Answer:
        path, _, query = given.target.partition(b"?")
        got: dict[str, Any] = {"status": 0, "headers": {}, "body": b""}
        waiting: list[dict[str, Any]] = [{"type": "http.request", "body": given.body, "more_body": False}]
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not waiting:
                await gone.wait()
                return {"type": "http.disconnect"}
            return waiting.pop()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                got["status"] = message["status"]
                got["headers"] = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            else:
                got["body"] += message.get("body", b"")

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": given.method, "scheme": "http",
            "path": unquote(path.decode("latin-1")), "raw_path": path, "query_string": query, "root_path": "",
            "headers": [(b"host", b"gateway"), (b"content-length", b"%d" % len(given.body)), *given.headers],
            "client": ("8.8.4.4", 50_000), "server": ("127.0.0.1", 8000), "state": {},
        }  # fmt: skip
        started, worked = time.perf_counter(), time.process_time()
        try:
            await self._apps[given.listener](scope, receive, send)
        except Exception as error:  # noqa: BLE001 - a server would answer 500 and print a traceback
            got = {"status": 500, "headers": {}, "body": f"raised {type(error).__name__}: {error}".encode()}
        gone.set()
        cpu_s = time.process_time() - worked
        return Answer(**got, seconds=time.perf_counter() - started, cpu_s=cpu_s)

    def kept(self) -> int:
        """Units that were made so far: those that wait, and those that ended."""
        counts = self.loop.run_until_complete(self.gateway.outbox.counts())
        waiting = sum(lane.waiting + lane.leased + lane.dead for lane in counts.lanes)
        return waiting + len(self._ends.settled_units)

    def ended(self) -> Sequence[Settled]:
        """Units that a later hit ended."""
        return self._ends.settled_units

    def lines(self) -> str:
        """Return the log since the last time."""

        async def settle() -> None:
            await asyncio.sleep(0.06)

        self.loop.run_until_complete(settle())
        text = self.log.getvalue()
        self.log.seek(0)
        self.log.truncate()
        return text


def _took(answer: Answer) -> float:
    return answer.seconds if answer.cpu_s is None else answer.cpu_s


class Judge:
    """
    Says what must never happen; ``problems`` has it all, each with its input.

    Args:
        limit_s: The longest time that an answer may take; by the processor's time where that is known, which other work
            on the machine does not stretch.
        bare: A server may answer by itself, without JSON.
    """

    def __init__(self, limit_s: float = 1.0, *, bare: bool = False) -> None:
        self._limit_s = limit_s
        self._bare = bare
        self.problems: list[str] = []
        self.inputs = 0
        self.accepted = 0
        self.statuses: Counter[int] = Counter()
        self.doors: Counter[str] = Counter()  # fates at the door, by the log
        self.slowest: tuple[float, str] = (0.0, "")

    def look(self, given: Input, answer: Answer) -> list[str]:
        """Judge one answer; returns what is wrong with it."""
        self.inputs += 1
        self.statuses[answer.status] += 1
        self.slowest = max(self.slowest, (_took(answer), given.label))
        found = list(self._wrong(given, answer))
        self.problems += [
            f"{problem}\n  {given.shown()}\n  → {answer.status} {answer.body[:300]!r}" for problem in found
        ]
        return found

    def _wrong(self, given: Input, answer: Answer) -> Iterable[str]:
        if answer.status == 0:
            if not self._bare:
                yield "no answer"
            return
        if answer.status not in _STATUSES:
            yield f"status {answer.status}"
            return
        if _took(answer) > self._limit_s or answer.seconds > _HANG_S:
            yield f"took {answer.seconds:.2f} s"
        if b"Traceback" in answer.body:
            yield "a traceback"
        if answer.headers.get("content-type", "").startswith("application/json"):
            yield from self._json(given, answer)
        elif answer.status >= 400 and given.method != "HEAD" and not (self._bare and answer.status in (400, 414, 431)):
            if not answer.headers.get("content-type", "").startswith("text/html"):  # the page that a login ends on
                yield "an error that is not JSON"
        elif CANARY.encode() in answer.body:
            yield "the payload in the answer"

    def _json(self, given: Input, answer: Answer) -> Iterable[str]:
        if given.method == "HEAD":
            return
        try:
            told = json.loads(answer.body)
        except ValueError:
            yield "an answer that is not JSON"
            return
        if answer.status >= 400:
            error = told.get("error")
            if not isinstance(error, dict) or not error.keys() >= {"code", "message", "hint"}:
                yield "an error of another form"
        if given.listener == "public":
            yield from self._counts(answer, told)

    def _counts(self, answer: Answer, told: Any) -> Iterable[str]:
        events = told.pop("events", [])
        for one in events:
            one.pop("event_id", None)
            one.pop("of", None)
            # a key that looks like a field's name is named on purpose: docs/event.md
            one["notes"] = [note for note in one.get("notes", ()) if note != f"{CANARY}: unknown_field"]
            self.accepted += one["outcome"] == "accepted" and one["reason"] is None
        if "accepted" in told and sum(told[fate] for fate in _FATES) != len(events):
            yield "counts that are not those of the events"
        if answer.status == 200 and "accepted" not in told:
            yield "an answer without counts"
        if CANARY in json.dumps([told, events], ensure_ascii=False):
            yield "the payload in the answer"

    def read_log(self, text: str) -> None:
        """Judge the log: each line one JSON object, no traceback, nothing of a payload but events' ids."""
        for line in text.split("\n"):
            if not line:
                continue
            try:
                told = json.loads(line)
            except ValueError:
                self.problems.append(f"a log line that is not JSON: {line[:300]}")
                continue
            if len(line.splitlines()) != 1:
                self.problems.append(f"a log line that some readers split: {line[:300]}")
            if (told.get("level") == "error" and told.get("event") != "alarm") or "exception" in told:
                self.problems.append(f"an error in the log: {line[:300]}")
            if told.get("event") == "hit":
                self.doors.update({fate: told.get(fate, 0) for fate in _FATES})
                if told["method"] == "GET":
                    self.accepted += told.get("accepted", 0)
            told.pop("ids", None)
            if CANARY in json.dumps(told, ensure_ascii=False):
                self.problems.append(f"the payload in the log: {line[:300]}")

    def verdict(self) -> None:
        """Fail with the first problems."""
        assert not self.problems, f"{len(self.problems)} problems, the first:\n" + "\n".join(self.problems[:5])


def load_corpus(folder: Path) -> list[Input]:
    """Return the inputs that once failed."""
    found = []
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text())
        body = base64.b64decode(told["body64"]) if "body64" in told else told.get("body", "").encode("latin-1")
        headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in told.get("headers", []))
        target, method = told["target"].encode("latin-1"), told.get("method", "POST")
        given = Input(
            label=path.stem, target=target, method=method, headers=headers, body=body,
            listener=told.get("listener", "public"),
        )  # fmt: skip
        source = told.get("source")
        if source:
            given = Input(
                label=given.label, target=target, method=method, headers=(*proof(source, body), *headers), body=body
            )
        found.append(given)
    return found


def rss_mb() -> float:
    """Return this process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1_048_576
