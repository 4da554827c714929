"""Models joined of two small random parts."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from closeness import assert_close
from fovea.search.clip.errors import ModelError
from fovea.search.clip.parts.joining import TEMPLATES, joined, with_class_gain
from fovea.search.clip.parts.packaged import open_image_part, open_text_part
from small_clips import CLASSES, RESNET, VIT, install_parts, write_model


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """An EfficientNet-Lite with its classifier, and a BERT."""
    install_parts(tmp_path / "packages", monkeypatch)
    return open_image_part("tiny-lite"), open_text_part("tiny-bert")


@pytest.fixture
def clips(tmp_path):
    """A function that writes a CLIP and returns its parts."""

    def write(config):
        write_model(tmp_path / "clip", config)
        return open_image_part(str(tmp_path / "clip")), open_text_part(str(tmp_path / "clip"))

    return write


def pixels(size=32, n=3):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def class_rows(model, tokenizer):
    """The mean embedding of each class's names, one prompt at a time."""
    rows = []
    for names in CLASSES:
        prompts = [template.format(name) for name in names for template in TEMPLATES]
        tokens = (torch.from_numpy(tokenizer.tokenize([prompt], 16)) for prompt in prompts)
        found = [F.normalize(model.pool_text(one), dim=-1) for one in tokens]
        rows.append(F.normalize(torch.cat(found).mean(dim=0), dim=0))
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("head", [{}, {"hidden": 8, "queries": 2}], ids=["linear", "whole"])
def test_an_image_starts_at_the_mean_of_its_likely_classes_names(parts, head):
    image, text = parts
    model = joined(image, text, names=CLASSES, **head).eval()
    assert model.config.embed_dim == 32
    visual, x = model.visual, pixels()
    maps = visual.stem(x)
    for block in visual.blocks:
        maps = block(maps)
    likely = visual.fc(visual.pool(maps)).softmax(dim=-1)
    rows = likely @ class_rows(model, text.tokenizer)
    assert_close(model.encode_image(x), rows, terms=1280)


@torch.no_grad()
def test_a_text_starts_where_the_text_part_put_it(parts):
    image, text = parts
    model = joined(image, text).eval()
    tokens = torch.from_numpy(text.tokenizer.tokenize(["a red square", "one tile"], 16))
    assert_close(model.encode_text(tokens), model.pool_text(tokens))
    assert model.visual.classes == 0 and "visual.fc.weight" not in model.state_dict()


def test_projections_of_another_width_start_at_random(parts):
    model = joined(*parts, names=CLASSES, embed_dim=48)
    assert model.text_projection.shape == (32, 48)
    assert model.visual.projection.proj.shape == (1280 + 32, 48)
    assert model.visual.projection.proj.abs().min() > 0


def test_heads_of_the_queries_divide_the_width(parts):
    widths = {32: 1, 48: 1, 192: 3, 200: 2, 384: 6}
    for width, heads in widths.items():
        model = joined(*parts, embed_dim=width, queries=1)
        assert model.visual.querypool.heads == heads


def test_an_efficientnet_takes_another_size(parts):
    model = joined(*parts, image_size=64).eval()
    assert model.config.vision.image_size == 64
    assert model.encode_image(pixels(64)).shape == (3, 32)


def test_the_images_are_prepared_as_for_the_image_part(parts, clips):
    other = {"mean": (0.1, 0.2, 0.3), "fit": "squash", "resampling": "BILINEAR"}
    image, _ = clips(replace(VIT, activation="gelu", **other))
    config = joined(image, parts[1]).config
    assert (config.mean, config.fit, config.resampling) == tuple(other.values())
    assert config.activation == "gelu"


@torch.no_grad()
@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_the_parts_of_a_clip_keep_their_weights(clips, config):
    image, text = clips(replace(config, activation="gelu"))
    model = joined(image, text)
    assert model.config == replace(config, embed_dim=64, activation="gelu")
    state = model.state_dict()
    for name, tensor in {**image.state, **text.state}.items():
        assert torch.equal(state[name], tensor.to(state[name].dtype)), name


def test_parts_with_other_activations_do_not_fit(parts, clips, tmp_path):
    image, _ = clips(VIT)
    write_model(tmp_path / "other", replace(VIT, activation="gelu"))
    text = open_text_part(str(tmp_path / "other"))
    with pytest.raises(ModelError, match="image part uses quick_gelu and the text part gelu"):
        joined(image, text)
    assert joined(parts[0], text).config.activation == "gelu"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"names": CLASSES}, "class_names, hidden and queries are for an EfficientNet"),
        ({"hidden": 8}, "class_names, hidden and queries are for an EfficientNet"),
        ({"queries": 1}, "class_names, hidden and queries are for an EfficientNet"),
        ({"image_size": 96}, "takes images of 64 pixels a side, not 96; only an EfficientNet"),
    ],
)
def test_a_head_that_the_image_part_cannot_have_is_refused(clips, options, told):
    with pytest.raises(ModelError, match=told):
        joined(*clips(VIT), **options)


def test_class_names_need_as_many_classes(parts):
    image, text = parts
    with pytest.raises(ModelError, match="are 5 class names, but .* classifier has 6 classes"):
        joined(image, text, names=CLASSES[:5])
    state = {name: tensor for name, tensor in image.state.items() if "fc." not in name}
    with pytest.raises(ModelError, match="class names need an image part with its classifier"):
        joined(replace(image, state=state), text, names=CLASSES)


def test_parts_that_are_not_whole_are_refused(parts):
    image, text = parts
    name = "bert.encoder.layer.1.output.dense.bias"
    state = dict(text.state)
    tensor = state.pop(name)
    with pytest.raises(ModelError, match=f"the text part lacks {name}; it is damaged"):
        joined(image, replace(text, state=state))
    with pytest.raises(ModelError, match=rf"has {name} \(31,\), not \(32,\)"):
        joined(image, replace(text, state=state | {name: tensor[1:]}))
    more = image.state | {"visual.se.weight": tensor}
    with pytest.raises(ModelError, match=r"has visual.se.weight \(32,\), which its tower does not"):
        joined(replace(image, state=more), text)


@torch.no_grad()
def test_class_names_count_as_much_as_they_are_told_to(parts, clips):
    model = joined(*parts, names=CLASSES)
    before, x = model.encode_image(pixels()), pixels()
    assert with_class_gain(model, None) is model
    assert_close(model.encode_image(x), before)
    assert_close(with_class_gain(model, 3.0).encode_image(x), 3 * before)  # there is nothing else
    assert_close(with_class_gain(model, 1.0).encode_image(x), before)
    with pytest.raises(ModelError, match="class_gain is for a model with class names"):
        with_class_gain(joined(*parts), 2.0)
    with pytest.raises(ModelError, match="class_gain"):
        with_class_gain(joined(*clips(VIT)), 2.0)
