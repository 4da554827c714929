"""Whatever happens to one file of many, the others are indexed, and the next run mends it."""

import os
import sqlite3
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import fovea.indexer.scanning.pipeline
from fovea.indexer.decoding import reading
from fovea.indexer.scanning import changes, pipeline, refusals
from fovea.indexer.scanning.verify import verify
from fovea.indexer.walking import walk
from fovea.indexer.workers import worker
from fovea.search.errors import FoveaError, LibraryDamaged, LibraryError
from fovea.search.library import files, library
from fovea.search.library.library import Library
from scanner import OneProcess, Scanner, counts

VICTIM = "victim.bmp"
COLOUR = (250, 3, 77)  # the victim's; before it is edited, a little less of it
ERRORS = (
    ValueError("a \ud800 surrogate\nand more"),
    OverflowError("Python int too large to convert to SQLite INTEGER"),
    RuntimeError(""),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    OSError(5, "Input/output error"),
    MemoryError(),
    ZeroDivisionError("division by zero"),
    KeyError("a"),
    RecursionError("maximum recursion depth exceeded"),
)


def is_victim(value):
    """Whether what a step is given is about the victim."""
    path = getattr(value, "path", value)
    if isinstance(path, str):
        path = os.fsencode(path)
    return isinstance(path, bytes) and os.path.basename(path) == os.fsencode(VICTIM)


def raising(where, name, error, about=lambda *values: any(map(is_victim, values))):
    """Replace a function by one that raises if it is called for the victim."""
    real = getattr(where, name)

    def replaced(*values, **options):
        if about(*values, *options.values()):
            raise error
        return real(*values, **options)

    return patch.object(where, name, replaced)


class FailingEntry:
    """An entry of a folder of which one question cannot be answered."""

    def __init__(self, entry, question, error):
        self._entry, self._question, self._error = entry, question, error

    def __getattr__(self, name):
        if name == self._question and is_victim(self._entry.path):
            return lambda **options: (_ for _ in ()).throw(self._error)
        return getattr(self._entry, name)


def unanswered(question, error):
    """Let a walk meet the victim's entry with an error."""
    real = os.scandir

    class Listing:
        def __init__(self, path):
            self._entries = real(path)
            self.close = self._entries.close

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.close()

        def __iter__(self):
            return (FailingEntry(entry, question, error) for entry in self._entries)

    return patch.object(walk.os, "scandir", Listing)


def pixels_of_victim(values):
    return any(
        isinstance(value, np.ndarray)
        and value.ndim == 4
        and (np.abs(value[:, 0, 0].astype(int) - COLOUR) <= 1).all(axis=1).any()
        for value in values
    )


def row_of_victim(values):
    """Whether some of the rows to write are the victim's and say that it is indexed."""
    for value in values:
        if isinstance(value, list | tuple):
            for row in value:
                if isinstance(row, files.FileWrite) and is_victim(row) and row.state == "indexed":
                    return True
    return False


@contextmanager
def refusing(database, states):
    """Have the database refuse rows of the victim in these states."""
    pattern = f"CAST(new.path AS TEXT) LIKE '%/{VICTIM}' AND new.state IN ({states})"
    for verb in ("INSERT", "UPDATE"):
        database.conn.execute(
            f"CREATE TRIGGER refuse_{verb} BEFORE {verb} ON files WHEN {pattern} "
            "BEGIN SELECT raise(ABORT, 'not this one'); END"
        )
    try:
        yield
    finally:
        for verb in ("INSERT", "UPDATE"):
            database.conn.execute(f"DROP TRIGGER refuse_{verb}")


def steps(database, encoder, error):
    """Name -> what injects an error at that step, for the victim alone."""
    real = encoder.encode_pixels

    def encode(pixels):
        if pixels_of_victim([pixels]):
            raise error
        return real(pixels)

    def unsound(pixels):
        vectors = real(pixels)
        marked = (np.abs(pixels[:, 0, 0].astype(int) - COLOUR) <= 1).all(axis=1)
        vectors[marked] = np.nan
        return vectors

    def short(pixels):
        return real(pixels)[:, :2] if pixels_of_victim([pixels]) else real(pixels)

    return {
        "list": unanswered("is_dir", error),
        "status": unanswered("stat", error),
        "ignore": raising(walk.Ignore, "reason", error),
        "judge": raising(changes.Survey, "_judge", error),
        "read": raising(worker, "read_file", error),
        "open": raising(reading.os, "open", error),
        "look": raising(worker.Worker, "_look", error),
        "prepare": raising(
            pipeline, "_ready", error, lambda outcome, *rest: is_victim(outcome.task)
        ),
        "embed": patch.object(encoder, "encode_pixels", encode),
        "unsound": patch.object(encoder, "encode_pixels", unsound),
        "short": patch.object(encoder, "encode_pixels", short),
        "write": raising(
            library.files, "write_files", error, lambda *values: row_of_victim(values)
        ),
        "row": refusing(database, "'indexed'"),
        "every row": refusing(database, "'indexed', 'failed', 'skipped', 'missing'"),
    }


NAMES = (
    "list", "status", "ignore", "judge", "read", "open", "look", "prepare", "embed",
    "unsound", "short", "write", "row", "every row",
)  # fmt: skip


def check(scan, report, root, *, but=None):
    """Every file is accounted for once, and all but one are as they are on the disk."""
    counts(report)
    found = {path.name for path in root.iterdir()}
    assert report.found == len(found)
    states = {os.fsdecode(name): state for name, (state, _) in scan.files().items()}
    for name in found - {but}:
        assert states[name] == "indexed", (name, scan.files()[os.fsencode(name)])
    images = scan.library.rows(
        "SELECT count(*) FROM files WHERE state = 'indexed' AND image_id IN "
        "(SELECT image_id FROM embeddings)"
    )
    assert images[0][0] >= len(found - {but})
    assert verify(scan.library).ok


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    step=st.sampled_from(NAMES),
    error=st.sampled_from(ERRORS),
    batch_size=st.sampled_from([1, 2, 3, 32]),
    is_known=st.booleans(),
    copies=st.integers(0, 2),
)
def test_one_file_never_stops_a_run(step, error, batch_size, is_known, copies):
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        stack.enter_context(patch.object(fovea.indexer.scanning.pipeline, "Pool", OneProcess))
        root = place / "photos"
        root.mkdir()
        for number in range(7):
            Image.new("RGB", (8, 8), (0, 30 * number, 255 - number)).save(root / f"{number}.bmp")
        for number in range(copies):  # of a content that is none of the victim's
            (root / f"copy{number}.bmp").write_bytes((root / "3.bmp").read_bytes())
        database = stack.enter_context(Library.open(place / "library", create=True))
        scan = Scanner(database)
        if is_known:
            Image.new("RGB", (8, 8), (200, 3, 77)).save(root / VICTIM)
            scan(root)
        Image.new("RGB", (8, 8), COLOUR).save(root / VICTIM)
        os.utime(root / VICTIM, (1, 1))
        with steps(database, scan.encoder, error)[step]:
            # Only with a pattern is each name asked about.
            report = scan(root, batch_size=batch_size, ignore=["*.none"])
        check(scan, report, root, but=VICTIM)
        told = [problem.path for problem in report.problems if is_victim(problem.path)]
        state, reason = scan.files().get(os.fsencode(VICTIM), ("", None))
        is_kept = state == "indexed" and (reason or "").endswith("; kept as it was")
        assert told or state == "failed" or is_kept or step == "every row"
        assert told or step != "every row"
        assert report.failed or (told and is_known)
        if isinstance(error, MemoryError) and step in ("read", "open", "look"):
            os.utime(root / VICTIM, (2, 2))  # taken for the file's own doing, until it changes
        mended = scan()
        check(scan, mended, root)
        assert mended.found == 8 + copies and not mended.failed and not mended.problems


# The reasons


@pytest.fixture
def one_process(monkeypatch):
    monkeypatch.setattr(fovea.indexer.scanning.pipeline, "Pool", OneProcess)


def test_an_unforeseen_error_is_named_on_one_line(scan, photos, one_process):
    with raising(worker, "read_file", ValueError("two\nlines"), lambda path, *rest: b"red" in path):
        assert counts(scan(photos)) == {"found": 8, "embedded": 7, "failed": 1}
    assert scan.files()[b"red.png"] == ("failed", "unexpected error: ValueError: two lines")


def test_what_the_database_refuses_is_named(scan, photos, one_process):
    (photos / "red.png").rename(photos / VICTIM)
    with refusing(scan.library, "'indexed'"):
        assert counts(scan(photos)) == {"found": 8, "embedded": 7, "failed": 1}
    assert scan.files()[os.fsencode(VICTIM)] == ("failed", "not stored: not this one")
    assert counts(scan()) == {"found": 8, "embedded": 1, "unchanged": 7}


def test_a_file_that_cannot_even_fail_is_a_problem_of_the_run(scan, photos, one_process):
    (photos / "red.png").rename(photos / VICTIM)
    with refusing(scan.library, "'indexed', 'failed'"):
        report = scan(photos)
    assert counts(report) == {"found": 8, "embedded": 7, "failed": 1}
    [problem] = report.problems
    assert problem.path == os.fsencode(photos / VICTIM)
    assert problem.reason.startswith("not stored: not this one")


def test_a_known_picture_whose_row_is_refused_stays(scan, photos, one_process):
    victim = (photos / "red.png").rename(photos / VICTIM)
    scan(photos)
    image = scan.image_of(victim)
    os.utime(victim, (1, 1))
    with refusing(scan.library, "'indexed'"):
        report = scan()
    assert counts(report) == {"found": 8, "unchanged": 7, "failed": 1}
    assert [problem.path for problem in report.problems] == [os.fsencode(victim)]
    assert scan.image_of(victim) == image
    assert counts(scan()) == {"found": 8, "unchanged": 8}


@pytest.mark.parametrize("verb", ["delete", "bring back"])
def test_a_refusal_of_what_has_become_of_a_file_is_told(scan, photos, one_process, verb):
    victim = (photos / "red.png").rename(photos / VICTIM)
    scan(photos)
    away = victim.rename(photos.parent / "away.bmp")
    if verb == "bring back":
        scan()
        away.rename(victim)
    else:
        (photos / "blue.png").unlink()
    with refusing(scan.library, "'missing'" if verb == "delete" else "'indexed'"):
        report = scan()
    assert [problem.path for problem in report.problems] == [os.fsencode(victim)]
    again = scan()
    assert not again.problems and verify(scan.library).ok
    assert scan.files()[os.fsencode(VICTIM)][0] == ("missing" if verb == "delete" else "indexed")


# What remains an error of the run


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("database or disk is full"),
        sqlite3.OperationalError("database is locked"),
        sqlite3.DatabaseError("database disk image is malformed"),
    ],
)
def test_a_disk_or_a_database_that_fails_ends_the_run(scan, photos, one_process, error):
    with raising(library.files, "write_files", error, lambda *values: True):
        with pytest.raises(LibraryError):
            scan(photos)
    assert counts(scan(photos)) == {"found": 8, "embedded": 8}


def test_a_database_that_refuses_everything_ends_the_run(scan, photos, one_process):
    with raising(library.files, "write_files", ValueError("no row"), lambda *values: True):
        with pytest.raises(ValueError, match="no row"):
            scan(photos)
    assert counts(scan(photos)) == {"found": 8, "embedded": 8}


def test_a_model_that_takes_no_picture_ends_the_run(scan, photos, one_process, monkeypatch):
    scan(photos)
    for number in range(3):
        Image.new("RGB", (9, 9), (number, 1, 1)).save(photos / f"new{number}.png")

    def lost(pixels):
        raise RuntimeError("CUDA error: device lost")

    with monkeypatch.context() as failing:
        failing.setattr(scan.encoder, "encode_pixels", lost)
        with pytest.raises(RuntimeError, match="device lost"):
            scan()
    assert counts(scan()) == {"found": 11, "embedded": 3, "unchanged": 8}


def test_a_model_that_gives_no_unit_vector_ends_the_first_batch(encoder):
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    with patch.object(encoder, "encode_pixels", lambda pixels: np.full((len(pixels), 3), np.nan)):
        with pytest.raises(FoveaError, match="no embedding for any of the first 2 pictures"):
            refusals.encoded(encoder, pixels, 3, is_first=True)
        _, reasons = refusals.encoded(encoder, pixels, 3, is_first=False)
    assert reasons == [refusals.UNSOUND] * 2


def test_a_damaged_library_is_no_matter_of_one_file():
    damaged = LibraryDamaged("library.db is damaged")
    for cause in (sqlite3.IntegrityError("NOT NULL"), sqlite3.ProgrammingError("a surrogate")):
        damaged.__cause__ = cause
        assert refusals.is_refusal(cause) and not refusals.is_refusal(damaged)
