import os
import shutil

import pytest

from fovea.indexer.embedding.lists import NAME, names_in
from fovea.search.errors import FoveaError

pa = pytest.importorskip("pyarrow", reason="pyarrow, of fovea[cluster], is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


def listed(path, names, kind=None, **options):
    parquet.write_table(pa.table({"path": pa.array(list(map(str_of, names)), kind)}), path)
    return path


def str_of(name):
    return os.fspath(name) if isinstance(name, os.PathLike) else name


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(),
                                  pa.dictionary(pa.int32(), pa.string())])  # fmt: skip
def test_names_come_in_full_whatever_their_column(tmp_path, kind):
    place = listed(tmp_path / "l.parquet", ["a.png", None, "", "/b/c.png", "a.png"], kind)
    here = os.fsencode(tmp_path)
    assert list(names_in(str(place))) == [here + b"/a.png", b"/b/c.png", here + b"/a.png"]


def test_paths_are_those_that_a_walk_finds(tmp_path):
    (tmp_path / "photos" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("photos/inner")
    (tmp_path / "link.png").symlink_to("photos/a.png")
    names = ["photos//a.png", "./photos/./a.png", "photos/inner/../a.png", "link/../a.png"]
    names += ["link.png", f"file://{tmp_path}/photos/../b.png", f"FILE://{tmp_path}/b.png"]
    found = list(names_in(str(listed(tmp_path / "l.parquet", names))))
    top = os.fsencode(os.path.realpath(tmp_path))
    assert found == [top + b"/photos/a.png"] * 4 + [top + b"/link.png"] + [top + b"/b.png"] * 2


def test_a_list_in_a_store_names_what_is_beside_it(tmp_path):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    names = ["../photos/a.png", "b.png", "/c/d.png", "S3://Bucket/e.png"]
    data = listed(tmp_path / "l.parquet", names).read_bytes()
    fsspec.filesystem("memory").pipe("/top/lists/l.parquet", data)
    assert list(names_in("memory://top/lists/l.parquet")) == [
        b"memory://top/photos/a.png", b"memory://top/lists/b.png", b"/c/d.png",
        b"s3://Bucket/e.png",
    ]  # fmt: skip


def test_a_name_of_a_megabyte_is_not_multiplied(tmp_path, monkeypatch):
    import pyarrow

    place = listed(tmp_path / "l.parquet", ["x" * (1 << 20)] * 400)
    assert place.stat().st_size < 100_000
    before = pyarrow.total_allocated_bytes()
    most = 0
    for name in names_in(str(place)):
        most = max(most, pyarrow.total_allocated_bytes() - before)
        assert len(os.path.basename(name)) == NAME
    assert 0 < most < 50 << 20


def test_a_column_of_nothing_but_long_names_is_refused(tmp_path):
    place = tmp_path / "l.parquet"
    names = [str(number) * (1 << 20) for number in range(9)]
    parquet.write_table(pa.table({"path": names}), place, use_dictionary=False)
    with pytest.raises(FoveaError, match="names of more than 4096 bytes"):
        list(names_in(str(place)))


def test_what_is_no_file_is_refused_without_waiting(embed, photos, tmp_path):
    os.mkfifo(photos / "pipe.png")
    (photos / "link.png").symlink_to("a.png")
    (photos / "folder.png").mkdir()
    names = ["pipe.png", f"file://{photos}/pipe.png", "link.png", "folder.png", "a\0.png",
             "x" * 5000 + ".png", "a.png"]  # fmt: skip
    place = listed(photos / "l.parquet", names)
    report = embed(place)
    assert embed.names() == ["a.png"]
    assert report.failed + report.embedded == 6  # the pipe is one file
    reasons = {row["image_path"]: row["reason"] for row in embed.rows("failed")}
    assert reasons[str(photos / "pipe.png")] == "not a file but a named pipe"
    assert reasons[str(photos / "link.png")] == "not a file but a symbolic link"
    assert reasons[str(photos / "folder.png")] == "not a file but a folder"


@pytest.mark.parametrize("ending", ["parquet", "tar"])
def test_a_source_that_is_a_pipe_is_refused_without_waiting(embed, tmp_path, ending):
    os.mkfifo(tmp_path / f"pipe.{ending}")
    if ending == "parquet":
        with pytest.raises(FoveaError, match="not a file but a named pipe"):
            embed(tmp_path / "pipe.parquet")
    else:
        [(_, reason)] = embed(tmp_path / "pipe.tar").problems
        assert reason == "unreadable: not a file but a named pipe"


@pytest.mark.parametrize("scheme", ["file", "FILE"])
def test_a_folder_may_be_a_url(embed, photos, scheme):
    assert embed(f"{scheme}://{photos}").embedded == 5
    assert embed(photos).unchanged == 6


def test_a_folder_and_a_list_of_it_are_embedded_once(embed, photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    names = [photos / "a.png", photos / "inner" / ".." / "b.png", tmp_path / "link" / "c.png",
             f"file://{photos}/inner/d.png"]  # fmt: skip
    place = listed(tmp_path / "l.parquet", names)
    assert embed(photos, place).embedded == 5
    again = embed(place)
    assert (again.embedded, again.unchanged) == (0, 4)


def test_a_listed_file_that_has_changed_is_embedded_again(embed, photos):
    place = listed(photos / "l.parquet", ["a.png", "b.png"])
    embed(place)
    shutil.copy(photos / "c.png", photos / "a.png")
    again = embed(place)
    assert (again.embedded, again.unchanged) == (1, 1)


def test_a_list_goes_into_a_library_once(embed, photos, library, scan, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    names = ["../photos//a.png", f"{photos}/../photos/b.png", "../link/inner/d.png"]
    names += [f"file://{photos}/c.png", "../photos/none.png"]
    (tmp_path / "lists").mkdir()
    place = listed(tmp_path / "lists" / "l.parquet", names)
    report = embed.into(library, place)
    assert report.embedded == 4
    assert report.problems == ((str(photos / "none.png"), "unreadable: not there"),)
    assert [root.path for root in library.roots()] == [os.fsencode(photos)]
    [(count,)] = library.rows("SELECT count(*) FROM files WHERE state = 'indexed'")
    assert count == 4
    again = embed.into(library, place)
    assert (again.embedded, again.unchanged) == (0, 4)
    after = scan(photos)
    assert (after.unchanged, after.embedded, after.moved, after.deleted) == (4, 1, 0, 0)


def test_a_library_has_no_file_outside_of_its_folders(embed, photos, library, tmp_path):
    (tmp_path / "secret").mkdir()
    shutil.copy(photos / "c.png", tmp_path / "secret" / "c.png")
    embed.into(library, photos)
    place = listed(photos / "l.parquet", ["../secret/c.png"])
    embed.into(library, place)
    roots = {root.id: root.path for root in library.roots()}
    for path, root in library.rows("SELECT path, root_id FROM files"):
        assert os.path.realpath(path).startswith(roots[root] + b"/")
    assert os.fsencode(tmp_path / "secret") in roots.values()
