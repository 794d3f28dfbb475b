"""Privacy signals: allow, limit or drop, and nothing at all when the decision fails."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway import Consent, Context, Enricher, Event, Hit, Skipped, Source, hookimpl
from gateway.plugins.privacy import PrivacyEnricher, is_sale_opt_out
from gateway.testing.app import running

HIT = Hit(source=Source(name="tag", adapter="a", site="s", destinations=("p",)))
ALLOW, LIMIT, DROP = "allow", "limit", "drop"


def decision(event: Event) -> str:
    found = asyncio.run(PrivacyEnricher().enrich(event, HIT))
    if isinstance(found, Skipped):
        assert (found.reason, found.event_id) == ("consent", event.id)
        return DROP
    return LIMIT if found.limited_data is True else ALLOW


@pytest.mark.parametrize(
    ("consent", "limited", "expected"),
    [
        (Consent(), None, ALLOW),
        (Consent(marketing=True), None, ALLOW),
        (Consent(marketing=False), None, DROP),
        (Consent(marketing=False, sale_of_data=True), False, DROP),
        (Consent(analytics=False), None, ALLOW),
        (Consent(sale_of_data=False), None, LIMIT),
        (Consent(sale_of_data=True), None, ALLOW),
        (Consent(gpc=True), None, LIMIT),
        (Consent(gpc=False), None, ALLOW),
        (Consent(us_privacy="1YYN"), None, LIMIT),
        (Consent(us_privacy="1NYN"), None, LIMIT),
        (Consent(us_privacy="1yyn"), None, LIMIT),
        (Consent(us_privacy="1YNN"), None, ALLOW),
        (Consent(us_privacy="1---"), None, ALLOW),
        (Consent(us_privacy="Y"), None, ALLOW),
        (Consent(), True, LIMIT),
        (Consent(), False, ALLOW),
        (Consent(gpc=True), False, LIMIT),
        (Consent(sale_of_data=False, marketing=True), False, LIMIT),
        (Consent(us_privacy="1YYN"), False, LIMIT),
        (Consent(gpc=True, marketing=False), True, DROP),
    ],
)
def test_the_stricter_signal_wins(consent: Consent, limited: bool | None, expected: str) -> None:
    """A denial drops, any opt-out limits, silence and permission change nothing."""
    assert decision(Event(name="checkout", id="e1", consent=consent, limited_data=limited)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, False), ("", False), ("1YY", False), ("1YYNN", False), ("2YYN", False), ("1NNN", False), ("1-Y-", True)],
)
def test_us_privacy_strings(text: str | None, expected: bool) -> None:
    """Only a string of version 1 with an opt-out of sale says so."""
    assert is_sale_opt_out(text) is expected


def test_privacy_fails_closed() -> None:
    """The built-in guard declares that without it nothing is accepted."""
    assert PrivacyEnricher.on_error == "refuse"


@pytest.mark.parametrize(("on_error", "status"), [("refuse", 503), ("continue", 200)])
def test_an_enricher_that_raises(tmp_path: Path, on_error: Any, status: int) -> None:
    """A failing guard of privacy answers 503 and leaves nothing; a failing helper costs only its own addition."""

    class Broken(Enricher):
        name = "broken"

        async def enrich(self, event: Event, hit: Hit) -> Event:
            raise ValueError("jo@example.com")

    Broken.on_error = on_error

    class Plugin:
        @hookimpl
        def register_enrichers(self, context: Context) -> Sequence[Enricher]:
            return [Broken()]

    async def scenario() -> None:
        config = {"sources": {"tag": {"adapter": "browser_tag", "allowed_origins": ["https://shop.example"]}}}
        body = {"event_name": "checkout", "event_id": "e1", "user": {"email": "jo@example.com"}}
        async with running(config, tmp_path, plugins={"broken": Plugin()}) as gateway:
            got, answer = await gateway.post("tag", body, peer="8.8.8.8")
            assert got == status
            assert "jo@example.com" not in str(answer)
            assert gateway.gateway.tally.plugin_failures[("broken",)] == 1
            if status == 503:
                assert answer["error"]["code"] == "privacy_failed"
                assert (await gateway.gateway.outbox.counts()).lanes == ()
            else:
                assert answer["events"][0]["notes"] == ["broken: failed"]
                await gateway.delivered(1)

    asyncio.run(scenario())
