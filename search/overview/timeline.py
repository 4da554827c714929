"""Count the images that pass some filters by month: the index of a list by date."""

from dataclasses import dataclass

import numpy as np

from fovea.search.library.library import Library
from fovea.search.query.choosing import chosen
from fovea.search.query.columns import ABSENT, Columns
from fovea.search.query.filters import Filter, asks_for_hidden, selection, visible

__all__ = ["Month", "Timeline", "timeline"]

MONTH = len("2024-07")  # characters of a date


@dataclass(frozen=True, slots=True)
class Month:
    """The images of one month."""

    month: str  # 2024-07; 2024 for those of which only the year is known
    count: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """How many images a list by date has of each month, in its order.

    So the images of a month begin where the counts of those before it end.
    """

    total: int
    months: tuple[Month, ...]  # newest first
    undated: int  # images without a date, which come last


def timeline(
    library: Library, filters: tuple[Filter, ...] = (), columns: Columns | None = None
) -> Timeline:
    """Count the searchable images that meet every filter, by month.

    Hidden ones count only if a filter asks for those. ``columns`` are those of the library as it
    is now; without them, SQL counts.
    """
    counts = None if columns is None else _by_columns(library, filters, columns)
    if counts is None:
        counts = _by_sql(library, filters)
    months = [Month(month, counts[month]) for month in sorted(filter(None, counts), reverse=True)]
    return Timeline(sum(counts.values()), tuple(months), counts.get("", 0))


def _by_columns(
    library: Library, filters: tuple[Filter, ...], columns: Columns
) -> dict[str, int] | None:
    """Count by month, "" for those without a date; None where SQL should."""
    found = chosen(library, columns, filters, is_dated=True)
    if found is None:
        return None
    ids = found.ids
    kept = visible(library, ids, filters)
    places = found.places if kept is ids else found.places[np.isin(ids, kept, assume_unique=True)]
    codes = (columns.dates if found.dates is None else found.dates)[places]
    each = np.bincount(codes - ABSENT, minlength=len(found.days) + 1)  # of each date, ABSENT first
    months, firsts = np.unique(found.days.astype(f"S{MONTH}"), return_index=True)
    totals = np.add.reduceat(each[1:], firsts) if len(firsts) else firsts
    counts = {"": int(each[0])}
    counts |= zip((month.decode() for month in months), totals.tolist(), strict=True)
    return {month: count for month, count in counts.items() if count}


def _by_sql(library: Library, filters: tuple[Filter, ...]) -> dict[str, int]:
    passing, values = selection(library, filters)
    shown = (
        ""
        if asks_for_hidden(filters)
        else " AND shown.image_id NOT IN (SELECT image_id FROM hidden)"
    )
    rows = library.rows(
        f"SELECT coalesce(substr(shown.date, 1, {MONTH}), '') AS month, count(*) "
        f"FROM {passing}{shown} GROUP BY month",
        values,
    )
    return dict(rows)
