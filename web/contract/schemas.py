"""The shapes of the API's documents, as JSON Schema 2020-12."""

from fovea.search.index.kinds import KINDS

from .account_schemas import ACCOUNT_SCHEMAS, ACCOUNTS
from .duplicates import DUPLICATE_OTHERS, DUPLICATES
from .map_schemas import MAP, MAP_PICTURES
from .search_schemas import (
    FACETS,
    FILTER,
    FOLDER,
    HINT,
    HIT,
    LIKE,
    PLACE,
    SEARCH,
    SUGGESTION,
    TIMELINE,
)
from .shapes import (
    COUNT,
    CURSOR,
    ID,
    MARKS,
    PATH_BYTES,
    SHARE,
    TAKEN_AT,
    TEXT,
    YES_OR_NO,
    Schema,
    list_of,
    named,
    object_of,
    or_null,
)
from .tag_schemas import IMAGE_TAG, TAG_SCHEMAS
from .texts import TEXT_LINES

__all__ = ["SCHEMAS"]

IMAGE = object_of(
    {
        "image_id": ID,
        "path": TEXT,
        "path_bytes": PATH_BYTES,
        "name": TEXT,
        "paths": list_of(TEXT),
        "folder": TEXT,
        "offline": YES_OR_NO,
        "bytes": COUNT,
        "width": or_null("integer"),
        "height": or_null("integer"),
        "format": or_null("string"),
        "taken_at": TAKEN_AT,
        "date": or_null("string", description="What it is sorted by; as long as it is sure."),
        "date_source": or_null(
            "string",
            description="The tag that the date is from, or `file name`, or `file time`: when its "
            "oldest file was changed.",
        ),
        "changed_at": or_null("string", description="Modification time of its oldest file."),
        "camera": or_null("string"),
        "lens": or_null("string"),
        "exposure": or_null("number", description="Seconds."),
        "f_number": or_null("number"),
        "iso": or_null("integer"),
        "focal_length": or_null("number", description="Millimetres."),
        "latitude": or_null("number", description="Degrees, north positive."),
        "longitude": or_null("number", description="Degrees, east positive."),
        "altitude": or_null("number", description="Metres."),
        "damaged": or_null("string", description="What is missing of it, in English words."),
        "duration": or_null("number", minimum=0, description="Seconds, of a video."),
        "place": {"anyOf": [PLACE, {"type": "null"}]},
        "text": TEXT_LINES,
        **MARKS,
        "tags": list_of(IMAGE_TAG),
        "labels": list_of(object_of({"label": TEXT, "label_zh": TEXT, "probability": SHARE})),
        "moments": {
            **list_of(object_of({"time": {"type": "number", "minimum": 0}, "thumbnail": TEXT})),
            "description": "Of a video, what was embedded, by its seconds; else empty.",
        },
        "thumbnail": TEXT,
        "original": TEXT,
        "similar": list_of(named("Hit")),
    },
    "path_bytes",
)

ROOT = object_of(
    {
        "id": ID,
        "path": TEXT,
        "path_bytes": PATH_BYTES,
        "state": {"enum": ["online", "offline"]},
        "images": COUNT,
        "added_at": TEXT,
        "scanned_at": or_null("string"),
        "scan": {"enum": [None, "running", "waiting"], "description": "Its turn to be scanned."},
        "inside": or_null("string", description="The innermost of the folders that it lies in."),
        "around": {**list_of(TEXT), "description": "Folders of the library that lie in it."},
    },
    "path_bytes",
)

DISK_FOLDERS = object_of(
    {
        "folders": list_of(
            object_of(
                {
                    "path": TEXT,
                    "path_bytes": PATH_BYTES,
                    "typed": {"type": "string", "description": "What to go on typing from."},
                    "leads_to": or_null("string", description="Where it leads, if it is a link."),
                    "in_library": {**YES_OR_NO, "description": "Whether it is indexed already."},
                },
                "path_bytes",
            )
        ),
        "has_more": YES_OR_NO,
        "reason": {
            "enum": [None, "missing", "forbidden", "relative", "slow", "unreadable"],
            "description": "Why none can be listed.",
        },
    }
)

DOING = ("starting", "waiting", "downloading", "counting", "loading", "indexing", "finishing")

SCAN = object_of(
    {
        "id": ID,
        "state": {"enum": ["running", "done", "failed", "stopped"]},
        "doing": {
            "enum": [None, *DOING],
            "description": "What a running one does now; loading is that of the model.",
        },
        "found": COUNT,
        "done": COUNT,
        "embedded": COUNT,
        "failed": COUNT,
        "skipped": COUNT,
        "rate": {"type": "number", "minimum": 0, "description": "Pictures per second."},
        "seconds_left": or_null("number", minimum=0),
        "roots": list_of(TEXT),
        "unreached": {**list_of(TEXT), "description": "Folders that could not be reached."},
        "in_hand": {
            **list_of(TEXT),
            "description": "Files, the first few, at which the process ended unexpectedly.",
        },
        "ignore_files": {
            **list_of(TEXT),
            "description": "Ignore files that cannot be used: nothing below their folders is "
            "indexed or removed. The message says what is wrong with them.",
        },
        "started_at": TEXT,
        "code": {"enum": [None, "unexpected"]},
        "message": or_null("string"),
    }
)

OFFER = object_of(
    {
        "name": TEXT,
        "bytes": {**COUNT, "description": "Of its download, about; 0 if it is on the disk."},
    }
)

CHANGE_CODES = (
    "offline", "space", "damaged", "busy", "pictures", "superseded", "unexpected",
)  # fmt: skip

CHANGE = object_of(
    {
        "id": ID,
        "model": {"type": "string", "description": "The one to change to."},
        "state": {"enum": ["starting", "downloading", "embedding", "done", "failed", "stopped"]},
        "bytes": {**COUNT, "description": "Of the file that is being downloaded, so far."},
        "total_bytes": or_null("integer", minimum=0),
        "images": COUNT,
        "embedded": COUNT,
        "rate": {"type": "number", "minimum": 0, "description": "Pictures per second."},
        "seconds_left": or_null("number", minimum=0),
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
        "message": or_null("string"),
    }
)

MODEL = object_of(
    {
        "model": or_null("string", description="The one in use; null before indexing."),
        "bundled": or_null(
            "string", description="Name of the bundled model, if a former, weaker one is in use."
        ),
        "better": {
            "oneOf": [{"type": "null"}, named("Offer")],
            "description": "A better one that can be had.",
        },
        "change": {"oneOf": [{"type": "null"}, named("Change")]},
    }
)

STATUS = object_of(
    {
        "version": TEXT,
        "read_only": {
            "type": "boolean",
            "description": "Whether the library can be searched, but not changed here.",
        },
        "show_in_folder": {
            "type": "boolean",
            "description": "Whether files can be shown in a file manager by this client.",
        },
        "watching": {
            "type": "boolean",
            "description": "Whether the server indexes what changes in the folders as it changes.",
        },
        "model": or_null("string"),
        "better_bundled": or_null(
            "string",
            description="Name of the bundled model, if the library uses a former, weaker one.",
        ),
        "images": COUNT,
        "embeddings": COUNT,
        "files": {"type": "object", "additionalProperties": COUNT},
        "index": {
            "oneOf": [
                {"type": "null"},
                object_of(
                    {
                        "kind": {"enum": ["exhaustive", *KINDS]},
                        "embeddings": COUNT,
                        "recall": {**SHARE, "description": "recall@10 against exhaustive search."},
                    }
                ),
            ]
        },
        "roots": COUNT,
        "formats": list_of(TEXT),
        "analysing": {
            "type": "boolean",
            "description": "Whether pictures are analysed in the background now.",
        },
        **ACCOUNTS,
    }
)

FAILURE = object_of(
    {
        "path": TEXT,
        "path_bytes": PATH_BYTES,
        "reason": or_null("string"),
        "state": {"enum": ["failed", "skipped"]},
    },
    "path_bytes",
)

PROBLEM = {
    **object_of(
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
KEPT_IMAGE = object_of(
    {"sha256": SHA256, "path": TEXT, "path_bytes": PATH_BYTES}, "path", "path_bytes"
)
KEPT = object_of(
    {
        "fovea": {"const": 1},
        "favourites": list_of(KEPT_IMAGE),
        "hidden": list_of(KEPT_IMAGE),
        "searches": list_of(
            object_of(
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
        "tags": list_of(
            object_of({"name": TEXT, **dict.fromkeys(("yes", "no", "answers"), list_of(SHA256))})
        ),
    }
)

PICTURE = object_of(
    {
        "sha256": SHA256,
        "picture": {"type": "string", "description": "Address of a small version."},
        "kept_s": {"type": "number", "minimum": 0, "description": "Seconds it is kept, unused."},
    }
)

SAVED_SEARCH = object_of({"id": ID, "name": TEXT, "query": TEXT, "saved_at": TEXT})

NEIGHBOUR = object_of(
    {
        "id": ID,
        "similarity": {"type": "number", "minimum": -1, "maximum": 1},
        "image_path": TEXT,
        "url": TEXT,
        "caption": TEXT,
        "time": {"type": "number", "minimum": 0, "description": "Seconds, in a video."},
    },
    "image_path",
    "url",
    "caption",
    "time",
)

METADATA = object_of(
    {"id": ID, "metadata": object_of({"image_path": TEXT, "url": TEXT, "caption": TEXT})}
)

SCHEMAS: dict[str, Schema] = {
    "Hint": HINT,
    "Hit": HIT,
    "Filter": FILTER,
    "Like": LIKE,
    "Search": SEARCH,
    "Image": IMAGE,
    "Root": ROOT,
    "DiskFolders": DISK_FOLDERS,
    "Roots": object_of({"roots": list_of(named("Root"))}),
    "Scan": SCAN,
    "Scans": object_of({"scan": {"oneOf": [{"type": "null"}, named("Scan")]}}),
    "Offer": OFFER,
    "Change": CHANGE,
    "Model": MODEL,
    "Status": STATUS,
    "Health": object_of({"status": {"const": "ok"}}),
    "Facets": FACETS,
    "Folders": object_of({"folders": list_of(FOLDER), "left_out": COUNT}),
    "Timeline": TIMELINE,
    "Duplicates": DUPLICATES,
    "DuplicateOthers": DUPLICATE_OTHERS,
    "Marks": object_of({"image_id": ID, **MARKS}),
    "Marked": object_of({"changed": list_of(ID), "before": COUNT, "generation": COUNT}),
    "Measured": object_of({"count": COUNT, "bytes": COUNT, "ids": list_of(ID)}),
    "Kept": KEPT,
    "Imported": object_of(
        dict.fromkeys(("favourites", "hidden", "searches", "tags", "absent"), COUNT)
    ),
    "Picture": PICTURE,
    "SavedSearch": SAVED_SEARCH,
    "SavedSearches": object_of({"searches": list_of(named("SavedSearch"))}),
    "Suggestions": object_of({"suggestions": list_of(SUGGESTION)}),
    "Map": MAP,
    "MapPictures": MAP_PICTURES,
    "Failures": object_of({"failures": list_of(FAILURE), "cursor": CURSOR}),
    "Neighbours": list_of(NEIGHBOUR),
    "Metadata": list_of(METADATA),
    "Indices": list_of(TEXT),
    **TAG_SCHEMAS,
    **ACCOUNT_SCHEMAS,
    "Problem": PROBLEM,
}
