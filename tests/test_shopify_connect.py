"""``tag-gateway shopify``: subscriptions, pixel and orders against a stand-in of the shop's Admin API."""

import asyncio
import base64
import hmac
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result

from adapters.shopify import WebhookOptions, reconciliation
from adapters.shopify.admin import Admin
from gateway import Answer, CommandContext, CommandFailed, Hit, Secret, Source
from gateway import config as configuration
from gateway.cli import cli
from gateway.errors import ConfigError
from gateway.http import Client
from gateway.runtime import assemble
from tests.harness.processes import Pair
from tests.harness.shopify_admin import SHOP, THROTTLED, TOKEN, ShopifyAdmin

SECRET = "the-apps-client-secret"
URL = "https://tags.example.com"
ADDRESS = f"{URL}/in/shop"
TOPICS = {"ORDERS_CREATE", "ORDERS_PAID", "CHECKOUTS_CREATE", "CUSTOMERS_CREATE", "APP_UNINSTALLED"}
CONFIG = """
[server]
bind = "127.0.0.1:{port}"
[store]
url = "sqlite:///gateway.db"
[sites.shop]
hold_s = 0.0
[sources.shop]
adapter = "shopify"
site = "shop"
secrets = ["%s"]
destinations = ["pinterest"]
[sources.shop.options]
shop = "%s"
%s
[sources.shop_pixel]
adapter = "shopify_pixel"
site = "shop"
allowed_origins = ["https://shop.example.com", "null"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "549000000001"
token = "sandbox-token"
base_url = "{sandbox}"
linger_s = 0.02
"""


def config_text(admin: ShopifyAdmin, options: str = f'admin_token = "{TOKEN}"') -> str:
    """Return a configuration whose shop is the stand-in."""
    return CONFIG % (SECRET, SHOP, f'{options}\nadmin_base_url = "{admin.url}"')


@pytest.fixture
def admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShopifyAdmin]:
    """Run the stand-in, with a configuration for it where commands look for one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAG_GATEWAY_CONFIG", raising=False)
    with ShopifyAdmin() as shop:
        write(shop)
        yield shop


def write(admin: ShopifyAdmin, options: str = f'admin_token = "{TOKEN}"') -> None:
    """Write ``gateway.toml`` for commands that find no server."""
    text = config_text(admin, options).replace("{port}", "0").replace("{sandbox}", "http://127.0.0.1:9/v5")
    Path("gateway.toml").write_text(text)


def invoke(*arguments: str) -> Result:
    """Run a command; its output never has a secret in it."""
    result = CliRunner().invoke(cli, list(arguments))
    assert TOKEN not in result.output + str(result.exception)
    assert SECRET not in result.output + str(result.exception)
    return result


def connect(*more: str) -> Result:
    """Run ``shopify connect``."""
    return invoke("shopify", "connect", "--source", "shop", "--url", URL, *more)


def states(result: Result) -> dict[str, str]:
    """Return the state of each line of the table."""
    rows = [line.split("  ") for line in result.output.splitlines() if "  " in line]
    return {row[0]: row[1] for row in rows}


# -- connect


def test_missing_topics_are_made_once(admin: ShopifyAdmin) -> None:
    """The first run makes every topic the adapter maps, the second changes nothing."""
    first = connect()
    assert first.exit_code == 0, first.output
    assert admin.topics() == dict.fromkeys(TOPICS, ADDRESS)
    assert states(first)["orders/create"] == "created"
    made = len(admin.subscriptions)
    second = connect()
    assert second.exit_code == 0
    assert {state for name, state in states(second).items() if name != "web pixel"} == {"ok"}
    assert len(admin.subscriptions) == made
    assert "customers/redact" in first.output


def test_what_shopify_deleted_is_made_again(admin: ShopifyAdmin) -> None:
    """A topic that Shopify deleted after failures is the only one to be made anew."""
    connect()
    admin.subscriptions = [one for one in admin.subscriptions if one["topic"] != "ORDERS_PAID"]
    admin.calls.clear()
    result = connect()
    assert states(result)["orders/paid"] == "created"
    assert admin.calls.count("webhookSubscriptionCreate") == 1
    assert admin.topics().keys() == TOPICS


@pytest.mark.parametrize("flag", ["--check", "--dry-run"])
def test_a_check_changes_nothing(admin: ShopifyAdmin, flag: str) -> None:
    """``--check`` tells what is missing by exit code 1, and by 0 that nothing is."""
    result = connect(flag)
    assert result.exit_code == 1
    assert states(result)["orders/create"] == "missing"
    assert admin.subscriptions == []
    assert admin.pixel is None
    connect()
    admin.calls.clear()
    assert connect(flag).exit_code == 0
    assert set(admin.calls) == {"webhookSubscriptions", "webPixel"}


def test_a_moved_gateway_moves_its_subscriptions(admin: ShopifyAdmin) -> None:
    """The same path on the old host is updated; a subscription of something else of the app's is left alone."""
    admin.add("ORDERS_CREATE", "https://old.example.com/in/shop")
    admin.add("ORDERS_PAID", "https://erp.example.com/hooks/paid")
    check = connect("--check")
    assert states(check)["orders/create"] == "old address"
    assert check.exit_code == 1
    result = connect()
    assert result.exit_code == 0
    assert states(result)["orders/create"] == "updated"
    assert "old.example.com" in result.output
    assert states(result)["orders/paid"] == "created"
    uris = [one["uri"] for one in admin.subscriptions if one["topic"] == "ORDERS_PAID"]
    assert uris == ["https://erp.example.com/hooks/paid", ADDRESS]
    assert [one["uri"] for one in admin.subscriptions if one["topic"] == "ORDERS_CREATE"] == [ADDRESS]


def test_xml_is_no_format_for_us(admin: ShopifyAdmin) -> None:
    """A subscription of the right address in another format is mended; a narrowed one is pointed out."""
    admin.add("ORDERS_CREATE", ADDRESS, format="XML")
    admin.add("ORDERS_PAID", ADDRESS, includeFields=["id"])
    result = connect()
    assert states(result)["orders/create"] == "updated"
    assert admin.subscriptions[0]["format"] == "JSON"
    assert "narrowed by includeFields" in result.output


def test_every_page_of_subscriptions_is_read(admin: ShopifyAdmin) -> None:
    """A subscription on the second page is not made a second time."""
    admin.page = 2
    connect()
    made = len(admin.subscriptions)
    assert connect().exit_code == 0
    assert len(admin.subscriptions) == made == len(TOPICS)


def test_one_refused_topic_does_not_stop_the_others(admin: ShopifyAdmin) -> None:
    """Shopify's reason stands in the topic's line, the rest is made, and the exit code says that something is left."""
    admin.refusals["CUSTOMERS_CREATE"] = "You do not have permission to create webhooks with customers/create"
    result = connect()
    assert result.exit_code == 1
    assert states(result)["customers/create"] == "refused"
    assert "You do not have permission" in result.output
    assert admin.topics().keys() == TOPICS - {"CUSTOMERS_CREATE"}


def test_event_names_choose_topics(admin: ShopifyAdmin) -> None:
    """A topic that the configuration drops is not asked for, one that it maps is."""
    text = Path("gateway.toml").read_text()
    names = '[sources.shop.event_names]\n"checkouts/create" = ""\n"orders/fulfilled" = "custom"\n[sources.shop_pixel]'
    Path("gateway.toml").write_text(text.replace("[sources.shop_pixel]", names))
    assert connect().exit_code == 0
    assert admin.topics().keys() == (TOPICS - {"CHECKOUTS_CREATE"}) | {"ORDERS_FULFILLED"}


@pytest.mark.parametrize("url", ["http://tags.example.com", "tags.example.com", "https://tags.example.com/?a=b"])
def test_an_address_that_shopify_cannot_use_is_refused(admin: ShopifyAdmin, url: str) -> None:
    """Shopify delivers to https only; nothing is asked of it."""
    result = invoke("shopify", "connect", "--source", "shop", "--url", url)
    assert result.exit_code == 2
    assert "https" in result.output
    assert admin.calls == []


def test_the_sources_own_address_may_be_given(admin: ShopifyAdmin) -> None:
    """With or without ``/in/NAME`` and a slash, the address is the same."""
    invoke("shopify", "connect", "--source", "shop", "--url", f"{ADDRESS}/")
    assert set(admin.topics().values()) == {ADDRESS}


# -- the web pixel


def test_the_pixel_of_an_app_that_has_one(admin: ShopifyAdmin) -> None:
    """The extension is activated with the pixel source's address, and follows a move."""
    assert states(connect())["web pixel"] == "created"
    assert admin.pixel is not None
    assert json.loads(admin.pixel["settings"]) == {"gateway": f"{ADDRESS}_pixel"}
    assert states(connect())["web pixel"] == "ok"
    moved = invoke("shopify", "connect", "--source", "shop", "--url", "https://new.example.com")
    assert states(moved)["web pixel"] == "updated"
    assert json.loads(admin.pixel["settings"]) == {"gateway": "https://new.example.com/in/shop_pixel"}


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("may_pixel", False, "write_pixels"),
        ("has_extension", False, "No extension found; use the custom pixel"),
        ("pixel", {"id": "1", "settings": '{"accountID": "7"}'}, "settings of its own"),
    ],
)
def test_an_app_without_a_pixel_is_no_fault(admin: ShopifyAdmin, attribute: str, value: Any, said: str) -> None:
    """Without extension or scope the row points to the custom pixel, and the command succeeds."""
    setattr(admin, attribute, value)
    result = connect()
    assert result.exit_code == 0
    assert states(result)["web pixel"] == "none"
    assert said in result.output
    assert "docs/shopify.md" in result.output
    assert attribute != "pixel" or admin.pixel == value


# -- throttles and refusals


def source(admin: ShopifyAdmin, **options: Any) -> Source:
    """Return the source as commands get it."""
    given = {"shop": SHOP, "admin_token": Secret(value=TOKEN), "admin_base_url": admin.url, **options}
    return Source(
        name="shop", adapter="shopify", site="shop", destinations=("pinterest",), options=WebhookOptions(**given),
        secrets=(Secret(value="old"), Secret(value=SECRET)),
    )  # fmt: skip


def ask(admin: ShopifyAdmin, **options: Any) -> tuple[Any, list[float]]:
    """Make one query; returns its data and how long was waited."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def run() -> Any:
        client = Client()
        try:
            return await Admin(client, source(admin, **options), sleep).query("query { webPixel { id } }", is_read=True)
        finally:
            await client.close()

    return asyncio.run(run()), waits


def test_throttles_are_waited_out(admin: ShopifyAdmin) -> None:
    """GraphQL's cost, ``Retry-After`` and a failing server each give the wait that they ask for."""
    admin.pixel = {"id": "7", "settings": "{}"}
    admin.faults.extend([THROTTLED, (429, {"Retry-After": "2.0"}, {}), (502, {}, b"<html>")])
    data, waits = ask(admin)
    assert data == {"webPixel": {"id": "7", "settings": "{}"}}
    assert waits == [2.0, 2.0, 1.0]


def test_a_throttle_without_end_is_an_error(admin: ShopifyAdmin) -> None:
    """It gives up after eight calls and says so."""
    admin.faults.extend([THROTTLED] * 8)
    with pytest.raises(CommandFailed, match="still throttles"):
        ask(admin)
    assert admin.calls == ["fault"] * 8


def test_a_shop_that_cannot_be_reached_is_named() -> None:
    """A refused connection is tried again, then named without a secret."""
    gone = ShopifyAdmin()
    with gone:
        url = gone.url
    with pytest.raises(CommandFailed, match=f"{re.escape(url)} gives no usable answer"):
        ask(gone, admin_base_url=url)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "client_id"), (402, "frozen"), (403, "read_orders"), (404, "api_version"), (423, "locked"), (418, "418")],
)
def test_refusals_are_explained(admin: ShopifyAdmin, status: int, remedy: str) -> None:
    """Each status has its remedy, exit code 1, and no traceback."""
    admin.faults.append((status, {}, {"errors": "secret words of the answer"}))
    result = connect()
    assert isinstance(result.exception, CommandFailed)
    assert remedy in str(result.exception)
    assert "secret words" not in str(result.exception)


def test_a_denied_query_names_the_scope(admin: ShopifyAdmin) -> None:
    """GraphQL's own words name the missing scope."""
    admin.may_pixel = False
    with pytest.raises(CommandFailed, match="read_pixels"):
        ask(admin)


def test_another_server_is_recognised(admin: ShopifyAdmin) -> None:
    """HTML in place of JSON is no crash."""
    admin.faults.append((200, {}, b"<html>"))
    with pytest.raises(CommandFailed, match="not JSON"):
        ask(admin)


# -- tokens and options


def test_an_app_of_the_dev_dashboard_gets_its_token(admin: ShopifyAdmin) -> None:
    """With ``client_id`` the source's secrets are tried as the app's client secret, and the token is asked for once."""
    admin.client = ("app-1", SECRET)
    admin.pixel = {"id": "7", "settings": "{}"}
    assert ask(admin, admin_token=None, client_id="app-1")[0]
    assert admin.calls == ["token", "token", "webPixel"]


def test_wrong_client_credentials_are_explained(admin: ShopifyAdmin) -> None:
    """The remedy names the option, not the secret."""
    write(admin, 'client_id = "app-1"')
    result = connect()
    assert "client_id of [sources.shop.options] (HTTP 400)" in str(result.exception)


def test_a_token_is_needed(admin: ShopifyAdmin) -> None:
    """Without any the message says which option to set."""
    write(admin, "")
    assert "admin_token = { env" in str(connect().exception)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ('api_version = "2024-07"', "api_version"),
        ('api_version = "2026-11"', "api_version"),
        ('admin_base_url = "http://shop.example.com"', "admin_base_url must use https"),
        ("admin_token = 7", "admin_token must be"),
        ('admin_token = { env = "NO_SUCH_TOKEN" }', "NO_SUCH_TOKEN is not set"),
        ('admin_token = { enw = "X" }', "did you mean 'env'"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: str, said: str) -> None:
    """Options are checked at start, and a token is never sent in clear over the network."""
    path = tmp_path / "gateway.toml"
    path.write_text(
        (CONFIG % (SECRET, SHOP, options)).replace("{port}", "0").replace("{sandbox}", "http://127.0.0.1/v5")
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        assemble(configuration.load(path), None)


def test_a_secret_option_is_read_like_any_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment it is silent, in the file it is warned about; in both cases it hides itself."""
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    for given, warnings in (('{ env = "SHOP_TOKEN" }', 0), (f'"{TOKEN}"', 1)):
        path = tmp_path / "gateway.toml"
        text = CONFIG % (SECRET, SHOP, f"admin_token = {given}")
        path.write_text(text.replace("{port}", "0").replace("{sandbox}", "http://127.0.0.1/v5"))
        parts = assemble(configuration.load(path), None)
        found = parts.routes["shop"].source
        assert found.options.admin_token.value == TOKEN
        assert TOKEN not in repr(found)
        assert sum("[sources.shop.options] admin_token" in warning for warning in parts.warnings) == warnings


# -- reconcile

NOW = datetime.now(UTC)


def order(number: int, **more: Any) -> dict[str, Any]:
    """Return an order of an hour ago."""
    moment = (NOW - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "id": 7_000_000_000_000 + number,
        "admin_graphql_api_id": f"gid://shopify/Order/{7_000_000_000_000 + number}",
        "checkout_token": f"chk-{number}",
        "created_at": moment,
        "updated_at": moment,
        "currency": "USD",
        "subtotal_price": "40.00",
        "email": f"buyer{number}@example.com",
        "source_name": "web",
        "line_items": [{"product_id": 71, "price": "20.00", "quantity": 2}],
        **more,
    }


def numbers(output: str) -> dict[str, int]:
    """Return the last line of numbers of ``shopify reconcile``."""
    line = next(line for line in reversed(output.splitlines()) if line.startswith("read "))
    return {name: int(number) for name, number in re.findall(r"(\w+) (\d+)", line)}


def test_reconcile_beside_a_running_gateway(admin: ShopifyAdmin, tmp_path: Path) -> None:
    """
    What webhook or pixel brought is a duplicate, what was lost is sent, the adapter's rules hold; then all is known.
    """
    admin.orders = [
        *(order(number) for number in range(1, 6)),
        order(6, cancelled_at="2026-11-22T06:00:00Z"),
        order(7, test=True),
        order(8, updated_at="2020-01-01T00:00:00Z"),
    ]
    with Pair(tmp_path, config_text(admin)) as pair:
        told_by_webhook(pair.gateway.port, admin.orders[0])
        told_by_pixel(pair.gateway.port, "chk-2", admin.orders[1]["id"])
        pair.gateway.drain()
        first = invoke(
            "shopify", "reconcile", "--source", "shop", "--page-size", "3", "--config", str(pair.gateway.config)
        )
        assert first.exit_code == 0, (first.output, first.exception)
        read = {"read": 7, "merged": 0, "rejected": 0}
        assert numbers(first.output) == {**read, "accepted": 3, "duplicate": 2, "dropped": 2}
        assert "dropped: cancelled 1" in first.output
        assert "dropped: test 1" in first.output
        assert admin.calls.count("orders.json") == 3
        pair.gateway.drain()
        second = invoke("shopify", "reconcile", "--source", "shop", "--config", str(pair.gateway.config))
        assert numbers(second.output) == {**read, "accepted": 0, "duplicate": 5, "dropped": 2}
        orders = [event["custom_data"]["order_id"] for event in pair.sandbox.events(20)]
        assert sorted(orders) == [str(7_000_000_000_000 + number) for number in range(1, 6)]
        assert set(pair.sandbox.ids().values()) == {1}


def told_by_webhook(port: int, told: dict[str, Any]) -> None:
    """Deliver an order as Shopify does."""
    body = json.dumps(told).encode()
    signature = base64.b64encode(hmac.digest(SECRET.encode(), body, "sha256")).decode()
    headers = {"X-Shopify-Topic": "orders/create", "X-Shopify-Shop-Domain": SHOP, "X-Shopify-Hmac-Sha256": signature}
    answer = httpx.post(f"http://127.0.0.1:{port}/in/shop", content=body, headers=headers, trust_env=False)
    assert answer.json()["accepted"] == 1, answer.text


def told_by_pixel(port: int, token: str, number: int) -> None:
    """Tell of a checkout as the shop's pixel does."""
    checkout = {
        "token": token, "currencyCode": "USD", "email": "buyer2@example.com", "order": {"id": str(number)},
        "subtotalPrice": {"amount": 40.0},
    }  # fmt: skip
    event = {
        "id": "sh-2", "name": "checkout_completed", "clientId": "c-2", "data": {"checkout": checkout},
        "timestamp": NOW.isoformat(), "context": {"navigator": {"userAgent": "Mozilla/5.0 Firefox/140.0"}},
    }  # fmt: skip
    answer = httpx.post(
        f"http://127.0.0.1:{port}/in/shop_pixel", json=event, headers={"Origin": "null"}, trust_env=False
    )
    assert answer.json()["accepted"] == 1, answer.text


def test_reconcile_without_a_gateway_keeps_the_orders(admin: ShopifyAdmin) -> None:
    """When none runs, orders wait in the store; a second run meets them there and adds none."""
    admin.orders = [order(1), order(2)]
    first = invoke("shopify", "reconcile", "--source", "shop", "--since", "3d")
    assert numbers(first.output)["accepted"] == 2, (first.output, first.exception)
    second = invoke("shopify", "reconcile", "--source", "shop", "--since", "3d")
    known = numbers(second.output)
    assert known["accepted"] == 0
    assert known["merged"] + known["duplicate"] == 2


def test_paid_orders_only(admin: ShopifyAdmin) -> None:
    """With ``--topic orders/paid`` Shopify is asked for paid orders."""
    admin.orders = [order(1, financial_status="paid"), order(2, financial_status="pending")]
    result = invoke("shopify", "reconcile", "--source", "shop", "--topic", "orders/paid")
    assert numbers(result.output)["read"] == 1


def test_a_terminal_gets_tables_and_a_bar(admin: ShopifyAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal both commands draw; the bar knows from Shopify how many orders there are."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    admin.orders = [order(1), order(2)]
    result = invoke("shopify", "reconcile", "--source", "shop")
    assert "2/2" in result.output, result.exception
    assert "orders/count.json" in admin.calls
    assert "created" in connect().output


def test_an_unusable_span_is_refused(admin: ShopifyAdmin) -> None:
    """``--since`` says what it takes."""
    result = invoke("shopify", "reconcile", "--source", "shop", "--since", "yesterday")
    assert result.exit_code == 2
    assert "30m, 2h, 3d" in result.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", "2026-11-22T07:30:00Z"),
        ("2h", "2026-11-22T06:00:00Z"),
        ("3d", "2026-11-19T08:00:00Z"),
        ("2026-11-21", "2026-11-21T00:00:00Z"),
        ("2026-11-21T10:00:00+02:00", "2026-11-21T08:00:00Z"),
    ],
)
def test_spans_and_dates(text: str, expected: str) -> None:
    """A span counts back from now; a date without a zone is UTC."""
    assert reconciliation.since(text, datetime(2026, 11, 22, 8, tzinfo=UTC).timestamp()) == expected


class Stubbed(CommandContext):
    """A command's context whose gateway answers as scripted."""

    def __init__(self, http: Client, *answers: Answer) -> None:
        super().__init__(configuration.parse({}, Path("gateway.toml")), http, AsyncExitStack())
        self.answers = list(answers)
        self.hits: list[Hit] = []

    async def submit(self, hit: Hit) -> Answer:
        """Give the next answer; the last one again and again."""
        self.hits.append(hit)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def answered(status: int, body: Any, **headers: str) -> Answer:
    """Return an answer of the gateway."""
    return Answer(status=status, headers=headers, body=msgspec.json.encode(body))


ACCEPTED = answered(200, {"events": [{"event_id": "x", "outcome": "accepted", "reason": None}]})


def reconciled(admin: ShopifyAdmin, *answers: Answer) -> tuple[reconciliation.Count, Stubbed, list[float]]:
    """Reconcile against a scripted gateway; returns the count, the context, and how long was waited."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def run() -> tuple[reconciliation.Count, Stubbed]:
        client = Client()
        context = Stubbed(client, *answers)
        query = reconciliation.selection("2026-01-01T00:00:00Z", "orders/create")
        try:
            count = await reconciliation.reconcile(context, source(admin), query, "orders/create", sleep=sleep)
        finally:
            await client.close()
        return count, context

    count, context = asyncio.run(run())
    return count, context, waits


def test_bodies_keep_every_byte(admin: ShopifyAdmin) -> None:
    """Each order is handed over as Shopify wrote it, large numbers included, signed with the source's own secret."""
    admin.orders = [order(1, id=9_007_199_254_740_993)]
    _, context, _ = reconciled(admin, ACCEPTED)
    (hit,) = context.hits
    assert b'"id": 9007199254740993' in hit.body
    assert hit.headers["x-shopify-hmac-sha256"] == base64.b64encode(hmac.digest(b"old", hit.body, "sha256")).decode()


def test_a_busy_gateway_is_waited_for(admin: ShopifyAdmin) -> None:
    """503 is tried again after ``Retry-After``; an order that cannot be read is counted as rejected."""
    admin.orders = [order(1), order(2)]
    busy = answered(503, {"error": {}}, **{"retry-after": "7"})
    count, _, waits = reconciled(admin, busy, ACCEPTED, answered(400, {"error": {"code": "not_an_object"}}))
    assert waits == [7.0]
    assert dict(count.fates) == {"accepted": 1, "rejected": 1}


@pytest.mark.parametrize(("status", "said"), [(401, "reload"), (404, "reload"), (503, "too busy")])
def test_a_gateway_that_refuses_stops_the_run(admin: ShopifyAdmin, status: int, said: str) -> None:
    """The message says what to do, and that a second run does no harm."""
    admin.orders = [order(1)]
    with pytest.raises(CommandFailed, match=said):
        reconciled(admin, answered(status, {"error": {}}))


def test_a_page_that_names_itself_ends_the_run(admin: ShopifyAdmin) -> None:
    """A cursor that does not move is an error, not an endless loop."""
    link = {"Link": f'<https://{SHOP}/orders.json?page_info=same>; rel="next"'}
    admin.faults.extend([(200, link, {"orders": []})] * 2)
    with pytest.raises(CommandFailed, match="same page"):
        reconciled(admin, ACCEPTED)


def test_what_is_no_list_of_orders_is_refused(admin: ShopifyAdmin) -> None:
    """A proxy's JSON is no list of orders."""
    admin.faults.append((200, {}, {"ok": True}))
    with pytest.raises(CommandFailed, match="no list of orders"):
        reconciled(admin, ACCEPTED)
