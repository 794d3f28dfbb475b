"""``tag-gateway audiences`` from the login to the end of a connection: gateway, sandbox and commands as processes."""

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.canary import Canary
from tests.harness.processes import ROOT, START_S, Process, SandboxProcess, free_port, until

CONFIG = """
[server]
bind = "127.0.0.1:{port}"
[operator]
bind = "127.0.0.1:{operator}"
password = "operator-password"
[sources.api]
adapter = "browser_tag"
secrets = ["s3cret"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "549755885175"
token = "sandbox-token"
base_url = "{sandbox}/v5"
[audience_sources.klaviyo]
{klaviyo}
base_url = "{sandbox}"
authorize_url = "{sandbox}/oauth/authorize"
[audience_sinks.pinterest]
app_id = "1500000"
app_secret = "sandbox-app-secret"
base_url = "{sandbox}/v5"
authorize_url = "{sandbox}/oauth/"
"""
KEY = 'api_key = "sandbox-klaviyo-key"'
APP = 'client_id = "sandbox-klaviyo-app"\nclient_secret = "sandbox-klaviyo-secret"'
ACCOUNTS = [{"id": "549755885175", "name": "Shop EU"}, {"id": "549755885176", "name": "Shop US"}]


class Town:
    """A gateway that serves, the sandbox of both vendors, and a terminal."""

    def __init__(self, folder: Path, klaviyo: str = KEY) -> None:
        self.folder = folder
        self.sandbox = SandboxProcess(folder)
        self.public, self.operator = free_port(), free_port()
        home = folder / "gateway"
        home.mkdir()
        self.config = home / "gateway.toml"
        self.config.write_text(
            CONFIG.format(port=self.public, operator=self.operator, sandbox=self.sandbox.url, klaviyo=klaviyo)
        )
        arguments = ["serve", "--config", str(self.config)]
        self.gateway = Process("gateway.cli", arguments, home / "serve.log")
        self.said: list[str] = []

    def start(self) -> None:
        """Start the sandbox, then the gateway."""
        self.sandbox.start()
        self.serve()

    def serve(self) -> None:
        """Start the gateway, and wait until it serves."""
        self.gateway.start()
        until(lambda: (self.config.parent / "var" / "gateway.db.sock").exists(), START_S, "the gateway serves", 0.05)

    def stop(self) -> None:
        """End both."""
        self.gateway.kill()
        self.sandbox.kill()

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """Call the sandbox's control."""
        answer = httpx.request(method, f"{self.sandbox.url}/_sandbox/{path}", json=body, trust_env=False)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def command(self, *words: str) -> list[str]:
        """Return a command line."""
        return [sys.executable, "-m", "gateway.cli", *words, "--config", str(self.config)]

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command to its end; returns what it said."""
        done = subprocess.run(
            self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=90, check=False,
            cwd=ROOT,
        )  # fmt: skip
        self.said.append(done.stdout)
        assert done.returncode == code, done.stdout
        return done.stdout

    def audiences(self, *words: str, code: int = 0) -> str:
        """Run ``tag-gateway audiences``."""
        return self.run("audiences", *words, code=code)

    def connections(self) -> list[dict[str, Any]]:
        """Return what ``status --json`` says of each connection."""
        found: list[dict[str, Any]] = json.loads(self.audiences("status", "--json"))["connections"]
        return found

    def log_in(self, *words: str, code: int = 0) -> str:
        """Log in, with the sandbox as a browser that grants everything."""
        child = subprocess.Popen(
            self.command("audiences", "login", *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=ROOT,
        )  # fmt: skip
        assert child.stdout is not None
        said = ""
        for line in child.stdout:
            said += line
            if line.startswith(self.sandbox.url):
                httpx.get(line.strip(), follow_redirects=True, trust_env=False)
        child.stdout.close()
        assert child.wait(30) == code, said
        self.said.append(said)
        return said

    def held(self, audience: str) -> set[str]:
        """Return the hashes that an audience at the sandbox holds."""
        return set(self.control("GET", f"pinterest/audiences/{audience}?members=true")["hashes"])


def sha(email: str) -> str:
    """Return the hash of an e-mail."""
    return hashlib.sha256(email.encode()).hexdigest()


def people(first: int, count: int) -> set[str]:
    """Return the hashes of a range of the sandbox's people."""
    return {sha(f"person{number}@people.example") for number in range(first, first + count)}


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """Give a town whose vendors have people."""
    town = Town(tmp_path)
    try:
        town.start()
        yield town
    finally:
        town.stop()


def test_the_whole_story(town: Town) -> None:
    """Log in, connect, sync, let members join and leave, sync, disconnect: each step shows what it does."""
    town.control("PUT", "pinterest/accounts", {"accounts": ACCOUNTS[:1]})
    town.control("POST", "klaviyo/lists", {"name": "Newsletter", "first": 0, "count": 150})
    old = town.control("POST", "pinterest/audiences", {
        "account": "549755885175", "name": "Old friends", "first": 1000, "count": 10,
    })  # fmt: skip
    assert "run 'tag-gateway audiences login'" in town.audiences("list", "accounts", code=1)
    assert "logged in, ad account" in town.log_in()
    assert "klaviyo: logged in" in town.said[-1]
    assert "Newsletter" in town.audiences("list", "sources", "--search", "news")
    assert "Old friends" in town.audiences("list", "audiences", "--search", "FRIENDS")

    planned = town.audiences("connect", "--list", "newsletter", "--audience", "Old friends", "--dry-run")
    assert "Would connect" in planned
    assert town.connections() == []
    said = " ".join(town.audiences("connect", "--list", "newsletter", "--audience", "Old friends").split())
    assert "count as added by it, and leave with it" in said
    assert "--no-remove" in said
    (connection,) = town.connections()
    number = str(connection["id"])
    assert town.audiences("sync", number).rstrip().endswith("ok")
    until(lambda: town.connections()[0]["in_audience"] == 150, 20, "the first pass ends", 0.5)
    assert town.held(old["id"]) == people(1000, 10) | people(0, 150)

    town.control("POST", "klaviyo/lists/" + connection["group"] + "/join", {"first": 500, "count": 2})
    town.control("POST", "klaviyo/lists/" + connection["group"] + "/leave", {"first": 0, "count": 5})
    assert "would add 2 and remove 5" in town.audiences("sync", number, "--full", "--dry-run")
    assert "added 2, removed 5" in town.audiences("sync", number, "--full")
    assert town.held(old["id"]) == people(1000, 10) | people(5, 145) | people(500, 2)

    shown = town.audiences("status")
    assert "147 at the source, 147 mirrored; left out: nobody" in shown
    assert "147 e-mails from here; added 152, removed 5" in shown
    metrics = httpx.get(
        f"http://127.0.0.1:{town.operator}/metrics", auth=("any", "operator-password"), trust_env=False
    ).text
    assert f'gateway_audience_members{{connection="{number}"}} 147.0' in metrics
    assert re.search(rf'gateway_audience_total\{{connection="{number}",what="added"\}} 152', metrics)

    assert "were removed from the audience" in town.audiences("disconnect", number, "--remove")
    assert town.held(old["id"]) == people(1000, 10)
    assert "No connection yet" in town.audiences("status")


def test_what_stands_in_the_way(town: Town) -> None:
    """One to one, a mass removal, several accounts, unknown names: each error names what to do."""
    town.control("PUT", "pinterest/accounts", {"accounts": ACCOUNTS})
    town.control("POST", "klaviyo/lists", {"id": "L1", "name": "Readers", "first": 0, "count": 60})
    town.control("POST", "klaviyo/segments", {"id": "S1", "name": "Best", "first": 0, "count": 20})
    said = town.log_in("pinterest", code=1)
    assert "run it again with --account" in said
    assert "549755885176 (Shop US)" in said
    assert "ad account Shop US" in town.audiences("login", "--account", "shop us")
    town.audiences("connect", "--list", "Readers", "--create", "Readers of ours")
    town.audiences("sync", "1")
    refused = " ".join(town.audiences("connect", "--list", "L1", "--create", "Twice", code=1).split())
    assert "Connection 1" in refused
    assert "disconnect 1" in refused
    refused = " ".join(town.audiences("connect", "--segment", "Best", "--audience", "Readers of ours", code=1).split())
    assert "Connection 1" in refused
    assert "--list or --segment" in town.audiences("connect", "--create", "x", code=2)
    assert "--keep or --remove" in town.audiences("disconnect", "1", code=2)
    assert "There is no audience source" in town.audiences("list", "sources", "--source", "mailer", code=1)

    town.control("POST", "klaviyo/lists/L1/leave", {"first": 0, "count": 30})
    held = town.audiences("sync", "1", "--full", code=1)
    assert "held" in held
    assert "--confirm" in held
    assert town.connections()[0]["in_audience"] == 60
    assert "held" in town.audiences("status")
    assert "removed 30" in town.audiences("sync", "1", "--full", "--confirm")
    shown = " ".join(town.audiences("status").split())
    assert "TOO_SMALL: fewer than 100 of these people have a Pinterest account" in shown

    town.gateway.terminate(20)
    assert "1: quick pass" in town.audiences("sync")
    assert "start 'tag-gateway serve', then log in" in town.audiences("login", "pinterest", "--again", code=1)


def test_the_erased_and_the_opted_out_leave(town: Town) -> None:
    """Who is erased leaves at the next pass, who opts out of the sale of data at the next full one."""
    town.control("POST", "klaviyo/lists", {"id": "L1", "name": "Readers", "first": 0, "count": 40})
    town.log_in()
    town.audiences("connect", "--list", "Readers", "--create", "Ours")
    town.audiences("sync", "1")
    (connection,) = town.connections()
    town.run("erase", "--email", "Person3@people.example")
    town.audiences("sync", "1")
    assert town.held(connection["audience"]) == people(0, 40) - people(3, 1)
    event = {
        "event_name": "checkout", "event_id": "e-1", "limited_data": True, "user": {"email": "person7@people.example"},
        "event_time": int(time.time()), "action_source": "web", "value": 1, "currency": "EUR",
    }  # fmt: skip
    answer = httpx.post(
        f"http://127.0.0.1:{town.public}/in/api", json=event, headers={"authorization": "Bearer s3cret"},
        trust_env=False,
    )  # fmt: skip
    assert answer.json()["accepted"] == 1
    town.audiences("sync", "1", "--full")
    assert town.held(connection["audience"]) == people(0, 40) - people(3, 1) - people(7, 1)
    assert "2 opted out or erased" in town.audiences("status")


def test_a_stop_is_short_and_the_next_start_goes_on(town: Town) -> None:
    """SIGTERM during a pass ends the gateway within the graceful time; after the start the audience becomes exact."""
    town.control("POST", "klaviyo/lists", {"id": "L1", "name": "Readers", "first": 0, "count": 3000})
    town.log_in()
    town.control("POST", "calls/faults", {"faults": [
        {"kind": "delay", "vendor": "klaviyo", "path": "/profiles", "skip": 3, "times": 0, "delay_s": 5.0},
    ]})  # fmt: skip
    town.audiences("connect", "--list", "Readers", "--create", "Ours")
    until(lambda: town.connections()[0]["state"] == "running", 20, "the first pass begins", 0.2)
    code, seconds = town.gateway.terminate(20)
    assert code == 0
    assert seconds < 12
    town.control("DELETE", "calls/faults")
    town.serve()
    until(lambda: town.connections()[0]["in_audience"] == 3000, 60, "the audience is complete", 0.5)
    (connection,) = town.connections()
    assert town.held(connection["audience"]) == people(0, 3000)


def test_klaviyo_by_oauth_and_no_plain_email_anywhere(tmp_path: Path) -> None:
    """With OAuth at both sides, canaries go through passes and errors; no file, log or output has them, nor a token."""
    town, canary = Town(tmp_path, APP), Canary()
    emails = [canary.mail(f"member {number}") for number in range(30)]
    try:
        town.start()
        town.control("POST", "klaviyo/lists", {"id": "L1", "name": "Readers", "people": emails})
        town.log_in()
        town.audiences("connect", "--list", "Readers", "--create", "Ours")
        town.control("POST", "calls/faults", {"faults": [
            {"kind": "html", "vendor": "klaviyo", "path": "/profiles"},
            {"kind": "truncated", "vendor": "klaviyo", "path": "/profiles"},
            {"kind": "status", "vendor": "pinterest", "method": "PATCH", "status": 400},
        ]})  # fmt: skip
        town.audiences("sync", "1", "--json")
        town.control("DELETE", "calls/faults")
        town.run("erase", "--email", emails[0])
        until(lambda: town.connections()[0]["in_audience"] >= 29, 40, "the audience is filled", 0.5)
        town.audiences("sync", "1", "--full")
        (connection,) = town.connections()
        assert town.held(connection["audience"]) == {sha(email) for email in emails[1:]}
        found = []
        for path in (tmp_path / "gateway").rglob("*"):
            if path.is_file():
                found += canary.find(path.name, path.read_bytes())
                is_secret = path.name.startswith("audience")
                assert not is_secret or path.stat().st_mode & 0o077 == 0, path.name
        assert found == []
        assert canary.find("output", "\n".join(town.said).encode()) == []
        log = (tmp_path / "gateway" / "serve.log").read_text()
        tokens = [
            text for path in (tmp_path / "gateway" / "var").glob("*.tokens.json")
            for text in re.findall(r'"value":"([^"]{12,})"', path.read_text())
        ]  # fmt: skip
        assert len(tokens) >= 4
        assert [token for token in tokens if token in log or token in "\n".join(town.said)] == []
    finally:
        town.stop()
