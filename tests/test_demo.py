"""The demo, as a user starts it, and the README's first event against it."""

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commands.demo_hits import SALES, hits

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "gateway.cli", "demo", "--bind"]
TIMEOUT_S = 60


def rows(output: str) -> dict[str, str]:
    """Return the table's lines by what was sent."""
    titles = [hit.title for hit in hits(0.0)]
    return {title: line for title in titles for line in output.splitlines() if line.startswith(title)}


@pytest.fixture(scope="module")
def once() -> str:
    done = subprocess.run(
        [*COMMAND, "127.0.0.1:0", "--once"], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("title", "answer", "arrival"),
    [
        ("page visit, coming from a Pin", "200 accepted", "delivered"),
        ("add to cart, click id given", "200 accepted", "delivered"),
        ("search, browser sends Sec-GPC", "200 accepted", "delivered (flagged LDP)"),
        ("sign-up with a key nobody knows", "200 accepted", "delivered"),
        ("page visit of a robot", "200 dropped: bot", "nothing to send"),
        ("page visit, marketing refused", "200 dropped: consent", "nothing to send"),
        ("order created", "200 accepted", "delivered"),
        ("the same delivery, sent again", "200 (duplicate of|merged into) shop-5001", "nothing to send"),
        ("the same order, now paid", "200 (duplicate of|merged into) shop-5001", "nothing to send"),
        ("the same order, from the shop's pixel", "200 (duplicate of|merged into) ", "nothing to send"),
        ("purchase of a GTM server container", "200 accepted", "delivered"),
        ("GA4 hit of a page (GET)", r"200 \(an image\)", "delivered"),
        ("page view of Tealium", "200 accepted", "delivered"),
        (f"{SALES} sales of the counter at once", f"200 accepted, all {SALES}", "delivered"),
        ("a lead that identifies nobody", "200 dropped: no_identity", "nothing to send"),
        ("order with a forged signature", "401 unauthorized", "nothing to send"),
    ],
)
def test_demo_shows_each_fate(once: str, title: str, answer: str, arrival: str) -> None:
    """Each example's line shows the answer it got and what became of it."""
    line = rows(once)[title]
    assert re.search(answer, line), line
    assert arrival in line, line


def test_demo_names_every_hit(once: str) -> None:
    """No example is sent without a line in the table."""
    assert len(rows(once)) == len(hits(0.0))


def test_demo_sums_up_what_the_sandbox_received(once: str) -> None:
    """Many events travel in few calls, and the order that four hits told counts once."""
    found = re.search(r"received (\d+) events in (\d+) calls, (\d+) conversions", once)
    assert found is not None, once
    events, calls, conversions = map(int, found.groups())
    assert events == conversions == 8 + SALES
    assert calls < events / 2


def test_demo_keeps_its_log_out_of_sight(once: str) -> None:
    """The log goes to the named file, and no JSON line to the terminal."""
    assert re.search(r"^Log +/.+gateway\.log$", once, re.MULTILINE)
    assert '"level"' not in once


def test_demo_says_that_a_port_is_taken() -> None:
    """A taken port is one clear line and exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [*COMMAND, bind, "--once"], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    assert done.returncode == 2
    assert f"{bind} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


class Running:
    """A demo that goes on after its examples."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "127.0.0.1:0"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.output = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if line.startswith("Ctrl-C stops"):
                break

    def address(self, what: str) -> str:
        """Return host:port of the gateway, sandbox or operator."""
        found = re.search(rf"^{what} +http://(\S+)", self.output, re.MULTILINE)
        assert found is not None, self.output
        return found[1]

    def stop(self) -> int:
        """End it as Ctrl-C does; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=TIMEOUT_S)
        self.output += rest
        return self.process.returncode


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    demo = Running()
    yield demo
    if demo.process.poll() is None:
        demo.stop()


def run(line: str) -> str:
    """Run one line of shell words, which must be a curl call."""
    words = shlex.split(line)
    assert words[0] == "curl"
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return done.stdout


def curl_lines(text: str) -> list[str]:
    """Return the curl lines of a text, continued lines joined."""
    return re.findall(r"^curl .*$", text.replace("\\\n", " "), re.MULTILINE)


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install curl")


@needs_curl
def test_demo_curl_lines_work(running: Running) -> None:
    """The three printed lines do what the text below them says."""
    page, server, look = curl_lines(running.output)
    assert json.loads(run(page))["accepted"] == 1
    assert json.loads(run(server))["accepted"] == 1
    assert json.loads(run(server))["duplicate"] == 1
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        newest = json.loads(run(look))["events"]
        if {event["event_id"] for event in newest} >= {"shop-1002"}:
            break
        assert time.monotonic() < deadline, newest
    assert len(newest) == 2


@needs_curl
def test_readme_first_event_is_accepted(running: Running) -> None:
    """The README's curl lines work against a running demo."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = curl_lines(readme)
    assert lines
    for line in lines:
        local = line.replace("127.0.0.1:8000", running.address("Gateway"))
        local = local.replace("127.0.0.1:8010", running.address("Sandbox"))
        answer = json.loads(run(local))
        if "/in/" in line:
            assert answer["accepted"] == 1, answer
        else:
            assert answer["events"], answer


@needs_curl
def test_demo_operator_password_opens_metrics(running: Running) -> None:
    """The printed password opens /metrics, and nothing does without it."""
    password = re.search(r"password (\S+)$", running.output, re.MULTILINE)
    assert password is not None
    url = f"http://{running.address('Operator')}/metrics"
    assert "gateway_events_total" in run(f"curl -sS -u :{password[1]} {url}")
    assert "gateway_events_total" not in run(f"curl -sS {url}")


def test_demo_stops_cleanly_and_leaves_nothing(running: Running) -> None:
    """Ctrl-C ends it with exit code 0, and its folder goes with it."""
    folder = re.search(r"^Log +(/.+)/gateway\.log$", running.output, re.MULTILINE)
    assert folder is not None
    assert Path(folder[1]).is_dir()
    assert running.stop() == 0, running.output
    assert not Path(folder[1]).exists()
