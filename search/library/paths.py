"""Names of files as text and in JSON: they are bytes, and not all of them are printable text."""

import base64
import os
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .library import Library

__all__ = ["DESK", "LEDGER", "is_ledger", "path_fields", "place_of", "printable", "printable_name"]

# Keys of the settings of what a machine keeps of a library on Milvus: the address.
LEDGER = "milvus ledger"  # of files, for indexing
DESK = "milvus"  # of rows, for searching

_ESCAPES = frozenset("\\nrtxuU")  # what follows the backslash in an escape


def printable(text: str) -> str:
    """Escape what is not printable, so that a text is one line and changes no terminal.

    A byte that is not UTF-8 becomes ``\\udcXX``, as ``os.fsdecode`` gives it.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_name(name: str | os.PathLike[str]) -> str:
    """Escape a file's name as ``printable`` does, so that no two names look the same.

    A backslash in the name is doubled where it would look like the beginning of an escape.
    """
    text = os.fspath(name)
    return "".join(
        "\\\\" if c == "\\" and (after in _ESCAPES or printable(after) != after) else printable(c)
        for c, after in zip_longest(text, text[1:], fillvalue=" ")
    )


def path_fields(path: str) -> dict[str, str]:
    """Return ``path`` and, where it is not UTF-8, its bytes as ``path_bytes`` in base64."""
    fields = {"path": path}
    try:
        path.encode()
    except UnicodeEncodeError:
        fields["path_bytes"] = base64.b64encode(os.fsencode(path)).decode("ascii")
    return fields


def is_ledger(library: "Library") -> bool:
    """Whether a library is what this machine knows of the files of one on Milvus."""
    return bool(library.rows("SELECT 1 FROM library WHERE key = ?", (LEDGER,)))


def place_of(library: "Library") -> str:
    """Return where a library is, as people name it: its folder, or its address on Milvus."""
    rows = library.rows("SELECT value FROM library WHERE key IN (?, ?)", (LEDGER, DESK))
    return str(rows[0][0]) if rows else printable_name(library.folder)
