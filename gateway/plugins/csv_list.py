"""
CSV files as a source of audiences: each file is a list. A source of your own can start from this one.

``[audience_sources.NAME]`` with ``type = "csv"`` and ``path``, a file or a folder of ``*.csv``. Write a new file beside
the old one and rename it: a file that changes while it is read is read anew.
"""

import asyncio
import builtins
import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar

from msgspec import Meta

from gateway import AudienceError, AudienceSource, Context, Group, Member, Page, Struct, hookimpl

#: Rows on one page.
PAGE_SIZE = 2_000
#: Bytes of the longest line.
_MAX_LINE = 65_536


class CsvOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Where the lists are.

    Args:
        path: A file or a folder, relative to the configuration file.
        email_column: The header of the column of e-mail addresses.
        id_column: The header of a column that names a person for good, so that a changed address is seen as one; empty:
            the address itself is the person.
        delimiter: Between columns.
        encoding: Of the files; a byte order mark of UTF-8 is skipped.
    """

    path: str
    email_column: str = "email"
    id_column: str = ""
    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    encoding: str = "utf-8"


class _Where(Struct, frozen=True, kw_only=True):
    """What identifies one state of a file."""

    inode: int
    size: int
    changed_ns: int


class CsvLists(AudienceSource):
    """
    Each file is a list whose id is the file's name.

    Raises:
        ValueError: An option cannot work.
    """

    type: ClassVar[str] = "csv"
    Options: ClassVar[builtins.type[Struct]] = CsvOptions
    options: CsvOptions

    def __init__(self, name: str, options: Any, context: Context) -> None:
        super().__init__(name, options, context)
        if not self.options.path:
            raise ValueError("path must name a file or a folder.")
        try:
            is_usable = "\n".encode(self.options.encoding) == b"\n"  # lines are cut before they are decoded
        except LookupError:
            is_usable = False
        if not is_usable:
            raise ValueError(f"encoding '{self.options.encoding}' cannot be read: write utf-8 or latin-1.")
        self._path = context.folder / self.options.path
        self._sizes: dict[str, tuple[_Where, int]] = {}

    async def groups(self, search: str = "") -> Sequence[Group]:
        """Return the files, without sizes: counting takes a reading of each."""
        wanted = search.casefold()
        names = await asyncio.to_thread(self._names)
        found = [Group(id=name, name=Path(name).stem, kind="list") for name in names]
        return [group for group in found if wanted in group.name.casefold()]

    async def group(self, kind: str, group_id: str) -> Group:
        """Return one file with the number of its rows, counted once for each state of the file."""
        size = await asyncio.to_thread(self._count, self._file(kind, group_id))
        return Group(id=group_id, name=Path(group_id).stem, kind="list", size=size)

    async def page(self, group: Group, cursor: str | None = None, *, since: float | None = None) -> Page:
        """Return 2,000 rows; ``since`` is not known here, see ``tells_who_joined``."""
        if since is not None:
            raise AudienceError("A CSV file does not tell who joined when: run a full pass.")
        return await asyncio.to_thread(self._read, self._file(group.kind, group.id), cursor)

    async def probe(self) -> str | None:
        """Look for the files; None when there is one."""
        names = await asyncio.to_thread(self._names)
        return None if names else f"{self._path} is not there, or holds no file named *.csv."

    def _names(self) -> list[str]:
        if self._path.is_file():
            return [self._path.name]
        return sorted(file.name for file in self._path.glob("*.csv") if file.is_file())

    def _file(self, kind: str, group_id: str) -> Path:
        # the name alone: an id must not lead out of the folder
        if kind not in ("", "list") or group_id != Path(group_id).name or group_id in ("", ".", ".."):
            raise AudienceError(f"There is no {kind or 'list'} '{group_id}': the lists here are files.")
        return self._path if self._path.name == group_id and not self._path.is_dir() else self._path / group_id

    def _count(self, path: Path) -> int:
        with _opened(path) as file:
            now = _where(file)
            known = self._sizes.get(path.name)
            if known is None or known[0] != now:
                self._columns(file, path)
                known = self._sizes[path.name] = (now, sum(1 for _ in self._rows(file, path)))
        return known[1]

    def _read(self, path: Path, cursor: str | None) -> Page:
        with _opened(path) as file:
            now = _where(file)
            email, identity = self._columns(file, path)
            mark = f"{now.inode}-{now.size}-{now.changed_ns}"
            if cursor is not None:
                seen, _, offset = cursor.rpartition("@")
                if seen != mark or not offset.isdigit():
                    raise AudienceError(f"{path.name} has changed: it is read anew.", retry_after_s=0.0)
                file.seek(int(offset))
            members: list[Member] = []
            for row in self._rows(file, path):
                members.append(_member(row, email, identity))
                if len(members) == PAGE_SIZE:
                    break
            at = file.tell()
            if _where(file) != now:
                raise AudienceError(f"{path.name} changed while it was read: it is read anew.", retry_after_s=0.0)
        return Page(members=tuple(members), cursor=f"{mark}@{at}" if at < now.size else None)

    def _columns(self, file: BinaryIO, path: Path) -> tuple[int, int]:
        header = [name.strip().removeprefix("\ufeff").casefold() for name in next(self._rows(file, path), [])]
        found = []
        for name in (self.options.email_column, self.options.id_column or self.options.email_column):
            if name.casefold() not in header:
                raise AudienceError(
                    f"{path.name} has no column '{name}': its first line must name the columns; set email_column, "
                    "id_column or delimiter."
                )
            found.append(header.index(name.casefold()))
        return found[0], found[1]

    def _rows(self, file: BinaryIO, path: Path) -> Iterator[list[str]]:
        """Yield rows that are not empty; the file's position is then at the next row."""
        try:
            for row in csv.reader(self._lines(file, path), delimiter=self.options.delimiter, strict=True):
                if any(row):
                    yield row
        except UnicodeDecodeError:
            raise AudienceError(f"{path.name} is not {self.options.encoding}: set encoding.") from None
        except csv.Error as error:
            raise AudienceError(f"{path.name} is not a CSV file near byte {file.tell()}: {error}.") from None

    def _lines(self, file: BinaryIO, path: Path) -> Iterator[str]:
        while line := file.readline(_MAX_LINE + 1):
            if len(line) > _MAX_LINE:
                raise AudienceError(f"{path.name} has a line over {_MAX_LINE} bytes near byte {file.tell()}.")
            yield line.decode(self.options.encoding)


def _member(row: list[str], email: int, identity: int) -> Member:
    address = row[email].strip() if email < len(row) else ""
    named = row[identity].strip() if identity < len(row) else ""
    # ids are kept on disk, so an address as id is hashed
    if not named or identity == email:
        named = hashlib.sha256(address.lower().encode()).hexdigest()
    return Member(id=named, email=address, left_out=None if address else "no_email")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise AudienceError(f"{path} is not there: was it moved? Connect another list, or bring it back.") from None
    except OSError as error:
        raise AudienceError(f"{path} cannot be read ({error.strerror}): mend its owner and mode.") from None


def _where(file: BinaryIO) -> _Where:
    about = os.fstat(file.fileno())
    return _Where(inode=about.st_ino, size=about.st_size, changed_ns=about.st_mtime_ns)


@hookimpl
def register_audience_sources(context: Context) -> Sequence[type[AudienceSource]]:  # noqa: ARG001 - the hook's signature
    """Register the source type ``csv``."""
    return [CsvLists]
