import errno
import tempfile

import pytest

from coloured import write_tar
from fovea.search.clip.datasets.archive import open_archive
from fovea.search.clip.errors import ModelError

FILES = {"a.txt": b"first", "b.bin": bytes(range(256)) * 40, "empty": b""}
BROKEN_GZ = b"\x1f\x8b\x08\x00broken"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_read_by_name_in_any_order(tmp_path, mode):
    archive = open_archive(write_tar(tmp_path / "some.tar", FILES, mode))
    assert archive.names == list(FILES)
    assert {name: archive.read(name) for name in reversed(FILES)} == FILES
    assert [archive.size(name) for name in FILES] == [len(data) for data in FILES.values()]


def test_a_folder_is_read_by_relative_names(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "x").write_bytes(b"1")
    archive = open_archive(tmp_path / "in")
    assert archive.names == ["deep/x"]
    assert archive.read("deep/x") == b"1"
    assert archive.size("deep/x") == 1
    (tmp_path / "in" / "deep" / "x").unlink()
    assert archive.size("deep/x") == 0


def test_a_name_cannot_lead_out_of_its_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"no")
    with pytest.raises(KeyError):
        open_archive(tmp_path / "in").read("../secret")


def test_a_link_in_a_folder_is_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"yes")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    archive = open_archive(tmp_path / "in")
    assert [archive.read(name) for name in archive.names] == [b"yes"]


def test_a_tar_of_the_folder_it_was_made_in_has_plain_names(tmp_path):
    archive = open_archive(write_tar(tmp_path / "dot.tar", {"./x/a": b"1", "./y/a": b"2"}))
    assert archive.names == ["x/a", "y/a"]
    assert archive.read("y/a") == b"2"


@pytest.mark.parametrize(
    "data", [b"", b"not a tar at all" * 99, BROKEN_GZ, b"\xfd7zXZ\x00broken", b"BZhbroken"]
)
def test_a_damaged_tar_is_named(tmp_path, data):
    path = tmp_path / "bad.tar"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="bad.tar"):
        open_archive(path)


def test_a_tar_cut_short_is_named(tmp_path):
    path = write_tar(tmp_path / "short.tar", FILES, "w:gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ModelError, match="short.tar is damaged"):
        open_archive(path)


def test_a_disk_too_full_to_unpack_on_is_named(tmp_path, monkeypatch):
    class Full:
        def write(self, block):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(ModelError, match="No space left on device; make room"):
        open_archive(write_tar(tmp_path / "some.tar", FILES, "w:gz"))


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        open_archive(tmp_path / "nowhere")
