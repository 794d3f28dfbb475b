"""What an operator does meanwhile: looks, reloads, backs up, replays dead letters."""

import random
import signal
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any, Final

import httpx

from tests.harness.processes import GatewayProcess

InThread = Callable[..., Awaitable[Any]]
_PAGE: Final = 1_000


def dead_letters(gateway: GatewayProcess) -> Iterator[str]:
    """Yield the event ids of all dead letters."""
    after = ""
    while True:
        page = gateway.api("GET", f"/api/dead?limit={_PAGE}{after}")
        yield from (letter["event_id"] for letter in page["letters"])
        if len(page["letters"]) < _PAGE:
            return
        after = f"&after={page['after']}"


class Operations:
    """
    Does one thing at a time, while ``is_up``: the signal for a reload would end a process that starts.

    Attributes:
        counts: How often each was done. ``broken``: backups that SQLite does not find sound, and answers with an error.
    """

    def __init__(
        self, gateway: GatewayProcess, rng: random.Random, in_thread: InThread, is_up: Callable[[], bool]
    ) -> None:
        self._gateway = gateway
        self._is_up = is_up
        self._rng = rng
        self._in_thread = in_thread
        self.counts: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()

    async def act(self) -> None:
        """Do one, chosen at random; that the gateway is down at the moment is no fault."""
        acts = (
            ("status", self._status), ("metrics", self._metrics), ("dead list", self._list),
            ("dead replay", self._replay), ("quarantine list", self._quarantine), ("backup", self._backup),
            ("reload (SIGHUP)", self._reload),
        )  # fmt: skip
        name, act = self._rng.choice(acts)
        if not self._is_up():
            return
        try:
            await self._in_thread(act)
        except (httpx.HTTPError, AssertionError, OSError):
            return
        self.counts[name] += 1

    def _status(self) -> None:
        self._expect("status", self._gateway.status(), "queue")

    def _metrics(self) -> None:
        if "gateway_queue" not in self._gateway.api("GET", "/metrics"):
            self.broken["metrics"] += 1

    def _list(self) -> None:
        self._expect("dead list", self._gateway.api("GET", "/api/dead?limit=100"), "letters")

    def _quarantine(self) -> None:
        self._expect("quarantine list", self._gateway.api("GET", "/api/quarantine?limit=10"), "hits")

    def _replay(self) -> None:
        self._expect("dead replay", self._gateway.api("POST", "/api/dead/replay", {}), "queued")

    def _reload(self) -> None:
        if self._is_up():
            self._gateway.send_signal(signal.SIGHUP)

    def _backup(self) -> None:
        path = self._gateway.folder / f"backup-{self._rng.getrandbits(32):08x}.db"
        try:
            answer = self._gateway.api("POST", "/api/backup", {"path": str(path)})
            self._expect("backup", answer, "bytes")
            with closing(sqlite3.connect(path)) as copy:
                if copy.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                    self.broken["backup is not sound"] += 1
        finally:
            path.unlink(missing_ok=True)

    def _expect(self, name: str, answer: Any, field: str) -> None:
        if not isinstance(answer, dict) or field not in answer:
            self.broken[name] += 1
