"""Looking places up: once for each content, again for new coordinates and new data."""

from threading import Event

import numpy as np
import pytest

from fovea.indexer.placing import place
from fovea.indexer.placing.nearest import Towns
from fovea.indexer.placing.place import Placed, place_pictures
from fovea.indexer.scanning.verify import verify
from fovea.search.library.facts.places import OFF, place_words
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.places.stored import (
    Locality,
    NewLocality,
    NewPlace,
    data_of,
    place_counts,
    switch,
    whereabouts,
)

pytest.importorskip("scipy", reason="needs the extra fovea[places]: scipy is not installed")

LISBON, SINTRA = (38.725, -9.15), (38.797, -9.39)
SEA = (30.0, -40.0)


class Two:
    """Two towns of Portugal, of which one is a city; counts how often it is asked."""

    towns = Towns(
        np.array([LISBON[0], SINTRA[0]]),
        np.array([LISBON[1], SINTRA[1]]),
        np.array([517_802, 5_000]),
        np.array([0, 0], np.int32),
    )
    names = ("Lisbon", "Sintra")

    def __init__(self):
        self.described = []

    def key(self, numbers):
        return tuple(number + 100 for number in numbers)

    def place(self, numbers):
        self.described.append(numbers)

        def new(kind, name, key):
            return NewLocality(kind, Locality(name, None, key), frozenset({place_words(name)}))

        towns = [new("town", self.names[number], str(number)) for number in numbers]
        city = towns[1] if numbers[1:] and numbers[1] != numbers[0] else None
        country = new("country", "Portugal", "PT")
        return NewPlace(self.key(numbers), towns[0], city, None, country, tuple(towns[2:]))


def add(library, root, number, spot):
    latitude, longitude = spot or (None, None)
    content = number.to_bytes(32, "big")
    metadata = ImageMetadata(1, 1, "JPEG", latitude=latitude, longitude=longitude)
    library.write_batch(
        WriteBatch(
            [NewImage(content, 1, metadata, np.array([1, 0], np.float32))],
            [FileWrite(b"/p/%d.jpg" % number, root.id, 1, 1, content)],
        )
    )


@pytest.fixture
def located(library):
    library.set_model("toy", "0" * 64, 2, "toy")
    root = library.add_root(b"/p")
    for number, spot in enumerate((LISBON, LISBON, SINTRA, SEA, None), start=1):
        add(library, root, number, spot)
    return library, root


def look(library, data="1", places=None, **options):
    two = places or Two()
    return place_pictures(library, data=lambda: data, load=lambda: two, **options)


def labels(library):
    hashes = dict(library.rows("SELECT id, hash FROM images"))
    found = whereabouts(library, hashes)
    return {int.from_bytes(hashes[key]): where.label for key, where in found.items()}


def test_each_picture_is_looked_up_once(located):
    library, root = located
    assert place_counts(library).waiting == 4
    two = Two()
    assert look(library, places=two) == Placed(4, 0)
    assert labels(library) == dict.fromkeys((1, 2), "Lisbon, Portugal") | {3: "Sintra, Portugal"}
    assert two.described and len(two.described) == len(set(two.described)) == 2
    counts = place_counts(library)
    assert (counts.located, counts.looked_up, counts.named, counts.waiting) == (4, 4, 3, 0)

    def unasked():
        raise AssertionError("loaded although nothing is to be looked up")

    assert place_pictures(library, data=lambda: "1", load=unasked) == Placed()
    add(library, root, 6, SINTRA)
    again = Two()
    assert look(library, places=again) == Placed(1, 0)
    assert again.described == []  # a place that the library knows
    assert labels(library)[6] == "Sintra, Portugal"
    assert verify(library).problems == []


def test_new_coordinates_are_looked_up_again(located):
    library, root = located
    look(library)
    with library.transaction() as conn:
        conn.execute("UPDATE images SET latitude = ?, longitude = ? WHERE id = 1", SINTRA)
        conn.execute("UPDATE images SET latitude = NULL WHERE id = 2")
    assert place_counts(library).waiting == 1
    assert look(library) == Placed(1, 0)
    assert labels(library) == dict.fromkeys((1, 3), "Sintra, Portugal")


def test_a_picture_that_moves_keeps_its_place_and_one_that_goes_takes_it_along(located):
    library, root = located
    look(library)
    content = (1).to_bytes(32, "big")
    library.write_batch(WriteBatch([], [FileWrite(b"/p/new.jpg", root.id, 1, 1, content)]))
    library.delete_files([b"/p/1.jpg"])
    assert labels(library)[1] == "Lisbon, Portugal" and place_counts(library).waiting == 0
    library.delete_files([b"/p/new.jpg"])
    assert 1 not in labels(library)
    assert library.rows("SELECT count(*) FROM placed") == [(3,)]


def test_other_data_looks_everything_up_again(located):
    library, _ = located
    look(library)
    moved = Two()
    moved.names = ("Lisboa", "Cintra")
    assert look(library, "2", moved) == Placed(4, 0)
    assert set(labels(library).values()) == {"Lisboa, Portugal", "Cintra, Portugal"}
    assert data_of(library) == "2"
    assert library.rows("SELECT 1 FROM locality_names WHERE name = 'lisbon'") == []


def test_without_data_pictures_wait_and_places_stay(located):
    library, root = located
    assert look(library, None) == Placed(0, 4)
    look(library)
    add(library, root, 6, SINTRA)
    assert look(library, None) == Placed(0, 1)
    assert labels(library)[1] == "Lisbon, Portugal"


def test_a_run_that_stops_goes_on(located, monkeypatch):
    library, _ = located
    monkeypatch.setattr(place, "BATCH", 1)
    stop = Event()

    class Stopping(Two):
        def place(self, numbers):
            stop.set()
            return super().place(numbers)

    assert look(library, places=Stopping(), stop=stop) == Placed(1, 3)
    assert place_counts(library).waiting == 3
    assert look(library) == Placed(3, 0)
    assert len(labels(library)) == 3


def test_a_run_for_new_data_that_stops_goes_on_with_that_data(located, monkeypatch):
    library, _ = located
    look(library)
    monkeypatch.setattr(place, "BATCH", 1)
    stop = Event()

    class Stopping(Two):
        def place(self, numbers):
            stop.set()
            return super().place(numbers)

    look(library, "2", Stopping(), stop=stop)
    assert place_counts(library).waiting == 3
    assert look(library, "2") == Placed(3, 0)


def test_what_is_switched_off_is_forgotten_and_not_looked_up(located):
    library, _ = located
    look(library)
    switch(library, False)
    assert data_of(library) == OFF and labels(library) == {}
    assert look(library) == Placed() and place_counts(library).waiting == 0
    assert verify(library).unplaced == 0
    switch(library, True)
    assert look(library) == Placed(4, 0)
    switch(library, True)
    assert labels(library)


@pytest.mark.parametrize("error", [KeyError("latitude"), ImportError("no such module")])
def test_data_of_another_form_is_said_and_nothing_else_fails(located, caplog, error):
    library, _ = located

    def load():
        raise error

    assert place_pictures(library, data=lambda: "1", load=load) == Placed(0, 4)
    assert "the names of places cannot be looked up" in caplog.text


def test_numbers_that_are_none_have_no_place(library):
    library.set_model("toy", "0" * 64, 2, "toy")
    root = library.add_root(b"/p")
    add(library, root, 1, (float("inf"), 1e308))
    add(library, root, 2, (1e6, -1e6))
    assert look(library).waiting == 0
    assert labels(library) == {}


def test_verify_counts_those_that_wait(located):
    library, _ = located
    assert verify(library).unplaced == 4
    look(library)
    assert verify(library).unplaced == 0


def test_verify_notices_a_place_without_coordinates(located):
    library, _ = located
    look(library)
    with library.transaction() as conn:
        conn.execute("DROP TRIGGER images_change_places")
        conn.execute("UPDATE images SET latitude = NULL WHERE id = 1")
    said = verify(library).problems
    assert any("a place but no coordinates" in line for line in said), said
