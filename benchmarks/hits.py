"""What the benchmarks send: one realistic browser-tag hit with five identifiers, a click id and an item."""

import itertools
import tempfile
import time
from pathlib import Path

import msgspec

from gateway import config as configuration
from gateway.config import Config

SECRET = "benchmark-secret"
_serial = itertools.count()
_USER_AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)


def event() -> dict[str, object]:
    """Return one event with an id of its own."""
    number = next(_serial)
    return {
        "event_name": "add_to_cart",
        "event_id": f"b-{number}-5f0c2f9e-7a51-4f43",
        "event_time": int(time.time()),
        "event_source_url": "https://shop.example/products/lamp?utm_source=pinterest&epik=dj0yJnU9b2JDcFFHekV4SHJN",
        "user": {
            "email": f"person{number}@example.com",
            "first_name": "Jane",
            "last_name": "Doe",
            "city": "San Francisco",
            "external_id": f"customer-{number}",
        },
        "client": {"ip": f"8.8.{number % 250}.{number // 250 % 250}", "user_agent": _USER_AGENT},
        "value": 59.99,
        "currency": "USD",
        "items": [{"id": "SKU-1", "name": "Lamp", "price": 59.99, "quantity": 1}],
        "language": "en",
    }


def body() -> bytes:
    """Return one hit's body, about 650 bytes."""
    return msgspec.json.encode(event())


def batch(size: int) -> bytes:
    """Return one hit of several events."""
    return msgspec.json.encode([event() for _ in range(size)])


def configure(folder: str | None = None, **destination: object) -> Config:
    """Return a configuration with one server source and one destination."""
    path = Path(folder or tempfile.mkdtemp(prefix="tag-gateway-bench-")) / "gateway.toml"
    table = {
        "type": "pinterest", "ad_account_id": "549755885175", "token": "sandbox-token",
        "base_url": "http://127.0.0.1:9/v5", **destination,
    }  # fmt: skip
    raw = {
        "server": {"bind": "127.0.0.1:0"},
        "sources": {"api": {"adapter": "browser_tag", "secrets": [SECRET], "destinations": ["pinterest"]}},
        "destinations": {"pinterest": table},
    }
    return configuration.parse(raw, path)
