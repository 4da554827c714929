"""What commands print: plain lines and JSON on standard output, remarks on standard error."""

import json
from itertools import zip_longest
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    pass


_ESCAPES = frozenset("\\nrtxuU")  # what follows the backslash in an escape


def plain(text: str) -> str:
    """Escape what is not printable, so that a name is one line and changes no terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain_name(name: str) -> str:
    """Escape a file's name as ``plain`` does, so that no two names look the same.

    A backslash of its own is doubled where it would look like the beginning of an escape.
    """
    return "".join(
        "\\\\" if c == "\\" and (after in _ESCAPES or plain(after) != after) else plain(c)
        for c, after in zip_longest(name, name[1:], fillvalue=" ")
    )


def talk(text: str) -> None:
    """Say something that is no result."""
    click.echo(f"fovea: {plain(text)}", err=True)


def size_text(length: int) -> str:
    return f"{length / 1e6:,.1f} MB" if length >= 1e6 else f"{length / 1e3:,.1f} kB"


def print_json(value: object) -> None:
    """Print one document on one line; bytes that are not UTF-8 as surrogate escapes."""
    click.echo(json.dumps(value))
