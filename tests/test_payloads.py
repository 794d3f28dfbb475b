"""The shared sample payloads, over HTTP through a whole gateway to the sandbox."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.harness import conformance
from tests.harness.expectation import Comparison
from tests.harness.inprocess import Clock, World, world
from tests.harness.processes import say

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "payloads"
#: The samples' "now".
NOW = 1_795_305_600.0
#: Longer than anything is held.
HOLD_S = 60.0
SHOP = "example-shop.myshopify.com"
CASES = sorted(
    str(path.relative_to(SAMPLES)).removesuffix(".json")
    for path in SAMPLES.glob("*/*.json")
    if not path.name.endswith(".expected.json")
)

pytestmark = pytest.mark.skipif(not CASES, reason="the shared sample payloads are not here")

CONFIG: dict[str, Any] = {
    "sites": {"shop": {"default_country": "US"}},
    "sources": {
        "shopify": {"adapter": "shopify", "site": "shop", "secrets": ["test-client-secret"], "options": {"shop": SHOP}},
        "pixel": {"adapter": "shopify_pixel", "site": "shop", "allowed_origins": [f"https://{SHOP}"]},
        "gtm": {"adapter": "gtm", "secrets": ["gtm-secret"]},
        "collect": {"adapter": "gtm", "allowed_origins": ["https://example.com"]},
        "tealium": {"adapter": "tealium", "secrets": ["test-password"]},
    },
}


async def send(here: World, case: str) -> tuple[int, Any]:
    """Send one sample as its platform would; returns status and answer."""
    folder, _, name = case.partition("/")
    document = json.loads((SAMPLES / f"{case}.json").read_text())
    request = document["request"]
    headers = dict(request["headers"])
    raw = SAMPLES / folder / f"{name}.raw"
    if request["method"] == "GET":
        path = "/in/collect" + request["path"][request["path"].index("/g/") :]
        return await here.running.request("GET", path, None, headers, peer="127.0.0.1")
    if folder == "gtm":
        headers["Authorization"] = "Bearer gtm-secret"
    if raw.exists():
        body = raw.read_bytes()
    elif "raw_body" in document:
        body = document["raw_body"].encode()
    else:
        body = json.dumps(document["body"]).encode()
    return await here.running.post(folder, body, headers, peer="127.0.0.1")


def deliver(folder: Path, cases: Sequence[str]) -> tuple[list[tuple[int, Any]], list[dict[str, Any]], int]:
    """Send samples in this order; returns the answers, the events that arrived, and how many dead letters there are."""

    async def main() -> tuple[list[tuple[int, Any]], list[dict[str, Any]], int]:
        async with world(folder, CONFIG, clock=Clock(NOW)) as here:
            answers = [await send(here, case) for case in cases]
            here.step(HOLD_S)
            await here.drain()
            events = here.sandbox.record.events()
            assert conformance.problems_of_events(events) == []
            return answers, events, len(await here.letters())

    return asyncio.run(main())


def fates(answer: Any) -> Mapping[str, int]:
    """Return the counts of an answer, those that are not 0."""
    return {key: value for key, value in answer.items() if isinstance(value, int) and value}


@pytest.mark.parametrize("case", CASES)
def test_a_sample_is_answered_and_sent_as_expected(tmp_path: Path, case: str) -> None:
    """Each sample gets a 2xx; nothing dies at the vendor; where there is a worked example, exactly that arrives."""
    ((status, answer),), events, dead = deliver(tmp_path, [case])
    if isinstance(answer, dict):
        say(f"{case}: {fates(answer)} {[(e['outcome'], e['reason'], e.get('notes')) for e in answer['events']]}")
    for event in events:
        say(json.dumps(event))
    assert 200 <= status < 300, answer
    assert dead == 0
    expected = SAMPLES / f"{case}.expected.json"
    if not expected.exists():
        return
    wanted = json.loads(expected.read_text())
    if wanted["decision"] == "drop":
        assert events == []
    elif wanted["decision"] == "send":
        document = json.loads((SAMPLES / f"{case}.json").read_text())
        assert Comparison(wanted, document).run(events) == []


def test_one_order_told_four_times_is_one_checkout(tmp_path: Path) -> None:
    """Create, its retry, paid and updated of one order: exactly one checkout arrives."""
    names = ("create_web", "create_web_retry", "paid_same_order", "updated_same_order")
    answers, events, dead = deliver(tmp_path, [f"shopify/orders_{name}" for name in names])
    assert [status for status, _ in answers] == [200] * 4
    assert [event["event_name"] for event in events] == ["checkout"]
    assert dead == 0


@pytest.mark.parametrize("first", ["pixel/checkout_completed", "shopify/orders_create_web"])
def test_webhook_and_pixel_of_one_purchase_are_one_checkout(tmp_path: Path, first: str) -> None:
    """The page and the shop tell the same purchase, in either order: one checkout arrives."""
    both = ["pixel/checkout_completed", "shopify/orders_create_web"]
    _, events, _ = deliver(tmp_path, both if first == both[0] else both[::-1])
    assert [event["event_name"] for event in events] == ["checkout"]


def test_the_same_samples_again_send_nothing_again(tmp_path: Path) -> None:
    """Every sample twice: what has an identity arrives once; without own time and id nobody can tell a copy."""
    answers, events, _ = deliver(tmp_path, [*CASES, *CASES])
    ids = [(event["event_name"], event["event_id"]) for event in events]
    assert len(ids) == len(set(ids))
    again = {
        case
        for case, (_, answer) in zip(CASES, answers[len(CASES) :], strict=True)
        if isinstance(answer, dict) and any(e["outcome"] == "accepted" and not e["reason"] for e in answer["events"])
    }
    assert again == {"gtm/ga4_client_generate_lead", "gtm/ga4_client_page_view", "gtm/stape_json_http_request_flat"}
