"""What was bought: items in either spelling, their catalogue ids and sums."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from adapters.shopify.people import plain_id
from adapters.shopify.reader import Reader
from gateway import Item, coerce

ContentId = Literal["product", "variant", "sku"]

#: What stands in for an id that a product lacks: custom items have neither product nor variant.
_FALLBACKS: dict[ContentId, tuple[ContentId, ...]] = {
    "product": ("product", "sku", "variant"),
    "variant": ("variant", "sku", "product"),
    "sku": ("sku", "variant", "product"),
}


def catalogue_id(kind: ContentId, ids: Mapping[ContentId, Any]) -> str | None:
    """Return the id of the wanted kind, else the next one that exists, else None."""
    for candidate in _FALLBACKS[kind]:
        found = plain_id(ids[candidate])
        if found is not None:
            return found
    return None


def webhook_item(line: Mapping[str, Any], price: Decimal | None, kind: ContentId, reader: Reader) -> Item:
    """Return the item of an order's or a checkout's line; the price depends on the currency chosen."""
    ids: dict[ContentId, Any] = {
        "product": line.get("product_id"),
        "variant": line.get("variant_id"),
        "sku": line.get("sku"),
    }
    return Item(
        id=catalogue_id(kind, ids),
        name=coerce.first((line.get("title"), line.get("name"))),
        price=price,
        quantity=reader.quantity(line.get("quantity")),
        brand=coerce.text(line.get("vendor")),
    )


def variant_item(variant: Mapping[str, Any], kind: ContentId, reader: Reader, quantity: Any = None) -> Item:
    """Return the item of a pixel event's product variant; a variant that is merely shown has no quantity."""
    product = coerce.mapping(variant.get("product"))
    ids: dict[ContentId, Any] = {
        "product": product.get("id"),
        "variant": variant.get("id"),
        "sku": variant.get("sku"),
    }
    return Item(
        id=catalogue_id(kind, ids),
        name=coerce.first((product.get("title"), variant.get("title"))),
        price=reader.money(variant.get("price"), "items.price"),
        quantity=reader.quantity(quantity),
        brand=coerce.text(product.get("vendor")),
        category=coerce.text(product.get("type")),
    )


def units(items: Sequence[Item]) -> int | None:
    """Return the number of units, None when no quantity is known."""
    known = [item.quantity for item in items if item.quantity is not None]
    return sum(known) if known else None


def total(items: Sequence[Item]) -> Decimal | None:
    """Return the sum of price times quantity, None unless every one of them has both."""
    result = Decimal(0)
    for item in items:
        if item.price is None or item.quantity is None:
            return None
        result += item.price * item.quantity
    return coerce.decimal(result) if items else None
