"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

DEVICES = "auto, cpu, cuda, cuda:N or mps."
DTYPES = ("auto", "float32", "bfloat16", "float16")


def library_option(command: Command) -> Command:
    """Add ``--library``."""
    return click.option(
        "--library",
        "folder",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="The library's folder.  [default: FOVEA_LIBRARY, or the user's data folder]",
    )(command)


def machine_options(command: Command) -> Command:
    """Add ``--device`` and ``--dtype``."""
    command = click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        default="auto",
        show_default=True,
        help="Precision; auto is the fastest on the device.",
    )(command)
    return click.option(
        "--device", metavar="D", default="auto", show_default=True, help=f"Where to run: {DEVICES}"
    )(command)


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from fovea.search.models.installed import available_models

    return [name for name in available_models() if name.startswith(incomplete)]


def model_option(text: str) -> Callable[[Command], Command]:
    """Add ``--model``."""
    return click.option(
        "--model", "name", metavar="NAME|DIR", shell_complete=complete_model, help=text
    )


def json_option(text: str = "Print one JSON document.") -> Callable[[Command], Command]:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def embedding_options(command: Command) -> Command:
    """Add ``--workers`` and ``--batch-size``."""
    command = click.option(
        "--batch-size",
        metavar="N",
        type=click.IntRange(min=1),
        default=32,
        show_default=True,
        help="Pictures embedded at a time.",
    )(command)
    return click.option(
        "--workers",
        metavar="N",
        type=click.IntRange(min=1),
        help="Decoding processes.  [default: one per core]",
    )(command)


k_option = click.option(
    "-k", default=10, show_default=True, type=click.IntRange(min=1), help="Number of hits."
)
FILE = click.Path(path_type=Path, readable=False)  # the reader explains why it cannot
