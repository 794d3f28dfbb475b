"""
The same inputs against a real process on loopback: what only a server and its parser have; and the description of both
listeners, docs/openapi.yaml, held against what they answer.
"""

import ast
import copy
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from gateway.operator import operator_app
from tests.harness import fuzz_inputs, fuzz_operator
from tests.harness.fuzz import (
    ADAPTERS,
    ORIGIN,
    SECRET,
    Input,
    Judge,
    World,
    hit,
)
from tests.harness.fuzz_wire import OPERATOR_PASSWORD, Wire, process_config
from tests.harness.processes import ROOT, GatewayProcess, free_port, say

SPEC = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
#: The server, the harness and other tests share two cores.
LIMIT_S = 5.0
GROWTH_MB = 20.0
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance,
]  # fmt: skip
_METHODS = ("get", "post", "put", "patch", "delete", "options")
#: One source of each adapter, and the tag's two sides.
_DESCRIBED = ("tag", "api", "hook", "pixel", "gtm", "tealium")
#: What a public source of each adapter is described to take.
SCHEMAS = {
    "browser_tag": "Events", "gtm": "GtmEvents", "shopify": "ShopifyWebhook", "shopify_pixel": "ShopifyPixel",
    "tealium": "TealiumEvents",
}  # fmt: skip


class Served:
    """A gateway's process, with the address of the operator's listener."""

    def __init__(self, process: GatewayProcess, operator_port: int) -> None:
        self.process = process
        self.public = ("127.0.0.1", process.port)
        self.operator = ("127.0.0.1", operator_port)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return one process for all tests of this file."""
    operator_port = free_port()
    process = GatewayProcess(tmp_path_factory.mktemp("fuzz"), process_config(operator_port))
    process.start()
    try:
        yield Served(process, operator_port)
    finally:
        process.kill()


def raw_inputs() -> Iterator[Input]:
    """Yield what no client library would send."""
    body = b'{"event_name": "lead", "user": {"email": "jo@example.com"}}'
    yield _old(hit("api", body, "HTTP/1.0"))
    yield _old(Input(label="a GET of HTTP/1.0", method="GET", target=b"/livez"))
    for target in (
        b"/in/\xff\xfe",
        b"/in/tag?\xff\xfe",
        b"/in/a b",
        b"/in/\x00",
        b"*",
        b"http://[",
        b"in/tag",
        b"/" * 20_000,
    ):
        yield Input(label=f"target {target[:20]!r}", method="GET", target=target)
    for name in (b"bad name", b"x:y", b"\xff", b""):
        yield hit("api", body, f"header name {name!r}", ((name, b"1"),))
    yield hit("api", body, "a header of 70 KB", ((b"x-long", b"y" * 70_000),))
    yield hit("api", body, "a control character in a header", ((b"x-a", b"a\x1b\x01b"),))
    yield hit("api", body, "a NUL in a header", ((b"x-a", b"a\x00b"),))
    yield hit("api", body, "2,000 headers", tuple((b"x-%d" % number, b"1") for number in range(2_000)))
    for length in (b"-1", b"1e3", b"9" * 5_000, b"\xb2", b"5, 5", b" "):
        yield hit("api", body, f"length {length[:10]!r}", ((b"content-length", length),))


def _old(given_input: Input) -> Input:
    return Input(
        label=given_input.label, method=given_input.method, target=given_input.target, headers=given_input.headers,
        body=given_input.body, version="1.0",
    )  # fmt: skip


def test_a_real_process(served: Served) -> None:
    """No input ends the process, grows it, slows it down, or finds its way into an answer or the log."""
    process = served.process
    judge = Judge(LIMIT_S, bare=True)
    wire = Wire(served.public)
    mutator = fuzz_inputs.Mutator(11)
    seeds = list(islice(fuzz_inputs.mandatory(), 0, None, 12))
    for sent in (*seeds[::2], *fuzz_inputs.spoilt_headers(), *(mutator.next() for _ in range(300))):  # also the warm-up
        judge.look(sent, wire.send(sent))
    before = process.rss_mb()
    for sent in raw_inputs():
        judge.look(sent, wire.send(sent))
        wire.close()
    for sent in seeds[1::2]:
        judge.look(sent, wire.send(sent))
    for _ in range(500):
        sent = mutator.next()
        judge.look(sent, wire.send(sent))
    wire.close()
    grown = process.rss_mb() - before
    assert not process.has_ended()
    control = Wire(str(process.socket))
    for sent in islice(fuzz_operator.operator_calls(), 0, None, 47):
        judge.look(sent, control.send(sent))
    control.close()
    assert httpx.get(f"http://127.0.0.1:{process.port}/readyz", trust_env=False).text == "ok\n"
    judge.read_log(process.log.read_text())
    kept = _kept(process, judge)
    say(
        f"fuzz, a real process: {judge.inputs} inputs, statuses {dict(sorted(judge.statuses.items()))}, {kept} kept of "
        f"{judge.accepted}, slowest {judge.slowest[0]:.3f} s ({judge.slowest[1]}), memory {before:.0f} {grown:+.1f} MB"
    )
    judge.verdict()
    assert grown <= GROWTH_MB
    assert kept == judge.accepted


def _kept(process: GatewayProcess, judge: Judge) -> int:
    """Return how many units were made: those that wait, and those that a later hit ended."""
    status = process.status()
    waiting = sum(lane["waiting"] + lane["leased"] + lane["dead"] for lane in status["queue"])
    ends = ("merged", "dropped")
    counted = sum(row["count"] for row in status["events"] if row["fate"].removeprefix("test_") in ends)
    kept: int = waiting + counted - sum(judge.doors[fate] for fate in ends)
    return kept


def described(listener: str) -> dict[str, Any]:
    """Return the part of the description that one listener has; the public one once for each source."""
    found = copy.deepcopy(SPEC)
    paths: dict[str, Any] = {}
    for path, item in found["paths"].items():
        kept = {name: value for name, value in item.items() if name in _METHODS and listener in value["tags"]}
        if not kept:
            continue
        kept["parameters"] = list(item.get("parameters", ()))
        if listener == "public" and "{source}" in path:
            kept["parameters"] = [one for one in kept["parameters"] if not one.get("$ref", "").endswith("/source")]
            for source in _DESCRIBED if "{tail}" not in path else ("gtm",):
                own = copy.deepcopy(kept)
                if "post" in own:
                    schema = {"$ref": f"#/components/schemas/{SCHEMAS[ADAPTERS[source]]}"}
                    own["post"]["requestBody"]["content"] = {"application/json": {"schema": schema}}
                for method in ("get", "post", "options"):
                    if method in own:
                        own[method]["operationId"] += f"-{source}"
                paths[path.replace("{source}", source)] = own
        else:
            paths[path] = kept
    return {**found, "paths": paths}


def test_the_description_is_one() -> None:
    """docs/openapi.yaml is a valid OpenAPI document, and every operation has an id of its own."""
    names = [item[name]["operationId"] for item in SPEC["paths"].values() for name in item if name in _METHODS]
    assert len(names) == len(set(names))
    assert SPEC["openapi"].startswith("3.1")


#: Never called by Schemathesis: they write files where the body says.
_WRITING = frozenset({"/api/export", "/api/backup", "/api/salvage"})
#: Nor is this: a sound call of it never ends.
_ENDLESS = frozenset({"/api/events/stream"})


def _sound(found: Any) -> Any:
    return found.ok()


def conform(operation: Any, url: str, session: requests.Session, headers: dict[str, str]) -> int:
    """Send what fits the description of one operation, and judge the answers; returns how many."""
    sent = 0

    @settings(max_examples=4, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def each(case: Any) -> None:
        nonlocal sent
        sent += 1
        answer = case.call(base_url=url, session=session, headers=headers, timeout=20)
        case.validate_response(answer, checks=CHECKS)

    each()
    return sent


@pytest.mark.parametrize("listener", ["public", "operator"])
def test_answers_are_as_described(served: Served, listener: str) -> None:
    """Status, content type, headers and schema of every operation's answers, for what fits the description and not."""
    schema = schemathesis.openapi.from_dict(described(listener))
    host, port = served.public if listener == "public" else served.operator
    session = requests.Session()
    session.trust_env = False
    operations = [_sound(one) for one in schema.get_all_operations()]
    operations = [one for one in operations if one.path not in _WRITING | _ENDLESS]
    sent = 0
    for operation in operations:
        name = operation.path.split("/")[2] if operation.path.startswith("/in/") else ""
        sent += conform(operation, f"http://{host}:{port}", session, _credentials(listener, name))
    session.close()
    say(f"fuzz, schemathesis, {listener}: {sent} requests to {len(operations)} operations")
    assert sent >= len(operations)


def _credentials(listener: str, source: str) -> dict[str, str]:
    if listener == "operator":
        return {"Authorization": f"Bearer {OPERATOR_PASSWORD}"}
    return {"Authorization": f"Bearer {SECRET}"} if source in ("api", "gtm", "tealium") else {"Origin": ORIGIN}


def _methods(item: dict[str, Any]) -> set[str]:
    return {name.upper() for name in item if name in _METHODS}


def test_the_operators_routes_and_the_description_agree(tmp_path: Path) -> None:
    """Each route of the operator's app is described, and each description has its route, with the same methods."""
    with World(tmp_path) as world:
        app = operator_app(world.gateway)
        assert isinstance(app, Starlette)
        found: dict[str, set[str]] = {}
        for route in app.routes:
            if isinstance(route, Mount):
                assert (route.path, route.routes) == ("/plugins", [])  # pages of plugins: none is installed here
            elif isinstance(route, Route) and not route.path.startswith("/in/"):  # the control socket's way in
                found.setdefault(route.path, set()).update((route.methods or set()) - {"HEAD"})
    told = {
        path: _methods(item)
        for path, item in SPEC["paths"].items()
        if any("operator" in item[method.lower()]["tags"] for method in _methods(item))
    }
    assert found == told


def test_the_public_port_has_what_is_described_and_nothing_else(served: Served) -> None:
    """Hits, files and two probes; no metrics, no API, no documents, and no word of what serves them."""
    constants = {
        node.args[0].value
        for node in ast.walk(ast.parse((ROOT / "gateway" / "ingress.py").read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "StarletteRoute"
        and isinstance(node.args[0], ast.Constant)
    }  # fmt: skip
    public = {
        path
        for path, item in SPEC["paths"].items()
        if any("public" in item[one]["tags"] for one in item if one in _METHODS)
    }
    assert {path for path in public if not path.startswith("/in/")} == constants
    with httpx.Client(base_url=f"http://127.0.0.1:{served.process.port}", trust_env=False) as client:
        for path in SPEC["paths"]:
            answer = client.get(re.sub(r"\{\w+\}", "tag", path), headers={"Origin": ORIGIN})
            if path in public:
                assert (path, answer.json()["error"]["code"] if answer.status_code == 404 else "") in (
                    (path, ""), ("/in/{source}/pixel.js", "")
                ), path  # fmt: skip
            else:
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
            assert "server" not in answer.headers
        for path in (
            "/",
            "/healthz",
            "/docs",
            "/redoc",
            "/openapi.json",
            "/openapi.yaml",
            "/favicon.ico",
            "/plugins/",
            "/in",
        ):
            assert client.get(path).json()["error"]["code"] in ("not_found", "unknown_source"), path
        for path in ("/livez", "/readyz"):
            assert client.get(path).text == "ok\n"


def test_a_planted_difference_is_found(served: Served) -> None:
    """A status that the description leaves out is reported: the check of the answers can fail."""
    wrong = described("public")
    operation = wrong["paths"]["/in/tag"]["get"]
    operation["responses"] = {"200": operation["responses"]["200"]}
    schema = schemathesis.openapi.from_dict({**wrong, "paths": {"/in/tag": {"get": operation}}})
    host, port = served.public
    (one,) = [_sound(found) for found in schema.get_all_operations()]

    @settings(max_examples=3, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=one.as_strategy())
    def each(case: Any) -> None:
        answer = case.call(base_url=f"http://{host}:{port}", headers={"Origin": "https://evil.example"}, timeout=20)
        case.validate_response(answer, checks=CHECKS)

    with pytest.raises(BaseException, match="Undocumented status code"):
        each()
