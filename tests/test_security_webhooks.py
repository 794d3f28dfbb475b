"""Signed sources: what proves a hit, what a refusal tells whom, and what a replay can do."""

import asyncio
import base64
import hmac
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.shopify import ShopifyAdapter, WebhookOptions
from adapters.shopify.diagnosis import CAUSES
from gateway import Hit, Rejected, Secret, Source, verify
from gateway import config as configuration
from gateway.errors import ConfigError
from gateway.runtime import assemble
from gateway.testing.app import complete
from gateway.testing.doubles import NOW, Clock
from tests.test_ingress import CONFIG, SHOP, Served, serving

ROOT = Path(__file__).parents[1]
SECRET = "hook-secret"
Scenario = Callable[[Served], Any]
ORDER = {"id": 7, "name": "#7", "currency": "EUR", "total_price": "5.00", "email": "ada@example.com", "note": "a/b & c"}
#: The way Shopify writes JSON.
BODY = json.dumps(ORDER, separators=(",", ":")).replace("/", "\\/").replace("&", "\\u0026").encode()


def play(
    tmp_path: Path,
    scenario: Scenario,
    config: Mapping[str, Any] = CONFIG,
    clock: Clock | None = None,
    *,
    deliver: bool = False,
) -> None:
    """Run one scenario against a gateway."""

    async def main() -> None:
        async with serving(tmp_path, config, deliver=deliver, clock=clock) as served:
            await scenario(served)

    asyncio.run(main())


def sign(body: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), body, "sha256")).decode()


def hit(body: bytes = BODY, given: str = "", *, at: float = NOW, name: str = "hook", secrets: Any = (SECRET,)) -> Hit:
    source = Source(
        name=name, adapter="shopify", site="s", destinations=("p",), options=WebhookOptions(),
        secrets=tuple(Secret(value=one) for one in secrets),
    )  # fmt: skip
    return Hit(source=source, headers={"x-shopify-hmac-sha256": given}, body=body, received_at=at)


def cause(adapter: ShopifyAdapter, of: Hit) -> str:
    with pytest.raises(Rejected) as caught:
        adapter.verify(of)
    return caught.value.cause


# -- proof


@pytest.mark.parametrize(
    ("key", "data", "digest"),
    [
        ("\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        ("Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    ],
)
def test_published_vectors(key: str, data: bytes, digest: str) -> None:
    """The digests of RFC 4231, 4.2 and 4.3, are right, and right for these bytes and this key alone."""
    given = base64.b64encode(bytes.fromhex(digest)).decode()
    assert verify.hmac_sha256(data, given, [Secret(value="other"), Secret(value=key)])
    assert not verify.hmac_sha256(data + b"\n", given, [Secret(value=key)])
    assert not verify.hmac_sha256(data, given, [Secret(value=key + "x")])


WRONG: Mapping[str, tuple[bytes | None, bytes]] = {
    "no_signature": (None, BODY),
    "empty_body": (sign(BODY).encode(), b""),
    "hex_signature": (hmac.digest(SECRET.encode(), BODY, "sha256").hex().encode(), BODY),
    "not_a_signature": ("é".encode(), BODY),
    "whitespace": (sign(BODY).encode(), BODY + b"\r\n"),
    "rewritten_body": (sign(BODY).encode(), json.dumps(json.loads(BODY), indent=1).encode()),
    "other_source": (sign(BODY, "second-shops-secret").encode(), BODY),
    "large_body": (sign(b"x").encode(), b'{"note": "%b"}' % (b"x" * 200_000)),
    "wrong_secret": (sign(BODY, "nobodys").encode(), BODY),
}
TWO_SHOPS = {
    **CONFIG,
    "sources": {
        **CONFIG["sources"],
        "second": {"adapter": "shopify", "secrets": ["second-shops-secret"], "options": {"shop": "b.myshopify.com"}},
    },
}


def test_every_refusal_is_the_same_to_the_sender(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is wrong with a signature: one and the same 401; log and metrics tell the operator which it was."""
    clock = Clock()

    async def scenario(served: Served) -> None:
        answers = set()
        for given, body in [*WRONG.values(), (b"", BODY), (b"AAAA", BODY), (b"\xff\xfe=", BODY), (b"===", BODY)]:
            headers = [(b"x-shopify-topic", b"orders/paid"), (b"x-shopify-shop-domain", SHOP.encode())]
            headers += [(b"x-shopify-hmac-sha256", given)] if given is not None else []
            answer = await served.client.post("/in/hook", content=body, headers=headers)
            answers.add((answer.status_code, answer.content, repr(sorted(answer.headers.items()))))
            clock.now += 2
        ((status, said, _),) = answers
        assert status == 401
        assert not [word for word in CAUSES if word.encode() in said]
        served.gateway.hit_log.flush()
        lines = [json.loads(line) for line in served.log.getvalue().splitlines()]
        assert {line["cause"] for line in lines} == set(WRONG)
        counted = served.gateway.tally.refusals
        assert all(counted[("hook", cause)] for cause in WRONG)
        assert await served.waiting() == 0

    with caplog.at_level(logging.WARNING, "gateway.shopify"):
        play(tmp_path, scenario, TWO_SHOPS, clock)
    logged = [vars(record) for record in caplog.records if record.getMessage() == "signature_refused"]
    assert {one["cause"] for one in logged} == set(WRONG)
    assert {one.get("signed_for") for one in logged} == {None, "second"}
    assert all(one["remedy"] == CAUSES[one["cause"]] for one in logged)
    for private in (SECRET, "second-shops-secret", "ada@example.com", sign(BODY)):
        assert private not in repr(logged)


def test_a_secret_with_quotes_is_recognised() -> None:
    """What an env file left around a secret is the operator's to remove: it does not open the source."""
    for padded in (f'"{SECRET}"', f" {SECRET}", f"{SECRET}\n"):
        assert cause(ShopifyAdapter(), hit(given=sign(BODY), secrets=(padded,))) == "padded_secret"


def test_a_flood_of_wrong_signatures_buys_one_search_a_second(caplog: pytest.LogCaptureFixture) -> None:
    """The search and its line come once a second for each source; the others are refused at once."""
    adapter = ShopifyAdapter()
    body = json.dumps({"rows": [[0] * 20 for _ in range(2_000)]}).encode()
    with caplog.at_level(logging.WARNING, "gateway.shopify"):
        found = [cause(adapter, hit(body, sign(b"x"), at=NOW + number / 1000)) for number in range(2_001)]
        assert [number for number, one in enumerate(found) if one] == [0, 1000, 2000]
        assert cause(adapter, hit(body, sign(b"x"), at=NOW + 2, name="other")) == "wrong_secret"
        assert cause(adapter, hit(body, sign(b"x"), at=NOW - 3600)) == "wrong_secret", "a clock that was set back"
    assert len(caplog.records) == 5
    started = time.perf_counter()
    assert cause(ShopifyAdapter(), hit(body, sign(b"x"))) == "wrong_secret"
    assert time.perf_counter() - started < 0.5


def test_the_page_lists_every_cause() -> None:
    """Docs have each cause with what to do, and none that does not exist; also those of secrets."""
    text = (ROOT / "docs/shopify.md").read_text(encoding="utf-8")
    section = text.partition("### 401")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)) == set(CAUSES)
    operations = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for one in ("no_secret", "wrong_secret", "secret_in_url"):
        assert f"`{one}`" in operations


@pytest.mark.parametrize(
    "source",
    [
        {"adapter": "shopify"}, {"adapter": "shopify", "secrets": []}, {"adapter": "shopify", "secrets": [""]},
        {"adapter": "shopify", "secrets": [" "]}, {"adapter": "shopify", "secrets": [{"env": "NOT_SET_ANYWHERE"}]},
        {"adapter": "shopify", "secrets": [{}]}, {"adapter": "shopify", "allowed_origins": ["https://shop.example"]},
        {"adapter": "gtm"}, {"adapter": "tealium", "secrets": []}, {"adapter": "browser_tag", "secrets": [""]},
    ],
)  # fmt: skip
def test_without_a_secret_nothing_starts(source: dict[str, Any], tmp_path: Path) -> None:
    """A source that could not tell a forgery is an error of the configuration, not an open door."""
    with pytest.raises(ConfigError, match="secret"):
        assemble(configuration.parse(complete({"sources": {"hook": source}}), tmp_path / "gateway.toml"), None)


def test_a_short_secret_is_warned_about(tmp_path: Path) -> None:
    """`check` names the source whose secret could be guessed, and never the secret."""
    secrets = {"one": "x" * 15, "two": "x" * 16, "three": "ü" * 8}
    sources = {name: {"adapter": "gtm", "site": "s", "secrets": [value]} for name, value in secrets.items()}
    config = configuration.parse(complete({"sites": {"s": {}}, "sources": sources}), tmp_path / "gateway.toml")
    warned = [text for text in assemble(config, None).warnings if "bytes" in text]
    assert len(warned) == 1
    assert "[sources.one]" in warned[0]
    assert "xxx" not in warned[0]


# -- replay, other shops


@pytest.mark.parametrize("topic", ["orders/create", "orders/paid", "checkouts/create", "customers/create"])
def test_a_replayed_body_counts_once(topic: str, tmp_path: Path) -> None:
    """The same signed body after a minute and after 47 hours, under other delivery ids and times: no second event."""
    clock = Clock()
    body = {**ORDER, "token": "tok-7", "created_at": "2026-11-21T23:59:00Z", "updated_at": "2026-11-21T23:59:00Z"}
    day = 86_400

    async def scenario(served: Served) -> None:
        fates = []
        for number, later in enumerate((0, 60, 47 * 3_600 - 60)):
            clock.now += later
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock.now))
            ids = {name: f"{name}-{number}" for name in ("X-Shopify-Event-Id", "X-Shopify-Webhook-Id")}
            answer = await served.webhook(topic, body, **ids, **{"X-Shopify-Triggered-At": stamp})
            assert answer.status_code == 200, answer.text
            (told,) = answer.json()["events"]
            fates.append(told["outcome"])
            await served.drained()
        assert fates == ["accepted", "duplicate", "duplicate"]
        assert len(served.sandbox.record.events()) == 1
        clock.now += 8 * day
        late = await served.webhook(topic, body, **{"X-Shopify-Event-Id": "x"})
        assert late.json()["accepted"] == 0, "and after the marks of ids are gone, it is too old or still known"

    assert abs(NOW - 1_795_305_600) < day, "the times above are of the frozen clock's day"
    alone = {"sources": {"hook": CONFIG["sources"]["hook"]}}  # nothing is held for another source's copy
    play(tmp_path, scenario, {**CONFIG, **alone}, clock, deliver=True)


def test_another_shop_gets_nothing(tmp_path: Path) -> None:
    """A genuine body under another shop's name is 403, at its own source and at the other shop's."""

    async def scenario(served: Served) -> None:
        for path, domain in (("hook", "b.myshopify.com"), ("second", SHOP)):
            secret = SECRET if path == "hook" else "second-shops-secret"
            headers = {"X-Shopify-Topic": "orders/paid", "X-Shopify-Shop-Domain": domain}
            headers["X-Shopify-Hmac-Sha256"] = sign(BODY, secret)
            answer = await served.client.post(f"/in/{path}", content=BODY, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_shop")
        assert await served.waiting() == 0

    play(tmp_path, scenario, TWO_SHOPS)


# -- secrets in a header


@pytest.mark.parametrize("query", ["secret=s3cret", "a=1&token=s3cret&b=2", "key=s%33cret", "s3cret=1&api_key=other"])
def test_a_secret_in_the_url_opens_nothing(query: str, tmp_path: Path) -> None:
    """It is refused with the way that works, and neither line nor answer repeats it; the operator learns of it."""

    async def scenario(served: Served) -> None:
        for name in ("api", "gtm"):
            answer = await served.client.post(f"/in/{name}?{query}", json={"event_name": "lead"})
            assert answer.status_code == 401
            assert "Authorization: Bearer" in answer.json()["error"]["hint"]
            assert "URL" in answer.json()["error"]["hint"]
            served.gateway.hit_log.flush()
            assert "s3cret" not in answer.text + served.log.getvalue()
        wanted = "no_secret" if query.endswith("other") else "secret_in_url"
        assert served.gateway.tally.refusals == {("api", wanted): 1, ("gtm", wanted): 1}

    play(tmp_path, scenario)


def test_an_open_hint_does_not_tell_whether_a_guess_was_right(tmp_path: Path) -> None:
    """The answer to a secret in the URL is the same whether it is one or not."""

    async def scenario(served: Served) -> None:
        said = {
            (await served.client.post(f"/in/api?secret={guess}", json={})).content for guess in ("s3cret", "other", "")
        }
        assert len(said) == 1

    play(tmp_path, scenario)


def test_two_live_secrets_while_one_is_changed(tmp_path: Path) -> None:
    """Old and new open at once; after the reload without the old one it opens no more, and the new one does."""
    base = {"sites": {}, "sources": {"api": {"adapter": "browser_tag", "secrets": ["old-secret-old-secret"]}}}
    both = {
        "sources": {"api": {"adapter": "browser_tag", "secrets": ["old-secret-old-secret", "new-secret-new-secret"]}}
    }
    after = {"sources": {"api": {"adapter": "browser_tag", "secrets": ["new-secret-new-secret"]}}}

    async def opened(served: Served) -> tuple[bool, bool]:
        found = []
        for secret in ("old-secret-old-secret", "new-secret-new-secret"):
            headers = {"Authorization": f"Bearer {secret}"}
            answer: httpx.Response = await served.client.post("/in/api", content=b"[]", headers=headers)
            found.append(answer.status_code != 401)
        return found[0], found[1]

    async def scenario(served: Served) -> None:
        assert await opened(served) == (True, False)
        for config, expected in ((both, (True, True)), (after, (False, True))):
            parts = assemble(configuration.parse(complete(config), tmp_path / "gateway.toml"), None)
            served.gateway._wiring = served.gateway._wire(parts)
            assert await opened(served) == expected

    play(tmp_path, scenario, base)
