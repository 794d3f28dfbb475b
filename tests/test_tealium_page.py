"""The page on Tealium shows a request that works, and an action that batches works as it says."""

import base64
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from adapters.tealium import Tealium
from adapters.tealium.options import Options
from gateway import Event, Hit, Key, Rejected, Secret, Source

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "tealium.md").read_text(encoding="utf-8")
ADAPTER = Tealium()
SECRET = "a-secret-of-the-test"


def command() -> str:
    """Return the page's call of curl."""
    (found,) = [block for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "curl" in block]
    return str(found)


def example() -> dict[str, Any]:
    """Return the body that curl sends."""
    match = re.search(r"-d '(.*)'\s*$", command(), re.DOTALL)
    assert match is not None
    body: dict[str, Any] = json.loads(match[1])
    return body


def hit(body: str, authorization: str | None = None, method: str = "POST", query: str = "") -> Hit:
    given = authorization or "Basic " + base64.b64encode(f"tealium:{SECRET}".encode()).decode()
    source = Source(
        name="tealium", adapter="tealium", site="shop", destinations=("pinterest",), options=Options(),
        secrets=(Secret(value=SECRET),),
    )  # fmt: skip
    headers = {"authorization": given, "content-type": "application/json"}
    return Hit(source=source, method=method, query=query, headers=headers, body=body.encode())


def test_the_request_works() -> None:
    """The example is taken as a checkout under the tag's id, with everything that it tells."""
    assert "/in/tealium" in command()
    assert '-u "tealium:$TEALIUM_SECRET"' in command()
    given = hit(json.dumps(example()))
    ADAPTER.verify(given)
    (event,) = ADAPTER.normalize(given)
    assert isinstance(event, Event)
    assert (event.name, event.id, event.tag) == ("checkout", "11563522", True)
    assert "under the id `11563522`" in PAGE
    assert event.keys == (Key(kind="order", value="A-1001"),)
    assert (event.purchase.value, event.purchase.currency, event.purchase.num_items) == (Decimal("25.00"), "EUR", 2)
    assert (event.user.email, event.click_ids) == (("ada@example.com",), {"epik": "dj0yJnU9ZXhhbXBsZQ"})
    assert event.client.ip == "203.0.113.9"
    assert event.client.user_agent is not None
    assert event.source_url == "https://shop.example.com/thanks"
    assert event.notes == ()


@pytest.mark.parametrize(
    ("authorization", "good"),
    [
        (f"Bearer {SECRET}", True),
        ("Basic " + base64.b64encode(f"any name:{SECRET}".encode()).decode(), True),
        ("Basic " + base64.b64encode(b"tealium:wrong").decode(), False),
        ("Basic " + base64.b64encode(f"{SECRET}:".encode()).decode(), False),
    ],
)
def test_both_ways_to_prove_it(authorization: str, good: bool) -> None:
    """BasicAuth with the secret as password, or the header with Bearer; nothing else."""
    given = hit(json.dumps(example()), authorization)
    if good:
        ADAPTER.verify(given)
        return
    with pytest.raises(Rejected) as refused:
        ADAPTER.verify(given)
    assert refused.value.status == 401


def test_a_batch_with_prefix_joiner_and_suffix() -> None:
    """The customised batch of the page is an array of events."""
    assert "prefix `[`, joiner `,`, suffix `]`" in PAGE
    one = example()
    other = {**one, "data": {**one["data"], "udo": {"tealium_event": "search", "search_keyword": "cup"}}}
    events = ADAPTER.normalize(hit("[" + ",".join(json.dumps(item) for item in (one, other)) + "]"))
    assert [event.name for event in events if isinstance(event, Event)] == ["checkout", "search"]


def test_a_get_with_data() -> None:
    """With GET the JSON stands in the query parameter ``data``."""
    (event,) = ADAPTER.normalize(hit("", method="GET", query="data=" + quote(json.dumps(example()))))
    assert isinstance(event, Event)
    assert event.name == "checkout"
