"""One shop's orders as its sources tell them: the pixel of its pages, signed webhooks, a tag, other servers."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.outbox import Lane
from gateway.outbox.sqlite import SqliteOutbox
from gateway.sandbox import Fault
from tests.harness.inprocess import BEARER, SECRET, World

NOW = 1_795_305_600.0
HOLD_S = 30.0
ORIGIN = "https://shop.example"
IP, UA, EPIK = "8.8.8.8", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "dj0yJnU9b25l"
LIVE = Lane(destination="pinterest", kind="live")


def site(name: str = "shop", prefix: str = "") -> dict[str, Any]:
    """Return the sources of one shop: ``shop`` and ``pixel``, ``tag`` and ``api``, ``gtm`` and ``tealium``."""
    public, server = {"site": name, "allowed_origins": [ORIGIN, "null"]}, {"site": name, "secrets": [SECRET]}
    return {
        f"{prefix}shop": {"adapter": "shopify", **server}, f"{prefix}pixel": {"adapter": "shopify_pixel", **public},
        f"{prefix}tag": {"adapter": "browser_tag", **public}, f"{prefix}api": {"adapter": "browser_tag", **server},
        f"{prefix}gtm": {"adapter": "gtm", **server}, f"{prefix}tealium": {"adapter": "tealium", **server},
    }  # fmt: skip


def config(**rules: Any) -> dict[str, Any]:
    """Return the tables of one shop with all its sources; ``rules`` belong to ``[sites.shop]``."""
    return {"sites": {"shop": {"hold_s": HOLD_S, **rules}}, "sources": site()}


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


def pixel(number: int = 6001, *, at: float = NOW, **changes: Any) -> dict[str, Any]:
    """Return the pixel's envelope of an order; ``consent`` is what the visitor chose, ``order`` False leaves it out."""
    checkout: dict[str, Any] = {
        "token": f"chk-{number}", "currencyCode": "EUR", "subtotalPrice": {"amount": 11.5, "currencyCode": "EUR"},
    }  # fmt: skip
    if changes.get("order", True):
        checkout["order"] = {"id": str(number)}
    event = {
        "id": f"sh-{number}", "name": "checkout_completed", "clientId": f"c-{number}", "timestamp": _iso(at - 12),
        "data": {"checkout": checkout},
        "context": {
            "document": {"location": {"href": f"{ORIGIN}/checkouts/{number}"}}, "navigator": {"userAgent": UA},
        },
    }  # fmt: skip
    chosen = {"customerPrivacy": {"marketingAllowed": changes["consent"]}} if "consent" in changes else {}
    return {"shop": "example.myshopify.com", "click_ids": {"epik": EPIK}, "event": event, **chosen}


def order(number: int = 6001, *, at: float = NOW, **changes: Any) -> dict[str, Any]:
    """Return the body of an order's webhook."""
    return {
        "id": number, "checkout_token": f"chk-{number}", "created_at": _iso(at - 9), "processed_at": _iso(at - 9),
        "source_name": "web", "currency": "USD", "subtotal_price": "12.00", "total_price": "15.00",
        "email": f"buyer-{number}@example.com", "phone": "+12025550143",
        "line_items": [{"product_id": 71, "price": "6.00", "quantity": 2}],
        **changes,
    }  # fmt: skip


def conversion(number: int = 6001, *, at: float = NOW, **changes: Any) -> dict[str, Any]:
    """Return a checkout in the tag's JSON."""
    return {
        "event_name": "checkout", "event_time": int(at) - 5, "order_id": str(number), "value": "11.50",
        "currency": "EUR", **changes,
    }  # fmt: skip


def hashed(text: str) -> str:
    """Return the SHA-256 of a normalised identifier."""
    return hashlib.sha256(text.encode()).hexdigest()


async def tell(here: World, source: str, body: Any, topic: str = "orders/create") -> dict[str, Any]:
    """Send one event through the named source; returns its one entry of the answer."""
    headers: Mapping[str, str] = BEARER
    kind = source.rpartition("-")[2]
    raw = json.dumps(body).encode()
    if kind == "shop":
        proof = base64.b64encode(hmac.digest(SECRET.encode(), raw, "sha256")).decode()
        headers = {
            "X-Shopify-Topic": topic, "X-Shopify-Hmac-Sha256": proof, "X-Shopify-Shop-Domain": "example.myshopify.com",
        }  # fmt: skip
    elif kind in ("pixel", "tag"):
        headers = {"Origin": ORIGIN, "Content-Type": "text/plain", "User-Agent": UA}
    status, answer = await here.running.post(source, raw, headers, peer=IP)
    assert status == 200, answer
    (event,) = answer["events"]
    found: dict[str, Any] = event
    return found


def sent(*worlds: World) -> list[dict[str, Any]]:
    """Return all checkouts that were sent to the vendor, oldest first."""
    bodies = [call.body for here in worlds for call in here.calls]
    return [event for body in bodies for event in body["data"] if event["event_name"] == "checkout"]


def signals_of(event: Mapping[str, Any]) -> set[str]:
    """Return which of the signals that matter a sent event carries."""
    known = ("em", "ph", "click_id", "client_ip_address", "client_user_agent")
    return {name for name in known if event["user_data"].get(name)}


async def due(here: World) -> float | None:
    """Return when the earliest unit that waits may be sent."""
    return await here.gateway.outbox.next_due(LIVE)


async def pass_by(here: World) -> None:
    """Let every lane look for work now: a page visit that is never held goes by."""
    before = len(here.running.settled)
    visit = {"event_name": "page_visit", "event_id": f"visit-{before}-{here.clock()}", "event_time": int(here.clock())}
    await tell(here, "tag", visit)
    await here.until(
        lambda: any(one.event_name == "page_visit" for one in here.running.settled[before:]), "the page visit arrives"
    )


async def claim_with_others(here: World, wait_s: float) -> None:
    """
    Let so much time pass that what is held is claimed, in one batch with page visits whose call then takes a while.

    The call fails in the end; nothing of it is processed.
    """
    lane = here.gateway.sender.lanes[0]
    here.sandbox.faults.queue(Fault(kind="status"), Fault(kind="status", delay_s=0.4))
    visit = {"event_name": "page_visit", "event_time": int(here.clock())}
    await tell(here, "tag", {**visit, "event_id": "one"})
    await here.until(lambda: lane.state.state == "backing_off" and not lane.state.in_flight, "a call fails")
    await tell(here, "tag", {**visit, "event_id": "two"})
    here.step(wait_s)
    await here.until(lambda: len(here.calls) == 2, "the batch is under way")
    assert isinstance(here.gateway.outbox, SqliteOutbox)
    assert len(here.gateway.outbox._ledger.units) == len(here.calls[1].ids) + 1, "what was held is not in the batch"
