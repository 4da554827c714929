"""What the shapes of the API's documents are made of, as JSON Schema 2020-12."""

from typing import Any

__all__ = [
    "CALIBRATED",
    "COUNT",
    "COUNTED",
    "CURSOR",
    "ID",
    "MARKS",
    "PATH_BYTES",
    "SHARE",
    "TAKEN_AT",
    "TEXT",
    "YES_OR_NO",
    "Schema",
    "list_of",
    "named",
    "object_of",
    "or_null",
]

Schema = dict[str, Any]


def object_of(properties: dict[str, Schema], *optional: str) -> Schema:
    """An object with these members and no others; all but the optional ones are required."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def or_null(kind: str, **more: Any) -> Schema:
    return {"type": [kind, "null"], **more}


def named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
ID: Schema = {"type": "integer", "minimum": 1}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
YES_OR_NO: Schema = {"type": "boolean"}
CURSOR = or_null("string", description="For the next page; null at the end.")
PATH_BYTES: Schema = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "The bytes of a path that is not UTF-8.",
}
CALIBRATED = or_null(
    "number", minimum=0, maximum=1, description="Probability that it is a match; likely from 0.5."
)
COUNTED = list_of(object_of({"name": TEXT, "count": COUNT}))

TAKEN_AT = or_null(
    "string",
    description="ISO 8601, the camera's local time; without the time, the day or the month where "
    "those are not sure.",
)

MARKS = {"favourite": YES_OR_NO, "hidden": YES_OR_NO}
