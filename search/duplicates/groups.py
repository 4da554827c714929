"""Group the pictures of a library that are one picture, and bursts: what ``fovea duplicates`` says.

Pairs are proposed by likeness (``candidates.py``) and compared (``comparing.py``).
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal

import numpy as np

from fovea.search.library.facts.signatures import KIND
from fovea.search.library.library import PAGE, Library

from .best import Facts, lacking, rank
from .candidates import near_hashes, near_vectors, unlike_bits
from .comparing import Comparer, Copies, stars
from .signature import VERSION, unsigned

__all__ = ["Duplicate", "DuplicateGroup", "Duplicates", "Kind", "find_duplicates"]

Kind = Literal["copies", "burst"]

UNLIKE = 26  # bits of 63 in which the hashes of a pair that is compared may differ
BUDGET = 6  # pairs that are compared for each picture, on average at most
BURST_S = 3.0  # seconds between two moments of a burst
BURST_COSINE = 0.75  # the least of two moments that follow each other
SECONDS = len("2024-07-01T12:00:00")
SHOT = ("DateTimeOriginal", "CreateDate", "DateTimeDigitized")  # tags that an editor leaves alone


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One file of a group. ``os.fsencode`` turns the path back into its exact bytes."""

    image_id: int
    path: str
    offline: bool
    width: int | None
    height: int | None
    format: str | None
    bytes: int
    taken_at: str | None
    sharpness: float | None  # of the picture at 256 pixels; None where it was not measured
    lacks: tuple[str, ...] = ()  # beside the best: keys of ``best.LACKS``
    modified: int | None = None  # the file, when it was indexed; seconds since 1970


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Files that show one picture, or one burst, and the best of them."""

    kind: Kind
    best: Duplicate
    others: tuple[Duplicate, ...]

    @property
    def spare(self) -> int:
        """The bytes of all but the best."""
        return sum(one.bytes for one in self.others)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The groups of a library, those that take most room first."""

    groups: tuple[DuplicateGroup, ...]
    pictures: int  # that were looked at
    waiting: int  # that have no signature yet, so only their equals were found; without videos


@dataclass(frozen=True, slots=True)
class _Picture:
    image_id: int
    hash: int | None
    sharpness: float | None
    width: int | None
    height: int | None
    format: str | None
    bytes: int
    taken_at: str | None
    dated_by: str | None
    camera: str | None
    latitude: float | None
    damaged: str | None
    is_video: int  # then it gets no signature

    @property
    def facts(self) -> Facts:
        return Facts(
            (self.width or 0) * (self.height or 0),
            self.format or "",
            self.bytes,
            self.sharpness or 0.0,
            self.taken_at is not None,
            self.camera is not None,
            self.latitude is not None,
            self.damaged is not None,
        )

    @property
    def moment(self) -> datetime | None:
        """When it was taken, to the second, as a camera has noted it."""
        if self.camera is None or self.taken_at is None or len(self.taken_at) < SECONDS:
            return None
        if self.dated_by is not None and not any(tag in self.dated_by for tag in SHOT):
            return None
        try:
            return datetime.fromisoformat(self.taken_at).replace(tzinfo=None)
        except ValueError:
            return None


def find_duplicates(
    library: Library,
    *,
    bursts: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Duplicates:
    """Group the searchable pictures that are not hidden; with ``bursts``, these as well.

    ``progress`` is called with the number of pairs compared, and of all that are to be.
    """
    with library.reading():
        pictures = _pictures(library)
        vectors = _vectors(library, [one.image_id for one in pictures])
        signed = [row for row, one in enumerate(pictures) if one.hash is not None]
        waiting = sum(one.hash is None and not one.is_video for one in pictures)
        ids = [one.image_id for one in pictures]
        comparer = Comparer(library, ids, partial(_are_apart, pictures), progress)

        def best_first(rows: list[int]) -> list[int]:
            return sorted(rows, key=lambda row: rank(pictures[row].facts), reverse=True)

        drawn = stars(comparer, _proposed(pictures, vectors, signed), best_first)
        spare = {row for _, others in drawn for row in others}
        groups = [_group(pictures, best, others, comparer.found) for best, others in drawn]
        scenes = _bursts(pictures, vectors, spare) if bursts else []
        made = _with_files(library, pictures, groups, scenes)
    return Duplicates(made, len(pictures), waiting)


def _pictures(library: Library) -> list[_Picture]:
    rows = library.rows(
        "SELECT shown.image_id, signatures.hash, sharpness, width, height, format, bytes, "
        "taken_at, dated_by, camera, latitude, damaged, duration_ms IS NOT NULL "
        "FROM shown JOIN images ON images.id = shown.image_id "
        "LEFT JOIN analyses ON analyses.image_id = images.id AND kind = ? AND version = ? "
        "LEFT JOIN signatures ON signatures.image_id = analyses.image_id "
        "WHERE shown.image_id NOT IN (SELECT image_id FROM hidden) ORDER BY shown.image_id",
        [KIND, VERSION],
    )
    return [_Picture(*row) for row in rows]


def _vectors(library: Library, image_ids: list[int]) -> np.ndarray:
    """Return the embeddings by the library's model, float16 (n, d); zeros where there is none."""
    model = library.model()
    if model is None:
        return np.zeros((len(image_ids), 1), np.float16)
    vectors = np.zeros((len(image_ids), model.dim), np.float16)
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    for start in range(0, len(image_ids), PAGE):
        some = image_ids[start : start + PAGE]
        for image_id, vector in library.rows(
            "SELECT image_id, vector FROM embeddings WHERE model_id = ? "
            "AND image_id IN (SELECT value FROM json_each(?))",
            [model.id, json.dumps(some)],
        ):
            vectors[row_of[image_id]] = np.frombuffer(vector, "<f2")
    return vectors


def _proposed(pictures: list[_Picture], vectors: np.ndarray, signed: list[int]) -> np.ndarray:
    """Return the pairs to compare, int64 (m, 2), each once; the lesser row first.

    There are at most ``BUDGET`` for each picture, those with the most similar hashes.
    """
    rows = np.array(signed, np.int64)
    prints = unsigned(np.array([pictures[row].hash for row in signed], np.int64))
    found = [np.empty(0, np.int64)]
    for some in near_vectors(vectors[rows]):
        near = unlike_bits(prints[some[:, 0]], prints[some[:, 1]]) <= UNLIKE
        found.append(some[near, 0] * len(rows) + some[near, 1])
    for some in near_hashes(prints):
        found.append(some[:, 0] * len(rows) + some[:, 1])
    one, two = np.divmod(np.unique(np.concatenate(found)), max(len(rows), 1))
    # Two exposures of one camera are no copies of each other: the same as ``_are_apart``.
    times = np.array([_seconds(pictures[row].moment) for row in signed], np.int64)
    names = {name: number for number, name in enumerate({one.camera for one in pictures})}
    cameras = np.array([names[pictures[row].camera] for row in signed], np.int64)
    kept = (times[one] < 0) | (times[two] < 0) | (times[one] == times[two])
    kept |= cameras[one] != cameras[two]
    one, two = one[kept], two[kept]
    most = BUDGET * len(rows)
    if len(one) > most:
        nearest = np.argsort(unlike_bits(prints[one], prints[two]), kind="stable")[:most]
        one, two = one[np.sort(nearest)], two[np.sort(nearest)]
    return np.stack([rows[one], rows[two]], axis=1)


def _are_apart(pictures: list[_Picture], one: int, two: int) -> bool:
    """Whether two rows are exposures of one camera at different seconds."""
    a, b = pictures[one], pictures[two]
    if a.camera is None or a.camera != b.camera or a.taken_at == b.taken_at:
        return False
    return a.moment is not None and b.moment is not None and a.moment != b.moment


def _seconds(moment: datetime | None) -> int:
    """Return a moment in seconds since the year 1, -1 for none."""
    return -1 if moment is None else int((moment - datetime.min).total_seconds())


Drawn = tuple[Kind, int, list[tuple[int, tuple[str, ...]]]]  # kind, best, (row, lacks) of others


def _group(pictures: list[_Picture], best: int, others: list[int], found: Copies) -> Drawn:
    facts = pictures[best].facts
    marks = {row: found[min(best, row), max(best, row)] for row in others}
    return (
        "copies",
        best,
        [(row, lacking(pictures[row].facts, facts, *marks[row])) for row in others],
    )


def _bursts(pictures: list[_Picture], vectors: np.ndarray, spare: set[int]) -> list[Drawn]:
    """Group what one camera took within seconds, and looks alike; copies do not count."""
    shots = [
        (str(one.camera), moment, row)
        for row, one in enumerate(pictures)
        if row not in spare and (moment := one.moment) is not None
    ]
    runs: list[list[int]] = []
    last: tuple[str, datetime, int] | None = None
    for shot in sorted(shots):
        camera, moment, row = shot
        if (
            last is not None
            and last[0] == camera
            and (moment - last[1]).total_seconds() <= BURST_S
            and _cosine(vectors[last[2]], vectors[row]) >= BURST_COSINE
        ):
            runs[-1].append(row)
        else:
            runs.append([row])
        last = shot
    made: list[Drawn] = []
    for rows in runs:
        if len(rows) > 1:
            best = max(rows, key=lambda row: rank(pictures[row].facts, is_burst=True))
            facts = pictures[best].facts
            rest = [(row, lacking(pictures[row].facts, facts)) for row in rows if row != best]
            made.append(("burst", best, rest))
    return made


def _cosine(one: np.ndarray, two: np.ndarray) -> float:
    return float(one.astype(np.float32) @ two.astype(np.float32))


def _with_files(
    library: Library, pictures: list[_Picture], groups: list[Drawn], bursts: list[Drawn]
) -> tuple[DuplicateGroup, ...]:
    """Return the groups with their files; files with the same content are copies as well."""
    row_of = {one.image_id: row for row, one in enumerate(pictures)}
    among = {row for _, best, others in groups for row in (best, *(one for one, _ in others))}
    groups = list(groups)
    for (image_id,) in library.rows(
        "SELECT image_id FROM files INDEXED BY files_shown WHERE state = 'indexed' "
        "GROUP BY image_id HAVING count(*) > 1"
    ):
        row = row_of.get(image_id)
        if row is not None and row not in among:
            groups.append(("copies", row, []))
    rows = {row for _, best, others in groups for row in (best, *(one for one, _ in others))}
    rows |= {row for _, best, others in bursts for row in (best, *(one for one, _ in others))}
    files = _files(library, [pictures[row].image_id for row in sorted(rows)])
    made = []
    for kind, best, others in [*groups, *bursts]:
        entries: list[Duplicate] = []
        for row, lacks in [(best, ()), *others]:
            found = files.get(pictures[row].image_id, [])
            # The equal files of a burst are in a group of copies.
            for at, file in enumerate(found if kind == "copies" else found[:1]):
                same = ("nothing",) if row == best and at else lacks
                entries.append(_entry(pictures[row], file, same))
        if len(entries) > 1:
            made.append(DuplicateGroup(kind, entries[0], tuple(entries[1:])))
    made.sort(key=lambda group: (group.kind != "copies", -group.spare, group.best.path))
    return tuple(made)


_File = tuple[str, bool, int]  # path, whether it is offline, seconds since 1970


def _files(library: Library, image_ids: list[int]) -> dict[int, list[_File]]:
    """Return the files of images.

    Those online come first, then the oldest, then the shortest: copies in the same folder are
    called "a (1).jpg" or "copy of a.jpg".
    """
    found: dict[int, list[_File]] = {}
    offline = json.dumps(library.offline())
    for start in range(0, len(image_ids), PAGE):
        for image_id, path, is_offline, mtime_ns in library.rows(
            "SELECT image_id, path, root_id IN (SELECT value FROM json_each(?)) AS offline, "
            "mtime_ns "
            "FROM files WHERE state = 'indexed' AND image_id IN (SELECT value FROM json_each(?)) "
            "ORDER BY image_id, offline, mtime_ns, length(path), path",
            [offline, json.dumps(image_ids[start : start + PAGE])],
        ):
            file = (os.fsdecode(path), bool(is_offline), mtime_ns // 1_000_000_000)
            found.setdefault(image_id, []).append(file)
    return found


def _entry(picture: _Picture, file: _File, lacks: tuple[str, ...]) -> Duplicate:
    path, is_offline, modified = file
    fields: dict[str, Any] = {
        name: getattr(picture, name)
        for name in ("image_id", "width", "height", "format", "bytes", "taken_at", "sharpness")
    }
    return Duplicate(path=path, offline=is_offline, lacks=lacks, modified=modified, **fields)
