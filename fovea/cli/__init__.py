"""The command line: one module per subject; each command parses, calls and prints.

May import all of fovea, but heavy packages only inside the commands that need them. Start reading
at ``searching.py``; ``options.py``, ``output.py`` and ``opening.py`` are shared by all commands,
and ``terminal/`` is for people at a terminal.
"""

import contextlib
import errno
import os
import sys
from typing import IO

import click
from click.exceptions import Exit

import fovea
from fovea.search.clip.user_path import check_working_directory
from fovea.search.errors import FoveaError
from fovea.search.library.paths import printable

from .demo import demo
from .embedding import embed
from .evaluating import evaluate
from .indexing import index
from .keeping import analyse, duplicates, mark, searches, tag, teach
from .library import library, roots, status, verify
from .mapping import maps
from .models import models
from .opening import damage_met
from .output import talk
from .searching import classify, search, similar
from .serving import serve
from .switching import use_model
from .terminal.browse import browse
from .terminal.completion import VARIABLE, completion, register
from .training import train
from .tuning import finetune
from .watching import watch

__all__ = ["cli", "main"]


class LibraryGroup(click.Group):
    """Commands that show a ``FoveaError`` as one line, not a traceback.

    So is whatever a damaged library raises.
    """

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except FoveaError as exc:
            raise click.ClickException(printable(str(exc))) from exc
        except (click.ClickException, click.Abort, Exit):
            raise
        except Exception as exc:  # a mistake of ours, unless the library is damaged
            error = damage_met(ctx, exc)
            if error is None:
                raise
            raise click.ClickException(printable(str(error))) from exc


def main() -> None:
    """Run the command line: the ``fovea`` script."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a replaced stream may lack the method
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if VARIABLE in os.environ:
        register()
    try:
        cli(prog_name="fovea")
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) or exc.filename:
            raise  # an error with a file name is not about standard output
        _discard(sys.stdout)
        talk(f"cannot write the results: {exc.strerror}; free some space or redirect the output")
        sys.exit(1)


def _discard(stream: IO[str]) -> None:
    """Send a stream's buffered text nowhere, so that the interpreter's last flush cannot fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"fovea {fovea.__version__}")
        ctx.exit()


@click.group(cls=LibraryGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    expose_value=False,
    is_eager=True,
    help="Show the version and exit.",
)
def cli() -> None:
    """Find photographs by what is in them.

    \b
    fovea index ~/Pictures
    fovea search "a dog running on a beach"
    """
    _log_to_stderr()
    check_working_directory()


def _log_to_stderr() -> None:
    """Print log records to standard error, each as one printable line."""
    import logging

    class OneLine(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("fovea: %(message)s"))
    logger = logging.getLogger("fovea")
    logger.handlers, logger.propagate = [handler], False
    logging.getLogger("fovea.search.clip.engines").setLevel(logging.INFO)  # it takes a while


models.add_command(use_model)
for command in (
    analyse, browse, classify, completion, demo, duplicates, embed, evaluate, finetune, index,
    library, maps, mark, models, roots, search, searches, serve, similar, status, tag, teach, train,
    verify, watch,
):  # fmt: skip
    cli.add_command(command)
