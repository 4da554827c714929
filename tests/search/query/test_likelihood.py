import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.query.hits import hits
from fovea.search.query.language import parse
from fovea.search.query.likelihood import (
    EVIDENCE,
    Background,
    Surroundings,
    default_labels,
    evidence,
    evidence_of_pictures,
    likeliest,
    likelihoods,
    probabilities,
)
from fovea.search.query.measured import LabelSigns, Measured, Signs, Worth
from fovea.search.query.rank import Ranking, rank
from vectors import clustered, store

DIM = 24
WORDS = Signs((1.0, 0.5, 0.5), -1.0, 0.2, Worth(0.9, 0.5, 400))
SIGNS = Measured("i" * 64, (0.0,) * DIM, WORDS, WORDS, LabelSigns(0.0, 0.9, 1.0))


@dataclass
class Words:
    """A toy encoder that gives each text its own vector."""

    logit_scale: float = 20.0

    def encode_texts(self, texts):
        return np.concatenate([clustered(1, DIM, sum(map(ord, text))) for text in texts])


@pytest.fixture(scope="module")
def background():
    return Background.of("i" * 64, Words(), SIGNS)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def test_the_default_labels_are_many_and_distinct():
    labels = default_labels()
    assert len(labels) >= 400 and len(set(labels)) == len(labels)
    assert all(label == label.strip() and label for label in labels)


def found_for(background, query, images, library=None):
    around = Surroundings.of(background.signs, images if library is None else library)
    return evidence(background, around, WORDS, query, images @ query, images)


def test_evidence_is_the_cosine_and_how_far_it_stands_out(background):
    images, query = clustered(300, DIM, 3), clustered(1, DIM, 4)[0]
    scores, labels = images @ query, images @ background.vectors.T
    share, others = 300 / 320, np.sort(scores)[:285]  # the highest twentieth may be matches
    usual, spread = share * others.mean(), share * others.std() + (1 - share) * WORDS.spread
    expected = [
        scores,
        (scores - usual) / spread,  # the model's own centre is 0
        (scores - labels.mean(axis=1)) / labels.std(axis=1),
    ]
    found = found_for(background, query, images)
    assert found.shape == (300, len(EVIDENCE)) == (300, len(WORDS.weights))
    assert found.T == pytest.approx(np.array(expected), abs=1e-3)


def test_a_match_does_not_hide_itself_in_a_small_library(background):
    query = np.eye(DIM, dtype=np.float32)[0]
    images = np.eye(DIM, dtype=np.float32)[1:13]  # nothing like the query
    alone = found_for(background, query, query[None], np.concatenate([images, query[None]]))
    assert alone[0, 1] > 5  # one of 13 is never more than 3.5 deviations from a mean with it


def test_likelihood_follows_from_evidence_by_the_measured_weights(background):
    found = np.array([[0.5, 2.0, 1.0], [0.1, -1.0, 0.0]])
    signs = Signs((2.0, 1.0, 0.5), -3.5, 0.1, WORDS.worth)
    odds = [math.exp(1.0 + 2.0 + 0.5 - 3.5), math.exp(0.2 - 1.0 - 3.5)]
    assert probabilities(signs, found) == pytest.approx([odd / (1 + odd) for odd in odds])


def test_being_near_to_every_image_makes_words_no_likelier_among_images(background):
    images, query = clustered(300, DIM, 3), clustered(1, DIM, 4)[0]
    middle = unit(images.mean(axis=0))
    near, far = (
        found_for(background, query, images),
        found_for(background, unit(query + middle), images),
    )
    assert far[:, 0].mean() > near[:, 0].mean() + 0.1
    assert far[:, 1].mean() == pytest.approx(near[:, 1].mean(), abs=0.2)


def test_a_few_images_are_compared_with_what_was_measured_elsewhere(background):
    """A single picture has no standard deviation, and its mean is its own cosine."""
    image, query = clustered(1, DIM, 3), clustered(1, DIM, 4)[0]
    cosine = float(image[0] @ query)
    [[_, among, _]] = found_for(background, query, image)
    assert among == pytest.approx(cosine * (1 - 1 / 21) / (WORDS.spread * 20 / 21), rel=1e-3)


@pytest.mark.parametrize("told, likely", [(0.9, True), (0.52, False), (0.3, False)])
@pytest.mark.parametrize("kind", ["words", "pictures"])
def test_a_line_no_better_than_chance_is_not_drawn(
    background, colour_library, encoder, told, likely, kind
):
    worth = Worth(told, 0.5, 400)  # 0.52 is within two standard errors of 0.5
    signs = replace(SIGNS, words=replace(WORDS, worth=worth), pictures=replace(WORDS, worth=worth))
    model = colour_library.model()
    vectors = unit(np.abs(np.random.default_rng(1).standard_normal((len(default_labels()), 3))))
    index = VectorIndex.open(colour_library, model.id)
    query = "red" if kind == "words" else "like:1"
    ranking = rank(colour_library, index, encoder, parse(query), limit=5)
    for known, drawn in ((replace(signs, centre=(0.0,) * 3), likely), (None, False)):
        given = Background(model.identity, vectors, 30.0, known)
        assert (likelihoods(colour_library, index, given, ranking) is not None) == drawn


@pytest.mark.parametrize("count", [1, 2, 12])
def test_a_few_images_are_enough_for_likelihoods(background, count):
    images, query = clustered(count, DIM, 3), clustered(1, DIM, 4)[0]
    found = probabilities(WORDS, found_for(background, query, images))
    assert found.shape == (count,) and ((found >= 0) & (found <= 1)).all()


def test_pictures_stand_out_among_those_of_the_query_and_of_the_image():
    rng = np.random.default_rng(0)
    sample, query = unit(rng.standard_normal((300, DIM))), unit(rng.standard_normal(DIM))
    twins = unit(query + 0.3 * unit(rng.standard_normal((20, DIM))))
    images = np.concatenate([sample[:50], twins])
    around, scores, share = Surroundings.of(SIGNS, sample), images @ query, 300 / 320
    found = evidence_of_pictures(around, WORDS, query, scores, images)
    others = sample @ query
    usual, spread = share * others.mean(), share * others.std() + (1 - share) * WORDS.spread
    assert found[:, 0] == pytest.approx(scores)
    assert found[:, 1] == pytest.approx((scores - usual) / spread, abs=1e-3)
    itself, others = 7, np.delete(sample, 7, axis=0) @ sample[7]
    share = 299 / 319
    usual, spread = share * others.mean(), share * others.std() + (1 - share) * WORDS.spread
    assert found[itself, 2] == pytest.approx((scores[itself] - usual) / spread, abs=1e-3)
    assert found[50:, 1:].min() > found[:50, 1:].max()


@pytest.mark.parametrize("count", [1, 2])
def test_a_few_images_are_enough_for_pictures(count):
    images, query = clustered(count, DIM, 3), clustered(1, DIM, 4)[0]
    around = Surroundings.of(SIGNS, images)
    found = evidence_of_pictures(around, WORDS, query, images @ query, images)
    assert found.shape == (count, 3) and np.isfinite(found).all()


def test_likelihood_never_falls_as_the_score_rises(background):
    image, sample = clustered(1, DIM, 5), clustered(100, DIM, 6)
    around = Surroundings.of(SIGNS, sample)
    scores = np.linspace(-1, 1, 50, dtype=np.float32)
    images = np.repeat(image, 50, axis=0)
    query = clustered(1, DIM, 7)[0]
    for found in (
        probabilities(WORDS, evidence(background, around, WORDS, query, scores, images)),
        probabilities(WORDS, evidence_of_pictures(around, WORDS, query, scores, images)),
    ):
        assert (np.diff(found) >= 0).all() and 0 <= found.min() and found.max() <= 1


def test_the_likeliest_labels_are_the_zero_shot_ones(background):
    image, centre = clustered(1, DIM, 8)[0], np.zeros(DIM, np.float32)
    logits = 20 * background.vectors @ image
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    found = likeliest(background, centre, image, 3)
    best = np.sort(shares)[::-1][:3]
    # labels whose letters add up alike have the same vector, so that rounding orders them
    own = [shares[default_labels().index(label)] for label, _ in found]
    assert len({label for label, _ in found}) == 3
    assert own == pytest.approx(best, abs=1e-5)
    assert [share for _, share in found] == pytest.approx(best, abs=1e-5)


def test_a_label_that_is_near_to_everything_does_not_come_first(background):
    images, centre = clustered(50, DIM, 8), clustered(1, DIM, 9)[0]
    label = int((background.vectors @ centre).argmax())
    crowded = unit(images + 2 * background.vectors[label])
    around = Surroundings.of(SIGNS, crowded)
    first = [likeliest(background, around.centre, image, 1)[0][0] for image in crowded]
    plain = [likeliest(background, np.zeros(DIM), image, 1)[0][0] for image in crowded]
    name = default_labels()[label]
    assert plain.count(name) > 40 and first.count(name) < 10


def test_labels_below_the_measured_threshold_are_not_shown(background):
    image, centre = clustered(1, DIM, 8)[0], np.zeros(DIM, np.float32)
    [(_, first), (_, second)] = likeliest(background, centre, image, 2)
    for threshold, count in ((first + 1e-3, 0), ((first + second) / 2, 1)):
        if threshold > second:
            signs = replace(SIGNS, labels=LabelSigns(threshold, 0.6, 0.5))
            assert len(likeliest(replace(background, signs=signs), centre, image)) == count
    often_wrong = replace(SIGNS, labels=LabelSigns(0.0, 0.59, 0.5))
    for signs in (None, replace(SIGNS, labels=None), often_wrong):
        assert likeliest(replace(background, signs=signs), centre, image) == []


def test_a_saved_background_is_loaded_unless_it_is_unsound(background, tmp_path):
    assert Background.load(tmp_path, background.identity) is None
    background.save(tmp_path)
    read = Background.load(tmp_path, background.identity)
    assert read.signs == background.signs == SIGNS
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
    background = Background(model.identity, vectors, 30.0, replace(SIGNS, centre=(0.0,) * 3))
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

    def counted(signs, vectors):
        measured.append(len(vectors))
        return of(signs, vectors)

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
            fresh = Background(background.identity, background.vectors, background.scale, SIGNS)
            one, other = (
                likelihoods(library, index, known, ranking) for known in (background, fresh)
            )
            assert one.tolist() == other.tolist()
    # fresh: every time; background: at 100, 101, 1,000 and 1,116 images, not at 1,001 and 1,016
    assert measured == [100, 100, 101, 101, 400, 400, 400, 400, 400, 400]
