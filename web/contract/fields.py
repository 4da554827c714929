"""Values of the library as JSON: names, paths and addresses."""

import json
import os
from collections.abc import Iterable

from flask import request

from fovea.search.library.library import Library

__all__ = ["image_url", "name_of", "thumbnail_urls"]


def name_of(path: str) -> str:
    """A file's name without its folders."""
    return os.path.basename(path)


def image_url(image_id: int, shape: str) -> str:
    """The address of an image in a shape: ``thumbnail``, ``preview`` or ``original``."""
    return _image_url(request.script_root, image_id, shape)


def thumbnail_urls(library: Library, image_ids: Iterable[int]) -> dict[int, str]:
    """The thumbnails' addresses; each names its content, so that it may be kept for ever."""
    root = request.script_root
    return {
        image_id: f"{_image_url(root, image_id, 'thumbnail')}?v={mark}"
        for image_id, mark in hash_marks(library, image_ids).items()
    }


def hash_marks(library: Library, image_ids: Iterable[int]) -> dict[int, str]:
    """The first eight hexadecimal digits of the contents' SHA-256."""
    rows = library.rows(
        "SELECT id, lower(hex(substr(hash, 1, 4))) FROM images "
        "WHERE id IN (SELECT value FROM json_each(?))",
        [json.dumps([int(image_id) for image_id in image_ids])],
    )
    return dict(rows)


def _image_url(root: str, image_id: int, shape: str) -> str:
    return f"{root}/api/images/{image_id}/{shape}"
