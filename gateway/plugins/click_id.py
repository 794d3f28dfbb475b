"""
The ``click_id`` enricher: Pinterest's click id, from the newest place that has it.

Source: Pinterest API v5.23.0, ``user_data.click_id``: the ``epik`` query parameter or the ``_epik`` cookie; sent as it
    is.
Order: the URL of this event, the first-party cookie, what the payload carries.
"""

import re
from urllib.parse import unquote

import msgspec

from gateway import Enricher, Event, Hit, hookimpl

_IN_URL = re.compile(r"[?&]epik=([^&#\s]+)", re.IGNORECASE)
_MAX_LENGTH = 1_024


class ClickIdEnricher(Enricher):
    """Sets ``click_ids["epik"]``."""

    name = "click_id"
    order = 20

    async def enrich(self, event: Event, hit: Hit) -> Event:
        """Return the event with its click id, if any place has one."""
        told = event.click_ids.get("epik")
        url = event.source_url
        found = None
        if url is not None:
            found = _usable(_from_url(url))
        if found is None and not hit.source.is_server and "cookie" in hit.headers:
            found = _usable(hit.cookie("_epik"))
        if found is None:
            found = _usable(told)
        if found == told:
            return event
        others = {name: value for name, value in event.click_ids.items() if name != "epik"}
        return msgspec.structs.replace(event, click_ids={**others, "epik": found} if found else others)


def _from_url(url: str) -> str | None:
    match = _IN_URL.search(url)
    if match is None:
        return None
    return unquote(match[1]) if "%" in match[1] else match[1]


def _usable(value: str | None) -> str | None:
    if not value or len(value) > _MAX_LENGTH or not value.isascii() or not value.isprintable() or " " in value:
        return None
    return value


@hookimpl
def register_enrichers() -> list[Enricher]:
    """Provide ``click_id``."""
    return [ClickIdEnricher()]
