"""The shared sample payloads of Tealium, in place."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.tealium import Tealium
from adapters.tealium.options import Options
from gateway import Hit, Key, Secret, Source

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "payloads" / "tealium"
SERVER = Source(
    name="tealium",
    adapter="tealium",
    site="shop",
    destinations=("p",),
    options=Options(),
    secrets=(Secret(value="test-password"),),
)


def sample(name: str) -> list[Any]:
    path = SAMPLES / f"{name}.json"
    if not path.exists():
        pytest.skip("the shared sample payloads are not here")
    document = json.loads(path.read_text())
    headers = {key.lower(): value for key, value in document["request"]["headers"].items()}
    hit = Hit(source=SERVER, headers=headers, body=json.dumps(document["body"]).encode())
    Tealium().verify(hit)
    return list(Tealium().normalize(hit))


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("batched_events_array", ["page_visit", "page_visit"]), ("flat_cart_add", ["add_to_cart"]),
        ("flat_purchase_shopify_app", ["checkout"]), ("flat_search", ["search"]), ("http_api_user_login", [""]),
        ("nested_purchase_pinterest_event_id", ["checkout"]), ("webhook_event_page_view", ["page_visit"]),
        ("webhook_event_page_view_full", ["page_visit"]),
    ],
)  # fmt: skip
def test_samples_have_their_event(name: str, events: list[str]) -> None:
    """Each shared sample verifies and gives its events without a complaint."""
    found = sample(name)
    assert [event.name for event in found] == events
    assert all(event.notes == () for event in found)


def test_sample_page_view_is_what_is_expected() -> None:
    """The worked example: time in ms, the envelope's id, address and browser, the cookie's click id."""
    (event,) = sample("webhook_event_page_view_full")
    (wanted,) = json.loads((SAMPLES / "webhook_event_page_view_full.expected.json").read_text())["events"]
    user = wanted["user_data"]
    assert (event.name, event.id, int(event.time)) == (wanted["event_name"], wanted["event_id"], wanted["event_time"])
    assert (event.source_url, event.action_source) == (wanted["event_source_url"], wanted["action_source"])
    assert (event.client.ip, event.client.user_agent) == (user["client_ip_address"], user["client_user_agent"])
    assert event.click_ids == {"epik": user["click_id"]}


def test_sample_purchase_has_the_tags_id() -> None:
    """The page's Pinterest tag fired with this id: the event carries it and says so."""
    (event,) = sample("nested_purchase_pinterest_event_id")
    assert (event.id, event.tag, str(event.purchase.value)) == ("11563522", True, "79.98")
    assert event.keys == (Key(kind="order", value="ORD-1001"),)
    assert [(item.id, str(item.price), item.quantity) for item in event.purchase.items] == [
        ("SKU-1", "59.99", 1),
        ("SKU-2", "19.99", 1),
    ]


def test_sample_order_of_the_shopify_app() -> None:
    """Without an explicit id the order's key tells which purchase it is; the landing page has the click id."""
    (event,) = sample("flat_purchase_shopify_app")
    assert event.id is None
    assert [key.kind for key in event.keys] == ["order", "checkout"]
    assert (str(event.purchase.value), event.purchase.num_items) == ("9600", 4)
    assert event.user.email == ("user.name@example.com",)
    assert event.click_ids["epik"].startswith("dj0y")
    assert event.consent.marketing is None


def test_sample_cart_add_and_search() -> None:
    """Currency of the product, click id of the cookie, and the keyword."""
    (added,) = sample("flat_cart_add")
    assert (added.purchase.currency, added.purchase.items[0].id) == ("CAD", "40586935402551")
    assert (str(added.purchase.value), "epik" in added.click_ids) == ("600", True)
    (searched,) = sample("flat_search")
    assert (searched.search_string, searched.language) == ("shoes", "en")
