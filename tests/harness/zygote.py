"""
A process that has everything loaded and forks gateways: a start takes a tenth of the usual second.

A forked gateway is a process of its own as any other, on its own store and sockets; it is killed and waited for by its
id. Use it where a test starts many.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from tests.harness.processes import ROOT, GatewayProcess, Process


class Zygote:
    """The process that forks; its children end with the block."""

    def __enter__(self) -> Self:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.zygote"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ,
            cwd=ROOT,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def ask(self, **what: Any) -> Any:
        """Send one command; returns its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Child:
    """A forked process, as :class:`subprocess.Popen` shows one."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self._zygote = zygote
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self._code is None:
            self._code = self._zygote.ask(poll=self.pid)
        return self._code

    def wait(self, timeout: float) -> int:
        """Wait for the end; returns the exit code."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"child {self.pid}", timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Send any signal; one that has ended gets none."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """``kill -9``."""
        self.send_signal(signal.SIGKILL)


class _Forked(Process):
    """A process that starts by a fork."""

    zygote: Zygote

    def start(self) -> None:
        """Fork it; its output is appended to the log."""
        self.log.touch()  # who waits for a line of it looks at once
        environ = {key: value for key, value in self._environ.items() if os.environ.get(key) != value}
        pid = self.zygote.ask(argv=self._command[2:], environ=environ, log=str(self.log))
        self._child = cast("subprocess.Popen[bytes]", Child(self.zygote, pid))


class ForkedGateway(GatewayProcess, _Forked):
    """``tag-gateway serve``, forked; the plant is read anew at each start from ``environ``."""

    def __init__(self, folder: Path, config: str, zygote: Zygote, plant: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, config, {"HARNESS_FORKED": "1", **(plant or {})})
        self.zygote = zygote

    @property
    def environ(self) -> dict[str, str]:
        """What the next start finds in its environment."""
        return self._environ


def _fork(argv: list[str], environ: Mapping[str, str], log: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(nothing, 0)
        os.dup2(written, 1)
        os.dup2(written, 2)
        os.environ.update(environ)
        sys.argv = argv
        from tests.harness import launcher

        try:
            launcher.main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _preload() -> None:
    """Load what a gateway loads at its start, and start nothing."""
    from gateway import commands, identifiers, operator, pluginhost, server
    from gateway.interfaces import Context
    from tests.harness import launcher

    assert commands, operator
    assert server, launcher
    pluginhost.PluginHost(Context())
    identifiers.load()


def main() -> None:
    """Fork on command, until the input ends; then end every child."""
    _preload()
    children: set[int] = set()
    for line in sys.stdin.buffer:
        what = json.loads(line)
        answer: int | None
        if "poll" in what:
            pid, status = os.waitpid(what["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
            children.discard(pid)
        else:
            answer = _fork(**what)
            children.add(answer)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in children:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
