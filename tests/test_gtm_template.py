"""The Tag Manager template: its layout, and its sandboxed code, run by Node against stubs of the documented APIs."""

import asyncio
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.gtm import GtmAdapter
from adapters.gtm.options import Options
from gateway import Event, Hit, Key, Secret, Source
from gateway.testing import running

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "adapters" / "gtm" / "template.tpl"
RUNNER = Path(__file__).parent / "gtm_template" / "run.js"
#: The order in which Tag Manager's template editor exports the sections.
SECTIONS = (
    "TERMS_OF_SERVICE", "INFO", "TEMPLATE_PARAMETERS", "SANDBOXED_JS_FOR_SERVER", "SERVER_PERMISSIONS", "TESTS",
    "NOTES",
)  # fmt: skip
#: API → the permission that it needs, None for those that need none. Source: Tag Manager's documentation of the
#: server-side APIs and permissions (developers.google.com/tag-platform/tag-manager/server-side), read 2026-11.
PERMISSION_OF = {
    "JSON": None,
    "getAllEventData": "read_event_data",
    "getContainerVersion": "read_container_data",
    "getCookieValues": "get_cookies",
    "getRequestHeader": "read_request",
    "getType": None,
    "logToConsole": "logging",
    "makeInteger": None,
    "makeString": None,
    "sendHttpRequest": "send_http",
}
#: What Tag Manager itself puts into ``data``.
GIVEN = {"gtmOnSuccess", "gtmOnFailure"}
SECRET = "a-secret-of-the-test"
AGENT = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"
PURCHASE: dict[str, Any] = {
    "event_name": "purchase",
    "event_id": "page-id-1",
    "client_id": "111.222",
    "ip_override": "8.8.8.8",
    "user_agent": AGENT,
    "page_location": "https://shop.example.com/thanks",
    "transaction_id": "T-77",
    "value": 0,
    "currency": "EUR",
    "items": [{"item_id": "sku-1", "item_name": "Cup", "price": 12.5, "quantity": 2}],
    "user_data": {"email_address": "ada@example.com", "address": [{"city": "Vienna", "country": "AT"}]},
    "x-ga-gcs": "G111",
    "x-ga-gcd": "13l3l3l3l1",
    "x-ga-measurement_id": "G-EXAMPLE",
    "x-ga-page_id": 4711,
    "x-ga-mp2-user_properties": {"tier": "gold"},
    "x-sst-system_properties": {"request_start_time_ms": 1},
    "common_cookie": {"_ga": "GA1.1.111.222", "_fbp": "fb.1.2.3"},
}
SETTINGS: dict[str, Any] = {
    "url": "https://tags.example.com/in/gtm",
    "secret": SECRET,
    "sendCookie": True,
    "previewIsTest": True,
    "sendGpc": True,
    "timeoutMs": "5000",
    "logs": "all",
}


def sections() -> dict[str, str]:
    """Return the text of each section, in the order of the file."""
    parts = re.split(r"^___([A-Z_]+)___$", TEMPLATE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert parts[0] == ""
    assert len(set(parts[1::2])) == len(parts[1::2]), "a section stands there twice"
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


CODE = sections()["SANDBOXED_JS_FOR_SERVER"]


def plain(value: dict[str, Any]) -> Any:
    """Return what a permission's typed value says: 1 text, 2 list, 3 map, 8 boolean."""
    match value["type"]:
        case 1:
            return value["string"]
        case 2:
            return [plain(item) for item in value["listItem"]]
        case 3:
            pairs = zip(value["mapKey"], value["mapValue"], strict=True)
            return {plain(key): plain(inner) for key, inner in pairs}
        case 8:
            return value["boolean"]
        case other:
            raise AssertionError(f"type {other}")


def kept() -> list[str]:
    """Return the parameters of Google that the code sends."""
    found = re.search(r"const KEPT = \[(.*?)\];", CODE, re.DOTALL)
    assert found is not None
    return re.findall(r"'([^']+)'", found[1])


def permissions() -> dict[str, dict[str, Any]]:
    """Return the parameters of each permission by its name."""
    found = {}
    for entry in json.loads(sections()["SERVER_PERMISSIONS"]):
        instance = entry["instance"]
        assert entry["isRequired"] is True
        assert instance["key"]["versionId"] == "1"
        found[instance["key"]["publicId"]] = {item["key"]: plain(item["value"]) for item in instance["param"]}
    return found


def parameters() -> dict[str, dict[str, Any]]:
    """Return every parameter by its name, those in groups too."""
    found: dict[str, dict[str, Any]] = {}

    def collect(items: list[dict[str, Any]]) -> None:
        for item in items:
            assert item["name"] not in found
            if item["type"] == "GROUP":
                collect(item["subParams"])
            else:
                found[item["name"]] = item

    collect(json.loads(sections()["TEMPLATE_PARAMETERS"]))
    return found


def node(given: dict[str, Any]) -> dict[str, Any]:
    """Run the harness."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed: the sandboxed code of the Tag Manager template was not run")
    allowed = permissions()
    if "read_request" in allowed:
        rows = allowed["read_request"]["headerWhitelist"]
        allowed["read_request"]["headerWhitelist"] = [row["headerName"] for row in rows]
    text = json.dumps({"code": CODE, "permissions": allowed, **given})
    done = subprocess.run([program, str(RUNNER)], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def fired(event: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    """Fire the tag once; returns what it did."""
    seen = node({"data": SETTINGS | (settings or {}), "eventData": PURCHASE if event is None else event, **given})
    assert seen["error"] is None
    return seen


def posted(seen: dict[str, Any]) -> dict[str, Any]:
    (request,) = seen["requests"]
    body: dict[str, Any] = json.loads(request["body"])
    return body


def normalized(seen: dict[str, Any]) -> Event:
    """Hand what was posted to the real adapter, headers and all."""
    (request,) = seen["requests"]
    source = Source(
        name="gtm", adapter="gtm", site="shop", destinations=("pinterest",), options=Options(),
        secrets=(Secret(value=SECRET),),
    )  # fmt: skip
    headers = {name.lower(): value for name, value in request["options"]["headers"].items()}
    hit = Hit(source=source, method=request["options"]["method"], headers=headers, body=request["body"].encode())
    adapter = GtmAdapter()
    adapter.verify(hit)
    (event,) = adapter.normalize(hit)
    assert isinstance(event, Event)
    return event


# -- the file


def test_layout() -> None:
    """Each section stands there once, in the editor's order, and says what kind of template it is."""
    found = sections()
    assert tuple(found) == SECTIONS
    info = json.loads(found["INFO"])
    assert (info["type"], info["containerContexts"], info["version"]) == ("TAG", ["SERVER"], 1)
    assert info["displayName"]
    assert info["description"]
    assert info["brand"]["displayName"]
    assert len(info["description"]) <= 200


def test_parameters_are_sound() -> None:
    """Parameters have a known type and a text to show, and a selection starts with one of its items."""
    for name, item in parameters().items():
        assert item["type"] in {"TEXT", "CHECKBOX", "SELECT", "SIMPLE_TABLE"}, name
        assert item.get("displayName") or item.get("checkboxText"), name
        for validator in item.get("valueValidators", ()):
            assert validator["type"] in {"NON_EMPTY", "POSITIVE_NUMBER", "REGEX"}, name
        if item["type"] == "SELECT":
            assert item["defaultValue"] in [choice["value"] for choice in item["selectItems"]]


def test_the_code_uses_declared_parameters_only() -> None:
    """Every ``data.X`` is a parameter, and every parameter is used."""
    assert set(re.findall(r"\bdata\.(\w+)", CODE)) - GIVEN == set(parameters())


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://tags.example.com/in/gtm", True),
        ("https://tags.example.com:8443/in/shop_gtm", True),
        ("http://tags.example.com/in/gtm", False),
        ("https://tags.example.com/", False),
        ("tags.example.com/in/gtm", False),
    ],
)
def test_the_url_is_checked(url: str, good: bool) -> None:
    """The editor refuses an address that is not a source's."""
    (pattern,) = [item["args"][0] for item in parameters()["url"]["valueValidators"] if item["type"] == "REGEX"]
    assert bool(re.search(pattern, url)) is good


def test_the_page_describes_the_template() -> None:
    """The page of Tag Manager names every field of the template, and the parameters of Google that are sent."""
    page = (ROOT / "docs" / "gtm.md").read_text(encoding="utf-8")
    for item in parameters().values():
        label = item.get("displayName") or item["checkboxText"].partition(" (")[0]
        assert re.search(rf"^\| (?:[^|]*, )?{re.escape(label)}(?:, [^|]*)? \|", page, re.MULTILINE), label
    for name in kept():
        assert f"`{name}`" in page


def test_what_the_adapter_reads_is_sent() -> None:
    """No parameter of Google that the adapter reads is left out: a lost privacy signal would be a wrong decision."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "adapters" / "gtm").glob("*.py"))
    read = {name.replace("x_ga_", "", 1) for name in re.findall(r'"(x_ga_\w+)"', text)}
    assert {"gcs", "mp1_ev"} <= read
    sent = {name.removeprefix("x-ga-").replace("-", "_") for name in kept()}
    assert read <= sent


def test_permissions_are_those_of_the_apis() -> None:
    """Each API that the code requires has its permission, and no permission is asked for in vain."""
    required = set(re.findall(r"require\('(\w+)'\)", CODE))
    assert required <= set(PERMISSION_OF), "an API that this test does not know"
    assert {PERMISSION_OF[name] for name in required} - {None} == set(permissions())


def test_permissions_are_narrow() -> None:
    """One cookie and one header may be read, and no more of the request."""
    found = permissions()
    assert found["get_cookies"] == {"cookieAccess": "specific", "cookieNames": ["_epik"]}
    assert found["read_request"] == {
        "requestAccess": "specific", "headersAllowed": True, "headerAccess": "specific",
        "headerWhitelist": [{"headerName": "sec-gpc"}],
    }  # fmt: skip


def test_the_code_is_of_the_sandbox_language() -> None:
    """No syntax that sandboxed JavaScript lacks: it is ECMAScript 5.1 with arrow functions, const and let."""
    bare = re.sub(r"//[^\n]*|'[^'\n]*'", "", CODE)
    words = r"\b(new|this|class|async|await|try|catch|throw|delete|import|export|yield|of|window|document)\b"
    assert re.findall(words, bare) == []
    assert re.findall(r"`|\.\.\.|\?\.|\?\?|\*\*|/[^/\n]+/[gimsuy]*\.", bare) == []


# -- what it sends


def test_a_purchase_is_handed_on() -> None:
    """What is posted is, for our adapter, the whole event: the shopper's, not the tagging server's."""
    seen = fired(cookies={"_epik": ["dj0yCookie"]})
    (request,) = seen["requests"]
    assert request["url"] == "https://tags.example.com/in/gtm"
    assert request["options"] == {
        "method": "POST",
        "timeout": 5000,
        "headers": {"Content-Type": "application/json", "Authorization": f"Bearer {SECRET}"},
    }
    event = normalized(seen)
    assert (event.name, event.source_name, event.id) == ("checkout", "purchase", "page-id-1")
    assert event.keys == (Key(kind="order", value="T-77"),)
    assert (event.client.ip, event.client.user_agent) == ("8.8.8.8", AGENT)
    assert event.source_url == "https://shop.example.com/thanks"
    assert event.click_ids == {"epik": "dj0yCookie"}
    assert (event.user.email, event.user.city, event.user.external_id) == (
        ("ada@example.com",), ("Vienna",), ("111.222",),
    )  # fmt: skip
    assert (str(event.purchase.value), event.purchase.currency, event.purchase.num_items) == ("0", "EUR", 2)
    assert (event.consent.marketing, event.consent.gpc, event.test, event.notes) == (True, None, False, ())
    assert (seen["succeeded"], seen["failed"]) == (1, 0)


def test_google_internals_stay() -> None:
    """Google's own parameters and other vendors' cookies are not sent, but those that the gateway reads are."""
    body = posted(fired())
    assert {name for name in body if name.startswith("x-")} == {"x-ga-gcs", "x-ga-gcd"}
    assert "common_cookie" not in body
    kept = posted(fired({"event_name": "a", "x-ga-mp1-tr": "3", "x-ga-system_properties": {"dbg": "1"}}))
    assert kept == {"event_name": "a", "x-ga-mp1-tr": "3", "x-ga-system_properties": {"dbg": "1"}}


def test_the_cookie_of_the_event_data_wins() -> None:
    """A click id that the client put into the event data is kept, and the request's cookie is not read."""
    event = PURCHASE | {"common_cookie": {"_epik": "dj0yClient", "_ga": "x"}}
    assert posted(fired(event, cookies={"_epik": ["dj0yCookie"]}))["common_cookie"] == {"_epik": "dj0yClient"}


def test_the_cookie_may_be_left_out() -> None:
    """Without the checkbox no cookie is read."""
    seen = fired(settings={"sendCookie": False}, cookies={"_epik": ["dj0yCookie"]})
    assert "common_cookie" not in posted(seen)


def test_settings_win_over_event_data() -> None:
    """Name, id and added fields of the settings replace what the event data say; empty ones do not."""
    rows = [{"name": "email", "value": "bea@example.org"}, {"name": "gpp", "value": ""}, {"name": "", "value": "x"}]
    seen = fired({"event_name": "a", "event_id": "b"}, {"eventName": "lead", "eventId": 42, "fields": rows})
    assert posted(seen) == {"event_name": "lead", "event_id": "42", "email": "bea@example.org"}
    assert normalized(seen).user.email == ("bea@example.org",)
    empty = fired({"event_name": "a", "event_id": "b"}, {"eventName": "", "eventId": ""})
    assert posted(empty) == {"event_name": "a", "event_id": "b"}


@pytest.mark.parametrize(
    ("event", "settings", "marketing"),
    [
        ({}, {}, None),
        ({"x-ga-gcs": "G100"}, {}, False),
        ({"x-ga-gcs": "G111"}, {}, True),
        ({"x-ga-gcs": "G111"}, {"adStorage": "denied"}, False),
        ({"x-ga-gcs": "G111"}, {"adUserData": "denied"}, False),
        ({}, {"adStorage": "granted", "adUserData": "granted"}, True),
        ({"consent_state": {"ad_storage": True, "ad_user_data": False}}, {}, False),
        ({"consent_state": {"ad_storage": True, "ad_user_data": False}}, {"adStorage": "granted"}, False),
        ({"consent_state": {"ad_storage": True}}, {"adStorage": False}, False),
    ],
)
def test_consent(event: dict[str, Any], settings: dict[str, Any], marketing: bool | None) -> None:
    """Consent of the event data is handed on, and a setting replaces the one that it names."""
    assert normalized(fired({"event_name": "purchase", **event}, settings)).consent.marketing is marketing


@pytest.mark.parametrize(
    ("value", "wanted", "gpc"), [("1", True, True), ("1", False, None), ("0", True, None), (None, True, None)]
)
def test_global_privacy_control(value: str | None, wanted: bool, gpc: bool | None) -> None:
    """The browser's header reaches the gateway as the event's own signal."""
    headers = {} if value is None else {"sec-gpc": value}
    assert normalized(fired(settings={"sendGpc": wanted}, headers=headers)).consent.gpc is gpc


@pytest.mark.parametrize(("marked", "test"), [(True, True), (False, False)])
def test_preview_is_a_test(marked: bool, test: bool) -> None:
    """Events of the preview mode are tests, unless the setting says otherwise."""
    container = {"previewMode": True, "debugMode": False}
    assert normalized(fired(settings={"previewIsTest": marked}, container=container)).test is test


@pytest.mark.parametrize(("given", "timeout"), [("2500", 2500), (7000, 7000), ("", 5000), (None, 5000), ("x", 5000)])
def test_timeout(given: Any, timeout: int) -> None:
    """The request has a time limit, whatever stands in the field."""
    (request,) = fired(settings={"timeoutMs": given})["requests"]
    assert request["options"]["timeout"] == timeout


def test_spaces_around_settings() -> None:
    """A pasted address or secret may have spaces around it."""
    (request,) = fired(settings={"url": " https://tags.example.com/in/gtm\n", "secret": f" {SECRET} "})["requests"]
    assert request["url"] == "https://tags.example.com/in/gtm"
    assert request["options"]["headers"]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("url", ["http://tags.example.com/in/gtm", "", None])
def test_nothing_is_sent_in_clear(url: str | None) -> None:
    """Without https neither the secret nor the event leaves."""
    seen = fired(settings={"url": url})
    assert (seen["requests"], seen["succeeded"], seen["failed"]) == ([], 0, 1)


# -- what it tells Tag Manager


@pytest.mark.parametrize(
    ("answer", "succeeded", "logged"),
    [
        ({"statusCode": 200}, True, "answered 200"),
        ({"statusCode": 204}, True, "answered 204"),
        ({"statusCode": 302}, False, "answered 302"),
        ({"statusCode": 401}, False, "answered 401"),
        ({"statusCode": 503}, False, "answered 503"),
        ({"reason": "timed_out"}, False, "no answer (timed_out)"),
        ({"reason": "failed"}, False, "no answer (failed)"),
    ],
)
def test_outcome(answer: dict[str, Any], succeeded: bool, logged: str) -> None:
    """Only a 2xx is success; exactly one callback is called, and one line is logged."""
    seen = fired(answer=answer)
    assert (seen["succeeded"], seen["failed"]) == ((1, 0) if succeeded else (0, 1))
    assert seen["logs"] == [f"Tag Gateway: {logged}"]


@pytest.mark.parametrize(
    ("logs", "status", "lines"),
    [("failures", 200, 0), ("failures", 503, 1), ("none", 503, 0), ("all", 200, 1), (None, 503, 1)],
)
def test_log_setting(logs: str | None, status: int, lines: int) -> None:
    """The setting says what is logged."""
    assert len(fired(settings={"logs": logs}, answer={"statusCode": status})["logs"]) == lines


@pytest.mark.parametrize("answer", [{"statusCode": 200}, {"statusCode": 400}, {"reason": "failed"}])
def test_no_secret_is_logged(answer: dict[str, Any]) -> None:
    """Neither the secret nor anything of the event, the answer's body or its headers is logged."""
    if "statusCode" in answer:
        answer = answer | {"body": "ada@example.com", "headers": {"x": SECRET}}
    logged = "\n".join(fired(answer=answer, cookies={"_epik": ["dj0yCookie"]})["logs"])
    assert logged
    for private in (SECRET, "ada@", "page-id-1", "T-77", "dj0y", "8.8.8.8", "shop.example", "tags.example"):
        assert private not in logged


# -- the sandbox, and the template's own tests


@pytest.mark.parametrize(
    "code",
    ["window.x", "Date.now()", "Promise.resolve()", "Math.max(1)", "Object.keys({})", "JSON.parse('1')",
     "console.log(1)", "setTimeout(1)", "globalThis.x", "process.exit()", "[1].flat()", "'a'.padStart(3)",
     "({}).hasOwnProperty('a')", "require('fs')", "require('getCookieValues')('_ga')",
     "require('getRequestHeader')('authorization')"],
)  # fmt: skip
def test_the_sandbox_has_walls(code: str) -> None:
    """The harness refuses what the sandbox refuses: a use of it in the template would fail these tests."""
    assert node({"code": code, "data": {}})["error"] is not None


def test_every_required_api_is_reached() -> None:
    """All APIs are required when the code starts: a missing permission shows at the first event."""
    assert set(fired()["required"]) == set(re.findall(r"require\('(\w+)'\)", CODE))


def test_own_tests() -> None:
    """The scenarios that Tag Manager's editor runs pass here too."""
    given = yaml.safe_load(sections()["TESTS"])
    assert set(given) == {"scenarios", "setup"}
    found = node({"scenarios": given["scenarios"], "setup": given["setup"]})["scenarios"]
    assert len(found) >= 4
    assert [one for one in found if one["error"] is not None] == []


def test_own_tests_can_fail() -> None:
    """The harness reports a scenario that does not hold."""
    given = yaml.safe_load(sections()["TESTS"])
    bad = {"name": "bad", "code": "status = 500;\nrunCode(settings);\nassertApi('gtmOnSuccess').wasCalled();"}
    (found,) = node({"scenarios": [bad], "setup": given["setup"]})["scenarios"]
    assert found["error"] is not None


# -- through the whole gateway


def test_it_reaches_pinterest(tmp_path: Path) -> None:
    """What the tag posts is accepted and delivered with click id, address, browser and hashed e-mail, under its id."""
    (request,) = fired(cookies={"_epik": ["dj0yCookie"]})["requests"]

    async def scenario() -> None:
        config = {"sources": {"gtm": {"adapter": "gtm", "secrets": [SECRET]}}}
        async with running(config, tmp_path) as gateway:
            status, answer = await gateway.post("gtm", request["body"].encode(), request["options"]["headers"])
            assert (status, answer["accepted"]) == (200, 1)
            (event,) = await gateway.delivered(1)
        user = event["user_data"]
        assert (event["event_name"], event["event_id"]) == ("checkout", "page-id-1")
        assert user["em"] == [hashlib.sha256(b"ada@example.com").hexdigest()]
        assert (user["click_id"], user["client_ip_address"]) == ("dj0yCookie", "8.8.8.8")
        assert user["client_user_agent"] == AGENT

    asyncio.run(scenario())
