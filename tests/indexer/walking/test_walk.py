"""A walk finds pictures by their names, opens nothing, and leaves no root."""

import os
import socket
import threading

import pytest

from fovea.indexer.walking.ignore import IGNORE_FILE, Ignore
from fovea.indexer.walking.walk import Closed, Found, is_empty, walk
from fovea.search.errors import FoveaError


def names(root, *args):
    """The walk's findings: relative path -> refusal."""
    root = os.fsencode(root)
    return {os.path.relpath(entry.path, root): entry.refusal for entry in walk(root, *args)}


def touch(root, *paths):
    for path in paths:
        path = os.path.join(os.fsencode(root), path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass


def test_pictures_count_by_extension_in_any_case(tmp_path):
    touch(
        tmp_path, b"a.jpg", b"b.JPEG", b"deep/er/c.HeIc", b"d.nef", b"notes.txt", b"noext", b"jpg"
    )
    assert names(tmp_path) == {b"a.jpg": None, b"b.JPEG": None, b"deep/er/c.HeIc": None} | {
        b"d.nef": None
    }


def test_size_and_time_are_those_of_the_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"12345")
    os.utime(tmp_path / "a.jpg", ns=(1, -1_000_000_000_007))
    path = os.fsencode(tmp_path / "a.jpg")
    ctime_ns = os.stat(tmp_path / "a.jpg").st_ctime_ns
    assert list(walk(os.fsencode(tmp_path))) == [Found(path, 5, -1_000_000_000_007, None, ctime_ns)]


def test_names_are_bytes(tmp_path):
    odd = [b"latin1 \xe9.jpg", b"new\nline.jpg", "\U0001f4f7.jpg".encode(), b"x" * 251 + b".jpg"]
    touch(tmp_path, *odd, b"\xe9dir/\xff.jpg")
    assert set(names(tmp_path)) == {*odd, b"\xe9dir/\xff.jpg"}


def test_hidden_files_and_folders_of_programs_are_passed_over(tmp_path):
    touch(tmp_path, b"a.jpg", b".hidden.jpg", b"._a.jpg")
    touch(tmp_path, b".git/b.jpg", b"@eaDir/c.jpg", b"x/node_modules/d.jpg", b"#recycle/e.jpg")
    assert names(tmp_path) == {
        b"a.jpg": None,
        b".hidden.jpg": "ignored: hidden",
        b"._a.jpg": "ignored: hidden",
    }


def test_patterns_take_out_and_bring_back(tmp_path):
    touch(tmp_path, b"a.png", b"keep/a.png", b"out/b.jpg", b".stash/c.jpg", b"d.jpg")
    (tmp_path / os.fsdecode(IGNORE_FILE)).write_text("*.png\n!keep/*.png\n\n# words\nout/\n")
    ignore = Ignore.for_root(os.fsencode(tmp_path), ["!.stash/"])
    assert names(tmp_path, ignore) == {
        b"a.png": "ignored: matches an ignore pattern",
        b"keep/a.png": None,
        b".stash/c.jpg": None,
        b"d.jpg": None,
    }
    root = os.fsencode(tmp_path)
    reason = "ignored: matches an ignore pattern (its folder)"
    assert ignore.covers(root + b"/out/b.jpg", root) == reason
    assert ignore.covers(root + b"/keep/a.png", root) is None


def test_a_pattern_that_means_nothing_is_named(tmp_path):
    with pytest.raises(FoveaError, match="ignore pattern"):
        Ignore(["!"])


def test_links_are_not_followed(tmp_path):
    touch(tmp_path, b"in/a.jpg", b"elsewhere/b.jpg")
    (tmp_path / "in" / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "in" / "passwd.jpg").symlink_to("/etc/passwd")
    (tmp_path / "in" / "dangling.jpg").symlink_to("nothing")
    (tmp_path / "in" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(".")
    link = "not a file but a symbolic link"
    assert names(tmp_path / "in") == {
        b"a.jpg": None,
        b"link.jpg": link,
        b"passwd.jpg": link,
        b"dangling.jpg": link,
    }


def test_what_is_no_file_is_named_and_never_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "dir.jpg").mkdir()
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("sock.jpg")
        assert names(tmp_path) == {
            b"fifo.jpg": "not a file but a named pipe",
            b"sock.jpg": "not a file but a socket",
        }


def test_a_folder_whose_path_is_too_long_is_reported(tmp_path):
    touch(tmp_path, b"a.jpg")
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(22):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
    finally:
        os.chdir(here)
    found = list(walk(os.fsencode(tmp_path)))
    [closed] = [entry for entry in found if isinstance(entry, Closed)]
    assert closed.reason == "folder cannot be read: File name too long"
    assert [entry.path for entry in found if isinstance(entry, Found)] == [
        os.fsencode(tmp_path / "a.jpg")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
def test_a_folder_that_may_not_be_listed_is_reported(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    [entry] = walk(os.fsencode(tmp_path))
    assert entry == Closed(
        os.fsencode(tmp_path / "closed"), "folder cannot be read: Permission denied"
    )


def test_other_roots_are_left_to_themselves(tmp_path):
    touch(tmp_path, b"a.jpg", b"inner/b.jpg")
    stops = frozenset({os.fsencode(tmp_path / "inner")})
    assert set(names(tmp_path, None, stops)) == {b"a.jpg"}


def test_a_missing_root_raises_and_an_empty_one_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(walk(os.fsencode(tmp_path / "nowhere")))
    assert is_empty(os.fsencode(tmp_path))
    touch(tmp_path, b".DS_Store")
    (tmp_path / "lost+found").mkdir()
    assert is_empty(os.fsencode(tmp_path))
    touch(tmp_path, b"notes.txt")
    assert not is_empty(os.fsencode(tmp_path))


def test_a_walk_can_be_halted_where_it_is(tmp_path):
    touch(tmp_path, *(b"%d.jpg" % number for number in range(9)), b"deep/a.jpg")
    halt = threading.Event()
    found = walk(os.fsencode(tmp_path), halt=halt)
    next(found)
    halt.set()
    assert list(found) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(5, "Input/output error"), "unreadable: Input/output error"),
        (OverflowError("too large"), "unexpected error: OverflowError: too large"),
    ],
)
def test_an_entry_that_cannot_be_looked_at_is_in_doubt_alone(tmp_path, monkeypatch, error, reason):
    touch(tmp_path, b"a.jpg", b"b.jpg", b"odd/c.jpg", b"notes.txt")
    real = os.scandir

    class Entry:
        def __init__(self, entry):
            self._entry = entry

        def __getattr__(self, name):
            return getattr(self._entry, name)

        def is_dir(self, **options):
            if self.name in (b"b.jpg", b"odd"):
                raise error
            return self._entry.is_dir(**options)

    class Listing:
        def __init__(self, path):
            self._entries = real(path)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._entries.close()

        def __iter__(self):
            return map(Entry, self._entries)

    monkeypatch.setattr("fovea.indexer.walking.walk.os.scandir", Listing)
    found = {os.path.basename(entry.path): entry for entry in walk(os.fsencode(tmp_path))}
    assert found[b"a.jpg"].refusal is None and found[b"a.jpg"].size >= 0
    assert found[b"b.jpg"] == Found(os.fsencode(tmp_path / "b.jpg"), -1, -1, reason)
    assert found[b"odd"] == Closed(os.fsencode(tmp_path / "odd"), reason)
    assert len(found) == 3
