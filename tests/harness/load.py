"""
Load: keep-alive clients on plain sockets that note for each event what was answered.

Every event is valid and has an id of its own, and all that it holds follows from its id, so that what arrives can be
checked without remembering what was sent.
"""

import asyncio
import hashlib
import json
import random
import time
import zlib
from collections.abc import Sequence
from typing import Any

from tests.harness.processes import SECRET

NAMES = ("checkout", "page_visit", "add_to_cart")
ANSWER_S = 20.0
_ACCEPTED = frozenset({"accepted", "merged", "duplicate"})


def name_of(event_id: str) -> str:
    """Return the event name that belongs to an id."""
    return NAMES[zlib.crc32(event_id.encode()) % len(NAMES)]


def value_of(event_id: str) -> str:
    """Return the value that belongs to an id."""
    return f"{zlib.crc32(event_id.encode()[::-1]) % 1_000_000 / 100:.2f}"


def email_of(event_id: str) -> str:
    """Return the person that belongs to an id."""
    return f"{event_id}@load.example"


def event_of(event_id: str, now: float) -> dict[str, Any]:
    """Return the event that belongs to an id, as it is posted."""
    return {
        "event_name": name_of(event_id), "event_id": event_id, "event_time": int(now), "action_source": "web",
        "value": value_of(event_id), "currency": "USD", "user": {"email": email_of(event_id)},
    }  # fmt: skip


def is_as_posted(event: dict[str, Any]) -> bool:
    """Whether a delivered event is what its id says, and nothing else."""
    event_id = event["event_id"]
    hashed = hashlib.sha256(email_of(event_id).encode()).hexdigest()
    return bool(
        event["event_name"] == name_of(event_id)
        and float(event["custom_data"]["value"]) == float(value_of(event_id))
        and event["user_data"] == {"em": [hashed]}
        and event["custom_data"]["currency"] == "USD"
    )


class Client:
    """One keep-alive connection; it is opened again after it broke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> tuple[int, Any] | None:
        """
        Send one request; returns the status and the decoded answer.

        None when nobody listened. An answer without a complete body is decoded as None.

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
            f"POST /in/api HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {SECRET}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(ANSWER_S):
                writer.write(head.encode() + body)
                await writer.drain()
                line = await reader.readline()
                if not line.endswith(b"\n"):
                    raise ConnectionResetError("no status line")
                return int(line.split()[1]), await self._body(reader)
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

    Attributes:
        submitted: All ids ever sent. ``accepted``: those with a 2xx and a good fate. ``refused``: with another answer.
        unanswered: Requests whose connection broke before a status line.
    """

    def __init__(self, port: int, clients: int, rng: random.Random, pause_s: float = 0.0, prefix: str = "e") -> None:
        self._port = port
        self._clients = clients
        self._rng = rng
        self._pause_s = pause_s
        self._prefix = prefix
        self._serial = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.submitted: set[str] = set()
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self.unanswered = 0
        self.problems: list[str] = []
        self.last_accepted_at = 0.0
        self._news = asyncio.Event()

    @property
    def unknown(self) -> set[str]:
        """Ids of which nobody knows whether they were accepted."""
        return self.submitted - self.accepted - self.refused

    def start(self) -> None:
        """Start all clients."""
        self._stopping = False
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._clients)]

    async def stop(self) -> None:
        """Let every client finish its request, then close its connection."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def accepting(self, since: float, deadline_s: float) -> float:
        """Wait for the next accepted event after ``since`` (monotonic); returns the seconds from then to it."""
        async with asyncio.timeout(deadline_s):
            while self.last_accepted_at <= since:
                self._news.clear()
                await self._news.wait()
        return self.last_accepted_at - since

    async def _run(self) -> None:
        client = Client(self._port)
        try:
            while not self._stopping:
                await self._request(client, self._fresh(5 if self._rng.random() < 0.3 else 1))
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
        finally:
            client.close()

    def _fresh(self, count: int) -> list[str]:
        first = self._serial
        self._serial += count
        return [f"{self._prefix}-{number}" for number in range(first, self._serial)]

    async def _request(self, client: Client, ids: Sequence[str]) -> None:
        """Send one request; one that got no answer is sent again in half of the cases, with the same ids."""
        events = [event_of(event_id, time.time()) for event_id in ids]
        body = json.dumps(events[0] if len(events) == 1 else events).encode()
        doubtful = False
        while True:
            self.submitted.update(ids)
            try:
                answer = await client.post(body)
            except OSError:
                self.unanswered += 1
                doubtful = True
                if self._stopping or self._rng.random() < 0.5:
                    return
                continue
            if answer is not None:
                self._note(ids, *answer, doubtful=doubtful)
                return
            # nobody listens
            if self._stopping:
                return
            await asyncio.sleep(0.03)

    def _note(self, ids: Sequence[str], status: int, answer: Any, *, doubtful: bool) -> None:
        if status != 200:
            if not doubtful:
                self.refused.update(ids)
            if status != 503:
                self.problems.append(f"{status}: {answer}")
            return
        self.last_accepted_at = time.monotonic()
        self._news.set()
        # 2xx without a complete body: every event here is valid, so it stands for all of them
        outcomes = [event["outcome"] for event in answer["events"]] if answer else ["accepted"] * len(ids)
        for event_id, outcome in zip(ids, outcomes, strict=True):
            if outcome in _ACCEPTED:
                self.accepted.add(event_id)
            else:
                self.refused.add(event_id)
                self.problems.append(f"{event_id}: {outcome}")
