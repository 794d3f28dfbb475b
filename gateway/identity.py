"""
The identity of an event: its id, its keys, its time.

The rules are those of the project's design, *Identity of an event*: an explicit id is kept byte for byte; without one
an order gives a readable id; without an order the id is a hash of what makes the event; without an own time it is
random and has no
mark.
"""

import hashlib
import secrets
from collections.abc import Callable
from decimal import Decimal

from gateway.event import Event, Struct
from gateway.outbox import Mark

#: A device clock may run ahead by so much before its time is not believed at all.
CLAMP_S = 300


class Identity(Struct, frozen=True, kw_only=True):
    """``is_keyless``: the id is random and marks nothing."""

    event_id: str
    explicit: bool
    is_keyless: bool


def identify(event: Event, site: str, template: str, seed: str = "") -> Identity:
    """
    Give the event its id; ``template`` may use ``{site}`` and ``{order_id}``.

    ``seed`` stands for the event where a hit may be read twice: what would be random is then derived from it, and
    leaves a mark.
    """
    if event.id is not None:
        return Identity(event_id=event.id, explicit=True, is_keyless=False)
    order = next((key.value for key in event.keys if key.kind == "order"), None)
    if order is not None:
        event_id = template.replace("{site}", site).replace("{order_id}", order)
        return Identity(event_id=event_id, explicit=False, is_keyless=False)
    if event.time is None and seed:
        event_id = hashlib.sha256(f"{site}\0{seed}".encode()).hexdigest()[:32]
        return Identity(event_id=event_id, explicit=False, is_keyless=False)
    if event.time is None:
        return Identity(event_id=secrets.token_hex(16), explicit=False, is_keyless=True)
    return Identity(event_id=_hashed(event, site), explicit=False, is_keyless=False)


def _hashed(event: Event, site: str) -> str:
    goods = [f"{item.id}x{item.quantity}@{_plain(item.price)}" for item in event.purchase.items]
    parts = (
        site, _who(event), event.source_name or event.name, repr(event.time), event.source_url or "",
        *goods, *event.purchase.content_ids, _plain(event.purchase.value), event.search_string or "",
    )  # fmt: skip
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _plain(number: Decimal | None) -> str:
    """Return a number's one form: 1.10 and 1.1 are the same value."""
    return "" if number is None else format(number.normalize(), "f") if number else "0"


def _who(event: Event) -> str:
    """Return what tells two people apart whose events are otherwise alike."""
    if event.client_id:
        return event.client_id
    person = event.user.external_id or event.user.email or event.user.phone or event.user.mobile_ad_id
    return person[0] if person else f"{event.client.ip} {event.client.user_agent}"


class Windows(Struct, frozen=True, kw_only=True):
    """How long marks live, in seconds."""

    dedup_s: int
    business_s: int


def marks_of(
    digest: Callable[..., bytes],
    destination: str,
    name: str,
    identity: Identity,
    event: Event,
    site: str,
    windows: Windows,
) -> tuple[Mark, ...]:
    """
    Return the deduplication marks: the id across all sources, business keys within the site.

    Vendors cannot deduplicate offline events, so every mark of one lives as long as a business key. Test events have
    marks of their own.
    """
    scope = f"test {destination}" if event.test else destination
    found = []
    if not identity.is_keyless:
        lifetime = windows.business_s if event.action_source == "offline" else windows.dedup_s
        found.append(Mark(digest=digest(scope, name, "id", identity.event_id), lifetime_s=lifetime))
    found += [
        Mark(digest=digest(scope, name, "key", site, key.kind, key.value), lifetime_s=windows.business_s, business=True)
        for key in event.keys
    ]
    return tuple(found)


def moment(event: Event, received_at: float) -> tuple[int, str | None]:
    """
    Return the event time in whole Unix seconds, and a note when the event's own time could not stand.

    A future time is never a reason to drop: the device's offset is corrected by ``sent_at``; up to five minutes ahead
    is clamped to now; more is replaced by the delivery's own time, else by the receipt.
    """
    if event.time is None:
        return int(min(event.fallback_time or received_at, received_at)), None
    if event.time <= received_at:
        return int(event.time), None
    if event.sent_at is not None and event.sent_at > received_at:
        corrected = event.time - (event.sent_at - received_at)
        if corrected <= received_at:
            return int(corrected), "event_time: clock_offset_corrected"
    if event.time - received_at <= CLAMP_S:
        return int(received_at), "event_time: clamped_to_now"
    return int(min(event.fallback_time or received_at, received_at)), "event_time: in_the_future"
