"""Paths in JSON: names are bytes, and not all of them are text."""

import base64
import os

__all__ = ["path_fields"]


def path_fields(path: str) -> dict[str, str]:
    """A path as ``path``; where it is not UTF-8, its bytes too, as ``path_bytes`` in base64."""
    fields = {"path": path}
    try:
        path.encode()
    except UnicodeEncodeError:
        fields["path_bytes"] = base64.b64encode(os.fsencode(path)).decode("ascii")
    return fields
