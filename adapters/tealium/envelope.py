"""From a hit to the JSON objects of its events."""

from collections.abc import Mapping
from typing import Any

from gateway import Hit, Rejected, json_body

MAX_EVENTS = 1_000
#: Properties of an AudienceStream visitor profile (Tealium webhook connector, "Send Entire Visitor Data").
_PROFILE = frozenset({"audiences", "badges", "metrics", "property_sets", "current_visit"})


def payload_of(hit: Hit) -> Any:
    """
    Return the hit's JSON: the body, or for GET the query parameter ``data``.

    Raises:
        Rejected: 400, there is none, or it is not JSON.
    """
    if hit.method != "GET":
        return json_body(hit.body)
    given = hit.params().get("data", "")
    if not given.strip():
        raise Rejected(
            "missing_payload",
            "The query parameter data is missing.",
            hint="Let the webhook send the entire event data; with GET it stands in data=.",
        )
    return json_body(given.encode("utf-8", "replace"))


def bodies_of(payload: Any) -> list[Any]:
    """
    Return the events of a payload: one object, an array, or ``{"shared": {…}, "events": […]}``.

    ``shared`` holds variables of every event, as in Tealium's bulk endpoint; an event's own win.

    Raises:
        Rejected: 400, no object or array, or nothing in it; 413, more than 1,000 events.
    """
    if isinstance(payload, dict):
        batch = payload.get("events")
        if not isinstance(batch, list) or "data" in payload or "tealium_event" in payload:
            return [payload]
        shared = payload.get("shared")
        if isinstance(shared, dict):
            batch = [{**shared, **item} if isinstance(item, dict) else item for item in batch[: MAX_EVENTS + 1]]
    elif isinstance(payload, list):
        batch = payload
    else:
        raise Rejected(
            "not_an_event", "The body is no JSON object or array.", hint="Send the entire event data as JSON."
        )
    if not batch:
        raise Rejected("empty_batch", "The batch has no events.", hint="Send at least one event.")
    if len(batch) > MAX_EVENTS:
        raise Rejected(
            "too_many_events", f"The batch has more than {MAX_EVENTS} events.", status=413, hint="Split the batch."
        )
    return batch


def is_profile(body: Mapping[str, Any]) -> bool:
    """Whether this is a visitor profile; asked only when no event name was found."""
    visitor = body.get("visitor")
    inner = visitor if isinstance(visitor, dict) else body
    return any(isinstance(inner.get(name), dict | list) for name in _PROFILE)
