"""Gateway and sandbox as real processes on loopback, on ports of their own, stopped by their ids."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

ROOT = Path(__file__).resolve().parents[2]
#: Starting imports every plugin on a machine that other tests load too.
START_S = 60.0
ACCOUNT = "549000000001"
SECRET = "load-secret"


def say(line: str) -> None:
    """Write a line of numbers for who runs the tests with ``-s`` or ``-rP``."""
    sys.stdout.write(f"\n{line}\n")


def free_port() -> int:
    """
    Return a port on which nothing listens.

    It lies below the ephemeral range, so that no outgoing connection takes it while a killed gateway is down.
    """
    while True:
        port = random.randint(20_000, 31_999)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def until(reached: Callable[[], bool], deadline_s: float, what: str, every_s: float = 0.005) -> float:
    """Wait for a condition; returns the seconds it took. Raises AssertionError naming ``what`` after the deadline."""
    started = time.monotonic()
    while not reached():
        if time.monotonic() - started > deadline_s:
            raise AssertionError(f"{what}: not within {deadline_s:g} s")
        time.sleep(every_s)
    return time.monotonic() - started


class Process:
    """One child process; everything it says is in ``log``."""

    def __init__(self, module: str, arguments: list[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(environ or {})}
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running child's id."""
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        """Start the child; its output is appended to the log."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ, cwd=ROOT
            )

    def has_ended(self) -> bool:
        """Whether the child has ended by itself."""
        return self._child is None or self._child.poll() is not None

    def kill(self) -> None:
        """``kill -9``, and wait for the end."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(10)
            self._child = None

    def terminate(self, deadline_s: float) -> tuple[int, float]:
        """SIGTERM; returns exit code and the seconds it took. Raises TimeoutExpired when it does not end."""
        assert self._child is not None
        started = time.monotonic()
        self._child.send_signal(signal.SIGTERM)
        code = self._child.wait(deadline_s)
        self._child = None
        return code, time.monotonic() - started

    def send_signal(self, number: int) -> None:
        """Send any signal."""
        assert self._child is not None
        self._child.send_signal(number)

    def wait(self, deadline_s: float) -> int:
        """Wait for the end; returns the exit code."""
        assert self._child is not None
        code = self._child.wait(deadline_s)
        self._child = None
        return code

    def rss_mb(self) -> float:
        """Resident memory in MB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")


class SandboxProcess(Process):
    """``tag-gateway sandbox``; ``get`` and ``send`` speak to its control routes."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__("gateway.cli", ["sandbox", "--bind", f"127.0.0.1:{self.port}"], folder / "sandbox.log")
        self._client = httpx.Client(base_url=self.url, timeout=30.0, trust_env=False)

    def start(self) -> None:
        """Start, and wait until it answers."""
        super().start()

        def answers() -> bool:
            if self.has_ended():
                raise AssertionError(f"the sandbox ended: {self.log.read_text()[-2000:]}")
            try:
                return self._client.get("/_sandbox/counts").status_code == 200
            except httpx.TransportError:
                return False

        until(answers, START_S, "the sandbox answers", 0.02)

    def kill(self) -> None:
        """End it, and its client."""
        super().kill()
        self._client.close()

    def counts(self) -> dict[str, Any]:
        """Every count."""
        found: dict[str, Any] = self._client.get("/_sandbox/counts").json()
        return found

    def ids(self, account: str | None = None) -> dict[str, int]:
        """``"event_name event_id"`` with its number of kept copies."""
        params = {"ad_account_id": account} if account else {}
        found: dict[str, int] = self._client.get("/_sandbox/ids", params=params).json()
        return found

    def events(self, limit: int, *, test: bool = False) -> list[dict[str, Any]]:
        """Return the newest kept events, oldest first; ``test``: of those that were sent with ``?test=true``."""
        params = {"limit": str(limit), **({"test": "true"} if test else {})}
        found: list[dict[str, Any]] = self._client.get("/_sandbox/events", params=params).json()["events"]
        return found

    def stand(self, **fault: Any) -> None:
        """Add a standing fault."""
        answer = self._client.post("/_sandbox/faults", json={"standing": True, "faults": [fault]})
        assert answer.status_code == 200, answer.text

    def queue(self, *faults: dict[str, Any]) -> None:
        """Add faults that hit one call each."""
        answer = self._client.post("/_sandbox/faults", json={"faults": list(faults)})
        assert answer.status_code == 200, answer.text

    def clear(self) -> None:
        """Drop every fault."""
        assert self._client.delete("/_sandbox/faults").status_code == 204


class GatewayProcess(Process):
    """
    ``tag-gateway serve`` on a store and port that stay the same over restarts.

    Args:
        config: The text of ``gateway.toml`` with ``{port}`` where the public port belongs.
        plant: Run by :mod:`tests.harness.launcher` with these variables instead of by the command line itself.
    """

    def __init__(self, folder: Path, config: str, plant: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.folder = folder
        self.config = folder / "gateway.toml"
        self.config.write_text(config.replace("{port}", str(self.port)))
        self.store = folder / "gateway.db"
        self.socket = folder / "gateway.db.sock"
        module = "tests.harness.launcher" if plant else "gateway.cli"
        super().__init__(module, ["serve", "--config", str(self.config)], folder / "gateway.log", plant)

    def start(self) -> None:
        """Start, and wait for the line that says that it serves."""
        said = self.log.stat().st_size if self.log.exists() else 0
        super().start()

        def serves() -> bool:
            if self.has_ended():
                raise AssertionError(f"the gateway ended: {self.log.read_text()[-2000:]}")
            with self.log.open("rb") as log:
                log.seek(said)
                return b'"event":"serving"' in log.read()

        until(serves, START_S, "the gateway serves")

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the operator's API through the control socket; returns the decoded answer."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(transport=transport, base_url="http://gateway", timeout=30.0, trust_env=False) as client:
            answer = client.request(method, path, json=body)
        is_json = answer.headers["content-type"].startswith("application/json")
        return answer.json() if is_json else answer.text

    def status(self) -> dict[str, Any]:
        """Return what ``tag-gateway status --json`` prints."""
        found: dict[str, Any] = self.api("GET", "/api/status")
        return found

    def queued(self) -> int:
        """Units that wait or are leased, in all lanes."""
        return sum(lane["waiting"] + lane["leased"] for lane in self.status()["queue"])

    def drain(self, deadline_s: float = 30.0) -> float:
        """Wait until nothing waits; returns the seconds it took."""
        return until(lambda: self.queued() == 0, deadline_s, "the queue is empty", 0.05)

    def command(self, *arguments: str) -> Any:
        """Run a command of the command line beside the server; returns its decoded output."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", *arguments, "--config", str(self.config)],
            capture_output=True, cwd=ROOT, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)


class Pair:
    """A sandbox and a gateway that delivers to it; both end with the block."""

    def __init__(self, folder: Path, config: str, plant: Mapping[str, str] | None = None) -> None:
        self.sandbox = SandboxProcess(folder)
        self.gateway = GatewayProcess(folder, config.replace("{sandbox}", f"{self.sandbox.url}/v5"), plant)

    def __enter__(self) -> Self:
        try:
            # both at once: neither needs the other to start
            with ThreadPoolExecutor(2) as pool:
                for started in [pool.submit(self.sandbox.start), pool.submit(self.gateway.start)]:
                    started.result()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gateway.kill()
        self.sandbox.kill()


def plain_config(
    *, batch_size: int = 50, linger_s: float = 0.02, graceful_s: float = 3.0, engine: str = "hypercorn", more: str = ""
) -> str:
    """Return a configuration with one server source ``api``; ``more`` belongs to the destination's table."""
    return f"""
[server]
bind = "127.0.0.1:{{port}}"
graceful_s = {graceful_s}
engine = "{engine}"
[store]
url = "sqlite:///gateway.db"
[sources.api]
adapter = "browser_tag"
secrets = ["{SECRET}"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "{ACCOUNT}"
token = "sandbox-token"
base_url = "{{sandbox}}"
batch_size = {batch_size}
linger_s = {linger_s}
{more}
"""
