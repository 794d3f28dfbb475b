"""No raw personal data at rest: people whose details exist nowhere else are sent in, then looked for."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tests.harness import conformance
from tests.harness.canary import Canary
from tests.harness.inprocess import world
from tests.harness.processes import ACCOUNT, Pair, until

SHOP = "canary-shop.myshopify.com"
ORIGIN = "https://shop.example"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
#: Free texts of the tag's JSON that are no identifier, each as a path into the event.
FREE_TEXTS = (
    "search_string", "content_name", "language", "checkout_token", "client_id", "currency", "value", "num_items",
    "action_source", "items.0.price", "consent.us_privacy", "consent.gpp", "consent.marketing", "client.ip",
    "user.gender",
    "user.country", "event_time", "test", "opt_out",
)  # fmt: skip
#: Those that describe a product, an app or a device, and that nobody expects a person in.
DESCRIPTIONS = (
    "content_category", "content_brand", "items.0.name", "items.0.brand", "items.0.category", "partner_id", "app.name",
    "app.version", "app.package_name", "device.brand", "device.model", "device.carrier", "device.locale",
    "device.network_type", "device.timezone",
)  # fmt: skip
CONFIG = f"""
[server]
bind = "127.0.0.1:{{port}}"
graceful_s = 2.0
[store]
url = "sqlite:///gateway.db"
[sites.shop]
hold_s = 0.1
default_country = "DE"
[sources.api]
adapter = "browser_tag"
secrets = ["server-secret"]
destinations = ["pinterest"]
[sources.tag]
adapter = "browser_tag"
site = "shop"
allowed_origins = ["{ORIGIN}"]
destinations = ["pinterest"]
[sources.shopify]
adapter = "shopify"
site = "shop"
secrets = ["shop-secret"]
options = {{ shop = "{SHOP}" }}
destinations = ["pinterest"]
[sources.pixel]
adapter = "shopify_pixel"
site = "shop"
allowed_origins = ["{ORIGIN}"]
destinations = ["pinterest"]
[sources.gtm]
adapter = "gtm"
secrets = ["server-secret"]
destinations = ["pinterest"]
[sources.collect]
adapter = "gtm"
allowed_origins = ["{ORIGIN}"]
destinations = ["pinterest"]
[sources.tealium]
adapter = "tealium"
secrets = ["server-secret"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "{ACCOUNT}"
token = "sandbox-token"
base_url = "{{sandbox}}"
linger_s = 0.1
"""
Hit = tuple[str, str, bytes, dict[str, str]]  # method, path, body, headers
BEARER = {"Authorization": "Bearer server-secret", "Content-Type": "application/json"}
BROWSER = {"Origin": ORIGIN, "User-Agent": CHROME, "Content-Type": "text/plain"}


def person(canary: Canary, who: str) -> dict[str, Any]:
    """Return the identifiers of one person in the tag's JSON."""
    return {
        "email": canary.mail(f"{who} email"), "phone": canary.phone(f"{who} phone"),
        "first_name": canary.word(f"{who} first name"), "last_name": canary.word(f"{who} last name"),
        "city": canary.word(f"{who} city"), "state": canary.word(f"{who} state"),
        "postal_code": canary.word(f"{who} postal code")[:9], "birth_date": canary.word(f"{who} birth date"),
        "external_id": canary.word(f"{who} external id"), "mobile_ad_id": canary.word(f"{who} mobile ad id"),
    }  # fmt: skip


def url(canary: Canary, where: str) -> str:
    """Return a page's address with personal data in every part that may hold some."""
    return (
        f"https://{canary.word(f'{where} url user')}:{canary.word(f'{where} url password')}@shop.example/account/"
        f"{quote(canary.mail(f'{where} url path'))}/?email={quote(canary.mail(f'{where} url email'))}"
        f"&first_name={canary.word(f'{where} url first name')}&phone={quote(canary.phone(f'{where} url phone'))}"
        f"&x={canary.mail(f'{where} url x')}&utm_source=mail&EMAIL={canary.word(f'{where} url EMAIL')}"
        f"&user%5Bemail%5D={canary.word(f'{where} url user[email]')}#{canary.mail(f'{where} url fragment')}"
    )


def base(event_id: str, who: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sound event of the tag's JSON."""
    return {"event_name": "checkout", "event_id": event_id, "event_time": int(time.time()), "user": dict(who)}


def with_text(event: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    """Put a text where the path says."""
    keys = path.split(".")
    target: Any = event
    for key, following in itertools.pairwise(keys):
        if isinstance(target, list):
            target = target[int(key)]
        else:
            target = target.setdefault(key, [{"id": "sku"}] if following == "0" else {})
    target[keys[-1]] = text
    return event


def tag_hits(canary: Canary) -> Iterator[Hit]:
    """Yield the tag's JSON: identifiers, URLs, e-mail addresses in every other field, as a pixel, and broken."""
    who = person(canary, "tag")
    yield "POST", "/in/api", json.dumps(base("tag-person", who)).encode(), BEARER
    both = [base("tag-a", person(canary, "array a")), base("tag-b", person(canary, "array b")), {"event_name": 3}]
    yield "POST", "/in/api", json.dumps(both).encode(), BEARER
    seen = {**base("tag-url", who), "event_source_url": url(canary, "event"), "search_string": canary.mail("search")}
    headers = {
        **BROWSER, "Referer": f"{ORIGIN}/?email={canary.mail('referer')}", "Cookie": f"who={canary.mail('cookie')}",
        "X-Shopper": canary.mail("header"),
    }  # fmt: skip
    yield "POST", "/in/tag", json.dumps(seen).encode(), headers
    encoded = base64.urlsafe_b64encode(json.dumps(base("tag-get", person(canary, "get"))).encode()).decode()
    yield (
        "GET",
        f"/in/tag?d={encoded}&email={canary.mail('query')}",
        b"",
        {"Referer": url(canary, "get referer"), **BROWSER},
    )
    for number, path in enumerate(FREE_TEXTS):
        event = with_text(base(f"tag-free-{number}", who), path, canary.mail(f"tag {path}"))
        yield "POST", "/in/api", json.dumps(event).encode(), BEARER
    yield "POST", "/in/api", json.dumps({**base("tag-key", who), canary.mail("unknown key"): 1}).encode(), BEARER
    yield (
        "POST",
        "/in/api",
        json.dumps({**base("tag-name", who), "event_name": canary.mail("event name")}).encode(),
        BEARER,
    )
    nested = {
        **base("tag-nested", who),
        "user": {"email": {"a": canary.mail("nested")}, "phone": [canary.phone("listed")]},
    }
    yield "POST", "/in/api", json.dumps(nested).encode(), BEARER


def broken_hits(canary: Canary) -> Iterator[Hit]:
    """Yield what is refused: no JSON, wrong shapes, wrong secrets, wrong paths."""
    yield (
        "POST",
        "/in/api",
        f'{{"event_name": "checkout", "user": {{"email": "{canary.mail("cut off")}'.encode(),
        BEARER,
    )
    yield "POST", "/in/api", canary.mail("no json").encode(), BEARER
    yield "POST", "/in/api", json.dumps([canary.mail("no object")]).encode(), BEARER
    yield "POST", "/in/api", json.dumps({"user": canary.mail("no user")}).encode(), BEARER
    yield "POST", "/in/api", b'{"a": 1}', {"Authorization": f"Bearer {canary.word('wrong secret')}"}
    yield "POST", "/in/tag", b'{"event_name": "lead"}', {"Origin": f"https://{canary.word('origin').lower()}.example"}
    yield "POST", f"/in/{canary.word('source').lower()}?email={canary.mail('lost')}", b"{}", {}
    yield "GET", f"/in/tag?d={canary.word('no base64')}%", b"", BROWSER
    yield (
        "POST",
        "/in/tealium",
        b"{",
        {"Authorization": "Basic " + base64.b64encode(canary.mail("basic").encode()).decode()},
    )
    yield "POST", "/in/shopify", canary.mail("unsigned").encode(), {"X-Shopify-Topic": canary.word("topic")}


def shopify_hits(canary: Canary) -> Iterator[Hit]:
    """Yield a signed order and the pixel's account of another one, with names, streets, notes and links."""
    name, word, mail = "order", canary.word, canary.mail
    address = {
        "first_name": word(f"{name} first name"), "last_name": word(f"{name} last name"), "city": word(f"{name} city"),
        "address1": f"{word(f'{name} street')} 7", "company": word(f"{name} company"), "zip": "10115",
        "country_code": "DE",
        "phone": canary.phone(f"{name} address phone"), "name": word(f"{name} full name"), "latitude": 52.1,
    }  # fmt: skip
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    order = {
        "id": 7_001, "name": "#7001", "created_at": now, "processed_at": now, "source_name": "web", "currency": "EUR",
        "subtotal_price": "20.00", "total_price": "24.00", "test": False, "email": mail("order email"),
        "contact_email": mail("order contact"), "phone": canary.phone("order phone"), "note": word("order note"),
        "note_attributes": [{"name": "gift", "value": word("note attribute")}, {"name": "_epik", "value": "dj0canary"}],
        "tags": word("order tags"), "checkout_token": "tok7001", "billing_address": address,
        "shipping_address": address,
        "customer": {"id": 99, "email": mail("customer"), "note": word("customer note"),
        "first_name": word("customer name")},
        "landing_site": f"/?email={mail('landing site')}", "referring_site": url(canary, "referring site"),
        "client_details": {"browser_ip": "216.3.128.12", "user_agent": CHROME},
        "line_items": [{
            "product_id": 5, "variant_id": 6, "title": "Cup", "price": "20.00", "quantity": 1,
            "properties": [{"name": "engraving", "value": word("engraving")}],
        }],
    }  # fmt: skip
    for topic in ("orders/create", "customers/create"):
        body = json.dumps(order).encode()
        signature = base64.b64encode(hmac.digest(b"shop-secret", body, "sha256")).decode()
        yield "POST", "/in/shopify", body, {
            "Content-Type": "application/json", "X-Shopify-Topic": topic, "X-Shopify-Shop-Domain": SHOP,
            "X-Shopify-Hmac-Sha256": signature, "X-Shopify-Webhook-Id": "w-1", "X-Shopify-API-Version": "2026-10",
        }  # fmt: skip
    page = {
        "document": {"location": {"href": url(canary, "pixel")}, "title": word("pixel title")},
        "navigator": {"userAgent": CHROME},
    }
    checkout = {
        "token": "tok7002", "email": mail("pixel email"), "phone": canary.phone("pixel phone"), "currencyCode": "EUR",
        "billingAddress": {"firstName": word("pixel first"), "lastName": word("pixel last"),
        "address1": word("pixel street")},
        "order": {"id": "7002"}, "totalPrice": {"amount": 5.0}, "attributes": [{"key": "a",
        "value": word("pixel attribute")}],
        "lineItems": [],
    }  # fmt: skip
    for event_id, event_name, data in (
        ("px-1", "checkout_completed", {"checkout": checkout}),
        ("px-2", "search_submitted", {"searchResult": {"query": mail("pixel search"), "productVariants": []}}),
        ("px-3", mail("pixel event name"), {}),
    ):
        told = {"id": event_id, "name": event_name, "timestamp": now, "clientId": "c-1", "context": page, "data": data}
        yield "POST", "/in/pixel", json.dumps(told).encode(), BROWSER


def other_hits(canary: Canary) -> Iterator[Hit]:
    """Yield GTM's event data, a GA4 hit, Tealium's flat and nested events."""
    mail, word = canary.mail, canary.word
    yield "POST", "/in/gtm", json.dumps({
        "event_name": "purchase", "transaction_id": "g-1", "event_id": "gtm-1", "value": 3, "currency": "EUR",
        "page_location": url(canary, "gtm"), "page_title": word("gtm title"), "user_agent": CHROME,
        "ip_override": "216.3.128.12",
        "user_data": {"email_address": mail("gtm email"), "phone_number": canary.phone("gtm phone"),
                      "address": [{"first_name": word("gtm first"), "street": word("gtm street"),
                      "city": word("gtm city")}]},
        "search_term": mail("gtm search"), "ga4_email": mail("gtm custom"), "user_id": word("gtm user id"),
    }).encode(), BEARER  # fmt: skip
    query = f"v=2&tid=G-1&cid=1.2&en=search&ep.search_term={quote(mail('ga4 search'))}&uid={word('ga4 uid')}"
    query += f"&dl={quote(url(canary, 'ga4'))}&ep.email={quote(mail('ga4 parameter'))}&dt={word('ga4 title')}"
    yield "GET", f"/in/collect/g/collect?{query}", b"", BROWSER
    flat = {
        "tealium_event": "purchase", "order_id": "t-1", "order_total": 5, "order_currency": "EUR",
        "event_id": "tealium-1",
        "customer_email": mail("tealium email"), "customer_first_name": word("tealium first"),
        "customer_id": word("tealium id"),
        "customer_address_1": word("tealium street"), "customer_city": word("tealium city"),
        "order_note": word("tealium note"),
        "dom.url": url(canary, "tealium"), "search_keyword": mail("tealium search"), "page_name": word("tealium page"),
    }  # fmt: skip
    yield "POST", "/in/tealium", json.dumps(flat).encode(), BEARER
    nested = {
        "account": "a",
        "data": {"udo": {**flat, "order_id": "t-2"}, "dom": {"url": url(canary, "nested tealium")}},
        "event_id": "t2",
    }
    yield "POST", "/in/tealium", json.dumps(nested).encode(), BEARER


def send(port: int, hits: list[Hit]) -> tuple[dict[int, int], bytes]:
    """Send hits; returns how many answers had which status, and all that the answers said."""
    found: dict[int, int] = {}
    said = b""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0, trust_env=False) as client:
        for method, path, body, headers in hits:
            answer = client.request(method, path, content=body, headers=headers)
            found[answer.status_code] = found.get(answer.status_code, 0) + 1
            said += repr(answer.headers).encode() + answer.content
    return found, said


def test_the_search_finds_every_writing() -> None:
    """The control: a detail is found in capitals, percent-encoded, and as base64 wherever it stands."""
    canary = Canary()
    word, mail = canary.word("name"), canary.mail("mail")
    writings = [
        word,
        word.upper(),
        quote(mail),
        *(base64.b64encode(f"{'x' * n}{mail}yy".encode()).decode() for n in range(3)),
    ]
    for writing in writings:
        assert canary.find("here", f"a{writing}b".encode()), writing
    assert canary.find("here", base64.b64encode(b"nothing of that kind at all, whatever it is")) == []


def test_no_raw_personal_data_at_rest(tmp_path: Path) -> None:
    """Hits of all sources, delivered, refused, dead and waiting: no detail of anybody is in any file or page."""
    canary = Canary()
    hits = [*tag_hits(canary), *shopify_hits(canary), *other_hits(canary), *broken_hits(canary)]
    leaks: list[str] = []
    with Pair(tmp_path, CONFIG) as pair:
        gateway, sandbox = pair.gateway, pair.sandbox
        # all that is accepted dies, so that there are letters to look at
        sandbox.stand(kind="partial")
        statuses, said = send(gateway.port, hits)
        leaks += canary.find("answers", said)
        assert statuses[200] > len(FREE_TEXTS)
        assert set(statuses) <= {200, 400, 401, 403, 404}, statuses
        gateway.drain()
        letters = gateway.api("GET", "/api/dead?limit=1000")["letters"]
        assert len(letters) > 10
        shown = [gateway.api("GET", f"/api/dead/{letter['unit']}") for letter in letters]
        sandbox.clear()
        sandbox.stand(kind="status", status=503)
        gateway.api("POST", "/api/dead/replay", {"units": [letter["unit"] for letter in letters[::2]]})
        until(lambda: sandbox.counts()["answers"].get("503", 0) > 0, 10, "what waits was tried")
        backup = tmp_path / "backup.db"
        gateway.api("POST", "/api/backup", {"path": str(backup)})
        pages = {
            "dead show": json.dumps(shown), "metrics": gateway.api("GET", "/metrics"),
            "dead list": json.dumps(gateway.command("dead", "list", "--limit", "1000", "--json")),
            "status": json.dumps(gateway.command("status", "--json")),
        }  # fmt: skip
        parts = ["gateway.db", "gateway.db-wal", "gateway.db-shm", "gateway.log", "backup.db"]
        for name in parts:
            leaks += canary.find(name, (tmp_path / name).read_bytes())
        for name, text in pages.items():
            leaks += canary.find(name, text.encode())
        sandbox.clear()
        gateway.drain(60.0)
        events = sandbox.events(1000)
        assert hashlib.sha256(canary.mail("tag email").encode()).hexdigest() in json.dumps(events), "nothing arrived"
        assert conformance.problems_of_events(events) == []
        leaks += canary.find("what is sent", json.dumps(events).encode())
        gateway.kill()
        for name in parts:
            leaks += canary.find(f"{name} after a kill", (tmp_path / name).read_bytes())
    assert not leaks, "\n".join(sorted(set(leaks)))


def test_an_address_in_a_description_is_left_out(tmp_path: Path) -> None:
    """An e-mail address in a text about a product, app or device costs that text: it is neither kept nor sent."""
    canary = Canary()

    async def main() -> list[str]:
        async with world(tmp_path) as here:
            here.sandbox.faults.down()
            for number, path in enumerate(DESCRIPTIONS):
                told = with_text(base(f"e{number}", {"email": "somebody@example.com"}), path, canary.mail(path))
                (answer,) = await here.post(told)
                assert answer["outcome"] == "accepted"
            kept = b"".join((tmp_path / name).read_bytes() for name in ("gateway.db", "gateway.db-wal"))
            here.sandbox.faults.clear()
            await here.running.delivered(len(DESCRIPTIONS))
            sent = json.dumps([call.body for call in here.calls]).encode()
            return canary.find("kept", kept) + canary.find("sent", sent)

    leaks = asyncio.run(main())
    assert not leaks, "\n".join(leaks)
