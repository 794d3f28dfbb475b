"""
What Klaviyo's answers hold, as far as it is read, and what becomes of it.

Source: Klaviyo's OpenAPI description, revision 2026-07-15 (``GetListMemberResponseCollection`` and its like).
"""

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import msgspec

from gateway import Group, LeftOut, Member, Struct


class Suppression(Struct, frozen=True, kw_only=True):
    """Why Klaviyo sends this person nothing; ``list_id`` where it is one list only."""

    reason: str | None = None
    list_id: str | None = None


class Marketing(Struct, frozen=True, kw_only=True):
    """``subscriptions.email.marketing``."""

    consent: str | None = None
    can_receive_email_marketing: bool | None = None
    suppression: tuple[Suppression, ...] | None = None
    list_suppressions: tuple[Suppression, ...] | None = None


class Email(Struct, frozen=True, kw_only=True):
    """``subscriptions.email``."""

    marketing: Marketing | None = None


class Subscriptions(Struct, frozen=True, kw_only=True):
    """``subscriptions``."""

    email: Email | None = None


class ProfileAttributes(Struct, frozen=True, kw_only=True):
    """The attributes of a profile that are asked for."""

    email: str | None = None
    joined_group_at: datetime | None = None
    subscriptions: Subscriptions | None = None

    def __repr__(self) -> str:
        """Never the address."""
        return "ProfileAttributes(…)"


class Profile(Struct, frozen=True, kw_only=True):
    """One profile of a list or segment."""

    id: str
    attributes: ProfileAttributes = ProfileAttributes()


class GroupAttributes(Struct, frozen=True, kw_only=True):
    """The attributes of a list or segment; a list is always active."""

    name: str | None = None
    profile_count: int | None = None
    is_active: bool = True
    is_processing: bool = False


class GroupResource(Struct, frozen=True, kw_only=True):
    """A list or segment."""

    id: str
    attributes: GroupAttributes = GroupAttributes()


class Links(Struct, frozen=True, kw_only=True):
    """``links`` of a collection."""

    next: str | None = None


class Profiles(Struct, frozen=True, kw_only=True):
    """A page of profiles."""

    data: tuple[Profile, ...]
    links: Links = Links()


class Groups(Struct, frozen=True, kw_only=True):
    """A page of lists or segments."""

    data: tuple[GroupResource, ...]
    links: Links = Links()


class OneGroup(Struct, frozen=True, kw_only=True):
    """One list or segment."""

    data: GroupResource


class ErrorSource(Struct, frozen=True, kw_only=True):
    """What an error is about."""

    parameter: str | None = None


class ApiError(Struct, frozen=True, kw_only=True):
    """One error; ``detail`` is not read, it may quote a person's data."""

    code: str = ""
    source: ErrorSource | None = None


class Errors(Struct, frozen=True, kw_only=True):
    """The body of an answer 4xx."""

    errors: tuple[ApiError, ...] = ()


def group(kind: str, resource: GroupResource) -> Group:
    """Return a list or segment; one that Klaviyo works on or no longer keeps is not ``ready``."""
    about = resource.attributes
    state = "ready" if about.is_active else "inactive"
    return Group(
        id=resource.id,
        name=about.name or resource.id,
        kind=kind,
        size=about.profile_count,
        state="processing" if about.is_active and about.is_processing else state,
    )


def member(profile: Profile, group_id: str) -> Member:
    """Return a person, and why they are left out; a suppression of another list does not count."""
    email = (profile.attributes.email or "").strip()
    if not email:
        return Member(id=profile.id, left_out="no_email")
    channel = profile.attributes.subscriptions and profile.attributes.subscriptions.email
    marketing = channel.marketing if channel else None
    return Member(id=profile.id, email=email, left_out=_left_out(marketing, group_id) if marketing else None)


def _left_out(marketing: Marketing, group_id: str) -> LeftOut | None:
    reasons = {found.reason for found in marketing.suppression or ()}
    reasons |= {found.reason for found in marketing.list_suppressions or () if found.list_id == group_id}
    if marketing.consent == "UNSUBSCRIBED" or "UNSUBSCRIBE" in reasons:
        return "unsubscribed"
    return "suppressed" if reasons or marketing.can_receive_email_marketing is False else None


def newest(profiles: tuple[Profile, ...]) -> float | None:
    """Return the latest time of joining, Unix s."""
    return max((_unix(at) for profile in profiles if (at := profile.attributes.joined_group_at)), default=None)


def _unix(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def next_cursor(links: Links) -> str | None:
    """
    Return the cursor of ``links.next``, None after the last page.

    Only the cursor is taken from the address: a key must not follow a link to another host.

    Raises:
        ValueError: There is a next page, but its address names no cursor.
    """
    if not links.next:
        return None
    cursors = parse_qs(urlsplit(links.next).query).get("page[cursor]")
    if not cursors:
        raise ValueError("links.next names no page[cursor]")
    return cursors[0]


def is_about_cursor(body: bytes) -> bool:
    """Whether an answer 4xx refuses the cursor, and nothing else."""
    try:
        errors = msgspec.json.decode(body, type=Errors).errors
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return bool(errors) and all(
        "cursor" in error.code.lower()
        or (error.source is not None and "cursor" in (error.source.parameter or "").lower())
        for error in errors
    )
