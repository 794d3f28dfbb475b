"""The file of alarms: what outlives a restart."""

import logging
import os
from pathlib import Path

import msgspec

from gateway.event import Struct

_log = logging.getLogger("gateway.alarms")


class Alarm(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    One alarm.

    ``id`` names it for ``acknowledge``. ``kind`` is one of :data:`gateway.alarms.kinds.KINDS`, or what a plugin made
    up. ``where``: the source, destination, plugin or connection, "-" for the gateway. ``since``: Unix s. ``detail``
    says what was found, ``remedy`` what to do; neither holds a payload, an identifier or a secret.
    """

    id: str
    kind: str
    title: str
    where: str
    since: float
    detail: str
    remedy: str
    acknowledged: bool = False

    def noted(self) -> "Alarm":
        """Return it acknowledged."""
        return msgspec.structs.replace(self, acknowledged=True)


class Told(Struct, frozen=True, kw_only=True):
    """What the receiver was last told of, at ``at``; ``gone_at`` is since when the alarm is not up. Unix s."""

    alarm: Alarm
    at: float
    gone_at: float | None = None


class Journal(Struct, frozen=True, kw_only=True):
    """The content of the file."""

    alarms: tuple[Alarm, ...] = ()
    told: tuple[Told, ...] = ()

    @staticmethod
    def read(file: Path) -> "Journal":
        """Return the content; nothing of a file that is not there or cannot be read."""
        try:
            return msgspec.json.decode(file.read_bytes(), type=Journal)
        except FileNotFoundError:
            return Journal()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.warning("alarms_not_read", extra={"detail": type(error).__name__})
            return Journal()

    def encoded(self) -> bytes:
        """Return the bytes of the file."""
        return msgspec.json.encode(self)

    @staticmethod
    def write(file: Path, content: bytes) -> None:
        """Put a new file in the old one's place, mode 600; says in the log when that fails."""
        new = file.with_name(f"{file.name}.new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
            new.replace(file)
        except OSError as error:
            _log.warning("alarms_not_written", extra={"detail": error.strerror})
