"""Checkpoints of every dialect against ``transformers.CLIPModel`` with the same random weights."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
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
from fovea.search.clip.config import ClipConfig
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP
from fovea.search.clip.preprocess import Preprocess
from places import CHECKOUT
from small_clips import (
    RESNET,
    TEXT,
    VIT,
    published_names,
    random_clip,
    write_archive,
    write_model,
    write_open_clip,
)


def hub_model(activation="quick_gelu", *, seed=0):
    """A random ``transformers.CLIPModel`` of the shape of ``VIT``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import CLIPConfig, CLIPModel

        text = {
            "vocab_size": TEXT.vocab_size,
            "hidden_size": TEXT.width,
            "intermediate_size": 4 * TEXT.width,
            "num_hidden_layers": TEXT.layers,
            "num_attention_heads": TEXT.heads,
            "max_position_embeddings": TEXT.context_length,
            "hidden_act": activation,
            "bos_token_id": TEXT.vocab_size - 2,
            "eos_token_id": TEXT.vocab_size - 1,
            "pad_token_id": 0,
        }
        vision = {
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
            "hidden_act": activation,
        }
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=48)
        model = CLIPModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.dim() > 1:
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
            elif name != "logit_scale":
                tensor.copy_(0.2 * noise + (1 if "norm" in name and "weight" in name else 0))
    return model


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


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A half-precision TorchScript archive, and the hub's model with the same rounded weights."""
    model = hub_model()
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() > 1:
                tensor.copy_(tensor.half().float())
    ours = CLIP(VIT).eval()
    ours.load_state_dict(published_names(model.state_dict()))
    path = tmp_path_factory.mktemp("archive") / "ViT.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_archive(path, ours)
    return path, model


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

    class Noted:
        """A safetensors file that notes which tensors are read."""

        def __init__(self, path, framework):
            self.file = safe_open(path, framework=framework)

        def __enter__(self):
            return self

        def __exit__(self, *failure):
            return self.file.__exit__(*failure)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def get_tensor(self, name):
            read.append(name)
            return self.file.get_tensor(name)

    monkeypatch.setattr("safetensors.safe_open", Noted)
    state = Checkpoint.open(tmp_path).state(["text"])
    assert set(read) == set(state) and "token_embedding.weight" in state
    assert not any(name.startswith("visual.") for name in read)
    read.clear()
    model = load_clip(tmp_path, ["image"])
    assert all(name.startswith("visual.") or name == "logit_scale" for name in read)
    assert model.token_embedding.weight.is_meta and not model.visual.proj.is_meta
    assert not model.training


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
