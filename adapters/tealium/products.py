"""The products of an event: Tealium keeps each of their properties in an array of its own."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from adapters.tealium.options import Options
from adapters.tealium.variables import Variables, is_blank
from gateway import Item, Struct, coerce

#: Nobody buys more lines at once; it bounds what one single value can be spread over.
_MAX_ROWS = 1_000


class Line(Struct, frozen=True, kw_only=True):
    """One product: ``paid`` is its selling price, ``units`` how many."""

    item: Item
    paid: Decimal | None
    units: int


def _price(value: Any) -> Decimal | None:
    number = coerce.decimal(value)
    return None if number is None or number < 0 else number


def _count(value: Any) -> int | None:
    number = value if type(value) is int else coerce.integer(value)
    return None if number is None or not 0 <= number < 2**31 else number


_IDS = ("product_id", "product_main_id", "product_sku", "_cprod", "_csku")
#: Field of an item (``paid``: the selling price), its variables in order of preference, and how a value is read.
_COLUMNS: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "id": (_IDS, coerce.text),
    "name": (("product_name", "_cprodname"), coerce.text),
    "price": (("product_original_price",), _price),
    "paid": (("product_price", "product_unit_price", "_cprice"), _price),
    "quantity": (("product_quantity", "_cquan"), _count),
    "brand": (("product_brand", "_cbrand"), coerce.text),
    "category": (("product_category", "_ccat"), coerce.text),
}
_VARIABLES = frozenset(name for names, _ in _COLUMNS.values() for name in names)
#: An array of one such value is meant for every product.
_SPREAD = frozenset({"brand", "category"})
#: One of these makes a row a product.
_NAMING = frozenset({"id", "name", "paid"})


def lines_of(variables: Variables, options: Options) -> list[Line]:
    """
    Return the products; where the arrays differ in length the longest rules, and what is missing is unknown.

    An item's price is the one before any discount where it is given.
    """
    if _VARIABLES.isdisjoint(variables.udo):
        return []
    given = _given(variables.udo, options.content_id)
    # a lone text may be a comma-separated list, but is no measure of how many products there are
    rows = max((len(column) if isinstance(column, list) else 1 for column in given.values()), default=0)
    rows = min(rows, _MAX_ROWS)
    columns = {field: _column(field, column, rows, variables) for field, column in given.items()}
    lines = []
    for row in range(rows):
        values = {field: column[row] for field, column in columns.items() if column[row] is not None}
        if not _NAMING.isdisjoint(values):
            lines.append(_line(values))
    return lines


def _line(values: dict[str, Any]) -> Line:
    paid = values.pop("paid", None)
    if paid is None:
        paid = values.get("price")
    elif "price" not in values:
        values["price"] = paid
    return Line(item=Item(**values), paid=paid, units=values.get("quantity", 1))


def _given(udo: Mapping[str, Any], content_id: str) -> dict[str, Any]:
    """Return, for each field, the first of its variables that says anything; ids always as a list."""
    found = {}
    for field, (names, _) in _COLUMNS.items():
        for name in (content_id, *names) if field == "id" else names:
            column = udo.get(name)
            if column is not None and not is_blank(column) and _says(column):
                found[field] = _as_list(column) if field == "id" else column
                break
    return found


def _says(column: Any) -> bool:
    return not isinstance(column, list) or any(not is_blank(value) for value in column)


def _as_list(ids: Any) -> list[Any]:
    """Ids hold no commas, so a text with commas is a list of them."""
    if isinstance(ids, str):
        return [part for part in ids.split(",") if part.strip()]
    return ids if isinstance(ids, list) else [ids]


def _column(field: str, column: Any, rows: int, variables: Variables) -> Sequence[Any]:
    """
    Return one value for each row.

    A single value applies to every product, as in Tealium's Pinterest connector.
    """
    if isinstance(column, str) and column.count(",") == rows - 1 > 0:
        column = column.split(",")
    names, convert = _COLUMNS[field]
    single = not isinstance(column, list)
    given = [column] if single else column[:rows]
    found = [convert(value) for value in given]
    if None in found and any(value is None and not is_blank(raw) for value, raw in zip(found, given, strict=True)):
        variables.note(f"{names[0]}: unreadable")
    if len(found) == rows:
        return found
    if single or (field in _SPREAD and len(found) == 1):
        return found * rows
    return [*found, *[None] * (rows - len(found))]
