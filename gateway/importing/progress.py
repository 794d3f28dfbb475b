"""How far it is: a bar on a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

EVERY_S = 5.0


class Shown(Protocol):
    """Shows progress while the block lasts."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show no longer."""
        ...

    def update(self, offset: int, rows: int) -> None:
        """Say that so many bytes of the file and so many rows of this run are done."""
        ...

    def say(self, line: str) -> None:
        """Write a line beside it."""
        ...


def progress(console: Console, name: str, size: int, offset: int) -> Shown:
    """Return what fits the console; ``size`` and ``offset`` (where this run begins) in bytes."""
    return Bar(console, name, size, offset) if console.is_terminal else Plain(console, size, offset)


class Rate:
    """Rows a second since the beginning, and seconds that are left by the bytes."""

    def __init__(self, size: int, offset: int, clock: Callable[[], float]) -> None:
        self._size, self._first, self._clock = size, offset, clock
        self._began = clock()

    def at(self, offset: int, rows: int) -> tuple[float, float | None]:
        """Return both; the second is None as long as it cannot be known."""
        seconds = max(self._clock() - self._began, 1e-6)
        done = offset - self._first
        return rows / seconds, seconds * (self._size - offset) / done if done > 0 else None


class Bar:
    """A bar with rows a second."""

    def __init__(self, console: Console, name: str, size: int, offset: int) -> None:
        self._rate = Rate(size, offset, time.monotonic)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[rows]}"),
            TimeRemainingColumn(), console=console,
        )  # fmt: skip
        self._task: TaskID = self._progress.add_task(name, total=size, completed=offset, rows="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, offset: int, rows: int) -> None:
        """Move the bar."""
        speed, _ = self._rate.at(offset, rows)
        self._progress.update(self._task, completed=offset, rows=f"{rows:,} rows, {speed:,.0f}/s")

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(line, highlight=False, markup=False)


class Plain:
    """Plain lines."""

    def __init__(self, console: Console, size: int, offset: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._size, self._clock = console, size, clock
        self._rate = Rate(size, offset, clock)
        self._next = clock() + EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def update(self, offset: int, rows: int) -> None:
        """Write a line when the last is old."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + EVERY_S
        speed, left = self._rate.at(offset, rows)
        rest = "" if left is None else f", {left:,.0f} s left"
        self.say(f"{offset / self._size:.0%}, {rows:,} rows, {speed:,.0f} rows/s{rest}")

    def say(self, line: str) -> None:
        """Write a line."""
        self._console.print(line, highlight=False, markup=False)
