"""Copies of one picture, and bursts: groups with the best original first, and what is spare."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, current_app, request

from fovea.search.duplicates.groups import Duplicate, DuplicateGroup
from fovea.search.duplicates.script import script_of
from fovea.search.library.paths import path_fields
from fovea.web.contract.describe import (
    Choice,
    Number,
    bad_request,
    describe,
    form_body,
    json_body,
)
from fovea.web.contract.fields import thumbnail_urls
from fovea.web.contract.problems import Problem
from fovea.web.engine.choices import LISTED
from fovea.web.engine.engine import current_engine
from fovea.web.engine.kept_duplicates import Found, OfKind, equal_files

__all__ = ["blueprint"]

blueprint = Blueprint("duplicates", __name__)

FACTS = ("offline", "width", "height", "format", "bytes", "taken_at", "sharpness")
KINDS = ("copies", "bursts")
MOST = 100  # of the others of a group that are sent; thousands may be equal
KIND = Choice("kind", "Copies of one picture, or bursts, which look alike.", KINDS, "copies")
OFFSET = Number("offset", "Groups to pass over.", default=0, minimum=0, maximum=10**9 - 1)
LIMIT = Number("limit", "The largest number of groups.", default=100, minimum=1, maximum=1000)
STATE = Number(
    "state", "That of an answer, which it continues.", default=0, minimum=0, maximum=10**9 - 1
)
EMPTY = Found(0, 0, 0, 0, OfKind(), OfKind())
FORMATS = ("paths", "script")
KIND_OF = {"enum": list(KINDS), "default": "copies"}
BODY = {
    "type": "object",
    "properties": {
        "format": {"enum": list(FORMATS)},
        "kind": KIND_OF,
        "ids": {
            "type": "array",
            "items": {"type": "integer"},
            "maxItems": LISTED,
            "description": "Images of which files are wanted; all without it.",
        },
        "same": {"type": "boolean", "description": "Files with the content of another one."},
    },
    "required": ["format"],
    "additionalProperties": False,
}
FORM = {
    "type": "object",
    "properties": {
        "format": {"enum": list(FORMATS)},
        "kind": KIND_OF,
        "ids": {"type": "string", "description": "Image ids, separated by commas."},
        "same": {"enum": ["true", "false"]},
    },
    "required": ["format"],
    "additionalProperties": False,
}


@blueprint.get("/api/duplicates")
@describe(
    "Group copies of one picture",
    {200: "Duplicates"},
    tag="Search",
    parameters=(KIND, OFFSET, LIMIT, STATE),
    problems=(410,),
)
def duplicates() -> dict[str, Any]:
    """Return groups of files that show one picture, those whose copies take most room first.

    The best original of a group comes with the others and what each lacks beside it. Hidden
    pictures do not count. A large library takes a minute: until then `ready` is false, and after a
    change of the library, groups are those of before for a while. Nothing is ever deleted.
    """
    kind, state = KIND.read(), STATE.read()
    start, limit = OFFSET.read(), LIMIT.read()  # refused before the state is
    kept = current_engine().duplicates
    found = _continued(state) if state else kept.now()
    return {
        "ready": found is not None,
        "progress": kept.progress if found is None else 1,
        "state": 0 if found is None else found.state,
        **_said(found or EMPTY, kind, start, limit),
    }


def _continued(state: int) -> Found:
    kept = current_engine().duplicates.kept
    if kept is None or kept.state != state:
        raise Problem(410, "Gone", "the groups have been found anew; begin with the first ones")
    return kept


def _said(found: Found, kind: str, start: int, limit: int) -> dict[str, Any]:
    groups = _of_kind(found, kind).groups
    some = groups[start : start + limit]
    ids = {one.image_id for group in some for one in (group.best, *group.others[:MOST])}
    thumbnails = thumbnail_urls(current_engine().library, ids)
    return {
        "pictures": found.pictures,
        "waiting": found.waiting,
        "counts": {name: _counted(_of_kind(found, name)) for name in KINDS},
        "total": len(groups),
        "groups": [
            {
                "kind": group.kind,
                "best": _entry(group.best, thumbnails),
                "count": len(group.others),
                "others": [_entry(one, thumbnails) for one in group.others[:MOST]],
            }
            for group in some
        ],
    }


def _of_kind(found: Found, kind: str) -> OfKind:
    return found.bursts if kind == "bursts" else found.copies


def _counted(found: OfKind) -> dict[str, int]:
    return {
        "groups": len(found.groups),
        "files": found.files,
        "bytes": found.bytes,
        "same": found.same,
    }


def _entry(one: Duplicate, thumbnails: dict[int, str]) -> dict[str, Any]:
    facts = {name: getattr(one, name) for name in FACTS} | {"lacks": list(one.lacks)}
    name = os.path.basename(path_fields(one.path)["path"])
    address = thumbnails.get(one.image_id)
    return {
        "image_id": one.image_id, "name": name, **path_fields(one.path), "thumbnail": address,
        **facts,
    }  # fmt: skip


@blueprint.get("/api/duplicates/others")
@describe(
    "List the images that are not the best of a group",
    {200: "DuplicateOthers"},
    tag="Search",
    parameters=(KIND, STATE),
    problems=(410,),
)
def others() -> dict[str, Any]:
    """Return the ids of all but the best, at most 10,000, those that take most room first.

    Files with the content of the best are not among them: they are one image.
    """
    kind, state = KIND.read(), STATE.read()
    found = _continued(state) if state else current_engine().duplicates.now()
    groups = _of_kind(found or EMPTY, kind).groups
    ids = {
        one.image_id: None
        for group in groups
        for one in group.others
        if one.image_id != group.best.image_id
    }
    return {"count": len(ids), "ids": list(ids)[:LISTED]}


@blueprint.post("/api/duplicates/exports")
@describe(
    "Export the files that are not the best of a group",
    {200: {"text/plain": {"type": "string"}, "application/x-sh": {"type": "string"}}},
    tag="Search",
    body={"application/json": BODY, "application/x-www-form-urlencoded": FORM},
    problems=(404, 413, 415),
)
def export() -> Response:
    """Send paths, one per line, or a shell script that moves or removes files once it is run.

    Of all groups of a kind, or with `ids` of these images, and with `same` of files that have the
    content of another one. A path with a line break takes several lines. The best of a group is
    never among them. fovea never runs the script.
    """
    kind, form, ids, same = _asked()
    found = current_engine().duplicates.now()
    groups = list(_chosen(_of_kind(found or EMPTY, kind).groups, ids, same))
    if not groups:
        raise Problem(404, "Not Found", "none of these is a copy of another picture")
    if form == "script":
        body, mimetype, ending = b"".join(script_of(groups)), "application/x-sh", "sh"
    else:
        body, mimetype, ending = b"".join(_paths(groups)), "text/plain", "txt"
    response = current_app.response_class(body, mimetype=mimetype)
    name = f"fovea-{kind}-{datetime.now():%Y%m%d-%H%M%S}.{ending}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response


def _asked() -> tuple[str, str, set[int] | None, bool]:
    if request.mimetype == "application/x-www-form-urlencoded":
        body: dict[str, Any] = dict(form_body()[0])
        if "ids" in body:
            parts = body["ids"].split(",") if body["ids"] else []
            is_id = [part.isascii() and part.isdigit() and len(part) < 19 for part in parts]
            body["ids"] = list(map(int, parts)) if all(is_id) else None
        if "same" in body:
            body["same"] = {"true": True, "false": False}.get(body["same"])
    else:
        body = json_body()
    kind, form = body.get("kind", "copies"), body.get("format")
    same, ids = body.get("same", False), body.get("ids", [])
    if form not in FORMATS:
        raise bad_request(f"format must be one of {', '.join(FORMATS)}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise bad_request(f"kind must be one of {', '.join(KINDS)}")
    if not isinstance(same, bool):
        raise bad_request("same must be true or false")
    if not isinstance(ids, list) or not all(type(one) is int for one in ids):
        raise bad_request("ids must be a list of image ids")
    if len(ids) > LISTED:
        detail = f"at most {LISTED:,} images can be listed in one request"
        raise Problem(413, "Content Too Large", detail)
    return kind, str(form), (set(ids) if "ids" in body else None), same


def _chosen(
    groups: Iterable[DuplicateGroup], ids: set[int] | None, same: bool
) -> Iterator[DuplicateGroup]:
    """Yield the groups with those others that are wanted."""
    for group in groups:
        equal = {one.path for one in equal_files(group)} if same else set()
        wanted = tuple(
            one
            for one in group.others
            if (ids is None and not same)
            or one.path in equal
            or (ids is not None and one.image_id in ids and one.image_id != group.best.image_id)
        )
        if wanted:
            yield replace(group, others=wanted)


def _paths(groups: Iterable[DuplicateGroup]) -> Iterator[bytes]:
    for group in groups:
        for one in group.others:
            yield os.fsencode(one.path) + b"\n"
