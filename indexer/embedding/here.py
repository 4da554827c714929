"""Embed on this machine: decode in worker processes, encode in this thread."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.scanning.refusals import encoded
from fovea.indexer.workers.pool import Outcome, Pool, Task, batch_of
from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.protocols import IndexingEncoder

from .items import Item, Order, Result
from .reading import contents

__all__ = ["Decoding", "Here"]

HELD = 256 << 20  # bytes of streamed contents with the workers at once, or one that is larger
READY = 1000  # results that wait for no worker


@dataclass(slots=True)
class Decoding:
    """Makes tasks of items, and results of outcomes; it knows which contents are under way."""

    limits: Limits
    ready: deque[Result] = field(default_factory=deque)  # of what no worker has to look at
    _items: dict[int, Item] = field(default_factory=dict)  # token -> the item without its content
    _sizes: dict[int, int] = field(default_factory=dict)
    _held: int = 0
    _token: int = 0

    def tasks(self, entries: Iterable[Item | Result | None]) -> Iterator[Task | None]:
        """Yield tasks for a pool, and None where it is to go on with those that it has."""
        for entry in entries:
            if entry is None:
                yield None
                continue
            if isinstance(entry, Result):
                self.ready.append(entry)
            elif entry.refusal is not None:
                self.ready.append(Result(entry.bare(), "failed", entry.refusal))
            else:
                size = len(entry.data or b"")
                while self._held and self._held + size > HELD:
                    yield None
                yield self._task(entry, size)
            while len(self.ready) >= READY:
                yield None

    def _task(self, item: Item, size: int) -> Task:
        self._token += 1
        self._items[self._token], self._sizes[self._token] = item.bare(), size
        self._held += size
        return Task(
            item.name, self._token, item.size, item.mtime_ns,
            force=True, ctime_ns=item.ctime_ns, data=item.data,
        )  # fmt: skip

    def item(self, outcome: Outcome) -> Item:
        """Return the item that an outcome is of, and let go of it."""
        token = outcome.task.root_id
        self._held -= self._sizes.pop(token)
        return self._items.pop(token)


def result_of(item: Item, outcome: Outcome, vector: np.ndarray | None, why: str | None) -> Result:
    """Say what became of an item that was decoded, and of its embedding, if that was tried."""
    if outcome.outcome == "gone":
        return Result(item, "gone")
    if vector is None or why is not None:
        return Result(item, "failed", why or outcome.reason or "broken")
    return Result(
        item, "embedded", None, outcome.hash or b"", outcome.bytes, outcome.facts, vector,
        outcome.size, outcome.mtime_ns, outcome.ctime_ns,
    )  # fmt: skip


@dataclass(slots=True)
class Here:
    """Embeds what orders name. ``load_encoder`` is called for each batch; the caller caches it."""

    preprocess: Preprocess
    dim: int
    load_encoder: Callable[[], IndexingEncoder]
    limits: Limits
    workers: int
    batch_size: int | None  # None: as many as the encoder takes in one pass
    stop: threading.Event
    _pictures: list[tuple[Item, Outcome]] = field(default_factory=list)
    _is_first: bool = True

    def results(self, orders: Iterable[Order | None]) -> Iterator[Result | None]:
        """Yield what became of each item, in any order; None now and then.

        Once ``stop`` is set, yield what has been decoded, and end.
        """
        decoding = Decoding(self.limits)
        size = self.batch_size or 32
        with Pool(self.preprocess, self.limits, workers=self.workers, batch_size=size) as pool:
            for outcome in pool.outcomes(decoding.tasks(contents(orders, self.limits))):
                if outcome is None:
                    yield None
                elif outcome.slot is None:
                    yield result_of(decoding.item(outcome), outcome, None, None)
                else:
                    self._pictures.append((decoding.item(outcome), outcome))
                while decoding.ready:
                    yield decoding.ready.popleft()
                if len(self._pictures) >= size:
                    yield from self._encoded(pool)
                    if self.batch_size is None:
                        size = batch_of(self.load_encoder())
                        pool.widen(size)
                if self.stop.is_set():
                    break
            yield from self._encoded(pool)
            yield from decoding.ready

    def _encoded(self, pool: Pool) -> Iterator[Result]:
        if not self._pictures:
            return
        pictures, self._pictures = self._pictures, []
        slots = np.array([outcome.slot for _, outcome in pictures], np.int64)
        pixels = pool.pixels[slots]
        for slot in slots:
            pool.release(int(slot))
        vectors, reasons = encoded(self.load_encoder(), pixels, self.dim, is_first=self._is_first)
        self._is_first = False
        for (item, outcome), vector, why in zip(pictures, vectors, reasons, strict=True):
            yield result_of(item, outcome, vector, why)
