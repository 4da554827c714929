import os
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image

from fovea.indexer.embedding.exchange import Exchange
from fovea.search.errors import FoveaError, LibraryBusy
from fovea.search.library.locks import exclusive

NAMES = ["a.png", "b.png", "c.png", "d.png", "e.png"]


def shard(path, *files):
    with tarfile.open(path, "w") as archive:
        for file in files:
            archive.add(file, arcname=f"sample/{file.name}")
    return path


def test_a_folder_becomes_vectors_with_their_metadata(embed, photos):
    report = embed(photos)
    assert (report.found, report.embedded, report.failed) == (6, 5, 1)
    [path] = (embed.folder / "img_emb").iterdir()
    vectors, rows = np.load(path), embed.rows()
    assert path.name == "img_emb_00000000.npy"
    assert (vectors.dtype, vectors.shape) == (np.float16, (5, 3))
    assert np.linalg.norm(vectors.astype("float32"), axis=1) == pytest.approx(1, abs=1e-3)
    assert sorted(embed.names()) == NAMES
    by_name = {row["key"]: (row, vectors[n]) for n, row in enumerate(rows)}
    row, vector = by_name["a"]
    assert vector == pytest.approx([1, 0, 0], abs=0.01)
    assert (row["width"], row["height"], row["format"]) == (8, 8, "PNG")
    assert (len(row["hash"]), row["path"]) == (64, os.fsencode(photos / "a.png"))
    [failed] = embed.rows("failed")
    assert failed["image_path"].endswith("broken.jpg") and failed["reason"] and failed["settled"]


def test_a_rerun_does_only_what_is_missing(embed, photos):
    embed(photos)
    again = embed(photos)
    assert (again.embedded, again.failed, again.unchanged) == (0, 0, 6)
    Image.new("RGB", (8, 8), "white").save(photos / "f.png")
    more = embed(photos)
    assert (more.embedded, more.unchanged) == (1, 6)
    assert sorted(embed.names()) == [*NAMES, "f.png"]


def test_parts_have_numbers_and_hold_as_many_as_asked(embed, photos):
    embed(photos, part=2)
    names = sorted(path.name for path in (embed.folder / "metadata").iterdir())
    assert names == [f"metadata_0000000{n}.parquet" for n in range(3)]
    assert sorted(embed.names()) == NAMES


def test_a_stopped_run_loses_nothing_and_is_gone_on_with(embed, photos):
    stop = threading.Event()
    stop.set()
    assert embed(photos, stop=stop).stopped
    embed(photos)
    assert sorted(embed.names()) == NAMES


@pytest.mark.parametrize("survives", ["img_emb", "img_emb and metadata"])
def test_what_a_killed_run_left_does_no_harm(embed, photos, monkeypatch, survives):
    write = Exchange._write

    def killed(self, kind, number, rows, schema):
        if kind == "failed" or survives == "img_emb":
            raise KeyboardInterrupt
        write(self, kind, number, rows, schema)

    with monkeypatch.context() as patch:
        patch.setattr(Exchange, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            embed(photos)
    embed(photos)
    assert sorted(embed.names()) == NAMES
    assert embed.names("failed") == ["broken.jpg"]
    counts = {kind: len(list((embed.folder / kind).iterdir())) for kind in ("img_emb", "metadata")}
    assert counts["img_emb"] == counts["metadata"]


def test_overlapping_sources_are_embedded_once(embed, photos):
    report = embed(photos, photos / "inner")
    assert sorted(embed.names()) == NAMES
    assert report.embedded == 5


def test_names_that_are_not_text_are_kept(embed, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    name = os.path.join(os.fsencode(folder), b"caf\xe9\n.png")
    try:
        Image.new("RGB", (8, 8), "red").save(os.fsdecode(name))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    embed(folder)
    [row] = embed.rows()
    assert row["path"] == name
    assert "\\udce9" in row["image_path"]
    assert embed(folder).unchanged == 1


def test_shards_are_streamed_and_not_read_twice(embed, photos, tmp_path):
    shard(tmp_path / "0.tar", photos / "a.png", photos / "b.png")
    shard(tmp_path / "1.tar", photos / "c.png", photos / "broken.jpg")
    pattern = tmp_path / "{0..1}.tar"
    before = sorted(tmp_path.rglob("*"))
    report = embed(pattern)
    assert (report.embedded, report.failed, report.shards) == (3, 1, 2)
    written = {path for path in set(tmp_path.rglob("*")) - set(before)}
    assert all(path.is_relative_to(embed.folder) for path in written)
    rows = {row["key"]: row for row in embed.rows()}
    assert rows["a"]["shard"] == str(tmp_path / "0.tar")
    assert rows["a"]["image_path"] == str(tmp_path / "0.tar") + "/sample/a.png"
    again = embed(pattern)
    assert (again.embedded, again.shards_unchanged) == (0, 2)


def test_a_shard_cut_short_is_read_again_without_repeating_a_member(embed, photos, tmp_path):
    whole = shard(tmp_path / "0.tar", photos / "a.png", photos / "b.png").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[:2300])
    report = embed(tmp_path / "0.tar")
    assert report.embedded == 1
    [(place, reason)] = report.problems
    assert place.endswith("0.tar") and "ends within" in reason
    (tmp_path / "0.tar").write_bytes(whole)
    assert embed(tmp_path / "0.tar").embedded == 1
    assert sorted(embed.names()) == ["a.png", "b.png"]


def test_a_shard_that_is_not_there_is_a_problem_of_that_shard(embed, photos, tmp_path):
    shard(tmp_path / "1.tar", photos / "a.png")
    report = embed(tmp_path / "{0..1}.tar")
    assert report.embedded == 1
    assert [reason for _, reason in report.problems] == ["unreadable: not there"]


def listed(path, names, column="path"):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table({"other": list(range(len(names))), column: names}), path)
    return path


def test_a_list_names_paths_and_urls(embed, photos, tmp_path):
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    gone = "memory://nowhere/none.png"
    names = ["photos/a.png", str(photos / "b.png"), f"file://{photos}/c.png", None]
    names += ["photos/none.png", "https://example.org/x.png", gone, "photos/nul\0.png"]
    report = embed(listed(tmp_path / "list.parquet", names, "image_path"))
    assert sorted(embed.names()) == ["a.png", "b.png", "c.png"]
    assert (report.found, report.failed) == (7, 4)
    reasons = {row["image_path"]: row["reason"] for row in embed.rows("failed")}
    assert reasons["https://example.org/x.png"].startswith("https:// is not read")
    assert reasons[gone] == "unreadable: not there"
    assert reasons[str(photos / "none.png")] == "unreadable: not there"
    assert "null character" in reasons[os.path.join(tmp_path, "photos/nul\0.png")]
    again = embed(tmp_path / "list.parquet")
    assert (again.embedded, again.unchanged) == (0, 5)  # what was not there is tried again


def test_a_list_without_the_column_says_which_it_has(embed, tmp_path):
    with pytest.raises(FoveaError, match="has no column path, image_path, url; it has other, file"):
        embed(listed(tmp_path / "list.parquet", ["x"], "file"))


@pytest.mark.parametrize("kind", ["folder", "shards", "list"])
def test_sources_in_memory_are_read_through_fsspec(embed, photos, tmp_path, kind):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    store = fsspec.filesystem("memory")
    store.rm("/b", recursive=True) if store.exists("/b") else None
    names = ("a.png", "b.png", "broken.jpg")
    if kind == "folder":
        for name in names:
            store.pipe(f"/b/photos/{name}", (photos / name).read_bytes())
        store.pipe("/b/photos/.hidden/c.png", (photos / "c.png").read_bytes())
        store.pipe("/b/photos/notes.txt", b"")
        source = "memory://b/photos"
    elif kind == "shards":
        data = shard(tmp_path / "x.tar", *(photos / name for name in names)).read_bytes()
        store.pipe("/b/x0.tar", data)
        source = "memory://b/x{0..0}.tar"
    else:
        for name in names:
            store.pipe(f"/b/{name}", (photos / name).read_bytes())
        path = listed(tmp_path / "l.parquet", [f"memory://b/{name}" for name in names], "url")
        store.pipe("/b/l.parquet", path.read_bytes())
        source = "memory://b/l.parquet"
    report = embed(source)
    assert (report.embedded, report.failed, report.problems) == (2, 1, ())
    assert sorted(embed.names()) == ["a.png", "b.png"]
    again = embed(source)
    assert (again.embedded, again.failed) == (0, 0)


def test_what_cannot_be_read_here_is_refused_before_anything_is_written(embed, tmp_path):
    for source in ("https://x.org/{0..9}.tar", "ftp://x/y", "simplecache::s3://b", "x.tar.gz",
                   tmp_path / "nowhere"):  # fmt: skip
        with pytest.raises(FoveaError):
            embed(source)
    assert not embed.folder.exists()


def test_another_models_folder_is_refused_by_name(embed, photos):
    embed(photos)
    embed.model.identity, embed.model.name = "d1" * 32, "other"
    with pytest.raises(FoveaError, match="holds embeddings of colour, not other"):
        embed(photos)


def test_a_folder_of_other_things_is_left_alone(embed, photos):
    embed.folder.mkdir()
    (embed.folder / "mine.txt").write_text("mine")
    with pytest.raises(FoveaError, match="is not empty"):
        embed(photos)
    assert [path.name for path in embed.folder.iterdir()] == ["mine.txt"]


def test_one_process_at_a_time_fills_a_folder(embed, photos):
    embed(photos)
    with exclusive(embed.folder, "embedding"), pytest.raises(LibraryBusy, match="is embedding"):
        embed(photos)


def test_a_library_gets_the_rows_that_indexing_writes(embed, photos, library, scan):
    report = embed.into(library, photos)
    assert (report.embedded, report.failed) == (5, 1)
    mine = library.rows(
        "SELECT path, size, mtime_ns, ctime_ns, state, reason FROM files ORDER BY path"
    )
    after = scan(photos)
    assert (after.unchanged, after.embedded) == (6, 0)
    theirs = library.rows(
        "SELECT path, size, mtime_ns, ctime_ns, state, reason FROM files ORDER BY path"
    )
    assert mine == theirs
    assert embed.into(library, photos).unchanged == 6


def test_a_list_of_paths_goes_into_a_library_below_their_folder(embed, photos, library, tmp_path):
    path = listed(tmp_path / "l.parquet", ["photos/a.png", "photos/inner/d.png"])
    assert embed.into(library, path).embedded == 2
    assert [root.path for root in library.roots()] == [os.fsencode(photos)]


def test_a_library_holds_no_shards_and_no_urls(embed, photos, library, tmp_path):
    tar = shard(tmp_path / "0.tar", photos / "a.png")
    urls = listed(tmp_path / "l.parquet", ["memory://b/a.png"])
    for source in (tar, urls):
        with pytest.raises(FoveaError, match="a library shows pictures from files"):
            embed.into(library, source)
    assert library.roots() == []
