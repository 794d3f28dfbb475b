"""
The ``privacy`` enricher: allow, limit, or drop. It fails closed: when it fails, nothing is accepted (503).

* Marketing consent denied: the event is dropped, and remembered by its keys only.
* Limited data processing (US state privacy laws): an explicit flag of the source, an opt-out of sale, Global Privacy
  Control, or a US privacy string with an opt-out. The stricter signal wins.

Source: Pinterest developer page "Use the limited data processing flag": ``opt_out_type`` LDP, with state and country of
    the person.
"""

import msgspec

from gateway import Enricher, Event, Hit, Skipped, hookimpl


class PrivacyEnricher(Enricher):
    """Decides what the person's signals allow."""

    name = "privacy"
    on_error = "refuse"
    order = 30

    async def enrich(self, event: Event, hit: Hit) -> Event | Skipped:  # noqa: ARG002 - the interface
        """Return the event, limited where a signal says so; drop it when consent was denied."""
        consent = event.consent
        if consent.marketing is False:
            return Skipped(reason="consent", source_name=event.source_name, event_id=event.id)
        if event.limited_data is True:
            return event
        if consent.sale_of_data is False or consent.gpc is True or is_sale_opt_out(consent.us_privacy):
            return msgspec.structs.replace(event, limited_data=True)
        return event


def is_sale_opt_out(us_privacy: str | None) -> bool:
    """
    Whether a US privacy string says that the person opted out of sale.

    Source: IAB CCPA Compliance Framework, "U.S. Privacy String", version 1: version, notice, opt-out of sale, LSPA;
        "Y", "N" or "-".
    """
    return us_privacy is not None and len(us_privacy) == 4 and us_privacy[0] == "1" and us_privacy[2].upper() == "Y"


@hookimpl
def register_enrichers() -> list[Enricher]:
    """Provide ``privacy``."""
    return [PrivacyEnricher()]
