"""A stranger's adapter: generated, installed beside our wheel in an environment of its own, its hit delivered."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.commands import new_adapter as command
from gateway.commands.new_adapter import new_adapter
from gateway.errors import ConfigError

ROOT = Path(__file__).parent.parent
DEADLINE_S = 60.0
HIT = {"event": "order", "email": "ann@example.com", "total": "59.90", "currency": "EUR", "order": 1001}

SCRIPT = """
import asyncio, json, sys, threading
from pathlib import Path
import gateway, gateway.testing, tag_gateway_acme
from tag_gateway_acme import Acme

threads = []
normalize = Acme.normalize
Acme.normalize = lambda self, hit: threads.append(threading.current_thread().name) or normalize(self, hit)

async def scenario():
    config = {"sources": {
        "acme": {"adapter": "acme", "secrets": ["s3cret"]},
        "own": {"adapter": "tealium", "secrets": ["s3cret"]},
    }}
    async with gateway.testing.running(config, Path(sys.argv[1])) as running:
        status, answer = await running.post("acme", json.loads(sys.argv[2]), {"Authorization": "Bearer s3cret"})
        refused, _ = await running.post("acme", json.loads(sys.argv[2]), {"Authorization": "Bearer guess"})
        delivered = await running.delivered(1)
        parts = running.gateway.parts
        return {
            "status": status, "refused": refused, "delivered": delivered, "threads": threads,
            "inline": {name: route.inline for name, route in parts.routes.items()},
            "listing": [[one.name, one.distribution, one.version, list(one.provides)] for one in parts.host.listing()],
            "homes": [gateway.__file__, tag_gateway_acme.__file__],
        }

print(json.dumps(asyncio.run(scenario())))
"""


class Outsider:
    """A fresh environment with our wheel and a generated adapter's; the rest is borrowed from the running one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "environment"
        self.package = new_adapter("acme", folder)
        wheels = folder / "wheels"
        pip("wheel", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT), str(self.package))
        venv.create(self.home, symlinks=True)
        self.python = self.home / "bin" / "python"
        pip("--python", str(self.python), "install", *map(str, sorted(wheels.glob("*.whl"))))
        # after the environment's own packages, and without the .pth files there: our editable install stays hidden
        own = Path(self.output(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    def output(self, *arguments: object) -> str:
        """Run a program of the environment to its end; return what it printed."""
        done = subprocess.run(
            [*map(str, arguments)],
            cwd=self.folder,
            env=clean(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def serving(self, stream: str, *arguments: object) -> Iterator[str]:
        """Run ``tag-gateway`` while the block lasts; gives the address that it says it listens on."""
        errors = self.folder / "errors.log"
        with errors.open("w+", encoding="utf-8") as log:
            process = subprocess.Popen(
                [str(self.home / "bin" / "tag-gateway"), *map(str, arguments)],
                cwd=self.folder,
                env=clean(),
                stdout=subprocess.PIPE if stream == "stdout" else subprocess.DEVNULL,
                stderr=subprocess.PIPE if stream == "stderr" else log,
                text=True,
            )
            try:
                pipe = process.stdout if stream == "stdout" else process.stderr
                assert pipe is not None
                found = next(
                    (match for line in pipe if (match := re.search(r"http://127\.0\.0\.1:[1-9]\d*", line))), None
                )
                assert found is not None, f"{arguments} ended with {process.wait()}: {errors.read_text()}"
                yield found[0]
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=DEADLINE_S)


def clean() -> dict[str, str]:
    """Return the environment without what would let this checkout shine through."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TAG_GATEWAY", "PYTEST"))
    }


def pip(*arguments: str) -> None:
    place = 2 if arguments[0] == "--python" else 0
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", "--no-input"]
    line = [sys.executable, "-m", "pip", *arguments[: place + 1], *options, *arguments[place + 1 :]]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def outsider(tmp_path_factory: pytest.TempPathFactory) -> Outsider:
    for module in ("pip", "hatchling"):
        pytest.importorskip(module, reason=f"{module} builds and installs the wheels of this test: run 'make test'")
    return Outsider(tmp_path_factory.mktemp("outsider"))


def test_a_package_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file carries the new name in its path and text, the template's is gone, and the next steps are told."""
    package = new_adapter("acme_shop", tmp_path)
    assert package == tmp_path / "tag-gateway-acme-shop"
    files = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*") if path.is_file()}
    assert "tag_gateway_acme_shop/__init__.py" in files
    assert "tests/test_contract.py" in files
    assert sum(name.startswith("examples/") for name in files) == 3
    assert not [name for name, text in files.items() if "yourplatform" in (name + text).lower()]
    assert "class AcmeShop(Adapter)" in files["tag_gateway_acme_shop/__init__.py"]
    assert 'acme_shop = "tag_gateway_acme_shop"' in files["pyproject.toml"]
    assert "ACME_SHOP_SECRET" in files["README.md"]
    told = capsys.readouterr().out
    assert "pip install -e ." in told
    assert "[sources.acme_shop]" in told


@pytest.mark.parametrize("name", ["", "Acme", "acme-shop", "1acme", "acme shop", "../acme", "acmé", "acme\n"])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    """What cannot be a module's name is refused, and nothing is written."""
    with pytest.raises(ConfigError, match="lower-case"):
        new_adapter(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """A package that is there already is left alone."""
    package = new_adapter("acme", tmp_path)
    (package / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        new_adapter("acme", tmp_path)
    assert (package / "README.md").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_an_error_line(tmp_path: Path) -> None:
    """A file in the folder's place ends in one line, not in a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        new_adapter("acme", tmp_path / "file")


def test_a_missing_template_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the template says so."""
    monkeypatch.setattr(command, "_PLACES", ("nowhere",))
    with pytest.raises(ConfigError, match="template is missing"):
        new_adapter("acme", tmp_path)


@pytest.mark.parametrize("name", ["x", "acme", "a_rather_long_name_of_a_platform"])
def test_the_package_is_clean_by_its_own_rules(tmp_path: Path, name: str) -> None:
    """The generated package passes ruff with the configuration that it brings, whatever its name."""
    package = new_adapter(name, tmp_path)
    for action in (("check",), ("format", "--check")):
        line = [sys.executable, "-m", "ruff", *action, "--no-cache", "."]
        done = subprocess.run(line, cwd=package, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_outsider_runs_its_own_tests(outsider: Outsider) -> None:
    """In its own environment the generated package finds the kit, keeps the contract and sees its hit delivered."""
    told = outsider.output(outsider.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", outsider.package)
    assert "2 passed" in told


def test_an_outsider_is_guarded_and_listed(outsider: Outsider, tmp_path: Path) -> None:
    """The stranger's adapter runs in a guarded thread, ours inline; the listing names its distribution and version."""
    found = json.loads(outsider.output(outsider.python, "-c", SCRIPT, tmp_path, json.dumps(HIT)))
    assert all(Path(home).is_relative_to(outsider.home) for home in found["homes"]), found["homes"]
    assert (found["status"], found["refused"]) == (200, 401)
    assert [event["event_id"] for event in found["delivered"]] == ["acme-1001"]
    assert found["inline"] == {"acme": False, "own": True}
    assert len(found["threads"]) == 1
    assert found["threads"][0].startswith("plugin")
    assert ["acme", "tag-gateway-acme", "0.1.0", ["adapter acme"]] in found["listing"]


def test_an_outsider_is_served(outsider: Outsider) -> None:
    """The installed commands list the adapter, and serve its hit over sockets to the sandbox."""
    gateway_toml = outsider.folder / "gateway.toml"
    with outsider.serving("stdout", "sandbox", "--bind", "127.0.0.1:0") as vendor:
        gateway_toml.write_text(config_text(vendor), encoding="utf-8")
        arguments = ("--config", gateway_toml)
        listing = json.loads(outsider.output(outsider.home / "bin" / "tag-gateway", "plugins", "--json", *arguments))
        (listed,) = [plugin for plugin in listing if plugin["name"] == "acme"]
        assert (listed["distribution"], listed["version"]) == ("tag-gateway-acme", "0.1.0")
        with outsider.serving("stderr", "serve", *arguments) as public:
            answer = call(f"{public}/in/acme", HIT)
            assert answer["accepted"] == 1, answer
            (event,) = delivered(vendor)
    assert (event["event_name"], event["event_id"]) == ("checkout", "acme-1001")
    assert event["custom_data"]["currency"] == "EUR"


def config_text(vendor: str) -> str:
    return f"""
[server]
bind = "127.0.0.1:0"
[store]
url = "sqlite:///served.db"
[sources.acme]
adapter = "acme"
secrets = ["s3cret"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "549755885175"
token = "sandbox-token"
base_url = "{vendor}/v5"
linger_s = 0.0
"""


def call(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": "Bearer s3cret", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=DEADLINE_S) as answer:
        return json.load(answer)


def delivered(vendor: str) -> list[dict[str, Any]]:
    """Ask the sandbox until it has an event."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        events: list[dict[str, Any]] = call(f"{vendor}/_sandbox/events")["events"]
        if events:
            return events
        time.sleep(0.05)
    raise AssertionError(
        f"nothing arrived within {DEADLINE_S:g} s; the sandbox says {call(f'{vendor}/_sandbox/counts')}"
    )
