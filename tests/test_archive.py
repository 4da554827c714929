import pytest

from coloured import write_tar
from search.clip.archive import open_archive
from search.clip.errors import ModelError

FILES = {"a.txt": b"first", "b.bin": bytes(range(256)) * 40, "empty": b""}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_read_by_name_in_any_order(tmp_path, mode):
    archive = open_archive(write_tar(tmp_path / "some.tar", FILES, mode))
    assert archive.names == list(FILES)
    assert {name: archive.read(name) for name in reversed(FILES)} == FILES


def test_a_folder_is_read_by_relative_names(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "x").write_bytes(b"1")
    archive = open_archive(tmp_path / "in")
    assert archive.names == ["deep/x"]
    assert archive.read("deep/x") == b"1"


def test_a_name_cannot_lead_out_of_its_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"no")
    with pytest.raises(KeyError):
        open_archive(tmp_path / "in").read("../secret")


def test_leading_folders_are_dropped_only_where_names_stay_unique(tmp_path):
    unique = open_archive(write_tar(tmp_path / "u.tar", {"x/a": b"1", "y/b": b"2"}))
    assert unique.names == ["a", "b"] and unique.read("x/a") == unique.read("a") == b"1"
    double = open_archive(write_tar(tmp_path / "d.tar", {"x/a": b"1", "y/a": b"2"}))
    assert double.names == ["x/a", "y/a"]


@pytest.mark.parametrize("data", [b"", b"not a tar at all" * 99, b"\x1f\x8b\x08\x00broken"])
def test_a_damaged_tar_is_named(tmp_path, data):
    path = tmp_path / "bad.tar"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="bad.tar"):
        open_archive(path)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        open_archive(tmp_path / "nowhere")
