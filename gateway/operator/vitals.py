"""The health of each destination, with what its vendor says: for ``/api/health``, the command and the page."""

from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.event import Struct
from gateway.operator import advice, health
from gateway.operator.health import Health, Place
from gateway.operator.periods import Period, period_of
from gateway.quality import Known, Line
from gateway.runtime import Gateway

Handler = Callable[[Request], Awaitable[Response]]
#: Of one component over all events.
_MOST_ISSUES = 3

#: Components of Pinterest's event quality score (OpenAPI 5.23.0, ``QualityComponents``): in words, and under which name
#: roll-ups count the same.
COMPONENTS = {
    "hashed_email": ("e-mail address", "em"),
    "hashed_maid": ("mobile ad id", "hashed_maids"),
    "ip_address": ("IP address", "client_ip"),
    "user_agent": ("user agent", "client_user_agent"),
    "click_id_epik": ("click id", "click_id"),
    "advertiser_external_id": ("external id", "external_id"),
    "external_event_id": ("event id", "delivered"),
    "order_id": ("order id", "order_id"),
    "order_value": ("value", "value"),
    "product_id": ("products", "items"),
    "source_url": ("page address", "source_url"),
}


class Beside(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One component of the events of one name: what the vendor measured and what we counted, in percent."""

    component: str
    label: str
    event: str
    theirs: float
    ours: float | None
    overlap: float | None
    issues: tuple[str, ...]


class Compared(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One of the vendor's scores beside our figures: means over the names of events, and in ``rows`` each of them."""

    status: str
    platform: str
    ingestion: str
    lookback: str
    means: tuple[Beside, ...]
    rows: tuple[Beside, ...]


class Vitals(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One destination: our verdict, the vendor's scores (``problem``: why there are none) and their history."""

    health: Health
    scores: tuple[Compared, ...] = ()
    scores_at: float | None = None
    problem: str | None = None
    history: tuple[Line, ...] = ()


class HealthReport(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """All destinations over one period."""

    period: Period
    destinations: tuple[Vitals, ...]


async def report_of(gateway: Gateway, period: Period, destination: str | None = None) -> HealthReport:
    """
    Return the report.

    Raises:
        ValueError: There is no such destination.
        Unavailable: The store cannot be read.
    """
    known = gateway.parts.destinations
    if destination is not None and destination not in known:
        raise ValueError(f"destination: there is none called '{destination}'; known are {', '.join(sorted(known))}.")
    rolled = await gateway.outbox.history(
        period.since, period.until, by="all", whats=health.WHATS, destination=destination
    )
    places = {
        name: Place(adapter=route.source.adapter, is_server=route.source.is_server)
        for name, route in gateway.parts.routes.items()
    }
    rates = {
        name: getattr(one.options, "match_rate", None) for name, one in known.items() if destination in (None, name)
    }
    cells = health.cells_of(rolled)
    found = [
        await _vitals(gateway, one, cells.get(one.destination, {})) for one in advice.health_of(rolled, places, rates)
    ]
    return HealthReport(period=period, destinations=tuple(found))


async def _vitals(gateway: Gateway, one: Health, cells: health.Cells) -> Vitals:
    known = await gateway.quality.known(one.destination)
    history = tuple(gateway.quality.history(one.destination))
    if known is None:
        return Vitals(health=one, history=history)
    return Vitals(
        health=one,
        scores=_compared(known, cells),
        scores_at=known.at,
        problem=known.quality.problem,
        history=history,
    )


def _compared(known: Known, cells: health.Cells) -> tuple[Compared, ...]:
    by_event: dict[str, dict[tuple[str, str], health.Counts]] = {}
    for (source, event), counts in cells.items():
        by_event.setdefault(event, {})[source, event] = counts
    found = []
    for score in known.quality.scores:
        rows = []
        for one in score.components:
            label, name = COMPONENTS.get(one.name, (one.name, ""))
            ours = by_event.get(one.event, {})
            have = health.total_of(ours, name if name == "delivered" else f"signal:{name}")
            rows.append(
                Beside(
                    component=one.name, label=label, event=one.event, theirs=one.coverage,
                    ours=health.percent_of(have, health.total_of(ours, "delivered")) if name else None,
                    overlap=one.overlap, issues=one.issues,
                )
            )  # fmt: skip
        found.append(
            Compared(
                status=score.status, platform=score.platform, ingestion=score.ingestion, lookback=score.lookback,
                means=tuple(_means(rows)),
                rows=tuple(rows),
            )
        )  # fmt: skip
    return tuple(found)


def _means(rows: Sequence[Beside]) -> Iterator[Beside]:
    """Give each component's mean over the names of events, ours over the same names as theirs."""
    by_component: dict[str, list[Beside]] = {}
    for row in rows:
        by_component.setdefault(row.component, []).append(row)
    for found in by_component.values():
        yield msgspec.structs.replace(
            found[0], event="", theirs=_mean([row.theirs for row in found]) or 0.0,
            ours=_mean([row.ours for row in found if row.ours is not None]),
            overlap=_mean([row.overlap for row in found if row.overlap is not None]),
            issues=tuple(dict.fromkeys(issue for row in found for issue in row.issues))[:_MOST_ISSUES],
        )  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 1) if values else None


def health_routes(gateway: Gateway, guarded: Callable[[Handler], Handler]) -> list[Route]:
    """Return ``GET /api/health``; ``guarded`` turns errors into answers."""

    async def show(request: Request) -> Response:
        params = dict(request.query_params)
        period = period_of(params.pop("period", None), gateway.clock())
        destination = params.pop("destination", None)
        if params:
            raise ValueError(f"{min(params)!r} is no parameter; known are period, destination.")
        report = await report_of(gateway, period, destination)
        return Response(msgspec.json.encode(report), 200, {"Cache-Control": "no-store"}, "application/json")

    return [Route("/api/health", guarded(show), methods=["GET"])]
