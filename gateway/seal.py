"""
The seal: the step after which an event may be written.

Identifiers become hashes (by the destination's own rules), personal data leaves URLs and free texts, and a check makes
sure that nothing but hashes is left where identifiers stand.
"""

import re

from gateway.errors import Unavailable
from gateway.event import Content, Event, SealedEvent
from gateway.identity import Identity
from gateway.interfaces import Identifiers
from gateway.urls import is_email_like, strip_personal

_HASHES = re.compile(r"(?:[0-9a-f]{64})+")


def _is_hashed(fields: dict[str, tuple[str, ...]]) -> bool:
    values = [value for hashes in fields.values() for value in hashes]
    if set(map(len, values)) - {64}:
        return False
    # one look at all of them: the lengths were checked
    return not values or _HASHES.fullmatch("".join(values)) is not None


class Facts:
    """What the pipeline has decided about an event, the same for all its destinations."""

    __slots__ = ("accepted_at", "born", "event_time", "identity", "name", "notes", "site", "source")

    def __init__(
        self, *, name: str, identity: Identity, event_time: int, accepted_at: float, source: str, site: str,
        is_server: bool, notes: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.name = name
        self.identity = identity
        self.event_time = event_time
        self.accepted_at = accepted_at
        self.source = source
        self.site = site
        self.born = "server" if is_server else "browser"
        self.notes = notes


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
    search, content = event.search_string, event.content
    if search is not None and is_email_like(search):
        search, notes = None, (*notes, "search_string: personal")
    if content.name is not None and is_email_like(content.name):
        content, notes = Content(category=content.category, brand=content.brand), (*notes, "content_name: personal")
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
        purchase=event.purchase,
        content=content,
        search_string=search,
        app=event.app,
        device=event.device,
        limited_data=event.limited_data is True,
        opt_out=event.opt_out,
        partner_id=event.partner_id,
        language=event.language,
        tag=event.tag,
        test=event.test,
        notes=notes,
        extra=event.extra,
    )
