"""Checkpoints of every dialect against ``transformers.CLIPModel`` with the same random weights."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from closeness import assert_close, assert_close_rows
from fovea.search.clip.checkpoints.checkpoint import (
    Checkpoint,
    convert,
    find_weights,
    load_clip,
    read_config,
    weights_sha256,
)
from fovea.search.clip.checkpoints.shapes import config_from_shapes, expected_shapes
from fovea.search.clip.checkpoints.stored_tensors import StoredTensors
from fovea.search.clip.config import ClipConfig
from fovea.search.clip.model import CLIP
from places import CHECKOUT
from small_clips import (
    RESNET,
    TEXT,
    VIT,
    hub_model,
    published_names,
    random_clip,
    write_model,
    write_open_clip,
)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(3)
    pictures = torch.randn(4, 3, 64, 64, generator=generator)
    start, end = TEXT.vocab_size - 2, TEXT.vocab_size - 1
    tokens = torch.zeros(4, TEXT.context_length, dtype=torch.long)
    for row, length in zip(tokens, (0, 3, 9, 14), strict=True):
        row[0], row[length + 1] = start, end
        row[1 : length + 1] = torch.randint(1, 500, (length,), generator=generator)
    return pictures, tokens


@torch.no_grad()
def embeddings_of_hub(model, inputs):
    pictures, tokens = inputs
    images = model.visual_projection(model.vision_model(pixel_values=pictures).pooler_output)
    texts = model.text_projection(model.text_model(input_ids=tokens).pooler_output)
    return images, texts


@torch.no_grad()
def embeddings_of(model, inputs):
    return model.encode_image(inputs[0]), model.encode_text(inputs[1])


def assert_equal(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape and one.dtype == torch.float32
        assert_close_rows(normalize(one, dim=-1), normalize(other, dim=-1))
        assert_close(one.norm(dim=-1), other.norm(dim=-1), terms=one.shape[-1])
        assert float(other.std()) > 0.05  # something was compared


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("shards", ["whole", "sharded", "pickled"])
def test_a_transformers_folder_gives_its_embeddings(tmp_path, inputs, activation, shards):
    model = hub_model(activation)
    if shards == "pickled":
        model.config.save_pretrained(tmp_path)
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    else:
        model.save_pretrained(tmp_path, max_shard_size="200KB" if shards == "sharded" else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == (shards == "sharded")
    preprocessor = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    ours = load_clip(tmp_path)
    assert ours.config.activation == activation
    assert ours.config.mean == (0.5, 0.4, 0.3) and ours.config.std == (0.1, 0.2, 0.3)
    assert_equal(embeddings_of(ours, inputs), embeddings_of_hub(model, inputs))


def test_an_original_state_dict_gives_the_embeddings_of_transformers(tmp_path, inputs):
    model = hub_model()
    state = published_names(model.state_dict())
    state |= {"input_resolution": torch.tensor(64), "context_length": torch.tensor(16)}
    torch.save(state | {"vocab_size": torch.tensor(517)}, tmp_path / "some.pt")
    for place in (tmp_path, tmp_path / "some.pt"):
        ours = load_clip(place)
        assert ours.config == VIT
        assert_equal(embeddings_of(ours, inputs), embeddings_of_hub(model, inputs))


@pytest.mark.parametrize("wrap", [False, True])
def test_a_training_checkpoint_gives_its_state_dict(tmp_path, inputs, wrap):
    model = hub_model()
    state = published_names(model.state_dict())
    named = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "state_dict": named if wrap else state}, tmp_path / "epoch_3.pt")
    found = embeddings_of(load_clip(tmp_path / "epoch_3.pt"), inputs)
    assert_equal(found, embeddings_of_hub(model, inputs))


def test_an_original_archive_gives_the_embeddings_of_transformers(archive, tmp_path, inputs):
    path, model = archive
    weights = convert(path, tmp_path / "model")
    stored = load_file(weights)
    assert set(stored) == set(expected_shapes(VIT))  # no input_resolution and its like
    assert stored["visual.proj"].dtype == torch.float16
    assert stored["visual.ln_post.weight"].dtype == torch.float32
    assert read_config(tmp_path / "model") == VIT
    found = embeddings_of(load_clip(tmp_path / "model"), inputs)
    assert_equal(found, embeddings_of_hub(model, inputs))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_an_open_clip_folder_gives_the_embeddings_of_transformers(tmp_path, inputs, activation):
    model = hub_model(activation)
    config = ClipConfig(48, VIT.vision, VIT.text, activation, (0.5,) * 3, (0.25,) * 3)
    write_open_clip(tmp_path, published_names(model.state_dict()), config)
    ours = load_clip(tmp_path)
    assert ours.config == config
    assert_equal(embeddings_of(ours, inputs), embeddings_of_hub(model, inputs))


def test_open_clips_file_goes_by_open_clips_configuration(tmp_path):
    state = published_names(hub_model().state_dict())
    write_open_clip(tmp_path, state, ClipConfig(48, VIT.vision, VIT.text, "gelu"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert read_config(tmp_path).activation == "gelu"


def test_a_resnet_is_told_from_its_tensors(tmp_path):
    model = random_clip(RESNET)
    torch.save(model.state_dict(), tmp_path / "RN.pt")
    assert read_config(tmp_path) == RESNET
    stored = load_clip(tmp_path).state_dict()
    assert all(torch.equal(stored[name], tensor) for name, tensor in model.state_dict().items())


def test_a_resnet_may_lack_its_batch_counters(tmp_path):
    state = random_clip(RESNET).state_dict()
    kept = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    save_file(kept, tmp_path / "model.safetensors")
    assert load_clip(tmp_path).state_dict().keys() == state.keys()


PUBLISHED = {  # embed_dim; image size, layers, width, patch; text width, heads; parameters
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 512, 8, 102_007_137),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None, 512, 8, 119_688_033),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 640, 10, 178_300_601),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None, 768, 12, 290_979_217),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None, 1024, 16, 623_258_305),
    "ViT-B/32": (512, 224, 12, 768, 32, 512, 8, 151_277_313),
    "ViT-B/16": (512, 224, 12, 768, 16, 512, 8, 149_620_737),
    "ViT-L/14": (768, 224, 24, 1024, 14, 768, 12, 427_616_513),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 768, 12, 427_944_193),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_configure_themselves(name):
    embed_dim, size, layers, width, patch, text_width, text_heads, count = PUBLISHED[name]
    heads = width // 64 if patch else width * 32 // 64
    vision = {"image_size": size, "layers": layers, "width": width, "heads": heads}
    vision |= {"patch_size": patch} if patch else {}
    text = {"width": text_width, "heads": text_heads, "layers": 12}
    config = ClipConfig.from_dict(
        {"embed_dim": embed_dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    )
    with torch.device("meta"):
        model = CLIP(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert config_from_shapes(shapes) == config
    assert expected_shapes(config) == shapes
    assert sum(tensor.numel() for tensor in model.parameters()) == count


def test_only_the_tower_asked_for_is_read(tmp_path, monkeypatch):
    write_model(tmp_path)
    read = []

    fill = StoredTensors._fill

    def noted(file, name, room):
        read.append(name)
        fill(file, name, room)

    monkeypatch.setattr(StoredTensors, "_fill", noted)
    state = Checkpoint.open(tmp_path).state(["text"])
    assert set(read) == set(state) and "token_embedding.weight" in state
    assert not any(name.startswith("visual.") for name in read)
    read.clear()
    Checkpoint.open(tmp_path).state(["image"])
    assert read and all(name.startswith("visual.") or name == "logit_scale" for name in read)


def test_a_loaded_model_is_independent_of_its_file(tmp_path):
    write_model(tmp_path)
    before = weights_sha256(tmp_path / "model.safetensors")
    model = load_clip(tmp_path)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()
    assert weights_sha256(tmp_path / "model.safetensors") == before


def test_configuration_costs_no_torch(tmp_path):
    write_model(tmp_path / "configured")
    write_model(tmp_path / "bare")
    (tmp_path / "bare" / "config.json").unlink()
    code = (
        "import sys; from pathlib import Path\n"
        "from fovea.search.clip.checkpoints.checkpoint import read_config\n"
        "for folder in sys.argv[1:]: print(read_config(Path(folder)).embed_dim)\n"
        "assert 'torch' not in sys.modules"
    )
    folders = [str(tmp_path / "configured"), str(tmp_path / "bare")]
    run = subprocess.run(
        [sys.executable, "-c", code, *folders],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["48", "48"]


def test_sha256_is_that_of_the_file_and_of_shards_on_end(tmp_path):
    write_model(tmp_path / "whole")
    weights = tmp_path / "whole" / "model.safetensors"
    assert weights_sha256(weights) == hashlib.sha256(weights.read_bytes()).hexdigest()
    hub_model().save_pretrained(tmp_path / "parts", max_shard_size="200KB")
    shards = sorted((tmp_path / "parts").glob("*.safetensors"))
    assert len(shards) > 1
    together = hashlib.sha256(b"".join(shard.read_bytes() for shard in shards)).hexdigest()
    assert weights_sha256(find_weights(tmp_path / "parts")) == together


def test_converting_twice_gives_the_same_bytes(tmp_path):
    torch.save(random_clip(VIT).state_dict(), tmp_path / "some.pt")
    first, second = (convert(tmp_path / "some.pt", tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert sorted(os.listdir(tmp_path / "a")) == ["config.json", "model.safetensors"]
