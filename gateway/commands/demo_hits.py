"""
The hits that ``tag-gateway demo`` sends: shaped as the platforms send them, all data invented.

Secrets here open nothing but the demo's own sources, which exist while it runs, on this machine only.
"""

import base64
import hashlib
import hmac
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec

from gateway.event import Struct

SECRET = "demo-secret"  # noqa: S105 - see above
ORIGIN = "https://shop.example.com"
SHOPPER = "8.8.8.8"
BROWSER = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
    "Safari/537.36"
)
ROBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
EPIK = "dj0yJnU9ZGVtbyZwPTAmbj1kZW1v"
_ORDER = "order 5001"
#: Sales of the counter in one request.
SALES = 20


class DemoHit(Struct, frozen=True, kw_only=True):
    """
    One request.

    ``title`` says what it is, ``event_id`` the id of an event whose answer is an image and names none, ``remark``
    what to look at when it has been delivered. Hits with the same ``conversion`` become one event.
    """

    title: str
    source: str
    method: str = "POST"
    tail: str = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: bytes | None = None
    event_id: str = ""
    remark: str = ""
    conversion: str = ""


def hits(now: float | None = None) -> tuple[DemoHit, ...]:
    """Return the hits in the order in which they are sent; ``now`` is Unix seconds."""
    moment = time.time() if now is None else now
    return (*_page(), *_shopify(moment), *_containers(moment), *_server(moment), *_refused(moment))


def _shopper(agent: str = BROWSER, **more: str) -> dict[str, str]:
    """Return the headers of a page's hit; the address is the one that a proxy in front would pass on."""
    return {
        "Origin": ORIGIN,
        "User-Agent": agent,
        "X-Forwarded-For": SHOPPER,
        "Content-Type": "text/plain;charset=UTF-8",
        **more,
    }


def _tag(title: str, event: dict[str, Any], headers: dict[str, str] | None = None, remark: str = "") -> DemoHit:
    return DemoHit(title=title, source="tag", headers=headers or _shopper(), body=_json(event), remark=remark)


def _page() -> tuple[DemoHit, ...]:
    url = f"{ORIGIN}/lamps/arc"
    lamp = {"id": "LAMP-1", "name": "Arc lamp", "price": 129.0, "quantity": 1}
    return (
        _tag(
            "page visit, coming from a Pin",
            {
                "event_name": "page_visit",
                "event_id": "demo-visit",
                "event_source_url": f"{url}?utm_source=pinterest&epik={EPIK}",
            },
            remark="click id from the URL",
        ),
        _tag(
            "add to cart, click id given",
            {
                "event_name": "add_to_cart",
                "event_id": "demo-cart",
                "event_source_url": url,
                "click_id": EPIK,
                "currency": "EUR",
                "items": [lamp],
            },
            remark="value summed from the items",
        ),
        _tag(
            "search, browser sends Sec-GPC",
            {"event_name": "search", "event_id": "demo-search", "search_string": "lamp"},
            headers=_shopper(**{"Sec-GPC": "1"}),
            remark="flagged LDP",
        ),
        _tag(
            "sign-up with a key nobody knows",
            {"event_name": "signup", "event_id": "demo-signup", "shoe_size": 44, "user": {"email": "Ada@Example.com"}},
            remark="without that key",
        ),
        _tag("page visit of a robot", {"event_name": "page_visit", "event_id": "demo-bot"}, headers=_shopper(ROBOT)),
        _tag(
            "page visit, marketing refused",
            {"event_name": "page_visit", "event_id": "demo-denied", "consent": {"marketing": False}},
        ),
    )


def _shopify(now: float) -> tuple[DemoHit, ...]:
    order = _json(_order(now))
    return (
        _webhook("order created", "orders/create", order, "1", remark="signals of both, pixel's id"),
        _webhook("the same delivery, sent again", "orders/create", order, "1"),
        _webhook("the same order, now paid", "orders/paid", order, "2"),
        DemoHit(
            title="the same order, from the shop's pixel",
            source="shop_pixel",
            conversion=_ORDER,
            headers=_shopper(Origin="null"),
            body=_json(_customer_event(now)),
        ),
    )


def _order(now: float) -> dict[str, Any]:
    return {
        "id": 5001,
        "admin_graphql_api_id": "gid://shopify/Order/5001",
        "created_at": _iso(now - 20),
        "processed_at": _iso(now - 20),
        "source_name": "web",
        "currency": "EUR",
        "subtotal_price": "129.00",
        "total_price": "138.90",
        "checkout_token": "demo-checkout",
        "contact_email": "ada@example.com",
        "client_details": {"browser_ip": SHOPPER, "user_agent": BROWSER},
        "billing_address": {
            "first_name": "Ada",
            "last_name": "Example",
            "city": "Springfield",
            "province_code": "IL",
            "zip": "62701",
            "country_code": "US",
            "phone": "(217) 555-0143",
        },
        "note_attributes": [{"name": "_epik", "value": EPIK}],
        "line_items": [
            {
                "product_id": 71,
                "variant_id": 711,
                "sku": "LAMP-1",
                "title": "Arc lamp",
                "price": "129.00",
                "quantity": 1,
            }
        ],
    }


def _webhook(title: str, topic: str, body: bytes, delivery: str, *, secret: str = SECRET, remark: str = "") -> DemoHit:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    headers = {
        "Content-Type": "application/json",
        "X-Shopify-Topic": topic,
        "X-Shopify-Shop-Domain": "example.myshopify.com",
        "X-Shopify-Webhook-Id": f"demo-{delivery}",
        "X-Shopify-Hmac-Sha256": base64.b64encode(digest).decode(),
    }
    return DemoHit(title=title, source="shop", headers=headers, body=body, remark=remark, conversion=_ORDER)


def _customer_event(now: float) -> dict[str, Any]:
    price = {"amount": 129.0, "currencyCode": "EUR"}
    variant = {"id": "711", "sku": "LAMP-1", "price": price, "product": {"id": "71", "title": "Arc lamp"}}
    checkout = {
        "token": "demo-checkout",
        "currencyCode": "EUR",
        "subtotalPrice": price,
        "totalPrice": price,
        "email": "ada@example.com",
        "lineItems": [{"title": "Arc lamp", "quantity": 1, "variant": variant}],
    }
    return {
        "id": "sh-demo-1",
        "name": "checkout_completed",
        "clientId": "demo-browser",
        "timestamp": _iso(now - 18),
        "data": {"checkout": checkout},
        "context": {
            "document": {"location": {"href": f"{ORIGIN}/checkouts/demo"}},
            "navigator": {"language": "en-US", "userAgent": BROWSER},
        },
    }


def _containers(now: float) -> tuple[DemoHit, ...]:
    purchase = {
        "event_name": "purchase",
        "event_id": "demo-gtm",
        "event_time": int(now) - 5,
        "client_id": "11.22",
        "ip_override": SHOPPER,
        "user_agent": BROWSER,
        "page_location": f"{ORIGIN}/thanks",
        "transaction_id": "A-1001",
        "currency": "EUR",
        "value": 40,
        "user_data": {"email_address": "grace@example.com", "phone_number": "+1 217 555 0100"},
        "items": [{"item_id": "MUG-1", "item_name": "Mug", "price": 20, "quantity": 2}],
    }
    collect = {
        "v": "2", "tid": "G-EXAMPLE", "cid": "33.44", "dl": f"{ORIGIN}/mugs", "en": "add_to_cart", "cu": "EUR",
        "pr1": "idMUG-1~nmMug~pr20.00~qt2", "epn.value": "40", "ep.event_id": "demo-ga4",
    }  # fmt: skip
    tealium = {
        "tealium_event": "page_view",
        "tealium_timestamp_epoch": int(now) - 5,
        "tealium_event_id": "demo-tealium",
        "client_ip": SHOPPER,
        "useragent": BROWSER,
        "dom.url": f"{ORIGIN}/mugs",
        "cp._epik": EPIK,
    }
    return (
        DemoHit(title="purchase of a GTM server container", source="gtm", headers=_bearer(), body=_json(purchase)),
        DemoHit(
            title="GA4 hit of a page (GET)", source="ga4", method="GET", tail=f"/g/collect?{urlencode(collect)}",
            headers=_shopper(), event_id="demo-ga4",
        ),
        DemoHit(title="page view of Tealium", source="tealium", headers=_bearer(), body=_json(tealium)),
    )  # fmt: skip


def _server(now: float) -> tuple[DemoHit, ...]:
    sales = [
        {
            "event_name": "checkout",
            "event_id": f"demo-sale-{number}",
            "event_time": int(now) - 60 * number,
            "action_source": "offline",
            "order_id": f"till-{number}",
            "value": 10 + number,
            "currency": "EUR",
            "user": {"email": f"customer{number}@example.com"},
        }
        for number in range(1, SALES + 1)
    ]
    nobody = {"event_name": "lead", "event_id": "demo-nobody", "user": {"city": "Springfield"}}
    return (
        DemoHit(
            title=f"{SALES} sales of the counter at once", source="server", headers=_bearer(), body=_json(sales),
            remark="offline events travel apart",
        ),
        DemoHit(title="a lead that identifies nobody", source="server", headers=_bearer(), body=_json(nobody)),
    )  # fmt: skip


def _refused(now: float) -> tuple[DemoHit, ...]:
    order = _json({**_order(now), "id": 5002, "admin_graphql_api_id": "gid://shopify/Order/5002"})
    return (_webhook("order with a forged signature", "orders/create", order, "3", secret="not-the-secret"),)  # noqa: S106


def _bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
