"""The shapes of what searches and what they choose from answer, as JSON Schema 2020-12."""

from fovea.search.query.filters import FILTERS
from fovea.search.suggesting.suggest import KINDS as SUGGESTED

from .shapes import (
    CALIBRATED,
    COUNT,
    COUNTED,
    CURSOR,
    ID,
    MARKS,
    PATH_BYTES,
    TAKEN_AT,
    TEXT,
    YES_OR_NO,
    list_of,
    named,
    object_of,
    or_null,
)

__all__ = [
    "PLACE",
    "HIT",
    "HINT",
    "FILTER",
    "LIKE",
    "SEARCH",
    "FACETS",
    "FOLDER",
    "SUGGESTION",
    "TIMELINE",
]

PLACE = object_of(
    {
        "town": {"type": "string", "description": "The nearest, at most 50 km away."},
        "city": or_null("string", description="The city that reaches there, if it is another."),
        "region": or_null("string"),
        "country": TEXT,
        "country_code": {"type": "string", "description": "ISO 3166-1."},
        "label": {"type": "string", "description": "The place in words, in English."},
        "label_zh": {"type": "string", "description": "The same in Chinese, as far as known."},
    }
)

HIT = object_of(
    {
        "rank": ID,
        "score": or_null(
            "number", minimum=-1, maximum=1, description="Cosine; null when browsing."
        ),
        "likelihood": CALIBRATED,
        "image_id": ID,
        "path": TEXT,
        "path_bytes": PATH_BYTES,
        "paths": list_of(TEXT),
        "offline": YES_OR_NO,
        "by_name": {**YES_OR_NO, "description": "Whether a file or folder name matches."},
        "by_text": {**YES_OR_NO, "description": "Whether the picture shows the words."},
        **MARKS,
        "name": TEXT,
        "width": or_null("integer", description="Pixels, upright."),
        "height": or_null("integer"),
        "format": or_null("string"),
        "duration": or_null("number", minimum=0, description="Seconds; null for pictures."),
        "time": or_null(
            "number",
            minimum=0,
            description="Of a video, the seconds at which the moment nearest to the query begins; "
            "null when browsing.",
        ),
        "taken_at": TAKEN_AT,
        "day": or_null(
            "string",
            description="The day it is listed under, YYYY-MM-DD; YYYY-MM or YYYY if none is known.",
        ),
        "same_day": or_null("string", description="Address of the search for its day."),
        "thumbnail": {"type": "string", "description": "Address; add &size=256 or &size=512."},
        "original": {"type": "string", "description": "Address of the file; add ?download=1."},
    },
    "path_bytes",
)
# With ``fields``, a hit of a search has only these.
HIT["description"] = "All are there unless `fields` leaves them out; `path_bytes` is rare."
HIT["required"] = []

HINT = object_of(
    {
        "code": {
            "type": "string",
            "description": "Stable name, such as `filter.in` or `language`.",
        },
        "message": TEXT,
        "params": {
            "type": "object",
            "additionalProperties": TEXT,
            "description": "Values that `message` mentions, by name.",
        },
    }
)

FILTER = object_of(
    {
        "text": {"type": "string", "description": "As it is written in a query."},
        "key": {"enum": [*FILTERS]},
        "value": TEXT,
        "negated": YES_OR_NO,
        "name": {
            "type": "string",
            "description": "What it is about: of a folder in the library, its name from that of "
            "the indexed folder on; of a format, its own; otherwise the value.",
        },
        "first": or_null(
            "string", description="The first day that it leaves, YYYY-MM-DD; null without one."
        ),
        "last": or_null("string", description="The last day that it leaves."),
    }
)

LIKE = object_of({"image_id": ID, "name": TEXT})

SEARCH = object_of(
    {
        "query": TEXT,
        "filters": {
            **list_of(named("Filter")),
            "description": "Those of the query, in their order.",
        },
        "likes": {**list_of(named("Like")), "description": "Images that are terms of the query."},
        "model": or_null("string"),
        "took_ms": {"type": "number", "minimum": 0},
        "total": {**COUNT, "description": "Hits on all pages."},
        "likely": or_null("integer", minimum=0, description="Likely matches; they come first."),
        "order": {
            "enum": ["nearest", "date", "name"],
            "description": "nearest: images whose names match are among the first; date: newest "
            "first. Likely matches come before all others in every order.",
        },
        "kind": {"enum": ["words", "pictures", "mixed", "browse"]},
        "hints": {
            **list_of(named("Hint")),
            "description": "What may help: which filter leaves no picture; or, on the first "
            "page, that the model does not read the query's language.",
        },
        "cursor": CURSOR,
        "hits": list_of(named("Hit")),
    }
)

FACETS = object_of(
    {
        "folders": list_of(object_of({"path": TEXT, "name": TEXT, "count": COUNT})),
        "cameras": COUNTED,
        "formats": COUNTED,
        "places": list_of(
            object_of(
                {
                    "name": TEXT,
                    "kind": {"enum": ["town", "region", "country"]},
                    "query": {"type": "string", "description": "The filter that finds them."},
                    "count": COUNT,
                }
            )
        ),
        "first": or_null("string", description="The earliest day, YYYY-MM-DD."),
        "last": or_null("string"),
    }
)

FOLDER = object_of(
    {
        "path": TEXT,
        "name": {"type": "string", "description": "From the name of the indexed folder on."},
        "label": {"type": "string", "description": "Its own name."},
        "count": {**COUNT, "description": "Pictures in it and below it, each once."},
        "folders": {**COUNT, "description": "Folders directly in it."},
        "short": or_null(
            "string",
            description="The shortest end of its path by which `in:` finds this folder alone; null "
            "if only the whole path does. Only where `path` asks for the folder.",
        ),
    },
    "short",
)

SUGGESTION = object_of(
    {
        "kind": {"enum": list(SUGGESTED)},
        "label": TEXT,
        "detail": {"type": "string", "description": "More about it, such as the days of a season."},
        "count": or_null(
            "integer",
            minimum=1,
            description="Pictures that the query then finds; null for a saved search, an order, "
            "and the name of a filter.",
        ),
        "words": {"type": "string", "description": "The query then, without `filter`."},
        "filter": {
            "type": "string",
            "description": "What follows the words after a space; empty for a saved search, and "
            "for the name of a filter, whose value is typed next.",
        },
        "matched": {
            **list_of({"type": "array", "items": COUNT, "minItems": 2, "maxItems": 2}),
            "description": "The parts of the label that were typed: start and end, in characters.",
        },
    }
)

TIMELINE = object_of(
    {
        "total": {**COUNT, "description": "Pictures that the filters leave."},
        "months": list_of(
            object_of(
                {
                    "month": {
                        "type": "string",
                        "description": "YYYY-MM; YYYY for pictures of which only that is known.",
                    },
                    "count": {"type": "integer", "minimum": 1},
                }
            )
        ),
        "undated": {**COUNT, "description": "Pictures without a date, which come last."},
    }
)
