"""People in lists and segments: made up by number, so that a million cost no memory, with what was changed on top."""

import heapq
import math
import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

import msgspec

from gateway.sandbox.hashset import digest_of

Kind = Literal["list", "segment"]
Key = tuple[float, float]
"""Time of joining (Unix s) and number: the order of members."""

OWN_FIRST: Final = 10**12
"""The number of the first person who has no generated e-mail."""
FIRST_KEY: Final[Key] = (-math.inf, -math.inf)
LAST_KEY: Final[Key] = (math.inf, math.inf)
_PREFIX: Final = "01SANDBOX"
_ID: Final = re.compile(_PREFIX + r"([0-9]{17})")
_EMAIL: Final = re.compile(r"person(0|[1-9][0-9]{0,11})@people\.example")


class Marks(msgspec.Struct, kw_only=True, frozen=True):
    """What keeps a person from marketing: (reason, Unix s), and (list id, reason, Unix s)."""

    consent: str = "SUBSCRIBED"
    suppression: tuple[tuple[str, int], ...] = ()
    list_suppressions: tuple[tuple[str, str, int], ...] = ()


class Group:
    """One list or segment."""

    def __init__(self, kind: Kind, group_id: str, name: str, created: int) -> None:
        self.kind: Kind = kind
        self.id = group_id
        self.name = name
        self.created = self.updated = created
        self.is_active = True
        self.is_processing = False
        self.claimed: int | None = None
        self._first = self._count = self._since = self._span_s = 0
        self._gone: set[int] = set()
        self._joined: dict[int, int] = {}
        self._extra: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self._count - len(self._gone) + len(self._extra)

    def __contains__(self, number: int) -> bool:
        return number in self._joined or self._generated(number)

    def fill(self, first: int, count: int, since: int, span_s: int) -> None:
        """Let so many consecutive numbers have joined evenly over ``span_s`` seconds; before anyone else joins."""
        self._first, self._count, self._since, self._span_s = first, count, since, span_s

    def join(self, numbers: Iterable[int], at: int) -> None:
        """Add people, or let them join anew, at a Unix time in seconds."""
        for number in numbers:
            if self._first <= number < self._first + self._count:
                self._gone.add(number)
            self._joined[number] = at
        self._sort()

    def leave(self, numbers: Iterable[int]) -> None:
        """Take people out; who is no member is left alone."""
        joined = len(self._joined)
        for number in numbers:
            if self._joined.pop(number, None) is None and self._generated(number):
                self._gone.add(number)
        if len(self._joined) != joined:
            self._sort()

    def walk(self, low: Key = FIRST_KEY, high: Key = LAST_KEY, *, newest_first: bool = False) -> Iterator[Key]:
        """Yield the members between two keys (both excluded) in order."""
        indexes = range(self._count)
        made = indexes[bisect_right(indexes, low, key=self._key) : bisect_left(indexes, high, key=self._key)]
        extra = self._extra[bisect_right(self._extra, low) : bisect_left(self._extra, high)]
        step = -1 if newest_first else 1
        generated = (self._key(index) for index in made[::step] if self._first + index not in self._gone)
        if not extra:
            return generated
        return heapq.merge(generated, extra[::step], reverse=newest_first)

    def _key(self, index: int) -> Key:
        return self._since + index * self._span_s // self._count, self._first + index

    def _generated(self, number: int) -> bool:
        return self._first <= number < self._first + self._count and number not in self._gone

    def _sort(self) -> None:
        self._extra = sorted((at, number) for number, at in self._joined.items())


class People:
    """
    Everyone at the stand-in of Klaviyo, and the groups that they are in.

    Args:
        clock: Unix seconds now.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.groups: dict[str, Group] = {}
        self._emails: dict[int, str | None] = {}
        self._numbers: dict[str, int] = {}
        self._marks: dict[int, Marks] = {}
        self._made = 0

    def clear(self) -> None:
        """Forget everyone."""
        self.groups.clear()
        self._emails.clear()
        self._numbers.clear()
        self._marks.clear()
        self._made = 0

    def create(
        self,
        kind: Kind,
        name: str,
        people: Iterable[int | str] = (),
        *,
        first: int = 0,
        count: int = 0,
        group_id: str = "",
        since: int | None = None,
        span_s: int = 31_536_000,
    ) -> Group:
        """
        Make a list or segment of ``count`` generated people from number ``first`` on, who joined over ``span_s``.

        Raises:
            ValueError: The id is taken.
        """
        now = int(self._clock())
        self._made += 1
        group_id = group_id or f"{'L' if kind == 'list' else 'S'}{self._made:05d}"
        if group_id in self.groups:
            raise ValueError(f"id {group_id!r} is taken")
        start = now - span_s - 1 if since is None else since
        group = Group(kind, group_id, name, min(start, now))
        group.fill(first, count, start, span_s)
        group.join(self.numbers(people), now)
        self.groups[group_id] = group
        return group

    def numbers(self, people: Iterable[int | str]) -> list[int]:
        """Return the number of each: a number, a profile id or an e-mail; who is unknown by e-mail is made."""
        return [self.number(one) if isinstance(one, int) else self._number(one) for one in people]

    def number(self, one: int) -> int:
        """
        Return a number as it is.

        Raises:
            ValueError: It is not from 0 to 17 digits.
        """
        if not 0 <= one < 10**17:
            raise ValueError(f"{one} is no person's number")
        return one

    def find(self, email: str) -> int | None:
        """Return the number of who has this e-mail now, or None."""
        if email in self._numbers:
            return self._numbers[email]
        match = _EMAIL.fullmatch(email)
        return int(match[1]) if match and int(match[1]) not in self._emails else None

    def email(self, number: int) -> str | None:
        """Return someone's e-mail."""
        return self._emails.get(number, f"person{number}@people.example")

    def marks(self, number: int) -> Marks:
        """Return what keeps someone from marketing."""
        return self._marks.get(number, _NONE)

    def set_email(self, number: int, email: str | None) -> None:
        """Change someone's e-mail."""
        old = self.email(number)
        if old is not None and self._numbers.get(old) == number:
            del self._numbers[old]
        self._emails[number] = email
        if email is not None:
            self._numbers[email] = number

    def mark(self, number: int, marks: Marks) -> None:
        """Change what keeps someone from marketing."""
        self._marks[number] = marks

    def delete(self, numbers: Iterable[int]) -> None:
        """Take people out of every group."""
        gone = list(numbers)
        for group in self.groups.values():
            group.leave(gone)

    def eligible(self, group: Group, *, include_suppressed: bool = False) -> Iterator[bytes]:
        """Yield the SHA-256 of the e-mail of each member who has one and may be advertised to; maybe twice."""
        for _, number in group.walk():
            email = self.email(int(number))
            if email is None or "@" not in email:
                continue
            if include_suppressed or not barred(self.marks(int(number)), group.id):
                yield digest_of(email.strip().lower())

    def _number(self, text: str) -> int:
        if match := _ID.fullmatch(text):
            return int(match[1])
        known = self.find(text)
        if known is None:
            known = OWN_FIRST + len(self._numbers)
            while known in self._emails:
                known += 1
            self.set_email(known, text)
        return known


_NONE: Final = Marks()


def profile_id(number: int) -> str:
    """Return the profile id of a number: 26 characters, like Klaviyo's."""
    return f"{_PREFIX}{number:017d}"


def barred(marks: Marks, group_id: str) -> bool:
    """Whether someone is suppressed, for this list or everywhere, or has unsubscribed."""
    listed = any(list_id == group_id for list_id, *_ in marks.list_suppressions)
    return bool(marks.suppression) or listed or marks.consent == "UNSUBSCRIBED"
