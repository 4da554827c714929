"""Rewrite the generated parts of the documentation: python docs/regenerate.py

In cli.md, a block that opens with ```console and "$ fovea COMMAND --help" becomes what that command
prints; in queries.md, the table of filters comes from ``search/query/filters.py``.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fovea.cli import cli  # noqa: E402
from fovea.search.query.filters import FILTERS  # noqa: E402

QUERIES = Path(__file__).with_name("queries.md")
TABLE = re.compile(r"(?<=\| filter \| leaves pictures \|\n\| --- \| --- \|\n)(?:\|.*\n)*")
PAGE = Path(__file__).with_name("cli.md")
BLOCK = re.compile(r"(?<=```console\n)\$ fovea(?P<command>(?: [a-z]+)*) --help\n.*?(?=```\n)", re.S)


def commands(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, groups included, the whole program first."""
    yield path
    if isinstance(command, click.Group):
        for name, sub in sorted(command.commands.items()):
            yield from commands(sub, (*path, name))


def help_text(path: tuple[str, ...]) -> str:
    """Return what a command prints for --help, 80 columns wide."""
    result = CliRunner().invoke(cli, [*path, "--help"], prog_name="fovea", terminal_width=80)
    assert result.exit_code == 0, result.output
    return result.output


def regenerated(page: str) -> str:
    """Return the page with every help block as the program prints it now."""

    def block(match: re.Match[str]) -> str:
        path = tuple(match["command"].split())
        return f"$ fovea{match['command']} --help\n{help_text(path)}"

    return BLOCK.sub(block, page)


def table_of_filters() -> str:
    """Return the rows that explain each kind of filter."""
    rows = (
        f"| {', '.join(f'`{example}`' for example in kind.examples)} | {kind.help} |\n"
        for kind in FILTERS.values()
    )
    return "".join(rows)


if __name__ == "__main__":
    queries = TABLE.sub(lambda _: table_of_filters(), QUERIES.read_text("utf-8"))
    QUERIES.write_text(queries, encoding="utf-8")
    PAGE.write_text(regenerated(PAGE.read_text("utf-8")), encoding="utf-8")
