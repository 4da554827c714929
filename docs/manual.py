"""Write the manual page from the help of the commands: docs/fovea.1, by docs/regenerate.py.

The page is installed as share/man/man1/fovea.1; ``man fovea`` shows it. Formatted by man(7).
"""

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click

from fovea.cli import cli

__all__ = ["PAGE", "manual"]

PAGE = Path(__file__).with_name("fovea.1")
PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
VERBATIM = "\b"  # click's mark of a paragraph whose lines stay as they are
ENVIRONMENT = {
    "FOVEA_LIBRARY": "The library's folder, unless --library is given.",
    "FOVEA_MODELS": "The folder for downloaded models.",
    "FOVEA_OFFLINE": "1 turns the network off.",
}
FOOT = """\
.SH EXIT STATUS
0 for success, 1 for failure, 2 for wrong usage.
.SH SEE ALSO
The query language and all else is described in the documentation of fovea;
.B fovea serve
describes its API at
.IR /api/docs .
"""


def manual() -> str:
    """Return the page."""
    version = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["version"]
    summary = (cli.help or "").partition("\n")[0].rstrip(".")
    parts = [
        ".\\\" Written by docs/regenerate.py from the commands' help.",
        f'.TH FOVEA 1 "" "fovea {version}" "User Commands"',
        ".SH NAME",
        f"fovea \\- {_text(summary[0].lower() + summary[1:])}",
        ".SH SYNOPSIS",
        *_usage(cli, "fovea"),
        ".SH DESCRIPTION",
        *_prose(cli.help or ""),
        ".SH OPTIONS",
        *_options(cli),
        ".SH COMMANDS",
    ]
    for name, command in _commands(cli, "fovea"):
        parts += [f".SS {_text(name)}", *_usage(command, name)]
        parts += [".PP", *_prose(command.help or ""), *_options(command)]
    parts.append(".SH ENVIRONMENT")
    for name, text in ENVIRONMENT.items():
        parts += [".TP", f".B {_text(name)}", _text(text)]
    return "\n".join(parts) + "\n" + FOOT


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")


def _context(command: click.Command) -> click.Context:
    root = click.Context(cli, info_name="fovea", **cli.context_settings)
    return root if command is cli else click.Context(command, parent=root)


def _usage(command: click.Command, path: str) -> list[str]:
    pieces = command.collect_usage_pieces(_context(command))
    return [f".B {_text(path)}", *(_text(piece) for piece in pieces)]


def _prose(text: str) -> list[str]:
    """Return paragraphs; click's mark keeps the lines of one as they are: examples."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if lines:
            lines.append(".PP")
        if paragraph.startswith(VERBATIM):
            rows = paragraph.removeprefix(VERBATIM).strip("\n").split("\n")
            lines += [".RS", ".nf", *map(_text, rows), ".fi", ".RE"]
        else:
            lines.append(_text(" ".join(paragraph.split())))
    return lines


def _options(command: click.Command) -> list[str]:
    lines = []
    context = _context(command)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            lines += [".TP", f".B {_text(record[0])}", _text(" ".join(record[1].split()))]
    return lines


def _text(text: str) -> str:
    """Write a line so that roff reads it as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = text.replace('"', "\\(dq").replace("`", "\\(ga").replace("^", "\\(ha")
    text = text.replace("~", "\\(ti")
    text = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)
    return f"\\&{text}" if text.startswith(".") else text
