"""
The GPP decoder against strings that the IAB publishes, and against strings that are none.

Sources of the strings, read 2026-11: "spec" is IAB Tech Lab, Global-Privacy-Platform, Core/Consent String Specification
(header and string examples 1 to 3); "encoder" is the tests of the IAB's own encoder, IABTechLab/iabgpp-es,
modules/cmpapi/test (HeaderV1, GppModel, and one file for each section).
"""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.plugins.privacy import gpp, us_privacy

TCF = "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def base64url(bits: str) -> str:
    """Encode bits as the specification says: padded with zeros on the right to a multiple of six."""
    bits += "0" * (-len(bits) % 6)
    return "".join(ALPHABET[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


def fibonacci(number: int) -> str:
    """Encode a positive number, by the steps of the specification."""
    weights = [1, 2]
    while weights[-1] <= number:
        weights.append(weights[-1] + weights[-2])
    bits, started = "", False
    for weight in reversed(weights):
        if weight <= number:
            number -= weight
            started = True
            bits = "1" + bits
        elif started:
            bits = "0" + bits
    return bits + "1"


def string(*sections: tuple[int, str]) -> str:
    """Build a GPP string of sections in the order of their ids."""
    bits, last = f"{3:06b}{1:06b}{len(sections):012b}", 0
    for key, _ in sections:
        bits += "0" + fibonacci(key - last)
        last = key
    return "~".join([base64url(bits), *(text for _, text in sections)])


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1, "11"), (2, "011"), (3, "0011"), (4, "1011"), (5, "00011"), (6, "10011"), (7, "01011")],
)
def test_fibonacci_numbers_of_the_specification(number: int, expected: str) -> None:
    """The test's own encoder gives the table of the specification, so what it builds may be relied on."""
    assert fibonacci(number) == expected


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("DBAA", []),  # encoder
        (f"DBABM~{TCF}", [2]),  # spec, header example 1
        (f"DBABMA~{TCF}", [2]),  # spec, string example 1
        (f"DBACNY~{TCF}~1YNN", [2, 6]),  # spec, header example 2
        (f"DBACNYA~{TCF}~1YNN", [2, 6]),  # spec, string example 2
        (f"DBABjw~{TCF}~1YNN", [5, 6]),  # spec, example 3: a group
        ("DBABTA~1YNN", [6]),  # encoder
        ("DBACOeA~a~b~c", [2, 5, 6]),  # encoder: a single id and a group
        ("DBACOaw~a~b~1---~c~d~e~f~g~h", [2, 5, 6, 7, 8, 9, 10, 11, 12]),  # encoder
    ],
)
def test_headers(text: str, ids: list[int]) -> None:
    """Every published header names its sections."""
    assert list(gpp.sections(text)) == ids


#: Section id, a published section with every opt-out set to 1, one with none, and one without the GPC subsection.
#: Source: encoder.
PUBLISHED = [
    ("usnat, version 1", 7, "BVVVkkkklWA.YA", "BAAAAAAAAQA.QA", "BAAAAAAAAQA"),
    ("usnat, with the fields of version 2", 7, "BVVVkkkkkpFY.YA", "BAAAAAAAAABA.QA", "BAAAAAAAAABA"),
    ("usnat, older", 7, "BVVVkkkkkpFY", "BAAAAAAAAAAA.QAAA", "BAAAAAAAAAA.QA"),
    ("usca", 8, "BVWSSSVY.YA", "BAAAAABA.QA", "BAAAAABA"),
    ("usva", 9, "BVWSSVY", "BAAAABA", "BAAAAAA"),
    ("usco", 10, "BVWSSVg.YA", "BAAAAEA.QA", "BAAAAEA"),
    ("usut", 11, "BVVkklW", "BAAAAAQ", "BAAAAAQA"),
    ("usut, longer", 11, "BVVkklWA", "BAAAAAQ", "BAAAAAAA"),
    ("usct", 12, "BVWSSZFg.YA", "BAAAAAEA.QA", "BAAAAAEA"),
    ("usfl", 13, "BVWSSZlY", "BAAAAABA", "BAAAAABA"),
    ("usmt", 14, "BVWSSZFY.YA", "BAAAAABA.QA", "BAAAAABA"),
    ("usor", 15, "BVWSSRpFYA.YA", "BAAAAAABAA.QA", "BAAAAAABAA"),
    ("ustx", 16, "BVWSSVW.Y", "BAAAAAQ.Q", "BAAAAAQ"),
    ("ustx, longer", 16, "BVWSSVWA.YA", "BAAAAAQA.QA", "BAAAAAQ"),
    ("usde", 17, "BVWSSSSVY.Y", "BAAAAAABA.Q", "BAAAAAABA"),
    ("usia", 18, "BVVkklW.Y", "BAAAAAQ.Q", "BAAAAAQ"),
    ("usia, longer", 18, "BVVkklWA.YA", "BAAAAAQA.QA", "BAAAAAQ"),
    ("usne", 19, "BVWSSVW.Y", "BAAAAAQ.Q", "BAAAAAQ"),
    ("usnh", 20, "BVWSSZFY.Y", "BAAAAABA.Q", "BAAAAABA"),
    ("usnj", 21, "BVWSSRklWA.YA", "BAAAAAAAQA.QA", "BAAAAAAAQA"),
    ("ustn", 22, "BVWSSVWA.YA", "BAAAAAQA.QA", "BAAAAAQA"),
    ("usmn", 23, "BVWSSVW.Y", "BAAAAAQ.Q", "BAAAAAQ"),
    ("usmd", 24, "BVVV.Y", "BQAA.Q", "BQAA"),
    ("usin", 25, "BVVVkkk.YA", "BQAAAAA.QA", "BQAAAAA"),
    ("usky", 26, "BVVVkkk.YA", "BQAAAAA.QA", "BQAAAAA"),
    ("usri", 27, "BVVV.kkk", "BQAA.AAA", "BQAA"),
]


@pytest.mark.parametrize(
    ("key", "out", "silent", "bare"), [row[1:] for row in PUBLISHED], ids=[row[0] for row in PUBLISHED]
)
def test_published_sections(key: int, out: str, silent: str, bare: str) -> None:
    """The IAB's own examples: opted out, also without the GPC subsection, and not opted out."""
    assert gpp.is_opt_out(string((key, out)), None) is True
    assert gpp.is_opt_out(string((key, out.split(".")[0])), None) is True
    assert gpp.is_opt_out(string((key, silent)), None) is False
    assert gpp.is_opt_out(string((key, bare)), None) is False


def test_a_published_string_without_an_opt_out() -> None:
    """The encoder's string of all sections, each at its default, is no opt-out; "1---" among them is none either."""
    text = (
        "DBACOaw~CPSG_8APSG_8AAAAAAENAACAAAAAAAAAAAAAAAAAAAAA.QAAA.IAAA~CPSG_8APSG_8AAAAAAENAACAAAAAAAAAAAAAAAAA"
        ".YAAAAAAAAAA~1---~BAAAAAAAAAA.QA~BAAAAAAA.QA~BAAAAAA~BAAAAAA.QA~BAAAAAAA~BAAAAAAA.QA"
    )
    assert gpp.is_opt_out(text, None) is False


def test_a_published_section_without_consent_to_nothing() -> None:
    """Notices given and every opt-out declined (2): the encoder's ``BVQqAAAACg``."""
    assert gpp.is_opt_out(string((7, "BVQqAAAACg")), None) is False


#: Bits before the opt-outs, and how many opt-outs there are. Source: the field tables of the specifications.
FIELDS = {
    7: (18, 3), 8: (12, 2), 9: (12, 2), 10: (12, 2), 11: (14, 2), 12: (12, 2), 13: (12, 2), 14: (12, 2), 15: (12, 2),
    16: (12, 2), 17: (12, 2), 18: (14, 2), 19: (12, 2), 20: (12, 2), 21: (12, 2), 22: (12, 2), 23: (12, 2),
    24: (16, 2), 25: (16, 2), 26: (16, 2), 27: (16, 2),
}  # fmt: skip


@pytest.mark.parametrize("key", FIELDS)
def test_each_opt_out_counts_alone(key: int) -> None:
    """Sale, sharing and targeted advertising each suffice; their neighbours, notices and consents, do not."""
    before, count = FIELDS[key]
    for at in range(6, before + 2 * count + 4, 2):
        core = base64url(f"{1:06b}" + "00" * ((at - 6) // 2) + "01" + "00" * 20)
        expected = before <= at < before + 2 * count
        assert gpp.is_opt_out(string((key, core)), None) is expected, at


@pytest.mark.parametrize("key", FIELDS)
@pytest.mark.parametrize(("subsection", "expected"), [("YA", True), ("Y", True), ("QA", False), ("AA", False)])
def test_the_gpc_subsection(key: int, subsection: str, expected: bool) -> None:
    """GPC in a section is an opt-out; Rhode Island's subsection is of sensitive data, whatever its bits."""
    core = base64url(f"{1:06b}" + "10" * 20)
    assert gpp.is_opt_out(string((key, f"{core}.{subsection}")), None) is (expected and key != 27)


@pytest.mark.parametrize("key", [24, 25, 26])
def test_sections_with_a_header(key: int) -> None:
    """The four newest specifications begin a section with its id and version: the core is what follows."""
    header = base64url(f"{key:06b}{1:06b}{1:012b}" + "011")
    out, silent = (base64url(f"{1:06b}" + "10" * 5 + value + "10" * 3) for value in ("01", "10"))
    assert gpp.is_opt_out(string((key, f"{header}.{out}")), None) is True
    assert gpp.is_opt_out(string((key, f"{header}.{silent}")), None) is False
    assert gpp.is_opt_out(string((key, f"{header}.{silent}.YA")), None) is True


OUT_CA, SILENT_NAT = (8, "BVWSSSVY"), (7, "BAAAAAAAAQA")


@pytest.mark.parametrize(
    ("section_ids", "expected"),
    [
        (None, True),
        ("", True),
        ("8", True),
        ("7", False),
        ("7,8", True),
        ("7_8", True),
        ("2", False),
        ("-1", True),
        ("0", True),
        ("99", True),
        ("text", True),
        ("9" * 900, True),
    ],
)
def test_applicable_sections(section_ids: str | None, expected: bool) -> None:
    """``gpp_sid`` picks the sections that count; when it names none of those that are there, all count."""
    assert gpp.is_opt_out(string((2, TCF), SILENT_NAT, OUT_CA), section_ids) is expected


@pytest.mark.parametrize(
    "text",
    [
        "DBABL",  # the number does not end
        "DBAB",
        "DBABMA",  # a section is missing
        f"DBABMA~{TCF}~1YNN",  # one too many
        "DBA",
        "D",
        "",
        TCF,  # a TCF string
        "1YNN",
        "CBABTA~1YNN",  # another type
        "DCABTA~1YNN",  # another version
        "DBABTA~1YN",  # no US privacy string
        "DBABTA~BAA",
        "DBABTA~",
        "DBABTA~1Y N",
        "DBABTA%7E1YNN",
        "${GPP_STRING}",
        string((8, "")),
        string((8, "z")),
        string((8, "BV")),  # too short for its opt-outs
        string((8, "CAAAAABA")),  # a version that is not published
        string((7, "DAAAAAAAAQA")),
        string((8, base64url(f"{1:06b}" + "000000" + "1100" + "00" * 9))),  # 3 means nothing
        "DP__" + "_" * 40,
        base64url(f"{3:06b}{1:06b}{1:012b}1{fibonacci(1)}{fibonacci(10**18)}") + "~a",  # a group without end
        "DBABTA~1YNN" + "A" * 9_000,
    ],
)  # fmt: skip
def test_unreadable_strings(text: str) -> None:
    """What is no GPP string, or has a section that is not as its law's specification has it, is unreadable."""
    assert gpp.is_opt_out(text, None) is None


def test_an_opt_out_beside_an_unreadable_section() -> None:
    """An opt-out that can be read is one, whatever stands beside it; a section that does not apply is no matter."""
    text = string((7, "z"), OUT_CA)
    assert gpp.is_opt_out(text, None) is True
    assert gpp.is_opt_out(text, "7") is None
    assert gpp.is_opt_out(string((7, "z"), (8, "BAAAAABA")), "8") is False


@pytest.mark.parametrize("key", [1, 2, 3, 5, 28, 99, 4_000])
def test_unknown_sections_are_skipped(key: int) -> None:
    """Other countries' sections, and newer ones, say nothing about the opt-outs of the US."""
    assert gpp.is_opt_out(string((key, "anything.at_all")), None) is False
    if key < 8:
        assert gpp.is_opt_out(string((key, "x"), OUT_CA), None) is True


@given(st.text(alphabet=ALPHABET + "~.", max_size=200))
def test_nothing_raises(text: str) -> None:
    """Any text has an answer."""
    assert gpp.is_opt_out(text, None) in (True, False, None)
    assert gpp.is_opt_out("DBABTA~" + text, text) in (True, False, None)


def test_hostile_strings_are_cheap() -> None:
    """A string of the greatest length, built to be slow, costs milliseconds."""
    worst = [
        "D" + "BP_" + "A" * 8_000,
        "DBP_" + "M" * 8_000,
        "DBAB" + "A" * 7_990 + "w~a",
        string((2, "~".join("a" * 4_000))[:2]),
    ]
    before = time.perf_counter()
    for text in worst:
        gpp.is_opt_out(text, None)
    assert time.perf_counter() - before < 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1YNN", False), ("1YYN", True), ("1NYN", True), ("1yyn", True), ("1-Y-", True), ("1---", False),
        ("1YN-", False), (" 1YYN ", True), ("2YYN", None), ("1YY", None), ("1YYNN", None), ("Y", None),
        ("1Y1N", None), ("${US_PRIVACY}", None), ("1YЧN", None),
    ],
)  # fmt: skip
def test_us_privacy_strings(text: str, expected: bool | None) -> None:
    """Only version 1 with its own letters is read."""
    assert us_privacy.is_opt_out(text) is expected


def test_no_text_of_a_string_is_in_an_error() -> None:
    """An unreadable string leaves no trace of itself."""
    with pytest.raises(gpp.Unreadable) as caught:
        gpp.sections("DBABTA~secret~secret")
    assert not re.search("secret", repr(caught.value))
