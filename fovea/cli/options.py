"""Options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fovea.search.clip.errors import FoveaError
from fovea.search.clip.user_path import check_path

Command = TypeVar("Command", bound=Callable[..., Any])

DEVICES = "auto, cpu, cuda, cuda:N or mps."
POSITIVE = click.IntRange(min=1)
LIBRARY = "fovea.library"  # in ``ctx.meta``: the folder of ``--library``, or None


class UserPath(click.Path):
    """A path that means something: an empty one would be the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            text = check_path(value)
        except FoveaError as exc:
            self.fail(str(exc), param, ctx)
        if not text.startswith("~") and str(Path(text)).startswith("~"):
            value = os.path.abspath(text)  # ``Path`` would make ~ of ./~
        return super().convert(value, param, ctx)


FILE = UserPath(path_type=Path, readable=False)  # the reader explains why it cannot
FOLDER = UserPath(path_type=Path, file_okay=False)
DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")


def value_option(
    name: str, text: str, metavar: str, kind: click.ParamType | type, default: object = None
) -> Callable[[Command], Command]:
    """Add an option with a value; its help shows the default, if there is one."""
    shown: dict[str, Any] = {} if default is None else {"default": default, "show_default": True}
    return click.option(name, help=text, metavar=metavar, type=kind, **shown)


def library_option(command: Command, *, name: str = "--library", metavar: str = "DIR") -> Command:
    """Add ``--library``."""
    text = "The library's folder.  [default: FOVEA_LIBRARY, or the user's data folder]"
    return click.option(
        name, "folder", metavar=metavar, type=FOLDER, help=text, callback=_remember
    )(command)


def _remember(ctx: click.Context, param: click.Parameter, folder: Path | None) -> Path | None:
    """Keep the library that a command is about, for ``opening.damage_met``."""
    ctx.meta[LIBRARY] = folder
    return folder


def machine_options(command: Command, *, dtypes: tuple[str, ...] = DTYPES) -> Command:
    """Add ``--device`` and ``--dtype``."""
    text = "Precision; auto is the fastest on the device."
    kind = click.Choice(dtypes)
    command = click.option("--dtype", type=kind, default="auto", show_default=True, help=text)(
        command
    )
    return value_option("--device", f"Where to run: {DEVICES}", "D", str, "auto")(command)


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


workers_option = value_option(
    "--workers", "Decoding processes.  [default: one per core]", "N", POSITIVE
)
k_option = value_option("-k", "Number of hits.", "N", POSITIVE, 10)


def embedding_options(command: Command) -> Command:
    """Add ``--workers`` and ``--batch-size``."""
    text = "Pictures embedded at a time.  [default: what one pass takes, at least 32]"
    batch_size = value_option("--batch-size", text, "N", POSITIVE)
    return workers_option(batch_size(command))
