"""Dead letters one by one: listed, shown as they would be sent today, replayed and discarded."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.audiences.jobs import JobState, Tell
from gateway.operator.pages.framework import Pages
from gateway.operator.reasons import meaning_of
from gateway.operator.rehearsal import LOOKED_AT, rehearse, verdicts
from gateway.operator.veil import veiled
from gateway.outbox import DeadFilter, DeadLetter, Replayed
from gateway.outbox.census import DeadPage, Letters, parts_of

_PAGE = 50
_EXAMPLES = 3
#: The longest a change is waited for before the browser is led to a page that tells how far it is.
_WAIT_S = 8.0
_FIELDS = ("destination", "code", "reason", "event_name", "source")
_LONGEST = 500


class LetterPages:
    """The pages."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._gateway = pages.gateway
        self._letters = Letters(pages.gateway.parts.config.store_path)

    async def list(self, request: Request) -> Response:
        """List those that match, newest first."""
        which = _filter(request.query_params)
        found = await self._letters.newest(which, limit=_PAGE, after=request.query_params.get("after"))
        rows = [(letter, *parts_of(letter.reason)) for letter in found.letters]
        following = _query(which, after=found.after) if found.after is not None else None
        return await self._pages.render(
            request, "letters.html", which=which, rows=rows, page=found, query=_query(which), following=following,
            destinations=sorted(self._gateway.parts.destinations), sources=sorted(self._gateway.parts.routes),
            meaning=meaning_of(which.code) if which.code else None,
        )  # fmt: skip

    async def show(self, request: Request) -> Response:
        """Show one: what it is, why it is dead, and what would be sent today."""
        unit = request.path_params["unit"]
        letters = await self._gateway.outbox.dead(DeadFilter(units=(unit,)), limit=1)
        if not letters:
            return await self._pages.problem(
                request, 404, "There is no such dead letter", "It was replayed, discarded, or kept for long enough."
            )
        letter = letters[0]
        code, words = parts_of(letter.reason)
        destination = self._gateway.parts.destinations.get(letter.destination)
        rehearsal = await asyncio.to_thread(rehearse, letter, destination, self._gateway.clock())
        return await self._pages.render(
            request, "letter.html", letter=letter, code=code, words=words, meaning=meaning_of(code),
            rehearsal=rehearsal, event=_kept(letter.event),
        )  # fmt: skip

    async def preview(self, request: Request) -> Response:
        """Show what a replay would send, or what discarding would delete."""
        what = request.path_params["what"]
        if what not in ("replay", "discard"):
            raise ValueError("Dead letters can be replayed and discarded, and nothing else.")
        which = _filter({**request.query_params, "until": repr(self._gateway.clock())})
        found = await self._found(which)
        now, destinations = self._gateway.clock(), self._gateway.parts.destinations
        counted = await asyncio.to_thread(verdicts, found.letters, destinations, now)
        examples = [rehearse(one, destinations.get(one.destination), now) for one in _examples(found.letters)]
        return await self._pages.render(
            request, "letters_preview.html", what=what, which=which, fields=_fields(which),
            count=len(found.letters), is_all=found.after is None, counted=counted.most_common(), examples=examples,
            query=_query(which), meaning=meaning_of,
        )  # fmt: skip

    async def _found(self, which: DeadFilter) -> DeadPage:
        if which.units:
            return DeadPage(letters=tuple(await self._gateway.outbox.dead(which, limit=1)))
        return await self._letters.newest(which, limit=LOOKED_AT)

    async def replay(self, request: Request) -> Response:
        """Queue letters again; each once, however often the button is pressed."""
        which = self._meant(request)
        return await self._run(request, "replay", which, lambda: self._gateway.outbox.replay(which))

    async def discard(self, request: Request) -> Response:
        """Delete letters for good."""
        which = self._meant(request)
        return await self._run(request, "discard", which, lambda: self._gateway.outbox.discard(which))

    def _meant(self, request: Request) -> DeadFilter:
        """Return the letters of a form: one, or those that a preview showed; never all there are by mistake."""
        which = _filter(self._pages.form(request))
        if not which.units and which.until is None:
            raise ValueError("Say which dead letters: begin at their list.")
        return which

    async def _run(
        self, request: Request, what: str, which: DeadFilter, change: Callable[[], Awaitable[Any]]
    ) -> Response:
        async def work(_tell: Tell) -> str:
            done = await change()
            count = done.queued if isinstance(done, Replayed) else done
            self._pages.note(request, what, count, _described(which))
            return _told(done)

        jobs = self._gateway.audiences.jobs
        state = await jobs.look(jobs.start(work), _WAIT_S)
        if state.state == "running":
            return self._pages.redirect(f"/deliveries/jobs/{state.id}")
        return self._pages.redirect("/deliveries", state.error or state.result)

    async def job(self, request: Request) -> Response:
        """Tell how far a long change is; the page comes again by itself."""
        state: JobState = await self._gateway.audiences.jobs.look(request.path_params["job"])
        answer = await self._pages.render(
            request, "letters_job.html", state=state, told=state.result if isinstance(state.result, str) else ""
        )
        if state.state == "running":
            answer.headers["Refresh"] = "2"
        return answer


def _examples(letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Return the newest letter of each of the first few wordings."""
    found: dict[str, DeadLetter] = {}
    for letter in letters:
        found.setdefault(letter.reason, letter)
        if len(found) == _EXAMPLES:
            break
    return list(found.values())


def _filter(given: Mapping[str, str]) -> DeadFilter:
    """
    Return the letters that a form or an address means.

    Raises:
        ValueError: A value is too long, or no time.
    """
    values: dict[str, Any] = {name: given[name] for name in _FIELDS if given.get(name)}
    if any(len(value) > _LONGEST for value in values.values()):
        raise ValueError("A field of the search is too long.")
    if given.get("unit"):
        values = {"units": (given["unit"],)}
    if given.get("until"):
        values["until"] = msgspec.convert(given["until"], float, strict=False)
    return DeadFilter(**values)


def _fields(which: DeadFilter) -> dict[str, str]:
    """Return the hidden fields of a form that mean the same letters."""
    found = {name: value for name in _FIELDS if (value := getattr(which, name))}
    if which.units:
        found = {"unit": which.units[0]}
    return found if which.until is None else {**found, "until": repr(which.until)}


def _query(which: DeadFilter, **more: str | None) -> str:
    found = {name: value for name, value in _fields(which).items() if name != "until"}
    return urlencode({**found, **{name: value for name, value in more.items() if value is not None}})


def _described(which: DeadFilter) -> str:
    """Return what the audit log says of a choice: a vendor's wording stays out of it."""
    found = {name: value for name, value in _fields(which).items() if name not in ("until", "reason")}
    if which.reason:
        found["code"] = parts_of(which.reason)[0]
    return ", ".join(f"{name} {value}" for name, value in found.items()) or "all"


def _told(done: Replayed | int) -> str:
    if not isinstance(done, Replayed):
        return "Nothing was left to discard." if not done else f"Discarded {_letters(done)}, for good."
    text = f"Queued {_letters(done.queued)} again." if done.queued else "Nothing was left to replay."
    if done.duplicates:
        stayed = _letters(len(done.duplicates))
        text += f" {stayed} stayed: the same order was delivered meanwhile under another event."
    return text


def _letters(count: int) -> str:
    return "one dead letter" if count == 1 else f"{count:,} dead letters"


def _kept(event: Any) -> dict[str, Any]:
    """Return what of the stored event the payload does not say, masked."""
    return {
        "event id": event.event_id if len(event.event_id) <= 100 else f"{event.event_id[:100]}…",
        "event": event.event_name,
        "source": event.source,
        "site": event.site,
        "seen by": "a server" if event.born == "server" else "a browser",
        "URL": veiled(event.source_url) if event.source_url else "none",
        "limited data": "yes" if event.limited_data else "no",
    }


def letter_routes(pages: Pages) -> list[Route]:
    """Return the routes."""
    letters = LetterPages(pages)
    base = "/deliveries"
    return [
        pages.route(f"{base}/dead", letters.list),
        pages.route(f"{base}/dead/{{unit}}", letters.show),
        pages.route(f"{base}/preview/{{what:str}}", letters.preview),
        pages.route(f"{base}/jobs/{{job}}", letters.job),
        pages.route(f"{base}/replay", letters.replay, role="operator", methods=("POST",)),
        pages.route(f"{base}/discard", letters.discard, role="operator", methods=("POST",)),
    ]
