"""Normal forms and hashes of identifiers. Expected hashes are those of a normal form written out here."""

import hashlib
from collections.abc import Callable
from datetime import date

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway import identifiers as ids

BOUNDED = settings(derandomize=True, deadline=None, max_examples=150)

LOOSE_TEXT = st.one_of(
    st.text(st.characters(), max_size=40),
    st.text(st.characters(categories=("Lu", "Ll", "Lt", "Mn", "Nd", "Zs", "Cs", "Cf", "Po")), max_size=20),
    st.text("+0123456789()-. /x", max_size=24),
    st.text("aAß@.-İΣ<>{}[]%_:* \t\u200b\u200d\ufeff", max_size=24),
)
COUNTRIES = st.sampled_from([None, "", "US", "GB", "de", "IT", "United States", "Neverland", "XK", "\ud800"])

PLAIN: list[tuple[Callable[[str], str], str, str]] = [
    (ids.email, "  Jane.Doe+News@Example.COM ", "jane.doe+news@example.com"),
    (ids.email, "mailto:jane@example.com?subject=Hi", "jane@example.com"),
    (ids.email, "Zoë <ZOË@example.com>", "zoë@example.com"),
    (ids.email, "<jane@example.com>", "jane@example.com"),
    (ids.email, "\ufeffjane@exa\u200bmple.com\u00a0", "jane@example.com"),
    (ids.email, "jane@MÜNCHEN.example", "jane@münchen.example"),
    (ids.email, "o'neil_x@mail.example.co.uk", "o'neil_x@mail.example.co.uk"),
    (ids.name, " Zoe\u0308 ", "zoë"),
    (ids.name, "ŁUKASZ", "łukasz"),
    (ids.name, "Mary \t\u00a0 Ann", "mary ann"),
    (ids.name, "O'Brien-Smith, Jr.", "o'brien-smith, jr."),
    (ids.name, "李", "李"),
    (ids.name, "\u0645\u06cc\u200c\u062e\u0648", "\u0645\u06cc\u200c\u062e\u0648"),
    (ids.city, "Menlo Park", "menlopark"),
    (ids.city, "St. John's", "stjohns"),
    (ids.city, "São Paulo", "sãopaulo"),
    (ids.city, "Saint-E\u0301tienne 2", "saintétienne2"),
    (ids.city, "दिल्ली", "दिल्ली"),
    (ids.country, "us", "us"),
    (ids.country, "USA", "us"),
    (ids.country, "U.S.", "us"),
    (ids.country, "840", "us"),
    (ids.country, "The United States of America", "us"),
    (ids.country, "UK", "gb"),
    (ids.country, "england", "gb"),
    (ids.country, "Deutschland", "de"),
    (ids.country, "Nederland", "nl"),
    (ids.country, "The Netherlands", "nl"),
    (ids.country, "España", "es"),
    (ids.country, "South Korea", "kr"),
    (ids.country, "Korea, Republic of", "kr"),
    (ids.country, "Côte d\u2019Ivoire", "ci"),
    (ids.country, "Iran", "ir"),
    (ids.country, "日本", "jp"),
    (ids.gender, "F", "f"),
    (ids.gender, "Woman", "f"),
    (ids.gender, "MALE", "m"),
    (ids.gender, "männlich", "m"),
    (ids.gender, "Non-Binary", "n"),
    (ids.gender, "x", "n"),
    (ids.birth_date, "1990-05-03", "19900503"),
    (ids.birth_date, "1990-05-03T22:00:00.000Z", "19900503"),
    (ids.birth_date, "1990-05-03 00:00:00+00:00", "19900503"),
    (ids.birth_date, "19900503", "19900503"),
    (ids.birth_date, "1990/5/3", "19900503"),
    (ids.birth_date, "1990, 5, 3", "19900503"),
    (ids.birth_date, "03.05.1990", "19900503"),
    (ids.birth_date, "05/03/1990", "19900503"),
    (ids.birth_date, "26/05/1990", "19900526"),
    (ids.birth_date, "05.26.1990", "19900526"),
    (ids.birth_date, "March 5, 1990", "19900305"),
    (ids.birth_date, "5 Mar 1990", "19900305"),
    (ids.birth_date, "05-Mar-1990", "19900305"),
    (ids.birth_date, "the 5th of March, 1990", "19900305"),
    (ids.birth_date, "Mon Mar 05 1990 00:00:00 GMT+0000 (UTC)", "19900305"),
    (ids.birth_date, "Sept 1, 2001", "20010901"),
    (ids.birth_date, "1990年5月3日", "19900503"),
    (ids.birth_date, "2000-02-29", "20000229"),
    (ids.external_id, " Customer-42 ", "customer-42"),
    (ids.mobile_ad_id, " 3FA85F64-5717-4562-B3FC-2C963F66AFA6 ", "3fa85f64-5717-4562-b3fc-2c963f66afa6"),
    (ids.mobile_ad_id, "3FA85F6457174562B3FC2C963F66AFA6", "3fa85f6457174562b3fc2c963f66afa6"),
    (ids.ip, "9.9.9.9", "9.9.9.9"),
    (ids.ip, "9.9.9.9:443", "9.9.9.9"),
    (ids.ip, "::ffff:9.9.9.9", "9.9.9.9"),
    (ids.ip, "[2606:4700:0:0::1111]:443", "2606:4700::1111"),
    (ids.ip, "[2606:4700::1111]", "2606:4700::1111"),
    (ids.ip, "8.8.8.8", "8.8.8.8"),
    (ids.user_agent, " Mozilla/5.0\r\n(X11)\x00 [App] ", "Mozilla/5.0 (X11) [App]"),
    (ids.user_agent, "a" * 1030, "a" * 1024),
]

WITH_COUNTRY: list[tuple[Callable[[str, str | None], str], str, str | None, str]] = [
    (ids.phone, "(415) 555-0132", "US", "14155550132"),
    (ids.phone, "(415) 555-0132", "United States", "14155550132"),
    (ids.phone, "415.555.0132 ext. 7", "us", "14155550132"),
    (ids.phone, "415-555-0132 x99", "CA", "14155550132"),
    (ids.phone, "14155550132", "US", "14155550132"),
    (ids.phone, "+1 (415) 555-0132", None, "14155550132"),
    (ids.phone, "+1 (415) 555-0132", "GB", "14155550132"),
    (ids.phone, "tel:+1-415-555-0132;ext=5", None, "14155550132"),
    (ids.phone, "0044 20 7946 0018", None, "442079460018"),
    (ids.phone, "0044 20 7946 0018", "US", "442079460018"),
    (ids.phone, "020 7946 0018", "GB", "442079460018"),
    (ids.phone, "+44 (0)20 7946 0018", None, "442079460018"),
    (ids.phone, "+1 (0) 415 555 0132", None, "14155550132"),
    (ids.phone, "447911123456", "GB", "447911123456"),
    (ids.phone, "011 44 20 7946 0018", "US", "442079460018"),
    (ids.phone, "+39 06 12345678", None, "390612345678"),
    (ids.phone, "06 12345678", "IT", "390612345678"),
    (ids.phone, "\uff0b\uff11 415 555 0132", None, "14155550132"),
    (ids.phone, "\u0660\u0662\u0660 \u0667\u0669\u0664\u0666 \u0660\u0660\u0661\u0668", "GB", "442079460018"),
    (ids.phone, "8 912 345-67-89", "RU", "79123456789"),
    (ids.phone, "14155550132", "DE", "14155550132"),
    (ids.phone, "33612345678", "US", "33612345678"),
    (ids.phone, "923000000000", None, "923000000000"),
    (ids.phone, "123456789", "us", "123456789"),
    (ids.phone, "0012", None, ""),
    (ids.phone, "1-800-FLOWERS", "US", ""),
    (ids.phone, "jane1234567@example.com", "US", ""),
    (ids.phone, "0000000000", "US", ""),
    (ids.phone, "1234567890123456", None, ""),
    (ids.state, "ca", "US", "ca"),
    (ids.state, "US-CA", None, "ca"),
    (ids.state, "California", "US", "ca"),
    (ids.state, "california", None, "ca"),
    (ids.state, "Ontario", None, "on"),
    (ids.state, "Québec", "CA", "qc"),
    (ids.state, "Quebec", "Canada", "qc"),
    (ids.state, "N.Y.", "US", "ny"),
    (ids.state, "Washington, D.C.", "US", "dc"),
    (ids.state, "New South Wales", "AU", "nsw"),
    (ids.state, "Île-de-France", "FR", "idf"),
    (ids.state, "Bavaria", "DE", "by"),
    (ids.state, "Bayern", "Germany", "by"),
    (ids.state, "Cataluña", "ES", "ct"),
    (ids.state, "La Rioja", "ES", "ri"),
    (ids.state, "Utrecht", "NL", "ut"),
    (ids.state, "JP-13", "JP", "13"),
    (ids.state, "ZZ9", "US", "zz9"),
    (ids.state, "Atlantis", "US", ""),
    (ids.state, "California", "GB", ""),
    (ids.postal_code, "94016", "US", "94016"),
    (ids.postal_code, "94016-1234", "US", "940161234"),
    (ids.postal_code, "CA 94016", "US", "94016"),
    (ids.postal_code, "PO16 7GZ", "GB", "po167gz"),
    (ids.postal_code, "PO16 7GZ", "US", "po167gz"),
    (ids.postal_code, "K2H7A8", None, "k2h7a8"),
    (ids.postal_code, "3941 LG", "NL", "3941lg"),
    (ids.postal_code, "D-10115", "Germany", "10115"),
    (ids.postal_code, "SE-123 45", "SE", "12345"),
    (ids.postal_code, "\u3012100-0001", "JP", "1000001"),
    (ids.postal_code, "Main Street", "US", ""),
]

REFUSED: list[tuple[Callable[[str], str], str, str]] = [
    (ids.email, "jane", "not_an_email"),
    (ids.email, "jane@@example.com", "not_an_email"),
    (ids.email, "ja ne@example.com", "not_an_email"),
    (ids.email, "jane@localhost", "not_an_email"),
    (ids.email, "@example.com", "not_an_email"),
    (ids.email, "jane@example..com", "not_an_email"),
    (ids.email, "d41d8cd98f00b204e9800998ecf8427e", "not_an_email"),
    (ids.email, "a" * 320 + "@example.com", "too_long"),
    (ids.email, "j***@example.com", "placeholder"),
    (ids.name, "\ud800", "undecodable"),
    (ids.name, "Jos\ufffd", "undecodable"),
    (ids.name, "-", "empty"),
    (ids.name, "a" * 1001, "too_long"),
    (ids.city, "...", "empty"),
    (ids.country, "Neverland", "unknown_country"),
    (ids.country, "ZZ", "unknown_country"),
    (ids.gender, "prefer not to say", "unknown_gender"),
    (ids.birth_date, "1990-02-30", "not_a_date"),
    (ids.birth_date, "1899-12-31", "not_a_date"),
    (ids.birth_date, "03/05/90", "not_a_date"),
    (ids.birth_date, "641779200", "not_a_date"),
    (ids.birth_date, "1990", "not_a_date"),
    (ids.birth_date, "Brumaire 5 1990", "not_a_date"),
    (ids.external_id, "0", "zero_id"),
    (ids.mobile_ad_id, "00000000-0000-0000-0000-000000000000", "zero_id"),
    (ids.mobile_ad_id, "0" * 32, "zero_id"),
    (ids.mobile_ad_id, "jane@example.com", "not_an_ad_id"),
    (ids.mobile_ad_id, "notavailable", "not_an_ad_id"),
    (ids.ip, "203.0.113.7", "not_global"),
    (ids.ip, "10.0.0.1", "not_global"),
    (ids.ip, "100.64.0.1", "not_global"),
    (ids.ip, "::ffff:192.168.0.1", "not_global"),
    (ids.ip, "fe80::1%eth0", "not_global"),
    (ids.ip, "2606:4700::1%eth0", "not_global"),
    (ids.ip, "224.0.0.1", "not_global"),
    (ids.ip, "1.2.3", "not_an_ip"),
    (ids.ip, "undefined", "placeholder"),
    (ids.user_agent, "(not set)", "placeholder"),
    (ids.user_agent, " \n", "empty"),
]

PLACEHOLDERS = ["null", "None", "UNDEFINED", "n/a", "NaN", "(not set)", "unknown", "[object Object]",
    "{{ Email }}", "%%EMAIL%%", "${email}", "<redacted>", "REDACTED", "__EMAIL__", "%email%"]  # fmt: skip


@pytest.mark.parametrize(("normalise", "text", "expected"), PLAIN)
def test_normal_form(normalise: Callable[[str], str], text: str, expected: str) -> None:
    """Each identifier has one normal form, which is its own normal form."""
    assert normalise(text) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(("normalise", "text", "country", "expected"), WITH_COUNTRY)
def test_normal_form_in_a_country(
    normalise: Callable[[str, str | None], str], text: str, country: str | None, expected: str
) -> None:
    """Phone, state and postal code are read in the country of the address; "" stands for refused."""
    if expected:
        assert normalise(text, country) == expected
    else:
        with pytest.raises(ids.Unusable):
            normalise(text, country)


@pytest.mark.parametrize(("normalise", "text", "reason"), REFUSED)
def test_refused(normalise: Callable[[str], str], text: str, reason: str) -> None:
    """What identifies nobody is refused with a reason that does not show it."""
    with pytest.raises(ids.Unusable) as caught:
        normalise(text)
    assert caught.value.reason == reason
    assert str(caught.value) == reason


@pytest.mark.parametrize("text", PLACEHOLDERS)
@pytest.mark.parametrize("normalise", [*ids.FIELDS.values(), *ids.COUNTRY_FIELDS.values(), ids.user_agent])
def test_placeholders(normalise: Callable[..., str], text: str) -> None:
    """Words and template variables that stand for "no value" are refused by every function."""
    with pytest.raises(ids.Unusable) as caught:
        normalise(f" {text} ", *([None] if normalise in ids.COUNTRY_FIELDS.values() else []))
    assert caught.value.reason == "placeholder"


def test_external_id_keeps_its_case_on_request() -> None:
    """A page whose tag sends the id as it is gets the same id from here."""
    assert ids.external_id(" AbC ", lower=False) == "AbC"


def test_hash_is_sha256_of_utf8() -> None:
    """Non-ASCII text is hashed as UTF-8, whichever Unicode form it came in."""
    assert ids.digest(ids.name, "ZOE\u0308") == hashlib.sha256("zoë".encode()).hexdigest()
    assert ids.digest(ids.phone, "020 7946 0018", "GB") == hashlib.sha256(b"442079460018").hexdigest()
    assert ids.digest(ids.external_id, "A", lower=False) == hashlib.sha256(b"A").hexdigest()


@pytest.mark.parametrize("normalise", ids.FIELDS.values())
def test_hashed_value_passes(normalise: Callable[[str], str]) -> None:
    """A hashed value is not hashed again, and leaves in lower case."""
    once = hashlib.sha256(b"jane@example.com").hexdigest()
    assert ids.digest(normalise, f" {once.upper()}\n") == once


@pytest.mark.parametrize("text", ["", " ", "null", "undefined", "None", "NaN", "00000000-0000-0000-0000-000000000000"])
def test_hash_of_nothing_is_refused(text: str) -> None:
    """A sender that hashed an empty field has not identified anybody."""
    with pytest.raises(ids.Unusable) as caught:
        ids.digest(ids.email, hashlib.sha256(text.encode()).hexdigest())
    assert caught.value.reason == "placeholder"


def test_hashed_tells_hashes_from_text() -> None:
    """Only 64 hex digits are a SHA-256; 40 (SHA-1) or a stray letter are not."""
    assert ids.hashed("A" * 64) == "a" * 64
    assert ids.hashed("a" * 63 + "g") is None
    assert ids.hashed("a" * 40) is None
    assert ids.hashed("a" * 65) is None


def test_lone_surrogate_is_never_hashed() -> None:
    """The hash function itself refuses text that has no UTF-8 form."""
    with pytest.raises(ids.Unusable) as caught:
        ids.sha256("\udcff")
    assert caught.value.reason == "undecodable"


@pytest.mark.parametrize("normalise", [*ids.FIELDS.values(), ids.ip, ids.user_agent])
def test_any_text_is_normal_or_unusable(normalise: Callable[[str], str]) -> None:
    """Arbitrary text raises nothing but Unusable, and the normal form is trimmed, encodable and stable."""

    @BOUNDED
    @given(LOOSE_TEXT)
    @example("İ\u0307@example.com")
    @example("ΑΣ-Σ")
    def check(text: str) -> None:
        try:
            normal = normalise(text)
        except ids.Unusable:
            return
        assert normal
        assert normal == normal.strip()
        assert normalise is ids.user_agent or normal == normal.lower()
        assert normal.encode()
        assert normalise(normal) == normal

    check()


@pytest.mark.parametrize("normalise", ids.COUNTRY_FIELDS.values())
def test_any_text_in_any_country(normalise: Callable[[str, str | None], str]) -> None:
    """The same in a country; a normal form stays what it is when no country is known."""

    @BOUNDED
    @given(LOOSE_TEXT, COUNTRIES)
    def check(text: str, country: str | None) -> None:
        try:
            normal = normalise(text, country)
        except ids.Unusable:
            return
        assert normal.isascii()
        assert normal.isalnum()
        assert normal == normal.lower()
        assert normalise(normal, None) == normal

    check()


@BOUNDED
@given(st.from_regex(r"\A\+?[0-9]{1,18}\Z"), COUNTRIES)
def test_phone_is_digits_without_leading_zeros(text: str, country: str | None) -> None:
    """Whatever the number, what is hashed has 7 to 15 digits and starts with none of the zeros."""
    try:
        normal = ids.phone(text, country)
    except ids.Unusable:
        return
    assert normal.isdigit()
    assert normal[0] != "0"
    assert 7 <= len(normal) <= 15


@BOUNDED
@given(st.dates(date(1900, 1, 1), date(2100, 12, 31)))
def test_every_date_is_read_back(day: date) -> None:
    """Common ways to write a date give the same YYYYMMDD."""
    expected = day.strftime("%Y%m%d")
    for form in ("%Y-%m-%d", "%Y%m%d", "%d.%m.%Y", "%m/%d/%Y", "%B %d, %Y", "%d-%b-%Y", "%Y-%m-%dT%H:%M:%SZ"):
        assert ids.birth_date(day.strftime(form)) == expected


@BOUNDED
@given(LOOSE_TEXT)
def test_digest_is_always_a_hash(text: str) -> None:
    """What leaves is 64 lower-case hex digits, or nothing."""
    for normalise in ids.FIELDS.values():
        try:
            value = ids.digest(normalise, text)
        except ids.Unusable:
            continue
        assert len(value) == 64
        assert set(value) <= set("0123456789abcdef")
