"""The page Deduplication: what came in, what was a copy of what, and two detectors of ids that are wrong."""

import time
from collections.abc import Sequence
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.detectors import CLIENTS
from gateway.operator import dedup
from gateway.operator.dedup import Moment
from gateway.operator.pages.framework import Pages
from gateway.operator.periods import NAMES, Period, period_of

_MOST_ROWS = 200
_STEPS = {"hour": 3_600, "day": 86_400}
Series = list[tuple[str, list[int], str]]


def routes(pages: Pages) -> list[Route]:
    """Return the page's route."""

    async def show(request: Request) -> Response:
        gateway = pages.gateway
        period = period_of(request.query_params.get("period"), gateway.clock())
        step: Literal["hour", "day"] = "hour" if period.by == "hour" else "day"
        rolled = await gateway.outbox.history(period.since, period.until, by=step, whats=dedup.WHATS)
        sites = {name: route.source.site for name, route in gateway.parts.routes.items()}
        found = dedup.deduplication_of(rolled, sites)
        labels, series = plotted(found.moments, period)
        return await pages.render(
            request,
            "deduplication.html",
            found=found,
            flows=found.flows[:_MOST_ROWS],
            pairs=found.pairs[:_MOST_ROWS],
            left=max(0, len(found.flows) - _MOST_ROWS) + max(0, len(found.pairs) - _MOST_ROWS),
            shared=gateway.detectors.shared(),
            labels=labels,
            series=series,
            period=period,
            periods=NAMES,
            clients=CLIENTS,
            enough=dedup.ENOUGH,
            meeting=dedup.MEETING,
        )

    return [pages.route("/deduplication", show)]


def plotted(moments: Sequence[Moment], period: Period) -> tuple[list[str], Series]:
    """Return the labels of every hour or day of the period, and the series over them; an hour without events is 0."""
    step = _STEPS[period.by]
    first, last = int(period.since) // step, int(period.until) // step
    by_start = {one.start // step: one for one in moments}
    none = Moment(start=0)
    steps = [by_start.get(number, none) for number in range(first, last + 1)]
    form = "%H:%M" if period.by == "hour" else "%d %b"
    labels = [time.strftime(form, time.gmtime(number * step)) for number in range(first, last + 1)]
    return labels, [
        ("Unique", [one.unique for one in steps], "c1"),
        ("Merged", [one.merged for one in steps], "c2"),
        ("Duplicate", [one.duplicate for one in steps], "c3"),
    ]
