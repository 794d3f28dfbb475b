"""The sandbox's lists and audiences on a clock that only sleeping moves, behind a client that records."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway import Answer, Context, Limit, Pace, Unreachable
from gateway.http import Client
from gateway.sandbox import PinterestSandbox
from gateway.testing.doubles import NOW
from tests.harness.described import Recorder

BASE = "http://127.0.0.1:1"


class Time:
    """Wall and monotonic time in one; :meth:`sleep` moves it at once."""

    def __init__(self) -> None:
        self.now = NOW
        self.slept = 0.0

    def __call__(self) -> float:
        """Return the time, Unix s."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.slept += seconds

    def pace(self, *limits: Limit) -> Pace:
        """Return a pace on this time."""
        return Pace(*limits, clock=self, wall=self, sleep=self.sleep)


class Vendors:
    """The sandbox in process: ``box``, ``time``, ``wire`` (what was requested), ``context`` for a plugin."""

    def __init__(self, folder: Path) -> None:
        self.time = Time()
        self.box = PinterestSandbox(clock=self.time)
        self.wire = Recorder(Client(transport=httpx.ASGITransport(self.box.app)))
        self.context = Context(http=self.wire, clock=self.time, folder=folder, state=folder / "var")

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        """Call the sandbox's control, unrecorded."""
        client = httpx.AsyncClient(transport=httpx.ASGITransport(self.box.app), base_url=BASE)
        async with client:
            answer = await client.request(method, f"/_sandbox/{path}", json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None


class Scripted:
    """An HTTP client that gives prepared answers in turn, and keeps ``(method, url, headers, content)``."""

    def __init__(self, *answers: Answer | Unreachable) -> None:
        self.answers = deque(answers)
        self.calls: list[tuple[str, str, dict[str, str], bytes | None]] = []

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout_s: float = 30.0,
        max_bytes: int = 1_048_576,
    ) -> Answer:
        """Give the next answer."""
        self.calls.append((method, url, dict(headers or {}), content))
        answer = self.answers.popleft()
        if isinstance(answer, Unreachable):
            raise answer
        return answer


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    """Return an answer with a JSON body; underscores of header names are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named, body=b"" if body is None else msgspec.json.encode(body))
