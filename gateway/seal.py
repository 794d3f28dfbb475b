"""
The seal: the step after which an event may be written.

Identifiers become hashes (by the destination's own rules), personal data leaves URLs and free texts, and a check makes
sure that nothing but hashes is left where identifiers stand.
"""

import re
from operator import attrgetter
from typing import TypeVar

from msgspec import structs

from gateway.errors import Unavailable
from gateway.event import App, Content, Device, Event, Item, SealedEvent
from gateway.identity import Identity
from gateway.interfaces import Identifiers
from gateway.urls import is_personal, strip_personal

Record = TypeVar("Record", App, Device)
#: The texts of a record, without looking at its numbers one by one.
_texts_of = {
    kind: attrgetter(*(field.name for field in structs.fields(kind) if field.type == str | None))
    for kind in (App, Device)
}
_HASHES = re.compile(r"(?:[0-9a-f]{64})+")


def _is_hashed(fields: dict[str, tuple[str, ...]]) -> bool:
    values = [value for hashes in fields.values() for value in hashes]
    if set(map(len, values)) - {64}:
        return False
    # one look at all of them: the lengths were checked
    return not values or _HASHES.fullmatch("".join(values)) is not None


class Facts:
    """What the pipeline has decided about an event, the same for all its destinations."""

    __slots__ = (
        "accepted_at", "born", "event_time", "identity", "name", "notes", "origins", "site", "source", "unsigned",
    )  # fmt: skip

    def __init__(
        self, *, name: str, identity: Identity, event_time: int, accepted_at: float, source: str, site: str,
        is_server: bool, notes: tuple[str, ...], origins: dict[str, str] | None = None,
        unsigned: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.identity = identity
        self.event_time = event_time
        self.accepted_at = accepted_at
        self.source = source
        self.site = site
        self.born = "server" if is_server else "browser"
        self.notes = notes
        self.origins = origins or {}
        self.unsigned = unsigned


def seal(event: Event, facts: Facts, name: str, identifiers: Identifiers, destination: str) -> SealedEvent:
    """
    Return the event as one destination may keep it.

    Raises:
        Unavailable: The destination's plugin returned something that is not a hash: nothing is written.
    """
    fields = identifiers.fields
    if fields and not _is_hashed(fields):
        raise Unavailable(
            "plugin_failed",
            f"The destination '{destination}' returned an identifier that is not hashed; nothing was accepted.",
        )
    notes = (*facts.notes, *identifiers.notes) if identifiers.notes else facts.notes
    texts = _Texts(notes)
    content, purchase = event.content, event.purchase
    search = texts.clean(event.search_string, "search_string")
    if content.name or content.category or content.brand:
        content = Content(
            name=texts.clean(content.name, "content_name"),
            category=texts.clean(content.category, "content_category"),
            brand=texts.clean(content.brand, "content_brand"),
        )
    if any(map(texts.in_item, purchase.items)):
        purchase = structs.replace(purchase, items=tuple(map(texts.clean_item, purchase.items)))
    partner_id = texts.clean(event.partner_id, "partner_id")
    app, device = texts.clean_record(event.app, "app"), texts.clean_record(event.device, "device")
    return SealedEvent(
        event_id=facts.identity.event_id,
        event_name=name,
        event_time=facts.event_time,
        accepted_at=facts.accepted_at,
        source=facts.source,
        site=facts.site,
        born=facts.born,  # type: ignore[arg-type]
        action_source=event.action_source,
        explicit_id=facts.identity.explicit,
        source_url=strip_personal(event.source_url) if event.source_url else None,
        user=identifiers.fields,
        client=event.client,
        click_ids=event.click_ids,
        purchase=purchase,
        content=content,
        search_string=search,
        app=app,
        device=device,
        limited_data=event.limited_data is True,
        opt_out=event.opt_out,
        partner_id=partner_id,
        language=event.language,
        tag=event.tag,
        test=event.test,
        notes=texts.notes,
        extra=event.extra,
        origins=facts.origins,
        unsigned=facts.unsigned,
    )


class _Texts:
    """Free texts of one event: one that holds an e-mail address or phone number is left out, with a note."""

    __slots__ = ("notes",)

    def __init__(self, notes: tuple[str, ...]) -> None:
        self.notes = notes

    def clean(self, text: str | None, field: str) -> str | None:
        """Return the text unless it is personal."""
        if text is None or not is_personal(text):
            return text
        self.notes = (*self.notes, f"{field}: personal")
        return None

    def clean_record(self, record: Record, name: str) -> Record:
        """Return an app or device without its personal texts."""
        for text in _texts_of[type(record)](record):
            if text is not None and is_personal(text):
                break
        else:
            return record
        told: dict[str, object] = structs.asdict(record)
        for field, value in told.items():
            if isinstance(value, str) and is_personal(value):
                self.notes = (*self.notes, f"{name}.{field}: personal")
                record = structs.replace(record, **{field: None})
        return record

    def in_item(self, item: Item) -> bool:
        """Whether any text of an item is."""
        texts = (item.id, item.name, item.brand, item.category)
        return any(text is not None and is_personal(text) for text in texts)

    def clean_item(self, item: Item) -> Item:
        """Return the item without its personal texts."""
        return Item(
            id=self.clean(item.id, "items.id"),
            name=self.clean(item.name, "items.name"),
            price=item.price,
            quantity=item.quantity,
            brand=self.clean(item.brand, "items.brand"),
            category=self.clean(item.category, "items.category"),
        )
