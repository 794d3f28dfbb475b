"""The kit for authors of adapters: it passes our own, and each of its checks finds the mistake it is made for."""

import asyncio
import base64
import hmac
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import msgspec
import pytest

import adapters.gtm
import adapters.shopify
import adapters.tealium
import gateway.plugins.browser_tag
import gateway.testing
from gateway import (
    Adapter,
    Batch,
    Context,
    Event,
    Hit,
    Invalid,
    Key,
    Normalized,
    Paused,
    Purchase,
    Rejected,
    SealedEvent,
    Secret,
    Struct,
    Unreachable,
    User,
    coerce,
    json_body,
    verify,
)
from gateway.plugins.pinterest import Pinterest
from gateway.plugins.pinterest.options import PinterestOptions
from gateway.sandbox import Fault
from gateway.testing import (
    Clock,
    RecordingDestination,
    check_adapter,
    check_hit,
    contract,
    hit,
    hostile,
    running,
    source,
)
from gateway.testing.asgi import AppClient

BODY = {
    "event": "order",
    "email": "ann@example.com",
    "total": "5.10",
    "currency": "EUR",
    "order": 7,
    "time": 1795300000,
}
NO_CONTEXT = Context()


class Good(Adapter):
    """The plainest adapter that keeps the contract; the mistakes below differ from it in one thing each."""

    name: ClassVar[str] = "good"
    side: ClassVar[Literal["server", "public", "either"]] = "server"

    def verify(self, hit: Hit) -> None:
        verify.bearer(hit)

    def normalize(self, hit: Hit) -> Sequence[Normalized]:
        return [self.event(self.read(hit), hit)]

    def read(self, hit: Hit) -> dict[str, Any]:
        body = json_body(hit.body)
        if not isinstance(body, dict) or coerce.text(body.get("event")) is None:
            raise Rejected("missing_event", "The body has no 'event'.")
        return body

    def event(self, body: dict[str, Any], hit: Hit) -> Normalized:
        return Event(**(self.fields(body) | self.changed(body, hit)))

    def fields(self, body: dict[str, Any]) -> dict[str, Any]:
        order = coerce.text(body.get("order"))
        return {
            "name": "checkout",
            "keys": (Key(kind="order", value=order),) if order else (),
            "time": coerce.unix_time(body.get("time")),
            "user": User(email=coerce.texts(body.get("email"))),
            "purchase": Purchase(
                value=coerce.decimal(body.get("total")), currency=coerce.currency(body.get("currency"))
            ),
        }

    def changed(self, body: dict[str, Any], hit: Hit) -> dict[str, Any]:
        return {}


def email_of(body: dict[str, Any]) -> str:
    return coerce.text(body.get("email")) or ""


def changing(name: str, changed: Callable[[dict[str, Any], Hit], dict[str, Any]]) -> type[Good]:
    """Return a Good whose events differ in some fields."""
    return type(name, (Good,), {"changed": lambda _, body, hit: changed(body, hit)})


def verifying(name: str, check: Callable[[Hit], None], side: str = "server") -> type[Good]:
    """Return a Good with another proof."""
    return type(name, (Good,), {"verify": lambda _, hit: check(hit), "side": side})


def normalizing(name: str, normalize: Callable[[Hit], Any]) -> type[Good]:
    """Return a Good that reads in another way."""
    return type(name, (Good,), {"normalize": lambda _, hit: normalize(hit)})


def refuse(status: int = 401) -> None:
    raise Rejected("unauthorized", "No.", status=status)


def prefix(hit: Hit) -> None:
    token = hit.header("authorization").removeprefix("Bearer ")
    if not any(token and secret.value.startswith(token) for secret in hit.source.secrets):
        refuse()


def constant(hit: Hit) -> None:
    if hit.header("authorization") != "Bearer s3cret":
        refuse()


def newest(hit: Hit) -> None:
    if not hit.source.secrets or not verify.matches(hit.header("authorization")[7:], hit.source.secrets[:1]):
        refuse()


def open_without_secrets(hit: Hit) -> None:
    if hit.source.secrets:
        verify.bearer(hit)


def misnumbered(hit: Hit) -> None:
    if not hit.header("authorization"):
        refuse(400)
    verify.bearer(hit)


def crashing(hit: Hit) -> None:
    hit.headers["authorization"].encode("ascii")
    verify.bearer(hit)


def half_signed(hit: Hit) -> None:
    if not hit.source.secrets or not verify.hmac_sha256(hit.body[:20], hit.header("x-signature"), hit.source.secrets):
        refuse()


def origin_prefix(hit: Hit) -> None:
    if not hit.header("origin").startswith(hit.source.allowed_origins):
        refuse(403)


def origin_only(hit: Hit) -> None:
    if hit.header("origin") not in ("", *hit.source.allowed_origins):
        refuse(403)


def raw_json(hit: Hit) -> list[Normalized]:
    try:
        json.loads(hit.body)
    except ValueError:
        refuse(400)
    return []


def unchecked(hit: Hit) -> list[Normalized]:
    return [Event(name=str(json_body(hit.body)["event"]))]


def invalid_with_value(hit: Hit) -> list[Normalized]:
    body = Good().read(hit)
    return [Good().event(body, hit), Invalid(reason="bad", message=f"{email_of(body)} is no address.")]


def rejected_with_value(hit: Hit) -> list[Normalized]:
    body = Good().read(hit)
    if body.get("currency") != "EUR":
        raise Rejected("bad_currency", "This currency is unknown.", hint=f"Not {body.get('currency')}.")
    return [Good().event(body, hit)]


def spoilt_headers(hit: Hit) -> list[Normalized]:
    hit.headers["x-seen"] = "yes"
    return list(Good().normalize(hit))


class OpenOptions(Struct, frozen=True):
    shop: str = ""


class LooseOptions(msgspec.Struct, forbid_unknown_fields=True):
    shop: str = ""


MISTAKES: list[tuple[type[Good], str]] = [
    (verifying("TakesAnything", lambda hit: None), "without headers and query passes"),
    (verifying("ComparesPrefix", prefix), "altered header authorization passes"),
    (verifying("HasConstantSecret", constant), "signed with another secret passes"),
    (verifying("KnowsOneSecret", newest), "older of two live secrets is refused"),
    (verifying("OpenWithoutSecrets", open_without_secrets), "source without any secret passes"),
    (verifying("AnswersWrongStatus", misnumbered), "is refused with 400, and should be with 401 or 403"),
    (verifying("CrashesOnVerify", crashing), "verify raised KeyError"),
    (verifying("RefusesEverything", lambda hit: refuse()), "the hit itself is refused with 401"),
    (changing("InventsIds", lambda body, hit: {"id": uuid.uuid4().hex}), "something else for the same hit"),
    (changing("StampsTime", lambda body, hit: {"keys": (), "time": hit.received_at}), "other event ids"),
    (changing("HasFloats", lambda body, hit: {"purchase": Purchase(value=0.1)}), "changes when it is written"),  # type: ignore[arg-type]
    (changing("HasLists", lambda body, hit: {"notes": ["a"]}), "changes when it is written"),
    (changing("HasInfiniteTime", lambda body, hit: {"time": float("inf")}), "wrong type|changes when it is written"),
    (
        changing("HasRawTexts", lambda body, hit: {"search_string": str(body.get("currency"))}),
        "lone surrogate at currency",
    ),
    (changing("HasEmptyIds", lambda body, hit: {"id": coerce.text(body.get("order")) or ""}), "an empty id"),
    (
        changing("HasEmptyKeys", lambda body, hit: {"keys": (Key(kind="order", value=str(body.get("order", ""))),)}),
        "an empty order key",
    ),
    (changing("LeaksExtra", lambda body, hit: {"extra": {"acme.mail": email_of(body)}}), "in clear .plain."),
    (changing("LeaksId", lambda body, hit: {"id": email_of(body).upper() or None}), "in clear .plain."),
    (
        changing("LeaksQuoted", lambda body, hit: {"extra": {"acme.q": quote(email_of(body))}}),
        "in clear .URL",
    ),
    (
        changing(
            "LeaksBase64",
            lambda body, hit: {"notes": (base64.b64encode(b"a" + email_of(body).encode()).decode(),)},
        ),
        "in clear .base64.",
    ),
    (changing("LeaksHex", lambda body, hit: {"language": email_of(body).encode().hex()}), "in clear .hexadecimal."),
    (normalizing("SaysInvalidValue", invalid_with_value), "email, in Invalid,"),
    (normalizing("SaysRejectedValue", rejected_with_value), "currency, in the message of Rejected,"),
    (normalizing("ReadsRawJson", raw_json), "normalize raised RecursionError"),
    (normalizing("TrustsShape", unchecked), "normalize raised (TypeError|KeyError|AttributeError)"),
    (
        normalizing("ReturnsGenerator", lambda hit: (event for event in Good().normalize(hit))),
        "not a sequence",
    ),
    (normalizing("ReturnsDicts", lambda hit: [{"name": "checkout"}]), "returned a dict"),
    (normalizing("ReturnsNothing", lambda hit: None), "NoneType"),
    (normalizing("ChangesHeaders", spoilt_headers), "changed the hit's headers"),
    (type("HasOpenOptions", (Good,), {"Options": OpenOptions}), "forbid_unknown_fields"),
    (type("HasLooseOptions", (Good,), {"Options": LooseOptions}), "frozen=True"),
    (type("TakesGetOnly", (Good,), {"methods": frozenset({"GET"})}), "POST is not one of"),
    (type("TakesNothing", (Good,), {"methods": frozenset()}), "would take no request"),
    (type("HasNoName", (Good,), {"name": ""}), "has no 'name'"),
    (type("SpeaksTheFuture", (Good,), {"api": 2}), "api = 2"),
    (type("HasOddSide", (Good,), {"side": "client"}), "side must be"),
]


@pytest.mark.parametrize(("bad", "complaint"), MISTAKES, ids=[bad.__name__ for bad, _ in MISTAKES])
def test_each_mistake_is_found(bad: type[Good], complaint: str) -> None:
    """A planted mistake fails the contract with a message that names it."""
    with pytest.raises(AssertionError, match=complaint):
        check_adapter(bad(), [hit(source(bad()), BODY)])


def test_a_good_adapter_passes() -> None:
    """What the mistakes are made from keeps the contract."""
    check_adapter(Good(), [hit(source(Good()), BODY)])


def signed(body: bytes, covered: bytes) -> Hit:
    signature = base64.b64encode(hmac.digest(b"s3cret", covered, "sha256")).decode()
    return hit(source("signed"), body, headers={"X-Signature": signature})


def test_a_half_signed_body_is_found() -> None:
    """A signature over a part of the body lets an altered one pass; told that bodies are signed, the kit finds it."""
    body = json.dumps(BODY).encode()
    adapter = verifying("SignsHalf", half_signed)()
    with pytest.raises(AssertionError, match=r"byte \d+ altered passes"):
        check_hit(adapter, signed(body, body[:20]), signs_body=True)


def whole_signed(hit: Hit) -> None:
    if not verify.hmac_sha256(hit.body, hit.header("x-signature"), hit.source.secrets):
        refuse()


def crashing_after_the_signature(hit: Hit) -> None:
    whole_signed(hit)
    json_body(hit.body)["event"].upper()


def sign(hit: Hit) -> Hit:
    return msgspec.structs.replace(hit, headers=signed(hit.body, hit.body).headers)


def test_a_crash_behind_the_signature_is_found() -> None:
    """Hostile bodies that are signed anew reach what verify does after the signature."""
    body = json.dumps(BODY).encode()
    adapter = verifying("CrashesBehind", crashing_after_the_signature)()
    check_adapter(adapter, [signed(body, body)], signs_body=True)
    with pytest.raises(AssertionError, match=r"verify raised (TypeError|AttributeError)"):
        check_adapter(adapter, [signed(body, body)], signs_body=True, sign=sign)


def test_a_signed_body_passes() -> None:
    """A signature over the whole body keeps the contract."""
    body = json.dumps(BODY).encode()
    check_adapter(verifying("SignsAll", whole_signed)(), [signed(body, body)], signs_body=True)


@pytest.mark.parametrize(
    ("check", "complaint"),
    [
        (lambda hit: None, "Origin: https://elsewhere.example passes"),
        (origin_prefix, r"Origin: https://shop.example.elsewhere.example passes"),
        (origin_only, "Referer: https://elsewhere.example/page passes"),
        (
            lambda hit: verify.origin(hit) if hit.header("origin") != "null" else refuse(401),
            "with 401, and should be with 403",
        ),
    ],
)
def test_a_bad_look_at_origins_is_found(check: Callable[[Hit], None], complaint: str) -> None:
    """Pages of other sites must be refused with 403, whatever their names look like."""
    adapter = verifying("Public", check, side="public")()
    with pytest.raises(AssertionError, match=complaint):
        check_adapter(adapter, [hit(source(adapter, allowed_origins=["https://shop.example"]), BODY)])


def test_a_public_adapter_passes() -> None:
    """The usual proof of an origin keeps the contract."""
    adapter = verifying("Public", verify.origin, side="public")()
    check_adapter(adapter, [hit(source(adapter, allowed_origins=["https://shop.example", "null"]), BODY)])


def test_slowness_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that takes an adapter longer than the deadline three times fails the contract."""
    monkeypatch.setattr(contract, "LIMIT_S", 0.05)

    def slow(_hit: Hit) -> list[Normalized]:
        time.sleep(0.06)
        return []

    with pytest.raises(AssertionError, match=r"normalize took longer than 0\.05 s"):
        contract.check_masses(normalizing("Slow", slow)(), hit(source(Good()), BODY))


EXAMPLE = {"title": "One", "source": {"secrets": ["s3cret"]}, "hit": {"headers": {"Authorization": "Bearer s3cret"}}}


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "holds no example"),
        (
            {"a.json": EXAMPLE | {"rejected": {"reason": "empty_body", "status": 400}}},
            "no example of a hit that is accepted",
        ),
        ({"a.json": EXAMPLE | {"events": []}}, "a.json: One\nthe adapter gives"),
    ],
)
def test_a_folder_without_a_good_example_is_found(tmp_path: Path, files: dict[str, Any], complaint: str) -> None:
    """The contract needs an example, one that is accepted, and one that is true."""
    for name, example in files.items():
        (tmp_path / name).write_text(json.dumps(example))
    with pytest.raises(AssertionError, match=complaint):
        check_adapter(Good(), tmp_path)


PINTEREST = Pinterest("pinterest", PinterestOptions(ad_account_id="549755885175", token=Secret(value="t")), NO_CONTEXT)
OURS: list[tuple[Adapter, Path]] = [
    (adapter, Path(str(module.__file__)).parent / "examples")
    for module in (gateway.plugins.browser_tag, adapters.gtm, adapters.shopify, adapters.tealium)
    for adapter in module.register_adapters(NO_CONTEXT)
]


def files_of(adapter: Adapter, folder: Path) -> list[Path]:
    """Return the example files of an adapter; the two of Shopify share a folder."""
    files = sorted(folder.glob("*.json"))
    if not adapter.name.startswith("shopify"):
        return files
    return [path for path in files if path.name.startswith("pixel") == (adapter.name == "shopify_pixel")]


@pytest.mark.parametrize(("adapter", "folder"), OURS, ids=[adapter.name for adapter, _ in OURS])
def test_our_adapters_keep_the_contract(adapter: Adapter, folder: Path) -> None:
    """Every example of every adapter of ours goes through the kit that strangers use, sealed for Pinterest."""
    files = files_of(adapter, folder)
    assert len(files) >= 5
    signs = adapter.name == "shopify"
    check_adapter(adapter, files, signs_body=signs, sign=sign_as_shopify if signs else None, destination=PINTEREST)


def sign_as_shopify(hit: Hit) -> Hit:
    digest = hmac.digest(hit.source.secrets[0].value.encode(), hit.body, "sha256")
    return msgspec.structs.replace(
        hit, headers={**hit.headers, "x-shopify-hmac-sha256": base64.b64encode(digest).decode()}
    )


def test_hostile_bodies_are_what_they_say() -> None:
    """The truncations, depths and sizes that the contract promises are there, and mutations reach every value."""
    masses = dict(hostile.masses())
    assert masses["nested 100,000 deep"].count(b"[") == 100_000
    assert len(json.loads(masses["200,000 keys"])) == 200_000
    assert len(masses["1 MB of junk"]) > 1_000_000
    body = json.dumps(BODY).encode()
    assert [len(cut) for _, cut in hostile.truncations(body)][:3] == [1, 8, 15]
    assert len(list(hostile.mutations(body))) == (len(BODY) + 1) * len(hostile.VALUES)
    assert hostile.decode(b"1") is None
    assert hostile.shown(("items", 0, "price")) == "items[0].price"


def run(body: Any, config: dict[str, Any], folder: Path, **arguments: Any) -> tuple[int, Any, list[dict[str, Any]]]:
    async def scenario() -> tuple[int, Any, list[dict[str, Any]]]:
        async with running(config, folder, **arguments) as gateway:
            status, answer = await gateway.post("tag", body, {"Authorization": "Bearer s3cret"})
            return status, answer, await gateway.delivered(1)

    return asyncio.run(scenario())


SERVER = {"sources": {"tag": {"adapter": "browser_tag", "secrets": ["s3cret"]}}}
TAG = {
    "event_name": "checkout",
    "event_id": "e1",
    "user": {"email": "ann@example.com"},
    "event_source_url": "https://a.example/",
}


def test_a_running_gateway_delivers(tmp_path: Path) -> None:
    """What is posted arrives at the sandbox, with its id and a hashed e-mail."""
    status, answer, events = run(TAG, SERVER, tmp_path)
    assert (status, answer["accepted"]) == (200, 1)
    assert [event["event_id"] for event in events] == ["e1"]
    assert "ann@example.com" not in json.dumps(events)


def test_test_events_are_delivered_too(tmp_path: Path) -> None:
    """A test event is found among the delivered, although the vendor records none."""
    _, _, events = run(TAG | {"test": True}, SERVER, tmp_path)
    assert [event["event_id"] for event in events] == ["e1"]


def test_a_plugin_need_not_be_installed(tmp_path: Path) -> None:
    """An adapter under development is given as an object with hooks, and runs as a stranger's."""

    class Plugin:
        @gateway.hookimpl
        def register_adapters(self, context: Context) -> list[Adapter]:
            return [Good()]

    config = {"sources": {"tag": {"adapter": "good", "secrets": ["s3cret"]}}}
    status, _, (event,) = run(BODY | {"time": time.time()}, config, tmp_path, plugins={"mine": Plugin()})
    assert (status, event["event_id"]) == (200, "tag-7")


def test_what_ended_is_told(tmp_path: Path) -> None:
    """An event that the vendor refuses ends dead, and a wait for its delivery fails with that reason."""

    async def scenario() -> None:
        async with running(SERVER, tmp_path) as gateway:
            gateway.sandbox.faults.stand(Fault(kind="partial"))
            await gateway.post("tag", TAG, {"Authorization": "Bearer s3cret"})
            (unit,) = await gateway.ended(1)
            assert (unit.event_id, unit.end) == ("e1", "dead")
            with pytest.raises(AssertionError, match=r"1 delivered: not within 0 s\. Ended: .*checkout dead"):
                await gateway.delivered(1, deadline_s=0)
            assert await gateway.request("GET", "/livez") == (200, b"ok\n")

    asyncio.run(scenario())


async def broken(scope: Any, receive: Any, send: Any) -> None:
    raise ConnectionResetError


async def hanging(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await receive()


async def halved(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{", "more_body": True})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 201, "headers": [(b"X-Path", scope["raw_path"])]})
    await send({"type": "http.response.body", "body": message["body"]})


@pytest.mark.parametrize("app", [broken, hanging, halved])
def test_an_app_that_does_not_answer_is_unreachable(app: Any) -> None:
    """A broken, missing or half answer of an app is what it would be over a network."""
    with pytest.raises(Unreachable) as caught:
        asyncio.run(AppClient(app).request("GET", "http://127.0.0.1/", timeout_s=0.05))
    assert caught.value.sent


def test_an_app_is_called_as_over_a_network() -> None:
    """Path, body and headers arrive, and a long answer is cut."""
    answer = asyncio.run(AppClient(echo).request("POST", "http://127.0.0.1/a%20b?c", content=b"12345", max_bytes=3))
    assert (answer.status, answer.headers, answer.body) == (201, {"x-path": "/a%20b"}.copy(), b"123")


def sealed(event_id: str) -> SealedEvent:
    return SealedEvent(
        event_id=event_id, event_name="lead", event_time=1, accepted_at=1.0, source="s", site="s", born="server"
    )


def test_the_doubles() -> None:
    """The clock stands, the destination keeps and answers as told, and a built hit is authentic."""
    clock = Clock(5.0)
    clock.advance(2.5)
    assert clock() == 7.5
    destination = RecordingDestination()
    destination.verdicts.append(Paused(reason="token"))
    batch = Batch(events=(sealed("a"), sealed("b")))
    assert asyncio.run(destination.send(batch)) == Paused(reason="token")
    assert [type(one).__name__ for one in asyncio.run(destination.send(batch))] == ["Delivered", "Delivered"]  # type: ignore[union-attr]
    assert [event.event_id for event in destination.events] == ["a", "b", "a", "b"]
    hashed = destination.identifiers(User(email=(" Ann@Example.com", "0" * 64)), None).fields["email"]
    assert hashed == (destination.identifiers(User(email=("ann@example.com",)), None).fields["email"][0], "0" * 64)
    assert destination.encode(sealed("a"))["event_id"] == "a"
    verify.bearer(hit(source("any"), {}))
    verify.origin(hit(source("any", allowed_origins=["https://a.example"]), b"x"))


def test_the_fixtures(adapter_contract: Callable[..., None], running_gateway: Callable[..., Any]) -> None:
    """Pytest finds the kit's fixtures through its entry point."""
    adapter_contract(Good(), [hit(source(Good()), BODY)])

    async def scenario() -> int:
        async with running_gateway(SERVER) as gateway:
            status, _ = await gateway.request("GET", "/readyz")
            return int(status)

    assert asyncio.run(scenario()) == 200


def test_the_plugin_is_light() -> None:
    """A pytest run that uses no fixture of the kit loads neither the kit nor the server."""
    script = "import sys, gateway.testing.pytest_plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert not loaded & {"starlette", "httpx", "gateway.runtime", "gateway.testing.contract", "gateway.testing.app"}


def test_a_misspelt_name_of_the_kit_is_an_error() -> None:
    """The lazy module knows only its public names."""
    with pytest.raises(AttributeError, match="chek_adapter"):
        _ = gateway.testing.chek_adapter
    assert all(hasattr(gateway.testing, name) for name in gateway.testing.__all__)
