"""``fovea browse``: the command; ``browser.py`` is what it shows."""

import logging
import os
import sys
import threading
import time
from pathlib import Path

import click

from fovea.cli.opening import searchable
from fovea.cli.options import library_option, machine_options
from fovea.search.clip.errors import FoveaError

from .words import QueryCommand, complete_query, joined

__all__ = ["browse"]

LOOK_S = 1.0  # between two looks at whether the terminal is still there
HUNG_UP = 129  # the exit status of what SIGHUP ended


@click.command(cls=QueryCommand, short_help="Search full-screen in the terminal, with thumbnails.")
@click.argument("words", nargs=-1, metavar="[QUERY]...", shell_complete=complete_query)
@library_option
@machine_options
def browse(words: tuple[str, ...], folder: Path | None, device: str, dtype: str) -> None:
    """Search full-screen in the terminal, beginning with QUERY; hits change as you type.

    Down goes from the query to the pictures. There, Enter opens the chosen one, y copies its path,
    / goes back to the query, and q quits. Needs fovea[terminal].

    \b
    fovea browse beach -people
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("browsing needs a terminal; for other programs: fovea search")
    from .graphics import graphics

    way = graphics()  # asks the terminal, which only answers before Textual reads its answers
    try:
        from .browser import Browser
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "textual":
            raise
        raise FoveaError("browsing needs Textual: pip install 'fovea[terminal]'") from exc
    with searchable(folder, device, dtype) as library:
        place = library.folder
    from .source import Source

    logger = logging.getLogger("fovea")
    handlers, logger.handlers = logger.handlers, [logging.NullHandler()]  # the screen is taken
    threading.Thread(target=_end_with_terminal, name="fovea-terminal", daemon=True).start()
    try:
        with Source(place, device=device, dtype=dtype) as source:
            Browser(source, joined(words), graphics=way).run()
    finally:
        logger.handlers = handlers


def _end_with_terminal() -> None:
    """End this process once its terminal is gone, which not everybody is told of by a signal.

    Textual would read the end of its input for ever, and wait for ever to write.
    """
    while os.isatty(0):
        time.sleep(LOOK_S)
    os._exit(HUNG_UP)
