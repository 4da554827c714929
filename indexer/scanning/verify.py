"""Account for every file ever seen, and compare the index with the database."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from fovea.search.library.library import Library
from fovea.search.library.rows import ReportedState


@dataclass(frozen=True, slots=True)
class FileAccount:
    """What became of one file. An offline one is in a root that is not there now."""

    path: str  # as os.fsdecode gives it
    state: ReportedState
    reason: str | None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Every file, and where index and database disagree (``ok``: nowhere)."""

    ok: bool
    files: list[FileAccount]
    problems: list[str]
    damaged: int = 0  # indexed pictures of which something is missing


def verify(library: Library) -> VerifyReport:
    """Account for every file ever seen under the roots.

    Only the library is read; of the roots, only whether they are there.
    """
    problems = [*_contradictions(library), *_index_problems(library)]
    [(damaged,)] = library.rows(
        "SELECT count(*) FROM images WHERE damaged IS NOT NULL AND EXISTS "
        "(SELECT 1 FROM files WHERE image_id = images.id AND state = 'indexed')"
    )
    return VerifyReport(not problems, list(_accounts(library)), problems, damaged)


def _accounts(library: Library) -> Iterator[FileAccount]:
    unembedded, damaged = _unembedded(library), _damaged(library)
    for entry in library.entries():
        reason = entry.reason or unembedded.get(entry.path) or damaged.get(entry.path)
        yield FileAccount(os.fsdecode(entry.path), entry.state, reason)


def _damaged(library: Library) -> dict[bytes, str]:
    """Return the indexed files whose picture is damaged, with what is missing."""
    rows = library.rows(
        "SELECT path, damaged FROM files JOIN images ON images.id = image_id "
        "WHERE state = 'indexed' AND damaged IS NOT NULL"
    )
    return {path: f"damaged: {missing}" for path, missing in rows}


def _unembedded(library: Library) -> dict[bytes, str]:
    """Return the indexed files that the library's model has not embedded, with the reason."""
    model = library.model()
    if model is None:
        return {}
    rows = library.rows(
        "SELECT path FROM files WHERE state = 'indexed' AND NOT EXISTS (SELECT 1 FROM embeddings "
        "WHERE embeddings.image_id = files.image_id AND model_id = ?)",
        (model.id,),
    )
    return {path: f"not searchable: {model.name} has not embedded it yet" for (path,) in rows}


# What these queries count must not exist, even after a crash: a batch is written whole.
_CHECKS = (
    (
        "{} indexed files without an image",
        "SELECT count(*) FROM files LEFT JOIN images ON images.id = image_id "
        "WHERE state = 'indexed' AND images.id IS NULL",
    ),
    (
        "{} images without a file",
        "SELECT count(*) FROM images WHERE id NOT IN "
        "(SELECT image_id FROM files WHERE image_id IS NOT NULL)",
    ),
    (
        "{} embeddings without an image or of no model",
        "SELECT count(*) FROM embeddings WHERE image_id NOT IN (SELECT id FROM images) "
        "OR model_id NOT IN (SELECT id FROM models)",
    ),
    (
        "{} embeddings of the wrong length for their model",
        "SELECT count(*) FROM embeddings JOIN models ON models.id = model_id "
        "WHERE length(vector) != 2 * dim",
    ),
    (
        "{} files of no root",
        "SELECT count(*) FROM files WHERE root_id NOT IN (SELECT id FROM roots)",
    ),
    (
        "{} indexed images that no model has embedded",
        "SELECT count(DISTINCT image_id) FROM files WHERE state = 'indexed' "
        "AND image_id NOT IN (SELECT image_id FROM embeddings)",
    ),
)


def _contradictions(library: Library) -> Iterator[str]:
    """Say where the database contradicts itself."""
    for complaint, sql in _CHECKS:
        [(count,)] = library.rows(sql)
        if count:
            yield complaint.format(count)
    [(answer,)] = library.rows("PRAGMA quick_check(1)")
    if answer != "ok":
        yield f"the database is damaged: {answer}"


def _index_problems(library: Library) -> Iterator[str]:
    """Say where the index of the library's model contradicts the database."""
    model = library.model()
    if model is None:
        return
    from fovea.search.index.vector_index import VectorIndex

    for difference in VectorIndex.open(library, model.id).check():
        yield f"index: {difference}"
