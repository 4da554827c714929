import pytest
import torch
import torch.nn.functional as F

from closeness import assert_close_rows
from fovea.search.clip.training.split import Halves
from small_clips import RESNET, VIT, random_clip


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_both_halves_together_are_the_model(config, count):
    model = random_clip(config)
    halves = Halves(model, count, count)
    generator = torch.Generator().manual_seed(1)
    size = config.vision.image_size
    pixels = torch.randn(3, 3, size, size, generator=generator)
    tokens = torch.randint(0, 500, (4, 9), generator=generator)
    ends = torch.tensor([8, 3, 5, 1])
    tokens[torch.arange(4), ends] = config.text.vocab_size - 1
    with torch.no_grad():
        images = halves.upper_images(halves.lower_images(pixels))
        texts = halves.upper_texts(halves.lower_texts(tokens), ends + 1)
        assert_close_rows(images, F.normalize(model.encode_image(pixels), dim=-1))
        assert_close_rows(texts, F.normalize(model.encode_text(tokens), dim=-1))


def test_features_are_those_below_the_tuned_blocks():
    for config, shape in ((VIT, (17, 128)), (RESNET, (256, 6, 6))):
        halves = Halves(random_clip(config), 1, 1)
        size = config.vision.image_size
        assert halves.lower_images(torch.zeros(2, 3, size, size)).shape == (2, *shape)
        assert halves.lower_texts(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 64)


def test_a_texts_padding_does_not_matter():
    halves = Halves(random_clip(VIT), 1, 1)
    features, lengths = torch.randn(2, 6, 64), torch.tensor([3, 4])
    padded = torch.cat([features[:, :4], torch.zeros(2, 5, 64)], dim=1)
    with torch.no_grad():
        rows = halves.upper_texts(features, lengths)
        assert_close_rows(halves.upper_texts(padded, lengths), rows)


def test_texts_below_the_trained_blocks_are_computed_once(monkeypatch):
    model = random_clip(VIT)
    halves, asked = Halves(model, 0, 1), []
    lower = halves.lower_texts
    monkeypatch.setattr(halves, "lower_texts", lambda tokens: asked.append(tokens) or lower(tokens))
    tokens = torch.randint(0, 500, (4, 9), generator=torch.Generator().manual_seed(1))
    tokens[torch.arange(4), torch.tensor([8, 3, 5, 1])] = VIT.text.vocab_size - 1
    with torch.no_grad():
        rows = halves.unit_texts(tokens)
        want = F.normalize(model.encode_text(tokens), dim=-1)
        torch.testing.assert_close(rows, want, atol=2e-3, rtol=0)  # kept as float16
        assert_close_rows(halves.unit_texts(tokens[[2, 0]]), rows[[2, 0]])
        assert len(asked) == 4
        monkeypatch.setattr("fovea.search.clip.training.split.MOST_TEXTS", 4)
        assert_close_rows(halves.unit_texts(tokens[[3]]), rows[[3]])
        assert len(asked) == 4
        halves.unit_texts(tokens[:1] * 0 + VIT.text.vocab_size - 1)
        halves.unit_texts(tokens[:1] * 0 + VIT.text.vocab_size - 1)
    assert len(asked) == 6  # beyond the limit a text is computed anew
