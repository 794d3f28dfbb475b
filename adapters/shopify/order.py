"""Orders, checkouts and accounts: the bodies of webhooks that become events."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from adapters.shopify import attributes, money, people, shop
from adapters.shopify.cart import cart_token
from adapters.shopify.goods import ContentId
from adapters.shopify.reader import Reader
from adapters.shopify.signature import header
from gateway import Client, Event, Hit, Key, Purchase, Secret, Skipped, Struct, User, coerce

_POS_APP = "129785"
_DRAFT_APP = "1354745"
_WALLET = re.compile(r"(?:https?://[^/]*)?/wallets/", re.IGNORECASE)
_GID_NUMBER = re.compile(r"gid://shopify/\w+/(\d{1,20})\Z")


class WebhookOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    ``[sources.NAME.options]`` of ``shopify``.

    Args:
        shop: The shop's ``….myshopify.com`` domain; webhooks of another shop are refused.
        value: ``subtotal``: after discounts, before shipping and (unless prices include them) taxes;
            ``total``: what is paid.
        content_id: Which id the catalogue uses; a product without it falls back to another one.
        currency: The shop's own, or the one that the customer saw.
        draft: Orders made by staff: ``offline``, ``web`` (drafts are invoices paid online) or ``drop``.
        admin_token: A token of the Admin API, for ``tag-gateway shopify`` only.
        client_id: In its place, of an app whose client secret is the source's secret: tokens are asked for.
        api_version: The Admin API's version.
        admin_base_url: Where the Admin API is, for tests; without it the shop.
    """

    shop: str | None = None
    value: money.Value = "subtotal"
    content_id: ContentId = "product"
    currency: money.Currency = "shop"
    draft: Literal["offline", "web", "drop"] = "offline"
    admin_token: Secret | None = None
    client_id: str | None = None
    api_version: str = "2026-10"
    admin_base_url: str | None = None


class Conversion(Struct, frozen=True, kw_only=True):
    """What a topic means: the canonical ``name``, and the ``kind`` of body it brings."""

    name: str
    kind: Literal["order", "checkout", "customer"]


def exact_id(holder: Mapping[str, Any]) -> str | None:
    """
    Return a resource's id, exact also beyond 2^53.

    A middleman written in JavaScript rounds such ids; the global id beside it is text and keeps its digits. A
    rounded id without a global one is no id: it might be another order's.
    """
    given = holder.get("id")
    own = coerce.text(given)
    number = _GID_NUMBER.match(coerce.text(holder.get("admin_graphql_api_id")) or "")
    is_rounded = isinstance(given, float) and abs(given) >= 2**53
    if number and (own is None or is_rounded or len(own) == len(number[1])):
        return number[1]
    return None if is_rounded else own


def event(hit: Hit, topic: str, body: Mapping[str, Any], conversion: Conversion) -> Event | Skipped:
    """Turn one body into its event, or say why there is none."""
    options: WebhookOptions = hit.source.options
    reader = Reader()
    customer = body if conversion.kind == "customer" else coerce.mapping(body.get("customer"))
    email = reader.email((body.get("email"), body.get("contact_email"), customer.get("email")))
    channel = _channel(body)
    if not email and (conversion.kind != "order" or channel == "pos"):
        return Skipped(reason="no_identity", source_name=topic)
    if channel == "draft" and options.draft == "drop":
        return Skipped(reason="draft", source_name=topic)
    is_web = channel == "web" or (channel == "draft" and options.draft == "web")
    notes = attributes.read(body.get("note_attributes"))
    order_id = _order_id(topic, body) if conversion.kind == "order" else None
    return Event(
        name=conversion.name,
        source_name=topic,
        keys=_keys(conversion, body, order_id),
        time=reader.time(_times(conversion, body)),
        fallback_time=coerce.unix_time(header(hit, "triggered-at")),
        action_source="web" if is_web else "offline",
        source_url=_landing_url(hit, body) if channel == "web" else None,
        user=_user(body, customer, email),
        client=_client(body) if channel == "web" else Client(),
        cart_token=None if conversion.kind == "customer" else cart_token(body.get("cart_token")),
        click_ids={} if notes.epik is None else {"epik": notes.epik},
        purchase=_purchase(conversion, body, options, reader, order_id),
        consent=notes.consent,
        limited_data=notes.limited_data,
        language=coerce.language(body.get("customer_locale")),
        notes=reader.notes,
    )


def _order_id(topic: str, body: Mapping[str, Any]) -> str | None:
    """Return the order's id; a refund or fulfilment, mapped by ``event_names``, has it beside its own."""
    return exact_id(body) if topic.lower().startswith("orders/") else coerce.text(body.get("order_id"))


def _purchase(
    conversion: Conversion,
    body: Mapping[str, Any],
    options: WebhookOptions,
    reader: Reader,
    order_id: str | None,
) -> Purchase:
    if conversion.kind == "customer":
        return Purchase()
    return money.purchase(
        body,
        reader,
        value=options.value,
        currency=options.currency,
        content_id=options.content_id,
        order_id=order_id,
        is_order=conversion.kind == "order",
    )


def _channel(body: Mapping[str, Any]) -> Literal["web", "pos", "draft"]:
    """Tell where the order was made; for ``pos`` and ``draft`` the browser in the body is the staff's."""
    name, app = (coerce.text(body.get("source_name")) or "").lower(), coerce.text(body.get("app_id"))
    if name == "pos" or app == _POS_APP:
        return "pos"
    return "draft" if name == "shopify_draft_order" or app == _DRAFT_APP else "web"


def _times(conversion: Conversion, body: Mapping[str, Any]) -> tuple[Any, ...]:
    """``processed_at`` is the time of the sale also for imported orders."""
    created = body.get("created_at")
    return (body.get("processed_at"), created) if conversion.kind == "order" else (created,)


def _keys(conversion: Conversion, body: Mapping[str, Any], order_id: str | None) -> tuple[Key, ...]:
    found: list[tuple[str, str | None]] = []
    if conversion.kind == "customer":
        found.append(("customer", exact_id(body)))
    elif conversion.kind == "order" and conversion.name == "checkout":
        found += [("order", order_id), ("checkout", coerce.text(body.get("checkout_token")))]
    elif conversion.kind == "checkout" and conversion.name in ("checkout", "initiate_checkout"):
        found.append(("checkout", coerce.text(body.get("token"))))
    return tuple(Key(kind=kind, value=value) for kind, value in found if value is not None)


def _user(body: Mapping[str, Any], customer: Mapping[str, Any], email: tuple[str, ...]) -> User:
    billing, shipping = (
        coerce.mapping(body.get("billing_address")),
        coerce.mapping(body.get("shipping_address")),
    )
    default = coerce.mapping(customer.get("default_address"))
    customer_id = exact_id(customer)
    return people.person(
        (billing, shipping, default),
        customer,
        people.WEBHOOK,
        email=email,
        phones=(
            body.get("phone"),
            billing.get("phone"),
            shipping.get("phone"),
            customer.get("phone"),
            default.get("phone"),
        ),
        external_id=() if customer_id is None else (customer_id,),
    )


def _client(body: Mapping[str, Any]) -> Client:
    details = coerce.mapping(body.get("client_details"))
    return Client(
        ip=coerce.first((details.get("browser_ip"), body.get("browser_ip"))),
        user_agent=coerce.text(details.get("user_agent")),
    )


def _landing_url(hit: Hit, body: Mapping[str, Any]) -> str | None:
    """
    Return the URL of the page where the visit began.

    Not of the order's status page, which opens with a secret in its URL; ``/wallets/…`` is no page.
    """
    landing = coerce.text(body.get("landing_site"), coerce.MAX_URL)
    if landing is None or landing.startswith("//") or _WALLET.match(landing):
        return None
    if not landing.startswith("/"):
        return coerce.url(landing)
    domain = shop.domain_of(hit)
    return None if domain is None else coerce.url(f"https://{domain}{landing}")
