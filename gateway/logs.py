"""
Logging: JSON lines on standard error, one a hit and one a batch, without personal data.

Keys are stable: ``time`` (ISO 8601, UTC), ``level``, ``event``, and what the event adds. Messages are constants; values
come in ``extra``.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any

import msgspec

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FLUSH_S = 0.05
_FLUSH_LINES = 256


class JsonFormatter(logging.Formatter):
    """One JSON object a record; an exception becomes its type and place, never its text, which may hold a payload."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["at"] = _place(record.exc_info[2])
        return encoded(line)


#: What JSON leaves as it is, and some readers do not: C1 controls (a terminal obeys them), line separators, and marks
#: that turn the direction of what follows.
_MISLEADING = {
    code: f"\\u{code:04x}"
    for codes in (range(0x80, 0xA0), (0x061C, 0x200E, 0x200F), range(0x2028, 0x202F), range(0x2066, 0x206A))
    for code in codes
}


def encoded(line: Mapping[str, Any]) -> str:
    """Return one JSON object on exactly one line, whatever its texts hold."""
    try:
        text = msgspec.json.encode(line, enc_hook=str).decode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(line, default=str)
    return text if text.isascii() else text.translate(_MISLEADING)


def _place(trace: Any) -> str:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"{'/'.join(trace.tb_frame.f_code.co_filename.rsplit('/', 2)[-2:])}:{trace.tb_lineno}"


def configure(level: int = logging.INFO, stream: IO[str] | None = None) -> None:
    """Send every logger's records to the stream as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # their own lines may hold request targets
    for name in ("httpx", "httpcore", "hypercorn.access", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


class HitLog:
    """
    The line of each hit, written many at a time: a log record for each would cost more than deciding about the hit.

    Lines are at most 50 ms late; what is waiting is written by :meth:`flush` at the end.
    """

    def __init__(self, stream: IO[str] | None = None, *, enabled: bool = True) -> None:
        self._stream = stream or sys.stderr
        self._enabled = enabled
        self._lines: list[str] = []
        self._second = 0
        self._stamp = ""

    def write(self, fields: Mapping[str, Any]) -> None:
        """Add one line; ``fields`` are plain values."""
        if not self._enabled:
            return
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._stamp = datetime.fromtimestamp(self._second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        line = {"time": f"{self._stamp}.{int(now * 1000) % 1000:03d}Z", "level": "info", "event": "hit", **fields}
        if not self._lines:
            asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)
        self._lines.append(encoded(line))
        if len(self._lines) >= _FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()
