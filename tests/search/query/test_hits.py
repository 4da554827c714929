"""Images are joined to their files."""

import os

from fovea.search.query.hits import Place, places


def ids_by_name(library):
    rows = library.rows("SELECT path, image_id FROM files")
    return {os.path.basename(os.fsdecode(path)): image_id for path, image_id in rows}


def test_an_image_has_the_paths_of_all_its_files(colour_library, photos, add_file):
    (photos / "copy.png").write_bytes((photos / "red.png").read_bytes())
    image_id = add_file(colour_library, 1, photos / "copy.png")
    found = places(colour_library, [image_id])
    assert found == {image_id: Place((f"{photos}/copy.png", f"{photos}/red.png"), False)}


def test_missing_files_are_left_out(colour_library, photos):
    ids = ids_by_name(colour_library)
    colour_library.mark_missing([os.fsencode(photos / "red.png")])
    found = places(colour_library, ids.values())
    assert ids["red.png"] not in found
    assert len(found) == 7


def test_files_of_an_offline_root_come_last_and_are_marked(
    colour_library, photos, tmp_path, add_file
):
    away = tmp_path / "away"
    away.mkdir()
    root = colour_library.add_root(away)
    (away / "a-red.png").write_bytes((photos / "red.png").read_bytes())
    shared = add_file(colour_library, root.id, away / "a-red.png")
    colour_library.set_root_state(root.id, "offline")
    place = places(colour_library, [shared])[shared]
    assert place == Place((f"{photos}/red.png", f"{away}/a-red.png"), False)
    colour_library.set_root_state(1, "offline")
    assert places(colour_library, [shared])[shared].offline


def test_a_path_that_is_not_utf8_survives_the_round_trip(colour_library, tmp_path, add_file):
    folder = os.fsencode(tmp_path / "photos")
    path = folder + b"/caf\xe9\n.png"
    with open(folder + b"/red.png", "rb") as red, open(path, "wb") as file:
        file.write(red.read() + b" ")  # another content
    image_id = add_file(colour_library, 1, path)
    [found] = places(colour_library, [image_id])[image_id].paths
    assert os.fsencode(found) == path


def test_unknown_images_have_no_places(colour_library):
    assert places(colour_library, []) == {}
    assert places(colour_library, [999]) == {}
