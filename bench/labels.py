"""Count how often the first label that "Likely content" shows for a picture is right.

    python bench/labels.py [--model fovea-small] [--fit]

labels.toml says which labels are right. Pictures: ../shared/photos, and the held-out images of Tiny
ImageNet that are not used for fitting; each set is a library. The baseline is the first label of
plain zero-shot classification, shown for every picture.

``--fit`` first fits the threshold, to every other held-out image of Tiny ImageNet, and writes it
into line.json, which ``bench/likelihood.py --fit`` makes.
"""

import argparse
import csv
import json
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.everyday import HERE, embedded
from bench.likelihood import SAMPLE, fit_by_command, held_out
from fovea.search.clip.encoders.base import TorchEncoder
from fovea.search.query.likelihood import Background, Surroundings, default_labels, label_shares
from fovea.search.query.measured import LabelSigns, Measured, measured_in

WANTED = 0.7  # share of right first labels that the threshold is fitted to; the aim is 0.6
STRICTER = (0.75, 0.8)  # others, for people who want fewer mistakes


def right_labels(
    path: Path = HERE / "labels.toml",
) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return the right labels of each class, and what else each photograph shows."""
    table = tomllib.loads(path.read_text("utf-8"))
    classes: dict[str, set[str]] = {}
    for label, names in table["classes"].items():
        for name in names:
            classes.setdefault(name, set()).add(label)
    return classes, {file: set(labels) for file, labels in table["seen"].items()}


def first_labels(
    background: Background, signs: Measured | None, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first label's place (n,) and probability (n,) in a library of these images.

    Without ``signs`` they are those of plain zero-shot classification.
    """
    centre = np.zeros(images.shape[1], np.float32)
    if signs is not None:
        centre = Surroundings.of(signs, images[:: max(1, len(images) // SAMPLE)][:SAMPLE]).centre
    shares = label_shares(background, centre, images)
    return shares.argmax(axis=1), shares.max(axis=1)


def is_right(places: np.ndarray, allowed: Sequence[set[str]]) -> np.ndarray:
    """Return bool (n,): whether each label is among those allowed for its picture."""
    labels = default_labels()
    pairs = zip(places.tolist(), allowed, strict=True)
    return np.array([labels[place] in right for place, right in pairs])


def threshold_of(right: np.ndarray, chance: np.ndarray, wanted: float = WANTED) -> float:
    """Return the lowest threshold from which the wanted share of labels is right; 1 if none is."""
    order = np.argsort(-chance, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(shares >= wanted)
    return round(float(chance[order][enough[-1]]), 4) if len(enough) else 1.0


def measure(encoder: TorchEncoder, place: Path, options: argparse.Namespace) -> Measured:
    """Print the table; return what was measured, with the threshold fitted anew if asked for."""
    signs = measured_in(place, encoder.identity, encoder.dim)
    if signs is None:
        raise SystemExit("not measured yet: run bench/likelihood.py --fit first")
    classes, seen = right_labels()
    background = Background.of(encoder.identity, encoder, signs)
    images, numbers = held_out(encoder, options.train)
    entries = json.loads((options.train / "tinyimagenet-classes.json").read_text("utf-8"))
    names = {int(entry["label"]): entry["names"][0] for entry in entries}
    allowed = [classes.get(names[number], set()) for number in numbers.tolist()]
    with (options.photos / "labels.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    photographs = embedded(encoder, [options.photos / row["file"] for row in rows])
    shown = [classes.get(row["label"], set()) | seen.get(row["file"], set()) for row in rows]
    threshold = signs.labels.threshold if signs.labels is not None else 1.0
    if options.fit or signs.labels is None:
        places, chance = first_labels(background, signs, images[::2])
        threshold = threshold_of(is_right(places, allowed[::2]), chance)
    sets = {"photographs": (photographs, shown), "Tiny ImageNet": (images[1::2], allowed[1::2])}
    print(f"threshold {threshold:.3f}\n")
    print(f"{'':16}{'pictures':>9}{'shown':>8}{'right':>8}{'always, corrected':>19}{'plain':>8}")
    rates = []
    for name, (vectors, right) in sets.items():
        places, chance = first_labels(background, signs, vectors)
        corrected, drawn = is_right(places, right), chance >= threshold
        plain = is_right(first_labels(background, None, vectors)[0], right)
        rates.append((float(corrected[drawn].mean()) if drawn.any() else 0.0, float(drawn.mean())))
        print(f"{name:16}{len(vectors):9}{rates[-1][1]:8.1%}{rates[-1][0]:8.1%}"
              f"{corrected.mean():19.1%}{plain.mean():8.1%}")  # fmt: skip
    worst, usual = min(right for right, _ in rates), np.mean([shown for _, shown in rates])
    stricter = []
    if options.fit:
        places, chance = first_labels(background, signs, images[::2])
        for wanted in STRICTER:
            line = threshold_of(is_right(places, allowed[::2]), chance, wanted)
            rights = []
            for vectors, right in sets.values():
                first, sure = first_labels(background, signs, vectors)
                rights.append(float(is_right(first, right)[sure >= line].mean()))
            stricter.append((line, round(min(rights), 4)))
    elif signs.labels is not None:
        stricter = list(signs.labels.stricter)
    found = LabelSigns(threshold, round(worst, 4), round(float(usual), 4), tuple(stricter))
    print(f"labels are {'' if found.are_shown else 'not '}shown")
    return replace(signs, labels=found)


def main() -> None:
    """Embed, measure, and write line.json if asked to."""
    fit_by_command(__doc__ or "", measure)


if __name__ == "__main__":
    main()
