"""A disk without room: one line says which, nothing is lost, and nothing is left behind."""

import errno
import os
import resource
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fovea.search.clip.disk import free_bytes, in_words, room_advice
from fovea.search.errors import LibraryBusy, LibraryError, LibraryReadOnly
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.library import connection
from fovea.search.library.connection import is_out_of_room, translated
from fovea.search.library.library import DATABASE, Library
from fovea.search.library.locks import exclusive
from fovea.search.query.likelihood import Background
from places import CHECKOUT

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if path.suffix in (".tmp", ".part")]


# Locks


@pytest.mark.parametrize("code", FULL)
def test_a_lock_is_held_even_if_its_holder_cannot_be_noted(library, monkeypatch, code):
    real = Path.write_text

    def half(path, text, **options):
        real(path, text[:3], **options)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_text", half)
    with library.writing():
        assert leftovers(library.folder) == []
        with Library.open(library.folder) as other, pytest.raises(LibraryBusy, match="unknown"):
            other.writing().__enter__()


def test_what_dead_holders_have_left_is_deleted_and_others_files_are_not(library):
    mine, others = library.folder / "writer.12345.tmp", library.folder / "index-1.12345.tmp"
    for path in (mine, others):
        path.write_text("")
    with library.writing():
        assert not mine.exists() and others.exists()
    with exclusive(library.folder, "index-1"):
        assert not others.exists()


def test_a_full_disk_is_named_where_a_lock_cannot_be_made(library, monkeypatch):
    def full(self, *args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fovea.search.library.locks.FileLock.acquire", full)
    with pytest.raises(LibraryError, match=r"cannot lock .*: the disk of .* is full \(.* free\);"):
        library.writing().__enter__()


# The database


def failing(code, message):
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    "code",
    ["IOERR_WRITE", "IOERR_SHMSIZE", "IOERR_FSYNC", "IOERR_TRUNCATE", "IOERR_SHMMAP", "CANTOPEN"],
)
def test_an_error_of_a_disk_without_room_names_it(tmp_path, monkeypatch, code):
    error = failing(getattr(sqlite3, f"SQLITE_{code}"), "disk I/O error")
    monkeypatch.setattr(connection, "has_little_room", lambda folder: True)
    with pytest.raises(LibraryError, match=f"the disk of {tmp_path} is full") as told:
        with translated(tmp_path / DATABASE):
            raise error
    assert "\n" not in str(told.value)
    monkeypatch.setattr(connection, "has_little_room", lambda folder: False)
    assert not is_out_of_room(error, tmp_path)
    with pytest.raises(LibraryError) as told, translated(tmp_path / DATABASE):
        raise error
    assert "full" not in str(told.value)


def test_a_quota_is_thought_of_where_a_write_fails(tmp_path):
    with pytest.raises(LibraryError, match="disk I/O error, with .* free there; .* your quota"):
        with translated(tmp_path / DATABASE):
            raise failing(sqlite3.SQLITE_IOERR_WRITE, "disk I/O error")


def test_a_full_library_is_still_searched_and_says_why_it_cannot_grow(colour_library, monkeypatch):
    folder = colour_library.folder
    colour_library.close()
    real = connection._set_journal

    def full(conn, path):
        raise failing(sqlite3.SQLITE_FULL, "database or disk is full")

    monkeypatch.setattr(connection, "_set_journal", full)
    with Library.open(folder) as library:
        assert library.counts().images == 8
        with pytest.raises(LibraryError, match="is full .*make room") as told:
            library.add_root(b"/p")
        assert not isinstance(told.value, LibraryReadOnly)
    monkeypatch.setattr(connection, "_set_journal", real)
    with Library.open(folder) as library:
        assert library.add_root(b"/p")


def test_a_new_library_on_a_full_disk_is_an_error_and_can_be_made_later(tmp_path, monkeypatch):
    def full(conn, path):
        raise failing(sqlite3.SQLITE_FULL, "database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(connection, "_set_journal", full)
        for _ in range(2):
            with pytest.raises(LibraryError, match="is full"):
                Library.open(tmp_path / "library", create=True)
    with Library.open(tmp_path / "library", create=True) as library:
        assert library.add_root(b"/p")


PROGRAM = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    from fovea.search.errors import FoveaError
    from fovea.search.index.vector_index import IndexOptions, VectorIndex
    from fovea.search.library.library import Library
    from fovea.search.library.rows import NewImage, WriteBatch

    limit, folder = int(sys.argv[1]), Path(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        with Library.open(folder, create=True) as library, library.writing():
            model = library.set_model("toy", "a" * 64, 64, "test")
            known = library.counts().images
            rows = np.eye(64, dtype=np.float32)
            for start in range(known, 1200, 40):
                numbers = range(start, min(start + 40, 1200))
                library.write_batch(WriteBatch(
                    [NewImage(n.to_bytes(32, "big"), 1, vector=rows[n % 64]) for n in numbers]
                ))
            options = IndexOptions(at_once=10**9)
            VectorIndex.open(library, model.id, options=options).save()
    except FoveaError as exc:
        print(exc)
        sys.exit(1)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on files here")
def test_at_every_size_that_files_may_have_nothing_is_lost(tmp_path):
    """The limit stands for a disk or a quota; each process gets a little more than the last."""
    folder, before, ends = tmp_path / "library", 0, set()
    for limit in (0, 4096, 40_000, 120_000, 150_000, 200_000, 300_000, 400_000, 500_000, 1 << 30):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), str(limit), str(folder)],
            cwd=CHECKOUT, capture_output=True, text=True,
        )  # fmt: skip
        ends.add(done.returncode)
        assert done.stderr == ""
        if done.returncode:
            [line] = done.stdout.splitlines()
            assert line.startswith("cannot ") and str(folder) in line, line
            assert "full" in line or " free there; check" in line or "ulimit" in line, line
        assert leftovers(folder) == []
        if limit < 100_000:
            continue
        with Library.open(folder, create=True) as library:
            now = library.counts().images
            assert library.rows("PRAGMA integrity_check") == [("ok",)]
            assert now >= before and library.counts().embeddings == now
            before = now
    assert before == 1200 and ends == {0, 1}
    with Library.open(folder) as library:
        assert len(VectorIndex.open(library, library.model().id)) == 1200


# The snapshot and the background


@pytest.mark.parametrize("code", FULL)
@pytest.mark.parametrize("after", range(0, 12))
def test_a_snapshot_that_does_not_fit_is_not_saved_and_nothing_is_left(
    colour_library, monkeypatch, after, code
):
    calls = []

    class Full:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            if name in ("write", "flush", "seek", "close", "fileno"):
                calls.append(name)
                if len(calls) > after:
                    if name == "close":
                        self._file.close()
                    raise OSError(code, os.strerror(code))
            return getattr(self._file, name)

    def opened(path, mode="r", *args, **options):
        file = open(path, mode, *args, **options)  # noqa: SIM115
        return Full(file) if "w" in mode else file

    monkeypatch.setattr("fovea.search.index.snapshot.open", opened, raising=False)
    model = colour_library.model()
    index = VectorIndex.open(colour_library, model.id, options=IndexOptions(at_once=10**9))
    try:
        index.save()
    except LibraryError as exc:
        assert "needed" in str(exc) and "free" in str(exc) and "make room" in str(exc)
        assert str(colour_library.folder) in str(exc)
    assert leftovers(colour_library.folder) == []
    monkeypatch.undo()
    assert index.check() == []
    index.save()
    assert len(VectorIndex.open(colour_library, model.id)) == 8


@pytest.mark.parametrize("code", FULL)
def test_a_background_that_does_not_fit_is_told_once_and_not_kept(
    library, monkeypatch, caplog, code
):
    import numpy as np

    def full(*args, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fovea.search.query.likelihood.np.savez", full)
    Background("a" * 64, np.eye(3, dtype=np.float32), 100.0).save(library.folder)
    assert leftovers(library.folder) == []
    [told] = caplog.messages
    assert told.startswith("cannot save ") and told.endswith("it will be computed again")


# What is told


def test_what_is_free_and_needed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("fovea.search.clip.disk.free_bytes", lambda folder: 2_300_000)
    said = room_advice(tmp_path, None, 512_000_000)
    assert said == (
        f"the disk of {tmp_path} is full (512.0 MB needed, 2.3 MB free); "
        "make room there and try again"
    )
    assert "quota" in room_advice(tmp_path, OSError(errno.EDQUOT, ""))
    assert "ulimit -f" in room_advice(tmp_path, OSError(errno.EFBIG, ""))


def test_sizes_are_written_for_people():
    assert [in_words(n) for n in (0, 999, 1000, 2_500_000, 3_000_000_000)] == [
        "0 bytes", "999 bytes", "1.0 kB", "2.5 MB", "3.0 GB",
    ]  # fmt: skip


def test_the_room_below_a_folder_that_is_not_there_yet_is_known(tmp_path):
    assert free_bytes(tmp_path / "not" / "there") == pytest.approx(free_bytes(tmp_path), rel=0.05)
