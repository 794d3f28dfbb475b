"""What the fuzz sends to the operator's API: the mandatory seeds at every field of every call, and strategies."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st

from gateway.testing import hostile
from tests.harness.fuzz import CANARY, SOURCES, Headers, Input
from tests.harness.fuzz_inputs import EVENT, VALUES, bodies
from tests.harness.fuzz_strategies import JSON_VALUES, RAW

#: Paths and bodies of the operator's API, sound but for what they name.
OPERATOR: Mapping[str, dict[str, Any]] = {
    "/api/dead/replay": {"units": ["1"], "destination": "p", "reason": None, "event_name": "lead", "dry_run": True},
    "/api/dead/discard": {"units": ["1"], "source": "tag", "dry_run": False},
    "/api/erase": {"email": "a@b.example", "phone": "+1 217 555 0100", "external_id": "x", "site": "shop"},
    "/api/explain": {
        "source": "api",
        "capture": base64.b64encode(json.dumps(EVENT).encode()).decode(),
        "verify": False,
    },
    "/api/import/api": {"rows": [{"event": EVENT, "mark": "m"}], "dry_run": True},
    "/api/quarantine/replay": {"ids": ["a"], "source": "tag", "after": "", "dry_run": True},
    "/api/quarantine/discard": {"ids": ["../a"], "source": "tag", "after": "", "dry_run": False},
    "/api/salvage": {"path": "none.db", "acknowledge": True},
    "/api/audiences/login": {"name": "x", "again": True},
    "/api/audiences/login/look": {"state": "x", "wait_s": 0.0},
    "/api/audiences/login/answer": {"url": "http://x/?state=a&code=b"},
    "/api/audiences/account": {"sink": "x", "account": ""},
    "/api/audiences/connect": {"kind": "list", "group": "g", "create": "c", "dry_run": True},
    "/api/audiences/disconnect": {"connection": 1, "keep": True},
    "/api/audiences/sync": {"connection": 1, "full": True, "dry_run": True},
    "/api/audiences/lookalike": {"connection": 1, "name": "n", "country": "US", "percent": 1},
}
_CAPTURES = (
    {"hit": {"method": "GET", "query": "d=!", "headers": {"a": 1}, "peer": 5, "received_at": [1]}},
    {"hit": {"path": "http://[", "headers": [], "body": {"event_name": "x"}}},
    {"request": {"method": 7, "path": None, "headers": {"A": None}}, "body": ["x"]},
    {"hit": {"received_at": "1e999", "body": EVENT}},
    {"hit": {"received_at": 1e300, "body": {"event_name": "lead", "user": {"email": "a@b.example"}}}},
    {"hit": {"peer": 5, "headers": {"x-forwarded-for": "1"}, "body": EVENT}},
    {"hit": {"method": ["x"], "tail": {"a": 1}, "query": 5, "body": 7}},
)


def calls(path: str) -> st.SearchStrategy[Input]:
    """Return calls of one path of the operator's API."""
    sound = OPERATOR[path]

    @st.composite
    def spoilt(draw: Callable[..., Any]) -> bytes:
        value: Any = sound
        for _ in range(draw(st.integers(0, 2))):
            value = hostile.replaced(value, draw(st.sampled_from(list(hostile.paths(value)))), draw(JSON_VALUES | RAW))
            if isinstance(value, msgspec.Raw):
                break
        return msgspec.json.encode(value)

    body = st.one_of(st.binary(max_size=80), JSON_VALUES.map(msgspec.json.encode), spoilt(), spoilt())
    return body.map(lambda raw: call(path, raw, f"hypothesis at {path}"))


def call(path: str, body: bytes, label: str, method: str = "POST") -> Input:
    """Return one call of the operator's API."""
    headers: Headers = ((b"content-type", b"application/json"),)
    return Input(label=label, method=method, target=path.encode(), headers=headers, body=body, listener="operator")


def operator_calls() -> Iterator[Input]:
    """Yield the mandatory seeds at every path of the operator's API."""
    for path, sound in OPERATOR.items():
        for name, body in bodies():
            if len(body) < 300_000:
                yield call(path, body, f"{name} at {path}")
        for name, text in VALUES.items():
            for at in [at for at in hostile.paths(sound) if at]:
                body = msgspec.json.encode(hostile.replaced(sound, at, msgspec.Raw(text.encode())))
                yield call(path, body, f"{name} at {hostile.shown(at)} of {path}")
    for capture in (*map(json.dumps, _CAPTURES), "[" * 5_000, '{"hit": ' * 900 + "1" + "}" * 900, "\ud83d"):
        encoded = base64.b64encode(capture.encode("utf-8", "surrogatepass")).decode()
        for source in SOURCES:
            for verify in (True, False):
                sent = json.dumps({"source": source, "capture": encoded, "verify": verify}).encode()
                yield call("/api/explain", sent, f"capture {capture[:40]} for {source}")
    for path in (
        "/api/dead?limit=%C2%B2", "/api/dead?limit=" + "9" * 5_000, "/api/dead?after=%00%ff",
        "/api/dead?reason=%ed%a0%80",
        "/api/quarantine?limit=%C2%B2", "/api/quarantine?after=%00&source=%ff", "/api/quarantine?ids=a&dry_run=x",
        "/api/events?limit=%C2%B2", "/api/events?after=%ff&source=%00", "/api/events?fate=" + CANARY + "&limit=200",
        "/api/events/stream?after=x", "/api/events/stream?limit=%00&x=1",
        "/api/dead/%00", "/api/dead/%ff%fe", "/api/dead/9223372036854775808", "/api/dead/-1", "/api/dead/%C2%B2",
        "/api/dead/" + "1" * 5_000, "/api/dead?after=99999999999999999999", "/api/dead?after=1&units=1&dry_run=x",
        "/api/audiences/jobs/%00", "/api/audiences/jobs/x?wait_s=nan", "/api/audiences/jobs/x?wait_s=1e999",
        "/api/audiences/groups?source=%ff", "/api/audiences/accounts?sink=%00", "/api/audiences/audiences?sink=",
        "/oauth/callback?state=%ff&code=" + CANARY, "/oauth/callback", "/metrics?x=%ff", "/nowhere/" + CANARY,
        "/api/dead/a/b",
        "/api/import/none", "/api/status", "/api/plugins", "/livez",
    ):  # fmt: skip
        for method in ("GET", "POST", "PUT", "HEAD"):
            yield call(path, b"{}" if method == "POST" else b"", f"{method} {path[:60]}", method)
