"""The operator's listener: no foreign page changes anything there, and nothing of it is public."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from gateway import config as configuration
from gateway.hit import Secret
from gateway.ingress import public_app
from gateway.logs import HitLog
from gateway.operator import operator_app
from gateway.operator.roles import PageRoute
from gateway.runtime import Gateway
from gateway.testing.app import complete
from gateway.testing.asgi import AppClient
from gateway.testing.doubles import Clock

CONFIG: dict[str, Any] = {"sources": {"api": {"adapter": "browser_tag", "secrets": ["s3cret-s3cret-s3cret"]}}}
OPERATOR = {"Authorization": "Bearer operator-password"}
#: What a page of another site can send without asking the browser's leave, and what its own scripts can add to it.
FORMS = [
    {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "multipart/form-data; boundary=x"},
    {"Content-Type": "text/plain"}, {"Content-Type": "text/plain; charset=application/json"}, {},
    {"Content-Type": ""}, {"Content-Type": "text/plain, application/json"}, {"Content-Type": "application/x-json"},
]  # fmt: skip
FOREIGN = {"Origin": "https://evil.io", "Referer": "https://evil.io/", "Sec-Fetch-Site": "cross-site"}


@asynccontextmanager
async def operated(folder: Path) -> AsyncIterator[tuple[Gateway, Any]]:
    parsed = configuration.parse(complete(CONFIG), folder / "gateway.toml")
    gateway = Gateway(parsed, http=AppClient(None), clock=Clock(), hit_log=HitLog(enabled=False))
    try:
        yield gateway, operator_app(gateway, Secret(value="operator-password"), Secret(value="viewer-password"))
    finally:
        await gateway.stop()


def routes(found: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield each path of an app with its methods, parameters filled in."""
    for route in found:
        if isinstance(route, Mount):
            yield from routes(route.routes, prefix + route.path)
        elif isinstance(route, Route):
            path = prefix + route.path
            for name, value in (("{unit}", "1"), ("{job}", "1"), ("{source}", "api"), ("{rest:path}", "api")):
                path = path.replace(name, value)
            yield path.replace("{id}", "1").replace("{name}", "x"), set(route.methods or {"GET"})


#: Never end by themselves; tests/test_live.py reads them.
STREAMS = frozenset({"/api/events/stream", "/live/stream"})


def table(app: Any) -> dict[str, set[str]]:
    """Return the operator's routes but pages (tests/test_pages_security.py) and streams, from the app itself."""
    inner = app._app
    assert isinstance(inner, Starlette)
    found: dict[str, set[str]] = {}
    for path, methods in routes([route for route in inner.routes if not isinstance(route, PageRoute)]):
        if path not in STREAMS:
            found.setdefault(path, set()).update(methods)
    return found


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://operator")


def store(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the files there are, and every row of the stores among them."""
    rows = {}
    for path in sorted(folder.rglob("*.db")):
        with closing(sqlite3.connect(path)) as reader:
            rows[path.name] = list(reader.iterdump())
    return sorted(path.name for path in folder.rglob("*") if path.is_file()), rows


def test_no_foreign_page_changes_anything(tmp_path: Path) -> None:
    """Each route that changes something refuses every form and text that a page of another site can send."""

    async def main() -> None:
        async with operated(tmp_path) as (_, app), client(app) as browser:
            changing = {path: found - {"GET", "HEAD"} for path, found in table(app).items() if found - {"GET", "HEAD"}}
            assert {"/api/dead/replay", "/api/erase", "/api/backup", "/api/audiences/sync"} <= changing.keys()
            before = store(tmp_path)
            for path, methods in changing.items():
                for method in methods:
                    for form in FORMS:
                        headers = {**OPERATOR, **FOREIGN, **form}
                        answer = await browser.request(method, path, content=b'{"a":1}', headers=headers)
                        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "not_json"), (path, form)
            assert store(tmp_path) == before

    asyncio.run(main())


def test_reading_changes_nothing(tmp_path: Path) -> None:
    """No GET of the operator's listener changes a row or a file, so that a link or an image cannot."""

    async def main() -> None:
        async with operated(tmp_path) as (_, app), client(app) as browser:
            reading = [path for path, found in table(app).items() if "GET" in found]
            assert len(reading) >= 10
            for path in reading:  # what is made on demand is made now
                await browser.get(path, headers=OPERATOR)
            before = store(tmp_path)
            for path in reading:
                await browser.get(path, headers={**OPERATOR, **FOREIGN})
                await browser.get(f"{path}?a=1", headers={**OPERATOR, **FOREIGN})
            assert store(tmp_path) == before

    asyncio.run(main())


def test_every_route_demands_a_password(tmp_path: Path) -> None:
    """All but liveness and the callback of logins are 401 without one; a viewer's opens no change."""

    async def main() -> None:
        async with operated(tmp_path) as (_, app), client(app) as browser:
            for path, methods in table(app).items():
                for method in methods - {"HEAD"}:
                    answer = await browser.request(method, path, json={})
                    assert (answer.status_code == 401) is (path not in ("/livez", "/oauth/callback")), (method, path)
                    if method != "GET":
                        headers = {"Authorization": "Bearer viewer-password"}
                        answer = await browser.request(method, path, json={}, headers=headers)
                        assert answer.status_code == 403, path

    asyncio.run(main())


def test_no_foreign_page_reads_anything(tmp_path: Path) -> None:
    """No route, method or origin is granted a look, and nothing is cached."""

    async def main() -> None:
        async with operated(tmp_path) as (_, app), client(app) as browser:
            for path, methods in table(app).items():
                for origin in ("https://evil.io", "null", "http://operator", "http://127.0.0.1:8081"):
                    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
                    for method in {*methods, "OPTIONS"} - {"HEAD"}:
                        answer = await browser.request(method, path, headers={**OPERATOR, **asked})
                        assert not [name for name in answer.headers if name.startswith("access-control-")], path
                        assert "set-cookie" not in answer.headers

    asyncio.run(main())


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_the_operators_bodies_are_not_inflated_either(encoding: str, tmp_path: Path) -> None:
    """A compressed body is bytes that are no JSON."""

    async def main() -> None:
        async with operated(tmp_path) as (_, app), client(app) as browser:
            headers = {**OPERATOR, "Content-Type": "application/json", "Content-Encoding": encoding}
            for path in ("/api/dead/replay", "/api/erase", "/api/export"):
                answer = await browser.post(path, content=b"\x1f\x8b\x08rest", headers=headers)
                assert answer.status_code == 400

    asyncio.run(main())


def test_nothing_of_the_operators_is_public(tmp_path: Path) -> None:
    """No path of the operator's app is answered on the public listener, and that names no version."""

    async def main() -> None:
        async with operated(tmp_path) as (gateway, app), client(public_app(gateway.ingress, gateway.ready)) as world:
            for path, methods in table(app).items():
                if path == "/livez":
                    continue
                for method in methods:
                    answer = await world.request(method, path, headers=OPERATOR, content=b"{}")
                    assert answer.status_code == 404, path
            for path in ("/livez", "/readyz", "/", "/docs", "/openapi.json", "/.env", "/server-status"):
                answer = await world.get(path)
                said = f"{dict(answer.headers)} {answer.text}".lower()
                assert not [word for word in ("hypercorn", "uvicorn", "starlette", "python", "0.1") if word in said]

    asyncio.run(main())


def test_the_control_finds_a_route_that_takes_forms(tmp_path: Path) -> None:
    """The control: without the middleware a form would get through to the handler, so the refusals above are its."""

    async def main() -> None:
        async with operated(tmp_path) as (_, app), client(app._app) as browser:
            answer = await browser.post("/api/dead/replay", content=b"{}", headers={**FOREIGN, **FORMS[0]})
            assert (answer.status_code, json.loads(answer.content)) == (200, {"queued": 0, "duplicates": []})

    asyncio.run(main())
