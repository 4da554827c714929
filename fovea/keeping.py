"""What a library keeps beside its index: marks, tags, searches under names, text in pictures."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, SupportsIndex

from fovea.search.clip.user_path import user_path
from fovea.search.errors import LibraryError
from fovea.search.library.facts.folded import fold
from fovea.search.library.library import Library as Store
from fovea.search.library.marks import Mark, contents, mark
from fovea.search.library.paths import printable_name
from fovea.search.query import saved
from fovea.search.query.run import Searcher
from fovea.search.query.saved import SavedSearch
from fovea.search.tags import scoring, stored
from fovea.search.tags.scoring import Suggestions
from fovea.search.tags.stored import Tag

from .telling import telling

if TYPE_CHECKING:
    from fovea.indexer.analysing.accounts import AnalysisState
    from fovea.indexer.analysing.analyse import AnalysisProgress, AnalysisReport
    from fovea.indexer.sidecars.exchange import SidecarReport
    from fovea.search.analyses.texts import Line
    from fovea.search.maintenance.keepsakes import ImportReport

__all__ = ["Keeping"]

Picture = SupportsIndex | str | os.PathLike[str]


class Keeping:
    """The part of ``fovea.Library`` for marks, tags, saved searches, and what analyses find."""

    _store: Store

    def _current_searcher(self) -> Searcher:
        raise NotImplementedError

    @telling
    def favourite(self, *pictures: Picture, on: bool = True) -> int:
        """Make pictures favourites, or with ``on=False`` no longer; return how many changed.

        A picture is an image id or a file; its copies share the mark, which belongs to the content
        and outlasts moves, changes of model, and folders that are removed and come back. Raise
        ``LibraryError`` for one that is not in the library, before anything is changed.
        """
        return self._mark("favourite", pictures, on)

    @telling
    def hide(self, *pictures: Picture, on: bool = True) -> int:
        """Keep pictures out of all answers but those to ``is:hidden``; otherwise as ``favourite``.

        ``on=False`` shows them again.
        """
        return self._mark("hidden", pictures, on)

    def _mark(self, kind: Mark, pictures: Iterable[Picture], on: bool) -> int:
        self._store.check_writable()
        return len(mark(self._store, [self._content(one) for one in pictures], kind, on))

    def _content(self, picture: Picture) -> bytes:
        if isinstance(picture, SupportsIndex):
            found = contents(self._store, [int(picture)]).get(int(picture))
            if found is None:
                raise LibraryError(f"{self._store.folder} has no image {int(picture)}")
            return found
        from fovea.indexer.workers.query_image import content_hash

        place = user_path(picture)
        try:
            content = content_hash(place)
        except LibraryError:  # it may be offline
            path = os.path.abspath(os.fsencode(place))
            rows = self._store.rows(
                "SELECT hash FROM files JOIN images ON images.id = image_id WHERE path = ?", [path]
            )
            if not rows:
                raise
            return bytes(rows[0][0])
        if content not in self._store.image_by_hash([content]):
            raise LibraryError(
                f"{self._store.folder} has no picture like {printable_name(place)}; index it first"
            )
        return content

    @telling
    def teach(
        self,
        name: str,
        yes: Iterable[Picture] = (),
        no: Iterable[Picture] = (),
        neither: Iterable[Picture] = (),
        *,
        suggested: bool = False,
    ) -> Tag:
        """Say which pictures have a tag, and which have not; ``neither`` takes back what was said.

        From three pictures that have it, better five, the tag finds others like them: ``tag:rex``.
        Pictures are image ids or files, as for ``favourite``; copies share what is said of them.
        ``suggested`` says that ``tag_suggestions`` named them: only such pictures tell how many of
        those that are found are right.
        Raise ``LibraryError`` for an empty or too long name, for a tag of which no picture is said
        to have it, and for pictures that are not in the library.
        """
        self._store.check_writable()
        said = {
            key: [self._content(one) for one in pictures]
            for key, pictures in (("yes", yes), ("no", no), ("neither", neither))
        }
        stored.say(self._store, name, **said, answers=suggested)
        scoring.refresh(self._store)
        return stored.tag_named(self._store, name)

    @telling
    def tags(self) -> list[Tag]:
        """Return all tags, by name, with what was said and how many pictures have them."""
        scoring.refresh_if_possible(self._store)
        return stored.tags(self._store)

    @telling
    def tag(self, name: str) -> Tag:
        """Return the tag of a name. Raise ``LibraryError`` if there is none."""
        scoring.refresh_if_possible(self._store)
        return stored.tag_named(self._store, name)

    @telling
    def tag_suggestions(self, name: str, k: int = 12) -> Suggestions:
        """Return at most ``k`` pictures that probably have a tag, and ``k`` that are uncertain.

        They are image ids of pictures that nobody has spoken about: confirming or rejecting them
        (``teach``) makes the tag better. Raise ``LibraryError`` if there is no such tag.
        """
        return scoring.suggestions(self._store, name, k)

    @telling
    def label(
        self, file: str | os.PathLike[str] | None = None, *, right: float | None = None
    ) -> int:
        """Give pictures tags by what they are called, now and later; return how many got one.

        The labels are those that ship with fovea, and those in ``file``: a name on each line, or
        ``name: prompt | prompt``. ``right`` is the share, 0 to 1, of which labels must have been
        measured to be right, where the usual is not enough. Raise ``LibraryError`` where the
        model's labels were not right so often, and for a file that cannot be read.
        """
        from fovea.search.maintenance.labelling import label_pictures, labels_in

        if right is not None and not 0 < right <= 1:
            raise ValueError(f"right is {right}; it is a share between 0 and 1")
        self._store.check_writable()
        own = [] if file is None else labels_in(user_path(file))
        searcher = self._current_searcher()
        model = self._store.model()
        if model is None:
            raise LibraryError(f"nothing is indexed in {self._store.folder} yet; index a folder")
        encoder = searcher.encoder if own else None
        return label_pictures(self._store, model, searcher.background, own, encoder, right=right)

    @telling
    def unlabel(self) -> None:
        """Switch labels off: forget the tags that nobody has spoken about."""
        from fovea.search.maintenance.labelling import unlabel_pictures

        self._store.check_writable()
        unlabel_pictures(self._store)

    @telling
    def export_sidecars(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        beside: bool = False,
        found: bool = False,
    ) -> "SidecarReport":
        """Write tags as keywords and favourites as five stars into XMP files for other programs.

        Tags are those that people confirmed, and with ``found`` those that were found as well.
        They go into a folder of their own, or with ``beside`` beside the pictures; what others
        wrote is left as it is. Those that fovea wrote are removed where there is nothing to say any
        more. Raise ``LibraryError`` for a folder below an indexed one.
        """
        from fovea.indexer.sidecars.exchange import write_sidecars

        return write_sidecars(self._store, _sidecars(folder, beside), found=found)

    @telling
    def import_sidecars(
        self, folder: str | os.PathLike[str] | None = None, *, beside: bool = False
    ) -> "SidecarReport":
        """Teach the keywords of XMP files as tags; pictures with five stars become favourites.

        They are those of ``export_sidecars``, or with ``beside`` those beside the pictures.
        """
        from fovea.indexer.sidecars.exchange import read_sidecars

        return read_sidecars(self._store, _sidecars(folder, beside))

    @telling
    def rename_tag(self, name: str, new_name: str) -> Tag:
        """Give a tag another name. Raise ``LibraryError`` if it is taken or invalid."""
        return stored.rename_tag(self._store, name, new_name)

    @telling
    def forget_tag(self, name: str) -> None:
        """Forget a tag, and what was said about it. Raise ``LibraryError`` if there is none."""
        stored.forget_tag(self._store, name)

    @telling
    def saved_searches(self) -> list[SavedSearch]:
        """Return the saved searches, in their order; ``search`` takes their ``query``."""
        return saved.saved_searches(self._store)

    @telling
    def save_search(self, name: str, query: str, *, place: int | None = None) -> SavedSearch:
        """Save a query under a name, at the end of the list or before the one at ``place``, from 0.

        Raise ``QueryError`` for a query that cannot be read, ``LibraryError`` for a name that is
        empty, longer than 100 characters, or taken; case and accents make no other name.
        """
        return saved.save_search(self._store, name, query, place=place)

    @telling
    def edit_search(
        self,
        name: str,
        *,
        new_name: str | None = None,
        query: str | None = None,
        place: int | None = None,
    ) -> SavedSearch:
        """Change a saved search's name, its query or its place; raise as ``save_search`` does."""
        found = self._search(name)
        return saved.edit_search(self._store, found.id, name=new_name, query=query, place=place)

    @telling
    def delete_search(self, name: str) -> None:
        """Delete a saved search. Raise ``LibraryError`` if there is none of that name."""
        saved.delete_search(self._store, self._search(name).id)

    @telling
    def saved_search(self, name: str) -> SavedSearch:
        """Return the saved search of a name. Raise ``LibraryError`` if there is none."""
        return self._search(name)

    def _search(self, name: str) -> SavedSearch:
        wanted = fold(" ".join(name.split()))
        for search in saved.saved_searches(self._store):
            if fold(search.name) == wanted:
                return search
        raise saved.SearchRefused("unknown", name=name)

    @telling
    def export_marks(self) -> dict[str, Any]:
        """Return favourites, hidden pictures, tags and saved searches, for ``json.dump``.

        Pictures are named by the SHA-256 of their content.
        """
        from fovea.search.maintenance.keepsakes import exported

        return exported(self._store)

    @telling
    def import_marks(self, document: dict[str, Any]) -> "ImportReport":
        """Add what another library exported; what is there stays.

        Marks of pictures that are not in the library wait for them. Raise ``LibraryError`` for
        another document, and for too many tags or searches; nothing is added then.
        """
        from fovea.search.maintenance.keepsakes import imported

        return imported(self._store, document)

    @telling
    def analyse(
        self,
        *kinds: str,
        workers: int | None = None,
        progress: "Callable[[AnalysisProgress], None] | None" = None,
        stop: Event | None = None,
    ) -> "AnalysisReport":
        """Find what pictures hold beyond their embedding, with each kind of analysis or all.

        Each content is analysed once. Ctrl-C, or ``stop``, ends the run after the pictures in
        flight, and the next one goes on; Ctrl-C raises ``KeyboardInterrupt`` then. Raise
        ``FoveaError`` for an unknown kind, ``LibraryBusy`` if another process analyses.
        """
        from fovea.indexer.analysing.analyse import analyse
        from fovea.indexer.analysing.kinds import chosen

        report = analyse(self._store, chosen(kinds), workers=workers, progress=progress, stop=stop)
        if report.stopped and stop is None:
            raise KeyboardInterrupt
        return report

    @telling
    def analyses(self) -> "dict[str, AnalysisState]":
        """Return what each kind of analysis has done, what waits, and whether it is switched off.

        By kind; empty for a library on Milvus.
        """
        from fovea.indexer.analysing.accounts import analysis_states

        return analysis_states(self._store)

    @telling
    def switch_analysis(self, *kinds: str, on: bool = True) -> None:
        """Switch kinds of analysis on, for the next run of ``analyse``, or with ``on=False`` off.

        Off forgets what was found. ``"places"`` is switched as a kind is, and looked up by
        ``index``. Raise ``FoveaError`` for an unknown kind, before any is switched.
        """
        from fovea.indexer.analysing.accounts import switch

        switch(self._store, kinds, on)

    @telling
    def text(self, image_id: int) -> "tuple[Line, ...]":
        """Return the lines of text in an image, top to bottom; none where none is known."""
        from fovea.search.analyses.texts import text_of

        return text_of(self._store, int(image_id))


def _sidecars(folder: str | os.PathLike[str] | None, beside: bool) -> Path | None:
    if (folder is None) != beside:
        raise ValueError("give a folder, or beside=True")
    return None if folder is None else Path(os.path.abspath(user_path(folder)))
