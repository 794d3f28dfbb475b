"""Money and goods of the tag's JSON."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from gateway import Item, Purchase, coerce
from gateway.plugins.browser_tag.reader import SILENT, Reader, is_blank

FIELDS = frozenset({"value", "currency", "order_id", "items", "num_items", "predicted_ltv"})


def purchase_of(event: Reader) -> Purchase:
    """
    Read value, currency, order and items.

    The value is the explicit one (0 included), else the sum of price times quantity if all have a price;
    ``num_items`` is the explicit one, else the sum of quantities. An item without a quantity counts once.
    Nothing is summed when an item could not be read.
    """
    if not event.values.keys() & FIELDS:
        return SILENT.purchase
    items, complete = _items(event)
    value = event.read("value", coerce.decimal, complaint="not_a_number")
    num_items = event.read("num_items", _count, complaint="not_a_count")
    if items and complete:
        value = _sum(items) if value is None else value
        num_items = sum(_units(item) for item in items) if num_items is None else num_items
    return Purchase(
        value=value,
        currency=event.read("currency", coerce.currency, complaint="not_a_currency"),
        order_id=event.text("order_id"),
        items=items,
        num_items=num_items,
        predicted_ltv=event.read("predicted_ltv", coerce.decimal, complaint="not_a_number"),
    )


def _items(event: Reader) -> tuple[tuple[Item, ...], bool]:
    """Return the items, and whether all of them, with their prices and quantities, could be read."""
    given = event.values.get("items")
    if is_blank(given):
        return (), True
    complete = True
    items = []
    for raw in given if isinstance(given, list) else [given]:
        if not isinstance(raw, dict):
            event.note("items", "not_an_object")
            complete = False
            continue
        fields, readable = _fields(raw, event)
        complete &= readable
        if fields:
            items.append(Item(**fields))
    return tuple(items), complete


def _fields(raw: dict[str, Any], event: Reader) -> tuple[dict[str, Any], bool]:
    fields: dict[str, Any] = {}
    readable = True
    for key, given in raw.items():
        if given is None or key not in _ITEM:
            continue
        found = _ITEM[key](given)
        if found is not None:
            fields[key] = found
        elif not is_blank(given):
            event.note(f"items.{key}", "unreadable")
            readable &= key not in ("price", "quantity")
    return fields, readable


def _sum(items: tuple[Item, ...]) -> Decimal | None:
    total = Decimal(0)
    for item in items:
        if item.price is None:
            return None
        total += item.price * _units(item)
    return total


def _units(item: Item) -> int:
    return 1 if item.quantity is None else item.quantity


def _price(value: Any) -> Decimal | None:
    number = coerce.decimal(value)
    return None if number is None or number < 0 else number


def _count(value: Any) -> int | None:
    number = value if type(value) is int else coerce.integer(value)
    return None if number is None or not 0 <= number < 2**31 else number


_ITEM: dict[str, Callable[[Any], Any]] = {
    "id": coerce.text,
    "name": coerce.text,
    "price": _price,
    "quantity": _count,
    "brand": coerce.text,
    "category": coerce.text,
}
