"""Turn orders into items with their contents, in order."""

from collections.abc import Iterable, Iterator

from fovea.indexer.decoding.limits import Limits, one_line

from .items import UNREACHED, Item, Order, Result, Shard
from .remote import fetched, open_stream, said
from .shards import BrokenShard, members
from .stamps import stamp_of_stream

__all__ = ["contents"]


def contents(orders: Iterable[Order | None], limits: Limits) -> Iterator[Item | Result | None]:
    """Yield the items of each order; after those of a shard, what became of that itself."""
    for order in orders:
        if order is None:
            yield None
        elif isinstance(order, Shard):
            yield from _members(order, limits)
        elif any(item.where == "url" for item in order.items):
            yield from fetched(order.items, limits)
        else:
            yield from order.items


def _members(order: Shard, limits: Limits) -> Iterator[Item | Result]:
    count, reason = 0, None
    size, mtime_ns = None, None
    try:
        with open_stream(order.url) as stream:
            size, mtime_ns = stamp_of_stream(stream)  # before: it may grow meanwhile
            for item in members(order.url, stream, limits, order.known):
                count += 1
                yield item
    except BrokenShard as exc:
        reason = UNREACHED + one_line(str(exc))
    except Exception as exc:  # of as many kinds as there are stores
        reason = said(exc)
    shard = Item(order.url.encode("utf-8", "surrogateescape"), "shard", shard=order.url)
    yield Result(
        shard, "shard", reason, members=count,
        size=-1 if size is None else size, mtime_ns=mtime_ns or 0,
    )  # fmt: skip
