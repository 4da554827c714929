"""Small models of other families with random weights, as ``transformers`` itself saves them."""

from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

CHARACTERS = "一只狗猫在海滩上的红色自行车绿蓝黄大小山水"
WORDS = "a photo of the red green blue dog cat on beach ein hund am strand un chien rouge".split()
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
VISION = SMALL | {"image_size": 32, "patch_size": 8}


def write_foreign(folder: Path, kind: str, *, together: bool = True, seed: int = 0):
    """Write a model's folder, all that transformers saves of it; return model and processor.

    ``together`` writes what the processors say into one file, as newer versions do.
    """
    generator = torch.Generator().manual_seed(seed)
    tokenizer = _bert(folder) if kind == "chinese_clip" else _words(folder, kind)
    model = _MODELS[kind](len(tokenizer)).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() > 1:
                drawn = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(drawn * tensor[0].numel() ** -0.5)
            elif name.endswith("bias") and name != "logit_bias":
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    model.save_pretrained(folder)
    pictures = _PICTURES[kind]()
    processor = Own(model, pictures, tokenizer, kind)
    tokenizer.save_pretrained(folder)
    pictures.save_pretrained(folder)
    if together:
        saved = folder / "preprocessor_config.json"
        said = saved.read_text("utf-8")
        saved.unlink()
        (folder / "processor_config.json").write_text(f'{{"image_processor": {said}}}', "utf-8")
    return processor


class Own:
    """What ``transformers`` makes of pictures and texts, without a word of ours."""

    def __init__(self, model, pictures, tokenizer, kind):
        self.model, self.pictures, self.tokenizer, self.kind = model, pictures, tokenizer, kind

    def images(self, images: list[Image.Image]) -> np.ndarray:
        with torch.no_grad():
            inputs = self.pictures(images, return_tensors="pt")
            return _unit(self.model.get_image_features(**inputs))

    def texts(self, texts: list[str]) -> np.ndarray:
        padding = {"padding": True}
        if self.kind.startswith("siglip"):
            padding = {"padding": "max_length", "max_length": 16, "truncation": True}
        with torch.no_grad():
            inputs = self.tokenizer(texts, return_tensors="pt", **padding)
            return _unit(self.model.get_text_features(**inputs))


def _unit(found) -> np.ndarray:
    rows = found if isinstance(found, torch.Tensor) else found.pooler_output
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


def _processor(name: str, **options):
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return kind(**options)


_SQUARE = {"height": 32, "width": 32}
_PICTURES = {
    # as published: the whole picture squashed, no crop
    "chinese_clip": lambda: _processor(
        "ChineseCLIPImageProcessor", size=_SQUARE, crop_size=_SQUARE, do_center_crop=False
    ),
    "siglip": lambda: _processor("SiglipImageProcessor", size=_SQUARE, resample=2),
    "siglip2": lambda: _processor("Siglip2ImageProcessor", patch_size=8, max_num_patches=12),
    "metaclip_2": lambda: _processor(
        "CLIPImageProcessor", size={"shortest_edge": 32}, crop_size=_SQUARE
    ),
    "altclip": lambda: _processor(
        "CLIPImageProcessor", size={"shortest_edge": 36}, crop_size=_SQUARE, resample=3
    ),
    "vision-text-dual-encoder": lambda: _processor("ViTImageProcessor", size=_SQUARE),
}


def _chinese(vocabulary: int):
    config = transformers.ChineseCLIPConfig(
        text_config=SMALL | {"vocab_size": vocabulary, "max_position_embeddings": 64},
        vision_config=VISION,
        projection_dim=24,
    )
    return transformers.ChineseCLIPModel(config)


def _siglip(vocabulary: int):
    text = SMALL | {"vocab_size": vocabulary, "max_position_embeddings": 16}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    return transformers.SiglipModel(config)


def _siglip2(vocabulary: int):
    text = SMALL | {"vocab_size": vocabulary, "max_position_embeddings": 16}
    vision = SMALL | {"patch_size": 8, "num_patches": 16}
    config = transformers.Siglip2Config(text_config=text, vision_config=vision)
    return transformers.Siglip2Model(config)


def _metaclip2(vocabulary: int):
    text = SMALL | {"vocab_size": vocabulary, "max_position_embeddings": 24, "eos_token_id": 2}
    config = transformers.MetaClip2Config(text_config=text, vision_config=VISION, projection_dim=24)
    return transformers.MetaClip2Model(config)


def _altclip(vocabulary: int):
    text = SMALL | {"vocab_size": vocabulary, "max_position_embeddings": 34, "project_dim": 32}
    config = transformers.AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    return transformers.AltCLIPModel(config)


def _dual(vocabulary: int):
    vision = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION))
    text = transformers.XLMRobertaModel(
        transformers.XLMRobertaConfig(**SMALL, vocab_size=vocabulary, max_position_embeddings=34)
    )
    return transformers.VisionTextDualEncoderModel(vision_model=vision, text_model=text)


_MODELS = {
    "chinese_clip": _chinese,
    "siglip": _siglip,
    "siglip2": _siglip2,
    "metaclip_2": _metaclip2,
    "altclip": _altclip,
    "vision-text-dual-encoder": _dual,
}


def _bert(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *CHARACTERS, *WORDS]) + "\n", "utf-8")
    return transformers.BertTokenizerFast(str(folder / "vocab.txt"))


def _words(folder: Path, kind: str):
    """A tokenizer of whole words whose special tokens lie as in XLM-RoBERTa's."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    ids = {word: number for number, word in enumerate([*special, *WORDS, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = ["input_ids"] if kind == "siglip" else ["input_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=names,
    )
