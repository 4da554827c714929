"""Measure the line where the likely matches end, on queries with and without a match.

    python bench/likelihood.py [--train FOLDER] [--model fovea-small]

Captions: all captions of Flickr8k's dev split search a library of every other dev image, so half of
them have a match; a few unrelated sentences have none. Only a caption's own image counts as right,
even if the caption fits others too. Words: a word matches the images that have it in two or more of
their five captions; images with one such caption are not counted. Each word is searched for twice,
the second time without its matches. Photographs: the names of all, half of which are in the
library. The baseline is the best single cosine threshold, chosen in hindsight.
"""

import argparse
import csv
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fovea.search.clip.datasets.archive import open_archive
from fovea.search.clip.encoders.base import TorchEncoder
from fovea.search.models.resolve import resolve_model
from fovea.search.query.cutoff import falling
from fovea.search.query.likelihood import (
    LINE,
    Background,
    Surroundings,
    default_labels,
    of_pictures,
    of_words,
)

SHARED = Path(__file__).resolve().parents[2] / "shared"
UNRELATED = (
    "an X-ray of a broken wrist",
    "the periodic table of the elements",
    "a tax form filled in with a pen",
    "a microscope slide of red blood cells",
    "the cockpit of an airliner at night",
    "a bowl of tomato soup with basil",
    "a screenshot of a spreadsheet",
    "the surface of the moon",
    "a sewing machine on a desk",
    "a wedding cake with five tiers",
    "a penguin on an iceberg",
    "a submarine in a harbour",
    "a violin in its case",
    "a circuit board with a microchip",
    "a bathroom with a white sink",
    "a lighthouse in a thunderstorm",
    "a floor plan of a flat",
    "a chessboard seen from above",
    "an octopus on a coral reef",
    "a shelf of old books",
    "a plate of sushi",
    "a rocket on its launch pad",
    "a parking ticket",
    "a giraffe drinking",
)


def main() -> None:
    """Embed, compare and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=Path, default=SHARED / "train")
    parser.add_argument("--photos", type=Path, default=SHARED / "photos")
    parser.add_argument("--model", default="fovea-small")
    options = parser.parse_args()
    model = resolve_model(options.model, network=False)
    encoder = model.load()
    with tempfile.TemporaryDirectory() as passing:
        background = Background.of(model.identity, encoder)
        background.save(Path(passing))  # as float16, like in a library
        background = Background.load(Path(passing), model.identity) or background
    print(f"{model.name}\n")
    captions_table(encoder, background, options.train)
    photographs_table(encoder, background, options.photos)


def captions_table(encoder: TorchEncoder, background: Background, folder: Path) -> None:
    """Print how the line does on the captions of Flickr8k's dev split."""
    lines = [json.loads(line) for line in (folder / "flickr8k.jsonl").open()]
    rows = [row for row in lines if row["split"] == "dev"]
    archive = open_archive(folder / "flickr8k.tar.gz")
    images = embedded(encoder, [Image.open(io.BytesIO(archive.read(row["file"]))) for row in rows])
    captions = [caption for row in rows for caption in row["captions"]]
    words = np.concatenate(
        [encoder.encode_texts(captions[n : n + 100]) for n in range(0, len(captions), 100)]
    )
    own = np.repeat(np.arange(len(rows)), [len(row["captions"]) for row in rows])
    library = images[::2]
    right = own[:, None] == np.arange(len(rows))[::2]
    scores = words @ library.T
    likely = likelihoods_of(background, words, library)
    print(f"captions: {len(words)} queries, {int(right.any(1).sum())} with their image among")
    print(f"{len(library)}; {library.shape[0] * len(words):,} pairs, {right.sum():,} of them right")
    table(scores, likely, right)
    strange = encoder.encode_texts(UNRELATED)
    said = (likelihoods_of(background, strange, library) >= LINE).any(axis=1).mean()
    print(f"unrelated: {len(strange)} sentences, {said:.0%} with anything above the line")
    words_table(encoder, background, [row["captions"] for row in rows], images)


def words_table(
    encoder: TorchEncoder, background: Background, captions: list[list[str]], images: np.ndarray
) -> None:
    """Print how the line does on single words, with their images in the library and without."""
    bags = [[set(re.findall("[a-z]+", text.lower())) for text in five] for five in captions]
    chosen, right, open_ = [], [], []
    for label in default_labels():
        count = np.array([sum(label in bag for bag in five) for five in bags])
        if (count >= 2).sum() >= 3:
            chosen.append(label)
            right.append(count >= 2)
            open_.append(count == 1)
    vectors = encoder.encode_texts(chosen)
    scores, likely = vectors @ images.T, likelihoods_of(background, vectors, images)
    truth, between = np.array(right), np.array(open_)
    scores[between], likely[between] = -1, 0
    gone = np.where(truth, -1, scores), np.where(truth, 0, likely)
    print(f"\nwords: {len(chosen)}, each with and without its images among {len(images)}")
    table(
        np.concatenate([scores, gone[0]]),
        np.concatenate([likely, gone[1]]),
        np.concatenate([truth, np.zeros_like(truth)]),
    )


def likelihoods_of(background: Background, queries: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return float32 (q, n), computed as for a library of these images."""
    around = Surroundings.of(background, images[:: max(1, len(images) // 400)][:400])
    return np.stack(
        [of_words(background, around, query, images @ query, images) for query in queries]
    )


def photographs_table(encoder: TorchEncoder, background: Background, folder: Path) -> None:
    """Print how the line does on the photographs' labels, half of which have no match."""
    rows = list(csv.DictReader((folder / "labels.tsv").open(), delimiter="\t"))
    images = embedded(encoder, [Image.open(folder / row["file"]) for row in rows])
    names = sorted({row["label"] for row in rows})
    prompts = encoder.encode_texts([f"a photo of a {name}." for name in names])
    half = np.arange(len(rows)) % 2 == 0  # the other half's names have no match
    right = np.array([[row["label"] == name for row in rows] for name in names])[:, half]
    scores = prompts @ images[half].T
    likely = likelihoods_of(background, prompts, images[half])
    print(f"\nphotographs: {len(names)} names, {int(right.any(1).sum())} with a match among")
    print(f"{int(half.sum())}")
    table(scores, likely, right)
    similar = images @ images.T
    found = np.stack([of_pictures(q, q @ images.T, images, images, len(images)) for q in images])
    others = ~np.eye(len(images), dtype=bool)
    above = (found >= LINE) & others
    print(f"\npictures: {above.sum()} of {others.sum():,} pairs of different photographs above the")
    print(f"line, {above.any(1).mean():.0%} of the photographs with any; the photograph itself")
    print(f"above it for {np.diag(found >= LINE).mean():.0%} (cosine {np.diag(similar).min():.2f})")


def embedded(encoder: TorchEncoder, images: list[Image.Image]) -> np.ndarray:
    """Return unit rows, float32 (n, d)."""
    return np.concatenate(
        [encoder.encode_images(images[n : n + 32]) for n in range(0, len(images), 32)]
    )


def table(scores: np.ndarray, likely: np.ndarray, right: np.ndarray) -> None:
    """Print precision and recall of the line and of the best single cosines."""
    print(f"{'':24}{'hits: precision':>16}{'recall':>8}{'F1':>7}{'queries: precision':>20}"
          f"{'recall':>8}{'F1':>7}")  # fmt: skip
    show("the line", drawn(scores, likely), right)
    by_hits = best(scores, lambda threshold: f1(*hits_of(scores >= threshold, right)))
    by_queries = best(scores, lambda threshold: f1(*queries_of(scores >= threshold, right)))
    show(f"cosine {by_hits:.3f}, best hits", scores >= by_hits, right)
    show(f"cosine {by_queries:.3f}, best queries", scores >= by_queries, right)


def drawn(scores: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """Return bool (q, n): the pairs above the line when hits are sorted by score."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(likely, order, axis=1)
    above = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(above, order, np.stack([falling(row) for row in ranked]) >= LINE, axis=1)
    return above


def show(name: str, above: np.ndarray, right: np.ndarray) -> None:
    hits, queries = hits_of(above, right), queries_of(above, right)
    cells = [*hits, f1(*hits), *queries, f1(*queries)]
    widths = (16, 8, 7, 20, 8, 7)
    print(f"{name:24}" + "".join(f"{cell:{w}.3f}" for cell, w in zip(cells, widths, strict=True)))


def best(scores: np.ndarray, value: Callable[[float], float]) -> float:
    """Return the threshold with the largest value, among quantiles of the scores."""
    thresholds = np.quantile(scores, np.concatenate([np.linspace(0, 0.9, 19),
                                                     1 - np.geomspace(0.1, 1e-5, 60)]))  # fmt: skip
    return float(max(thresholds, key=value))


def hits_of(above: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return precision and recall of the pairs above the line."""
    found = (above & right).sum()
    return found / max(above.sum(), 1), found / max(right.sum(), 1)


def queries_of(above: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return precision and recall of queries having a match, by having a pair above the line."""
    said, true = above.any(axis=1), right.any(axis=1)
    return (said & true).sum() / max(said.sum(), 1), (said & true).sum() / max(true.sum(), 1)


def f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / max(precision + recall, 1e-9)


if __name__ == "__main__":
    main()
