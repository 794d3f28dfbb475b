"""
The money of an order or a checkout in one currency: amounts of two currencies are never mixed.

Source: Shopify's order body has plain amounts in the shop's currency and ``*_set`` with both; a checkout
body has no sets, and its plain amounts are in the presentment currency (REST Admin API, abandoned checkouts).
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from adapters.shopify.goods import ContentId, total, units, webhook_item
from adapters.shopify.reader import Reader
from gateway import Purchase, Struct, coerce

Value = Literal["subtotal", "total"]
Currency = Literal["shop", "presentment"]


class Basis(Struct, frozen=True, kw_only=True):
    """One currency and where its amounts are: ``key`` within a set, also the plain fields when ``plain``."""

    key: Literal["shop_money", "presentment_money"]
    currency: str | None
    plain: bool


def purchase(
    body: Mapping[str, Any],
    reader: Reader,
    *,
    value: Value,
    currency: Currency,
    content_id: ContentId,
    order_id: str | None = None,
    is_order: bool = True,
) -> Purchase:
    """
    Return value, currency and items of an order or checkout.

    With ``taxes_included`` the subtotal contains taxes, as the shop's prices do.
    """
    basis = _basis(body, reader, value, currency, is_order=is_order)
    items = tuple(
        webhook_item(line, _amount(line, "price", basis, reader, "items.price"), content_id, reader)
        for line in coerce.sequence(body.get("line_items"))
        if isinstance(line, dict)
    )
    amount = _amount(body, f"{value}_price", basis, reader, "value")
    if amount is None:
        amount = _amount(body, f"current_{value}_price", basis, reader, "value")
    return Purchase(
        value=total(items) if amount is None else amount,
        currency=basis.currency,
        order_id=order_id,
        items=items,
        num_items=units(items),
    )


def _basis(body: Mapping[str, Any], reader: Reader, value: Value, wanted: Currency, *, is_order: bool) -> Basis:
    sums = body.get(f"{value}_price_set")
    presentment_codes = (
        body.get("presentment_currency"),
        _money(sums, "presentment_money").get("currency_code"),
    )
    if not is_order:
        code = reader.currency((*presentment_codes, body.get("currency")))
        return Basis(key="presentment_money", currency=code, plain=True)
    shop = reader.currency((body.get("currency"), _money(sums, "shop_money").get("currency_code")))
    if wanted == "presentment":
        presentment = reader.currency(presentment_codes)
        has_amount = coerce.decimal(_money(sums, "presentment_money").get("amount")) is not None
        if presentment is not None and presentment != shop and has_amount:
            return Basis(key="presentment_money", currency=presentment, plain=False)
    return Basis(key="shop_money", currency=shop, plain=True)


def _money(sums: Any, key: str) -> Mapping[str, Any]:
    return coerce.mapping(coerce.mapping(sums).get(key))


def _amount(holder: Mapping[str, Any], field: str, basis: Basis, reader: Reader, label: str) -> Decimal | None:
    if basis.plain:
        found = reader.decimal(holder.get(field), label)
        if found is not None:
            return found
    return reader.decimal(_money(holder.get(f"{field}_set"), basis.key).get("amount"), label)
