"""The ``bots`` enricher: page events of robots are dropped with a reason; conversions never are."""

from gateway import PAGE_EVENTS, Enricher, Event, Hit, Skipped, hookimpl


class BotsEnricher(Enricher):
    """Drops what a robot looked at."""

    name = "bots"
    order = 40

    async def enrich(self, event: Event, hit: Hit) -> Event | Skipped:  # noqa: ARG002 - the interface
        """Return the event unless it is a robot's page event."""
        if event.is_bot and event.name in PAGE_EVENTS:
            return Skipped(reason="bot", source_name=event.source_name, event_id=event.id)
        return event


@hookimpl
def register_enrichers() -> list[Enricher]:
    """Provide ``bots``."""
    return [BotsEnricher()]
