"""The pages of audiences: status, connecting in steps, passes, confirmation, logins; the rules are the engine's."""

import asyncio
import html
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import msgspec
import pytest

from gateway import audience_words as words
from gateway import config as configuration
from gateway.audience import AudienceError, Group
from gateway.audiences import Settings
from gateway.audiences.wiring import Plugged
from gateway.hit import Secret
from gateway.http import Client
from gateway.logs import HitLog
from gateway.operator import operator_app
from gateway.operator.pages.choices import Lists, chosen_from, sink_taken, source_taken
from gateway.runtime import Gateway
from gateway.sandbox import PinterestSandbox
from gateway.testing.doubles import Clock
from tests.harness.audiences import MemorySink, MemorySource, People, sha
from tests.harness.operator_site import Visitor

OPERATOR, VIEWER = "op-password", "view-password"
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
CONFIG: dict[str, Any] = {
    "operator": {"password": OPERATOR},
    "sources": {"api": {"adapter": "browser_tag", "secrets": ["s3cret"], "destinations": ["pinterest"]}},
    "destinations": {"pinterest": {"type": "pinterest", "ad_account_id": "549755885175", "token": "t"}},
}


class Town:
    """A gateway with a list and an audience in memory, and its pages."""

    def __init__(self, gateway: Gateway, source: MemorySource, sink: MemorySink) -> None:
        self.gateway = gateway
        self.source = source
        self.sink = sink
        self.app = operator_app(gateway, Secret(value=OPERATOR), Secret(value=VIEWER))

    def list_of(self, group: str, name: str, *emails: str, kind: str = "list", **more: Any) -> None:
        """Make a list or segment."""
        members = {f"p{number}": (email, None, 0.0) for number, email in enumerate(emails)}
        self.source.lists[group] = People(name=name, kind=kind, members=dict(members), **more)

    async def enter(self, password: str = OPERATOR) -> Visitor:
        """Return somebody who has logged in."""
        visitor = Visitor(self.app)
        assert (await visitor.login(password)).status_code == 303
        return visitor

    async def job(self, visitor: Visitor, answer: httpx.Response) -> str:
        """Follow a change to its end; returns the page's text."""
        assert answer.status_code == 303, answer.text
        path = answer.headers["location"]
        assert path.startswith("/audiences/jobs/")
        while True:
            shown = await visitor.client.get(path)
            assert shown.status_code == 200
            if "refresh" not in shown.headers:
                return text_of(shown.text)
            await asyncio.sleep(0.01)

    async def connect(self, visitor: Visitor, **fields: str) -> str:
        """Connect; returns the text of the page that says so."""
        given = {"source": "mail", "kind": "list", "group": "L1", "sink": "board", "account": "A1", **fields}
        return await self.job(visitor, await visitor.send("/audiences/connect", **given))


def town(folder: Path, scenario: Callable[[Town], Awaitable[None]], settings: Settings | None = None) -> None:
    """Run a scenario."""

    async def main() -> None:
        clock = Clock()
        parsed = configuration.parse(CONFIG, folder / "gateway.toml")
        gateway = Gateway(parsed, clock=clock, hit_log=HitLog(enabled=False))
        source, sink = MemorySource(clock), MemorySink()
        source.name, sink.name = "mail", "board"
        gateway.audiences.plugged = Plugged(
            sources={"mail": source}, sinks={"board": sink}, settings=settings or Settings(commit_every=1),
            path=folder / "var" / "audiences.db",
        )  # fmt: skip
        try:
            await scenario(Town(gateway, source, sink))
        finally:
            await gateway.stop()

    asyncio.run(main())


def text_of(page: str) -> str:
    """Return what a reader sees, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.partition("<main")[2])).split())


def links(page: str) -> list[str]:
    """Return where the links of a page's content lead."""
    return [html.unescape(link) for link in re.findall(r'<a [^>]*href="([^"]*)"', page.partition("<main")[2])]


# -- connecting in steps


def test_connecting_step_by_step(tmp_path: Path) -> None:
    """A list is chosen by its link, an audience by its own, and one form connects what both at a glance say."""

    async def scenario(found: Town) -> None:
        found.list_of("L1", "Newsletter", "ada@example.com", "bob@example.com")
        found.list_of("S1", "VIPs", kind="segment")
        found.sink.existing("900", "Readers")
        async with await found.enter() as visitor:
            page = await visitor.page("/audiences/connect")
            assert "Choose a list or segment on the left and an audience on the right." in text_of(page)
            left = next(link for link in links(page) if "group=L1" in link)
            page = await visitor.page(left)
            assert "chosen list “Newsletter”" in text_of(page)
            assert 'id="create" name="create" value="Newsletter"' in page  # suggested
            right = next(link for link in links(page) if "audience=900" in link)
            page = await visitor.page(right)
            assert "list “Newsletter” (mail) → audience “Readers” (board, account A1)" in text_of(page)
            form = page.partition('<form method="post" action="/audiences/connect">')[2].partition("</form>")[0]
            fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))
            assert fields.pop("csrf")
            assert fields == {
                "source": "mail", "kind": "list", "group": "L1", "sink": "board", "account": "A1", "audience": "900",
            }  # fmt: skip
            said = await found.job(visitor, await visitor.send("/audiences/connect", **fields, dry_run="yes"))
            assert said.startswith('id="content"')
            assert "Would connect" in said
            assert not await _connections(found)
            said = await found.job(visitor, await visitor.send("/audiences/connect", **fields))
            assert "Connected list “Newsletter” (mail) → audience “Readers”" in said
            assert "leave with it" in said
            assert "choose “Never remove anybody”" in said  # where the command line says --no-remove
            assert "Add another Finish" in said
            (one,) = await _connections(found)
            assert (one.group, one.audience, one.remove) == ("L1", "900", True)

    town(tmp_path, scenario)


async def _connections(found: Town) -> list[Any]:
    return list(await (await found.gateway.audiences.engine()).connections())


def test_a_new_audience_is_created_by_the_first_pass(tmp_path: Path) -> None:
    """The name of a new audience connects; a pass makes it, adds, and the page says so; a dry run tells nothing."""

    async def scenario(found: Town) -> None:
        found.list_of("L1", "Newsletter", "ada@example.com", "bob@example.com")
        async with await found.enter() as visitor:
            query = urlencode({"source": "mail", "kind": "list", "group": "L1", "create": "Our readers"})
            page = await visitor.page(f"/audiences/connect?{query}")
            assert "→ audience “Our readers”" in text_of(page)
            await found.connect(visitor, create="Our readers", never_remove="yes")
            said = await found.job(visitor, await visitor.send("/audiences/sync", connection="1", dry_run="yes"))
            assert "2 members read, would add 2 and remove 0; nothing was told to the audience" in said
            assert found.sink.feeds == {}
            said = await found.job(visitor, await visitor.send("/audiences/sync", connection="1"))
            assert "added 2, removed 0" in said
            assert found.sink.feeds["feed1"] == {sha("ada@example.com"), sha("bob@example.com")}
            said = text_of(await visitor.page("/audiences"))
            assert "list “Newsletter” (mail) → audience “Our readers” (board, account A1)" in said
            assert "2 at the source, 2 mirrored; left out: nobody" in said
            assert "2 e-mails from here; since it was connected added 2, removed 0 (removals are off)" in said
            page = await visitor.page("/audiences/1")
            assert re.search(r"Last pass .*: (full|quick) pass, .* added 2, removed 0", text_of(page))
            for raw in ("ada@example.com", sha("ada@example.com")):
                assert raw not in page

    town(tmp_path, scenario)


def test_what_is_taken_is_greyed_and_says_by_what(tmp_path: Path) -> None:
    """A connected list, its audience, and an audience with the same feed cannot be chosen, nor can refused ones."""

    async def scenario(found: Town) -> None:
        found.list_of("L1", "Newsletter", "ada@example.com")
        found.list_of("L2", "Staff")
        found.list_of("L3", "Odd", refusal="Its members are hidden.")
        found.sink.existing("900", "Readers", feed="f9")
        found.sink.existing("901", "Readers too", feed="f9")
        found.sink.existing("902", "Others")
        async with await found.enter() as visitor:
            await found.connect(visitor, audience="900")
            page = await visitor.page("/audiences/connect")
            said = text_of(page)
            assert 'feeds the audience "Readers" already (connection 1)' in said
            assert said.count('is fed by the list "Newsletter" already (connection 1)') == 2
            assert "Its members are hidden." in said
            offered = [link for link in links(page) if "group=" in link or "audience=" in link]
            assert sorted(parse_qs(urlsplit(link).query).get("group", [""])[0] for link in offered) == ["", "L2"]
            assert not [link for link in offered if "audience=900" in link or "audience=901" in link]
            # typed by hand it is neither chosen nor connected
            page = await visitor.page("/audiences/connect?source=mail&kind=list&group=L1&create=x")
            assert "Choose a list or segment on the left." in text_of(page)
            said = await found.connect(visitor, create="Another")
            assert "Not done" in said
            assert "a list feeds one audience. Choose another, or disconnect connection 1 first" in said
        assert len(await _connections(found)) == 1

    town(tmp_path, scenario)


def test_long_lists_are_searched(tmp_path: Path) -> None:
    """Of thousands the first are shown with how many there are; a search finds by part of a name, or by id."""

    async def scenario(found: Town) -> None:
        for number in range(3_000):
            found.list_of(f"L{number}", f"List number {number:04}")
        async with await found.enter(VIEWER) as visitor:
            page = await visitor.page("/audiences/connect")
            assert "25 of 3,000: search to see the others." in text_of(page)
            assert len(page) < 60_000
            page = await visitor.page("/audiences/connect?q=NUMBER+29")
            assert "25 of 100: search" in text_of(page)
            page = await visitor.page("/audiences/connect?q=L2999")
            assert "List number 2999" in text_of(page)
            page = await visitor.page("/audiences/connect?q=nothing")
            assert "None of the 3,000 lists and segments matches." in text_of(page)
        assert found.source.script.calls.count("groups") == 1  # read once, searched here

    town(tmp_path, scenario)


def test_a_side_in_trouble_says_why(tmp_path: Path) -> None:
    """An error of a source or sink stands in its column, the other side works on; the next look asks again."""

    async def scenario(found: Town) -> None:
        found.list_of("L1", "Newsletter")
        found.source.script.faults.append(
            ("groups", "before", AudienceError("Nobody has signed in: run 'tag-gateway audiences login'."))
        )
        async with await found.enter(VIEWER) as visitor:
            said = text_of(await visitor.page("/audiences/connect"))
            assert "Nobody has signed in: log in above." in said
            assert "There are no audiences." in said
            assert "Newsletter" in text_of(await visitor.page("/audiences/connect"))

    town(tmp_path, scenario)


def test_a_slow_side_is_waited_for_by_reloading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a vendor reads on, the page says so and comes again by itself."""
    monkeypatch.setattr("gateway.operator.pages.choices._WAIT_S", 0.0)

    async def scenario(found: Town) -> None:
        found.list_of("L1", "Newsletter")
        release = asyncio.Event()
        groups = found.source.groups

        async def slow(search: str = "") -> Any:
            await release.wait()
            return await groups(search)

        found.source.groups = slow  # type: ignore[method-assign]
        async with await found.enter(VIEWER) as visitor:
            answer = await visitor.client.get("/audiences/connect")
            assert answer.headers["refresh"] == "2"
            assert "Reading the lists and segments" in text_of(answer.text)
            release.set()
            for _ in range(3):
                await asyncio.sleep(0)
            said = ""
            while "Newsletter" not in said:
                said = text_of(await visitor.page("/audiences/connect"))

    town(tmp_path, scenario)


def test_several_accounts(tmp_path: Path) -> None:
    """Of several ad accounts one is chosen, on the page for good or in the step for once."""

    async def scenario(found: Town) -> None:
        found.list_of("L1", "Newsletter")
        found.sink.listed = [Group(id="A1", name="Shop", kind="account"), Group(id="A2", name=EVIL, kind="account")]
        async with await found.enter() as visitor:
            assert "Choose the ad account first." in text_of(await visitor.page("/audiences/connect"))
            assert "Or an existing one" in text_of(await visitor.page("/audiences/connect?account=A1"))
            page = await visitor.page("/audiences")
            assert "<script>alert" not in page
            answer = await visitor.send("/audiences/account", sink="board", account="A1")
            assert answer.headers["location"] == "/audiences"
            assert "Ad account Shop is the one that is meant" in text_of(await visitor.page("/audiences"))
            assert "Or an existing one" in text_of(await visitor.page("/audiences/connect"))
            assert (await visitor.send("/audiences/account", sink="board", account="A9")).status_code == 409

    town(tmp_path, scenario)


# -- passes


def test_a_held_pass_is_confirmed_with_numbers(tmp_path: Path) -> None:
    """A guard's stop shows how many of how many would be removed; the button confirms it, and they are removed."""

    async def scenario(found: Town) -> None:
        emails = [f"p{number}@example.com" for number in range(20)]
        found.list_of("L1", "Newsletter", *emails)
        async with await found.enter() as visitor:
            await found.connect(visitor, create="Readers")
            await found.job(visitor, await visitor.send("/audiences/sync", connection="1"))
            for number in range(12):
                del found.source.lists["L1"].members[f"p{number}"]
            said = await found.job(visitor, await visitor.send("/audiences/sync", connection="1", full="yes"))
            assert "held" in said
            page = await visitor.page("/audiences")
            assert "12 of 20 people would be removed" in text_of(page)
            assert "confirm it below" in text_of(page)
            assert "--confirm" not in page
            assert "Confirm: remove 12" in page
            assert len(found.sink.feeds["feed1"]) == 20
            async with await found.enter(VIEWER) as viewer:
                assert "Confirm: remove" not in await viewer.page("/audiences")
            answer = await visitor.send("/audiences/sync", connection="1", full="yes", confirm="yes")
            assert "removed 12" in await found.job(visitor, answer)
            assert len(found.sink.feeds["feed1"]) == 8
            details = [one.detail for one in found.gateway.audit.last() if one.what == "audience_sync"]
            assert "connection 1, full, confirm" in details

    town(tmp_path, scenario)


def test_progress_while_a_pass_runs(tmp_path: Path) -> None:
    """The job's page says what the pass is doing and how far it is, and comes again until it ends."""

    async def scenario(found: Town) -> None:
        found.list_of("L1", "Newsletter", *[f"p{number}@example.com" for number in range(9)])
        release, reached = asyncio.Event(), asyncio.Event()
        page_of = found.source.page

        pages = 0

        async def slow(*given: Any, **more: Any) -> Any:
            nonlocal pages
            pages += 1
            if pages == 3:
                reached.set()
                await release.wait()
            return await page_of(*given, **more)

        async with await found.enter() as visitor:
            await found.connect(visitor, create="Readers")
            found.source.page = slow  # type: ignore[method-assign]
            answer = await visitor.send("/audiences/sync", connection="1")
            path = answer.headers["location"]
            await reached.wait()
            shown = await visitor.client.get(path)
            assert shown.headers["refresh"] == "2"
            assert "Under way" in text_of(shown.text)
            assert "Connection 1: reading members" in text_of((await visitor.client.get(path)).text)
            overview = await visitor.client.get("/audiences")
            assert overview.headers["refresh"] == "2"
            assert "A pass is under way" in text_of(overview.text)
            release.set()
            assert "added 9" in await found.job(visitor, answer)

    town(tmp_path, scenario)


def test_disconnecting_asks_what_becomes_of_the_people(tmp_path: Path) -> None:
    """Keep or remove must be said; removing empties what the connection added, keeping leaves it."""

    async def scenario(found: Town) -> None:
        found.list_of("L1", "Newsletter", "ada@example.com")
        found.list_of("L2", "Others", "bob@example.com")
        async with await found.enter() as visitor:
            await found.connect(visitor, create="One")
            await found.connect(visitor, group="L2", create="Two")
            await found.job(visitor, await visitor.send("/audiences/sync"))
            assert (await visitor.send("/audiences/disconnect", connection="1")).status_code == 400
            fates = {}
            for number, fate in (("1", "remove"), ("2", "keep")):
                answer = await visitor.send(
                    "/audiences/disconnect", f"/audiences/{number}", connection=number, fate=fate
                )
                fates[fate] = await found.job(visitor, answer)
            assert all("Done" in said for said in fates.values())
            assert sorted(len(feed) for feed in found.sink.feeds.values()) == [0, 1]
            assert await _connections(found) == []
            assert (await visitor.client.get("/audiences/1")).status_code == 409
            assert "No connection yet." in text_of(await visitor.page("/audiences"))

    town(tmp_path, scenario)


def test_a_lookalike(tmp_path: Path) -> None:
    """Name, country and share make one; a country that is none is refused in words."""

    async def scenario(found: Town) -> None:
        found.list_of("L1", "Newsletter", "ada@example.com")
        async with await found.enter() as visitor:
            await found.connect(visitor, create="Readers")
            assert "sync first" in text_of(await visitor.page("/audiences/1"))
            await found.job(visitor, await visitor.send("/audiences/sync", connection="1"))
            given = {"connection": "1", "name": "Like them", "percent": "2"}
            said = await found.job(visitor, await visitor.send("/audiences/lookalike", **given, country="us"))
            assert "Created Like them audience1 US 2 (lookalike): ready." in said
            said = await found.job(visitor, await visitor.send("/audiences/lookalike", **given, country="USA"))
            assert "country must be a code of two letters" in said

    town(tmp_path, scenario)


# -- who and what


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    """Names of lists, audiences and accounts, messages and searches that are markup stay text on every page."""

    async def scenario(found: Town) -> None:
        found.list_of(EVIL, EVIL, "ada@example.com", state=EVIL)
        found.list_of("L2", EVIL)
        found.sink.existing(EVIL, EVIL)
        found.sink.listed = [Group(id="A1", name=EVIL, kind="account")]
        async with await found.enter() as visitor:
            said = await found.connect(visitor, group=EVIL, audience=EVIL)
            assert "alert(1)" in said
            found.source.script.faults.append(("group", "before", AudienceError(EVIL)))
            answer = await visitor.send("/audiences/sync", connection="1")
            await found.job(visitor, answer)
            search = urlencode({"q": EVIL, "p": EVIL, "create": EVIL, "group": EVIL, "kind": EVIL, "source": EVIL})
            for path in (
                "/audiences", "/audiences/1", "/audiences/connect", f"/audiences/connect?{search}",
                "/audiences/connect?kind=list&group=L2&" + urlencode({"create": EVIL}), answer.headers["location"],
            ):  # fmt: skip
                page = await visitor.page(path)
                assert "<script>alert" not in page, path
                assert "<img src=x" not in page, path
                assert "alert(1)" in text_of(page) or "alert(1)" in page, path

    town(tmp_path, scenario)


CHANGES = ["sync", "disconnect", "lookalike", "login", "login/answer", "account", "connect"]


def test_who_may_change_what(tmp_path: Path) -> None:
    """Every change is the operator's, by POST with the form's token; a viewer sees no form for one."""

    async def scenario(found: Town) -> None:
        found.list_of("L1", "Newsletter", "ada@example.com")
        async with await found.enter() as operator:
            await found.connect(operator, create="Readers")
            for change in CHANGES:
                path = f"/audiences/{change}"
                assert (await operator.client.post(path, data={"connection": "1"})).status_code == 403
                assert (await operator.client.post(path, data={"csrf": "x"})).status_code == 403
                assert (await operator.client.get(path)).status_code in (200 if change == "connect" else 405, 405)
        async with await found.enter(VIEWER) as viewer:
            for change in CHANGES:
                answer = await viewer.send(f"/audiences/{change}", "/audiences", connection="1", fate="keep")
                assert answer.status_code == 403, change
            for path in ("/audiences", "/audiences/1", "/audiences/connect?kind=list&group=L1&create=x"):
                forms = re.findall(r'<form method="post" action="([^"]*)"', await viewer.page(path))
                assert set(forms) <= {"/logout"}, path
        async with Visitor(found.app) as nobody:
            for change in CHANGES:
                assert (await nobody.client.post(f"/audiences/{change}", data={})).status_code in (303, 401)
        assert len(await _connections(found)) == 1
        assert found.sink.told == []

    town(tmp_path, scenario)


def test_without_a_source_the_page_says_what_to_add(tmp_path: Path) -> None:
    """Nothing configured: the page names the two tables."""

    async def scenario(found: Town) -> None:
        found.gateway.audiences.plugged = Plugged(path=tmp_path / "var" / "audiences.db")
        async with await found.enter(VIEWER) as visitor:
            assert "Add a table [audience_sources.NAME]" in text_of(await visitor.page("/audiences"))
            assert (await visitor.client.get("/audiences/connect")).status_code == 409
            assert (await visitor.client.get("/audiences/jobs/none")).status_code == 400

    town(tmp_path, scenario)


def test_logging_in_at_the_sandbox(tmp_path: Path) -> None:
    """The button leads to a link to the vendor's page; after the answer the side works, and may be logged in again."""

    async def main() -> None:
        box = PinterestSandbox()
        http = Client(transport=httpx.ASGITransport(box.app))
        base = "http://127.0.0.1:1"
        config = {
            **CONFIG,
            "audience_sources": {
                "klaviyo": {
                    "api_key": "sandbox-klaviyo-key", "base_url": base, "authorize_url": f"{base}/oauth/authorize",
                }
            },
            "audience_sinks": {
                "pinterest": {
                    "app_id": "1500000", "app_secret": "sandbox-app-secret", "base_url": f"{base}/v5",
                    "authorize_url": f"{base}/oauth/",
                }
            },
        }  # fmt: skip
        parsed = configuration.parse(config, tmp_path / "gateway.toml")
        gateway = Gateway(parsed, http=http, hit_log=HitLog(enabled=False))
        try:
            await _log_in(gateway, box)
        finally:
            await gateway.stop()
            await http.close()

    asyncio.run(main())


async def _log_in(gateway: Gateway, box: PinterestSandbox) -> None:
    async with Visitor(operator_app(gateway, Secret(value=OPERATOR), Secret(value=VIEWER))) as visitor:
        await visitor.login(OPERATOR)
        said = text_of(await visitor.page("/audiences"))
        assert "pinterest not logged in" in said
        assert "klaviyo works" in said
        answer = await visitor.send("/audiences/login", "/audiences", name="pinterest")
        assert answer.status_code == 200
        (link,) = [one for one in links(answer.text) if one.startswith("http://127.0.0.1:1/oauth/")]
        assert "/oauth/callback" in text_of(answer.text)
        vendor = httpx.AsyncClient(transport=httpx.ASGITransport(box.app))
        async with vendor:
            granted = await vendor.get(link)
        back = granted.headers["location"]
        answer = await visitor.send("/audiences/login/answer", "/audiences", url=back)
        assert answer.headers["location"] == "/audiences"
        said = text_of(await visitor.page("/audiences"))
        assert "Access granted." in said
        assert "pinterest works" in said
        assert "Log in again" in said
        page = await visitor.page("/audiences/connect")
        assert "Choose a list or segment" in text_of(page)
        assert (await visitor.send("/audiences/login/answer", "/audiences", url=back)).status_code == 409
        assert (await visitor.send("/audiences/login", "/audiences", name="nobody")).status_code == 409


# -- parts


def test_messages_name_buttons_in_place_of_options() -> None:
    """What the engine says for the command line is said for the page, and other texts stay as they are."""
    for said, on_page in (
        ("If that is right, sync with --confirm.", "If that is right, confirm it below."),
        ("Choose an account (--account); open: 1.", "Choose an account; open: 1."),
        ("To remove nobody, connect with --no-remove.", "To remove nobody, choose “Never remove anybody”."),
        ("X: run 'tag-gateway audiences login'.", "X: log in above."),
        ("All is well.", "All is well."),
    ):  # fmt: skip
        assert words.on_page(said) == on_page
    assert (words.span(59), words.span(7_200), words.span(-1)) == ("59 s", "2 h", "0 s")


def test_choices_keep_the_chosen_on_top() -> None:
    """The chosen one stands first among what was found; what cannot be chosen says why."""
    groups = [Group(id=str(number), name=f"g{number}", kind="list") for number in range(3)]
    found = chosen_from(groups, "", "G", source_taken([], "mail"), "2")
    assert [one.group.id for one in found.shown] == ["2", "0", "1"]
    refused = [msgspec.structs.replace(groups[0], refusal="No.")]
    assert [one.taken for one in chosen_from(refused, "", "", sink_taken([], "board", "")).shown] == ["No."]
    assert chosen_from(None, "", "", sink_taken([], "b", "")).is_reading
    assert chosen_from(None, "Broken.", "", sink_taken([], "b", "")).problem == "Broken."


def test_lists_are_kept_for_a_minute(tmp_path: Path) -> None:
    """A list is read once a minute, and anew after a change."""

    async def scenario(found: Town) -> None:
        now = [0.0]
        lists = Lists(found.gateway.audiences, lambda: now[0])
        for at, calls in ((0.0, 1), (59.0, 1), (61.0, 2)):
            now[0] = at
            await lists.groups("mail")
            assert found.source.script.calls.count("groups") == calls
        lists.forget()
        await lists.groups("mail")
        assert found.source.script.calls.count("groups") == 3

    town(tmp_path, scenario)
