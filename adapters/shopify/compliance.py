"""
What Shopify demands of every app: erasure and export of personal data, and the end of an installation.

Source: Shopify, build/compliance/privacy-law-compliance. ``customers/redact`` may name no more than an
e-mail address; ``shop/redact`` comes 48 hours after an app was uninstalled.

Headers are not signed: whoever has one genuine body could send it again under another topic. So each body
must look like its own topic's before anything is erased.
"""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from adapters.shopify.order import exact_id
from adapters.shopify.signature import header
from gateway import Alarm, Erasure, Hit, Rejected, User, coerce


def mismatch() -> NoReturn:
    """Refuse a body that belongs to another topic."""
    raise Rejected(
        "topic_mismatch",
        "The body is not one of the topic that the header names.",
        hint="Pass on X-Shopify-Topic unchanged. The signature does not cover it, so the body must fit it.",
    )


def _subject(body: Mapping[str, Any]) -> tuple[User, str | None]:
    customer = coerce.mapping(body.get("customer"))
    customer_id = exact_id(customer)
    user = User(
        email=coerce.texts(customer.get("email")),
        phone=coerce.texts(customer.get("phone")),
        external_id=() if customer_id is None else (customer_id,),
    )
    return user, customer_id


def customers_redact(hit: Hit, topic: str, body: Mapping[str, Any]) -> Erasure | Alarm:
    """Erase a customer; one that is not named by anything kept here is for the operator."""
    if "shop_domain" not in body or "data_request" in body or "orders_requested" in body:
        mismatch()
    user, customer_id = _subject(body)
    if user == User():
        message = "A customer's erasure names no e-mail address, phone number or id: nothing could be looked up."
        return Alarm(reason="erasure_without_subject", message=message, source_name=topic)
    requested_at = coerce.unix_time(header(hit, "triggered-at"))
    return Erasure(scope="customer", user=user, customer_id=customer_id, requested_at=requested_at, source_name=topic)


def customers_data_request(hit: Hit, topic: str, body: Mapping[str, Any]) -> Erasure:
    """Tell the operator to export a customer's rows."""
    if "shop_domain" not in body or "orders_to_redact" in body:
        mismatch()
    user, customer_id = _subject(body)
    requested_at = coerce.unix_time(header(hit, "triggered-at"))
    return Erasure(scope="export", user=user, customer_id=customer_id, requested_at=requested_at, source_name=topic)


def shop_redact(hit: Hit, topic: str, body: Mapping[str, Any]) -> Erasure:
    """Erase everything of the site."""
    if coerce.text(body.get("shop_domain")) is None or not body.keys() <= {"shop_id", "shop_domain"}:
        mismatch()
    requested_at = coerce.unix_time(header(hit, "triggered-at"))
    return Erasure(scope="site", requested_at=requested_at, source_name=topic)


def app_uninstalled(_hit: Hit, topic: str, _body: Mapping[str, Any]) -> Alarm:
    """Tell the operator that no further webhooks will come."""
    message = (
        "The app was uninstalled from the shop: no further webhooks will come. Remove its secret from the "
        "configuration; shop/redact follows in 48 hours."
    )
    return Alarm(reason="app_uninstalled", message=message, source_name=topic)


TOPICS: Mapping[str, Callable[[Hit, str, Mapping[str, Any]], Erasure | Alarm]] = {
    "app/uninstalled": app_uninstalled,
    "customers/data_request": customers_data_request,
    "customers/redact": customers_redact,
    "shop/redact": shop_redact,
}
