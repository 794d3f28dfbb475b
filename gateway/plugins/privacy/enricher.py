"""
The decisions, in their order. It fails closed: when it fails, nothing is accepted (503).

1. Marketing consent denied: the event is dropped.
2. Limited data that the source says: kept always, wherever the person lives. Saying that it is *not* limited cancels
   no opt-out of the same hit: the stricter wins.
3. An opt-out (of sale, Global Privacy Control, in a US privacy or GPP string): limited where a state's law applies and
   where the residence is unknown; elsewhere allowed, with a note.

``opt_out`` is passed through and never set. Limited data becomes Pinterest's ``opt_out_type`` LDP with state and
country. Source: Pinterest developer page "Use the limited data processing flag".
"""

import msgspec

from gateway import Enricher, Event, Hit, Skipped
from gateway.plugins.privacy import signals
from gateway.plugins.privacy.residence import Residence


class PrivacyEnricher(Enricher):
    """
    Decides what the person's signals allow.

    Args:
        residence: Tells where people live, and where that matters.
    """

    name = "privacy"
    on_error = "refuse"
    order = 30

    def __init__(self, residence: Residence) -> None:
        self._residence = residence

    async def enrich(self, event: Event, hit: Hit) -> Event | Skipped:
        """Return the event, limited where a signal says so; drop it when consent was denied."""
        consent = event.consent
        if consent.marketing is False:
            return Skipped(reason="consent", source_name=event.source_name, event_id=event.id)
        if event.limited_data is True:
            return self._limited(event, hit, ("limited_data",))
        # most hits have no signal: nothing else is looked at for them
        if (
            consent.gpc is True
            or consent.sale_of_data is False
            or consent.us_privacy is not None
            or consent.gpp is not None
        ):
            return self._inferred(event, hit)
        return event

    def _inferred(self, event: Event, hit: Hit) -> Event:
        found = signals.of(event.consent)
        if found.notes:
            event = msgspec.structs.replace(event, notes=(*event.notes, *found.notes))
        if not found.opt_outs:
            return event
        if event.consent.sale_of_data is not False:
            # in one place, whichever signal said it: it is remembered also where no law applies
            consent = msgspec.structs.replace(event.consent, sale_of_data=False)
            event = msgspec.structs.replace(event, consent=consent)
        if self._residence.is_outside(event, hit):
            return msgspec.structs.replace(event, notes=(*event.notes, "privacy: outside"))
        return self._limited(event, hit, found.opt_outs)

    def _limited(self, event: Event, hit: Hit, by: tuple[str, ...]) -> Event:
        notes = (*event.notes, f"privacy: limited by {', '.join(by)}")
        return self._residence.filled(msgspec.structs.replace(event, limited_data=True, notes=notes), hit)
