"""The shapes of the map's documents, as JSON Schema 2020-12."""

from .shapes import COUNT, SHARE, TEXT, YES_OR_NO, Schema, list_of, named, object_of, or_null

__all__ = ["MAP", "MAP_PICTURES"]

BUILD = object_of(
    {
        "state": {"enum": ["running", "done", "failed"]},
        "step": {"enum": ["reading", "arranging", "placing", "naming"]},
        "done": COUNT,
        "total": COUNT,
        "started_at": TEXT,
        "message": or_null("string"),
    }
)
CLUSTER = object_of(
    {
        "id": COUNT,
        "level": COUNT,
        "parent": or_null("integer", minimum=0),
        "names": list_of(TEXT),
        "names_zh": list_of(TEXT),
        "count": COUNT,
        "x": SHARE,
        "y": SHARE,
        "radius": {"type": "number", "minimum": 0},
        "thumbnail": or_null("string"),
    }
)
MAP: Schema = object_of(
    {
        "state": {"enum": ["none", "ready"]},
        "installed": YES_OR_NO,
        "advice": or_null("string"),
        "build": {"oneOf": [{"type": "null"}, BUILD]},
        "model": or_null("string"),
        "pictures": COUNT,
        "listed": COUNT,
        "laid_out": COUNT,
        "outgrown": YES_OR_NO,
        "points": or_null("string"),
        "clusters": list_of(CLUSTER),
    }
)
MAP_PICTURES: Schema = object_of({"total": COUNT, "hits": list_of(named("Hit"))})
