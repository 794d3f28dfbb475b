"""The vendor's faults, one after another at random: each begins, lasts, and is taken back."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from gateway.event import Struct
from tests.harness.processes import SandboxProcess


class VendorProcess(SandboxProcess):
    """``python -m soak.vendor``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ledger = folder / "ledger.jsonl"
        self._command = [self._command[0], "-m", "soak.vendor", "--port", str(self.port), "--ledger", str(self.ledger)]

    def token(self, *, valid: bool) -> None:
        """Revoke the access token, or make it valid again."""
        assert self._client.put("/_sandbox/token", json={"valid": valid}).status_code == 204


class Spell(Struct, frozen=True, kw_only=True):
    """
    A kind of trouble.

    ``faults`` are of the sandbox; standing ones last, queued ones hit one call each. ``special`` is done by the weather
    itself: the token is revoked, or the process is down and its port closed.
    """

    name: str
    faults: tuple[dict[str, Any], ...] = ()
    standing: bool = True
    special: str = ""


#: How long a call takes when the vendor is well.
_CALL_S: Final = 0.02
_BODIES: Final = ("short", "long", "truncated", "html", "empty", "unknown_status", "missing_status", "no_events")
SPELLS: Final = (
    Spell(name="latency", faults=({"kind": "delay", "delay_s": 0.8},)),
    Spell(name="rate limited (429)", faults=({"kind": "status", "status": 429, "retry_after": 1},)),
    Spell(name="5xx", faults=tuple({"kind": "status", "status": code} for code in (500, 502, 504)), standing=False),
    Spell(name="5xx after it was processed", faults=({"kind": "answer", "status": 500},) * 2, standing=False),
    Spell(name="some events refused", faults=({"kind": "partial", "indexes": (0, 3, 7)},) * 3, standing=False),
    Spell(name="damaged answer", faults=tuple({"kind": "answer", "body": body} for body in _BODIES), standing=False),
    Spell(name="oversized answer", faults=({"kind": "answer", "body": "huge", "size_mb": 20},), standing=False),
    Spell(name="connection reset before", faults=({"kind": "reset_before"},)),
    Spell(name="connection reset after it was processed", faults=({"kind": "reset_after"},) * 3, standing=False),
    Spell(name="no answer", faults=({"kind": "hang"},)),
    Spell(name="no answer after it was processed", faults=({"kind": "hang", "recorded": True},) * 2, standing=False),
    Spell(name="outage (503)", faults=({"kind": "status", "status": 503},)),
    Spell(name="connection refused", special="down"),
    Spell(name="token revoked", special="token"),
)  # fmt: skip
InThread = Callable[..., Awaitable[Any]]


class Weather:
    """
    Plays one spell at a time on one vendor.

    Attributes:
        now: The name of what is on, if anything. ``lock`` is held while something begins or ends: what is cut off then
            goes on by itself, and a vendor that is started twice would outlive the run.
    """

    def __init__(self, vendor: VendorProcess, rng: random.Random, in_thread: InThread) -> None:
        self._vendor = vendor
        self._rng = rng
        self._in_thread = in_thread
        self.now: str | None = None
        self.lock = asyncio.Lock()

    def choose(self) -> Spell:
        """Return the next spell."""
        return self._rng.choice(SPELLS)

    async def fair(self) -> None:
        """Drop every fault; each call then takes a moment, so that there are always some under way."""
        await self._in_thread(self._vendor.clear)
        await self._in_thread(self._vendor.stand, kind="delay", delay_s=_CALL_S)

    async def begin(self, spell: Spell) -> None:
        """Let it begin."""
        async with self.lock:
            self.now = spell.name
            if spell.standing and not spell.special:
                await self._in_thread(self._vendor.clear)
            if spell.special == "token":
                await self._in_thread(self._vendor.token, valid=False)
            elif spell.special == "down":
                await self._in_thread(self._vendor.terminate, 15.0)
            elif spell.standing:
                for fault in spell.faults:
                    await self._in_thread(self._vendor.stand, **fault)
            else:
                await self._in_thread(self._vendor.queue, *spell.faults)

    async def end(self) -> None:
        """Take back whatever is on."""
        async with self.lock:
            if self._vendor.has_ended():
                await self._in_thread(self._vendor.start)
            await self.fair()
            await self._in_thread(self._vendor.token, valid=True)
            self.now = None
