"""
One customer event of Shopify's web pixels.

Source: Shopify, web-pixels-api. The event carries neither the visitor's address (the connection has
it), nor consent, nor a click id: the last two come with the envelope, or as cart attributes. Its amounts are
in the customer's currency.
"""

import re
from collections.abc import Mapping
from typing import Any

from adapters.shopify import attributes, goods, people
from adapters.shopify.attributes import Attributes
from adapters.shopify.cart import cart_token
from adapters.shopify.goods import ContentId
from adapters.shopify.money import Value
from adapters.shopify.reader import Reader
from gateway import Client, Consent, Content, Event, Hit, Item, Key, Purchase, Struct, User, coerce

_NAMES = {
    "page_viewed": "page_visit",
    "product_viewed": "page_visit",
    "collection_viewed": "view_category",
    "search_submitted": "search",
    "product_added_to_cart": "add_to_cart",
    "checkout_started": "initiate_checkout",
    "payment_info_submitted": "add_payment_info",
    "checkout_completed": "checkout",
    "alert_displayed": "",
    "cart_viewed": "",
    "checkout_address_info_submitted": "",
    "checkout_contact_info_submitted": "",
    "checkout_shipping_info_submitted": "",
    "clicked": "",
    "form_submitted": "",
    "input_blurred": "",
    "input_changed": "",
    "input_focused": "",
    "product_removed_from_cart": "",
    "ui_extension_errored": "",
    "visitorConsentCollected": "",
}
#: What Pinterest's own Shopify pixel sends, under the event's id (its bundle 0.84).
_TAG_NAMES = frozenset(
    {
        "page_viewed", "product_viewed", "collection_viewed", "search_submitted", "product_added_to_cart",
        "checkout_completed",
    }
)  # fmt: skip
#: The status page of an order opens with the secret in its URL.
_STATUS_PAGE = re.compile(r"/orders/[^/?#]+/authenticate")
#: A collection or a search may show hundreds of products.
_MOST_SHOWN = 100


class PixelOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    ``[sources.NAME.options]`` of ``shopify_pixel``; ``value`` and ``content_id`` as for the shop's webhooks.

    Args:
        shop: The shop's ``….myshopify.com`` domain; envelopes that name another shop are refused.
        value: ``subtotal`` or ``total`` of a checkout.
        content_id: Which id the catalogue uses.
        pinterest_tag: Pinterest's own pixel runs in the shop too and sends the same ids.
    """

    shop: str | None = None
    value: Value = "subtotal"
    content_id: ContentId = "product"
    pinterest_tag: bool = False


def event(hit: Hit, name: str, body: Mapping[str, Any], envelope: Mapping[str, Any]) -> Event:
    """Turn one customer event into the canonical one; ``envelope`` is empty for a bare event."""
    options: PixelOptions = hit.source.options
    reader = Reader()
    canonical = _NAMES.get(name, name)
    data, context = coerce.mapping(body.get("data")), coerce.mapping(body.get("context"))
    browser = coerce.mapping(context.get("navigator"))
    checkout = coerce.mapping(data.get("checkout"))
    said = attributes.read(checkout.get("attributes"))
    client_id = coerce.text(body.get("clientId"))
    order_id = people.plain_id(coerce.mapping(checkout.get("order")).get("id")) if canonical == "checkout" else None
    variant, quantity = _variant(data)
    return Event(
        name=canonical,
        source_name=name,
        id=_explicit_id(body.get("id")),
        keys=_keys(canonical, order_id, coerce.text(checkout.get("token"))),
        time=reader.time((body.get("timestamp"),)),
        source_url=_page_url(context),
        user=_user(checkout, _customer(body, envelope), client_id, reader),
        client=Client(user_agent=coerce.text(browser.get("userAgent"))),
        client_id=client_id,
        cart_token=_cart_token(data, body, envelope),
        click_ids=_click_ids(envelope, said),
        purchase=_purchase(data, checkout, variant, quantity, options, reader, order_id),
        content=_content(data, variant),
        search_string=coerce.text(coerce.mapping(data.get("searchResult")).get("query")),
        consent=_consent(body, envelope, said),
        limited_data=said.limited_data,
        language=coerce.language(browser.get("language")),
        tag=options.pinterest_tag and name in _TAG_NAMES,
        notes=reader.notes,
    )


def _explicit_id(value: Any) -> str | None:
    """Pinterest's own pixel sends this very id: not a byte of it may change."""
    found = coerce.text(value)
    return value if found is not None and isinstance(value, str) else found


def _keys(canonical: str, order_id: str | None, token: str | None) -> tuple[Key, ...]:
    keys = () if order_id is None else (Key(kind="order", value=order_id),)
    if token is None or canonical not in ("checkout", "initiate_checkout"):
        return keys
    return (*keys, Key(kind="checkout", value=token))


def _page_url(context: Mapping[str, Any]) -> str | None:
    for holder in (context.get("document"), context.get("window")):
        found = coerce.url(coerce.mapping(coerce.mapping(holder).get("location")).get("href"))
        if found is not None:
            return None if _STATUS_PAGE.search(found) else found
    return None


def _cart_token(data: Mapping[str, Any], body: Mapping[str, Any], envelope: Mapping[str, Any]) -> str | None:
    """Return the cart of the event itself, else of the page's start (``init.data.cart``), if ``init`` came along."""
    holders = (data, *(_at_start(holder) for holder in (body, envelope)))
    tokens = (cart_token(coerce.mapping(holder.get("cart")).get("id")) for holder in holders)
    return next((token for token in tokens if token is not None), None)


def _at_start(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    return coerce.mapping(coerce.mapping(holder.get("init")).get("data"))


def _customer(body: Mapping[str, Any], envelope: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the signed-in customer of ``init.data.customer``, if the pixel passes ``init`` on."""
    for holder in (body, envelope):
        if found := coerce.mapping(_at_start(holder).get("customer")):
            return found
    return {}


def _user(checkout: Mapping[str, Any], customer: Mapping[str, Any], client_id: str | None, reader: Reader) -> User:
    """``external_id``: the customer's id, as the order's webhook has it, then the browser's."""
    billing = coerce.mapping(checkout.get("billingAddress"))
    shipping = coerce.mapping(checkout.get("shippingAddress"))
    buyer = coerce.mapping(coerce.mapping(checkout.get("order")).get("customer"))
    customer_id = people.plain_id(buyer.get("id")) or people.plain_id(customer.get("id"))
    return people.person(
        (billing, shipping),
        customer,
        people.PIXEL,
        email=reader.email((checkout.get("email"), customer.get("email"))),
        phones=(checkout.get("phone"), billing.get("phone"), shipping.get("phone"), customer.get("phone")),
        external_id=tuple(found for found in (customer_id, client_id) if found is not None),
    )


def _click_ids(envelope: Mapping[str, Any], said: Attributes) -> dict[str, str]:
    found = coerce.first((coerce.mapping(envelope.get("click_ids")).get("epik"), said.epik))
    return {} if found is None else {"epik": found}


def _consent(body: Mapping[str, Any], envelope: Mapping[str, Any], said: Attributes) -> Consent:
    """Read the pixel's privacy state; where it is silent, the cart's attributes."""
    init = coerce.mapping(envelope.get("init")) or coerce.mapping(body.get("init"))
    state: Mapping[str, Any] = {}
    for holder in (envelope, body, init):
        state = state or coerce.mapping(holder.get("customerPrivacy"))
    marketing = coerce.boolean(state.get("marketingAllowed"))
    sale_of_data = coerce.boolean(state.get("saleOfDataAllowed"))
    return Consent(
        marketing=said.consent.marketing if marketing is None else marketing,
        analytics=coerce.boolean(state.get("analyticsProcessingAllowed")),
        sale_of_data=said.consent.sale_of_data if sale_of_data is None else sale_of_data,
        gpc=said.consent.gpc,
        us_privacy=said.consent.us_privacy,
        gpp=said.consent.gpp,
        gpp_sid=said.consent.gpp_sid,
    )


def _variant(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
    """Return the one product of the event and its quantity: of a cart's line, or merely shown."""
    line = coerce.mapping(data.get("cartLine"))
    if line:
        return coerce.mapping(line.get("merchandise")), line.get("quantity")
    return coerce.mapping(data.get("productVariant")), None


def _purchase(
    data: Mapping[str, Any],
    checkout: Mapping[str, Any],
    variant: Mapping[str, Any],
    quantity: Any,
    options: PixelOptions,
    reader: Reader,
    order_id: str | None,
) -> Purchase:
    if checkout:
        sums = checkout.get(f"{options.value}Price")
        items = _lines(checkout.get("lineItems"), "variant", options, reader)
        return _sum(sums, items, reader, checkout.get("currencyCode"), order_id)
    if variant:
        items = (goods.variant_item(variant, options.content_id, reader, quantity),)
        price = coerce.mapping(variant.get("price"))
        is_shown = "cartLine" not in data
        line = coerce.mapping(data.get("cartLine"))
        sums = price if is_shown else coerce.mapping(line.get("cost")).get("totalAmount")
        return _sum(sums, items, reader, price.get("currencyCode"))
    if cart := coerce.mapping(data.get("cart")):
        items = _lines(cart.get("lines"), "merchandise", options, reader)
        return _sum(coerce.mapping(cart.get("cost")).get("totalAmount"), items, reader, None)
    return _shown(data, options, reader)


def _sum(
    sums: Any,
    items: tuple[Item, ...],
    reader: Reader,
    currency: Any,
    order_id: str | None = None,
) -> Purchase:
    value = reader.money(sums, "value")
    return Purchase(
        value=goods.total(items) if value is None else value,
        currency=reader.currency((coerce.mapping(sums).get("currencyCode"), currency)),
        order_id=order_id,
        items=items,
        num_items=goods.units(items),
    )


def _lines(lines: Any, product: str, options: PixelOptions, reader: Reader) -> tuple[Item, ...]:
    return tuple(
        goods.variant_item(coerce.mapping(line.get(product)), options.content_id, reader, line.get("quantity"))
        for line in coerce.sequence(lines)
        if isinstance(line, dict)
    )


def _shown(data: Mapping[str, Any], options: PixelOptions, reader: Reader) -> Purchase:
    """Return the products of a collection or of a search's result: shown, not bought, so without a value."""
    holder = coerce.mapping(data.get("collection")) or coerce.mapping(data.get("searchResult"))
    given = coerce.sequence(holder.get("productVariants"))[:_MOST_SHOWN]
    variants = [variant for variant in given if isinstance(variant, dict)]
    codes = (coerce.mapping(variant.get("price")).get("currencyCode") for variant in variants)
    return Purchase(
        currency=reader.currency(codes),
        items=tuple(goods.variant_item(variant, options.content_id, reader) for variant in variants),
    )


def _content(data: Mapping[str, Any], variant: Mapping[str, Any]) -> Content:
    product = coerce.mapping(variant.get("product"))
    collection = coerce.mapping(data.get("collection"))
    return Content(
        name=coerce.text(product.get("title")),
        category=coerce.first((product.get("type"), collection.get("title"))),
        brand=coerce.text(product.get("vendor")),
    )
