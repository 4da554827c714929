"""Save a view as a snapshot, building an index where it is worth it."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fovea.search.clip.disk import is_full, room_advice
from fovea.search.errors import LibraryError
from fovea.search.library.library import DATABASE, Library
from fovea.search.library.rows import ModelRow

from .base import Built
from .kinds import KINDS
from .segments import Segment
from .snapshot import (
    Header,
    Snapshot,
    SnapshotWriter,
    UnusableSnapshot,
    chunks,
    read_header,
    read_snapshot,
)
from .stored_vectors import StoredVectors, Vectors
from .view import IndexOptions, View, snapshot_path

__all__ = ["is_saved", "save_snapshot", "worth_saving"]

log = logging.getLogger(__name__)

SECTIONS = ("vectors", "embedding_ids", "image_ids")
REMEMBERED = 3  # snapshots of a model whose checksums the database keeps


def worth_saving(view: View, options: IndexOptions, build: bool) -> bool:
    """Whether enough has changed since the snapshot, or an index should be built by now."""
    if view.pending > min(options.share * len(view), options.exhaustive_below):
        return True
    if len(view) < options.exhaustive_below or view.stored.index.name == options.kind:
        return False
    if not build or view.header is None or view.header.kind != options.kind:
        return build
    return len(view) > 2 * view.header.built_on  # building one has failed before


def is_saved(library: Library, model: ModelRow, options: IndexOptions) -> bool:
    """Whether a large model's snapshot has every embedding, as far as its header tells.

    Opening the index reads the snapshot whole to compare its checksum. One so large that opening
    it for a search saves it again, if it is damaged, need not be read to find nothing to save.
    """
    try:
        header, checksum = read_header(snapshot_path(library, model.id))
    except UnusableSnapshot:
        return False
    if (header.library, header.model, header.dim) != (library.id, model.identity, model.dim):
        return False
    [(is_known, count, newest, gone)] = library.rows(
        "SELECT EXISTS (SELECT 1 FROM snapshots WHERE model_id = :id AND checksum = :checksum), "
        "(SELECT count(*) FROM embeddings INDEXED BY embeddings_model_id WHERE model_id = :id), "
        "(SELECT max(id) FROM embeddings INDEXED BY embeddings_model_id WHERE model_id = :id), "
        "(SELECT max(id) FROM tombstones WHERE model_id = :id)",
        {"id": model.id, "checksum": checksum},
    )
    if not is_known or count != header.count or count < options.at_once:
        return False
    if newest > header.generation or (gone or 0) > header.tombstone:
        return False
    has_index = header.kind == options.kind and count <= 2 * header.built_on
    return count < options.exhaustive_below or has_index


def save_snapshot(
    view: View, library: Library, model: ModelRow, options: IndexOptions, build: bool
) -> Snapshot:
    """Write the rows of a view as a snapshot whose checksum the database keeps; read it back.

    ``build`` allows to train and measure an index; else one is only updated. The caller sees to it
    that no other process saves meanwhile. Raise ``LibraryError`` if the disk fails.
    """
    path = snapshot_path(library, model.id)
    try:
        for abandoned in path.parent.glob(f"{path.name}.*.tmp"):  # by a process that was killed
            abandoned.unlink(missing_ok=True)
        _write(path, view, library, model, options, build)
        return read_snapshot(path)
    except OSError as exc:
        advice = f"{exc.strerror or exc}; check the disk and its permissions"
        if is_full(exc):
            needed = len(view) * (2 * model.dim + 16)  # bytes of a vector, or a code, and two ids
            advice = room_advice(path.parent, exc, needed)
        raise LibraryError(f"cannot write {path}: {advice}") from exc
    except UnusableSnapshot as exc:
        raise LibraryError(f"{path} was written, but {exc}; check the disk") from exc


def _write(
    path: Path, view: View, library: Library, model: ModelRow, options: IndexOptions, build: bool
) -> None:
    parts = [segment for segment in (view.stored, view.tail) if len(segment)]
    stay = options.stay_stored(len(view), model.dim)
    with SnapshotWriter(path) as writer:
        for name in ("embedding_ids", "image_ids") if stay else SECTIONS:
            writer.write(
                name, (c for part in parts for c in chunks(getattr(part.rows, name), part.alive))
            )
        built, built_on, kind = None, 0, None
        if len(view) >= options.exhaustive_below:
            if stay:
                ids = [segment.rows.embedding_ids[segment.chosen] for segment in parts]
                vectors: Vectors = StoredVectors(
                    library.folder / DATABASE, np.concatenate(ids), model.dim
                )
            else:
                vectors = _vectors(parts, len(view), model.dim)
            built, built_on = _index(vectors, view, options, build)
            kind = options.kind if built_on else None
        if built is not None:
            writer.write("form", [built.form])
        header = Header(
            library.id,
            model.identity,
            model.dim,
            len(view),
            view.last_embedding,
            view.last_tombstone,
            kind,
            built_on,
            built.settings if built else None,
        )
        checksum = writer.seal(header)
        _remember(library, model, checksum)
        writer.publish()


def _vectors(parts: Sequence[Segment], count: int, dim: int) -> np.ndarray:
    """Return the vectors of these segments in one array, float16 (n, d); of one whole segment its
    own."""
    if len(parts) == 1 and parts[0].alive is None and isinstance(parts[0].rows.vectors, np.ndarray):
        return parts[0].rows.vectors
    vectors, start = np.empty((count, dim), np.float16), 0
    for part in parts:
        for some in chunks(part.rows.vectors, part.alive):
            vectors[start : start + len(some)] = some
            start += len(some)
    return vectors


def _index(
    vectors: Vectors, view: View, options: IndexOptions, build: bool
) -> tuple[Built | None, int]:
    """Return the index of these vectors, if it has one, and how many there were when it was built.

    The stored index takes new vectors in, as long as they have not doubled and its recall is still
    good enough. Without ``build`` none is built, and recall is not measured.
    """
    kind, stored = KINDS[options.kind], view.stored.index
    built_on = view.header.built_on if view.header and view.header.kind == options.kind else 0
    if stored.name == options.kind and not (build and len(vectors) > 2 * built_on):
        kept = view.stored.alive
        if built := kind.extend(stored, vectors, kept=kept, measure=build):
            return built, built_on
    if not build:
        return None, built_on
    built = kind.build(vectors)
    if built is None:
        log.warning(
            "no %s index is as good as exhaustive search here; searching exhaustively", options.kind
        )
    return built, len(vectors)


def _remember(library: Library, model: ModelRow, checksum: str) -> None:
    """Keep the checksum of a snapshot in the database, beside that of the one it replaces."""
    with library.transaction() as conn:
        conn.execute(
            "INSERT INTO snapshots (model_id, checksum) VALUES (?, ?)", (model.id, checksum)
        )
        conn.execute(
            "DELETE FROM snapshots WHERE model_id = ? AND id NOT IN "
            "(SELECT id FROM snapshots WHERE model_id = ? ORDER BY id DESC LIMIT ?)",
            (model.id, model.id, REMEMBERED),
        )
