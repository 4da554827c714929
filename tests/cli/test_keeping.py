"""``fovea mark`` and ``fovea searches``, and the same in Python."""

import json

import pytest

import fovea
from coloured import COLOURS, encoded
from commands import index_once, run, settle
from places import read_only
from small_clips import write_model


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """A folder with a model, pictures of one colour each, and a library of them."""
    folder = tmp_path_factory.mktemp("home")
    write_model(folder / "model")
    (folder / "photos" / "screens").mkdir(parents=True)
    for number, colour in enumerate(COLOURS):
        (folder / "photos" / f"{colour}.png").write_bytes(encoded(colour, number))
    (folder / "photos" / "screens" / "grab.png").write_bytes(encoded("red", 77))
    index_once(folder)
    return folder


@pytest.fixture
def home(indexed, monkeypatch):
    settle(monkeypatch, indexed)
    yield indexed
    with fovea.Library.open() as library:
        everything = [hit.image_id for hit in library.search("", k=100).hits]
        everything += [hit.image_id for hit in library.search("is:hidden", k=100).hits]
        library.favourite(*everything, on=False)
        library.hide(*everything, on=False)
        for search in library.saved_searches():
            library.delete_search(search.name)


def found(query):
    return {hit["path"].rpartition("/")[2] for hit in run("search", query, "--json").json["hits"]}


def test_files_are_marked_and_found(home):
    red, blue = home / "photos" / "red.png", home / "photos" / "blue.png"
    done = run("mark", "favourite", red, blue)
    assert (done.code, done.out, done.err) == (0, "2 pictures added to the favourites\n", "")
    assert run("mark", "favourite", red).out == "0 pictures added to the favourites\n"
    assert found("is:favourite") == {"red.png", "blue.png"}
    [hit] = run("search", "is:favourite name:red", "--json").json["hits"]
    assert hit["favourite"] is True and "hidden" not in hit
    assert run("mark", "favourite", blue, "--remove", "--json").json == {"changed": 1}
    assert found("is:favourite") == {"red.png"}


def test_filters_choose_what_is_hidden(home):
    assert run("mark", "hide", "--query", "in:screens").out == "1 picture hidden\n"
    assert "grab.png" not in found("") | found("in:screens")
    assert found("is:hidden") == {"grab.png"}
    assert run("mark", "hide", "--query", "is:hidden", "--remove").out == "1 picture shown again\n"
    assert found("in:screens") == {"grab.png"}
    words = run("mark", "hide", "--query", "red")
    assert words.code == 2 and "filters only" in words.err
    assert run("mark", "hide").code == 2


@pytest.mark.parametrize("query", ["", " ", "sort:date"])
def test_a_query_without_filters_does_not_hide_everything(home, query):
    """As from a variable of the shell that is not set."""
    done = run("mark", "hide", "--query", query)
    assert done.code == 2 and "has no filter" in done.err
    assert found("is:hidden") == set()


def test_a_file_that_the_library_lacks_changes_nothing(home, tmp_path):
    (tmp_path / "new.png").write_bytes(encoded("red", 5000))
    done = run("mark", "favourite", home / "photos" / "red.png", tmp_path / "new.png")
    assert done.code == 1 and "no picture like" in done.err and done.err.count("\n") == 1
    assert found("is:favourite") == set()
    gone = run("mark", "favourite", tmp_path / "gone.png")
    assert gone.code == 1 and "cannot read" in gone.err


def test_a_file_out_of_reach_is_known_by_its_path(home):
    file = home / "photos" / "red.png"
    aside = file.rename(home / "aside.png")
    try:
        assert run("mark", "favourite", file).out == "1 picture added to the favourites\n"
    finally:
        aside.rename(file)
    assert found("is:favourite") == {"red.png"}


def test_all_is_exported_and_imported(home, tmp_path):
    run("mark", "favourite", home / "photos" / "red.png")
    run("searches", "save", "Beach days", "beach -people")
    target = tmp_path / "marks.json"
    done = run("mark", "export", target)
    assert done.out.startswith("wrote 1 favourite, 0 hidden, 1 saved search to ")
    assert run("mark", "export").json == json.loads(target.read_text())
    run("mark", "favourite", home / "photos" / "red.png", "--remove")
    assert run("mark", "import", target).out == "added 1 favourite, 0 hidden, 0 saved searches\n"
    assert run("mark", "import", target, "--json").json["favourites"] == 0
    for text in ("[", "{}", '{"fovea": 9}', "[" * 100_000):
        target.write_text(text)
        refused = run("mark", "import", target)
        assert refused.code == 1 and refused.err.count("\n") == 1, text[:20]
    assert run("mark", "import", tmp_path / "none.json").code == 1
    assert run("mark", "export", tmp_path / "no folder" / "x.json").code == 1


def test_searches_are_kept_run_and_changed(home):
    assert run("searches", "save", "Portraits", "is:portrait").out == "saved Portraits\n"
    assert run("searches", "save", "Red", "-- red").code == 0
    run("searches", "edit", "red", "--query", "red in:photos", "--place", 1)
    assert run("searches").out == "Red\tred in:photos\nPortraits\tis:portrait\n"
    listed = run("searches", "list", "--json").json
    assert [entry["name"] for entry in listed] == ["Red", "Portraits"]
    ran = run("searches", "run", "RED", "--json").json
    assert ran["hits"] == run("search", "red in:photos", "--json").json["hits"]
    assert run("searches", "edit", "red").code == 2
    taken = run("searches", "save", "portraits", "x")
    assert taken.code == 1 and "already" in taken.err
    wrong = run("searches", "save", "Wrong", "size:")
    assert wrong.code == 1 and "size: has no value" in wrong.err
    assert run("searches", "delete", "Portraits").out == "deleted Portraits\n"
    for command in (("delete", "Portraits"), ("run", "Portraits")):
        gone = run("searches", *command)
        assert gone.code == 1 and gone.err == "Error: there is no saved search 'Portraits'\n"


def test_a_read_only_library_says_why_not(home):
    run("searches", "save", "Red", "red")
    with read_only(home / "library"):
        for command in (
            ("mark", "favourite", home / "photos" / "red.png"),
            ("searches", "save", "Blue", "blue"), ("searches", "delete", "Red"),
        ):  # fmt: skip
            done = run(*command)
            assert done.code == 1 and "is read-only" in done.err and done.err.count("\n") == 1
        assert run("searches").out == "Red\tred\n"


def test_python_marks_by_number_and_by_file(home):
    with fovea.Library.open() as library:
        red = library.find(home / "photos" / "red.png")
        assert (
            library.favourite(red, home / "photos" / "red.png", home / "photos" / "blue.png") == 2
        )
        assert {hit.favourite for hit in library.search("is:favourite").hits} == {True}
        assert library.hide(red) == 1 and library.hide(red) == 0
        assert red not in [hit.image_id for hit in library.search("", k=100).hits]
        assert red not in [hit.image_id for hit in library.similar(red, k=100).hits]
        for wrong in (999, home / "photos" / "no.png"):
            with pytest.raises(fovea.LibraryError):
                library.favourite(home / "photos" / "lime.png", wrong)
        assert len(library.search("is:favourite").hits) == 1, "the other favourite is hidden"
        with pytest.raises(TypeError):
            library.favourite(1.5)
        made = library.save_search("Reds", f"like:{red}")
        assert (
            library.saved_search("reds")
            == made
            == fovea.SavedSearch(made.id, "Reds", f"like:{red}", made.saved_at)
        )
