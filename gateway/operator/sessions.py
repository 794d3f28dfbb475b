"""
Who is logged in to the pages.

The browser holds a random id; only its hash is kept here, in memory: a restart logs everybody out. Source of the times:
OWASP ASVS 5.0, V7 (session management).
"""

import hashlib
import secrets
from collections.abc import Callable
from typing import Literal

Role = Literal["viewer", "operator"]

IDLE_S = 30 * 60.0
LIFE_S = 12 * 3_600.0
_MOST = 1_000


class Session:
    """
    One login.

    Attributes:
        role: What it may do.
        csrf: The token that each of its forms carries.
        messages: Shown once, by the next page.
    """

    def __init__(self, role: Role, now: float) -> None:
        self.role: Role = role
        self.csrf = secrets.token_urlsafe(32)
        self.messages: list[str] = []
        self.begun_at = self.seen_at = now
        self.is_over = False


class Sessions:
    """All logins; ``clock`` returns Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._found: dict[bytes, Session] = {}

    def begin(self, role: Role) -> tuple[str, Session]:
        """Return the id for the browser, and the session."""
        self._tidy()
        token = secrets.token_urlsafe(32)  # 256 bits
        session = self._found[_digest(token)] = Session(role, self._clock())
        return token, session

    def find(self, token: str, *, touch: bool = True) -> Session | None:
        """Return the session of an id, None when there is none; ``touch`` false: nobody is at the keyboard."""
        session = self._found.get(_digest(token))
        if session is None or not self.is_alive(session):
            return None
        if touch:
            session.seen_at = self._clock()
        return session

    def is_alive(self, session: Session) -> bool:
        """Whether it has not ended, and did not idle or live for too long."""
        now = self._clock()
        if now - session.seen_at > IDLE_S or now - session.begun_at > LIFE_S:
            session.is_over = True
        return not session.is_over

    def end(self, token: str) -> None:
        """End one session."""
        session = self._found.pop(_digest(token), None)
        if session is not None:
            session.is_over = True

    def end_all(self, roles: frozenset[Role]) -> int:
        """End the sessions of these roles; returns how many."""
        ended = [digest for digest, session in self._found.items() if session.role in roles]
        for digest in ended:
            self._found.pop(digest).is_over = True
        return len(ended)

    def _tidy(self) -> None:
        for digest in [digest for digest, session in self._found.items() if not self.is_alive(session)]:
            del self._found[digest]
        while len(self._found) >= _MOST:
            self._found.pop(next(iter(self._found))).is_over = True


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
