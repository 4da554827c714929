"""Searches are saved under names, in an order, and mean the same pictures for good."""

import random

import pytest

from fovea.search.errors import LibraryError, LibraryReadOnly, QueryError
from fovea.search.library.library import Library
from fovea.search.library.marks import contents, mark, marked
from fovea.search.maintenance.forget import forget_root
from fovea.search.maintenance.keepsakes import ImportReport, exported, imported
from fovea.search.maintenance.salvage import salvage
from fovea.search.query.saved import (
    LONGEST_NAME,
    MOST,
    NO_IMAGE,
    SearchRefused,
    delete_search,
    edit_search,
    save_search,
    saved_searches,
)
from places import read_only


def listed(library):
    return [(search.name, search.query) for search in saved_searches(library)]


def test_searches_are_listed_in_the_order_people_give_them(library):
    """Against a plain list, whatever is done to it."""
    draw, expected = random.Random(3), []
    for step in range(200):
        action = draw.choice(("save", "edit", "move", "delete"))
        found = saved_searches(library)
        at = draw.randrange(len(found)) if found else 0
        place = draw.randint(0, len(found) + 1)
        if action == "save" or not found:
            entry = (f"search {step}", f"red {step}")
            save_search(library, *entry, place=place if step % 2 else None)
            expected.insert(place if step % 2 else len(expected), entry)
        elif action == "edit":
            expected[at] = (f"name {step}", f"blue {step}")
            edit_search(library, found[at].id, name=f"name {step}", query=f"blue {step}")
        elif action == "move":
            entry = expected.pop(at)
            expected.insert(place, entry)
            assert edit_search(library, found[at].id, place=place).name == entry[0]
        else:
            delete_search(library, found[at].id)
            del expected[at]
        assert listed(library) == expected, (step, action)


def test_a_query_that_cannot_be_read_is_not_saved(library):
    with pytest.raises(QueryError, match="there is no filter 'colour:'"):
        save_search(library, "Red", "colour:red")
    made = save_search(library, "Red", "  red  -is:square ")
    assert made.query == "  red  -is:square "
    with pytest.raises(QueryError):
        edit_search(library, made.id, query='"')
    assert listed(library) == [("Red", "  red  -is:square ")]


@pytest.mark.parametrize("name", ["", "   ", "a" * (LONGEST_NAME + 1), "a\x1b[31m", "\ud800"])
def test_a_name_that_is_none_is_refused(library, name):
    with pytest.raises(SearchRefused) as refused:
        save_search(library, name, "red")
    assert refused.value.code == "search.name"
    assert "\n" not in str(refused.value)


def test_white_space_in_a_name_is_one_space(library):
    assert save_search(library, " two\n words\t", "red").name == "two words"


def test_names_that_look_alike_are_one_name(library):
    made = save_search(library, "Café", "red")
    for name in ("café", "CAFE", "  cafe\u0301 "):
        with pytest.raises(SearchRefused, match="a search named 'Café' already"):
            save_search(library, name, "blue")
    assert edit_search(library, made.id, name="CAFÉ").name == "CAFÉ"
    other = save_search(library, "Tea", "green")
    with pytest.raises(SearchRefused, match="already"):
        edit_search(library, other.id, name="cafe")
    assert listed(library) == [("CAFÉ", "red"), ("Tea", "green")]


def test_what_is_not_there_or_too_much_is_refused(library):
    for change in (delete_search, lambda library, key: edit_search(library, key, name="x")):
        with pytest.raises(SearchRefused, match="no saved search '7'"):
            change(library, 7)
    with pytest.raises(SearchRefused, match="at most 2,000 characters"):
        save_search(library, "Long", "a" * 2001)
    with pytest.raises(SearchRefused, match="UTF-8"):
        save_search(library, "Bytes", "in:\udcff")
    with library.transaction() as conn:
        conn.executemany(
            "INSERT INTO searches (name, folded, query, likes, place, saved_at) "
            "VALUES (?, ?, '', '{}', ?, '')",
            [(f"n{number}", f"n{number}", number) for number in range(MOST)],
        )
    with pytest.raises(SearchRefused, match="1,000 saved searches"):
        save_search(library, "one more", "red")


def test_a_picture_in_a_query_is_known_by_its_content(colour_library, photos, add_file):
    """Removed and indexed again, it has another number; the search means it all the same."""
    ids = {
        path.rpartition(b"/")[2]: key
        for path, key in colour_library.rows("SELECT path, image_id FROM files")
    }
    red, blue = ids[b"red.png"], ids[b"blue.png"]
    query = f"beach  -2:like:{red} like:{blue} like:999 in:photos"
    made = save_search(colour_library, "Like red", query)
    assert made.query == query
    [root] = colour_library.roots()
    forget_root(colour_library, root.id)
    assert listed(colour_library) == [("Like red", query)]
    root = colour_library.add_root(photos)
    for path in sorted(photos.iterdir(), reverse=True):
        add_file(colour_library, root.id, path)
    now = {
        path.rpartition(b"/")[2]: key
        for path, key in colour_library.rows("SELECT path, image_id FROM files")
    }
    assert now[b"red.png"] != red
    again = f"beach -2:like:{now[b'red.png']} like:{now[b'blue.png']} like:999 in:photos"
    assert listed(colour_library) == [("Like red", again)]


def test_an_export_fits_any_library(colour_library, tmp_path):
    ids = [key for (key,) in colour_library.rows("SELECT id FROM images ORDER BY id")]
    hashes = list(contents(colour_library, ids).values())
    mark(colour_library, hashes[:3], "favourite", True)
    mark(colour_library, [hashes[4], b"\7" * 32], "hidden", True)
    save_search(colour_library, "Like it", f"like:{ids[2]}")
    save_search(colour_library, "Beach", "beach -people")
    document = exported(colour_library)
    paths = {entry["sha256"]: entry.get("path") for entry in document["favourites"]}
    assert paths.keys() == {content.hex() for content in hashes[:3]}
    assert paths[hashes[0].hex()].endswith("/photos/blue.png")
    hidden = {entry["sha256"]: entry.get("path") for entry in document["hidden"]}
    assert hidden.keys() == {hashes[4].hex(), "07" * 32} and hidden["07" * 32] is None
    with Library.open(tmp_path / "other", create=True) as other:
        assert imported(other, document) == ImportReport(3, 2, 2, 5)
        assert imported(other, document) == ImportReport(0, 0, 0, 5)
        for kind in ("favourite", "hidden"):
            before = [content for content, _ in marked(colour_library, kind)]
            assert [content for content, _ in marked(other, kind)] == before
        assert listed(other) == listed(colour_library)
        again = exported(other)
        assert again["searches"] == document["searches"]
    assert imported(colour_library, document) == ImportReport(0, 0, 0, 1)


def test_an_imported_picture_that_is_absent_is_no_other_one(colour_library):
    """Its number in the other library belongs to another picture here."""
    document = {
        "fovea": 1,
        "searches": [{"name": "Like it", "query": "like:1 sea", "pictures": {"1": "07" * 32}}],
    }
    assert imported(colour_library, document).searches == 1
    assert listed(colour_library) == [("Like it", f"like:{NO_IMAGE} sea")]
    [made] = saved_searches(colour_library)
    edit_search(colour_library, made.id, name="Like that", query=f"like:{NO_IMAGE} sea", place=0)
    [entry] = exported(colour_library)["searches"]
    assert entry == document["searches"][0] | {"name": "Like that"}


def test_a_search_that_is_renamed_keeps_pictures_that_are_away(colour_library, photos, add_file):
    ids = dict(colour_library.rows("SELECT path, image_id FROM files"))
    name = next(path for path in ids if path.endswith(b"/red.png"))
    made = save_search(colour_library, "Red", f"like:{ids[name]}")
    [root] = colour_library.roots()
    forget_root(colour_library, root.id)
    edit_search(colour_library, made.id, name="Reds", query=made.query, place=0)
    root = colour_library.add_root(photos)
    for path in sorted(photos.iterdir(), reverse=True):
        add_file(colour_library, root.id, path)
    now = dict(colour_library.rows("SELECT path, image_id FROM files"))
    assert now[name] != ids[name] and listed(colour_library) == [("Reds", f"like:{now[name]}")]


def test_an_import_keeps_no_picture_that_its_query_does_not_name(library):
    pictures = {str(number): "07" * 32 for number in range(1000)}
    document = {"fovea": 1, "searches": [{"name": "a", "query": "like:12", "pictures": pictures}]}
    assert imported(library, document).searches == 1
    [entry] = exported(library)["searches"]
    assert entry["pictures"] == {"12": "07" * 32}


def test_an_imported_search_whose_name_is_taken_gets_a_number(library):
    save_search(library, "Beach", "beach")
    document = {"fovea": 1, "searches": [{"name": "BEACH", "query": "sea"}]}
    assert imported(library, document).searches == 1
    assert listed(library) == [("Beach", "beach"), ("BEACH (2)", "sea")]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "not a document"), ([], "not a document"), ({}, "not a document"),
        ({"fovea": 2}, "this fovea reads 1"), ({"fovea": True}, "this fovea reads 1"),
        ({"fovea": 1, "hidden": {}}, "not a list"), ({"fovea": 1, "hidden": [1]}, "not a list"),
        ({"fovea": 1, "favourites": [{"sha256": "00"}]}, "not a SHA-256"),
        ({"fovea": 1, "searches": [{"name": "a"}]}, "lacks its name or its query"),
        ({"fovea": 1, "searches": [{"name": "a", "query": "\ud800"}]}, "lacks its name"),
        ({"fovea": 1, "searches": [{"name": "a", "query": "size:"}]}, "cannot be read: size: has"),
        ({"fovea": 1, "searches": [{"name": "", "query": "a"}]}, "needs a name"),
        ({"fovea": 1, "searches": [{"name": "a", "query": "", "pictures": {"x": ""}}]}, "SHA-256s"),
    ],
)  # fmt: skip
def test_another_document_adds_nothing(library, document, said):
    whole = {"favourites": [{"sha256": "00" * 32}], "searches": [{"name": "ok", "query": "ok"}]}
    if isinstance(document, dict):
        document = {
            name: whole.get(name, []) + value if isinstance(value, list) else value
            for name, value in (dict.fromkeys(whole, []) | document).items()
        }
        document = document if "fovea" in document else {}
    with pytest.raises(LibraryError, match=said) as refused:
        imported(library, document)
    assert "\n" not in str(refused.value)
    assert listed(library) == [] and marked(library, "favourite") == []


def test_salvage_keeps_searches(library, tmp_path):
    save_search(library, "Beach", "beach")
    save_search(library, "Sea", "sea", place=0)
    assert salvage(library.folder, tmp_path / "saved").kept["searches"] == 2
    with Library.open(tmp_path / "saved") as other:
        assert saved_searches(other) == saved_searches(library)


def test_a_library_that_cannot_be_written_lists_its_searches(library):
    made = save_search(library, "Beach", "beach")
    folder = library.folder
    library.close()
    with read_only(folder), Library.open(folder) as opened:
        assert saved_searches(opened) == [made]
        for change in (
            lambda: save_search(opened, "Sea", "sea"),
            lambda: edit_search(opened, made.id, name="Sea"),
            lambda: delete_search(opened, made.id),
            lambda: imported(opened, {"fovea": 1}),
        ):
            with pytest.raises(LibraryReadOnly):
                change()
