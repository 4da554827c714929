"""Hits as members of JSON documents: all of their fields, or those that a client asks for."""

from collections.abc import Callable, Sequence
from typing import Any

from flask import request

from fovea.search.library.library import Library
from fovea.search.library.paths import path_fields
from fovea.search.query.hits import ALL, Hit, day_of
from fovea.web.contract.fields import at_moment, image_url, name_of, same_day_url, thumbnail_urls

__all__ = ["FIELDS", "hit_fields", "read_for"]

# Each field, in the order of documents, and how it is written, for a client that sees the server
# under ``root``. Where ``path_bytes`` is None, it is left out.
WRITTEN: dict[str, Callable[[Hit, str], Any]] = {
    "rank": lambda hit, root: hit.rank,
    "score": lambda hit, root: hit.score,
    "likelihood": lambda hit, root: hit.likelihood,
    "image_id": lambda hit, root: hit.image_id,
    "path": lambda hit, root: hit.path,
    "path_bytes": lambda hit, root: path_fields(hit.path).get("path_bytes"),
    "paths": lambda hit, root: list(hit.paths),
    "offline": lambda hit, root: hit.offline,
    "by_name": lambda hit, root: hit.by_name,
    "by_text": lambda hit, root: hit.by_text,
    "favourite": lambda hit, root: hit.favourite,
    "hidden": lambda hit, root: hit.hidden,
    "name": lambda hit, root: name_of(hit.path),
    "width": lambda hit, root: hit.width,
    "height": lambda hit, root: hit.height,
    "format": lambda hit, root: hit.format,
    "duration": lambda hit, root: hit.duration,
    "time": lambda hit, root: hit.time,
    "taken_at": lambda hit, root: hit.taken_at,
    "day": lambda hit, root: day_of(hit),
    "same_day": lambda hit, root: same_day_url(day_of(hit), root),
    "thumbnail": lambda hit, root: None,  # of all hits at once
    "original": lambda hit, root: image_url(hit.image_id, "original", root),
}
FIELDS = tuple(WRITTEN)
# What is read of hits for fields that are not called like a member of ``Hit``.
READ = {
    "path_bytes": "path",
    "name": "path",
    "day": "date",
    "same_day": "date",
    "thumbnail": "image_id",
    "original": "image_id",
}


def read_for(names: Sequence[str]) -> frozenset[str]:
    """Return the members of ``Hit`` that these fields need."""
    if len(names) == len(FIELDS):
        return ALL
    return frozenset(READ.get(name, name) for name in names)


def hit_fields(
    library: Library, found: Sequence[Hit], names: Sequence[str] = FIELDS
) -> list[dict[str, Any]]:
    """Return these fields of hits, leaving out images that are deleted in the meantime."""
    root, written = request.script_root, [(name, WRITTEN[name]) for name in names]
    if "thumbnail" in names:
        thumbnails = thumbnail_urls(library, (hit.image_id for hit in found))
        found = [hit for hit in found if hit.image_id in thumbnails]
    documents = [{name: write(hit, root) for name, write in written} for hit in found]
    for hit, document in zip(found, documents, strict=True):
        if "thumbnail" in document:
            address = thumbnails[hit.image_id]
            if hit.time is not None:
                address = at_moment(address, round(1000 * hit.time))
            document["thumbnail"] = address
        if document.get("path_bytes", "") is None:
            del document["path_bytes"]
    return documents
