"""The shapes of what the API says of pictures beyond their embeddings, as JSON Schema 2020-12."""

from .shapes import COUNT, TEXT, YES_OR_NO, Schema, list_of, object_of, or_null

__all__ = ["ACCOUNTS", "ACCOUNT_SCHEMAS"]

MISSING = or_null("string", description="How to install what it needs; null: it is there.")

PLACES: Schema = {
    "oneOf": [
        {"type": "null"},
        object_of(
            {
                "located": {**COUNT, "description": "Pictures with coordinates."},
                "looked_up": COUNT,
                "named": {**COUNT, "description": "Those near a town."},
                "missing": MISSING,
            }
        ),
    ],
    "description": "Null: switched off.",
}

ANALYSES: Schema = {
    "type": "object",
    "additionalProperties": object_of(
        {
            "done": COUNT,
            "failed": COUNT,
            "pending": {**COUNT, "description": "Pictures that wait for it."},
            "off": {**YES_OR_NO, "description": "Whether it is switched off."},
            "missing": MISSING,
        }
    ),
    "description": "`text` and `copies`; empty for a library on Milvus.",
}

ACCOUNTS = {
    "places": PLACES,
    "tags": object_of(
        {
            "tags": COUNT,
            "taught": {**COUNT, "description": "By enough examples to find others."},
            "pictures": {**COUNT, "description": "With at least one tag."},
            "said": {**COUNT, "description": "Pictures that somebody spoke about."},
            "waiting": {**COUNT, "description": "Pictures not compared yet with some tag."},
        }
    ),
    "videos": object_of(
        {
            "videos": COUNT,
            "moments": COUNT,
            "waiting": {**COUNT, "description": "Videos passed over without the extra."},
            "missing": MISSING,
        }
    ),
    "analyses": ANALYSES,
    "mapped": or_null(
        "integer", minimum=0, description="Pictures on the map; null: there is none."
    ),
}

LABEL = object_of({"name": TEXT, "prompts": list_of(TEXT)})

ACCOUNT_SCHEMAS = {
    "Analyses": object_of({"places": PLACES, "analyses": ANALYSES}),
    "Labels": object_of(
        {
            "labels": {
                "oneOf": [{"type": "null"}, {"const": "shipped"}, list_of(LABEL)],
                "description": "Null: none; a list: your own, and those that ship.",
            },
            "right": or_null(
                "number",
                exclusiveMinimum=0,
                maximum=1,
                description="Share that must have been measured to be right; null: the usual.",
            ),
            "available": {
                **YES_OR_NO,
                "description": "Whether the model's labels are right often enough.",
            },
            "working": {**YES_OR_NO, "description": "Whether pictures get them now."},
            "problem": or_null("string", description="Why the last time ended early."),
        }
    ),
}
