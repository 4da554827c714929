"""The file that keeps a map beside the library; it can be deleted, and the map laid out anew."""

import contextlib
import json
import logging
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fovea.search.clip.disk import FULL, full_text
from fovea.search.library.locks import sweep_parts

from .clusters import Cluster, members
from .layout import SIDE

__all__ = ["PictureMap", "file_mark", "load", "map_path", "save", "summed_up", "sweep_maps"]

log = logging.getLogger(__name__)

VERSION = 1  # of the file's form
_ANY = "map-" + 16 * "[0-9a-f]"  # a glob pattern of what ``map_path`` names, without its ending
LARGEST = 1 << 30  # bytes of a file that is read: some 60 million pictures


@dataclass(frozen=True, eq=False)
class PictureMap:
    """Where pictures lie, each near those that it is like, and the clusters that they form."""

    identity: str  # the SHA-256 of the model's weights
    library: str  # the library's id
    landmark_ids: np.ndarray  # int64 (m,): their images
    landmarks: np.ndarray  # float16 (m, d), unit rows: what new pictures are compared with
    spots: np.ndarray  # float32 (m, 2): the landmarks' places
    leaves: np.ndarray  # uint16 (m,): the landmarks' finest clusters
    image_ids: np.ndarray  # int64 (n,), ascending
    positions: np.ndarray  # uint16 (n, 2): from the left and from the top, 0 to 65,535
    cluster_ids: np.ndarray  # uint16 (n,): the pictures' finest clusters
    clusters: tuple[Cluster, ...]  # by id, the coarsest level first
    laid_out: int  # pictures that there were when the landmarks were laid out

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def is_outgrown(self) -> bool:
        """Whether most pictures came after the landmarks were chosen."""
        return len(self) > max(2 * self.laid_out, self.laid_out + 20)

    def of_cluster(self, cluster_id: int) -> np.ndarray:
        """Return the image ids of a cluster, int64, those nearest to its middle first.

        Raise ``KeyError`` for an unknown cluster.
        """
        rows = members(self.clusters, self.cluster_ids)[cluster_id]
        cluster = next(one for one in self.clusters if one.id == cluster_id)
        away = self.positions[rows] / SIDE - np.array([cluster.x, cluster.y])
        order = np.lexsort((self.image_ids[rows], (away**2).sum(axis=1)))
        found: np.ndarray = self.image_ids[rows][order]
        return found

    def with_landmarks(self, kept: np.ndarray) -> "PictureMap":
        """Return the map with some of its landmarks, bool (m,), which moves no picture."""
        return replace(
            self,
            landmark_ids=self.landmark_ids[kept],
            landmarks=self.landmarks[kept],
            spots=self.spots[kept],
            leaves=self.leaves[kept],
        )

    def only(self, kept: np.ndarray) -> "PictureMap":
        """Return the map with some of its pictures, bool (n,), their clusters counted anew."""
        if kept.all():
            return self
        some = replace(
            self,
            image_ids=self.image_ids[kept],
            positions=self.positions[kept],
            cluster_ids=self.cluster_ids[kept],
        )
        return summed_up(some)


def summed_up(found: PictureMap) -> PictureMap:
    """Return the map with counts, middles and radii of its clusters as its pictures lie now."""
    within = members(found.clusters, found.cluster_ids)
    scaled = found.positions / SIDE
    clusters = []
    for cluster in found.clusters:
        rows = within[cluster.id]
        if not len(rows):
            clusters.append(replace(cluster, count=0, radius=0.0, image_id=None))
            continue
        middle = np.median(scaled[rows], axis=0)
        away = np.hypot(*(scaled[rows] - middle).T)
        clusters.append(
            replace(
                cluster,
                count=len(rows),
                x=round(float(middle[0]), 5),
                y=round(float(middle[1]), 5),
                radius=round(float(np.quantile(away, 0.9)), 5),
                image_id=int(found.image_ids[rows[away.argmin()]]),
            )
        )
    return replace(found, clusters=tuple(clusters))


def map_path(folder: Path, identity: str) -> Path:
    """Return the file in a library's folder that holds a model's map."""
    return folder / f"map-{identity[:16]}.npz"


def file_mark(folder: Path, identity: str) -> tuple[int, int] | None:
    """Return what changes whenever a model's map is saved; None without a map."""
    try:
        status = map_path(folder, identity).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def sweep_maps(folder: Path) -> None:
    """Delete what processes that were killed while they saved a map have left."""
    sweep_parts(folder, _ANY)


def save(found: PictureMap, folder: Path) -> bool:
    """Save a map in a library's folder, whole or not at all; return whether that worked.

    What killed processes have left is deleted. A failed write is logged: the map can be made again.
    """
    sweep_maps(folder)
    path = map_path(folder, found.identity)
    part = path.with_suffix(f".{os.getpid()}.part")
    head = {
        "version": VERSION,
        "identity": found.identity,
        "library": found.library,
        "laid_out": found.laid_out,
        "clusters": [asdict(cluster) for cluster in found.clusters],
    }
    try:
        with part.open("wb") as file:
            np.savez(
                file,
                head=np.frombuffer(json.dumps(head).encode(), np.uint8),
                landmark_ids=found.landmark_ids.astype("<i8"),
                landmarks=found.landmarks.astype("<f2"),
                spots=found.spots.astype("<f4"),
                leaves=found.leaves.astype("<u2"),
                image_ids=found.image_ids.astype("<i8"),
                positions=found.positions.astype("<u2"),
                cluster_ids=found.cluster_ids.astype("<u2"),
            )
        part.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        reason: object = full_text(folder, exc) if exc.errno in FULL else exc
        log.warning("cannot save %s: %s", path, reason)
        return False
    return True


def load(folder: Path, identity: str, library: str, dim: int) -> PictureMap | None:
    """Read a saved map of this model and library; None if it is missing or unsound.

    ``dim`` is the width of the model's embeddings.
    """
    path = map_path(folder, identity)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            head = json.loads(bytes(data["head"]))
            found = PictureMap(
                identity=head["identity"],
                library=head["library"],
                landmark_ids=data["landmark_ids"],
                landmarks=data["landmarks"],
                spots=data["spots"],
                leaves=data["leaves"],
                image_ids=data["image_ids"],
                positions=data["positions"],
                cluster_ids=data["cluster_ids"],
                clusters=tuple(_cluster(one) for one in head["clusters"]),
                laid_out=int(head["laid_out"]),
            )
        if (head["version"], found.identity, found.library) != (VERSION, identity, library):
            return None  # another fovea's, another model's, or another library's
        _check(found, dim)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, IndexError, BadZipFile) as exc:
        log.warning("ignoring %s: %s; lay the map out anew", path, exc)
        return None
    return found


def _cluster(one: dict[str, Any]) -> Cluster:
    """Read a cluster. Raise ``KeyError``, ``TypeError`` or ``ValueError`` if it is malformed."""
    names, parent, image = one["names"], one["parent"], one["image_id"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("a cluster's names are no list of texts")
    x, y, radius = (float(one[name]) for name in ("x", "y", "radius"))
    if not all(map(math.isfinite, (x, y, radius))):
        raise ValueError("a number is not finite")
    return Cluster(
        id=int(one["id"]),
        level=int(one["level"]),
        parent=None if parent is None else int(parent),
        names=tuple(names),
        count=int(one["count"]),
        x=x,
        y=y,
        radius=radius,
        image_id=None if image is None else int(image),
    )


def _check(found: PictureMap, dim: int) -> None:
    """Raise ``ValueError`` unless a map's parts fit each other."""
    m, n, c = len(found.landmarks), len(found.image_ids), len(found.clusters)
    shapes = {
        "landmark_ids": (found.landmark_ids, "<i8", (m,)),
        "landmarks": (found.landmarks, "<f2", (m, dim)),
        "spots": (found.spots, "<f4", (m, 2)),
        "leaves": (found.leaves, "<u2", (m,)),
        "image_ids": (found.image_ids, "<i8", (n,)),
        "positions": (found.positions, "<u2", (n, 2)),
        "cluster_ids": (found.cluster_ids, "<u2", (n,)),
    }
    for name, (array, kind, shape) in shapes.items():
        if array.dtype != np.dtype(kind) or array.shape != shape:
            raise ValueError(f"its {name} have another form")
    if not (np.isfinite(found.landmarks).all() and np.isfinite(found.spots).all()):
        raise ValueError("a number is not finite")
    if (np.diff(found.image_ids) <= 0).any():
        raise ValueError("its image ids are not ascending")
    for ids in (found.leaves, found.cluster_ids):
        if len(ids) and int(ids.max()) >= c:
            raise ValueError("a cluster is missing")
    for at, cluster in enumerate(found.clusters):
        if cluster.id != at or not (cluster.parent is None or 0 <= cluster.parent < at):
            raise ValueError("its clusters are not in order")
