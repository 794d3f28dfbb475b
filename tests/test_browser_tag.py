"""The browser tag's JSON becomes canonical events."""

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway.plugins.browser_tag as package
from gateway import STANDARD_NAMES, Event, Hit, Invalid, Item, Key, Rejected, Secret, Source
from gateway.plugins.browser_tag import BrowserTag
from gateway.testing import examples

FILES = examples.files(Path(package.__file__).parent / "examples")
PUBLIC = Source(
    name="tag",
    adapter="browser_tag",
    site="shop",
    destinations=("p",),
    allowed_origins=("https://shop.example",),
)
SECRET = Secret(value="s3cret")
SERVER = Source(name="api", adapter="browser_tag", site="shop", destinations=("p",), secrets=(SECRET,))

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**30) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def run(payload: Any, source: Source = PUBLIC) -> list[Any]:
    return list(BrowserTag().normalize(Hit(source=source, body=json.dumps(payload).encode())))


def event_of(payload: Any, source: Source = PUBLIC) -> Event:
    (event,) = run(payload, source)
    assert isinstance(event, Event)
    return event


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_example(path: Path) -> None:
    """Every example file gives what it says."""
    examples.check(path, BrowserTag())


def test_the_hook_registers_the_adapter() -> None:
    """The module is the plugin: its hook returns one adapter under the contract's name."""
    (adapter,) = package.register_adapters(None)  # type: ignore[arg-type]
    assert (adapter.name, adapter.side) == ("browser_tag", "either")
    assert adapter.methods == {"GET", "POST"}


@pytest.mark.parametrize("name", sorted(STANDARD_NAMES))
def test_every_spelling_of_a_standard_name_is_that_name(name: str) -> None:
    """Camel case, spaces, dashes, upper case and squeezed spellings all mean the standard name."""
    words = name.split("_")
    camel = "".join(word.title() for word in words)
    for spelling in (
        name,
        camel,
        camel.lower(),
        " ".join(words),
        "-".join(words),
        name.upper(),
        f" {camel} ",
    ):
        event = event_of({"event_name": spelling})
        assert (event.name, event.source_name) == (name, spelling)


@pytest.mark.parametrize(
    ("given_id", "kept", "noted"),
    [
        ("a", "a", False), (" a\t", " a\t", False), ("É" * 512, "É" * 512, False), (7, "7", False),
        (0, "0", False),
        (2**63, str(2**63), False), ("10" * 20, "10" * 20, False), ("x" * 513, None, True),
        (True, None, True),
        (1.5, None, True), (["a"], None, True), ({"a": 1}, None, True), ("undefined", None, True),
        ("\ud800", None, True), ("", None, False), ("  ", None, False), (None, None, False),
    ],
)  # fmt: skip
def test_event_id_is_kept_byte_for_byte_or_noted(given_id: Any, kept: str | None, noted: bool) -> None:
    """An id is kept as it is; what cannot be one is noted, an empty one is silence."""
    event = event_of({"event_name": "lead", "event_id": given_id})
    assert event.id == kept
    assert ("event_id: not_an_id" in event.notes) is noted


@pytest.mark.parametrize(
    ("when", "seconds"),
    [
        (1795305000, 1795305000), (1795305000123, 1795305000.123), ("1795305000", 1795305000),
        ("2026-11-21T23:50:00Z", 1795305000), ("2026-11-22T00:50:00+01:00", 1795305000), ("soon", None),
        (-1, None), ([], None), (10**30, None),
    ],
)  # fmt: skip
def test_event_time_in_any_unit(when: Any, seconds: float | None) -> None:
    """Seconds, milliseconds and ISO texts are times; anything else is none."""
    assert event_of({"event_name": "lead", "event_time": when, "sent_at": when}).time == seconds


def test_keys_only_where_they_name_one_conversion() -> None:
    """An order key stands on checkouts only, a checkout token also on the start of one."""
    both = {"order_id": "1", "checkout_token": "t"}
    order, token = Key(kind="order", value="1"), Key(kind="checkout", value="t")
    assert event_of({"event_name": "Checkout", **both}).keys == (order, token)
    assert event_of({"event_name": "initiate_checkout", **both}).keys == (token,)
    assert event_of({"event_name": "add_to_cart", **both}).keys == ()


def test_a_name_mapped_to_checkout_gets_the_keys_of_one() -> None:
    """An override in event_names counts for the keys too; the proposed name stays the source's own."""
    mapped = Source(
        name="tag", adapter="browser_tag", site="s", destinations=("p",), event_names={"bought": "checkout"}
    )
    event = event_of({"event_name": "bought", "order_id": "1"}, mapped)
    assert (event.name, event.keys) == ("bought", (Key(kind="order", value="1"),))


@pytest.mark.parametrize(
    ("fields", "value", "num_items"),
    [
        ({"value": 0, "items": [{"id": "a", "price": 2}]}, "0", 1),
        ({"value": "1,234.50"}, "1234.50", None),
        ({"items": [{"price": "0.1", "quantity": 3}, {"price": 2, "quantity": 0}]}, "0.3", 3),
        ({"items": [{"price": 2}, {"id": "b"}]}, None, 2),
        ({"items": [{"price": 2}, "b"]}, None, None),
        ({"items": [{"price": 2, "quantity": "few"}]}, None, None),
        ({"items": [{"price": -2}]}, None, None),
        ({"items": {"id": "a", "price": 2, "quantity": "2"}, "num_items": 9}, "4", 9),
        ({"items": []}, None, None),
        ({"num_items": 1.5}, None, None),
    ],
)
def test_value_and_count(fields: dict[str, Any], value: str | None, num_items: int | None) -> None:
    """An explicit value counts, 0 included; else the sum of what every item says."""
    goods = event_of({"event_name": "checkout", **fields}).purchase
    assert (None if goods.value is None else str(goods.value), goods.num_items) == (value, num_items)


def test_items_keep_every_field() -> None:
    """An item's six fields are read; numbers are ids too."""
    raw = {"id": 12, "name": "Lamp", "price": "9.5", "quantity": "2", "brand": "Acme", "category": "Light"}
    (item,) = event_of({"event_name": "add_to_cart", "items": [raw, {}]}).purchase.items
    assert (item.id, item.quantity, str(item.price), item.brand) == ("12", 2, "9.5", "Acme")
    assert item != Item()


def test_long_and_short_identifier_names_add_up() -> None:
    """Each identifier takes one value or a list, under both names, without doubles."""
    names = {
        "email": "em", "phone": "ph", "first_name": "fn", "last_name": "ln", "gender": "ge",
        "birth_date": "db", "city": "ct", "state": "st", "postal_code": "zp", "mobile_ad_id": "hashed_maids",
    }  # fmt: skip
    user = {long: ["a", None, ""] for long in names} | {short: ["a", 5] for short in names.values()}
    found = event_of({"event_name": "lead", "user": {**user, "country": "US", "external_id": 7}})
    assert all(getattr(found.user, long) == ("a", "5") for long in names)
    assert (found.user.country, found.user.external_id, found.notes) == (("US",), ("7",), ())


def test_unknown_keys_are_named_but_never_shown() -> None:
    """At most ten unknown keys are noted; a key that is itself a value is not repeated."""
    payload = {"event_name": "lead", "ann@example.com": 1, "": 2, "p15550100": 3, "colour2": "secret-blue"}
    payload |= {f"x{letter}": 1 for letter in "abcdefghijklm"}
    notes = event_of(payload).notes
    assert notes[:2] == ("(other): unknown_field", "colour2: unknown_field")
    assert len(notes) == 10
    assert "ann" not in str(notes)
    assert "1555" not in str(notes)
    assert "blue" not in str(notes)


@pytest.mark.parametrize(
    ("consent", "marketing"),
    [
        ({"marketing": True}, True), ({"marketing": "false"}, False), ({"ad_storage": "granted"}, True),
        ({"ad_storage": "denied", "marketing": True}, False), ({"ad_user_data": False}, False),
        ({"marketing": "perhaps"}, None), ({}, None), (None, None), ("yes", None),
    ],
)  # fmt: skip
def test_marketing_consent_has_three_values(consent: Any, marketing: bool | None) -> None:
    """A denial anywhere is a denial; silence and nonsense are no choice."""
    assert event_of({"event_name": "lead", "consent": consent}).consent.marketing is marketing


@pytest.mark.parametrize(("source", "test", "noted"), [(SERVER, True, False), (PUBLIC, False, True)])
def test_only_servers_may_test(source: Source, test: bool, noted: bool) -> None:
    """A page's test flag is ignored with a note."""
    event = event_of({"event_name": "lead", "test": True}, source)
    assert (event.test, "test: server_sources_only" in event.notes) == (test, noted)


@pytest.mark.parametrize("alphabet", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padded", [True, False])
def test_pixel_in_either_alphabet(alphabet: Any, padded: bool) -> None:
    """The pixel's payload is base64 of either alphabet, with or without padding."""
    text = alphabet('{"event_name":"search","search_string":"~~~???ÿÿþ"}'.encode()).decode()
    query = "d=" + (text if padded else text.rstrip("="))
    (event,) = BrowserTag().normalize(Hit(source=PUBLIC, method="GET", query=query))
    assert isinstance(event, Event)
    assert event.search_string == "~~~???ÿÿþ"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "missing_payload"), ("d=", "missing_payload"), ("d=%F0%9F", "malformed_base64"),
        ("d=a", "malformed_base64"), ("d=e30", None), ("d=bm90IGpzb24", "malformed_json"),
    ],
)  # fmt: skip
def test_bad_pixels_are_rejected(query: str, reason: str | None) -> None:
    """A pixel without a readable payload is refused with its reason; an empty object is one invalid event."""
    hit = Hit(source=PUBLIC, method="GET", query=query)
    if reason is None:
        assert isinstance(BrowserTag().normalize(hit)[0], Invalid)
        return
    with pytest.raises(Rejected) as caught:
        BrowserTag().normalize(hit)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b"7", 400), (b"{", 400), (b"[" + b"{}," * 1000 + b"{}]", 413)],
)
def test_bad_bodies_are_rejected(body: bytes, status: int) -> None:
    """What is no event and no array of up to 1,000 is refused as a whole."""
    with pytest.raises(Rejected) as caught:
        BrowserTag().normalize(Hit(source=PUBLIC, body=body))
    assert caught.value.status == status


def test_a_thousand_events_are_taken() -> None:
    """The largest array gives one item for each element."""
    assert len(run([{"event_name": "lead"}] * 1000)) == 1000


SEEDS = [
    (document.source, document.hit.body)
    for document in map(examples.load, FILES)
    if isinstance(document.hit.body, dict | list)
]


def mutated(draw: Callable[[Any], Any], value: Any) -> Any:
    """Replace or drop parts of a JSON value."""
    if isinstance(value, dict):
        return {key: mutated(draw, item) for key, item in value.items() if draw(st.integers(0, 9)) > 0}
    if isinstance(value, list):
        return [mutated(draw, item) for item in value]
    return draw(junk) if draw(st.integers(0, 3)) == 0 else value


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_junk_never_raises_anything_but_rejected(data: st.DataObject) -> None:
    """Whatever stands in the fields, the result is items or a refusal, and the same for the same hit."""
    _, body = data.draw(st.sampled_from(SEEDS))
    payload = mutated(data.draw, copy.deepcopy(body))
    if isinstance(payload, dict):
        payload |= data.draw(st.dictionaries(st.sampled_from(["user", "items", "app", "device", "consent"]), junk))
    hit = Hit(source=SERVER, body=json.dumps(payload).encode())
    try:
        first = list(BrowserTag().normalize(hit))
    except Rejected:
        return
    assert first == list(BrowserTag().normalize(hit))
    assert all(isinstance(item, Event | Invalid) for item in first)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_items_or_rejected(body: bytes) -> None:
    """Random bytes as a body never raise anything else."""
    try:
        items = BrowserTag().normalize(Hit(source=SERVER, body=body))
    except Rejected:
        return
    assert all(isinstance(item, Invalid) for item in items)
