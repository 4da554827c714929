"""The full-screen search: a query above, thumbnails below, and one line for all that is said.

Nothing waits for the library: a query is asked once typing pauses, a newer one replaces it, and
thumbnails come as they are ready.
"""

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize
from textual.widgets import Footer, Input, Static

from fovea.cli.output import counted
from fovea.search.clip.errors import FoveaError
from fovea.search.library.paths import printable, printable_name

from .graphics import Graphics
from .results import notes, nothing_found
from .source import Found, Source
from .tiles import TILE_HEIGHT, TILE_WIDTH, Tile

if TYPE_CHECKING:
    from fovea.search.query.hits import Hit

__all__ = ["Browser"]

PAUSE_S = 0.15  # in typing, after which a query is asked
PAGE = 100  # hits asked for at a time
EXAMPLE = "dog on a beach -people in:holidays"
NO_HITS = "no pictures found; change the query"


class Grid(Container):
    """The hits. It shows a window of whole rows, which moves with the chosen hit."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Left", show=False),
        Binding("right", "move(1)", "Right", show=False),
        Binding("up", "rows(-1)", "Up", show=False),
        Binding("down", "rows(1)", "Down", show=False),
        Binding("pageup", "pages(-1)", "Page up", show=False),
        Binding("pagedown", "pages(1)", "Page down", show=False),
        Binding("home", "first", "First", show=False),
        Binding("end", "last", "Last", show=False),
        Binding("enter", "app.open", "Open"),
        Binding("y", "app.copy", "Copy path"),
        Binding("slash,escape", "app.query", "Query"),
        Binding("q", "app.quit", "Quit"),
    ]
    can_focus = True
    DEFAULT_CSS = """
    Grid { width: 100%; height: 1fr; layout: grid; grid-gutter: 0; overflow: hidden; }
    """

    def __init__(self, graphics: Graphics) -> None:
        super().__init__()
        self._graphics = graphics
        self.hits: tuple[Hit, ...] = ()
        self.chosen = 0  # of the hits
        self.top = 0  # the first row that is shown
        self.columns = self.rows = 1

    def compose(self) -> ComposeResult:
        """Begin with one tile; ``fit`` adds those that the screen has room for."""
        yield Tile(self._graphics)

    async def on_resize(self, event: Resize) -> None:
        await self.fit(event.size.width, event.size.height)

    async def fit(self, width: int, height: int) -> None:
        """Have as many tiles as fit, one at least, and show the hits in them."""
        self.columns, self.rows = max(1, width // TILE_WIDTH), max(1, height // TILE_HEIGHT)
        self.styles.grid_size_columns = self.columns
        self.styles.grid_size_rows = self.rows
        tiles, wanted = list(self.query(Tile)), self.columns * self.rows
        if len(tiles) > wanted:
            await self.remove_children(tiles[wanted:])
        elif len(tiles) < wanted:
            await self.mount(*(Tile(self._graphics) for _ in range(wanted - len(tiles))))
        self.show()

    def put(self, hits: "tuple[Hit, ...]", *, keep: bool) -> None:
        """Show other hits, or, with ``keep``, more of the same."""
        self.hits = hits
        if not keep:
            self.chosen = self.top = 0
        self.show()

    @property
    def hit(self) -> "Hit | None":
        """The chosen hit."""
        return self.hits[self.chosen] if self.chosen < len(self.hits) else None

    def show(self) -> None:
        """Draw the window in which the chosen hit is."""
        row = self.chosen // self.columns
        self.top = min(max(self.top, row - self.rows + 1), row)
        first = self.top * self.columns
        shown = []
        for place, tile in enumerate(self.query(Tile), first):
            hit = self.hits[place] if place < len(self.hits) else None
            tile.show(hit, chosen=place == self.chosen and self.has_focus)
            if hit is not None:
                shown.append((tile, hit))
        browser = self.app
        assert isinstance(browser, Browser)
        browser.draw(shown)
        browser.tell_of_chosen()
        if first + len(shown) + self.columns * self.rows > len(self.hits):
            browser.ask_more()

    def on_focus(self) -> None:
        self.call_later(self.show)  # once ``has_focus`` holds

    def on_blur(self) -> None:
        self.call_later(self.show)

    def choose(self, place: int) -> None:
        """Choose a hit; places beyond the ends are the ends."""
        self.chosen = max(0, min(place, len(self.hits) - 1))
        self.show()

    def action_move(self, by: int) -> None:
        self.choose(self.chosen + by)

    def action_rows(self, by: int) -> None:
        if by < 0 and self.chosen < self.columns:
            self.app.query_one(Input).focus()
        elif self.chosen + by * self.columns < len(self.hits):
            self.choose(self.chosen + by * self.columns)

    def action_pages(self, by: int) -> None:
        self.choose(self.chosen + by * self.columns * self.rows)

    def action_first(self) -> None:
        self.choose(0)

    def action_last(self) -> None:
        self.choose(len(self.hits) - 1)


class Browser(App[None]):
    """The full-screen search of a library."""

    TITLE = "fovea"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #query { border: round $primary; height: 3; }
    #said { height: 1; width: 100%; padding: 0 1; text-overflow: ellipsis; text-wrap: nowrap; }
    #said.wrong { color: $error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,enter", "pictures", "Pictures"),
        Binding("ctrl+q", "quit", "Quit", show=False),
    ]

    def __init__(self, source: Source, query: str = "", *, graphics: Graphics = "blocks") -> None:
        super().__init__()
        self._source, self._first, self._graphics = source, query, graphics
        self._found: Found | None = None
        self._asked = query  # the query of ``_found``, or of the search under way
        self._asks_more = False

    def compose(self) -> ComposeResult:
        """The query, the hits, one line, and the keys."""
        yield Input(self._first, placeholder=EXAMPLE, id="query", select_on_focus=False)
        yield Grid(self._graphics)
        yield Static("", id="said", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Ask the first query."""
        self.query_one(Input).focus()
        self.ask(self._first)

    # Asking

    @on(Input.Changed)
    def changed(self, event: Input.Changed) -> None:
        """Ask what was typed, once typing pauses."""
        if event.value != self._asked or self._found is None:
            self.ask(event.value, pause_s=PAUSE_S)

    @work(exclusive=True, group="search")
    async def ask(self, query: str, *, pause_s: float = 0.0) -> None:
        """Show the hits of a query; the former ones stay until they are found."""
        self._asked, self._asks_more = query, False
        await asyncio.sleep(pause_s)
        self.say("searching…" if self._found is None else None)
        await self._show(query, PAGE, keep=False)

    def ask_more(self) -> None:
        """Ask for more hits of the same query, if there are more."""
        found = self._found
        if found is None or self._asks_more or found.answer.query != self._asked:
            return
        count = len(found.answer.hits)
        if count < found.answer.total and count == len(self.query_one(Grid).hits):
            self._asks_more = True
            self._deepen(self._asked, count + PAGE)

    @work(exclusive=True, group="search")
    async def _deepen(self, query: str, k: int) -> None:
        if await self._show(query, k, keep=True):
            self._asks_more = False  # else it would be asked, and fail, with each key
            self.query_one(Grid).show()

    async def _show(self, query: str, k: int, *, keep: bool) -> bool:
        try:
            found = await self._source.search(query, k)
        except FoveaError as exc:
            self.say(str(exc), wrong=True)
            return False
        is_deeper = not keep or len(found.answer.hits) > len(self.query_one(Grid).hits)
        self._found = found
        self.query_one(Grid).put(found.answer.hits, keep=keep)
        if not found.answer.hits:
            self.say(nothing_found(found.answer, NO_HITS))
        return is_deeper

    # Showing

    @work(exclusive=True, group="draw")
    async def draw(self, shown: "list[tuple[Tile, Hit]]") -> None:
        """Draw the pictures of tiles, those at hand first."""
        assert self._found is not None or not shown
        missing = []
        for tile, hit in shown:
            digest = self._found.digests.get(hit.image_id) if self._found else None
            image = None if digest is None else self._source.remembered(digest, hit)
            if image is not None:
                tile.draw(image)
            elif digest is not None:
                missing.append(self._draw_later(tile, hit, digest))
        await asyncio.gather(*missing)

    async def _draw_later(self, tile: Tile, hit: "Hit", digest: bytes) -> None:
        try:
            image = await self._source.thumbnail(digest, hit)
        except FoveaError as exc:
            if tile.hit is hit:
                tile.explain(printable(str(exc)))
            return
        if tile.hit is hit:
            tile.draw(image)

    def say(self, text: str | None, *, wrong: bool = False) -> None:
        """Say something in the one line for it; None: nothing."""
        said = self.query_one("#said", Static)
        said.update(printable(text or ""))
        said.set_class(wrong, "wrong")

    def tell_of_chosen(self) -> None:
        """Say which picture is chosen, or how many there are."""
        grid = self.query_one(Grid)
        hit = grid.hit
        if self._found is None or hit is None:
            return
        answer = self._found.answer
        if grid.has_focus:
            date = f"  {hit.date[:10]}" if hit.date else ""
            place = f"{grid.chosen + 1:,} of {answer.total:,}"
            self.say("  ".join([place, f"{printable_name(hit.path)}{date}", *notes(hit)]))
        else:
            likely = "" if answer.likely is None else f", {answer.likely:,} likely"
            self.say(f"{counted(answer.total, 'picture')}{likely}")

    # Keys

    def action_query(self) -> None:
        self.query_one(Input).focus()

    def action_pictures(self) -> None:
        if self.query_one(Grid).hits:
            self.query_one(Grid).focus()

    @on(Input.Submitted)
    def submitted(self) -> None:
        """Enter in the query goes to the pictures."""
        self.action_pictures()

    @work(exclusive=True, group="open")
    async def action_open(self) -> None:
        """Open the chosen picture in the system's viewer."""
        hit = self.query_one(Grid).hit
        if hit is None:
            return
        self.say(f"opening {printable_name(hit.path)}")
        try:
            problems = await self._source.open(hit)
        except FoveaError as exc:
            problems = [str(exc)]
        if problems:
            self.say(problems[0], wrong=True)

    def action_copy(self) -> None:
        """Copy the chosen picture's path to the clipboard of the terminal, also over SSH (OSC 52).

        A name that is not plain text is not: a shell might act on what is pasted.
        """
        hit = self.query_one(Grid).hit
        if hit is None:
            return
        if not hit.path.isprintable():
            self.say(
                "not copied: the name has characters that a shell might act on; fovea search -0 "
                "prints it exactly",
                wrong=True,
            )
            return
        self.copy_to_clipboard(hit.path)
        self.say(f"copied {hit.path}")
