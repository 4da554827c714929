"""Fields that several answers have: names and addresses of images."""

import json
import os
from collections.abc import Iterable
from typing import Any

from flask import current_app, request

from fovea.search.library.library import Library

__all__ = ["image_url", "json_text", "name_of", "thumbnail_urls"]


def json_text(value: Any) -> str:
    """Write a value as Flask writes a view's answer."""
    text: str = current_app.json.dumps(value, separators=(",", ":"))
    return text


def name_of(path: str) -> str:
    """A file's name without its folders."""
    return os.path.basename(path)


def image_url(image_id: int, shape: str) -> str:
    """Return the address of an image's ``thumbnail``, ``preview`` or ``original``."""
    return f"{request.script_root}/api/images/{image_id}/{shape}"


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
    return {image_id: f"{image_url(image_id, 'thumbnail')}?v={mark}" for image_id, mark in rows}
