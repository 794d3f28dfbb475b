"""The adapter ``shopify_pixel``: customer events that the shop's custom pixel posts, unsigned."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from adapters.shopify import shop
from adapters.shopify.customer_event import PixelOptions, event
from gateway import Adapter, Asset, Hit, Invalid, Normalized, Rejected, Source, Struct, coerce, json_body, verify

_MOST_EVENTS = 1_000
_SCRIPT = Path(__file__).with_name("pixel.js").read_text("utf-8")
_ADDRESS = '"https://tags.example.com/in/shop_pixel"'


class ShopifyPixelAdapter(Adapter):
    """
    Takes a bare customer event, an envelope, or an array of either.

    The envelope is ``{"shop", "customerPrivacy", "click_ids", "event"}``.
    """

    name: ClassVar[str] = "shopify_pixel"
    side = "public"
    Options: ClassVar[type[Struct]] = PixelOptions

    def check(self, source: Source) -> str | None:
        """Refuse a shop that is no domain."""
        return shop.wrong_option(source)

    def verify(self, hit: Hit) -> None:
        """
        Demand an allowed origin; custom pixels run in a sandbox and send ``null``.

        Raises:
            Rejected: 403 ``forbidden_origin``.
        """
        verify.origin(hit)

    def normalize(self, hit: Hit) -> Sequence[Normalized]:
        """
        Return one item for each event; in an array the bad ones are refused singly.

        Raises:
            Rejected: 400 for what is no event, 403 ``wrong_shop``, 413 ``too_many_events``.
        """
        body = json_body(hit.body)
        if isinstance(body, dict):
            return [_item(hit, body)]
        if not isinstance(body, list):
            raise _not_an_event()
        if not body:
            raise Rejected("empty_batch", "The array holds no event.", hint="Send at least one event.")
        if len(body) > _MOST_EVENTS:
            raise Rejected(
                "too_many_events",
                f"The array holds more than {_MOST_EVENTS} events.",
                status=413,
                hint="Send them in several requests.",
            )
        return [_single(hit, item) for item in body]

    def asset(self, source: Source, name: str, url: str) -> Asset | None:  # noqa: ARG002 - one file for all sources
        """Return ``pixel.js``, the code to paste into the shop, with the source's own address in it."""
        if name != "pixel.js":
            return None
        script = _SCRIPT.replace(_ADDRESS, json.dumps(url))
        return Asset(content=script.encode(), media_type="text/javascript; charset=utf-8")


def _single(hit: Hit, item: Any) -> Normalized:
    try:
        return _item(hit, item)
    except Rejected as rejected:
        event_id = coerce.text(coerce.mapping(item).get("id"))
        return Invalid(reason=rejected.reason, message=rejected.message, event_id=event_id)


def _item(hit: Hit, item: Any) -> Normalized:
    if not isinstance(item, dict):
        raise _not_an_event()
    envelope: Mapping[str, Any] = {}
    if isinstance(item.get("event"), dict):
        envelope, item = item, item["event"]
    wanted = hit.source.options.shop
    if wanted and coerce.text(envelope.get("shop")) is not None and not shop.is_same(envelope["shop"], wanted):
        raise shop.refuse(hit.source, "The envelope's shop")
    name = coerce.text(item.get("name"))
    if name is None:
        raise Rejected(
            "missing_event_name",
            "The customer event has no name.",
            hint="Post the event that analytics.subscribe() gives, whole, or as 'event' of the envelope.",
        )
    return event(hit, name, item, envelope)


def _not_an_event() -> Rejected:
    return Rejected(
        "not_an_event",
        "A customer event is a JSON object.",
        hint="Post JSON.stringify(event), or an array of events.",
    )
