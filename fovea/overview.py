"""What a library has in all: months, places, duplicates, and what a query may go on with."""

from typing import TYPE_CHECKING

from fovea.search.cluster.opening import timeline_on
from fovea.search.errors import LibraryError
from fovea.search.library.library import Library as Store
from fovea.search.overview.timeline import Timeline, timeline
from fovea.search.query.known_places import KnownPlace, known_places
from fovea.search.query.run import Question

from .telling import telling

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from fovea.search.cluster.collections import Cluster
    from fovea.search.duplicates.groups import Duplicates
    from fovea.search.mapping.build import MapProgress
    from fovea.search.mapping.stored import PictureMap
    from fovea.search.suggesting.known import Known
    from fovea.search.suggesting.suggest import Suggestion

__all__ = ["Overview"]


class Overview:
    """The part of ``fovea.Library`` that looks at all of it."""

    _store: Store
    _cluster: "Cluster | None" = None  # of a library on Milvus
    _known: "tuple[tuple[int, int], Known] | None"

    def _check_own(self, instead: str) -> None:
        """Raise ``LibraryError`` for what Python does with a library in a folder alone."""
        if self._cluster is not None:
            raise LibraryError(f"this is not done from Python to a library on Milvus; {instead}")

    @telling
    def timeline(self, query: str = "") -> Timeline:
        """Count the pictures that a query's filters leave by month, the newest month first.

        Words in the query leave out none. Raise ``QueryError`` for a malformed query.
        """
        if not isinstance(query, str):
            raise TypeError(f"a query is a text, not {type(query).__name__}")
        filters = Question.of(query).query.filters
        if self._cluster is not None:
            return timeline_on(self._cluster, self._store, filters)
        return timeline(self._store, filters)

    @telling
    def suggest(self, text: str, at: int | None = None) -> "list[Suggestion]":
        """Return up to six suggestions for a query that is being typed, as the page shows them.

        ``at`` is the number of characters before the caret, by default all. The query afterwards is
        a suggestion's ``words`` and ``filter``, with a space between them, and finds ``count``
        pictures. Raise ``ValueError`` for a negative ``at``.
        """
        from fovea.search.suggesting.known import Known
        from fovea.search.suggesting.suggest import suggest

        [(version,)] = self._store.rows("PRAGMA data_version")  # changes with commits of others
        state = (version, self._store.conn.total_changes)
        if self._known is None or self._known[0] != state:
            self._known = state, Known.of(self._store)
        return suggest(self._store, self._known[1], text, at)

    @telling
    def places(self, *, chinese: bool = False) -> list[KnownPlace]:
        """Return the towns, regions and countries where pictures were taken, most pictures first.

        ``search`` takes their ``query``. ``chinese`` asks for names in simplified Chinese, where
        they are known. Empty until ``index`` has looked places up, which takes the extra
        ``fovea[places]``.
        """
        return known_places(self._store, chinese=chinese)

    @telling
    def map(
        self,
        *,
        build: bool = True,
        anew: bool = False,
        progress: "Callable[[MapProgress], None] | None" = None,
        stop: "Event | None" = None,
    ) -> "PictureMap | None":
        """Return where all pictures lie on the library's map, near those that they are like.

        It is laid out the first time, which takes up to two minutes for 100,000 pictures, and kept;
        later pictures are placed on it, and move no other. With ``anew`` it is laid out again;
        without ``build``, the result is None where there is none. ``stop`` ends the work between
        two steps, and raises ``KeyboardInterrupt``. Raise ``LibraryError`` where nothing is
        indexed, or without scikit-learn, which the extra ``fovea[map]`` brings; ``LibraryReadOnly``
        where a map cannot be kept.
        """
        from fovea.search.mapping.build import build_map, current_map
        from fovea.search.mapping.labels import labels_of

        found = None if anew else current_map(self._store)
        if found is not None or not (build or anew):
            return found
        return build_map(
            self._store,
            background=lambda: labels_of(self._store),
            progress=progress,
            stop=stop,
        )

    @telling
    def duplicates(self, *, bursts: bool = False) -> "Duplicates":
        """Group the files that show one picture, the best original of each group first.

        Copies may be resized, stored anew, cropped by a tenth, recoloured, watermarked or mirrored.
        With ``bursts``, what one camera took within seconds and looks alike follows. Each of the
        others says in ``lacks`` what it lacks beside the best. Nothing is deleted.
        """
        from fovea.search.duplicates.groups import find_duplicates

        return find_duplicates(self._store, bursts=bursts)
