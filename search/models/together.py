"""Embed what waits in one pass: eight texts at once take half as long as one after the other."""

import os
import threading
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["Together"]

MOST = 16  # texts of one pass; a long pass delays the first of them

Encode = Callable[[Sequence[str]], np.ndarray]  # n texts -> float32 (n, d)


class _Wanted:
    """Texts that a thread waits for."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.rows: np.ndarray | None = None  # (n, d)
        self.error: BaseException | None = None
        self.leads = False  # the thread is to make the next pass
        self.woken = threading.Event()  # once there are rows or an error, or the thread leads

    @property
    def is_done(self) -> bool:
        return self.rows is not None or self.error is not None


class Together:
    """Collects the texts of several threads, at most ``passes`` of which embed at a time.

    No thread waits for others to come: the first one embeds its texts at once, and who comes
    meanwhile is in the next pass, which one of them makes.
    """

    def __init__(self, encode: Encode, passes: int | None = None) -> None:
        """``passes`` is by default half the cores, at least one: the other half ranks."""
        self._encode = encode
        self._free = passes or max(1, _cores() // 2)
        self._waiting: list[_Wanted] = []
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return the embeddings (n, d) of texts; raise what embedding these alone raises.

        More than ``MOST`` are embedded in several passes, between which others have their turn.
        """
        parts = [self._part(texts[at : at + MOST]) for at in range(0, len(texts), MOST)]
        return np.concatenate(parts)

    def _part(self, texts: Sequence[str]) -> np.ndarray:
        mine = _Wanted(texts)
        with self._lock:
            mine.leads = self._free > 0
            if mine.leads:
                self._free -= 1
            else:
                self._waiting.append(mine)
        if not mine.leads:
            self._wait(mine)
        if mine.leads:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error
        assert mine.rows is not None
        return mine.rows

    def _wait(self, mine: _Wanted) -> None:
        """Wait until ``mine`` has been embedded, or is to lead."""
        try:
            mine.woken.wait()
        except BaseException as exc:  # the main thread was interrupted
            with self._lock:
                mine.error = exc
                if mine in self._waiting:
                    self._waiting.remove(mine)
                elif mine.leads:
                    self._hand_over()
            raise

    def _lead(self, mine: _Wanted) -> None:
        """Make one pass with what waits, ``mine`` first, and let a waiting thread make the next."""
        with self._lock:
            batch, count = [mine], len(mine.texts)
            while self._waiting and count + len(self._waiting[0].texts) <= MOST:
                batch.append(self._waiting.pop(0))
                count += len(batch[-1].texts)
        try:
            self._embed(batch)
        finally:
            done = [one for one in batch[1:] if one.is_done]
            with self._lock:  # this thread may have been interrupted, and not be done
                self._waiting[:0] = [one for one in batch[1:] if one not in done]
                self._hand_over()
            for one in done:
                one.woken.set()

    def _hand_over(self) -> None:
        """Let the first that waits make a pass; nobody else takes it into theirs."""
        if self._waiting:
            first = self._waiting.pop(0)
            first.leads = True
            first.woken.set()
        else:
            self._free += 1

    def _embed(self, batch: Sequence[_Wanted]) -> None:
        """Embed the texts of a batch; those that cannot be embedded hinder no other thread's."""
        texts = list(dict.fromkeys(text for one in batch for text in one.texts))
        try:
            rows = dict(zip(texts, self._encode(texts), strict=True))
        except Exception as exc:  # whatever it is, raised where its text is waited for
            if len(batch) == 1:
                batch[0].error = exc
                return
            for one in batch:
                self._embed([one])
            return
        for one in batch:
            one.rows = np.stack([rows[text] for text in one.texts])


def _cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
