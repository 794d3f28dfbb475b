"""Log lines: one JSON object each, that nobody can forge and that hold no exception's text."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.logs import HitLog, JsonFormatter, configure

FORGERIES = [
    'x\n{"level": "error"}',
    "x\r\nforged",
    "a%0ab",
    "x\u2028y",
    "x\u2029y",
    "x\x85y",
    "x\x1b[31my",
    "x\x00y",
    "\x0b\x0c\x1c\x1d\x1e",
    "x\x9b31my",
    "x\u202egpj.exe",
]


def record(message: str = "hit", **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("gateway.x", logging.WARNING, "file.py", 1, message, None, None)
    vars(made).update(extra)
    return made


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Give what :func:`configure` writes to, and put the root logger back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_stable_keys() -> None:
    """A line has time, level, event and logger, and what the event adds."""
    line = json.loads(JsonFormatter().format(record("batch", destination="p", events=3, created=1_795_305_600.25)))
    assert line == {
        "time": "2026-11-22T00:00:00.250Z", "level": "warning", "event": "batch", "logger": "gateway.x",
        "destination": "p", "events": 3,
    }  # fmt: skip


@pytest.mark.parametrize("value", FORGERIES)
def test_no_value_forges_a_line(value: str) -> None:
    """A line break of any kind in a value stays inside its line, for tools that break at any of them."""
    text = JsonFormatter().format(record("hit", source=value, key={value: value}))
    assert len(text.splitlines()) == 1
    assert json.loads(text)["source"] == value


def test_what_cannot_be_encoded_is_still_a_line() -> None:
    """A lone surrogate and an object of any type do not lose the record."""
    text = JsonFormatter().format(record("hit", source="\ud800", thing=object(), number=2**80, odd=float("nan")))
    assert json.loads(text)["event"] == "hit"


def test_an_exception_becomes_type_and_place() -> None:
    """The text of an exception may hold a payload: it is not written, nor the lines of its traceback."""
    try:
        int("jo@example.com")
    except ValueError:
        made = record("hit_failed")
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "jo@example.com" not in line
    found = json.loads(line)
    assert found["exception"] == "ValueError"
    assert "test_logs.py:" in found["at"]
    assert "Traceback" not in line


def test_configure_sends_every_logger_through(stream: io.StringIO) -> None:
    """All records come out as JSON; those of HTTP libraries below warning do not, they hold request targets."""
    configure(stream=stream)
    logging.getLogger("gateway.any").info("started", extra={"bind": "x"})
    for name in ("httpx", "httpcore", "hypercorn.access", "uvicorn.access"):
        logging.getLogger(name).info("GET /in/tag?d=secret")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["bind"] == "x"


def hit_lines(*fields: dict[str, Any], enabled: bool = True) -> tuple[io.StringIO, HitLog]:
    """Write hits on a loop; nothing is flushed yet."""
    stream = io.StringIO()
    log = HitLog(stream, enabled=enabled)

    async def write() -> None:
        for one in fields:
            log.write(one)

    asyncio.run(write())
    return stream, log


def test_hits_are_written_together() -> None:
    """Lines wait for company, and a flush writes each once, in order."""
    stream, log = hit_lines({"source": "a", "status": 200}, {"source": "b", "status": 503})
    assert stream.getvalue() == ""
    log.flush()
    log.flush()
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["level"], first["source"], second["status"]) == ("hit", "info", "a", 503)
    assert first["time"].endswith("Z")
    assert len(first["time"]) == len("2026-11-22T00:00:00.000Z")


def test_many_hits_do_not_wait() -> None:
    """A burst is written before it fills the memory."""
    stream, _ = hit_lines(*({"n": number} for number in range(256)))
    assert len(stream.getvalue().splitlines()) == 256


def test_the_loop_flushes_by_itself() -> None:
    """A single line is written without anybody asking."""
    stream = io.StringIO()

    async def scenario() -> None:
        HitLog(stream).write({"source": "a"})
        async with asyncio.timeout(5):
            while not stream.getvalue():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_a_silent_log_is_silent() -> None:
    """Nothing is kept when the hit log is off."""
    stream, log = hit_lines({"source": "a"}, enabled=False)
    log.flush()
    assert stream.getvalue() == ""


@pytest.mark.parametrize("value", FORGERIES)
def test_no_hit_forges_a_line(value: str) -> None:
    """An id that a stranger chose cannot end the line it stands in."""
    stream, log = hit_lines({"ids": [value]})
    log.flush()
    written = stream.getvalue()
    assert len(written.splitlines()) == 1
    assert written.removesuffix("\n").isprintable()  # nothing that a terminal obeys, or that turns what follows
    assert json.loads(written)["ids"] == [value]


def test_a_hit_with_a_lone_surrogate_is_written() -> None:
    """An id cut out of an emoji costs no line and no hit."""
    stream, log = hit_lines({"ids": ["ok"]}, {"ids": ["\ud83d"]})
    log.flush()
    assert len(stream.getvalue().splitlines()) == 2
