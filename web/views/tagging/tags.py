"""Tags: list, teach, get suggestions, rename, forget."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import Blueprint

from fovea.search.library.library import Library
from fovea.search.library.marks import contents
from fovea.search.query.hits import places
from fovea.search.tags import scoring, stored
from fovea.search.tags.stored import Said, TagRefused
from fovea.web.contract.describe import Number, bad_request, describe, json_body, text_of
from fovea.web.contract.fields import name_of, thumbnail_urls
from fovea.web.contract.problems import Problem, refused
from fovea.web.engine.engine import current_engine

__all__ = ["blueprint"]

blueprint = Blueprint("tags", __name__)

SPOKEN_OF = 10_000  # images in one request
SAID = ("yes", "no", "neither")
NAME = {"type": "string", "minLength": 1, "maxLength": stored.LONGEST_NAME}
IDS = {
    "type": "array",
    "items": {"type": "integer", "minimum": 1, "maximum": 10**18 - 1},
    "maxItems": SPOKEN_OF,
}
LESSON = {
    "type": "object",
    "properties": {
        "name": NAME,
        **dict.fromkeys(SAID, IDS),
        "suggested": {"type": "boolean", "description": "They were suggested for the tag."},
    },
    "required": ["name"],
    "anyOf": [{"required": [name]} for name in SAID],
    "additionalProperties": False,
}
RENAMED = {
    "type": "object",
    "properties": {"name": NAME},
    "required": ["name"],
    "additionalProperties": False,
}
COUNT = Number("limit", "How many of each kind.", default=12, minimum=1, maximum=100)


@blueprint.get("/api/tags")
@describe("List the tags", {200: "Tags"}, tag="Tags", problems=(503,))
def tags() -> dict[str, Any]:
    """Return them by name, with what was said and how many pictures have them.

    `right` is the share of these that is estimated to be right; null where that is unproven.
    """
    engine = current_engine()
    engine.refresh_tags()
    return {"tags": [tag.fields() for tag in stored.tags(engine.library)]}


@blueprint.post("/api/tags")
@describe(
    "Teach a tag",
    {200: "Taught"},
    tag="Tags",
    body={"application/json": LESSON},
    problems=(403, 404, 409, 413, 415, 503),
)
def teach() -> dict[str, Any]:
    """Say which images have a tag, and which have not; `neither` takes back what was said.

    The tag is made if there is none of that name and an image has it. From three images that have
    it, better five, `tag:NAME` finds others like them. Ids that are not there are left out.
    `changed` are the images for which that was a change; to undo it, send each part of `before`,
    with the tag's name. Send `suggested: true` with answers about images that were suggested: only
    they tell how many of those that are found are right.
    """
    body = json_body()
    suggested = body.get("suggested", False)
    if not isinstance(suggested, bool):
        raise bad_request("suggested must be true or false")
    name = text_of("name", body.get("name"), stored.LONGEST_NAME)
    lesson = {key: _ids(key, body[key]) for key in SAID if key in body}
    if not lesson:
        raise bad_request("send yes, no or neither, with the ids of images")
    engine = current_engine()
    engine.check_writable()
    library = engine.library
    known = contents(library, [image_id for ids in lesson.values() for image_id in ids])
    said = {key: [known[one] for one in ids if one in known] for key, ids in lesson.items()}
    with _told(), engine.remarks():
        done = stored.say(library, name, **said, answers=suggested)
        scoring.refresh(library)
        tag = stored.tag_named(library, name)
    before = {image_id: done[content] for image_id, content in known.items() if content in done}
    return {"tag": tag.fields(), "changed": list(before), "before": _lessons(before)}


def _lessons(said: Mapping[int, Said | None]) -> list[dict[str, Any]]:
    """Return what to send so that this is what is said of images."""
    found = []
    for suggested in (False, True):
        lesson: dict[str, list[int]] = {key: [] for key in SAID}
        for image_id, one in said.items():
            if suggested == (one is not None and one.is_answer):
                key = "neither" if one is None else "yes" if one.is_so else "no"
                lesson[key].append(image_id)
        if any(lesson.values()):
            found.append({**lesson, "suggested": suggested})
    return found


@blueprint.get("/api/tags/<int:tag_id>/suggestions")
@describe(
    "Suggest images to confirm or reject",
    {200: "TagSuggestions"},
    tag="Tags",
    parameters=(COUNT,),
    problems=(503,),
)
def suggestions(tag_id: int) -> dict[str, Any]:
    """Return images that probably have the tag, and those that are the least certain.

    Nobody has said anything of them yet; whoever does makes the tag better.
    """
    count, engine = COUNT.read(), current_engine()
    engine.refresh_tags()
    library = engine.library
    with _told():
        found = scoring.suggestions(library, _name(library, tag_id), count)
    ids = [*found.likely, *found.uncertain]
    thumbnails = thumbnail_urls(library, ids)
    names = {number: name_of(one.paths[0]) for number, one in places(library, ids).items()}
    return {
        kind: [
            {"image_id": image_id, "name": names[image_id], "thumbnail": thumbnails[image_id]}
            for image_id in getattr(found, kind)
            if image_id in thumbnails and image_id in names
        ]
        for kind in ("likely", "uncertain")
    }


@blueprint.put("/api/tags/<int:tag_id>")
@describe(
    "Rename a tag",
    {200: "Tag"},
    tag="Tags",
    body={"application/json": RENAMED},
    problems=(403, 409, 415, 503),
)
def rename(tag_id: int) -> dict[str, Any]:
    """Give it a name that no other tag has, whatever its case."""
    name = text_of("name", json_body().get("name"), stored.LONGEST_NAME)
    engine = current_engine()
    engine.check_writable()
    with _told(), engine.remarks() as library:
        return stored.rename_tag(library, _name(library, tag_id), name).fields()


@blueprint.delete("/api/tags/<int:tag_id>")
@describe("Forget a tag", {204: {}}, tag="Tags", problems=(403, 409, 503))
def forget(tag_id: int) -> tuple[str, int]:
    """Forget it, and all that was said about it."""
    engine = current_engine()
    engine.check_writable()
    with _told(), engine.remarks() as library:
        stored.forget_tag(library, _name(library, tag_id))
    return "", 204


def _ids(key: str, value: object) -> list[int]:
    is_list = isinstance(value, list) and len(value) <= SPOKEN_OF
    if not is_list or not all(type(one) is int and 0 < one < 10**18 for one in value):  # type: ignore[attr-defined]
        raise bad_request(f"{key} must be a list of at most {SPOKEN_OF:,} ids of images")
    return list(value)  # type: ignore[call-overload]


def _name(library: Library, tag_id: int) -> str:
    rows = library.rows("SELECT name FROM tags WHERE id = ?", [tag_id])
    if not rows:
        raise Problem(404, "Not Found", f"there is no tag {tag_id} in this library")
    return str(rows[0][0])


@contextmanager
def _told() -> Iterator[None]:
    """Answer what is refused with the status that fits it."""
    try:
        yield
    except TagRefused as exc:
        raise refused(exc) from exc
