"""Measure models to choose from: pictures a second, and how long a text takes.

    python bench/models.py [--models ViT-B/32,ViT-L/14] [--dtype auto] [--batch 32] [--seconds 10]

Each model has the published shape and random weights, so nothing is downloaded; the bundled one is
itself. Random pixels of the model's own input size are embedded in batches; texts nobody has
searched before are embedded one by one, the tower being loaded, as a running server does. Both
figures are medians. MB are those of the parameters in float32; OpenAI's files have most of them in
half precision. SigLIP 2 and Chinese-CLIP need the extra ``transformers``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import count, islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench.common import apart, write_model

WORDS = "a photo of the dog on beach with red bicycle at night".split()


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one model."""

    name: str
    parameters: int
    pixels: int  # a side of the input
    rate: float  # pictures a second
    text_ms: float  # milliseconds for one text


def clip(side: int, patch: int, wide: bool = False) -> Callable[[Path, bool], None]:
    """Return what writes a CLIP with a vision transformer: base, or large if ``wide``."""

    def write(folder: Path, tiny: bool) -> None:
        from fovea.search.clip.config import ClipConfig, TextConfig, VisionConfig
        from fovea.search.clip.tokenizer import Tokenizer

        layers, width, text = (24, 1024, 768) if wide else (12, 768, 512)
        if tiny:
            layers, width, text = 1, 64, 64
        vision = VisionConfig(side, layers, width, width // 64, patch_size=patch)
        texts = TextConfig(77, 49408, text, text // 64, 1 if tiny else 12)
        write_model(folder, ClipConfig(text, vision, texts))
        Tokenizer(merges(49408 - 514)).save(folder)

    return write


def merges(number: int) -> list[tuple[str, str]]:
    """Make up so many merges: all pairs of letters, then threes, then fours."""
    letters = ascii_lowercase
    pairs = product(letters, letters)
    threes = ((a + b, c) for a, b, c in product(letters, repeat=3))
    fours = ((a + b + c, d) for a, b, c, d in product(letters, repeat=4))
    return list(islice((pair for kind in (pairs, threes, fours) for pair in kind), number))


def siglip2(folder: Path, tiny: bool) -> None:
    """Write a SigLIP 2 of base size with patches of 16 and inputs of 256 pixels."""
    import transformers

    size = towers(tiny)
    text = size | {"vocab_size": 256_000, "max_position_embeddings": 64}
    text["projection_size"] = size["hidden_size"]
    vision = size | {"image_size": 256, "patch_size": 16}
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    transformers.SiglipModel(config).save_pretrained(folder)
    square = {"height": 256, "width": 256}
    processor("SiglipImageProcessor")(size=square, resample=2).save_pretrained(folder)
    whole_words().save_pretrained(folder)


def chinese_clip(folder: Path, tiny: bool) -> None:
    """Write a Chinese-CLIP of base size with patches of 16 and inputs of 224 pixels."""
    transformers: Any = import_module("transformers")
    size = towers(tiny)
    text = size | {"vocab_size": 21_128, "max_position_embeddings": 512}
    vision = size | {"image_size": 224, "patch_size": 16}
    config = transformers.ChineseCLIPConfig(
        text_config=text, vision_config=vision, projection_dim=512
    )
    transformers.ChineseCLIPModel(config).save_pretrained(folder)
    square = {"height": 224, "width": 224}
    settings = {"size": square, "crop_size": square, "do_center_crop": False}
    processor("ChineseCLIPImageProcessor")(**settings).save_pretrained(folder)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    signs = [chr(0x4E00 + place) for place in range(21_128 - len(special))]
    (folder / "vocab.txt").write_text("\n".join([*special, *signs]) + "\n", "utf-8")
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)


def towers(tiny: bool) -> dict[str, Any]:
    """Return the numbers that both towers of a base-sized model share."""
    width, layers = (64, 1) if tiny else (768, 12)
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }


def processor(name: str) -> Any:
    """Return a class of image processors, under the name it has without torchvision."""
    import transformers

    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


def whole_words() -> Any:
    """Make a tokenizer of whole words: each text has 64 tokens to the model, whatever it says."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    ids = {word: place for place, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_input_names=["input_ids"],
    )


MODELS: dict[str, Callable[[Path, bool], None] | None] = {
    "bundled": None,
    "ViT-B/32": clip(224, 32),
    "ViT-B-32-256": clip(256, 32),
    "ViT-B/16": clip(224, 16),
    "ViT-L/14": clip(224, 14, wide=True),
    "SigLIP 2 B/16-256": siglip2,
    "Chinese-CLIP ViT-B/16": chinese_clip,
}


def main() -> None:
    """Print a line per model."""
    options = arguments()
    print(f"{'model':22} {'MB':>6} {'pixels':>6} {'images/s':>9} {'text, ms':>9}")
    for name in options.models.split(",") if options.models else MODELS:
        row = apart(
            measure, name, options.device, options.dtype, options.batch, options.seconds, False
        )
        print(line(row), flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", help=f"comma-separated, of {', '.join(MODELS)}")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--batch", type=int, default=32, help="pictures per call")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each figure")
    return parser.parse_args()


def line(row: Row) -> str:
    """Return a row of the table."""
    size = row.parameters * 4 / 1e6
    return f"{row.name:22} {size:6,.0f} {row.pixels:6} {row.rate:9.1f} {row.text_ms:9.1f}"


def measure(name: str, device: str, dtype: str, batch: int, seconds: float, tiny: bool) -> Row:
    """Build a model and time it; a ``tiny`` one has its inputs and one narrow layer."""
    from fovea.search.models.installed import bundled
    from fovea.search.models.lazy import LazyEncoder
    from fovea.search.models.resolve import resolve_model

    write = MODELS[name]
    with tempfile.TemporaryDirectory() as scratch:
        if write is None:
            model = bundled()
        else:
            folder = Path(scratch) / "model"
            folder.mkdir()
            write(folder, tiny)
            model = resolve_model(str(folder), network=False)
        encoder = LazyEncoder.of(model, device=device, dtype=dtype)
        words, numbers = encoder.words(), count()
        said = median_seconds(lambda: words.encode_texts([text(next(numbers))]), seconds)
        side = model.preprocess.size
        pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
        seen = median_seconds(lambda: encoder.encode_pixels(pixels), seconds)
        return Row(name, parameters(model.folder), side, batch / seen, 1000 * said)


def text(number: int) -> str:
    """Return a query of seven words, another one for each number."""
    chosen = [WORDS[(number // len(WORDS) ** place) % len(WORDS)] for place in range(3)]
    return " ".join(["a", "photo", "of", *chosen, "dog"])


def parameters(folder: Path) -> int:
    """Count the parameters of a model by its weights file."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "np") as file:
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118


def median_seconds(call: Callable[[], object], seconds: float) -> float:
    """Return the median time of the calls that fit in ``seconds``, of three at least."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
