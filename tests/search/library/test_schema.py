import re
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.search.library import schema
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch

TAKEN = {1: "2019-07-01T12:00:00", 2: None, 3: None}  # what the contents say themselves
NS = 1_000_000_000

PATHS = st.sampled_from([b"/p/a.jpg", b"/p/b c/d.jpg", b"/p/\xff.jpg", b"/p/e/f.png"])
SECONDS = st.integers(0, 2**31)
STEPS = st.one_of(
    st.tuples(st.just("write"), PATHS, st.sampled_from(list(TAKEN)), SECONDS),
    st.tuples(st.just("fail"), PATHS, st.none(), SECONDS),
    st.tuples(st.just("miss"), PATHS, st.none(), st.none()),
    st.tuples(st.just("delete"), PATHS, st.none(), st.none()),
)


def content(number):
    return number.to_bytes(32, "big")


def take(library, root, step):
    """Write as an indexer does."""
    action, path, number, seconds = step
    if action == "write":
        new = NewImage(content(number), 1, ImageMetadata(taken_at=TAKEN[number]))
        file = FileWrite(path, root.id, 1, seconds * NS, content(number))
        library.write_batch(WriteBatch([new], [file]))
    elif action == "fail":
        file = FileWrite(path, root.id, 1, seconds * NS, None, "failed", "no picture")
        library.write_batch(WriteBatch([], [file]))
    elif action == "miss":
        library.mark_missing([path])
    else:
        library.delete_files([path])


def take_once(library, root, step):
    """Write as the very first version did: its columns are still there."""
    action, path, number, seconds = step
    with library.transaction() as conn:
        if action == "write":
            conn.execute(
                "INSERT INTO images (hash, bytes, taken_at) VALUES (?, 1, ?) "
                "ON CONFLICT (hash) DO NOTHING",
                (content(number), TAKEN[number]),
            )
            conn.execute(
                "INSERT INTO files (path, root_id, size, mtime_ns, image_id, state) "
                "SELECT ?, ?, 1, ?, id, 'indexed' FROM images WHERE hash = ?",
                (path, root.id, seconds * NS, content(number)),
            )
        else:
            assert action == "miss"
            conn.execute("UPDATE files SET state = 'missing' WHERE path = ?", (path,))


def follow(files, step):
    """The same for a dict of the files that show something: path to content and seconds."""
    action, path, number, seconds = step
    if action == "write":
        files[path] = (number, seconds)
    else:
        files.pop(path, None)


def check(library, files):
    expected = {}
    for number, seconds in sorted(files.values(), reverse=True):  # the oldest file comes last
        oldest = datetime.fromtimestamp(seconds).isoformat()
        expected[content(number)] = TAKEN[number] or oldest
    shown = "SELECT hash, date FROM shown JOIN images ON images.id = image_id"
    assert dict(library.rows(shown)) == expected
    held = library.rows(
        "SELECT path, names.name, names.folder, folded.name, folded.folder FROM files "
        "JOIN names ON files.id = names.rowid LEFT JOIN folded ON files.id = file_id"
    )
    for path, name_words, folder_words, name, folder in held:
        text = path.replace(b"\xff", "\U0010ffff".encode()).decode()
        assert folder + name == text and "/" not in name
        assert name_words.split() == re.findall("[a-z]+", name)
        assert folder_words.split() == re.findall("[a-z]+", folder.removeprefix("/p"))
    assert library.rows("SELECT count(*) FROM folded") == library.rows("SELECT count(*) FROM files")


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_what_is_shown_follows_the_files(tmp_path_factory, steps):
    with Library.open(tmp_path_factory.mktemp("shown"), create=True) as library:
        root, files = library.add_root(b"/p"), {}
        for step in steps:
            take(library, root, step)
            follow(files, step)
        check(library, files)
        library.remove_root(root.id)
        assert library.rows("SELECT count(*) FROM shown") == [(0,)]
        assert library.rows("SELECT count(*) FROM names") == [(0,)]


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_an_older_library_gets_what_newer_tables_hold(tmp_path, monkeypatch, version):
    steps = [
        ("write", b"/p/a.jpg", 1, 5),
        ("write", b"/p/b c/\xff.jpg", 2, 900_000_000),
        ("write", b"/p/b c/copy.jpg", 2, 800_000_000),
        ("write", b"/p/gone.jpg", 3, 5),
        ("miss", b"/p/gone.jpg", None, None),
    ]
    files = {}
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:version])
        patched.setattr(schema, "VERSION", version)
        with Library.open(tmp_path, create=True) as library:
            root = library.add_root(b"/p")
            for step in steps:
                take_once(library, root, step)
                follow(files, step)
    with Library.open(tmp_path) as library:
        assert schema.version_of(library.conn) == schema.VERSION
        check(library, files)
        assert library.rows("SELECT count(*) FROM names") == [(4,)]  # a missing file keeps its name
        take(library, root, ("delete", b"/p/a.jpg", None, None))  # the triggers are there too
        follow(files, ("delete", b"/p/a.jpg", None, None))
        check(library, files)


def test_a_date_that_is_told_later_counts(library):
    root = library.add_root(b"/p")
    take(library, root, ("write", b"/p/a.jpg", 2, 5))
    with library.transaction() as conn:
        conn.execute("UPDATE images SET taken_at = '2001-02-03T04:05:06'")
    assert library.rows("SELECT date FROM shown") == [("2001-02-03T04:05:06",)]


def test_a_time_out_of_range_is_no_date(library):
    root = library.add_root(b"/p")
    take(library, root, ("write", b"/p/a.jpg", 2, 2**33))
    take(library, root, ("write", b"/p/b.jpg", 3, -(2**33)))
    assert len(library.rows("SELECT date FROM shown")) == 2
