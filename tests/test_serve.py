"""``tag-gateway serve`` as a process: what a second one, a taken port and a signal do."""

import asyncio
import contextlib
import gc
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import CommandFailed
from gateway.server import Listener, run
from tests.harness.processes import until

CONFIG = """
[server]
bind = "127.0.0.1:{port}"
[sources.api]
adapter = "browser_tag"
secrets = ["s3cret"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "549755885175"
token = "sandbox-token"
base_url = "http://127.0.0.1:9/v5"
"""


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config)]


def configured(folder: Path, port: int = 0) -> Path:
    path = folder / "gateway.toml"
    path.write_text(CONFIG.format(port=port), encoding="utf-8")
    return path


@contextlib.contextmanager
def serving(config: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a gateway; gives the process and its public address."""
    process = subprocess.Popen(command(config), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = map(json.loads, process.stderr)
        yield process, next(line["public"] for line in lines if line["event"] == "serving")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def refused(config: Path) -> tuple[int, str]:
    done = subprocess.run(command(config), stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_a_second_gateway_on_the_same_store_is_refused(tmp_path: Path) -> None:
    """It exits with 3 and says that the store is in use; the first goes on."""
    config = configured(tmp_path)
    with serving(config) as (process, _):
        code, message = refused(config)
        assert code == 3
        assert "in use by another process" in message
        assert process.poll() is None


def test_a_taken_port_is_a_configuration_error(tmp_path: Path) -> None:
    """It exits with 2, names the table, and leaves the store free for the next start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = configured(tmp_path, taken.getsockname()[1])
        code, message = refused(config)
    assert code == 2
    assert "[server] bind" in message
    with serving(configured(tmp_path)):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end it with exit code 0, and its control socket is gone."""
    with serving(configured(tmp_path)) as (process, _):
        process.send_signal(number)
        assert process.wait(timeout=15) == 0
    assert list((tmp_path / "var").glob("*.sock")) == []


def test_a_bad_file_keeps_the_old_one_running(tmp_path: Path) -> None:
    """SIGHUP with a bad file changes nothing and says why; with a good one it is taken over."""
    config = configured(tmp_path)
    with serving(config) as (process, _):
        assert process.stderr is not None
        good = config.read_text(encoding="utf-8")
        config.write_text(good + "\n[serer]\n", encoding="utf-8")
        process.send_signal(signal.SIGHUP)
        told = next(line for line in map(json.loads, process.stderr) if line["event"] == "reload_refused")
        assert "[serer]: did you mean 'server'?" in told["detail"]
        config.write_text(good, encoding="utf-8")
        process.send_signal(signal.SIGHUP)
        assert next(line for line in map(json.loads, process.stderr) if line["event"] == "reloaded")


def test_a_listener_that_ends_by_itself_ends_the_process_with_an_error() -> None:
    """Who supervises the process is not told that all is well."""

    class Broken(Listener):
        async def run(self, stop: asyncio.Event) -> None:
            raise OSError("the socket is gone")

    class Sound(Listener):
        async def run(self, stop: asyncio.Event) -> None:
            await stop.wait()

    async def serve() -> None:
        with socket.socket() as sock:
            listeners = [Broken(None, sock, "hypercorn", 0.1), Sound(None, sock, "hypercorn", 0.1)]
            await run(listeners, asyncio.Event(), on_ready=lambda: None, on_hangup=lambda: None)

    thresholds = gc.get_threshold()
    try:
        with pytest.raises(CommandFailed, match="listener"):
            asyncio.run(serve())
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def test_a_hangup_while_it_starts_does_not_end_it(tmp_path: Path) -> None:
    """A reload that comes too early is not a reason to go away."""
    config = configured(tmp_path)
    process = subprocess.Popen(command(config), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        # the store's lock is taken some time before the listeners stand
        until((tmp_path / "var" / "gateway.db.lock").exists, 30.0, "the gateway starts", 0.001)
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
        assert any(json.loads(line)["event"] == "serving" for line in process.stderr)
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
