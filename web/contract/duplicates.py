"""The shape of an answer about duplicates."""

from fovea.search.duplicates.best import LACKS

from .shapes import (
    COUNT,
    ID,
    PATH_BYTES,
    SHARE,
    TAKEN_AT,
    TEXT,
    YES_OR_NO,
    list_of,
    object_of,
    or_null,
)

__all__ = ["DUPLICATES", "DUPLICATE_OTHERS"]

_FILE = object_of(
    {
        "image_id": ID,
        "name": TEXT,
        "path": TEXT,
        "path_bytes": PATH_BYTES,
        "thumbnail": or_null("string"),
        "offline": YES_OR_NO,
        "width": or_null("integer"),
        "height": or_null("integer"),
        "format": or_null("string"),
        "bytes": COUNT,
        "taken_at": TAKEN_AT,
        "sharpness": or_null("number", description="Of edges, at 256 pixels."),
        "lacks": {
            **list_of({"type": "string", "enum": list(LACKS)}),
            "description": "What it lacks beside the best, or what was done to it.",
        },
    },
    "path_bytes",
)

_COUNTED = object_of(
    {
        "groups": COUNT,
        "files": {**COUNT, "description": "All but the best of each group."},
        "bytes": {**COUNT, "description": "Of these files."},
        "same": {**COUNT, "description": "Of these files, those with the content of another one."},
    }
)

DUPLICATES = object_of(
    {
        "ready": {**YES_OR_NO, "description": "False while groups are looked for the first time."},
        "progress": {**SHARE, "description": "Of that search."},
        "state": {**COUNT, "description": "Of the groups; for the next page."},
        "pictures": {**COUNT, "description": "Pictures that were looked at."},
        "waiting": {**COUNT, "description": "Pictures whose likeness is not known yet."},
        "counts": object_of({"copies": _COUNTED, "bursts": _COUNTED}),
        "total": {**COUNT, "description": "Groups of the kind, before offset and limit."},
        "groups": list_of(
            object_of(
                {
                    "kind": {"enum": ["copies", "burst"]},
                    "best": _FILE,
                    "count": {**COUNT, "description": "Of the others."},
                    "others": {**list_of(_FILE), "description": "The first 100 of them."},
                }
            )
        ),
    }
)
DUPLICATE_OTHERS = object_of(
    {"count": {**COUNT, "description": "Images, listed or not."}, "ids": list_of(ID)}
)
