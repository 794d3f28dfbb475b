"""The page Privacy: shares of limited data, and the erasure of a person with a look before."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.history import Rolled
from gateway.hit import Secret
from gateway.operator import operator_app
from gateway.operator.limits import privacy_of
from gateway.operator.pages.keeping import kept_rows
from gateway.operator.persons import PersonQuery
from tests.harness.inprocess import SECRET, Clock, World, event, world
from tests.harness.operator_site import Visitor, token_of

NOW = 1_790_000_000.0
PASSWORD, VIEWER = "the operator's password", "the viewer's password"
CONFIG: dict[str, Any] = {
    "sites": {"shop": {}},
    "sources": {"api": {"adapter": "browser_tag", "site": "shop", "secrets": [SECRET]}},
    "pipeline": {"dead_keep_s": 864_000},
}
EMAIL = "ada@people.example"


async def visitor_of(running: World, password: str = PASSWORD) -> Visitor:
    """Return somebody who is logged in."""
    app = operator_app(running.gateway, Secret(value=PASSWORD), Secret(value=VIEWER))
    visitor = Visitor(app)
    await visitor.login(password)
    return visitor


async def dead_one(running: World) -> None:
    """Leave a dead letter of Ada's, and one of somebody else's."""
    from gateway.sandbox import Fault

    running.sandbox.faults.stand(Fault(kind="partial", listed=True))
    await running.post(
        event("hers", NOW, user={"email": EMAIL, "external_id": "c-7"}),
        event("theirs", NOW, user={"email": "bob@people.example"}),
    )
    await running.drain()
    running.sandbox.faults.clear()
    assert len(await running.letters()) == 2


def test_shares_by_state_and_signal(tmp_path: Path) -> None:
    """Limited, dropped and delivered ones of a real run are on the page, with the state and the signal's name."""

    async def scenario() -> None:
        async with world(tmp_path, CONFIG, clock=Clock(NOW)) as running:
            here = {"state": "CA", "country": "US"}
            gpc = [
                event(f"g{n}", NOW, user={"email": f"g{n}@people.example", **here}, consent={"gpc": True})
                for n in range(3)
            ]
            sale = [event("s", NOW, consent={"sale_of_data": False})]
            plain = [event(f"p{n}", NOW) for n in range(4)]
            refused = [event(f"r{n}", NOW, consent={"marketing": False}) for n in range(2)]
            await running.post(*gpc, *sale, *plain, *refused)
            await running.drain()
            found = privacy_of(await running.gateway.outbox.history(NOW - 3_600, NOW, by="all"))
            assert (found.delivered, found.limited, found.percent) == (8, 4, 50.0)
            assert [(one.state, one.signal, one.count) for one in found.rows] == [
                ("CA", "gpc", 3),
                ("?", "sale_of_data", 1),
            ]
            (share,) = found.sources
            assert (share.source, share.dropped, share.limited) == ("api", 2, 4)
            text = await (await visitor_of(running)).page("/privacy?period=24h")
            assert '<th scope="row">CA</th><td data-label="Signal">Global Privacy Control</td>' in text
            assert "50.0 % of them" in text
            assert "10 d" in text  # dead_keep_s of this configuration

    asyncio.run(scenario())


def test_a_person_is_shown_and_then_erased(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The look counts and erases nothing; the confirmed erasure takes hers and leaves the others'; no log names her."""
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        async with world(tmp_path, CONFIG, clock=Clock(NOW)) as running:
            await dead_one(running)
            visitor = await visitor_of(running)
            form = {"csrf": token_of(await visitor.page("/privacy")), "email": EMAIL, "site": ""}
            look = await visitor.client.post("/privacy/look", data=form)
            assert look.status_code == 200, look.text
            assert '<dt>Dead letters</dt>\n<dd><span class="value">1</span>' in look.text
            assert look.headers["cache-control"] == "no-store"
            assert len(await running.letters()) == 2
            form = {"csrf": token_of(look.text), "email": EMAIL, "phone": "", "external_id": "", "site": ""}
            unsure = await visitor.client.post("/privacy/erase", data=form)
            assert unsure.status_code == 400
            assert "Tick the box" in unsure.text
            assert len(await running.letters()) == 2
            done = await visitor.client.post("/privacy/erase", data={**form, "sure": "yes"})
            assert (done.status_code, done.headers["location"]) == (303, "/privacy")
            assert [one["event_id"] for one in await running.letters()] == ["theirs"]
            assert "Erased: 1 event, and what was remembered" in await visitor.page("/privacy")
            (late,) = await running.post(event("hers-late", NOW - 60, user={"email": EMAIL}))
            assert (late["outcome"], late["reason"]) == ("dropped", "erased")

    asyncio.run(scenario())
    assert EMAIL not in caplog.text


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({}, "Name the person by email, phone or external_id."),
        ({"email": "  "}, "Name the person by email, phone or external_id."),
        ({"email": EMAIL, "site": "<b>other"}, "there is no site &#39;&lt;b&gt;other&#39;"),
        ({"email": "a" * 321}, "email is longer than 320 characters."),
    ],
)
def test_a_form_that_names_nobody_is_refused(tmp_path: Path, form: dict[str, str], words: str) -> None:
    """The answer says what is missing, and shows no markup of what was sent."""

    async def scenario() -> httpx.Response:
        async with world(tmp_path, CONFIG, clock=Clock(NOW)) as running:
            visitor = await visitor_of(running)
            return await visitor.send("/privacy/look", "/privacy", **form)

    answer = asyncio.run(scenario())
    assert answer.status_code == 400
    assert words in answer.text


def test_only_the_operator_erases(tmp_path: Path) -> None:
    """A viewer sees the page without the form and is refused; without the form's token, nobody is heard."""

    async def scenario() -> None:
        async with world(tmp_path, CONFIG, clock=Clock(NOW)) as running:
            await dead_one(running)
            viewer = await visitor_of(running, VIEWER)
            text = await viewer.page("/privacy")
            assert "Only the operator may erase" in text
            assert 'action="/privacy/look"' not in text
            for path in ("/privacy/look", "/privacy/erase"):
                refused = await viewer.client.post(path, data={"csrf": token_of(text), "email": EMAIL, "sure": "yes"})
                assert refused.status_code == 403
            operator = await visitor_of(running)
            forged = await operator.client.post("/privacy/erase", data={"email": EMAIL, "sure": "yes"})
            assert forged.status_code == 403
            assert len(await running.letters()) == 2

    asyncio.run(scenario())


def test_what_is_kept_follows_the_configuration(tmp_path: Path) -> None:
    """Times of the table are those of the file; what is switched off says so."""

    async def scenario() -> None:
        changed = {**CONFIG, "pipeline": {"dead_keep_s": 7_200, "memory_s": 0, "dedup_window_s": 259_200}}
        async with world(tmp_path, changed, clock=Clock(NOW)) as running:
            lives = {row.what: row.life for row in kept_rows(running.gateway.parts.config)}
            assert lives["Dead letters: the same"] == "2 h"
            assert lives["Marks of event ids"] == "3 d"
            assert lives["Remembered click ids and choices"] == "not at all: memory_s is 0"
            assert "no key" in lives["Hits that could not be read, encrypted"]

    asyncio.run(scenario())


def test_figures_tell_drops_from_withdrawals() -> None:
    """Consent refused at the door, while waiting, of a dead one; erasures; requests of sources; tests count nowhere."""

    def row(what: str, count: int, detail: str = "", source: str = "a") -> Rolled:
        return Rolled(0, source, "p", "lead", what, detail, count)

    found = privacy_of(
        [
            row("delivered", 10), row("limited", 2, "TX:gpp+gpc"), row("dropped", 3, "consent"),
            row("dropped", 9, "bot"),
            row("ended", 4, "consent"), row("discarded", 1, "consent"), row("ended", 5, "erased"),
            row("discarded", 6, "erased"), row("dropped", 7, "erased"), row("aside", 2, "erasure"),
            row("aside", 1, "export", "b"), row("test_delivered", 100),
        ]
    )  # fmt: skip
    first, second = found.sources
    assert (first.dropped, first.withdrawn, first.erased, second.delivered) == (3, 5, 18, 0)
    assert (found.requests, found.exports, found.percent) == (2, 1, 20.0)
    assert found.rows[0].label == "GPP string, Global Privacy Control"


def test_a_query_names_nobody_in_a_traceback() -> None:
    """What an operator typed is in no repr."""
    assert EMAIL not in repr(PersonQuery(email=EMAIL))
