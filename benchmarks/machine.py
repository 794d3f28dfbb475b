"""Processes of a benchmark: pinned to a core, measured through ``/proc``, ended by their own id. Linux only."""

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
IS_LINUX = sys.platform == "linux"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01
_CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
#: What is measured has the first core for itself, what loads it the last one; with one core nothing is pinned.
MEASURED, LOADING = set(_CPUS[:1]), set(_CPUS[-1:])

SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "4"))


@contextlib.contextmanager
def pinned(cpus: set[int]) -> Iterator[None]:
    """Pin this thread, and what it starts meanwhile."""
    if len(_CPUS) < 2:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Give a folder on a real disk (``/tmp`` is often memory) and remove it; BENCH_FOLDER names another place."""
    place = os.environ.get("BENCH_FOLDER") or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else None)
    path = Path(tempfile.mkdtemp(prefix="tag-gateway-bench-", dir=place))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def start(arguments: Sequence[str], cpus: set[int], **options: Any) -> "subprocess.Popen[bytes]":
    """Start Python with these arguments, pinned."""
    with pinned(cpus):
        return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, **options)


def end(process: "subprocess.Popen[bytes]", timeout_s: float = 20.0) -> None:
    """Ask the process to stop, and make it."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_s(pid: int) -> float:
    """Return user and system time of a process so far, all threads, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def memory_mb(pid: int, key: str = "VmRSS") -> float:
    """Return the resident memory of a process in MB (10^6 bytes), with ``VmHWM`` its highest."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def written_bytes(pid: int) -> int:
    """Return how many bytes the process caused to be written to disk so far."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(port: int, process: "subprocess.Popen[bytes]", timeout_s: float = 30.0) -> None:
    """Wait until something accepts connections on the port."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"a server ended with code {process.returncode} before it listened")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    raise RuntimeError("a server did not listen in time")


class Worker:
    """A module of this package in a process of its own: one JSON line in, one JSON line out."""

    def __init__(self, module: str, *arguments: str, cpus: set[int]) -> None:
        self.process = start(
            ["-m", module, *arguments], cpus, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def ask(self, command: Any, answer: type[T], timeout_s: float = 120.0) -> T:
        """Send one command and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(msgspec.json.encode(command) + b"\n")
        if not select.select([self.process.stdout], [], [], timeout_s)[0]:
            raise RuntimeError(f"no answer in {timeout_s:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with code {self.process.wait()}")
        return msgspec.json.decode(line, type=answer)

    def close(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(20.0)
        except subprocess.TimeoutExpired:
            end(self.process)
        if self.process.stdout is not None:
            self.process.stdout.close()


def commands(kind: type[T]) -> Iterator[T]:
    """Yield what a worker is asked, until its input ends."""
    for line in sys.stdin.buffer:
        yield msgspec.json.decode(line, type=kind)


def answer(value: Any) -> None:
    """Answer the last command."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()
