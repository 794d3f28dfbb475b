"""Money and goods: GA4's ``items``, Pinterest's ``contents``, and a data layer's ``ecommerce``."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from adapters.gtm.reading import first_of
from gateway import Item, Purchase, Rejected, coerce, json_body

_NAMES = frozenset(
    {
        "contents", "content_ids", "currency", "ecommerce", "items", "line_items", "num_items", "order_id",
        "predicted_ltv", "transaction_id", "value", "x_ga_mp1_ev", "x_ga_mp1_tr",
    }
)  # fmt: skip
_NOTHING = Purchase()


def purchase_of(data: Mapping[str, Any], notes: list[str]) -> Purchase:
    """Return the event's money and goods; a value of 0 is a value."""
    if _NAMES.isdisjoint(data):
        return _NOTHING
    layer = coerce.mapping(data.get("ecommerce"))
    rows = _rows(data, layer)
    bad: dict[str, None] = {}
    items = _items(rows, bad)
    notes.extend(bad)
    # nothing is summed over items that could not be read in full
    sound = () if bad else items
    # mp1: Universal Analytics' revenue of the transaction, and value of the event
    values = (data.get("value"), layer.get("value"), data.get("x_ga_mp1_tr"), data.get("x_ga_mp1_ev"))
    value = first_of(notes, "value: not_a_number", coerce.decimal, values)
    currencies = (data.get("currency"), layer.get("currency"), _row_currency(rows))
    ltv = data.get("predicted_ltv")
    return Purchase(
        value=_total(sound) if value is None else value,
        currency=first_of(notes, "currency: not_a_code", coerce.currency, currencies),
        order_id=_order_id(data, layer, notes),
        items=items,
        content_ids=_content_ids(data["content_ids"]) if "content_ids" in data else (),
        num_items=_num_items(data.get("num_items"), sound, notes),
        predicted_ltv=first_of(notes, "predicted_ltv: not_a_number", coerce.decimal, (ltv,)),
    )


def _row_currency(rows: Sequence[Any]) -> Any:
    first = rows[0] if rows else None
    return first.get("currency") if isinstance(first, dict) else None


def _order_id(data: Mapping[str, Any], layer: Mapping[str, Any], notes: list[str]) -> str | None:
    values = (data.get("order_id"), data.get("transaction_id"), layer.get("transaction_id"))
    return first_of(notes, "order_id: not_a_text", coerce.text, values)


def _rows(data: Mapping[str, Any], layer: Mapping[str, Any]) -> Sequence[Any]:
    """Return the first list of products that is not empty."""
    for value in (data.get("contents"), data.get("items"), layer.get("items"), data.get("line_items")):
        rows = _list(value)
        if rows:
            return rows
    return ()


def _list(value: Any) -> Sequence[Any]:
    """Return a list, also one that a tag wrote as JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = json_body(value.encode("utf-8", "replace"))
        except Rejected:
            return ()
    return coerce.sequence(value)


def _items(rows: Sequence[Any], bad: dict[str, None]) -> tuple[Item, ...]:
    found: list[Item] = []
    for row in rows:
        if not isinstance(row, dict):
            bad["items: not_an_object"] = None
            continue
        complaints: list[str] = []
        item = _item(row, complaints)
        bad.update(dict.fromkeys(complaints))
        if item != _EMPTY_ITEM:
            found.append(item)
    return tuple(found)


def _item(row: Mapping[str, Any], notes: list[str]) -> Item:
    # a name is no id: it would never match the catalogue
    ids = (row.get("item_id"), row.get("id"), row.get("product_id"))
    prices = (row.get("item_price"), row.get("price"))
    return Item(
        id=first_of(notes, "items: bad_id", coerce.text, ids),
        name=coerce.text(row.get("item_name") or row.get("name")),
        price=first_of(notes, "items: bad_price", coerce.decimal, prices),
        quantity=first_of(notes, "items: bad_quantity", count, (row.get("quantity"),)),
        brand=coerce.text(row.get("item_brand") or row.get("brand")),
        category=coerce.text(row.get("item_category") or row.get("category")),
    )


_EMPTY_ITEM = Item()


def count(value: Any) -> int | None:
    """Return a whole number that is not negative."""
    number = value if type(value) is int else coerce.integer(value)
    return number if number is not None and 0 <= number < _MAX_COUNT else None


_MAX_COUNT = 2**31


def _total(items: Sequence[Item]) -> Decimal | None:
    """Return the sum of price times quantity where every item has a price; a missing quantity is one."""
    total = Decimal(0)
    for item in items:
        if item.price is None:
            return None
        total += item.price * (1 if item.quantity is None else item.quantity)
    return total if items else None


def _num_items(given: Any, items: Sequence[Item], notes: list[str]) -> int | None:
    told = first_of(notes, "num_items: not_a_count", count, (given,))
    if told is not None or not items:
        return told
    return sum(1 if item.quantity is None else item.quantity for item in items)


def _content_ids(value: Any) -> tuple[str, ...]:
    """Return ids of a list, of a list as JSON text, or of a text parted by commas (Pinterest's template)."""
    values = _list(value)
    if not values and isinstance(value, str) and not value.lstrip().startswith("["):
        values = value.split(",")
    elif not values and isinstance(value, int | float):
        values = [value]
    return tuple(text for item in values if (text := coerce.text(item)) is not None)
