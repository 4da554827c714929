"""What people keep in a library: favourites, hidden pictures, and searches under names."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex

from fovea.search.clip.user_path import user_path
from fovea.search.errors import LibraryError
from fovea.search.library.facts.folded import fold
from fovea.search.library.library import Library as Store
from fovea.search.library.marks import Mark, contents, mark
from fovea.search.library.paths import printable_name
from fovea.search.query import saved
from fovea.search.query.saved import SavedSearch

from .telling import telling

if TYPE_CHECKING:
    from fovea.search.maintenance.keepsakes import ImportReport

__all__ = ["Keeping"]

Picture = SupportsIndex | str | os.PathLike[str]


class Keeping:
    """The part of ``fovea.Library`` for marks and saved searches."""

    _store: Store

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
        """Return favourites, hidden pictures and saved searches, for ``json.dump``.

        Pictures are named by the SHA-256 of their content.
        """
        from fovea.search.maintenance.keepsakes import exported

        return exported(self._store)

    @telling
    def import_marks(self, document: dict[str, Any]) -> "ImportReport":
        """Add what another library exported; what is there stays.

        Marks of pictures that are not in the library wait for them. Raise ``LibraryError`` for
        another document; nothing is added then.
        """
        from fovea.search.maintenance.keepsakes import imported

        return imported(self._store, document)
