"""tag.js, pixel.js and a whole purchase in a real browser: Debian's chromium, headless, on loopback."""

import base64
import hashlib
import hmac
import json
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from adapters.shopify import PixelOptions, ShopifyPixelAdapter
from adapters.shopify.customer_event import _NAMES
from gateway import Event, Hit, Source, User
from tests.harness.pages import CLIENT_IP, Collector, ReverseProxy, Site
from tests.harness.processes import ACCOUNT, Pair, say, until

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("chromium is not installed: make system", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test")

ROOT = Path(__file__).parents[1]
TAG = (ROOT / "gateway/plugins/browser_tag/tag.js").read_text("utf-8")
PIXEL = (ROOT / "adapters/shopify/pixel.js").read_text("utf-8")
SHOP = ROOT / "tests/browser"
STUB = "window.tg = window.tg || function () { (tg.q = tg.q || []).push(arguments); };\n"
PINTRK = "window.calls = []; window.pintrk = function () { calls.push([].slice.call(arguments)); };\n"
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP *.test 127.0.0.1,MAP *.co.uk 127.0.0.1",
]  # fmt: skip
#: What the page does is noted before it does it, so that a test knows what was not sent without waiting for it.
WATCH = """
(() => {
  window.violations = [];
  addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective + ' ' + e.blockedURI));
  window.sent = [];
  const beacon = navigator.sendBeacon.bind(navigator), get = window.fetch.bind(window);
  navigator.sendBeacon = (...given) => { sent.push('beacon'); return beacon(...given); };
  window.fetch = (...given) => { sent.push('fetch'); return get(...given); };
})();
"""


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    """One browser for all tests; each test has its own cookies."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Stage:
    """One page with the tag, and what it sent."""

    def __init__(self, chrome: Any, **page: Any) -> None:
        self._chrome = chrome
        self._page = page
        self._open = ExitStack()
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self.tags = self._open.enter_context(Collector(self._page.pop("script", TAG)))
        self.site = self._open.enter_context(Site(self._origin("tags"), {}, self._page.pop("headers", None)))
        self.context = self._chrome.new_context()
        self._open.callback(self.context.close)
        self.context.add_init_script(WATCH + self._page.pop("init", ""))
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.visit(**self._page)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                assert self.page.evaluate("violations") == []
                assert self.errors == []
        finally:
            self._open.close()

    def _origin(self, name: str) -> str:
        port = self.tags.port if name == "tags" else self.site.port
        domain = self._page.get("domain")
        return f"http://{name}.{domain}:{port}" if domain else f"http://127.0.0.1:{port}"

    def visit(
        self, *, path: str = "/", before: str = "", after: str = "", attributes: str = "", domain: str = ""
    ) -> None:
        """Open the page: ``before`` and ``after`` run on their side of the tag; ``domain`` is the site's own."""
        tag = f'<script src="{self._origin("tags")}/in/tag/tag.js" {attributes}></script>'
        scripts = f'<script src="/before.js"></script>{tag}<script src="/after.js"></script>'
        self.site.files = {
            "/": ("text/html", f'<!doctype html><html lang="en"><link rel="icon" href="data:,">{scripts}'),
            "/before.js": ("text/javascript", before),
            "/after.js": ("text/javascript", after),
        }
        self.page.goto(f"{self._origin('www')}{path}")

    def cookies(self) -> dict[str, str]:
        """Return every cookie by name; a name that is there twice is an error."""
        found = self.context.cookies()
        assert len({one["name"] for one in found}) == len(found), found
        return {one["name"]: one["value"] for one in found}

    def wait_for_cookies(self, **wanted: str | None) -> None:
        """Wait until these are all cookies, None for any value: the browser's jar gets them a little later."""

        def there() -> bool:
            found = self.cookies()
            return found.keys() == wanted.keys() and all(wanted[name] in (None, found[name]) for name in found)

        until(there, 10, f"the cookies are {sorted(wanted)}", 0.02)

    @property
    def sent(self) -> list[str]:
        """How the page's hits were sent so far."""
        found: list[str] = self.page.evaluate("sent")
        return found


def epik(made_at: int, mark: str = "a") -> str:
    """Return a click id in Pinterest's form."""
    stamp = base64.urlsafe_b64encode(struct.pack(">Q", made_at)).decode().rstrip("=")
    text = f"v=2&u={mark * 32}&p=1&n={mark * 22}&t={stamp}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


# -- calls


def test_a_visit_is_sent_by_itself(chrome: Any) -> None:
    """Without a call the page's visit arrives: id, time, URL, language and client, as text without preflight."""
    with Stage(chrome) as stage:
        (event,) = stage.tags.wait(1)
        assert event["event_name"] == "page_visit"
        assert len(event["event_id"]) == 36
        assert abs(event["event_time"] - time.time()) < 60
        assert event["sent_at"] >= event["event_time"]
        assert event["event_source_url"] == stage.page.url
        assert event["language"] == "en"
        stage.wait_for_cookies(_tgid=event["client_id"])
        assert not event.keys() & {"tag", "consent", "user", "click_id"}
        assert stage.sent == ["beacon"]
        assert stage.tags.preflights == 0
        assert stage.tags.headers[0]["content-type"].startswith("text/plain")


def test_early_calls_are_replayed_in_order(chrome: Any) -> None:
    """Calls before the tag came keep their order; the visit goes first and knows who was named before it."""
    early = (
        STUB + "tg('user', {email: 'jo@example.com'}); tg('add_to_cart', {value: 5}); tg('checkout', {order_id: '1'});"
    )
    with Stage(chrome, before=early, after="tg('search', {search_string: 'mug'});") as stage:
        events = {event["event_name"]: event for event in stage.tags.wait(4)}
        assert list(events) == ["page_visit", "add_to_cart", "checkout", "search"] or stage.sent == ["beacon"] * 4
        assert all(event["user"] == {"email": "jo@example.com"} for event in events.values())
        assert len({event["event_id"] for event in events.values()}) == 4
        assert stage.page.evaluate("tg.loaded")


def test_the_order_of_early_calls_is_seen_by_pinterests_tag(chrome: Any) -> None:
    """Requests may overtake each other, calls do not: what pintrk saw is the order of the page's calls."""
    early = PINTRK + STUB + "tg('add_to_cart'); tg('checkout'); tg('lead');"
    with Stage(chrome, before=early) as stage:
        names = [call[1] for call in stage.page.evaluate("calls")]
        assert names == ["pagevisit", "addtocart", "checkout", "lead"]


@pytest.mark.parametrize("name", ["page_visit", "PageVisit", "page visit"])
def test_the_pages_own_visit_is_the_only_one(chrome: Any, name: str) -> None:
    """A page that tells of its visit itself, in any spelling, does not count twice."""
    with Stage(chrome, before=f"{STUB}tg('{name}', {{content_name: 'Mug'}}); tg('lead');") as stage:
        events = stage.tags.wait(2)
        assert sorted(event["event_name"] for event in events) == sorted([name, "lead"])


def test_the_visit_can_be_switched_off(chrome: Any) -> None:
    """data-page-visit="off": nothing is sent before the first call."""
    with Stage(chrome, attributes='data-page-visit="off"') as stage:
        assert stage.sent == []
        stage.page.evaluate("tg('lead', {event_id: 'mine', event_time: 1700000000})")
        (event,) = stage.tags.wait(1)
        assert (event["event_name"], event["event_id"], event["event_time"]) == ("lead", "mine", 1700000000)


@pytest.mark.parametrize("nothing", ["undefined", "null", "''"])
def test_an_empty_id_is_no_id(chrome: Any, nothing: str) -> None:
    """A page that has no id at hand gets one, and Pinterest's tag the same."""
    after = f"tg('checkout', {{event_id: {nothing}, order_id: '1'}});"
    with Stage(chrome, before=PINTRK, after=after, attributes='data-page-visit="off"') as stage:
        (event,) = stage.tags.wait(1)
        assert len(event["event_id"]) == 36
        assert [call[2]["event_id"] for call in stage.page.evaluate("calls")] == [event["event_id"]]


def test_nonsense_breaks_no_page(chrome: Any) -> None:
    """Wrong calls, a pintrk that raises and forbidden cookies cost nothing but themselves."""
    broken = """
      window.pintrk = function () { throw new Error('theirs'); };
      Object.defineProperty(document, 'cookie', { get() { throw new Error('no'); }, set() { throw new Error('no'); } });
    """
    after = "tg(); tg(null); tg(7, 7); tg({}); tg('user'); tg('user', null); tg('consent', null); tg('lead', 'text');"
    with Stage(chrome, before=broken, after=after, path="/?epik=%E0%A4%A") as stage:
        events = stage.tags.wait(2)
        assert {event["event_name"] for event in events} == {"page_visit", "lead"}
        assert not any("tag" in event for event in events)


def test_loaded_twice_is_loaded_once(chrome: Any) -> None:
    """Two copies of the snippet do not count a visit twice."""
    with Stage(chrome) as stage:
        stage.tags.wait(1)
        stage.page.evaluate(TAG.replace("document.currentScript", "document.scripts[1]"))
        assert stage.sent == ["beacon"]


# -- how it is sent


@pytest.mark.parametrize(
    "init",
    ["delete Navigator.prototype.sendBeacon; delete navigator.sendBeacon;", "navigator.sendBeacon = () => false;"],
)
def test_without_a_beacon_fetch_sends(chrome: Any, init: str) -> None:
    """No sendBeacon, or a full one: fetch sends the same, still without a preflight."""
    with Stage(chrome, init=init) as stage:
        (event,) = stage.tags.wait(1)
        assert event["event_name"] == "page_visit"
        assert stage.sent == ["fetch"]
        assert stage.tags.preflights == 0
        assert stage.tags.headers[0]["origin"] == stage.site.url


def test_fetch_can_be_chosen(chrome: Any) -> None:
    """data-send="fetch": the page's origin is told whatever its Referrer-Policy, which a beacon may hide."""
    policy = {"referrer-policy": "no-referrer"}
    with Stage(chrome, headers=policy, attributes='data-send="fetch"') as stage:
        stage.tags.wait(1)
        assert stage.sent == ["fetch"]
        assert stage.tags.headers[0]["origin"] == stage.site.url


# -- Pinterest's own tag


def test_pinterests_tag_gets_the_same_id(chrome: Any) -> None:
    """Pinterest's tag is called with its own names and our id, and the hit says so."""
    items = "[{id: 'mug', name: 'Mug', price: 24, quantity: 2, brand: 'Kiln', category: 'Pots'}]"
    call = f"tg('add_to_cart', {{value: 48, currency: 'USD', num_items: 2, order_id: '7', items: {items}}});"
    with Stage(chrome, before=PINTRK, after=call, attributes='data-page-visit="off"') as stage:
        (event,) = stage.tags.wait(1)
        (call,) = stage.page.evaluate("calls")
        assert event["tag"] is True
        assert call == [
            "track",
            "addtocart",
            {
                "event_id": event["event_id"], "value": 48, "currency": "USD", "order_id": "7", "order_quantity": 2,
                "line_items": [
                    {
                        "product_id": "mug", "product_name": "Mug", "product_price": 24, "product_quantity": 2,
                        "product_brand": "Kiln", "product_category": "Pots",
                    }
                ],
            },
        ]  # fmt: skip


@pytest.mark.parametrize(("name", "theirs"), [("initiate_checkout", "initiatecheckout"), ("my_event", "my_event")])
def test_names_of_pinterests_tag(chrome: Any, name: str, theirs: str) -> None:
    """Standard events have no underscore there; an event of one's own keeps its name."""
    with Stage(chrome, before=PINTRK, after=f"tg('{name}');", attributes='data-page-visit="off"') as stage:
        assert [call[1] for call in stage.page.evaluate("calls")] == [theirs]


def test_pinterests_tag_can_be_left_alone(chrome: Any) -> None:
    """data-pintrk="off": the page fires its own, and the hit does not claim otherwise."""
    with Stage(chrome, before=PINTRK, attributes='data-pintrk="off"') as stage:
        (event,) = stage.tags.wait(1)
        assert stage.page.evaluate("calls") == []
        assert "tag" not in event


# -- consent


def test_nothing_before_consent(chrome: Any) -> None:
    """data-consent="required": no hit, no cookie, no pintrk; then the choice sends what waited, with its own times."""
    early = PINTRK + STUB + "tg('add_to_cart', {event_time: 1700000000});"
    with Stage(
        chrome, path=f"/?epik={epik(1_700_000_000)}", before=early, attributes='data-consent="required"'
    ) as stage:
        assert stage.sent == []
        assert stage.cookies() == {}
        assert stage.page.evaluate("calls") == []
        stage.page.evaluate("tg('consent', true)")
        events = stage.tags.wait(2)
        assert sorted(event["event_name"] for event in events) == ["add_to_cart", "page_visit"]
        assert all(event["consent"] == {"marketing": True} for event in events)
        assert all(event["click_id"] == epik(1_700_000_000) for event in events)
        assert 1_700_000_000 in [event["event_time"] for event in events]
        stage.wait_for_cookies(_epik=epik(1_700_000_000), _tgid=events[0]["client_id"])
        assert len(stage.page.evaluate("calls")) == 2


def test_a_denial_drops_what_waited(chrome: Any) -> None:
    """Denied: what waited is gone, and later calls send nothing either, until the person chooses anew."""
    with Stage(chrome, attributes='data-consent="required"', after="tg('lead');") as stage:
        stage.page.evaluate("tg('consent', false); tg('checkout', {order_id: '1'});")
        assert stage.sent == []
        assert stage.cookies() == {}
        stage.page.evaluate("tg('consent', {marketing: true, sale_of_data: false}); tg('signup');")
        (event,) = stage.tags.wait(1)
        assert event["event_name"] == "signup"
        assert event["consent"] == {"marketing": True, "sale_of_data": False}
        assert stage.cookies() == {}


def test_a_withdrawal_removes_the_cookies(chrome: Any) -> None:
    """Consent may be taken back at any time: nothing of the tag stays."""
    with Stage(chrome, path=f"/?epik={epik(1_700_000_000)}") as stage:
        stage.tags.wait(1)
        stage.wait_for_cookies(_epik=None, _tgid=None)
        stage.page.evaluate("tg('consent', {ad_storage: 'denied'}); tg('lead');")
        assert stage.sent == ["beacon"]
        stage.wait_for_cookies()


def test_an_objects_silence_is_no_choice(chrome: Any) -> None:
    """Only marketing, ad_storage and ad_user_data open the gate; one denial closes it."""
    with Stage(chrome, attributes='data-consent="required"') as stage:
        stage.page.evaluate("tg('consent', {analytics: true})")
        assert stage.sent == []
        stage.page.evaluate("tg('consent', {ad_storage: 'granted', ad_user_data: 'denied'})")
        assert stage.sent == []


def test_global_privacy_control_is_told(chrome: Any) -> None:
    """With GPC the hit says so, Pinterest's tag is limited, and no cookie is written."""
    gpc = "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', { get: () => true });"
    with Stage(chrome, init=gpc, before=PINTRK, path=f"/?epik={epik(1_700_000_000)}") as stage:
        (event,) = stage.tags.wait(1)
        assert event["consent"] == {"gpc": True}
        assert stage.cookies() == {}
        assert "client_id" not in event
        assert [call[:2] for call in stage.page.evaluate("calls")] == [
            ["set", {"opt_out_type": "LDP"}],
            ["track", "pagevisit"],
        ]


# -- the click id


@pytest.mark.parametrize("name", ["epik", "EPIK", "Epik"])
def test_the_click_id_is_kept(chrome: Any, name: str) -> None:
    """The landing page's click id is in the first-party cookie for a year, and in the hits of the next pages."""
    mine = epik(1_700_000_000)
    with Stage(chrome, path=f"/?utm_source=pinterest&{name}={mine}#top") as stage:
        stage.wait_for_cookies(_epik=mine, _tgid=None)
        stage.visit(path="/")
        assert [event["click_id"] for event in stage.tags.wait(2)] == [mine, mine]
        (cookie,) = [one for one in stage.context.cookies() if one["name"] == "_epik"]
        assert (cookie["value"], cookie["path"], cookie["sameSite"]) == (mine, "/", "Lax")
        assert not cookie["httpOnly"]
        assert 364 * 86_400 < cookie["expires"] - time.time() < 366 * 86_400


NEWER, OLDER = epik(1_700_000_500, "n"), epik(1_700_000_000, "o")


@pytest.mark.parametrize(
    ("kept", "given", "winner"),
    [
        (OLDER, NEWER, NEWER),
        (NEWER, OLDER, NEWER),
        (NEWER, NEWER, NEWER),
        ("dj0yJnU9b2xk", NEWER, NEWER),
        (NEWER, "something-else", "something-else"),
        ("something-old", "something-new", "something-new"),
        (NEWER, "", NEWER),
        (NEWER, "a%3B%20Domain%3Devil", NEWER),
        (NEWER, "x" * 1025, NEWER),
    ],
)
def test_a_newer_click_id_is_never_overwritten(chrome: Any, kept: str, given: str, winner: str) -> None:
    """Of cookie and URL the newer one is kept; where one does not say when it was made, the URL's."""
    with Stage(
        chrome, before=f"document.cookie = '_epik={kept}; path=/; max-age=999';", path=f"/?epik={given}"
    ) as stage:
        (event,) = stage.tags.wait(1)
        assert event["click_id"] == winner
        stage.wait_for_cookies(_epik=winner, _tgid=event["client_id"])


@pytest.mark.parametrize("domain", ["shop.test", "shop.co.uk"])
def test_cookies_are_the_whole_sites(chrome: Any, domain: str) -> None:
    """On www the cookies are those of the registrable domain, one of each name; plain http has no randomUUID."""
    mine = epik(1_700_000_000)
    own = "document.cookie = '_epik=old; path=/; max-age=999';"
    with Stage(chrome, domain=domain, path=f"/?epik={mine}", before=own) as stage:
        (event,) = stage.tags.wait(1)
        assert not stage.page.evaluate("isSecureContext")
        assert len(event["event_id"]) == 36
        assert event["event_id"][14] == "4"
        stage.wait_for_cookies(_epik=mine, _tgid=None)
        assert {one["domain"] for one in stage.context.cookies()} == {f".{domain}"}
        stage.page.evaluate("tg('consent', false)")
        stage.wait_for_cookies()


# -- Shopify's custom pixel

#: Shopify's sandbox, as far as its documentation describes what a custom pixel finds.
SANDBOX = """
const subscribers = {}, consentSubscribers = [], jar = %(jar)s, local = {};
const analytics = { subscribe: (name, run) => { (subscribers[name] = subscribers[name] || []).push(run); } };
const browser = {
  cookie: {
    get: async (name) => jar[name] || '',
    set: async (text) => { const [, name, value] = /^([^=]+)=([^;]*)/.exec(text); jar[name] = value; },
  },
  localStorage: { getItem: async (name) => local[name] || null, setItem: async (n, v) => { local[n] = v; } },
};
const init = {
  context: { document: { location: { href: %(url)s } } },
  customerPrivacy: %(privacy)s,
  data: { shop: { myshopifyDomain: 'example.myshopify.com' }, cart: { id: 'cart-1' }, customer: null },
};
const api = { customerPrivacy: { subscribe: (name, run) => consentSubscribers.push(run) } };
window.emit = (event) => (subscribers[event.name] || []).forEach((run) => run(event));
window.choose = (privacy) => consentSubscribers.forEach((run) => run({ customerPrivacy: privacy }));
window.jar = jar;
"""
YES = {"analyticsProcessingAllowed": True, "marketingAllowed": True, "saleOfDataAllowed": True}
NO = {**YES, "marketingAllowed": False}
PURCHASE = {
    "id": "sh-1", "name": "checkout_completed", "clientId": "client-1", "timestamp": "2026-11-22T10:00:00.000Z",
    "context": {"document": {"location": {"href": "https://shop.example/thanks"}}},
    "data": {"checkout": {"token": "chk-1", "order": {"id": "77"}, "email": "jo@example.com"}},
}  # fmt: skip
VIEW = {"id": "sh-2", "name": "product_viewed", "clientId": "client-1", "data": {}}


class Pixel(Stage):
    """A page in place of Shopify's sandbox, with pixel.js; it has no origin, as there."""

    def __init__(
        self, chrome: Any, privacy: Any = None, url: str = "https://shop.example/", jar: Mapping[str, str] | None = None
    ) -> None:
        self._sandbox = SANDBOX % {
            "jar": json.dumps(dict(jar or {})), "url": json.dumps(url), "privacy": json.dumps(privacy or YES),
        }  # fmt: skip
        super().__init__(chrome)

    def visit(self, **_page: Any) -> None:
        """Open the page."""
        code = PIXEL.replace("https://tags.example.com/in/shop_pixel", f"{self.tags.url}/in/tag")
        self.site._headers = {
            "content-security-policy": f"sandbox allow-scripts; script-src 'self'; connect-src {self.tags.url}"
        }
        self.site.files = {
            "/": ("text/html", '<!doctype html><script src="/pixel.js"></script>'),
            "/pixel.js": ("text/javascript", f"(function () {{\n{self._sandbox}\n{code}\n}})();"),
        }
        self.page.goto(self.site.url)

    def emit(self, *events: Mapping[str, Any]) -> None:
        """Let the shop publish customer events."""
        for event in events:
            self.page.evaluate("(event) => emit(event)", event)


def as_event(body: Any) -> Event:
    """Return what the adapter makes of a body that the pixel posted."""
    options = PixelOptions(shop="example.myshopify.com")
    source = Source(name="px", adapter="shopify_pixel", site="shop", destinations=("p",), options=options)
    (event,) = ShopifyPixelAdapter().normalize(Hit(source=source, body=json.dumps(body).encode()))
    assert isinstance(event, Event)
    return event


def test_the_pixel_sends_what_the_adapter_takes(chrome: Any) -> None:
    """With consent an event arrives whole, with shop, privacy, click id and cart, from an opaque origin."""
    mine = epik(1_700_000_000)
    with Pixel(chrome, url=f"https://shop.example/?epik={mine}") as stage:
        stage.emit(PURCHASE)
        (body,) = stage.tags.wait(1)
        assert body == {
            "shop": "example.myshopify.com", "customerPrivacy": YES, "click_ids": {"epik": mine}, "event": PURCHASE,
            "init": {"data": {"cart": {"id": "cart-1"}}},
        }  # fmt: skip
        assert stage.page.evaluate("jar") == {"_epik": mine}
        assert stage.tags.headers[0]["origin"] == "null"
        assert stage.tags.preflights == 0
        event = as_event(body)
        assert (event.name, event.id, event.client_id, event.cart_token) == ("checkout", "sh-1", "client-1", "cart-1")
        assert event.click_ids == {"epik": mine}
        assert event.user.email == ("jo@example.com",)


def test_the_pixel_subscribes_to_the_table(chrome: Any) -> None:
    """Every customer event that the adapter maps is sent; the others are not."""
    with Pixel(chrome) as stage:
        mapped = [name for name, canonical in _NAMES.items() if canonical]
        stage.emit(*({"id": f"sh-{name}", "name": name, "data": {}} for name in _NAMES))
        assert sorted(body["event"]["name"] for body in stage.tags.wait(len(mapped))) == sorted(mapped)
        assert len(stage.sent) == len(mapped)


def test_the_pixel_keeps_the_newer_click_id(chrome: Any) -> None:
    """An old link does not replace the click of yesterday."""
    with Pixel(chrome, url=f"https://shop.example/?EPIK={OLDER}", jar={"_epik": NEWER}) as stage:
        stage.emit(VIEW)
        assert stage.tags.wait(1)[0]["click_ids"] == {"epik": NEWER}
    with Pixel(chrome, url=f"https://shop.example/?epik={NEWER}", jar={"_epik": OLDER}) as stage:
        stage.emit(VIEW)
        assert stage.tags.wait(1)[0]["click_ids"] == {"epik": NEWER}
        assert stage.page.evaluate("jar") == {"_epik": NEWER}


def test_the_pixel_waits_for_consent(chrome: Any) -> None:
    """Before the choice nothing leaves and nothing is stored; the choice sends what waited."""
    with Pixel(chrome, privacy=NO, url=f"https://shop.example/?epik={NEWER}") as stage:
        stage.emit(VIEW)
        assert (stage.sent, stage.page.evaluate("jar")) == ([], {})
        stage.page.evaluate("(choice) => choose(choice)", YES)
        (body,) = stage.tags.wait(1)
        assert (body["event"]["id"], body["customerPrivacy"]) == ("sh-2", YES)
        assert stage.page.evaluate("jar") == {"_epik": NEWER}


def test_the_pixel_tells_of_a_denied_purchase_without_the_person(chrome: Any) -> None:
    """A purchase without consent is told by order and checkout only, so that its webhook is held back too."""
    with Pixel(chrome, privacy=NO, url=f"https://shop.example/?epik={NEWER}") as stage:
        stage.emit(VIEW, PURCHASE)
        (body,) = stage.tags.wait(1)
        assert body == {
            "shop": "example.myshopify.com",
            "customerPrivacy": NO,
            "event": {
                "id": "sh-1", "name": "checkout_completed", "timestamp": PURCHASE["timestamp"],
                "data": {"checkout": {"token": "chk-1", "order": {"id": "77"}}},
            },
        }  # fmt: skip
        event = as_event(body)
        assert event.consent.marketing is False
        assert {(key.kind, key.value) for key in event.keys} == {("order", "77"), ("checkout", "chk-1")}
        assert (event.user, event.client_id, event.source_url) == (User(), None, None)
        stage.page.evaluate("(choice) => choose(choice)", NO)
        assert stage.sent == ["fetch"]
        assert stage.page.evaluate("jar") == {}


# -- the whole way

CONFIG = """
[server]
bind = "127.0.0.1:{port}"
trusted_proxies = ["127.0.0.1/32"]
[store]
url = "sqlite:///gateway.db"
[sites.shop]
hold_s = 20
[sources.tag]
adapter = "browser_tag"
site = "shop"
allowed_origins = ["{origin}"]
destinations = ["pinterest"]
[sources.shop]
adapter = "shopify"
site = "shop"
options = { shop = "example.myshopify.com" }
secrets = ["hook-secret"]
destinations = ["pinterest"]
[destinations.pinterest]
type = "pinterest"
ad_account_id = "{account}"
token = "sandbox-token"
base_url = "{sandbox}"
linger_s = 0.05
"""


class Street(Stage):
    """The demo shop, an operator's proxy, the gateway and its sandbox, all of them real processes or servers."""

    def __init__(self, chrome: Any, folder: Path, init: str = "") -> None:
        super().__init__(chrome)
        self._folder = folder
        self._init = init

    def __enter__(self) -> Self:
        self.proxy = self._open.enter_context(ReverseProxy())
        self.site = self._open.enter_context(Site(self.proxy.url, self._files()))
        config = CONFIG.replace("{origin}", self.site.url).replace("{account}", ACCOUNT)
        self.pair = self._open.enter_context(Pair(self._folder, config))
        self.proxy.target = f"http://127.0.0.1:{self.pair.gateway.port}"
        self.context = self._chrome.new_context(viewport={"width": 1100, "height": 760})
        self._open.callback(self.context.close)
        self.context.add_init_script(WATCH + self._init)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        return self

    def _files(self) -> dict[str, tuple[str, str]]:
        html = (SHOP / "shop.html").read_text("utf-8").replace("{tag}", f"{self.proxy.url}/in/tag/tag.js")
        html = html.replace("<!-- pintrk -->", '<script src="/pintrk.js"></script>').replace("{options}", "")
        pages = dict.fromkeys(("/", "/product", "/cart", "/thanks"), ("text/html", html))
        scripts = {
            f"/{name}.js": ("text/javascript", (SHOP / f"{name}.js").read_text("utf-8")) for name in ("shop", "pintrk")
        }
        return {**pages, **scripts, "/shop.css": ("text/css", (SHOP / "shop.css").read_text("utf-8"))}

    def shot(self, name: str) -> None:
        """Keep a picture of the page."""
        path = self._folder / f"{name}.png"
        self.page.screenshot(path=path)
        say(f"screenshot: {path}")

    def pinterest(self, name: str) -> list[dict[str, Any]]:
        """Return what the sandbox has of one event name."""
        return [event for event in self.pair.sandbox.events(100) if event["event_name"] == name]

    def webhook(self, order: Mapping[str, Any]) -> httpx.Response:
        """Send a signed orders/create, straight to the gateway, as Shopify does."""
        body = json.dumps(order).encode()
        signature = base64.b64encode(hmac.digest(b"hook-secret", body, "sha256")).decode()
        return httpx.post(
            f"http://127.0.0.1:{self.pair.gateway.port}/in/shop", content=body, trust_env=False,
            headers={
                "X-Shopify-Topic": "orders/create", "X-Shopify-Shop-Domain": "example.myshopify.com",
                "X-Shopify-Hmac-Sha256": signature, "Content-Type": "application/json",
            },
        )  # fmt: skip


def order_of(order_id: str, token: str) -> dict[str, Any]:
    """Return the shop's order: it knows the person and the true amount, and nothing of the browser."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    return {
        "id": int(order_id), "checkout_token": token, "created_at": now, "processed_at": now, "source_name": "web",
        "currency": "USD", "subtotal_price": "73.80", "email": " Jo@Example.com ",
        "line_items": [
            {"product_id": 1, "title": "Morning mug", "price": "24.00", "quantity": 1},
            {"product_id": 2, "title": "Meadow vase", "price": "58.00", "quantity": 1},
        ],
    }  # fmt: skip


def test_a_purchase_in_a_real_browser(chrome: Any, tmp_path: Path) -> None:
    """Land, view, add, buy, and the signed webhook: one checkout with all signals, under the id that pintrk saw."""
    mine = epik(int(time.time()) - 600)
    with Street(chrome, tmp_path) as street:
        page = street.page
        page.goto(f"{street.site.url}/?utm_source=pinterest&epik={mine}")
        street.wait_for_cookies(_epik=mine, _tgid=None)
        street.shot("shop")
        for product in ("mug", "vase"):
            page.click(f"#card-{product}")
            page.click("#add")
            page.wait_for_selector("#added:visible")
            if product == "mug":
                street.shot("product")
                page.click(".brand")
        page.click("#cart-link")
        street.shot("cart")
        page.fill("#email", "jo@example.com")
        page.click("#buy")
        page.wait_for_selector("#order:visible")
        street.shot("thanks")
        order_id, token = page.inner_text("#order"), page.get_attribute("#order", "data-token")
        answer = street.webhook(order_of(order_id, token))
        assert answer.status_code == 200, answer.text
        until(lambda: bool(street.pinterest("checkout")), 30, "a checkout is delivered", 0.05)
        street.pair.gateway.drain()

        calls = [call for call in json.loads(page.evaluate("sessionStorage.pintrk")) if call[1] == "checkout"]
        (checkout,) = street.pinterest("checkout")
        assert [call[2]["event_id"] for call in calls] == [checkout["event_id"]]
        user = checkout["user_data"]
        assert user["click_id"] == mine
        assert user["client_ip_address"] == CLIENT_IP
        assert user["client_user_agent"] == page.evaluate("navigator.userAgent")
        assert user["em"] == [hashlib.sha256(b"jo@example.com").hexdigest()]
        assert checkout["custom_data"]["order_id"] == order_id
        assert float(checkout["custom_data"]["value"]) == 73.8, "the signed order knows of a discount, the page did not"
        assert checkout["custom_data"]["currency"] == "USD"
        seen = street.pair.sandbox.counts()["by_name"]
        assert {name: seen[name] for name in ("view_content", "add_to_cart", "checkout")} == {
            "view_content": 2, "add_to_cart": 2, "checkout": 1,
        }  # fmt: skip


def test_every_page_of_the_visit_has_the_click_id(chrome: Any, tmp_path: Path) -> None:
    """What the browser sends alone: each page's events arrive under pintrk's ids, with click id and address."""
    mine = epik(int(time.time()) - 600)
    with Street(chrome, tmp_path) as street:
        page = street.page
        page.goto(f"{street.site.url}/?epik={mine}")
        street.wait_for_cookies(_epik=mine, _tgid=None)
        page.click("#card-bowl")
        page.click("#add")
        page.wait_for_selector("#added:visible")
        until(lambda: len(street.pair.sandbox.events(100)) >= 4, 30, "four events are delivered", 0.05)
        events = {
            (event["event_name"].replace("_", ""), event["event_id"]) for event in street.pair.sandbox.events(100)
        }
        calls = json.loads(page.evaluate("sessionStorage.pintrk"))
        assert {(call[1], call[2]["event_id"]) for call in calls} == events
        for event in street.pair.sandbox.events(100):
            assert event["user_data"]["click_id"] == mine
            assert event["user_data"]["client_ip_address"] == CLIENT_IP
