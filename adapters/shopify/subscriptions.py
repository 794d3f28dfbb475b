"""
``shopify connect``: the app's webhook subscriptions in one shop, and its web pixel.

Source: Shopify, api/admin-graphql 2026-10: webhookSubscriptions, webhookSubscriptionCreate, webhookSubscriptionUpdate,
webPixel, webPixelCreate, webPixelUpdate. The query shows what was made by this API for this app and shop: neither
subscriptions of ``shopify.app.toml`` nor those made by hand in the shop's admin.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from adapters.shopify.admin import Admin, Denied
from gateway import Struct, coerce

_LIST = """query Subscriptions($after: String) {
  webhookSubscriptions(first: 100, after: $after) {
    nodes { id topic uri format filter includeFields }
    pageInfo { hasNextPage endCursor }
  }
}"""
_CREATE = """mutation Create($topic: WebhookSubscriptionTopic!, $subscription: WebhookSubscriptionInput!) {
  webhookSubscriptionCreate(topic: $topic, webhookSubscription: $subscription) {
    webhookSubscription { id }
    userErrors { field message }
  }
}"""
_UPDATE = """mutation Update($id: ID!, $subscription: WebhookSubscriptionInput!) {
  webhookSubscriptionUpdate(id: $id, webhookSubscription: $subscription) {
    webhookSubscription { id }
    userErrors { field message }
  }
}"""
_PIXEL = "query Pixel { webPixel { id settings } }"
_PIXEL_CREATE = """mutation CreatePixel($pixel: WebPixelInput!) {
  webPixelCreate(webPixel: $pixel) { webPixel { id } userErrors { code field message } }
}"""
_PIXEL_UPDATE = """mutation UpdatePixel($id: ID!, $pixel: WebPixelInput!) {
  webPixelUpdate(id: $id, webPixel: $pixel) { webPixel { id } userErrors { code field message } }
}"""
#: An app has one subscription for each topic and address: more pages than this are no list of them.
_MOST_PAGES = 50
_CUSTOM_PIXEL = "use the custom pixel: docs/shopify.md"
State = Literal["ok", "created", "updated", "missing", "old address", "refused", "none"]


class Row(Struct, frozen=True, kw_only=True):
    """One line of the table: a topic (or the web pixel), what became of it, and what to know about it."""

    name: str
    state: State
    note: str = ""

    @property
    def is_in_place(self) -> bool:
        """Whether Shopify will deliver it."""
        return self.state in ("ok", "created", "updated")


async def subscribe(admin: Admin, topics: Sequence[str], address: str, *, check: bool) -> AsyncIterator[Row]:
    """
    Bring the subscriptions of these topics into order, and tell of each; harmless to repeat.

    A subscription for the same path on another host is the gateway's old one, and is moved. Others are left alone.

    Args:
        topics: As in ``X-Shopify-Topic``: ``orders/create``.
        address: Where Shopify shall deliver.
        check: Only tell.

    Raises:
        CommandFailed: The list cannot be had.
    """
    existing: dict[str, list[Mapping[str, Any]]] = {}
    async for one in _subscriptions(admin):
        existing.setdefault(coerce.text(one.get("topic")) or "", []).append(one)
    for topic in topics:
        name = topic.replace("/", "_").upper()
        yield await _settle(admin, topic, name, existing.get(name, []), address, check=check)


async def _subscriptions(admin: Admin) -> AsyncIterator[Mapping[str, Any]]:
    after: str | None = None
    for _ in range(_MOST_PAGES):
        data = await admin.query(_LIST, is_read=True, after=after)
        page = coerce.mapping(data.get("webhookSubscriptions"))
        for node in coerce.sequence(page.get("nodes")):
            yield coerce.mapping(node)
        info = coerce.mapping(page.get("pageInfo"))
        after = coerce.text(info.get("endCursor"))
        if not coerce.boolean(info.get("hasNextPage")) or after is None:
            return


async def _settle(
    admin: Admin, topic: str, name: str, existing: Sequence[Mapping[str, Any]], address: str, *, check: bool
) -> Row:
    right = next((one for one in existing if one.get("uri") == address), None)
    if right is not None and right.get("format") == "JSON":
        return Row(name=topic, state="ok", note=_narrowed(right))
    old = right or next((one for one in existing if _path(one.get("uri")) == _path(address)), None)
    wanted = {"uri": address, "format": "JSON"}
    if old is None:
        if check:
            return Row(name=topic, state="missing", note=_elsewhere(existing))
        problem = await _changed(
            admin, "webhookSubscriptionCreate", _CREATE, topic=name, subscription=wanted
        )  # fmt: skip
        return _outcome(topic, "created", problem, _elsewhere(existing))
    was = f"was {old.get('format')} to {_host(old.get('uri'))}"
    if check:
        return Row(name=topic, state="old address", note=was)
    problem = await _changed(
        admin, "webhookSubscriptionUpdate", _UPDATE, id=old.get("id"), subscription=wanted
    )  # fmt: skip
    return _outcome(topic, "updated", problem, was)


def _outcome(name: str, state: State, problem: str | None, note: str) -> Row:
    return Row(name=name, state=state, note=note) if problem is None else Row(name=name, state="refused", note=problem)


async def _changed(admin: Admin, mutation: str, document: str, **variables: Any) -> str | None:
    """Make a mutation; returns why Shopify refused it, None when it did not."""
    try:
        data = await admin.query(document, **variables)
    except Denied as error:
        return str(error)
    errors = coerce.sequence(coerce.mapping(data.get(mutation)).get("userErrors"))
    messages = [coerce.text(coerce.mapping(error).get("message")) or "refused" for error in errors]
    return "; ".join(messages) if messages else None


def _path(uri: Any) -> str | None:
    """Return the path of an address: ``/in/shop`` stays when a gateway moves to another host."""
    found = coerce.text(uri)
    return None if found is None or not found.startswith("https://") else urlsplit(found).path.rstrip("/")


def _host(uri: Any) -> str:
    found = coerce.text(uri) or ""
    return urlsplit(found).hostname or "another target"


def _elsewhere(existing: Sequence[Mapping[str, Any]]) -> str:
    hosts = sorted({_host(one.get("uri")) for one in existing})
    return f"the app also sends it to {', '.join(hosts)}" if hosts else ""


def _narrowed(one: Mapping[str, Any]) -> str:
    narrow = [field for field in ("filter", "includeFields") if one.get(field)]
    return f"narrowed by {' and '.join(narrow)}: events may lack data" if narrow else ""


async def activate(admin: Admin, address: str, *, check: bool) -> Row:
    """
    Activate the app's web pixel extension with ``settings.gateway`` = ``address``, where the app has one and may.

    An app without one is no fault: the row then names the custom pixel.
    """
    wanted = {"gateway": address}
    try:
        data = await admin.query(_PIXEL, is_read=True)
    except Denied as error:
        if error.code == "ACCESS_DENIED":
            return _no_pixel(f"needs the scopes read_pixels, write_pixels and read_customer_events; {_CUSTOM_PIXEL}")
        data = {}  # Shopify calls it an error that there is none yet
    pixel = coerce.mapping(data.get("webPixel"))
    settings = _settings(pixel.get("settings"))
    if settings == wanted:
        return Row(name="web pixel", state="ok")
    if pixel and "gateway" not in settings:
        return _no_pixel(f"the app's pixel has settings of its own; {_CUSTOM_PIXEL}")
    if check:
        return Row(name="web pixel", state="old address" if pixel else "none", note="" if pixel else _CUSTOM_PIXEL)
    given = {"settings": msgspec.json.encode(wanted).decode()}
    if pixel:
        problem = await _changed(admin, "webPixelUpdate", _PIXEL_UPDATE, id=pixel.get("id"), pixel=given)
        return _outcome("web pixel", "updated", problem, "")
    problem = await _changed(admin, "webPixelCreate", _PIXEL_CREATE, pixel=given)
    if problem is not None:
        return _no_pixel(f"{problem.rstrip('.')}; {_CUSTOM_PIXEL}")
    return Row(name="web pixel", state="created")


def _no_pixel(note: str) -> Row:
    return Row(name="web pixel", state="none", note=note)


def _settings(value: Any) -> Mapping[str, Any]:
    """Read Shopify's JSON scalar, which is an object or its text."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return {}
    return coerce.mapping(value)
