"""
``python -m soak.vendor --port N --ledger FILE``: the sandbox, which notes each copy of each event that it took.

A line says whether the copy was kept or refused, whether its content is what its number says, and whether the answer
may not have reached the gateway, so that a second copy is no fault of the gateway's. Ids that begin with ``x-`` are
refused one by one, a call with one that begins with ``y-`` as a whole: the gateway must find it by itself.
"""

import argparse
import asyncio
import contextvars
import re
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway import logs
from gateway.commands.serve import new_event_loop
from gateway.sandbox import Fault, Faults, PinterestSandbox, Record, SandboxConfig, answers
from gateway.sandbox.answers import Answer
from gateway.sandbox.endpoint import Call
from gateway.sandbox.schema import Event
from gateway.server import Listener, run, tcp_socket
from soak.traffic import TIMEOUT_S, is_as_told

_LATE_S: Final = 3_600
_POISON: Final = re.compile(rb'"event_id":"([xy]-[0-9]+)"')
#: Seconds: repeats of one id are counted by the soak, not here.
_WINDOW_S: Final = 60.0
_fault: contextvars.ContextVar[Fault | None] = contextvars.ContextVar("fault", default=None)


class Line(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One copy of one event."""

    kept: bool
    name: str
    event_id: str
    sound: bool
    doubtful: bool
    late: bool


class Watched(Faults):
    """Notes which fault the call under way met."""

    def take(self, ad_account_id: str, event_ids: Callable[[], set[str]]) -> Fault | None:
        """Return the fault of this call."""
        fault = super().take(ad_account_id, event_ids)
        _fault.set(fault)
        return fault


def is_doubtful(fault: Fault | None) -> bool:
    """Whether a call that met this fault may be processed without the gateway learning it."""
    if fault is None:
        return False
    if fault.kind == "delay":
        return fault.delay_s >= TIMEOUT_S / 2
    return fault.kind in ("reset_after", "hang", "answer") or fault.delay_s >= TIMEOUT_S / 2


class Ledger(Record):
    """A record that writes a line for each copy before the call is answered, and keeps nothing else for long."""

    def __init__(self, path: Path) -> None:
        super().__init__(keep=10, keep_ids=False, window_s=_WINDOW_S)
        self._ledger = path.open("ab")
        self._encoder = msgspec.json.Encoder()

    def add(
        self, ad_account_id: str, events: Sequence[Event], raws: Iterable[msgspec.Raw], failed: Container[int], *,
        late_before: float, now: float,
    ) -> None:  # fmt: skip
        """Count one request's events, and note them."""
        kept = list(raws)
        super().add(ad_account_id, events, kept, failed, late_before=late_before, now=now)
        doubtful = is_doubtful(_fault.get())
        self.note(
            Line(
                kept=index not in failed, name=event.event_name, event_id=event.event_id,
                sound=is_as_told(msgspec.json.decode(raw, type=dict[str, Any])), doubtful=doubtful,
                late=now - event.event_time > _LATE_S,
            )
            for index, (event, raw) in enumerate(zip(events, kept, strict=True))
        )  # fmt: skip

    def note(self, lines: Iterable[Line]) -> None:
        """Append lines; what is flushed outlives this process."""
        self._ledger.write(self._encoder.encode_lines(list(lines)))
        self._ledger.flush()


class Vendor(PinterestSandbox):
    """A sandbox with a ledger, that never takes poison."""

    def __init__(self, path: Path) -> None:
        super().__init__(SandboxConfig(keep=10, keep_ids=False, dedup_window_s=_WINDOW_S))
        self.faults: Faults = Watched()
        self.ledger = Ledger(path)
        self.record: Record = self.ledger

    def answer(self, call: Call, partial: Fault | None = None) -> Answer:
        """Process one call, or refuse it for its poison."""
        bad = [found.decode() for found in _POISON.findall(call.body)]
        whole = [event_id for event_id in bad if event_id.startswith("y")]
        if whole and self._refusal(call) is None:
            lines = (
                Line(kept=False, name="", event_id=one, sound=True, doubtful=False, late=False) for one in whole
            )  # fmt: skip
            self.ledger.note(lines)
            return answers.error(400, "Invalid request: one of the events cannot be read")
        if bad:
            partial = msgspec.structs.replace(partial or Fault(kind="partial"), event_ids=tuple(bad))
        return super().answer(call, partial)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m soak.vendor")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    chosen = parser.parse_args()
    logs.configure()
    vendor = Vendor(chosen.ledger)
    listener = Listener(vendor.app, tcp_socket(f"127.0.0.1:{chosen.port}", "vendor"), "hypercorn", 1.0)

    async def serve() -> None:
        await run([listener], asyncio.Event(), on_ready=lambda: None, on_hangup=lambda: None)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
