"""
What is sent and what must arrive: everything follows from a number, so that nothing has to be remembered of it.

A number is a serial times eight plus a code that says what kind of event it is. Each copy of an event, from whichever
source, bears the number in its id or order number.
"""

import base64
import hashlib
import hmac
import json
from typing import Any, Final

from tests.harness.orders import EPIK, ORIGIN, UA, conversion, order, pixel
from tests.harness.processes import ACCOUNT, SECRET

API, TAG, TAG_API, PIXEL_SHOP, TAG_GTM, DENIED, POISON, INVALID = range(8)
CODES: Final = 8
#: Sources of a kind's copies; those of an order are two, which are merged.
SOURCES: Final = {
    API: ("api",), TAG: ("tag",), TAG_API: ("tag", "api"), PIXEL_SHOP: ("pixel", "shop"), TAG_GTM: ("tag", "gtm"),
    DENIED: ("tag",), POISON: ("api",), INVALID: ("api",),
}  # fmt: skip
ORDERS: Final = frozenset({TAG_API, PIXEL_SHOP, TAG_GTM})
#: How often each kind is sent, of a hundred.
WEIGHTS: Final = {API: 40, TAG: 22, TAG_API: 9, PIXEL_SHOP: 12, TAG_GTM: 9, DENIED: 4, POISON: 1, INVALID: 3}
#: What an id may begin with; an order's is the browser's or derived from the site.
PREFIXES: Final = {
    API: ("e",), TAG: ("t",), TAG_API: ("sh", "shop"), PIXEL_SHOP: ("sh", "shop"), TAG_GTM: ("sh", "shop"),
    DENIED: ("d",), POISON: ("x", "y"), INVALID: ("v",),
}  # fmt: skip
#: Kinds of which nothing may ever arrive: the person said no, the event has no name, the vendor refuses it.
NEVER: Final = frozenset({DENIED, INVALID, POISON})
_NAMES: Final = ("checkout", "page_visit", "add_to_cart", "lead")
_PAGE_NAMES: Final = ("page_visit", "add_to_cart", "view_category")
HOLD_S: Final = 2.0
#: How long a copy is told apart from a new event; repeats come much sooner.
WINDOW_S: Final = 900
TIMEOUT_S: Final = 5.0
GRACEFUL_S: Final = 3.0
BATCH, IN_FLIGHT = 100, 4


def configuration(engine: str) -> str:
    """Return ``gateway.toml`` with ``{port}`` and ``{sandbox}``: one shop with five sources, and a server source."""
    server = f'site = "shop"\nsecrets = ["{SECRET}"]\ndestinations = ["pinterest"]'
    public = f'site = "shop"\nallowed_origins = ["{ORIGIN}"]\ndestinations = ["pinterest"]'
    sources = (
        ("shop", "shopify", server), ("api", "browser_tag", server), ("gtm", "gtm", server),
        ("tag", "browser_tag", public), ("pixel", "shopify_pixel", public),
    )  # fmt: skip
    tables = "\n".join(f'[sources.{name}]\nadapter = "{adapter}"\n{more}' for name, adapter, more in sources)
    return f"""
[server]
bind = "127.0.0.1:{{port}}"
engine = "{engine}"
trusted_proxies = ["127.0.0.1/32"]
graceful_s = {GRACEFUL_S}
[store]
url = "sqlite:///gateway.db"
[pipeline]
dedup_window_s = {WINDOW_S}
business_key_s = {WINDOW_S}
max_event_age_s = {WINDOW_S}
memory_s = {WINDOW_S}
[sites.shop]
hold_s = {HOLD_S}
{tables}
[destinations.pinterest]
type = "pinterest"
ad_account_id = "{ACCOUNT}"
token = "sandbox-token"
base_url = "{{sandbox}}"
batch_size = {BATCH}
in_flight = {IN_FLIGHT}
timeout_s = {TIMEOUT_S}
linger_s = 0.05
"""


def number_of(event_id: str) -> int:
    """Return the number in an id, -1 where there is none."""
    digits = event_id.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else -1


def address_of(number: int) -> str:
    """Return where the visitor came from; the gateway limits the hits of one address."""
    return f"8.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def id_of(number: int) -> str:
    """Return the id of a number that is no order."""
    prefixes = PREFIXES[number % CODES]
    return f"{prefixes[number // CODES % len(prefixes)]}-{number}"


def _name_of(number: int) -> str:
    names = _PAGE_NAMES if number % CODES == TAG else _NAMES
    return names[number // CODES % len(names)]


def _value_of(number: int) -> str:
    return f"{number * 7919 % 1_000_000 / 100:.2f}"


def copy_of(source: str, number: int, at: float) -> dict[str, Any]:
    """Return what a source tells of a number at a time (Unix s)."""
    code = number % CODES
    if code in ORDERS:
        return _order_copy(source, number, at)
    if code in (TAG, DENIED):
        visit = {
            "event_name": _name_of(number), "event_id": id_of(number), "event_time": int(at),
            "event_source_url": f"{ORIGIN}/p/{number}",
        }  # fmt: skip
        return visit if code == TAG else {**visit, "consent": {"marketing": False}}
    event = {
        "event_name": _name_of(number), "event_id": id_of(number), "event_time": int(at), "action_source": "web",
        "value": _value_of(number), "currency": "USD", "user": {"email": f"{id_of(number)}@load.example"},
    }  # fmt: skip
    if code == INVALID:
        del event["event_name"]
    return event


def _order_copy(source: str, number: int, at: float) -> dict[str, Any]:
    if source == "pixel":
        return pixel(number, at=at)
    if source == "shop":
        return order(number, at=at)
    if source == "tag":
        return conversion(number, at=at, event_id=f"sh-{number}", click_id=EPIK)
    email = f"buyer-{number}@example.com"
    if source == "gtm":
        return {
            "event_name": "purchase", "event_time": int(at) - 7, "transaction_id": str(number), "value": 12,
            "currency": "USD", "user_data": {"email_address": email},
        }  # fmt: skip
    return conversion(number, at=at, value="12.00", currency="USD", user={"email": email})


def request(source: str, numbers: list[int], at: float, *, in_query: bool = False) -> bytes:
    """Return the bytes of one request with a copy of each number; ``in_query`` makes it a GET with one event."""
    told = [copy_of(source, number, at) for number in numbers]
    body = json.dumps(told[0] if len(told) == 1 else told).encode()
    headers = _headers(source, body, numbers[0])
    if in_query:
        encoded = base64.urlsafe_b64encode(body).decode().rstrip("=")
        first, body = f"GET /in/{source}?d={encoded} HTTP/1.1", b""
    else:
        first, headers = f"POST /in/{source} HTTP/1.1", [*headers, f"Content-Length: {len(body)}"]
    return "\r\n".join([first, "Host: gateway", *headers, "", ""]).encode() + body


def _headers(source: str, body: bytes, number: int) -> list[str]:
    if source == "shop":
        proof = base64.b64encode(hmac.digest(SECRET.encode(), body, "sha256")).decode()
        return [
            "X-Shopify-Topic: orders/create", f"X-Shopify-Hmac-Sha256: {proof}",
            "X-Shopify-Shop-Domain: example.myshopify.com", "Content-Type: application/json",
        ]  # fmt: skip
    if source in ("api", "gtm"):
        return [f"Authorization: Bearer {SECRET}", "Content-Type: application/json"]
    return [
        f"Origin: {ORIGIN}", "Content-Type: text/plain", f"User-Agent: {UA}", f"X-Forwarded-For: {address_of(number)}"
    ]  # fmt: skip


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def is_as_told(event: dict[str, Any]) -> bool:
    """Whether an event at the vendor is what its number says: its own name, money, person and address, nothing else."""
    number = number_of(event["event_id"])
    code = number % CODES
    prefix = event["event_id"].rpartition("-")[0]
    if number < 0 or prefix not in PREFIXES[code]:
        return False
    user, bought = event["user_data"], event.get("custom_data") or {}
    if code in ORDERS:
        return bool(event["event_name"] == "checkout" and _is_order(number, user, bought))
    if event["event_name"] != _name_of(number):
        return False
    if code in (TAG, DENIED):
        here = {"client_ip_address": address_of(number), "client_user_agent": UA}
        return bool(user == here and not bought and event["event_source_url"] == f"{ORIGIN}/p/{number}")
    money = {"value": _value_of(number), "currency": "USD"}
    return bool(user == {"em": [_hashed(f"{id_of(number)}@load.example")]} and bought == money)


_PHONE = _hashed("12025550143")


def _is_order(number: int, user: dict[str, Any], bought: dict[str, Any]) -> bool:
    """Whether it is one copy of the order or the other, or both: which came in time nobody can say."""
    expected = {
        "em": [_hashed(f"buyer-{number}@example.com")], "ph": [_PHONE], "client_ip_address": address_of(number),
        "client_user_agent": UA, "click_id": EPIK, "external_id": [_hashed(f"c-{number}")],
    }  # fmt: skip
    money = (float(bought["value"]), bought["currency"])
    return (
        money in ((11.5, "EUR"), (12.0, "USD"))
        and bought["order_id"] == str(number)
        and bool(user)
        and all(expected.get(field) == value for field, value in user.items())
    )
