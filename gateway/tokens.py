"""
Where the tokens of an OAuth sign-in are kept: a file that only its owner can read, replaced in one step.

Refresh tokens rotate: the new one must be on disk before the old one is forgotten, or a kill locks the operator out.
"""

import os
import tempfile
from pathlib import Path

import msgspec

from gateway.audience import AudienceError
from gateway.event import Struct
from gateway.hit import Secret
from gateway.interfaces import Context

_MODE = 0o600


class Tokens(Struct, frozen=True, kw_only=True):
    """
    What a sign-in gave; ``repr`` shows no token.

    ``expires_at`` and ``refresh_expires_at`` are Unix seconds, 0 when the vendor did not say. ``scope`` is the vendor's
    own wording.
    """

    access: Secret
    refresh: Secret | None = None
    expires_at: float = 0.0
    refresh_expires_at: float = 0.0
    scope: str = ""


class TokenFile:
    """
    One sign-in's tokens on disk, mode 600; read again whenever another process has replaced the file.

    Args:
        path: The file; its folder is made with mode 700 when it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None
        self._tokens: Tokens | None = None

    def read(self) -> Tokens | None:
        """
        Return the tokens, None when nobody has signed in.

        Raises:
            AudienceError: The file cannot be read, or is not one of ours; the message names it.
        """
        try:
            about = self.path.stat()
            seen = (about.st_ino, about.st_mtime_ns)
            if seen != self._seen:
                if about.st_mode & 0o077:
                    self.path.chmod(_MODE)
                self._tokens = msgspec.json.decode(self.path.read_bytes(), type=Tokens)
                self._seen = seen
        except FileNotFoundError:
            self._seen = self._tokens = None
        except OSError as error:
            raise AudienceError(f"{self.path} cannot be read ({error.strerror}): mend its owner and mode.") from None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # not chained: the decoder's message may quote the content
            raise AudienceError(f"{self.path} holds no tokens: remove it and sign in again.") from None
        return self._tokens

    def write(self, tokens: Tokens) -> None:
        """
        Replace the tokens, on disk when this returns; a kill leaves the old or the new ones whole.

        Raises:
            AudienceError: The folder cannot be written.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._replace(msgspec.json.encode(tokens))
        except OSError as error:
            raise AudienceError(
                f"{self.path} cannot be written ({error.strerror}): give the gateway's user its folder."
            ) from None
        self._seen = None

    def _replace(self, content: bytes) -> None:
        # mkstemp makes the file with mode 600
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self) -> None:
        """Forget the sign-in."""
        self.path.unlink(missing_ok=True)


def token_path(context: Context, configured: str, name: str) -> Path:
    """
    Return where the tokens of a sign-in belong: the ``configured`` path, relative to the configuration file, else a
    file beside the store, named after the plugin object (``name``).
    """
    if configured:
        return context.folder / configured
    return (context.state or context.folder) / f"{name}.tokens.json"
