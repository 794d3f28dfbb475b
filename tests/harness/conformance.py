"""Whether a body is exactly what Pinterest's published description allows: one unknown key fails a whole request."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from openapi_schema_validator import OAS30Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4

SPEC = Path(__file__).resolve().parents[3] / "shared" / "specs" / "pinterest-v5.strict.yaml"


def is_known() -> bool:
    """Whether the description is here; without it nothing is checked."""
    return SPEC.exists()


@cache
def _validator() -> Any:
    document = yaml.load(SPEC.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    resource: Any = DRAFT4.create_resource(document)
    registry: Any = Registry().with_resource("urn:spec", resource)
    return OAS30Validator({"$ref": "urn:spec#/components/schemas/ConversionEvents"}, registry=registry)


def problems(bodies: Iterable[Any]) -> list[str]:
    """Return what the description does not allow in these request bodies; nothing where it is not here."""
    if not is_known():
        return []
    return [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for body in bodies
        for error in _validator().iter_errors(body)
    ]


def problems_of_events(events: Iterable[dict[str, Any]]) -> list[str]:
    """Return the same for delivered events, one by one."""
    return problems({"data": [event]} for event in events)
