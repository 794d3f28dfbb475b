"""Pinterest as a sink: accounts, audiences, customer lists, at the sandbox; faults and refusals by script."""

import asyncio
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from gateway import AudienceError, Context, Limit, Secret, Unreachable
from gateway.plugins.pinterest import PinterestAudiences
from gateway.plugins.pinterest.audience_options import AudienceOptions
from gateway.plugins.pinterest.audiences import MAX_BYTES
from tests.harness import described
from tests.harness.vendors import BASE, Scripted, Time, Vendors, answer

ACCOUNT = "549755885175"
TOKEN = "sandbox-token"


def hashes(*numbers: int) -> list[str]:
    """Return the SHA-256 of made-up people."""
    return [hashlib.sha256(f"person{number}@people.example".encode()).hexdigest() for number in numbers]


def options(**given: Any) -> AudienceOptions:
    """Return options with a token and an account, unless given."""
    if not {"token", "app_id"} & given.keys():
        given["token"] = Secret(value=TOKEN)
    fixed = {"base_url": f"{BASE}/v5", "authorize_url": f"{BASE}/oauth/", "ad_account_id": ACCOUNT}
    return AudienceOptions(**{**fixed, **given})


def on(context: Context, time: Time, **given: Any) -> PinterestAudiences:
    """Return a sink whose limits run on a frozen clock."""
    sink = PinterestAudiences("p", options(**given), context)
    sink.read_pace = time.pace(Limit(calls=sink.options.reads_per_minute, seconds=60.0))
    sink.write_pace = time.pace(Limit(calls=sink.options.writes_per_minute, seconds=60.0))
    return sink


def scripted(*answers: Any, **given: Any) -> tuple[PinterestAudiences, Scripted, Time]:
    """Return a sink whose vendor gives prepared answers."""
    time, http = Time(), Scripted(*answers)
    return on(Context(http=http, clock=time), time, **given), http, time


@pytest.fixture
def vendors(tmp_path: Path) -> Iterator[Vendors]:
    """Make a sandbox; afterwards every request is held against the official description, where it is there."""
    vendors = Vendors(tmp_path)
    yield vendors
    # the trimmed description leaves the list of accounts out, and the browser's page is not part of the API
    asked = [one for one in vendors.wire.requests if urlsplit(one.url).path not in ("/v5/ad_accounts", "/oauth/")]
    if described.is_known():
        assert described.all_problems("pinterest", asked) == []


async def held(vendors: Vendors, feed: str) -> set[str]:
    """Return the members of a customer list, which only the sandbox tells."""
    return set((await vendors.control("GET", f"pinterest/lists/{feed}?members=true"))["hashes"])


# -- at the sandbox


def test_accounts(vendors: Vendors) -> None:
    """Every page of what the token opens, by name; or the configured one, without a call."""

    async def go() -> None:
        some = [{"id": str(1000 + number), "name": f"Shop {number}"} for number in range(230)]
        await vendors.control("PUT", "pinterest/accounts", {"accounts": some})
        found = await on(vendors.context, vendors.time, ad_account_id=None).accounts()
        assert [(one.id, one.name) for one in found] == [(one["id"], one["name"]) for one in some]
        assert {one.kind for one in found} == {"account"}
        asked = [dict(parse_qsl(urlsplit(one.url).query)) for one in vendors.wire.requests]
        assert [one["page_size"] for one in asked] == ["100"] * 3
        assert [set(one) for one in asked] == [{"page_size"}, {"page_size", "bookmark"}, {"page_size", "bookmark"}]
        configured = await on(vendors.context, vendors.time).accounts()
        assert [one.id for one in configured] == [ACCOUNT]
        assert len(vendors.wire.requests) == 3

    asyncio.run(go())


def test_audiences_are_found_by_a_part_of_their_name_and_say_what_cannot_be_fed(vendors: Vendors) -> None:
    """All pages; only CUSTOMER_LIST connects; two audiences of one customer list have the same feed."""
    sink = on(vendors.context, vendors.time)

    async def make(name: str, **more: Any) -> Any:
        return await vendors.control("POST", "pinterest/audiences", {"account": ACCOUNT, "name": name, **more})

    async def go() -> None:
        first = await make("Newsletter", first=0, count=150)
        await make("Shared NEWS", list=first["list"])
        await make("Visitors news", audience_type="VISITOR")
        for number in range(260):
            await make(f"Other {number}", audience_type="ENGAGEMENT")
        found = {group.name: group for group in await sink.groups(ACCOUNT, "news")}
        assert found.keys() == {"Newsletter", "Shared NEWS", "Visitors news"}
        assert found["Newsletter"].feed == found["Shared NEWS"].feed == first["list"]
        assert found["Newsletter"].refusal == ""
        assert (found["Newsletter"].kind, found["Newsletter"].state) == ("CUSTOMER_LIST", "ready")
        assert "type VISITOR" in found["Visitors news"].refusal
        assert len(await sink.groups("")) == 263
        one = await sink.group(ACCOUNT, found["Newsletter"].id)
        assert one == found["Newsletter"]

    asyncio.run(go())


def test_a_list_an_audience_and_its_members(vendors: Vendors) -> None:
    """List with first members, audience from it, ADD and REMOVE; twice is as good as once; nothing is in plain text."""
    sink = on(vendors.context, vendors.time)

    async def go() -> None:
        feed = await sink.create_feed(ACCOUNT, "Newsletter", hashes(*range(150)))
        audience = await sink.create_audience(ACCOUNT, "Newsletter", feed)
        assert (audience.feed, audience.kind, audience.refusal) == (feed, "CUSTOMER_LIST", "")
        assert await sink.create_audience(ACCOUNT, "Newsletter", feed) == await sink.group(ACCOUNT, audience.id)
        assert len(await sink.groups(ACCOUNT)) == 1
        for _ in range(2):
            await sink.apply(ACCOUNT, feed, "add", hashes(150, 151))
            await sink.apply(ACCOUNT, feed, "remove", hashes(0, 999))
        assert await held(vendors, feed) == set(hashes(*range(1, 152)))
        assert not (await vendors.control("GET", f"pinterest/lists/{feed}"))["plain"]

    asyncio.run(go())


def test_ten_thousand_records_are_one_call_below_a_megabyte(vendors: Vendors) -> None:
    """The most that one call may hold goes through; one more is refused before anything is sent."""
    sink = on(vendors.context, vendors.time)
    many = hashes(*range(sink.max_records))

    async def go() -> None:
        feed = await sink.create_feed(ACCOUNT, "n", many)
        await sink.apply(ACCOUNT, feed, "add", many)
        assert [len(one.content or b"") < MAX_BYTES for one in vendors.wire.requests] == [True, True]
        with pytest.raises(AudienceError, match="1 to 10,000 records"):
            await sink.apply(ACCOUNT, feed, "add", [*many, *hashes(-1)])
        with pytest.raises(AudienceError, match="1 to 10,000 records"):
            await sink.create_feed(ACCOUNT, "n", [])
        assert len(vendors.wire.requests) == 2

    asyncio.run(go())


@pytest.mark.parametrize("needs", ["read", "ready"])
def test_an_audience_waits_for_its_list(vendors: Vendors, needs: str) -> None:
    """While Pinterest reads the list, or it is too small, the engine is told why and when to come back."""
    sink = on(vendors.context, vendors.time)

    async def go() -> None:
        await vendors.control("PUT", "pinterest/settings", {"processing_s": 90, "audience_needs": needs})
        feed = await sink.create_feed(ACCOUNT, "n", hashes(*range(50)))
        with pytest.raises(AudienceError, match="still reads the customer list") as caught:
            await sink.create_audience(ACCOUNT, "n", feed)
        assert caught.value.retry_after_s == 60
        vendors.time.now += 91
        if needs == "ready":
            with pytest.raises(AudienceError, match="Fewer than 100 people") as caught:
                await sink.create_audience(ACCOUNT, "n", feed)
            assert caught.value.retry_after_s == 3600
            await sink.apply(ACCOUNT, feed, "add", hashes(*range(50, 150)))
            vendors.time.now += 91
        assert (await sink.create_audience(ACCOUNT, "n", feed)).feed == feed

    asyncio.run(go())


def test_an_actalike_follows_the_api_s_rule(vendors: Vendors) -> None:
    """Seed, country, percentage; a seed that is not ready is told with its state."""
    sink = on(vendors.context, vendors.time)

    async def go() -> None:
        feed = await sink.create_feed(ACCOUNT, "n", hashes(*range(150)))
        seed = await sink.create_audience(ACCOUNT, "n", feed)
        made = await sink.create_lookalike(ACCOUNT, "Like n", seed.id, "US", 3)
        assert (made.name, made.kind) == ("Like n", "ACTALIKE")
        assert made.refusal
        body = msgspec.json.decode(vendors.wire.requests[-1].content or b"")
        assert body["rule"] == {"seed_id": [seed.id], "country": "US", "percentage": 3}
        small = await sink.create_audience(ACCOUNT, "s", await sink.create_feed(ACCOUNT, "s", hashes(1)))
        with pytest.raises(AudienceError, match="while it is TOO_SMALL"):
            await sink.create_lookalike(ACCOUNT, "Like s", small.id, "US", 3)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("country", "percent", "says"), [("us", 3, "capital letters"), ("US", 0, "1 to 10"), ("US", 11, "1 to 10")]
)
def test_a_wrong_actalike_is_refused_here(country: str, percent: int, says: str) -> None:
    """Before any call."""
    sink, http, _ = scripted()
    with pytest.raises(AudienceError, match=says):
        asyncio.run(sink.create_lookalike(ACCOUNT, "n", "1", country, percent))
    assert http.calls == []


def test_signing_in_and_a_token_that_ended(vendors: Vendors) -> None:
    """Code flow at the sandbox, refresh tokens rotate, and a call that met an ended token is made again."""
    sink = on(
        vendors.context,
        vendors.time,
        app_id="1500000",
        app_secret=Secret(value="sandbox-app-secret"),
        ad_account_id=None,
    )
    login = sink.login
    assert login is not None

    async def go() -> None:
        back = "http://127.0.0.1:8081/oauth"
        sent = await vendors.wire.request("GET", login.authorize_url(back, "state-1"))
        arrived = dict(parse_qsl(urlsplit(sent.headers["location"]).query))
        assert arrived["state"] == "state-1"
        await login.complete(arrived["code"], back)
        first = login.file.read()
        assert await sink.probe() is None
        await vendors.control("POST", "pinterest/tokens/expire")
        feed = await sink.create_feed(ACCOUNT, "n", hashes(1))
        second = login.file.read()
        assert first is not None
        assert second is not None
        assert first.access != second.access
        assert first.refresh != second.refresh
        assert await held(vendors, feed) == set(hashes(1))
        await vendors.control("POST", "pinterest/tokens/revoke")
        said = await sink.probe()
        assert said is not None
        assert "tag-gateway audiences login" in said

    asyncio.run(go())


@pytest.mark.parametrize("retry_after", [True, False])
def test_a_smaller_limit_than_configured_is_waited_for(vendors: Vendors, retry_after: bool) -> None:
    """Every chunk arrives once, with and without Retry-After."""
    sink = on(vendors.context, vendors.time)

    async def go() -> None:
        await vendors.control("PUT", "pinterest/settings", {"write_rate": 5, "retry_after": retry_after})
        feed = await sink.create_feed(ACCOUNT, "n", hashes(0))
        for number in range(1, 12):
            await sink.apply(ACCOUNT, feed, "add", hashes(number))
        assert await held(vendors, feed) == set(hashes(*range(12)))
        assert 60 < vendors.time.slept < 240
        assert (await vendors.control("GET", f"pinterest/lists/{feed}"))["batches"] == 12

    asyncio.run(go())


@pytest.mark.parametrize("kind", ["cut_after", "answer", "html", "truncated"])
def test_a_list_whose_creation_got_no_answer_is_found_again(vendors: Vendors, kind: str) -> None:
    """A customer list cannot be deleted: the one that was made is taken, no second one is left over."""
    sink = on(vendors.context, vendors.time)

    async def go() -> None:
        fault = {"kind": kind, "vendor": "pinterest", "method": "POST", "path": "customer_lists"}
        await vendors.control("POST", "calls/faults", {"faults": [fault]})
        feed = await sink.create_feed(ACCOUNT, "n", hashes(1, 2))
        assert await held(vendors, feed) == set(hashes(1, 2))
        assert len(vendors.box.audiences.lists) == 1

    asyncio.run(go())


def test_a_list_that_only_looks_like_it_is_not_taken(vendors: Vendors) -> None:
    """An old list of the same name and size, or one that was changed since, is somebody else's."""
    sink = on(vendors.context, vendors.time)

    async def go() -> None:
        await sink.create_feed(ACCOUNT, "n", hashes(3, 4))
        vendors.time.now += 1000
        changed = await sink.create_feed(ACCOUNT, "n", hashes(5))
        await sink.apply(ACCOUNT, changed, "add", hashes(6))
        fault = {"kind": "cut_before", "vendor": "pinterest", "method": "POST"}
        await vendors.control("POST", "calls/faults", {"faults": [fault]})
        with pytest.raises(AudienceError) as caught:
            await sink.create_feed(ACCOUNT, "n", hashes(1, 2))
        assert caught.value.ambiguous
        assert caught.value.retry_after_s

    asyncio.run(go())


@pytest.mark.parametrize("kind", ["cut_after", "answer", "html", "truncated"])
def test_an_audience_whose_creation_got_no_answer_is_found_by_the_next_try(vendors: Vendors, kind: str) -> None:
    """The engine's retry makes no second audience."""
    sink = on(vendors.context, vendors.time)

    async def go() -> None:
        feed = await sink.create_feed(ACCOUNT, "n", hashes(*range(150)))
        fault = {"kind": kind, "vendor": "pinterest", "method": "POST", "path": "audiences"}
        await vendors.control("POST", "calls/faults", {"faults": [fault]})
        with pytest.raises(AudienceError) as caught:
            await sink.create_audience(ACCOUNT, "n", feed)
        assert caught.value.ambiguous
        assert (await sink.create_audience(ACCOUNT, "n", feed)).feed == feed
        assert len(vendors.box.audiences.audiences) == 1

    asyncio.run(go())


def test_the_check_of_the_descriptions_can_fail() -> None:
    """A wrong key, page size, id and method are all seen."""
    if not described.is_known():
        pytest.skip("the official descriptions (../shared/specs) are not on this machine")
    good = described.Request(
        method="PATCH",
        url=f"{BASE}/v5/ad_accounts/1/customer_lists/2",
        headers={"authorization": "Bearer x", "content-type": "application/json"},
        content=b'{"operation_type":"ADD","records":"a"}',
    )
    assert described.problems("pinterest", good) == []
    change = msgspec.structs.replace
    for wrong in (
        change(good, content=b'{"operation_type":"APPEND","records":"a"}'),
        change(good, content=b'{"operation_type":"ADD","records":"a","x":1}'),
        change(good, content=b'{"operation_type":"ADD"}'),
        change(good, method="PUT"),
        change(good, url=good.url.replace("/1/", "/x/")),
        change(good, url=f"{good.url}?page_size=1"),
        change(good, headers={**good.headers, "authorization": "x"}),
        change(good, headers={"authorization": "Bearer x"}),
    ):
        assert described.problems("pinterest", wrong), wrong
    page = described.Request(
        method="GET",
        url=f"{BASE}/api/lists/L/profiles?page%5Bsize%5D=100",
        headers={"authorization": "Klaviyo-API-Key x", "revision": "2026-07-15"},
    )
    assert described.problems("klaviyo", page) == []
    for wrong in (
        change(page, url=page.url.replace("100", "101")),
        change(page, url=f"{page.url}&fields%5Bprofile%5D=emails"),
        change(page, url=f"{page.url}&filter=after(joined_group_at,2026-01-01T00:00:00Z)"),
        change(page, url=f"{page.url}&sort=email"),
        change(page, headers={"authorization": "Klaviyo-API-Key x"}),
    ):
        assert described.problems("klaviyo", wrong), wrong


# -- by script


@pytest.mark.parametrize("bad", ["jo@example.com", "A" * 64, "a" * 63, "a" * 65, f"{'a' * 64}\n", ""])
def test_nothing_but_a_hash_leaves(bad: str) -> None:
    """A plain address, a short hash or capitals stop before the call, unnamed."""
    sink, http, _ = scripted()
    with pytest.raises(AudienceError, match="not a SHA-256") as caught:
        asyncio.run(sink.apply(ACCOUNT, "1", "add", [*hashes(1), bad]))
    assert not bad or bad not in str(caught.value)
    assert http.calls == []


ERROR = {"code": 29, "message": "jo@example.com may not"}


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (400, "refuses the request for the customer list 7 .400, code 29.: nothing was changed"),
        (401, "does not accept the token .401, code 29.: set .audience_sinks.p. token .* conversion token is not"),
        (403, "scope ads:write, and its user must own"),
        (404, "deleted"),
        (307, "redirects"),
    ],
)
def test_a_refusal_names_the_remedy_and_nobody(status: int, says: str, caplog: pytest.LogCaptureFixture) -> None:
    """An operator must mend it: no retry; neither the token nor what the vendor quotes is shown or logged."""
    caplog.set_level(logging.DEBUG)
    sink, _, _ = scripted(answer(status, ERROR), token=Secret(value="the-token"))
    with pytest.raises(AudienceError, match=says) as caught:
        asyncio.run(sink.apply(ACCOUNT, "7", "remove", hashes(1)))
    assert caught.value.retry_after_s is None
    shown = f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert not any(secret in shown for secret in ("jo@example.com", "the-token", hashes(1)[0]))


@pytest.mark.parametrize(
    ("fault", "ambiguous", "retry"),
    [
        (Unreachable("no connection (ConnectError)", sent=False), False, 1),
        (Unreachable("no answer in 60 s", sent=True), True, 1),
        (answer(500, None), True, 1),
        (answer(503, {"code": 4197, "message": "m"}, retry_after="40"), True, 40),
        (answer(200, []), True, 1),
    ],
)
def test_what_passes_is_told_from_what_may_have_happened(fault: Any, ambiguous: bool, retry: float) -> None:
    """A refused connection did nothing; a timeout, 5xx or unreadable answer may have."""
    sink, _, _ = scripted(fault)
    with pytest.raises(AudienceError) as caught:
        asyncio.run(sink.apply(ACCOUNT, "7", "add", hashes(1)))
    assert (caught.value.ambiguous, caught.value.retry_after_s) == (ambiguous, retry)


def test_a_bookmark_that_does_not_move_ends() -> None:
    """Pages that lead to themselves are an error, not a loop."""
    page = {"items": [], "bookmark": "b"}
    sink, http, _ = scripted(answer(200, page), answer(200, page))
    with pytest.raises(AudienceError, match="same page"):
        asyncio.run(sink.groups(ACCOUNT))
    assert len(http.calls) == 2


@pytest.mark.parametrize(
    ("rule", "kind", "feed", "refused"),
    [
        ({"customer_list_id": "5"}, "CUSTOMER_LIST", "5", False),
        ({"customer_list_id": 5}, "CUSTOMER_LIST", "5", False),
        ({}, "CUSTOMER_LIST", "", True),
        (None, "CUSTOMER_LIST", "", True),
        ({"visitor_source_id": ["5"], "event": {"=": ["x"]}, "country": ["US"]}, "VISITOR", "", True),
        ({"seed_id": ["5"], "percentage": "10"}, "ACTALIKE", "", True),
    ],
)
def test_rules_of_every_kind_are_read(rule: Any, kind: str, feed: str, refused: bool) -> None:
    """Only the customer list matters; the shapes of other rules do not."""
    told = {"id": "1", "name": None, "audience_type": kind, "rule": rule, "size": None, "status": "INITIALIZING"}
    sink, _, _ = scripted(answer(200, told))
    group = asyncio.run(sink.group(ACCOUNT, "1"))
    assert (group.feed, bool(group.refusal), group.state, group.name) == (feed, refused, "INITIALIZING", "1")


@pytest.mark.parametrize("bad", ["", "../1", "1" * 19, "Newsletter", "\u0661"])
def test_ids_are_numbers(bad: str) -> None:
    """Nothing else gets into a path."""
    sink, http, _ = scripted()
    calls: Sequence[Any] = (sink.group(ACCOUNT, bad), sink.apply(ACCOUNT, bad, "add", hashes(1)))
    for call in calls:
        with pytest.raises(AudienceError, match="is not a number"):
            asyncio.run(call)
    assert http.calls == []


def test_without_an_account_it_is_asked_for() -> None:
    """The remedy names table and key."""
    sink, _, _ = scripted(ad_account_id=None)
    with pytest.raises(AudienceError, match=r"\[audience_sinks\.p\] ad_account_id"):
        asyncio.run(sink.groups(""))


def test_a_token_that_opens_nothing_is_told() -> None:
    """No account: the user needs a role in one."""
    sink, _, _ = scripted(answer(200, {"items": [], "bookmark": None}), ad_account_id=None)
    assert "no ad account" in (asyncio.run(sink.probe()) or "")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"token": None}, "give token, or app_id"),
        ({"app_id": "1"}, "give token, or app_id"),
        ({"token": Secret(value="t"), "app_id": "1"}, "either token"),
        ({"token": Secret(value="t"), "app_secret": Secret(value="s")}, "either token"),
        ({"token": Secret(value="a b")}, "printable ASCII"),
        ({"base_url": "http://api.pinterest.com/v5"}, "base_url must use https"),
        ({"authorize_url": "ftp://127.0.0.1"}, "authorize_url is not a URL"),
    ],
)
def test_options_that_cannot_work_are_refused_at_start(given: Mapping[str, Any], says: str) -> None:
    """The message names the option; a token is never sent in the clear."""
    with pytest.raises(ValueError, match=says):
        PinterestAudiences("p", options(**given), Context())


def test_the_day_s_allowance_of_trial_access_is_kept() -> None:
    """Half of it for reading, half for writing; then the engine is told to come back in a day, at once."""
    sink = PinterestAudiences("p", options(calls_per_day=4, token=Secret(value="trial")), Context(http=Scripted()))

    async def go() -> float | None:
        for _ in range(2):
            await sink.write_pace.turn(0.0)
        with pytest.raises(AudienceError) as caught:
            await sink.apply(ACCOUNT, "7", "add", hashes(1))
        return caught.value.retry_after_s

    assert asyncio.run(go()) == pytest.approx(86_400, abs=60)


def test_sinks_of_one_user_share_the_limit() -> None:
    """Two tables with the same token have one pace for each direction."""
    first, second = (PinterestAudiences(name, options(), Context()) for name in "ab")
    assert first.read_pace is second.read_pace
    assert first.write_pace is second.write_pace
    assert first.read_pace is not first.write_pace
    assert TOKEN not in repr(first.options)
