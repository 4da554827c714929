"""Printing: plain lines and JSON on standard output, remarks on standard error."""

import json

import click

from fovea.search.library.paths import printable


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
