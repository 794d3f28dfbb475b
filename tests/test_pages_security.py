"""The controls of the operator's pages: login, sessions, CSRF, roles, headers, hostile text, the audit log."""

import asyncio
import base64
import itertools
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from gateway import Context, hookimpl
from gateway import config as configuration
from gateway.commands.hash_password import hash_password
from gateway.commands.serve import _reload
from gateway.edge import Edge
from gateway.errors import CommandFailed, ConfigError
from gateway.hit import Secret
from gateway.logs import HitLog
from gateway.operator import operator_app, passwords
from gateway.operator.headers import POLICY, Hardened
from gateway.operator.pages import Pages
from gateway.operator.passwords import Passwords, checked, hashed
from gateway.operator.roles import PageRoute, need_of
from gateway.operator.sessions import IDLE_S, LIFE_S, Sessions
from gateway.operator.throttle import PER_ADDRESS, TOGETHER, Throttle
from gateway.outbox import Lane, Settlement
from gateway.runtime import Gateway
from gateway.testing.app import complete
from gateway.testing.asgi import AppClient
from gateway.testing.doubles import NOW, Clock
from tests.harness.operator_site import HTML, Visitor, token_of
from tests.harness.payloads_xss import CORPUS, MARK, foreign_markup

CONFIG: dict[str, Any] = {
    "sources": {
        "tag": {"adapter": "browser_tag", "allowed_origins": ["https://shop.example"]},
        "api": {"adapter": "browser_tag", "secrets": ["s3cret-s3cret-s3cret"]},
    }
}
OPERATOR, VIEWER = "operator-password", "viewer-password"
#: Answer without an end; who may read them is looked at without reading.
STREAMS = frozenset({"/live/stream", "/api/events/stream"})


class Plugin:
    @hookimpl
    def register_routes(self, context: Context) -> list[Route]:
        return [Route("/hello", lambda _: PlainTextResponse("hello"), methods=["GET", "POST"])]


@asynccontextmanager
async def guarded(
    folder: Path, password: str = OPERATOR, viewer: str | None = VIEWER, tables: Mapping[str, Any] | None = None
) -> AsyncIterator[tuple[Gateway, Any]]:
    gateway = Gateway(
        configuration.parse(complete({**CONFIG, **(tables or {})}), folder / "gateway.toml"),
        http=AppClient(None), clock=Clock(), hit_log=HitLog(enabled=False), extra_plugins={"greeter": Plugin()},
    )  # fmt: skip
    try:
        yield gateway, operator_app(gateway, Secret(value=password), Secret(value=viewer) if viewer else None)
    finally:
        await gateway.stop()


def clock_of(gateway: Gateway) -> Clock:
    assert isinstance(gateway.clock, Clock)
    return gateway.clock


# -- S-50: login and sessions


def cookies(answer: httpx.Response) -> dict[str, str]:
    """Return the cookies that an answer sets, with all that is said of them."""
    return {line.partition("=")[0]: line for line in answer.headers.get_list("set-cookie")}


@pytest.mark.parametrize(
    ("base_url", "tables", "headers", "is_secure"),
    [
        ("http://operator", {}, {}, False),
        ("https://operator", {}, {}, True),
        ("http://operator", {"operator": {"url": "https://op.example"}}, {}, True),
        ("http://operator", {}, {"X-Forwarded-Proto": "https"}, True),
        ("http://operator", {"server": {"trusted_proxies": []}}, {"X-Forwarded-Proto": "https"}, False),
    ],
    ids=["http", "https", "url", "proxy", "not-our-proxy"],
)
def test_flags_of_the_session_cookie(
    base_url: str, tables: dict[str, Any], headers: dict[str, str], is_secure: bool, tmp_path: Path
) -> None:
    """HttpOnly, SameSite=Strict, whole path; over https Secure under a __Host- name, and HSTS."""

    async def main() -> None:
        async with guarded(tmp_path, tables=tables) as (_, app), Visitor(app, base_url=base_url) as visitor:
            visitor.client.headers.update(headers)
            shown = await visitor.client.get("/login")
            sent = "; ".join(line.partition(";")[0] for line in cookies(shown).values())
            answer = await visitor.client.post(
                "/login", data={"csrf": token_of(shown.text), "password": OPERATOR}, headers={"Cookie": sent}
            )
            assert answer.status_code == 303
            line = cookies(answer)["__Host-session" if is_secure else "session"].lower()
            assert {"httponly", "samesite=strict", "path=/"} <= set(line.split("; "))
            assert ("secure" in line.split("; ")) is is_secure
            assert "domain" not in line
            assert ("strict-transport-security" in answer.headers) is is_secure
            (token,) = re.findall(r"session=([A-Za-z0-9_-]+);", cookies(answer)[line.partition("=")[0].replace(
                "__host-", "__Host-")])  # fmt: skip
            assert len(token) >= 43  # 256 bits

    asyncio.run(main())


def test_wrong_passwords_open_nothing(tmp_path: Path) -> None:
    """No wrong, empty, cut or overlong password logs in, and each leaves a line that does not tell it."""

    async def main() -> None:
        async with guarded(tmp_path) as (gateway, app), Visitor(app) as visitor:
            wrong = ["", "x", OPERATOR[:-1], OPERATOR + "x", OPERATOR.upper(), "ä" * 2_000, OPERATOR + "\0", "\ud7ff"]
            for number, password in enumerate(wrong):
                clock_of(gateway).advance(61)
                answer = await visitor.login(password)
                assert (answer.status_code, "session" in cookies(answer)) == (403, False), number
            assert (await visitor.client.get("/")).status_code == 303
            lines = gateway.audit.last()
            assert [line.what for line in lines] == ["login_failed"] * len(wrong)
            assert {line.address for line in lines} == {"127.0.0.1"}
            assert OPERATOR[:-1] not in gateway.audit.path.read_text()

    asyncio.run(main())


def test_the_id_changes_at_login(tmp_path: Path) -> None:
    """An id from before the login is never taken over, and the old session ends."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app), Visitor(app) as visitor, Visitor(app) as thief:
            stale = ["fixed-by-somebody"]
            for password in (VIEWER, OPERATOR):
                visitor.client.cookies.clear()
                visitor.client.cookies.set("session", stale[-1], domain="operator.local")
                answer = await visitor.login(password)
                stale.append(re.findall(r"session=([^;]+);", cookies(answer)["session"])[0])
            assert len(set(stale)) == 3
            for token in (*stale[:2], "", "x" * 5_000):
                thief.client.cookies.clear()
                thief.client.cookies.set("session", token)
                assert (await thief.client.get("/")).status_code == 303

    asyncio.run(main())


def test_only_a_hash_of_the_id_is_kept() -> None:
    """Nothing that the process keeps is the id that the browser has."""
    sessions = Sessions(Clock())
    token, session = sessions.begin("viewer")
    assert sessions.find(token) is session
    assert token.encode() not in b"".join(sessions._found)
    assert token not in repr(vars(session))


def test_idle_and_old_sessions_end(tmp_path: Path) -> None:
    """After half an hour without a person, and after twelve hours in any case; a page's own requests are no person."""

    async def main() -> None:
        async with guarded(tmp_path) as (gateway, app), Visitor(app) as visitor:
            clock = clock_of(gateway)
            await visitor.login(VIEWER)
            clock.advance(IDLE_S)
            await visitor.page("/")
            for _ in range(3):
                clock.advance(IDLE_S / 3)
                answer = await visitor.client.get("/overview/now", headers={"X-Refresh": "1"})
                assert answer.status_code == 200
            clock.advance(1)
            answer = await visitor.client.get("/overview/now", headers={"X-Refresh": "1"})
            assert answer.status_code == 401
            assert "www-authenticate" not in answer.headers  # the browser would ask with a dialog of its own
            await visitor.login(VIEWER)
            for _ in range(int(LIFE_S / 1_000)):
                clock.advance(1_000)
                await visitor.page("/")
            clock.advance(1_000)
            assert (await visitor.client.get("/")).status_code == 303

    asyncio.run(main())


def test_logging_out_ends_the_session_here(tmp_path: Path) -> None:
    """After a logout the id opens nothing, whoever kept it."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app), Visitor(app) as visitor, Visitor(app) as thief:
            await visitor.login(OPERATOR)
            thief.client.cookies.set("session", visitor.client.cookies["session"])
            await thief.page("/")
            answer = await visitor.send("/logout")
            assert (answer.status_code, answer.headers["location"]) == (303, "/login")
            assert (await thief.client.get("/")).status_code == 303

    asyncio.run(main())


TOML = """
[operator]
password = {{ file = "op" }}
viewer_password = {{ file = "view" }}
[store]
url = "sqlite:///gateway.db"
[sources.api]
adapter = "browser_tag"
secrets = ["s3cret-s3cret-s3cret"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "549755885175"
token = "sandbox-token"
base_url = "http://127.0.0.1/v5"
"""


def test_a_reload_with_another_password_logs_out(tmp_path: Path) -> None:
    """Who logged in with a password that changed is out at once, the other role stays; a bad hash changes nothing."""
    (tmp_path / "gateway.toml").write_text(TOML.format())
    (tmp_path / "op").write_text("first")
    (tmp_path / "view").write_text(VIEWER)

    async def main() -> None:
        gateway = Gateway(
            configuration.load(tmp_path / "gateway.toml"), http=AppClient(None), clock=Clock(),
            hit_log=HitLog(enabled=False),
        )  # fmt: skip
        app: Any = operator_app(gateway, Secret(value="first"), Secret(value=VIEWER))
        async with Visitor(app) as operator, Visitor(app) as viewer:
            assert (await operator.login("first")).status_code == 303
            await viewer.login(VIEWER)
            (tmp_path / "op").write_text("$argon2id$broken")
            await _reload(gateway, tmp_path / "gateway.toml", app)
            await operator.page("/")
            (tmp_path / "op").write_text("second")
            await _reload(gateway, tmp_path / "gateway.toml", app)
            assert (await operator.client.get("/")).status_code == 303
            await viewer.page("/")
            assert (await operator.login("first")).status_code == 403
            assert (await operator.login("second")).status_code == 303
        assert [line.what for line in gateway.audit.last()][:5] == [
            "login", "login_failed", "reload", "passwords_changed", "reload",
        ]  # fmt: skip
        await gateway.stop()

    asyncio.run(main())


def test_passwords_are_throttled(tmp_path: Path) -> None:
    """After five wrong ones in a minute an address waits, with the right one too, at the form and at the API."""

    async def main() -> None:
        async with (
            guarded(tmp_path) as (gateway, app),
            Visitor(app) as visitor,
            Visitor(app, "10.0.0.9") as other,
        ):
            for number in range(PER_ADDRESS):
                if number % 2:
                    answer = await visitor.client.get("/api/status", headers={"Authorization": "Bearer wrong"})
                    assert answer.status_code == 401
                else:
                    assert (await visitor.login("wrong")).status_code == 403
            answer = await visitor.login(OPERATOR)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
            answer = await visitor.client.get("/metrics", headers={"Authorization": f"Bearer {OPERATOR}"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "throttled")
            assert (await other.login(OPERATOR)).status_code == 303
            clock_of(gateway).advance(60)
            assert (await visitor.login(OPERATOR)).status_code == 303
            assert [line.what for line in gateway.audit.last()].count("login_failed") == PER_ADDRESS

    asyncio.run(main())


def test_addresses_are_told_behind_a_proxy(tmp_path: Path) -> None:
    """One's own proxy does not make all its clients one; a stranger's X-Forwarded-For is not believed."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app), Visitor(app) as proxy, Visitor(app, "203.0.113.5") as stranger:
            for _ in range(PER_ADDRESS):
                proxy.client.headers["X-Forwarded-For"] = "198.51.100.7"
                await proxy.login("wrong")
            assert (await proxy.login(OPERATOR)).status_code == 429
            proxy.client.headers["X-Forwarded-For"] = "198.51.100.8"
            assert (await proxy.login(OPERATOR)).status_code == 303
            for number in range(PER_ADDRESS):
                stranger.client.headers["X-Forwarded-For"] = f"10.9.9.{number}"
                await stranger.login("wrong")
            assert (await stranger.login(OPERATOR)).status_code == 429

    asyncio.run(main())


def test_a_spread_attack_is_throttled_too() -> None:
    """From many addresses together it is sixty a minute; who knew a password lately is served on."""
    clock = Clock()
    throttle = Throttle(clock)
    throttle.passed("10.0.0.1")
    for number in range(TOGETHER):
        assert throttle.wait_s(f"192.0.2.{number}") == 0
        throttle.failed(f"192.0.2.{number}")
    assert throttle.wait_s("198.51.100.1") == 60
    assert throttle.wait_s("10.0.0.1") == 0
    clock.advance(60)
    assert throttle.wait_s("198.51.100.1") == 0
    for number in range(PER_ADDRESS):  # of one /64, which one party holds
        throttle.failed(f"2001:db8::{number:x}")
    assert throttle.wait_s("2001:db8::ffff") == 60
    assert throttle.wait_s("2001:db8:0:1::1") == 0
    assert throttle.wait_s("::ffff:10.0.0.1") == 0
    assert throttle.wait_s(None) == 0


def cheap(password: str) -> str:
    """Return a hash that costs next to nothing."""
    derive = Argon2id(salt=b"sixteen bytes ok", length=32, iterations=1, lanes=1, memory_cost=64)
    return derive.derive_phc_encoded(password.encode())


def test_argon2_passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash works for the form, Basic and Bearer; scrapes after the first cost none; the hash itself opens nothing."""
    assert hashed(OPERATOR).startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    hash_ = cheap(OPERATOR)
    calls = 0
    verify = passwords._verify

    def counted(against: str, given: bytes) -> bool:
        nonlocal calls
        calls += 1
        return verify(against, given)

    monkeypatch.setattr(passwords, "_verify", counted)

    async def main() -> None:
        async with guarded(tmp_path, password=hash_) as (_, app), Visitor(app) as visitor:
            pair = base64.b64encode(f"x:{OPERATOR}".encode()).decode()
            for header in (f"Bearer {OPERATOR}", f"Basic {pair}", f"Bearer {OPERATOR}"):
                answer = await visitor.client.get("/metrics", headers={"Authorization": header})
                assert answer.status_code == 200
            assert calls == 1
            for header in (f"Bearer {hash_}", "Bearer wrong"):
                answer = await visitor.client.get("/metrics", headers={"Authorization": header})
                assert answer.status_code == 401
            answer = await visitor.client.get("/metrics", headers={"Authorization": f"Bearer {VIEWER}"})
            assert answer.status_code == 200
            assert (await visitor.login(OPERATOR)).status_code == 303
            assert "operator" in await visitor.page("/")
            app.adopt(Secret(value=cheap("another")), None)
            answer = await visitor.client.get("/metrics", headers={"Authorization": f"Bearer {OPERATOR}"})
            assert answer.status_code == 401  # what was remembered is forgotten

    asyncio.run(main())


@pytest.mark.parametrize(
    "value", ["$argon2id$", "$argon2id$v=19$m=1", "$argon2i$v=19$m=65536,t=3,p=4$YWFhYWFhYWE$YWFh"]
)
def test_a_broken_hash_is_a_configuration_error(value: str) -> None:
    """It names the key and the remedy, and not the value."""
    with pytest.raises(ConfigError, match="hash-password") as error:
        checked(Secret(value=value), "gateway.toml: [operator] password")
    assert value not in str(error.value)


def test_the_command_hashes_a_password() -> None:
    """``hash-password`` reads one line and prints a hash that is accepted; without a line it says what to do."""
    told = CliRunner().invoke(hash_password, input="a word with spaces \n")
    assert told.exit_code == 0
    phc = checked(Secret(value=told.output.strip()), "x").value
    Argon2id.verify_phc_encoded(b"a word with spaces ", phc)  # raises when it is not that password's
    for given in ("", "\n", "x" * 1_025):
        assert isinstance(CliRunner().invoke(hash_password, input=given).exception, CommandFailed)


def test_no_password_no_pages(tmp_path: Path) -> None:
    """Without a password there is nothing on TCP, and the control socket has no pages."""

    async def main() -> None:
        async with guarded(tmp_path) as (gateway, _):
            app: Any = operator_app(gateway)
            assert isinstance(app, Starlette)
            assert not [route for route in app.routes if isinstance(route, PageRoute)]

    asyncio.run(main())


@pytest.mark.parametrize(
    "path",
    ["//evil.io", "https://evil.io/", "/\\evil.io", "\\\\evil.io", "javascript:alert(1)", "/a\r\nX: y",
     "///evil.io", "/\tevil", "", "evil", "/login", "http:evil.io", "/\u2028x"],
)  # fmt: skip
def test_a_login_leads_nowhere_else(path: str, tmp_path: Path) -> None:
    """After a login the browser goes to a page of ours, whatever the address asked for."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app), Visitor(app) as visitor:
            location = (await visitor.login(VIEWER, path)).headers["location"]
            assert location == "/"

    asyncio.run(main())


def test_a_login_comes_back(tmp_path: Path) -> None:
    """Who asked for a page is led there after the login; what was asked by a script or a program is refused as JSON."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app), Visitor(app) as visitor:
            answer = await visitor.client.get("/deliveries?reason=a%26b")
            assert answer.headers["location"] == "/login?next=/deliveries%3Freason%3Da%2526b"
            answer = await visitor.login(VIEWER, "/deliveries?reason=a%26b")
            assert answer.headers["location"] == "/deliveries?reason=a%26b"
        async with guarded(tmp_path / "2") as (_, app), Visitor(app) as visitor:
            answer = await visitor.client.get("/", headers={"Accept": "*/*"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")

    (tmp_path / "2").mkdir()
    asyncio.run(main())


# -- S-51 and S-52: CSRF, roles


def filled(path: str) -> str:
    """Return a route's path with its parameters filled in."""
    return re.sub(r"\{[^}]*:int\}", "1", re.sub(r"\{(?![^}]*:int)[^}]*\}", "api", path))


def page_routes(app: Any) -> Iterator[tuple[str, str, PageRoute]]:
    """Yield method, path and route of each page."""
    for route in app._app.routes:
        if isinstance(route, PageRoute):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, filled(route.path), route


def contents(folder: Path) -> Any:
    """Return every row of the stores, and the names of all files."""
    rows = {}
    for path in sorted(folder.rglob("*.db")):
        with closing(sqlite3.connect(path)) as reader:
            rows[path.name] = list(reader.iterdump())
    return sorted(path.name for path in folder.rglob("*") if path.is_file()), rows


FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.io"},
    {"Origin": "http://operator.evil.io"}, {"Origin": "http://operator:81"}, {"Origin": "file://"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://operator"}, {"Sec-Fetch-Site": ""},
]  # fmt: skip


def test_every_change_needs_the_token_and_this_origin(tmp_path: Path) -> None:
    """Each form without its token, with another's, or from another site is refused, and the store is what it was."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app), Visitor(app) as visitor, Visitor(app) as other:
            await visitor.login(OPERATOR)
            await other.login(OPERATOR)
            own, foreign = token_of(await visitor.page("/")), token_of(await other.page("/"))
            for _, path, _ in page_routes(app):
                if path not in STREAMS:
                    await visitor.client.get(path)  # what is made on demand is made now
            await visitor.login(OPERATOR)
            own = token_of(await visitor.page("/"))
            before = contents(tmp_path)
            changing = [(path, route) for method, path, route in page_routes(app) if method != "GET"]
            assert len(changing) >= 8
            for path, route in changing:
                for fields in ({}, {"csrf": ""}, {"csrf": "x"}, {"csrf": foreign}, {"CSRF": own}, {"csrf": own[:-1]}):
                    answer = await visitor.client.post(path, data=fields)
                    assert answer.status_code == 403, (path, fields)
                for headers in FOREIGN:
                    answer = await visitor.client.post(path, data={"csrf": own}, headers=headers)
                    assert answer.status_code == 403, (path, headers)
                if route.need != "anyone":
                    answer = await visitor.client.get(path, params={"csrf": own})
                    assert answer.status_code in (200, 400, 404, 405, 409), path  # never a change by GET
            assert contents(tmp_path) == before
            assert "operator" in await visitor.page("/")  # not logged out by any of it

    asyncio.run(main())


def test_a_form_of_this_origin_is_taken(tmp_path: Path) -> None:
    """The control: with the token, and headers as browsers send them here, the same form gets through."""

    async def main() -> None:
        async with guarded(tmp_path, tables={"operator": {"url": "https://op.example:8443"}}) as (_, app):
            for headers in (
                {"Sec-Fetch-Site": "same-origin", "Origin": "null"}, {"Origin": "https://operator"},
                {"Origin": "https://op.example:8443"}, {"Origin": "null"}, {},
            ):  # fmt: skip
                async with Visitor(app, base_url="https://operator") as visitor:
                    await visitor.login(OPERATOR)
                    token = token_of(await visitor.page("/"))
                    answer = await visitor.client.post("/logout", data={"csrf": token}, headers=headers)
                    assert answer.status_code == 303, headers

    asyncio.run(main())


def test_reading_a_page_changes_nothing(tmp_path: Path) -> None:
    """No GET of a page changes a row or makes a file."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app), Visitor(app) as visitor:
            await visitor.login(OPERATOR)
            reading = [path for method, path, _ in page_routes(app) if method == "GET" and path not in STREAMS]
            assert len(reading) >= 12
            for path in reading:
                await visitor.client.get(path)
            before = contents(tmp_path)
            for path in reading:
                await visitor.client.get(f"{path}?units=1&dry_run=false&_method=POST&csrf=x")
            assert contents(tmp_path) == before

    asyncio.run(main())


def test_every_route_says_who_may_use_it(tmp_path: Path) -> None:
    """No route of the operator's app is without a role, and none that is not there has one."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app):
            for route in app._app.routes:
                assert need_of(route) is not None, f"{route}: say who may use it in gateway/operator/roles.py"
            from gateway.operator.roles import API

            assert {route.path for route in app._app.routes} >= API.keys()
            anyone = {route.path for route in app._app.routes if need_of(route) == "anyone"}
            assert anyone == {"/livez", "/oauth/callback", "/login", "/static/{digest}/{name}"}

    asyncio.run(main())


def test_a_route_without_a_role_is_nobodys(tmp_path: Path) -> None:
    """The control: a route that somebody forgot to give a role is refused to the operator too."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app), Visitor(app) as visitor:
            app._app.router.routes.insert(0, Route("/api/forgotten", lambda _: PlainTextResponse("data")))
            await visitor.login(OPERATOR)
            for headers in ({}, {"Authorization": f"Bearer {OPERATOR}"}):
                answer = await visitor.client.get("/api/forgotten", headers=headers)
                assert (answer.status_code, "data" in answer.text) == (403, False)

    asyncio.run(main())


def matrix(app: Any) -> Iterator[tuple[str, str, str, bool]]:
    """Yield method, path, need and whether it is a page, for each method of each route."""
    for route in app._app.routes:
        if isinstance(route, Mount):
            yield from (
                ("GET", f"{route.path}/hello", "viewer", False),
                ("POST", f"{route.path}/hello", "operator", False),
            )
        elif isinstance(route, Route):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, filled(route.path), need_of(route) or "nobody", isinstance(route, PageRoute)


def test_routes_by_roles(tmp_path: Path) -> None:
    """The whole matrix: nobody, viewer and operator at every route, pages by session and the API by password."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app):
            rows = [row for row in matrix(app) if row[1] not in STREAMS]
            assert len(rows) >= 60
            for (method, path, need, is_page), role in itertools.product(rows, ("nobody", "viewer", "operator")):
                async with Visitor(app) as visitor:
                    status = await asked(visitor, method, path, role, is_page=is_page)
                allowed = need == "anyone" or role == "operator" or (role == "viewer" and need == "viewer")
                told = (method, path, need, role, status)
                if need == "anyone":
                    assert status != 401, told
                elif allowed:
                    assert status not in (401, 403), told
                else:
                    assert status == (401 if role == "nobody" else 403), told

    asyncio.run(main())


async def asked(visitor: Visitor, method: str, path: str, role: str, *, is_page: bool) -> int:
    """Return the status that a role gets; with a session's token where a page is changed."""
    password = {"viewer": VIEWER, "operator": OPERATOR}.get(role)
    accept = {"Accept": "*/*"}
    if not is_page:
        headers = {**accept, **({"Authorization": f"Bearer {password}"} if password else {})}
        return (
            await visitor.client.request(method, path, json={} if method == "POST" else None, headers=headers)
        ).status_code
    fields = {}
    if password:
        await visitor.login(password)
        fields = {"csrf": token_of(await visitor.page("/plugins"))}
    if method == "GET":
        return (await visitor.client.get(path, headers=accept)).status_code
    return (await visitor.client.request(method, path, data=fields, headers=accept)).status_code


def test_a_session_is_not_for_the_api_and_a_password_not_for_pages(tmp_path: Path) -> None:
    """A browser's cookie opens no call of the API, which takes JSON without a token; a header opens no page."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app), Visitor(app) as visitor, Visitor(app) as program:
            await visitor.login(OPERATOR)
            for path in ("/api/status", "/metrics", "/plugins/hello"):
                assert (await visitor.client.get(path)).status_code == 401
            assert (await visitor.client.post("/api/erase", json={"email": "a@b.example"})).status_code == 401
            program.client.headers.update({"Authorization": f"Bearer {OPERATOR}", "Accept": "*/*"})
            for path in ("/", "/plugins", "/deliveries"):
                assert (await program.client.get(path)).status_code == 401
            assert (await program.client.post("/logout", data={})).status_code == 401

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"csrf=" + b"x" * (3 << 20), 413),
        (b"csrf=\xff", 400),
        (b"&".join([b"a=1"] * 3_000), 400),
        (b"\x1f\x8b\x08", 400),
    ],
    ids=["large", "not-utf8", "many", "gzip"],
)
def test_forms_are_bounded(body: bytes, status: int, tmp_path: Path) -> None:
    """What is no form, or too much of one, is refused before anybody reads it."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app), Visitor(app) as visitor:
            await visitor.login(OPERATOR)
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            for path in ("/logout", "/login"):
                assert (await visitor.client.post(path, content=body, headers=kind)).status_code == status

    asyncio.run(main())


# -- S-53: headers


HEADERS = {
    "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
}  # fmt: skip


def test_headers_of_every_answer(tmp_path: Path) -> None:
    """Pages, JSON, files, refusals and errors of the edge carry all of them, and nothing but files is stored."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app):
            served = Hardened(Edge(app))
            async with Visitor(served) as visitor:
                await visitor.login(VIEWER)
                asked = [("GET", path) for _, path, _, _ in matrix(app) if path not in STREAMS]
                asked += [("POST", path) for _, path, _, _ in matrix(app)] + [("TRACE", "/"), ("GET", "/nowhere")]
                for method, path in asked:
                    for headers in ({}, {"Accept": "*/*"}, {"Authorization": f"Bearer {OPERATOR}"}):
                        answer = await visitor.client.request(method, path, headers=headers)
                        own = {"content-security-policy"} if path == "/oauth/callback" else set()
                        for name, value in HEADERS.items():
                            if name not in own:
                                assert answer.headers[name] == value, (method, path, name)
                        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
                        assert "camera=()" in answer.headers["permissions-policy"]
                        assert answer.headers["cache-control"] == "no-store", path
                        assert "strict-transport-security" not in answer.headers

    asyncio.run(main())


def test_the_policy_is_the_agreed_one() -> None:
    """Nothing inline and nothing from elsewhere, word for word."""
    assert POLICY == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def test_a_stream_ends_with_its_session(tmp_path: Path) -> None:
    """What is streamed to a browser stops when it logs out or its session ends."""

    async def main() -> None:
        async with guarded(tmp_path) as (gateway, _):
            pages = Pages(gateway, Passwords(Secret(value=OPERATOR)), Sessions(gateway.clock), Throttle(gateway.clock))
            sent = 0

            async def numbers() -> AsyncIterator[str]:
                nonlocal sent
                while sent < 1_000:
                    sent += 1
                    if sent == 5:
                        pages.sessions.end_all(frozenset({"operator"}))
                    yield f"data: {sent}\n\n"

            async def stream(_: Request) -> Response:
                return StreamingResponse(numbers(), media_type="text/event-stream")

            from gateway.operator.guard import Guard
            from gateway.operator.pages import login

            app = Starlette(routes=[*login.routes(pages), pages.route("/numbers", stream)])
            guard = Guard(app, gateway, pages.passwords, pages.sessions, pages.throttle, pages.problem)
            async with Visitor(guard) as visitor:
                await visitor.login(OPERATOR)
                answer = await visitor.client.get("/numbers")
                assert "data: 4\n" in answer.text
                assert sent < 10

    asyncio.run(main())


# -- S-54 and S-55: hostile text, masks


def hostile_event(number: int, text: str) -> dict[str, Any]:
    """Return an event that carries a text wherever a text can stand."""
    return {
        "event_name": ("checkout", "lead", "page_visit", text)[number % 4],
        "event_id": f"{number}{text}",
        "event_time": int(NOW) - 5,
        "event_source_url": f"https://shop.example/{text}",
        "order_id": text, "value": 12.5, "currency": "EUR", "search_string": text, "content_name": text,
        "content_category": text, "content_brand": text, "language": text, "partner_id": text, "click_id": text,
        "client_id": text,
        "contents": [{"id": text, "item_name": text, "item_brand": text, "item_category": text, "item_price": 2,
                      "quantity": 1}],
        "user": {"email": "jo@example.com", "external_id": text, "first_name": text, "city": text, "country": text},
        "app": {"name": text, "version": text}, "device": {"brand": text, "model": text, "carrier": text},
        text: text,
    }  # fmt: skip


async def attack(gateway: Gateway, *, dead: bool) -> None:
    """Send the corpus by the public route; ``dead``: what was accepted becomes dead letters with hostile reasons."""
    transport = httpx.ASGITransport(gateway.ingress)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as world:
        for number, text in enumerate(CORPUS):
            agent = text.encode("utf-8").replace(b"\t", b" ").replace(b"\x0c", b" ").strip()
            answer = await world.post(
                "/in/tag", content=msgspec.json.encode([hostile_event(number, text)]),
                headers=[(b"Origin", b"https://shop.example"), (b"User-Agent", agent)],
            )  # fmt: skip
            assert answer.status_code == 200, answer.text
    if dead:
        lease = await gateway.outbox.claim(Lane(destination="pinterest", kind="live"), 200, NOW)
        assert lease is not None
        for one in await gateway.outbox.settle(
            lease,
            [
                Settlement(unit=unit.unit, end="dead", reason=f"rejected: {text}")
                for unit, text in zip(lease.units, itertools.cycle(CORPUS))
            ],
        ):
            gateway.sender.settled(one)


async def crawl(visitor: Visitor, start: list[str]) -> dict[str, str]:
    """Return the pages that links lead to from some, by address."""
    found: dict[str, str] = {}
    waiting = list(start)
    while waiting and len(found) < 160:
        path = waiting.pop(0)
        if path in found or path in STREAMS:
            continue
        answer = await visitor.client.get(path)
        assert answer.status_code < 500, path
        found[path] = answer.text
        for link in re.findall(r'href="(/[^"#]*)"', answer.text):
            plain = link.replace("&amp;", "&").replace("&#39;", "'").replace("&#34;", '"')
            if not plain.startswith("/static/"):
                waiting.append(plain)
    return found


@pytest.mark.parametrize("dead", [False, True], ids=["waiting", "dead"])
def test_hostile_text_is_only_text(dead: bool, tmp_path: Path) -> None:
    """The corpus, sent as a page would send it, stands on pages as text: no element, handler or address of its own."""

    async def main() -> None:
        async with guarded(tmp_path) as (gateway, app), Visitor(app) as visitor:
            await attack(gateway, dead=dead)
            await visitor.login(OPERATOR)
            pages = await crawl(visitor, [path for method, path, _ in page_routes(app) if method == "GET"])
            showing = [path for path, text in pages.items() if MARK in text]
            assert len([path for path in showing if path.startswith("/live")]) > 20, sorted(pages)
            if dead:
                assert len([path for path in showing if path.startswith("/deliveries")]) > 20, sorted(pages)
            for path, text in pages.items():
                assert foreign_markup(text) == [], path

    asyncio.run(main())


def test_the_check_finds_hostile_markup() -> None:
    """The control: each of the corpus that is markup is found when it stands on a page unescaped."""
    clean = "<!doctype html><html><body><p>x</p></body></html>"
    assert foreign_markup(clean) == []
    markup = [text for text in CORPUS if re.search(r"<[a-z/]", text, re.IGNORECASE) and not text.startswith("<%")]
    missed = [text for text in markup if not foreign_markup(clean.replace("x", text))]
    assert missed == []
    assert foreign_markup(f'<a href="{CORPUS[52]}">x</a>')


def test_identifiers_are_masked(tmp_path: Path) -> None:
    """Pages of events show at most the first six digits of a hash, and no whole address of a shopper."""

    async def main() -> None:
        async with guarded(tmp_path) as (gateway, app), Visitor(app) as visitor:
            event = {"event_name": "lead", "event_id": "e1", "event_time": int(NOW) - 5,
                     "user": {"email": "jo@example.com"},
                     "client": {"ip": "203.0.113.77", "user_agent": "UA/1"}}  # fmt: skip
            transport = httpx.ASGITransport(gateway.ingress)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as world:
                secret = {"Authorization": "Bearer s3cret-s3cret-s3cret"}
                assert (await world.post("/in/api", json=event, headers=secret)).status_code == 200
            lease = await gateway.outbox.claim(Lane(destination="pinterest", kind="live"), 200, NOW)
            assert lease is not None
            for one in await gateway.outbox.settle(
                lease, [Settlement(unit=unit.unit, end="dead", reason="rejected") for unit in lease.units]
            ):
                gateway.sender.settled(one)
            await visitor.login(OPERATOR)
            pages = await crawl(visitor, [path for method, path, _ in page_routes(app) if method == "GET"])
            assert [path for path, text in pages.items() if "e1" in text and path.startswith("/live")]
            for path, text in pages.items():
                plain = re.sub(r'name="csrf" value="[^"]*"', "", text)
                assert not re.search(r"\b[0-9a-f]{64}\b", plain), path
                assert "203.0.113.77" not in plain, path
                assert "jo@example.com" not in plain, path

    asyncio.run(main())


# -- S-56: the audit log


def test_logins_and_changes_are_written_down(tmp_path: Path) -> None:
    """Login, failed login, logout and a change: who, from where, what; shown on the page of the configuration."""

    async def main() -> None:
        async with guarded(tmp_path) as (gateway, app), Visitor(app, "198.51.100.4") as visitor:
            await visitor.login("wrong")
            await visitor.login(OPERATOR)
            api = {"Authorization": f"Bearer {OPERATOR}"}
            await visitor.client.post("/api/dead/discard", json={}, headers=api)
            page = await visitor.page("/plugins")
            await visitor.send("/logout")
            lines = [(one.who, one.address, one.what) for one in reversed(gateway.audit.last())]
            assert lines == [
                ("-", "198.51.100.4", "login_failed"), ("operator", "198.51.100.4", "login"),
                ("operator", "198.51.100.4", "discard"), ("operator", "198.51.100.4", "logout"),
            ]  # fmt: skip
            assert all(text in page for text in ("login failed", "discard", "198.51.100.4"))

    asyncio.run(main())


def test_accept_headers_are_read(tmp_path: Path) -> None:
    """A browser is led to the login, whatever else it takes."""

    async def main() -> None:
        async with guarded(tmp_path) as (_, app), Visitor(app) as visitor:
            for accept in (HTML["Accept"], "text/html", "application/xhtml+xml,text/html;q=0.9,*/*;q=0.8"):
                assert (await visitor.client.get("/", headers={"Accept": accept})).status_code == 303

    asyncio.run(main())
