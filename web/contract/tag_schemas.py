"""The shapes of what the API says of tags, as JSON Schema 2020-12."""

from .shapes import COUNT, ID, SHARE, TEXT, YES_OR_NO, list_of, named, object_of, or_null

__all__ = ["IMAGE_TAG", "TAG_SCHEMAS"]

TAG = object_of(
    {
        "id": ID,
        "name": TEXT,
        "pictures": COUNT,
        "yes": {**COUNT, "description": "Examples that have it."},
        "no": {**COUNT, "description": "Examples that have not."},
        "right": or_null(
            "number",
            minimum=0,
            maximum=1,
            description="Estimated share that is right; null: unproven.",
        ),
        "answers": {**COUNT, "description": "Examples that were suggested before."},
        "taught": {**YES_OR_NO, "description": "By enough examples to find others."},
        "by_label": {**YES_OR_NO, "description": "Found by what it is called, too."},
    }
)

IMAGE_TAG = object_of(
    {
        "name": TEXT,
        "name_zh": {**TEXT, "description": "The name in Chinese, if it is one of the labels'."},
        "probability": SHARE,
        "proven": {**YES_OR_NO, "description": "It is known what the probability is worth."},
        "said": or_null("boolean", description="What somebody said of the image; null: nothing."),
    }
)

BEFORE = {
    **list_of(
        object_of({**dict.fromkeys(("yes", "no", "neither"), list_of(ID)), "suggested": YES_OR_NO})
    ),
    "description": "What was said of the images changed.",
}

PROPOSED = list_of(object_of({"image_id": ID, "name": TEXT, "thumbnail": TEXT}))

TAG_SCHEMAS = {
    "Tag": TAG,
    "Tags": object_of({"tags": list_of(named("Tag"))}),
    "Taught": object_of({"tag": named("Tag"), "changed": list_of(ID), "before": BEFORE}),
    "TagSuggestions": object_of({"likely": PROPOSED, "uncertain": PROPOSED}),
}
