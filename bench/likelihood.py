"""Measure whether the line tells rightly that a query has a match, and fit its constants.

    python bench/likelihood.py [--model fovea-small] [--fit]

Told rightly: where pictures match, one of them is above the line, and at least half of the pictures
above it match; where none does, nothing is above it. Half of the answers have a match. Names: each
photograph's in one half of ../shared/photos and in the other. Everyday: each query of everyday.toml
among all photographs, and among those that do not match it. Captions: Flickr8k's dev split, with
and without the captioned image. Pictures: held-out images of half of Tiny ImageNet's classes,
with and without others of theirs. The baseline draws the line as often and as deep, but anywhere.

``--fit`` first fits the constants, to names of Tiny ImageNet's classes and to pictures of the other
half of them, and writes what it found into line.json beside the model's weights.
"""

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.everyday import SHARED, embedded, everyday_queries, photographs
from fovea.search.clip.datasets.archive import open_archive
from fovea.search.clip.encoders.base import TorchEncoder
from fovea.search.models.resolve import resolve_model
from fovea.search.query.cutoff import falling
from fovea.search.query.likelihood import (
    EVIDENCE,
    LINE,
    Background,
    Surroundings,
    evidence,
    evidence_of_pictures,
    probabilities,
)
from fovea.search.query.measured import FILE, Measured, Signs, Worth, measured_in

DEEP = 30  # hits of an answer that are looked at
FITTED = 5  # hits of an answer that the regression is fitted to
SAMPLE = 400  # images that represent a library, as in search/query/likelihood.py
PRECISION = 0.5  # of the pictures above the line
RARE = frozenset(
    "a an the of in on at with and is are to his her its by for from as two one".split()
)


@dataclass(frozen=True, eq=False)
class Case:
    """A query and a library: what is nearest, which of it matches, and about what people differ."""

    found: np.ndarray  # evidence (k, 3) of the first hits
    right: np.ndarray  # bool (k,)
    near: np.ndarray  # bool (k,)
    has_match: bool


@dataclass(frozen=True)
class Answerer:
    """Answers queries in a library of images, float32 (n, d), as the program does."""

    background: Background
    signs: Measured
    words: Signs
    pictures: Signs

    def case(self, query: np.ndarray, images: np.ndarray, right: np.ndarray,
             near: np.ndarray | None = None, *, is_picture: bool = False) -> Case:  # fmt: skip
        """Answer one query (d,); ``right`` and ``near`` are bool (n,)."""
        sample = images[:: max(1, len(images) // SAMPLE)][:SAMPLE]
        scores = images @ query
        order = np.argsort(-scores, kind="stable")[:DEEP]
        first = scores[order], images[order]
        around = Surroundings.of(self.signs, sample)
        if is_picture:
            found = evidence_of_pictures(around, self.pictures, query, *first)
        else:
            found = evidence(self.background, around, self.words, query, *first)
        close = np.zeros(len(images), dtype=bool) if near is None else near
        return Case(found, right[order], close[order], bool(right.any()))


def names_of_photographs(
    answerer: Answerer, encoder: TorchEncoder, images: np.ndarray, labels: list[str]
) -> Iterator[Case]:
    """Ask for each name in one half of the photographs and in the other, split twice."""
    names = sorted(set(labels))
    queries = dict(zip(names, encoder.encode_texts(names), strict=True))
    own = np.array(labels)
    for seed in range(2):
        shuffled = np.random.default_rng(seed).permutation(len(own))
        for half in np.array_split(shuffled, 2):
            for name in names:
                yield answerer.case(queries[name], images[half], own[half] == name)


def everyday_cases(
    answerer: Answerer, encoder: TorchEncoder, images: np.ndarray, files: list[str]
) -> Iterator[Case]:
    """Ask each everyday query among all photographs, and among those that do not match."""
    names, queries = np.array(files), everyday_queries()
    for query, vector in zip(
        queries, encoder.encode_texts([query.text for query in queries]), strict=True
    ):
        right, near = np.isin(names, query.right), np.isin(names, query.near)
        yield answerer.case(vector, images, right, near)
        others = ~right & ~near
        yield answerer.case(vector, images[others], right[others])


def captions(answerer: Answerer, encoder: TorchEncoder, folder: Path) -> Iterator[Case]:
    """Ask with 400 captions among 500 images, half of them without their own.

    Images that share a third of a caption's words are near.
    """
    rows = [json.loads(line) for line in (folder / "flickr8k.jsonl").open()]
    rows = [row for row in rows if row["split"] == "dev"]
    archive = open_archive(folder / "flickr8k.tar.gz")
    library = rows[::2]
    images = embedded(encoder, [decoded(archive.read(row["file"])) for row in library])
    bags = [[words_of(text) for text in row["captions"]] for row in library]
    texts = [row["captions"][0] for row in rows[:400]]
    for number, (text, vector) in enumerate(zip(texts, encoder.encode_texts(texts), strict=True)):
        wanted = words_of(text)
        shared = [max(len(wanted & bag) for bag in five) / max(1, len(wanted)) for five in bags]
        right = np.arange(len(library)) * 2 == number
        yield answerer.case(vector, images, right, ~right & (np.array(shared) > 1 / 3))


def names_of_classes(
    answerer: Answerer, encoder: TorchEncoder, images: np.ndarray, labels: np.ndarray, folder: Path
) -> Iterator[Case]:
    """Ask for each class of Tiny ImageNet in two libraries with it and in two without."""
    entries = json.loads((folder / "tinyimagenet-classes.json").read_text("utf-8"))
    names = {int(entry["label"]): entry["names"][0] for entry in entries}
    known = sorted(set(labels.tolist()))
    plain = encoder.encode_texts([names[label] for label in known])
    called = encoder.encode_texts([f"a {names[label]}" for label in known])
    for seed, per_class in enumerate((1, 4)):
        rng = np.random.default_rng(seed)
        for half in np.array_split(rng.permutation(known), 2):
            chosen = np.concatenate(
                [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in half]
            )
            for place, label in enumerate(known):
                vector = (plain, called)[(place + seed) % 2][place]
                yield answerer.case(vector, images[chosen], labels[chosen] == label)


def pictures(
    answerer: Answerer, images: np.ndarray, labels: np.ndarray, known: np.ndarray
) -> Iterator[Case]:
    """Ask with three images of each known class, with and without five others of it."""
    rng = np.random.default_rng(0)
    kept = np.stack([rng.permutation(np.flatnonzero(labels == label))[:8] for label in known])
    library = kept[:, 3:].ravel()
    for asked in kept[:, :3].ravel():
        right = labels[library] == labels[asked]
        yield answerer.case(images[asked], images[library], right, is_picture=True)
        yield answerer.case(images[asked], images[library[~right]], right[~right], is_picture=True)


def told_rightly(cases: list[Case], chances: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return bool (n,), whether the line tells each answer rightly, and its depths, int (n,)."""
    depths = np.array([np.count_nonzero(falling(chance) >= LINE) for chance in chances])
    return np.array([tells(case, depth) for case, depth in zip(cases, depths, strict=True)]), depths


def tells(case: Case, depth: int) -> bool:
    """Whether a line below the first ``depth`` hits tells rightly."""
    if not case.has_match:
        return depth == 0
    right = int(case.right[:depth].sum())
    wrong = int((~case.right[:depth] & ~case.near[:depth]).sum())
    return right > 0 and right >= PRECISION * (right + wrong)


def worth_of(cases: list[Case], chances: list[np.ndarray]) -> Worth:
    """Return how many answers are told rightly, and how many by these depths in any other order."""
    told, depths = told_rightly(cases, chances)
    kinds, counts = np.unique(depths, return_counts=True)
    by_chance = [np.average([tells(case, depth) for depth in kinds], weights=counts)
                 for case in cases]  # fmt: skip
    return Worth(round(float(told.mean()), 4), round(float(np.mean(by_chance)), 4), len(cases))


def fitted(cases: list[Case], words: Signs, photographs: list[Case] | None = None) -> Signs:
    """Fit the regression to the first hits, then its bias to the answers told rightly.

    The bias is fitted to queries without a match and, of the same weight, to those whose first hit
    is right: hardly a line tells the others rightly, and how many they are depends on the library.
    ``photographs``, if there are any, count twice as much: a model may score small, blurred images
    otherwise than sharp ones, of which libraries are made.
    """
    found = np.concatenate([case.found[:FITTED] for case in cases])
    right = np.concatenate([case.right[:FITTED] for case in cases])
    weights, bias = logistic(found, right)
    trials = []
    halves = [
        half
        for group in (cases, photographs or [], photographs or [])
        for half in (
            [case for case in group if not case.has_match],
            [case for case in group if case.right[0]],
        )
        if half
    ]
    for shift in np.linspace(-4, 4, 81):
        rounded = tuple(round(weight, 4) for weight in weights.tolist())
        trial = replace(words, weights=rounded, bias=round(float(bias + shift), 4))
        shares = [
            told_rightly(half, [probabilities(trial, case.found) for case in half])[0].mean()
            for half in halves
        ]
        trials.append((float(np.mean(shares)), trial))
    return max(trials, key=lambda entry: entry[0])[1]


def logistic(found: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit a logistic regression by Newton's method; return weights (f,) and bias."""
    mean, deviation = found.mean(axis=0), found.std(axis=0)
    rows = np.c_[(found - mean) / deviation, np.ones(len(found))]
    ridge, solution = np.diag([1.0] * found.shape[1] + [1e-6]), np.zeros(rows.shape[1])
    for _ in range(25):
        chance = 1 / (1 + np.exp(-rows @ solution))
        curve = rows.T @ (rows * (chance * (1 - chance) + 1e-9)[:, None]) + ridge
        solution += np.linalg.solve(curve, rows.T @ (right - chance) - ridge @ solution)
    weights = solution[:-1] / deviation
    return weights, float(solution[-1] - weights @ mean)


def held_out(encoder: TorchEncoder, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embed the held-out images of Tiny ImageNet; return them (n, d) and their labels (n,)."""
    lines = [json.loads(line) for line in (folder / "tinyimagenet.jsonl").open()]
    rows = [row for row in lines if row["shard"] == "val"]
    archive = open_archive(folder / "tinyimagenet-val.tar.gz")
    images = embedded(encoder, [decoded(archive.read(row["file"])) for row in rows])
    return images, np.array([row["label"] for row in rows])


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def words_of(text: str) -> set[str]:
    return {word.rstrip("s") for word in re.findall("[a-z]+", text.lower())} - RARE


def measure(encoder: TorchEncoder, place: Path, options: argparse.Namespace) -> Measured:
    """Print the table; return what was measured, with constants fitted anew if asked for."""
    classes, labels = held_out(encoder, options.train)
    known = measured_in(place, encoder.identity, encoder.dim)
    centre = classes.mean(axis=0) if known is None or options.fit else np.array(known.centre)
    signs = known or Measured(encoder.identity, ())
    signs = replace(signs, centre=tuple(np.round(centre.astype(float), 5).tolist()))
    background = Background.of(encoder.identity, encoder, signs)
    is_new = options.fit or known is None or known.words is None or known.pictures is None
    if is_new:
        nothing = Signs((0.0,) * len(EVIDENCE), 0.0, 1.0, Worth(0, 1, 1))
        spreads = [np.std(classes @ some.T, axis=0).mean()
                   for some in (background.vectors, classes[::25])]  # fmt: skip
        words, alike = (replace(nothing, spread=round(float(spread), 4)) for spread in spreads)
    else:
        assert known is not None and known.words is not None and known.pictures is not None
        words, alike = known.words, known.pictures
    answerer = Answerer(background, signs, words, alike)
    fitting = list(names_of_classes(answerer, encoder, classes, labels, options.train))
    numbers = np.unique(labels)
    similar = [list(pictures(answerer, classes, labels, numbers[half::2])) for half in (0, 1)]
    files = photographs(options.photos)
    images = embedded(encoder, files)
    with (options.photos / "labels.tsv").open(encoding="utf-8") as file:
        called = {row["file"]: row["label"] for row in csv.DictReader(file, delimiter="\t")}
    named = np.array([file.name in called for file in files])
    own = [called[file.name] for file in files if file.name in called]
    every = list(names_of_photographs(answerer, encoder, images[named], own))
    place_of = np.arange(len(every)) % len(set(own))  # of a case's name
    names = [[every[n] for n in np.flatnonzero(place_of % 2 == half)] for half in (0, 1)]
    if is_new:
        words = fitted(fitting, words, names[0])
        alike = fitted(similar[0], alike)
    groups = {
        "names": names[1],
        "everyday": list(everyday_cases(answerer, encoder, images, [f.name for f in files])),
        "captions": list(captions(answerer, encoder, options.train)),
        "classes (fitted to)": fitting,
        "names (fitted to)": names[0],
    }
    print(f"{'':22}{'answers':>8}{'rightly':>9}{'with':>7}{'without':>9}{'chance':>8}")
    worths = {name: show(name, cases, [probabilities(words, case.found) for case in cases])
              for name, cases in groups.items()}  # fmt: skip
    seen = show("pictures", similar[1], [probabilities(alike, one.found) for one in similar[1]])
    tested = [worths["names"], worths["everyday"]]  # each counts half
    worth = Worth(
        round(float(np.mean([one.told for one in tested])), 4),
        round(float(np.mean([one.chance for one in tested])), 4),
        round(len(tested) ** 2 / sum(1 / one.answers for one in tested)),  # of the same error
    )
    for kind, one in (("words", worth), ("pictures", seen)):
        print(f"the line of {kind} tells {one.told:.0%} of answers rightly, one at random "
              f"{one.chance:.0%}: it is {'' if one.is_drawn else 'not '}drawn")  # fmt: skip
    return replace(signs, words=replace(words, worth=worth), pictures=replace(alike, worth=seen))


def show(name: str, cases: list[Case], chances: list[np.ndarray]) -> Worth:
    """Print a row of the table."""
    told, _ = told_rightly(cases, chances)
    has = np.array([case.has_match for case in cases])
    worth = worth_of(cases, chances)
    print(f"{name:22}{len(cases):8}{worth.told:9.1%}{told[has].mean():7.1%}{told[~has].mean():9.1%}"
          f"{worth.chance:8.1%}")  # fmt: skip
    return worth


def write_signs(signs: Measured, place: Path) -> Path:
    """Write line.json beside a model's weights, the numbers of a list on one line."""
    path = (place if place.is_dir() else place.parent) / FILE
    fields = json.dumps(signs.to_dict(), indent=1)
    path.write_text(re.sub(r"\s+(-?[\d.e-]+,?)(?=\s)", r" \1", fields) + "\n", encoding="utf-8")
    return path


def fit_by_command(
    description: str, measure: Callable[[TorchEncoder, Path, argparse.Namespace], Measured]
) -> None:
    """Read the command line, measure a model, and write its line.json if asked to."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--train", type=Path, default=SHARED / "train")
    parser.add_argument("--photos", type=Path, default=SHARED / "photos")
    parser.add_argument("--model", default="fovea-small")
    parser.add_argument("--fit", action="store_true", help="fit, and write line.json")
    options = parser.parse_args()
    model = resolve_model(options.model, network=False)
    print(f"{model.name}\n")
    signs = measure(model.load(), model.folder, options)
    if options.fit:
        print(f"\nwritten to {write_signs(signs, model.folder)}")


def main() -> None:
    """Embed, measure, and write line.json if asked to."""
    fit_by_command(__doc__ or "", measure)


if __name__ == "__main__":
    main()
