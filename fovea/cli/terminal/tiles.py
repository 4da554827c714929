"""The pictures of the full-screen search: tiles in a grid, only as many as fit on the screen."""

from typing import TYPE_CHECKING

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.containers import Vertical
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from fovea.search.library.paths import printable_name

from .graphics import Cell, Graphics, blocks, fitted

if TYPE_CHECKING:
    from PIL.Image import Image
    from textual.app import ComposeResult

    from fovea.search.query.hits import Hit

__all__ = ["TILE_HEIGHT", "TILE_WIDTH", "Tile"]

TILE_WIDTH, TILE_HEIGHT = 26, 12  # cells, at least; border and caption included


class Blocks(Widget):
    """A picture of coloured half blocks, in the middle of its place."""

    def __init__(self) -> None:
        super().__init__()
        self._image: Image | None = None
        self._rows: list[Strip] = []

    def show(self, image: "Image | None") -> None:
        """Show a picture, or nothing."""
        self._image = image
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        width, height = self.size
        self._rows = []
        if self._image is not None and width and height:
            rows = blocks(self._image, width, height)
            above, left = (height - len(rows)) // 2, (width - len(rows[0])) // 2
            margin = Segment(" " * left, self.rich_style)
            self._rows = [Strip([])] * above
            self._rows += [Strip([margin, *map(_segment, row)]) for row in rows]
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return one line of the picture, as wide as the widget."""
        strip = self._rows[y] if y < len(self._rows) else Strip([])
        return strip.extend_cell_length(self.size.width, self.rich_style)


def _segment(cell: Cell) -> Segment:
    upper, lower = Color.from_rgb(*cell.upper), Color.from_rgb(*cell.lower)
    return Segment("▀", Style(color=upper, bgcolor=lower))


class Tile(Vertical):
    """A hit: its picture, or why there is none, and its name."""

    DEFAULT_CSS = """
    Tile { width: 100%; height: 100%; border: round transparent; align: center middle; }
    Tile.chosen { border: round $accent; }
    Tile.empty { visibility: hidden; }
    Tile .picture { width: 100%; height: 1fr; }
    Tile .caption {
        width: 100%; height: 1; dock: bottom; text-overflow: ellipsis; text-wrap: nowrap;
    }
    """

    def __init__(self, graphics: Graphics) -> None:
        super().__init__(classes="empty")
        self.hit: Hit | None = None
        self._image: Image | None = None
        self._picture = _widget(graphics)
        self._picture.add_class("picture")
        self._caption = Static("", classes="caption", markup=False)

    def compose(self) -> "ComposeResult":
        """Put the caption below the picture."""
        yield self._picture
        yield self._caption

    def show(self, hit: "Hit | None", *, chosen: bool) -> None:
        """Show a hit's name, and nothing else yet; None empties the tile."""
        if hit is None or self.hit is None or hit.image_id != self.hit.image_id:
            self.draw(None)
        self.hit = hit
        self.set_class(hit is None, "empty")
        self.set_class(chosen, "chosen")
        self._caption.update("" if hit is None else caption(hit))

    def draw(self, image: "Image | None") -> None:
        """Show a picture, or nothing."""
        self._image = image
        if isinstance(self._picture, Blocks):
            self._picture.show(image)
            return
        width, height = self.content_size.width, self.content_size.height - 1
        if image is not None and width > 0 and height > 0:  # they fill whatever they are given
            self._picture.styles.width, self._picture.styles.height = fitted(image, width, height)
        setattr(self._picture, "image", image)  # noqa: B010 (of textual-image's classes)

    def on_resize(self) -> None:
        if not isinstance(self._picture, Blocks):
            self.draw(self._image)

    def explain(self, reason: str) -> None:
        """Say why there is no picture."""
        self._caption.update(f"✗ {reason}")


def caption(hit: "Hit") -> str:
    """Return what stands below a hit's picture."""
    name = printable_name(hit.path.rpartition("/")[2])
    score = "" if hit.score is None else f"{hit.score:.2f} "
    return f"{score}{name}{' (offline)' if hit.offline else ''}"


def _widget(graphics: Graphics) -> Widget:
    """Return an empty picture, drawn in the way that the terminal knows."""
    if graphics == "blocks":
        return Blocks()
    from textual_image.widget import SixelImage, TGPImage

    made: Widget = SixelImage() if graphics == "sixel" else TGPImage()
    return made
