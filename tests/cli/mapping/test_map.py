"""``fovea map``, and the same in Python."""

import numpy as np
import pytest

import fovea
from coloured import COLOURS, encoded
from commands import index_once, run, settle
from fovea.search.mapping import layout
from places import read_only
from small_clips import write_model

pytest.importorskip("sklearn", reason="a map needs fovea[map]")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """A folder with a model, pictures of one colour each, and a library of them."""
    folder = tmp_path_factory.mktemp("home")
    write_model(folder / "model")
    (folder / "photos").mkdir()
    for number, colour in enumerate(COLOURS):
        (folder / "photos" / f"{colour}.png").write_bytes(encoded(colour, number))
    index_once(folder)
    return folder


@pytest.fixture
def home(indexed, monkeypatch):
    settle(monkeypatch, indexed)
    run("map", "remove")
    return indexed


def test_the_map_is_built_told_of_and_removed(home):
    told = run("map")
    assert (told.code, told.out) == (0, "")
    assert told.err == "fovea: there is no map yet; to lay it out: fovea map build\n"
    assert run("map", "status", "--json").json["laid_out"] is None
    built = run("map", "build")
    assert built.code == 0
    first, *rest = built.out.splitlines()
    assert first == f"map\t{len(COLOURS)} pictures in 1 cluster"
    assert rest == [f"{len(COLOURS)}\t-"]
    assert run("map").out == run("map", "status").out == built.out
    found = run("map", "status", "--json").json
    assert (found["pictures"], found["laid_out"], found["outgrown"]) == (
        len(COLOURS), len(COLOURS), False,
    )  # fmt: skip
    [cluster] = found["clusters"]
    assert cluster["count"] == len(COLOURS) and cluster["names"] == []
    assert f"map\t{len(COLOURS)} pictures" in run("status").out
    assert run("status", "--json").json["mapped"] == len(COLOURS)
    assert run("map", "remove").out == "removed the map\n"
    assert run("status", "--json").json["mapped"] is None
    assert run("map", "remove").out == "there was no map\n"


def test_without_scikit_learn_one_line_says_what_to_install(home, monkeypatch):
    monkeypatch.setattr(layout.importlib.util, "find_spec", lambda name: None)
    refused = run("map", "build")
    assert refused.code == 1
    assert refused.err.splitlines()[-1] == (
        "Error: a map needs scikit-learn, which is not installed; to install it: "
        'pip install "fovea[map]"'
    )


def test_a_library_that_cannot_be_changed_keeps_its_map(home):
    assert run("map", "build").code == 0
    with read_only(home / "library"):
        assert run("map").code == 0
        refused = run("map", "build")
        assert refused.code == 1 and "is read-only" in refused.err


def test_python_has_the_map_too(home):
    steps = []
    with fovea.Library.open() as library:
        assert library.map(build=False) is None
        found = library.map(progress=lambda now: steps.append(now.step))
        again = library.map()
        anew = library.map(anew=True)
    assert len(found) == len(COLOURS)
    assert list(dict.fromkeys(steps)) == ["reading", "arranging", "placing", "naming"]
    for other in (again, anew):
        assert np.array_equal(other.image_ids, found.image_ids)
        assert np.array_equal(other.positions, found.positions)
    assert isinstance(found, fovea.PictureMap) and isinstance(found.clusters[0], fovea.Cluster)
    assert sorted(found.of_cluster(0).tolist()) == found.image_ids.tolist()
