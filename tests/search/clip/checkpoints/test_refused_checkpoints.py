import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fovea.search.clip.checkpoints.checkpoint import (
    Checkpoint,
    load_clip,
    read_config,
)
from fovea.search.clip.config import ClipConfig
from fovea.search.clip.errors import ModelError
from fovea.search.clip.preprocess import Preprocess
from small_clips import (
    VIT,
    hub_model,
    random_clip,
    write_model,
    write_open_clip,
)


def one_line(place: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Checkpoint.open(place)
    message = str(caught.value)
    assert "\n" not in message and str(place) in message
    return message


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("exploited",)


@pytest.mark.parametrize("name", ["model.safetensors", "some.pt", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"\x00", b"GIF89a not a model", b"\xff" * 5000])
def test_a_foreign_file_gets_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "damaged or not a model" in one_line(tmp_path / name)


@pytest.mark.parametrize("cut", [7, 100, 0.5, 0.999])
@pytest.mark.parametrize("name", ["model.safetensors", "some.pt", "old.pt"])
def test_a_truncated_file_gets_one_line(tmp_path, name, cut):
    state = random_clip(VIT).state_dict()
    path = tmp_path / name
    if name == "model.safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "some.pt")
    content = path.read_bytes()
    path.write_bytes(content[: int(cut if cut > 1 else cut * len(content))])
    assert "damaged or not a model" in one_line(path)


@pytest.mark.parametrize("cut", [0.3, 0.98])
def test_a_truncated_archive_gets_one_line(archive, tmp_path, cut):
    content = archive[0].read_bytes()
    (tmp_path / "ViT.pt").write_bytes(content[: int(cut * len(content))])
    assert "damaged or not a model" in one_line(tmp_path / "ViT.pt")


def test_an_archive_of_something_else_gets_one_line_from_its_reader(tmp_path):
    with zipfile.ZipFile(tmp_path / "ViT.pt", "w") as archive:
        archive.writestr("ViT/constants.pkl", b"not a pickle")
        archive.writestr("ViT/data.pkl", b"not a pickle")
    assert "damaged or not a model" in one_line(tmp_path / "ViT.pt")


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"x": Exploit()}))
    torch.save({"x": Exploit()}, tmp_path / "zipped.pt")
    for name in ("plain.pt", "zipped.pt"):
        assert "damaged or not a model" in one_line(tmp_path / name)
    assert not (tmp_path / "exploited").exists()


def test_weights_of_something_else_are_named(tmp_path):
    save_file({"bert.embeddings": torch.zeros(3, 4)}, tmp_path / "model.safetensors")
    assert "not a CLIP's" in one_line(tmp_path / "model.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "not a state dict" in one_line(tmp_path / "list.pt")


def test_missing_foreign_and_misshapen_tensors_are_named(tmp_path):
    write_model(tmp_path)
    weights, state = tmp_path / "model.safetensors", random_clip(VIT).state_dict()
    save_file({n: t for n, t in state.items() if n != "visual.proj"}, weights)
    assert "lacks visual.proj" in one_line(weights)
    save_file(state | {"visual.attn_pool.query": torch.zeros(3)}, weights)
    assert "visual.attn_pool.query" in one_line(weights)
    save_file(state | {"ln_final.bias": torch.zeros(3)}, weights)
    assert "ln_final.bias is (3,), not (64,)" in one_line(weights)


def test_quantised_weights_are_named(tmp_path):
    state = random_clip(VIT).state_dict() | {"ln_final.bias": torch.zeros(64, dtype=torch.int8)}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"ln_final.bias .*torch.int8"):
        load_clip(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "siglip"}, "siglip"),
        (dict.fromkeys(("text_config", "vision_config"), {"hidden_act": "gelu_new"}), "gelu_new"),
        ({"text_config": {"hidden_act": "gelu"}}, "hidden_act"),
        ({"vision_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps"),
        ({"vision_config": {"num_hidden_layers": "many"}}, "many"),
    ],
)
def test_a_configuration_that_is_not_ours_to_read_is_named(tmp_path, change, said):
    hub_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert said in one_line(tmp_path)


def change_open_clip(folder, part, **said):
    write_open_clip(folder, random_clip(VIT).state_dict(), VIT)
    data = json.loads((folder / "open_clip_config.json").read_text())
    place = data[part] if part in data else data["model_cfg"][part]
    place |= said
    (folder / "open_clip_config.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("vision_cfg", {"pool_type": "avg"}),
        ("text_cfg", {"pool_type": "last"}),
        ("vision_cfg", {"global_average_pool": True}),
        ("vision_cfg", {"attentional_pool": True}),
        ("vision_cfg", {"final_ln_after_pool": True}),
        ("vision_cfg", {"norm_kwargs": {"eps": 1e-6}}),
        ("text_cfg", {"act_kwargs": {"approximate": "tanh"}}),
        ("text_cfg", {"hf_tokenizer_name": "bert-base-uncased"}),
        ("preprocess_cfg", {"resize_mode": "longest"}),
        ("preprocess_cfg", {"interpolation": "nearest"}),
        ("preprocess_cfg", {"size": [128, 128]}),
        ("preprocess_cfg", {"mode": "L"}),
        ("preprocess_cfg", {"std": [0, 0, 0]}),
        ("preprocess_cfg", {"mean": [0.5]}),
    ],
)
def test_parts_of_open_clip_that_would_change_the_answer_are_refused(tmp_path, part, said):
    change_open_clip(tmp_path, part, **said)
    [name] = said
    assert name in one_line(tmp_path)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("vision_cfg", {"patch_dropout": 0.5, "attentional_pool": False, "pool_type": "tok"}),
        ("text_cfg", {"norm_kwargs": {"eps": 1e-5}, "pool_type": "argmax", "mlp_ratio": 4.0}),
        ("preprocess_cfg", {"size": 64, "mode": "RGB", "resize_mode": "shortest"}),
        ("preprocess_cfg", {"size": [64, 64], "fill_color": 0}),
    ],
)
def test_what_open_clip_says_of_its_usual_ways_is_no_hindrance(tmp_path, part, said):
    change_open_clip(tmp_path, part, **said)
    assert load_clip(tmp_path).config == VIT


def test_open_clip_may_squash_pictures(tmp_path):
    change_open_clip(tmp_path, "preprocess_cfg", resize_mode="squash", interpolation="bilinear")
    config = read_config(tmp_path)
    wanted = Preprocess(64, VIT.mean, VIT.std, "squash", resampling="BILINEAR")
    assert Preprocess.from_config(config) == wanted
    assert ClipConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"do_center_crop": False, "size": {"height": 64, "width": 64}}, {"fit": "squash"}),
        ({"size": 80, "crop_size": 64, "resample": 2}, {"resize": 80, "resampling": "BILINEAR"}),
        ({"do_normalize": False}, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}),
    ],
)
def test_a_transformers_folder_says_how_pictures_are_prepared(tmp_path, said, wanted):
    hub_model().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    config = read_config(tmp_path)
    seen = Preprocess.from_config(config)
    assert {name: getattr(seen, name) for name in wanted} == wanted
    assert ClipConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "said",
    [
        {"image_mean": 0.5},
        {"image_mean": "abc"},
        {"image_mean": [0.5]},
        {"image_std": [0, 0, 0]},
        {"image_mean": [float("nan")] * 3},
        {"size": 32, "crop_size": 32},
        {"do_pad": True},
    ],
)
def test_a_damaged_description_of_pictures_gets_one_line(tmp_path, said):
    hub_model().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    one_line(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"a": 1}', "\x00", '{"embed_dim": Infinity, "vision_cfg": {}}'],
)
def test_a_damaged_configuration_gets_one_line(tmp_path, content):
    write_model(tmp_path)
    (tmp_path / "config.json").write_text(content)
    one_line(tmp_path)


def test_places_without_weights_are_named(tmp_path):
    assert "does not exist" in one_line(tmp_path / "nowhere")
    assert "it has none" in one_line(tmp_path)
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"")
    assert "2 files" in one_line(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    hub_model().save_pretrained(tmp_path, max_shard_size="200KB")
    lost = sorted(tmp_path.glob("*.safetensors"))[1]
    lost.unlink()
    assert f"{lost.name} is missing" in one_line(tmp_path)


def test_a_shard_outside_the_folder_is_not_read(tmp_path):
    write_model(tmp_path / "elsewhere")
    folder = tmp_path / "model"
    folder.mkdir()
    index = {"weight_map": {"logit_scale": "../elsewhere/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "is missing" in one_line(folder)


def test_heads_come_from_the_configuration(tmp_path):
    write_model(tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    data["model_cfg"]["vision_cfg"]["heads"] = 4
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert read_config(tmp_path).vision.heads == 4
    pictures = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 64, 64))).float()
    with torch.no_grad():
        four, two = load_clip(tmp_path).visual(pictures), random_clip(VIT).visual(pictures)
    assert not torch.allclose(four, two)
