import io
import os
import re
import stat
from pathlib import Path

import pytest

from fovea.search.clip.disk import replace_file
from fovea.search.clip.errors import ModelError


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    for content in (b"one", b"another"):
        replace_file(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("disk")])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise error

    with pytest.raises(ModelError, match=r"cannot write .*file: .*(space|disk).*is unchanged"):
        replace_file(path, fail)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_told_whatever_the_writer_makes_of_it(tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    def write(file):
        try:
            file.write(b"half")
        except OSError as exc:
            raise RuntimeError(
                "[enforce fail at inline_container.cc:672] . unexpected pos"
            ) from exc

    monkeypatch.setattr(Path, "open", lambda path, mode: Full(path, mode))
    with pytest.raises(ModelError) as told:
        replace_file(tmp_path / "file", write)
    place = re.escape(str(tmp_path))
    figures = r"\([0-9.,]+ \w+ free\)"
    said = rf"cannot write {place}/file: the disk of {place} is full {figures}; make room"
    assert re.match(said, str(told.value))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        replace_file(tmp_path / "nowhere" / "file", lambda file: None)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        replace_file(tmp_path / "file", lambda file: file.write(b"x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
