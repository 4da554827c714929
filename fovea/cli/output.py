"""Printing: plain lines and JSON on standard output, remarks on standard error."""

import json
import os
import sys
from collections.abc import Sequence

import click

from fovea.search.library.paths import printable, printable_name


def talk(text: str) -> None:
    """Print a remark, which is not part of the results."""
    click.echo(f"fovea: {printable(text)}", err=True)


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Write a count with its noun, in the plural unless it is 1."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def size_text(length: int) -> str:
    return f"{length / 1e6:,.1f} MB" if length >= 1e6 else f"{length / 1e3:,.1f} kB"


def print_json(value: object) -> None:
    """Print one document on one line; bytes that are not UTF-8 become surrogate escapes."""
    click.echo(json.dumps(value))


def print_paths(paths: Sequence[str], end: bytes) -> None:
    """Print paths, each ended by ``end``: their bytes, or on a terminal their escaped text.

    Say where a line break in a path splits it in two, as it does in what ``find`` prints.
    """
    if sys.stdout.isatty():
        click.echo("".join(printable_name(path) + end.decode() for path in paths), nl=False)
        return
    click.echo(b"".join(os.fsencode(path) + end for path in paths), nl=False)
    if split := end == b"\n" and sum("\n" in path for path in paths):
        talk(f"line breaks split {counted(split, 'path')} into several lines; -0 keeps paths whole")
