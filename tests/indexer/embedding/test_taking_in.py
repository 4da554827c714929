import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from fovea.search.errors import FoveaError

ROWS = "SELECT path, size, mtime_ns, state, width, format, vector FROM files JOIN images ON " \
    "images.id = image_id JOIN embeddings USING (image_id) ORDER BY path"  # fmt: skip


def test_a_library_is_as_if_it_had_been_indexed(filled, library, photos, scan):
    report = filled.taken_in(library)
    assert (report.rows, report.taken, report.left, report.hashed) == (5, 5, 0, 0)
    mine = library.rows(ROWS)
    after = scan(photos)
    assert (after.unchanged, after.embedded, after.failed) == (5, 0, 1)
    assert library.rows(ROWS) == mine
    again = filled.taken_in(library)
    assert (again.taken, again.unchanged) == (0, 5)


def test_a_file_whose_time_differs_is_read_again_and_taken_if_it_is_the_same(
    filled, library, photos
):
    os.utime(photos / "a.png", (1.1e9, 1.1e9))
    Image.new("RGB", (8, 8), "white").save(photos / "b.png")
    (photos / "c.png").unlink()
    report = filled.taken_in(library)
    assert (report.taken, report.hashed, report.left) == (3, 1, 2)
    assert report.reasons == {
        "its content has changed since it was embedded": 1,
        "no longer there": 1,
    }


def test_another_models_vectors_are_refused_by_name(filled, library):
    filled.model.identity, filled.model.name = "d1" * 32, "other"
    with pytest.raises(FoveaError, match="holds embeddings of colour, not other"):
        filled.taken_in(library)
    assert library.roots() == []


def test_files_without_a_manifest_are_refused(filled, library):
    (filled.folder / "manifest.json").unlink()
    with pytest.raises(FoveaError, match="no manifest.json that names its model"):
        filled.taken_in(library)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"model": {"dim": "3"}}'])
def test_a_manifest_that_is_none_is_refused(filled, library, text):
    (filled.folder / "manifest.json").write_text(text)
    with pytest.raises(FoveaError, match="not a manifest"):
        filled.taken_in(library)


def test_a_newer_manifest_is_refused(filled, library):
    path = filled.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(FoveaError, match="newer fovea"):
        filled.taken_in(library)


@pytest.mark.parametrize(
    ("vectors", "why"),
    [
        (np.zeros((2, 4), "float16"), "not float16"),
        (np.zeros((2, 3), "int8"), "not float16"),
        (np.zeros((1, 3), "float16"), "1 vectors, but metadata_00000000.parquet 2 rows"),
        (np.array([{}, {}], object), "not float16"),
    ],
)
def test_a_part_that_does_not_fit_is_refused_before_anything_is_written(
    filled, library, vectors, why
):
    filled.rewrite(vectors=vectors)
    with pytest.raises(FoveaError, match=why):
        filled.taken_in(library)
    assert library.roots() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 2.0])
def test_what_is_no_unit_vector_is_left_out(filled, library, value):
    filled.rewrite(vectors=np.full((2, 3), value, "float16"))
    report = filled.taken_in(library)
    assert (report.taken, report.reasons) == (3, {"its embedding is not a unit vector": 2})


def test_a_part_without_metadata_or_vectors_is_noticed(filled, library):
    (filled.folder / "metadata" / "metadata_00000000.parquet").unlink()
    assert filled.taken_in(library).rows == 3  # as a run that was killed leaves it
    (filled.folder / "img_emb" / "img_emb_00000001.npy").unlink()
    with pytest.raises(FoveaError, match="has no vectors"):
        filled.taken_in(library)
    shutil.rmtree(filled.folder / "img_emb")
    shutil.rmtree(filled.folder / "metadata")
    with pytest.raises(FoveaError, match="no embeddings in"):
        filled.taken_in(library)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"relative.png", "not absolute"),
        (b"/a/../b.png", "not absolute"),
        (b"/a\0b.png", "not absolute"),
        (b"/etc/passwd", "not a picture by its name"),
        (b"/elsewhere/x.png", "in no folder of the library"),
        (b"s3://bucket/x.png", "a library shows pictures from files"),
    ],
)
def test_rows_of_files_that_a_library_cannot_show_are_counted(filled, library, path, why):
    filled.rewrite(number=2, path=path)
    report = filled.taken_in(library)
    assert (report.taken, report.left) == (4, 1)
    assert why in next(iter(report.reasons))


def test_what_rows_claim_of_pictures_is_believed_only_within_reason(filled, library):
    filled.rewrite(number=2, taken_at="soon'; --", latitude=1e9, width=-4, camera="x" * 9999)
    assert filled.taken_in(library).taken == 5
    sql = "SELECT count(*) FROM images WHERE taken_at IS NULL AND latitude IS NULL AND " \
        "width IS NULL AND camera IS NULL"  # fmt: skip
    assert library.rows(sql) == [(1,)]


def test_folders_can_be_named(filled, library, photos):
    report = filled.taken_in(library, photos / "inner")
    assert (report.taken, report.left) == (2, 3)


def test_files_as_clip_retrieval_writes_them_are_read(filled, library, photos):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    for number in range(3):
        path = filled.folder / "metadata" / f"metadata_{number:08d}.parquet"
        names = parquet.read_table(path, columns=["image_path"])
        parquet.write_table(names.append_column("caption", pa.array(["x"] * len(names))), path)
    report = filled.taken_in(library, photos)
    assert (report.taken, report.hashed) == (5, 5)


def test_members_of_shards_cannot_be_shown(embed, library, photos, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.add(photos / "a.png", arcname="a.png")
    embed(tmp_path / "0.tar")
    report = embed.taken_in(library, tmp_path)
    assert (report.taken, report.left) == (0, 1)
    assert "a library shows pictures from files" in next(iter(report.reasons))
