"""A purchase without consent: what pixel.js tells of it holds back the order's webhook, whichever comes first."""

import asyncio
import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import running

SHOP = "example.myshopify.com"
CONFIG: dict[str, Any] = {
    "sites": {"shop": {"hold_s": 30}},
    "sources": {
        "pixel": {"adapter": "shopify_pixel", "site": "shop", "allowed_origins": ["null"]},
        "hook": {"adapter": "shopify", "site": "shop", "secrets": ["hook-secret"], "options": {"shop": SHOP}},
    },
}
NOW = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
#: What the pixel posts without consent; tests/test_browser.py holds it against the script.
DENIAL = {
    "shop": SHOP,
    "customerPrivacy": {"analyticsProcessingAllowed": True, "marketingAllowed": False, "saleOfDataAllowed": True},
    "event": {
        "id": "sh-1", "name": "checkout_completed", "timestamp": NOW,
        "data": {"checkout": {"token": "chk-1", "order": {"id": "77"}}},
    },
}  # fmt: skip
ORDER = {
    "id": 77, "checkout_token": "chk-1", "created_at": NOW, "processed_at": NOW, "source_name": "web",
    "currency": "USD", "subtotal_price": "5.00", "email": "jo@example.com", "line_items": [],
}  # fmt: skip


@pytest.mark.parametrize("first", ["pixel", "hook"])
def test_a_denied_purchase_is_not_sent(tmp_path: Path, first: str) -> None:
    """The webhook knows of no consent, but shares order and checkout with the pixel's denial."""
    body = json.dumps(ORDER).encode()
    signature = base64.b64encode(hmac.digest(b"hook-secret", body, "sha256")).decode()
    signed = {"X-Shopify-Topic": "orders/create", "X-Shopify-Shop-Domain": SHOP, "X-Shopify-Hmac-Sha256": signature}
    hits: dict[str, tuple[Any, dict[str, str]]] = {"pixel": (DENIAL, {"Origin": "null"}), "hook": (body, signed)}

    async def scenario() -> None:
        async with running(CONFIG, tmp_path) as gateway:
            answers = {}
            for source in sorted(hits, key=lambda name: name != first):
                status, answers[source] = await gateway.post(source, *hits[source])
                assert status == 200, answers[source]
            assert answers["pixel"]["events"][0]["reason"] == "consent"
            if first == "pixel":
                assert answers["hook"]["events"][0]["reason"] == "consent"
            else:
                (settled,) = await gateway.ended(1)
                assert (settled.end, settled.reason) == ("dropped", "consent")
            assert gateway.sandbox.record.events() == []

    asyncio.run(scenario())
