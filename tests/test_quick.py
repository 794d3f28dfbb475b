"""The short way of the browser tag gives exactly what the tolerant way gives, or stands back."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway import STANDARD_NAMES, Rejected, Secret, Source, json_body
from gateway.plugins.browser_tag.payload import FIELDS, MAX_EVENTS, USER_ALIASES, items_of
from gateway.plugins.browser_tag.quick import quick_events

PUBLIC = Source(
    name="tag",
    adapter="browser_tag",
    site="shop",
    destinations=("p",),
    allowed_origins=("https://shop.example",),
    event_names={"Bought": "checkout", "checkout": "lead"},
)
SERVER = Source(name="api", adapter="browser_tag", site="shop", destinations=("p",), secrets=(Secret(value="s"),))
TYPICAL: dict[str, Any] = {
    "event_name": "checkout",
    "event_id": "e-1",
    "event_time": 1_795_305_600,
    "event_source_url": "https://shop.example/thanks?x=1",
    "client_id": "c.1",
    "click_id": "dj0yJnU9",
    "user": {"email": "jo@example.com", "phone": "+14155552671", "country": "US"},
    "value": 59.9,
    "currency": "EUR",
    "order_id": "1001",
    "items": [{"id": "a", "name": "Shoe", "price": 29.95, "quantity": 2}],
    "num_items": 2,
    "language": "de",
    "sent_at": 1_795_305_601,
    "tag": True,
    "limited_data": False,
}

names = st.sampled_from(
    [
        *sorted(STANDARD_NAMES),
        "PageVisit",
        "page visit",
        "Add-To-Cart",
        "Bought",
        "own_event",
        "",
        " checkout ",
        "null",
        "x" * 1001,
        "Zoë",
    ]
)
texts = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "null",
            "Undefined",
            "(not set)",
            " padded ",
            "a b",
            "ok",
            "\t",
            "é",
            "日本",
            "\ud800",
            "a\nb",
            "\x7f",
            "0",
        ]
    ),
    st.text(alphabet="aZ09 .@+\"\\'-_\u2028", max_size=8),
    st.sampled_from(["x" * 512, "x" * 513, "x" * 1000, "x" * 1001]),
)
numbers = st.one_of(
    st.integers(-5, 10),
    st.integers(),
    st.floats(),
    st.decimals(allow_nan=False, allow_infinity=False, places=2).map(float),
    st.sampled_from(
        [
            0,
            0.0,
            -0.0,
            0.1,
            19.99,
            1e3,
            1e15,
            1e16,
            1e22,
            1e-7,
            123456789012345.6,
            2**31,
            2**31 - 1,
            2**63,
            2**64,
            10**30,
            True,
            False,
        ]
    ),
    st.sampled_from(["5", "19.99", "1,234.50", "12,5", " 7 ", "1e3", "abc", "", "-1", "NaN"]),
)
times = st.one_of(
    st.integers(999_999_990, 1_000_000_010),
    st.integers(4_102_444_790, 4_102_444_810),
    numbers,
    st.sampled_from(
        [
            1_795_305_600,
            1_795_305_600.0,
            1_795_305_600.5,
            1_795_305_600_000,
            "1795305600",
            "2026-11-22T00:00:00Z",
            "soon",
        ]
    ),
)
flags: st.SearchStrategy[Any] = st.sampled_from([True, False, 1, 0, "true", "no", None, "maybe", []])
strange = st.one_of(
    st.none(), texts, numbers, flags, st.lists(texts, max_size=2), st.dictionaries(texts, texts, max_size=2)
)
urls = st.one_of(
    st.sampled_from(
        [
            "https://shop.example/p?x=1",
            "HTTP://SHOP.example",
            "ftp://x.example/a",
            "/p",
            "https://",
            " https://a.example ",
            "https://x/" + "y" * 8190,
        ]
    ),
    texts,
)
codes = st.sampled_from(["EUR", "eur", "EU", "€€€", "E1R", "US", "en", "EN", "en-US", "e1", "", " de", None, 840])
item = st.dictionaries(
    st.sampled_from(["id", "name", "brand", "category", "price", "quantity", "sku"]),
    st.one_of(texts, numbers, st.none()),
    max_size=4,
)
user = st.dictionaries(
    st.sampled_from([*USER_ALIASES, "em", "ph", "hashed_maids", "age"]),
    st.one_of(texts, st.lists(texts, max_size=2), st.none()),
    max_size=4,
)
KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "event_id": st.one_of(texts, numbers),
    "event_time": times,
    "sent_at": times,
    "action_source": st.sampled_from(["web", "app_ios", "app_android", "offline", "WEB", "tv", "", None]),
    "event_source_url": urls,
    "click_id": texts,
    "client_id": st.one_of(texts, numbers),
    "order_id": st.one_of(texts, numbers),
    "checkout_token": texts,
    "user": st.one_of(user, strange),
    "value": numbers,
    "currency": codes,
    "language": codes,
    "num_items": numbers,
    "items": st.one_of(st.lists(st.one_of(item, strange), max_size=3), item, strange),
    "client": st.one_of(st.dictionaries(st.sampled_from(["ip", "user_agent", "x"]), texts, max_size=2), strange),
    "tag": flags,
    "opt_out": flags,
    "limited_data": flags,
    "test": flags,
    "predicted_ltv": numbers,
    "content_name": texts,
    "search_string": texts,
    "partner_id": texts,
    "consent": st.dictionaries(st.sampled_from(["marketing", "gpc"]), flags, max_size=2),
    "surprise": texts,
}
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "event_id": st.text("aZ09-_.", min_size=1, max_size=8),
    "event_time": st.integers(1_000_000_000, 4_102_444_800),
    "client_id": st.text("a1.", min_size=1, max_size=4),
    "order_id": st.text("019", min_size=1, max_size=4),
    "checkout_token": st.just("tok"),
    "user": st.dictionaries(st.sampled_from(list(USER_ALIASES)), st.text("ab@.1", min_size=1, max_size=6), max_size=3),
    "value": st.one_of(st.integers(0, 10**6), st.floats(0, 10**6)),
    "currency": st.just("USD"),
    "num_items": st.integers(0, 9),
    "items": st.lists(
        st.fixed_dictionaries(
            {"id": st.just("a")},
            optional={"price": st.one_of(st.integers(0, 99), st.floats(0, 99)), "quantity": st.integers(0, 5)},
        ),
        max_size=3,
    ),
    "click_id": st.just("epik-1"),
    "event_source_url": st.just("https://shop.example/p"),
    "language": st.just("de"),
    "tag": st.booleans(),
    "opt_out": st.booleans(),
    "limited_data": st.booleans(),
    "sent_at": st.integers(1_000_000_000, 4_102_444_800),
}


def bodies(fields: dict[str, st.SearchStrategy[Any]], named: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    one = st.fixed_dictionaries({"event_name": named}, optional=fields)
    return st.one_of(one, st.lists(one, max_size=3))


def encoded(body: Any, *, compact: bool, ascii_only: bool) -> bytes:
    text = json.dumps(body, separators=(",", ":") if compact else None, ensure_ascii=ascii_only)
    return text.encode("utf-8", "surrogatepass")


def tolerant(body: bytes, source: Source) -> Any:
    try:
        return items_of(json_body(body), source)
    except Rejected as error:
        return error.reason


def compare(body: bytes, source: Source) -> bool:
    """Hold both ways side by side; returns whether the short one was taken."""
    quick = quick_events(body, source, MAX_EVENTS)
    if quick is None:
        return False
    slow = tolerant(body, source)
    assert quick == slow, body
    assert [type(one) for one in quick] == [type(one) for one in slow]
    return True


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(bodies(KNOWN, names), st.sampled_from([PUBLIC, SERVER]), st.booleans(), st.booleans())
@example({"event_name": "checkout", "value": 1e-7}, PUBLIC, True, True)
@example({"event_name": "checkout", "value": 123456789012345.6}, PUBLIC, True, True)
@example({"event_name": "checkout", "items": [{"price": 0.1, "quantity": 3}]}, PUBLIC, True, True)
@example({"event_name": "checkout", "items": [{}]}, PUBLIC, True, True)
@example({"event_name": "checkout", "items": [{"id": None}]}, PUBLIC, True, True)
@example({"event_name": "checkout", "user": {}}, PUBLIC, True, True)
@example({"event_name": "checkout", "value": "19.99", "currency": "EUR"}, PUBLIC, True, True)
@example({"event_name": "checkout", "value": 19.990}, PUBLIC, True, True)
@example([], PUBLIC, True, True)
def test_equal_or_nothing(body: Any, source: Source, compact: bool, ascii_only: bool) -> None:
    """Whatever a page sends, the short way never gives another event than the tolerant way."""
    compare(encoded(body, compact=compact, ascii_only=ascii_only), source)


@settings(max_examples=100, deadline=None)
@given(bodies(PLAIN, st.sampled_from(sorted(STANDARD_NAMES))), st.sampled_from([PUBLIC, SERVER]))
def test_plain_bodies_are_equal(body: Any, source: Source) -> None:
    """Bodies of the right types, where the short way is mostly taken, are read alike."""
    compare(encoded(body, compact=True, ascii_only=True), source)


@pytest.mark.parametrize(
    "number",
    [
        "0",
        "-0",
        "0.0",
        "-0.0",
        "1.10",
        "19.990",
        "1e2",
        "1E+2",
        "1.5e-3",
        "100000000000000000",
        "0.1234567890123456789",
        "1e999",
        "-1",
        "1e400",
        "123456789012345678901234567890",
        "0.30000000000000004",
        "1e14",
        "999999999999999",
        "1000000000000000",
    ],
)
@pytest.mark.parametrize(
    "place", ['"value":%s', '"items":[{"price":%s}]', '"num_items":%s', '"items":[{"quantity":%s}]', '"event_time":%s']
)
def test_numbers_as_they_are_written(number: str, place: str) -> None:
    """Every spelling of a number that JSON allows gives the same amount both ways."""
    compare(b'{"event_name":"checkout",' + (place % number).encode() + b"}", PUBLIC)


@pytest.mark.parametrize(
    "body",
    [
        b'{"event_name":"lead","event_name":"checkout"}',
        b'{"event_name":"lead","user":{"email":"a"},"user":{"phone":"1"}}',
        b' {"event_name":"lead"} ',
        b'\xef\xbb\xbf{"event_name":"lead"}',
        b'{"event_name":"lead","value":null,"items":null}',
        b'{"event_name":"lead","user":null,"client":null,"tag":null}',
        b'{"event_name":null}',
        b'{"event_name":"lead"}x',
        b"[[]]",
        b'["a"]',
        b'{"event_name":"lead","order_id":"Null"}',
        b'{"event_name":"lead","event_id":"none"}',
        b"[null]",
        b"7",
        b'[{"event_name":"lead"},{}]',
        b'{"event_name":"lead","currency":"AbC"}',
        b'{"event_name":"lead","items":[null]}',
        b'{"event_name":"a\tb"}',
        b'{"event_name":"lead","client_id":"a\x7fb"}',
        b'{"event_name":"lead","event_id":" x"}',
        b'{"event_name":"lead","event_id":"x "}',
        b'{"event_name":"lead","user":{"email":" x"}}',
        b'{"event_name":"page_visit","order_id":"1","checkout_token":"t"}',
        b'{"event_name":"initiate_checkout","checkout_token":"t"}',
        b'{"event_name":"Bought","order_id":"1"}',
        b'{"event_name":"checkout","order_id":"1"}',
    ],
)
def test_corners(body: bytes) -> None:
    """Keys given twice, nulls, white space, byte order marks and overridden names are read alike."""
    compare(body, PUBLIC)


@pytest.mark.parametrize(
    "body", [TYPICAL, [TYPICAL, TYPICAL], {"event_name": "page_visit", "event_source_url": "https://shop.example/"}]
)
def test_a_typical_compact_body_takes_the_short_way(body: Any) -> None:
    """What our own tag sends is read by the short way: otherwise it would be of no use."""
    assert compare(encoded(body, compact=True, ascii_only=True), PUBLIC)


def test_a_full_batch_takes_the_short_way_and_a_larger_one_is_refused() -> None:
    """A thousand events are a batch, one more is for the tolerant way to refuse."""
    assert compare(encoded([TYPICAL] * MAX_EVENTS, compact=True, ascii_only=True), PUBLIC)
    assert (
        quick_events(encoded([TYPICAL] * (MAX_EVENTS + 1), compact=True, ascii_only=True), PUBLIC, MAX_EVENTS) is None
    )


def test_every_field_of_the_contract_is_tried() -> None:
    """A new field of the tag's JSON must be added to what this test sends."""
    assert set(KNOWN) | {"event_name"} >= FIELDS - {"content_category", "content_brand", "app", "device"}
