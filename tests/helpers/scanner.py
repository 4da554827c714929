"""What the tests of one subject share."""

import os
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from fovea.indexer.scanning.scan import index_folders
from fovea.indexer.workers.pool import LARGEST_BATCH, outcome_of
from fovea.indexer.workers.worker import Worker
from fovea.search.clip.preprocess import Preprocess
from toys import ColourEncoder

COUNTS = ("found", "embedded", "unchanged", "moved", "deleted", "failed", "skipped")


class Scanner:
    """Index into one library with a toy encoder, and remember what it was asked."""

    def __init__(self, library):
        self.library, self.encoder, self.loads = library, ColourEncoder(), 0
        self.model = self.another("c0" * 32)

    def another(self, identity):
        return SimpleNamespace(
            name="colour",
            identity=identity,
            dim=3,
            preprocess=Preprocess(8),
            source="test",
            folder=Path("no"),
        )

    def load(self):
        self.loads += 1
        return self.encoder

    def __call__(self, *folders, **options):
        options = {"model": self.model, "workers": 1} | options
        return index_folders(self.library, folders, load_encoder=self.load, **options)

    def files(self):
        """Path's last part -> (state, reason)."""
        return {
            os.path.basename(path): (state, reason)
            for path, state, reason in self.library.rows("SELECT path, state, reason FROM files")
        }

    def image_of(self, path):
        [(image_id,)] = self.library.rows(
            "SELECT image_id FROM files WHERE path = ?", (os.fsencode(path),)
        )
        return image_id


class OneProcess:
    """What a pool does, without its processes."""

    def __init__(self, preprocess, limits, *, workers, batch_size, known=()):
        size = preprocess.size
        self.pixels = np.empty((2 * LARGEST_BATCH, size, size, 3), np.uint8)
        self._free, self._again = list(range(2 * LARGEST_BATCH)), deque()
        prefixes = np.frombuffer(b"".join(digest[:8] for digest in known), "<u8")
        self._worker = Worker(preprocess, limits, self.pixels, np.sort(prefixes))
        self.release, self.retry = self._free.append, self._again.append

    @property
    def in_hand(self):
        return []

    def widen(self, batch_size):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    @property
    def retrying(self):
        return bool(self._again)

    def outcomes(self, tasks):
        while self._again:
            yield self._outcome(self._again.popleft())
        yield from (self._outcome(task) for task in tasks if task is not None)

    def _outcome(self, task):
        slot = self._free.pop()
        answer, _ = self._worker.answer({"slot": slot, "force": task.force}, task.path)
        outcome = outcome_of(task, slot, answer)
        if outcome.slot is None:
            self.release(slot)
        return outcome


def counts(report):
    """What is not zero in a report; every file found must be accounted for once."""
    parts = (report.embedded, report.unchanged, report.moved, report.failed, report.skipped)
    assert report.found == sum(parts) or report.stopped, report
    return {name: getattr(report, name) for name in COUNTS if getattr(report, name)}


def many(folder, number, start=0):
    """Write distinct pictures, small ones."""
    folder.mkdir(exist_ok=True)
    for place in range(start, start + number):
        Image.new("RGB", (4, 4), (place, 255 - place, 9)).save(folder / f"{place:03d}.png")


def snapshot(folder):
    """Everything about a folder that a scan must not change."""
    return {
        path: (
            os.lstat(path).st_mtime_ns,
            os.lstat(path).st_mode,
            path.is_file() and path.read_bytes(),
        )
        for path in [folder, *folder.rglob("*")]
    }
