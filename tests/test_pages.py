"""The frame of the operator's pages: routes, templates, static files, charts, errors, the audit log."""

import asyncio
import json
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from jinja2 import UndefinedError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import config as configuration
from gateway.audit import Audit
from gateway.errors import ConfigError, Unavailable
from gateway.hit import Secret
from gateway.logs import HitLog
from gateway.operator import operator_app
from gateway.operator.guard import Guard
from gateway.operator.pages import NAVIGATION, Pages, login
from gateway.operator.pages.charts import HEIGHT, plotted, stacked
from gateway.operator.pages.statics import Statics
from gateway.operator.pages.templating import environment, moment, number, percent, plural, size, span
from gateway.operator.passwords import Passwords
from gateway.operator.sessions import Sessions
from gateway.operator.shown import MASK, sections
from gateway.operator.throttle import Throttle
from gateway.runtime import Gateway
from gateway.testing.app import complete
from gateway.testing.asgi import AppClient
from gateway.testing.doubles import NOW, Clock
from tests.harness.operator_site import HTML, Visitor, token_of

CONFIG: dict[str, Any] = {
    "sources": {"api": {"adapter": "browser_tag", "secrets": ["s3cret-of-the-source"]}},
    "plugins": {"bots": {}},
}
OPERATOR, VIEWER = Secret(value="operator-password"), Secret(value="viewer-password")


@asynccontextmanager
async def running(folder: Path, **more: Any) -> AsyncIterator[tuple[Gateway, Any]]:
    gateway = Gateway(
        configuration.parse(complete({**CONFIG, **more}), folder / "gateway.toml"),
        http=AppClient(None), clock=Clock(), hit_log=HitLog(enabled=False),
    )  # fmt: skip
    try:
        yield gateway, operator_app(gateway, OPERATOR, VIEWER)
    finally:
        await gateway.stop()


def test_every_page_opens_for_a_viewer(tmp_path: Path) -> None:
    """Each page of the navigation is there, says where one is, carries nothing inline, and is never stored."""

    async def main() -> None:
        async with running(tmp_path) as (_, app), Visitor(app) as visitor:
            assert (await visitor.login("viewer-password")).headers["location"] == "/"
            for path, name, _ in NAVIGATION:
                answer = await visitor.client.get(path)
                assert answer.status_code == 200, path
                assert answer.headers["cache-control"] == "no-store"
                assert answer.headers["content-type"] == "text/html; charset=utf-8"
                text = answer.text
                assert re.search(rf'<a href="{path}" aria-current="page">{name}', text), path
                assert_nothing_inline(text)
                assert text.count("<h1>") == 1

    asyncio.run(main())


def assert_nothing_inline(text: str) -> None:
    """No style attribute, handler, inline script or address elsewhere: what the policy would block."""
    assert not re.search(r"<[^>]*\sstyle=", text)
    assert not re.search(r"<[^>]*\son[a-z]+=", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)[^>]*>", text)
    assert "<style" not in text
    assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", text)


def test_the_check_finds_what_is_inline() -> None:
    """The control: each of the forbidden forms is found."""
    for text in ('<p style="x">', "<a onclick='x'>", "<script>1</script>", "<style>", '<img src="//x">'):
        with pytest.raises(AssertionError):
            assert_nothing_inline(text)


def test_static_files_are_kept_by_their_hash(tmp_path: Path) -> None:
    """A page's style sheet and script are served for good under their content's hash, and under no other."""

    async def main() -> None:
        async with running(tmp_path) as (_, app), Visitor(app) as visitor:
            page = (await visitor.client.get("/login")).text
            found = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
            assert {Path(path).suffix for path in found} == {".css", ".svg"}
            for path in found:
                answer = await visitor.client.get(path)
                assert answer.status_code == 200
                assert "immutable" in answer.headers["cache-control"]
                assert answer.headers["x-content-type-options"] == "nosniff"
            for path in ("/static/0000000000000000/app.css", "/static/x/..%2f..%2fapi.py", "/static/"):
                assert (await visitor.client.get(path)).status_code in (303, 401, 404), path

    asyncio.run(main())


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    """Another content has another address."""
    (tmp_path / "a.css").write_text("a")
    first = Statics(tmp_path).url("a.css")
    (tmp_path / "a.css").write_text("b")
    assert Statics(tmp_path).url("a.css") != first


def test_templates_escape_and_know_no_unknown_name() -> None:
    """Autoescape is on for every template, and a name that nobody gave is an error, not nothing."""
    found = environment(lambda name: name)
    text = found.from_string("{{ a }}<b title='{{ a }}'>").render(a="<script>'\"&")
    assert text == "&lt;script&gt;&#39;&#34;&amp;<b title='&lt;script&gt;&#39;&#34;&amp;'>"
    with pytest.raises(UndefinedError):
        found.from_string("{{ nobody }}").render()


def test_no_template_turns_escaping_off() -> None:
    """No filter ``safe``, no ``autoescape`` block, no unquoted attribute with a value."""
    for path in (Path(__file__).parents[1] / "gateway/operator/pages/templates").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape", text), path.name
        assert not re.search(r"<[a-z]+(?:\s[^<>{}]*)?\s[a-z-]+=\{\{", text), path.name


def page_app(gateway: Gateway, handlers: dict[str, Any]) -> Any:
    """Return an app with pages of a test's own."""
    pages = Pages(gateway, Passwords(OPERATOR, VIEWER), Sessions(gateway.clock), Throttle(gateway.clock))
    routes: list[Route] = [*login.routes(pages)]
    for path, (handler, role, methods) in handlers.items():
        routes.append(pages.route(path, handler(pages), role=role, methods=methods))
    app = Starlette(routes=routes)
    return Guard(app, gateway, pages.passwords, pages.sessions, pages.throttle, pages.problem)


def test_errors_are_pages_that_say_what_to_do(tmp_path: Path) -> None:
    """What a page's handler raises on purpose is a page with the message, escaped, with the right status."""

    def raising(error: Exception) -> Any:
        def made(_: Pages) -> Any:
            async def handler(_: Request) -> Response:
                raise error

            return handler

        return made

    errors = {
        "/value": (400, ValueError("<b>limit</b> is no number")),
        "/config": (409, ConfigError("set it")),
        "/busy": (503, Unavailable("busy", "later")),
    }

    async def main() -> None:
        async with running(tmp_path) as (gateway, _):
            handlers = {path: (raising(error), "viewer", ("GET",)) for path, (_, error) in errors.items()}
            async with Visitor(page_app(gateway, handlers)) as visitor:
                await visitor.login("viewer-password")
                for path, (status, _) in errors.items():
                    text = await visitor.page(path, status)
                    assert "<h1>" in text
                assert "&lt;b&gt;limit" in await visitor.page("/value", 400)

    asyncio.run(main())


def test_a_change_shows_its_message_once(tmp_path: Path) -> None:
    """A form reaches its handler, the browser is led on, and the next page tells what was done, and no other."""

    def changing(pages: Pages) -> Any:
        async def handler(request: Request) -> Response:
            given = pages.form(request)["what"]
            pages.note(request, "changed", 3, given)
            return pages.redirect("/show", f"Changed <{given}>.")

        return handler

    def showing(pages: Pages) -> Any:
        async def handler(request: Request) -> Response:
            return await pages.problem(request, 200, "Shown", "")

        return handler

    async def main() -> None:
        async with running(tmp_path) as (gateway, _):
            handlers = {"/show": (showing, "viewer", ("GET",)), "/change": (changing, "operator", ("POST",))}
            async with Visitor(page_app(gateway, handlers)) as visitor:
                await visitor.login("operator-password")
                answer = await visitor.send("/change", "/show", what="ä&b")
                assert (answer.status_code, answer.headers["location"]) == (303, "/show")
                assert "Changed &lt;ä&amp;b&gt;." in await visitor.page("/show")
                assert "Changed" not in await visitor.page("/show")
            line = gateway.audit.last()[0]
            assert (line.who, line.address, line.what, line.count, line.detail) == (
                "operator", "127.0.0.1", "changed", 3, "ä&b",
            )  # fmt: skip

    asyncio.run(main())


def test_a_change_needs_the_operator() -> None:
    """A page that changes something cannot be declared for viewers."""
    pages = Pages.__new__(Pages)
    with pytest.raises(ValueError, match="operator"):
        pages.route("/x", lambda _: None, methods=("POST",))  # type: ignore[arg-type, return-value]


def test_missing_and_broken_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser gets pages for 404, 405 and 500, a program JSON; the fault itself is in neither."""

    async def main() -> None:
        async with running(tmp_path) as (gateway, app), Visitor(app) as visitor:
            await visitor.login("viewer-password")
            assert "There is nothing here" in await visitor.page("/nowhere", 404)
            assert "There is nothing here" in await visitor.page("/nowhere/<script>", 404)
            assert (await visitor.client.get("/logout")).status_code == 405
            api = {"Authorization": "Bearer viewer-password", "Accept": "*/*"}
            assert (await visitor.client.get("/nowhere", headers=api)).json()["error"]["code"] == "not_found"

            async def broken() -> Any:
                raise RuntimeError("secret detail")

            monkeypatch.setattr(gateway.outbox, "counts", broken)
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://operator", headers=HTML, cookies=visitor.client.cookies
            ) as browser:
                answer = await browser.get("/plugins")
                assert (answer.status_code, "secret detail" in answer.text) == (500, False)
                assert "Something broke" in answer.text
                answer = await browser.get("/api/status", headers={**api, "Cookie": ""})
                assert (answer.status_code, answer.json()["error"]["code"]) == (500, "failed")

    asyncio.run(main())


def test_bars_and_lines() -> None:
    """Shares of a bar add up to the whole; lines lie where their values are, also without any."""
    pieces = stacked([("a", 1, "good"), ("b", 3, "bad"), ("c", 0, "c1")])
    assert [(one.x, one.width) for one in pieces] == [(0, 25), (25, 75), (100, 0)]
    assert [one.width for one in stacked([("a", 0, "good")])] == [0]
    plot = plotted(["10:00", "10:01", "10:02"], [("in", [0, 10, 5], "c1")])
    assert plot.top == 10
    assert plot.lines[0].d == f"M0 {HEIGHT:g} L320 0 L640 {HEIGHT / 2:g}"
    assert (plot.lines[0].total, plot.lines[0].peak, plot.lines[0].last) == (15, 10, 5)
    assert plotted([], [("in", [], "c1")]).lines[0].d == ""
    assert [plotted(["x"], [("a", [value], "c1")]).top for value in (0, 1, 3, 11, 999, 1000, 1001)] == [
        1, 1, 5, 20, 1000, 1000, 2000,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(1234567), "1,234,567"), (number(1.25), "1.2"), (percent(None), "\N{EN DASH}"), (percent(0.614), "61 %"),
        (percent(0.0049, 1), "0.5 %"), (span(0), "0 s"), (span(59.9), "59 s"), (span(61), "1 min 1 s"),
        (span(3_599), "59 min"), (span(3_600), "1 h"), (span(5_400), "1 h 30 min"), (span(90_000), "1 d 1 h"),
        (span(-5), "0 s"), (size(0), "0 bytes"), (size(1_536), "1.5 KB"), (size(5 << 40), "5.0 TB"),
        (size(20 << 50), "20480 TB"), (plural(1, "event"), "1 event"), (plural(2_000, "event"), "2,000 events"),
        (plural(0, "entry", "entries"), "0 entries"), (moment(NOW), "22 Nov 2026, 00:00:00 UTC"),
        (moment(1e300), "31 Dec 9999, 23:59:59 UTC"),
    ],
)  # fmt: skip
def test_numbers_and_times_read_well(shown: str, expected: str) -> None:
    """Figures are grouped, times are in UTC and short, and nothing overflows."""
    assert shown == expected


def test_the_configuration_is_shown_without_its_secrets(tmp_path: Path) -> None:
    """Every table is there as it is understood; secrets, references and passwords in addresses are not."""
    hidden = ["s3cret-of-the-source", "sandbox-token", "operator-password", "plain-key-of-a-plugin", "user:pass-in-url"]

    async def main() -> None:
        more: dict[str, Any] = {
            "operator": {"password": "operator-password"},
            "plugins": {"bots": {"api_key": "plain-key-of-a-plugin", "url": "https://user:pass-in-url@x.example/"}},
        }
        parsed = configuration.parse(complete({**CONFIG, **more}), tmp_path / "gateway.toml")
        async with running(tmp_path) as (gateway, app), Visitor(app) as visitor:
            gateway.parts = msgspec.structs.replace(gateway.parts, config=parsed)
            assert gateway.parts.config.plugins == more["plugins"]
            found = {(part.name, one.key): one for part in sections(gateway.parts) for one in part.values}
            assert found["operator", "password"].value == MASK
            assert found["sources.api", "secrets"].value == MASK
            assert found["destinations.pinterest", "token"].value == MASK
            assert found["plugins.bots", "url"].value == "https://…@x.example/"
            assert found["server", "bind"].value == "127.0.0.1:8000"
            assert found["server", "bind"].is_default
            assert not found["sources.api", "adapter"].is_default
            await visitor.login("viewer-password")
            page = await visitor.page("/plugins")
            assert "[destinations.pinterest]" in page
            for secret in hidden:
                assert secret not in page

    asyncio.run(main())


def test_the_audit_log_is_appended_to(tmp_path: Path) -> None:
    """Lines are JSON, mode 600, newest first when read; what is no line is passed over, and nothing is rewritten."""
    clock = Clock()
    audit = Audit(tmp_path / "audit.log", clock)
    assert audit.last() == []
    audit.note("operator", "replay", address="10.0.0.1", count=3, detail="x" * 500)
    before = audit.path.read_bytes()
    clock.advance(60)
    with audit.path.open("ab") as file:
        file.write(b'half a line\n{"at": 5}\n')
    audit.note("command", "erase")
    assert audit.path.read_bytes().startswith(before)
    assert stat.S_IMODE(audit.path.stat().st_mode) == 0o600
    newest, oldest = audit.last()
    assert (newest.who, newest.what, newest.at) == ("command", "erase", "2026-11-22T00:01:00+00:00")
    assert (oldest.count, len(oldest.detail)) == (3, 200)
    assert audit.last(1) == [newest]
    assert all(isinstance(json.loads(line), dict) for line in audit.path.read_text().splitlines() if line[0] == "{")


def test_an_audit_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """A change goes on without its line; the log of the process says so."""
    audit = Audit(tmp_path / "nowhere" / "audit.log", Clock())
    audit.note("operator", "replay")
    assert audit.last() == []


def test_what_the_api_changes_is_audited(tmp_path: Path) -> None:
    """A call that changed something leaves a line with its count; a rehearsal, a refusal and a look do not."""

    async def main() -> None:
        async with running(tmp_path) as (gateway, app), Visitor(app) as visitor:
            api = {"Authorization": "Bearer operator-password"}
            for path, body in (
                ("/api/dead/replay", {}), ("/api/dead/discard", {"dry_run": True}), ("/api/dead/discard", {"x": 1}),
                ("/api/erase", {"email": "jo@example.com"}),
            ):  # fmt: skip
                await visitor.client.post(path, json=body, headers=api)
            await visitor.client.get("/api/dead", headers=api)
            lines = [(one.who, one.address, one.what, one.count) for one in reversed(gateway.audit.last())]
            assert lines == [("operator", "127.0.0.1", "replay", 0), ("operator", "127.0.0.1", "erase", 0)]
            assert b"jo@example.com" not in gateway.audit.path.read_bytes()

    asyncio.run(main())


def test_what_a_command_changes_is_audited(tmp_path: Path) -> None:
    """Over the control socket it is a command, from no address."""

    async def main() -> None:
        async with running(tmp_path) as (gateway, _):
            transport = httpx.ASGITransport(operator_app(gateway))
            async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
                assert (await client.post("/api/dead/replay", json={})).status_code == 200
            line = gateway.audit.last()[0]
            assert (line.who, line.address, line.what) == ("command", None, "replay")

    asyncio.run(main())


def test_the_token_is_the_sessions(tmp_path: Path) -> None:
    """Every page of one login carries the same token, another login another one."""

    async def main() -> None:
        async with running(tmp_path) as (_, app), Visitor(app) as one, Visitor(app) as other:
            await one.login("viewer-password")
            await other.login("viewer-password")
            tokens = {token_of(await one.page(path)) for path in ("/", "/plugins")}
            assert len(tokens) == 1
            assert token_of(await other.page("/")) not in tokens

    asyncio.run(main())
