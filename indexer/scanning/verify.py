"""Account for every file ever seen, and compare the index with the database."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from fovea.search.analyses.stored import failures
from fovea.search.errors import LibraryDamaged, LibraryError
from fovea.search.library import checks
from fovea.search.library.library import Library
from fovea.search.library.rows import ReportedState
from fovea.search.places.stored import place_counts


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
    unplaced: int = 0  # pictures with coordinates whose place is still to be looked up
    database_ok: bool = True  # false if the database contradicts itself; not only the index


def verify(library: Library, *, quick: bool = False) -> VerifyReport:
    """Account for every file ever seen under the roots, and check the database and the index.

    Nothing is changed. Of the roots, only whether they are there is looked at. Unless ``quick``,
    which reads no embedding and leaves out SQLite's full check, the locks of a write are held while
    the index of names is checked.
    """
    files: list[FileAccount] = []
    problems = [*_contradictions(library, quick)]
    try:
        files += _accounts(library)
    except Exception as exc:
        if not problems and not isinstance(exc, LibraryError):
            raise  # a mistake of ours
        problems.append(f"the files cannot all be listed: {exc}")
    database_ok = not problems
    try:
        problems += () if quick else _index_problems(library)
    except Exception as exc:
        if database_ok and not isinstance(exc, LibraryError):
            raise
        problems.append(f"index: {exc}")
    damaged = _damaged_pictures(library) if database_ok else 0
    unplaced = place_counts(library).waiting if database_ok else 0
    return VerifyReport(not problems, files, problems, damaged, unplaced, database_ok)


def _damaged_pictures(library: Library) -> int:
    [(count,)] = library.rows(
        "SELECT count(*) FROM images WHERE damaged IS NOT NULL AND EXISTS "
        "(SELECT 1 FROM files WHERE image_id = images.id AND state = 'indexed')"
    )
    return int(count)


def _accounts(library: Library) -> Iterator[FileAccount]:
    told = failures(library) | _damaged(library) | _unembedded(library)
    for entry in library.entries():
        reason = entry.reason or told.get(entry.path)
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


QUICK = (checks.tables, checks.rows, checks.counts, checks.order, checks.links)
FULL = (checks.structure, *QUICK, checks.names, checks.vectors)


def _contradictions(library: Library, quick: bool) -> Iterator[str]:
    """Say where the database contradicts itself; what one check cannot read, others may."""
    for check in QUICK if quick else FULL:
        try:
            with library.reading() as conn:
                found = list(check(conn))
        except LibraryError as exc:
            yield f"a check cannot be made: {exc}"
        else:
            yield from found
    if not quick:
        yield from _lost_words(library)


def _lost_words(library: Library) -> Iterator[str]:
    """Let FTS5 compare the index of names with the names; it asks for that by a write."""
    try:
        with library.transaction() as conn:
            conn.execute("INSERT INTO names (names) VALUES ('integrity-check')")
    except LibraryDamaged:
        yield "the index of the files' names is damaged"
    except LibraryError:
        return  # a library that cannot be written, or is busy


def _index_problems(library: Library) -> Iterator[str]:
    """Say where the index of the library's model contradicts the database."""
    model = library.model()
    if model is None:
        return
    from fovea.search.index.vector_index import VectorIndex

    for difference in VectorIndex.open(library, model.id).check():
        yield f"index: {difference}"
