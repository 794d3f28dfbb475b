"""The page Health: each destination's verdict, what would change it, and what its vendor says."""

import time
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.operator import health
from gateway.operator.pages.framework import Pages
from gateway.operator.periods import NAMES, period_of
from gateway.operator.vitals import Vitals, report_of
from gateway.quality import Line

#: What a verdict is called and how it looks.
LOOKS = {"good": ("Good", "good"), "weak": ("Weak", "warn"), "few": ("Too few events", "neutral")}
#: The same for Pinterest's score.
SCORES = {"GOOD": ("Good", "good"), "FAIR": ("Fair", "warn"), "NEEDS_IMPROVEMENT": ("Needs improvement", "bad")}
#: Criteria as the heads of narrow columns.
SHORT = {"ip_ua": "IP + UA", "identity": "E-mail or MAID", "external_id": "External id", "overlap": "Tag overlap"}
_DAYS_SHOWN = 28


def routes(pages: Pages) -> list[Route]:
    """Return the page's route."""

    async def show(request: Request) -> Response:
        period = period_of(request.query_params.get("period"), pages.gateway.clock())
        report = await report_of(pages.gateway, period)
        return await pages.render(
            request,
            "health.html",
            report=report,
            period=period,
            periods=NAMES,
            looks=LOOKS,
            score_looks=SCORES,
            short=SHORT,
            plots={one.health.destination: plotted_history(one) for one in report.destinations},
            enough=health.ENOUGH,
            lower_funnel=sorted(health.LOWER_FUNNEL),
        )

    return [pages.route("/health", show)]


def plotted_history(vitals: Vitals) -> tuple[list[str], list[tuple[str, list[float], str]]] | None:
    """Return days and the mean coverage of a few components on each, None with fewer than two days."""
    lines = vitals.history[-_DAYS_SHOWN:]
    if len(lines) < 2:
        return None
    shown = (
        ("hashed_email", "e-mail address", "c1"), ("ip_address", "IP address", "c2"),
        ("advertiser_external_id", "external id", "c3"), ("click_id_epik", "click id", "c4"),
    )  # fmt: skip
    days = [time.strftime("%d %b", time.strptime(line.day, "%Y-%m-%d")) for line in lines]
    return days, [(label, _means(lines, name), kind) for name, label, kind in shown]


def _means(lines: Sequence[Line], name: str) -> list[float]:
    """Return one component's mean over the scores of each day, in percent."""
    found = []
    for line in lines:
        values = [score.components[name] for score in line.scores if name in score.components]
        found.append(round(sum(values) / len(values), 1) if values else 0.0)
    return found
