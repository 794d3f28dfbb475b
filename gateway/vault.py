"""
The files of the quarantine: one line in clear, then one hit under AES-256-GCM.

The line is the cipher's associated data: whoever changes it, or gives the file another name, makes it unreadable.
"""

import base64
import binascii
import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import Unreadable
from gateway.event import Struct
from gateway.hit import Hit

_MAGIC = b"tag-gateway quarantine 1 "
_NAME = re.compile(r"([0-9]{13}-[0-9a-f]{12})\.hit\Z")
_NONCE = 12
_MOST_LABEL = 4_096
#: Credentials have done their work before a hit is kept.
_LEFT_OUT = frozenset({"authorization", "proxy-authorization"})


class Damaged(Exception):
    """The file is not what was written."""


class Key:
    """An AES-256 key that hides itself; ``id`` (8 hex digits of its SHA-256) tells keys apart."""

    def __init__(self, raw: bytes) -> None:
        self.cipher = AESGCM(raw)
        self.id = hashlib.sha256(raw).hexdigest()[:8]

    @classmethod
    def parse(cls, text: str) -> "Key | None":
        """Return the key that base64 text holds, None when it is not 32 bytes."""
        try:
            raw = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            return None
        return cls(raw) if len(raw) == 32 else None


class Label(Struct, frozen=True, kw_only=True):
    """
    What stands in clear: nothing of the payload, and no exception's text.

    ``key`` is the key's id, ``plugin``, ``error`` and ``where`` tell the last failure, ``tries`` counts replays.
    """

    id: str
    key: str
    source: str
    plugin: str
    error: str
    where: str
    received_at: float
    tries: int = 0
    refused: bool = False
    is_damaged: bool = False

    def again(self, *, error: str, where: str, refused: bool) -> "Label":
        """Return the label after one more replay."""
        return msgspec.structs.replace(self, error=error, where=where, refused=refused, tries=self.tries + 1)


class Content(Struct, frozen=True, kw_only=True):
    """What is encrypted: the hit, without credentials."""

    method: str
    tail: str
    query: str
    headers: dict[str, str]
    body: bytes
    peer: str | None

    def __repr__(self) -> str:
        """Everything in it may be personal."""
        return f"Content({len(self.body)} bytes)"


def label_of(hit: Hit, failure: Unreadable, key: Key) -> Label:
    """Return the label of a hit that is to be kept, under a new id that sorts by time."""
    moment = int(max(0.0, hit.received_at) * 1000) % 10**13
    return Label(
        id=f"{moment:013}-{secrets.token_hex(6)}", key=key.id, source=hit.source.name,
        plugin=failure.plugin, error=failure.error, where=failure.where, received_at=hit.received_at,
    )  # fmt: skip


def content_of(hit: Hit) -> Content:
    """
    Return what is kept of a hit.

    Cookies stay with a public source, where a click id may be in one; of a server source they are nobody's.
    """
    left_out = _LEFT_OUT | {"cookie"} if hit.source.is_server else _LEFT_OUT
    headers = {name: value for name, value in hit.headers.items() if name not in left_out}
    return Content(
        method=hit.method, tail=hit.tail, query=hit.query, headers=headers, body=hit.body, peer=hit.peer
    )  # fmt: skip


class Vault:
    """The folder; every method blocks, and is called on one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def scan(self) -> Iterator[tuple[Label, int]]:
        """Yield label and size of each file; what a crash left half written is deleted."""
        try:
            entries = sorted(os.scandir(self._folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.name.endswith(".part"):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()
            elif (found := _NAME.match(entry.name)) and entry.is_file(follow_symlinks=False):
                size, changed_at = entry.stat().st_size, entry.stat().st_mtime
                try:
                    label = self._read(found[1])[0]
                except (Damaged, OSError):
                    label = Label(
                        id=found[1], key="", source="-", plugin="", error="damaged", where="", received_at=changed_at,
                        is_damaged=True,
                    )  # fmt: skip
                yield label, size

    def write(self, key: Key, label: Label, content: Content, min_free_bytes: int) -> int:
        """
        Write one file, durably, in place of an earlier one of the same id; returns its size.

        Raises:
            OSError: It is not there, or may not be; nothing is left of it.
        """
        head = _MAGIC + msgspec.json.encode(label) + b"\n"
        nonce = secrets.token_bytes(_NONCE)
        sealed = key.cipher.encrypt(nonce, msgspec.msgpack.encode(content), head)
        self._make_folder()
        size = len(head) + len(nonce) + len(sealed)
        if shutil.disk_usage(self._folder).free - size < min_free_bytes:
            raise OSError(28, "the disk has less than [store] min_free_mb free")
        part, path = self._folder / f"{label.id}.part", self._path(label.id)
        is_new = not path.exists()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(part, flags, 0o600), "wb") as stream:
                stream.write(head + nonce + sealed)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
            _sync(self._folder)
        except OSError:
            for left in (part, path) if is_new else (part,):
                with contextlib.suppress(OSError):
                    left.unlink()
            raise
        return size

    def _make_folder(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            _sync(self._folder.parent)
        if self._folder.stat().st_mode & 0o077:
            self._folder.chmod(0o700)

    def read(self, key: Key, label: Label) -> Content:
        """
        Decrypt one file.

        Raises:
            Damaged: It was changed. OSError: It cannot be read.
        """
        found, head, rest = self._read(label.id)
        try:
            plain = key.cipher.decrypt(rest[:_NONCE], rest[_NONCE:], head)
            content = msgspec.msgpack.decode(plain, type=Content)
        except (InvalidTag, ValueError, msgspec.DecodeError):
            raise Damaged from None
        if found != label:
            raise Damaged
        return content

    def _read(self, name: str) -> tuple[Label, bytes, bytes]:
        content = self._path(name).read_bytes()
        end = content.find(b"\n", 0, _MOST_LABEL) + 1
        head, rest = content[:end], content[end:]
        if not head.startswith(_MAGIC):
            raise Damaged
        try:
            label = msgspec.json.decode(head[len(_MAGIC) :], type=Label)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Damaged from None
        if label.id != name:
            raise Damaged
        return label, head, rest

    def remove(self, names: Sequence[str]) -> None:
        """
        Delete files for good; one that is gone is fine.

        Raises:
            OSError: One cannot be deleted.
        """
        for name in names:
            self._path(name).unlink(missing_ok=True)
        if names:
            _sync(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.hit"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
