"""Values of the library as JSON."""

import base64
import os

__all__ = ["path_fields"]


def path_fields(path: str) -> dict[str, str]:
    """A path for JSON; where it is not UTF-8, its bytes too."""
    fields = {"path": path}
    try:
        path.encode()
    except UnicodeEncodeError:
        fields["path_bytes"] = base64.b64encode(os.fsencode(path)).decode("ascii")
    return fields
