"""Read ahead of a consumer: iterate in another thread, a bounded way ahead."""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

CHUNK = 256  # items handed over at a time


class Prefetch(Generic[T]):
    """Iterate over ``source`` in another thread, and yield its items here, or None for "not yet".

    At most ``limit`` items wait. What ``source`` raises is raised here. Leaving the block sets
    ``halt`` and waits for the thread: it ends at its next item, so a ``source`` that goes long
    without one should check ``halt`` itself.
    """

    def __init__(self, source: Iterator[T], limit: int, halt: threading.Event) -> None:
        self._source = source
        self._waiting: queue.Queue[list[T]] = queue.Queue(max(1, limit // CHUNK))
        self._halt = halt
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._iterate, name="fovea-prefetch", daemon=True)

    def __enter__(self) -> "Prefetch[T]":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._halt.set()
        self._thread.join()

    @property
    def is_active(self) -> bool:
        """Whether more items may come."""
        return self._thread.is_alive()

    def __iter__(self) -> Iterator[T | None]:
        while True:
            finished = not self._thread.is_alive()  # before looking: it may put and then end
            try:
                chunk = self._waiting.get(timeout=0 if finished else 0.002)
            except queue.Empty:
                if finished:
                    break
                yield None
            else:
                yield from chunk
        if self._error is not None:
            raise self._error

    def _iterate(self) -> None:
        chunk: list[T] = []
        try:
            for item in self._source:
                chunk.append(item)
                # The first items at once, so that work starts; the rest by the chunk.
                if len(chunk) >= CHUNK or self._waiting.empty():
                    self._put(chunk)
                    chunk = []
                if self._halt.is_set():
                    return
        except BaseException as exc:  # whatever it is, the consumer must see it
            self._error = exc
        if chunk:
            self._put(chunk)

    def _put(self, chunk: list[T]) -> None:
        while not self._halt.is_set():
            try:
                self._waiting.put(chunk, timeout=0.1)
                return
            except queue.Full:
                continue
