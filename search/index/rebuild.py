"""Write a state of the index as a snapshot, training it where it is worth it."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow

from . import train_ivf
from .ivf import Effort, Trained
from .kinds import load_faiss
from .snapshot import Header, Snapshot, SnapshotWriter, Unusable, chunks, read_snapshot
from .view import IndexOptions, State, snapshot_path

__all__ = ["worth_saving", "write"]

log = logging.getLogger(__name__)

REMEMBERED = 3  # snapshots of a model that the database vouches for


def worth_saving(state: State, options: IndexOptions, train: bool) -> bool:
    if state.pending > options.share * len(state):
        return True
    return train and _should_train(state, options)


def _should_train(state: State, options: IndexOptions) -> bool:
    """Whether the index is large enough to train, and has not just failed to train well."""
    if len(state) < options.exhaustive_below or isinstance(state.stored.kind, Trained):
        return False
    training = state.header.training if state.header else None
    return training is None or len(state) > 2 * training["trained_on"]


def write(
    state: State, library: Library, model: ModelRow, options: IndexOptions, train: bool
) -> Snapshot:
    """Write the living rows as a snapshot that the database vouches for; read it back.

    The caller sees to it that no other process does the same. Raise ``LibraryError`` where the
    disk does not let it.
    """
    path = snapshot_path(library, model.id)
    try:
        for abandoned in path.parent.glob(f"{path.name}.*.tmp"):  # by a process that was killed
            abandoned.unlink(missing_ok=True)
        _write(path, state, library, model, options, train)
        return read_snapshot(path)
    except OSError as exc:
        raise LibraryError(f"cannot write {path}: {exc.strerror or exc}; make room there") from exc
    except Unusable as exc:
        raise LibraryError(f"{path} was written, but {exc}; check the disk") from exc


def _write(
    path: Path,
    state: State,
    library: Library,
    model: ModelRow,
    options: IndexOptions,
    train: bool,
) -> None:
    parts = [segment for segment in (state.stored, state.tail) if len(segment)]
    with SnapshotWriter(path) as writer:
        for name in ("vectors", "embedding_ids", "image_ids"):
            writer.write(
                name, (c for part in parts for c in chunks(getattr(part.rows, name), part.alive))
            )
        vectors = writer.mapped("vectors", "<f2", (len(state), model.dim))
        training, base = None, None
        if len(state) >= options.exhaustive_below:
            training, base = _train(vectors, state, train)
        if base is not None:
            writer.write("base", [base])
        header = Header(
            library.id,
            model.identity,
            model.dim,
            len(state),
            state.last_embedding,
            state.last_tombstone,
            training,
        )
        checksum = writer.seal(header)
        _remember(library, model, checksum)
        writer.publish()


def _train(
    vectors: np.ndarray, state: State, train: bool
) -> tuple[dict[str, Any] | None, np.ndarray | None]:
    """How the index of these vectors was trained, and its FAISS form, if it has one.

    An index that is trained already takes the new vectors in, as long as it has not doubled
    and still proves itself. Without ``train`` nothing is learnt or proved, only taken in.
    """
    faiss = load_faiss()
    known = state.header.training if state.header else None
    kind = state.stored.kind
    if isinstance(kind, Trained) and known is not None:
        base = faiss.clone_index(kind.base)
        if len(state.stored) < len(state.stored.rows):
            base.reset()  # empties the lists, and keeps what was learnt
        train_ivf.fill(base, vectors)
        effort: Effort | None = kind.effort
        if train and len(vectors) > 2 * known["trained_on"]:
            effort = None
        elif train:
            effort = train_ivf.prove(vectors, base)
        if effort is not None:
            return known | {"effort": asdict(effort)}, faiss.serialize_index(base)
    if not train:
        return known, None
    log.info("training an index of %d embeddings", len(vectors))
    base = train_ivf.train(vectors)
    train_ivf.fill(base, vectors)
    effort = train_ivf.prove(vectors, base)
    record = {"trained_on": len(vectors), "effort": asdict(effort) if effort else None}
    if effort is None:
        log.warning("no trained index equals exhaustive search here; searching exhaustively")
        return record, None
    return record, faiss.serialize_index(base)


def _remember(library: Library, model: ModelRow, checksum: str) -> None:
    """Let the database vouch for a snapshot, the file in place before it included."""
    with library.transaction() as conn:
        conn.execute(
            "INSERT INTO snapshots (model_id, checksum) VALUES (?, ?)", (model.id, checksum)
        )
        conn.execute(
            "DELETE FROM snapshots WHERE model_id = ? AND id NOT IN "
            "(SELECT id FROM snapshots WHERE model_id = ? ORDER BY id DESC LIMIT ?)",
            (model.id, model.id, REMEMBERED),
        )
