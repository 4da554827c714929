"""Say why an answer is empty: which filter leaves nothing, and what may have been meant."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from fovea.search.analyses.stored import analysis_counts, is_off
from fovea.search.library.library import Library

from .choosing import chosen
from .columns import Columns
from .filters import Filter, selection, visible
from .known_values import near_values
from .language import Query

__all__ = ["LANGUAGE", "MESSAGES", "Hint", "hints_for", "unlikely"]

LANGUAGE = "language"  # the code of the one hint that an answer with hits may have

MOST = 3  # filters named
LOOKED_AT = 8  # filters
PATIENCE_S = 1.0  # from which on no further filter is looked at

# What leaves nothing, by code; translations use the same codes and names.
MESSAGES = {
    "filter.in": 'no folder of this library is called "{value}"',
    "filter.name": 'no file name matches "{value}"',
    "filter.on": "no picture is from {value}",
    "filter.after": "no picture is from after {value}",
    "filter.before": "no picture is from before {value}",
    "filter.camera": 'no picture is from a camera called "{value}"',
    "filter.lens": 'no picture was taken with a lens called "{value}"',
    "filter.format": "no picture has the format {value}",
    "filter.is": "no picture is {value}",
    "filter.size": "no picture has the size {value}",
    "filter.longer": "no video is longer than {value}",
    "filter.near": "no picture is known to be from within {value}",
    "filter.place": 'no picture is from a place called "{value}"',
    "filter.text": 'no picture is known to show the words "{value}"',
    "filter.tag": 'no picture has the tag "{value}"',
    "filter.negated": "{filter} leaves out every picture",
    "filters": "no picture matches {filters} together",
    "hidden": "all pictures that match are hidden; add is:hidden to see them",
    "unlikely": "no picture is a likely match",
}
NEAR = "; did you mean {near}?"
WITHOUT = "; without {without} some would"
RANGE = "; the pictures are from {first} to {last}"
OFF = "; reading {off} is switched off: fovea analyse --on {off} switches it on"
UNREAD = "; {unread} of the pictures are still to be read: fovea analyse text"
DATES = ("on", "after", "before")
NAMES = ("in", "camera", "lens", "place")  # whose values are names, of which one is easily mistaken


@dataclass(frozen=True, slots=True)
class Hint:
    """What may help with an answer; ``code`` and ``params`` say the same to translations."""

    code: str  # one of ``MESSAGES``
    message: str
    params: dict[str, str] = field(default_factory=dict, hash=False)


def hints_for(
    library: Library, filters: Sequence[Filter], columns: Columns | None = None
) -> tuple[Hint, ...]:
    """Say why no picture passes the filters; nothing if some do, or if the library is empty.

    ``columns`` are those of the library as it is now.
    """
    if not library.rows("SELECT 1 FROM shown LIMIT 1"):
        return ()
    looking = _Looking(library, columns, time.monotonic() + PATIENCE_S)
    distinct = list(dict.fromkeys(filters))[:LOOKED_AT]
    blamed = [one for one in distinct if looking.leaves([one]) is False][:MOST]
    if blamed:
        return tuple(_of(library, one) for one in blamed)
    if looking.leaves(filters):
        return () if looking.shows(filters) else (_hint("hidden"),)
    if len(distinct) < 2:
        return ()
    without = [
        one for one in distinct if looking.leaves([other for other in filters if other != one])
    ]
    together = _written(distinct)
    if not without:
        return (_hint("filters", filters=together),)
    return (_hint("filters", WITHOUT, filters=together, without=[*map(_one, without[:MOST])]),)


def unlikely() -> Hint:
    """Say that nothing is likely where only likely matches are wanted."""
    return _hint("unlikely")


@dataclass(frozen=True, slots=True)
class _Looking:
    """Looks whether some filters leave anything, until patience is over."""

    library: Library
    columns: Columns | None
    deadline: float  # of ``time.monotonic()``

    def leaves(self, filters: Sequence[Filter]) -> bool | None:
        """Whether a picture, hidden or not, passes the filters; None if that was not looked at."""
        if time.monotonic() > self.deadline:
            return None
        if self.columns is not None:
            found = chosen(self.library, self.columns, filters)
            if found is not None:
                return len(found.places) > 0
        passing, values = selection(self.library, filters)
        return bool(self.library.rows(f"SELECT 1 FROM {passing} LIMIT 1", values))

    def shows(self, filters: Sequence[Filter]) -> bool:
        """Whether a picture that is not hidden passes the filters."""
        import numpy as np

        passing, values = selection(self.library, filters)
        rows = self.library.rows(f"SELECT shown.image_id FROM {passing}", values)
        ids = np.array([image_id for (image_id,) in rows], dtype=np.int64)
        return len(visible(self.library, ids, filters)) > 0


def _of(library: Library, one: Filter) -> Hint:
    """Say that no picture passes a filter, and which values of it there are."""
    params = {"filter": _one(one), "value": one.value}
    if one.negated:
        return _hint("filter.negated", **params)
    if one.kind in DATES:
        [(first, last)] = library.rows(
            "SELECT (SELECT substr(min(date), 1, 10) FROM shown), "
            "(SELECT substr(max(date), 1, 10) FROM shown)"
        )
        if first is None:
            return _hint(f"filter.{one.kind}", **params)
        return _hint(f"filter.{one.kind}", RANGE, **params, first=first, last=last)
    if one.kind == "text" and is_off(library, "text"):
        return _hint("filter.text", OFF, **params, off="text")
    if one.kind == "text" and (unread := analysis_counts(library, "text", None).pending):
        return _hint("filter.text", UNREAD, **params, unread=f"{unread:,}")
    near = near_values(library.folder, one.kind, one.value) if one.kind in NAMES else []
    if not near:
        return _hint(f"filter.{one.kind}", **params)
    others = [_one(Filter(one.kind, value)) for value in near]
    return _hint(f"filter.{one.kind}", NEAR, **params, near=others)


def _hint(code: str, more: str = "", **params: str | list[str]) -> Hint:
    """Make a hint; a list is one of several."""
    said, kept = (
        {name: join.join(value) if isinstance(value, list) else value for name, value in pairs}
        for join, pairs in ((" or ", params.items()), (", ", params.items()))
    )
    return Hint(code, (MESSAGES[code] + more).format_map(said), kept)


def _one(entry: Filter) -> str:
    return str(Query(filters=(entry,)))


def _written(filters: Sequence[Filter]) -> str:
    return str(Query(filters=tuple(filters)))
