"""A change of model in the library: what is still to embed, the flip, and what is left behind.

Until the flip, the former model answers; the new one's embeddings lie beside its, and an
interruption loses none. Which model is to come is a value of the library, so that whoever embeds
for it learns when somebody has decided otherwise.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fovea.search.errors import LibraryError, ModelError
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import PAGE, Library
from fovea.search.library.locks import exclusive, holder_of
from fovea.search.library.rows import ModelRow
from fovea.search.models.info import ModelInfo
from fovea.search.models.resolve import resolve_known, resolve_model
from fovea.search.query.likelihood import background_path

if TYPE_CHECKING:
    from fovea.search.models.download import Reporter

__all__ = [
    "LOCK",
    "LOOK_S",
    "Changeover",
    "Copy",
    "Removed",
    "StoredImage",
    "add_embeddings",
    "announce",
    "call_off",
    "check_removable",
    "changeover",
    "changing",
    "coming",
    "embedded_counts",
    "find_model",
    "flip",
    "images_to_embed",
    "remove_model",
    "resolve_in",
]

CHUNK = 20_000  # embeddings deleted in one transaction, so that others get their turn
LOCK = "changeover"
LOOK_S = 1.0  # seconds; whoever only looks whether the lock is held may hold it for a moment
COMING = "SELECT value FROM library WHERE key = 'next_model_id'"
EMBEDDED = (
    "EXISTS (SELECT 1 FROM embeddings WHERE embeddings.image_id = shown.image_id AND model_id = ?)"
)


class Copy(NamedTuple):
    """A file that shows an image, as it was when it was indexed."""

    path: bytes
    root_id: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in answers that a model has not embedded, and the files that show it."""

    id: int
    hash: bytes
    copies: tuple[Copy, ...]


@dataclass(frozen=True, slots=True)
class Changeover:
    """How far a change of model has come."""

    model: ModelRow
    images: int  # in answers
    embedded: int  # of them, by the model that is to come
    pid: str | None  # the process that embeds them now; None where it was interrupted


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removed model leaves free."""

    model: ModelRow
    embeddings: int
    bytes: int


def changing(library: Library, wait_s: float = LOOK_S) -> contextlib.AbstractContextManager[None]:
    """Be the one process that embeds for another model.

    Raise ``LibraryBusy`` if another one still is after ``wait_s`` seconds.
    """
    return exclusive(library.folder, LOCK, wait_s, doing="is embedding for a change of model in")


# What is to come


def coming(library: Library) -> ModelRow | None:
    """The model that is to answer once it has embedded everything; None where nothing changes."""
    found = library.rows(
        f"SELECT id, name, identity, dim, source FROM models WHERE id = ({COMING})"
    )
    return ModelRow(*found[0]) if found else None


def announce(library: Library, model_id: int) -> None:
    """Say that a model is to answer; it takes the place of another one that was to."""
    with library.transaction() as conn:
        conn.execute("INSERT OR REPLACE INTO library VALUES ('next_model_id', ?)", (model_id,))


def call_off(library: Library) -> None:
    """Stay with the model that answers; what was embedded for another one is kept."""
    with library.transaction() as conn:
        conn.execute("DELETE FROM library WHERE key = 'next_model_id'")


def changeover(library: Library) -> Changeover | None:
    """How far the change of model under way has come; None where there is none."""
    model = coming(library)
    if model is None:
        return None
    [(images, embedded)] = library.rows(
        f"SELECT count(*), total({EMBEDDED}) FROM shown", (model.id,)
    )
    return Changeover(model, images, int(embedded), holder_of(library.folder, LOCK))


def embedded_counts(library: Library) -> dict[int, int]:
    """How many embeddings each model has, by its id."""
    rows = library.rows(
        "SELECT models.id, (SELECT count(*) FROM embeddings INDEXED BY embeddings_model_id "
        "WHERE model_id = models.id) FROM models"
    )
    return dict(rows)


# Embedding what is stored


def images_to_embed(library: Library, model_id: int) -> Iterator[StoredImage]:
    """Yield each image in answers that the model has not embedded.

    The caller may write meanwhile: no cursor stays open between two images.
    """
    last = 0
    while images := library.rows(
        "SELECT id, hash FROM shown JOIN images ON images.id = shown.image_id "
        f"WHERE shown.image_id > ? AND NOT {EMBEDDED} ORDER BY shown.image_id LIMIT ?",
        (last, model_id, PAGE),
    ):
        last = images[-1][0]
        copies: dict[int, list[Copy]] = {image_id: [] for image_id, _ in images}
        for image_id, *copy in library.rows(
            "SELECT image_id, path, root_id, size, mtime_ns FROM files WHERE state = 'indexed' "
            "AND image_id IN (SELECT value FROM json_each(?)) ORDER BY path",
            (json.dumps(list(copies)),),
        ):
            copies[image_id].append(Copy(*copy))
        for image_id, digest in images:
            if copies[image_id]:  # an indexer may have deleted them since
                yield StoredImage(image_id, digest, tuple(copies[image_id]))


def add_embeddings(
    library: Library, model: ModelRow, image_ids: Sequence[int], vectors: np.ndarray
) -> None:
    """Store a model's embeddings, float32 unit rows (n, d), of images; gone ones are passed over.

    One that is stored already stays as it is.
    """
    if vectors.shape != (len(image_ids), model.dim):
        raise ValueError(f"vectors {vectors.shape} for {len(image_ids)} images of {model.name}")
    rows = zip(image_ids, vectors.astype("<f2"), strict=True)
    with library.transaction() as conn:
        conn.executemany(
            "INSERT INTO embeddings (image_id, model_id, vector) "
            "SELECT images.id, models.id, ? FROM images, models "
            "WHERE images.id = ? AND models.id = ? "
            "ON CONFLICT (image_id, model_id) DO NOTHING",
            ((vector.tobytes(), image_id, model.id) for image_id, vector in rows),
        )


def flip(library: Library, model_id: int, left_behind: Iterable[int] = ()) -> bool:
    """Let a model answer from now on, if it has embedded all images but those left behind.

    One transaction: every search is answered by the one model or the other. Return whether it
    was complete; if not, nothing has changed.
    """
    with library.transaction() as conn:
        [missing] = conn.execute(
            f"SELECT count(*) FROM shown WHERE NOT {EMBEDDED} "
            "AND image_id NOT IN (SELECT value FROM json_each(?))",
            (model_id, json.dumps(list(left_behind))),
        ).fetchone()
        if missing:
            return False
        conn.execute("UPDATE library SET value = ? WHERE key = 'model_id'", (model_id,))
        conn.execute("DELETE FROM library WHERE key = 'next_model_id'")
    return True


# Removing


def find_model(library: Library, name: str) -> ModelRow | None:
    """The model that the library knows by this name, folder, or beginning of its identity.

    Raise ``LibraryError`` where several are called that.
    """
    wanted = name.lower()
    path = str(Path(name).expanduser().absolute())
    known = library.models()
    found = [model for model in known if wanted == model.name.lower() or model.source == path]
    if not found and len(wanted) >= 6:
        found = [model for model in known if model.identity.startswith(wanted)]
    if len(found) > 1:
        marks = ", ".join(model.identity[:12] for model in found)
        raise LibraryError(
            f"{len(found)} models of {library.folder} are called {name}; "
            f"name one by how its SHA-256 begins: {marks}"
        )
    return found[0] if found else None


def resolve_in(library: Library, name: str, *, progress: "Reporter | None" = None) -> ModelInfo:
    """A model by a name that the library knows it by, or by one that ``resolve_model`` knows.

    Raise ``ModelError`` for one that cannot be had.
    """
    row = find_model(library, name)
    if row is None or Path(name).expanduser().exists():
        return resolve_model(name, progress=progress)
    try:
        return resolve_known(row, progress=progress)
    except ModelError as exc:
        raise ModelError(f"{row.name} cannot be used: {exc}") from exc


def check_removable(library: Library, identity: str | None) -> None:
    """Raise ``LibraryError`` for the model that answers."""
    current = library.model()
    if current is not None and current.identity == identity:
        raise LibraryError(
            f"{library.folder} answers by {current.name}; let it answer by another one first: "
            "fovea models use NAME"
        )


def remove_model(library: Library, model: ModelRow) -> Removed:
    """Delete a model's embeddings and its index, and give the space back.

    Raise ``LibraryError`` for the model that answers, ``LibraryBusy`` while another process
    writes to the library or embeds.
    """
    with changing(library), library.writing():
        check_removable(library, model.identity)
        before = _bytes(library)
        with library.transaction() as conn:
            conn.execute(
                "DELETE FROM library WHERE key = 'next_model_id' AND value = ?", (model.id,)
            )
        count = _delete_embeddings(library, model.id)
        with library.transaction() as conn:
            conn.execute("DELETE FROM models WHERE id = ?", (model.id,))
            # Nobody needs to hear which embeddings of a forgotten model are gone.
            conn.execute("DELETE FROM tombstones WHERE model_id = ?", (model.id,))
        _delete_files(library, model)
        library.compact()
        return Removed(model, count, max(0, before - _bytes(library)))


def _delete_embeddings(library: Library, model_id: int) -> int:
    count = 0
    while True:
        with library.transaction() as conn:
            gone = conn.execute(
                "DELETE FROM embeddings WHERE id IN "
                "(SELECT id FROM embeddings INDEXED BY embeddings_model_id WHERE model_id = ? "
                "LIMIT ?)",
                (model_id, CHUNK),
            ).rowcount
            conn.execute("DELETE FROM tombstones WHERE model_id = ?", (model_id,))
        count += gone
        if gone < CHUNK:
            return count


def _delete_files(library: Library, model: ModelRow) -> None:
    """Delete what only this model needed: it could be made again, and is now of no use."""
    snapshot = snapshot_path(library, model.id)
    for path in (
        snapshot,
        *snapshot.parent.glob(f"{snapshot.name}.*.tmp"),
        background_path(library.folder, model.identity),
        library.folder / f"index-{model.id}.lock",
    ):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _bytes(library: Library) -> int:
    """How much the library's files take on the disk."""
    total = 0
    for path in library.folder.iterdir():
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
