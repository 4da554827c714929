import os

import pytest

from fovea.web.contract.problems import Problem
from fovea.web.views import sources
from fovea.web.views.sources import open_source


@pytest.fixture
def shown(library, tmp_path, add_file):
    """A root in a folder of its own, and the id of the one picture deep below it."""
    from PIL import Image

    folder = tmp_path / "album" / "2019" / "june"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    root = library.add_root(tmp_path / "album")
    return add_file(library, root.id, folder / "red.png")


def opened(library, image_id):
    with open_source(library, image_id) as source:
        return source.file.read(), source.size


def refused(library, image_id):
    with pytest.raises(Problem) as caught:
        opened(library, image_id)
    return caught.value.status


def test_a_file_below_its_root_is_opened(library, shown, tmp_path):
    data = (tmp_path / "album/2019/june/red.png").read_bytes()
    assert opened(library, shown) == (data, len(data))


@pytest.mark.parametrize("swapped", ["album", "album/2019", "album/2019/june"])
def test_no_folder_on_the_way_may_have_become_a_link(library, shown, tmp_path, swapped):
    (tmp_path / swapped).rename(tmp_path / "elsewhere")
    (tmp_path / swapped).symlink_to(tmp_path / "elsewhere")
    assert (tmp_path / "album/2019/june/red.png").is_file()
    assert refused(library, shown) == 410


@pytest.mark.parametrize("target", ["/etc/passwd", "other.png", "/dev/zero", "nothing"])
def test_no_file_may_have_become_a_link(library, shown, tmp_path, target):
    file = tmp_path / "album/2019/june/red.png"
    file.rename(file.with_name("other.png"))
    file.symlink_to(target)
    assert refused(library, shown) == 410


def test_a_folder_swapped_while_we_look_gains_nothing(library, shown, tmp_path, monkeypatch):
    """The swap comes at the worst moment: after the folder around it was opened."""
    folder, outside = tmp_path / "album/2019/june", tmp_path / "outside"
    outside.mkdir()
    (outside / "red.png").write_bytes(b"secret")
    true_open = os.open

    def late_swap(path, flags, *rest, **options):
        if path == b"june":
            folder.rename(tmp_path / "moved")
            folder.symlink_to(outside)
        return true_open(path, flags, *rest, **options)

    monkeypatch.setattr(sources.os, "open", late_swap)
    assert refused(library, shown) == 410
    assert folder.is_symlink()


def test_a_folder_swapped_after_it_was_opened_still_shows_the_picture(
    library, shown, tmp_path, monkeypatch
):
    folder, outside = tmp_path / "album/2019/june", tmp_path / "outside"
    outside.mkdir()
    (outside / "red.png").write_bytes(b"secret")
    data, true_open = (folder / "red.png").read_bytes(), os.open

    def late_swap(path, flags, *rest, **options):
        if path == b"red.png":
            folder.rename(tmp_path / "moved")
            folder.symlink_to(outside)
        return true_open(path, flags, *rest, **options)

    monkeypatch.setattr(sources.os, "open", late_swap)
    assert opened(library, shown)[0] == data


def test_a_file_whose_root_is_registered_no_more_is_not_opened(library, shown, tmp_path):
    with library.transaction() as conn:  # as another process leaves it between two looks
        conn.execute("UPDATE roots SET path = ?", (os.fsencode(tmp_path / "alb"),))
    assert refused(library, shown) == 410


def test_another_copy_is_opened_where_the_first_is_gone(library, shown, tmp_path, add_file):
    second = tmp_path / "copies"
    second.mkdir()
    first = tmp_path / "album/2019/june/red.png"
    data = first.read_bytes()
    (second / "red.png").write_bytes(data)
    assert add_file(library, library.add_root(second).id, second / "red.png") == shown
    first.unlink()
    assert opened(library, shown)[0] == data


def test_no_descriptor_stays_open(library, shown, tmp_path):
    (tmp_path / "album/2019/june/red.png").unlink()
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        assert refused(library, shown) == 410
    assert len(os.listdir("/dev/fd")) == before


def test_an_unknown_image_is_not_found(library):
    assert refused(library, 77) == 404
