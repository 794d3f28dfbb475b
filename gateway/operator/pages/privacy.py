"""The page Privacy: limited data, refused consent, what is kept where, and erasing a person."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.operator import limits, persons
from gateway.operator.pages.framework import Pages
from gateway.operator.pages.keeping import kept_rows
from gateway.operator.periods import NAMES, period_of
from gateway.operator.persons import PersonQuery

#: The longest identifier that the form takes.
_LONGEST = 320


def routes(pages: Pages) -> list[Route]:
    """Return the page's routes: the page, what would be erased, the erasure."""

    async def show(request: Request) -> Response:
        gateway = pages.gateway
        period = period_of(request.query_params.get("period"), gateway.clock())
        rolled = await gateway.outbox.history(period.since, period.until, by="all", whats=limits.WHATS)
        return await pages.render(
            request,
            "privacy.html",
            figures=limits.privacy_of(rolled),
            period=period,
            periods=NAMES,
            kept=kept_rows(gateway.parts.config),
            sites=_sites(pages),
        )

    async def look(request: Request) -> Response:
        query = _query(pages.form(request))
        holdings = await persons.holdings_of(pages.gateway, query)
        return await pages.render(request, "erase.html", query=query, holdings=holdings)

    async def erase(request: Request) -> Response:
        form = pages.form(request)
        if form.get("sure") != "yes":
            raise ValueError("Tick the box: an erasure cannot be taken back.")
        erased = await persons.erase(pages.gateway, _query(form))
        pages.note(request, "erase", count=erased)
        told = f"Erased: {erased} {'event' if erased == 1 else 'events'}, and what was remembered of that person."
        return pages.redirect("/privacy", told)

    return [
        pages.route("/privacy", show),
        pages.route("/privacy/look", look, role="operator", methods=("POST",)),
        pages.route("/privacy/erase", erase, role="operator", methods=("POST",)),
    ]


def _sites(pages: Pages) -> list[str]:
    return sorted({route.source.site for route in pages.gateway.parts.routes.values()})


def _query(form: Mapping[str, str]) -> PersonQuery:
    given = {name: form.get(name, "").strip() or None for name in ("email", "phone", "external_id", "site")}
    for name, value in given.items():
        if value is not None and len(value) > _LONGEST:
            raise ValueError(f"{name} is longer than {_LONGEST} characters.")
    return PersonQuery(**given)
