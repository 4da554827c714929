"""Lay the map of a library out, keep it beside the library, and place new pictures on it.

The landmarks are the pictures whose contents have the smallest SHA-256: a random sample that
depends on nothing but the pictures, and that more pictures change little. So the same pictures, by
the same model, have the same map in any library.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Event

import numpy as np

from fovea.search.errors import LibraryError
from fovea.search.index.stored_vectors import unit_vectors
from fovea.search.library.library import Library
from fovea.search.library.locks import briefly, exclusive
from fovea.search.library.marks import hidden_images
from fovea.search.library.rows import ModelRow
from fovea.search.query.likelihood import (
    Background,
    default_labels,
    label_shares,
    surroundings,
)

from .clusters import Cluster, grouped, named
from .layout import check_installed, laid_out, placed, spread
from .stored import PictureMap, file_mark, load, map_path, save, summed_up, sweep_maps

__all__ = [
    "LANDMARKS",
    "STEPS",
    "MapProgress",
    "build_map",
    "current_map",
    "forget_in_maps",
    "remove_maps",
    "stored_map",
]

LANDMARKS = 3000  # pictures that t-SNE lays out
PAGE = 4096  # embeddings read at a time
LOCK = "map"
WAIT_S = 5.0  # for a map that is being saved, before images are forgotten in it
STEPS = ("reading", "arranging", "placing", "naming")


@dataclass(frozen=True, slots=True)
class MapProgress:
    """How far a map is laid out."""

    step: str  # one of ``STEPS``, in their order
    done: int = 0  # pictures, of those that this step is about
    total: int = 0  # 0 where it is not known


Progress = Callable[[MapProgress], None]


def build_map(
    library: Library,
    *,
    background: Callable[[], Background | None] | None = None,
    progress: Progress | None = None,
    stop: Event | None = None,
    landmarks: int = LANDMARKS,
) -> PictureMap:
    """Lay the map out anew and keep it beside the library; return it without hidden pictures.

    ``background`` returns the labels that may name clusters where none are saved; without any,
    clusters have no names. ``stop`` ends it between two steps or pages: then, as after any
    interruption, what was kept before stays, and ``KeyboardInterrupt`` is raised. Raise
    ``LibraryError`` where nothing is indexed or scikit-learn is missing, ``LibraryBusy`` while
    another process lays it out.
    """
    check_installed()
    library.check_writable()
    model = library.model()
    if model is None:
        raise LibraryError("nothing is indexed yet; index a folder first")
    tell = _teller(progress, stop)
    with exclusive(library.folder, LOCK, 0.0, doing="is laying out the map of"):
        made = _made(library, model, background, tell, landmarks)
        made = _without_forgotten(made, _known_images(library))
        save(made, library.folder)
    return _visible(library, made)


def stored_map(library: Library) -> PictureMap | None:
    """Return the map as it is kept, for the model in use; None if there is none."""
    model = library.model()
    if model is None:
        return None
    return load(library.folder, model.identity, library.id, model.dim)


def current_map(library: Library) -> PictureMap | None:
    """Return the map with all searchable pictures but hidden ones; None if it was never laid out.

    New pictures are placed now, and kept if the library can be changed here and no other process
    is at work on the map; no other is moved.
    """
    model = library.model()
    if model is None:
        return None
    mark = file_mark(library.folder, model.identity)
    found = stored_map(library)
    if found is None:
        return None
    with library.reading():
        known = _embedded(library, model)
        is_there = np.isin(found.image_ids, known)
        new = np.setdiff1d(known, found.image_ids, assume_unique=True)
        found = found.only(is_there)
        if len(new):
            parts = list(_vectors_of(library, model, new))
            ids = np.concatenate([some for some, _ in parts])
            found = _with(found, ids, np.concatenate([rows for _, rows in parts]))
    if len(new) and library.is_writable:
        with briefly(library.folder, LOCK) as is_mine:
            # A map that was laid out meanwhile stays.
            if is_mine and file_mark(library.folder, model.identity) == mark:
                save(found, library.folder)
    return _visible(library, found)


def remove_maps(library: Library) -> bool:
    """Delete the maps of all models; return whether there was any.

    Raise ``LibraryReadOnly`` if the library cannot be changed here.
    """
    library.check_writable()
    sweep_maps(library.folder)
    found = list(library.folder.glob("map-*.npz"))
    for path in found:
        path.unlink(missing_ok=True)
    return bool(found)


def forget_in_maps(library: Library) -> None:
    """Leave no trace in any map of images that are no longer in the library; nothing is moved.

    A map that is being laid out leaves them out by itself.
    """
    known = _known_images(library)
    with briefly(library.folder, LOCK, WAIT_S):  # but whoever holds it, they are to be forgotten
        for model in library.models():
            found = load(library.folder, model.identity, library.id, model.dim)
            if found is None:
                continue
            left = _without_forgotten(found, known)
            if left is found:
                continue
            if not len(left.landmarks) or not save(left, library.folder):
                map_path(library.folder, model.identity).unlink(missing_ok=True)


def _known_images(library: Library) -> np.ndarray:
    """Return the ids of all images, int64."""
    rows = library.rows("SELECT id FROM images")
    return np.fromiter((number for (number,) in rows), np.int64, len(rows))


def _without_forgotten(found: PictureMap, known: np.ndarray) -> PictureMap:
    """Return a map of known images, int64 (n,), alone; the same one if it is."""
    marks, shown = np.isin(found.landmark_ids, known), np.isin(found.image_ids, known)
    if marks.all() and shown.all():
        return found
    return found.with_landmarks(marks).only(shown)


def _teller(progress: Progress | None, stop: Event | None) -> Progress:
    def tell(now: MapProgress) -> None:
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        if progress is not None:
            progress(now)

    return tell


def _made(
    library: Library,
    model: ModelRow,
    background: Callable[[], Background | None] | None,
    tell: Progress,
    landmarks: int,
) -> PictureMap:
    tell(MapProgress("reading"))
    with library.reading():
        chosen = _chosen(library, model, landmarks)
        parts = list(_vectors_of(library, model, np.sort(chosen)))
    rows_of = dict(zip(*map(_joined, zip(*parts, strict=True)), strict=True)) if parts else {}
    vectors = np.array([rows_of[image_id] for image_id in chosen.tolist()], "<f2")
    vectors = vectors.reshape(len(chosen), model.dim)
    tell(MapProgress("arranging", 0, len(chosen)))
    spots = laid_out(vectors.astype(np.float32))
    leaves, groups = grouped(spots)
    empty = np.zeros(0, np.int64)
    made = PictureMap(
        model.identity,
        library.id,
        chosen.astype("<i8"),
        vectors,
        spots,
        leaves.astype("<u2"),
        empty,
        np.zeros((0, 2), "<u2"),
        empty.astype("<u2"),
        tuple(
            Cluster(number, level, parent, (), 0, 0.0, 0.0, 0.0, None)
            for number, (level, parent) in enumerate(groups)
        ),
        0,
    )
    made = _all_placed(library, model, made, tell)
    tell(MapProgress("naming", 0, len(made.clusters)))
    labels = Background.load(library.folder, model.identity)
    if labels is None and background is not None:
        labels = background()
    if labels is not None and len(made):
        centre = surroundings(library, model.id, labels).centre
        shares = label_shares(labels, centre, vectors.astype(np.float32))
        clusters = named(made.clusters, made.leaves, shares, default_labels())
        made = replace(made, clusters=tuple(clusters))
    return made


def _all_placed(library: Library, model: ModelRow, made: PictureMap, tell: Progress) -> PictureMap:
    """Return the map with all searchable pictures."""
    with library.reading():
        known = _embedded(library, model)
        ids, places, leaves = [], [], []
        done = 0
        for some, rows in _all_vectors(library, model):
            kept = np.isin(some, known)
            at, nearest = placed(rows[kept], made.landmarks, made.spots)
            ids.append(some[kept])
            places.append(at)
            leaves.append(made.leaves[nearest])
            done += int(kept.sum())
            tell(MapProgress("placing", done, len(known)))
    if not ids:
        return made
    image_ids = np.concatenate(ids)
    order = np.argsort(image_ids, kind="stable")
    filled = replace(
        made,
        image_ids=image_ids[order].astype("<i8"),
        positions=spread(np.concatenate(places)[order]).astype("<u2"),
        cluster_ids=np.concatenate(leaves)[order].astype("<u2"),
        laid_out=len(image_ids),
    )
    return summed_up(filled)


def _with(found: PictureMap, new: np.ndarray, vectors: np.ndarray) -> PictureMap:
    """Return the map with more pictures, int64 (n,), whose vectors are (n, d)."""
    places, nearest = placed(vectors, found.landmarks, found.spots)
    image_ids = np.concatenate([found.image_ids, new])
    order = np.argsort(image_ids, kind="stable")
    beside = spread(places, found.positions)
    leaves = found.leaves[nearest] if len(found.leaves) else np.zeros(len(new), "<u2")
    return summed_up(
        replace(
            found,
            image_ids=image_ids[order].astype("<i8"),
            positions=np.concatenate([found.positions, beside])[order].astype("<u2"),
            cluster_ids=np.concatenate([found.cluster_ids, leaves])[order].astype("<u2"),
        )
    )


def _visible(library: Library, found: PictureMap) -> PictureMap:
    return found.only(~np.isin(found.image_ids, hidden_images(library)))


# Reading embeddings


def _chosen(library: Library, model: ModelRow, most: int) -> np.ndarray:
    """Return the ids of the landmarks' images, int64, by their contents' SHA-256."""
    rows = library.rows(
        "SELECT image_id FROM embeddings JOIN images ON images.id = image_id "
        "JOIN shown USING (image_id) WHERE model_id = ? ORDER BY hash LIMIT ?",
        (model.id, most),
    )
    return np.fromiter((image_id for (image_id,) in rows), np.int64, len(rows))


def _embedded(library: Library, model: ModelRow) -> np.ndarray:
    """Return the ids of the searchable images that the model has embedded, int64, ascending."""
    rows = library.rows(
        "SELECT image_id FROM shown WHERE EXISTS (SELECT 1 FROM embeddings "
        "WHERE embeddings.image_id = shown.image_id AND model_id = ?) ORDER BY image_id",
        (model.id,),
    )
    return np.fromiter((image_id for (image_id,) in rows), np.int64, len(rows))


def _all_vectors(library: Library, model: ModelRow) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield image ids, int64 (p,), and vectors, float16 (p, d), of all embeddings."""
    cursor = library.conn.execute(
        "SELECT image_id, vector FROM embeddings INDEXED BY embeddings_model_id "
        "WHERE model_id = ? ORDER BY id",
        (model.id,),
    )
    yield from _pages(cursor, model)


def _vectors_of(
    library: Library, model: ModelRow, image_ids: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the same of some images, in the order of their ids."""
    cursor = library.conn.execute(
        "SELECT image_id, vector FROM embeddings WHERE model_id = ? "
        "AND image_id IN (SELECT value FROM json_each(?)) ORDER BY image_id",
        (model.id, json.dumps(image_ids.tolist())),
    )
    yield from _pages(cursor, model)


def _pages(cursor: sqlite3.Cursor, model: ModelRow) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while page := cursor.fetchmany(PAGE):
        ids = np.fromiter((image_id for image_id, _ in page), np.int64, len(page))
        yield ids, unit_vectors(page, model.dim)


def _joined(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.concatenate(parts)
