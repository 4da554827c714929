"""Pictures in a terminal: what it can draw, and coloured half blocks, which any can."""

import contextlib
import io
import os
import re
import select
import sys
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Graphics", "blocks", "fitted", "graphics", "half_blocks", "renderables"]

Graphics = Literal["kitty", "sixel", "blocks"]
Colour = tuple[int, int, int]

PATIENCE_S = 1.0  # for an answer, also over a slow connection: every terminal gives one
ID = 31  # of a picture that is only asked about
# Kitty's graphics protocol, "Querying support": the answer comes before that to the second
# question, which every terminal answers (Primary Device Attributes, in which 4 stands for Sixel).
QUESTION = b"\x1b_Gi=%d,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[c" % ID
KITTY = re.compile(rb"\x1b_Gi=%d;OK\x1b\\" % ID)
ATTRIBUTES = re.compile(rb"\x1b\[\?([0-9;]*)c")

LEVELS = (0, 95, 135, 175, 215, 255)  # of the 6 × 6 × 6 colours that come after the first 16


class Cell(NamedTuple):
    """A character cell: two pixels, one above the other."""

    upper: Colour
    lower: Colour


@lru_cache(maxsize=1)
def graphics() -> Graphics:
    """Ask the terminal, once, how it draws pictures.

    Sixel comes before Kitty's protocol: terminals that know both seldom know Kitty's placeholders.
    "blocks" without a terminal, where it does not say how large its cells are, and without
    textual-image (an extra).
    """
    if not _has_pixels() or renderables() is None:
        return "blocks"
    answer = _answer(QUESTION)
    attributes = ATTRIBUTES.search(answer)
    if attributes and b"4" in attributes[1].split(b";"):
        return "sixel"
    return "kitty" if KITTY.search(answer) else "blocks"


def renderables() -> dict[str, type] | None:
    """Return what draws for Rich in each protocol; None where textual-image is not installed."""
    # Its import would ask the terminal again, and not wait for a slow one.
    names = vars(sys)
    real, names["__stdout__"] = sys.__stdout__, io.StringIO()
    try:
        from textual_image.renderable import SixelImage, TGPImage
    except ImportError:
        return None
    finally:
        names["__stdout__"] = real
    return {"sixel": SixelImage, "kitty": TGPImage}


def _has_pixels() -> bool:
    """Whether there is a terminal that says how large it is in pixels."""
    streams = sys.__stdin__, sys.__stdout__
    if not all(stream is not None and stream.isatty() for stream in streams):
        return False
    try:
        import fcntl
        import struct
        import termios

        size = fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8))
    except (ImportError, OSError):
        return False
    rows, columns, width, height = struct.unpack("HHHH", size)
    return bool(rows and columns and width and height)


def _answer(question: bytes) -> bytes:
    """Write to the terminal, and read until its attributes come or patience is over."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    answer = b""
    try:
        tty.setcbreak(0, termios.TCSADRAIN)  # what was typed ahead is not thrown away
        os.write(1, question)
        deadline = time.monotonic() + PATIENCE_S
        while not ATTRIBUTES.search(answer) and (left := deadline - time.monotonic()) > 0:
            if not select.select([0], [], [], left)[0] or not (more := os.read(0, 1024)):
                break
            answer += more
    except OSError:
        return b""
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, before)
    return answer


def fitted(image: "Image", columns: int, rows: int) -> tuple[int, int]:
    """Return the columns and rows that a picture takes in a box; a cell is twice as high as wide.

    At least 1 each.
    """
    scale = min(columns / image.width, 2 * rows / image.height)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale / 2))


def blocks(image: "Image", columns: int, rows: int) -> list[list[Cell]]:
    """Return the cells of a picture as large as fits into a box, row by row."""
    width, height = fitted(image, columns, rows)
    pixels = image.convert("RGB").resize((width, 2 * height)).tobytes()
    step = 3 * width  # bytes of a row
    colours = [
        [(line[i], line[i + 1], line[i + 2]) for i in range(0, step, 3)]
        for line in (pixels[start : start + step] for start in range(0, len(pixels), step))
    ]
    return [
        [Cell(upper, lower) for upper, lower in zip(*colours[row : row + 2], strict=True)]
        for row in range(0, 2 * height, 2)
    ]


def half_blocks(image: "Image", columns: int, rows: int) -> str:
    """Draw a picture, as large as fits into a box, by coloured half blocks; lines end with \\n."""
    is_true = os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")
    code = _true_colour if is_true else _of_256
    lines = []
    for row in blocks(image, columns, rows):
        line, last = "", None
        for cell in row:
            if cell != last:
                line += f"\x1b[38;{code(cell.upper)};48;{code(cell.lower)}m"
                last = cell
            line += "▀"
        lines.append(f"{line}\x1b[0m\n")
    return "".join(lines)


def _true_colour(colour: Colour) -> str:
    return "2;{};{};{}".format(*colour)


def _of_256(colour: Colour) -> str:
    """The nearest of the colours that terminals without 24 bits know."""
    red, green, blue = (
        min(range(6), key=lambda level: abs(LEVELS[level] - part)) for part in colour
    )
    return f"5;{16 + 36 * red + 6 * green + blue}"
