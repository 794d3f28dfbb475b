"""The stand-ins of Klaviyo and of Pinterest's lists, audiences and OAuth: what they accept, hold, count and refuse."""

import asyncio
import base64
import hashlib
import random
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from gateway.sandbox import PinterestSandbox, SandboxConfig
from gateway.sandbox.filters import BadQuery, parse
from gateway.sandbox.hashset import HashSet
from gateway.sandbox.people import People
from gateway.sandbox.script import CallFault
from tests.harness import exchanges
from tests.harness.inprocess import Clock

NOW = 1_790_000_000.0
ACCOUNT = "/v5/ad_accounts/549000000001"
BEARER = {"authorization": "Bearer sandbox-token"}
KEY = {"authorization": "Klaviyo-API-Key sandbox-klaviyo-key", "revision": "2026-07-15"}
CONTROL = "/_sandbox/klaviyo"
REDIRECT = "http://127.0.0.1:8081/oauth/pinterest"
Json = dict[str, Any]


class World:
    """A sandbox on a clock that stands still, and a client."""

    def __init__(self, http: httpx.AsyncClient, sandbox: PinterestSandbox, clock: Clock) -> None:
        self.http = http
        self.sandbox = sandbox
        self.clock = clock

    async def klaviyo(self, path: str, status: int = 200, *, headers: Json | None = None, **query: Any) -> Json:
        """Call Klaviyo; underscores in names stand for brackets: page_size is page[size]."""
        given = {_bracketed(name): text for name, text in query.items()}
        answer = await self.http.get(path, params=given or None, headers=KEY if headers is None else headers)
        assert answer.status_code == status, answer.text
        found: Json = answer.json()
        return found

    async def pinterest(self, method: str, path: str, body: Json | None = None, status: int = 200) -> Json:
        """Call Pinterest for the ad account."""
        answer = await self.http.request(method, ACCOUNT + path, json=body, headers=BEARER)
        assert answer.status_code == status, answer.text
        found: Json = answer.json()
        return found

    async def control(self, method: str, path: str, body: Json | None = None, status: int = 200) -> Json:
        """Call a control route."""
        answer = await self.http.request(method, f"/_sandbox{path}", json=body)
        assert answer.status_code == status, answer.text
        found: Json = answer.json()
        return found

    async def pages(self, path: str, **query: Any) -> list[Json]:
        """Follow the links of a collection from its first page; returns every resource."""
        page = await self.klaviyo(path, **query)
        found = list(page["data"])
        while after := page["links"].get("next"):
            page = (await self.http.get(after, headers=KEY)).json()
            found += page["data"]
        return found


def _bracketed(name: str) -> str:
    for start in ("page", "fields", "additional_fields"):
        if name.startswith(f"{start}_"):
            return f"{start.replace('_', '-')}[{name[len(start) + 1 :]}]"
    return name


def play(script: Callable[[World], Awaitable[None]], **config: Any) -> None:
    """Run a script against a new sandbox; what the official descriptions do not allow fails it."""
    clock = Clock(NOW)
    sandbox = PinterestSandbox(SandboxConfig(**config), clock=clock)

    async def run() -> None:
        transport = httpx.ASGITransport(app=sandbox.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://sandbox.example") as http:
            await script(World(http, sandbox, clock))

    asyncio.run(run())


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def hashes(first: int, count: int) -> list[str]:
    return [sha(f"person{number}@people.example") for number in range(first, first + count)]


def numbers(resources: list[Json]) -> list[int]:
    return [int(one["id"][9:]) for one in resources]


# Klaviyo


def test_pages_hold_every_member_once() -> None:
    """Lists come ten a page, profiles a hundred, by absolute links that keep the query; the last page has no link."""

    async def script(world: World) -> None:
        for number in range(23):
            world.sandbox.klaviyo.people.create("list", f"List {number:02d}")
        big = world.sandbox.klaviyo.people.create("segment", "Everyone", count=250)
        lists = await world.pages("/api/lists", page_size=10)
        assert len({one["id"] for one in lists}) == len(lists) == 23
        first = await world.klaviyo(f"/api/segments/{big.id}/profiles", page_size=100, fields_profile="email")
        assert first["links"]["next"].startswith("http://sandbox.example/api/segments/")
        assert dict(parse_qsl(urlsplit(first["links"]["next"]).query))["page[size]"] == "100"
        assert first["data"][0]["attributes"] == {"email": "person0@people.example"}
        found = await world.pages(f"/api/segments/{big.id}/profiles", page_size=100)
        assert numbers(found) == list(range(250))
        ids = await world.pages(f"/api/segments/{big.id}/relationships/profiles", page_size=100)
        assert ids[3] == {"type": "profile", "id": "01SANDBOX00000000000000003"}
        assert len(await world.pages(f"/api/segments/{big.id}/profiles", page_size=50)) == 250
        last = await world.klaviyo(f"/api/lists/{lists[0]['id']}/profiles")
        assert last["data"] == []
        assert "next" not in last["links"]
        await world.control("PUT", "/klaviyo/settings", {"null_next": True})
        assert (await world.klaviyo(f"/api/lists/{lists[0]['id']}/profiles"))["links"]["next"] is None

    play(script)


def test_members_by_time_of_joining() -> None:
    """Filters on joined_group_at bound what is found, sort gives its order, and who joins again counts as new."""

    async def script(world: World) -> None:
        one = world.sandbox.klaviyo.people.create("list", "VIP", count=10, since=int(NOW) - 100, span_s=100)
        path = f"/api/lists/{one.id}/profiles"
        await world.control("POST", f"/klaviyo/lists/{one.id}/join", {"people": [3, "new@shop.example"]})

        async def found(condition: str, sort: str = "joined_group_at", field: str = "joined_group_at") -> list[int]:
            return numbers(await world.pages(path, filter=f"{condition}({field})", sort=sort, page_size=2))

        async def since(operator: str, seconds: int, sort: str = "joined_group_at") -> list[int]:
            return await found(operator, sort, f"joined_group_at,{_iso(NOW + seconds)}")

        new = 10**12
        assert await since("greater-or-equal", 0) == [3, new]
        assert await since("greater-than", 0) == []
        assert await since("greater-than", -20) == [9, 3, new]
        assert await since("greater-or-equal", -20, "-joined_group_at") == [new, 3, 9, 8]
        assert await since("less-than", -90) == [0]
        assert await since("less-or-equal", -90) == [0, 1]
        both = f"greater-than(joined_group_at,{_iso(NOW - 90)}),less-than(joined_group_at,{_iso(NOW - 60)})"
        assert numbers(await world.pages(path, filter=both)) == [2]
        assert numbers(await world.pages(path, filter='equals(email,"new@shop.example")')) == [new]
        await world.control("POST", f"/klaviyo/lists/{one.id}/leave", {"first": 0, "count": 8, "people": [new]})
        assert numbers(await world.pages(path)) == [8, 9]
        assert await world.control("GET", f"/klaviyo/lists/{one.id}") == {
            "id": one.id, "kind": "list", "name": "VIP", "members": 2, "is_active": True, "is_processing": False,
            "profile_count": None,
        }  # fmt: skip

    play(script)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def test_membership_agrees_with_a_model() -> None:
    """After any joins and leaves the walk is the model's members in order, both ways, from any place."""
    dice = random.Random(4)
    for _ in range(60):
        people = People(lambda: NOW)
        first, count = dice.randrange(5), dice.randrange(30)
        group = people.create("list", "x", first=first, count=count, since=1000, span_s=dice.choice([0, 7, 300]))
        model = {int(number): int(at) for at, number in group.walk()}
        for step in range(30):
            some = [dice.randrange(40) for _ in range(dice.randrange(4))]
            if dice.random() < 0.5:
                group.join(some, 1100 + step)
                model.update(dict.fromkeys(some, 1100 + step))
            else:
                group.leave(some)
                model = {number: at for number, at in model.items() if number not in some}
            ordered = sorted((at, number) for number, at in model.items())
            assert (list(group.walk()), len(group)) == (ordered, len(ordered))
            assert list(group.walk(newest_first=True)) == ordered[::-1]
            assert all((number in group) == (number in model) for number in range(40))
            place = (1000 + dice.randrange(200), dice.randrange(40))
            assert list(group.walk(place)) == [key for key in ordered if key > place]
            assert list(group.walk(high=place, newest_first=True)) == [key for key in ordered[::-1] if key < place]


@pytest.mark.parametrize(
    ("path", "query", "headers", "status"),
    [
        ("/api/lists", {}, {"revision": "2026-07-15"}, 401),
        ("/api/lists", {}, {**KEY, "authorization": "Klaviyo-API-Key wrong"}, 401),
        ("/api/lists", {}, {**KEY, "authorization": "Bearer sandbox-klaviyo-key"}, 401),
        ("/api/lists", {}, {"authorization": KEY["authorization"]}, 400),
        ("/api/lists", {}, {**KEY, "revision": "latest"}, 400),
        ("/api/lists", {}, {**KEY, "accept": "text/html"}, 406),
        ("/api/lists", {"page[size]": "11"}, KEY, 400),
        ("/api/lists", {"page[size]": "0"}, KEY, 400),
        ("/api/lists", {"page_size": "5"}, KEY, 400),
        ("/api/lists", {"sort": "size"}, KEY, 400),
        ("/api/lists", {"filter": "contains(name,'x')"}, KEY, 400),
        ("/api/lists", {"filter": "equals(name,'x'"}, KEY, 400),
        ("/api/lists", {"fields[list]": "nmae"}, KEY, 400),
        ("/api/lists/L00001/profiles", {"page[size]": "101"}, KEY, 400),
        ("/api/lists/L00001/profiles", {"filter": "greater-than(joined_group_at,yesterday)"}, KEY, 400),
        ("/api/lists/L00001/profiles", {"filter": "greater-than(joined_group_at,2026-01-01T00:00:00)"}, KEY, 400),
        ("/api/lists/L00001/profiles", {"page[cursor]": "made up"}, KEY, 400),
        ("/api/lists/L00001/profiles", {"additional-fields[profile]": "orders"}, KEY, 400),
        ("/api/lists/NONE", {}, KEY, 404),
        ("/api/segments/L00001", {}, KEY, 404),
    ],
)
def test_what_klaviyo_refuses(path: str, query: Json, headers: Json, status: int) -> None:
    """Each breach has its status and one error object with code, title, detail and source."""

    async def script(world: World) -> None:
        world.sandbox.klaviyo.people.create("list", "VIP")
        answer = await world.http.get(path, params=query, headers=headers)
        (error,) = answer.json()["errors"]
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/vnd.api+json")
        assert error["code"]
        assert error["title"]
        assert error["detail"]
        if query:
            assert error["source"]["parameter"] == next(iter(query))

    play(script)


def test_filters_are_read() -> None:
    """Quoted, escaped and listed values are read; a value that was cut is not."""
    allowed = {"name": ("any", "equals")}
    assert parse('equals(name,"a, (b) \\"c\\"")', allowed)[0].values == ('a, (b) "c"',)
    assert parse("any(name,['a','b']),equals(name,x)", allowed)[0].values == ("a", "b")
    for text in ("", "equals(name,)", 'equals(name,"a)', "any(name,'a')", "equals(name,'a')x", "equals(name,'a'),"):
        with pytest.raises(BadQuery):
            parse(text, allowed)


def test_lists_by_name() -> None:
    """A name is matched whole; a segment tells whether it is active and processing, and its size when asked."""

    async def script(world: World) -> None:
        made = await world.control("POST", "/klaviyo/segments", {"name": "Win back", "count": 7})
        await world.control("POST", "/klaviyo/segments", {"name": "Win"})
        (found,) = await world.pages("/api/segments", filter='equals(name,"Win")')
        assert found["attributes"]["name"] == "Win"
        await world.control("PATCH", f"/klaviyo/segments/{made['id']}", {"is_processing": True, "profile_count": 900})
        path = f"/api/segments/{made['id']}"
        shown = (await world.klaviyo(path, additional_fields_segment="profile_count"))["data"]["attributes"]
        assert (shown["is_active"], shown["is_processing"], shown["profile_count"]) == (True, True, 900)
        assert "profile_count" not in (await world.klaviyo(path))["data"]["attributes"]
        await world.control("PATCH", f"/klaviyo/segments/{made['id']}", {"is_active": False, "profile_count": None})
        world.clock.step(1)
        shown = (await world.klaviyo(path, additional_fields_segment="profile_count"))["data"]["attributes"]
        assert (shown["is_active"], shown["profile_count"]) == (False, 7)
        await world.control("DELETE", f"/klaviyo/segments/{made['id']}")
        await world.klaviyo(path, 404)

    play(script)


def test_limits_of_klaviyo() -> None:
    """A burst and a steady window count per operation; headers tell the steady one, 429 only how long to wait."""

    async def script(world: World) -> None:
        world.clock.now = 1_790_000_040.0
        await world.control("PUT", "/klaviyo/settings", {"burst": 3, "steady": 5})

        async def lists() -> httpx.Response:
            return await world.http.get("/api/lists", headers=KEY)

        answers = [await lists() for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        shown = [answers[2].headers[f"ratelimit-{name}"] for name in ("limit", "remaining", "reset")]
        assert shown == ["5", "2", "60"]
        assert answers[3].headers["retry-after"] == "1"
        assert "ratelimit-limit" not in answers[3].headers
        assert answers[3].json()["errors"][0]["code"] == "throttled"
        await world.klaviyo("/api/segments")
        world.clock.step(1)
        assert [(await lists()).status_code for _ in range(2)] == [200, 200]
        world.clock.step(1)
        limited = await lists()
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "58")
        world.clock.step(58)
        assert (await lists()).status_code == 200

    play(script)


def test_the_size_of_a_list_is_limited_more() -> None:
    """profile_count has limits of its own: one a second, fifteen a minute."""

    async def script(world: World) -> None:
        one = world.sandbox.klaviyo.people.create("list", "VIP")
        path = f"/api/lists/{one.id}"
        await world.klaviyo(path, additional_fields_list="profile_count")
        await world.klaviyo(path, 429, additional_fields_list="profile_count")
        await world.klaviyo(path)
        for _ in range(14):
            world.clock.step(1)
            await world.klaviyo(path, additional_fields_list="profile_count")
        world.clock.step(1)
        await world.klaviyo(path, 429, additional_fields_list="profile_count")

    play(script)


def test_cursors_expire_on_demand() -> None:
    """An expired cursor is refused by name, and so is one of another list."""

    async def script(world: World) -> None:
        one, other = (world.sandbox.klaviyo.people.create("list", name, count=30) for name in "ab")
        page = await world.klaviyo(f"/api/lists/{one.id}/profiles")
        cursor = dict(parse_qsl(urlsplit(page["links"]["next"]).query))["page[cursor]"]
        await world.klaviyo(f"/api/lists/{one.id}/profiles", page_cursor=cursor)
        await world.klaviyo(f"/api/lists/{other.id}/profiles", 400, page_cursor=cursor)
        await world.control("POST", "/klaviyo/cursors/expire")
        refused = await world.klaviyo(f"/api/lists/{one.id}/profiles", 400, page_cursor=cursor)
        assert refused["errors"][0]["source"] == {"parameter": "page[cursor]"}

    play(script)


def test_people_change() -> None:
    """E-mails, suppressions and consent change under the same profile id; who is deleted leaves every list."""

    async def script(world: World) -> None:
        people = world.sandbox.klaviyo.people
        one = people.create("list", "VIP", ["Ada@Shop.example"], count=4)
        path = f"/api/lists/{one.id}/profiles"
        await world.control("PATCH", "/klaviyo/people", {"people": [0], "email": "moved{n}@shop.example"})
        await world.control("PATCH", "/klaviyo/people", {"people": [1], "email": None})
        await world.control("PATCH", "/klaviyo/people", {"people": [2], "suppress": "HARD_BOUNCE"})
        await world.control("PATCH", "/klaviyo/people", {"people": [3], "list_suppress": {"list_id": one.id}})
        wanted = "email,joined_group_at,subscriptions.email.marketing"
        found = await world.pages(path, fields_profile=wanted, additional_fields_profile="subscriptions")
        emails = [resource["attributes"]["email"] for resource in found]
        names = ["person2@people.example", "person3@people.example", "Ada@Shop.example"]
        assert emails == ["moved0@shop.example", None, *names]
        marketing = [resource["attributes"]["subscriptions"]["email"]["marketing"] for resource in found]
        assert [len(each["suppression"]) for each in marketing] == [0, 0, 1, 0, 0]
        assert marketing[2]["can_receive_email_marketing"] is False
        assert marketing[3]["list_suppressions"][0]["list_id"] == one.id
        eligible = await world.control("GET", f"/klaviyo/lists/{one.id}/eligible")
        wished = HashSet.of(bytes.fromhex(sha(text)) for text in ("moved0@shop.example", "ada@shop.example"))
        assert eligible == {"count": 2, "digest": wished.digest}
        everyone = await world.control("GET", f"/klaviyo/lists/{one.id}/eligible?include_suppressed=true")
        assert everyone["count"] == 4
        assert "subscriptions" not in (await world.pages(path))[0]["attributes"]
        assert people.numbers(["moved0@shop.example"]) == [0]
        await world.control("PATCH", "/klaviyo/people", {"people": ["moved0@shop.example"], "delete": True})
        assert (await world.control("GET", f"/klaviyo/lists/{one.id}"))["members"] == 4

    play(script)


def test_a_million_people_cost_no_memory() -> None:
    """A list of a million is made and read in its middle within a few hundred kilobytes."""
    people = People(lambda: NOW)
    tracemalloc.start()
    try:
        group = people.create("list", "Everyone", count=1_000_000)
        walk = group.walk((NOW - 15_768_000, 0))
        middle = [next(walk) for _ in range(100)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(group) == 1_000_000
    assert 499_000 < middle[0][1] < 501_000
    assert peak < 400_000


# Pinterest


def test_a_list_counts_records_and_holds_members() -> None:
    """Every record sent counts, whether it changes anything or not; what is held are distinct hashes."""

    async def script(world: World) -> None:
        made = await world.pinterest("POST", "/customer_lists", {"name": "VIP", "records": ",".join(hashes(0, 3))})
        assert (made["status"], made["num_uploaded_user_records"], made["num_batches"]) == ("TOO_SMALL", 3, 1)
        path = f"/customer_lists/{made['id']}"
        await world.pinterest("PATCH", path, {"operation_type": "ADD", "records": ",".join(hashes(2, 120))})
        gone = [*hashes(0, 2), sha("stranger"), "NOT A RECORD"]
        changed = await world.pinterest("PATCH", path, {"operation_type": "REMOVE", "records": ",".join(gone)})
        assert (changed["num_uploaded_user_records"], changed["num_removed_user_records"]) == (123, 4)
        assert (changed["num_batches"], changed["status"]) == (3, "READY")
        assert changed["exceptions"] == {"invalid_records": 1}
        shown = await world.control("GET", f"/pinterest/lists/{made['id']}?members=true")
        assert shown["hashes"] == sorted(hashes(2, 120))
        assert (shown["count"], shown["plain"]) == (120, 0)
        held = await world.control("POST", f"/pinterest/lists/{made['id']}/contains", {"hashes": hashes(1, 2)})
        assert held == {"held": [False, True]}
        await world.pinterest("PATCH", path, {"operation_type": "ADD", "records": "ada@shop.example"})
        shown = await world.control("GET", f"/pinterest/lists/{made['id']}")
        assert (shown["count"], shown["plain"]) == (121, 1)

    play(script)


def test_what_an_audience_goes_through() -> None:
    """A list is read first, then an audience may be made; its size is known once it is initialised."""

    async def script(world: World) -> None:
        await world.control("PUT", "/pinterest/settings", {"processing_s": 60, "match_rate": 0.5})
        records = ",".join(hashes(0, 1000))
        one = await world.pinterest("POST", "/customer_lists", {"name": "VIP", "records": records})
        body = {"name": "VIP", "audience_type": "CUSTOMER_LIST", "rule": {"customer_list_id": one["id"]}}
        refused = await world.pinterest("POST", "/audiences", body, 400)
        assert "PROCESSING" in refused["message"]
        world.clock.step(60)
        made = await world.pinterest("POST", "/audiences", body)
        assert (made["status"], made["size"]) == ("INITIALIZING", None)
        world.clock.step(60)
        ready = await world.pinterest("GET", f"/audiences/{made['id']}")
        assert ready["status"] == "READY"
        assert 400 < ready["size"] < 600
        await world.pinterest(
            "PATCH", f"/customer_lists/{one['id']}", {"operation_type": "REMOVE", "records": ",".join(hashes(0, 950))}
        )
        small = await world.pinterest("GET", f"/audiences/{made['id']}")
        assert small["status"] == "TOO_SMALL"
        await world.pinterest("PATCH", f"/audiences/{made['id']}", {"operation_type": "REMOVE"})
        await world.pinterest("GET", f"/audiences/{made['id']}", status=404)

    play(script)


@pytest.mark.parametrize(("needs", "status"), [("any", 200), ("read", 200), ("ready", 400)])
def test_an_audience_of_a_small_list(needs: str, status: int) -> None:
    """Whether a list under 100 people makes an audience is documented nowhere: both can be had."""

    async def script(world: World) -> None:
        await world.control("PUT", "/pinterest/settings", {"audience_needs": needs})
        one = await world.pinterest("POST", "/customer_lists", {"name": "VIP", "records": sha("a")})
        body = {"name": "VIP", "audience_type": "CUSTOMER_LIST", "rule": {"customer_list_id": one["id"]}}
        await world.pinterest("POST", "/audiences", body, status)

    play(script)


@pytest.mark.parametrize(
    ("rule", "status"),
    [({}, 200), ({"percentage": 11}, 400), ({"percentage": "10"}, 400), ({"country": "USA"}, 400),
     ({"seed_id": []}, 400), ({"seed_id": ["1"]}, 400)],
)  # fmt: skip
def test_lookalikes(rule: Json, status: int) -> None:
    """A lookalike takes seed audiences of the account, a country of two letters and 1 to 10 percent."""

    async def script(world: World) -> None:
        seed = await world.control(
            "POST", "/pinterest/audiences", {"account": "549000000001", "name": "Seed", "count": 100}
        )
        full = {"seed_id": [seed["id"]], "country": "US", "percentage": 10, **rule}
        body = {"name": "Like them", "audience_type": "ACTALIKE", "rule": full}
        await world.pinterest("POST", "/audiences", body, status)

    play(script)


def test_audiences_share_a_list_and_come_in_pages() -> None:
    """Bookmarks lead through every audience of an account; two audiences may show one list, other kinds show none."""

    async def script(world: World) -> None:
        new: Json = {"account": "549000000001", "name": "First", "first": 5, "count": 4, "people": ["a@shop.example"]}
        first = await world.control("POST", "/pinterest/audiences", new)
        second = await world.control(
            "POST", "/pinterest/audiences", {"account": "549000000001", "name": "Second", "list": first["list"]}
        )
        other = await world.control(
            "POST", "/pinterest/audiences", {"account": "549000000001", "name": "Seen", "audience_type": "VISITOR"}
        )
        shown = await world.control("GET", f"/pinterest/audiences/{second['id']}?members=true")
        assert shown["hashes"] == sorted([*hashes(5, 4), sha("a@shop.example")])
        assert shown["audiences"] == [first["id"], second["id"]]
        await world.control("GET", f"/pinterest/audiences/{other['id']}", status=404)
        found: list[str] = []
        bookmark: str | None = ""
        while bookmark is not None:
            page = await world.pinterest("GET", f"/audiences?page_size=2&bookmark={bookmark}")
            found += [one["id"] for one in page["items"]]
            bookmark = page["bookmark"]
        assert found == [first["id"], second["id"], other["id"]]
        newest = await world.pinterest("GET", "/audiences?order=DESCENDING&page_size=1")
        assert newest["items"][0]["id"] == other["id"]
        assert len((await world.pinterest("GET", "/customer_lists"))["items"]) == 1
        assert (await world.pinterest("GET", "/audiences?ownership_type=RECEIVED"))["items"] == []

    play(script)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/customer_lists", {"name": "x"}, 400),
        ("POST", "/customer_lists", {"name": "x", "records": ""}, 400),
        ("POST", "/customer_lists", {"name": "x", "records": ",".join(["a@b.example"] * 10_001)}, 400),
        ("POST", "/customer_lists", {"name": "x", "records": "a@b.example", "list_type": "PHONE"}, 400),
        ("PATCH", "/customer_lists/1", {"operation_type": "ADD", "records": "a@b.example"}, 404),
        ("PATCH", "/customer_lists/1", {"operation_type": "APPEND", "records": "a@b.example"}, 400),
        ("GET", "/customer_lists?page_size=251", None, 400),
        ("GET", "/customer_lists?bookmark=zzz", None, 400),
        ("GET", "/audiences?ownership_type=MINE", None, 400),
        ("GET", "/audiences/1", None, 404),
        ("POST", "/audiences", {"name": "x", "audience_type": "customer_list", "rule": {}}, 400),
        ("POST", "/audiences", {"name": "x", "audience_type": "CUSTOMER_LIST"}, 400),
        ("POST", "/audiences", {"name": "x", "audience_type": "CUSTOMER_LIST", "rule": {}}, 400),
    ],
)
def test_what_pinterest_refuses(method: str, path: str, body: Json | None, status: int) -> None:
    """Each breach has its status, in Pinterest's shape of an error."""

    async def script(world: World) -> None:
        refused = await world.pinterest(method, path, body, status)
        assert isinstance(refused["code"], int)
        assert refused["message"]

    play(script)


def test_accounts_and_rates() -> None:
    """Accounts can be listed and closed to others; reads and writes have rates of their own, a minute each."""

    async def script(world: World) -> None:
        await world.control("PUT", "/pinterest/accounts", {"accounts": [{"id": "7", "name": "Shop"}]})
        page = (await world.http.get("/v5/ad_accounts", headers=BEARER)).json()
        assert [(one["id"], one["name"]) for one in page["items"]] == [("7", "Shop")]
        assert (await world.pinterest("GET", "/audiences", status=403))["code"] == 29
        await world.http.post("/_sandbox/reset")
        await world.control("PUT", "/pinterest/settings", {"read_rate": 1})
        await world.pinterest("GET", "/audiences")
        limited = await world.http.get(f"{ACCOUNT}/audiences", headers=BEARER)
        assert (limited.status_code, limited.json()["code"]) == (429, 8)
        assert 1 <= int(limited.headers["retry-after"]) <= 60
        await world.pinterest("POST", "/customer_lists", {"name": "x", "records": sha("a")})
        world.clock.step(60)
        await world.pinterest("GET", "/audiences")

    play(script)


def test_hash_sets_agree_with_sets() -> None:
    """A set of hashes agrees with a plain set after any changes; its digest depends on the members alone."""
    dice = random.Random(11)
    pool = [bytes([0, 0]) + dice.randbytes(30) for _ in range(40)] + [dice.randbytes(32) for _ in range(40)]
    pool += [b"\0" * 32, b"\0" * 31 + b"\1", b"\1" * 32]
    small, model = HashSet(), set[bytes]()
    for _ in range(4000):
        member = dice.choice(pool)
        if dice.random() < 0.5:
            assert small.add(member) is (member not in model)
            model.add(member)
        else:
            assert small.remove(member) is (member in model)
            model.discard(member)
        assert len(small) == len(model)
    assert set(small) == model
    assert [member in small for member in pool] == [member in model for member in pool]
    assert small.digest == HashSet.of(sorted(model)).digest


# OAuth


def basic(text: str) -> Json:
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


PINTEREST_APP = basic("1500000:sandbox-app-secret")
KLAVIYO_APP = basic("sandbox-klaviyo-app:sandbox-klaviyo-secret")


async def consented(world: World, path: str, query: Json) -> Json:
    """Open the page of consent; returns the query with which the browser comes back."""
    answer = await world.http.get(path, params={"response_type": "code", "redirect_uri": REDIRECT, **query})
    assert answer.status_code == 302, answer.text
    assert answer.headers["location"].startswith(f"{REDIRECT}?")
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


def test_login_at_pinterest() -> None:
    """A code is good once; a refresh ends the old refresh token; an expired access token is 401 with code 2."""

    async def script(world: World) -> None:
        async def token(status: int = 200, app: Json = PINTEREST_APP, **form: str) -> Json:
            answer = await world.http.post("/v5/oauth/token", data=form, headers=app)
            assert answer.status_code == status, answer.text
            found: Json = answer.json()
            return found

        back = await consented(
            world, "/oauth/", {"client_id": "1500000", "scope": "ads:read,ads:write", "state": "s p"}
        )
        assert back["state"] == "s p"
        code = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": REDIRECT}
        await token(401, app=basic("1500000:wrong"), **code)
        first = await token(**code)
        assert (first["token_type"], first["expires_in"], first["scope"]) == ("bearer", 2_592_000, "ads:read ads:write")
        await token(400, **code)
        access = {"authorization": f"Bearer {first['access_token']}"}
        assert (await world.http.get(f"{ACCOUNT}/audiences", headers=access)).status_code == 200
        await world.control("POST", "/pinterest/tokens/expire")
        expired = await world.http.get(f"{ACCOUNT}/audiences", headers=access)
        assert (expired.status_code, expired.json()["code"]) == (401, 2)
        second = await token(grant_type="refresh_token", refresh_token=first["refresh_token"])
        assert second["refresh_token"] != first["refresh_token"]
        await token(400, grant_type="refresh_token", refresh_token=first["refresh_token"])
        world.clock.step(5_184_000)
        await token(400, grant_type="refresh_token", refresh_token=second["refresh_token"])

    play(script)


def test_scopes_and_refusal_at_pinterest() -> None:
    """A token opens what was asked for and no more; the owner may say no."""

    async def script(world: World) -> None:
        back = await consented(world, "/oauth/", {"consumer_id": "1500000", "scope": "ads:read"})
        form = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": REDIRECT}
        answer = await world.http.post("/v5/oauth/token", data=form, headers=PINTEREST_APP)
        access = {"authorization": f"Bearer {answer.json()['access_token']}"}
        body = {"name": "x", "records": sha("a")}
        assert (await world.http.get(f"{ACCOUNT}/customer_lists", headers=access)).status_code == 200
        assert (await world.http.post(f"{ACCOUNT}/customer_lists", json=body, headers=access)).status_code == 403
        await world.control("PUT", "/pinterest/settings", {"deny": True})
        assert await consented(world, "/oauth/", {"client_id": "1500000", "state": "x"}) == {
            "error": "access_denied", "state": "x",
        }  # fmt: skip

    play(script)


def test_login_at_klaviyo() -> None:
    """PKCE is required, and the verifier must fit; the token opens its scopes; revoking the refresh token ends both."""

    async def script(world: World) -> None:
        async def token(verifier: str, status: int) -> Json:
            challenge = base64.urlsafe_b64encode(hashlib.sha256(b"verifier").digest()).rstrip(b"=").decode()
            asked = {"client_id": "sandbox-klaviyo-app", "scope": "lists:read", "state": "1"}
            pkce = {"code_challenge_method": "S256", "code_challenge": challenge}
            back = await consented(world, "/oauth/authorize", {**asked, **pkce})
            form = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": REDIRECT}
            answer = await world.http.post(
                "/oauth/token", data={**form, "code_verifier": verifier}, headers=KLAVIYO_APP
            )
            assert answer.status_code == status, answer.text
            found: Json = answer.json()
            return found

        bare = {"response_type": "code", "client_id": "sandbox-klaviyo-app", "redirect_uri": REDIRECT}
        assert (await world.http.get("/oauth/authorize", params=bare)).status_code == 400
        assert (await token("other", 400))["error"] == "invalid_grant"
        granted = await token("verifier", 200)
        bearer = {**KEY, "authorization": f"Bearer {granted['access_token']}"}
        one = world.sandbox.klaviyo.people.create("list", "VIP")
        await world.klaviyo("/api/lists", headers=bearer)
        await world.klaviyo(f"/api/lists/{one.id}/profiles", 403, headers=bearer)
        world.clock.step(3600)
        await world.klaviyo("/api/lists", 401, headers=bearer)
        form = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
        again = await world.http.post("/oauth/token", data=form, headers=KLAVIYO_APP)
        bearer["authorization"] = f"Bearer {again.json()['access_token']}"
        await world.klaviyo("/api/lists", headers=bearer)
        await world.http.post("/oauth/revoke", data={"token": granted["refresh_token"]}, headers=KLAVIYO_APP)
        await world.klaviyo("/api/lists", 401, headers=bearer)
        await world.control("POST", "/klaviyo/tokens/revoke")
        await world.klaviyo("/api/lists", 401)

    play(script)


# Faults and the record of calls


def test_faults_of_pages() -> None:
    """A page may end early, come empty, broken, or not at all; other calls go unharmed."""

    async def script(world: World) -> None:
        one = world.sandbox.klaviyo.people.create("list", "VIP", count=30)
        path = f"/api/lists/{one.id}/profiles"
        fault = {"path": "/profiles", "vendor": "klaviyo"}
        faults: list[Json] = [
            {"kind": "end_early"}, {"kind": "empty_page"}, {"kind": "html"}, {"kind": "truncated"},
            {"kind": "status", "status": 429, "retry_after": 7}, {"kind": "answer"},
        ]  # fmt: skip
        await world.control("POST", "/calls/faults", {"faults": [{**fault, **each} for each in faults]})
        await world.klaviyo("/api/lists")
        page = await world.klaviyo(path)
        assert (len(page["data"]), "next" in page["links"]) == (20, False)
        assert (await world.klaviyo(path))["data"] == []
        answers = [await world.http.get(path, headers=KEY) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 503, 200]
        assert answers[0].headers["content-type"].startswith("text/html")
        assert not answers[1].text.endswith("}")
        assert answers[2].headers["retry-after"] == "7"
        assert answers[3].json()["errors"][0]["code"]
        calls = await world.control("GET", "/calls?path=/profiles&limit=2")
        assert [call["status"] for call in calls["calls"]] == [503, 200]
        assert calls["by"]["GET /api/lists/{id}/profiles 200"] == 5
        assert (await world.control("POST", "/calls/faults", {"faults": [{"kind": "odd"}]}, 400))["error"]

    play(script)


@pytest.mark.parametrize(("kind", "kept"), [("cut_before", 0), ("cut_after", 1), ("answer", 1), ("status", 0)])
def test_faults_of_changes(kind: Any, kept: int) -> None:
    """A broken call has changed everything or nothing, as the script says; skipped calls go first."""

    async def script(world: World) -> None:
        one = world.sandbox.audiences.new_list("549000000001", "VIP", [])
        world.sandbox.script.add(CallFault(kind=kind, method="PATCH", skip=1))
        body = {"operation_type": "ADD", "records": sha("a")}
        path = f"{ACCOUNT}/customer_lists/{one.id}"
        await world.http.patch(path, json=body, headers=BEARER)
        body["records"] = sha("b")
        if kind.startswith("cut"):
            with pytest.raises(ConnectionResetError):
                await world.http.patch(path, json=body, headers=BEARER)
        else:
            assert (await world.http.patch(path, json=body, headers=BEARER)).status_code == 503
        assert len(one.hashes) == 1 + kept
        assert world.sandbox.script.waiting == 0

    play(script)


def test_reset_goes_back_to_the_start() -> None:
    """Reset forgets lists, audiences, faults, calls and settings, and makes revoked keys valid again."""

    async def script(world: World) -> None:
        world.sandbox.klaviyo.people.create("list", "VIP", count=3)
        world.sandbox.audiences.new_list("549000000001", "VIP", [sha("a")])
        world.sandbox.script.add(CallFault(kind="status", times=0))
        await world.control("PUT", "/klaviyo/settings", {"burst": 1})
        await world.control("POST", "/klaviyo/tokens/revoke")
        await world.klaviyo("/api/lists", 503)
        assert (await world.http.post("/_sandbox/reset")).status_code == 204
        assert (await world.klaviyo("/api/lists"))["data"] == []
        assert (await world.pinterest("GET", "/customer_lists"))["items"] == []
        assert (await world.control("GET", "/calls"))["total"] == 2
        assert world.sandbox.klaviyo.settings.burst == 75

    play(script)


# The official descriptions


def test_answers_are_what_the_descriptions_say() -> None:
    """Every kind of answer, and the calls that brought it, validate against the official descriptions."""
    if not exchanges.is_known():
        pytest.skip("the official descriptions (../shared/specs) are not beside this checkout")
    seen = exchanges.Exchanges()

    async def script(world: World) -> None:
        world.sandbox.log.watch = seen
        await tour_of_klaviyo(world)
        await tour_of_pinterest(world)
        back = await consented(world, "/oauth/", {"client_id": "1500000", "scope": "ads:read,ads:write"})
        form = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": REDIRECT}
        granted = (await world.http.post("/v5/oauth/token", data=form, headers=PINTEREST_APP)).json()
        form = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
        await world.http.post("/v5/oauth/token", data=form, headers=PINTEREST_APP)
        await world.http.post("/v5/oauth/token", data=form, headers=PINTEREST_APP)

    play(script)
    assert seen.problems == []
    assert seen.described == 32


async def tour_of_klaviyo(world: World) -> None:
    people = world.sandbox.klaviyo.people
    one = people.create("list", "VIP", count=25)
    two = people.create("segment", "Win back", count=25)
    await world.control("PATCH", "/klaviyo/people", {"people": [0], "suppress": "UNSUBSCRIBE"})
    await world.control("PATCH", "/klaviyo/people", {"people": [1], "list_suppress": {"list_id": one.id}})
    for kind, group in (("list", one), ("segment", two)):
        path = f"/api/{kind}s"
        counted: Json = {f"additional_fields_{kind}": "profile_count"}
        await world.klaviyo(path, page_size=10, sort="-name", filter='any(name,["VIP","x"])')
        await world.klaviyo(f"{path}/{group.id}", 200, **counted)
        await world.klaviyo(f"{path}/{group.id}", 429, **counted)
        await world.klaviyo(f"{path}/NONE", 404)
        await world.pages(f"{path}/{group.id}/profiles", additional_fields_profile="subscriptions")
        filtered = f"greater-or-equal(joined_group_at,{_iso(NOW - 86_400)})"
        await world.pages(f"{path}/{group.id}/profiles", filter=filtered, sort="joined_group_at")
        await world.pages(f"{path}/{group.id}/relationships/profiles", page_size=20)


async def tour_of_pinterest(world: World) -> None:
    one = await world.pinterest("POST", "/customer_lists", {"name": "VIP", "records": ",".join(hashes(0, 120))})
    await world.pinterest(
        "PATCH", f"/customer_lists/{one['id']}", {"operation_type": "REMOVE", "records": ",".join(hashes(0, 2))}
    )
    await world.pinterest("GET", f"/customer_lists/{one['id']}")
    await world.pinterest("GET", "/customer_lists?page_size=1&order=DESCENDING")
    body: Json = {"name": "VIP", "audience_type": "CUSTOMER_LIST", "rule": {"customer_list_id": one["id"]}}
    made = await world.pinterest("POST", "/audiences", body)
    rule = {"seed_id": [made["id"]], "country": "DE", "percentage": 3}
    await world.pinterest("POST", "/audiences", {"name": "Like VIP", "audience_type": "ACTALIKE", "rule": rule})
    await world.pinterest("GET", "/audiences?page_size=1")
    await world.pinterest("GET", f"/audiences/{made['id']}")
    await world.pinterest("GET", "/audiences/1", status=404)
    await world.pinterest("PATCH", f"/audiences/{made['id']}", {"name": "VIPs"})
    await world.pinterest("PATCH", f"/audiences/{made['id']}", {"operation_type": "REMOVE"})


def test_what_no_description_allows_is_seen() -> None:
    """A parameter, a body or an answer that is not described is a problem each: the check above can fail."""
    if not exchanges.is_known():
        pytest.skip("the official descriptions (../shared/specs) are not beside this checkout")
    seen = exchanges.Exchanges()

    async def script(world: World) -> None:
        world.sandbox.log.watch = seen
        await world.klaviyo("/api/lists", 400, page_size=11)
        await world.klaviyo("/api/lists", 400, shape="round")
        await world.klaviyo("/api/lists", 400, headers={"authorization": KEY["authorization"]})
        await world.pinterest("POST", "/customer_lists", {"name": 7, "records": "x"}, 400)
        world.sandbox.script.add(CallFault(kind="html"))
        await world.http.get(f"{ACCOUNT}/audiences", headers=BEARER)

    play(script)
    told = [problem.partition(": ")[2] for problem in seen.problems]
    assert told[0].startswith("query page[size] : 11 is greater")
    assert told[1:3] == ["query shape: not described", "header revision: missing"]
    assert told[3].startswith("body name: 7 is not of type")
    assert told[4].startswith("answer of type text/html")
