"""Sidecars of a library that changes: what is removed, what is counted, whose tree is whose."""

import os
from hashlib import sha256

import pytest
from PIL import Image

from fovea.indexer.sidecars.exchange import SidecarReport, read_sidecars, write_sidecars
from fovea.indexer.sidecars.packet import Sidecar, sidecar_bytes
from fovea.search.library.marks import contents, mark, marked
from fovea.search.tags import stored
from fovea.search.tags.stored import examples_of, forget_tag, say, tags


@pytest.fixture
def hashes(colour_library):
    """Name -> content of the eight pictures."""
    rows = colour_library.rows("SELECT path, image_id FROM files")
    ids = {os.path.basename(path).decode()[:-4]: image_id for path, image_id in rows}
    known = contents(colour_library, ids.values())
    return {name: known[image_id] for name, image_id in ids.items()}


def favourites(library):
    return {content for content, _ in marked(library, "favourite")}


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*.xmp"))


@pytest.fixture(params=["folder", "beside"])
def target(request, tmp_path):
    return tmp_path / "out" if request.param == "folder" else None


def test_what_was_taken_away_does_not_come_back(colour_library, photos, hashes, target):
    where = photos if target is None else target
    mark(colour_library, [hashes["red"], hashes["lime"]], "favourite", True)
    say(colour_library, "sea", yes=[hashes["blue"], hashes["lime"]])
    assert write_sidecars(colour_library, target) == SidecarReport(3)
    theirs = sidecar_bytes(Sidecar(("theirs",))).replace(b'"fovea"', b'"XMP Core 6.0"')
    place = next(where.rglob("red.png.xmp"))
    for name in ("cyan", "maroon"):
        (place.parent / f"{name}.png.xmp").write_bytes(theirs)
    mark(colour_library, [hashes["red"]], "favourite", False)
    mark(colour_library, [hashes["lime"]], "hidden", True)
    forget_tag(colour_library, "sea")
    assert write_sidecars(colour_library, target) == SidecarReport(0, removed=3)
    assert names_in(where) == ["cyan.png.xmp", "maroon.png.xmp"]
    assert (place.parent / "cyan.png.xmp").read_bytes() == theirs
    read_sidecars(colour_library, target)
    assert favourites(colour_library) == {hashes["lime"]}
    assert [tag.name for tag in tags(colour_library)] == ["theirs"]


def test_what_others_added_to_a_silent_sidecar_stays(colour_library, photos, hashes):
    mark(colour_library, [hashes["red"]], "favourite", True)
    write_sidecars(colour_library, None)
    place = photos / "red.png.xmp"
    changed = place.read_bytes().replace(
        b"<xmp:Rating>", b"<xmp:Label>mine</xmp:Label><xmp:Rating>"
    )
    place.write_bytes(changed)
    os.mkfifo(photos / "blue.png.xmp")
    mark(colour_library, [hashes["red"]], "favourite", False)
    assert write_sidecars(colour_library, None) == SidecarReport(0)
    assert place.read_bytes() == changed


def test_nothing_is_removed_through_a_link_in_the_folder(colour_library, photos, hashes, tmp_path):
    mark(colour_library, [hashes["red"]], "favourite", True)
    write_sidecars(colour_library, None)
    mark(colour_library, [hashes["red"]], "favourite", False)
    out = tmp_path / "out"
    out.mkdir()
    (out / photos.name).symlink_to(photos)
    assert write_sidecars(colour_library, out) == SidecarReport(0, failed=1)
    assert names_in(photos) == ["red.png.xmp"]


@pytest.mark.parametrize("is_dangling", [True, False])
def test_a_link_is_neither_written_through_nor_replaced(
    colour_library, photos, hashes, tmp_path, is_dangling
):
    mark(colour_library, [hashes["red"]], "favourite", True)
    ours = sidecar_bytes(Sidecar(("ours",)))
    elsewhere = tmp_path / "elsewhere.xmp"
    if not is_dangling:
        elsewhere.write_bytes(ours)
    for name in ("red", "blue"):
        (photos / f"{name}.png.xmp").symlink_to(elsewhere)
    assert write_sidecars(colour_library, None) == SidecarReport(0, left=1)
    assert all((photos / f"{name}.png.xmp").readlink() == elsewhere for name in ("red", "blue"))
    assert elsewhere.exists() != is_dangling
    assert is_dangling or elsewhere.read_bytes() == ours


@pytest.fixture
def long_named(colour_library, photos, add_file):
    """A picture whose sidecar's own name would be too long: 252 bytes without ".xmp"."""
    path = photos / ("é" * 124 + ".png")
    Image.new("RGB", (8, 8), "orange").save(path)
    [root] = colour_library.roots()
    image_id = add_file(colour_library, root.id, path)
    return path, contents(colour_library, [image_id])[image_id]


def test_a_name_too_long_for_its_own_sidecar(colour_library, long_named):
    path, content = long_named
    assert write_sidecars(colour_library, None) == SidecarReport(0)
    assert read_sidecars(colour_library, None) == SidecarReport(0)
    path.with_suffix(".xmp").write_bytes(sidecar_bytes(Sidecar(("long",))))
    assert read_sidecars(colour_library, None) == SidecarReport(1, read=1)
    assert examples_of(colour_library, "long") == {content: True}
    assert write_sidecars(colour_library, None) == SidecarReport(0, failed=1)


def test_a_long_name_that_still_has_room_is_written(colour_library, photos, add_file):
    path = photos / ("日" * 81 + ".png")  # 251 bytes with ".xmp"
    Image.new("RGB", (8, 8), "orange").save(path)
    [root] = colour_library.roots()
    image_id = add_file(colour_library, root.id, path)
    mark(colour_library, contents(colour_library, [image_id]).values(), "favourite", True)
    assert write_sidecars(colour_library, None) == SidecarReport(1)
    assert names_in(photos) == [f"{path.name}.xmp"]


def test_a_report_says_what_happened(colour_library, photos, hashes, monkeypatch):
    say(colour_library, "known", yes=[hashes["red"]])
    said = {
        "red": Sidecar(("known",)),  # nothing new
        "blue": Sidecar(("known", "second"), 5),
        "lime": Sidecar(("third", "fourth", "fifth")),  # two tags too many
        "cyan": Sidecar((), 3),
    }
    for name, sidecar in said.items():
        (photos / f"{name}.png.xmp").write_bytes(sidecar_bytes(sidecar))
    (photos / "maroon.png.xmp").write_bytes(b"<broken")
    monkeypatch.setattr(stored, "MOST", 3)
    report = read_sidecars(colour_library, None)
    assert report == SidecarReport(2, read=4, failed=1, refused=2)
    assert {tag.name for tag in tags(colour_library)} == {"known", "second", "third"}
    assert favourites(colour_library) == {hashes["blue"]}
    assert read_sidecars(colour_library, None) == SidecarReport(0, read=4, failed=1, refused=2)


def test_all_keywords_are_taught_in_one_transaction(colour_library, photos, hashes, monkeypatch):
    words = tuple(f"word {number}" for number in range(50))
    (photos / "red.png.xmp").write_bytes(sidecar_bytes(Sidecar(words, 5)))
    begun = []
    colour_library.conn.set_trace_callback(
        lambda sql: begun.append(sql) if sql.startswith("BEGIN IMMEDIATE") else None
    )
    monkeypatch.setattr("fovea.indexer.sidecars.exchange.refresh_if_possible", lambda library: None)
    assert read_sidecars(colour_library, None).pictures == 1
    assert len(tags(colour_library)) == 50 and len(begun) == 1


@pytest.fixture
def two_roots(library, add_file, tmp_path):
    """The contents of two folders of the same name, each with a picture of the same name."""
    ids = []
    for number, colour in (("1", "red"), ("2", "blue")):
        folder = tmp_path / number / "Pictures"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(folder / "a.png")
        ids.append(add_file(library, library.add_root(folder).id, folder / "a.png"))
    known = contents(library, ids)
    return [known[image_id] for image_id in ids]


def test_a_root_reads_its_own_tree_when_another_of_its_name_is_removed(
    library, two_roots, tmp_path
):
    first, second = two_roots
    mark(library, [first], "favourite", True)
    out = tmp_path / "out"
    assert write_sidecars(library, out) == SidecarReport(1)
    digests = [sha256(os.fsencode(tmp_path / n / "Pictures")).hexdigest()[:8] for n in "12"]
    assert sorted(path.name for path in out.iterdir()) == sorted(f"Pictures-{d}" for d in digests)
    library.remove_root(library.roots()[0].id)
    assert read_sidecars(library, out) == SidecarReport(0)
    assert write_sidecars(library, out) == SidecarReport(0), "the other's is not removed either"
    assert names_in(out) == ["a.png.xmp"] and second not in favourites(library)


def test_trees_of_older_exports_are_read(library, two_roots, tmp_path):
    out = tmp_path / "out"
    other = library.roots()[1].id
    for name, word in (("Pictures", "first"), (f"Pictures ({other})", "second")):
        (out / name).mkdir(parents=True)
        (out / name / "a.png.xmp").write_bytes(sidecar_bytes(Sidecar((word,))))
    assert read_sidecars(library, out) == SidecarReport(2, read=2)
    assert examples_of(library, "first") == {two_roots[0]: True}
    assert examples_of(library, "second") == {two_roots[1]: True}
    for tag in tags(library):
        forget_tag(library, tag.name)
    library.remove_root(library.roots()[0].id)
    read_sidecars(library, out)
    assert [tag.name for tag in tags(library)] == ["second"]


def test_a_folder_may_have_the_longest_name(library, add_file, tmp_path):
    folder = tmp_path / ("x" * 255)
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    image_id = add_file(library, library.add_root(folder).id, folder / "a.png")
    mark(library, contents(library, [image_id]).values(), "favourite", True)
    assert write_sidecars(library, tmp_path / "out") == SidecarReport(1)
    assert read_sidecars(library, tmp_path / "out") == SidecarReport(0, read=1)
