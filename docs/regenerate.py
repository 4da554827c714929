"""Regenerate the help blocks of cli.md and the manual page: python docs/regenerate.py

A block starts with ```console and "$ fovea COMMAND --help"; the rest is replaced by the output of
that command.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import manual

from fovea.cli import cli

PAGE = Path(__file__).with_name("cli.md")
BLOCK = re.compile(r"(?<=```console\n)\$ fovea(?P<command>(?: [a-z]+)*) --help\n.*?(?=```\n)", re.S)


def commands(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and group, starting with the program itself."""
    yield path
    if isinstance(command, click.Group):
        for name, sub in sorted(command.commands.items()):
            yield from commands(sub, (*path, name))


def help_text(path: tuple[str, ...]) -> str:
    """Return the output of a command's --help, 80 columns wide."""
    result = CliRunner().invoke(cli, [*path, "--help"], prog_name="fovea", terminal_width=80)
    assert result.exit_code == 0, result.output
    return result.output


def regenerated(page: str) -> str:
    """Return the page with every help block up to date."""

    def block(match: re.Match[str]) -> str:
        path = tuple(match["command"].split())
        return f"$ fovea{match['command']} --help\n{help_text(path)}"

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    PAGE.write_text(regenerated(PAGE.read_text("utf-8")), encoding="utf-8")
    manual.PAGE.write_text(manual.manual(), encoding="utf-8")
