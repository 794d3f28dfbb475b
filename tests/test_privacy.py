"""Privacy: which signal limits or drops an event, where people live, and that nothing is accepted when it fails."""

import asyncio
import builtins
import re
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway import Client, Consent, Context, Enricher, Event, Hit, Secret, Skipped, Source, User, hookimpl, identifiers
from gateway.plugins.privacy import PrivacyEnricher, geoip, register_enrichers, states
from gateway.plugins.privacy.residence import HEADERS
from gateway.testing.app import running

PUBLIC = Source(name="tag", adapter="a", site="s", destinations=("p",), allowed_origins=("https://shop.example",))
SERVER = Source(name="api", adapter="a", site="s", destinations=("p",), secrets=(Secret(value="x"),))
PROXY, STRANGER = "10.0.0.1", "8.8.8.8"
HIT = Hit(source=PUBLIC, peer=STRANGER)
TODAY = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
ALLOW, LIMIT, DROP = "allow", "limit", "drop"
CALIFORNIA = User(state=("CA",), country=("US",))
NEW_YORK = User(state=("NY",), country=("US",))
GERMANY = User(state=("BY",), country=("DE",))
#: A section of California with an opt-out of sale, and one without. Source: tests of IABTechLab/iabgpp-es.
GPP_OUT, GPP_IN = "DBABBg~BVWSSSVY.YA", "DBABBg~BAAAAABA.QA"


def enricher(folder: Path = Path(), at: float = TODAY, **table: Any) -> Any:
    """Make the plugin's enricher as the host does."""
    options = {"privacy": table} if table else {}
    context = Context(trusted_proxies=("10.0.0.0/8",), options=options, folder=folder, clock=lambda: at)
    (made,) = register_enrichers(context)
    return made


ENRICHER = enricher()


def enriched(event: Event, hit: Hit = HIT, by: Enricher = ENRICHER) -> Event:
    """Return the event that comes out; it must not have been dropped."""
    found = asyncio.run(by.enrich(event, hit))
    assert isinstance(found, Event)
    return found


def decision(event: Event, hit: Hit = HIT, by: Enricher = ENRICHER) -> tuple[str, tuple[str, ...]]:
    """Return what was decided, and the notes that say why."""
    found = asyncio.run(by.enrich(event, hit))
    if isinstance(found, Skipped):
        assert (found.reason, found.event_id, found.source_name) == ("consent", event.id, event.source_name)
        return DROP, ()
    assert found is not None
    assert found.opt_out is event.opt_out
    return LIMIT if found.limited_data is True else ALLOW, found.notes


@pytest.mark.parametrize(
    ("consent", "limited", "expected", "notes"),
    [
        # silence and permission
        (Consent(), None, ALLOW, ()),
        (Consent(marketing=True, analytics=True), None, ALLOW, ()),
        (Consent(analytics=False), None, ALLOW, ()),
        (Consent(sale_of_data=True), None, ALLOW, ()),
        (Consent(gpc=False), None, ALLOW, ()),
        (Consent(us_privacy="1YNN"), None, ALLOW, ()),
        (Consent(us_privacy="1---"), None, ALLOW, ()),
        (Consent(us_privacy=""), None, ALLOW, ()),
        (Consent(gpp=GPP_IN), None, ALLOW, ()),
        (Consent(gpp="DBAA"), None, ALLOW, ()),
        (Consent(gpp=""), None, ALLOW, ()),
        (Consent(gpp_sid="8"), None, ALLOW, ()),
        # consent
        (Consent(marketing=False), None, DROP, ()),
        (Consent(marketing=False, sale_of_data=True), False, DROP, ()),
        (Consent(marketing=False, gpc=True), True, DROP, ()),
        # the source's own flag
        (Consent(), True, LIMIT, ("privacy: limited by limited_data",)),
        (Consent(sale_of_data=True, gpc=False), True, LIMIT, ("privacy: limited by limited_data",)),
        (Consent(), False, ALLOW, ()),
        # inferred opt-outs
        (Consent(sale_of_data=False), None, LIMIT, ("privacy: limited by sale_of_data",)),
        (Consent(gpc=True), None, LIMIT, ("privacy: limited by gpc",)),
        (Consent(us_privacy="1YYN"), None, LIMIT, ("privacy: limited by us_privacy",)),
        (Consent(us_privacy="1nyn"), None, LIMIT, ("privacy: limited by us_privacy",)),
        (Consent(gpp=GPP_OUT), None, LIMIT, ("privacy: limited by gpp",)),
        (Consent(gpp=GPP_OUT, gpp_sid="8"), None, LIMIT, ("privacy: limited by gpp",)),
        (Consent(gpp=GPP_OUT, gpp_sid="7"), None, LIMIT, ("privacy: limited by gpp",)),
        (Consent(gpp="DBABTA~1YYN"), None, LIMIT, ("privacy: limited by gpp",)),
        (
            Consent(gpp=GPP_OUT, gpc=True, us_privacy="1YYN", sale_of_data=False),
            None,
            LIMIT,
            ("privacy: limited by sale_of_data, gpc, us_privacy, gpp",),
        ),
        # unreadable: an opt-out
        (Consent(us_privacy="1YY"), None, LIMIT, ("us_privacy: unreadable", "privacy: limited by us_privacy")),
        (Consent(us_privacy="2YNN"), None, LIMIT, ("us_privacy: unreadable", "privacy: limited by us_privacy")),
        (Consent(gpp="CPXxRfA"), None, LIMIT, ("gpp: unreadable", "privacy: limited by gpp")),
        (Consent(gpp="DBABBg~z"), None, LIMIT, ("gpp: unreadable", "privacy: limited by gpp")),
        (Consent(gpp="x" * 8_193), None, LIMIT, ("gpp: unreadable", "privacy: limited by gpp")),
        # the stricter wins
        (Consent(gpc=True), False, LIMIT, ("privacy: limited by gpc",)),
        (Consent(sale_of_data=False, marketing=True), False, LIMIT, ("privacy: limited by sale_of_data",)),
        (Consent(us_privacy="1YYN"), False, LIMIT, ("privacy: limited by us_privacy",)),
        (Consent(gpp=GPP_OUT), False, LIMIT, ("privacy: limited by gpp",)),
        (Consent(gpc=False, us_privacy="1YYN"), None, LIMIT, ("privacy: limited by us_privacy",)),
    ],
)
def test_every_signal(consent: Consent, limited: bool | None, expected: str, notes: tuple[str, ...]) -> None:
    """A denial drops, any opt-out limits, silence and permission change nothing, and the note says which it was."""
    for opt_out in (None, True, False):
        event = Event(
            name="checkout", id="e1", source_name="n", consent=consent, limited_data=limited, opt_out=opt_out,
            user=CALIFORNIA,
        )  # fmt: skip
        assert decision(event) == (expected, notes)


INFERRED = [Consent(gpc=True), Consent(sale_of_data=False), Consent(us_privacy="1YYN"), Consent(gpp=GPP_OUT)]


@pytest.mark.parametrize("consent", INFERRED)
@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (CALIFORNIA, LIMIT),
        (User(state=("California",), country=("United States",)), LIMIT),
        (User(state=("US-CA",)), LIMIT),
        (User(state=("ca",), country=("usa",)), LIMIT),
        (User(state=("NY", "TX"), country=("US",)), LIMIT),
        (User(state=("CA",), country=("DE", "US")), LIMIT),
        (User(), LIMIT),
        (User(country=("US",)), LIMIT),
        (User(country=("Narnia",)), LIMIT),
        (User(state=("Rivendell",), country=("US",)), LIMIT),
        (User(state=("NY", "Rivendell"), country=("US",)), LIMIT),
        (User(state=("Ontario",)), LIMIT),
        (NEW_YORK, ALLOW),
        (User(state=("new york",)), ALLOW),
        (User(state=("NY", "WA"), country=("US",)), ALLOW),
        (User(state=("DC",), country=("US",)), ALLOW),
        (GERMANY, ALLOW),
        (User(country=("Germany",)), ALLOW),
        (User(state=("CA",), country=("DE",)), ALLOW),
        (User(country=("CA",)), ALLOW),
        (User(state=(identifiers.sha256("ca"),), country=(identifiers.sha256("us"),)), LIMIT),
        (User(state=(identifiers.sha256("ny"),), country=(identifiers.sha256("us"),)), ALLOW),
        (User(country=(identifiers.sha256("fr"),)), ALLOW),
        (User(country=(identifiers.sha256("France"),)), LIMIT),
        (User(state=(identifiers.sha256("salted"),)), LIMIT),
    ],
)
def test_inferred_signals_limit_inside(consent: Consent, user: User, expected: str) -> None:
    """An inferred opt-out limits in a state with a law and where the residence is unknown; plain or hashed."""
    found, notes = decision(Event(name="checkout", consent=consent, user=user))
    assert found == expected
    assert ("privacy: outside" in notes) is (expected == ALLOW)


@pytest.mark.parametrize("user", [CALIFORNIA, NEW_YORK, GERMANY, User()])
def test_an_explicit_flag_is_kept_everywhere(user: User) -> None:
    """What the source says of itself is not gated by any state."""
    event = Event(name="checkout", limited_data=True, user=user)
    assert decision(event) == (LIMIT, ("privacy: limited by limited_data",))
    assert enriched(event).user == user


def test_outside_an_explicit_false_stays() -> None:
    """Outside, an opt-out leaves what the source said as it was."""
    event = Event(name="checkout", consent=Consent(gpc=True), limited_data=False, user=GERMANY)
    assert enriched(event).limited_data is False
    assert enriched(Event(name="checkout", consent=Consent(gpc=True), user=GERMANY)).limited_data is None


def test_notes_have_no_values() -> None:
    """Neither a string nor a place is repeated in a note."""
    event = Event(name="checkout", consent=Consent(gpp="DBABBg~secret", us_privacy="secret"), user=User())
    assert "secret" not in str(enriched(event).notes)


# -- the states


def test_states_in_force() -> None:
    """On 22 November 2026 it is the law in 20 states; the next ones follow on their day, none before California's."""
    assert states.in_force(date(2026, 11, 22)) == {
        "CA", "VA", "CO", "CT", "UT", "FL", "OR", "TX", "MT", "DE", "IA", "NE", "NH", "NJ", "TN", "MN", "MD", "IN",
        "KY", "RI",
    }  # fmt: skip
    assert states.in_force(date(2026, 12, 31)) == states.in_force(date(2026, 11, 22))
    assert states.in_force(date(2027, 1, 1)) - states.in_force(date(2026, 12, 31)) == {"OK", "LA"}
    assert states.in_force(date(2019, 12, 31)) == set()
    assert set(states.LAWS) < states.STATES
    assert len(states.STATES) == 51


def test_the_page_is_the_code() -> None:
    """The page names every state with its date, every section and every header that is read."""
    page = (Path(__file__).parents[1] / "docs" / "privacy.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"\b([A-Z]{2}) \| (\d{4}-\d\d-\d\d)", page)) == {
        state: since.isoformat() for state, since in states.LAWS.items()
    }
    for key in range(8, 28):
        assert re.search(rf"\b{key} [A-Z][a-z]+", page), key
    for name in (header for pair in HEADERS for header in pair):
        assert f"`{name}`" in page.lower(), name


@pytest.mark.parametrize("state", sorted(states.STATES))
def test_the_default_is_what_is_in_force_at_start(state: str) -> None:
    """Each state with a law in force when the gateway starts limits, no other does."""
    event = Event(name="checkout", consent=Consent(gpc=True), user=User(state=(state,), country=("US",)))
    for day in (date(2026, 11, 22), date(2027, 6, 1)):
        started = enricher(at=datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        assert decision(event, by=started)[0] == (LIMIT if state in states.in_force(day) else ALLOW)


def test_configured_states() -> None:
    """A list of one's own replaces the default; an empty one leaves unknown residence alone inside."""
    only_new_york = enricher(limited_states=["NY"])
    event = Event(name="checkout", consent=Consent(gpc=True))
    assert decision(Event(name="checkout", consent=event.consent, user=NEW_YORK), by=only_new_york)[0] == LIMIT
    assert decision(Event(name="checkout", consent=event.consent, user=CALIFORNIA), by=only_new_york)[0] == ALLOW
    none = enricher(limited_states=[])
    assert decision(Event(name="checkout", consent=event.consent, user=CALIFORNIA), by=none)[0] == ALLOW
    assert decision(event, by=none)[0] == LIMIT


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"limited_state": ["CA"]}, r"\[plugins.privacy\] unknown key 'limited_state': did you mean 'limited_states'"),
        ({"zzz": 1}, r"unknown key 'zzz': valid are geoip, limited_states"),
        ({"limited_states": ["CA", "ca"]}, "limited_states: 'ca' is no code of a US state: did you mean 'CA'"),
        ({"limited_states": ["Texas"]}, "limited_states: 'Texas' is no code of a US state"),
        ({"limited_states": "CA"}, r"\[plugins.privacy\] .*limited_states is a list of codes"),
        ({"geoip": 1}, r"\[plugins.privacy\] .*geoip a path"),
        ({"geoip": "missing.mmdb"}, "geoip: .*missing.mmdb cannot be opened .*put the database there"),
        ({"geoip": "text.mmdb"}, "geoip: .*text.mmdb is no MaxMind database"),
    ],
)
def test_a_wrong_table_ends_the_start(tmp_path: Path, table: dict[str, Any], expected: str) -> None:
    """The message names table, key and remedy."""
    (tmp_path / "text.mmdb").write_text("no database")
    with pytest.raises(ValueError, match=expected):
        enricher(tmp_path, **table)


def test_the_package_of_the_database_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without maxminddb only a configured database is an error, and it says what to install."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "maxminddb":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert isinstance(enricher(tmp_path), PrivacyEnricher)
    with pytest.raises(ValueError, match=r"install tag-gateway\[geo\]"):
        enricher(tmp_path, geoip="x.mmdb")


# -- residence by headers

LIMITED = Event(name="checkout", consent=Consent(gpc=True))


@pytest.mark.parametrize(("country", "region"), HEADERS)
@pytest.mark.parametrize(
    ("values", "expected", "user"),
    [
        (("US", "CA"), LIMIT, User(state=("CA",), country=("US",))),
        (("us", "ca"), LIMIT, User(state=("CA",), country=("US",))),
        (("US", "NY"), ALLOW, User()),
        (("DE", "BY"), ALLOW, User()),
        (("DE", None), ALLOW, User()),
        (("US", None), LIMIT, User(country=("US",))),
        (("US", "ZZ9"), LIMIT, User(country=("US",))),
        (("XX", None), LIMIT, User()),
        (("ZZ", None), LIMIT, User()),
        (("T1", None), LIMIT, User()),
        (("", "CA"), LIMIT, User()),
        (("Germany", None), LIMIT, User()),
    ],
)
def test_headers_of_a_trusted_proxy(
    country: str, region: str, values: tuple[str, str | None], expected: str, user: User
) -> None:
    """Country and region of the CDN decide, and complete a limited event in the US; unknown counts as inside."""
    headers = {country: values[0]} | ({} if values[1] is None else {region: values[1]})
    found = enriched(LIMITED, Hit(source=PUBLIC, peer=PROXY, headers=headers))
    assert (found.limited_data is True) is (expected == LIMIT)
    assert found.user == user
    assert ("privacy: residence by headers" in found.notes) is (user != User())


@pytest.mark.parametrize(
    ("source", "peer"), [(PUBLIC, STRANGER), (PUBLIC, None), (SERVER, PROXY)], ids=["stranger", "unknown", "server"]
)
def test_headers_of_others_are_not_believed(source: Source, peer: str | None) -> None:
    """Only a trusted proxy in front of a public source knows where the shopper is."""
    hit = Hit(source=source, peer=peer, headers={"cf-ipcountry": "DE", "x-vercel-ip-country": "DE"})
    assert decision(LIMITED, hit)[0] == LIMIT


@pytest.mark.parametrize(
    ("user", "headers", "expected", "filled"),
    [
        (NEW_YORK, ("US", "CA"), ALLOW, NEW_YORK),
        (CALIFORNIA, ("DE", "BY"), LIMIT, CALIFORNIA),
        (GERMANY, ("US", "CA"), ALLOW, GERMANY),
        (User(country=("US",)), ("US", "TX"), LIMIT, User(state=("TX",), country=("US",))),
        (User(country=("US",)), ("US", "NY"), ALLOW, User(country=("US",))),
        (User(country=("US",)), ("DE", "BY"), LIMIT, User(country=("US",))),
        (User(state=("CA",)), ("US", "CA"), LIMIT, User(state=("CA",), country=("US",))),
        (User(state=("CA",)), ("US", "TX"), LIMIT, User(state=("CA",))),
        (User(state=("California",)), ("US", "CA"), LIMIT, User(state=("California",), country=("US",))),
        (User(state=("Rivendell",)), ("US", "NY"), ALLOW, User(state=("Rivendell",))),
        (User(country=("Narnia",)), ("DE", ""), ALLOW, User(country=("Narnia",))),
    ],
)
def test_the_event_is_believed_first(user: User, headers: tuple[str, str], expected: str, filled: User) -> None:
    """What the event says wins, is completed where it is silent, and never contradicted."""
    hit = Hit(source=PUBLIC, peer=PROXY, headers={"cf-ipcountry": headers[0], "cf-region-code": headers[1]})
    found = enriched(Event(name="checkout", consent=Consent(gpc=True), user=user), hit)
    assert (found.limited_data is True) is (expected == LIMIT)
    assert found.user == filled


def test_an_explicit_flag_gets_state_and_country() -> None:
    """Limited data goes out with the residence, whoever asked for it; an event that is not limited is left alone."""
    hit = Hit(source=PUBLIC, peer=PROXY, headers={"cf-ipcountry": "US", "cf-region-code": "NY"})
    found = enriched(Event(name="checkout", limited_data=True), hit)
    assert found.user == NEW_YORK
    assert found.notes == ("privacy: limited by limited_data", "privacy: residence by headers")
    assert enriched(Event(name="checkout"), hit).user == User()


# -- residence by a database

#: Field types of the format. Source: MaxMind DB File Format Specification 2.0, "Data Field Format".
_TEXT, _UINT16, _UINT32, _MAP, _UINT64, _ARRAY = 2, 5, 6, 7, 9, 11


def encoded(value: Any, kind: int | None = None) -> bytes:
    """Encode one field of the data section: texts and lists under 29, maps, and unsigned integers."""
    if isinstance(value, str):
        return bytes([_TEXT << 5 | len(value)]) + value.encode()
    if isinstance(value, dict):
        return bytes([_MAP << 5 | len(value)]) + b"".join(
            encoded(key) + (encoded(*item) if isinstance(item, tuple) else encoded(item)) for key, item in value.items()
        )
    if isinstance(value, list):
        return bytes([len(value), _ARRAY - 7]) + b"".join(map(encoded, value))
    content: bytes = value.to_bytes(8, "big").lstrip(b"\0")
    assert kind is not None
    return (bytes([len(content), kind - 7]) if kind > 7 else bytes([kind << 5 | len(content)])) + content


def database(records: dict[str, Any]) -> bytes:
    """Write a MaxMind database of /8 networks: ``{"8": record}`` is 8.0.0.0/8; 24-bit records, IPv4."""
    data = b""
    offsets: dict[int, int] = {}
    for text, record in records.items():
        offsets[int(text)] = len(data)
        data += encoded(record)
    nodes: list[list[Any]] = [[None, None]]
    for network, offset in offsets.items():
        at = 0
        for position in range(7, 0, -1):
            bit = network >> position & 1
            if nodes[at][bit] is None:
                nodes.append([None, None])
                nodes[at][bit] = len(nodes) - 1
            at = nodes[at][bit]
        nodes[at][network & 1] = ("data", offset)
    count = len(nodes)

    def pointer(entry: Any) -> bytes:
        number = count if entry is None else entry if isinstance(entry, int) else count + 16 + entry[1]
        return struct.pack(">I", number)[1:]

    tree = b"".join(pointer(entry) for node in nodes for entry in node)
    about = {
        "node_count": (count, _UINT32), "record_size": (24, _UINT16), "ip_version": (4, _UINT16),
        "database_type": "Test-City", "languages": ["en"], "binary_format_major_version": (2, _UINT16),
        "binary_format_minor_version": (0, _UINT16), "build_epoch": (1, _UINT64), "description": {"en": "a test"},
    }  # fmt: skip
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + encoded(about)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with ``geo.mmdb``: 8/8 is California, 9/8 New York, 11/8 Germany, 12/8 the US, 13/8 nothing."""
    records = {
        "8": {"country": {"iso_code": "US"}, "subdivisions": [{"iso_code": "CA"}]},
        "9": {"country": {"iso_code": "US"}, "subdivisions": [{"iso_code": "NY"}]},
        "11": {"country": {"iso_code": "DE"}, "subdivisions": [{"iso_code": "BY"}]},
        "12": {"country": {"iso_code": "US"}},
        "13": {"continent": {"code": "NA"}},
    }
    (tmp_path / "geo.mmdb").write_bytes(database(records))
    return tmp_path


@pytest.mark.parametrize(
    ("address", "expected", "user"),
    [
        ("8.1.2.3", LIMIT, CALIFORNIA),
        ("9.1.2.3", ALLOW, User()),
        ("11.1.2.3", ALLOW, User()),
        ("12.1.2.3", LIMIT, User(country=("US",))),
        ("13.1.2.3", LIMIT, User()),
        ("14.1.2.3", LIMIT, User()),
        ("2001:db8::1", LIMIT, User()),
        ("nonsense", LIMIT, User()),
        (None, LIMIT, User()),
    ],
)
def test_the_database(folder: Path, address: str | None, expected: str, user: User) -> None:
    """The client's address decides where nothing else is known; what the database does not know is inside."""
    made = enricher(folder, geoip="geo.mmdb")
    event = Event(name="checkout", consent=Consent(gpc=True), client=Client(ip=address))
    for source in (PUBLIC, SERVER):
        found = enriched(event, Hit(source=source, peer=PROXY), made)
        assert (found.limited_data is True) is (expected == LIMIT)
        assert found.user == user
        assert ("privacy: residence by geoip" in found.notes) is (user != User())


def test_the_database_completes_the_headers(folder: Path) -> None:
    """Headers come first; where they know the country alone, the database adds the state, if it is of that country."""
    made = enricher(folder, geoip="geo.mmdb")

    def found(address: str, **headers: str) -> Event:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        event = Event(name="checkout", consent=Consent(gpc=True), client=Client(ip=address))
        return enriched(event, Hit(source=PUBLIC, peer=PROXY, headers=given), made)

    assert found("8.1.1.1", cf_ipcountry="US").user == CALIFORNIA
    assert found("9.1.1.1", cf_ipcountry="US").limited_data is None
    assert found("9.1.1.1", cf_ipcountry="US", cf_region_code="CA").user == CALIFORNIA
    assert found("8.1.1.1", cf_ipcountry="DE").limited_data is None
    assert found("8.1.1.1", cf_ipcountry="XX").user == CALIFORNIA


def test_addresses_are_looked_up_once() -> None:
    """The last addresses are remembered, a damaged record costs its own address only."""

    class Counting:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def get(self, ip_address: str) -> Any:
            self.asked.append(ip_address)
            if ip_address == "1.1.1.1":
                raise RuntimeError("damaged")
            return {"country": {"iso_code": "US"}, "subdivisions": "odd"}

    reader = Counting()
    geo = geoip.GeoIp(reader)
    assert [geo.place(address).country for address in ("9.9.9.9", "9.9.9.9", "1.1.1.1", "9.9.9.9")] == [
        "US", "US", None, "US",
    ]  # fmt: skip
    assert reader.asked == ["9.9.9.9", "1.1.1.1"]


# -- in the gateway

TAG = {"adapter": "browser_tag", "allowed_origins": ["https://shop.example"]}


def test_from_the_hit_to_the_destination(folder: Path) -> None:
    """A checkout with Sec-GPC behind a CDN is delivered with LDP and the hashes of state and country."""

    async def scenario() -> None:
        config = {
            "server": {"trusted_proxies": ["10.0.0.0/8"]},
            "sources": {"tag": TAG},
            "plugins": {"privacy": {"geoip": "geo.mmdb"}},
        }
        async with running(config, folder) as gateway:
            headers = {"sec-gpc": "1", "x-forwarded-for": "8.1.2.3"}
            body = {"event_name": "checkout", "event_id": "e1", "user": {"email": "jo@example.com"}}
            status, answer = await gateway.post("tag", body, peer=PROXY, headers=headers)
            assert status == 200
            assert answer["events"][0]["notes"] == ["privacy: limited by gpc", "privacy: residence by geoip"]
            (event,) = await gateway.delivered(1)
            assert event["custom_data"]["opt_out_type"] == "LDP"
            assert event["user_data"]["st"] == [identifiers.sha256("ca")]
            assert event["user_data"]["country"] == [identifiers.sha256("us")]
            assert "opt_out" not in event

    asyncio.run(scenario())


def test_a_wrong_database_ends_the_start(tmp_path: Path) -> None:
    """The host names the plugin and passes the remedy on."""
    from gateway.errors import PluginError

    async def scenario() -> None:
        config = {"sources": {"tag": TAG}, "plugins": {"privacy": {"geoip": "none.mmdb"}}}
        async with running(config, tmp_path):
            raise AssertionError

    with pytest.raises(
        PluginError, match=r"Plugin 'privacy' .*\[plugins.privacy\] geoip: .*none.mmdb cannot be opened"
    ):
        asyncio.run(scenario())


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
        body = {"event_name": "checkout", "event_id": "e1", "user": {"email": "jo@example.com"}}
        async with running({"sources": {"tag": TAG}}, tmp_path, plugins={"broken": Plugin()}) as gateway:
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
