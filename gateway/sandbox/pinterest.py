"""The local stand-in of the Pinterest Conversions API: `POST /v5/ad_accounts/{ad_account_id}/events`.

It accepts and refuses what Pinterest's OpenAPI description v5.23.0 says, counts conversions as Pinterest
would, and fails as its script (`faults.py`) tells it to. It needs no account, and nothing leaves the machine.
"""

import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.routing import Route

from gateway.sandbox import answers
from gateway.sandbox.answers import PROCESSED, Answer, EventStatus, Report
from gateway.sandbox.audience_control import audience_control_routes
from gateway.sandbox.audiences import AudienceSandbox
from gateway.sandbox.calls import Log
from gateway.sandbox.control import control_routes
from gateway.sandbox.endpoint import Call, EventsEndpoint
from gateway.sandbox.faults import Fault, Faults
from gateway.sandbox.klaviyo import KlaviyoSandbox
from gateway.sandbox.quality import quality_route
from gateway.sandbox.record import Record
from gateway.sandbox.rules import event_error, event_warning, hashes_sound
from gateway.sandbox.schema import Event, InvalidRequest, decode_events, raw_events
from gateway.sandbox.script import Script

_ACCOUNT: Final = re.compile(r"[0-9]{1,18}")
_MINUTE: Final = 60.0


class SandboxConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How the sandbox behaves.

    Args:
        tokens: Bearer tokens that are valid at the start.
        conversion_tokens: Those of them that may send events and nothing else, as one of Ads Manager.
        ad_accounts: Accounts that the tokens may use; `None`: any (of 1 to 18 digits).
        event_names: Advertiser-defined event names: they get no warning.
        rate: Calls a minute for each ad account before 429; `None`: no limit (Pinterest's: 5,000).
        retry_after: Whether a 429 names the seconds to wait (Pinterest documents no such header).
        clock_skew_s: How far in the future, in seconds, an event_time may lie.
        late_s: An event older than this on receipt, in seconds, is classed offline, thus not deduplicated
            (Pinterest's help page on the Conversions API: one hour); 0: never.
        dedup_window_s: See `Record`.
        keep: See `Record`.
        keep_ids: See `Record`.
        path: File of the record, see `Record`; `None`: memory only.
        max_body: Largest request body, in bytes; a larger one is answered 413.
        klaviyo_keys: Private keys of the stand-in of Klaviyo.
    """

    tokens: tuple[str, ...] = ("sandbox-token",)
    conversion_tokens: frozenset[str] = frozenset()
    ad_accounts: frozenset[str] | None = None
    event_names: frozenset[str] = frozenset()
    rate: int | None = None
    retry_after: bool = True
    clock_skew_s: float = 60.0
    late_s: float = 3600.0
    dedup_window_s: float = 172_800.0
    keep: int = 10_000
    keep_ids: bool = True
    path: str | None = None
    max_body: int = 16_777_216
    klaviyo_keys: tuple[str, ...] = ("sandbox-klaviyo-key",)


class PinterestSandbox:
    """One stand-in of Pinterest, for tests in process, for the demo and for benchmarks.

    Attributes: `app` (the ASGI application, of the other stand-ins too), `faults` (the script), `record` (what was
    received), `tests` (the same for `?test=true`), `tokens` (the valid ones now), `config`; `audiences` and `klaviyo`
    (the stand-ins of lists), with `script` (their faults) and `log` (their calls).

    Args:
        config: See `SandboxConfig`.
        clock: Unix seconds now; frozen in tests.
    """

    def __init__(self, config: SandboxConfig | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.config = config = config or SandboxConfig()
        self.tokens: set[str] = set(config.tokens)
        self.faults = Faults()
        self.record = Record(
            keep=config.keep,
            keep_ids=config.keep_ids,
            window_s=config.dedup_window_s,
            path=None if config.path is None else Path(config.path),
        )
        self.tests = Record(keep=config.keep, keep_ids=config.keep_ids, window_s=config.dedup_window_s)
        self._clock = clock
        self._minutes: dict[str, tuple[float, int]] = {}
        self.script, self.log = Script(), Log()
        self.audiences = AudienceSandbox(
            clock, script=self.script, log=self.log, tokens=lambda: self.tokens, accounts=config.ad_accounts,
            sending=config.conversion_tokens,
        )  # fmt: skip
        self.klaviyo = KlaviyoSandbox(clock, script=self.script, log=self.log, keys=config.klaviyo_keys)
        events = Route("/v5/ad_accounts/{ad_account_id}/events", EventsEndpoint(self), methods=["POST"])
        lists = [*self.audiences.routes, *self.klaviyo.routes, *audience_control_routes(self), quality_route(self)]
        self.app = Starlette(routes=[events, *control_routes(self), *lists])

    def revoke(self, token: str | None = None) -> None:
        """Refuse this token, or every one, with 401 from now on."""
        self.tokens.difference_update(self.tokens if token is None else {token})

    def restore(self, token: str | None = None) -> None:
        """Accept this token (a new one too), or those of the configuration, from now on."""
        self.tokens.update(self.config.tokens if token is None else {token})

    def reset(self) -> None:
        """Go back to the start: no records, no faults, the configured tokens."""
        self.faults.clear()
        self.record.clear()
        self.tests.clear()
        self._minutes.clear()
        self.tokens = set(self.config.tokens)
        self.script.clear()
        self.log.clear()
        self.audiences.reset()
        self.klaviyo.reset()

    def answer(self, call: Call, partial: Fault | None = None) -> Answer:
        """Process one call: check it, record its good events, and return the answer.

        Args:
            call: The call, read in full.
            partial: A fault of kind `partial`: events that fail although they are good.
        """
        if refusal := self._refusal(call):
            return refusal
        try:
            events = decode_events(call.body)
        except InvalidRequest as error:
            return self._refused(answers.error(400, str(error)))
        now = self._clock()
        report, failed = self._report(events, now, partial)
        record = self.tests if call.test == "true" else self.record
        late_before = now - self.config.late_s if self.config.late_s else 0.0
        record.add(call.ad_account_id, events, raw_events(call.body), failed, late_before=late_before, now=now)
        if partial is not None and failed:
            return answers.reported(report, partial.code, listed=partial.listed, headers=partial.headers)
        return answers.reported(report, 422 if failed else 200)

    def _refusal(self, call: Call) -> Answer | None:
        scheme, _, token = call.authorization.partition(" ")
        token = token.strip()
        is_valid = token in self.tokens or self.audiences.grants.access(token) is not None
        if scheme.lower() != "bearer" or not is_valid:
            return self._refused(answers.error(401))
        if not _ACCOUNT.fullmatch(call.ad_account_id):
            return self._refused(answers.error(400, "Invalid request: ad_account_id is not 1 to 18 digits"))
        if self.config.ad_accounts is not None and call.ad_account_id not in self.config.ad_accounts:
            return self._refused(answers.error(403))
        if wait := self._over_rate(call.ad_account_id):
            return answers.error(429, headers={"retry-after": str(wait)} if self.config.retry_after else {})
        if call.test not in {"", "true", "false"}:
            return self._refused(answers.error(400, "Invalid request: test is not a boolean"))
        return None

    def _refused(self, answer: Answer) -> Answer:
        self.record.refusals.append(f"{answer.status} {msgspec.json.decode(answer.content)['message']}")
        return answer

    def _over_rate(self, ad_account_id: str) -> int:
        """Return the whole seconds until a call is allowed again, or 0."""
        if self.config.rate is None:
            return 0
        now = self._clock()
        start, calls = self._minutes.get(ad_account_id, (now, 0))
        if now - start >= _MINUTE:
            start, calls = now, 0
        self._minutes[ad_account_id] = (start, calls + 1)
        return max(1, math.ceil(start + _MINUTE - now)) if calls >= self.config.rate else 0

    def _report(self, events: list[Event], now: float, partial: Fault | None) -> tuple[Report, set[int]]:
        latest = now + self.config.clock_skew_s
        own_names = self.config.event_names
        sound = hashes_sound(events)
        statuses: list[EventStatus] = []
        failed: set[int] = set()
        for index, event in enumerate(events):
            error = event_error(event, latest, sound=sound)
            if partial is not None and not error and _hit(partial, index, event):
                error = "scripted failure"
            if error:
                failed.add(index)
                statuses.append(EventStatus(status="failed", error_message=error))
            elif warning := event_warning(event, own_names):
                statuses.append(EventStatus(warning_message=warning))
            else:
                statuses.append(PROCESSED)
        processed = len(events) - len(failed)
        return Report(num_events_received=len(events), num_events_processed=processed, events=statuses), failed


def _hit(partial: Fault, index: int, event: Event) -> bool:
    if not partial.indexes and not partial.event_ids:
        return True
    return index in partial.indexes or event.event_id in partial.event_ids
