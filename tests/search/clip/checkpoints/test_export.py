import json
import os
import stat

import pytest
import torch
from safetensors import safe_open

from coloured import RESNET, TEXT, VIT
from fovea.search.clip.checkpoints.checkpoint import load_clip
from fovea.search.clip.checkpoints.export import save_model
from fovea.search.clip.config import ClipConfig
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP, initialise
from fovea.search.clip.tokenizer import Tokenizer

TOKENIZER = Tokenizer([("a", "b"), ("ab", "c</w>")])
FILES = ["bpe.txt.gz", "config.json", "model.safetensors"]


def model(vision=VIT, seed=0):
    torch.manual_seed(seed)
    shape = {"embed_dim": 16, "vision_cfg": vision, "quick_gelu": True}
    text = TEXT | {"vocab_size": TOKENIZER.vocab_size}
    made = CLIP(ClipConfig.from_dict(shape | {"text_cfg": text}))
    initialise(made)
    return made


def contents(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
def test_a_model_survives_being_written_and_read(tmp_path, vision):
    made = model(vision)
    folder = save_model(made, TOKENIZER, tmp_path / "deep" / "model", dtype=torch.float32)
    read = load_clip(folder)
    assert read.config == made.config
    assert Tokenizer.from_folder(folder).merges == TOKENIZER.merges
    for name, tensor in made.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, read.state_dict()[name]), name


def test_weights_are_stored_in_half_the_size_unless_told_otherwise(tmp_path):
    save_model(model(), TOKENIZER, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}
        assert file.metadata() == {"format": "pt"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert ClipConfig.from_dict(config) == model().config


def test_a_weight_too_large_for_half_precision_is_kept(tmp_path):
    made = model(RESNET)
    made.visual.bn1.running_var.fill_(1e6)
    save_model(made, TOKENIZER, tmp_path)
    assert (load_clip(tmp_path).visual.bn1.running_var == 1e6).all()


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    made = model()
    made.visual.proj.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="visual.proj has values that are not finite"):
        save_model(made, TOKENIZER, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_counters_of_batches_are_left_out(tmp_path):
    save_model(model(RESNET), TOKENIZER, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "tracked" in name]


def test_the_same_weights_give_the_same_bytes(tmp_path):
    one = contents(save_model(model(), TOKENIZER, tmp_path / "one"))
    again = contents(save_model(model(), TOKENIZER, tmp_path / "again"))
    assert list(one) == FILES and one == again
    other = contents(save_model(model(seed=1), TOKENIZER, tmp_path / "other"))
    assert [name for name in FILES if one[name] != other[name]] == ["model.safetensors"]


def test_an_earlier_model_is_replaced(tmp_path):
    fresh = contents(save_model(model(), TOKENIZER, tmp_path / "fresh"))
    save_model(model(seed=1), TOKENIZER, tmp_path / "used")
    assert contents(save_model(model(), TOKENIZER, tmp_path / "used")) == fresh


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_model(model(), TOKENIZER, tmp_path / "model")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / "model" / name).stat().st_mode) for name in FILES}
    assert modes == {mode}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelError, match="file"):
        save_model(model(), TOKENIZER, tmp_path / "file")
