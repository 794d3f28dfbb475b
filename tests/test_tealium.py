"""Tealium's payloads become canonical events."""

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adapters.tealium as package
from adapters.tealium import Tealium
from adapters.tealium.options import Options
from gateway import Event, Hit, Invalid, Key, Rejected, Secret, Skipped, Source
from gateway.testing import examples

FILES = examples.files(Path(package.__file__).parent / "examples")
SERVER = Source(
    name="tealium",
    adapter="tealium",
    site="shop",
    destinations=("p",),
    options=Options(),
    secrets=(Secret(value="test-password"),),
)

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([10**30, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def source(**changes: Any) -> Source:
    fields = {name: getattr(SERVER, name) for name in SERVER.__struct_fields__}
    return Source(**(fields | changes))


def run(payload: Any, at: Source = SERVER) -> list[Any]:
    return list(Tealium().normalize(Hit(source=at, body=json.dumps(payload).encode())))


def event_of(payload: Any, at: Source = SERVER) -> Event:
    (event,) = run(payload, at)
    assert isinstance(event, Event)
    return event


def flat(name: str = "purchase", **variables: Any) -> dict[str, Any]:
    return {"tealium_event": name, **variables}


def nested(name: str = "purchase", **variables: Any) -> dict[str, Any]:
    return {"data": {"udo": flat(name, **variables)}, "event_id": "guid"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_example(path: Path) -> None:
    """Every example file gives what it says."""
    examples.check(path, Tealium())


def test_the_hook_registers_the_adapter() -> None:
    """The module is the plugin: its hook returns one adapter under the contract's name."""
    (adapter,) = package.register_adapters(None)  # type: ignore[arg-type]
    assert (adapter.name, adapter.side) == ("tealium", "either")
    assert adapter.methods == {"GET", "POST"}


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("purchase", "checkout"), ("Purchase", "checkout"), ("ORDERS_CREATE", "checkout"), ("orders/paid", "checkout"),
        ("cart_add", "add_to_cart"), ("search", "search"), ("page_view", "page_visit"), ("product_view", "page_visit"),
        ("category_view", "view_category"), ("user_register", "signup"), ("checkout", "initiate_checkout"),
        ("cart_view", ""), ("cart_remove", ""), ("link", ""), ("user_login", ""), ("add_to_cart", "add_to_cart"),
        ("Lead", "lead"), ("My Event", "My Event"), (" quiz done ", "quiz done"),
    ],
)  # fmt: skip
def test_names(given_name: str, name: str) -> None:
    """Tealium's usual names have their counterpart or none, others stay; the source's name stays as given."""
    event = event_of(flat(given_name))
    assert (event.name, event.source_name) == (name, given_name)


@pytest.mark.parametrize(
    ("variables", "source_name"),
    [
        ({"ut.event": "view"}, "page_view"), ({"page_view": "view"}, "page_view"), ({"ut.event": "link"}, "link"),
        ({"tealium_event_type": "view"}, "page_view"), ({"ut.event": "view", "_corder": "1"}, "purchase"),
        ({"shopify_topic": "ORDERS_CREATE"}, "ORDERS_CREATE"), ({"page_view": "1"}, None), ({}, None),
        ({"tealium_event": ""}, None), ({"tealium_event": ["x"]}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("in_envelope", [True, False])
def test_names_without_tealium_event(variables: dict[str, Any], source_name: str | None, in_envelope: bool) -> None:
    """What utag was called with tells a page view; without any sign the event is invalid."""
    (item,) = run({"data": {"udo": variables}} if in_envelope else variables)
    if source_name is None:
        assert isinstance(item, Invalid)
        assert item.field == "tealium_event"
    else:
        assert item.source_name == source_name


@pytest.mark.parametrize(
    ("variables", "event_id", "tag"),
    [
        ({"pinterest_event_id_Checkout_32": "a"}, "a", True),
        ({"pinterest_event_id_Checkout_32": 11563522}, "11563522", True),
        ({"pinterest_event_id_Checkout_32": ["a"]}, "a", True),
        ({"pinterest_event_id_PageVisit_1": "p", "pinterest_event_id_checkout_1": " c "}, " c ", True),
        ({"pinterest_event_id_PageVisit_1": "p"}, "guid", False),
        ({"pinterest_event_id_MyOwn_1": "m"}, "m", True),
        ({"pinterest_event_id_MyOwn_1": "m", "pinterest_event_id_Checkout": "c"}, "c", True),
        ({"pinterest_event_id_Checkout_32": ""}, "guid", False),
        ({"pinterest_event_id_Checkout_32": "undefined"}, "guid", False),
        ({"tealium_event_id": "t"}, "guid", False),
    ],
)
def test_the_tags_id_of_this_event_wins(variables: dict[str, Any], event_id: str, tag: bool) -> None:
    """The id that the page's tag used for this event goes before Tealium's own; one of another event does not."""
    event = event_of(nested(**variables))
    assert (event.id, event.tag) == (event_id, tag)


def test_an_event_of_ones_own_matches_the_tags_custom_event() -> None:
    """An unknown name is sent as custom: the id of the tag's Custom event is its own."""
    event = event_of(nested("My Event", pinterest_event_id_PageVisit_1="p", pinterest_event_id_Custom_1="c"))
    assert (event.id, event.tag) == ("c", True)


def test_the_tags_id_follows_an_overridden_name() -> None:
    """What event_names makes of an event decides which of the tag's ids is its own, and its keys."""
    at = source(event_names={"bought": "checkout"})
    event = event_of(nested("bought", pinterest_event_id_Checkout_2="c", order_id=5), at)
    assert (event.name, event.id, event.keys) == ("bought", "c", (Key(kind="order", value="5"),))


@pytest.mark.parametrize(
    ("payload", "event_id"),
    [
        (flat(), None), (flat(event_id="e"), "e"), (flat(event_id="e", tealium_event_id="t"), "t"),
        ({"data": {"udo": flat(event_id="concert-7")}}, None), (flat(event_id={}), None), (flat(event_id=True), None),
    ],
)  # fmt: skip
def test_tealiums_own_id(payload: dict[str, Any], event_id: str | None) -> None:
    """A flat event's own id is taken; a nested variable event_id may be anything and is not."""
    assert event_of(payload).id == event_id


def test_keys_only_where_they_name_one_conversion() -> None:
    """An order key stands on purchases only, a checkout token also on the start of a checkout."""
    both: dict[str, Any] = {"order_id": 1, "checkout_token": "t"}
    order, token = Key(kind="order", value="1"), Key(kind="checkout", value="t")
    assert event_of(flat(**both)).keys == (order, token)
    assert event_of(flat("checkout", **both)).keys == (token,)
    assert event_of(flat("cart_add", **both)).keys == ()
    assert event_of(flat(_corder=["9"])).keys == (Key(kind="order", value="9"),)


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"tealium_timestamp_epoch": 1795305000}, 1795305000),
        ({"tealium_timestamp_epoch": "1795305000.5"}, 1795305000.5),
        ({"tealium_timestamp_epoch": 1795305000250}, 1795305000.25), ({"timestamp_unix": "1795305000"}, 1795305000),
        ({"tealium_timestamp_epoch": "soon", "post_time": 1795305000250}, 1795305000.25),
        ({"order_created_at": "2026-11-21T23:50:00Z"}, 1795305000), ({}, None), ({"post_time": [1]}, None),
    ],
)  # fmt: skip
def test_times_in_any_unit(variables: dict[str, Any], seconds: float | None) -> None:
    """Seconds, milliseconds and float texts are times; the envelope's is the last resort."""
    assert event_of(flat(**variables)).time == seconds


@pytest.mark.parametrize(
    ("variables", "value"),
    [
        ({"order_subtotal": "5", "order_total": "6"}, "5"), ({"order_subtotal": "", "order_total": "6"}, "6"),
        ({"order_subtotal": 0, "order_total": 6}, "0"), ({"_csubtotal": "1", "_ctotal": "2"}, "1"),
        ({"order_total": ["84.97"]}, "84.97"), ({"product_id": ["a"], "product_price": ["2"]}, "2"),
        ({"product_id": ["a"]}, None), ({"order_total": "x", "product_id": "a", "product_price": "3"}, "3"),
    ],
)  # fmt: skip
def test_value(variables: dict[str, Any], value: str | None) -> None:
    """The subtotal, else the total, else the products' sum; 0 is a value."""
    found = event_of(flat(**variables)).purchase.value
    assert (None if found is None else str(found)) == value


def test_value_by_option() -> None:
    """The option turns the order of subtotal and total round."""
    at = source(options=Options(value="total"))
    assert str(event_of(flat(order_subtotal=5, order_total=6), at).purchase.value) == "6"


@pytest.mark.parametrize(
    ("variables", "rows"),
    [
        ({"product_id": "a,b", "product_quantity": "1,2"}, [("a", 1, None), ("b", 2, None)]),
        ({"product_id": ["a", "", "c"], "product_quantity": [1, 2, 3]}, [("a", 1, None), ("c", 3, None)]),
        ({"product_id": [""], "_cprod": ["z"], "_cquan": [""]}, [("z", None, None)]),
        ({"product_id": ["a", "b"], "product_category": ["Light"]}, [("a", None, "Light"), ("b", None, "Light")]),
        ({"product_id": ["a", "b"], "product_quantity": [3]}, [("a", 3, None), ("b", None, None)]),
        ({"product_id": 7, "product_category": "Big, bright"}, [("7", None, "Big, bright")]),
        ({"product_name": ["n"], "product_quantity": ["x"]}, [(None, None, None)]),
        ({"product_quantity": [1, 2]}, []),
        ({"product_id": {"a": 1}}, []),
    ],
)
def test_product_arrays(variables: dict[str, Any], rows: list[Any]) -> None:
    """Arrays of unequal length, single values and comma-separated texts line up by position."""
    items = event_of(flat("cart_add", **variables)).purchase.items
    assert [(item.id, item.quantity, item.category) for item in items] == rows


@pytest.mark.parametrize(("option", "first"), [("product_id", "v"), ("product_main_id", "m"), ("product_sku", "s")])
def test_content_id_by_option(option: Any, first: str) -> None:
    """The catalogue's variable is chosen by an option; the others stand in for it."""
    at = source(options=Options(content_id=option))
    ids = {"product_id": ["v"], "product_main_id": ["m"], "product_sku": ["s"]}
    assert event_of(flat("cart_add", **ids), at).purchase.items[0].id == first
    assert event_of(flat("cart_add", product_id=["v"]), at).purchase.items[0].id == "v"


@pytest.mark.parametrize(
    ("variables", "action_source"),
    [
        ({}, "web"), ({"platform": "ios"}, "app_ios"), ({"platform": "Android", "app_name": "Shop"}, "app_android"),
        ({"platform": "ios", "dom.url": "https://shop.example/"}, "web"), ({"platform": "tvos"}, "web"),
        ({"action_source": "offline"}, "offline"), ({"action_source": "shop", "platform": "ios"}, "app_ios"),
    ],
)  # fmt: skip
def test_action_source(variables: dict[str, Any], action_source: str) -> None:
    """A valid variable decides, else the mobile library's platform; a page's variable platform makes no app."""
    assert event_of(flat(**variables)).action_source == action_source


@pytest.mark.parametrize(
    ("variables", "epik"),
    [
        ({"qp.epik": "q", "cp._epik": "c"}, "q"), ({"dom.query_string": "?a=1&ePik=q", "cp._epik": "c"}, "q"),
        ({"cp._epik": "c", "_epik": "f"}, "c"), ({"epik": "f", "landing_site": "/?epik=l"}, "f"),
        ({"landing_site": "/x?epik=dj0%3D"}, "dj0="), ({"landing_site": "//[bad?epik=l"}, None), ({}, None),
        ({"landing_site": 5, "dom.query_string": 7}, None),
    ],
)  # fmt: skip
def test_click_id(variables: dict[str, Any], epik: str | None) -> None:
    """The page's query goes before the cookie, the cookie before variables, the landing page comes last."""
    assert event_of(flat(**variables)).click_ids.get("epik") == epik


@pytest.mark.parametrize(
    ("variables", "marketing"),
    [
        ({"consent_status": "notConsented"}, False), ({"consent_status": "consented"}, None),
        ({"consent_status": "consented", "consent_categories": "[analytics, display_ads]"}, True),
        ({"consent_status": "consented", "consent_categories": ["analytics"]}, False),
        ({"consent_status": "unknown", "consent_categories": ["display_ads"]}, None),
        ({"customer_email_marketing_consent": "False"}, None),
    ],
)  # fmt: skip
def test_marketing_consent(variables: dict[str, Any], marketing: bool | None) -> None:
    """The consent manager's choice counts; an e-mail subscription and half a statement do not."""
    assert event_of(flat(**variables)).consent.marketing is marketing


@pytest.mark.parametrize(
    "body",
    [{"audiences": {}}, {"visitor": {"badges": {"1": True}}}, {"metrics": {"1": 2}, "data": "x"}],
)
def test_visitor_profiles_are_acknowledged(body: dict[str, Any]) -> None:
    """A visitor profile is no event."""
    assert run(body) == [Skipped(reason="visitor_profile")]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b"7", 400), (b'{"events":[]}', 400), (b"[" + b"{}," * 1000 + b"{}]", 413)],
)
def test_bad_bodies_are_rejected(body: bytes, status: int) -> None:
    """What is no event and no batch of up to 1,000 is refused as a whole."""
    with pytest.raises(Rejected) as caught:
        Tealium().normalize(Hit(source=SERVER, body=body))
    assert caught.value.status == status


@pytest.mark.parametrize("query", ["", "data=", "data=%7B", "data=%FF"])
def test_bad_queries_are_rejected(query: str) -> None:
    """A GET without readable JSON in data is refused."""
    with pytest.raises(Rejected):
        Tealium().normalize(Hit(source=SERVER, method="GET", query=query))


@pytest.mark.parametrize(
    ("authorization", "accepted"),
    [
        ("Bearer test-password", True), ("Basic " + base64.b64encode(b"any:test-password").decode(), True),
        ("Basic " + base64.b64encode(b"any:other").decode(), False), ("Basic ???", False), ("", False),
    ],
)  # fmt: skip
def test_server_sources_demand_the_secret(authorization: str, accepted: bool) -> None:
    """Bearer and Basic prove the secret; anything else is 401."""
    hit = Hit(source=SERVER, headers={"authorization": authorization})
    if accepted:
        Tealium().verify(hit)
        return
    with pytest.raises(Rejected) as caught:
        Tealium().verify(hit)
    assert caught.value.status == 401


def test_public_sources_demand_an_origin() -> None:
    """A page of another site is refused with 403."""
    at = source(secrets=(), allowed_origins=("https://shop.example",))
    Tealium().verify(Hit(source=at, headers={"origin": "https://shop.example"}))
    with pytest.raises(Rejected) as caught:
        Tealium().verify(Hit(source=at, headers={"origin": "https://other.example"}))
    assert caught.value.status == 403


SEEDS = [document.hit.body for document in map(examples.load, FILES) if isinstance(document.hit.body, dict | list)]


def mutated(draw: Callable[[Any], Any], value: Any) -> Any:
    """Replace or drop parts of a JSON value."""
    if isinstance(value, dict):
        return {key: mutated(draw, item) for key, item in value.items() if draw(st.integers(0, 9)) > 0}
    if isinstance(value, list):
        return [mutated(draw, item) for item in value]
    return draw(junk) if draw(st.integers(0, 3)) == 0 else value


ANYWHERE = st.sampled_from(
    ["data", "events", "shared", "visitor", "dom.url", "product_id", "product_price", "landing_site", "_corder"]
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_junk_never_raises_anything_but_rejected(data: st.DataObject) -> None:
    """Whatever stands in the variables, the result is items or a refusal, and the same for the same hit."""
    payload = mutated(data.draw, copy.deepcopy(data.draw(st.sampled_from(SEEDS))))
    if isinstance(payload, dict):
        payload |= data.draw(st.dictionaries(ANYWHERE, junk, max_size=3))
    hit = Hit(source=SERVER, body=json.dumps(payload).encode())
    try:
        first = list(Tealium().normalize(hit))
    except Rejected:
        return
    assert first == list(Tealium().normalize(hit))
    assert all(isinstance(item, Event | Invalid | Skipped) for item in first)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_items_or_rejected(body: bytes) -> None:
    """Random bytes as a body never raise anything else."""
    try:
        items = Tealium().normalize(Hit(source=SERVER, body=body))
    except Rejected:
        return
    assert all(isinstance(item, Invalid) for item in items)
