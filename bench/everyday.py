"""Count the everyday queries of everyday.toml that a model answers rightly.

    python bench/everyday.py [--photos FOLDER] [--model fovea-small]

The library is the photographs of ``fovea demo`` and of ../shared/photos. Answers are by cosine
alone: in the program, names of files count too. The baseline is chance, a random order.
"""

import argparse
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fovea.data import demo_photographs
from fovea.search.clip.encoders.base import TorchEncoder
from fovea.search.models.resolve import resolve_model

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Everyday:
    """A query, the file names that answer it, and those about which people may differ."""

    text: str
    right: tuple[str, ...]
    near: tuple[str, ...]


def everyday_queries(path: Path = HERE / "everyday.toml") -> list[Everyday]:
    """Read the list."""
    entries = tomllib.loads(path.read_text("utf-8"))["query"]
    return [
        Everyday(entry["text"], tuple(entry["right"]), tuple(entry.get("near", ())))
        for entry in entries
    ]


def photographs(folder: Path) -> list[Path]:
    """Return the pictures of the demo and of a folder. Raise ``SystemExit`` without either."""
    demo, shared = demo_photographs(), sorted(folder.glob("*.jpg"))
    if not demo or not shared:
        raise SystemExit(f"needs scikit-image, for the demo's photographs, and those of {folder}")
    return demo + shared


def embedded(encoder: TorchEncoder, images: Sequence[Path | Image.Image]) -> np.ndarray:
    """Return unit rows, float32 (n, d), of files or decoded images."""
    rows = []
    for start in range(0, len(images), 32):
        part = [image if isinstance(image, Image.Image) else Image.open(image)
                for image in images[start : start + 32]]  # fmt: skip
        rows.append(encoder.encode_images(part))
    return np.concatenate(rows)


def chance(right: int, total: int, k: int) -> float:
    """Return the probability that ``k`` of ``total`` pictures include one of ``right``."""
    return 1 - comb(total - right, k) / comb(total, k)


def main() -> None:
    """Print three answers a query, and the totals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, default=SHARED / "photos")
    parser.add_argument("--model", default="fovea-small")
    options = parser.parse_args()
    files = photographs(options.photos)
    names = [file.name for file in files]
    queries = everyday_queries()
    encoder = resolve_model(options.model, network=False).load()
    images = embedded(encoder, files)
    words = encoder.encode_texts([query.text for query in queries])
    first = within = 0
    for query, vector in zip(queries, words, strict=True):
        order = np.argsort(-(images @ vector), kind="stable")[:SHOWN]
        found = [names[place] for place in order]
        marks = [name in query.right for name in found]
        first, within = first + marks[0], within + any(marks)
        shown = "  ".join(f"{'+' if mark else '-'} {name:22}"
                          for mark, name in zip(marks, found, strict=True))  # fmt: skip
        print(f"{query.text:34}{shown}".rstrip())
    by_chance = [sum(chance(len(query.right), len(names), k) for query in queries)
                 for k in (1, SHOWN)]  # fmt: skip
    print(f"\n{options.model}, {len(names)} photographs, {len(queries)} queries")
    print(f"right at 1: {first} (by chance {by_chance[0]:.1f}), "
          f"in the first {SHOWN}: {within} (by chance {by_chance[1]:.1f})")  # fmt: skip


if __name__ == "__main__":
    main()
