"""The stand-in of the Pinterest Conversions API: what it accepts, what it counts and how it fails."""

import asyncio
import contextlib
import functools
import hashlib
import json
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn

from gateway.sandbox import Fault, PinterestSandbox, SandboxConfig

NOW = 1_790_000_000.0
SPEC = Path(__file__).resolve().parents[2] / "shared" / "specs" / "pinterest-v5.strict.yaml"
URL = "/v5/ad_accounts/549000000001/events"
BEARER = {"authorization": "Bearer sandbox-token"}
Client = httpx.AsyncClient
Json = dict[str, Any]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def event(event_id: Any = "order-1", **changes: Any) -> Json:
    base: Json = {
        "event_name": "checkout",
        "action_source": "web",
        "event_time": int(NOW) - 10,
        "event_id": event_id,
        "user_data": {"em": [sha("ada@shop.example")]},
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not ...}


def body(*events: Json) -> Json:
    return {"data": list(events or (event(),))}


def new(clock: Callable[[], float] = lambda: NOW, **config: Any) -> PinterestSandbox:
    return PinterestSandbox(SandboxConfig(**config), clock=clock)


def client(sandbox: PinterestSandbox) -> Client:
    transport = httpx.ASGITransport(app=sandbox.app)
    return Client(transport=transport, base_url="http://sandbox.example", headers=BEARER)


def calls(sandbox: PinterestSandbox, *requests: Json | bytes, url: str = URL, **options: Any) -> list[httpx.Response]:
    """Send each body in turn, in process."""

    async def run() -> list[httpx.Response]:
        async with client(sandbox) as http:
            return [
                await http.post(url, content=one if isinstance(one, bytes) else json.dumps(one), **options)
                for one in requests
            ]

    return asyncio.run(run())


@contextlib.contextmanager
def served(app: Any, engine: str) -> Iterator[str]:
    """Run an app on a real server in a thread, on a free port; yields its address."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        serve = {"hypercorn": _hypercorn, "uvicorn": _uvicorn}[engine]
        thread = threading.Thread(target=loop.run_until_complete, args=(serve(app, listener, stop),))
        thread.start()
        try:
            yield address
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(timeout=20)
            loop.close()


async def _hypercorn(app: Any, listener: socket.socket, stop: asyncio.Event) -> None:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.loglevel = "WARNING"
    config.graceful_timeout = 1.0
    await hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait)


async def _uvicorn(app: Any, listener: socket.socket, stop: asyncio.Event) -> None:
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)

    async def stopper() -> None:
        await stop.wait()
        server.should_exit = True

    task = asyncio.create_task(stopper())
    await server.serve(sockets=[listener])
    await task


# What is refused, against the official schema


USER = {"em": [sha("ada@shop.example")]}
WEB = {"client_ip_address": "192.0.2.7", "client_user_agent": "Mozilla/5.0"}

TABLE: list[tuple[str, Any, int]] = [
    ("minimal", body(), 200),
    ("full user", body(event(user_data={**USER, **WEB, "click_id": None, "ph": [sha("1")], "ge": []})), 200),
    ("client identity", body(event(user_data=WEB)), 200),
    ("device identity", body(event(user_data={"hashed_maids": [sha("idfa")]})), 200),
    ("open user_data", body(event(user_data={**USER, "shoe_size": "42"})), 200),
    ("empty em list", body(event(user_data={"em": []})), 200),
    ("custom data", body(event(custom_data={"value": "12.50", "currency": "EUR", "num_items": 2})), 200),
    ("null custom value", body(event(custom_data={"value": None, "currency": None, "order_id": None})), 200),
    (
        "contents",
        body(event(custom_data={"contents": [{"id": "a", "item_price": "1e2", "quantity": 1}]})),
        200,
    ),
    ("newest name", body(event(event_name="start_trial")), 200),
    (
        "app",
        body(event(action_source="app_ios", app_info={"app_id": "1"}, device_info={"cpu_cores": 8})),
        200,
    ),
    ("offline", body(event(action_source="offline", wifi=False, opt_out=True)), 200),
    ("a thousand", body(*(event(str(index)) for index in range(1000))), 200),
    ("no data", {}, 400),
    ("not an object", [event()], 400),
    ("empty data", {"data": []}, 400),
    ("1001 events", body(*(event(str(index)) for index in range(1001))), 400),
    ("extra top key", {**body(), "test": True}, 400),
    ("extra event key", body(event(category_name="x")), 400),
    ("extra custom key", body(event(custom_data={"amount": "1"})), 400),
    ("extra content key", body(event(custom_data={"contents": [{"sku": "1"}]})), 400),
    ("extra app key", body(event(app_info={"id": "1"})), 400),
    ("extra device key", body(event(device_info={"colour": "red"})), 400),
    ("no event_name", body(event(event_name=...)), 400),
    ("no action_source", body(event(action_source=...)), 400),
    ("no event_time", body(event(event_time=...)), 400),
    ("no event_id", body(event(event_id=...)), 400),
    ("no user_data", body(event(user_data=...)), 400),
    ("null event_id", body(event(event_id=None)), 400),
    ("number as event_id", body(event(event_id=12)), 400),
    ("text as event_time", body(event(event_time="1790000000")), 400),
    ("fractional event_time", body(event(event_time=1790000000.5)), 400),
    ("boolean as event_time", body(event(event_time=True)), 400),
    ("number as value", body(event(custom_data={"value": 12.5})), 400),
    ("text as num_items", body(event(custom_data={"num_items": "2"})), 400),
    ("null num_items", body(event(custom_data={"num_items": None})), 400),
    ("text as em", body(event(user_data={"em": sha("a")})), 400),
    ("null em", body(event(user_data={"em": None, **WEB})), 400),
    ("phone only", body(event(user_data={"ph": [sha("1")]})), 400),
    ("address only", body(event(user_data={"client_ip_address": "192.0.2.7"})), 400),
    ("long app name", body(event(app_info={"app_name": "x" * 201})), 400),
    ("unknown form factor", body(event(device_info={"form_factor": "fridge"})), 400),
    ("too many cores", body(event(device_info={"cpu_cores": 1153})), 400),
    ("one bad among good", body(event("a"), event("b", wifi="yes")), 400),
    ("clear e-mail", body(event(user_data={"em": ["ada@shop.example"]})), 422),
    ("upper-case hash", body(event(user_data={**USER, "ph": [sha("1").upper()]})), 422),
    ("short hash", body(event(user_data={**USER, "fn": [sha("ada")[:63]]})), 422),
    ("unknown action_source", body(event(action_source="email")), 422),
    ("milliseconds", body(event(event_time=int(NOW) * 1000)), 422),
    ("before 2001", body(event(event_time=86_400)), 422),
    ("empty event_id", body(event("")), 422),
]


@functools.cache
def official() -> Any:
    """Return a validator of the request body after the strict variant of the official description."""
    if not SPEC.exists():
        pytest.skip("the official description (../shared/specs) is not beside this checkout")
    # Imported here: only this test needs them, and the first costs half a second.
    import yaml
    from openapi_schema_validator import OAS30Validator
    from referencing import Registry
    from referencing.jsonschema import DRAFT4

    document = yaml.safe_load(SPEC.read_text(encoding="utf-8"))
    registry: Any = Registry().with_resource("urn:spec", DRAFT4.create_resource(document))
    return OAS30Validator({"$ref": "urn:spec#/components/schemas/ConversionEvents"}, registry=registry)


@pytest.mark.parametrize(("content", "status"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_answers_by_schema_and_content(content: Any, status: int) -> None:
    """A breach of the schema is 400, a breach of a content rule 422, anything else 200."""
    (answer,) = calls(new(), content)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(("content", "status"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_agrees_with_the_official_schema(content: Any, status: int) -> None:
    """The strict official schema accepts exactly what is answered 200."""
    assert official().is_valid(content) is (status == 200)


@pytest.mark.parametrize(
    "custom",
    [{"value": "twelve"}, {"value": ""}, {"value": "nan"}, {"value": "1_0"}, {"predicted_ltv": "1,5"},
     {"currency": "EURO"}, {"currency": "€€€"}, {"contents": [{"item_price": "free"}]}],
)  # fmt: skip
def test_amounts_that_are_not_numbers_fail(custom: Json) -> None:
    """Amounts that cannot be read as a number and currencies that are no code fail their event."""
    (answer,) = calls(new(), body(event(custom_data=custom)))
    assert answer.status_code == 422
    assert "custom_data." in answer.json()["details"]["events"][0]["error_message"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"data": NaN}', b"\xff", b"[" * 100_000])
def test_malformed_json_is_refused(content: bytes) -> None:
    """A body that is not JSON is 400 with Pinterest's code."""
    (answer,) = calls(new(), content)
    assert (answer.status_code, answer.json()["code"]) == (400, 4196)


def test_unknown_key_is_named() -> None:
    """The message names the unknown key as Pinterest does, and the refusal is kept for a look."""
    sandbox = new()
    (answer,) = calls(sandbox, body(event(category_name="x")))
    assert "Additional properties are not allowed ('category_name' was unexpected)" in answer.json()["message"]
    assert "category_name" in sandbox.record.refusals[0]
    assert sandbox.record.counts.received == 0


@pytest.mark.parametrize("account", ["abc", "1" * 19, "12a"])
def test_account_must_be_digits(account: str) -> None:
    """An ad account id is 1 to 18 digits."""
    (answer,) = calls(new(), body(), url=f"/v5/ad_accounts/{account}/events")
    assert answer.status_code == 400


def test_success_is_as_seen_in_the_wild() -> None:
    """A processed event carries empty texts."""
    (answer,) = calls(new(), body())
    processed = {"status": "processed", "error_message": "", "warning_message": ""}
    assert answer.json() == {"num_events_received": 1, "num_events_processed": 1, "events": [processed]}


def test_good_events_of_a_mixed_request_are_kept() -> None:
    """422 lists each event in order, and the good ones are recorded."""
    sandbox = new()
    (answer,) = calls(sandbox, body(event("a"), event("b", user_data={"em": ["x"]}), event("c")))
    details = answer.json()["details"]
    assert (details["num_events_received"], details["num_events_processed"]) == (3, 2)
    assert [one["status"] for one in details["events"]] == ["processed", "failed", "processed"]
    assert sandbox.record.ids() == {"checkout a": 1, "checkout c": 1}
    assert sandbox.record.counts.failed == 1


def test_unknown_name_is_a_warning() -> None:
    """A name that nobody defined is kept with a warning; an advertiser-defined one without."""
    answers = calls(new(event_names=frozenset({"quiz"})), body(event(event_name="poll"), event(event_name="quiz")))
    warnings = [one["warning_message"] for one in answers[0].json()["events"]]
    assert answers[0].status_code == 200
    assert warnings[0]
    assert not warnings[1]


def test_future_is_refused_beyond_the_skew() -> None:
    """event_time may be ahead of receipt by the configured skew, no more."""
    ahead = body(event("in", event_time=int(NOW) + 60), event("out", event_time=int(NOW) + 61))
    (answer,) = calls(new(), ahead)
    assert [one["status"] for one in answer.json()["details"]["events"]] == ["processed", "failed"]


# Who may call, and how often


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic sandbox-token", "Bearer"])
def test_token_is_required(authorization: str) -> None:
    """Anything but a valid bearer token is 401 with code 2."""
    (answer,) = calls(new(), body(), headers={"authorization": authorization})
    assert (answer.status_code, answer.json()["code"]) == (401, 2)


def test_revoked_token_and_its_return() -> None:
    """A revoked token is refused until it is restored."""
    sandbox = new()
    sandbox.revoke("sandbox-token")
    (refused,) = calls(sandbox, body())
    sandbox.restore()
    (accepted,) = calls(sandbox, body())
    assert (refused.status_code, accepted.status_code) == (401, 200)


def test_account_must_be_allowed() -> None:
    """An account outside the configured ones is 403 with code 29."""
    (answer,) = calls(new(ad_accounts=frozenset({"1"})), body())
    assert (answer.status_code, answer.json()["code"]) == (403, 29)


def test_rate_is_per_account_and_minute() -> None:
    """Past the rate an account gets 429 with the seconds to wait, others do not, and a new minute is free."""
    time = [NOW]
    sandbox = new(clock=lambda: time[0], rate=2)
    *_, limited = calls(sandbox, *[body(event(str(index), event_time=int(NOW))) for index in range(3)])
    (other,) = calls(sandbox, body(), url="/v5/ad_accounts/2/events")
    time[0] += 60
    (later,) = calls(sandbox, body())
    assert (limited.status_code, limited.json()["code"], limited.headers["retry-after"]) == (429, 8, "60")
    assert (other.status_code, later.status_code) == (200, 200)


def test_too_large_a_body_is_refused() -> None:
    """A body over the limit is 413 and not recorded."""
    sandbox = new(max_body=100)
    (answer,) = calls(sandbox, body())
    assert answer.status_code == 413
    assert sandbox.record.counts.received == 0


# What is counted


def test_duplicates_are_counted_once_within_the_window() -> None:
    """A copy for the same account within 48 hours is a duplicate; after that it is a new conversion."""
    time = [NOW]
    sandbox = new(clock=lambda: time[0], late_s=0)
    calls(sandbox, body(), body(), body(event(event_name="lead")))
    calls(sandbox, body(), url="/v5/ad_accounts/2/events")
    time[0] += 172_799
    calls(sandbox, body())
    time[0] += 1
    calls(sandbox, body())
    counts = sandbox.record.counts
    assert (counts.received, counts.processed, counts.unique, counts.duplicate) == (6, 6, 4, 2)
    assert counts.by_name == {"checkout": 3, "lead": 1}
    assert sandbox.record.ids() == {"checkout order-1": 5, "lead order-1": 1}
    assert sandbox.record.ids("2") == {"checkout order-1": 1}


def test_offline_is_never_deduplicated() -> None:
    """Each offline copy counts, and so does each that comes more than an hour late."""
    sandbox = new()
    offline, late = event("o", action_source="offline"), event("l", event_time=int(NOW) - 3601)
    calls(sandbox, body(offline, late), body(offline, late))
    counts = sandbox.record.counts
    assert (counts.unique, counts.offline, counts.duplicate) == (4, 4, 0)
    assert sandbox.record.ids() == {"checkout o": 2, "checkout l": 2}


def test_test_requests_are_not_recorded() -> None:
    """`?test=true` answers the same and lands in the record of tests alone."""
    sandbox = new()
    (answer,) = calls(sandbox, body(), url=f"{URL}?test=true")
    assert answer.json()["num_events_processed"] == 1
    assert (sandbox.record.counts.received, sandbox.tests.counts.unique) == (0, 1)
    (real, odd) = (calls(sandbox, body(), url=f"{URL}?test={value}")[0] for value in ("false", "maybe"))
    assert (real.status_code, odd.status_code, sandbox.record.counts.unique) == (200, 400, 1)


def test_newest_events_are_kept_as_sent() -> None:
    """The record keeps the newest events, whole, and can be narrowed to a name."""
    sandbox = new(keep=2)
    sent = [event("a"), event("b", event_name="lead"), event("c", user_data={**USER, "shoe_size": "42"})]
    calls(sandbox, body(*sent))
    assert sandbox.record.events() == sent[1:]
    assert sandbox.record.events(name="lead") == [sent[1]]
    assert sandbox.record.events(limit=1) == [sent[2]]
    assert sandbox.record.events(limit=0) == []


def test_ids_are_forgotten_after_the_window_on_request() -> None:
    """Without complete ids, memory holds the current window only."""
    time = [NOW]
    sandbox = new(clock=lambda: time[0], keep_ids=False, late_s=0)
    calls(sandbox, body(event("old-1"), event("old-2")))
    time[0] += 172_800
    calls(sandbox, body(event("new")))
    assert set(sandbox.record.ids()) == {"checkout new"}


def test_record_survives_a_restart(tmp_path: Path) -> None:
    """A record with a file starts from it, even when its last line was cut."""
    path = tmp_path / "received.jsonl"
    first = new(path=str(path))
    calls(first, body(event("a"), event("b", action_source="offline")))
    first.record.close()
    with path.open("ab") as file:
        file.write(b'{"ad_account_id":"5490')
    second = new(path=str(path))
    calls(second, body(event("a")))
    second.record.close()
    assert second.record.counts.duplicate == 1
    assert second.record.ids() == {"checkout a": 2, "checkout b": 1}
    assert new(path=str(path)).record.ids() == second.record.ids()


# How it fails


def test_queued_faults_hit_one_call_each() -> None:
    """Queued faults are used up in order; then all is well again."""
    sandbox = new()
    sandbox.faults.queue(Fault(kind="status", retry_after=7), Fault(kind="status", status=429))
    answers = calls(sandbox, body(), body(), body())
    assert [answer.status_code for answer in answers] == [503, 429, 200]
    assert [answer.json().get("code") for answer in answers] == [4197, 8, None]
    assert answers[0].headers["retry-after"] == "7"
    assert sandbox.record.counts.received == 1
    assert dict(sandbox.record.answers) == {503: 1, 429: 1, 200: 1}


def test_standing_fault_lasts_until_cleared() -> None:
    """A sandbox that is down stays down until its faults are cleared."""
    sandbox = new()
    sandbox.faults.down()
    down = calls(sandbox, body(), body())
    sandbox.faults.clear()
    (up,) = calls(sandbox, body())
    assert [answer.status_code for answer in [*down, up]] == [503, 503, 200]


def test_fault_for_an_id_or_an_account() -> None:
    """A fault may be meant for requests that hold an id, or for one account."""
    sandbox = new()
    sandbox.faults.stand(
        Fault(kind="status", status=400, event_ids=("poison",)),
        Fault(kind="status", status=500, ad_account_id="2"),
    )
    good, poisoned, malformed = calls(sandbox, body(), body(event("a"), event("poison")), b"{")
    (other,) = calls(sandbox, body(), url="/v5/ad_accounts/2/events")
    assert [one.status_code for one in (good, poisoned, malformed, other)] == [200, 400, 400, 500]


def test_partial_failure_by_index_and_id() -> None:
    """Chosen events fail, the others are kept; the list may be missing and the status may be 200."""
    sandbox = new()
    sandbox.faults.queue(
        Fault(kind="partial", indexes=(0,), event_ids=("c",)),
        Fault(kind="partial", status=200, indexes=(1,)),
        Fault(kind="partial", listed=False, indexes=(1,)),
        Fault(kind="partial"),
    )
    three = body(event("a"), event("b"), event("c"))
    first, second, third, fourth = calls(sandbox, three, three, three, three)
    assert [one["status"] for one in first.json()["details"]["events"]] == ["failed", "processed", "failed"]
    assert second.status_code == 200
    assert second.json()["events"][1]["status"] == "failed"
    assert "events" not in third.json()["details"]
    assert third.json()["details"]["num_events_processed"] == 2
    assert fourth.json()["details"]["num_events_processed"] == 0
    assert sandbox.record.ids() == {"checkout a": 2, "checkout b": 1, "checkout c": 2}


def test_damaged_answers_after_processing() -> None:
    """Each damaged answer comes after the events were recorded."""
    sandbox = new()
    two = body(event("a"), event("b"))
    shapes: dict[Any, Callable[[httpx.Response], bool]] = {
        "short": lambda answer: len(answer.json()["events"]) == 1,
        "long": lambda answer: len(answer.json()["events"]) == 3,
        "unknown_status": lambda answer: answer.json()["events"][0]["status"] not in {"processed", "failed"},
        "missing_status": lambda answer: "status" not in answer.json()["events"][0],
        "no_events": lambda answer: "events" not in answer.json(),
        "html": lambda answer: answer.headers["content-type"].startswith("text/html"),
        "empty": lambda answer: answer.content == b"",
        "truncated": lambda answer: answer.text.startswith('{"num_events') and not answer.text.endswith("}"),
        "huge": lambda answer: len(answer.content) > 1_048_576,
        "gzip_bomb": lambda answer: len(answer.content) == 1_048_576,
    }
    for copies, (shape, holds) in enumerate(shapes.items(), start=1):
        sandbox.faults.queue(Fault(kind="answer", body=shape, size_mb=1))
        (answer,) = calls(sandbox, two)
        assert answer.status_code == 200
        assert holds(answer), shape
        assert sandbox.record.ids() == {"checkout a": copies, "checkout b": copies}
    sandbox.faults.queue(Fault(kind="answer", status=500))
    assert calls(sandbox, two)[0].json() == {"code": 500, "message": "Something went wrong."}


@pytest.mark.parametrize("fields", [{"body": "short"}, {"status": 99}, {"kind": "partial", "status": 500}])
def test_senseless_faults_are_refused(fields: Json) -> None:
    """A fault that cannot be carried out is refused when it is written."""
    with pytest.raises(ValueError, match=r"body|status"):
        Fault(**{"kind": "status", **fields})


def test_delay_is_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delayed call waits as long as told, then goes as usual."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("gateway.sandbox.endpoint.asyncio.sleep", sleep)
    sandbox = new()
    sandbox.faults.queue(Fault(kind="delay", delay_s=30), Fault(kind="status", delay_s=5))
    answers = calls(sandbox, body(), body())
    assert [answer.status_code for answer in answers] == [200, 503]
    assert waited == [30, 5]


@pytest.mark.parametrize("recorded", [True, False])
def test_hang_until_released(recorded: bool) -> None:
    """A hanging call answers when it is released; its events are recorded before the wait or after it."""
    sandbox = new()
    sandbox.faults.queue(Fault(kind="hang", recorded=recorded))

    async def run() -> tuple[int, int]:
        async with client(sandbox) as http:
            call = asyncio.create_task(http.post(URL, json=body()))
            await until(lambda: sandbox.faults.hanging == 1)
            before = sandbox.record.counts.unique
            sandbox.faults.release()
            return before, (await call).status_code

    assert asyncio.run(run()) == (int(recorded), 200)
    assert sandbox.record.counts.unique == 1
    assert sandbox.faults.hanging == 0


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that another thread or task does and that has no event to wait for."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def release(sandbox: PinterestSandbox) -> None:
    asyncio.run(until(lambda: sandbox.faults.hanging == 1))
    sandbox.faults.release()


@pytest.mark.parametrize(("kind", "kept"), [("reset_before", 0), ("reset_after", 1)])
def test_reset_in_process_is_an_exception(kind: Any, kept: int) -> None:
    """Without a server a broken connection is an exception; the variants differ in what was recorded."""
    sandbox = new()
    sandbox.faults.queue(Fault(kind=kind))
    with pytest.raises(ConnectionResetError):
        calls(sandbox, body())
    assert sandbox.record.counts.unique == kept


@pytest.mark.parametrize("engine", ["hypercorn", "uvicorn"])
def test_on_a_real_server(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """On a real server a call works, resets break the connection, and a client may leave a hanging call."""
    caplog.set_level(logging.CRITICAL)
    sandbox = new()
    script = [Fault(kind="reset_before"), Fault(kind="reset_after"), Fault(kind="hang"), Fault(kind="hang")]
    with (
        served(sandbox.app, engine) as address,
        httpx.Client(base_url=address, headers=BEARER, timeout=10) as http,
    ):
        assert http.post(URL, json=body(event("a"))).status_code == 200
        sandbox.faults.queue(*script)
        for kept in ({"checkout a": 1}, {"checkout a": 1, "checkout b": 1}):
            with pytest.raises(httpx.RemoteProtocolError):
                http.post(URL, json=body(event("b")))
            assert sandbox.record.ids() == kept
        with pytest.raises(httpx.ReadTimeout):
            http.post(URL, json=body(event("c")), timeout=0.2)
        asyncio.run(until(lambda: sandbox.faults.hanging == 0))
        releasing = threading.Thread(target=release, args=(sandbox,))
        releasing.start()
        assert http.post(URL, json=body(event("d"))).status_code == 200
        releasing.join()
        sandbox.faults.queue(Fault(kind="answer", body="huge", size_mb=2))
        assert len(http.post(URL, json=body(event("e"))).content) > 2_097_152
    assert sandbox.record.ids() == {f"checkout {one}": 1 for one in "abde"}


# Control over HTTP


def control(sandbox: PinterestSandbox, script: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with client(sandbox) as http:
            await script(http)

    asyncio.run(run())


def test_faults_over_http() -> None:
    """Faults are queued, set to stand and cleared over HTTP; a senseless one is refused with its reason."""

    async def script(http: Client) -> None:
        faults = "/_sandbox/faults"
        one = {"faults": [{"kind": "status", "status": 500}]}
        assert (await http.post(faults, json=one)).json() == {"queued": 1, "standing": 0}
        assert (await http.post(faults, json={**one, "standing": True})).json() == {
            "queued": 1,
            "standing": 1,
        }
        assert [(await http.post(URL, json=body())).status_code for _ in range(3)] == [500, 500, 500]
        assert (await http.delete(faults)).status_code == 204
        assert (await http.post(URL, json=body())).status_code == 200
        refused = await http.post(faults, json={"faults": [{"kind": "explode"}]})
        assert refused.status_code == 400
        assert "explode" in refused.json()["error"]

    control(new(), script)


def test_record_over_http() -> None:
    """Events, counts, ids and the summary can be read over HTTP, and reset forgets them."""

    async def script(http: Client) -> None:
        sent = [event("a"), event("b", event_name="lead"), event("a")]
        await http.post(URL, json=body(*sent))
        await http.post(f"{URL}?test=true", json=body(event("t")))
        assert (await http.get("/_sandbox/events")).json() == {"events": sent}
        assert (await http.get("/_sandbox/events?limit=1&name=lead")).json() == {"events": [sent[1]]}
        assert (await http.get("/_sandbox/events?test=true")).json() == {"events": [event("t")]}
        assert (await http.get("/_sandbox/events?limit=-1")).status_code == 400
        assert (await http.get("/_sandbox/ids")).json() == {"checkout a": 2, "lead b": 1}
        assert (await http.get("/_sandbox/ids?ad_account_id=2")).json() == {}
        counts = (await http.get("/_sandbox/counts")).json()
        assert (counts["calls"], counts["received"], counts["unique"], counts["duplicate"]) == (2, 3, 2, 1)
        assert counts["tests"]["unique"] == 1
        assert counts["answers"] == {"200": 2}
        assert "unique     2" in (await http.get("/")).text
        assert (await http.post("/_sandbox/reset")).status_code == 204
        assert (await http.get("/_sandbox/ids")).json() == {}
        assert (await http.get("/_sandbox/counts")).json()["calls"] == 0

    control(new(), script)


def test_token_over_http() -> None:
    """Tokens are revoked, restored and added over HTTP."""

    async def script(http: Client) -> None:
        async def after(change: Json) -> int:
            assert (await http.put("/_sandbox/token", json=change)).status_code == 204
            return (await http.post(URL, json=body())).status_code

        assert await after({"valid": False}) == 401
        assert await after({"valid": True, "token": "other"}) == 401
        assert await after({"valid": True}) == 200
        other = await http.post(URL, json=body(), headers={"authorization": "Bearer other"})
        assert other.status_code == 200
        assert await after({"valid": False, "token": "sandbox-token"}) == 401
        assert (await http.put("/_sandbox/token", json={})).status_code == 400

    control(new(), script)


def test_only_post_is_answered() -> None:
    """The events route takes POST alone."""

    async def script(http: Client) -> None:
        assert (await http.get(URL)).status_code == 405

    control(new(), script)
