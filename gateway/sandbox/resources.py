"""Klaviyo's resources in JSON:API: a list, a segment, a profile as a member, with sparse and additional fields."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from gateway.sandbox.filters import BadQuery
from gateway.sandbox.people import Group, People, profile_id

_FIELDS: Final = {
    "list": {"created", "id", "name", "opt_in_process", "profile_count", "updated"},
    "segment": {
        "created", "definition", "id", "is_active", "is_processing", "is_starred", "name", "profile_count", "updated",
    },
    "profile": {
        "created", "email", "external_id", "first_name", "id", "image", "joined_group_at", "last_event_date",
        "last_name", "locale", "location", "organization", "phone_number", "predictive_analytics", "properties",
        "subscriptions", "title", "updated",
    },
}  # fmt: skip
_ADDITIONAL: Final = {
    "list": {"profile_count"},
    "segment": {"profile_count"},
    "profile": {"subscriptions", "predictive_analytics"},
}
_NESTED: Final = ("definition", "location", "predictive_analytics", "subscriptions")


class Fields(msgspec.Struct, kw_only=True, frozen=True):
    """What a client wants to see: ``sparse`` (dotted; None: all) and ``additional`` fields."""

    sparse: frozenset[str] | None
    additional: frozenset[str]

    @classmethod
    def of(cls, args: Mapping[str, str], kind: str) -> "Fields":
        """
        Read ``fields[kind]`` and ``additional-fields[kind]``.

        Raises:
            BadQuery: One of them names a field that the resource has not.
        """
        sparse, additional = args.get(f"fields[{kind}]"), args.get(f"additional-fields[{kind}]", "")
        for name in sparse.split(",") if sparse else ():
            top, _, nested = name.partition(".")
            if top not in _FIELDS[kind] or (nested and top not in _NESTED):
                raise BadQuery(f"fields[{kind}]", f"'{name}' is not a field of {kind}.")
        for name in additional.split(",") if additional else ():
            if name not in _ADDITIONAL[kind]:
                raise BadQuery(f"additional-fields[{kind}]", f"'{name}' is not an additional field of {kind}.")
        return cls(
            sparse=frozenset(sparse.split(",")) if sparse else None,
            additional=frozenset(additional.split(",")) if additional else frozenset(),
        )

    def wants(self, name: str) -> bool:
        """Whether the field, or a part of it, is wanted."""
        return self.sparse is None or any(one == name or one.startswith(f"{name}.") for one in self.sparse)

    def pick(self, attributes: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        """Return the wanted attributes."""
        if self.sparse is None:
            return attributes
        found: dict[str, Any] = {}
        for name, held in attributes.items():
            path = prefix + name
            if path in self.sparse:
                found[name] = held
            elif isinstance(held, dict) and self.wants(path):
                found[name] = self.pick(held, f"{path}.")
        return found


def moment(seconds: float) -> str:
    """Return Unix seconds as Klaviyo writes a time."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()


def group_resource(group: Group, fields: Fields, base: str) -> dict[str, Any]:
    """Return one list or segment."""
    attributes: dict[str, Any] = {
        "name": group.name, "created": moment(group.created), "updated": moment(group.updated),
    }  # fmt: skip
    if group.kind == "list":
        attributes["opt_in_process"] = "single_opt_in"
    else:
        attributes["definition"] = {"condition_groups": []}
        attributes |= {"is_active": group.is_active, "is_processing": group.is_processing, "is_starred": False}
    if "profile_count" in fields.additional:
        attributes["profile_count"] = len(group) if group.claimed is None else group.claimed
    address = f"{base}/api/{group.kind}s/{group.id}"
    profiles = {"self": f"{address}/relationships/profiles/", "related": f"{address}/profiles/"}
    return {
        "type": group.kind,
        "id": group.id,
        "attributes": fields.pick(attributes),
        "relationships": {"profiles": {"links": profiles}},
        "links": {"self": f"{address}/"},
    }


def profile_resource(people: People, number: int, joined_at: int, fields: Fields, base: str) -> dict[str, Any]:
    """Return one profile as a member that joined at a Unix time."""
    joined = moment(joined_at)
    attributes: dict[str, Any] = {"email": people.email(number), "joined_group_at": joined}
    if fields.sparse is None or not fields.sparse <= {"email", "joined_group_at", "id", "subscriptions"}:
        attributes |= {
            "phone_number": None, "external_id": str(number), "first_name": "Person", "last_name": str(number),
            "organization": None, "locale": None, "title": None, "image": None, "created": joined, "updated": joined,
            "last_event_date": None, "location": {"country": None, "region": None, "zip": None}, "properties": {},
        }  # fmt: skip
    if "subscriptions" in fields.additional and fields.wants("subscriptions"):
        attributes["subscriptions"] = _subscriptions(people, number, joined)
    if "predictive_analytics" in fields.additional and fields.wants("predictive_analytics"):
        attributes["predictive_analytics"] = {}
    name = profile_id(number)
    return {
        "type": "profile",
        "id": name,
        "attributes": fields.pick(attributes),
        "links": {"self": f"{base}/api/profiles/{name}/"},
    }


def _subscriptions(people: People, number: int, joined: str) -> dict[str, Any]:
    marks = people.marks(number)
    marketing = {
        "can_receive_email_marketing": not marks.suppression,
        "consent": marks.consent,
        "consent_timestamp": joined,
        "last_updated": joined,
        "method": "FORM",
        "method_detail": "",
        "custom_method_detail": None,
        "double_optin": False,
        "suppression": [{"reason": reason, "timestamp": moment(at)} for reason, at in marks.suppression],
        "list_suppressions": [
            {"list_id": list_id, "reason": reason, "timestamp": moment(at)}
            for list_id, reason, at in marks.list_suppressions
        ],
    }
    return {"email": {"marketing": marketing}}
