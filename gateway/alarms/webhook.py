"""
Telling of alarms: one POST for each, to the address of ``[alerts]``.

What is due follows from what is up and what the receiver was told, so nothing queues up: however long the receiver is
away, it is told what holds when it is back.
"""

import logging
import random
import re
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Literal

import msgspec

from gateway.alarms import Alarm, Alarms
from gateway.alarms.journal import Told
from gateway.alarms.kinds import kind_of
from gateway.alarms.receiver import Receiver
from gateway.interfaces import HttpClient, Unreachable

_log = logging.getLogger("gateway.alarms")
#: An alarm that comes back sooner than this never went, for the receiver.
SETTLE_S = 600.0
#: Messages in an hour at most.
MOST_AN_HOUR = 30
_HOUR_S = 3_600.0
_TIMEOUT_S = 10.0
_MAX_BYTES = 65_536
_BASE_S, _CAP_S = 5.0, 900.0
#: So many failures in a row are an alarm.
_FAILING = 3
_LONGEST = 1_000
#: What a chat would take for markup, and what breaks lines.
_MARKUP = re.compile(r"[<>\x00-\x1f\x7f-\x9f\u2028\u2029]+")

State = Literal["raised", "cleared"]


class Webhook:
    """
    Tells one receiver.

    Args:
        http: The outgoing client.
        clock: Wall time, Unix seconds.
        alarms: What is up, and what was told.
        receiver: Returns the one of the current configuration.
    """

    def __init__(
        self, http: HttpClient, clock: Callable[[], float], alarms: Alarms, receiver: Callable[[], Receiver]
    ) -> None:
        self._http = http
        self._clock = clock
        self._alarms = alarms
        self._receiver = receiver
        self._sent: deque[float] = deque()
        self._failures = 0
        self._again_at = 0.0

    async def tick(self) -> None:
        """Send what is due, one after the other, until something stands against it."""
        receiver = self._receiver()
        if receiver.url is None:
            self._alarms.clear("alerts_failing")
            return
        if 0 < self._again_at - self._clock() <= _CAP_S:
            return
        for alarm, state in list(self._due(receiver)):
            if not self._has_room():
                return
            problem = await post(self._http, receiver, body(alarm, state, is_last=len(self._sent) == MOST_AN_HOUR - 1))
            if problem is not None:
                self._failed(problem)
                return
            self._succeeded(alarm, state)

    def _due(self, receiver: Receiver) -> Iterator[tuple[Alarm, State]]:
        now, told = self._clock(), self._alarms.told
        up = {one.id: one for one in self._alarms.active() if one.kind != "alerts_failing"}
        for name, one in sorted(told.items()):
            if name in up:
                told[name] = Told(alarm=one.alarm, at=one.at)
            elif kind_of(one.alarm.kind).lasts:
                del told[name]
            elif one.gone_at is None or now < one.gone_at:
                told[name] = Told(alarm=one.alarm, at=one.at, gone_at=now)
            elif now - one.gone_at >= SETTLE_S:
                yield one.alarm, "cleared"
        for name, alarm in reversed(up.items()):
            known = told.get(name)
            if not alarm.acknowledged and (known is None or not 0 <= now - known.at < receiver.repeat_s):
                yield alarm, "raised"

    def _has_room(self) -> bool:
        now = self._clock()
        while self._sent and not 0 <= now - self._sent[0] < _HOUR_S:
            self._sent.popleft()
        return len(self._sent) < MOST_AN_HOUR

    def _succeeded(self, alarm: Alarm, state: State) -> None:
        now = self._clock()
        self._sent.append(now)
        self._failures, self._again_at = 0, 0.0
        self._alarms.clear("alerts_failing")
        if state == "raised":
            self._alarms.told[alarm.id] = Told(alarm=alarm, at=now)
        else:
            self._alarms.told.pop(alarm.id, None)
        self._alarms.is_changed = True

    def _failed(self, problem: str) -> None:
        wait_s = min(_BASE_S * 2.0 ** min(self._failures, 16), _CAP_S)
        self._failures += 1
        self._again_at = self._clock() + wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        _log.warning("alert_not_sent", extra={"detail": problem, "failures": self._failures})
        if self._failures >= _FAILING:
            self._alarms.raise_("alerts_failing", "-", f"The receiver of [alerts] fails: {problem}.")


async def post(http: HttpClient, receiver: Receiver, content: bytes) -> str | None:
    """Send one message; returns why it was not taken, without the address."""
    if receiver.url is None:
        return "no address is configured"
    try:
        answer = await http.request(
            "POST", receiver.url.value, headers={"content-type": "application/json"}, content=content,
            timeout_s=_TIMEOUT_S, max_bytes=_MAX_BYTES,
        )  # fmt: skip
    except Unreachable as error:
        return str(error)
    return None if 200 <= answer.status < 300 else f"it answered {answer.status}"


def body(alarm: Alarm, state: State, *, is_last: bool = False) -> bytes:
    """Return the message as JSON: ``text`` for chats, ``alarm`` and ``state`` for programs."""
    text = text_of(alarm, state)
    if is_last:
        text += " (No more messages within this hour: see the operator's pages.)"
    told = {"id": alarm.id, "kind": alarm.kind, "title": alarm.title, "where": alarm.where, "since": alarm.since,
            "detail": alarm.detail, "remedy": alarm.remedy}  # fmt: skip
    return msgspec.json.encode({"text": text, "alarm": told, "state": state})


def text_of(alarm: Alarm, state: State) -> str:
    """Return an alarm in one line."""
    where = f" ({alarm.where})" if alarm.where != "-" else ""
    since = datetime.fromtimestamp(alarm.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if state == "cleared":
        text = f"tag-gateway: over: {alarm.title}{where}. It began {since}."
    else:
        text = f"tag-gateway: {alarm.title}{where}, since {since}. {alarm.detail} {alarm.remedy}"
    return _MARKUP.sub(" ", text)[:_LONGEST]


def sample(now: float) -> Alarm:
    """Return what ``tag-gateway check --online --alert`` sends."""
    return Alarm(
        id="test:-", kind="test", title="A test", where="-", since=now, detail="Alarms will arrive here.",
        remedy="There is nothing to do.",
    )  # fmt: skip
