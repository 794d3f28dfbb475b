"""What would turn a weak verdict: exact numbers, the sources that lack a signal, and what to do there. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from gateway.operator import health
from gateway.operator.health import Advice, Cells, Criterion, Health, Judged, Place, Step

if TYPE_CHECKING:
    from gateway.history import Rolled

#: Criterion to the count that it lacks, and what the events must carry.
_LACKING = {
    "ip_ua": ("delivered", "signal:ip_ua", "with IP address and user agent"),
    "identity": ("delivered", "signal:em_or_maid", "with an e-mail address (or mobile ad id)"),
    "external_id": ("delivered", "signal:external_id", "with an external id"),
    "overlap": ("tag_seen", "tag_met", "that the page's own tag reported, delivered under the same id"),
}
_AMONG = {"ip_ua": "events", "identity": "lower-funnel events", "external_id": "events", "overlap": "the tag's events"}
#: So many sources and events are named in one sentence.
_MOST_PARTS = 4

_CONNECTION = (
    (
        "The address and browser are those of the connection: see that the proxy writes X-Forwarded-For and is named "
        "in [server] trusted_proxies."
    ),
    "docs/operations.md#https-in-front",
)
#: (criterion, adapter, whether a server source; None: either) to what to do, and where that is described.
_STEPS: Mapping[tuple[str, str, bool | None], tuple[str, str]] = {
    ("ip_ua", "browser_tag", False): _CONNECTION,
    ("ip_ua", "browser_tag", True): (
        "Send the shopper's own address and browser as client.ip and client.user_agent of each event.",
        "docs/browser-tag.md#from-servers",
    ),
    ("ip_ua", "shopify_pixel", None): _CONNECTION,
    ("ip_ua", "shopify", None): (
        ("Orders from outside the online store have none. Run the custom pixel beside the webhooks: its hits complete "
        "the others."),
        "docs/shopify.md#custom-pixel",
    ),
    ("ip_ua", "gtm", None): (
        "Let the container pass ip_override and user_agent on; one that redacts addresses leaves events without them.",
        "docs/gtm.md#the-template",
    ),
    ("ip_ua", "tealium", None): (
        "Map client_ip and useragent in the connector.", "docs/tealium.md#the-connector",
    ),
    ("identity", "browser_tag", False): (
        'Call tg("user", { email: … }) wherever the page knows it: at the checkout, after a login, in a form.',
        "docs/browser-tag.md#from-pages",
    ),
    ("identity", "browser_tag", True): (
        "Send user.email, or user.mobile_ad_id of an app's events.", "docs/event.md#fields",
    ),
    ("identity", "shopify_pixel", None): (
        ("A page knows the e-mail only late in the checkout: run the webhooks beside the pixel, they complete its "
        "events."),
        "docs/shopify.md#webhooks",
    ),
    ("identity", "shopify", None): (
        "Shopify leaves personal fields out of webhooks whose app has no access to protected customer data.",
        "docs/shopify.md#by-an-app",
    ),
    ("identity", "gtm", None): (
        "Fill user_data.email_address (user-provided data) in the tag.", "adapters/gtm/README.md#fields",
    ),
    ("identity", "tealium", None): (
        "Map the e-mail address in the connector.", "docs/tealium.md#the-connector",
    ),
    ("external_id", "browser_tag", False): (
        'Call tg("user", { external_id: … }) with your id of the customer.', "docs/browser-tag.md#from-pages",
    ),
    ("external_id", "browser_tag", True): (
        "Send your id of the customer as user.external_id.", "docs/event.md#fields",
    ),
    ("external_id", "gtm", None): (
        "Fill user_data.external_id or user_id.", "adapters/gtm/README.md#fields",
    ),
    ("external_id", "tealium", None): (
        "Map your id of the customer in the connector.", "docs/tealium.md#the-connector",
    ),
    ("external_id", "shopify", None): (
        "Guests have no customer id; the custom pixel's visitor id completes their orders.",
        "docs/shopify.md#custom-pixel",
    ),
}  # fmt: skip
_OVERLAP_STEP = (
    (
        "Pinterest's own tag fired with ids that were not delivered: see what became of them on the pages "
        "Deduplication and Deliveries."
    ),
    "docs/browser-tag.md#pinterests-own-tag",
)


def health_of(
    rolled: Iterable["Rolled"], places: Mapping[str, Place], match_rates: Mapping[str, float | None]
) -> list[Health]:
    """
    Return the health of each destination of ``match_rates``, and of any other that has roll-ups.

    Args:
        rolled: Of the kinds :data:`gateway.operator.health.WHATS`.
        places: The configured sources by name; ``match_rates``: the configured destinations by name.
    """
    found = health.cells_of(rolled)
    return [
        _health(name, found.get(name, {}), places, match_rates.get(name))
        for name in [*match_rates, *sorted(found.keys() - match_rates.keys())]
    ]


def _health(destination: str, cells: Cells, places: Mapping[str, Place], match_rate: float | None) -> Health:
    def judged(source: str | None = None, event: str | None = None) -> Judged:
        found = health.judge(cells, match_rate if source is event is None else None, source=source, event=event)
        return _advised(found, cells, places, match_rate) if found.status == "weak" else found

    keys = [key for key, counts in sorted(cells.items()) if counts.get("delivered") or counts.get("tag_seen")]
    return Health(
        destination=destination,
        total=judged(),
        sources=tuple(judged(source=one) for one in dict.fromkeys(source for source, _ in keys)),
        events=tuple(judged(event=one) for one in sorted({event for _, event in keys})),
        parts=tuple(health.judge(cells, source=source, event=event) for source, event in keys),
    )


def _advised(judged: Judged, cells: Cells, places: Mapping[str, Place], match_rate: float | None) -> Judged:
    scope = {
        key: counts
        for key, counts in cells.items()
        if judged.source in (None, key[0]) and judged.event in (None, key[1])
    }
    advice = [_for(one, scope, places) for one in judged.criteria if one.met is False and one.name in _LACKING]
    overlap_met = all(one.met is not False for one in judged.criteria if one.name == "overlap")
    if judged.source is judged.event is None and match_rate is None and advice:
        also = "" if overlap_met else " together with the overlap"
        text = (
            f"Or: a match rate of {health.MATCH_RATE} % or more is good too{also} (option 2). "
            "Pinterest shows it in Ads Manager only; enter it as match_rate of the destination."
        )
        advice.append(Advice(criterion="match_rate", missing=0, text=text))
    return msgspec.structs.replace(judged, advice=tuple(advice))


def _for(criterion: Criterion, cells: Cells, places: Mapping[str, Place]) -> Advice:
    """Say what meets one criterion, asking first where the most is lacking."""
    of_name, have_name, carrying = _LACKING[criterion.name]
    lacking = sorted(
        (
            (counts.get(of_name, 0) - counts.get(have_name, 0), source, event)
            for (source, event), counts in cells.items()
            if criterion.name != "identity" or event in health.LOWER_FUNNEL
        ),
        key=lambda one: (-one[0], one[1], one[2]),
    )
    missing = -(-criterion.of * criterion.needed // 100) - criterion.have
    parts, left = [], missing
    for lacks, source, event in lacking:
        if left > 0 and lacks > 0:
            parts.append((min(left, lacks), lacks, source, event))
            left -= parts[-1][0]
    return Advice(
        criterion=criterion.name,
        missing=missing,
        text=_sentence(criterion, parts, missing, carrying),
        steps=_steps(criterion.name, [source for _, _, source, _ in parts], places),
    )


def _sentence(criterion: Criterion, parts: Sequence[tuple[int, int, str, str]], missing: int, carrying: str) -> str:
    named = [
        f"+{number:,} {event} {'event' if number == 1 else 'events'} {carrying} from the source '{source}' "
        f"({lacks:,} of its {event} events lack it)"
        for number, lacks, source, event in parts[:_MOST_PARTS]
    ]
    if len(parts) > _MOST_PARTS:
        named.append(f"+{sum(part[0] for part in parts[_MOST_PARTS:]):,} of other sources and events")
    then = health.percent_of(criterion.have + missing, criterion.of)
    among = _AMONG[criterion.name]
    verb = "lifts" if missing == 1 and len(parts) == 1 else "lift"
    return (
        f"{_listed(named)} {verb} {criterion.label} from {criterion.percent:.1f} % to {then:.1f} % of {among} "
        f"({criterion.have:,} of {criterion.of:,} have it, {criterion.needed} % are needed)."
    )


def _steps(criterion: str, sources: Sequence[str], places: Mapping[str, Place]) -> tuple[Step, ...]:
    steps = []
    for source in dict.fromkeys(sources):
        place = places.get(source)
        adapter = place.adapter if place else ""
        text, doc = _OVERLAP_STEP if criterion == "overlap" else _step(criterion, place)
        steps.append(Step(source=source, adapter=adapter, text=text, doc=doc))
    return tuple(steps[:_MOST_PARTS])


def _step(criterion: str, place: Place | None) -> tuple[str, str]:
    if place is None:
        return "This source is no longer configured; its events leave the period by themselves.", "docs/operations.md"
    for is_server in (place.is_server, None):
        found = _STEPS.get((criterion, place.adapter, is_server))
        if found:
            return found
    return f"See the documents of the adapter '{place.adapter}'.", "docs/event.md#fields"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
