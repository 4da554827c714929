"""Copies of a picture are grouped around the best original, and nothing else is."""

from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageEnhance

from fovea.search.duplicates.best import LACKS, Facts, lacking, rank
from fovea.search.duplicates.groups import find_duplicates
from fovea.search.library.marks import mark

CAMERA = {"camera": "Toy 1", "dated_by": "DateTimeOriginal"}


def grouped(library, **options):
    """Return the groups as lists of names, the best first."""
    return [
        [Path(one.path).name for one in (group.best, *group.others)]
        for group in find_duplicates(library, **options).groups
    ]


VARIANTS = {
    "small": lambda image: image.resize((120, 80)),
    "cropped": lambda image: image.crop((30, 20, 455, 310)),
    "coloured": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "turned": lambda image: image.rotate(2, resample=Image.Resampling.BICUBIC),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_copy_is_found(library, put, kind, scene):
    put("original.png", scene(1), taken_at="2024-07-01T12:00:00")
    put("other.png", scene(2))
    put("copy.png", VARIANTS[kind](scene(1)))
    assert grouped(library) == [["original.png", "copy.png"]]


def test_the_one_that_was_changed_is_not_the_best(library, put, scene):
    """A watermark makes a picture sharper and its file larger, but the others lack it."""
    marked = scene(1).copy()
    ImageDraw.Draw(marked).rectangle((40, 150, 300, 170), fill="white")
    marked = Image.blend(scene(1), marked, 0.5)
    put("marked.png", marked, taken_at="2024-07-01T12:00:00")
    put("one.png", scene(1))
    put("two.png", scene(1).resize((440, 300)))
    [[best, *others]] = grouped(library)
    assert best == "one.png" and sorted(others) == ["marked.png", "two.png"]
    [group] = find_duplicates(library).groups
    lacks = {Path(one.path).name: one.lacks for one in group.others}
    assert "changed" in lacks["marked.png"] and "changed" not in lacks["two.png"]


def test_different_pictures_with_the_same_embedding_are_no_copies(library, put, scene):
    for seed in range(12):
        put(f"{seed}.png", scene(seed), likeness=0)
    assert grouped(library) == []


def test_what_the_camera_took_at_another_second_is_no_copy(library, put, scene):
    put("one.png", scene(1), taken_at="2024-07-01T12:00:00", **CAMERA)
    put("two.png", scene(1).resize((470, 310)), taken_at="2024-07-01T12:00:01", **CAMERA)
    assert grouped(library) == []
    assert [sorted(names) for names in grouped(library, bursts=True)] == [["one.png", "two.png"]]


def test_a_picture_without_a_date_does_not_join_two_moments(library, put, scene):
    put("one.png", scene(1), taken_at="2024-07-01T12:00:00", **CAMERA)
    put("two.png", scene(1).resize((470, 310)), taken_at="2024-07-01T12:00:01", **CAMERA)
    put("undated.png", scene(1).resize((240, 160)))
    [names] = grouped(library)
    assert len(names) == 2 and {"one.png", "two.png"} - set(names)


def test_a_burst_ends_after_seconds_and_where_the_scene_changes(library, put, scene):
    put("one.png", scene(1), taken_at="2024-07-01T12:00:00", **CAMERA)
    put("two.png", scene(2), taken_at="2024-07-01T12:00:02", **CAMERA)
    put("late.png", scene(3), taken_at="2024-07-01T12:00:09", **CAMERA)
    put("elsewhere.png", scene(4), likeness=5, taken_at="2024-07-01T12:00:10", **CAMERA)
    [names] = grouped(library, bursts=True)
    assert sorted(names) == ["one.png", "two.png"]


def test_no_chain_of_look_alikes_joins_what_is_no_copy(library, put, scene):
    """Each crop is a copy of the next, but the last shows too little of the first."""
    whole = scene(1, (960, 640))
    for step in range(5):
        left = 60 * step
        put(f"{step}.png", whole.crop((left, 0, left + 600, 640)))
    for names in grouped(library):
        steps = sorted(int(name[0]) for name in names)
        assert steps[-1] - steps[0] <= 2


def test_equal_files_are_copies_even_without_a_signature(library, put, scene):
    put("b.png", scene(1), signed=False)
    put("a.png", scene(1), signed=False)
    found = find_duplicates(library)
    [group] = found.groups
    assert [one.lacks for one in group.others] == [("nothing",)]
    assert found.waiting == found.pictures == 1
    with library.writing(), library.transaction() as conn:
        conn.execute("UPDATE images SET duration_ms = 1000")
    assert find_duplicates(library).waiting == 0  # a video has no signature to wait for


def test_the_oldest_of_equal_files_then_the_shortest_name_is_the_best(library, put, scene):
    for name in ("a (1).png", "a.png", "copy of a.png"):
        put(name, scene(1))
    assert grouped(library) == [["a.png", "a (1).png", "copy of a.png"]]
    with library.transaction() as conn:
        conn.execute("UPDATE files SET mtime_ns = 2 WHERE CAST(path AS TEXT) NOT LIKE '%copy of%'")
    assert grouped(library) == [["copy of a.png", "a.png", "a (1).png"]]


def test_videos_do_not_wait_for_a_signature(library, put, scene):
    put("film.mp4", scene(1), signed=False, duration_ms=5000)
    put("picture.png", scene(2), signed=False)
    found = find_duplicates(library)
    assert (found.pictures, found.waiting) == (2, 1)


def test_hidden_pictures_are_left_out(library, put, scene):
    put("original.png", scene(1))
    put("copy.png", scene(1).resize((120, 80)))
    [(content,)] = library.rows("SELECT hash FROM images WHERE width = 120")
    mark(library, [content], "hidden", True)
    assert grouped(library) == []


def test_a_broken_signature_costs_its_picture_alone(library, put, scene):
    put("original.png", scene(1))
    put("small.png", scene(1).resize((240, 160)))
    put("broken.png", scene(1).resize((120, 80)))
    with library.transaction() as conn:
        conn.execute(
            "UPDATE signatures SET grey = x'00' WHERE image_id = "
            "(SELECT id FROM images WHERE width = 120)"
        )
    assert grouped(library) == [["original.png", "small.png"]]


def test_an_empty_library_and_flat_pictures_have_no_copies(library, put):
    assert grouped(library) == []
    for grey in (0, 10, 200):
        put(f"{grey}.png", Image.new("L", (64 + grey, 64), grey))
    assert grouped(library) == []


def test_the_best_is_whole_then_large_then_described_then_lossless():
    plain = Facts(1000, "JPEG", 100, 10.0, False, False, False)
    worse = [
        Facts(9000, "JPEG", 100, 10.0, True, True, True, is_damaged=True),
        Facts(500, "TIFF", 100, 20.0, True, True, True),
        Facts(1000, "WEBP", 100, 20.0, False, False, False),
        Facts(1000, "JPEG", 100, 9.0, False, False, False),
        Facts(1000, "JPEG", 50, 10.0, False, False, False),
    ]
    assert all(rank(other) < rank(plain) for other in worse)
    assert lacking(worse[0], plain) == ("whole",)
    assert lacking(worse[1], plain) == ("pixels",)
    assert set(lacking(worse[4], plain)) == {"quality"} <= set(LACKS)


def test_progress_reaches_all_pairs(library, put, scene):
    put("original.png", scene(1))
    put("copy.png", scene(1).resize((120, 80)))
    told = []
    find_duplicates(library, progress=lambda done, total: told.append((done, total)))
    assert told and told[-1][0] == told[-1][1] == 1


def test_signatures_go_with_their_pictures_and_with_the_switch(library, put, scene):
    from fovea.search.analyses.stored import switch

    put("one.png", scene(1))
    assert library.rows("SELECT count(*) FROM signatures") == [(1,)]
    switch(library, "copies", False)
    assert library.rows("SELECT count(*) FROM signatures") == [(0,)]
    put("two.png", scene(2))
    assert library.rows("SELECT count(*) FROM signatures") == [(0,)]
    switch(library, "copies", True)
    put("three.png", scene(3))
    library.delete_files([path for (path,) in library.rows("SELECT path FROM files")])
    assert library.rows("SELECT count(*) FROM signatures, analyses") == [(0,)]
