"""Answers and thumbnails in the background, for a screen that never waits."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import fovea
from fovea.search.library.library import Library as Store
from fovea.search.query.hits import Answer

from .thumbnails import Thumbnails, digests

if TYPE_CHECKING:
    from PIL.Image import Image

    from fovea.search.query.hits import Hit

__all__ = ["Found", "Source"]

T = TypeVar("T")

THREADS = 4  # that read and wait for thumbnails
KEPT = 256  # thumbnails in memory, of about 200 kB each


@dataclass(frozen=True, slots=True)
class Found:
    """An answer, with the SHA-256 of each hit's content; those removed meanwhile have none."""

    answer: Answer
    digests: dict[int, bytes]  # by image id


class Source:
    """A library that is asked from an event loop. Use it as a context manager.

    All questions are answered in one thread, to which the library belongs.
    """

    def __init__(self, folder: Path, *, device: str = "auto", dtype: str = "auto") -> None:
        self._folder, self._device, self._dtype = folder, device, dtype
        self._asking = ThreadPoolExecutor(1, "fovea-answers")
        self._showing = ThreadPoolExecutor(THREADS, "fovea-thumbnails")
        self._opened = ExitStack()
        self._library: fovea.Library | None = None
        self._kept: OrderedDict[tuple[bytes, float | None], Image] = OrderedDict()

    def __enter__(self) -> "Source":
        self._asking.submit(self._open).result()
        return self

    def __exit__(self, *error: object) -> None:
        self._showing.shutdown(wait=False, cancel_futures=True)
        self._asking.submit(self._opened.close).result()
        self._asking.shutdown(cancel_futures=True)
        self._showing.shutdown()

    def _open(self) -> None:
        opened = fovea.Library.open(self._folder, device=self._device, dtype=self._dtype)
        self._library = self._opened.enter_context(opened)
        self._store = self._opened.enter_context(Store.open(self._folder))
        self._thumbnails = Thumbnails(self._store)
        self._opened.callback(self._thumbnails.close)

    async def search(self, query: str, k: int) -> Found:
        """Return the first ``k`` hits. Raise as ``fovea.Library.search`` does."""
        return await _in(self._asking, partial(self._search, query, k))

    def _search(self, query: str, k: int) -> Found:
        assert self._library is not None  # opened by ``__enter__``
        answer = self._library.search(query, k=k)
        return Found(answer, digests(self._store, [hit.image_id for hit in answer.hits]))

    def remembered(self, digest: bytes, hit: "Hit") -> "Image | None":
        """Return a hit's thumbnail if it is at hand."""
        key = digest, hit.time
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    async def thumbnail(self, digest: bytes, hit: "Hit") -> "Image":
        """Return a hit's thumbnail. Raise ``FoveaError`` with the reason if there is none."""
        image = await _in(self._showing, partial(self._thumbnails.get, digest, hit.paths, hit.time))
        self._kept[digest, hit.time] = image
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return image

    async def open(self, hit: "Hit") -> list[str]:
        """Open a hit's file in the system's viewer; return what went wrong.

        Raise ``FoveaError`` without a desktop, and if the file is not there.
        """
        from .viewer import file_at_hand, open_files

        return await asyncio.to_thread(lambda: open_files([file_at_hand(hit.paths)]))


async def _in(pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, call)
