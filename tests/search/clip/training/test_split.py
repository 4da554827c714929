import pytest
import torch
import torch.nn.functional as F

from closeness import assert_close_rows
from fovea.search.clip.training import split as module
from fovea.search.clip.training.augment import Augmentation
from fovea.search.clip.training.split import Halves
from learners import parts_learner
from small_clips import PARTS, RESNET, VIT, random_clip


def texts_of(config, ends=(8, 3, 5, 1)):
    """Token ids of random texts that end at these places, as the config's text tower has them."""
    generator = torch.Generator().manual_seed(1)
    size = config.text.vocab_size
    tokens = torch.randint(1, size - 1, (len(ends), 9), generator=generator)
    for row, end in zip(tokens, ends, strict=True):
        row[end] = size - 1
        row[end + 1 :] = 0
    return tokens, torch.tensor(ends) + 1


@pytest.mark.parametrize("config", [VIT, RESNET, PARTS], ids=["vit", "resnet", "lite and bert"])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_both_halves_together_are_the_model(config, count):
    model = random_clip(config)
    halves = Halves(model, count, count)
    generator = torch.Generator().manual_seed(1)
    size = config.vision.image_size
    pixels = torch.randn(3, 3, size, size, generator=generator)
    tokens, lengths = texts_of(config)
    with torch.no_grad():
        images = halves.upper_images(halves.lower_images(pixels))
        texts = halves.upper_texts(halves.lower_texts(tokens), lengths)
        assert_close_rows(images, F.normalize(model.encode_image(pixels), dim=-1))
        assert_close_rows(texts, F.normalize(model.encode_text(tokens), dim=-1))


def test_features_are_those_below_the_tuned_blocks():
    shapes = (VIT, (17, 128), 64), (RESNET, (256, 6, 6), 64), (PARTS, (24, 1, 1), 32)
    for config, shape, width in shapes:
        halves = Halves(random_clip(config), 1, 1)
        size = config.vision.image_size
        assert halves.lower_images(torch.zeros(2, 3, size, size)).shape == (2, *shape)
        assert halves.lower_texts(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, width)


def test_a_texts_padding_does_not_matter():
    halves = Halves(random_clip(VIT), 1, 1)
    features, lengths = torch.randn(2, 6, 64), torch.tensor([3, 4])
    padded = torch.cat([features[:, :4], torch.zeros(2, 5, 64)], dim=1)
    with torch.no_grad():
        rows = halves.upper_texts(features, lengths)
        assert_close_rows(halves.upper_texts(padded, lengths), rows)


@pytest.mark.parametrize("config", [VIT, PARTS], ids=["causal", "bert"])
def test_texts_that_come_again_are_computed_once_below_the_trained_blocks(monkeypatch, config):
    model = random_clip(config)
    halves, asked = Halves(model, 0, 1), []
    halves.keeps_texts = True
    lower = halves.lower_texts
    monkeypatch.setattr(halves, "lower_texts", lambda tokens: asked.append(tokens) or lower(tokens))
    tokens, _ = texts_of(config)
    with torch.no_grad():
        rows = halves.unit_texts(tokens)
        want = F.normalize(model.encode_text(tokens), dim=-1)
        torch.testing.assert_close(rows, want, atol=2e-3, rtol=0)  # kept as float16
        assert_close_rows(halves.unit_texts(tokens[[2, 0]]), rows[[2, 0]])
        assert len(asked) == 4
        kept = 2 * config.text.width * (9 + 4 + 6 + 2)  # bytes
        monkeypatch.setattr(module, "MOST_BYTES", kept + 2 * config.text.width * 3)
        other, _ = texts_of(config, ends=(2, 4))  # room for the first only
        for _ in range(2):
            halves.unit_texts(other)
            assert_close_rows(halves.unit_texts(tokens), rows)
    assert len(asked) == 4 + 2 + 1


def test_texts_that_differ_each_time_are_computed_together(tmp_path, monkeypatch):
    tokens, _ = texts_of(PARTS)
    for words in (0.0, 0.1):
        how = Augmentation(words=words)
        folder = tmp_path / str(words)
        one, _ = parts_learner(folder, monkeypatch, views=1, tune_text="1", augmentation=how)
        halves = one.halves
        rows = halves.unit_texts(tokens)
        assert bool(halves._kept) == (words == 0)
        if words:
            assert torch.equal(rows, one.model.unit_texts(tokens))
        rows.sum().backward()
        layers = one.model.bert.encoder.layer
        assert [layer.output.dense.weight.grad is None for layer in layers] == [True, False]


@pytest.mark.parametrize(
    ("config", "stem", "block"),
    [
        (VIT, "positional_embedding", "transformer.resblocks.0.ln_1.weight"),
        (RESNET, "bn3.running_var", "layer1.0.bn1.running_mean"),
        (PARTS, "bn0.running_mean", "blocks.4.project_conv.weight"),
    ],
    ids=["vit", "resnet", "lite"],
)
def test_features_depend_on_the_locked_tensors_alone(config, stem, block):
    model = random_clip(config)
    halves, size = Halves(model, 2, 0), config.vision.image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    names = halves.locked_names()
    assert {stem, block} <= set(names)
    with torch.no_grad():
        before = halves.lower_images(pixels)
        for name, tensor in model.visual.state_dict().items():
            if name not in names:
                tensor.zero_()
        assert torch.equal(halves.lower_images(pixels), before)
        for name in names:
            tensor = model.visual.state_dict()[name]
            kept = tensor.clone()
            tensor.add_(1)
            assert not torch.equal(halves.lower_images(pixels), before), name
            tensor.copy_(kept)
    assert Halves(model, 99, 0).locked_names() == []
