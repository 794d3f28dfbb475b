"""The operator's pages in a real browser: Debian's chromium, headless, on loopback, against the vendors' stand-ins."""

import os
import shutil
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gateway.audiences import schedule
from gateway.operator.pages import NAVIGATION
from gateway.sandbox.faults import Fault
from tests.harness.operator_pages import OPERATOR, REFUSED, Office, sale
from tests.harness.payloads_xss import CORPUS, MARK, foreign_markup
from tests.harness.processes import say, until

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("chromium is not installed: make system", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test")
AXE = find_spec("axe_playwright_python")
expect = playwright.expect

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
#: Whatever the policy blocks and whatever of the corpus runs is told on the console, which is listened to.
WATCH = f"""
addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective));
window.{MARK} = () => console.error('a script of the corpus ran');
"""
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
SCHEMES = ("light", "dark")
CAPTURE = (
    '{"event_name": "checkout", "event_id": "order-1001", "value": "19.90", "currency": "EUR",'
    ' "user": {"email": "ada@example.com"}}'
)


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    """One browser for all tests."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """One gateway for all tests, with something on every page."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Office(tmp_path_factory.mktemp("office")) as found,
    ):
        patch.setattr(schedule, "TICK_S", 0.2)
        found.people()
        found.fill()
        yield found


@pytest.fixture(scope="module")
def session(chrome: Any, office: Office) -> Any:
    """Log in once; gives the cookies of somebody who has logged in."""
    with chrome.new_context(base_url=office.operator) as context:
        page = context.new_page()
        page.goto("/login")
        page.fill("#password", OPERATOR)
        page.keyboard.press("Enter")
        page.wait_for_url("**/")
        return context.storage_state()


class Desk:
    """A browser window at the pages; ``complaints`` is whatever went wrong in it."""

    def __init__(self, chrome: Any, office: Office, session: Any = None, **options: Any) -> None:
        size = SIZES[options.pop("device", "desktop")]
        self.context = chrome.new_context(base_url=office.operator, storage_state=session, viewport=size, **options)
        self.context.set_default_timeout(15_000)
        self.context.add_init_script(WATCH)
        self.complaints: list[str] = []
        self.page = self.context.new_page()
        self.page.on("console", lambda told: self._complain(told.text) if told.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self._complain(str(error)))
        self.page.on("requestfailed", self._failed)
        self.page.on("dialog", self._dialog)

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, kind: object, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert self.complaints == []

    def _complain(self, text: str) -> None:
        self.complaints.append(text)

    def _failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # a stream or a refresh of a page that was left
            self._complain(f"{request.url}: {request.failure}")

    def _dialog(self, dialog: Any) -> None:
        self._complain(f"dialog: {dialog.message}")
        dialog.dismiss()


# -- the way through the pages


def test_what_goes_wrong_in_a_page_is_noticed(chrome: Any, office: Office) -> None:
    """The control: an inline script, a style attribute, an error, a dialog, a lost request are all complaints."""
    desk = Desk(chrome, office)
    for planted, told in (
        ("document.body.append(Object.assign(document.createElement('script'), {text: '1'}))", "policy: script-src"),
        ("document.body.setAttribute('style', 'color: red')", "policy: style-src"),
        ("setTimeout(() => { throw new Error('oh') })", "oh"),
        ("setTimeout(() => alert('hello'))", "dialog: hello"),
        (f"{MARK}()", "a script of the corpus ran"),
        ("fetch('/login', {method: 'POST'})", "status of 403"),
        ("fetch('http://127.0.0.1:9/').catch(() => 0)", "policy: connect-src"),
    ):
        desk.page.goto("/login")
        desk.complaints.clear()
        desk.page.evaluate(f"() => {{ {planted} }}")
        until(lambda told=told: any(told in one for one in desk.complaints) or desk.page.wait_for_timeout(20), 10, told)  # type: ignore[misc]
    desk.context.close()


def test_logging_in(chrome: Any, office: Office) -> None:
    """A wrong password is refused in words; the right one leads to the overview; after logging out nothing is shown."""
    desk = Desk(chrome, office)
    page = desk.page
    page.goto("/live")
    expect(page.locator("h1")).to_have_text("Log in")
    page.fill("#password", "wrong")
    page.click("button")
    expect(page.get_by_role("alert")).to_contain_text("password")
    page.fill("#password", OPERATOR)
    page.click("button")
    page.wait_for_url("**/live")
    page.click("button:has-text('Log out'):visible")
    expect(page.locator("h1")).to_have_text("Log in")
    page.goto("/")
    expect(page.locator("h1")).to_have_text("Log in")
    desk.context.close()
    # the browser's own word for the answer 403 to the wrong password, and nothing else
    assert [one for one in desk.complaints if "403" not in one] == []
    assert len(desk.complaints) == 1


def test_an_event_arrives_live_and_is_opened(chrome: Any, office: Office, session: Any) -> None:
    """What is posted to the public route stands in the open page at once, then its end; its steps are a click away."""
    with Desk(chrome, office, session) as page:
        page.goto("/live")
        expect(page.locator("#live-status")).to_have_text("Live.")
        page.evaluate("window.stayed = true")
        office.post("tag", {"event_name": "add_to_cart", "event_id": "seen-live", "user": {"email": "ada@example.com"}})
        row = page.locator("tr", has_text="seen-live")
        expect(row).to_be_visible()
        expect(row).to_contain_text("delivered")
        assert page.evaluate("window.stayed") is True
        assert "seen-live" in page.locator("#live-rows tr").first.inner_text()
        row.locator("a").click()
        expect(page.locator("h1")).to_contain_text("add_to_cart delivered")
        steps = page.locator(".steps h3").all_inner_texts()
        assert [steps[0], steps[1], steps[-1]] == ["Received", "Normalised", "Answer"]
        expect(page.locator("pre").first).to_contain_text('"event_id": "seen-live"')
        assert "ada@example.com" not in page.content()


def test_a_dead_letter_is_replayed(chrome: Any, office: Office, session: Any) -> None:
    """From the group by its reason to one letter, what a replay would send, the replay, and its delivery."""
    with Desk(chrome, office, session) as page:
        page.goto("/deliveries")
        page.get_by_role("link", name="Look at them").first.click()
        page.locator("main table a", has_text=REFUSED[0]).click()
        expect(page.locator("main")).to_contain_text("What a replay would send")
        expect(page.locator("table.payload")).to_contain_text(REFUSED[0])
        page.get_by_role("button", name="Replay it").click()
        expect(page.locator("main")).to_contain_text("again.")
        until(lambda: f"checkout {REFUSED[0]}" in office.sandbox.record.ids(), 15, "the event is delivered", 0.02)
        page.goto("/deliveries/dead")
        expect(page.locator("main table")).to_contain_text(REFUSED[1])
        expect(page.locator("main table")).not_to_contain_text(REFUSED[0])


def test_an_audience_is_connected(chrome: Any, office: Office, session: Any) -> None:
    """Logging in at the vendor, choosing left and right, connecting, finishing; the first pass fills the audience."""
    with Desk(chrome, office, session) as page:
        page.goto("/audiences")
        page.get_by_role("button", name="Log in", exact=True).click()
        page.get_by_role("link", name="Open the vendor's page").click()
        expect(page.locator("h1")).to_have_text("Access granted")
        page.goto("/audiences")
        page.get_by_role("link", name="Connect", exact=True).click()
        page.get_by_role("link", name="Choose Newsletter").click()
        page.get_by_role("link", name="Choose Readers").click()
        page.get_by_role("button", name="Connect", exact=True).click()
        page.get_by_role("link", name="Finish").click()
        until(lambda: office.call(_state(office)) == "ok", 15, "the first pass is over, which comes by itself", 0.05)
        page.goto("/audiences")
        expect(page.locator("main")).to_contain_text("240 e-mails from here; since it was connected added 240")
        assert len(next(iter(office.sandbox.audiences.lists.values())).hashes) == 240
        page.get_by_role("button", name="Dry run").click()
        expect(page.locator("main")).to_contain_text("240 members read, would add 0 and remove 0")


async def _state(office: Office) -> str:
    (one,) = await (await office.gateway.audiences.engine()).connections()
    return one.state


def test_a_test_event_is_run(chrome: Any, office: Office, session: Any) -> None:
    """A pasted request shows its steps, and after sending what Pinterest says of it; it is recorded nowhere."""
    with Desk(chrome, office, session) as page:
        page.goto("/test-events")
        page.select_option("#source", "tag")
        page.fill("#capture", CAPTURE)
        page.get_by_role("button", name="Show the steps").click()
        expect(page.locator(".steps")).to_contain_text("Sealed for pinterest")
        page.get_by_role("button", name="Send to Pinterest as a test").click()
        expect(page.locator("#answer")).to_contain_text("taken")
        assert "ada@example.com" not in page.content()
    assert "checkout order-1001" not in office.sandbox.record.ids()


def test_the_next_hit_of_a_source_is_taken(chrome: Any, office: Office, session: Any) -> None:
    """While the page waits, the next hit of a source comes; the page goes on to its steps by itself."""
    with Desk(chrome, office, session) as page:
        page.goto("/test-events")
        page.locator("li[data-source=tag] button").click()
        expect(page.locator("#watch-status")).to_contain_text("goes on by itself")
        office.post("tag", {"event_name": "search", "event_id": "next-hit", "search_string": "lamp"})
        page.wait_for_url("**/test-events/*")
        expect(page.locator("h1")).to_have_text("The next hit of tag")
        expect(page.locator("main")).to_contain_text("next-hit")


# -- the keyboard


def test_the_keyboard_is_enough(chrome: Any, office: Office, session: Any) -> None:
    """Every control is reached in the order in which it is read, shows that it has the focus, and acts."""
    with Desk(chrome, office, session) as page:
        page.goto("/deliveries/dead")
        page.keyboard.press("Tab")
        assert focused(page) == "Skip to the content"
        seen = []
        for _ in NAVIGATION:
            page.keyboard.press("Tab")
            seen.append(focused(page))
        assert seen[0] == "Tag gateway"
        page.keyboard.press("Tab")
        seen.append(focused(page))
        assert [one.split("\n")[0].split(" 1")[0] for one in seen[1:]] == [name for _, name, _ in NAVIGATION]
        page.locator("main table a", has_text=REFUSED[1]).focus()
        page.keyboard.press("Enter")
        expect(page.locator("table.payload")).to_contain_text(REFUSED[1])
        page.locator(".skip").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        for _ in range(12):
            page.keyboard.press("Tab")
            if focused(page) == "Replay it":
                break
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_contain_text("again.")
    with Desk(chrome, office) as page:
        page.goto("/login")
        assert page.evaluate("document.activeElement.id") == "password"
        page.keyboard.type(OPERATOR)
        page.keyboard.press("Tab")
        assert focused(page) == "Log in"
        page.keyboard.press("Enter")
        page.wait_for_url("**/")


def focused(page: Any) -> str:
    """Return the text of what has the focus, having looked that it is on the screen and marked by an outline."""
    found: dict[str, Any] = page.evaluate(
        """() => {
          const one = document.activeElement, box = one.getBoundingClientRect(), style = getComputedStyle(one);
          return {text: one.innerText.trim(), line: parseFloat(style.outlineWidth), how: style.outlineStyle,
                  seen: box.width > 0 && box.left >= 0 && box.right <= innerWidth + 1};
        }"""
    )
    assert found["seen"], found
    assert found["line"] >= 2, found
    assert found["how"] == "solid", found
    return str(found["text"])


def test_the_menu_of_a_phone(chrome: Any, office: Office, session: Any) -> None:
    """On a phone the pages are behind one button, which opens by key and by touch, and leads on."""
    with Desk(chrome, office, session, device="phone", has_touch=True) as page:
        page.goto("/")
        menu = page.locator("details.narrow")
        expect(menu.get_by_role("link", name="Health")).to_be_hidden()
        menu.locator("summary").focus()
        page.keyboard.press("Enter")
        expect(menu.get_by_role("link", name="Health")).to_be_visible()
        page.keyboard.press("Enter")
        expect(menu.get_by_role("link", name="Health")).to_be_hidden()
        menu.locator("summary").tap()
        menu.get_by_role("link", name="Health").tap()
        expect(page.locator("h1")).to_have_text("Health")


# -- every page


def test_every_page_is_sound(chrome: Any, office: Office, session: Any) -> None:
    """
    On no page has axe-core a serious finding, and none is wider than a phone.

    Each page is looked at in one scheme of colours, turn about; with ``OPERATOR_PICTURES=FOLDER`` in both, and pictures
    of all are taken.
    """
    assert AXE is not None
    assert AXE.origin is not None
    script = (Path(AXE.origin).parent / "axe.min.js").read_text("utf-8")
    given = os.environ.get("OPERATOR_PICTURES")
    folder = Path(given) if given else None
    findings: list[str] = []
    turn = 0
    for paths, state in ((("/login",), None), (_paths(chrome, office, session), session)):
        # axe-core is evaluated past the policy, which is why nothing else is looked at here
        desk = Desk(chrome, office, state, bypass_csp=True, reduced_motion="reduce")
        for path in paths:
            desk.page.goto(path)
            desk.page.evaluate(script)
            turn += 1
            for scheme in SCHEMES if folder else (SCHEMES[turn % 2],):
                findings += _findings(desk.page, f"{path} {scheme}", scheme)
                if folder:
                    _take_pictures(desk.page, path, scheme, folder)
            desk.page.set_viewport_size(SIZES["phone"])
            if desk.page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                findings.append(f"{path}: wider than a phone")
            desk.page.set_viewport_size(SIZES["desktop"])
        desk.context.close()
    if folder:
        say(f"{len(list(folder.iterdir()))} pictures of the pages in {folder}")
    assert turn == len(NAVIGATION) + 8
    assert findings == []


def _findings(page: Any, where: str, scheme: str) -> list[str]:
    """Return what axe-core finds serious; of many rows the first ones stand for all."""
    page.emulate_media(color_scheme=scheme)
    told = page.evaluate(
        """axe.run({include: [['html']], exclude: [['tbody tr:nth-child(n+5)']]},
                   {resultTypes: ['violations'], reporter: 'no-passes', preload: false})
             .then((found) => found.violations)"""
    )
    return [
        f"{where}: {one['id']} ({one['impact']}) {one['nodes'][0]['html'][:120]}"
        for one in told
        if one["impact"] in ("serious", "critical")
    ]


def _take_pictures(page: Any, path: str, scheme: str, folder: Path) -> None:
    name = path.partition("?")[0].strip("/").replace("/", "-") or "overview"
    for device, size in SIZES.items():
        page.set_viewport_size(size)
        page.screenshot(path=folder / f"{name}-{scheme}-{device}.png", full_page=True)
    page.set_viewport_size(SIZES["desktop"])


def _paths(chrome: Any, office: Office, session: Any) -> list[str]:
    """Return a page of each kind."""
    with Desk(chrome, office, session) as page:
        page.goto("/live")
        event = page.locator("tr", has_text="demo-visit").locator("a").get_attribute("href")
        page.goto("/deliveries/dead")
        letter = page.locator("main table a").first.get_attribute("href")
        page.goto("/test-events")
        capture = page.locator("a[href^='/test-events/']").first.get_attribute("href")
    more = ["/deliveries/dead", "/deliveries/preview/replay", "/audiences/1", "/audiences/connect"]
    return [*(path for path, _, _ in NAVIGATION), event, letter, capture, *more]


# -- hostile text


def test_hostile_text_does_nothing(chrome: Any, office: Office, session: Any) -> None:
    """The corpus, sent by the public route while the page is open, runs nothing and makes no element, on any page."""
    office.sandbox.faults.stand(Fault(kind="partial"))
    with Desk(chrome, office, session) as page:
        page.goto("/live")
        expect(page.locator("#live-status")).to_have_text("Live.")
        for number in range(0, len(CORPUS), 10):
            office.post("tag", *(hostile(number + at, text) for at, text in enumerate(CORPUS[number : number + 10])))
        last = f"{len(CORPUS) - 1}{CORPUS[-1]}"
        expect(page.locator("#live-rows")).to_contain_text(last[:20])
        office.drain()
        office.sandbox.faults.clear()
        _is_ours(page)
        links = [
            one.get_attribute("href") for one in page.locator("#live-rows tr", has_text=MARK).locator("a").all()[:3]
        ]
        page.goto("/deliveries/dead")
        links += [one.get_attribute("href") for one in page.locator("main table a", has_text=MARK).all()[:3]]
        assert len(links) == 6
        for path in ("/live", "/deliveries", "/deliveries/dead", "/deduplication", "/health", "/", *links):
            page.goto(path)
            assert path in ("/deduplication", "/health", "/", "/deliveries") or MARK in page.content()
            _is_ours(page)


def _is_ours(page: Any) -> None:
    assert foreign_markup(page.content()) == []
    assert (
        page.locator("main iframe, main object, main embed, main style, main script, main base, main img").count() == 0
    )


def hostile(number: int, text: str) -> dict[str, Any]:
    """Return an event with a text wherever a text can stand."""
    return sale(
        f"{number}{text}", event_name=("checkout", "lead", "page_visit", text)[number % 4], order_id=f"{number}{text}",
        event_source_url=f"https://shop.example.com/{text}", search_string=text, content_name=text, language=text,
        event_time=int(time.time()), user={"email": f"{number}@example.com", "city": text, "first_name": text},
    )  # fmt: skip
