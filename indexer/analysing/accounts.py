"""What a library knows of its pictures beyond their embeddings: how much, and what is switched off.

``fovea status``, the API and Python tell it, and switch it on and off.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from fovea.indexer.decoding.formats import VIDEO_INSTALL, VIDEO_REASON, video_available
from fovea.indexer.placing.gazetteer import INSTALL as PLACES_INSTALL
from fovea.indexer.placing.gazetteer import data_version
from fovea.search.analyses import stored
from fovea.search.analyses.stored import analysis_counts
from fovea.search.cluster.ledger import ledger_of
from fovea.search.index.moments import video_counts
from fovea.search.library.library import Library
from fovea.search.mapping.stored import load as load_map
from fovea.search.places.stored import PlaceCounts, place_counts
from fovea.search.places.stored import switch as switch_places
from fovea.search.tags.counts import TagCounts, tag_counts

from .kinds import analysis, chosen

__all__ = ["PLACES", "Accounts", "AnalysisState", "VideoCounts", "analysis_states", "switch"]

PLACES = "places"  # what is switched like a kind of analysis, and is none


@dataclass(frozen=True, slots=True)
class AnalysisState:
    """What one kind of analysis has made of the searchable pictures."""

    done: int
    failed: int
    pending: int
    is_off: bool
    missing: str | None  # how to get what it needs

    def fields(self) -> dict[str, Any]:
        """Return it for JSON."""
        counts = {"done": self.done, "failed": self.failed, "pending": self.pending}
        return {**counts, "off": self.is_off, "missing": self.missing}


@dataclass(frozen=True, slots=True)
class VideoCounts:
    """Videos that can be searched, their moments, and videos that wait for the extra."""

    videos: int
    moments: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Accounts:
    """What is known of a library's pictures beyond their embeddings."""

    places: PlaceCounts
    tags: TagCounts
    videos: VideoCounts
    analyses: dict[str, AnalysisState]  # by kind
    mapped: int | None  # pictures on the map, as it is kept; None where there is none

    @classmethod
    def of(cls, library: Library) -> "Accounts":
        """Count them; a tenth of a second for 100,000 pictures."""
        model = library.model()
        waiting = library.rows(
            "SELECT count(*) FROM files WHERE state = 'skipped' AND reason = ?", (VIDEO_REASON,)
        )
        videos, moments = video_counts(library, model.id if model else None)
        found = None
        if model is not None:
            found = load_map(library.folder, model.identity, library.id, model.dim)
        return cls(
            place_counts(library),
            tag_counts(library),
            VideoCounts(videos, moments, int(waiting[0][0])),
            analysis_states(library),
            None if found is None else len(found),
        )

    def fields(self) -> dict[str, Any]:
        """Return them for JSON; places that are switched off are None."""
        places = self.places
        return {
            "places": None if places.is_off else _places(places),
            "tags": asdict(self.tags),
            "videos": {
                **asdict(self.videos),
                "missing": None if video_available() else VIDEO_INSTALL,
            },
            "analyses": {kind: state.fields() for kind, state in self.analyses.items()},
            "mapped": self.mapped,
        }


def _places(places: PlaceCounts) -> dict[str, Any]:
    counts = {name: getattr(places, name) for name in ("located", "looked_up", "named")}
    return {**counts, "missing": None if data_version() else PLACES_INSTALL}


def analysis_states(library: Library) -> dict[str, AnalysisState]:
    """Return what each kind of analysis has done; none for a library on Milvus, which has none."""
    if ledger_of(library) is not None:
        return {}
    found = {}
    for kind in chosen(()):
        missing = kind.missing()
        counts = analysis_counts(library, kind.kind, None if missing else kind.version)
        found[kind.kind] = AnalysisState(
            counts.done, counts.failed, counts.pending, counts.is_off, missing
        )
    return found


def switch(library: Library, kinds: Iterable[str], on: bool) -> None:
    """Switch kinds of analysis, or ``PLACES``, on or off; off forgets what was found.

    Raise ``FoveaError`` for an unknown one, before any is switched, ``LibraryReadOnly`` if the
    library cannot be changed here.
    """
    library.check_writable()
    wanted = list(kinds)
    known = [analysis(kind) for kind in wanted if kind != PLACES]
    if PLACES in wanted:
        switch_places(library, on)
    for one in known:
        stored.switch(library, one.kind, on)
