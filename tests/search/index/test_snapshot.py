"""A snapshot is believed whole or not at all."""

import os
from dataclasses import replace

import numpy as np
import pytest

from fovea.search.index import snapshot
from fovea.search.index.snapshot import (
    Header,
    SnapshotWriter,
    UnusableSnapshot,
    chunks,
    read_snapshot,
)

HEADER = Header("library", "model", 4, 100, 120, 7)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return {
        "vectors": rng.standard_normal((100, 4)).astype("<f2"),
        "embedding_ids": np.arange(100) + 21,
        "image_ids": rng.permutation(100),
    }


def write(path, rows, header=HEADER, form=None):
    with SnapshotWriter(path) as writer:
        for name, array in rows.items():
            writer.write(name, chunks(array, None, size=30))
        if form is not None:
            writer.write("form", [form])
        checksum = writer.seal(header)
        writer.publish()
    return checksum


@pytest.fixture
def path(tmp_path, rows):
    write(tmp_path / "a.snapshot", rows)
    return tmp_path / "a.snapshot"


def test_what_was_written_is_read(tmp_path, rows):
    header = replace(HEADER, kind="ivf", built_on=100, settings={"nprobe": 8})
    form = np.arange(1000, dtype=np.uint8)
    checksum = write(tmp_path / "a", rows, header, form)
    found = read_snapshot(tmp_path / "a")
    assert found.header == header
    assert found.checksum == checksum
    for name, array in rows.items():
        assert np.array_equal(getattr(found.rows, name), array)
    assert np.array_equal(found.form, form)
    assert not found.rows.vectors.flags.writeable


def test_a_snapshot_without_a_trained_index_or_rows_is_read(tmp_path, path):
    assert read_snapshot(path).form is None
    empty = {
        "vectors": np.empty((0, 4), "<f2"),
        "embedding_ids": np.empty(0, "<i8"),
        "image_ids": np.empty(0, "<i8"),
    }
    write(tmp_path / "b", empty, replace(HEADER, count=0))
    assert len(read_snapshot(tmp_path / "b").rows) == 0


def test_a_mask_chooses_the_rows_that_are_written():
    array, chosen = np.arange(10), np.arange(10) % 3 == 0
    assert np.concatenate(list(chunks(array, chosen, size=4))).tolist() == [0, 3, 6, 9]


def test_every_flipped_byte_is_noticed(path):
    good = path.read_bytes()
    text = len(good[: snapshot.PAGE].rstrip(b"\0"))
    for at in [*range(0, text, 7), *range(snapshot.PAGE, len(good), 13)]:
        damaged = bytearray(good)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(UnusableSnapshot):
            read_snapshot(path)
    path.write_bytes(good)
    read_snapshot(path)


@pytest.mark.parametrize("size", [0, 1, 40, 4095, 4096, 5000, -1])
def test_a_truncated_snapshot_is_unusable(path, size):
    good = path.read_bytes()
    path.write_bytes(good[:size])
    with pytest.raises(UnusableSnapshot):
        read_snapshot(path)


def test_a_longer_file_is_unusable(path):
    with open(path, "ab") as file:
        file.write(b"\0")
    with pytest.raises(UnusableSnapshot, match="bytes instead of"):
        read_snapshot(path)


@pytest.mark.parametrize("content", [b"", b"x" * 9000, b"foveaIX1" + bytes(9000)])
def test_another_file_is_unusable(path, content):
    path.write_bytes(content)
    with pytest.raises(UnusableSnapshot):
        read_snapshot(path)


def test_a_folder_or_an_absent_file_is_unusable(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UnusableSnapshot):
            read_snapshot(path)


def test_a_write_that_stops_leaves_the_old_snapshot_and_no_other_file(path, rows):
    before = path.read_bytes()
    with pytest.raises(RuntimeError), SnapshotWriter(path) as writer:
        writer.write("vectors", [rows["vectors"]])
        raise RuntimeError
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_reader_keeps_the_snapshot_that_it_opened(path, rows):
    old = read_snapshot(path)
    write(path, rows | {"vectors": np.zeros((100, 4), "<f2")})
    assert np.array_equal(old.rows.vectors, rows["vectors"])
    assert not read_snapshot(path).rows.vectors.any()


@pytest.mark.parametrize("change", [{"colour": "red"}, {"count": 101}, {"count": "many"}])
def test_a_header_of_another_version_is_unusable(path, rows, monkeypatch, change):
    whole = snapshot.asdict
    monkeypatch.setattr(snapshot, "asdict", lambda header: whole(header) | change)
    write(path, rows)
    with pytest.raises(UnusableSnapshot, match="another version"):
        read_snapshot(path)


def test_the_checksum_covers_many_chunks_in_their_order(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(snapshot, "CHUNK", 64)
    checksum = write(tmp_path / "a", rows)
    assert read_snapshot(tmp_path / "a").checksum == checksum
    content = (tmp_path / "a").read_bytes()
    page = snapshot.PAGE
    swapped = content[:page] + content[page + 64 : page + 128] + content[page : page + 64]
    (tmp_path / "a").write_bytes(swapped + content[page + 128 :])
    with pytest.raises(UnusableSnapshot, match="checksum"):
        read_snapshot(tmp_path / "a")
