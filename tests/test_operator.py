"""The operator's API: guarded, and exact about what it did."""

import asyncio
import base64
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route

from gateway import Context, hookimpl
from gateway import config as configuration
from gateway.hit import Secret
from gateway.logs import HitLog
from gateway.operator import operator_app
from gateway.outbox import DeadFilter, Lane, Settlement
from gateway.runtime import Gateway
from gateway.testing.app import complete
from gateway.testing.asgi import AppClient
from gateway.testing.doubles import NOW, Clock

CONFIG: dict[str, Any] = {
    "sites": {"shop": {}},
    "sources": {
        "api": {"adapter": "browser_tag", "site": "shop", "secrets": ["s3cret"]},
        "tag": {"adapter": "browser_tag", "site": "shop", "allowed_origins": ["https://shop.example"]},
    },
}
OPERATOR = {"Authorization": "Bearer op-password"}
VIEWER = {"Authorization": "Bearer view-password"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


class Pages:
    @hookimpl
    def register_routes(self, context: Context) -> list[BaseRoute]:
        return [Route("/hello", lambda _request: PlainTextResponse("hello"))]


class Operated:
    """A gateway that delivers nothing, and a client of its operator's app."""

    def __init__(self, gateway: Gateway, app: Any) -> None:
        self.gateway = gateway
        self.app = app
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://operator", headers=OPERATOR
        )

    def forgive(self) -> None:
        """Forget wrong passwords: tests/test_pages_security.py is about them."""
        self.app._throttle.clear()

    async def get(self, path: str, **arguments: Any) -> Any:
        answer = await self.client.get(path, **arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any) -> Any:
        answer = await self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def hit(self, *ids: str, source: str = "api", **fields: Any) -> None:
        events = [
            {
                "event_name": "lead",
                "event_id": one,
                "event_time": int(NOW) - 5,
                "user": {"email": "jo@example.com"},
                **fields,
            }
            for one in ids
        ]
        transport = httpx.ASGITransport(self.gateway.ingress)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            headers = {"Authorization": "Bearer s3cret"} if source == "api" else {}
            answer = await client.post(f"/in/{source}", json=events, headers=headers)
            assert answer.json()["accepted"] == len(ids), answer.text

    async def kill(self, reason: str = "rejected: value") -> None:
        """Make dead letters of all that waits."""
        lease = await self.gateway.outbox.claim(Lane(destination="pinterest", kind="live"), 100, NOW)
        assert lease is not None
        await self.gateway.outbox.settle(
            lease, [Settlement(unit=unit.unit, end="dead", reason=reason) for unit in lease.units]
        )


@asynccontextmanager
async def operated(folder: Path) -> AsyncIterator[Operated]:
    parsed = configuration.parse(complete(CONFIG), folder / "gateway.toml")
    gateway = Gateway(
        parsed, http=AppClient(None), clock=Clock(), hit_log=HitLog(enabled=False), extra_plugins={"pages": Pages()}
    )
    app = operator_app(gateway, Secret(value="op-password"), Secret(value="view-password"))
    found = Operated(gateway, app)
    try:
        yield found
    finally:
        await found.client.aclose()
        await gateway.stop()


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Operated], Coroutine[Any, Any, None]]], None]:
    """Return a runner of one scenario."""

    def start(scenario: Callable[[Operated], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with operated(tmp_path) as found:
                await scenario(found)

        asyncio.run(main())

    return start


Run = Callable[[Callable[[Operated], Coroutine[Any, Any, None]]], None]
GETS = ["/metrics", "/api/status", "/api/plugins", "/api/dead", "/api/dead/1", "/plugins/hello", "/", "/api/none"]
POSTS = ["/api/dead/replay", "/api/dead/discard", "/api/erase", "/api/backup", "/api/explain"]
NOBODY = [
    {},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer wrong"},
    {"Authorization": "Bearer op-passwor"},
    {"Authorization": "op-password"},
    {"Authorization": "Digest op-password"},
    basic("op-password", ""),
    basic("admin", "wrong"),
    {"Authorization": "Basic ???"},
    {"Authorization": "Basic b3AtcGFzc3dvcmQ="},
]


def test_nothing_without_the_password(run: Run) -> None:
    """Every path but /livez demands a password, whether it exists or not."""

    async def scenario(api: Operated) -> None:
        for headers in NOBODY:
            given = {"Authorization": "", **headers}
            for path in GETS:
                api.forgive()
                answer = await api.client.get(path, headers=given)
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"].startswith("Basic")
                assert answer.json()["error"]["code"] == "unauthorized"
            for path in POSTS:
                api.forgive()
                assert (await api.client.post(path, json={}, headers=given)).status_code == 401
        assert (await api.client.get("/livez", headers={"Authorization": ""})).text == "ok\n"

    run(scenario)


def test_basic_and_bearer(run: Run) -> None:
    """The password opens as Bearer and as HTTP Basic under any user name."""

    async def scenario(api: Operated) -> None:
        for headers in (
            OPERATOR,
            basic("admin", "op-password"),
            basic("", "op-password"),
            VIEWER,
            basic("x", "view-password"),
        ):
            assert (await api.client.get("/api/status", headers=headers)).status_code == 200

    run(scenario)


def test_a_viewer_may_only_read(run: Run) -> None:
    """The viewer's password changes nothing, and no foreign page can send what changes something."""

    async def scenario(api: Operated) -> None:
        for path in POSTS:
            answer = await api.client.post(path, json={}, headers=VIEWER)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
                headers = {"Content-Type": kind} if kind else {}
                form = await api.client.post(path, content=b"{}", headers=headers)
                assert (form.status_code, form.json()["error"]["code"]) == (415, "not_json")
        assert (await api.client.delete("/api/dead/1", headers=VIEWER)).status_code == 403

    run(scenario)


def test_status(run: Run) -> None:
    """Counts by source and fate, the queue, and what is wrong."""

    async def scenario(api: Operated) -> None:
        await api.hit("e1", "e2")
        found = await api.get("/api/status")
        assert found["ready"] is True
        assert {
            "source": "api",
            "destination": "pinterest",
            "event": "lead",
            "fate": "accepted",
            "reason": "",
            "count": 2,
            "day": 2,
        } in found["events"]
        assert found["hits"] == [{"source": "api", "status": 200, "count": 1}]
        (queue,) = found["queue"]
        assert (queue["destination"], queue["kind"], queue["waiting"], queue["dead"]) == ("pinterest", "live", 2, 0)
        assert found["store_bytes"] > 0
        assert any("literal secret" in warning for warning in found["warnings"])
        assert "s3cret" not in json.dumps(found)

    run(scenario)


def test_metrics(run: Run) -> None:
    """The names that dashboards rely on, with bounded labels and nothing personal."""

    async def scenario(api: Operated) -> None:
        await api.hit("secret-id-1", user={"email": "jo@example.com"})
        answer = await api.client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        names = {line.split("{")[0].split(" ")[0] for line in answer.text.splitlines() if not line.startswith("#")}
        assert names >= {
            "gateway_events_total",
            "gateway_hits_total",
            "gateway_queue",
            "gateway_queue_oldest_seconds",
            "gateway_lane_state",
            "gateway_store_bytes",
        }
        declared = {line.split(" ")[2] for line in answer.text.splitlines() if line.startswith("# TYPE")}
        assert declared >= {
            "gateway_calls_total",
            "gateway_plugin_failures_total",
            "gateway_alarms_total",
            "gateway_late_total",
            "gateway_maybe_twice_total",
            "gateway_delivery_lateness_seconds",
        }
        assert 'gateway_hits_total{source="api",status="200"} 1.0' in answer.text
        assert 'gateway_queue{destination="pinterest",kind="live",state="waiting"} 1.0' in answer.text
        assert "secret-id-1" not in answer.text
        assert "jo@" not in answer.text

    run(scenario)


def test_dead_letters(run: Run) -> None:
    """Listed in pages, shown masked, counted by a dry run, replayed, discarded."""

    async def scenario(api: Operated) -> None:
        assert await api.get("/api/dead") == {"letters": [], "after": None}
        await api.hit("e1", "e2", "e3")
        await api.kill()
        first = await api.get("/api/dead", params={"limit": 2})
        rest = await api.get("/api/dead", params={"limit": 2, "after": first["after"]})
        assert [letter["event_id"] for letter in first["letters"] + rest["letters"]] == ["e1", "e2", "e3"]
        assert first["letters"][0]["reason"] == "rejected: value"
        assert (await api.get("/api/dead", params={"source": "tag"}))["letters"] == []
        unit = first["letters"][0]["unit"]
        shown = await api.get(f"/api/dead/{unit}")
        assert shown["payload"]["event_id"] == "e1"
        (em,) = shown["payload"]["user_data"]["em"]
        assert em.endswith("…")
        assert len(em) == 7
        assert await api.post("/api/dead/replay", {"dry_run": True}) == {"would_queue": 3}
        assert await api.post("/api/dead/discard", {"dry_run": True, "units": [unit]}) == {"would_discard": 1}
        assert await api.post("/api/dead/replay", {"units": [unit]}) == {"queued": 1, "duplicates": []}
        assert await api.post("/api/dead/discard", {"event_name": "lead"}) == {"discarded": 2}
        assert (await api.get("/api/dead"))["letters"] == []
        (queue,) = (await api.get("/api/status"))["queue"]
        assert (queue["waiting"], queue["dead"]) == (1, 0)

    run(scenario)


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/api/dead/replay", {"unit": ["1"]}, "unit"),
        ("/api/dead/discard", {"units": "1"}, "units"),
        ("/api/dead/discard", {"dry_run": "yes"}, "dry_run"),
        ("/api/erase", {"mail": "jo@example.com"}, "mail"),
        ("/api/erase", {}, "email"),
        ("/api/backup", {}, "path"),
        ("/api/backup", {"path": 5}, "path"),
        ("/api/explain", {"source": "api"}, "capture"),
        ("/api/explain", [], "object"),
        ("/api/explain", {"source": "api", "capture": "???"}, ""),
    ],
)
def test_a_bad_call_names_the_field(run: Run, path: str, body: Any, named: str) -> None:
    """A misspelt key must not act on everything: it is a 400 that names it."""

    async def scenario(api: Operated) -> None:
        answer = await api.client.post(path, json=body)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error.keys() == {"code", "message", "hint"}
        assert named in error["message"]

    run(scenario)


def test_bad_queries(run: Run) -> None:
    """A misspelt or unreadable query parameter is a 400; a missing dead letter and source are 404."""

    async def scenario(api: Operated) -> None:
        for params, named in (({"sorce": "api"}, "sorce"), ({"limit": "many"}, "limit"), ({"limit": "-1"}, "limit")):
            answer = await api.client.get("/api/dead", params=params)
            assert answer.status_code == 400, params
            assert named in answer.json()["error"]["message"]
        for unit in ("ffff", "nonsense"):
            missing = await api.client.get(f"/api/dead/{unit}")
            assert missing.status_code == 404
            assert missing.json()["error"]["code"] == "not_found"
        unknown = await api.client.post("/api/explain", json={"source": "sop", "capture": ""})
        assert unknown.status_code == 404
        assert "api, tag" in unknown.json()["error"]["hint"]

    run(scenario)


def test_erase(run: Run) -> None:
    """A person is erased from what waits and from dead letters, in any spelling; others stay."""

    async def scenario(api: Operated) -> None:
        await api.hit("e1")
        await api.kill()
        await api.hit("e2")
        await api.hit("e3", user={"email": "other@example.com"})
        assert await api.post("/api/erase", {"email": "JO@example.com "}) == {"erased": 2}
        assert await api.post("/api/erase", {"email": "jo@example.com", "site": "shop"}) == {"erased": 0}
        assert (await api.gateway.outbox.dead(DeadFilter())) == []
        (queue,) = (await api.get("/api/status"))["queue"]
        assert queue["waiting"] == 1

    run(scenario)


def test_erasing_at_an_unknown_site_says_so(run: Run) -> None:
    """An erasure that could not find anybody because of a typing error must not look like a success."""

    async def scenario(api: Operated) -> None:
        await api.hit("e1")
        answer = await api.client.post("/api/erase", json={"email": "jo@example.com", "site": "shpo"})
        assert answer.status_code in (400, 404)
        assert "shpo" in answer.text

    run(scenario)


def test_backup(run: Run, tmp_path: Path) -> None:
    """The copy is a whole store; an existing file or a missing folder is an error, not an overwritten file."""

    async def scenario(api: Operated) -> None:
        await api.hit("e1")
        target = tmp_path / "copy.db"
        answer = await api.post("/api/backup", {"path": str(target)})
        assert answer == {"path": str(target), "bytes": target.stat().st_size}
        connection = sqlite3.connect(target)
        assert connection.execute("SELECT count(*) FROM unit").fetchone() == (1,)
        connection.close()
        assert target.stat().st_mode & 0o077 == 0
        for path in (target, tmp_path / "none" / "copy.db"):
            refused = await api.client.post("/api/backup", json={"path": str(path)})
            assert refused.status_code in (400, 503), path
            assert refused.json()["error"]["message"]

    run(scenario)


def test_explain(run: Run) -> None:
    """Each step, the would-be payload and the outcome, masked; nothing is kept."""

    async def scenario(api: Operated) -> None:
        body = {"event_name": "lead", "event_id": "e1", "event_time": int(NOW), "user": {"email": "jo@example.com"}}
        capture = base64.b64encode(json.dumps(body).encode()).decode()
        refused = await api.post("/api/explain", {"source": "api", "capture": capture})
        assert refused["error"].startswith("401")
        found = await api.post("/api/explain", {"source": "api", "capture": capture, "verify": False})
        assert found["steps"][0]["name"] == "normalized"
        assert found["payloads"][0]["event"]["event_id"] == "e1"
        assert found["outcomes"][0]["fate"] == "accepted"
        assert "jo@example.com" not in json.dumps(found)
        assert (await api.get("/api/status"))["queue"] == []

    run(scenario)


def test_plugins_and_their_pages(run: Run) -> None:
    """Plugins are listed, and their pages are behind the same password."""

    async def scenario(api: Operated) -> None:
        assert {"shopify", "pinterest", "pages"} <= {plugin["name"] for plugin in await api.get("/api/plugins")}
        assert (await api.client.get("/plugins/hello")).text == "hello"

    run(scenario)


def test_answers_are_not_cached(run: Run) -> None:
    """No proxy keeps what only an operator may see."""

    async def scenario(api: Operated) -> None:
        for path in ("/api/status", "/api/dead", "/api/plugins"):
            assert (await api.client.get(path)).headers["cache-control"] == "no-store"

    run(scenario)
