"""
What a plugin implements to mirror lists of people into audiences: :class:`AudienceSource` and :class:`AudienceSink`.

Classes are registered; the host makes one object for each table ``[audience_sources.NAME]`` and
``[audience_sinks.NAME]`` whose ``type`` (without one: whose name) is the class's ``type``. E-mail addresses are plain
text between a source and the engine only, in memory; a sink gets SHA-256 hashes.
"""

import builtins
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gateway.errors import GatewayError
from gateway.event import Struct
from gateway.interfaces import API, Context, NoOptions

#: Why a member is not mirrored.
LeftOut = Literal["no_email", "invalid_email", "suppressed", "unsubscribed", "opted_out"]


class AudienceError(GatewayError):
    """
    A call to a source or sink did not succeed.

    ``retry_after_s``: the same call may succeed after so long (0: at once, by the engine's own back-off); None: an
    operator must mend something first, and the message says what. ``ambiguous``: the other side may have done it.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, ambiguous: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.ambiguous = ambiguous


class Group(Struct, frozen=True, kw_only=True):
    """
    A list or segment at a source, or an audience at a sink.

    ``kind`` is ``list`` or ``segment``, at a sink the vendor's type of audience. ``size``: members, None when not
    known. ``state``: ``ready`` or the vendor's own word (``processing``, ``inactive``, ``TOO_SMALL``); a group that is
    not ``ready`` is not scanned for who left. ``feed``: what receives the members of an audience (a customer list);
    audiences with one feed count as one. ``refusal``: why this one cannot be connected.
    """

    id: str
    name: str
    kind: str = ""
    size: int | None = None
    state: str = "ready"
    feed: str = ""
    refusal: str = ""


class Member(Struct, frozen=True, kw_only=True):
    """One person of a list: a stable id, the e-mail as the source has it, and why the source leaves them out."""

    id: str
    email: str = ""
    left_out: LeftOut | None = None

    def __repr__(self) -> str:
        """Never the address."""
        return f"Member({self.id})"


class Page(Struct, frozen=True, kw_only=True):
    """
    One page of members, in the source's order; ``cursor`` asks for the next, None after the last.

    ``newest`` is the latest time of joining on the page (Unix s), where the source tells it: the next quick pass asks
    from there.
    """

    members: tuple[Member, ...]
    cursor: str | None = None
    newest: float | None = None


class AudienceSource(ABC):
    """
    A place that keeps lists or segments of people, such as an e-mail platform.

    Every method raises :class:`AudienceError` when the platform does not answer as hoped; waiting for the platform's
    rate limit is the source's own matter.
    """

    api: ClassVar[int] = API
    type: ClassVar[str]
    Options: ClassVar[builtins.type[Struct]] = NoOptions
    #: Whether :meth:`page` takes ``since``: then there are quick passes.
    tells_who_joined: ClassVar[bool] = False

    def __init__(self, name: str, options: Any, context: Context) -> None:
        self.name = name
        self.options = options
        self.context = context

    @abstractmethod
    async def groups(self, search: str = "") -> Sequence[Group]:
        """Return lists and segments, those whose name contains ``search`` (without case)."""

    @abstractmethod
    async def group(self, kind: str, group_id: str) -> Group:
        """Return one list or segment as it is now, with its size and state."""

    @abstractmethod
    async def page(self, group: Group, cursor: str | None = None, *, since: float | None = None) -> Page:
        """
        Return one page of members; with ``since`` (Unix s) of those who joined then or later, the oldest first.

        A cursor of an earlier run may have expired: raise AudienceError with ``retry_after_s=0``; the scan starts anew.
        """

    async def probe(self) -> str | None:
        """Try the credentials; None when they work, else what is wrong and what to do."""
        return None


class AudienceSink(ABC):
    """
    A place that keeps audiences, such as an ad platform.

    Errors as at :class:`AudienceSource`. ``account`` is one of :meth:`accounts`, "" where there is but one.
    """

    api: ClassVar[int] = API
    type: ClassVar[str]
    Options: ClassVar[builtins.type[Struct]] = NoOptions
    #: So many hashes fit into one call of :meth:`apply`.
    max_records: ClassVar[int] = 10_000

    def __init__(self, name: str, options: Any, context: Context) -> None:
        self.name = name
        self.options = options
        self.context = context

    @abstractmethod
    async def accounts(self) -> Sequence[Group]:
        """Return the accounts that the credentials open; ``kind`` is ``account``."""

    @abstractmethod
    async def groups(self, account: str, search: str = "") -> Sequence[Group]:
        """Return the account's audiences, those named like ``search``; ``refusal`` says which cannot be fed."""

    @abstractmethod
    async def group(self, account: str, audience: str) -> Group:
        """Return one audience as it is now."""

    @abstractmethod
    async def create_feed(self, account: str, name: str, hashes: Sequence[str]) -> str:
        """Create what receives members, with its first ones (at least one, at most ``max_records``); returns its id."""

    @abstractmethod
    async def create_audience(self, account: str, name: str, feed: str) -> Group:
        """Create the audience of a feed; until the vendor has read the feed it fails with ``retry_after_s``."""

    @abstractmethod
    async def apply(self, account: str, feed: str, operation: Literal["add", "remove"], hashes: Sequence[str]) -> None:
        """Add or remove members by SHA-256 of the normalised e-mail, at most ``max_records``; idempotent."""

    async def create_lookalike(
        self,
        account: str,  # noqa: ARG002 - for sinks to override
        name: str,  # noqa: ARG002 - for sinks to override
        audience: str,  # noqa: ARG002 - for sinks to override
        country: str,  # noqa: ARG002 - for sinks to override
        percent: int,  # noqa: ARG002 - for sinks to override
    ) -> Group:
        """Create an audience of people like those of ``audience``: ``percent`` (1 to 10) of the country's users."""
        raise AudienceError(f"{type(self).__name__} has no lookalike audiences.")

    async def probe(self) -> str | None:
        """Try the credentials; None when they work, else what is wrong and what to do."""
        return None
