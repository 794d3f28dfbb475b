"""
The passwords of ``[operator]``: plain ones are compared in constant time, argon2 hashes verified beside the loop.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
import time

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from gateway.errors import ConfigError
from gateway.hit import Secret
from gateway.operator.sessions import Role

ARGON2 = "$argon2id$"
#: The PHC string format: https://github.com/P-H-C/phc-string-format
_PHC = re.compile(r"\$argon2id\$v=19\$m=[0-9]{1,8},t=[0-9]{1,4},p=[0-9]{1,3}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}")
MAX_BYTES = 1_024
#: How long a right password is remembered (as a keyed hash), so that a scrape costs no argon2.
_REMEMBERED_S = 300.0
_MOST_REMEMBERED = 64


def hashed(password: str) -> str:
    """Return the argon2id hash of a password, with RFC 9106's second recommended parameters (64 MiB)."""
    derive = Argon2id(salt=secrets.token_bytes(16), length=32, iterations=3, lanes=4, memory_cost=65_536)
    return derive.derive_phc_encoded(password.encode())


def checked(secret: Secret, where: str) -> Secret:
    """
    Return a password that can be used.

    Raises:
        ConfigError: It begins as an argon2 hash and is none.
    """
    if secret.value.startswith("$argon2") and not _PHC.fullmatch(secret.value):
        raise ConfigError(f"{where} is no argon2id hash: write one with 'tag-gateway hash-password'.")
    return secret


class Passwords:
    """The operator's password, and perhaps a viewer's."""

    def __init__(self, operator: Secret, viewer: Secret | None = None) -> None:
        self._held: dict[Role, Secret] = {}
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[Role, float]] = {}
        self._turn = asyncio.Semaphore(1)  # 64 MiB each
        self.adopt(operator, viewer)

    def adopt(self, operator: Secret, viewer: Secret | None) -> frozenset[Role]:
        """Take other passwords over; returns the roles whose password is not what it was."""
        held: dict[Role, Secret] = {"operator": operator}
        if viewer is not None:
            held["viewer"] = viewer
        changed = {role for role in {**self._held, **held} if self._held.get(role) != held.get(role)}
        self._held, self._known = held, {}
        return frozenset(changed)

    async def role_of(self, given: bytes) -> Role | None:
        """Return whose password it is, None when nobody's; looks at all of them."""
        if not given or len(given) > MAX_BYTES:
            return None
        digest = hmac.digest(self._key, given, hashlib.sha256)
        known = self._known.get(digest)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        found: Role | None = None
        held, slow = self._held, False
        for role, secret in reversed(held.items()):  # the operator's last: it wins where both are the same
            slow = slow or secret.value.startswith(ARGON2)
            if await self._matches(given, secret):
                found = role
        if found is not None and slow and held is self._held:
            while len(self._known) >= _MOST_REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[digest] = (found, time.monotonic() + _REMEMBERED_S)
        return found

    async def _matches(self, given: bytes, secret: Secret) -> bool:
        if not secret.value.startswith(ARGON2):
            return hmac.compare_digest(given, secret.value.encode())
        async with self._turn:
            return await asyncio.to_thread(_verify, secret.value, given)


def _verify(phc: str, given: bytes) -> bool:
    try:
        Argon2id.verify_phc_encoded(given, phc)
    except (InvalidKey, ValueError):
        return False
    return True
