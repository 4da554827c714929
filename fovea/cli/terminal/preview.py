"""``--preview``: draw the pictures of an answer below their lines."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fovea.search.clip.errors import FoveaError
from fovea.search.library.library import Library
from fovea.search.library.paths import printable

from .graphics import fitted, graphics, half_blocks, renderables
from .thumbnails import Thumbnails, digests

if TYPE_CHECKING:
    from PIL.Image import Image

    from fovea.search.query.hits import Hit

__all__ = ["drawing"]

ROWS, COLUMNS = 12, 48  # of a picture, at most
MARGIN = 2  # columns


@contextmanager
def drawing(folder: Path) -> "Iterator[Callable[[Hit], None]]":
    """Return a function that draws a hit's picture on standard output, or says why it cannot."""
    if not sys.stdout.isatty():
        raise FoveaError("--preview needs a terminal; standard output is not one")
    graphics()  # asks before anything is printed
    with Library.open(folder) as library:
        thumbnails = Thumbnails(library)

        def draw(hit: "Hit") -> None:
            digest = digests(library, [hit.image_id]).get(hit.image_id)
            try:
                if digest is None:
                    raise FoveaError("it was removed a moment ago")
                show(thumbnails.get(digest, hit.paths, hit.time))
            except FoveaError as exc:
                click.echo(f"{'':{MARGIN}}(no picture: {printable(str(exc))})")

        try:
            yield draw
        finally:
            thumbnails.close()


def show(image: "Image") -> None:
    """Draw a picture on standard output, in the best way that the terminal knows."""
    size = shutil.get_terminal_size()
    columns = max(1, min(COLUMNS, size.columns - MARGIN))
    rows = max(1, min(ROWS, size.lines - 2))
    known, way = renderables(), graphics()
    if known is None or way == "blocks":
        click.echo(half_blocks(image, columns, rows), nl=False)
        return
    from rich.console import Console

    width, height = fitted(image, columns, rows)
    sys.stdout.flush()
    console = Console(force_terminal=True, color_system="truecolor", highlight=False)
    console.print(known[way](image, width=width, height=height))
