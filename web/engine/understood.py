"""What the server has understood of a query, for pages that show its parts."""

import calendar
import os
from datetime import date, timedelta
from typing import Any

from fovea.search.clip.formats import format_named
from fovea.search.library.facts.folded import fold
from fovea.search.library.facts.tags import tag_words
from fovea.search.library.library import Library
from fovea.search.query.filters import Filter
from fovea.search.query.hits import places
from fovea.search.query.language import Query
from fovea.web.contract.fields import name_of

from .folders import name_within

__all__ = ["filter_fields", "like_fields"]

DAY = timedelta(days=1)


def filter_fields(library: Library, query: Query) -> list[dict[str, Any]]:
    """Return what each filter of a query is, in their order."""
    needs_roots = any(one.kind == "in" and one.value.startswith("/") for one in query.filters)
    roots = [root.path for root in library.roots()] if needs_roots else []
    found = []
    for one in query.filters:
        first, last = _days(one)
        found.append(
            {
                "text": str(Query(filters=(one,))),
                "key": one.kind,
                "value": one.value,
                "negated": one.negated,
                "name": _name(library, one, roots),
                "first": first and first.isoformat(),
                "last": last and last.isoformat(),
            }
        )
    return found


def like_fields(library: Library, query: Query) -> list[dict[str, Any]]:
    """Return the images that are terms of a query, with their names."""
    ids = {int(term.value) for term in query.terms if term.kind == "like"}
    found = places(library, ids) if ids else {}
    return [
        {"image_id": image_id, "name": name_of(found[image_id].paths[0])}
        for image_id in sorted(found)
    ]


def _name(library: Library, one: Filter, roots: list[bytes]) -> str:
    """Return how to call what a filter is about, without a whole path."""
    if one.kind == "in" and one.value.startswith(os.sep):
        return name_within(one.value, roots)
    if one.kind == "tag":  # as somebody wrote it first
        rows = library.rows("SELECT name FROM tags WHERE folded = ?", [tag_words(one.value)])
        return str(rows[0][0]) if rows else one.value
    if one.kind == "format":
        found = format_named(fold(one.value).removeprefix("."))
        return found.name if found else one.value
    return one.value


def _days(one: Filter) -> tuple[date | None, date | None]:
    """Return the first and the last day that a filter leaves; None where it sets no bound.

    A negated ``on:`` leaves the days before and after, and so has no bounds.
    """
    if one.kind not in ("on", "before", "after"):
        return None, None
    first, last = _span(one.value)
    if one.kind == "on":
        return (None, None) if one.negated else (first, last)
    if one.kind == "before":
        return (first, None) if one.negated else (None, first - DAY if first > date.min else None)
    return (None, last) if one.negated else (last + DAY if last < date.max else None, None)


def _span(value: str) -> tuple[date, date]:
    """Return the first and the last day of a year, a month or a day."""
    year, month, day = ([*map(int, value.split("-"))] + [0, 0])[:3]
    last_month = month or 12
    last_day = day or calendar.monthrange(year, last_month)[1]
    return date(year, month or 1, day or 1), date(year, last_month, last_day)
