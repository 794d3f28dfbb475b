"""Mixed load: single events, batches, orders told by two sources, pages, repeats, and what must not be taken."""

import asyncio
import heapq
import random
import time
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any

from soak.account import Account
from soak.traffic import API, CODES, DENIED, HOLD_S, INVALID, ORDERS, SOURCES, WEIGHTS, request
from soak.wire import Answer, Wire

_BATCH = 5
_BATCHES = 0.3
_IN_QUERY = 0.1
_REPEATED = 0.08
_REPEAT_WITHIN_S = 20.0
_TRIES = 60
_PROBLEMS = 50


class Load:
    """
    So many clients at once.

    Args:
        is_excused: Whether a 503 is explained now: the process ends or starts.

    Attributes:
        rate: Requests a second of all clients together, None: as fast as answers come, with ``pause_s`` between.
        answers: By status. ``unexpected``: 5xx that nothing explains. ``latencies``: milliseconds, while a list.
    """

    def __init__(
        self, port: int, clients: int, rng: random.Random, account: Account, is_excused: Callable[[], bool]
    ) -> None:
        self._port = port
        self._clients = clients
        self._rng = rng
        self._account = account
        self._is_excused = is_excused
        self._serials = [0] * CODES
        self._codes, self._weights = list(WEIGHTS), list(WEIGHTS.values())
        self._later: list[tuple[float, int, str, int]] = []
        self._pushed = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._next_at = 0.0
        self.rate: float | None = None
        self.pause_s = 0.01
        self.answers: Counter[int] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.problems: list[str] = []
        self.unanswered = 0
        self.slowest_s = 0.0
        self.latencies: array[float] | None = None
        self.last_accepted_at = 0.0
        self._news = asyncio.Event()

    def start(self) -> None:
        """Start all clients."""
        self._stopping = False
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._clients)]

    async def stop(self) -> None:
        """Let every client finish its request."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        self._tasks = []

    async def accepting(self, since: float, deadline_s: float) -> float:
        """Wait for the next accepted hit after ``since`` (monotonic); returns the seconds from then to it."""
        async with asyncio.timeout(deadline_s):
            while self.last_accepted_at <= since:
                self._news.clear()
                await self._news.wait()
        return self.last_accepted_at - since

    def fresh(self, code: int) -> int:
        """Return a number of this kind that nobody used."""
        serial = self._serials[code]
        self._serials[code] += 1
        return serial * CODES + code

    async def _run(self) -> None:
        wire = Wire(self._port)
        try:
            while not self._stopping:
                await self._pace()
                source, numbers = self._choose()
                await self._tell(wire, source, numbers)
        finally:
            wire.close()

    async def _pace(self) -> None:
        if self.rate is None:
            await asyncio.sleep(self.pause_s)
            return
        now = time.monotonic()
        self._next_at = max(self._next_at + 1 / self.rate, now - 1.0)
        await asyncio.sleep(max(0.0, self._next_at - now))

    def _choose(self) -> tuple[str, list[int]]:
        if self._later and self._later[0][0] <= time.monotonic():
            _, _, source, number = heapq.heappop(self._later)
            return source, [number]
        rng = self._rng
        (code,) = rng.choices(self._codes, self._weights)
        number = self.fresh(code)
        if code == API and rng.random() < _BATCHES:
            return "api", [number, *(self.fresh(API) for _ in range(_BATCH - 1))]
        if code not in ORDERS:
            return SOURCES[code][0], [number]
        first, second = rng.sample(SOURCES[code], 2)
        chance = rng.random()
        self._push(second, number, 0.0 if chance < 0.2 else rng.uniform(0.0, 0.5) if chance < 0.7 else HOLD_S + 1.0)
        return first, [number]

    def _push(self, source: str, number: int, wait_s: float) -> None:
        self._pushed += 1
        heapq.heappush(self._later, (time.monotonic() + wait_s, self._pushed, source, number))

    async def _tell(self, wire: Wire, source: str, numbers: list[int]) -> None:
        """Send one request until it is answered; one that got no answer is sent again in half of the cases."""
        in_query = source == "tag" and self._rng.random() < _IN_QUERY
        sent = request(source, numbers, time.time(), in_query=in_query)
        self._account.sent(numbers)
        for _ in range(_TRIES):
            began = time.monotonic()
            try:
                answer = await wire.send(sent)
            except OSError:
                self._account.unknown(numbers)
                self.unanswered += 1
                if self._stopping or self._rng.random() < 0.5:
                    return
                continue
            if answer is not None:
                self._timed(time.monotonic() - began)
                if not self._note(numbers, answer):
                    if self._rng.random() < _REPEATED:
                        self._push(source, numbers[0], self._rng.uniform(0.0, _REPEAT_WITHIN_S))
                    return
            if self._stopping:
                return
            await asyncio.sleep(0.05)

    def _timed(self, seconds: float) -> None:
        self.slowest_s = max(self.slowest_s, seconds)
        if self.latencies is not None:
            self.latencies.append(seconds * 1000)

    def _note(self, numbers: list[int], answer: Answer) -> bool:
        """Note an answer; returns whether the request must be sent again."""
        self.answers[answer.status] += 1
        if answer.status in (429, 503):
            self._account.disowned(numbers)
            if not answer.has_retry_after:
                self._problem(f"{answer.status} without Retry-After")
            if not self._is_excused():
                code = answer.body["error"]["code"] if isinstance(answer.body, dict) else "-"
                self.unexpected[f"{answer.status} {code}"] += 1
            return True
        if answer.status >= 500:
            self.unexpected[f"{answer.status}"] += 1
            return True
        if answer.status == 400 and numbers[0] % CODES == INVALID:
            self._account.outcomes["rejected"] += 1
            return False
        if answer.status != 200:
            self._problem(f"{answer.status} for {numbers[0]}")
            return False
        self._accepted(numbers, answer.body)
        return False

    def _accepted(self, numbers: list[int], body: Any) -> None:
        self.last_accepted_at = time.monotonic()
        self._news.set()
        if body is None:
            # a pixel's answer, or one that broke off after its status: all that is sent here is valid
            for number in numbers:
                self._account.answered(number, "dropped" if number % CODES == DENIED else "accepted")
            return
        for number, event in zip(numbers, body["events"], strict=True):
            self._account.answered(number, event["outcome"])

    def _problem(self, text: str) -> None:
        self.problems += [text] if len(self.problems) < _PROBLEMS else []
