"""Places by name in the terminal, in the API and on the way there."""

import numpy as np
import pytest
from PIL import Image

import fovea
from commands import run
from fovea.indexer.placing import gazetteer, place
from fovea.indexer.placing.nearest import Towns
from fovea.search.places.stored import Locality, NewLocality, NewPlace

GPS = 0x8825


class Lisbon:
    """The only town of a small world."""

    towns = Towns(*(np.array([number]) for number in (38.725, -9.15, 517_802, 0)))

    def key(self, numbers):
        return (2267057,)

    def place(self, numbers):
        town = Locality("Lisbon", "里斯本", "2267057")
        country = Locality("Portugal", "葡萄牙", "PT")
        return NewPlace(
            self.key(numbers),
            NewLocality("town", town, frozenset({"lisbon", "里斯本"})),
            None,
            None,
            NewLocality("country", country, frozenset({"portugal", "葡萄牙"})),
        )


@pytest.fixture
def taken(own, tmp_path, monkeypatch):
    """The library of ``own`` with one more picture, of Lisbon, without the extra."""
    exif = Image.Exif()
    exif.get_ifd(GPS).update({1: "N", 2: (38.0, 42.0, 50.0), 3: "W", 4: (9.0, 8.0, 22.0)})
    folder = tmp_path / "Lisbon trip"
    folder.mkdir()
    Image.new("RGB", (20, 20), "gold").save(folder / "tram.jpg", exif=exif)
    monkeypatch.setattr(place, "data_version", lambda: None)
    monkeypatch.setattr(gazetteer, "data_version", lambda: None)
    monkeypatch.setattr(place, "Gazetteer", Lisbon)
    return folder


def there(monkeypatch):
    monkeypatch.setattr(place, "data_version", lambda: "small world 1")
    monkeypatch.setattr(gazetteer, "data_version", lambda: "small world 1")


def test_without_the_extra_one_line_says_how_to_get_it(taken):
    pytest.importorskip("scipy", reason="needs the extra fovea[places]: scipy is not installed")
    done = run("index", taken)
    assert "1 picture could be found by place:, with pip install 'fovea[places]'" in done.err
    assert done.err.count("\n") == 1
    assert "0 of 1 pictures with coordinates" in run("status").out
    assert "1 wait for pip install 'fovea[places]', then fovea index" in run("status").out
    assert "1 picture with coordinates wait" in run("verify").err
    asked = run("search", "place:lisbon")
    assert asked.code == 1 and "no names of places in this library yet" in asked.err


def test_a_place_is_looked_up_found_and_switched_off(taken, monkeypatch):
    pytest.importorskip("scipy", reason="needs the extra fovea[places]: scipy is not installed")
    there(monkeypatch)
    assert "place:" not in run("index", taken).err
    [hit] = run("search", "place:lisbon", "--json").json["hits"]
    assert hit["place"] == "Lisbon, Portugal" and hit["path"].endswith("tram.jpg")
    assert len(run("search", "place:里斯本", "--json").json["hits"]) == 1
    assert "1 of 1 pictures with coordinates are near a town" in run("status").out
    counts = {"located": 1, "looked_up": 1, "named": 1, "missing": None}
    assert run("status", "--json").json["places"] == counts
    wrong = run("search", "place:lisbin")
    assert wrong.code == 1 and "Did you mean Lisbon?" in wrong.err
    off = run("index", "--no-places", "--json")
    assert off.code == 0 and off.err == ""
    assert "places\toff" in run("status").out and run("status", "--json").json["places"] is None
    assert "fovea index --places brings them back" in run("search", "place:lisbon").err
    assert "places\toff" in (run("index"), run("status"))[1].out  # it stays off
    run("index", "--places")
    assert len(run("search", "place:lisbon", "--json").json["hits"]) == 1


def test_python_lists_places(taken, monkeypatch, tmp_path):
    pytest.importorskip("scipy", reason="needs the extra fovea[places]: scipy is not installed")
    there(monkeypatch)
    run("index", taken)
    with fovea.Library.open(tmp_path / "library") as library:
        known = [(one.label, one.query, one.count, one.kind) for one in library.places()]
        assert known == [
            ("Lisbon, Portugal", "place:Lisbon", 1, "town"),
            ("Portugal", "place:Portugal", 1, "country"),
        ]
        assert library.search("place:portugal").hits[0].place == "Lisbon, Portugal"
        assert library.places(chinese=True)[0].label == "葡萄牙"
        library.index(places=False)
        assert library.places() == []
