"""The memory through the whole gateway: what leaves, what is told, and what a kill leaves."""

import asyncio
import base64
import hmac
import json
from pathlib import Path
from typing import Any

import httpx

from tests.harness.inprocess import BEARER, SECRET, Clock, World, world
from tests.harness.processes import ACCOUNT, Pair

SHOP, ORIGIN = "paths.myshopify.com", "https://shop.example"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
IP = "8.8.4.4"
BROWSER = {"Origin": ORIGIN, "User-Agent": AGENT, "Content-Type": "text/plain"}
CONFIG: dict[str, Any] = {
    "sites": {"shop": {"hold_s": 0.0, "default_country": "US"}},
    "sources": {
        "tag": {"adapter": "browser_tag", "site": "shop", "allowed_origins": [ORIGIN]},
        "api": {"adapter": "browser_tag", "site": "shop", "secrets": [SECRET]},
        "pixel": {"adapter": "shopify_pixel", "site": "shop", "allowed_origins": [ORIGIN]},
        "hooks": {"adapter": "shopify", "site": "shop", "secrets": ["shop-secret"], "options": {"shop": SHOP}},
        "elsewhere": {"adapter": "browser_tag", "secrets": [SECRET]},
    },
    "destinations": {"pinterest": {"ad_account_id": ACCOUNT}},
}


def hook(topic: str, body: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """Return a signed webhook's body and headers."""
    content = json.dumps(body).encode()
    signature = base64.b64encode(hmac.digest(b"shop-secret", content, "sha256")).decode()
    return content, {
        "Content-Type": "application/json", "X-Shopify-Topic": topic, "X-Shopify-Shop-Domain": SHOP,
        "X-Shopify-Hmac-Sha256": signature, "X-Shopify-Webhook-Id": "w-1", "X-Shopify-API-Version": "2026-10",
    }  # fmt: skip


async def page(here: World, event_id: str, query: str = "", **fields: Any) -> dict[str, Any]:
    """Let a browser visit a page; returns what became of the event."""
    told = {
        "event_name": "page_visit", "event_id": event_id, "event_time": int(here.clock()),
        "event_source_url": f"{ORIGIN}/lamp{query}", **fields,
    }  # fmt: skip
    status, answer = await here.running.post("tag", json.dumps(told).encode(), BROWSER, peer=IP)
    assert status == 200, answer
    found: dict[str, Any] = answer["events"][0]
    return found


async def order(here: World, event_id: str, source: str = "api", **fields: Any) -> dict[str, Any]:
    """Let a server tell an order; returns what became of it."""
    told = {
        "event_name": "checkout",
        "event_id": event_id,
        "event_time": int(here.clock()),
        "value": 5,
        "currency": "EUR",
    }
    return (await here.post({**told, **fields}, source=source))[0]


async def sent(here: World, count: int) -> dict[str, dict[str, Any]]:
    """Return the events that the sandbox took, by id, when there are so many."""
    return {event["event_id"]: event for event in await here.running.delivered(count)}


def test_an_order_gets_the_click_of_the_visit(tmp_path: Path) -> None:
    """A landing page with a click id, then a silent order of the same browser: all of it leaves."""

    async def main() -> None:
        clock = Clock()
        async with world(tmp_path, CONFIG, clock=clock) as here:
            await page(here, "p1", "?epik=dj0visit", client_id="b1")
            here.step(60)
            told = await order(here, "o1", client_id="b1", user={"email": "jo@example.com"})
            assert told["outcome"] == "accepted"
            await order(here, "o2", source="elsewhere", client_id="b1", user={"email": "jo@example.com"})
            user = {name: event["user_data"] for name, event in (await sent(here, 3)).items()}
            assert user["o1"]["click_id"] == "dj0visit"
            assert (user["o1"]["client_ip_address"], user["o1"]["client_user_agent"]) == (IP, AGENT)
            assert not {"click_id", "client_ip_address"} & user["o2"].keys(), "another site"
            here.step(5 * 86_400)
            await order(here, "o3", user={"email": "Jo@example.com"})
            late = (await sent(here, 4))["o3"]["user_data"]
            assert late["click_id"] == "dj0visit"
            assert not {"client_ip_address", "client_user_agent"} & late.keys()

    asyncio.run(main())


def test_a_shopify_order_gets_the_click_of_its_cart(tmp_path: Path) -> None:
    """The pixel sees a cart after a landing with a click id; the webhook of the order names the cart alone."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            cart = {"id": "gid://shopify/Cart/cart-77?key=1"}
            seen = {
                "id": "px-1", "name": "page_viewed", "clientId": "c-1", "data": {}, "init": {"data": {"cart": cart}},
                "timestamp": "2026-11-22T00:00:00Z",
                "context": {"document": {"location": {"href": f"{ORIGIN}/?epik=dj0cart"}}},
            }  # fmt: skip
            status, answer = await here.running.post("pixel", json.dumps(seen).encode(), BROWSER, peer=IP)
            assert (status, answer["accepted"]) == (200, 1), answer
            body, headers = hook("orders/create", {
                "id": 7, "cart_token": "cart-77", "email": "jo@example.com", "currency": "EUR", "source_name": "web",
                "subtotal_price": "9.00", "total_price": "9.00",
            })  # fmt: skip
            status, answer = await here.running.post("hooks", body, headers)
            assert (status, answer["accepted"]) == (200, 1), answer
            found = (await sent(here, 2))["shop-7"]["user_data"]
            assert found["click_id"] == "dj0cart"

    asyncio.run(main())


def test_a_refusal_drops_later_events(tmp_path: Path) -> None:
    """Denied in the browser: the person's silent order is dropped(consent), until they agree again."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            person = {"email": "jo@example.com"}
            await page(here, "p1", "?epik=dj0visit", client_id="b1", user=person)
            here.step(10)
            denied = await page(here, "p2", client_id="b1", user=person, consent={"marketing": False})
            assert (denied["outcome"], denied["reason"]) == ("dropped", "consent")
            here.step(10)
            by_browser = await order(here, "o1", client_id="b1", user={"email": "someone@example.com"})
            by_person = await order(here, "o2", user=person)
            for told in (by_browser, by_person):
                assert (told["outcome"], told["reason"]) == ("dropped", "consent")
            here.step(10)
            agreed = await page(here, "p3", client_id="b1", user=person, consent={"marketing": True})
            assert agreed["outcome"] == "accepted"
            here.step(10)
            assert (await order(here, "o3", user=person))["outcome"] == "accepted"
            late = await order(here, "o4", user=person, consent={"marketing": True}, event_time=int(here.clock()) - 22)
            assert late["reason"] is None, "the newest choice is the grant"
            found = await sent(here, 4)
            assert "click_id" not in found["o3"]["user_data"], "what was known before the refusal is gone"

    asyncio.run(main())


def test_an_opt_out_limits_later_events(tmp_path: Path) -> None:
    """Global Privacy Control on a page limits the person's silent order, where a law applies."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            told = {"event_name": "page_visit", "event_id": "p1", "event_time": int(here.clock()), "client_id": "b1"}
            headers = {**BROWSER, "Sec-GPC": "1"}
            person = {"email": "jo@example.com"}
            await here.running.post("tag", json.dumps({**told, "user": person}).encode(), headers, peer=IP)
            here.step(10)
            await order(here, "inside", user={**person, "state": "CA", "country": "US"})
            await order(here, "outside", user={**person, "country": "DE"})
            found = await sent(here, 3)
            assert found["inside"]["custom_data"]["opt_out_type"] == "LDP"
            assert "opt_out_type" not in found["outside"]["custom_data"]

    asyncio.run(main())


def test_the_answer_and_explain_say_where_signals_came_from(tmp_path: Path) -> None:
    """``explain`` shows the memory's part and commits nothing; the outcome names the key."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await page(here, "p1", "?epik=dj0visit", client_id="b1")
            capture = {
                "event_name": "checkout", "event_id": "o1", "event_time": int(here.clock()), "client_id": "b1",
                "user": {"email": "jo@example.com"},
            }  # fmt: skip
            body = {
                "source": "api",
                "capture": base64.b64encode(json.dumps(capture).encode()).decode(),
                "verify": False,
            }
            explained = await here.api("POST", "/api/explain", body)
            (step,) = [step for step in explained["steps"] if step["name"] == "recalled from memory"]
            assert step["detail"]["click_ids"] == {"epik": "dj0visit"}
            (outcome,) = explained["outcomes"]
            assert "click_id" in outcome["signals"]["memory:client"] or "epik" in outcome["signals"]["memory:client"]
            told = await order(here, "o2", user={"email": "jo@example.com"})
            assert told["outcome"] == "accepted"
            found = await sent(here, 2)
            assert "click_id" not in found["o2"]["user_data"], "explain left nothing under the e-mail address"

    asyncio.run(main())


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    """``memory_s = 0``: nothing is remembered."""

    async def main() -> None:
        config = {**CONFIG, "pipeline": {"memory_s": 0}}
        async with world(tmp_path, config, clock=Clock()) as here:
            await page(here, "p1", "?epik=dj0visit", client_id="b1")
            await order(here, "o1", client_id="b1", user={"email": "jo@example.com"})
            assert "click_id" not in (await sent(here, 2))["o1"]["user_data"]

    asyncio.run(main())


def test_a_refused_hit_is_remembered_by_its_retry(tmp_path: Path) -> None:
    """A hit that the store could not take is answered 503 and known to nobody; the retry is."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            outbox = here.gateway.outbox
            outbox._connection.execute("PRAGMA query_only = ON")  # type: ignore[attr-defined]
            told = {"event_name": "page_visit", "event_id": "p1", "event_time": int(here.clock()), "client_id": "b1"}
            body = json.dumps({**told, "click_id": "dj0visit"}).encode()
            status, _ = await here.running.post("tag", body, BROWSER, peer=IP)
            assert status == 503
            assert here.gateway.memory._cache == {}
            outbox._connection.execute("PRAGMA query_only = OFF")  # type: ignore[attr-defined]
            assert (await here.running.post("tag", body, BROWSER, peer=IP))[0] == 200
            here.gateway.memory._cache.clear()
            await order(here, "o1", client_id="b1", user={"email": "jo@example.com"})
            assert (await sent(here, 2))["o1"]["user_data"]["click_id"] == "dj0visit"

    asyncio.run(main())


KILLED = f"""
[server]
bind = "127.0.0.1:{{port}}"
[store]
url = "sqlite:///gateway.db"
[sources.api]
adapter = "browser_tag"
secrets = ["{SECRET}"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "{ACCOUNT}"
token = "sandbox-token"
base_url = "{{sandbox}}"
linger_s = 0.05
"""


def test_what_was_answered_is_remembered_after_a_kill(tmp_path: Path) -> None:
    """``kill -9`` right after the 200 of a hit that is no event itself: the next process knows its click."""
    with Pair(tmp_path, KILLED) as pair:
        gateway = pair.gateway

        def post(**told: Any) -> dict[str, Any]:
            url = f"http://127.0.0.1:{gateway.port}/in/api"
            answer = httpx.post(url, json=told, headers=BEARER, timeout=20.0, trust_env=False)
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

        clicked = post(event_name="page_visit", event_id="p1", client_id="b1", click_id="dj0killed")
        assert clicked["accepted"] + clicked["dropped"] == 1
        gateway.kill()
        gateway.start()
        told = post(event_name="checkout", event_id="o1", client_id="b1", user={"email": "jo@example.com"})
        assert told["accepted"] == 1
        gateway.drain()
        (found,) = [event for event in pair.sandbox.events(10) if event["event_id"] == "o1"]
        assert found["user_data"]["click_id"] == "dj0killed"
        content = b"".join(part.read_bytes() for part in tmp_path.glob("gateway.db*") if part.is_file())
        assert b"dj0killed" in content, "the control"
        assert b"b1\x00" not in content
        assert b"jo@example.com" not in content
