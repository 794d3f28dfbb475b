"""
Keeps a vendor's rate limits: by configuration, and by what its answers say.

One :class:`Pace` for each account, shared by every connection of the process (:func:`shared_pace`). It counts calls in
windows of the last so many seconds, as vendors do; a token bucket that fills steadily would allow its burst on top of a
full window. Nothing here knows a vendor.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from weakref import WeakValueDictionary

from gateway.audience import AudienceError
from gateway.event import Struct

#: The longest wait that a vendor's answer can impose, in seconds.
MAX_BLOCK_S = 3600.0
#: The first and the longest pause after refusals that name no time, in seconds.
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 60.0
#: A number above this is a moment in Unix seconds, below it a duration.
_MOMENT = 1_000_000_000.0
_PREFIXES = ("ratelimit", "x-ratelimit", "x-userendpoint-ratelimit")


class Limit(Struct, frozen=True, kw_only=True):
    """At most ``calls`` calls in any ``seconds`` seconds."""

    calls: int
    seconds: float


class Pace:
    """
    The calls of one account of one vendor.

    Args:
        limits: All of them are kept.
        clock: Monotonic seconds.
        wall: Unix seconds, for moments that a vendor names.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        *limits: Limit,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._windows = [_Window(limit) for limit in limits]
        self._clock, self._wall, self._sleep = clock, wall, sleep
        self._blocked_until = float("-inf")
        self._pause_s = FIRST_PAUSE_S

    def wait_s(self) -> float:
        """Return how long a call would have to wait now, in seconds."""
        now = self._clock()
        return max(0.0, self._blocked_until - now, *(window.wait_s(now) for window in self._windows))

    async def turn(self, max_wait_s: float) -> None:
        """
        Wait until a call may be made, and count it.

        Raises:
            AudienceError: It would take longer than ``max_wait_s``; ``retry_after_s`` says how long.
        """
        deadline = self._clock() + max_wait_s
        while (wait := self.wait_s()) > 0:
            if self._clock() + wait > deadline:
                raise AudienceError(
                    f"The rate limit leaves no call for {wait:.0f} s: it goes on by itself then.", retry_after_s=wait
                )
            await self._sleep(max(wait, 0.001))
        now = self._clock()
        for window in self._windows:
            window.count(now)

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        """
        Take in what an answer says of the limits; header names in lower case.

        ``Retry-After`` of 429 and 503, else a pause that doubles with each 429; ``RateLimit-*`` and ``x-ratelimit-*``:
        none remaining blocks until the reset, and a limit below ours lowers the window of a minute.
        """
        wall = self._wall()
        after = retry_after_s(headers, wall)
        if status == 429:
            self._block(self._pause_s if after is None else after)
            self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)
            return
        if status == 503 and after is not None:
            self._block(after)
        if status < 400:
            self._pause_s = FIRST_PAUSE_S
        for prefix in _PREFIXES:
            remaining, reset = (_number(headers.get(f"{prefix}-{name}", "")) for name in ("remaining", "reset"))
            if remaining is not None and remaining <= 0 and reset is not None:
                self._block(reset - wall if reset > _MOMENT else reset)
            self._lower(_number(headers.get(f"{prefix}-limit", "")))

    def _block(self, seconds: float) -> None:
        self._blocked_until = max(self._blocked_until, self._clock() + min(max(seconds, 0.0), MAX_BLOCK_S))

    def _lower(self, limit: float | None) -> None:
        # a day's allowance is not what headers speak of
        minute = [window for window in self._windows if window.seconds <= 60]
        if limit is not None and limit >= 1 and minute:
            widest = max(minute, key=lambda window: window.seconds)
            widest.calls = min(widest.calls, int(limit))


class _Window:
    """The calls of the last ``seconds`` seconds."""

    def __init__(self, limit: Limit) -> None:
        self.calls, self.seconds = limit.calls, limit.seconds
        self._times: deque[float] = deque()

    def wait_s(self, now: float) -> float:
        while self._times and self._times[0] <= now - self.seconds:
            self._times.popleft()
        if len(self._times) < self.calls:
            return 0.0
        # the call whose leaving brings the count below the limit
        return self._times[len(self._times) - self.calls] + self.seconds - now

    def count(self, now: float) -> None:
        self._times.append(now)


_PACES: WeakValueDictionary[str, Pace] = WeakValueDictionary()


def shared_pace(account: str, make: Callable[[], Pace]) -> Pace:
    """
    Return the pace of an account, made by the first who asks; it lives as long as somebody holds it.

    ``account`` names vendor and account, with a hash where only a secret tells them apart.
    """
    pace = _PACES.get(account)
    if pace is None:
        pace = _PACES[account] = make()
    return pace


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Return what ``Retry-After`` asks for in seconds, at most :data:`MAX_BLOCK_S`; None when it is missing or bad."""
    text = headers.get("retry-after", "").strip()
    if not text or len(text) > 64 or not text.isascii():
        return None
    seconds = _number(text)
    if seconds is None:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    return min(max(seconds, 0.0), MAX_BLOCK_S)


def _number(text: str) -> float | None:
    """Return the leading number of a header such as ``750`` or ``750, 750;w=60``."""
    first = text[:64].split(",", 1)[0].split(";", 1)[0].strip()
    whole, _, part = first.partition(".")
    if not (whole.isascii() and whole.isdigit() and (not part or (part.isascii() and part.isdigit()))):
        return None
    return float(first)
