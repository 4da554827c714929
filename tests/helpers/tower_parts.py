"""Small towers of every kind with random weights, to be joined in every way."""

import json
import string
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from fovea.search.clip.config import BertConfig, ClipConfig, EfficientNetConfig
from fovea.search.clip.model import CLIP
from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.clip.wordpiece import WordPiece
from small_clips import MERGES, RESNET, TEXT, VIT, random_clip

ENTRIES = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "dogs", "cat", ",", "##ly", "犬"),
    *string.ascii_lowercase,
    *("##" + letter for letter in string.ascii_lowercase),
)
BERT = BertConfig(context_length=24, vocab_size=len(ENTRIES), width=48, heads=4, layers=2)
LITE = EfficientNetConfig(64)

IMAGE_TOWERS = {
    "vit": VIT.vision,
    "resnet": RESNET.vision,
    "lite": LITE,
    "lite-odd": EfficientNetConfig(75, 1.1, 1.2),
    "lite-classes": EfficientNetConfig(64, classes=7, class_width=16),
    "lite-hidden": EfficientNetConfig(61, classes=7, class_width=16, hidden=24),
    "lite-queries": EfficientNetConfig(70, queries=3, heads=5),
}
TEXT_TOWERS = {"causal": TEXT, "bert": BERT}
COLOURS = {"mean": (0.5, 0.4, 0.3), "std": (0.3, 0.2, 0.1)}

JOINED = {
    f"{image}-{text}": ClipConfig(40, IMAGE_TOWERS[image], TEXT_TOWERS[text], "gelu", **COLOURS)
    for image in IMAGE_TOWERS
    for text in TEXT_TOWERS
}


GAIN = 1.3  # of batch norms, so that pictures are told apart after seventeen blocks


@torch.no_grad()
def random_joined(config: ClipConfig, seed: int = 0) -> CLIP:
    """A reference model like ``random_clip``, whose EfficientNet tells pictures apart."""
    model = random_clip(config, seed)
    if isinstance(config.vision, EfficientNetConfig):
        for module in model.visual.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight *= GAIN
    return model


def write_joined(folder: Path, config: ClipConfig) -> CLIP:
    """Write a model's folder with the vocabulary of its text tower; return the reference model."""
    model = random_joined(config)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    is_bpe = config.text.tokenizer == "bpe"
    (Tokenizer(MERGES) if is_bpe else WordPiece(ENTRIES)).save(folder)
    return model
