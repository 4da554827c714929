"""The shapes of the API's documents, as JSON Schema 2020-12."""

from typing import Any

from fovea.search.index.kinds import KINDS

__all__ = ["SCHEMAS"]

Schema = dict[str, Any]


def _object(properties: dict[str, Schema], *optional: str) -> Schema:
    """An object with these members and no others; all but the optional ones are required."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(kind: str, **more: Any) -> Schema:
    return {"type": [kind, "null"], **more}


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
ID: Schema = {"type": "integer", "minimum": 1}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
YES_OR_NO: Schema = {"type": "boolean"}
CURSOR = _or_null("string", description="For the next page; null at the end.")
PATH_BYTES: Schema = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "The bytes of a path that is not UTF-8.",
}
CALIBRATED = _or_null(
    "number", minimum=0, maximum=1, description="Probability that it is a match; likely from 0.5."
)
COUNTED = _list(_object({"name": TEXT, "count": COUNT}))

TAKEN_AT = _or_null(
    "string",
    description="ISO 8601, the camera's local time; without the time, the day or the month where "
    "those are not sure.",
)

MARKS = {"favourite": YES_OR_NO, "hidden": YES_OR_NO}

HIT = _object(
    {
        "rank": ID,
        "score": _or_null(
            "number", minimum=-1, maximum=1, description="Cosine; null when browsing."
        ),
        "likelihood": CALIBRATED,
        "image_id": ID,
        "path": TEXT,
        "path_bytes": PATH_BYTES,
        "paths": _list(TEXT),
        "offline": YES_OR_NO,
        "by_name": {**YES_OR_NO, "description": "Whether a file or folder name matches."},
        **MARKS,
        "name": TEXT,
        "width": _or_null("integer", description="Pixels, upright."),
        "height": _or_null("integer"),
        "format": _or_null("string"),
        "taken_at": TAKEN_AT,
        "day": _or_null(
            "string",
            description="The day it is listed under, YYYY-MM-DD; YYYY-MM or YYYY if none is known.",
        ),
        "thumbnail": {"type": "string", "description": "Address; add &size=256 or &size=512."},
    },
    "path_bytes",
)

SEARCH = _object(
    {
        "query": TEXT,
        "model": _or_null("string"),
        "took_ms": {"type": "number", "minimum": 0},
        "total": {**COUNT, "description": "Hits on all pages."},
        "likely": _or_null("integer", minimum=0, description="Likely matches; they come first."),
        "order": {
            "enum": ["nearest", "date", "name"],
            "description": "nearest: images whose names match are among the first; date: newest "
            "first.",
        },
        "kind": {"enum": ["words", "pictures", "mixed", "browse"]},
        "cursor": CURSOR,
        "hits": _list(_named("Hit")),
    }
)

IMAGE = _object(
    {
        "image_id": ID,
        "path": TEXT,
        "path_bytes": PATH_BYTES,
        "name": TEXT,
        "paths": _list(TEXT),
        "folder": TEXT,
        "offline": YES_OR_NO,
        "bytes": COUNT,
        "width": _or_null("integer"),
        "height": _or_null("integer"),
        "format": _or_null("string"),
        "taken_at": TAKEN_AT,
        "date": _or_null("string", description="What it is sorted by; as long as it is sure."),
        "date_source": _or_null(
            "string",
            description="The tag that the date is from, or `file name`, or `file time`: when its "
            "oldest file was changed.",
        ),
        "changed_at": _or_null("string", description="Modification time of its oldest file."),
        "camera": _or_null("string"),
        "lens": _or_null("string"),
        "exposure": _or_null("number", description="Seconds."),
        "f_number": _or_null("number"),
        "iso": _or_null("integer"),
        "focal_length": _or_null("number", description="Millimetres."),
        "latitude": _or_null("number", description="Degrees, north positive."),
        "longitude": _or_null("number", description="Degrees, east positive."),
        "altitude": _or_null("number", description="Metres."),
        "damaged": _or_null("string", description="What is missing of it, in English words."),
        **MARKS,
        "labels": _list(_object({"label": TEXT, "probability": SHARE})),
        "thumbnail": TEXT,
        "original": TEXT,
        "similar": _list(_named("Hit")),
    },
    "path_bytes",
)

ROOT = _object(
    {
        "id": ID,
        "path": TEXT,
        "path_bytes": PATH_BYTES,
        "state": {"enum": ["online", "offline"]},
        "images": COUNT,
        "added_at": TEXT,
        "scanned_at": _or_null("string"),
    },
    "path_bytes",
)

SCAN = _object(
    {
        "id": ID,
        "state": {"enum": ["running", "done", "failed", "stopped"]},
        "found": COUNT,
        "done": COUNT,
        "embedded": COUNT,
        "failed": COUNT,
        "skipped": COUNT,
        "rate": {"type": "number", "minimum": 0, "description": "Pictures per second."},
        "seconds_left": _or_null("number", minimum=0),
        "roots": _list(TEXT),
        "unreached": {**_list(TEXT), "description": "Folders that could not be reached."},
        "in_hand": {
            **_list(TEXT),
            "description": "Files, the first few, at which the process ended unexpectedly.",
        },
        "ignore_files": {
            **_list(TEXT),
            "description": "Ignore files that cannot be used: nothing below their folders is "
            "indexed or removed. The message says what is wrong with them.",
        },
        "started_at": TEXT,
        "code": {"enum": [None, "unexpected"]},
        "message": _or_null("string"),
    }
)

OFFER = _object(
    {
        "name": TEXT,
        "bytes": {**COUNT, "description": "Of its download, about; 0 if it is on the disk."},
    }
)

CHANGE_CODES = (
    "offline", "space", "damaged", "busy", "pictures", "superseded", "unexpected",
)  # fmt: skip

CHANGE = _object(
    {
        "id": ID,
        "model": {"type": "string", "description": "The one to change to."},
        "state": {"enum": ["starting", "downloading", "embedding", "done", "failed", "stopped"]},
        "bytes": {**COUNT, "description": "Of the file that is being downloaded, so far."},
        "total_bytes": _or_null("integer", minimum=0),
        "images": COUNT,
        "embedded": COUNT,
        "rate": {"type": "number", "minimum": 0, "description": "Pictures per second."},
        "seconds_left": _or_null("number", minimum=0),
        "left_out": {
            **COUNT,
            "description": "Pictures that have changed or cannot be read, and are scanned again "
            "once it is done.",
        },
        "started_at": TEXT,
        "code": {
            "enum": [None, *CHANGE_CODES],
            "description": "Why it has failed or ended early, where that has a stable name.",
        },
        "message": _or_null("string"),
    }
)

MODEL = _object(
    {
        "model": _or_null("string", description="The one in use; null before indexing."),
        "bundled": _or_null(
            "string", description="Name of the bundled model, if a former, weaker one is in use."
        ),
        "better": {
            "oneOf": [{"type": "null"}, _named("Offer")],
            "description": "A better one that can be had.",
        },
        "change": {"oneOf": [{"type": "null"}, _named("Change")]},
    }
)

STATUS = _object(
    {
        "version": TEXT,
        "read_only": {
            "type": "boolean",
            "description": "Whether the library can be searched, but not changed here.",
        },
        "model": _or_null("string"),
        "better_bundled": _or_null(
            "string",
            description="Name of the bundled model, if the library uses a former, weaker one.",
        ),
        "images": COUNT,
        "embeddings": COUNT,
        "files": {"type": "object", "additionalProperties": COUNT},
        "index": {
            "oneOf": [
                {"type": "null"},
                _object(
                    {
                        "kind": {"enum": ["exhaustive", *KINDS]},
                        "embeddings": COUNT,
                        "recall": {**SHARE, "description": "recall@10 against exhaustive search."},
                    }
                ),
            ]
        },
        "roots": COUNT,
        "formats": _list(TEXT),
    }
)

FACETS = _object(
    {
        "folders": _list(_object({"path": TEXT, "name": TEXT, "count": COUNT})),
        "cameras": COUNTED,
        "formats": COUNTED,
        "first": _or_null("string", description="The earliest day, YYYY-MM-DD."),
        "last": _or_null("string"),
    }
)

FAILURE = _object(
    {
        "path": TEXT,
        "path_bytes": PATH_BYTES,
        "reason": _or_null("string"),
        "state": {"enum": ["failed", "skipped"]},
    },
    "path_bytes",
)

PROBLEM = {
    **_object(
        {
            "type": TEXT,
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": TEXT,
            "instance": TEXT,
            "position": {**COUNT, "description": "Where a query is wrong, in characters from 0."},
            "expected": {"type": "string", "description": "What is wrong, and what to write."},
            "code": {"type": "string", "description": "Stable name of the error."},
            "params": {
                "type": "object",
                "additionalProperties": {"type": ["string", "integer"]},
                "description": "Values that `detail` mentions, by name.",
            },
        },
        "position",
        "expected",
        "code",
        "params",
    ),
    "description": "RFC 9457.",
}

SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
KEPT_IMAGE = _object(
    {"sha256": SHA256, "path": TEXT, "path_bytes": PATH_BYTES}, "path", "path_bytes"
)
KEPT = _object(
    {
        "fovea": {"const": 1},
        "favourites": _list(KEPT_IMAGE),
        "hidden": _list(KEPT_IMAGE),
        "searches": _list(
            _object(
                {
                    "name": TEXT,
                    "query": TEXT,
                    "pictures": {
                        "type": "object",
                        "additionalProperties": SHA256,
                        "description": "The contents of the images in the query, by their number.",
                    },
                }
            )
        ),
    }
)

SAVED_SEARCH = _object({"id": ID, "name": TEXT, "query": TEXT, "saved_at": TEXT})

NEIGHBOUR = _object(
    {
        "id": ID,
        "similarity": {"type": "number", "minimum": -1, "maximum": 1},
        "image_path": TEXT,
        "url": TEXT,
        "caption": TEXT,
    },
    "image_path",
    "url",
    "caption",
)

METADATA = _object(
    {"id": ID, "metadata": _object({"image_path": TEXT, "url": TEXT, "caption": TEXT})}
)

SCHEMAS: dict[str, Schema] = {
    "Hit": HIT,
    "Search": SEARCH,
    "Image": IMAGE,
    "Root": ROOT,
    "Roots": _object({"roots": _list(_named("Root"))}),
    "Scan": SCAN,
    "Scans": _object({"scan": {"oneOf": [{"type": "null"}, _named("Scan")]}}),
    "Offer": OFFER,
    "Change": CHANGE,
    "Model": MODEL,
    "Status": STATUS,
    "Health": _object({"status": {"const": "ok"}}),
    "Facets": FACETS,
    "Marks": _object({"image_id": ID, **MARKS}),
    "Marked": _object({"changed": _list(ID), "before": COUNT, "generation": COUNT}),
    "Kept": KEPT,
    "Imported": _object(dict.fromkeys(("favourites", "hidden", "searches", "absent"), COUNT)),
    "SavedSearch": SAVED_SEARCH,
    "SavedSearches": _object({"searches": _list(_named("SavedSearch"))}),
    "Failures": _object({"failures": _list(FAILURE), "cursor": CURSOR}),
    "Neighbours": _list(NEIGHBOUR),
    "Metadata": _list(METADATA),
    "Indices": _list(TEXT),
    "Problem": PROBLEM,
}
