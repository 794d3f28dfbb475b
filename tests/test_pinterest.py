"""The destination Pinterest: options, identifiers, payload, answers, and calls to the sandbox."""

import asyncio
import hashlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway.plugins.pinterest as package
from gateway import (
    STANDARD_NAMES,
    Answer,
    App,
    Batch,
    Client,
    Content,
    Context,
    Delivered,
    Device,
    Item,
    Paused,
    Purchase,
    Refused,
    Retry,
    SealedEvent,
    Secret,
    Unclear,
    Unreachable,
    User,
    Verdict,
)
from gateway.http import Client as Http
from gateway.plugins.pinterest import Pinterest
from gateway.plugins.pinterest.answer import scrubbed, verdict
from gateway.plugins.pinterest.payload import plain
from gateway.sandbox import Fault, PinterestSandbox, SandboxConfig

SPEC = Path(__file__).resolve().parents[2] / "shared" / "specs" / "pinterest-v5.strict.yaml"
NOW = 1_795_305_600
TOKEN = Secret(value="sandbox-token")
ZERO = "00000000-0000-0000-0000-000000000000"
AGENT = Client(ip="198.51.100.7", user_agent="Mozilla/5.0 (Example)")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


EM = {"em": (sha("zoe@example.com"),)}


def pinterest(http: Any = None, **options: Any) -> Pinterest:
    given = {"ad_account_id": "42", "token": TOKEN, "base_url": "http://127.0.0.1:1/v5", **options}
    made = Pinterest("ads", msgspec.convert(given, Pinterest.Options), Context(http=http))
    made.clock = lambda: float(NOW)
    return made


def event(**fields: Any) -> SealedEvent:
    usual = {"event_id": "e1", "event_name": "checkout", "event_time": NOW - 10, "accepted_at": NOW - 9.0, "user": EM}
    return SealedEvent(**{**usual, "source": "shop", "site": "shop", "born": "server", **fields})


def sent(given: SealedEvent, **options: Any) -> dict[str, Any]:
    """Return the event as it stands in the body."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(pinterest(**options).encode(given)))
    return found


def test_the_hook_registers_the_type() -> None:
    """The module is the plugin: its hook returns the one class, under the contract's type name."""
    assert package.register_destinations(Context()) == [Pinterest]
    assert Pinterest.type == "pinterest"


def test_options_defaults() -> None:
    """Account and token are enough, and everything else is as the contract says."""
    options: Any = msgspec.convert({"ad_account_id": "549755885175", "token": TOKEN}, Pinterest.Options)
    assert options.base_url == "https://api.pinterest.com/v5"
    assert (options.batch_size, options.linger_s, options.late, options.test) == (1000, 1.0, "send", False)
    assert (options.in_flight, options.timeout_s, options.max_event_age_s) == (4, 30.0, None)
    assert "sandbox-token" not in repr(options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ad_account_id": "12a"},
        {"ad_account_id": "1" * 19},
        {"ad_account_id": "12\n"},
        {"token": Secret(value="two words")},
        {"token": Secret(value="clé")},
        {"token": Secret(value=" ")},
        {"batch_size": 0},
        {"batch_size": 1001},
        {"linger_s": -1.0},
        {"in_flight": 0},
        {"timeout_s": 0.0},
        {"max_event_age_s": -1},
        {"late": "drop"},
        {"event_names": ["Big Spender"]},
        {"partner_name": "SS Mine"},
        {"base_url": "http://api.pinterest.com/v5"},
        {"base_url": "https://user:secret@api.pinterest.com/v5"},
        {"base_url": "https://api.pinterest.com/v5?x=1"},
        {"base_url": "https://[api/v5"},
        {"base_url": "https://api.pinterest.com:port/v5"},
        {"base_url": "api.pinterest.com/v5"},
        {"base_url": "ftp://127.0.0.1/v5"},
        {"batchsize": 10},
    ],
)
def test_options_refuse(wrong: dict[str, Any]) -> None:
    """What could never work, or would send the token in clear, is refused at the start, without showing a secret."""
    with pytest.raises((msgspec.ValidationError, ValueError)) as caught:
        pinterest(**wrong)
    assert "secret@" not in str(caught.value)
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:9"])
def test_options_allow_http_to_this_machine(host: str) -> None:
    """The sandbox needs no certificate."""
    assert pinterest(base_url=f"http://{host}/v5").options.base_url.endswith("/v5")


IDENTIFIERS = [
    ({"email": (" Zoë@Example.COM ",)}, {"em": ["zoë@example.com"]}, ()),
    ({"email": ("a@example.com", "A@example.com", "b@example.com")}, {"em": ["a@example.com", "b@example.com"]}, ()),
    ({"email": (sha("x").upper(),)}, {"em": [sha("x")]}, ()),
    ({"email": ("nobody",)}, {}, ("email: not_an_email",)),
    ({"email": ("  ", "null")}, {}, ("email: empty", "email: placeholder")),
    ({"email": (sha(""),)}, {}, ("email: placeholder",)),
    ({"email": (None, "a@example.com")}, {"em": ["a@example.com"]}, ("email: not_text",)),
    ({"email": "a@example.com"}, {"em": ["a@example.com"]}, ()),
    ({"phone": ("(212) 555-0101",)}, {"ph": ["12125550101"]}, ()),
    ({"phone": ("030 901820",), "country": ("Germany",)}, {"ph": ["4930901820"], "country": ["de"]}, ()),
    (
        {"phone": ("030 901820",), "country": ("??", "DE")},
        {"ph": ["4930901820"], "country": ["de"]},
        ("country: unknown_country",),
    ),
    ({"first_name": ("Łukasz",), "last_name": ("van  Dyk",)}, {"fn": ["łukasz"], "ln": ["van dyk"]}, ()),
    ({"gender": ("Female", "m")}, {"ge": ["f", "m"]}, ()),
    ({"gender": ("unsure",)}, {}, ("gender: unknown_gender",)),
    ({"birth_date": ("1990-05-03",)}, {"db": ["19900503"]}, ()),
    ({"city": ("São Paulo",)}, {"ct": ["sãopaulo"]}, ()),
    ({"city": ("St. John's",)}, {"ct": ["stjohns"]}, ()),
    ({"state": ("California",)}, {"st": ["ca"]}, ()),
    ({"state": ("Ontario",), "country": ("CA",)}, {"st": ["on"], "country": ["ca"]}, ()),
    ({"postal_code": ("10001-1234",)}, {"zp": ["100011234"]}, ()),
    ({"postal_code": ("PO16 7GZ",), "country": ("GB",)}, {"zp": ["po167gz"], "country": ["gb"]}, ()),
    ({"external_id": (" Member-7 ",)}, {"external_id": ["member-7"]}, ()),
    ({"mobile_ad_id": (ZERO,)}, {}, ("mobile_ad_id: zero_id",)),
    (
        {"mobile_ad_id": ("AB12CD34-0000-4000-8000-0123456789AB",)},
        {"hashed_maids": ["ab12cd34-0000-4000-8000-0123456789ab"]},
        (),
    ),
]


@pytest.mark.parametrize(("user", "expected", "notes"), IDENTIFIERS)
def test_identifiers(user: dict[str, Any], expected: dict[str, list[str]], notes: tuple[str, ...]) -> None:
    """Each value is normalised, hashed once and listed under the API's name; what is unusable is noted, not raised."""
    found = pinterest().identifiers(User(**user), "US")
    hashes = {key: tuple(text if len(text) == 64 else sha(text) for text in texts) for key, texts in expected.items()}
    assert found.fields == hashes
    assert found.notes == notes


def test_identifiers_of_nobody() -> None:
    """Without a person there is nothing to say."""
    found = pinterest().identifiers(User(), None)
    assert (found.fields, found.notes) == ({}, ())


def test_identifiers_are_bounded() -> None:
    """A field carries at most ten values, repeated ones not counted."""
    ids = tuple(f"id-{number // 2}" for number in range(40))
    found = pinterest().identifiers(User(external_id=ids), None)
    assert found.fields["external_id"] == tuple(sha(f"id-{number}") for number in range(10))
    assert found.notes == ("external_id: too_many",)


@given(
    user=st.builds(
        User, **{name: st.lists(st.text(max_size=30), max_size=3).map(tuple) for name in User.__struct_fields__}
    )
)
@settings(max_examples=150, deadline=None)
def test_identifiers_never_raise(user: User) -> None:
    """Any text gives hashes or a note, and no note repeats the text."""
    found = pinterest().identifiers(user, "US")
    assert all(len(value) == 64 for values in found.fields.values() for value in values)
    assert all(note.replace(": ", "_").replace("_", "a").isalnum() for note in found.notes)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"user": {"hashed_maids": (sha("x"),)}}, None),
        ({"user": {}, "client": AGENT}, None),
        ({"user": {}, "client": Client(ip="198.51.100.7")}, "no_identity"),
        ({"user": {"ph": (sha("1"),), "external_id": (sha("2"),)}, "click_ids": {"epik": "abc"}}, "no_identity"),
        ({"event_time": NOW - 604_800}, None),
        ({"event_time": NOW - 604_801}, "too_old"),
    ],
)
def test_refuse(fields: dict[str, Any], reason: str | None) -> None:
    """Only an e-mail, an ad id, or address with user agent identify; events of seven days go, older ones do not."""
    assert pinterest().refuse(event(**fields), NOW) == reason


def test_refuse_by_configured_age() -> None:
    """A destination's own limit wins over the pipeline's, and 0 switches it off."""
    old = event(event_time=NOW - 100)
    assert pinterest(max_event_age_s=99).refuse(old, NOW) == "too_old"
    assert pinterest(max_event_age_s=0).refuse(event(event_time=NOW - 10**8), NOW) is None
    without = pinterest()
    without.default_max_age_s = 50
    assert without.refuse(old, NOW) == "too_old"


ITEMS = (
    Item(id="7", name="Mug", price=Decimal("12.50"), quantity=2, brand="Hue", category="Kitchen"),
    Item(id="9", price=Decimal(5)),
)
#: (fields of the event, what they must become: a path in dots to a value; None: the key is absent)
PAYLOADS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"user_data": {"em": [sha("zoe@example.com")]}, "custom_data": None, "opt_out": None, "language": None}),
    (
        {"user": {}, "client": AGENT},
        {"user_data": {"client_ip_address": AGENT.ip, "client_user_agent": AGENT.user_agent}},
    ),
    (
        {"click_ids": {"epik": "dj0y", "gclid": "g"}, "partner_id": "p1"},
        {"user_data.click_id": "dj0y", "user_data.partner_id": "p1"},
    ),
    ({"source_url": "https://shop.example/a"}, {"event_source_url": "https://shop.example/a"}),
    (
        {"purchase": Purchase(value=Decimal("600.00"), currency="usd")},
        {"custom_data": {"value": "600.00", "currency": "USD"}},
    ),
    ({"purchase": Purchase(value=Decimal(0))}, {"custom_data": {"value": "0"}}),
    (
        {"purchase": Purchase(value=Decimal("1E+3"), predicted_ltv=Decimal("1E-7"))},
        {"custom_data": {"value": "1000", "predicted_ltv": "0.0000001"}},
    ),
    ({"purchase": Purchase(value=Decimal("NaN"), currency="euro")}, {"custom_data": None}),
    (
        {"purchase": Purchase(items=ITEMS, order_id="1001", content_ids=("other",))},
        {
            "custom_data.contents": [
                {
                    "id": "7",
                    "item_name": "Mug",
                    "item_brand": "Hue",
                    "item_category": "Kitchen",
                    "item_price": "12.50",
                    "quantity": 2,
                },
                {"id": "9", "item_price": "5"},
            ],
            "custom_data.content_ids": ["7", "9"],
            "custom_data.num_items": 3,
            "custom_data.order_id": "1001",
        },
    ),
    ({"purchase": Purchase(items=ITEMS, num_items=9)}, {"custom_data.num_items": 9}),
    (
        {"purchase": Purchase(items=(Item(), Item(id="7"), Item(id="7")))},
        {"custom_data.contents": [{"id": "7"}] * 2, "custom_data.content_ids": ["7", "7"]},
    ),
    ({"purchase": Purchase(content_ids=("a", "b"))}, {"custom_data": {"content_ids": ["a", "b"]}}),
    (
        {"purchase": Purchase(items=(Item(id="7", quantity=2**64),))},
        {"custom_data": {"content_ids": ["7"], "contents": [{"id": "7"}]}},
    ),
    ({"limited_data": True}, {"custom_data": {"opt_out_type": "LDP"}, "user_data.opt_out_type": None}),
    ({"limited_data": True, "search_string": "mug"}, {"custom_data": {"opt_out_type": "LDP", "search_string": "mug"}}),
    ({"opt_out": False}, {"opt_out": False}),
    ({"opt_out": True}, {"opt_out": True}),
    (
        {"content": Content(name="N", category="C", brand="B")},
        {"custom_data": {"content_name": "N", "content_category": "C", "content_brand": "B"}},
    ),
    ({"language": "en-US"}, {"language": "en"}),
    ({"language": "EN"}, {"language": "en"}),
    ({"language": "english"}, {"language": None}),
    (
        {
            "device": Device(
                brand="Acme", model="X1", type="phone", carrier="Tel", os_version="9", wifi=False, os_family="ios"
            ),
            "app": App(id="a"),
        },
        {
            "device_brand": "Acme",
            "device_model": "X1",
            "device_type": "phone",
            "device_carrier": "Tel",
            "os_version": "9",
            "wifi": False,
            "device_info": None,
            "app_info": None,
            "app_id": None,
        },
    ),
    (
        {
            "action_source": "app_ios",
            "app": App(
                id="a",
                name="Shop",
                version="2",
                package_name="p",
                store="s",
                install_time=5,
                user_agent="u",
                window_height=10,
                window_width=30_721,
            ),
        },
        {
            "app_id": "a",
            "app_name": "Shop",
            "app_version": "2",
            "device_info": None,
            "app_info": {
                "app_id": "a",
                "app_name": "Shop",
                "app_version": "2",
                "app_package_name": "p",
                "app_store": "s",
                "install_time": 5,
                "user_agent": "u",
                "window_height": 10,
            },
        },
    ),
    (
        {
            "action_source": "app_android",
            "device": Device(
                model="m" * 101,
                os_family="Mac OS X",
                form_factor="Mobile",
                network_type="4G",
                languages=("en-GB", "??", "en"),
                locale="en-GB",
                timezone_abbr="TOOLONG",
                battery_level=101,
                cpu_cores=8,
                screen_density=-1,
                wifi=True,
            ),
        },
        {
            "app_info": None,
            "wifi": True,
            "device_info": {
                "os_family": "macos",
                "form_factor": "cellphone",
                "network_type": "cellular_4g",
                "languages": ["en"],
                "locale": "en-GB",
                "cpu_cores": 8,
            },
        },
    ),
    (
        {
            "action_source": "app_ios",
            "app": App(name="n" * 201),
            "device": Device(os_family="plan9", languages=("??",)),
        },
        {"app_info": None, "device_info": None},
    ),
    ({"action_source": "offline"}, {"action_source": "offline"}),
]


@pytest.fixture(scope="module")
def schema() -> Any:
    """Return a validator of the request body after the strict variant of the official description."""
    if not SPEC.exists():
        pytest.skip("the official description (../shared/specs) is not beside this checkout")
    # Imported here: only these tests need them, and the first costs half a second.
    import yaml
    from openapi_schema_validator import OAS30Validator
    from referencing import Registry
    from referencing.jsonschema import DRAFT4

    document = yaml.safe_load(SPEC.read_text(encoding="utf-8"))
    registry: Any = Registry().with_resource("urn:spec", DRAFT4.create_resource(document))
    return OAS30Validator({"$ref": "urn:spec#/components/schemas/ConversionEvents"}, registry=registry)


@pytest.mark.parametrize(("fields", "expected"), PAYLOADS)
def test_payload(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each field of the event stands where the API has it, in the API's type, and absent ones are absent."""
    found = sent(event(**fields))
    for path, value in expected.items():
        at: Any = found
        for step in path.split("."):
            at = at.get(step) if at is not None else None
        assert at == value, path


@pytest.mark.parametrize("fields", [fields for fields, _ in PAYLOADS])
def test_payload_satisfies_the_official_schema(fields: dict[str, Any], schema: Any) -> None:
    """Every payload of the table is valid by the strict official description."""
    schema.validate({"data": [sent(event(**fields), partner_name="ss-example")]})


def test_partner_name_only_when_configured() -> None:
    """No agreed name, no partner."""
    assert "partner_name" not in sent(event())
    assert sent(event(), partner_name="ss-example")["partner_name"] == "ss-example"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("600.00", "600.00"),
        ("-3.5", "-3.5"),
        ("1E+2", "100"),
        ("1E+999999", None),
        ("1E-999999", None),
        ("Infinity", None),
        ("1" * 90, None),
    ],
)
def test_amounts(amount: str, text: str | None) -> None:
    """An amount is plain text; one that would be absurdly long is left out."""
    assert plain(Decimal(amount)) == text


words = st.none() | st.text(max_size=120)
numbers = st.none() | st.integers(-(2**70), 2**70)
amounts = st.none() | st.decimals() | st.decimals(0, 10**6, places=2)
by_type = {
    str | None: words,
    int | None: numbers,
    bool | None: st.none() | st.booleans(),
    tuple[str, ...]: st.lists(st.text(max_size=4), max_size=3).map(tuple),
}


def any_of(struct: Any, **others: Any) -> st.SearchStrategy[Any]:
    fields = msgspec.structs.fields(struct)
    return st.builds(
        struct, **{field.name: others[field.name] if field.name in others else by_type[field.type] for field in fields}
    )


any_event = st.builds(
    SealedEvent,
    event_id=st.text(min_size=1, max_size=40),
    event_name=st.sampled_from([*sorted(STANDARD_NAMES), "big_spender"]),
    event_time=st.integers(NOW - 1_000_000, NOW),
    accepted_at=st.just(NOW - 1.0),
    source=st.just("s"),
    site=st.just("s"),
    born=st.just("server"),
    action_source=st.sampled_from(["web", "app_android", "app_ios", "offline"]),
    source_url=words,
    user=st.dictionaries(st.sampled_from(["em", "ph", "hashed_maids", "st"]), st.just((sha("x"),)), max_size=3),
    client=any_of(Client),
    click_ids=st.dictionaries(st.sampled_from(["epik", "gclid"]), st.text(max_size=9), max_size=2),
    purchase=any_of(
        Purchase,
        value=amounts,
        predicted_ltv=amounts,
        items=st.lists(any_of(Item, price=amounts), max_size=3).map(tuple),
    ),
    content=any_of(Content),
    search_string=words,
    app=any_of(App),
    device=any_of(Device),
    limited_data=st.booleans(),
    opt_out=st.none() | st.booleans(),
    partner_id=words,
    language=words,
)


def call(
    *events: SealedEvent, box: PinterestSandbox | None = None, test_batch: bool = False, **options: Any
) -> tuple[Verdict, PinterestSandbox]:
    """Send the events in one call to a sandbox in this process."""
    box = box or PinterestSandbox(SandboxConfig(event_names=frozenset({"big_spender"})), clock=lambda: NOW)

    async def run() -> Verdict:
        http = Http(httpx.ASGITransport(app=box.app))
        try:
            return await pinterest(http, **options).send(Batch(events=events, test=test_batch))
        finally:
            await http.close()

    return asyncio.run(run()), box


@given(given_event=any_event)
@settings(max_examples=150, deadline=None)
def test_any_event_is_refused_here_or_taken(given_event: SealedEvent) -> None:
    """Whatever the fields hold, the sandbox (closed schema and content rules) takes what was not refused."""
    if pinterest().refuse(given_event, NOW) is None:
        result, box = call(given_event)
        assert result == [Delivered()], box.record.refusals


def listed(*statuses: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"events": list(statuses), **more}


OK = {"status": "processed", "error_message": "", "warning_message": ""}
BAD = {"status": "failed", "error_message": "em is not a hash", "warning_message": None}
MISCOUNT = "Pinterest counted 1 of 2 events as processed, its list 2"
UNKNOWN_KEY = "Additional properties are not allowed ('x' was unexpected)"
UNREADABLE = Retry(reason="unreadable_answer", ambiguous=True)
#: (status, body, headers, verdict for two events)
ANSWERS: list[tuple[int, Any, dict[str, str], Any]] = [
    (200, listed(OK, OK, num_events_received=2, num_events_processed=2, new_key=1), {}, [Delivered(), Delivered()]),
    (200, listed(OK, {**OK, "warning_message": "odd"}), {}, [Delivered(), Delivered(warning="odd")]),
    (200, listed(OK, OK, num_events_processed=1), {}, [Delivered(warning=MISCOUNT)] * 2),
    (200, listed(OK, BAD), {}, [Delivered(), Refused(reason="refused: em is not a hash")]),
    (
        422,
        {"code": 1, "message": "m", "details": listed(BAD, OK)},
        {},
        [Refused(reason="refused: em is not a hash"), Delivered()],
    ),
    (422, listed({"status": "failed"}, OK), {}, [Refused(reason="refused"), Delivered()]),
    (
        422,
        listed({**BAD, "error_message": "Temporary internal error"}, OK),
        {},
        [Retry(reason="failed_for_now: Temporary internal error"), Delivered()],
    ),
    (
        422,
        listed({**BAD, "error_message": "Rate limit exceeded"}, OK),
        {},
        [Retry(reason="failed_for_now: Rate limit exceeded"), Delivered()],
    ),
    (
        422,
        listed({**BAD, "error_message": "np is for internal use"}, OK),
        {},
        [Refused(reason="refused: np is for internal use"), Delivered()],
    ),
    (200, listed(OK), {}, UNREADABLE),
    (200, listed(OK, OK, OK), {}, UNREADABLE),
    (200, listed(OK, {"status": "deferred"}), {}, UNREADABLE),
    (200, listed(OK, {"error_message": ""}), {}, UNREADABLE),
    (200, listed(OK, "processed"), {}, UNREADABLE),  # type: ignore[arg-type]
    (200, {"events": None, "details": []}, {}, UNREADABLE),
    (200, b"<html>fine</html>", {}, UNREADABLE),
    (200, b'{"events": [{"status": "pro', {}, UNREADABLE),
    (200, b"[" * 5000, {}, UNREADABLE),
    (200, b"\xff\xfe", {}, UNREADABLE),
    (204, b"", {}, UNREADABLE),
    (400, {"code": 4196, "message": UNKNOWN_KEY}, {}, Unclear(reason=f"invalid_request: {UNKNOWN_KEY}")),
    (400, b"", {}, Unclear(reason="invalid_request")),
    (422, {"code": 1, "message": "Not all", "details": {}}, {}, Unclear(reason="not_processed: Not all")),
    (422, listed(OK), {}, Unclear(reason="not_processed")),
    (413, b"<html>", {}, Unclear(reason="too_large")),
    (401, {"code": 2, "message": "Authentication failed."}, {}, Paused(reason="unauthorized")),
    (403, {"code": 29}, {}, Paused(reason="forbidden")),
    (404, b"", {}, Paused(reason="not_found")),
    (405, b"", {}, Paused(reason="status_405")),
    (302, b"", {"location": "https://elsewhere.example"}, Paused(reason="redirected")),
    (408, b"", {}, Retry(reason="status_408", ambiguous=True)),
    (425, b"", {}, Retry(reason="status_425", ambiguous=True)),
    (429, b"", {}, Retry(reason="rate_limited")),
    (429, b"", {"retry-after": "7"}, Retry(reason="rate_limited", after_s=7)),
    (429, b"", {"retry-after": "1000000000"}, Retry(reason="rate_limited", after_s=900)),
    (429, b"", {"retry-after": "Sun, 22 Nov 2026 00:01:00 GMT"}, Retry(reason="rate_limited", after_s=60)),
    (429, b"", {"retry-after": "Sun, 22 Nov 2026 00:01:00 -0000"}, Retry(reason="rate_limited", after_s=60)),
    (429, b"", {"retry-after": "Sun, 22 Nov 2020 00:01:00 GMT"}, Retry(reason="rate_limited")),
    (429, b"", {"retry-after": "soon"}, Retry(reason="rate_limited")),
    (429, b"", {"retry-after": "-5"}, Retry(reason="rate_limited")),
    (429, b"", {"retry-after": "²"}, Retry(reason="rate_limited")),
    (429, b"", {"retry-after": "9" * 5000}, Retry(reason="rate_limited")),
    (500, b"", {}, Retry(reason="status_500", ambiguous=True)),
    (502, b"<html>", {"retry-after": "3"}, Retry(reason="status_502", after_s=3, ambiguous=True)),
    (503, b"", {}, Retry(reason="status_503", ambiguous=True)),
    (503, {"code": 4197, "message": "ramped down"}, {"retry-after": "9"}, Retry(reason="ramped_down", after_s=9)),
]


@pytest.mark.parametrize(("status", "body", "headers", "expected"), ANSWERS)
def test_answers(status: int, body: Any, headers: dict[str, str], expected: Any) -> None:
    """Every answer has one meaning, and none raises."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    assert verdict(Answer(status=status, headers=headers, body=content), 2, NOW) == expected


@pytest.mark.parametrize(
    "personal",
    [
        "zoe.m@example.com",
        sha("x"),
        sha("x").upper(),
        "+1 (212) 555-0101",
        "12125550101",
        "198.51.100.7",
        "2001:db8::7",
        "https://shop.example/?email=zoe",
        "'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36'",
        "dj0yJnU9b2JDcFFHekV4SHJNcmVrbFBkUEdqakh0akdUT1VjVVU",
    ],
)
def test_scrubbed(personal: str) -> None:
    """The vendor's wording stays, what may be personal in it does not, and it is one line of bounded length."""
    found = scrubbed(f"user_data.em:\n{personal} is\x00 wrong " + "so " * 900)
    assert personal not in found
    assert found.startswith("user_data.em: [")
    assert "] is wrong so" in found
    assert len(found) <= 300


@given(st.text(max_size=700) | st.text(alphabet="0a@:.'-( ", max_size=700))
@settings(max_examples=100)
def test_scrubbed_takes_anything(text: str) -> None:
    """No text makes the scrubbing fail or grow."""
    assert len(scrubbed(text)) <= 300


def test_send_delivers() -> None:
    """A batch is one call to the account's address with the token, and the sandbox holds every event once."""
    result, box = call(event(), event(event_id="e2", event_name="big_spender"), event_names=["big_spender"])
    assert result == [Delivered(), Delivered()]
    assert (box.record.calls, box.record.ids("42")) == (1, {"checkout e1": 1, "big_spender e2": 1})


@pytest.mark.parametrize(("test", "options"), [(True, {}), (False, {"test": True})])
def test_send_for_testing_only(test: bool, options: dict[str, Any]) -> None:
    """A test batch and a test destination are validated and not recorded."""
    result, box = call(event(), test_batch=test, **options)
    assert result == [Delivered()]
    assert (box.record.counts.processed, box.tests.counts.processed) == (0, 1)


FAULTS: list[tuple[Fault, Any]] = [
    (Fault(kind="partial", indexes=(1,)), [Delivered(), Refused(reason="refused: scripted failure")]),
    (Fault(kind="partial", indexes=(1,), status=200), [Delivered(), Refused(reason="refused: scripted failure")]),
    (
        Fault(kind="partial", indexes=(0,), listed=False),
        Unclear(reason="not_processed: Not all events were successfully processed."),
    ),
    (Fault(kind="status", status=429, retry_after=12), Retry(reason="rate_limited", after_s=12)),
    (Fault(kind="status"), Retry(reason="ramped_down")),
    (Fault(kind="status", status=500), Retry(reason="status_500", ambiguous=True)),
    (Fault(kind="reset_after"), Retry(reason="unreachable", ambiguous=True)),
    *(
        (Fault(kind="answer", body=body, size_mb=2), UNREADABLE)
        for body in (
            "html",
            "empty",
            "truncated",
            "gzip_bomb",
            "short",
            "long",
            "unknown_status",
            "missing_status",
            "no_events",
        )
    ),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS)
def test_send_meets_faults(fault: Fault, expected: Any) -> None:
    """Partial failures are told apart event by event; what nobody can read is a retry of the same ids."""
    box = PinterestSandbox(clock=lambda: NOW)
    box.faults.queue(fault)
    assert call(event(), event(event_id="e2"), box=box)[0] == expected


def test_send_pauses_and_resumes() -> None:
    """A revoked token and a foreign account pause; the same destination delivers once they are mended."""
    box = PinterestSandbox(SandboxConfig(ad_accounts=frozenset({"42"})), clock=lambda: NOW)
    box.revoke()
    assert call(event(), box=box)[0] == Paused(reason="unauthorized")
    box.restore()
    assert call(event(), box=box, ad_account_id="43")[0] == Paused(reason="forbidden")
    assert call(event(), box=box, base_url="http://127.0.0.1:1/v6")[0] == Paused(reason="not_found")
    assert call(event(), box=box)[0] == [Delivered()]


class Broken:
    """A client whose every call fails."""

    def __init__(self, *, sent: bool) -> None:
        self.sent = sent

    async def request(self, method: str, url: str, **more: Any) -> Answer:
        raise Unreachable("no answer", sent=self.sent)


@pytest.mark.parametrize("was_sent", [True, False])
def test_send_unreachable(was_sent: bool) -> None:
    """Only a request that may have been read is ambiguous."""
    result = asyncio.run(pinterest(Broken(sent=was_sent)).send(Batch(events=(event(),))))
    assert result == Retry(reason="unreachable", ambiguous=was_sent)


@pytest.mark.parametrize(
    ("options", "fault", "said"),
    [
        ({}, None, None),
        ({"token": Secret(value="other")}, None, "[destinations.ads] token"),
        ({"ad_account_id": "43"}, None, "ad_account_id"),
        ({"base_url": "http://127.0.0.1:1/v6"}, None, "404"),
        ({}, Fault(kind="status", status=302), "redirects"),
        ({}, Fault(kind="status", status=418), "418"),
        ({}, Fault(kind="status", status=429), "rate_limited"),
        ({}, Fault(kind="partial", indexes=(0,)), "refused: scripted failure"),
        ({}, Fault(kind="reset_before"), "cannot be reached"),
    ],
)
def test_probe(options: dict[str, Any], fault: Fault | None, said: str | None) -> None:
    """The probe says in words what is wrong and what to do, and leaves no conversion behind."""
    box = PinterestSandbox(SandboxConfig(ad_accounts=frozenset({"42"})), clock=lambda: NOW)
    if fault:
        box.faults.queue(fault)

    async def run() -> str | None:
        http = Http(httpx.ASGITransport(app=box.app))
        try:
            return await pinterest(http, **options).probe()
        finally:
            await http.close()

    found = asyncio.run(run())
    assert (found is None) if said is None else (found is not None and said in found)
    assert box.record.counts.processed == 0
    assert "sandbox-token" not in (found or "")
