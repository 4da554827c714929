"""Fields that several answers have: names and addresses of images."""

import json
import os
from collections.abc import Iterable
from typing import Any

from flask import current_app, request

from fovea.search.library.library import Library

__all__ = [
    "at_moment",
    "image_url",
    "json_text",
    "name_of",
    "picture_url",
    "same_day_url",
    "thumbnail_urls",
]


def json_text(value: Any) -> str:
    """Write a value as Flask writes a view's answer."""
    text: str = current_app.json.dumps(value, separators=(",", ":"))
    return text


def name_of(path: str) -> str:
    """A file's name without its folders."""
    return os.path.basename(path)


def image_url(image_id: int, shape: str, root: str | None = None) -> str:
    """Return the address of an image's ``thumbnail``, ``preview`` or ``original``.

    ``root`` is the path under which the client sees the server, if it is known already: looking
    takes longer than all the rest.
    """
    root = request.script_root if root is None else root
    return f"{root}/api/images/{image_id}/{shape}"


def same_day_url(day: str | None, root: str) -> str | None:
    """Return the address of the search for a day, month or year; None without one."""
    return day and f"{root}/api/search?q=on:{day}"


def picture_url(sha256: str) -> str:
    """Return the address of a small version of a picture that was sent to search by."""
    return f"{request.script_root}/api/pictures?sha256={sha256}"


def thumbnail_urls(library: Library, image_ids: Iterable[int]) -> dict[int, str]:
    """Return the addresses of thumbnails by image id.

    Each ends in the first 8 hexadecimal digits of the content's SHA-256, so that browsers may cache
    it for good.
    """
    rows = library.rows(
        "SELECT id, lower(hex(substr(hash, 1, 4))) FROM images "
        "WHERE id IN (SELECT value FROM json_each(?))",
        [json.dumps([int(image_id) for image_id in image_ids])],
    )
    root = request.script_root
    return {
        image_id: f"{image_url(image_id, 'thumbnail', root)}?v={mark}" for image_id, mark in rows
    }


def at_moment(thumbnail: str, milliseconds: int) -> str:
    """Return the address of a moment's thumbnail, from that of its video."""
    return f"{thumbnail}&at={milliseconds}"
