"""Money of an order or a basket."""

from decimal import Decimal

from adapters.tealium.options import Options
from adapters.tealium.products import Line, lines_of
from adapters.tealium.variables import Variables
from gateway import Purchase, coerce

_SUBTOTAL = ("order_subtotal", "_csubtotal")
_TOTAL = ("order_total", "_ctotal")
_TOTALS = {"subtotal": (*_SUBTOTAL, *_TOTAL), "total": (*_TOTAL, *_SUBTOTAL)}
_CURRENCIES = ("order_currency", "order_currency_code", "_ccurrency", "product_currency", "currency_code", "currency")


def purchase_of(variables: Variables, options: Options) -> Purchase:
    """
    Read order and products.

    The value is the order variable that the options choose, else the other one, else the sum of selling price times
    quantity where every product has a price. A product without a quantity counts once.
    """
    lines = lines_of(variables, options)
    value = variables.read(coerce.decimal, "not_a_number", *_TOTALS[options.value])
    return Purchase(
        value=_sum(lines) if value is None else value,
        currency=variables.read(coerce.currency, "not_a_currency", *_CURRENCIES),
        order_id=variables.text("order_id", "_corder"),
        items=tuple(line.item for line in lines),
        num_items=sum(line.units for line in lines) if lines else None,
    )


def _sum(lines: list[Line]) -> Decimal | None:
    total = Decimal(0)
    for line in lines:
        if line.paid is None:
            return None
        total += line.paid * line.units
    return total if lines else None
