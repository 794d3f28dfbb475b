"""The cart's token of Shopify's payloads: the same text from the webhook, the checkout and the pixel."""

import json
from typing import Any

import pytest

from adapters.shopify import PixelOptions, ShopifyPixelAdapter, WebhookOptions
from adapters.shopify.cart import cart_token
from adapters.shopify.order import Conversion, event
from gateway import Event, Hit, Source

TOKEN = "Z2NwLXVzLWVhc3QxOjAxSlRFU1Q"
ORDER = Conversion(name="checkout", kind="order")
CHECKOUT = Conversion(name="initiate_checkout", kind="checkout")
ACCOUNT = Conversion(name="signup", kind="customer")


def webhook(topic: str, body: dict[str, Any], conversion: Conversion) -> Event:
    source = Source(name="shop", adapter="shopify", site="shop", destinations=("p",), options=WebhookOptions())
    found = event(Hit(source=source), topic, {"id": 1, "email": "jo@example.com", **body}, conversion)
    assert isinstance(found, Event)
    return found


def pixel(body: dict[str, Any]) -> Event:
    source = Source(name="px", adapter="shopify_pixel", site="shop", destinations=("p",), options=PixelOptions())
    (found,) = ShopifyPixelAdapter().normalize(Hit(source=source, body=json.dumps(body).encode()))
    assert isinstance(found, Event)
    return found


@pytest.mark.parametrize(
    "given",
    [
        TOKEN,
        f"gid://shopify/Cart/{TOKEN}",
        f"gid://shopify/Cart/{TOKEN}?key=0123abcd",
        f"{TOKEN}?key=0123abcd",
        f"{TOKEN}%3Fkey%3D0123abcd",
        f" {TOKEN} ",
    ],
)
def test_every_spelling_is_one_token(given: str) -> None:
    """Webhook, Storefront id and cookie name the same cart, and its key is cut off."""
    assert cart_token(given) == TOKEN


@pytest.mark.parametrize("given", [None, "", "null", 0.5, [], {}, "a cart", "x" * 129, "gid://shopify/Order/1"])
def test_what_is_no_token_is_none(given: Any) -> None:
    """Anything else joins nothing."""
    assert cart_token(given) is None


def test_an_order_has_its_cart() -> None:
    """orders/create and orders/paid bring cart_token."""
    assert webhook("orders/create", {"cart_token": TOKEN}, ORDER).cart_token == TOKEN
    assert webhook("orders/paid", {"cart_token": None}, ORDER).cart_token is None


def test_a_checkout_has_its_cart() -> None:
    """checkouts/create brings cart_token beside its own token."""
    found = webhook("checkouts/create", {"token": "c1", "cart_token": TOKEN}, CHECKOUT)
    assert found.cart_token == TOKEN
    assert [key.kind for key in found.keys] == ["checkout"], "a cart may become several orders: it is no key"


def test_an_account_has_no_cart() -> None:
    """customers/create is about a person."""
    assert webhook("customers/create", {"cart_token": TOKEN}, ACCOUNT).cart_token is None


@pytest.mark.parametrize(
    "body",
    [
        {"name": "cart_viewed", "data": {"cart": {"id": f"gid://shopify/Cart/{TOKEN}?key=1"}}},
        {"event": {"name": "page_viewed", "data": {}}, "init": {"data": {"cart": {"id": TOKEN}}}},
        {"name": "page_viewed", "data": {}, "init": {"data": {"cart": {"id": TOKEN}}}},
    ],
)
def test_the_pixel_knows_the_cart(body: dict[str, Any]) -> None:
    """The cart of the event itself, or of the page's start."""
    assert pixel(body).cart_token == TOKEN


def test_the_events_own_cart_wins() -> None:
    """A cart viewed now is newer than the one of the page's start."""
    body = {"name": "cart_viewed", "data": {"cart": {"id": TOKEN}}}
    assert pixel({"event": body, "init": {"data": {"cart": {"id": "older"}}}}).cart_token == TOKEN


def test_no_cart_is_none() -> None:
    """The first page of a visit has no cart yet."""
    assert pixel({"event": {"name": "page_viewed", "data": {}}, "init": {"data": {"cart": None}}}).cart_token is None
