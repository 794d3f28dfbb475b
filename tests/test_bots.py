"""Robots' page events are dropped; conversions never are."""

import asyncio

import pytest

from gateway import PAGE_EVENTS, STANDARD_NAMES, Event, Hit, Skipped, Source
from gateway.plugins.bots import BotsEnricher

HIT = Hit(source=Source(name="tag", adapter="a", site="s", destinations=("p",)))


@pytest.mark.parametrize("name", sorted(STANDARD_NAMES | {"own_event"}))
@pytest.mark.parametrize("is_bot", [True, False])
def test_only_page_events_of_robots_are_dropped(name: str, is_bot: bool) -> None:
    """A robot's look is dropped with its reason; a sale is kept whoever made it."""
    event = Event(name=name, id="e1", source_name="theirs", is_bot=is_bot)
    found = asyncio.run(BotsEnricher().enrich(event, HIT))
    if is_bot and name in {"page_visit", "search", "view_category", "view_content", "watch_video"}:
        assert found == Skipped(reason="bot", source_name="theirs", event_id="e1")
    else:
        assert found is event


def test_page_events_hold_no_conversion() -> None:
    """The list of events that a robot flag may drop has no sale, lead or sign-up."""
    assert not PAGE_EVENTS & {"checkout", "add_to_cart", "lead", "signup", "subscribe", "initiate_checkout", "custom"}
