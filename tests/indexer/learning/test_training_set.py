import json
import os

import numpy as np
import pytest
from PIL import Image

from fovea.indexer.learning import training_set as material
from fovea.indexer.learning.training_set import Wanted, candidates, gather, listed_captions
from fovea.indexer.scanning.scan import index_folders
from fovea.search.clip.finetuning.features import FeatureStore, LowerHalf
from fovea.search.clip.preprocess import Preprocess
from fovea.search.errors import FoveaError
from fovea.search.models.resolve import resolve_model
from small_clips import VIT, random_clip, write_model

NAMES = Wanted(words=("names",), views=2)
CAPTIONED = Wanted(words=(), views=2)


def save(path, seed, **options):
    """Write a smooth random picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC)
    picture.save(path, **options)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return resolve_model(str(folder))


@pytest.fixture
def photos(tmp_path):
    return tmp_path / "photos"


@pytest.fixture
def indexed(library, photos, model):
    """Index the photos; return the library."""

    def index():
        index_folders(
            library,
            [photos],
            model=model,
            load_encoder=lambda: model.load(device="cpu", dtype="float32"),
            workers=1,
        )
        return library

    return index


@pytest.fixture(scope="module")
def lower():
    return LowerHalf(random_clip(VIT), 1, device="cpu", dtype="float32")


def collect(library, wanted, lower, folder, **options):
    store = FeatureStore(folder, [wanted.words])
    return gather(library, wanted, lower, store, ["cat"], workers=1, **options)


def texts(listed):
    return {os.path.basename(entry.path).decode(): entry.captions for entry in listed}


def test_names_below_the_root_are_candidates_words(photos, indexed):
    save(photos / "holiday in Norway" / "IMG_1.png", 1)
    save(photos / "a red boat.png", 2)
    save(photos / "DSC_0001.png", 3)
    found = candidates(indexed(), NAMES)
    assert texts(found) == {
        "IMG_1.png": ("holiday in Norway",), "a red boat.png": ("a red boat",), "DSC_0001.png": ()
    }  # fmt: skip
    assert [entry.general for entry in found if not entry.captions] == [True]


def test_copies_share_the_words_of_all_their_names(photos, indexed):
    first = save(photos / "a red boat.png", 1)
    (photos / "b").mkdir()
    (photos / "b" / "at sea.png").write_bytes(first.read_bytes())
    [found] = candidates(indexed(), NAMES)
    assert set(found.captions) == {"a red boat", "at sea"}


def test_a_file_of_captions_names_pictures_by_any_part_of_their_path(photos, indexed, tmp_path):
    for number in range(4):
        save(photos / str(number % 2) / f"{number}.png", number)
    lines = [
        {"file": "0.png", "caption": "last part"},
        {"file": "./1/1.png", "caption": "below the root"},
        {"file": str(photos / "0" / "2.png"), "captions": ["whole path", "again"]},
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    wanted = Wanted(captions=tmp_path / "c.jsonl", words=())
    assert texts(candidates(indexed(), wanted)) == {
        "0.png": ("last part",), "1.png": ("below the root",), "2.png": ("whole path", "again"),
        "3.png": (),
    }  # fmt: skip


def test_lines_that_lead_nowhere_are_counted(photos, indexed, tmp_path, caplog):
    save(photos / "0.png", 0)
    save(photos / "1.png", 1)
    lines = ["file\tcaption", "0.png\tone", "1.png\t ", "gone.png\tx"]
    (tmp_path / "c.tsv").write_text("\n".join(lines))
    found = candidates(indexed(), Wanted(captions=tmp_path / "c.tsv", words=()))
    assert texts(found) == {"0.png": ("one",), "1.png": ()}
    assert "left out 1 of 3 lines" in caplog.text and "no words" in caplog.text


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([{"file": "same.png", "caption": "x"}], "has 2 times; name it by its full path"),
        ([{"file": "gone.png", "caption": "x"}], "no captions for pictures in the library"),
        ([{"file": "a/same.png", "caption": ""}], "no captions for pictures in the library"),
    ],
)
def test_captions_that_cannot_be_placed_are_told(photos, indexed, tmp_path, lines, told):
    save(photos / "a" / "same.png", 0)
    save(photos / "b" / "same.png", 1)
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(FoveaError, match=told):
        candidates(indexed(), Wanted(captions=tmp_path / "c.jsonl", words=()))


def test_an_empty_library_is_told(library):
    with pytest.raises(FoveaError, match="nothing is indexed"):
        candidates(library, NAMES)


def test_the_content_decides_which_of_many_pictures_are_taken(photos, indexed, monkeypatch):
    monkeypatch.setattr(material, "GENERAL", 1)
    monkeypatch.setattr(material, "REHEARSED", 2)
    for number in range(12):
        save(
            photos / (f"boat {'abcdefghijkl'[number]}x.png" if number < 8 else f"{number}.png"),
            number,
        )
    library = indexed()
    few = candidates(library, Wanted(words=("names",), limit=5))
    every = candidates(library, NAMES)
    worded = sorted(entry.content for entry in every if entry.captions)
    assert len(worded) == 8
    assert {entry.content for entry in few if entry.captions} == set(worded[:5])
    assert sum(entry.general for entry in few) == sum(entry.general for entry in every) == 3


@pytest.fixture
def many(photos, indexed):
    """A library of 120 pictures named for what they show, two without words, and a broken one."""
    for number in range(120):
        save(
            photos / f"{'red blue green black'.split()[number % 4]} boat" / f"{number}.png", number
        )
    save(photos / "IMG_1.png", 500)
    save(photos / "IMG_2.png", 501)
    library = indexed()
    (photos / "red boat" / "0.png").write_bytes(b"\x89PNG broken now")
    save(photos / "blue boat" / "1.png", 900)  # another picture than was indexed
    (photos / "green boat" / "2.png").unlink()
    return library


def test_pictures_are_parted_by_content_and_the_unreadable_counted(many, lower, tmp_path, caplog):
    seen = []
    found = collect(many, NAMES, lower, tmp_path / "f", progress=lambda *n: seen.append(n))
    made = found.material
    assert found.pictures == 117 == len(made.learned) + len(made.held_out)
    assert dict(found.left_out) == {"broken": 1, "changed since it was indexed": 1, "gone": 1}
    assert caplog.text.count("left out") == 3 and seen[-1] == (122, 122)
    assert 10 <= len(made.held_out) <= 40
    assert not {e.content for e in made.learned} & {e.content for e in made.held_out}
    assert all(int.from_bytes(e.content[:8]) < 0.2 * 2**64 for e in made.held_out)
    assert len(made.general) + len(made.rehearsed) == len(made.held_out) + 2
    assert {e.captions for e in made.learned} == {
        ("red boat",), ("blue boat",), ("green boat",), ("black boat",)
    }  # fmt: skip
    assert all(e.features.shape == (2, 17, 128) for e in made.learned)


def test_what_is_kept_is_not_read_again(many, lower, tmp_path, photos, monkeypatch):
    first = collect(many, NAMES, lower, tmp_path / "f")
    monkeypatch.setattr(material, "Pool", None)
    second = collect(many, NAMES, lower, tmp_path / "f")
    assert second.left_out == first.left_out
    for one, two in zip(first.material.learned, second.material.learned, strict=True):
        assert (one.content, one.captions) == (two.content, two.captions)
        assert np.array_equal(one.features, two.features)


def test_a_kill_between_two_parts_loses_neither(many, lower, tmp_path, monkeypatch):
    monkeypatch.setattr(material, "PART", 50)
    whole = collect(many, NAMES, lower, tmp_path / "whole")

    def stop(done, total):
        if done == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(many, NAMES, lower, tmp_path / "f", progress=stop)
    assert len(list((tmp_path / "f").glob("*.json"))) == 2
    again = collect(many, NAMES, lower, tmp_path / "f")
    for one, two in zip(whole.material.learned, again.material.learned, strict=True):
        assert one.content == two.content and np.array_equal(one.features, two.features)


def test_copies_are_held_out_together(photos, indexed, lower, tmp_path):
    for number in range(60):
        path = save(
            photos / f"{'red blue green black'.split()[number % 4]} boat" / f"{number}.png", number
        )
        with Image.open(path) as image:
            image.resize((96, 80)).save(path.with_suffix(".jpg"), quality=85)
    made = collect(indexed(), NAMES, lower, tmp_path / "f").material
    assert len(made.learned) + len(made.held_out) == 120
    sides = [{tuple(np.round(np.asarray(e.features[0, 0], "f4"))) for e in part} for part in
             (made.learned, made.held_out)]  # fmt: skip
    assert len(made.held_out) % 2 == 0 and len(made.held_out) >= 10
    assert not sides[0] & sides[1]


def test_a_caption_that_most_pictures_share_is_dropped(photos, indexed, lower, tmp_path):
    for number in range(100):
        inner = ("red boat", "", "red boat", "", "")[number % 5]
        save(photos / "family backup 2019" / inner / f"{number}.png", number)
    found = collect(indexed(), NAMES, lower, tmp_path / "f")
    assert found.captions == 1 and found.pictures == 40
    assert 15 < len(found.material.rehearsed) < 45


def test_what_is_rehearsed_is_not_measured_by(photos, indexed, lower, tmp_path, monkeypatch):
    monkeypatch.setattr(material, "GENERAL", 12)
    monkeypatch.setattr(material, "REHEARSED", 30)
    for number in range(80):
        path = photos / (f"{'red blue'.split()[number % 2]} boat" if number < 40 else "x")
        path = save(path / f"{number}.png", number)
        if number >= 40:
            with Image.open(path) as image:
                image.resize((96, 80)).save(path.with_suffix(".jpg"), quality=85)
    made = collect(indexed(), NAMES, lower, tmp_path / "f").material
    assert all(not example.captions for example in made.rehearsed) and len(made.rehearsed) <= 30
    general = made.general[len(made.held_out) :]
    assert len(general) <= 12 and not any(example.captions for example in general)
    sides = [{tuple(np.round(np.asarray(e.features[0, 0], "f4"))) for e in part} for part in
             (general, made.rehearsed)]  # fmt: skip
    assert all(sides) and not sides[0] & sides[1]  # a picture and its copies are on one side


def test_too_few_pictures_with_words_are_told(photos, indexed, lower, tmp_path):
    for number in range(12):
        save(photos / f"boat {'abcdefghijkl'[number]}x.png", number)
    with pytest.raises(FoveaError, match="too few pictures with captions: .* 10 and 5 are needed"):
        collect(indexed(), NAMES, lower, tmp_path / "f")


def test_what_is_written_into_pictures_is_listed(photos, indexed):
    exif = Image.Exif()
    exif[0x010E] = "A boat at sea"
    save(photos / "IMG_1.jpg", 1, exif=exif)
    save(photos / "a red boat.jpg", 2)
    save(photos / "IMG_3.jpg", 3)
    library = indexed()
    listed = {os.path.basename(path): words for path, words in listed_captions(library, Wanted())}
    assert listed == {b"IMG_1.jpg": ("A boat at sea",), b"a red boat.jpg": ("a red boat",)}
    assert [words for _, words in listed_captions(library, NAMES)] == [("a red boat",)]


def test_squares_are_cut_from_more_than_the_model_takes(lower):
    assert lower.side == 73 and lower.preprocess == Preprocess(64)
