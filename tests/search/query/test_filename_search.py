import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, NewImage, WriteBatch
from fovea.search.query.filename_search import BEGUN, named_images

PATHS = [
    "/photos/holidays/2019/beach.jpg",
    "/photos/holidays/2020/IMG_1.heic",
    "/photos/holidays/beach house 2019.jpg",
    "/photos/beach/a.jpg",
    "/photos/beach/b.jpg",
    "/photos/家庭/小猫照片.jpg",
    "/photos/Cafe\u0301/München dog.jpg",
    os.fsdecode(b"/photos/odd/\xff\xfe cat.jpg"),
    "/photos/trip 🏖/🌅sunset❤\ufe0f.jpg",
]


def filed(library, paths, root=b"/photos"):
    """Store a file with a content of its own for each path, numbered from 1."""
    held = library.add_root(root)
    keys = [number.to_bytes(32, "big") for number in range(1, len(paths) + 1)]
    files = [
        FileWrite(os.fsencode(path), held.id, 1, 1, key)
        for path, key in zip(paths, keys, strict=True)
    ]
    library.write_batch(WriteBatch([NewImage(key, 1) for key in keys], files))


def numbers(library, ids):
    contents = dict(library.rows("SELECT id, hash FROM images"))
    return [int.from_bytes(contents[image_id]) for image_id in ids]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    with Library.open(tmp_path_factory.mktemp("named"), create=True) as library:
        filed(library, PATHS)
        yield library


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("beach", [1, 3, 5, 4]),  # by its own name, the shorter first; then by its folder
        ("2019 holidays", [3, 1]),
        ("holidays", [3, 2, 1]),
        ("img 1", [2]),
        ("IMG_1.heic", [2]),
        ("photos", []),  # the root's own name is everybody's
        ("dog beach", []),
        ("be", []),
        ("bea", [1, 3]),  # where a name's word begins so; a folder's, only once it is whole
        ("beach hou", [3]),
        ("holidays bea", [1, 3]),
        ("beac dog", []),  # the last one alone may go on
        ("holi", []),
        ("münc", [7]),
        ("munchen", [7]),
        ("CAFÉ", [7]),
        ("cafe\u0301 dog", [7]),
        ("猫", [6]),
        ("小猫 jpg 家", [6]),
        ("狗", []),
        ("cat", [8]),
        ("🌅", [9]),
        ("❤", [9]),
        ("sunset 🏖", [9]),
        ("sunset", [9]),
        ("🌅 🌇", []),
        ('"* OR -', []),
        ("\u0301 😀 …", []),
        ("", []),
    ],
)
def test_words_find_names_and_folders_below_the_root(named, words, expected):
    assert numbers(named, named_images(named, words, 10)) == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text() | st.text(st.sampled_from('aé猫²½_ \u0301ªNOT"*:{}^'), max_size=8))
def test_any_words_can_be_looked_for(named, words):
    assert set(named_images(named, words, 3)) <= set(range(1, len(PATHS) + 1))


@pytest.mark.parametrize("kept", [[], [4], [1, 4], [2, 3, 5]])
def test_only_images_that_are_allowed_are_found(named, kept):
    ids = dict(zip(range(1, len(PATHS) + 1), map(int, range(1, len(PATHS) + 1)), strict=True))
    everywhere = named_images(named, "beach", 10)
    allowed = np.array([ids[number] for number in kept], dtype=np.int64)
    expected = [image_id for image_id in everywhere if image_id in kept]
    assert named_images(named, "beach", 10, allowed) == expected


def test_words_that_begin_so_follow_whole_ones_and_are_few(tmp_path):
    with Library.open(tmp_path, create=True) as library:
        filed(library, ["/p/p13.jpg", *(f"/p/p{n}.jpg" for n in range(1300, 1340))], b"/p")
        found = numbers(library, named_images(library, "p13", 24))
        assert found[0] == 1 and len(found) == BEGUN
        assert len(named_images(library, "p13", 3)) == 3
        assert len(named_images(library, "jpg", 24)) == 24  # whole in each name


def test_a_common_word_finds_a_bounded_number_and_rare_ones_among_what_is_allowed(tmp_path):
    with Library.open(tmp_path, create=True) as library:
        filed(library, [f"/p/{n:04}.jpg" for n in range(2500)], b"/p")
        assert len(named_images(library, "jpg", 7)) == 7
        last = np.array([1, 2], dtype=np.int64)  # a word's newest files come first
        assert sorted(named_images(library, "jpg", 7, last)) == [1, 2]


def test_names_follow_the_files(tmp_path):
    with Library.open(tmp_path, create=True) as library:
        filed(library, ["/p/sea/cat.jpg"], b"/p")
        assert named_images(library, "sea cat", 5) == [1]
        library.add_root(b"/p/sea")  # takes the file over: its own name is no word any more
        assert named_images(library, "sea", 5) == [] and named_images(library, "cat", 5) == [1]
        library.mark_missing([b"/p/sea/cat.jpg"])
        assert named_images(library, "cat", 5) == []
        library.delete_files([b"/p/sea/cat.jpg"])
        assert library.rows("SELECT count(*) FROM names") == [(0,)]


def test_a_copy_with_another_name_finds_the_image_once(tmp_path):
    with Library.open(tmp_path, create=True) as library:
        root = library.add_root(b"/p")
        files = [
            FileWrite(path, root.id, 1, 1, b"h" * 32) for path in (b"/p/cat.jpg", b"/p/a cat.jpg")
        ]
        library.write_batch(WriteBatch([NewImage(b"h" * 32, 1)], files))
        assert named_images(library, "cat", 5) == [1]
