"""Read more rows than Milvus gives at once, and in an order that it does not know.

Numbers of pictures are spread evenly, so that a range of them holds its share of the rows; dates
are not, so that their range is halved until a part is small enough.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from .client import AT_ONCE, Client
from .expressions import both
from .tokens import NUMBER_BITS

__all__ = ["descending", "pages"]

MOST_NUMBERS = 1 << NUMBER_BITS


def pages(
    client: Client,
    collection: str,
    expression: str,
    fields: Sequence[str],
    *,
    size: int = AT_ONCE,
    consistency: str = "Bounded",
    count: int | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Yield all rows that meet an expression, by ascending ``number``, about ``size`` at a time.

    ``count`` is how many there are, where that is known.
    """
    if count is None:
        count = client.count(collection, expression, consistency)
    parts = 1 if count <= size else 2 * count // size + 1
    ends = [MOST_NUMBERS * part // parts for part in range(parts + 1)]
    ranges = list(zip(ends[:-1], ends[1:], strict=True))[::-1]
    wanted = list(dict.fromkeys([*fields, "number"]))
    while ranges:
        low, high = ranges.pop()
        part = both(expression, f"number >= {low} and number < {high}")
        rows = client.query(collection, part, wanted, limit=AT_ONCE, consistency=consistency)
        if len(rows) >= AT_ONCE and high - low > 1:
            middle = (low + high) // 2
            ranges += [(middle, high), (low, middle)]
        elif rows:
            yield sorted(rows, key=lambda row: int(row["number"]))


def descending(
    client: Client,
    collection: str,
    expression: str,
    field: str,
    low: int,
    high: int,
    fields: Sequence[str],
    count: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows whose ``field`` is in a range, the largest first; ties by ``number``, too.

    What is not asked for is hardly read. ``count`` is how many there are, where that is known.
    """
    part = both(expression, f"{field} >= {low} and {field} < {high}")
    if count is None:
        count = client.count(collection, part)
    if not count:
        return
    if count <= AT_ONCE or (high - low == 1 and field == "number"):
        rows = client.query(collection, part, list(dict.fromkeys([*fields, field, "number"])))
        yield from sorted(rows, key=lambda row: (row[field], row["number"]), reverse=True)
    elif high - low == 1:  # of one moment
        yield from descending(client, collection, part, "number", 0, MOST_NUMBERS, fields)
    else:
        middle = (low + high) // 2
        for first, last in ((middle, high), (low, middle)):
            yield from descending(client, collection, expression, field, first, last, fields)
