"""CSV files as a source: lists, ids that stay, pages that can be resumed, and files that change or are wrong."""

import asyncio
import csv
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import AudienceError, Context, Group, Member
from gateway.plugins.csv_list import PAGE_SIZE, CsvLists, CsvOptions


def lists(folder: Path, **given: Any) -> CsvLists:
    """Return a source of the files of a folder."""
    return CsvLists("files", CsvOptions(**{"path": ".", **given}), Context(folder=folder))


def members(source: CsvLists, name: str = "a.csv") -> list[Member]:
    """Read every page."""

    async def go() -> list[Member]:
        found: list[Member] = []
        cursor = None
        while True:
            page = await source.page(Group(id=name, name=name, kind="list"), cursor)
            found += page.members
            cursor = page.cursor
            if cursor is None:
                return found

    return asyncio.run(go())


def write(folder: Path, text: str | bytes, name: str = "a.csv") -> Path:
    """Write a file."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_each_file_is_a_list(tmp_path: Path) -> None:
    """A folder's *.csv by name, one file alone, and a search without case."""
    for name in ("vip.csv", "News.csv", "readme.txt"):
        write(tmp_path, "email\na@example.com\n", name)
    (tmp_path / "folder.csv").mkdir()
    source = lists(tmp_path)
    found = asyncio.run(source.groups())
    assert [(one.id, one.name, one.kind, one.size) for one in found] == [
        ("News.csv", "News", "list", None),
        ("vip.csv", "vip", "list", None),
    ]
    assert [one.id for one in asyncio.run(source.groups("NEW"))] == ["News.csv"]
    assert [one.id for one in asyncio.run(source.groups("csv"))] == []
    single = lists(tmp_path, path="vip.csv")
    assert [one.id for one in asyncio.run(single.groups())] == ["vip.csv"]
    assert [one.email for one in members(single, "vip.csv")] == ["a@example.com"]


def test_rows_of_every_form_are_read_and_pages_resume_at_the_byte(tmp_path: Path) -> None:
    """Quoted line breaks, commas and umlauts across pages: every row once, in order, by fresh objects too."""
    path = tmp_path / "a.csv"
    wanted = [f"jo{number}@example.com" for number in range(2 * PAGE_SIZE + 7)]
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Name", "E-Mail"])
        writer.writerows(
            [f'Müller,\n"{address}"' if number % 3 else "", address] for number, address in enumerate(wanted)
        )
    cursor, found, pages = None, [], 0
    while pages == 0 or cursor is not None:
        fresh = lists(tmp_path, email_column="e-mail")
        page = asyncio.run(fresh.page(Group(id="a.csv", name="a", kind="list"), cursor))
        found += [member.email for member in page.members]
        cursor, pages = page.cursor, pages + 1
    assert found == wanted
    assert pages == 3
    assert asyncio.run(lists(tmp_path, email_column="E-Mail").group("list", "a.csv")).size == len(wanted)


def test_ids_stay(tmp_path: Path) -> None:
    """With an id column a changed address is the same person; without one the address is the person, hashed."""
    write(tmp_path, "id,email\n7,Jo@Example.com\n8,\n,sam@example.com\n")
    named = members(lists(tmp_path, id_column="id"))
    assert [(one.id, one.email, one.left_out) for one in named[:2]] == [
        ("7", "Jo@Example.com", None),
        ("8", "", "no_email"),
    ]
    plain = members(lists(tmp_path))
    assert len(named[2].id) == len(plain[0].id) == 64
    assert named[2].id == plain[2].id
    write(tmp_path, "id,email\n7,new@example.com\n1,JO@example.com \n")
    assert members(lists(tmp_path, id_column="id"))[0].id == "7"
    assert members(lists(tmp_path))[1].id == plain[0].id


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    """A cursor of the file as it was is refused with retry_after_s=0, whether it was replaced or appended to."""
    rows = "email\n" + "".join(f"jo{number}@example.com\n" for number in range(PAGE_SIZE + 1))
    group = Group(id="a.csv", name="a", kind="list")
    source = lists(tmp_path)
    for change in ("append", "replace"):
        path = write(tmp_path, rows)
        page = asyncio.run(source.page(group))
        assert page.cursor is not None
        if change == "append":
            path.write_text(rows + "sam@example.com\n")
        else:
            write(tmp_path, rows, "new").replace(path)
        with pytest.raises(AudienceError, match="read anew") as caught:
            asyncio.run(source.page(group, page.cursor))
        assert caught.value.retry_after_s == 0
    with pytest.raises(AudienceError, match="read anew"):
        asyncio.run(source.page(group, "nonsense"))


@pytest.mark.parametrize("text", ["email\n", "email", "email\n\n\n"])
def test_an_empty_list_has_one_empty_page(tmp_path: Path, text: str) -> None:
    """A header alone is a list of nobody."""
    write(tmp_path, text)
    assert members(lists(tmp_path)) == []
    assert asyncio.run(lists(tmp_path).group("list", "a.csv")).size == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no column 'email'"),
        (b"mail\njo@example.com\n", "no column 'email'"),
        (b"name;email\nx;jo@example.com\n", "no column 'email'"),
        (b"email\nj\xfc@example.com\n", "is not utf-8: set encoding"),
        (b'email\n"jo@example.com\n', "is not a CSV file"),
        (b"email\n" + b"x" * 70_000 + b"\n", "has a line over"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_not_quoted(tmp_path: Path, content: bytes, says: str) -> None:
    """An operator must mend it; no address in the message."""
    write(tmp_path, content)
    with pytest.raises(AudienceError, match=says) as caught:
        members(lists(tmp_path))
    assert caught.value.retry_after_s is None
    assert "jo@example" not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("name", ["../secret.csv", "/etc/passwd", "", ".", "..", "a/b.csv"])
def test_an_id_does_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """Only names of files in the folder are lists."""
    (tmp_path / "in").mkdir()
    write(tmp_path, "email\njo@example.com\n", "secret.csv")
    with pytest.raises(AudienceError, match="the lists here are files"):
        asyncio.run(lists(tmp_path, path="in").group("list", name))


def test_a_missing_file_and_a_since_are_told(tmp_path: Path) -> None:
    """The remedies are named; probe says the same before anything is connected."""
    source = lists(tmp_path)
    with pytest.raises(AudienceError, match="is not there"):
        asyncio.run(source.group("list", "gone.csv"))
    assert "no file" in (asyncio.run(source.probe()) or "")
    write(tmp_path, "email\n")
    assert asyncio.run(source.probe()) is None
    with pytest.raises(AudienceError, match="full pass"):
        asyncio.run(source.page(Group(id="a.csv", name="a", kind="list"), since=1.0))
    assert not CsvLists.tells_who_joined


@pytest.mark.parametrize(
    ("given", "says"), [({"path": ""}, "path"), ({"encoding": "utf-16"}, "encoding"), ({"encoding": "x"}, "encoding")]
)
def test_options_that_cannot_work_are_refused_at_start(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    """The message names the option."""
    with pytest.raises(ValueError, match=says):
        lists(tmp_path, **given)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"path": "a", "delimiter": ",,"}, CsvOptions)


def test_other_delimiters_and_encodings(tmp_path: Path) -> None:
    """As the options say."""
    write(tmp_path, "näme;email\nMüller;jo@example.com\n".encode("latin-1"))
    assert [one.email for one in members(lists(tmp_path, delimiter=";", encoding="latin-1"))] == ["jo@example.com"]
