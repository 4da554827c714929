"""Gather a training set from a library: its pictures, and the words that go with them."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.workers.host import available_cores
from fovea.indexer.workers.pool import Outcome, Pool, Task
from fovea.search.clip.datasets.captions import read_captions
from fovea.search.clip.datasets.stored_array import StoredArray
from fovea.search.clip.finetuning.features import FeaturePart, FeatureStore, LowerHalf
from fovea.search.clip.finetuning.finetune import TuningExample, TuningSet
from fovea.search.clip.preprocess import Preprocess
from fovea.search.errors import FoveaError
from fovea.search.library.library import Library

from .filename_captions import name_captions
from .near_duplicates import groups, thumbnail

log = logging.getLogger(__name__)

SOURCES = ("names", "keywords")
PART = 128  # pictures of one part of the features
LEAST_LEARNED, LEAST_HELD_OUT = 10, 5  # pictures with captions
GENERAL = 500  # pictures without captions that measure what a model has forgotten,
REHEARSED = 500  # and, at most, those that keep it from forgetting
COMMON = 0.5  # a caption of a larger share of the pictures distinguishes too few
SHOWN = 32  # pixels a side, where pictures are only read for their words


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which words and pictures of a library to learn from.

    ``captions`` is a file of them; ``words`` those of ``SOURCES`` that count: the names of files
    and folders, and what is written into pictures and beside them. Of more than ``limit`` pictures,
    as many are taken. ``held_out`` is the share, by content, that is not learned from.
    """

    captions: Path | None = None
    words: tuple[str, ...] = SOURCES
    limit: int = 10_000
    held_out: float = 0.2
    views: int = 4


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture of the library: its content's SHA-256, a file, and the words known so far.

    A ``general`` one is wanted even without words.
    """

    content: bytes
    path: bytes
    captions: tuple[str, ...]
    general: bool = False


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was found: ``left_out`` counts pictures that cannot be read, by reason."""

    material: TuningSet
    pictures: int
    captions: int
    left_out: Mapping[str, int]


def candidates(library: Library, wanted: Wanted) -> list[Candidate]:
    """Return the pictures that may have words, at most ``wanted.limit``, and some without.

    They are in the order of their ids. Raise ``FoveaError`` for captions that cannot be read, or
    that all belong to other pictures.
    """
    rows = library.rows(
        "SELECT images.hash, files.path, roots.path FROM files "
        "JOIN images ON images.id = files.image_id JOIN roots ON roots.id = files.root_id "
        "WHERE files.state = 'indexed' AND roots.state = 'online' AND duration_ms IS NULL "
        "ORDER BY images.id, files.path"
    )
    if not rows:
        raise FoveaError(f"nothing is indexed in {library.folder} yet; index a folder first")
    given = _given(wanted.captions, rows) if wanted.captions is not None else {}
    found: dict[bytes, Candidate] = {}
    for content, path, root in rows:
        words = given.get(path, ())
        if "names" in wanted.words:
            words += name_captions(path, root)
        before = found.get(content)
        words = (before.captions if before else ()) + words
        found[content] = Candidate(content, before.path if before else path, _once(words))
    return list(_chosen(found, wanted))


def _chosen(found: Mapping[bytes, Candidate], wanted: Wanted) -> Iterator[Candidate]:
    """Yield the pictures to read; their contents decide, so that they are the same every time."""
    plain = [content for content, entry in found.items() if not entry.captions]
    general = set(sorted(plain, reverse=True)[: GENERAL + REHEARSED])
    worded = found.keys() - set(plain)
    likely = sorted(worded) + (sorted(plain) if "keywords" in wanted.words else [])
    chosen = general | set(likely[: wanted.limit])
    for content, entry in found.items():
        if content in chosen:
            yield replace(entry, general=content in general)


def _given(
    captions: Path, rows: Sequence[tuple[bytes, bytes, bytes]]
) -> dict[bytes, tuple[str, ...]]:
    """Read a file of captions, by the files of the library that its lines name."""
    places: dict[str, set[bytes]] = {}
    for _, path, root in rows:
        inner = os.path.relpath(path, root)
        for name in {path, inner, os.path.basename(path)}:
            places.setdefault(os.fsdecode(name), set()).add(path)
    given: dict[bytes, tuple[str, ...]] = {}
    lines = lost = empty = 0
    for file, texts in read_captions(captions):
        lines += 1
        found = places.get(file.removeprefix("./"), set())
        if len(found) > 1:
            raise FoveaError(
                f"{captions} names {file}, which the library has {len(found)} times; "
                "name it by its full path"
            )
        words = tuple(filter(None, texts))
        empty += not words
        lost += not found
        for path in found:
            given[path] = given.get(path, ()) + words
    for count, reason in ((lost, "their pictures are not in the library"), (empty, "no words")):
        if 0 < count < lines:
            log.warning("left out %d of %d lines of %s: %s", count, lines, captions, reason)
    if not any(given.values()):
        raise FoveaError(
            f"{captions} has no captions for pictures in the library; name files by their path, "
            "or by their name alone if that is unique"
        )
    return given


def gather(
    library: Library,
    wanted: Wanted,
    lower: LowerHalf,
    store: FeatureStore,
    labels: Sequence[str],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Gathered:
    """Read the pictures, keep their features in ``store``, and split off the held-out ones.

    Pictures that cannot be read are counted. What ``store`` has already is not read again. Raise
    ``FoveaError`` if too few pictures have words.
    """
    listed = candidates(library, wanted)
    reader = _Reader(wanted, lower, store, workers or available_cores())
    pictures = list(reader.pictures(listed, progress))
    store.drop_others()
    material = _parted(_without_common(pictures), wanted.held_out, labels)
    texts = {text for entry in (*material.learned, *material.held_out) for text in entry.captions}
    count = len(material.learned) + len(material.held_out)
    return Gathered(material, count, len(texts), reader.left_out)


def listed_captions(
    library: Library, wanted: Wanted, *, workers: int | None = None
) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Yield each picture that has words, by its file, with its captions; nothing is kept."""
    listed = candidates(library, wanted)
    if "keywords" not in wanted.words:
        yield from ((entry.path, entry.captions) for entry in listed if entry.captions)
        return
    tasks = (Task(entry.path, 0) for entry in listed)
    known = {entry.path: entry.captions for entry in listed}
    count = workers or available_cores()
    with Pool(Preprocess(SHOWN), Limits(), workers=count, batch_size=8, words=True) as pool:
        for outcome in pool.outcomes(tasks):
            if outcome is None:
                continue
            if outcome.slot is not None:
                pool.release(outcome.slot)
            captions = _once((*known[outcome.task.path], *outcome.captions))
            if captions:
                yield outcome.task.path, captions


@dataclass(frozen=True, slots=True)
class _Picture:
    content: bytes
    captions: tuple[str, ...]
    thumbnail: bytes  # 192 of them
    features: np.ndarray | StoredArray  # float16 (views, …)


class _Reader:
    """Turns candidates into pictures with features, a part at a time, in their order.

    ``left_out`` counts, by reason, those that cannot be read.
    """

    def __init__(self, wanted: Wanted, lower: LowerHalf, store: FeatureStore, workers: int) -> None:
        self.wanted, self.lower, self.store, self.workers = wanted, lower, store, workers
        self.left_out: Counter[str] = Counter()

    def pictures(
        self, listed: Sequence[Candidate], progress: Callable[[int, int], None] | None
    ) -> Iterator[_Picture]:
        """Yield the pictures that are wanted and can be read."""
        parts = [listed[start : start + PART] for start in range(0, len(listed), PART)]
        missing = [part for part in parts if self.store.get(_keys(part)) is None]
        with closing(self._computed(missing)) as fresh:
            for number, part in enumerate(parts):
                kept = self.store.get(_keys(part)) or next(fresh)
                if progress is not None:
                    progress(min((number + 1) * PART, len(listed)), len(listed))
                self.left_out.update(kept.notes["left_out"])
                yield from _read(part, kept)

    def _computed(self, parts: Sequence[Sequence[Candidate]]) -> Generator[FeaturePart, None, None]:
        """Read these parts' files and keep their features, one part after the other."""
        if not parts:
            return
        arrived: dict[bytes, tuple[Outcome, np.ndarray | None]] = {}
        tasks = (Task(entry.path, 0) for part in parts for entry in part)
        with Pool(
            Preprocess(self.lower.side),
            Limits(),
            workers=self.workers,
            batch_size=PART,
            words="keywords" in self.wanted.words,
        ) as pool:
            outcomes = pool.outcomes(tasks)
            for part in parts:
                left = {entry.path for entry in part} - arrived.keys()
                while left:
                    outcome = next(outcomes)
                    if outcome is None:
                        continue
                    path, pixels = outcome.task.path, None
                    if outcome.slot is not None:
                        pixels = pool.pixels[outcome.slot].copy()
                        pool.release(outcome.slot)
                    arrived[path] = outcome, pixels
                    left.discard(path)
                yield self._made(part, [arrived.pop(entry.path) for entry in part])

    def _made(
        self, part: Sequence[Candidate], found: Sequence[tuple[Outcome, np.ndarray | None]]
    ) -> FeaturePart:
        """Compute one part from its files."""
        left_out: Counter[str] = Counter()
        notes: list[dict[str, Any]] = []
        squares: list[np.ndarray] = []
        for entry, (outcome, pixels) in zip(part, found, strict=True):
            if pixels is None or outcome.hash != entry.content:
                reason = outcome.reason or (
                    "changed since it was indexed" if pixels is not None else "gone"
                )
                log.warning("left out %s: %s", os.fsdecode(entry.path), reason)
                left_out[reason.partition(":")[0]] += 1
            elif entry.captions or outcome.captions or entry.general:
                written = list(outcome.captions)
                small = thumbnail(pixels).tobytes().hex()
                note = {"content": entry.content.hex(), "written": written, "thumbnail": small}
                notes.append(note)
                squares.append(pixels)
        contents = [bytes.fromhex(note["content"]) for note in notes]
        features = (
            self.lower.features(squares, contents, self.wanted.views)
            if squares
            else np.empty((0, self.wanted.views))
        )
        return self.store.put(_keys(part), {"left_out": left_out, "pictures": notes}, features)


def _keys(part: Sequence[Candidate]) -> list[bytes]:
    """Return what a part's features depend on: the contents, and which are always wanted."""
    return [entry.content + (b"+" if entry.captions or entry.general else b"-") for entry in part]


def _read(part: Sequence[Candidate], kept: FeaturePart) -> Iterator[_Picture]:
    known = {entry.content: entry.captions for entry in part}
    for note, features in zip(kept.notes["pictures"], kept.features, strict=True):
        content = bytes.fromhex(note["content"])
        captions = _once((*known[content], *note["written"]))
        yield _Picture(content, captions, bytes.fromhex(note["thumbnail"]), features)


def _without_common(pictures: Sequence[_Picture]) -> list[_Picture]:
    """Remove captions that too many pictures share to tell them apart."""
    counts = Counter(text for picture in pictures for text in picture.captions)
    worded = sum(bool(picture.captions) for picture in pictures)
    most = max(LEAST_LEARNED, COMMON * worded)
    return [
        replace(picture, captions=tuple(text for text in picture.captions if counts[text] <= most))
        for picture in pictures
    ]


def _parted(pictures: Sequence[_Picture], share: float, labels: Sequence[str]) -> TuningSet:
    """Hold out a share of the pictures, a picture with all of its copies.

    The content of the copy that was indexed first decides, so that a picture is held out in every
    run or in none, whatever else comes into the library.
    """
    thumbnails = np.frombuffer(b"".join(picture.thumbnail for picture in pictures), np.uint8)
    leaders = groups(thumbnails.reshape(len(pictures), -1)) if pictures else np.empty(0, np.int64)
    learned: list[TuningExample] = []
    held_out: list[TuningExample] = []
    general: list[TuningExample] = []
    rehearsed: list[TuningExample] = []
    for picture, leader in zip(pictures, leaders, strict=True):
        example = TuningExample(picture.content, picture.captions, picture.features)
        is_held_out = int.from_bytes(pictures[leader].content[:8]) < share * 2**64
        if not picture.captions:
            is_measured = pictures[leader].content[8] % 2
            (general if is_measured else rehearsed).append(example)
        elif is_held_out:
            held_out.append(example)
        else:
            learned.append(example)
    if len(learned) < LEAST_LEARNED or len(held_out) < LEAST_HELD_OUT:
        raise FoveaError(
            f"too few pictures with captions: {len(learned)} to learn from and {len(held_out)} to "
            f"measure with; at least {LEAST_LEARNED} and {LEAST_HELD_OUT} are needed, and hundreds "
            "are better. Give a file of captions with --captions, or see what is found with --list"
        )
    general = [*held_out, *general[:GENERAL]]
    return TuningSet(learned, held_out, general, labels, rehearsed[:REHEARSED])


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text.strip()))
