"""What a folder of embeddings that somebody else wrote can do to a library: nothing."""

import json
import os
import random
import subprocess
import sys

import pytest

from fovea.search.errors import FoveaError


def manifest(embed, **changes):
    path = embed.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def npy(shape, kind="'<f2'", by_column=False, rest=bytes(12)):
    """A .npy file whose header says what no array need be."""
    text = f"{{'descr': {kind}, 'fortran_order': {by_column}, 'shape': {shape}}}".encode()
    text = text.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + rest


DAMAGED = {
    "empty": b"",
    "zip": b"PK\3\4" + bytes(100),
    "npz": b"PK\5\6" + bytes(18),
    "huge": npy("(4611686018427387904, 3)"),
    "larger than a number": npy("(9223372036854775808, 3)"),
    "negative": npy("(-1, 3)"),
    "truth": npy("(True, 3)"),
    "cut": npy("(2, 3)", rest=bytes(11)),
    "pickled": npy("(2, 3)", "'|O'"),
    "big-endian": npy("(2, 3)", "'>f2'"),
    "double": npy("(2, 3)", "'<f8'", rest=bytes(48)),
    "by columns": npy("(2, 3)", by_column=True),
    "fields": npy("(2,)", "[('a\\n\x1b[31m', '<f2')]"),
    "open brackets": b"\x93NUMPY\x01\0\x88\x13" + b"(" * 5000,
    "long header": b"\x93NUMPY\x02\0\xff\xff\xff\xff" + bytes(100),
    "version": b"\x93NUMPY\x09\0" + bytes(100),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_vectors_are_one_line_before_anything_is_written(filled, library, name):
    path = filled.folder / "img_emb" / "img_emb_00000001.npy"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(FoveaError, match="img_emb_00000001.npy") as caught:
        filled.taken_in(library)
    assert str(caught.value).isprintable()
    assert library.roots() == [] and library.models() == []


@pytest.mark.parametrize("kind", ["img_emb", "metadata"])
def test_a_pipe_is_not_waited_for(filled, library, kind):
    path = next((filled.folder / kind).iterdir())
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FoveaError, match="is not a file"):
        filled.taken_in(library)


@pytest.mark.parametrize("folders", [5, None, "abc", {"a": 1}, ["/a", 5]])
def test_folders_that_are_none_are_refused(filled, library, folders):
    manifest(filled, folders=folders)
    with pytest.raises(FoveaError, match="not a manifest"):
        filled.taken_in(library)


def test_a_part_that_is_damaged_within_is_named_and_the_others_are_taken(filled, library):
    path = filled.folder / "metadata" / "metadata_00000001.parquet"
    data = bytearray(path.read_bytes())
    data[4:40] = bytes(36)  # the first page, which no header describes
    path.write_bytes(data)
    report = filled.taken_in(library)
    assert (report.rows, report.taken) == (3, 3)
    assert [path.name in problem for problem in report.problems] == [True]
    assert library.rows("SELECT count(*) FROM files") == [(3,)]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_bytes_are_changed_only_a_clear_error_comes(filled, library, seed):
    chance = random.Random(seed)
    for path in sorted(file for file in filled.folder.rglob("*_*.*") if file.is_file()):
        data = bytearray(path.read_bytes())
        for _ in range(chance.choice((0, 0, 1, 3))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    try:
        report = filled.taken_in(library)
    except FoveaError as exc:
        assert str(exc).isprintable()
    else:
        assert report.rows == report.taken + report.left


def test_text_that_is_not_utf_8_is_not_believed_and_harms_nothing(filled, library):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = filled.folder / "metadata" / "metadata_00000002.parquet"
    table = parquet.read_table(path)
    bad = pa.StringArray.from_buffers(1, *pa.array([b"\xff"], pa.binary()).buffers()[1:])
    place = table.schema.get_field_index("camera")
    parquet.write_table(table.set_column(place, "camera", bad), path)
    assert filled.taken_in(library).taken == 5


def test_long_texts_are_never_unpacked(filled, library):
    filled.rewrite(number=2, image_path="x" * (1 << 20), path=b"/" + b"x" * (1 << 20))
    assert "too long" in next(iter(filled.taken_in(library).reasons))


@pytest.mark.parametrize("folder", ["/", "//", "/etc/..", "/proc/self/root", "relative", "/a\0b"])
def test_a_manifest_makes_no_root_of_everything(filled, library, folder):
    manifest(filled, folders=[folder])
    report = filled.taken_in(library)
    assert (report.taken, report.folders, library.roots()) == (0, [], [])


def test_a_folder_of_the_manifest_without_a_picture_becomes_no_root(filled, library, photos):
    (photos.parent / "others").mkdir()
    manifest(filled, folders=["/etc", str(photos.parent / "others"), str(photos)])
    report = filled.taken_in(library)
    assert report.taken == 5
    assert report.folders == [root.path for root in library.roots()] == [os.fsencode(photos)]


def keep_stamps(filled):
    """Write the stamps that files have now into their rows."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    for path in (filled.folder / "metadata").iterdir():
        table = parquet.read_table(path)
        found = [os.lstat(name) for name in table["path"].to_pylist()]
        for name, values in (
            ("size", [one.st_size for one in found]),
            ("mtime_ns", [one.st_mtime_ns for one in found]),
        ):
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
        parquet.write_table(table, path)


def test_links_and_folders_are_no_pictures(filled, library, photos):
    (photos / "a.png").unlink()
    (photos / "a.png").symlink_to("/etc/passwd")
    (photos / "b.png").unlink()
    (photos / "b.png").mkdir()
    (photos / "inner").rename(photos.parent / "moved")
    (photos / "inner").symlink_to(photos.parent / "moved")
    keep_stamps(filled)
    report = filled.taken_in(library)
    assert (report.taken, report.left) == (1, 4)
    assert set(report.reasons) == {
        "not a file but a symbolic link",
        "not a file but a folder",
        "not a file: its folder is a symbolic link",
    }


def test_what_indexing_ignores_is_not_taken_in(embed, library, photos, scan):
    (photos / "a.png").rename(photos / ".a.png")
    embed(photos)
    (photos / ".foveaignore").write_text("b.png\n")
    (photos / "inner" / ".foveaignore").write_text("d.*\n")
    (photos / ".hidden").mkdir()
    report = embed.taken_in(library)
    assert (report.taken, report.left) == (2, 2)
    assert set(report.reasons) == {"ignored: matches an ignore pattern"}
    assert scan(photos).embedded == 0


def test_hidden_files_are_not_taken_in(filled, library, photos):
    (photos / ".secret").mkdir()
    (photos / "a.png").rename(photos / ".a.png")
    (photos / "inner").rename(photos / ".secret" / "inner")
    filled.rewrite(number=0, path=os.fsencode(photos / ".a.png"))
    filled.rewrite(number=2, path=os.fsencode(photos / ".secret" / "inner" / "e.png"))
    reasons = filled.taken_in(library).reasons
    assert "ignored: hidden" in reasons and "ignored: hidden (its folder)" in reasons


def test_an_ignore_file_that_cannot_be_used_bars_its_folder(filled, library, photos):
    (photos / "inner" / ".foveaignore").write_text("./x\n")
    report = filled.taken_in(library)
    assert (report.taken, report.left) == (3, 2)
    assert "cannot use" in next(iter(report.reasons))


def test_the_last_part_counts_where_a_file_is_twice(filled, library, photos):
    filled.rewrite(number=2, path=os.fsencode(photos / "a.png"), hash="00" * 32, size=1)
    report = filled.taken_in(library)  # the last row is not of that file, so an earlier one counts
    assert report.reasons == {"its content has changed since it was embedded": 1}
    assert report.taken == 4


def test_a_hash_that_is_another_files_is_not_trusted(filled, library, photos):
    import pyarrow.parquet as parquet

    path = filled.folder / "metadata" / "metadata_00000002.parquet"
    filled.rewrite(number=0, hash=parquet.read_table(path)["hash"][0].as_py())
    report = filled.taken_in(library)
    assert (report.taken, report.hashed) == (3, 0)
    assert report.reasons == {"its content has changed since it was embedded": 2}


def test_a_process_that_has_imported_nothing_else_reads_texts(filled):
    """A fresh one: pyarrow brings its functions only where somebody imports them."""
    program = (
        "import pyarrow, pyarrow.parquet, sys\n"
        "from pathlib import Path\n"
        "from fovea.indexer.embedding.foreign.parts import open_part, rows_of\n"
        "paths = map(Path, sys.argv[1:])\n"
        "part = open_part(*paths, 3, ('path',), pyarrow)\n"
        "print(len([row for row, _ in rows_of(part, pyarrow) if row['path']]))"
    )
    parts = [
        next(iter(sorted((filled.folder / kind).iterdir()))) for kind in ("img_emb", "metadata")
    ]
    done = subprocess.run(
        [sys.executable, "-c", program, *parts], capture_output=True, text=True, check=True
    )
    assert done.stdout == "2\n"
