import pytest
import torch
from torch import nn

from coloured import RESNET, TEXT, VIT
from fovea.search.clip.config import ClipConfig
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP, initialise
from fovea.search.clip.training.partial import choose_trainable, freeze_batch_norm, resized

POSITIONS = {"vit": "visual.positional_embedding", "resnet": "visual.attnpool.positional_embedding"}
VISION = {"vit": VIT | {"layers": 3}, "resnet": RESNET | {"layers": [1, 1, 1, 2]}}


def model(kind):
    torch.manual_seed(0)
    shape = {"embed_dim": 16, "vision_cfg": VISION[kind], "quick_gelu": True}
    made = CLIP(ClipConfig.from_dict(shape | {"text_cfg": TEXT | {"layers": 2, "vocab_size": 600}}))
    initialise(made)
    return made


ALWAYS = {
    "vit": ("visual.proj", "visual.ln_post."),
    "resnet": ("visual.attnpool.",),
    "text": ("ln_final.", "text_projection", "logit_scale"),
}


@pytest.mark.parametrize(
    ("kind", "tune", "blocks"),
    [
        ("vit", "0", ()),
        ("vit", "1", ("visual.transformer.resblocks.2.", "transformer.resblocks.1.")),
        (
            "vit",
            "2",
            (
                "visual.transformer.resblocks.1.",
                "visual.transformer.resblocks.2.",
                "transformer.resblocks.0.",
                "transformer.resblocks.1.",
            ),
        ),
        ("resnet", "1", ("visual.layer4.1.", "transformer.resblocks.1.")),
        (
            "resnet",
            "3",
            (
                "visual.layer3.0.",
                "visual.layer4.",
                "transformer.resblocks.0.",
                "transformer.resblocks.1.",
            ),
        ),
    ],
)
def test_the_last_blocks_and_the_projections_learn(kind, tune, blocks):
    made = model(kind)
    choose_trainable(made, tune, tune)
    expected = ALWAYS[kind] + ALWAYS["text"] + blocks
    for name, tensor in made.named_parameters():
        assert tensor.requires_grad == name.startswith(expected), name


@pytest.mark.parametrize(("image", "text"), [("1", "0"), ("0", "all"), ("all", "1")])
def test_the_towers_may_be_tuned_differently(image, text):
    made = model("vit")
    choose_trainable(made, image, text)
    learns = {name for name, tensor in made.named_parameters() if tensor.requires_grad}
    for tune, tower in ((image, "visual."), (text, "")):
        choose_trainable(made, tune, tune)
        for name, tensor in made.named_parameters():
            if name.startswith("visual.") == bool(tower):
                assert (name in learns) == tensor.requires_grad, name


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_all_of_it_learns_unless_told_otherwise(kind):
    made = model(kind)
    choose_trainable(made, "all", "all")
    assert all(tensor.requires_grad for tensor in made.parameters())


@pytest.mark.parametrize(("tune", "learns"), [("all", True), ("2", False)])
def test_statistics_of_a_tower_that_is_partly_tuned_stay(tune, learns):
    made = model("resnet").train()
    freeze_batch_norm(made, tune)
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(norm.training == learns for norm in norms)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_another_input_size_interpolates_the_positions(kind):
    made = model(kind).eval()
    bigger = resized(made, 64)
    assert bigger.config.vision.image_size == 64
    assert bigger.encode_image(torch.rand(2, 3, 64, 64)).shape == (2, 16)
    rows, before = (m.state_dict()[POSITIONS[kind]] for m in (bigger, made))
    assert len(rows) == (17 if kind == "vit" else 5)
    assert torch.equal(rows[0], before[0])
    grid = before[1:].mean(dim=0)
    assert torch.allclose(rows[1:].mean(dim=0), grid, atol=0.1 * float(grid.abs().max()))
    others = set(made.state_dict()) - {POSITIONS[kind]}
    assert all(torch.equal(made.state_dict()[n], bigger.state_dict()[n]) for n in others)


def test_the_same_input_size_changes_nothing():
    made = model("vit")
    same = resized(made, 32).state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in made.state_dict().items())


@pytest.mark.parametrize(("kind", "size"), [("vit", 8), ("resnet", 50)])
def test_a_size_that_the_tower_cannot_take_is_refused(kind, size):
    with pytest.raises(ModelError, match=str(size)):
        resized(model(kind), size)
