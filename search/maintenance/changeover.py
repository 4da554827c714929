"""Change the model that a library uses, and remove a model from it.

Until the new model is activated, the library uses the former one; their embeddings lie side by
side, and an interruption loses none. Which model is next is stored in the library, so that the
process that embeds for it notices when another one has been chosen.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fovea.data import BUNDLED
from fovea.search.errors import LibraryError, ModelError
from fovea.search.index.view import snapshot_path
from fovea.search.library.files import write_moments
from fovea.search.library.library import PAGE, Library
from fovea.search.library.locks import exclusive, holder_of
from fovea.search.library.paths import place_of
from fovea.search.library.rows import ModelRow, Moments
from fovea.search.models.info import ModelInfo
from fovea.search.models.resolve import resolve_known, resolve_model
from fovea.search.query.likelihood import background_path

if TYPE_CHECKING:
    from fovea.search.models.download import Reporter

__all__ = [
    "LOCK",
    "LOOK_S",
    "Changeover",
    "FileCopy",
    "Removed",
    "StoredImage",
    "activate",
    "add_embeddings",
    "cancel_change",
    "check_removable",
    "changeover",
    "changing",
    "embedded_counts",
    "find_meant",
    "find_model",
    "images_to_embed",
    "next_model",
    "remove_model",
    "resolve_in",
    "set_next_model",
]

CHUNK = 20_000  # embeddings deleted in one transaction, so that other processes get a turn
LOCK = "changeover"
LOOK_S = 1.0  # seconds; a process that checks whether the lock is held takes it for a moment
EMBEDDED = (
    "EXISTS (SELECT 1 FROM embeddings WHERE embeddings.image_id = shown.image_id AND model_id = ?)"
)


class FileCopy(NamedTuple):
    """A file of an image, as it was when it was indexed."""

    path: bytes
    root_id: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A searchable image that a model has not embedded, and its files."""

    id: int
    hash: bytes
    copies: tuple[FileCopy, ...]


@dataclass(frozen=True, slots=True)
class Changeover:
    """The progress of a change of model."""

    model: ModelRow
    images: int  # searchable
    embedded: int  # of them, by the next model
    pid: str | None  # of the process that embeds them; None if it was interrupted


@dataclass(frozen=True, slots=True)
class Removed:
    """A removed model, and the space that this has freed."""

    model: ModelRow
    embeddings: int
    bytes: int


def changing(library: Library, wait_s: float = LOOK_S) -> contextlib.AbstractContextManager[None]:
    """Be the only process that embeds for another model.

    Raise ``LibraryBusy`` if another process still does after ``wait_s`` seconds, and
    ``LibraryReadOnly`` if the library cannot be changed here.
    """
    library.check_writable()
    return exclusive(library.folder, LOCK, wait_s, doing="is embedding for a change of model in")


# The next model


def next_model(library: Library) -> ModelRow | None:
    """Return the model to use once it has embedded everything; None if none is to change."""
    return library.model("next_model_id")


def set_next_model(library: Library, model_id: int) -> None:
    """Choose the next model, instead of any other one."""
    with library.transaction() as conn:
        conn.execute("INSERT OR REPLACE INTO library VALUES ('next_model_id', ?)", (model_id,))


def cancel_change(library: Library) -> None:
    """Keep using the present model; what was embedded by another one is kept."""
    with library.transaction() as conn:
        conn.execute("DELETE FROM library WHERE key = 'next_model_id'")


def changeover(library: Library) -> Changeover | None:
    """Return the progress of the change of model under way; None if there is none."""
    model = next_model(library)
    if model is None:
        return None
    [(images, embedded)] = library.rows(
        f"SELECT count(*), total({EMBEDDED}) FROM shown", (model.id,)
    )
    return Changeover(model, images, int(embedded), holder_of(library.folder, LOCK))


def embedded_counts(library: Library) -> dict[int, int]:
    """Count the embeddings of each model, by its id."""
    rows = library.rows(
        "SELECT models.id, (SELECT count(*) FROM embeddings INDEXED BY embeddings_model_id "
        "WHERE model_id = models.id) FROM models"
    )
    return dict(rows)


# Embedding what is stored


def images_to_embed(library: Library, model_id: int) -> Iterator[StoredImage]:
    """Yield each searchable image that the model has not embedded.

    The caller may write meanwhile: no cursor stays open between two images.
    """
    last = 0
    while images := library.rows(
        "SELECT id, hash FROM shown JOIN images ON images.id = shown.image_id "
        f"WHERE shown.image_id > ? AND NOT {EMBEDDED} ORDER BY shown.image_id LIMIT ?",
        (last, model_id, PAGE),
    ):
        last = images[-1][0]
        copies: dict[int, list[FileCopy]] = {image_id: [] for image_id, _ in images}
        for image_id, *copy in library.rows(
            "SELECT image_id, path, root_id, size, mtime_ns FROM files WHERE state = 'indexed' "
            "AND image_id IN (SELECT value FROM json_each(?)) ORDER BY path",
            (json.dumps(list(copies)),),
        ):
            copies[image_id].append(FileCopy(*copy))
        for image_id, digest in images:
            if copies[image_id]:  # they may have been deleted since
                yield StoredImage(image_id, digest, tuple(copies[image_id]))


def add_embeddings(
    library: Library,
    model: ModelRow,
    image_ids: Sequence[int],
    vectors: np.ndarray,
    moments: Mapping[int, Moments] | None = None,
) -> None:
    """Store a model's embeddings, float32 unit rows (n, d), of images that still exist.

    ``moments`` are those of the videos among them, by their ids. Stored ones stay as they are.
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
        write_moments(conn, (moments or {}).items(), model.id)


def activate(library: Library, model_id: int, left_behind: Iterable[int] = ()) -> bool:
    """Make a model the library's, if it has embedded all images except those left behind.

    This is one transaction: each search uses one of the two models throughout. Return whether it
    was done; if not, images are missing and nothing has changed.
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
    """Return the library's model of this name, folder, or beginning of its identity.

    Raise ``LibraryError`` if several match.
    """
    wanted = name.lower()
    path = str(Path(os.path.expanduser(name)).absolute())  # which leaves unknown users alone
    known = library.models()
    found = [model for model in known if wanted == model.name.lower() or model.source == path]
    if not found and len(wanted) >= 6:
        found = [model for model in known if model.identity.startswith(wanted)]
    if len(found) > 1:
        marks = ", ".join(model.identity[:12] for model in found)
        raise LibraryError(
            f"{len(found)} models of {place_of(library)} are called {name}; "
            f"give the beginning of a SHA-256 instead: {marks}"
        )
    return found[0] if found else None


def find_meant(library: Library, name: str) -> ModelRow | None:
    """Return the library's model that a name means; None where it means one of another place.

    The bundled model's name always means the one that is bundled now. Raise ``LibraryError`` if
    several match.
    """
    return None if name.lower() == BUNDLED else find_model(library, name)


def resolve_in(library: Library, name: str, *, progress: "Reporter | None" = None) -> ModelInfo:
    """Return a model by its name in the library, or else as ``resolve_model`` does.

    Raise ``ModelError`` for one that is not available.
    """
    row = find_meant(library, name)
    if row is None or os.path.exists(os.path.expanduser(name)):
        return resolve_model(name, progress=progress)
    try:
        return resolve_known(row, progress=progress)
    except ModelError as exc:
        raise ModelError(f"{row.name} is not available: {exc}") from exc


def check_removable(library: Library, identity: str | None) -> None:
    """Raise ``LibraryError`` for the model that the library uses."""
    current = library.model()
    if current is not None and current.identity == identity:
        place = place_of(library)
        raise LibraryError(f"{place} uses {current.name}; switch to another model first")


def remove_model(library: Library, model: ModelRow) -> Removed:
    """Delete a model's embeddings and index, and give the space back to the disk.

    Raise ``LibraryError`` for the model that the library uses, ``LibraryBusy`` while another
    process writes to the library or embeds.
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
            # No index of a removed model needs to know which embeddings are gone.
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
    """Delete the files that only this model needed."""
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
    """Return the size of the library's files."""
    total = 0
    for path in library.folder.iterdir():
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
