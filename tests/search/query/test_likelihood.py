import math
from dataclasses import dataclass

import numpy as np
import pytest

from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.query.hits import hits
from fovea.search.query.language import parse
from fovea.search.query.likelihood import (
    Background,
    Surroundings,
    default_labels,
    likeliest,
    likelihoods,
    of_pictures,
    of_words,
)
from fovea.search.query.rank import Ranking, rank
from vectors import clustered, store

DIM = 24


@dataclass
class Words:
    """A toy encoder that gives each text its own vector."""

    logit_scale: float = 20.0

    def encode_texts(self, texts):
        return np.concatenate([clustered(1, DIM, sum(map(ord, text))) for text in texts])


@pytest.fixture(scope="module")
def background():
    return Background.of("i" * 64, Words())


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def test_the_default_labels_are_many_and_distinct():
    labels = default_labels()
    assert len(labels) >= 400 and len(set(labels)) == len(labels)
    assert all(label == label.strip() and label for label in labels)


def test_words_have_likelihood_one_half_where_one_label_would_score_as_high(background):
    images, query = clustered(300, DIM, 3), clustered(1, DIM, 4)[0]
    cosines = images @ background.vectors.T
    centre, spread = cosines.mean(axis=1), cosines.std(axis=1)
    standard = (images @ query - centre) / spread
    usual = np.percentile(standard, 25) * 300 / 320
    tail = Surroundings.of(background, images)
    count = len(background.vectors)
    at_the_line = tail.start + tail.slope * math.log(count / 100) + usual
    found = of_words(background, tail, query, centre + spread * at_the_line, images)
    assert found == pytest.approx(np.full(300, 0.5), abs=1e-3)
    labels = ((cosines - centre[:, None]) / spread[:, None]).T
    labels -= np.percentile(labels, 25, axis=1)[:, None] * 300 / 320
    highest = np.sort(labels, axis=None)
    assert tail.start == pytest.approx(np.quantile(highest, 0.99), abs=1e-3)
    assert tail.slope == pytest.approx(
        (highest[highest > tail.start] - tail.start).mean(), abs=1e-3
    )


def test_on_average_one_label_per_image_is_above_the_line(background):
    images = clustered(300, DIM, 3)
    around = Surroundings.of(background, images)
    above = sum(
        (of_words(background, around, row, images @ row, images) > 0.5).sum()
        for row in background.vectors
    )
    assert above / len(images) == pytest.approx(1, abs=0.4)


def test_being_near_to_every_image_makes_words_no_likelier(background):
    images, query = clustered(300, DIM, 3), clustered(1, DIM, 4)[0]
    around = Surroundings.of(background, images)
    middle = unit(images.mean(axis=0))
    towards = [unit(query + share * middle) for share in (0.0, 0.5, 1.0)]
    shares = [
        (of_words(background, around, row, images @ row, images) > 0.5).mean() for row in towards
    ]
    assert max(shares) < 0.1


@pytest.mark.parametrize("count", [1, 2, 12])
def test_a_few_images_are_enough_for_likelihoods(background, count):
    images, query = clustered(count, DIM, 3), clustered(1, DIM, 4)[0]
    around = Surroundings.of(background, images)
    found = of_words(background, around, query, images @ query, images)
    assert found.shape == (count,) and ((found >= 0) & (found <= 1)).all()


def test_pictures_are_likely_if_unrelated_ones_would_not_score_as_high():
    rng = np.random.default_rng(0)
    sample, query = unit(rng.standard_normal((300, DIM))), unit(rng.standard_normal(DIM))
    strangers = unit(rng.standard_normal((1000, DIM)))
    twins = unit(query + 0.3 * unit(rng.standard_normal((20, DIM))))
    far = of_pictures(query, strangers @ query, strangers, sample, 1000)
    near = of_pictures(query, twins @ query, twins, sample, 1000)
    assert (near > 0.5).all() and (far > 0.5).sum() <= 3
    more = of_pictures(query, strangers @ query, strangers, sample, 10**6)
    assert (more <= far + 1e-6).all()  # among more strangers a high score says less


def test_likelihood_never_falls_as_the_score_rises(background):
    image, sample = clustered(1, DIM, 5), clustered(100, DIM, 6)
    around = Surroundings.of(background, sample)
    scores = np.linspace(-1, 1, 50, dtype=np.float32)
    images = np.repeat(image, 50, axis=0)
    for found in (
        of_words(background, around, clustered(1, DIM, 7)[0], scores, images),
        of_pictures(clustered(1, DIM, 7)[0], scores, images, sample, 100),
    ):
        assert (np.diff(found) >= 0).all() and 0 <= found.min() and found.max() <= 1


def test_the_likeliest_labels_are_the_zero_shot_ones(background):
    image = clustered(1, DIM, 8)[0]
    logits = 20 * background.vectors @ image
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    found = likeliest(background, image, 3)
    best = np.sort(shares)[::-1][:3]
    # labels whose letters add up alike have the same vector, so that rounding orders them
    own = [shares[default_labels().index(label)] for label, _ in found]
    assert len({label for label, _ in found}) == 3
    assert own == pytest.approx(best, abs=1e-5)
    assert [share for _, share in found] == pytest.approx(best, abs=1e-5)


def test_a_saved_background_is_loaded_unless_it_is_unsound(background, tmp_path):
    assert Background.load(tmp_path, background.identity) is None
    background.save(tmp_path)
    read = Background.load(tmp_path, background.identity)
    assert read.scale == 20 and read.vectors == pytest.approx(background.vectors, abs=1e-3)
    assert Background.load(tmp_path, "j" * 64) is None  # another model
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1000])
    assert Background.load(tmp_path, background.identity) is None
    path.write_bytes(b"nothing")
    assert Background.load(tmp_path, background.identity) is None


def test_a_background_that_cannot_be_saved_raises_nothing(background, tmp_path):
    background.save(tmp_path / "no" / "folder")
    assert not (tmp_path / "no").exists()


def test_every_hit_of_a_ranking_has_a_likelihood(colour_library, encoder):
    model = colour_library.model()
    index = VectorIndex.open(colour_library, model.id)
    vectors = unit(np.abs(np.random.default_rng(1).standard_normal((len(default_labels()), 3))))
    background = Background(model.identity, vectors, 30.0)
    for query, kind in (("red", "words"), ("like:1", "pictures"), ("red like:1", "mixed")):
        ranking = rank(colour_library, index, encoder, parse(query), limit=5)
        found = likelihoods(colour_library, index, background, ranking)
        assert ranking.kind == kind and found.shape == (5,) and found.dtype == np.float32
        assert ((found >= 0) & (found <= 1)).all()
        assert len(hits(colour_library, ranking, 0, 5)) == 5
    browsing = rank(colour_library, index, encoder, parse(""))
    assert likelihoods(colour_library, index, background, browsing) is None


def test_a_growing_library_is_measured_anew_only_now_and_then(background, tmp_path, monkeypatch):
    measured = []
    of = Surroundings.of

    def counted(background, vectors):
        measured.append(len(vectors))
        return of(background, vectors)

    monkeypatch.setattr(Surroundings, "of", counted)
    with Library.open(tmp_path, create=True) as library:
        model = library.set_model("toy", background.identity, DIM, "toy")
        grown, query = 0, clustered(1, DIM, 4)
        for more in (100, 1, 899, 1, 15, 100):
            store(library, clustered(more, DIM, grown), grown)
            grown += more
            index = VectorIndex.open(library, model.id)
            near = index.search(query, 5)
            ranking = Ranking(near.ids[0], near.scores[0], grown, "words", vector=query[0])
            fresh = Background(background.identity, background.vectors, background.scale)
            one, other = (
                likelihoods(library, index, known, ranking) for known in (background, fresh)
            )
            assert one.tolist() == other.tolist()
    # fresh: every time; background: at 100, 101, 1,000 and 1,116 images, not at 1,001 and 1,016
    assert measured == [100, 100, 101, 101, 400, 400, 400, 400, 400, 400]
