"""Which languages a model reads: those of the texts that it was trained with."""

import gzip
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from fovea.search.clip.checkpoints.families import kind_of
from fovea.search.clip.config import PACKED_VOCABULARY, VOCABULARY_FILES

__all__ = ["MANY", "languages_of"]

MANY = "google/siglip2-base-patch16-256"  # a model that reads many languages
ENGLISH = frozenset({"en"})
OF_FAMILY = {
    "altclip": frozenset("en zh es fr ru ar ja ko it".split()),  # Chen et al. 2022, 2211.06679
    "chinese_clip": frozenset({"zh"}),
}
SIGLIP_VOCABULARY = 32_000  # pieces of SigLIP's English vocabulary, which its configuration omits
BERT_VOCABULARIES = {30_522: ENGLISH, 21_128: frozenset({"zh"})}  # uncased English, and Chinese
# The most frequent ends of words are merged first; these are those of English texts.
MERGES = frozenset({"th e</w>", "in g</w>"})
FIRST = 400  # merges
LONGEST_FILE = 64 << 20


@lru_cache(maxsize=32)
def languages_of(place: Path | None) -> frozenset[str] | None:
    """Return the languages that the model in a folder reads, as ISO 639-1 codes.

    None where that is not known, or where they are too many to tell; ``place`` may be its weights
    file, or None for a model in memory. A list ``languages`` in its ``config.json`` comes first,
    then its family, then the vocabulary of its text tower.
    """
    if place is None:
        return None
    folder = place if place.is_dir() else place.parent
    config = _config(folder)
    if isinstance(own := config.get("languages"), list):
        return frozenset(code for code in own if isinstance(code, str)) or None
    kind = kind_of(config)
    if kind == "siglip":
        return ENGLISH if _size(config, SIGLIP_VOCABULARY) <= SIGLIP_VOCABULARY else None
    if kind is not None:
        return OF_FAMILY.get(kind)
    text = config.get("model_cfg", config)
    text = text.get("text_cfg") if isinstance(text, Mapping) else None
    if isinstance(text, Mapping) and text.get("kind") == "bert":
        return BERT_VOCABULARIES.get(text.get("vocab_size", 0))
    return ENGLISH if _has_english_merges(folder) else None


def _config(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads((folder / "config.json").read_text("utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _size(config: Mapping[str, Any], default: int) -> int:
    text = config.get("text_config")
    size = text.get("vocab_size", default) if isinstance(text, Mapping) else default
    return size if isinstance(size, int) else default


def _has_english_merges(folder: Path) -> bool:
    """Whether a byte-pair vocabulary was made of English texts, as that of Radford et al. 2021."""
    with suppress(OSError, ValueError, EOFError, KeyError, TypeError):
        for name in VOCABULARY_FILES:
            if (folder / name).is_file():
                return MERGES <= _first_merges(folder / name)
        packed = folder / PACKED_VOCABULARY
        if packed.stat().st_size <= LONGEST_FILE:
            merges = json.loads(packed.read_text("utf-8"))["model"]["merges"][:FIRST]
            return MERGES <= {pair if isinstance(pair, str) else " ".join(pair) for pair in merges}
    return False


def _first_merges(file: Path) -> set[str]:
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8") as lines:
        return {line.strip() for line in islice(lines, FIRST)}
