"""The Shopify adapters: proof, topics, fallbacks, and whatever else a body may hold."""

import base64
import hmac
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.shopify import (
    PixelOptions,
    ShopifyAdapter,
    ShopifyPixelAdapter,
    WebhookOptions,
    register_adapters,
)
from gateway import (
    Adapter,
    Alarm,
    Context,
    Erasure,
    Event,
    Hit,
    Invalid,
    Item,
    Key,
    Normalized,
    Rejected,
    Secret,
    Skipped,
    Source,
)
from gateway.testing import examples

EXAMPLES = Path(__file__).resolve().parents[1] / "adapters" / "shopify" / "examples"
PAYLOADS = Path(__file__).resolve().parents[2] / "shared" / "payloads"
SECRET = "a-client-secret"
SHOP = "example.myshopify.com"
WEBHOOK, PIXEL = ShopifyAdapter(), ShopifyPixelAdapter()
UA = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"

ORDER: dict[str, Any] = {
    "id": 6001,
    "admin_graphql_api_id": "gid://shopify/Order/6001",
    "checkout_token": "chk-1",
    "created_at": "2026-11-21T10:30:00+01:00",
    "processed_at": "2026-11-21T10:29:58+01:00",
    "source_name": "web",
    "currency": "USD",
    "subtotal_price": "40.00",
    "total_price": "48.50",
    "email": "ada@example.com",
    "landing_site": "/products/mug?utm_source=pinterest",
    "client_details": {"browser_ip": "8.8.8.8", "user_agent": UA},
    "customer": {"id": 501, "email": "other@example.com", "phone": "+12025550143"},
    "billing_address": {"first_name": "Ada", "last_name": "Example", "city": "Springfield", "zip": "62701"},
    "note_attributes": [{"name": "_epik", "value": "dj0yJnU9QUJD"}],
    "line_items": [{"product_id": 71, "variant_id": 711, "sku": "MUG", "price": "20.00", "quantity": 2}],
}
VARIANT = {
    "id": "711",
    "sku": "MUG",
    "price": {"amount": 20.0, "currencyCode": "USD"},
    "product": {"id": "71", "title": "Mug", "vendor": "Kiln", "type": "kitchen"},
}
PIXEL_EVENT: dict[str, Any] = {
    "id": "sh-1",
    "name": "checkout_completed",
    "clientId": " C-1 ",
    "timestamp": "2026-11-21T09:29:00.500Z",
    "data": {
        "checkout": {
            "token": "chk-1",
            "currencyCode": "USD",
            "email": "ada@example.com",
            "subtotalPrice": {"amount": 40, "currencyCode": "USD"},
            "totalPrice": {"amount": 48.5, "currencyCode": "USD"},
            "shippingAddress": {"city": "Springfield", "provinceCode": "IL", "countryCode": "US"},
            "lineItems": [{"quantity": 2, "variant": VARIANT}],
            "order": {"id": "gid://shopify/OrderIdentity/6001", "customer": {"id": "501"}},
            "attributes": [{"key": "_epik", "value": "from-cart"}],
        }
    },
    "context": {
        "document": {"location": {"href": "https://shop.example/checkouts/1"}},
        "navigator": {"language": "en-US", "userAgent": UA},
    },
}


def signature(body: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), body, "sha256")).decode()


def webhook_hit(
    body: bytes,
    topic: str | None = "orders/create",
    *,
    options: WebhookOptions | None = None,
    signed: str | None = "",
    secrets: tuple[str, ...] = (SECRET,),
    event_names: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> Hit:
    """Build a delivery; ``signed`` is the signature header, "" for the right one and None for none."""
    given = {"x-shopify-shop-domain": SHOP, "x-shopify-triggered-at": "2026-11-21T09:30:00.250000000Z"}
    if topic is not None:
        given["x-shopify-topic"] = topic
    if signed is not None:
        given["x-shopify-hmac-sha256"] = signed or signature(body)
    given |= headers or {}
    source = Source(
        name="shop",
        adapter="shopify",
        site="shop",
        destinations=("pinterest",),
        options=options or WebhookOptions(),
        secrets=tuple(Secret(value=secret) for secret in secrets),
        event_names=event_names or {},
    )
    return Hit(source=source, headers=given, body=body)


def normalize(body: Any, topic: str | None = "orders/create", **more: Any) -> Normalized:
    hit = webhook_hit(json.dumps(body).encode(), topic, **more)
    WEBHOOK.verify(hit)
    (item,) = WEBHOOK.normalize(hit)
    return item


def event_of(body: Any, topic: str = "orders/create", **more: Any) -> Event:
    item = normalize(body, topic, **more)
    assert isinstance(item, Event)
    return item


def pixel_hit(body: bytes, options: PixelOptions | None = None, origin: str = "null") -> Hit:
    source = Source(
        name="pixel",
        adapter="shopify_pixel",
        site="shop",
        destinations=("pinterest",),
        options=options or PixelOptions(),
        allowed_origins=("https://shop.example", "null"),
    )
    return Hit(source=source, headers={"origin": origin, "content-type": "text/plain"}, body=body)


def pixel_items(body: Any, options: PixelOptions | None = None) -> list[Normalized]:
    hit = pixel_hit(json.dumps(body).encode(), options)
    PIXEL.verify(hit)
    return list(PIXEL.normalize(hit))


def pixel_event(body: Any, options: PixelOptions | None = None) -> Event:
    (item,) = pixel_items(body, options)
    assert isinstance(item, Event)
    return item


def adapter_of(path: Path) -> Adapter:
    return PIXEL if path.name.startswith("pixel_") else WEBHOOK


# examples and registration


@pytest.mark.parametrize("path", examples.files(EXAMPLES), ids=lambda path: path.stem)
def test_example(path: Path) -> None:
    """Every example file says what its adapter does."""
    examples.check(path, adapter_of(path))


def test_hook_offers_both_sides() -> None:
    """The package registers a signed and a public adapter."""
    adapters = register_adapters(Context())
    assert [(adapter.name, adapter.side) for adapter in adapters] == [
        ("shopify", "server"),
        ("shopify_pixel", "public"),
    ]


@pytest.mark.parametrize("adapter", [WEBHOOK, PIXEL], ids=lambda adapter: adapter.name)
def test_unknown_options_are_errors(adapter: Adapter) -> None:
    """The option tables are closed."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"shopp": SHOP}, adapter.Options)


@pytest.mark.parametrize("shop", ["https://example.myshopify.com", "example", "example.myshopify.com/", ""])
def test_shop_option_must_be_a_domain(shop: str) -> None:
    """A shop that could never match is refused at start-up."""
    source = webhook_hit(b"{}", options=WebhookOptions(shop=shop)).source
    assert "options.shop" in (WEBHOOK.check(source) or "")
    assert "options.shop" in (PIXEL.check(source) or "")


def test_good_source_and_empty_secret() -> None:
    """A usual configuration passes; an empty secret would let anybody sign."""
    assert WEBHOOK.check(webhook_hit(b"{}", options=WebhookOptions(shop=SHOP)).source) is None
    assert "empty" in (WEBHOOK.check(webhook_hit(b"{}", secrets=("x", " ")).source) or "")


# proof


def refusal(hit: Hit) -> Rejected:
    with pytest.raises(Rejected) as caught:
        WEBHOOK.verify(hit)
    return caught.value


BODY = json.dumps(ORDER).encode()
#: The way Shopify writes JSON: compact, slashes and ampersands escaped.
AS_SENT = (
    json.dumps({**ORDER, "note": "a&b ü"}, ensure_ascii=False, separators=(",", ":"))
    .replace("/", "\\/")
    .replace("&", "\\u0026")
    .encode()
)


@pytest.mark.parametrize("name", ["x-shopify-hmac-sha256", "shopify-hmac-sha256"])
def test_either_header_name_and_any_live_secret(name: str) -> None:
    """Both names of the signature header count, and each secret while rotating."""
    for secret in ("old", "new"):
        hit = webhook_hit(AS_SENT, secrets=("old", "new"), signed=None, headers={name: signature(AS_SENT, secret)})
        WEBHOOK.verify(hit)


@pytest.mark.parametrize(
    ("signed", "body", "cause"),
    [
        (None, BODY, "no_signature"),
        (signature(AS_SENT), b"", "empty_body"),
        (hmac.digest(SECRET.encode(), BODY, "sha256").hex(), BODY, "hex_signature"),
        (hmac.digest(b"another", BODY, "sha256").hex(), BODY, "not_a_signature"),
        (signature(BODY, "another"), BODY, "wrong_secret"),
        (signature(AS_SENT), json.dumps(json.loads(AS_SENT)).encode(), "rewritten_body"),
        (signature(AS_SENT), json.dumps(json.loads(AS_SENT), indent=2).encode(), "rewritten_body"),
        (signature(BODY), json.dumps(ORDER, separators=(",", ":")).encode(), "rewritten_body"),
        (signature(BODY), BODY.replace(b"ada", b"eve"), "wrong_secret"),
        (signature(AS_SENT), AS_SENT + b"\n", "whitespace"),
        (signature(AS_SENT + b"\n"), AS_SENT, "whitespace"),
        (signature(AS_SENT), b"not json", "wrong_secret"),
        ("é", BODY, "not_a_signature"),
        ("AAAA", BODY, "not_a_signature"),
        (signature(BODY)[:-2], BODY, "not_a_signature"),
    ],
)
def test_refusal_names_the_likely_cause(signed: str | None, body: bytes, cause: str) -> None:
    """A refusal tells the operator what is probably wrong, and the sender always the same."""
    hit = webhook_hit(body, signed=signed)
    with pytest.raises(Rejected) as caught:
        ShopifyAdapter().verify(hit)
    refused = caught.value
    assert (refused.status, refused.reason, refused.cause) == (401, "unauthorized", cause)
    other = refusal(webhook_hit(BODY, signed="AAAA"))
    assert (refused.message, refused.hint) == (other.message, other.hint)


def test_refusal_leaks_nothing() -> None:
    """No secret, signature or body value is in the answer."""
    given = signature(BODY, "another")
    refused = refusal(webhook_hit(BODY, signed=given))
    for private in (SECRET, given, signature(BODY), "ada@example.com"):
        assert private not in refused.hint + refused.message


def test_no_secret_refuses() -> None:
    """Without a secret the source is closed, also to a signature under the empty one."""
    assert refusal(webhook_hit(BODY, secrets=(), signed=signature(BODY, ""))).status == 401


def test_large_body_is_not_diagnosed() -> None:
    """A wrong signature does not buy the search for its cause on a large body."""
    large = json.dumps({"note": "x" * 140_000}).encode()
    compact = large.replace(b": ", b":")
    with pytest.raises(Rejected) as caught:
        ShopifyAdapter().verify(webhook_hit(large, signed=signature(compact)))
    assert caught.value.cause == "large_body"


@pytest.mark.parametrize("named", ["EXAMPLE.myshopify.com", "example.myshopify.com "])
def test_shop_in_any_case(named: str) -> None:
    """A domain is compared without case."""
    WEBHOOK.verify(webhook_hit(BODY, options=WebhookOptions(shop=SHOP), headers={"x-shopify-shop-domain": named}))


@pytest.mark.parametrize(
    ("body", "headers", "options"),
    [
        (ORDER, {"x-shopify-shop-domain": "other.myshopify.com"}, WebhookOptions(shop=SHOP)),
        (ORDER, {"x-shopify-shop-domain": ""}, WebhookOptions(shop=SHOP)),
        ({"shop_id": 1, "shop_domain": "other.myshopify.com"}, {}, WebhookOptions(shop=SHOP)),
        ({"id": 1, "myshopify_domain": "other.myshopify.com"}, {}, WebhookOptions(shop=SHOP)),
        ({"shop_id": 1, "shop_domain": "other.myshopify.com"}, {}, WebhookOptions()),
    ],
)
def test_wrong_shop(body: dict[str, Any], headers: dict[str, str], options: WebhookOptions) -> None:
    """A genuine body of another shop is refused, whichever field tells it."""
    refused = refusal(webhook_hit(json.dumps(body).encode(), options=options, headers=headers))
    assert (refused.status, refused.reason) == (403, "wrong_shop")


def test_signature_comes_before_shop() -> None:
    """A stranger learns nothing of the shop."""
    hit = webhook_hit(
        BODY, signed="AAAA", options=WebhookOptions(shop=SHOP), headers={"x-shopify-shop-domain": "other.shop"}
    )
    assert refusal(hit).status == 401


# topics


@pytest.mark.parametrize(
    ("topic", "body", "reason"),
    [
        (None, ORDER, "missing_topic"),
        ("orders/create", [ORDER], "not_an_object"),
        ("orders/create", 5, "not_an_object"),
    ],
)
def test_unusable_delivery(topic: str | None, body: Any, reason: str) -> None:
    """A delivery without a topic or an object is malformed, with a hint."""
    with pytest.raises(Rejected) as caught:
        normalize(body, topic)
    assert (caught.value.status, caught.value.reason) == (400, reason)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("topic", "change", "reason"),
    [
        ("orders/create", {"cancelled_at": "2026-11-21T10:31:00+01:00"}, "cancelled"),
        ("orders/paid", {"test": True}, "test"),
        ("orders/create", {"source_name": "pos", "email": "", "customer": None}, "no_identity"),
        ("checkouts/create", {"email": None, "customer": None}, "no_identity"),
        ("customers/create", {"email": "", "admin_graphql_api_id": None}, "no_identity"),
        ("checkouts/update", {}, "no_conversion"),
        ("carts/update", {}, "no_conversion"),
        ("orders/updated", {}, "no_conversion"),
        ("orders/cancelled", {}, "no_conversion"),
        ("refunds/create", {}, "no_conversion"),
        ("products/update", {}, "unmapped"),
    ],
)
def test_skipped(topic: str, change: dict[str, Any], reason: str) -> None:
    """What is no conversion is acknowledged with its reason."""
    assert normalize({**ORDER, **change}, topic) == Skipped(reason=reason, source_name=topic)


@pytest.mark.parametrize("topic", ["orders/create", "shop/redact"])
def test_test_header(topic: str) -> None:
    """A test notification neither converts nor erases."""
    body = {"shop_id": 1, "shop_domain": SHOP}
    assert normalize(body, topic, headers={"x-shopify-test": "true"}) == Skipped(reason="test", source_name=topic)


def test_event_names_give_a_topic_a_meaning() -> None:
    """A quiet topic becomes an event when the configuration names it, without an order's key."""
    found = event_of(ORDER, "orders/fulfilled", event_names={"orders/fulfilled": "custom"})
    assert (found.name, found.source_name, found.keys) == ("custom", "orders/fulfilled", ())
    refund = event_of({"id": 1, "order_id": 6001}, "refunds/create", event_names={"refunds/create": "custom"})
    assert refund.purchase.order_id == "6001"


def test_alarm_and_erasures() -> None:
    """Compliance topics say whom to erase, and whom to tell."""
    subject = {"shop_id": 1, "shop_domain": SHOP, "customer": {"id": 501, "email": "ada@example.com"}}
    redact, export = normalize(subject, "customers/redact"), normalize(subject, "customers/data_request")
    assert isinstance(redact, Erasure)
    assert isinstance(export, Erasure)
    assert (redact.scope, redact.customer_id, redact.user.email) == ("customer", "501", ("ada@example.com",))
    assert export.scope == "export"
    site = normalize({"shop_id": 1, "shop_domain": SHOP}, "shop/redact")
    assert site == Erasure(scope="site", requested_at=1795253400.25, source_name="shop/redact")
    nobody = normalize({"shop_id": 1, "shop_domain": SHOP, "customer": {}}, "customers/redact")
    assert isinstance(nobody, Alarm)
    gone = normalize({"id": 1, "myshopify_domain": SHOP}, "app/uninstalled")
    assert isinstance(gone, Alarm)
    assert gone.reason == "app_uninstalled"


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("shop/redact", ORDER),
        ("shop/redact", {"shop_id": 1, "shop_domain": SHOP, "customer": {"id": 1}}),
        ("customers/redact", ORDER),
        ("customers/redact", {"shop_domain": SHOP, "customer": {"id": 1}, "data_request": {"id": 2}}),
        ("customers/data_request", {"shop_domain": SHOP, "customer": {"id": 1}, "orders_to_redact": []}),
        ("orders/create", {"id": 1, "admin_graphql_api_id": "gid://shopify/Customer/1"}),
        ("customers/create", ORDER),
    ],
)
def test_replayed_body_under_another_topic(topic: str, body: dict[str, Any]) -> None:
    """Topics are unsigned: a genuine body is refused under a topic that it is not of."""
    with pytest.raises(Rejected) as caught:
        normalize(body, topic)
    assert caught.value.reason == "topic_mismatch"


# orders


def test_order_in_full() -> None:
    """The usual order fills every field from its first source."""
    found = event_of(ORDER)
    assert (found.name, found.source_name, found.id) == ("checkout", "orders/create", None)
    assert found.keys == (Key(kind="order", value="6001"), Key(kind="checkout", value="chk-1"))
    assert (found.time, found.fallback_time) == (1795253398.0, 1795253400.25)
    assert (found.action_source, found.client.ip, found.client.user_agent) == ("web", "8.8.8.8", UA)
    assert found.source_url == "https://example.myshopify.com/products/mug?utm_source=pinterest"
    assert found.click_ids == {"epik": "dj0yJnU9QUJD"}
    assert (found.user.email, found.user.phone) == (("ada@example.com",), ("+12025550143",))
    assert found.user.external_id == ("501",)
    assert found.purchase.items == (Item(id="71", price=Decimal("20.00"), quantity=2),)
    assert (found.purchase.value, found.purchase.currency) == (Decimal("40.00"), "USD")
    assert (found.purchase.num_items, found.purchase.order_id) == (2, "6001")
    assert found.notes == ()


def test_paid_and_create_share_keys() -> None:
    """Two topics of one order are one conversion."""
    assert event_of(ORDER).keys == event_of(ORDER, "orders/paid").keys


@pytest.mark.parametrize(
    ("given_id", "gid", "wanted"),
    [
        (820982911946154500, "gid://shopify/Order/820982911946154508", "820982911946154508"),
        (8.209829119461545e17, "gid://shopify/Order/820982911946154508", "820982911946154508"),
        (8.209829119461545e17, None, None),
        (None, "gid://shopify/Order/77", "77"),
        ("77", None, "77"),
        (77.0, None, "77"),
        (77, "gid://shopify/Order/7", "77"),
        (77, "gid://shopify/Order/x", "77"),
        ([1], None, None),
    ],
)
def test_order_id_is_exact(given_id: Any, gid: str | None, wanted: str | None) -> None:
    """A rounded id is never taken for an order's."""
    found = event_of({**ORDER, "id": given_id, "admin_graphql_api_id": gid})
    assert found.purchase.order_id == wanted
    assert (Key(kind="order", value=wanted or "") in found.keys) is (wanted is not None)


@pytest.mark.parametrize(
    ("change", "email", "phone"),
    [
        ({"email": "", "contact_email": "b@example.com"}, "b@example.com", "+12025550143"),
        ({"email": None}, "other@example.com", "+12025550143"),
        ({"email": "n/a"}, "other@example.com", "+12025550143"),
        ({"phone": "202-555-0100"}, "ada@example.com", "202-555-0100"),
        ({"shipping_address": {"phone": "202-555-0101"}}, "ada@example.com", "202-555-0101"),
        ({"billing_address": {"phone": "202-555-0102"}}, "ada@example.com", "202-555-0102"),
    ],
)
def test_contact_chain(change: dict[str, Any], email: str, phone: str) -> None:
    """E-mail and phone come from the first place that has a usable one."""
    user = event_of({**ORDER, **change}).user
    assert (user.email, user.phone) == ((email,), (phone,))


@pytest.mark.parametrize(
    ("billing", "shipping", "default", "wanted"),
    [
        ({"city": "Linz", "country_code": "AT"}, {"city": "Graz", "zip": "8010", "country_code": "AT"}, {},
         ("Linz", None, "8010", "AT")),
        ({"city": "Linz", "country_code": "AT"}, {"city": "Ulm", "zip": "89073", "country_code": "DE"}, {},
         ("Linz", None, None, "AT")),
        (None, [], {"city": "Ulm", "province": "Bavaria", "country": "Germany"}, ("Ulm", "Bavaria", None, "Germany")),
        ({"province_code": None, "province": "Ohio", "zip": 43004}, None, None, (None, "Ohio", "43004", None)),
        ("x", 5, None, (None, None, None, None)),
    ],
)  # fmt: skip
def test_place_chain(billing: Any, shipping: Any, default: Any, wanted: tuple[str | None, ...]) -> None:
    """Places of two countries are never mixed."""
    customer = {"id": 1, "default_address": default}
    body = {**ORDER, "billing_address": billing, "shipping_address": shipping, "customer": customer}
    user = event_of(body).user
    found = tuple(next(iter(part), None) for part in (user.city, user.state, user.postal_code, user.country))
    assert found == wanted


def test_name_of_one_person() -> None:
    """A first name of one address is not joined with a last name of another."""
    body = {**ORDER, "billing_address": {"first_name": "Ada"}, "shipping_address": {"last_name": "Other"}}
    user = event_of(body).user
    assert (user.first_name, user.last_name) == (("Ada",), ())


@pytest.mark.parametrize("details", [None, {}, [], {"browser_ip": None, "user_agent": None}, "x"])
def test_client_details_may_be_missing(details: Any) -> None:
    """Without client details the order's own address serves."""
    client = event_of({**ORDER, "client_details": details, "browser_ip": "8.8.4.4"}).client
    assert (client.ip, client.user_agent) == ("8.8.4.4", None)


@pytest.mark.parametrize(
    ("change", "draft", "action_source"),
    [
        ({"source_name": "pos"}, "offline", "offline"),
        ({"source_name": None, "app_id": 129785}, "web", "offline"),
        ({"source_name": "shopify_draft_order"}, "offline", "offline"),
        ({"source_name": None, "app_id": 1354745}, "web", "web"),
    ],
)
def test_staff_orders_lose_address_and_browser(change: dict[str, Any], draft: str, action_source: str) -> None:
    """The browser of POS and draft orders is the staff's."""
    options = msgspec.convert({"draft": draft}, WebhookOptions)
    found = event_of({**ORDER, **change}, options=options)
    assert found.action_source == action_source
    assert (found.client.ip, found.client.user_agent, found.source_url) == (None, None, None)


def test_drafts_may_be_dropped() -> None:
    """Option draft = "drop" keeps staff's orders out."""
    found = normalize({**ORDER, "app_id": "1354745"}, options=WebhookOptions(draft="drop"))
    assert found == Skipped(reason="draft", source_name="orders/create")


SETS = {
    "subtotal_price_set": {
        "shop_money": {"amount": "40.00", "currency_code": "USD"},
        "presentment_money": {"amount": "6200", "currency_code": "JPY"},
    }
}
LINE_SET = {"price_set": {"presentment_money": {"amount": "3100", "currency_code": "JPY"}}}


@pytest.mark.parametrize(
    ("change", "options", "wanted"),
    [
        ({}, {}, ("40.00", "USD", "20.00")),
        ({}, {"value": "total"}, ("48.50", "USD", "20.00")),
        ({"subtotal_price": 0}, {}, ("0", "USD", "20.00")),
        ({"subtotal_price": None, **SETS}, {}, ("40.00", "USD", "20.00")),
        ({"subtotal_price": None, "current_subtotal_price": "39"}, {}, ("39", "USD", "20.00")),
        ({"subtotal_price": None}, {}, ("40.00", "USD", "20.00")),
        ({"subtotal_price": "23600", "currency": "JPY"}, {}, ("23600", "JPY", "20.00")),
        ({"currency": None, **SETS}, {}, ("40.00", "USD", "20.00")),
        ({"presentment_currency": "JPY", **SETS}, {}, ("40.00", "USD", "20.00")),
        ({"presentment_currency": "JPY", **SETS}, {"currency": "presentment"}, ("6200", "JPY", "3100")),
        ({"presentment_currency": "JPY"}, {"currency": "presentment"}, ("40.00", "USD", "20.00")),
        ({"presentment_currency": "USD"}, {"currency": "presentment"}, ("40.00", "USD", "20.00")),
    ],
)
def test_money_is_of_one_currency(
    change: dict[str, Any], options: dict[str, str], wanted: tuple[str, str, str]
) -> None:
    """Value, currency and prices are always a consistent set."""
    line = {**ORDER["line_items"][0], **LINE_SET}
    purchase = event_of(
        {**ORDER, "line_items": [line], **change}, options=msgspec.convert(options, WebhookOptions)
    ).purchase
    assert (str(purchase.value), purchase.currency, str(purchase.items[0].price)) == wanted


def test_checkout_amounts_are_the_customers() -> None:
    """A checkout's plain amounts are in the presentment currency."""
    body = {"token": "chk-1", "email": "ada@example.com", "currency": "USD", "presentment_currency": "EUR",
            "subtotal_price": "36.00", "line_items": [{"product_id": 71, "price": "18.00", "quantity": 2}]}  # fmt: skip
    found = event_of(body, "checkouts/create")
    assert (found.name, found.keys) == ("initiate_checkout", (Key(kind="checkout", value="chk-1"),))
    assert (str(found.purchase.value), found.purchase.currency) == ("36.00", "EUR")
    assert found.purchase.order_id is None


@pytest.mark.parametrize(
    ("kind", "line", "wanted"),
    [
        ("product", {"product_id": 71, "variant_id": 711, "sku": "MUG"}, "71"),
        ("product", {"product_id": None, "variant_id": 711, "sku": "MUG"}, "MUG"),
        ("product", {"product_id": None, "variant_id": 711, "sku": ""}, "711"),
        ("product", {"product_id": None, "variant_id": None, "sku": None}, None),
        ("variant", {"product_id": 71, "variant_id": 711, "sku": "MUG"}, "711"),
        ("sku", {"product_id": "71", "variant_id": 711, "sku": "MUG"}, "MUG"),
        ("sku", {"product_id": "71", "variant_id": 711, "sku": ""}, "711"),
    ],
)
def test_content_id(kind: str, line: dict[str, Any], wanted: str | None) -> None:
    """The catalogue's kind of id, else the next that exists."""
    options = msgspec.convert({"content_id": kind}, WebhookOptions)
    assert event_of({**ORDER, "line_items": [line]}, options=options).purchase.items[0].id == wanted


@pytest.mark.parametrize(
    ("landing", "wanted"),
    [
        ("/", "https://example.myshopify.com/"),
        ("/wallets/checkouts.json", None),
        ("https://shop.example/wallets/x", None),
        ("//evil.example/", None),
        ("https://shop.example/?a=1", "https://shop.example/?a=1"),
        ("javascript:alert(1)", None),
        ("", None),
        (None, None),
    ],
)
def test_landing_url(landing: Any, wanted: str | None) -> None:
    """The visit's first page is the event's URL, the order's status page never."""
    body = {**ORDER, "landing_site": landing, "order_status_url": "https://shop.example/orders/1/authenticate"}
    assert event_of(body).source_url == wanted


@pytest.mark.parametrize(
    ("pairs", "limited", "marketing", "sale"),
    [
        ([("_limited_data", "true")], True, None, None),
        ([("limited_data", "false")], False, None, None),
        ([("opt_out_type", "X, ldp")], True, None, None),
        ([("Marketing_Allowed", "false"), ("_sale_of_data_allowed", False)], None, False, False),
        ([("other", "true"), (5, "x"), (None, None)], None, None, None),
    ],
)
def test_privacy_attributes(
    pairs: list[tuple[Any, Any]], limited: bool | None, marketing: bool | None, sale: bool | None
) -> None:
    """Cart attributes say what a webhook cannot; silence stays silence."""
    for given_as in ([{"name": name, "value": value} for name, value in pairs], dict(pairs)):
        found = event_of({**ORDER, "note_attributes": given_as})
        assert (found.limited_data, found.consent.marketing, found.consent.sale_of_data) == (
            limited, marketing, sale,
        )  # fmt: skip


def test_unreadable_fields_leave_notes() -> None:
    """A bad field costs itself, is noted without its value, and never the event."""
    line = {"product_id": 71, "price": "twenty", "quantity": -2}
    body = {**ORDER, "processed_at": "2026-11-21T10:29:5800:00", "subtotal_price": "much", "line_items": [line]}
    found = event_of(body)
    assert found.time == 1795253400.0
    assert set(found.notes) == {
        "event_time: not_a_time", "value: not_a_number", "items.price: not_a_number", "items.quantity: not_a_count",
    }  # fmt: skip
    assert found.purchase.value is None


def test_normalize_is_pure() -> None:
    """The same hit gives the same result."""
    hit = webhook_hit(BODY)
    assert WEBHOOK.normalize(hit) == WEBHOOK.normalize(hit)


# the pixel


def test_checkout_completed() -> None:
    """The pixel's purchase carries the id of Pinterest's own pixel and the keys of the order's webhook."""
    found = pixel_event(PIXEL_EVENT)
    assert (found.name, found.id, found.time) == ("checkout", "sh-1", 1795253340.5)
    assert found.keys == event_of(ORDER).keys
    assert (found.client_id, found.user.external_id) == ("C-1", ("501", "C-1"))
    assert (found.user.city, found.user.state, found.user.country) == (("Springfield",), ("IL",), ("US",))
    assert (found.purchase.value, found.purchase.order_id) == (Decimal(40), "6001")
    assert (found.client.user_agent, found.client.ip, found.language) == (UA, None, "en")
    assert found.click_ids == {"epik": "from-cart"}
    assert found.tag is False
    assert str(pixel_event(PIXEL_EVENT, PixelOptions(value="total")).purchase.value) == "48.5"


@pytest.mark.parametrize(
    ("name", "wanted", "keys"),
    [
        ("page_viewed", "page_visit", 0),
        ("product_viewed", "page_visit", 0),
        ("collection_viewed", "view_category", 0),
        ("search_submitted", "search", 0),
        ("product_added_to_cart", "add_to_cart", 0),
        ("checkout_started", "initiate_checkout", 1),
        ("payment_info_submitted", "add_payment_info", 0),
        ("checkout_completed", "checkout", 2),
        ("cart_viewed", "", 0),
        ("checkout_contact_info_submitted", "", 0),
        ("quiz_finished", "quiz_finished", 0),
    ],
)
def test_pixel_names(name: str, wanted: str, keys: int) -> None:
    """Names by the table; only checkouts carry keys."""
    found = pixel_event({**PIXEL_EVENT, "name": name})
    assert (found.name, found.source_name, len(found.keys)) == (wanted, name, keys)
    assert found.purchase.order_id == ("6001" if wanted == "checkout" else None)


@pytest.mark.parametrize(
    ("line", "value", "units"),
    [
        ({"quantity": 3, "cost": {"totalAmount": {"amount": 54, "currencyCode": "USD"}}}, "54", 3),
        ({"quantity": 3}, "60.0", 3),
        ({"quantity": 1, "cost": {"totalAmount": {"amount": 0, "currencyCode": "USD"}}}, "0", 1),
        ({}, "None", None),
    ],
)
def test_added_to_cart(line: dict[str, Any], value: str, units: int | None) -> None:
    """The line's cost, else price times quantity."""
    body = {**PIXEL_EVENT, "name": "product_added_to_cart", "data": {"cartLine": {"merchandise": VARIANT, **line}}}
    purchase = pixel_event(body).purchase
    assert (str(purchase.value), purchase.currency, purchase.num_items) == (value, "USD", units)
    assert (purchase.items[0].brand, purchase.items[0].category) == ("Kiln", "kitchen")


def test_envelope() -> None:
    """The envelope brings consent, click id and the signed-in customer."""
    body = {
        "shop": SHOP.upper(),
        "customerPrivacy": {"marketingAllowed": True, "saleOfDataAllowed": False},
        "click_ids": {"epik": " AbC-_ ", "epik_source": "cookie"},
        "init": {"data": {"customer": {"id": 9, "email": "c@example.com", "firstName": "Cy"}}},
        "event": {**PIXEL_EVENT, "name": "page_viewed", "data": {}},
    }
    found = pixel_event(body, PixelOptions(shop=SHOP, pinterest_tag=True))
    assert (found.consent.marketing, found.consent.analytics, found.consent.sale_of_data) == (True, None, False)
    assert found.click_ids == {"epik": "AbC-_"}
    assert (found.user.email, found.user.first_name) == (("c@example.com",), ("Cy",))
    assert found.user.external_id == ("9", "C-1")
    assert found.tag is True


def test_tag_only_where_pinterests_pixel_sends() -> None:
    """Pinterest's own pixel knows six events."""
    body = {**PIXEL_EVENT, "name": "checkout_started"}
    assert pixel_event(body, PixelOptions(pinterest_tag=True)).tag is False


def test_status_page_is_not_sent() -> None:
    """A URL that opens an order stays here."""
    href = "https://shop.example/1/orders/abc/authenticate?key=k"
    assert pixel_event({**PIXEL_EVENT, "context": {"document": {"location": {"href": href}}}}).source_url is None


@pytest.mark.parametrize(
    ("body", "reason", "status"),
    [
        (5, "not_an_event", 400),
        ([], "empty_batch", 400),
        ({"id": "sh-1"}, "missing_event_name", 400),
        ({"event": {}}, "missing_event_name", 400),
        ({"shop": "other.myshopify.com", "event": PIXEL_EVENT}, "wrong_shop", 403),
        ([PIXEL_EVENT] * 1001, "too_many_events", 413),
    ],
    ids=["scalar", "empty", "nameless", "hollow", "shop", "many"],
)
def test_pixel_refusals(body: Any, reason: str, status: int) -> None:
    """What is no event is refused with its reason."""
    with pytest.raises(Rejected) as caught:
        pixel_items(body, PixelOptions(shop=SHOP))
    assert (caught.value.reason, caught.value.status) == (reason, status)


def test_batch_refuses_singly() -> None:
    """A bad item of an array costs itself."""
    found = pixel_items([PIXEL_EVENT, 5, {"shop": "x.y", "event": PIXEL_EVENT}, {"id": "a"}], PixelOptions(shop=SHOP))
    assert isinstance(found[0], Event)
    rest = [item for item in found if isinstance(item, Invalid)]
    assert [(item.reason, item.event_id) for item in rest] == [
        ("not_an_event", None),
        ("wrong_shop", None),
        ("missing_event_name", "a"),
    ]


def test_pixel_origin() -> None:
    """An origin that is not the source's is refused."""
    with pytest.raises(Rejected) as caught:
        PIXEL.verify(pixel_hit(b"{}", origin="https://evil.example"))
    assert caught.value.status == 403


# whatever else a body may hold

JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**30), max_value=10**30)
    | st.floats(allow_nan=True)
    | st.text(st.characters(exclude_categories=[]), max_size=12)
    | st.sampled_from(["\ud800", "1e999999", "gid://shopify/Order/", "٣", "²", "Infinity", "0x1", "\x00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        found += places(inner, (*path, key))
    return found


def mutated(body: Any, path: tuple[Any, ...], junk: Any, drop: bool) -> Any:
    copy = json.loads(json.dumps(body))
    holder = copy
    for step in path[:-1]:
        holder = holder[step]
    if drop:
        del holder[path[-1]]
    else:
        holder[path[-1]] = junk
    return copy


def outcome(adapter: Adapter, hit: Hit) -> int:
    """Verify, normalise and write down; return the status: 200, or that of the refusal."""
    try:
        adapter.verify(hit)
        items = adapter.normalize(hit)
    except Rejected as rejected:
        return rejected.status
    assert items
    msgspec.json.encode(items)
    return 200


@settings(max_examples=150, deadline=None)
@given(
    topic=st.sampled_from(["orders/create", "checkouts/create", "customers/create", "customers/redact", "shop/redact"]),
    path=st.sampled_from(places(ORDER)),
    junk=JUNK,
    drop=st.booleans(),
)
def test_any_webhook_body(topic: str, path: tuple[Any, ...], junk: Any, drop: bool) -> None:
    """Whatever one field holds, a webhook gives items or a refusal, and every event can be written down."""
    body = json.dumps(mutated(ORDER, path, junk, drop)).encode()
    assert outcome(WEBHOOK, webhook_hit(body, topic)) in (200, 400, 403)


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(places(PIXEL_EVENT)), junk=JUNK, drop=st.booleans(), wrap=st.booleans())
def test_any_pixel_body(path: tuple[Any, ...], junk: Any, drop: bool, wrap: bool) -> None:
    """Whatever one field holds, a pixel event gives items or a refusal."""
    event = mutated(PIXEL_EVENT, path, junk, drop)
    body = {"shop": junk, "customerPrivacy": junk, "click_ids": junk, "init": junk, "event": event} if wrap else event
    hit = pixel_hit(json.dumps(body).encode(), PixelOptions(shop=SHOP))
    assert outcome(PIXEL, hit) in (200, 400, 403)


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=40), signed=st.text(max_size=70))
def test_any_bytes_and_signature(body: bytes, signed: str) -> None:
    """Whatever bytes arrive with whatever signature: a 401."""
    assert refusal(webhook_hit(body, signed=signed or "x")).status == 401


@settings(max_examples=60, deadline=None)
@given(junk=JUNK)
def test_any_json_at_all(junk: Any) -> None:
    """Any JSON whatever gives items or a refusal."""
    body = json.dumps(junk).encode()
    assert outcome(WEBHOOK, webhook_hit(body)) in (200, 400)
    assert outcome(PIXEL, pixel_hit(body)) in (200, 400)


# samples of the outside world, read in place

needs_samples = pytest.mark.skipif(not PAYLOADS.is_dir(), reason="the shared sample payloads are not here")


def sample(folder: str, name: str) -> list[Normalized]:
    """Verify and normalise one sample: the exact bytes for webhooks, a dump of the body for the pixel."""
    path = PAYLOADS / folder / f"{name}.json"
    document = json.loads(path.read_text())
    headers = {key.lower(): value for key, value in document["request"]["headers"].items()}
    adapter: Adapter = WEBHOOK if folder == "shopify" else PIXEL
    if folder == "shopify":
        hit = webhook_hit(path.with_suffix(".raw").read_bytes(), secrets=(document["request"]["hmac_secret"],))
        options: Any = WebhookOptions(shop="example-shop.myshopify.com")
    else:
        hit = pixel_hit(json.dumps(document["body"]).encode())
        options = PixelOptions(shop="example-shop.myshopify.com")
        headers["origin"] = "null"
    source = msgspec.structs.replace(hit.source, options=options)
    hit = msgspec.structs.replace(hit, headers=headers, source=source)
    adapter.verify(hit)
    return list(adapter.normalize(hit))


@needs_samples
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("orders_create_web", "checkout"),
        ("orders_create_web_retry", "checkout"),
        ("orders_paid_same_order", "checkout"),
        ("orders_updated_same_order", "no_conversion"),
        ("orders_create_test_notification", "test"),
        ("checkouts_create_anonymous", "no_identity"),
        ("checkouts_update_with_customer", "no_conversion"),
        ("carts_create_empty", "no_conversion"),
        ("carts_update_with_line", "no_conversion"),
        ("customers_create", "signup"),
        ("refunds_create", "no_conversion"),
        ("app_uninstalled", "app_uninstalled"),
        ("customers_data_request", "export"),
        ("customers_redact", "customer"),
        ("shop_redact", "site"),
    ],
)
def test_webhook_samples(name: str, wanted: str) -> None:
    """Each sample's signature holds over its exact bytes, and its topic has the meaning of the table."""
    (item,) = sample("shopify", name)
    assert wanted in [getattr(item, field, None) for field in ("name", "reason", "scope")]


@needs_samples
def test_sample_order_has_the_facts() -> None:
    """The sample order gives what its expectation names."""
    expected = json.loads((PAYLOADS / "shopify" / "orders_create_web.expected.json").read_text())["events"][0]
    (item,) = sample("shopify", "orders_create_web")
    assert isinstance(item, Event)
    assert item.time in (expected["event_time"], expected["event_time"] - 2)
    person, money = expected["user_data"], expected["custom_data"]
    assert (item.client.ip, item.client.user_agent) == (person["client_ip_address"], person["client_user_agent"])
    assert item.click_ids == {"epik": person["click_id"]}
    assert (item.purchase.value, item.purchase.currency) == (Decimal(money["value"]), money["currency"])
    assert (item.purchase.order_id, item.purchase.num_items) == (money["order_id"], money["num_items"])
    assert [found.id for found in item.purchase.items] == money["content_ids"]
    (paid,) = sample("shopify", "orders_paid_same_order")
    (retry,) = sample("shopify", "orders_create_web_retry")
    assert isinstance(paid, Event)
    assert (paid.keys, retry) == (item.keys, item)
    assert str(paid.purchase.items[0].price) == "600"


@needs_samples
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("page_viewed", "page_visit"),
        ("product_viewed", "page_visit"),
        ("collection_viewed", "view_category"),
        ("product_added_to_cart", "add_to_cart"),
        ("search_submitted", "search"),
        ("checkout_started", "initiate_checkout"),
        ("checkout_completed", "checkout"),
        ("checkout_completed_envelope", "checkout"),
    ],
)
def test_pixel_samples(name: str, wanted: str) -> None:
    """Each pixel sample is read without a single note."""
    (item,) = sample("pixel", name)
    assert isinstance(item, Event)
    assert (item.name, item.notes) == (wanted, ())
    assert (item.id or "").startswith("sh-")


@needs_samples
def test_sample_pixel_has_the_facts() -> None:
    """The cart sample gives what its expectation names, and pixel and order of one purchase share a key."""
    expected = json.loads((PAYLOADS / "pixel" / "product_added_to_cart.expected.json").read_text())["events"][0]
    (item,) = sample("pixel", "product_added_to_cart")
    assert isinstance(item, Event)
    assert (item.id, int(item.time or 0)) == (expected["event_id"], expected["event_time"])
    wanted = expected["custom_data"]
    found = item.purchase.items[0]
    assert (item.purchase.value, item.purchase.currency) == (Decimal(wanted["value"]), wanted["currency"])
    assert (found.id, found.brand, found.category) == (
        wanted["content_ids"][0], wanted["contents"][0]["item_brand"], wanted["contents"][0]["item_category"],
    )  # fmt: skip
    (pixel,), (order,) = sample("pixel", "checkout_completed_envelope"), sample("shopify", "orders_create_web")
    assert isinstance(pixel, Event)
    assert isinstance(order, Event)
    assert pixel.keys == order.keys
    assert pixel.consent.marketing is True
