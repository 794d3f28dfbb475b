"""
The page *Test events*: a captured request or the next hit of a source, its steps, and the answer to it as a test.

What was captured stays in memory (:mod:`gateway.captures`) and is never shown as it came.
"""

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.captures import KEEP_S, MAX_BYTES, MOST_WATCHED, WATCH_S, Capture
from gateway.errors import ConfigError, PluginFailed, Rejected, Unavailable
from gateway.event import Struct
from gateway.explain import Explanation, explain, read_capture
from gateway.livestream import SHOWN, shorten
from gateway.operator.pages.framework import Pages
from gateway.operator.pages.stages import explained, payload_text
from gateway.pipeline import Route as Wired
from gateway.trial import MOST_EVENTS, Judgement

BASE = "/test-events"
_JUDGED: dict[Judgement, tuple[str, str]] = {
    "taken": ("taken", "good"),
    "refused": ("refused", "bad"),
    "later": ("not now: it may pass", "warn"),
    "unclear": ("the call was refused", "bad"),
    "paused": ("the account or token was refused", "bad"),
}
EXAMPLE = """{
  "hit": {
    "method": "POST",
    "headers": {"origin": "https://shop.example", "user-agent": "Mozilla/5.0"},
    "peer": "203.0.113.7",
    "body": {"event_name": "checkout", "event_id": "order-1001", "value": "19.90", "currency": "EUR"}
  }
}"""


class Said(Struct, frozen=True, kw_only=True):
    """One line of a table of results."""

    label: str
    kind: str
    event_name: str
    event_id: str
    destination: str
    words: str


class Testing:
    """The handlers."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._gateway = pages.gateway
        self._captures = pages.gateway.captures

    async def show(self, request: Request) -> Response:
        """Show the form, the sources that can be watched, and what is kept."""
        return await self._pages.render(
            request,
            "testing.html",
            sources=sorted(self._gateway.parts.routes),
            example=EXAMPLE,
            watched=dict(self._captures.watched),
            taken=self._captures.taken(),
            pasted=self._captures.pasted(),
            minutes=round(WATCH_S / 60),
            keep_minutes=round(KEEP_S / 60),
            most_bytes=MAX_BYTES,
        )

    async def state(self, _request: Request) -> Response:
        """Return for each watched source whether its hit came: the id of the capture, or "" while it is awaited."""
        taken = {name: one.id for name, one in self._captures.taken().items()}
        found = {**dict.fromkeys(self._captures.watched, ""), **taken}
        return Response(msgspec.json.encode(found), 200, {"Cache-Control": "no-store"}, "application/json")

    async def read(self, request: Request) -> Response:
        """Take a pasted request."""
        form = self._pages.form(request)
        content = form.get("capture", "").strip().encode("utf-8", "replace")
        if not content:
            raise ValueError("Nothing was pasted: put a captured request, or the bare body of one, into the field.")
        if len(content) > MAX_BYTES:
            raise ValueError(f"The capture is larger than {MAX_BYTES >> 20} MB.")
        route = self._route(form.get("source", ""))
        hit = read_capture(content, route, self._gateway.clock())
        kept = self._captures.paste(hit, verify=form.get("verify") == "yes")
        self._pages.note(request, "test_capture", detail=route.source.name)
        return self._pages.redirect(f"{BASE}/{kept.id}")

    async def watch(self, request: Request) -> Response:
        """Take the next hit of a source."""
        source = self._route(self._pages.form(request).get("source", "")).source.name
        if self._captures.watch(source) is None:
            raise ValueError(f"{MOST_WATCHED} sources are watched already: end one of them first.")
        self._pages.note(request, "test_watch", detail=source)
        return self._pages.redirect(BASE, f"The next hit of {source} will be shown here.")

    async def unwatch(self, request: Request) -> Response:
        """Watch a source no more."""
        source = self._route(self._pages.form(request).get("source", "")).source.name
        self._captures.unwatch(source)
        self._pages.note(request, "test_unwatch", detail=source)
        return self._pages.redirect(BASE)

    async def one(self, request: Request) -> Response:
        """Show the steps of a captured request, and what destinations said to it."""
        kept = self._captures.get(request.path_params["capture"])
        if kept is None:
            return await self._gone(request)
        explanation = await self._explained(kept)
        outcomes = [
            Said(
                label=one.fate, kind=SHOWN.get(one.fate, "neutral"), event_name=shorten(one.event_name),
                event_id=shorten(one.event_id), destination=one.destination or "",
                words=shorten(", ".join([one.reason or "", *one.notes]).strip(", "), 300),
            )
            for one in explanation.outcomes
        ]  # fmt: skip
        return await self._pages.render(
            request,
            "testing_one.html",
            kept=kept,
            stages=explained(kept.hit, explanation),
            error=explanation.error or "",
            outcomes=outcomes,
            payloads=[(str(one["destination"]), payload_text(one["event"])) for one in explanation.payloads],
            answers=_answers(kept),
            until=kept.at + KEEP_S,
            most=MOST_EVENTS,
        )

    async def send(self, request: Request) -> Response:
        """Send the events of a captured request as a test."""
        kept = self._captures.get(request.path_params["capture"])
        if kept is None:
            return await self._gone(request)
        route = self._route(kept.hit.source.name)
        kept.result, kept.problem, kept.tried_at = None, "", self._gateway.clock()
        try:
            kept.result = await self._gateway.trials.run(route, kept.hit, verify=kept.verify)
        except (Rejected, Unavailable) as error:
            kept.problem = _words(error)
        count = len(kept.result.tried) if kept.result is not None else 0
        self._pages.note(request, "test_send", count, route.source.name)
        return self._pages.redirect(f"{BASE}/{kept.id}")

    async def forget(self, request: Request) -> Response:
        """Forget a captured request before its time."""
        self._captures.forget(request.path_params["capture"])
        self._pages.note(request, "test_forget")
        return self._pages.redirect(BASE, "The request is forgotten.")

    async def _explained(self, kept: Capture) -> Explanation:
        try:
            route = self._route(kept.hit.source.name)
            return await explain(self._gateway.pipeline, route, kept.hit, verify=kept.verify, reply=kept.reply)
        except (Unavailable, ConfigError) as error:
            return Explanation(steps=(), error=_words(error))

    def _route(self, source: str) -> Wired:
        route = self._gateway.parts.routes.get(source)
        if route is None:
            raise ConfigError(f"There is no such source. Known are {', '.join(sorted(self._gateway.parts.routes))}.")
        return route

    async def _gone(self, request: Request) -> Response:
        told = f"Captured requests are kept for {round(KEEP_S / 60)} minutes, in memory only. Capture it again."
        return await self._pages.problem(request, 404, "This request is no longer here", told)


def _answers(kept: Capture) -> Sequence[Said]:
    """Return what came of the last test, event by event."""
    result = kept.result
    if result is None:
        return ()
    found = []
    for one in result.tried:
        label, kind = _JUDGED[one.result]
        found.append(
            Said(
                label=label, kind="warn" if kind == "good" and one.words else kind, event_name=shorten(one.event_name),
                event_id=shorten(one.event_id), destination=one.destination, words=shorten(one.words, 300),
            )
        )  # fmt: skip
    found += [
        Said(
            label="not sent", kind="neutral", event_name=shorten(one.event_name), event_id=shorten(one.event_id),
            destination=one.destination or "", words=one.reason,
        )
        for one in result.left
    ]  # fmt: skip
    return found


def _words(error: Rejected | Unavailable | ConfigError) -> str:
    if isinstance(error, Rejected):
        return f"{error.status} {error.reason}: {error.message} {error.hint}".strip()
    if isinstance(error, PluginFailed):
        return f"503 {error.reason}: the plugin '{error.plugin}' failed ({error.error} at {error.where})."
    return str(error)


def routes(pages: Pages) -> list[Route]:
    """Return the page's routes."""
    testing = Testing(pages)
    return [
        pages.route(BASE, testing.show),
        pages.route(f"{BASE}/state", testing.state),
        pages.route(f"{BASE}/read", testing.read, role="operator", methods=("POST",)),
        pages.route(f"{BASE}/watch", testing.watch, role="operator", methods=("POST",)),
        pages.route(f"{BASE}/unwatch", testing.unwatch, role="operator", methods=("POST",)),
        pages.route(f"{BASE}/{{capture}}", testing.one),
        pages.route(f"{BASE}/{{capture}}/send", testing.send, role="operator", methods=("POST",)),
        pages.route(f"{BASE}/{{capture}}/forget", testing.forget, role="operator", methods=("POST",)),
    ]
