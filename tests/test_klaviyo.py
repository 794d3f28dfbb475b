"""Klaviyo as a source: groups, sizes, pages and who is left out, at the sandbox; faults and refusals by script."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from gateway import AudienceError, Context, Group, Limit, Member, Page, Secret, Unreachable
from gateway.plugins.klaviyo import Klaviyo
from gateway.plugins.klaviyo.options import KlaviyoOptions
from gateway.testing.doubles import NOW
from tests.harness import described
from tests.harness.vendors import BASE, Scripted, Time, Vendors, answer

KEY = "sandbox-klaviyo-key"
NOTHING = {"data": [], "links": {"self": "x"}}


def options(**given: Any) -> KlaviyoOptions:
    """Return options with a key, unless given."""
    if not {"api_key", "client_id"} & given.keys():
        given["api_key"] = Secret(value=KEY)
    return KlaviyoOptions(**{"base_url": BASE, "authorize_url": f"{BASE}/oauth/authorize", **given})


def on(context: Context, time: Time, **given: Any) -> Klaviyo:
    """Return a source whose limits run on a frozen clock."""
    source = Klaviyo("k", options(**given), context)
    minute = source.options.requests_per_minute
    source.pace = time.pace(Limit(calls=min(75, minute), seconds=1.0), Limit(calls=minute, seconds=60.0))
    source.count_pace = time.pace(Limit(calls=1, seconds=1.0), Limit(calls=15, seconds=60.0))
    return source


def scripted(*answers: Any, **given: Any) -> tuple[Klaviyo, Scripted, Time]:
    """Return a source whose vendor gives prepared answers."""
    time, http = Time(), Scripted(*answers)
    return on(Context(http=http, clock=time), time, **given), http, time


@pytest.fixture
def vendors(tmp_path: Path) -> Iterator[Vendors]:
    """Make a sandbox; afterwards every request is held against the official description, where it is there."""
    vendors = Vendors(tmp_path)
    yield vendors
    asked = [one for one in vendors.wire.requests if "/oauth/" not in one.url]
    if described.is_known():
        assert described.all_problems("klaviyo", asked) == []


async def scan(source: Klaviyo, group: Group, since: float | None = None) -> list[Member]:
    """Read every page."""
    found: list[Member] = []
    cursor = None
    while True:
        page: Page = await source.page(group, cursor, since=since)
        found += page.members
        cursor = page.cursor
        if cursor is None:
            return found


def query(url: str) -> dict[str, str]:
    """Return an address's query."""
    return dict(parse_qsl(urlsplit(url).query))


# -- at the sandbox


def test_lists_and_segments_are_found_by_a_part_of_their_name(vendors: Vendors) -> None:
    """All pages of ten are read; the search knows no case; segments tell that they are not kept."""
    source = on(vendors.context, vendors.time)

    async def go() -> None:
        for number in range(23):
            await vendors.control("POST", "klaviyo/lists", {"name": f"Letter {number}", "first": 0, "count": 1})
        made = await vendors.control("POST", "klaviyo/segments", {"name": "VIP letters", "first": 0, "count": 1})
        await vendors.control("PATCH", f"klaviyo/segments/{made['id']}", {"is_processing": True})
        found = await source.groups()
        assert len(found) == 24
        assert {group.kind for group in found} == {"list", "segment"}
        assert all(group.size is None for group in found)
        vips = await source.groups("vip LETTER")
        assert [(one.id, one.name, one.kind, one.state) for one in vips] == [
            (made["id"], "VIP letters", "segment", "processing")
        ]
        assert [one.name for one in await source.groups("letter 22")] == ["Letter 22"]

    asyncio.run(go())


@pytest.mark.parametrize("kind", ["list", "segment"])
def test_every_member_is_read_once_in_pages_of_a_hundred(vendors: Vendors, kind: str) -> None:
    """Cursors lead through the whole group, in the order of joining; its size is the vendor's own count."""
    source = on(vendors.context, vendors.time)

    async def go() -> None:
        made = await vendors.control(
            "POST",
            f"klaviyo/{kind}s",
            {"name": "All", "first": 100, "count": 345, "since": int(NOW) - 500, "span_s": 400},
        )
        group = await source.group(kind, made["id"])
        assert (group.name, group.kind, group.size, group.state) == ("All", kind, 345, "ready")
        vendors.wire.requests.clear()
        members = await scan(source, group)
        assert len(members) == len({member.id for member in members}) == 345
        assert {member.email for member in members} == {f"person{n}@people.example" for n in range(100, 445)}
        assert all(member.left_out is None for member in members)
        assert len(vendors.wire.requests) == 4

    asyncio.run(go())


@pytest.mark.parametrize("null_next", [False, True])
def test_the_last_page_has_no_cursor(vendors: Vendors, null_next: bool) -> None:
    """Whether the link is missing or null, and of an empty list too."""
    source = on(vendors.context, vendors.time)

    async def go() -> None:
        await vendors.control("PUT", "klaviyo/settings", {"null_next": null_next})
        for count in (0, 1, 100):
            made = await vendors.control("POST", "klaviyo/lists", {"name": "n", "first": 0, "count": count})
            page = await source.page(Group(id=made["id"], name="n", kind="list"))
            assert (len(page.members), page.cursor) == (count, None)

    asyncio.run(go())


def test_a_quick_pass_reads_only_who_joined_then_or_later(vendors: Vendors) -> None:
    """The moment itself is included, the newest is told, and nobody who joined before is read."""
    source = on(vendors.context, vendors.time)

    async def go() -> None:
        made = await vendors.control(
            "POST", "klaviyo/lists", {"name": "n", "first": 0, "count": 200, "since": int(NOW) - 2000, "span_s": 1000}
        )
        url = f"klaviyo/lists/{made['id']}/join"
        await vendors.control("POST", url, {"people": [900, 901], "joined_at": int(NOW) - 100})
        await vendors.control("POST", url, {"people": [902], "joined_at": int(NOW) - 50})
        group = Group(id=made["id"], name="n", kind="list")
        page = await source.page(group, since=NOW - 99.5)
        assert [member.email for member in page.members] == [f"person{n}@people.example" for n in (900, 901, 902)]
        assert page.newest == NOW - 50
        assert [m.email for m in await scan(source, group, NOW - 50)] == ["person902@people.example"]
        assert (await source.page(group, since=NOW)).newest is None
        assert len(await scan(source, group, NOW - 2001)) == 203

    asyncio.run(go())


def test_who_must_not_be_reached_is_left_out(vendors: Vendors) -> None:
    """Each reason of the API, consent, and a list's own suppression for that list alone; people without e-mail."""
    source = on(vendors.context, vendors.time)

    async def go() -> None:
        made = [
            await vendors.control("POST", "klaviyo/lists", {"name": name, "first": 0, "count": 10}) for name in "ab"
        ]
        changes: list[dict[str, Any]] = [
            {"suppress": "HARD_BOUNCE"},
            {"suppress": "UNSUBSCRIBE"},
            {"suppress": "SPAM_COMPLAINT"},
            {"consent": "UNSUBSCRIBED"},
            {"consent": "NEVER_SUBSCRIBED"},
            {"list_suppress": {"list_id": made[0]["id"], "reason": "USER_SUPPRESSED"}},
            {"list_suppress": {"list_id": made[1]["id"], "reason": "UNSUBSCRIBE"}},
            {"email": None},
            {"suppress": "USER_SUPPRESSED"},
        ]
        for number, change in enumerate(changes):
            await vendors.control("PATCH", "klaviyo/people", {"people": [number], **change})
        found = [await scan(source, Group(id=one["id"], name="n", kind="list")) for one in made]
        reasons = [[member.left_out for member in sorted(members, key=lambda one: one.id)] for members in found]
        always = ["suppressed", "unsubscribed", "suppressed", "unsubscribed", None]
        assert reasons[0] == [*always, "suppressed", None, "no_email", "suppressed", None]
        assert reasons[1] == [*always, None, "unsubscribed", "no_email", "suppressed", None]

    asyncio.run(go())


def test_a_group_at_work_or_asleep_is_not_ready(vendors: Vendors) -> None:
    """The engine does not look for who left while Klaviyo computes a segment, or no longer does."""
    source = on(vendors.context, vendors.time)

    async def go() -> None:
        made = await vendors.control("POST", "klaviyo/segments", {"name": "n", "first": 0, "count": 1})
        for is_active, is_processing, state in ((True, True, "processing"), (False, True, "inactive")):
            await vendors.control(
                "PATCH", f"klaviyo/segments/{made['id']}", {"is_active": is_active, "is_processing": is_processing}
            )
            assert (await source.group("segment", made["id"])).state == state

    asyncio.run(go())


def test_a_cursor_that_has_expired_starts_the_scan_anew(vendors: Vendors) -> None:
    """The one error with retry_after_s=0."""
    source = on(vendors.context, vendors.time)

    async def go() -> None:
        made = await vendors.control("POST", "klaviyo/lists", {"name": "n", "first": 0, "count": 150})
        group = Group(id=made["id"], name="n", kind="list")
        page = await source.page(group)
        await vendors.control("POST", "klaviyo/cursors/expire")
        with pytest.raises(AudienceError, match="anew") as caught:
            await source.page(group, page.cursor)
        assert caught.value.retry_after_s == 0

    asyncio.run(go())


def test_the_limits_of_klaviyo_are_kept_without_a_refusal(vendors: Vendors) -> None:
    """900 pages take a little more than the minute that 750 fill; sizes take one call a second and 15 a minute."""
    source = on(vendors.context, vendors.time, requests_per_minute=750)

    async def go() -> None:
        made = await vendors.control("POST", "klaviyo/lists", {"name": "n", "first": 0, "count": 90_000})
        members = await scan(source, Group(id=made["id"], name="n", kind="list"))
        assert len(members) == 90_000
        assert 60 <= vendors.time.slept <= 75
        before = vendors.time.slept
        for _ in range(16):
            await source.group("list", made["id"])
        assert 60 <= vendors.time.slept - before <= 75
        calls = await vendors.control("GET", "calls?vendor=klaviyo&limit=1")
        assert not any(name.endswith("429") for name in calls["by"])

    asyncio.run(go())


def test_another_program_on_the_same_account_is_waited_for(vendors: Vendors) -> None:
    """Where the account allows less than configured, its headers and Retry-After are obeyed and every page arrives."""
    source = on(vendors.context, vendors.time)

    async def go() -> None:
        await vendors.control("PUT", "klaviyo/settings", {"burst": 3, "steady": 20})
        made = await vendors.control("POST", "klaviyo/lists", {"name": "n", "first": 0, "count": 4_500})
        assert len(await scan(source, Group(id=made["id"], name="n", kind="list"))) == 4_500
        assert 100 < vendors.time.slept < 240

    asyncio.run(go())


def test_signing_in_works_like_a_key_and_a_token_that_ended_is_renewed(vendors: Vendors) -> None:
    """Code flow with PKCE at the sandbox; when access tokens end early, the call is made again with a new one."""
    source = on(
        vendors.context,
        vendors.time,
        client_id="sandbox-klaviyo-app",
        client_secret=Secret(value="sandbox-klaviyo-secret"),
    )
    login = source.login
    assert login is not None

    async def go() -> None:
        with pytest.raises(AudienceError, match="Nobody has signed in"):
            await source.groups()
        back, verifier = "http://127.0.0.1:8081/oauth", "v" * 43
        sent = await vendors.wire.request("GET", login.authorize_url(back, "state-1", verifier))
        arrived = query(sent.headers["location"])
        assert arrived["state"] == "state-1"
        await login.complete(arrived["code"], back, verifier)
        await vendors.control("POST", "klaviyo/lists", {"name": "n", "first": 0, "count": 1})
        assert [one.name for one in await source.groups()] == ["n"]
        await vendors.control("POST", "klaviyo/tokens/expire")
        assert [one.name for one in await source.groups()] == ["n"]
        assert await source.probe() is None
        await vendors.control("POST", "klaviyo/tokens/revoke")
        with pytest.raises(AudienceError, match="login"):
            await source.groups()

    asyncio.run(go())


def test_probe_says_what_is_wrong(vendors: Vendors) -> None:
    """A good key is silent; a wrong one is told with the scopes that a new one needs."""

    async def go() -> None:
        await vendors.control("POST", "klaviyo/lists", {"name": "n", "first": 0, "count": 1})
        assert await on(vendors.context, vendors.time).probe() is None
        said = await on(vendors.context, vendors.time, api_key=Secret(value="wrong")).probe()
        assert said is not None
        assert "lists:read segments:read profiles:read" in said
        assert "[audience_sources.k] api_key" in said
        assert "wrong" not in said

    asyncio.run(go())


@pytest.mark.parametrize("kind", ["status", "answer", "cut_before", "cut_after", "html", "truncated"])
def test_a_fault_that_passes_is_told_with_a_pause(vendors: Vendors, kind: str) -> None:
    """5xx, broken connections and damaged bodies: the same call may succeed later, never at once."""
    source = on(vendors.context, vendors.time)

    async def go() -> None:
        made = await vendors.control("POST", "klaviyo/lists", {"name": "n", "first": 0, "count": 5})
        group = Group(id=made["id"], name="n", kind="list")
        await vendors.control("POST", "calls/faults", {"faults": [{"kind": kind, "vendor": "klaviyo", "times": 2}]})
        pauses = []
        for _ in range(2):
            with pytest.raises(AudienceError) as caught:
                await source.page(group)
            pauses.append(caught.value.retry_after_s)
            assert not caught.value.ambiguous
        assert pauses == [1, 2]
        assert len((await source.page(group)).members) == 5

    asyncio.run(go())


# -- by script


def test_what_is_asked_for_is_little() -> None:
    """One call, with revision and key; of a person only e-mail, time of joining and what leaves them out."""
    source, http, _ = scripted(answer(200, NOTHING), revision="2026-07-15")
    asyncio.run(source.page(Group(id="a b/c", name="n", kind="list"), "next==", since=NOW + 0.9))
    method, url, headers, content = http.calls[0]
    assert (method, content) == ("GET", None)
    assert urlsplit(url).path == "/api/lists/a%20b%2Fc/profiles"
    asked = query(url)
    assert asked.pop("fields[profile]").split(",")[:2] == ["email", "joined_group_at"]
    assert asked == {
        "additional-fields[profile]": "subscriptions",
        "filter": "greater-or-equal(joined_group_at,2026-11-22T00:00:00Z)",
        "page[cursor]": "next==",
        "page[size]": "100",
        "sort": "joined_group_at",
    }
    assert headers == {
        "accept": "application/vnd.api+json",
        "authorization": f"Klaviyo-API-Key {KEY}",
        "revision": "2026-07-15",
    }


def test_the_key_never_follows_a_link_to_another_host() -> None:
    """Of links.next only the cursor is taken."""
    first = {"data": [], "links": {"next": "https://evil.example/api/lists/L/profiles?page%5Bcursor%5D=abc"}}
    source, http, _ = scripted(answer(200, first), answer(200, NOTHING))
    assert asyncio.run(scan(source, Group(id="L", name="n", kind="list"))) == []
    assert [urlsplit(call[1]).netloc for call in http.calls] == [urlsplit(BASE).netloc] * 2
    assert query(http.calls[1][1])["page[cursor]"] == "abc"


@pytest.mark.parametrize("link", ["https://a.klaviyo.com/api/lists/L/profiles", "http://[", "x"])
def test_a_next_page_without_a_cursor_is_no_end(link: str) -> None:
    """A scan that cannot go on is an error, never a short list."""
    source, _, _ = scripted(answer(200, {"data": [], "links": {"next": link}}))
    with pytest.raises(AudienceError, match="cannot be followed") as caught:
        asyncio.run(source.page(Group(id="L", name="n", kind="list")))
    assert caught.value.retry_after_s


def test_a_page_that_names_itself_does_not_loop() -> None:
    """The same cursor again starts the scan anew."""
    again = {"data": [], "links": {"next": f"{BASE}/api/lists/L/profiles?page%5Bcursor%5D=abc"}}
    source, _, _ = scripted(answer(200, again))
    with pytest.raises(AudienceError, match="anew") as caught:
        asyncio.run(source.page(Group(id="L", name="n", kind="list"), "abc"))
    assert caught.value.retry_after_s == 0


ERROR = {"errors": [{"id": "1", "code": "invalid", "title": "t", "detail": "jo@example.com"}]}


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (400, "revision and base_url"),
        (401, "make a private key with the scopes"),
        (403, "may not read the members of the list L .403.: it needs the scopes"),
        (404, "deleted"),
        (410, "refuses"),
        (302, "redirects"),
    ],
)
def test_a_refusal_names_the_remedy_and_nobody(status: int, says: str, caplog: pytest.LogCaptureFixture) -> None:
    """An operator must mend it: no retry; neither the key nor what the vendor quotes is shown or logged."""
    caplog.set_level(logging.DEBUG)
    source, _, _ = scripted(answer(status, ERROR))
    with pytest.raises(AudienceError, match=says) as caught:
        asyncio.run(source.page(Group(id="L", name="n", kind="list"), "abc"))
    assert caught.value.retry_after_s is None
    shown = f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert "jo@example.com" not in shown
    assert KEY not in shown


def test_a_limit_that_is_never_lifted_ends_in_words() -> None:
    """Eight refusals in a row are handed to the engine, with a pause."""
    source, http, time = scripted(*[answer(429, ERROR, retry_after="3")] * 9)
    with pytest.raises(AudienceError, match="another program") as caught:
        asyncio.run(source.groups())
    assert len(http.calls) == 8
    assert time.slept == pytest.approx(21)
    assert caught.value.retry_after_s == pytest.approx(3)


def test_a_long_wait_is_the_engine_s() -> None:
    """A Retry-After beyond two minutes is not slept through inside a call."""
    source, http, time = scripted(answer(429, ERROR, retry_after="600"))
    with pytest.raises(AudienceError) as caught:
        asyncio.run(source.groups())
    assert (len(http.calls), time.slept) == (1, 0)
    assert caught.value.retry_after_s == pytest.approx(600)


def test_an_unreachable_host_passes() -> None:
    """Reading again harms nobody, whether the request was read or not."""
    source, _, _ = scripted(Unreachable("no answer in 30 s", sent=True))
    with pytest.raises(AudienceError, match="no answer in 30 s") as caught:
        asyncio.run(source.groups())
    assert caught.value.retry_after_s == 1
    assert not caught.value.ambiguous


def test_an_unreadable_person_is_not_quoted() -> None:
    """A body of another shape is told without a word of it."""
    body = {"data": [{"id": "1", "attributes": {"email": {"jo@example.com": 1}}}]}
    source, _, _ = scripted(answer(200, body))
    with pytest.raises(AudienceError, match="cannot be read") as caught:
        asyncio.run(source.page(Group(id="L", name="n", kind="list")))
    assert "jo@example.com" not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    ("marketing", "left_out"),
    [
        (None, None),
        ({"consent": None, "suppression": None, "list_suppressions": None}, None),
        ({"consent": "SUBSCRIBED", "can_receive_email_marketing": False}, "suppressed"),
        ({"consent": "SUBSCRIBED", "suppression": [{"reason": None}]}, "suppressed"),
        ({"consent": "SUBSCRIBED", "list_suppressions": [{"reason": "UNSUBSCRIBE", "list_id": None}]}, None),
    ],
)
def test_what_klaviyo_leaves_empty_stops_no_scan(marketing: Any, left_out: str | None) -> None:
    """Nulls anywhere, a time of joining without zone, and keys that were not asked for are read."""
    attributes: Any = {
        "email": " jo@example.com ",
        "joined_group_at": "2026-11-21T23:59:59.500000",
        "phone_number": "1",
        "subscriptions": {"email": {"marketing": marketing}, "sms": None},
    }
    others: list[Any] = [
        {"attributes": {"email": None, "subscriptions": None}},
        {"attributes": {"subscriptions": {"email": None}}},
    ]
    people: list[dict[str, Any]] = [{"attributes": attributes}, *others]
    data = [{"type": "profile", "id": str(n), **one} for n, one in enumerate(people)]
    source, _, _ = scripted(answer(200, {"data": data, "links": {"self": "x", "next": None}}))
    page = asyncio.run(source.page(Group(id="L", name="n", kind="list")))
    assert page.members[0] == Member(id="0", email="jo@example.com", left_out=left_out)  # type: ignore[arg-type]
    assert [one.left_out for one in page.members[1:]] == ["no_email", "no_email"]
    assert page.newest == NOW - 0.5


def test_a_kind_that_klaviyo_does_not_have() -> None:
    """A connection of another source's kind is refused before any call."""
    source, http, _ = scripted()
    with pytest.raises(AudienceError, match="not 'audience'"):
        asyncio.run(source.group("audience", "L"))
    assert http.calls == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"api_key": None}, "give either api_key"),
        ({"client_id": "a"}, "give either api_key"),
        ({"api_key": Secret(value="k"), "client_id": "a", "client_secret": Secret(value="s")}, "give either api_key"),
        ({"api_key": Secret(value="a b")}, "printable ASCII"),
        ({"base_url": "http://a.klaviyo.com"}, "base_url must use https"),
        ({"base_url": "https://u:p@a.klaviyo.com"}, "credentials"),
        ({"base_url": "https://a.klaviyo.com?x"}, "query"),
        ({"authorize_url": "nonsense"}, "authorize_url is not a URL"),
    ],
)
def test_options_that_cannot_work_are_refused_at_start(given: Mapping[str, Any], says: str) -> None:
    """The message names the option; a key is never sent in the clear."""
    with pytest.raises(ValueError, match=says):
        Klaviyo("k", options(**given), Context())


@pytest.mark.parametrize("wrong", [{"revision": "today"}, {"requests_per_minute": 0}, {"client_id": "a:b"}])
def test_options_have_their_types(wrong: dict[str, Any]) -> None:
    """Out of range is refused by the host, before the plugin is made."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, KlaviyoOptions)


def test_sources_of_one_account_share_its_limit() -> None:
    """Two tables with the same key have one pace; another key has its own; repr shows neither."""
    first, second = (Klaviyo(name, options(), Context()) for name in "ab")
    other = Klaviyo("c", options(api_key=Secret(value="other")), Context())
    assert first.pace is second.pace
    assert first.count_pace is second.count_pace
    assert other.pace is not first.pace
    assert KEY not in repr(first.options)
