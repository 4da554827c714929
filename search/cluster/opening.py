"""Open a library on Milvus for searching. What it takes is imported only here and only then."""

import os
from typing import TYPE_CHECKING

from fovea.search.clip.protocols import TextEncoder
from fovea.search.clip.user_path import user_path
from fovea.search.library.library import Library
from fovea.search.library.rows import Counts
from fovea.search.overview.timeline import Timeline
from fovea.search.query.filters import Filter
from fovea.search.query.likelihood import Background
from fovea.search.query.run import Searcher

from .address import Address, address_of

if TYPE_CHECKING:
    from .collections import Cluster

__all__ = [
    "closed",
    "counts_on",
    "hold_content",
    "opened_at",
    "opened_on",
    "searcher_on",
    "timeline_on",
]


def opened_at(place: "str | os.PathLike[str]", *, create: bool) -> "tuple[Library, Cluster | None]":
    """Open the library in a folder, or the one on Milvus whose address stands in its place."""
    address = address_of(place)
    if address is None:
        return Library.open(user_path(place), create=create), None
    return opened_on(address)


def opened_on(address: Address) -> "tuple[Library, Cluster]":
    """Open what this machine has of a library on Milvus, and a connection.

    Raise ``LibraryAway`` if Milvus does not answer, ``LibraryError`` where nothing is indexed.
    """
    from .collections import Cluster
    from .desk import desk_folder
    from .searcher import opened

    cluster = Cluster(address)
    cluster.needed()
    library = Library.open(desk_folder(address))
    opened(cluster, library)
    return library, cluster


def searcher_on(cluster: "Cluster", library: Library, encoder: TextEncoder | None) -> Searcher:
    """Return a searcher for the model in use; ``library`` is as ``opened_on`` returned it."""
    from .searcher import ClusterSearcher

    model = library.model()
    background = None if model is None else Background.load(library.folder, model.identity)
    return ClusterSearcher.on(cluster, library, encoder, background)


def closed(cluster: "Cluster | None", library: Library) -> None:
    """Close a library of either kind."""
    library.close()
    if cluster is not None:
        cluster.close()


def counts_on(cluster: "Cluster | None", library: Library | None = None) -> Counts:
    """Count what a library has; on Milvus its pictures, since those that index know of files."""
    if cluster is None:
        assert library is not None
        return library.counts()
    used = cluster.used()
    count = 0 if used is None else cluster.client.count(used.collection)
    return Counts(count, count, {})


def hold_content(cluster: "Cluster | None", library: Library, digest: bytes) -> None:
    """See to it that the row of a content is at hand, if the library has it."""
    if cluster is None:
        return
    from .searcher import opened
    from .source import ClusterSource

    index = opened(cluster, library)
    if index is not None:
        ClusterSource(index, library).hold_content(digest)


def timeline_on(cluster: "Cluster", library: Library, filters: tuple[Filter, ...]) -> Timeline:
    """Count the pictures that pass some filters by month."""
    from .searcher import opened, timeline
    from .source import ClusterSource

    index = opened(cluster, library)
    if index is None:
        return Timeline(0, (), 0)
    return timeline(ClusterSource(index, library), filters)
