"""The adapter ``shopify``: signed webhooks of one shop."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from adapters.shopify import admin, compliance, order, shop, signature
from adapters.shopify.diagnosis import Diagnosis
from adapters.shopify.order import Conversion, WebhookOptions
from adapters.shopify.signature import header
from gateway import Adapter, Hit, Normalized, Rejected, Skipped, Source, Struct, coerce, json_body

#: What ``adapter =`` says in the configuration.
NAME = "shopify"
_CONVERSIONS = {
    "orders/create": Conversion(name="checkout", kind="order"),
    "orders/paid": Conversion(name="checkout", kind="order"),
    "checkouts/create": Conversion(name="initiate_checkout", kind="checkout"),
    "customers/create": Conversion(name="signup", kind="customer"),
}
#: Known, and nothing that Pinterest counts: it has no refund, and updates repeat what was told.
_QUIET = frozenset(
    {
        "carts/create", "carts/update", "checkouts/delete", "checkouts/update", "customers/delete",
        "customers/disable", "customers/enable", "customers/update", "draft_orders/create",
        "draft_orders/delete", "draft_orders/update", "orders/cancelled", "orders/delete", "orders/edited",
        "orders/fulfilled", "orders/partially_fulfilled", "orders/updated", "refunds/create",
    }
)  # fmt: skip
_RESOURCES = {"order": "Order", "customer": "Customer"}
#: Domains that a body may name: the only ones covered by the signature.
_NAMED_SHOPS = ("shop_domain", "myshopify_domain")


class ShopifyAdapter(Adapter):
    """One delivery, one body, at most one event; ``orders/create`` and ``orders/paid`` share their keys."""

    name: ClassVar[str] = NAME
    side = "server"
    Options: ClassVar[type[Struct]] = WebhookOptions

    def __init__(self) -> None:
        self._diagnosis = Diagnosis()

    def check(self, source: Source) -> str | None:
        """Refuse a shop that is no domain, and an empty secret: anybody could sign with it."""
        if any(not secret.value.strip() for secret in source.secrets):
            return "secrets: one of them is empty; set the app's client secret"
        self._diagnosis.know(source)
        return shop.wrong_option(source) or admin.wrong_option(source)

    def verify(self, hit: Hit) -> None:
        """
        Demand the signature, then the shop.

        Raises:
            Rejected: 401 ``unauthorized``, 403 ``wrong_shop``.
        """
        signature.demand(hit, self._diagnosis)
        _demand_shop(hit)

    def normalize(self, hit: Hit) -> Sequence[Normalized]:
        """Return the one thing that the delivery tells."""
        topic = header(hit, "topic").strip()
        if not topic:
            raise Rejected(
                "missing_topic",
                "No X-Shopify-Topic header arrived.",
                hint="A proxy in front of the gateway may remove it: pass on all X-Shopify headers.",
            )
        body = json_body(hit.body)
        if not isinstance(body, dict):
            raise Rejected("not_an_object", "A webhook's body is one JSON object.", hint="Pass on the body unchanged.")
        return [_item(hit, topic, body)]


def topics(source: Source) -> list[str]:
    """Return the topics that this source wants delivered: its conversions, and the app's end."""
    names = source.event_names
    mapped = [topic for topic, name in names.items() if name and topic in _QUIET]
    return [*(topic for topic in _CONVERSIONS if names.get(topic) != ""), *mapped, "app/uninstalled"]


def _item(hit: Hit, topic: str, body: Mapping[str, Any]) -> Normalized:
    kind = topic.lower()
    if coerce.boolean(header(hit, "test")) or coerce.boolean(body.get("test")):
        return Skipped(reason="test", source_name=topic)
    if kind in compliance.TOPICS:
        return compliance.TOPICS[kind](hit, topic, body)
    conversion = _conversion(hit.source, topic)
    if conversion is None:
        return Skipped(reason="no_conversion" if kind in _QUIET else "unmapped", source_name=topic)
    if kind in _CONVERSIONS:
        _demand_resource(body, conversion)
        if conversion.kind == "order" and body.get("cancelled_at"):
            return Skipped(reason="cancelled", source_name=topic)
    return order.event(hit, topic, body, conversion)


def _conversion(source: Source, topic: str) -> Conversion | None:
    """Tell what the topic means; ``event_names`` may give one a meaning that has none."""
    known = _CONVERSIONS.get(topic.lower())
    wanted = source.event_names.get(topic)
    if known is not None or not wanted:
        return known
    resource = topic.lower().partition("/")[0]
    if resource in ("checkouts", "carts"):
        return Conversion(name=wanted, kind="checkout")
    return Conversion(name=wanted, kind="customer" if resource == "customers" else "order")


def _demand_resource(body: Mapping[str, Any], conversion: Conversion) -> None:
    """Refuse a genuine body that was sent again under another topic: the signature does not cover headers."""
    given = coerce.text(body.get("admin_graphql_api_id")) or ""
    wanted = _RESOURCES.get(conversion.kind)
    if wanted and given.startswith("gid://shopify/") and not given.startswith(f"gid://shopify/{wanted}/"):
        compliance.mismatch()


def _demand_shop(hit: Hit) -> None:
    named = header(hit, "shop-domain")
    wanted = hit.source.options.shop
    if wanted and not shop.is_same(named, wanted):
        raise shop.refuse(hit.source, "X-Shopify-Shop-Domain")
    expected = wanted or named
    # most bodies name no shop: these are read once only, by normalize
    if not expected or not any(f'"{field}"'.encode() in hit.body for field in _NAMED_SHOPS):
        return
    body = coerce.mapping(json_body(hit.body))
    for field in _NAMED_SHOPS:
        if coerce.text(body.get(field)) is not None and not shop.is_same(body[field], expected):
            raise shop.refuse(hit.source, f"The body's {field}")
