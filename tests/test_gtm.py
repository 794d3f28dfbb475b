"""The adapter ``gtm``: GA4 hits, event data, Data Client."""

import base64
import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.gtm import GtmAdapter, register_adapters
from adapters.gtm.options import Options
from gateway import Context, Event, Hit, Invalid, Item, Key, Normalized, Rejected, Secret, Skipped, Source
from gateway.testing import examples

ADAPTER = GtmAdapter()
EXAMPLES = examples.files(Path(__file__).resolve().parents[1] / "adapters" / "gtm" / "examples")
SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "payloads" / "gtm"
EPIK = "dj0yJnU9ZXhhbXBsZQ"


def source(**changes: Any) -> Source:
    given: dict[str, Any] = {
        "name": "gtm",
        "adapter": "gtm",
        "site": "shop",
        "destinations": ("pinterest",),
        "options": Options(),
        "secrets": (Secret(value="s3cret"),),
    }
    return Source(**{**given, **changes})


def hit(body: Any = b"", query: str = "", method: str = "POST", **changes: Any) -> Hit:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"authorization": "Bearer s3cret"}
    return Hit(source=source(**changes), method=method, query=query, body=raw, headers=headers)


def items_of(body: Any = b"", query: str = "", **changes: Any) -> list[Normalized]:
    return list(ADAPTER.normalize(hit(body, query, **changes)))


def event_of(body: Any = b"", query: str = "", **changes: Any) -> Event:
    (event,) = items_of(body, query, **changes)
    assert isinstance(event, Event)
    return event


def told(**data: Any) -> Event:
    return event_of({"event_name": "page_view", **data})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path) -> None:
    """Every example file says what comes out."""
    examples.check(path, ADAPTER)


def test_there_are_examples() -> None:
    """The folder of examples is not empty."""
    assert len(EXAMPLES) >= 15


def test_hook() -> None:
    """The module is the plugin, and offers one adapter for both sides."""
    (adapter,) = register_adapters(Context())
    assert (adapter.name, adapter.side) == ("gtm", "either")
    assert adapter.methods == {"GET", "POST"}


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("page_view", "page_visit"), ("gtm.dom", "page_visit"), ("view_item", "page_visit"),
        ("view_item_list", "view_category"), ("search", "search"), ("add_to_cart", "add_to_cart"),
        ("begin_checkout", "initiate_checkout"), ("add_payment_info", "add_payment_info"),
        ("add_to_wishlist", "add_to_wishlist"), ("purchase", "checkout"), ("buy", "checkout"),
        ("pay", "checkout"), ("payment", "checkout"), ("generate_lead", "lead"), ("sign_up", "signup"),
        ("contact", "contact"), ("start_trial", "start_trial"), ("subscribe", "subscribe"),
        ("checkout", "checkout"), ("page_visit", "page_visit"), ("watch_video", "watch_video"),
        ("add_shipping_info", ""), ("select_item", ""), ("view_cart", ""), ("refund", ""),
        ("session_start", ""), ("user_engagement", ""), ("video_start", ""), ("gtm.click", ""),
        (" Purchase ", "checkout"), ("Quiz_Done", "Quiz_Done"),
    ],
)  # fmt: skip
def test_names(name: str, canonical: str) -> None:
    """Names are looked up trimmed and in lower case, and kept as given beside the canonical one."""
    event = event_of({"event_name": name})
    assert (event.name, event.source_name) == (canonical, name)


@pytest.mark.parametrize(
    ("data", "order", "event_id"),
    [
        ({"transaction_id": "T-1"}, "T-1", None),
        ({"order_id": 17, "transaction_id": "T-1"}, "17", None),
        ({"ecommerce": {"transaction_id": "T-2"}}, "T-2", None),
        ({"transaction_id": "T-1", "unique_event_id": "u"}, "T-1", None),
        ({"transaction_id": "T-1", "event_id": " e 1 "}, "T-1", " e 1 "),
        ({"unique_event_id": "u"}, None, "u"),
    ],
)
def test_ids_of_a_purchase(data: dict[str, Any], order: str | None, event_id: str | None) -> None:
    """An order id makes a key; an explicit id is kept byte for byte; the Data Client's own id gives way to an order."""
    event = event_of({"event_name": "purchase", **data})
    assert event.keys == (() if order is None else (Key(kind="order", value=order),))
    assert event.id == event_id


def test_order_key_only_on_checkout() -> None:
    """An add_to_cart with an order id has no order key."""
    event = event_of({"event_name": "add_to_cart", "order_id": "T-1"})
    assert event.keys == ()
    assert event.purchase.order_id == "T-1"


def test_order_key_follows_event_names() -> None:
    """An event that the configuration maps to checkout carries the order's key."""
    data = {"event_name": "kauf", "transaction_id": "T-1", "checkout_token": "c"}
    assert event_of(data, event_names={"kauf": "checkout"}).keys == (
        Key(kind="order", value="T-1"),
        Key(kind="checkout", value="c"),
    )


@pytest.mark.parametrize(
    ("data", "value", "count"),
    [
        ({"value": 0, "items": [{"id": "a", "price": 2}]}, "0", 1),
        ({"items": [{"id": "a", "price": "2.50", "quantity": "2"}, {"id": "b", "price": 1}]}, "6.00", 3),
        ({"items": [{"id": "a", "price": 2}, {"id": "b"}]}, None, 2),
        ({"items": [{"id": "a", "price": 2}, "b"]}, None, None),
        ({"items": [{"id": "a", "price": 2, "quantity": "many"}]}, None, None),
        ({"items": [{"id": "a", "price": 2, "quantity": 0}]}, "0", 0),
        ({"ecommerce": {"value": "7", "items": [{"item_id": "a", "quantity": 4}]}}, "7", 4),
        ({"x-ga-mp1-tr": "9", "x-ga-mp1-ev": "1"}, "9", None),
        ({"value": True, "x_ga_mp1_ev": 3}, "3", None),
        ({"value": 10**30}, None, None),
        ({"items": '[{"id":"a","price":3}]', "num_items": "5"}, "3", 5),
        ({"items": "[{"}, None, None),
        ({"contents": [{"id": "a", "item_price": "4"}], "items": [{"id": "b", "price": 9}]}, "4", 1),
        ({"items": [], "line_items": [{"product_id": 5, "price": 1}]}, "1", 1),
    ],
)
def test_value_and_count(data: dict[str, Any], value: str | None, count: int | None) -> None:
    """An explicit value wins, 0 included; a sum needs every item to be whole."""
    purchase = told(**data).purchase
    assert purchase.value == (None if value is None else Decimal(value))
    assert purchase.num_items == count


@pytest.mark.parametrize(
    ("given", "ids"),
    [(["a", 2], ("a", "2")), ('["a","b"]', ("a", "b")), ("a, b", ("a", "b")), (7, ("7",)), ({"a": 1}, ())],
)
def test_content_ids(given: Any, ids: tuple[str, ...]) -> None:
    """Content ids come as a list, as JSON text, or as one text."""
    assert told(content_ids=given).purchase.content_ids == ids


def test_item_name_is_no_id() -> None:
    """An item without an id travels without one."""
    assert told(items=[{"item_name": "Tea"}]).purchase.items == (Item(name="Tea"),)


@pytest.mark.parametrize(
    ("data", "marketing", "analytics"),
    [
        ({}, None, None),
        ({"x-ga-gcs": "G111"}, True, True),
        ({"x-ga-gcs": "G101"}, False, True),
        ({"x_ga_gcs": "G1-0"}, None, False),
        ({"x-ga-gcs": "granted"}, None, None),
        ({"x-ga-gcs": "G100", "consent_state": {"ad_storage": True}}, True, False),
        ({"x-ga-gcs": "G111", "consent_state": {"ad_storage": "denied"}}, False, True),
        ({"consent_state": {"ad_storage": "granted", "ad_user_data": "denied"}}, False, None),
        ({"consent_state": {"ad_storage": True, "ad_user_data": True, "ad_personalization": False}}, True, None),
        ({"consent_state": {"ad_user_data": True}}, None, None),
        ({"consent_state_ad_storage": False}, False, None),
        ({"consent_state": ["no"], "x-ga-gcs": 111}, None, None),
        ({"x-ga-gcd": "13p3p3p3p5"}, None, None),
    ],
)
def test_consent(data: dict[str, Any], marketing: bool | None, analytics: bool | None) -> None:
    """consent_state wins over gcs, any denial denies, and silence is no choice."""
    consent = told(**data).consent
    assert (consent.marketing, consent.analytics) == (marketing, analytics)


def test_us_strings() -> None:
    """The IAB's strings are handed on unparsed."""
    consent = told(us_privacy="1YYN", gpp="DBAA", gpp_sid=[7, 8], gpc="1").consent
    assert (consent.us_privacy, consent.gpp, consent.gpp_sid, consent.gpc) == ("1YYN", "DBAA", "7,8", True)


@pytest.mark.parametrize(
    ("data", "test"),
    [
        ({"debug_mode": "true"}, True),
        ({"debug_mode": 1}, True),
        ({"debug_mode": "false"}, False),
        ({"x-ga-system_properties": {"dbg": "1"}}, True),
        ({"x-ga-system_properties": {"eu": "Q"}}, False),
        ({"x_ga_system_properties_dbg": "1"}, True),
        ({"test": True}, True),
        ({"test_event": "yes"}, True),
    ],
)
def test_debug_traffic(data: dict[str, Any], test: bool) -> None:
    """Preview and debug traffic is a test event."""
    assert told(**data).test is test


@pytest.mark.parametrize(
    ("data", "epik"),
    [
        ({"common_cookie": {"_epik": "c"}, "_epik": "1", "epik": "2", "click_id": "3"}, "c"),
        ({"_epik": "1", "epik": "2"}, "1"),
        ({"click_id": "3", "epik": "2"}, "2"),
        ({"click_id": "3", "user_data": {"click_id": "4"}}, "3"),
        ({"user_data": {"click_id": "aB=="}}, "aB=="),
        ({"user_data_click_id": "4"}, "4"),
        ({"common_cookie__epik": "c"}, "c"),
    ],
)
def test_click_id(data: dict[str, Any], epik: str) -> None:
    """The cookie comes before the fields, and the value is not touched."""
    assert told(**data).click_ids == {"epik": epik}


def test_client_is_what_the_payload_says() -> None:
    """user_data's own address and browser win over the container's fields."""
    data = {"ip_override": "8.8.8.8", "user_agent": "A", "user_data": {"client_ip_address": "9.9.9.9"}}
    client = told(**data).client
    assert (client.ip, client.user_agent) == ("9.9.9.9", "A")


@pytest.mark.parametrize(
    ("data", "external_id"),
    [
        ({"user_data": {"external_id": "x"}, "external_id": "y"}, "x"),
        ({"external_id": "y", "user_id": "u"}, "y"),
        ({"user_id": "u", "client_id": "1.2"}, "u"),
        ({"user_id": "undefined", "client_id": "1.2"}, "1.2"),
    ],
)
def test_external_id(data: dict[str, Any], external_id: str) -> None:
    """The first readable id counts."""
    assert told(**data).user.external_id == (external_id,)


DIGEST = hashlib.sha256(b"ada@example.com")


@pytest.mark.parametrize(
    "given",
    [
        DIGEST.hexdigest().upper(),
        base64.b64encode(DIGEST.digest()).decode(),
        base64.urlsafe_b64encode(DIGEST.digest()).decode().rstrip("="),
    ],
)
def test_hashed_email(given: str) -> None:
    """A hash in hex or base64 becomes 64 lower-case hex digits; the plain address would win."""
    assert told(user_data={"sha256_email_address": given}).user.email == (DIGEST.hexdigest(),)
    both = told(email="eve@example.com", user_data={"sha256_email_address": given})
    assert both.user.email == ("eve@example.com",)


@pytest.mark.parametrize("given", ["ada@example.com", "x" * 42, "é" * 43, "0" * 63, ["?"]])
def test_what_is_no_hash_is_dropped(given: Any) -> None:
    """A field that promises a hash and holds something else is dropped with a note."""
    event = told(user_data={"sha256_email_address": given})
    assert event.user.email == ()
    assert event.notes == ("email: not_a_hash",)


def test_plain_phone_makes_the_hash_needless() -> None:
    """The note about Google's phone hash is only for events that have nothing else."""
    data = {"phone_number": "+1 555 0100", "sha256_phone_number": "0" * 64}
    assert told(user_data=data).notes == ()
    assert told(user_data={"sha256_phone_number": "0" * 64}).notes == ("phone: hashed_with_plus",)


@pytest.mark.parametrize(
    "address",
    [
        {"city": "Springfield", "region": "IL"},
        [{"city": "Springfield", "region": "IL"}, {"city": "Shelbyville"}],
        [None, {"city": ["Springfield"], "region": "IL"}],
    ],
)
def test_address_shapes(address: Any) -> None:
    """An address is an object, or the first of a list."""
    user = told(user_data={"address": address}).user
    assert (user.city, user.state) == (("Springfield",), ("IL",))


def test_flat_equals_nested() -> None:
    """Flattening an event, lists included, changes nothing."""
    nested_form = {
        "event_name": "purchase",
        "x-ga-gcs": "G101",
        "x-ga-system_properties": {"dbg": "1"},
        "user_data": {"email_address": "ada@example.com", "address": {"first_name": "Ada", "postal_code": "1"}},
        "common_cookie": {"_epik": EPIK},
        "consent_state": {"ad_storage": True, "ad_user_data": True},
        "ecommerce": {"value": 3, "currency": "EUR", "items": [{"item_id": "a", "price": 1}, {"item_id": "b"}]},
    }

    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        result: dict[str, Any] = {}
        for key, item in pairs:
            name = f"{prefix}{key}".replace("-", "_")
            result |= flat(item, name + "_") if isinstance(item, dict | list) else {name: item}
        return result

    assert event_of(flat(nested_form)) == event_of(nested_form)


def test_the_body_is_not_changed() -> None:
    """The same hit twice gives the same event, mixed forms included."""
    body = {"event_name": "page_view", "user_data": {"email": "ada@example.com"}, "user_data_address_city": "X"}
    same = hit(body)
    first, second = ADAPTER.normalize(same), ADAPTER.normalize(same)
    assert first == second
    (event,) = first
    assert isinstance(event, Event)
    assert event.user.city == ("X",)
    assert event.user.email == ("ada@example.com",)


@pytest.mark.parametrize(
    ("given", "time"),
    [
        ({"event_time": "1795305000"}, 1795305000.0),
        ({"event_time": 1795305000123}, 1795305000.123),
        ({"event_time": "2026-11-21T23:50:00Z"}, 1795305000.0),
        ({"timestamp": 1795305000}, 1795305000.0),
        ({"event_time": "?", "timestamp": 1795305000}, 1795305000.0),
        ({"custom_timestamp": 1795305000}, None),
    ],
)
def test_time(given: dict[str, Any], time: float | None) -> None:
    """The event's own time, in any form; other fields that look like times are left alone."""
    assert told(**given).time == time


def test_action_source() -> None:
    """A known action source is kept, another one is web with a note."""
    assert told(action_source="app_ios").action_source == "app_ios"
    odd = told(action_source="fridge")
    assert (odd.action_source, odd.notes) == ("web", ("action_source: unknown",))


def test_limited_data() -> None:
    """LDP among several flags is limited data; silence is not."""
    assert told(opt_out_type="ldp,OTHER").limited_data is True
    assert told(opt_out_type="OTHER").limited_data is None
    assert told(limited_data="false").limited_data is False
    assert told().limited_data is None


def test_script_check_is_a_bot() -> None:
    """Pages of Tag Manager's own script check are not events."""
    data = {"event_name": "page_view", "page_location": "https://gtm-msr.appspot.com/render?id=1"}
    assert items_of(data) == [Skipped(reason="bot", source_name="page_view")]


def test_data_tag_names_the_event_in_the_query() -> None:
    """A JSON body without a name takes the one of the query; its own wins."""
    assert event_of({"client_id": "1"}, "event_name=purchase").name == "checkout"
    assert event_of({"event_name": "search"}, "event_name=purchase").name == "search"


@pytest.mark.parametrize("body", [b"", b"  \r\n \n"])
def test_ga4_post_with_an_empty_body(body: bytes) -> None:
    """An empty body is one event in the query."""
    event = event_of(body, "v=2&tid=G-EXAMPLE&en=page_view&cid=1.2&ep.debug_mode=true")
    assert (event.name, event.client_id, event.test) == ("page_visit", "1.2", True)


def test_ga4_lines_override_shared_parameters() -> None:
    """What a line says wins over the query, and each line stands alone."""
    events = items_of(
        b"en=search&ep.search_term=tea%20pot&dl=https%3A%2F%2Fa.example%2F2\nen=scroll",
        "cid=1.2&dl=https://a.example/1",
    )
    assert [(e.name, e.source_url, e.search_string) for e in events if isinstance(e, Event)] == [
        ("search", "https://a.example/2", "tea pot"),
        ("", "https://a.example/1", None),
    ]


def test_ga4_protocol_wins_over_event_parameters() -> None:
    """ep.client_id cannot take the place of cid; ep.currency stands in for a missing cu."""
    event = event_of(b"", "en=page_view&cid=1.2&ep.client_id=9.9&ep.currency=usd&epn.value=2")
    assert (event.client_id, event.purchase.currency, event.purchase.value) == ("1.2", "USD", Decimal(2))


def test_ga4_items_in_order() -> None:
    """Items are read by number; unknown codes and other pr parameters are ignored."""
    query = "en=add_to_cart&pr10=idc&pr2=idb~pr2~qtx&pr1=ida~pr1.5~qt2~zz9~k0size~v0L&pr0=idz&prx=idy"
    purchase = event_of(b"", query).purchase
    assert purchase.items == (
        Item(id="a", price=Decimal("1.5"), quantity=2),
        Item(id="b", price=Decimal(2)),
        Item(id="c"),
    )


@pytest.mark.parametrize(
    ("em", "email"),
    [
        ("tv.1~em." + base64.urlsafe_b64encode(DIGEST.digest()).decode().rstrip("="), (DIGEST.hexdigest(),)),
        ("tv.1~pn.abc", ()),
        ("tv.1~em.short", ()),
        ("em.x", ()),
        ("tv.9~em.x", ()),
        ("", ()),
    ],
)
def test_ga4_enhanced_conversions(em: str, email: tuple[str, ...]) -> None:
    """Only a whole e-mail digest of a known version is read."""
    assert event_of(b"", "en=page_view&em=" + quote(em)).user.email == email


def test_ga4_hits_bring_no_address_of_the_connection() -> None:
    """A raw hit says nothing about IP and browser: an enricher takes them from the connection."""
    assert event_of(b"", "en=page_view&_uip=8.8.8.8").client.ip is None


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padded", [True, False])
def test_data_client_base64(encode: Any, padded: bool) -> None:
    """Dtdc may use either alphabet, with or without padding."""
    text = encode('{"event_name":"search","search_term":"??>>~~é"}'.encode()).decode()
    event = event_of(b"", "dtdc=" + (quote(text) if padded else text.rstrip("=")), method="GET")
    assert (event.name, event.search_string) == ("search", "??>>~~é")


def test_data_client_plain_json() -> None:
    """Dtcd is JSON as it is; the query's other parameters fill in."""
    query = "v=3&event_name=search&dtcd=" + quote('{"search_term":"tea"}')
    assert event_of(b"", query, method="GET").search_string == "tea"


@pytest.mark.parametrize(
    ("body", "query", "reason", "status"),
    [
        (b"", "", "missing_event", 400),
        (b"", "v=2", "missing_event", 400),
        (b"", "dtdc=***", "malformed_json", 400),
        (b"", "dtdc=eyJ", "malformed_json", 400),
        (b"", "dtcd=", "empty_body", 400),
        (b"", "dtcd=7", "not_an_event", 400),
        (b"nonsense", "", "malformed_json", 400),
        (b"\x1c", "v=2&en=search", "malformed_json", 400),
        (b'{"event_name":', "", "malformed_json", 400),
        (b"[]", "", "empty_batch", 400),
        (b"\xef\xbb\xbf[]", "", "empty_batch", 400),
        (b"7", "", "not_an_event", 400),
        (b"\xff\xfe", "", "malformed_json", 400),
        (b"[" * 5000 + b"]" * 5000, "", "too_complex", 400),
        (b"[" + b"{}," * 1000 + b"{}]", "", "too_many_events", 413),
        (b"\n".join([b"en=search"] * 1001), "v=2", "too_many_events", 413),
        (b"", "&".join(["a"] * 501), "too_complex", 400),
    ],
)  # fmt: skip
def test_refused(body: bytes, query: str, reason: str, status: int) -> None:
    """What is no event at all is refused as a whole."""
    with pytest.raises(Rejected) as refused:
        items_of(body, query)
    assert (refused.value.reason, refused.value.status) == (reason, status)


def test_a_long_line_is_refused_alone() -> None:
    """A line with too many parameters costs itself only."""
    good, bad = items_of(b"en=search\nen=search&" + b"a=1&" * 600, "v=2&tid=G-EXAMPLE")
    assert isinstance(good, Event)
    assert isinstance(bad, Invalid)
    assert bad.reason == "too_complex"


@pytest.mark.parametrize("name", [None, "", 5, True, [], {"a": 1}, "\ud800", "x" * 1001])
def test_an_unreadable_name(name: Any) -> None:
    """Without a readable name there is no event."""
    (item,) = items_of({"event_name": name, "event_id": "e"})
    assert isinstance(item, Invalid)
    assert (item.reason, item.field, item.event_id) == ("missing_event_name", "event_name", "e")


def test_a_public_source_needs_no_secret() -> None:
    """A public source takes a hit of its origin, and refuses another's."""
    public = source(secrets=(), allowed_origins=("https://shop.example",))
    good = Hit(source=public, query="en=page_view", headers={"origin": "https://shop.example"})
    ADAPTER.verify(good)
    with pytest.raises(Rejected) as refused:
        ADAPTER.verify(msgspec.structs.replace(good, headers={"origin": "https://evil.example"}))
    assert refused.value.status == 403


BODY: dict[str, Any] = {
    "event_name": "purchase",
    "event_id": "e-1",
    "event_time": 1795305000,
    "action_source": "web",
    "x-ga-gcs": "G111",
    "x-ga-system_properties": {"eu": "Q"},
    "consent_state": {"ad_storage": True},
    "common_cookie": {"_epik": EPIK},
    "user_data": {"email_address": "ada@example.com", "sha256_email_address": "0" * 64, "address": [{"city": "X"}]},
    "user_data_address_0_city": "Y",
    "items_0_item_id": "a",
    "items": [{"item_id": "a", "price": 1.5, "quantity": 2}],
    "ecommerce": {"items": [{"item_id": "a"}]},
    "content_ids": ["a"],
    "value": "3",
    "currency": "EUR",
    "transaction_id": "T-1",
    "page_location": "https://shop.example/",
    "language": "en-us",
    "opt_out_type": "LDP",
    "ip_override": "8.8.8.8",
    "device_model": "One",
    "debug_mode": "true",
    "gpp_sid": "7",
}
TEXTS = st.text() | st.sampled_from(["\ud800", "\x00", "1e999", "[{", "NaN", "9" * 400, "null", " "])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**30) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(dropped=st.sets(st.sampled_from(sorted(BODY))), junk=st.dictionaries(st.sampled_from(sorted(BODY)), JUNK))
def test_junk_costs_fields_only(dropped: set[str], junk: dict[str, Any]) -> None:
    """Whatever stands in a field, the hit gives items or a refusal, twice the same, and each can be written."""
    body = {key: value for key, value in {**BODY, **junk}.items() if key not in dropped}
    same = hit(body)
    try:
        found = ADAPTER.normalize(same)
    except Rejected:
        return
    assert ADAPTER.normalize(same) == found
    for item in found:
        assert isinstance(item, Event | Invalid | Skipped)
        msgspec.json.encode(item)


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=200), query=st.text(max_size=200), ga4=st.booleans())
def test_any_bytes(body: bytes, query: str, ga4: bool) -> None:
    """Any bytes give items or a refusal."""
    try:
        found = items_of(body, ("en=purchase&" if ga4 else "") + query)
    except Rejected:
        return
    assert found
    assert all(isinstance(item, Event | Invalid | Skipped) for item in found)


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(min_value=0, max_value=len(json.dumps(BODY)) - 1))
def test_a_truncated_body(cut: int) -> None:
    """A body that was cut off is refused."""
    with pytest.raises(Rejected):
        items_of(json.dumps(BODY).encode()[:cut])


def sample(name: str) -> Event:
    path = SAMPLES / f"{name}.json"
    if not path.exists():
        pytest.skip("the shared sample payloads are not on this machine")
    given = json.loads(path.read_bytes())
    request = given["request"]
    body = msgspec.json.encode(given["body"]) if "body" in given else given.get("raw_body", "").encode()
    headers = {key.lower(): value for key, value in request["headers"].items()}
    here = Hit(
        source=source(),
        method=request["method"],
        query=urlsplit(request["path"]).query,
        headers=headers | {"authorization": "Bearer s3cret"},
        body=body,
    )
    ADAPTER.verify(here)
    (event,) = ADAPTER.normalize(here)
    assert isinstance(event, Event)
    return event


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_sample_pinterest_template() -> None:
    """Pinterest's own fixture: everything that its template asserts is handed on."""
    event = sample("pinterest_template_add_to_cart")
    wanted = json.loads((SAMPLES / "pinterest_template_add_to_cart.expected.json").read_bytes())["events"][0]
    assert (event.name, event.id, event.time) == (
        wanted["event_name"], wanted["event_id"], wanted["event_time"],
    )  # fmt: skip
    assert (event.action_source, event.opt_out, event.language) == (
        wanted["action_source"], wanted["opt_out"], wanted["language"],
    )  # fmt: skip
    user, hashes = event.user, wanted["user_data"]
    plain = {
        "em": user.email, "ge": user.gender, "db": user.birth_date, "fn": user.first_name, "ln": user.last_name,
        "ct": user.city, "st": user.state, "zp": user.postal_code, "country": user.country,
        "hashed_maids": user.mobile_ad_id, "external_id": user.external_id, "ph": user.phone,
    }  # fmt: skip
    for field, values in plain.items():
        assert [sha256(value.strip().lower()) for value in values] == hashes[field], field
    assert event.click_ids == {"epik": hashes["click_id"]}
    assert (event.client.ip, event.client.user_agent) == (
        hashes["client_ip_address"], hashes["client_user_agent"],
    )  # fmt: skip
    purchase, custom = event.purchase, wanted["custom_data"]
    assert (purchase.value, purchase.currency) == (Decimal(custom["value"]), custom["currency"])
    assert (purchase.num_items, purchase.order_id) == (custom["num_items"], custom["order_id"])
    assert purchase.predicted_ltv == Decimal(custom["predicted_ltv"])
    assert list(purchase.content_ids) == custom["content_ids"]
    assert [
        {"id": item.id, "item_price": str(item.price), "quantity": item.quantity} for item in purchase.items
    ] == custom["contents"]
    assert (event.content.name, event.content.category, event.content.brand) == (
        custom["content_name"], custom["content_category"], custom["content_brand"],
    )  # fmt: skip
    assert (event.search_string, event.limited_data) == (custom["search_string"], True)
    assert (event.keys, event.notes) == ((), ())


def test_sample_page_view() -> None:
    """A GA4 client's dump: the shopper is ip_override, and an ordinary visit is not a test."""
    event = sample("ga4_client_page_view")
    assert (event.name, event.client.ip, event.time, event.test) == ("page_visit", "216.3.128.12", None, False)
    assert event.notes == ()


def test_sample_lead_in_preview() -> None:
    """debug_mode marks preview traffic."""
    event = sample("ga4_client_generate_lead")
    assert (event.name, event.test, event.client.ip) == ("lead", True, "208.67.222.222")


def test_sample_common_event_purchase() -> None:
    """The documented event data with an address in a list."""
    event = sample("common_event_purchase")
    assert event.keys == (Key(kind="order", value="T_12345"),)
    assert (event.id, event.purchase.value, event.purchase.num_items) == ("1732096800.1234", Decimal("72.05"), 5)
    assert (event.user.city, event.consent.marketing) == (("San Francisco",), True)


def test_sample_data_client() -> None:
    """Click id of the common cookie, consent booleans, time in seconds, and no id but the order's."""
    event = sample("stape_data_client_purchase")
    assert (event.name, event.id, event.time) == ("checkout", None, 1795305000.0)
    assert event.keys == (Key(kind="order", value="TXN-12345"),)
    assert event.click_ids["epik"].startswith("dj0y")
    assert (event.consent.marketing, event.purchase.value) == (True, Decimal("99.99"))


def test_sample_flattened() -> None:
    """Flattened keys are read as nested ones."""
    event = sample("stape_json_http_request_flat")
    assert (event.name, event.user.email) == ("view_category", ("user@example.com",))
    assert (event.consent.marketing, event.test) == (True, False)


def test_sample_raw_ga4() -> None:
    """A real GA4 hit: items, value, debug flag, and a parameter without "="."""
    event = sample("ga4_collect_add_to_cart_get")
    assert (event.name, event.test, event.language) == ("add_to_cart", True, "en")
    assert event.purchase.items == (
        Item(id="SKU_12345", name="Stan and Friends Tee", price=Decimal("10.01"), quantity=3,
             brand="Google", category="Apparel"),
    )  # fmt: skip
    assert (event.purchase.value, event.consent.marketing) == (Decimal("30.03"), None)
