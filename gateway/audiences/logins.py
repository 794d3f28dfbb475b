"""
Logins by OAuth's code flow: an address for the operator's browser, and the answer that it comes back with.

An answer is believed for its ``state`` alone: a random text of ours, good once and for ten minutes.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Literal

from gateway.errors import GatewayError
from gateway.event import Struct
from gateway.oauth import OAuth, new_verifier

#: Source: the project's design of ``audiences login``: a state lives ten minutes.
LIFE_S = 600.0
#: More logins than anybody has under way.
_MOST = 20
_MOST_CODE = 4_096


class LoginState(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """How far a login is; ``error`` says why it ``failed``, in words for the operator."""

    state: Literal["waiting", "done", "failed"]
    error: str = ""


class _Login:
    """One login under way."""

    def __init__(self, oauth: OAuth, redirect_uri: str, deadline: float) -> None:
        self.oauth = oauth
        self.redirect_uri = redirect_uri
        self.deadline = deadline
        self.verifier = new_verifier()
        self.ended = asyncio.Event()
        self.is_used = False
        self.error = ""


class Logins:
    """
    The logins of one gateway.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logins: dict[str, _Login] = {}

    def begin(self, oauth: OAuth, redirect_uri: str) -> tuple[str, str]:
        """Return the address to open and the state by which the login is known."""
        login, state = _Login(oauth, redirect_uri, self._clock() + LIFE_S), new_verifier()
        self._logins[state] = login
        for old in list(self._logins)[:-_MOST]:
            del self._logins[old]
        return oauth.authorize_url(redirect_uri, state, login.verifier), state

    async def look(self, state: str, wait_s: float) -> LoginState:
        """
        Return how far a login is, after ``wait_s`` at most when it has not ended.

        Raises:
            ValueError: There is no such login.
        """
        login = self._logins.get(state)
        if login is None:
            raise ValueError("There is no such login: the gateway was restarted. Begin again.")
        if not login.ended.is_set() and self._clock() < login.deadline:
            try:
                await asyncio.wait_for(login.ended.wait(), wait_s)
            except TimeoutError:
                return LoginState(state="waiting")
        if not login.ended.is_set():
            return LoginState(state="failed", error="Nobody came back from the vendor's page in time. Begin again.")
        return LoginState(state="failed" if login.error else "done", error=login.error)

    async def answer(self, state: str, code: str, refusal: str) -> str | None:
        """
        Take what the vendor's page sent the browser back with; returns what went wrong, None when all is well.

        ``refusal`` is the vendor's own code, such as ``access_denied``; nothing of it is shown.
        """
        login = self._logins.get(state)
        if login is None or login.is_used or self._clock() >= login.deadline:
            return "This address is not known, was used already, or is older than ten minutes. Begin again."
        login.is_used, login.error = True, "An error in the program: the gateway's log has it."
        try:
            if refusal or not 0 < len(code) <= _MOST_CODE:
                login.error = "Access was not granted at the vendor's page. Begin again, and grant it there."
            else:
                await login.oauth.complete(code, login.redirect_uri, login.verifier)
                login.error = ""
        except GatewayError as error:
            login.error = str(error)
        finally:
            login.ended.set()
        return login.error or None
