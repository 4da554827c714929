"""What is done to a model of parts before it is written."""

import pytest
import torch

from fovea.search.clip.errors import ModelError
from fovea.search.clip.parts.finishing import Finish, finished
from fovea.search.clip.parts.joining import joined
from fovea.search.clip.parts.packaged import open_image_part, open_text_part
from small_clips import CLASSES, VIT, install_parts, random_clip


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model of parts that has learned something."""
    install_parts(tmp_path / "packages", monkeypatch)
    made = joined(open_image_part("tiny-lite"), open_text_part("tiny-bert"), names=CLASSES)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in made.parameters():
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    return made


def test_the_text_tower_is_mixed_with_the_part_and_the_projection_with_the_identity(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    part = dict(open_text_part("tiny-bert").state)
    part["text_projection"] = torch.eye(len(model.text_projection))
    made = finished(model, Finish("tiny-bert", trained=0.75)).state_dict()
    for name, tensor in made.items():
        want = 0.75 * before[name] + 0.25 * part[name] if name in part else before[name]
        torch.testing.assert_close(tensor, want, atol=1e-6, rtol=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_class_names_are_weighed(model):
    made = finished(model, Finish(class_gain=3.0))
    lengths = made.visual.class_embedding.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 3.0))
    assert torch.equal(made.text_projection, model.text_projection)


def test_nothing_is_done_unless_asked_for(model):
    made = finished(model, Finish()).state_dict()
    assert all(torch.equal(tensor, made[name]) for name, tensor in model.state_dict().items())


def test_another_models_text_tower_is_not_mixed(model):
    with pytest.raises(ModelError, match="a model whose text projection is square|does not fit"):
        finished(random_clip(VIT), Finish("tiny-bert", trained=0.5))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"trained": 1.5, "text_tower": "tiny-bert"}, "trained is 1.5; give a share from 0 to 1"),
        ({"trained": True}, "trained is True; give a share"),
        ({"trained": 0.5}, "trained needs text_tower"),
        ({"class_gain": 0}, "class_gain is 0; give a number above 0"),
        ({"towers": 1}, "finish has no field 'towers'; it has text_tower, trained, class_gain"),
    ],
)
def test_invalid_fields_are_refused(fields, told):
    with pytest.raises(ModelError, match=told):
        Finish.from_dict(fields)
