"""
Load: keep-alive clients on plain sockets that note for each event what was answered.

All that an event holds follows from its id (:mod:`tests.harness.mix`), so that what arrives can be checked without
remembering what was sent. Without a mix every event is valid and has an id of its own.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway.event import Struct
from tests.harness.mix import REFUSED, Mixer, Request, email_of, event_of, is_as_posted, kind_of, name_of, value_of
from tests.harness.processes import SECRET

__all__ = ["Client", "Load", "Told", "email_of", "event_of", "is_as_posted", "name_of", "value_of"]

ANSWER_S = 20.0
_ACCEPTED = frozenset({"accepted", "merged", "duplicate"})


class Told(Struct, frozen=True):
    """
    What was answered to one copy of an event; times are monotonic seconds.

    ``outcome`` is a fate, ``refused`` (the request was), or ``unknown`` (no answer came). ``of`` is the event that it
    met.
    """

    outcome: str
    asked_at: float
    told_at: float
    of: str | None = None
    reason: str | None = None


class Client:
    """One keep-alive connection; it is opened again after it broke."""

    def __init__(self, port: int, secret: str = SECRET) -> None:
        self._port = port
        self._secret = secret
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes, source: str = "api", length: int | None = None) -> tuple[int, Any] | None:
        """
        Send one request; returns the status and the decoded answer.

        None when nobody listened. An answer without a complete body is decoded as None. ``length`` is a Content-Length
        that is claimed and not kept.

        Raises:
            OSError: The connection broke before a status line came: nobody knows.
        """
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                return None
        reader, writer = self._streams
        head = (
            f"POST /in/{source} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {self._secret}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length or len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(ANSWER_S):
                writer.write(head.encode() + body)
                await writer.drain()
                line = await reader.readline()
                if not line.endswith(b"\n"):
                    raise ConnectionResetError("no status line")
                answer = int(line.split()[1]), await self._body(reader)
                if length is not None:
                    self.close()
                return answer
        except OSError:
            self.close()
            raise

    async def _body(self, reader: asyncio.StreamReader) -> Any:
        try:
            length, close = 0, False
            while (line := await reader.readline()) not in (b"\r\n", b""):
                key, _, text = line.decode("latin-1").partition(":")
                length = int(text) if key.lower() == "content-length" else length
                close = close or (key.lower() == "connection" and text.strip().lower() == "close")
            answer = json.loads(await reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError, json.JSONDecodeError):
            self.close()
            return None
        if close:
            self.close()
        return answer

    def close(self) -> None:
        """Drop the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Load:
    """
    So many clients at once, each sending single events and batches of five.

    Args:
        pause_s: How long each client rests between two requests.
        rng: Decides what is a batch, and which unanswered requests are sent again.
        mix: Kind of event → weight, such as :data:`tests.harness.mix.EVERYTHING`; needs
            :func:`tests.harness.mix.mixed_config`, and :func:`tests.harness.mix.poison_fault` at the sandbox.
        limit: So many events are sent at most; the clients then end by themselves.
        connect: Makes a client; by default one that speaks to the port.

    Attributes:
        told: For each id what was answered to each copy.
        submitted: All ids ever sent. ``accepted``: those with a 2xx and a good fate. ``refused``: with another answer,
            and never a good one.
        unanswered: Requests whose connection broke before a status line.
        problems: Answers that no event of its kind should get.
    """

    def __init__(
        self, port: int, clients: int, rng: random.Random, pause_s: float = 0.0, prefix: str = "e", *,
        mix: Mapping[str, float] | None = None, limit: int | None = None,
        connect: Callable[[], Client] | None = None,
    ) -> None:  # fmt: skip
        self._clients = clients
        self._rng = rng
        self._pause_s = pause_s
        self._prefix = prefix
        self._mixer = Mixer(rng, prefix, mix) if mix else None
        self._limit = limit
        self._connect = connect or (lambda: Client(port))
        self._serial = 0
        self._sent = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.told: dict[str, list[Told]] = {}
        self.submitted: set[str] = set()
        self.accepted: set[str] = set()
        self._refused: set[str] = set()
        self.unanswered = 0
        self.problems: list[str] = []
        self.last_accepted_at = 0.0
        self._news = asyncio.Event()

    @property
    def refused(self) -> set[str]:
        """Ids that were refused and never accepted."""
        return self._refused - self.accepted

    @property
    def unknown(self) -> set[str]:
        """Ids of which nobody knows whether they were accepted."""
        return self.submitted - self.accepted - self._refused

    def start(self) -> None:
        """Start all clients."""
        self._stopping = False
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._clients)]

    async def stop(self) -> None:
        """Let every client finish its request, then close its connection."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def finish(self) -> None:
        """Wait until ``limit`` events were sent."""
        await asyncio.gather(*self._tasks)

    async def accepting(self, since: float, deadline_s: float) -> float:
        """Wait for the next accepted event after ``since`` (monotonic); returns the seconds from then to it."""
        async with asyncio.timeout(deadline_s):
            while self.last_accepted_at <= since:
                self._news.clear()
                await self._news.wait()
        return self.last_accepted_at - since

    async def _run(self) -> None:
        client = self._connect()
        try:
            while not self._stopping and (self._limit is None or self._sent < self._limit):
                request = self._next(5 if self._rng.random() < 0.3 else 1)
                self._sent += len(request.ids)
                await self._request(client, request)
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
        finally:
            client.close()

    def _next(self, count: int) -> Request:
        now = time.time()
        if self._mixer is not None:
            return self._mixer.request(count, now)
        first = self._serial
        self._serial += count
        ids = [f"{self._prefix}-{number}" for number in range(first, self._serial)]
        events = [event_of(event_id, now) for event_id in ids]
        return Request("api", ids, json.dumps(events[0] if count == 1 else events).encode())

    async def _request(self, client: Client, request: Request) -> None:
        """Send one request; one that got no answer is sent again in half of the cases, with the same ids."""
        doubtful = False
        while True:
            self.submitted.update(request.ids)
            asked_at = time.monotonic()
            try:
                answer = await client.post(request.body, request.source, request.length)
            except OSError:
                self.unanswered += 1
                doubtful = True
                self._tell_all(request, Told(outcome="unknown", asked_at=asked_at, told_at=time.monotonic()))
                if self._stopping or self._rng.random() < 0.5:
                    return
                continue
            if answer is not None:
                self._note(request, *answer, asked_at, doubtful=doubtful)
                return
            # nobody listens
            if self._stopping:
                return
            await asyncio.sleep(0.03)

    def _tell_all(self, request: Request, told: Told) -> None:
        for event_id in request.ids:
            self.told.setdefault(event_id, []).append(told)

    def _note(self, request: Request, status: int, answer: Any, asked_at: float, *, doubtful: bool) -> None:
        now = time.monotonic()
        if status != 200:
            self._tell_all(request, Told(outcome="refused", asked_at=asked_at, told_at=now, reason=str(status)))
            if not doubtful:
                self._refused.update(request.ids)
            expected = {"invalid": 400, "oversize": 413}
            if status != 503 and any(expected.get(kind_of(event_id)) != status for event_id in request.ids):
                self.problems.append(f"{status}: {answer}")
            return
        # 2xx without a complete body: every event is valid without a mix, so it stands for all of them
        events = answer["events"] if answer else None
        if events is None:
            outcome = "unknown" if self._mixer else "accepted"
            events = [{"outcome": outcome} for _ in request.ids]
        for event_id, event in zip(request.ids, events, strict=True):
            told = Told(
                outcome=event["outcome"], asked_at=asked_at, told_at=now, of=event.get("of"), reason=event.get("reason")
            )
            self.told.setdefault(event_id, []).append(told)
            if told.outcome in _ACCEPTED:
                self.accepted.add(event_id)
                self.last_accepted_at = now
                self._news.set()
            elif told.outcome != "unknown":
                self._refused.add(event_id)
            if told.outcome != "unknown" and not _is_expected(event_id, told):
                self.problems.append(f"{event_id}: {told.outcome} {told.reason}")


def _is_expected(event_id: str, told: Told) -> bool:
    """Whether an event of this kind may be answered so."""
    kind = kind_of(event_id)
    if kind in REFUSED:
        return (told.outcome, told.reason) == ("dropped", REFUSED[kind])
    if kind == "invalid":
        return told.outcome == "rejected"
    if kind == "withdrawn" and told.outcome == "dropped":
        return told.reason == "consent"
    if kind == "held" and told.outcome == "dropped":
        return told.reason == "no_identity"
    return told.outcome in _ACCEPTED
