"""Tell whether a shard is as it was when it was read: by its size, and its time where known."""

import os
from collections.abc import Iterable, Mapping
from functools import cache
from typing import IO

from .destination import Stamp
from .items import escaped
from .remote import file_system, is_url
from .shards import expand
from .sources import Source

__all__ = ["Stamps", "stamp_of_stream"]

UNKNOWN: Stamp = (None, None)


def stamp_of_stream(stream: IO[bytes]) -> Stamp:
    """Return the stamp of a file that was opened, here or in a store."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, AttributeError):  # it has no descriptor
        size = getattr(stream, "size", None)
        return (size if type(size) is int else None), None
    return found.st_size, found.st_mtime_ns


class Stamps:
    """The stamps that the shards of some sources have now.

    Called with a shard's name as it is recorded. What no source names, and what is no longer there,
    has none. Of stores, whole folders are listed: that takes one request for a thousand shards.
    """

    def __init__(self, sources: Iterable[Source]) -> None:
        self._places = {
            escaped(url): url
            for source in sources
            if source.kind == "shards"
            for url in expand(source.place)
        }
        self._sizes = cache(_sizes)  # of one folder

    def __call__(self, recorded: str) -> Stamp:
        """Return a shard's stamp."""
        place = self._places.get(recorded)
        if place is None:
            return UNKNOWN
        try:
            if is_url(place):
                return self._sizes(place.rpartition("/")[0]).get(file_system(place)[1]), None
            found = os.stat(place)
        except Exception:  # of as many kinds as there are stores: whoever opens it says why
            return UNKNOWN
        return found.st_size, found.st_mtime_ns


def _sizes(folder: str) -> Mapping[str, int | None]:
    system, path = file_system(folder)
    try:
        listing = system.ls(path, detail=True)
    except Exception:  # as above
        return {}
    return {one["name"]: one.get("size") for one in listing}
