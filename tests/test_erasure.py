"""Erasure and export: wherever something of a person is, and whatever happens meanwhile."""

import asyncio
import hashlib
import json
import logging
import sqlite3
import stat
import time
from collections.abc import Coroutine
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.event import User
from gateway.outbox import DeadFilter, Lane, Lease, Settlement
from gateway.outbox.records import split
from gateway.outbox.sqlite import SqliteOutbox
from gateway.subjects import person_of, site_subjects
from tests.harness.inprocess import SECRET, Clock, World, world
from tests.harness.processes import ACCOUNT, Pair, until
from tests.test_memory_paths import AGENT, BROWSER, CONFIG, IP, ORIGIN, SHOP, hook, order, page

LANE = Lane(destination="pinterest", kind="live")
PERSON = {"email": "jo@example.com", "phone": "+1 415 555 2671", "external_id": "99"}
DAY = 86_400


def at(moment: float) -> str:
    """Return a time as Shopify's header has it."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def webhook(here: World, topic: str, requested_at: float | None = None, **customer: Any) -> None:
    """Let Shopify ask; it must be answered 200."""
    body: dict[str, Any] = {"shop_id": 1, "shop_domain": SHOP}
    if topic != "shop/redact":
        body["customer"] = customer or {"id": 99, "email": "JO@example.com", "phone": "4155552671"}
    if topic == "customers/redact":
        body["orders_to_redact"] = [1]
    if topic == "customers/data_request":
        body |= {"orders_requested": [1], "data_request": {"id": 5}}
    content, headers = hook(topic, body)
    headers["X-Shopify-Triggered-At"] = at(here.clock() if requested_at is None else requested_at)
    status, answer = await here.running.post("hooks", content, headers)
    assert (status, answer["accepted"]) == (200, 1), answer


def outbox_of(here: World) -> SqliteOutbox:
    assert isinstance(here.gateway.outbox, SqliteOutbox)
    return here.gateway.outbox


async def still(here: World) -> None:
    """Let the lanes claim no more, so that the test decides what is leased."""
    await here.gateway.stop_sending()


async def lease(here: World) -> Lease:
    found = await outbox_of(here).claim(LANE, 1000, here.clock())
    assert found is not None
    return found


async def end(here: World, held: Lease, how: Any, **more: Any) -> list[str]:
    """Settle a whole lease; returns the ids of what ended."""
    ended = await outbox_of(here).settle(held, [Settlement(unit=unit.unit, end=how, **more) for unit in held.units])
    return sorted(one.event_id for one in ended)


def units(here: World) -> int:
    """Return how many units the store holds, doomed ones too."""
    with closing(sqlite3.connect(outbox_of(here).path)) as reader:
        (count,) = reader.execute("SELECT count(*) FROM unit").fetchone()
    return int(count)


def run(tmp_path: Path, scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


class Everywhere:
    """One event of the person in each place: dead, replayed, leased, held, waiting; and what is remembered."""

    def __init__(self, here: World) -> None:
        self.here = here

    async def fill(self) -> Lease:
        here = self.here
        await still(here)
        await order(here, "dead", user=PERSON)
        await order(here, "replayed", user={"email": "jo@example.com"})
        await end(here, await lease(here), "dead", reason="refused")
        letters = await outbox_of(here).dead(DeadFilter())
        (replayed,) = [one.unit for one in letters if one.event.event_id == "replayed"]
        await outbox_of(here).replay(DeadFilter(units=(replayed,)))
        await order(here, "leased", user={"phone": "415 555 2671"}, client={"ip": IP, "user_agent": AGENT})
        held = await lease(here)
        assert {unit.event.event_id for unit in held.units} == {"replayed", "leased"}
        await page(here, "waiting", "?epik=dj0jo", client_id="b1", user={"email": "jo@example.com"})
        await order(here, "other", user={"email": "somebody@example.com"}, client_id="b2", click_id="dj0other")
        here.step(60)
        return held

    async def check(self, held: Lease, how: Any) -> None:
        """Nothing of the person is left, in flight included; the other's event is there."""
        here = self.here
        assert await end(here, held, how) == []
        assert await outbox_of(here).dead(DeadFilter()) == []
        left = await lease(here)
        assert [unit.event.event_id for unit in left.units] == ["other"]
        assert units(here) == 1
        with closing(sqlite3.connect(outbox_of(here).path)) as reader:
            assert reader.execute("SELECT DISTINCT clicks FROM memory").fetchall() == [('{"epik":"dj0other"}',)]
        found = await here.gateway.outbox.of_subjects(subjects_of(here))
        assert (found.units, found.memories) == ((), ())


def subjects_of(here: World, user: User | None = None) -> tuple[bytes, ...]:
    user = user or User(email=("jo@example.com",), phone=("+14155552671",), external_id=("99",))
    return person_of(outbox_of(here).digest, "shop", user, "US", "99").all


@pytest.mark.parametrize("how", ["retry", "delivered", "dead", "dropped"])
def test_shopify_erases_a_customer_everywhere(tmp_path: Path, how: str) -> None:
    """customers/redact takes dead, replayed, leased and waiting events and the memory, whatever a call then says."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            everywhere = Everywhere(here)
            held = await everywhere.fill()
            await webhook(here, "customers/redact")
            await everywhere.check(held, how)
            silent = await page(here, "later", client_id="b1")
            assert silent["outcome"] == "accepted"
            kept = here.gateway.memory._cache.values()
            assert all(record.clicks != {"epik": "dj0jo"} for record in kept), "the cached memory too"

    run(tmp_path, main())


@pytest.mark.parametrize("by", ["email", "phone", "external_id"])
def test_the_operator_erases_by_any_identifier(tmp_path: Path, by: str) -> None:
    """What ``erase`` calls finds events by e-mail address, phone number and id, and tells how many ended."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await still(here)
            await order(here, "mine", user=PERSON, client_id="b1", click_id="dj0jo")
            await order(here, "other", user={"email": "somebody@example.com"})
            here.step(1)
            given = {"email": " Jo@Example.com", "phone": "(415) 555-2671", "external_id": "99"}[by]
            assert await here.api("POST", "/api/erase", {by: given}) == {"erased": 1}
            assert units(here) == 1
            assert (await order(here, "again", client_id="b1", user={"email": "new@example.com"}))[
                "outcome"
            ] == "accepted"
            left = await lease(here)
            assert {unit.event.event_id: unit.event.click_ids for unit in left.units} == {"other": {}, "again": {}}

    run(tmp_path, main())


def test_a_held_checkout_is_erased(tmp_path: Path) -> None:
    """A checkout that waits for its other half goes too, and the other half is refused when it comes."""
    config = {**CONFIG, "sites": {"shop": {"hold_s": 300.0}}}

    async def main() -> None:
        async with world(tmp_path, config, clock=Clock()) as here:
            told = {"event_name": "checkout", "event_time": int(here.clock()), "order_id": "7", "user": PERSON}
            first, answer = await here.running.post("tag", json.dumps({**told, "event_id": "t"}).encode(), BROWSER)
            assert (first, answer["accepted"]) == (200, 1)
            assert units(here) == 1
            here.step(1)
            await webhook(here, "customers/redact")
            assert units(here) == 0
            (second,) = await here.post({**told, "event_id": "s"})
            assert (second["outcome"], second["reason"]) == ("dropped", "erased")

    run(tmp_path, main())


def test_shop_redact_covers_the_site(tmp_path: Path) -> None:
    """Everything of every source of the site goes, known persons or not; another site's stays."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await still(here)
            await page(here, "p1", "?epik=dj0page", client_id="b1")
            await order(here, "o1", user=PERSON)
            await order(here, "o2", user={"email": "somebody@example.com"})
            await order(here, "there", source="elsewhere", user=PERSON, client_id="b1", click_id="dj0there")
            here.step(60)
            await webhook(here, "shop/redact")
            left = await lease(here)
            assert [unit.event.event_id for unit in left.units] == ["there"]
            site = site_subjects(outbox_of(here).digest, "shop")
            found = await here.gateway.outbox.of_subjects(site)
            assert (found.units, found.memories) == ((), ())
            late = await order(here, "o3", user={"email": "third@example.com"}, event_time=int(here.clock()) - 30)
            assert (late["outcome"], late["reason"]) == ("dropped", "erased")

    run(tmp_path, main())


# -- what a tombstone refuses


def test_a_tombstone_refuses_what_lies_before_the_request(tmp_path: Path) -> None:
    """A late copy is dropped(erased); an event from after the request is accepted."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await order(here, "o1", user=PERSON)
            here.step(100)
            await webhook(here, "customers/redact")
            here.step(100)
            copy = await order(here, "o1", user=PERSON, event_time=int(here.clock()) - 200)
            assert (copy["outcome"], copy["reason"]) == ("dropped", "erased")
            other = await order(here, "o2", user={"email": "jo@example.com"}, event_time=int(here.clock()) - 101)
            assert (other["outcome"], other["reason"]) == ("dropped", "erased")
            assert (await order(here, "o3", user=PERSON))["outcome"] == "accepted"

    run(tmp_path, main())


def test_a_tombstone_lasts_thirty_days(tmp_path: Path) -> None:
    """It refuses until then and not after, in a process that runs on and after a restart; and leaves the disk."""

    async def late(here: World, event_id: str, before: int) -> str | None:
        told = await order(here, event_id, user=PERSON, event_time=before)
        reason: str | None = told["reason"]
        return reason

    def tombstones(here: World) -> int:
        with closing(sqlite3.connect(outbox_of(here).path)) as reader:
            (count,) = reader.execute("SELECT count(*) FROM erased").fetchone()
        return int(count)

    async def main() -> None:
        clock = Clock()
        config = {**CONFIG, "pipeline": {"max_event_age_s": 0}}
        async with world(tmp_path, config, clock=clock) as here:
            before = int(clock()) - 10
            await webhook(here, "customers/redact")
            here.step(30 * DAY - 2)
            assert await late(here, "o1", before) == "erased"
        async with world(tmp_path, config, clock=clock) as here:
            assert await late(here, "o2", before) == "erased"
            here.step(3_700)
            await here.until(lambda: tombstones(here) == 0, "the tombstones are gone")
            assert await late(here, "o3", before) is None

    run(tmp_path, main())


def test_an_older_request_does_not_shorten_a_newer_one(tmp_path: Path) -> None:
    """Shopify repeats a webhook hours later: what the newer request refuses stays refused."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await webhook(here, "customers/redact")
            await webhook(here, "customers/redact", here.clock() - 5_000)
            here.step(10)
            late = await order(here, "o1", user=PERSON, event_time=int(here.clock()) - 60)
            assert late["reason"] == "erased"

    run(tmp_path, main())


def test_a_request_from_the_future_does_not_refuse_what_is_to_come(tmp_path: Path) -> None:
    """The header with the time is not signed: one that says next year counts as now."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await webhook(here, "customers/redact", here.clock() + 365 * DAY)
            here.step(10)
            assert (await order(here, "o1", user=PERSON))["outcome"] == "accepted"

    run(tmp_path, main())


def test_erasing_frees_no_keys(tmp_path: Path) -> None:
    """A copy of an erased order that names somebody else is a duplicate and not a new conversion."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await still(here)
            await order(here, "o1", user=PERSON, order_id="7")
            here.step(10)
            await webhook(here, "customers/redact")
            assert units(here) == 0
            by_id = await order(here, "o1", user={"email": "else@example.com"})
            by_key = await order(here, "o2", user={"email": "else@example.com"}, order_id="7")
            assert (by_id["outcome"], by_key["outcome"]) == ("duplicate", "duplicate")
            assert units(here) == 0

    run(tmp_path, main())


# -- what happens meanwhile


def test_a_retry_after_a_redaction_is_not_sent(tmp_path: Path) -> None:
    """The call was under way and failed: what was erased meanwhile does not go out with the next one."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            here.sandbox.faults.down()
            await order(here, "o1", user=PERSON)
            await order(here, "o2", user={"email": "somebody@example.com"})
            await here.until(lambda: len(here.calls) > 0, "a call")
            here.step(1)
            await webhook(here, "customers/redact")
            here.sandbox.faults.clear()
            tried = len(here.calls)
            for _ in range(5):
                here.step(600)
                await asyncio.sleep(0.02)
            await here.until(lambda: here.copies() == {"o2": 1}, "the other one arrives")
            assert all("o1" not in call.ids for call in here.calls[tried:])

    run(tmp_path, main())


def test_a_redaction_during_a_replay(tmp_path: Path) -> None:
    """Replay and erasure of a thousand letters at once: none of the person's is left, all the others are queued."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await still(here)
            now = int(here.clock())
            for start in range(0, 1_200, 400):
                told = [
                    {
                        "event_name": "checkout", "event_id": f"e{number}", "event_time": now,
                        "user": {"email": "jo@example.com" if number % 3 == 0 else f"p{number}@example.com"},
                    }
                    for number in range(start, start + 400)
                ]  # fmt: skip
                await here.post(*told)
            while (held := await outbox_of(here).claim(LANE, 1000, here.clock())) is not None:
                await end(here, held, "dead", reason="refused")
            here.step(5)
            replaying = asyncio.create_task(outbox_of(here).replay(DeadFilter()))
            await asyncio.sleep(0)
            await webhook(here, "customers/redact")
            await replaying
            assert (await here.gateway.outbox.of_subjects(subjects_of(here))).units == ()
            assert await outbox_of(here).dead(DeadFilter()) == []
            assert outbox_of(here).waiting(LANE) == units(here) == 800

    run(tmp_path, main())


def test_counters_agree_after_an_erasure(tmp_path: Path) -> None:
    """Status says what is there, now and after a restart."""

    async def main() -> None:
        clock = Clock()
        async with world(tmp_path, CONFIG, clock=clock) as here:
            held = await Everywhere(here).fill()
            await webhook(here, "customers/redact")
            (queue,) = (await here.api("GET", "/api/status"))["queue"]
            assert (queue["waiting"], queue["dead"], queue["leased"]) == (1, 0, 0)
            assert len(held.units) == 2
        async with world(tmp_path, CONFIG, clock=clock) as here:
            await here.running.delivered(1)
            assert here.copies() == {"other": 1}, "what was leased and erased is not sent by the next process"

    run(tmp_path, main())


PROCESS = f"""
[server]
bind = "127.0.0.1:{{port}}"
[store]
url = "sqlite:///gateway.db"
[sites.shop]
hold_s = 0.0
[sources.api]
adapter = "browser_tag"
site = "shop"
secrets = ["{SECRET}"]
destinations = ["pinterest"]
[sources.hooks]
adapter = "shopify"
site = "shop"
secrets = ["shop-secret"]
options = {{ shop = "{SHOP}" }}
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "{ACCOUNT}"
token = "sandbox-token"
base_url = "{{sandbox}}"
linger_s = 0.05
"""


def test_a_kill_during_a_redaction(tmp_path: Path) -> None:
    """``kill -9`` before the answer: the repeated webhook completes it; after the answer nothing is left to do."""
    redact = {
        "shop_id": 1, "shop_domain": SHOP, "customer": {"id": 99, "email": "jo@example.com"}, "orders_to_redact": [],
    }  # fmt: skip
    with Pair(tmp_path, PROCESS) as pair:
        gateway = pair.gateway
        pair.sandbox.stand(kind="status", status=503)
        now = time.time()
        with httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20.0, trust_env=False) as client:
            for start in range(0, 6_000, 500):
                told = [
                    {
                        "event_name": "checkout", "event_id": f"e{number}", "event_time": int(now) - 5,
                        "user": {"email": "jo@example.com" if number % 2 else f"p{number}@example.com"},
                    }
                    for number in range(start, start + 500)
                ]  # fmt: skip
                answer = client.post("/in/api", json=told, headers={"Authorization": f"Bearer {SECRET}"})
                assert answer.json()["accepted"] == 500
            content, headers = hook("customers/redact", redact)
            headers["X-Shopify-Triggered-At"] = at(now + 1)
            with suppress(httpx.HTTPError):  # a machine that is faster than this has nothing left to complete
                client.post("/in/hooks", content=content, headers=headers, timeout=0.02)
        gateway.kill()
        gateway.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20.0, trust_env=False) as client:
            until(lambda: client.get("/readyz").status_code == 200, 10.0, "ready")
            answer = client.post("/in/hooks", content=content, headers=headers)
            assert answer.status_code == 200, answer.text
        gateway.kill()
        gateway.start()
        pair.sandbox.clear()
        gateway.drain(60.0)
        arrived = {key.partition(" ")[2] for key in pair.sandbox.ids()}
        assert arrived == {f"e{number}" for number in range(0, 6_000, 2)}
        assert gateway.command("erase", "--email", "jo@example.com") == {"erased": 0}
        file = tmp_path / "p0.json"
        told = gateway.command("export", "--email", "p0@example.com", "--output", str(file))
        assert told == {"path": str(file), "events": 0, "memories": 0}
        assert json.loads(file.read_bytes())["events"] == []


# -- export


def only_export(folder: Path) -> dict[str, Any]:
    """Return the one export there is, after a look at its file."""
    (file,) = (folder / "exports").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "jo" not in file.name
    found: dict[str, Any] = json.loads(file.read_bytes())
    return found


async def fill_for_export(here: World) -> None:
    await still(here)
    await order(here, "dead", user=PERSON)
    await end(here, await lease(here), "dead", reason="refused")
    await page(here, "waiting", "?epik=dj0jo", client_id="b1", user={"email": "jo@example.com"})
    await order(here, "other", user={"email": "somebody@example.com"}, click_id="dj0other", client_id="b2")
    await order(here, "there", source="elsewhere", user=PERSON)


def check_export(found: dict[str, Any]) -> None:
    """Exactly the person's rows, in plain words, with their times, and nobody else's."""
    text = json.dumps(found)
    assert [row["event"]["event_id"] for row in found["events"]] == ["dead", "waiting"]
    dead, waiting = found["events"]
    assert "kept_until" in dead
    assert dead["reason"] == "refused"
    assert waiting["event"]["client"] == {"ip": IP, "user_agent": AGENT}
    assert hashlib.sha256(b"jo@example.com").hexdigest() in text
    assert any(row.get("client_ip") == IP and row["click_ids"] == {"epik": "dj0jo"} for row in found["remembered"])
    assert all("kept_until" in row and "purpose" in row for row in found["remembered"])
    assert "dj0other" not in text
    assert hashlib.sha256(b"somebody@example.com").hexdigest() not in text
    assert "jo@example.com" not in text


def test_a_data_request_writes_an_export(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """customers/data_request writes exactly that customer's rows, erases nothing, and the alarm names the file."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await fill_for_export(here)
            before = units(here)
            with caplog.at_level(logging.ERROR):
                await webhook(here, "customers/data_request")
            check_export(only_export(tmp_path))
            assert units(here) == before
            (alarm,) = [record for record in caplog.records if record.__dict__.get("reason") == "data_request"]
            (file,) = (tmp_path / "exports").iterdir()
            assert str(file) in alarm.__dict__["detail"]

    run(tmp_path, main())


def test_a_data_request_of_nobody_writes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A request that names nobody is for the operator; there is no export of everybody."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await fill_for_export(here)
            with caplog.at_level(logging.ERROR):
                await webhook(here, "customers/data_request", first_name="Jo")
            assert not (tmp_path / "exports").exists()
            assert any("names no" in str(record.__dict__.get("detail")) for record in caplog.records)

    run(tmp_path, main())


def test_a_disk_that_cannot_be_written_is_not_a_200(tmp_path: Path) -> None:
    """Shopify must ask again when the export could not be written."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            (tmp_path / "exports").write_text("not a folder")
            body = {"shop_id": 1, "shop_domain": SHOP, "customer": {"id": 99}, "data_request": {"id": 5}}
            status, answer = await here.running.post("hooks", *hook("customers/data_request", body))
            assert (status, answer["error"]["code"]) == (503, "not_written")

    run(tmp_path, main())


def test_the_operator_exports(tmp_path: Path) -> None:
    """``export`` writes a file of its own or the one that is named, never over another one."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await fill_for_export(here)
            told = await here.api(
                "POST", "/api/export", {"email": "JO@example.com", "phone": "4155552671", "site": "shop"}
            )
            assert (told["events"], told["path"]) == (2, str(next((tmp_path / "exports").iterdir())))
            check_export(only_export(tmp_path))
            named = tmp_path / "jo.json"
            told = await here.api("POST", "/api/export", {"external_id": "99", "output": str(named)})
            assert (told["path"], told["events"]) == (str(named), 2), "the dead one, and the other site's"
            assert stat.S_IMODE(named.stat().st_mode) == 0o600
            again = await here.api("POST", "/api/export", {"external_id": "99", "output": str(named)})
            assert again["error"]["code"] == "not_written"
            nobody = await here.api("POST", "/api/export", {})
            assert "email" in nobody["error"]["message"]

    run(tmp_path, main())


def test_an_export_after_an_erasure_says_so(tmp_path: Path) -> None:
    """What is left then is the erasure itself."""

    async def main() -> None:
        async with world(tmp_path, CONFIG, clock=Clock()) as here:
            await fill_for_export(here)
            here.step(5)
            await webhook(here, "customers/redact")
            await here.api("POST", "/api/export", {"email": "jo@example.com", "site": "shop"})
            found = only_export(tmp_path)
            assert (found["events"], found["remembered"]) == ([], [])
            assert "before" in found["erased"]

    run(tmp_path, main())


# -- the canary


def traces(folder: Path, needles: dict[str, bytes]) -> list[str]:
    """Return where anything of the person still stands in a file of the folder."""
    return [
        f"{path.relative_to(folder)}: {label}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for label, needle in needles.items()
        if needle in path.read_bytes()
    ]


def test_no_trace_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One person through every source and path, then erased: no hash, address or click of theirs is in any file."""
    caplog.set_level(logging.DEBUG, "gateway")
    clock = Clock()
    agent, ip, click = "Mozilla/5.0 (CanaryPhone 17)", "8.8.77.66", "dj0canaryclick"
    plain = ["canary.jo@example.com", "14155552699", "canary-99"]
    needles = {f"hash of {one}": hashlib.sha256(one.encode()).hexdigest().encode() for one in plain}
    needles |= {one: one.encode() for one in (ip, agent, click, *plain)}

    async def send_all(here: World) -> None:
        headers = {**BROWSER, "User-Agent": agent}
        person = {"email": plain[0], "phone": f"+{plain[1]}", "external_id": plain[2]}
        now = int(here.clock())
        for number, name in enumerate(("page_visit", "checkout", "initiate_checkout")):
            told = {
                "event_name": name, "event_id": f"tag{number}", "event_time": now, "client_id": "canary-browser",
                "click_id": click, "user": person, "checkout_token": "canary-token",
            }  # fmt: skip
            status, _ = await here.running.post("tag", json.dumps(told).encode(), headers, peer=ip)
            assert status == 200
        pixel = {
            "id": "px", "name": "checkout_completed", "clientId": "canary-browser", "timestamp": at(here.clock()),
            "data": {"checkout": {"token": "canary-token-2", "email": plain[0], "order": {"id": "70"}}},
            "context": {"document": {"location": {"href": f"{ORIGIN}/?epik={click}"}}},
        }  # fmt: skip
        assert (await here.running.post("pixel", json.dumps(pixel).encode(), headers, peer=ip))[0] == 200
        for topic in ("orders/create", "checkouts/create", "customers/create"):
            content, signed = hook(topic, {
                "id": 71, "token": "canary-token-3", "cart_token": "canary-cart", "email": plain[0], "currency": "EUR",
                "phone": f"+{plain[1]}", "total_price": "5.00", "source_name": "web", "customer": {"id": "canary-99"},
                "client_details": {"browser_ip": ip, "user_agent": agent},
            })  # fmt: skip
            assert (await here.running.post("hooks", content, signed))[0] == 200
        await order(here, "offline", action_source="offline", user=person, order_id="72")
        await order(here, "denied", user=person, client_id="canary-other", consent={"marketing": False}, order_id="73")

    async def main() -> tuple[dict[str, bytes], list[str]]:
        async with world(tmp_path, CONFIG, clock=clock) as here:
            await still(here)
            await send_all(here)
            held = await lease(here)
            outbox = outbox_of(here)
            await outbox.settle(held, [Settlement(unit=one.unit, end="dead", reason="r") for one in held.units[::2]])
            here.step(5)
            found = person_of(
                outbox.digest, "shop", User(email=(plain[0],), phone=(f"+{plain[1]}",), external_id=(plain[2],)), "US"
            ).all
            keyed = {f"subject {number}": digest for number, digest in enumerate(found)}
            there = traces(tmp_path, needles | keyed)
            for label in (*needles, *keyed):
                if label not in plain:
                    assert any(one.endswith(f": {label}") for one in there), f"the control: {label}"
            await webhook(here, "customers/redact", id="canary-99", email=plain[0], phone=f"+{plain[1]}")
            await here.api("POST", "/api/export", {"email": plain[0], "site": "shop"})
            with closing(sqlite3.connect(outbox.path)) as reader:
                tables = [name for (name,) in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                for table in set(tables) - {"erased"}:
                    for row in reader.execute(f"SELECT * FROM {table}"):
                        blobs = [part for cell in row if isinstance(cell, bytes) for part in split(cell)]
                        assert not set(blobs) & set(found), table
        return keyed, traces(tmp_path, needles)

    keyed, left = asyncio.run(main())
    assert left == [], "and the tombstone holds keyed hashes only"
    said = repr([record.__dict__ for record in caplog.records]).encode()
    assert b"config_warning" in said, "the control"
    assert not [label for label, needle in needles.items() if needle in said]

    async def later() -> None:
        async with world(tmp_path, CONFIG, clock=clock):
            pass

    clock.step(31 * DAY)
    asyncio.run(later())
    assert traces(tmp_path, needles | keyed) == [], "a month later the tombstone is gone as well"
