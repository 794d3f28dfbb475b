"""The destination: one ad account of Pinterest."""

import asyncio
import builtins
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from gateway import (
    Answer,
    Batch,
    Context,
    Delivered,
    Destination,
    HttpClient,
    Identifiers,
    Paused,
    Quality,
    Refused,
    Retry,
    SealedEvent,
    Struct,
    Unclear,
    Unreachable,
    User,
    Verdict,
    identifiers,
)
from gateway.plugins.pinterest import payload
from gateway.plugins.pinterest.answer import verdict
from gateway.plugins.pinterest.objects import ConversionEvent, EventsRequest
from gateway.plugins.pinterest.options import PinterestOptions, check
from gateway.plugins.pinterest.people import hashed_user
from gateway.plugins.pinterest.quality import read_quality

#: Events encoded in one go.
_SLICE = 100


class Pinterest(Destination):
    """
    Sends sealed events to ``POST {base_url}/ad_accounts/{ad_account_id}/events``, up to 1,000 in a call.

    ``clock`` gives Unix seconds.

    Raises:
        ValueError: An option cannot work; see :func:`check`.
    """

    type: ClassVar[str] = "pinterest"
    Options: ClassVar[builtins.type[Struct]] = PinterestOptions
    options: PinterestOptions

    def __init__(self, name: str, options: Any, context: Context) -> None:
        super().__init__(name, options, context)
        check(self.options)
        self.custom_names = frozenset(self.options.event_names)
        self.clock = context.clock
        self._url = f"{self.options.base_url.rstrip('/')}/ad_accounts/{self.options.ad_account_id}/events"
        self._headers = {
            "authorization": f"Bearer {self.options.token.value.strip()}",
            "content-type": "application/json",
            "accept": "application/json",
        }

    def identifiers(self, user: User, default_country: str | None) -> Identifiers:
        """Return hashes under the API's field names; see :func:`hashed_user`."""
        return hashed_user(user, default_country)

    def refuse(self, event: SealedEvent, now: float) -> str | None:
        """Say ``no_identity`` or ``too_old``; None when the event can be sent."""
        if not payload.has_identity(event):
            return "no_identity"
        own = self.options.max_event_age_s
        max_age_s = self.default_max_age_s if own is None else own
        return "too_old" if max_age_s and now - event.event_time > max_age_s else None

    def encode(self, event: SealedEvent) -> ConversionEvent:
        """Return the event as the API takes it."""
        return payload.encode(event, self.options.partner_name)

    async def send(self, batch: Batch) -> Verdict:
        """Send one batch in one call; ``?test=true`` when the batch or the destination is for testing."""
        events: list[ConversionEvent] = []
        for start in range(0, len(batch.events), _SLICE):
            events += map(self.encode, batch.events[start : start + _SLICE])
            await asyncio.sleep(0)  # a thousand events at once would keep hits waiting
        try:
            answer = await self._post(events, test=batch.test or self.options.test)
        except Unreachable as error:
            return Retry(reason="unreachable", ambiguous=error.sent)
        return verdict(answer, len(events), self.clock())

    async def probe(self) -> str | None:
        """Send one artificial test event, which Pinterest validates and never records; None when it was taken."""
        try:
            answer = await self._post((self._probe_event(),), test=True)
        except Unreachable:
            host = urlsplit(self.options.base_url).hostname
            return (
                f"{host} cannot be reached: check base_url, the network, and whether a proxy or firewall is in between."
            )
        result = verdict(answer, 1, self.clock())
        if isinstance(result, Paused):
            return self._paused_words(answer.status)
        if isinstance(result, Retry | Unclear):
            return f"Pinterest answered {answer.status} ({result.reason}): it may pass; try again in a few minutes."
        first = result[0]
        if isinstance(first, Delivered):
            return None
        kind = "refused" if isinstance(first, Refused) else "could not take"
        return f"Pinterest {kind} a test event ({first.reason})."

    async def quality(self, lookback: str) -> Quality:
        """Ask for the event quality score of ``1d`` or ``14d``; needs a token with ``ads:read``."""
        return await read_quality(self.context.http, self.options, self.name, lookback)

    def _paused_words(self, status: int) -> str:
        where = f"[destinations.{self.name}]"
        account = self.options.ad_account_id
        if status == 401:
            return f"Pinterest does not accept the token (401): make a new one in Ads Manager and set {where} token."
        if status == 403:
            return (
                f"The token may not send events for ad account {account} (403): check {where} ad_account_id, and that "
                "the token's user owns the account or has the role Admin, Analyst, Audience or Campaign."
            )
        if status == 404:
            return f"Nothing is there (404): check {where} base_url and ad_account_id ({account})."
        if 300 <= status < 400:
            return f"The address redirects ({status}), which is not followed: check {where} base_url."
        return f"The answer was {status}, which Pinterest does not give: check {where} base_url."

    def _probe_event(self) -> ConversionEvent:
        now = int(self.clock())
        event = SealedEvent(
            event_id=f"tag-gateway-probe-{now}",
            event_name="page_visit",
            event_time=now,
            accepted_at=now,
            source="probe",
            site="probe",
            born="server",
            source_url="https://example.com/",
            user={"em": (identifiers.sha256("check@example.com"),)},
        )
        return self.encode(event)

    async def _post(self, events: Sequence[ConversionEvent], *, test: bool) -> Answer:
        http: HttpClient = self.context.http
        return await http.request(
            "POST",
            f"{self._url}?test=true" if test else self._url,
            headers=self._headers,
            content=msgspec.json.encode(EventsRequest(data=tuple(events))),
            timeout_s=self.options.timeout_s,
        )
