"""
Room on the disk: hits are refused before it is full, and a ballast is kept to finish what was accepted.

On a full disk SQLite can delete nothing: what was delivered could not be marked, and would go out again. So a file
beside the store, really allocated, is given up when that happens; hits are refused until it is back.
"""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger("gateway.store")
#: On a small disk the mark, and the ballast, are at most this part of it.
_SHARE = 4
#: Seconds between looks: far from the mark, and near it. A look takes microseconds.
_SELDOM_S = 1.0
_OFTEN_S = 0.1
_WRITE = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Disk:
    """What the file system says, in bytes: ``free`` for us, and ``total``."""

    def __init__(self, folder: Path) -> None:
        found = os.statvfs(folder)
        self.free = found.f_bavail * found.f_frsize
        self.total = found.f_blocks * found.f_frsize


class Space:
    """
    Watches the file system of the store.

    Args:
        path: The store. The ballast is ``path`` with ``.ballast`` appended.
        min_free: Bytes below which hits are refused; at most a quarter of the disk counts. 0: until it is full.
        ballast: Bytes of the ballast, likewise at most a quarter; 0: none.
        disk: Asks the file system.
    """

    def __init__(self, path: Path, min_free: int = 0, ballast: int = 0, disk: Callable[[Path], Disk] = Disk) -> None:
        self._path = path
        self._ballast = path.with_name(path.name + ".ballast")
        self._disk = disk
        self._wanted_free, self._wanted_ballast = min_free, ballast
        self._next_look = 0.0
        self.mark = self._size = 0
        #: Bytes free at the last look.
        self.free = 0
        #: Why hits are refused; None while they are taken.
        self.trouble: str | None = None
        #: See :attr:`gateway.outbox.Outbox.room`.
        self.room = 1.0
        self.look(force=True)

    @property
    def has_ballast(self) -> bool:
        """Whether the ballast is there, as large as it should be."""
        try:
            return self._ballast.stat().st_size >= self._size
        except FileNotFoundError:
            return self._size == 0

    def look(self, *, force: bool = False) -> None:
        """Look at the disk if it is time to, and make the ballast when it is missing and there is room for it."""
        now = time.monotonic()
        if not force and now < self._next_look:
            return
        disk = self._disk(self._path.parent)
        self.free = disk.free
        self.mark = min(self._wanted_free, disk.total // _SHARE)
        self._size = min(self._wanted_ballast, disk.total // _SHARE)
        if not self.has_ballast and disk.free - self._size >= self.mark + self._size // 4:
            self._make()
        self._judge()
        self._next_look = now + (_OFTEN_S if self.room < 1.0 or self.free < 2 * self.mark else _SELDOM_S)

    def _judge(self) -> None:
        trouble = None
        if self.free < self.mark:
            trouble = f"The disk has {self.free >> 20} MB free, less than the {self.mark >> 20} MB of min_free_mb."
        elif not self.has_ballast:
            trouble = f"The disk was full: hits are taken again when the ballast of {self._size >> 20} MB fits."
        if (trouble is None) != (self.trouble is None):
            event, level = ("disk_ok", logging.INFO) if trouble is None else ("disk_low", logging.ERROR)
            detail = trouble or "Hits are taken again."
            remedy = {"remedy": "Make room on the disk; it goes on by itself."} if trouble else {}
            _log.log(level, event, extra={"free_bytes": self.free, "mark_bytes": self.mark, "detail": detail, **remedy})
        self.trouble = trouble
        above = (self.free - self.mark) / (self.mark / 4) if self.mark else 1.0
        self.room = 0.0 if trouble else max(0.0, min(1.0, above))

    def _make(self) -> None:
        try:
            descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(descriptor, 0o600)
                _allocate(descriptor, self._size)
            finally:
                os.close(descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._ballast.unlink(missing_ok=True)
            if error.errno not in _FULL:
                self._wanted_ballast = self._size = 0
                _log.warning("no_ballast", extra={"detail": f"The ballast cannot be written ({error.strerror})."})
        self.free = self._disk(self._path.parent).free

    def close(self) -> None:
        """Take the ballast away after a clean stop: while nothing is sent there is nothing to finish."""
        self._ballast.unlink(missing_ok=True)

    def give_up(self) -> bool:
        """Delete the ballast to finish what is under way; returns whether that freed anything. Refuses hits."""
        if not self._size or not self._ballast.exists():
            return False
        self._ballast.unlink(missing_ok=True)
        _log.error("ballast_given_up", extra={"bytes": self._size, "remedy": "Make room on the disk."})
        self.free = self._disk(self._path.parent).free
        self._judge()
        return True


def _allocate(descriptor: int, size: int) -> None:
    """Take the space for real: a file with a hole in it would be no ballast."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for start in range(0, size, _WRITE):
        os.pwrite(descriptor, os.urandom(min(_WRITE, size - start)), start)


#: File systems on which locks and shared memory do not hold across machines.
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs",
                      "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.cephfs", "ncpfs"})  # fmt: skip


def network_file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Return the type of a network file system that the folder is on; None for any other, and where nobody knows."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place, found = folder.resolve(), None
    longest = -1
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        where = Path(point.replace("\\040", " "))
        if (where == place or where in place.parents) and len(where.parts) >= longest:
            longest, found = len(where.parts), kind
    return found if found in _NETWORK else None
