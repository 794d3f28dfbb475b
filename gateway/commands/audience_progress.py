"""How far passes are: a bar for each connection on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gateway.audience_words import PHASES

EVERY_S = 5.0


def shown_on(console: Console) -> "Bars | Lines":
    """Return what fits the console."""
    return Bars(console) if console.is_terminal else Lines(console)


def _text(one: dict[str, Any]) -> str:
    return f"{one['connection']}: {PHASES.get(one['phase'], one['phase'])}"


class Bars:
    """A bar for each connection and phase."""

    look_s = "0.2"

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._tasks: dict[tuple[int, str], TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, progress: Sequence[dict[str, Any]]) -> None:
        """Move the bars."""
        for one in progress:
            key = one["connection"], one["phase"]
            if key not in self._tasks:
                self._tasks[key] = self._progress.add_task(_text(one), total=None)
            self._progress.update(self._tasks[key], completed=one["done"], total=one.get("total"))


class Lines:
    """A line when a phase begins, and every few seconds."""

    look_s = "1"

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._phases: dict[int, str] = {}
        self._next = clock() + EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def update(self, progress: Sequence[dict[str, Any]]) -> None:
        """Write lines."""
        is_due = self._clock() >= self._next
        for one in progress:
            if is_due or self._phases.get(one["connection"]) != one["phase"]:
                self._phases[one["connection"]] = one["phase"]
                total = f" of {one['total']:,}" if one.get("total") else ""
                self._console.print(f"{_text(one)}, {one['done']:,}{total}", highlight=False, markup=False)
        if is_due:
            self._next = self._clock() + EVERY_S
