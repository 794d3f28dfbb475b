"""The HTTP contract of the public listener, against a whole gateway in this process."""

import asyncio
import base64
import hashlib
import hmac
import io
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import Context, Destination, SealedEvent, hookimpl, ingress
from gateway import config as configuration
from gateway.deadline import Deadline
from gateway.ingress import public_app
from gateway.logs import HitLog
from gateway.outbox import DeadFilter
from gateway.runtime import Gateway
from gateway.sandbox import PinterestSandbox
from gateway.testing.app import complete
from gateway.testing.asgi import AppClient
from gateway.testing.doubles import NOW, Clock, RecordingDestination

ORIGIN = "https://shop.example"
SHOP = "shop.myshopify.com"
BEARER = {"Authorization": "Bearer s3cret"}
PAGE = {"Origin": ORIGIN, "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"}
CONFIG: dict[str, Any] = {
    "sites": {"shop": {}},
    "sources": {
        "tag": {"adapter": "browser_tag", "site": "shop", "allowed_origins": [ORIGIN, "null"]},
        "api": {"adapter": "browser_tag", "site": "shop", "secrets": ["s3cret"]},
        "hook": {"adapter": "shopify", "site": "shop", "secrets": ["hook-secret"], "options": {"shop": SHOP}},
        "gtm": {"adapter": "gtm", "secrets": ["s3cret"]},
    },
}


class Picky(RecordingDestination):
    """A destination that never takes anything."""

    type = "picky"

    def refuse(self, event: SealedEvent, now: float) -> str | None:
        return "no_identity"


class Destinations:
    @hookimpl
    def register_destinations(self, context: Context) -> Sequence[type[Destination]]:
        return [Picky]


class Served:
    """A gateway with its public app and a client that comes from a public address."""

    def __init__(self, gateway: Gateway, sandbox: PinterestSandbox, log: io.StringIO) -> None:
        self.gateway = gateway
        self.sandbox = sandbox
        self.log = log
        self.app = public_app(gateway.ingress, gateway.ready)
        transport = httpx.ASGITransport(self.app, client=("8.8.4.4", 5000))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gateway")

    async def post(self, source: str, body: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = headers if headers is not None else PAGE if source == "tag" else BEARER
        return await self.client.post(f"/in/{source}", content=content, headers=headers)

    async def taken(self, source: str, body: Any) -> dict[str, Any]:
        """Send a hit that must be answered 200; returns the answer."""
        answer = await self.post(source, body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def webhook(self, topic: str, body: Any, **headers: str) -> httpx.Response:
        content = json.dumps(body).encode()
        signature = base64.b64encode(hmac.new(b"hook-secret", content, hashlib.sha256).digest()).decode()
        signed = {"X-Shopify-Topic": topic, "X-Shopify-Shop-Domain": SHOP, "X-Shopify-Hmac-Sha256": signature}
        return await self.client.post("/in/hook", content=content, headers={**signed, **headers})

    async def waiting(self) -> int:
        return sum(lane.waiting for lane in (await self.gateway.outbox.counts()).lanes)

    async def drained(self) -> None:
        """Wait until every unit is delivered."""
        async with asyncio.timeout(20):
            while any(lane.waiting or lane.leased for lane in (await self.gateway.outbox.counts()).lanes):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(
    folder: Path, config: Mapping[str, Any] = CONFIG, *, deliver: bool = False, clock: Clock | None = None
) -> AsyncIterator[Served]:
    clock = clock or Clock()
    sandbox = PinterestSandbox(clock=clock)
    log = io.StringIO()
    parsed = configuration.parse(complete(config), folder / "gateway.toml")
    gateway = Gateway(
        parsed, http=AppClient(sandbox.app), clock=clock, hit_log=HitLog(log), extra_plugins={"more": Destinations()}
    )
    if deliver:
        await gateway.start()
    served = Served(gateway, sandbox, log)
    try:
        yield served
    finally:
        await served.client.aclose()
        await gateway.stop()
        sandbox.record.close()


Scenario = Callable[[Served], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    """Return a runner of one scenario against a fresh gateway."""

    def start(scenario: Scenario, **arguments: Any) -> None:
        async def main() -> None:
            async with serving(tmp_path, **arguments) as served:
                await scenario(served)

        asyncio.run(main())

    return start


def event(**fields: Any) -> dict[str, Any]:
    return {"event_name": "lead", "event_time": int(NOW) - 5, "user": {"email": "jo@example.com"}, **fields}


def assert_error(answer: httpx.Response, status: int, code: str, *, hint: str = "") -> None:
    """Check an error: status, the documented shape, a hint, and nothing of the request in it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "hint"}
    assert error["code"] == code
    assert error["message"].endswith(".")
    assert hint in error["hint"]
    assert "Traceback" not in answer.text
    assert "jo@example.com" not in answer.text


def test_one_event(run: Callable[..., None]) -> None:
    """A good event is accepted, counted, kept and delivered as the contract has it."""

    async def scenario(served: Served) -> None:
        answer = await served.taken("tag", event(event_id="e1"))
        counts = {name: answer[name] for name in ("accepted", "merged", "duplicate", "dropped", "rejected")}
        assert counts == {"accepted": 1, "merged": 0, "duplicate": 0, "dropped": 0, "rejected": 0}
        (told,) = answer["events"]
        assert (told["event_id"], told["outcome"], told["reason"]) == ("e1", "accepted", None)
        await served.drained()
        (sent,) = served.sandbox.record.events()
        assert (sent["event_id"], sent["event_name"], sent["event_time"]) == ("e1", "lead", int(NOW) - 5)
        assert sent["user_data"]["em"] == [hashlib.sha256(b"jo@example.com").hexdigest()]
        assert sent["user_data"]["client_ip_address"] == "8.8.4.4"
        again = await served.taken("tag", event(event_id="e1"))
        assert again["duplicate"] == 1
        assert again["events"][0]["of"] == "e1"

    run(scenario, deliver=True)


def test_an_array(run: Callable[..., None]) -> None:
    """Bad items of an array are rejected singly with 200; without one good item it is 400, as for a single one."""

    async def scenario(served: Served) -> None:
        answer = await served.taken(
            "tag", [event(event_id="e1"), {"no": "name"}, 7, event(event_id="e1"), event(event_id="e2")]
        )
        assert (answer["accepted"], answer["rejected"], answer["merged"] + answer["duplicate"]) == (2, 2, 1)
        assert [one["outcome"] for one in answer["events"]][:3] == ["accepted", "rejected", "rejected"]
        assert "event_name" in answer["events"][1]["message"]
        assert await served.waiting() == 2
        for body in ({"no": "name", "email": "jo@example.com"}, [{"no": "name"}, 7]):
            refused = await served.post("tag", body)
            assert_error(refused, 400, "missing_event_name")
            assert refused.json()["rejected"] == (len(body) if isinstance(body, list) else 1)

    run(scenario)


def test_a_bad_optional_field_costs_that_field(run: Callable[..., None]) -> None:
    """An event with unreadable extras is accepted, with notes and without their values."""

    async def scenario(served: Served) -> None:
        answer = await served.taken(
            "tag", event(event_id="e1", value="a lot", language=7, user={"email": "not-an-address"})
        )
        assert answer["accepted"] == 1
        notes = answer["events"][0]["notes"]
        assert any(note.startswith("value:") for note in notes)
        assert any(note.startswith("email:") for note in notes)
        assert "not-an-address" not in str(answer)

    run(scenario)


def test_errors_of_the_body(run: Callable[..., None]) -> None:
    """What is no event says what to send instead."""

    async def scenario(served: Served) -> None:
        assert_error(await served.post("tag", b"{jo@example.com"), 400, "malformed_json", hint="Send one JSON object")
        assert_error(await served.post("tag", b""), 400, "empty_body", hint="Send")
        assert_error(await served.post("tag", b"[" * 40 + b"]" * 40), 400, "too_complex", hint="flat")
        assert_error(await served.post("tag", []), 400, "empty_batch")
        assert_error(await served.post("tag", "text"), 400, "not_an_event")
        assert_error(await served.post("tag", [event()] * 1001), 413, "too_many_events", hint="Split")
        assert await served.waiting() == 0

    run(scenario)


def test_errors_of_the_sender(run: Callable[..., None]) -> None:
    """A wrong secret, signature, origin, shop, path, method or coding each have their status and hint."""

    async def scenario(served: Served) -> None:
        assert_error(await served.post("api", event(), {}), 401, "unauthorized", hint="No Authorization header")
        wrong = {"Authorization": "Bearer hunter2"}
        refused = await served.post("api", event(), wrong)
        assert_error(refused, 401, "unauthorized", hint="Bearer <secret>")
        assert "hunter2" not in refused.text
        assert "s3cret" not in refused.text
        assert_error(
            await served.post("tag", event(), {"Origin": "https://shop.example.evil.io"}),
            403,
            "forbidden_origin",
            hint="[sources.tag]",
        )
        assert_error(
            await served.client.post("/in/hook", content=b"{}"), 401, "unauthorized", hint="X-Shopify-Hmac-Sha256"
        )
        assert_error(
            await served.webhook("orders/paid", {"id": 1}, **{"X-Shopify-Shop-Domain": "other.myshopify.com"}),
            403,
            "wrong_shop",
        )
        for path in ("/in/none", "/in/", "/in/TAG", "/in/..%2Ftag", "/in/%00"):
            unknown = await served.client.post(path, content=b"{}")
            assert_error(unknown, 404, "unknown_source", hint="/in/NAME")
            assert "none" not in unknown.text
        method = await served.client.put("/in/tag", content=b"{}", headers=PAGE)
        assert_error(method, 405, "method_not_allowed", hint="GET or POST")
        assert method.headers["allow"] == "GET, OPTIONS, POST"
        assert (await served.client.get("/in/hook")).headers["allow"] == "OPTIONS, POST"
        assert_error(
            await served.post("tag", event(), {**PAGE, "Content-Encoding": "gzip"}),
            415,
            "unsupported_encoding",
            hint="Content-Encoding",
        )
        assert (await served.client.get("/")).status_code == 404
        assert (await served.client.get("/metrics")).status_code == 404
        assert await served.waiting() == 0

    run(scenario)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json; charset=utf-8", "application/x-www-form-urlencoded", ""]
)
def test_any_content_type(run: Callable[..., None], kind: str) -> None:
    """A page's beacon says text/plain and is read all the same."""

    async def scenario(served: Served) -> None:
        answer = await served.post("tag", event(event_id="e1"), {**PAGE, "Content-Type": kind} if kind else PAGE)
        assert answer.json()["accepted"] == 1

    run(scenario)


def test_the_pixel(run: Callable[..., None]) -> None:
    """GET with ?d= takes one event and answers an image; without it, or with rubbish, an error says so."""

    async def scenario(served: Served) -> None:
        data = base64.urlsafe_b64encode(json.dumps(event(event_id="e1")).encode()).decode().rstrip("=")
        answer = await served.client.get("/in/tag", params={"d": data}, headers={"Referer": f"{ORIGIN}/p"})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/gif"
        assert "no-store" in answer.headers["cache-control"]
        assert answer.content.startswith(b"GIF89a")
        assert answer.content.endswith(b";")
        assert await served.waiting() == 1
        assert_error(await served.client.get("/in/tag"), 400, "missing_payload", hint="?d=")
        assert_error(await served.client.get("/in/tag", params={"d": "%%%"}), 400, "malformed_base64")
        assert_error(await served.client.get("/in/tag", params={"d": "e30"}), 400, "missing_event_name")

    run(scenario)


def test_a_path_may_go_on(run: Callable[..., None]) -> None:
    """/in/NAME/anything is /in/NAME, for clients that append a path of their own."""

    async def scenario(served: Served) -> None:
        for number, tail in enumerate(("", "/", "/g/collect", "/a%2Fb//c")):
            answer = await served.client.post(f"/in/tag{tail}", json=event(event_id=f"e{number}"), headers=PAGE)
            assert answer.json()["accepted"] == 1
        assert_error(await served.client.get("/in/gtm/g/collect?v=2&en=purchase"), 401, "unauthorized")

    run(scenario)


def test_preflight_and_cors(run: Callable[..., None]) -> None:
    """Exactly the configured origins of a public source may read answers, errors included; others get no permission."""

    async def scenario(served: Served) -> None:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        for origin, allowed in (
            (ORIGIN, True),
            ("null", True),
            ("https://evil.io", False),
            ("https://shop.example.evil.io", False),
        ):
            flight = await served.client.options("/in/tag", headers={"Origin": origin, **asked})
            answer = await served.post("tag", {"no": "name"}, {"Origin": origin})
            assert flight.status_code == 204
            assert answer.status_code == (400 if allowed else 403)
            for one in (flight, answer):
                assert one.headers.get("access-control-allow-origin") == (origin if allowed else None)
                assert ("access-control-allow-credentials" in one.headers) is (origin == ORIGIN)
                assert "Origin" in one.headers["vary"]
            assert flight.headers["access-control-allow-methods"] == "GET, OPTIONS, POST"
            assert "content-type" in flight.headers["access-control-allow-headers"].lower()
            assert int(flight.headers["access-control-max-age"]) > 0
            assert flight.content == b""
        plain = await served.client.options("/in/tag")
        assert (plain.status_code, plain.headers["allow"]) == (204, "GET, OPTIONS, POST")
        server = await served.client.options("/in/api", headers={"Origin": ORIGIN, **asked})
        assert "access-control-allow-origin" not in server.headers
        assert (await served.client.options("/in/none")).status_code == 404

    run(scenario)


def test_a_204_announces_no_length(run: Callable[..., None]) -> None:
    """RFC 9110, 8.6: a 204 has no Content-Length."""

    async def scenario(served: Served) -> None:
        assert "content-length" not in (await served.client.options("/in/tag")).headers

    run(scenario)


def by_hand(
    app: Any, messages: Sequence[Mapping[str, Any]], *, path: str = "/in/tag", **headers: str
) -> Awaitable[tuple[int, dict[str, str], bytes, int]]:
    """Call the app with these messages; gives status, headers, body, and how many messages it took. Then it hangs."""

    async def call() -> tuple[int, dict[str, str], bytes, int]:
        left, sent = list(messages), []

        async def receive() -> Mapping[str, Any]:
            if not left:
                await asyncio.Event().wait()
            return left.pop(0)

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message)

        given = {**PAGE, **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "client": ("8.8.4.4", 1),
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        }
        async with asyncio.timeout(10):
            await app(scope, receive, send)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "a cut-off body must leave no cancellation behind"
        got = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], got, sent[1]["body"], len(messages) - len(left)

    return call()


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_the_limit_counts_what_arrives(run: Callable[..., None]) -> None:
    """A body is cut off at its limit whatever Content-Length says, and an announced giant is not read at all."""

    async def scenario(served: Served) -> None:
        chunk = b" " * (256 << 10)
        for headers in (
            {},
            {"content_length": "10"},
            {"content_length": "-1"},
            {"content_length": "abc"},
            {"content_length": "²"},
        ):
            status, _, body, read = await by_hand(served.app, [part(chunk)] * 50, **headers)
            assert (status, json.loads(body)["error"]["code"]) == (413, "too_large")
            assert read == 5
        status, _, _, read = await by_hand(served.app, [part(chunk)], content_length=str((1 << 20) + 1))
        assert (status, read) == (413, 0)
        good = json.dumps(event(event_id="e1")).encode()
        status, _, body, _ = await by_hand(
            served.app, [part(good[:9]), part(b""), part(good[9:], more=False)], content_length="1"
        )
        assert (status, json.loads(body)["accepted"]) == (200, 1)
        exact = good + b" " * ((1 << 20) - len(good))
        assert (await by_hand(served.app, [part(exact, more=False)]))[0] == 200
        assert (await by_hand(served.app, [part(exact + b" ", more=False)]))[0] == 413

    run(scenario)


def test_a_server_source_may_send_more(run: Callable[..., None]) -> None:
    """Two megabytes are too many for a page and fine for a server; nine are too many for both."""

    async def scenario(served: Served) -> None:
        big = json.dumps(event(event_id="e1")).encode() + b" " * (2 << 20)
        assert (await served.post("tag", big)).status_code == 413
        assert (await served.taken("api", big))["accepted"] == 1
        assert (await served.post("api", big + b" " * (7 << 20))).status_code == 413

    run(scenario)


def test_a_sender_that_goes_away(run: Callable[..., None]) -> None:
    """Half a body and a lost connection is no event."""

    async def scenario(served: Served) -> None:
        status, _, body, _ = await by_hand(served.app, [part(b'{"event_name": "lead"}'), {"type": "http.disconnect"}])
        assert (status, json.loads(body)["error"]["code"]) == (400, "disconnected")
        assert await served.waiting() == 0

    run(scenario)


def test_a_slow_body_is_cut_off(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not arrive is answered 408, and costs neither the task nor the next hit."""
    monkeypatch.setattr(ingress, "_deadline", Deadline(0.01))

    async def scenario(served: Served) -> None:
        (status, _, body, _), other = await asyncio.gather(
            by_hand(served.app, [part(b"{")]), served.taken("tag", event(event_id="e1"))
        )
        assert (status, json.loads(body)["error"]["code"]) == (408, "slow_body")
        assert other["accepted"] == 1

    run(scenario)


def test_a_cancelled_request_is_not_a_slow_one(run: Callable[..., None]) -> None:
    """A server that shuts down cancels requests: that is no 408."""

    async def scenario(served: Served) -> None:
        task = asyncio.ensure_future(by_hand(served.app, [part(b"{")]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario)


def test_several_destinations(run: Callable[..., None]) -> None:
    """Each destination's fate is listed, and the event counts once, under its best."""
    config = {**CONFIG, "destinations": {"first": {"type": "picky"}, "second": {}, "third": {"type": "picky"}}}

    async def scenario(served: Served) -> None:
        answer = await served.taken("tag", event(event_id="e1"))
        assert (answer["accepted"], answer["dropped"], len(answer["events"])) == (1, 0, 1)
        (told,) = answer["events"]
        assert told["outcome"] == "accepted"
        assert [(one["destination"], one["outcome"], one["reason"]) for one in told["destinations"]] == [
            ("first", "dropped", "no_identity"),
            ("second", "accepted", None),
            ("third", "dropped", "no_identity"),
        ]

    run(scenario, config=config)


def test_one_purchase_from_two_sources(run: Callable[..., None]) -> None:
    """The page and the server tell one order: by id, or by the order alone, it is one event."""

    async def scenario(served: Served) -> None:
        order = event(event_name="checkout", order_id="1001", value=5, currency="EUR")
        first = await served.taken("tag", {**order, "event_id": "page-1"})
        assert first["accepted"] == 1
        for copy in ({**order, "event_id": "page-1"}, {**order, "event_id": "server-1"}, order):
            answer = await served.taken("api", copy)
            assert (answer["accepted"], answer["merged"] + answer["duplicate"]) == (0, 1)
            assert answer["events"][0]["of"] == "page-1"
        assert await served.waiting() == 1
        assert (await served.taken("api", {**order, "order_id": "1002"}))["accepted"] == 1
        assert (await served.taken("api", {**order, "event_name": "lead", "event_id": "page-1"}))["accepted"] == 1

    run(scenario)


def test_another_sites_order_is_another_order(run: Callable[..., None]) -> None:
    """Two shops may both have an order 1001."""
    other = {"adapter": "browser_tag", "secrets": ["s3cret"]}
    config = {**CONFIG, "sources": {**CONFIG["sources"], "other": other}}

    async def scenario(served: Served) -> None:
        order = event(event_name="checkout", order_id="1001", value=5, currency="EUR")
        assert (await served.taken("api", order))["events"][0]["event_id"] == "shop-1001"
        second = await served.taken("other", order)
        assert (second["accepted"], second["events"][0]["event_id"]) == (1, "other-1001")

    run(scenario, config=config)


def test_test_events_travel_apart(run: Callable[..., None]) -> None:
    """A test is accepted beside a live event of the same id and sent in its own call; a page cannot ask for one."""

    async def scenario(served: Served) -> None:
        assert (await served.taken("api", event(event_id="e1")))["accepted"] == 1
        assert (await served.taken("api", event(event_id="e1", test=True)))["accepted"] == 1
        asked = await served.taken("tag", event(event_id="e2", test=True))
        assert asked["events"][0]["notes"] == ["test: server_sources_only"]
        await served.drained()
        assert sorted(one["event_id"] for one in served.sandbox.record.events()) == ["e1", "e2"]
        assert [one["event_id"] for one in served.sandbox.tests.events()] == ["e1"]

    run(scenario, deliver=True)


def test_consent(run: Callable[..., None]) -> None:
    """A denial drops, is remembered for later copies, withdraws a waiting one, and a newer permission ends it."""

    async def scenario(served: Served) -> None:
        denied = {"consent": {"marketing": "denied"}}
        first = await served.taken("tag", event(event_id="e1", **denied))
        assert (first["dropped"], first["events"][0]["reason"]) == (1, "consent")
        later = await served.taken("api", event(event_id="e1"))
        assert (later["dropped"], later["events"][0]["reason"]) == (1, "consent")
        remembered = await served.taken("api", event(event_id="e3", event_time=int(NOW)))
        assert (remembered["dropped"], remembered["events"][0]["reason"]) == (1, "consent"), "the same person"
        other = {"user": {"email": "max@example.com"}}
        assert (await served.taken("tag", event(event_id="e2", **other)))["accepted"] == 1
        assert await served.waiting() == 1
        withdrawn = await served.taken("tag", event(event_id="e2", **other, **denied))
        assert withdrawn["events"][0]["reason"] == "consent"
        assert await served.waiting() == 0
        ended = [row for row in served.gateway.tally.events if row.event == "lead" and row.destination == "pinterest"]
        assert any((row.fate, row.reason) == ("dropped", "consent") for row in ended)
        newer = event(event_id="e1", event_time=int(NOW), consent={"marketing": "granted"})
        assert (await served.taken("tag", newer))["accepted"] == 1
        assert b"jo@example.com" not in (await _store(served))

    run(scenario)


async def _store(served: Served) -> bytes:
    folder = served.gateway.parts.config.folder
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


def test_no_raw_identifier_reaches_disk_log_or_answer(run: Callable[..., None]) -> None:
    """What the store's files, the hit log and the answer hold names nobody."""

    async def scenario(served: Served) -> None:
        person = {
            "email": "jo@example.com",
            "phone": "+14155552671",
            "first_name": "Johanna",
            "external_id": "crm-4711",
        }
        url = "https://shop.example/p?email=jo@example.com#jo@example.com"
        answer = await served.taken(
            "tag", event(event_id="e1", user=person, event_source_url=url, search_string="jo@example.com")
        )
        served.gateway.hit_log.flush()
        found = (await _store(served)) + str(answer).encode() + served.log.getvalue().encode()
        for raw in (b"jo@example.com", b"jo%40example.com", b"4155552671", b"Johanna", b"crm-4711"):
            assert raw not in found
        assert hashlib.sha256(b"jo@example.com").hexdigest().encode() in found

    run(scenario)


def test_an_erasure_reaches_what_waits(run: Callable[..., None]) -> None:
    """Shopify's customers/redact erases a person's queued events of the whole site, and refuses their older copies."""

    async def scenario(served: Served) -> None:
        assert (await served.taken("tag", event(event_id="e1", user={"email": " JO@example.com"})))["accepted"] == 1
        assert (await served.taken("api", event(event_id="e2", user={"email": "other@example.com"})))["accepted"] == 1
        body = {
            "shop_id": 1,
            "shop_domain": SHOP,
            "customer": {"id": 9, "email": "jo@example.com"},
            "orders_to_redact": [],
        }
        answer = await served.webhook("customers/redact", body)
        assert (answer.status_code, answer.json()["accepted"]) == (200, 1)
        assert await served.waiting() == 1
        late = await served.taken("tag", event(event_id="e3", event_time=int(NOW) - 60))
        assert (late["dropped"], late["events"][0]["reason"]) == (1, "erased")
        assert await served.gateway.outbox.dead(DeadFilter()) == []

    run(scenario)


def test_health(run: Callable[..., None]) -> None:
    """Liveness says that the process answers; readiness that the store can be written, and 503 when it cannot."""

    async def scenario(served: Served) -> None:
        for path in ("/livez", "/readyz"):
            answer = await served.client.get(path)
            assert (answer.status_code, answer.text) == (200, "ok\n")
        await served.gateway.outbox.close()
        served.gateway._ready = (-1e9, None)  # as a second later
        assert (await served.client.get("/readyz")).status_code == 503
        assert (await served.client.get("/livez")).status_code == 200

    run(scenario)


def test_a_store_that_cannot_be_written(run: Callable[..., None]) -> None:
    """Nothing is accepted that was not committed: 503 with Retry-After and a hint."""

    async def scenario(served: Served) -> None:
        await served.gateway.outbox.close()
        answer = await served.post("tag", event(event_id="e1"))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert_error(answer, 503, answer.json()["error"]["code"], hint="Nothing was accepted")
        assert answer.headers["access-control-allow-origin"] == ORIGIN

    run(scenario)


def test_a_bug_of_ours(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody expected is a 503 without traceback or payload, and is logged for the operator."""

    async def broken(*_: Any) -> None:
        raise RuntimeError("jo@example.com")

    async def scenario(served: Served) -> None:
        monkeypatch.setattr(served.gateway.pipeline, "handle", broken)
        answer = await served.post("tag", event(event_id="e1"))
        assert_error(answer, 503, "internal")
        assert int(answer.headers["retry-after"]) > 0
        assert served.gateway.tally.hits[("tag", "503")] == 1

    with caplog.at_level(logging.ERROR):
        run(scenario)
    assert any(record.getMessage() == "hit_failed" for record in caplog.records)


def test_the_hit_log(run: Callable[..., None]) -> None:
    """Each hit is one JSON line with source, status, counts and ids; unknown paths do not choose its labels."""

    async def scenario(served: Served) -> None:
        await served.taken("tag", [event(event_id="e1"), {"no": "name"}])
        await served.client.post("/in/evil%0a%7B", content=b"{}")
        served.gateway.hit_log.flush()
        good, unknown = map(json.loads, served.log.getvalue().splitlines())
        assert (good["source"], good["status"], good["accepted"], good["rejected"], good["ids"]) == (
            "tag",
            200,
            1,
            1,
            ["e1"],
        )
        assert (unknown["source"], unknown["status"], unknown["reason"]) == ("-", 404, "unknown_source")
        assert served.gateway.tally.hits == {("tag", "200"): 1, ("-", "404"): 1}

    run(scenario)


def test_many_hits_at_once(run: Callable[..., None]) -> None:
    """Hits that arrive together share commits, and each gets its own answer."""

    async def scenario(served: Served) -> None:
        started = time.monotonic()
        answers = await asyncio.gather(
            *(served.taken("tag", event(event_id=f"e{number % 100}")) for number in range(200))
        )
        assert sum(answer["accepted"] for answer in answers) == 100
        assert sum(answer["merged"] + answer["duplicate"] for answer in answers) == 100
        for number, answer in enumerate(answers):
            assert answer["events"][0].get("of", answer["events"][0]["event_id"]) == f"e{number % 100}"
        assert await served.waiting() == 100
        assert time.monotonic() - started < 10

    run(scenario)
