"""The losses of classes, of a small random model."""

import numpy as np
import pytest
import torch

from fovea.search.clip.errors import ModelError
from fovea.search.clip.training.guide import GAINS, ClassGuide, _covariance
from fovea.search.clip.wordpiece import WordPiece
from small_clips import CLASSES, PARTS, VIT, WORDS, random_clip

TOKENIZER = WordPiece(WORDS)
SCALE = torch.tensor(10.0)


@pytest.fixture
def model():
    return random_clip(PARTS)


def pooled(n=40, seed=0):
    """Features of real images, as a ReLU6 leaves them."""
    return np.random.default_rng(seed).uniform(0, 2, (n, 1280)).astype(np.float16)


def guide(model, classes=6, seed=0, features=None, names=CLASSES):
    features = pooled() if features is None else features
    return ClassGuide(model, TOKENIZER, names, [features], classes=classes, seed=seed)


def classes_of(tokens):
    """The classes that rows of token ids name."""
    ids = {TOKENIZER.encode(names[0])[0]: number for number, names in enumerate(CLASSES)}
    return [next(ids[int(token)] for token in row if int(token) in ids) for row in tokens]


def own_texts(model, monkeypatch, table):
    """Have the model embed a prompt as its class's row of a table; return the classes it saw."""
    seen = []

    def unit_texts(tokens):
        seen.append(classes_of(tokens))
        return table[seen[-1]]

    monkeypatch.setattr(model, "unit_texts", unit_texts)
    return seen


def images(n=8, seed=0):
    rows = torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


@torch.no_grad()
def test_a_student_that_sees_what_the_classifier_sees_has_nothing_to_learn(model, monkeypatch):
    table = images(len(CLASSES), seed=1)
    own_texts(model, monkeypatch, table)
    real = torch.from_numpy(pooled(8)).float()
    logits = model.visual.fc(real)
    equal = logits @ torch.linalg.pinv(table).T / SCALE
    assert guide(model).losses(equal, real, SCALE, 0)[0].item() == pytest.approx(0, abs=1e-4)
    other = images()
    found = guide(model).losses(other, real, SCALE, 0)[0].item()
    teacher = logits.double().softmax(dim=1)
    student = (SCALE * other @ table.T).double().softmax(dim=1)
    expected = (teacher * (teacher / student).log()).sum(dim=1).mean().item()
    assert found == pytest.approx(expected, rel=1e-4) and expected > 0.1


@torch.no_grad()
def test_a_virtual_image_is_of_its_class_to_the_classifier(model, monkeypatch):
    seen = own_texts(model, monkeypatch, images(len(CLASSES), seed=1))
    shown = []
    monkeypatch.setattr(model.visual, "project", lambda x: shown.append(x) or x[:, :32])
    one = guide(model)
    for step in range(3):
        one.losses(images(), torch.from_numpy(pooled(8)).float(), SCALE, step)
    for classes, features in zip(seen, shown, strict=True):
        assert sorted(classes) == list(range(len(CLASSES)))
        assert model.visual.fc(features).argmax(dim=1).tolist() == classes
        assert features.min() >= 0


@torch.no_grad()
def test_a_shift_adds_what_is_drawn_to_its_classs_logit(model, monkeypatch):
    seen = own_texts(model, monkeypatch, images(len(CLASSES), seed=1))
    shown = []
    monkeypatch.setattr(model.visual, "project", lambda x: shown.append(x) or x[:, :32])
    real = torch.full((1, 1280), 3.0)  # far enough from zero for nothing to be cut off
    guide(model).losses(images(1), real, SCALE, 0)
    logits = (model.visual.fc(shown[0]) - model.visual.fc(real)).numpy()
    gained = logits[np.arange(len(CLASSES)), seen[0]]
    assert ((gained > GAINS[0] - 0.01) & (gained < GAINS[1] + 0.01)).all()


@torch.no_grad()
def test_the_covariance_is_that_of_all_parts_together():
    rows = pooled(40) + np.float16(30)  # far from zero
    count, found = _covariance([rows[:9], rows[:0], rows[9:10], rows[10:]])
    assert count == 40 and found.dtype == np.float64
    np.testing.assert_allclose(found, np.cov(rows.astype(np.float64).T), rtol=1e-9, atol=1e-12)
    assert _covariance([])[0] == 0


@torch.no_grad()
@pytest.mark.parametrize("shared", ["red", "RED"])
def test_classes_that_share_a_name_are_not_contrasted(model, monkeypatch, shared):
    """The first two are both called red; alone with each other they have nothing to learn."""
    names = [["red"], [shared, "tile"], ["lime"], ["blue"], ["yellow"], ["white"]]
    real = torch.from_numpy(pooled(8)).float()
    for chosen, nothing in (([0, 1], True), ([0, 2], False)):
        monkeypatch.setattr(ClassGuide, "_draw", lambda self, logits, rng, to=chosen: to)
        for step in range(4):
            loss = guide(model, 2, names=names).losses(images(), real, SCALE, step)[1].item()
            assert (loss == 0) == nothing and np.isfinite(loss)


@torch.no_grad()
def test_other_classes_are_contrasted_as_ever(model, monkeypatch):
    names = [CLASSES[0], [CLASSES[0][0]], *CLASSES[2:]]
    table = images(len(CLASSES), seed=1)
    monkeypatch.setattr(ClassGuide, "_draw", lambda self, logits, rng: list(range(6)))
    monkeypatch.setattr(model, "unit_texts", lambda tokens: table)
    rows = images(6, seed=2)
    monkeypatch.setattr(model.visual, "project", lambda x: rows)
    real = torch.from_numpy(pooled(8)).float()
    found = guide(model, names=names).losses(images(), real, SCALE, 0)[1].item()
    logits = 10.0 * rows.double() @ table.double().T
    logits[0, 1] = logits[1, 0] = -torch.inf
    right = logits.diagonal()
    expected = [(logits.logsumexp(dim=side) - right).mean().item() for side in (0, 1)]
    assert found == pytest.approx(sum(expected) / 2, rel=1e-4)


@torch.no_grad()
def test_the_classifiers_judgement_is_computed_in_float32(model, monkeypatch):
    own_texts(model, monkeypatch, images(len(CLASSES), seed=1))
    real = torch.from_numpy(pooled(8)).float()
    plain = guide(model).losses(images(), real, SCALE, 0)[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = guide(model).losses(images(), real, SCALE, 0)[0]
    assert torch.equal(plain, mixed)


@torch.no_grad()
def test_draws_depend_on_the_seed_and_the_step_alone(model):
    real = torch.from_numpy(pooled(8)).float()

    def losses(step, seed=0):
        return [loss.item() for loss in guide(model, 4, seed).losses(images(), real, SCALE, step)]

    assert losses(3) == losses(3)
    assert len({tuple(losses(step, seed)) for step, seed in ((3, 0), (4, 0), (3, 1))}) == 3


@torch.no_grad()
def test_likely_classes_are_drawn_first(model, monkeypatch):
    seen = own_texts(model, monkeypatch, images(len(CLASSES), seed=1))
    real = torch.from_numpy(pooled(1)).float()
    likely = set(model.visual.fc(real).topk(2).indices[0].tolist())
    for step in range(5):
        guide(model, 3).losses(images(1), real, SCALE, step)
        assert len(set(seen[-1])) == 3 and likely <= set(seen[-1])


def test_the_tower_and_the_text_tower_learn_and_the_classifier_does_not(model):
    real = torch.from_numpy(pooled(8)).float()
    for tensor in model.visual.class_tensors():
        tensor.requires_grad_(False)
    distilled, virtual = guide(model).losses(images().requires_grad_(), real, SCALE, 0)
    (distilled + virtual).backward()
    assert model.text_projection.grad.abs().sum() > 0
    assert model.visual.projection.proj.grad.abs().sum() > 0
    assert all(tensor.grad is None for tensor in model.visual.class_tensors())


@pytest.mark.parametrize(
    ("config", "features", "told"),
    [
        (VIT, pooled(), "need a model with class names; add class_names, or leave them out"),
        (PARTS, pooled(1), "two or more images"),
        (PARTS, np.ones((9, 1280), np.float16), "images that differ"),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(config, features, told):
    with pytest.raises(ModelError, match=told):
        guide(random_clip(config), features=features)
