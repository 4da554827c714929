"""Measure how well a tag finds pictures after 5, 10 and 20 examples, and how true its estimate is.

    python bench/teach.py [--model fovea-small] [--classes 202] [--embedded FILE] [--only PART]

The library is the held-out images of Tiny ImageNet (25 of each of 202 classes), which no model here
was trained on. A tag is taught one class, and then a group of classes with similar names, so that
it is harder and has more pictures. Its first examples are left out of what is to be found.
Baselines are the cosine with the name (of a group, the mean of its classes' names) and with one
example. Then three rounds of ten suggestions of each kind are confirmed or rejected. Right, and
found, are shares of the pictures that get the tag, and of those that have it, both with those that
were said to have it. ``--embedded`` keeps the embeddings for another run. Then small libraries, of
some pictures of one class and others, with three to five examples; and the time for a library of
100,000 pictures in the database.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path

import faiss
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fovea
from bench.common import clustered
from fovea.search.clip.datasets.pairs import PairSource, open_pairs
from fovea.search.clip.evaluation.evaluate import embed_images
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.tags.probe import average_precision, fit_probe, settled
from fovea.search.tags.scoring import OTHERS, refresh, suggestions
from fovea.search.tags.stored import say

SHARED = Path(__file__).resolve().parents[2] / "shared" / "train"
EXAMPLES = (5, 10, 20)
ROUNDS, JUDGED = 3, 10
TOO_MUCH = 0.1  # an estimate above what is right
GROUPS, LEAST_OF_GROUP = 30, 50  # of classes; pictures in a group that is taught
SMALL, FEW, TRIALS = ((69, 10), (300, 25)), (3, 4, 5), 60  # pictures, those of one class
LARGE, DIM = 100_000, 512


def main() -> None:
    """Print the mean over tags for each number of examples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="fovea-small")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--embedded", type=Path)
    parser.add_argument("--only", choices=("tags", "small", "time"), help="one part of it")
    options = parser.parse_args()
    if options.only == "time":
        return large()
    rows, labels, names = _embedded(options.model, options.embedded)
    if options.only != "tags":
        small(rows, labels)
    if options.only == "small":
        return None
    chosen = np.random.default_rng(0).permutation(np.unique(labels))[: options.classes]
    _measure("classes", rows, labels, names, chosen)
    groups, centres = _groups(names)
    sizes = np.bincount(groups[labels], minlength=GROUPS)
    _measure("groups", rows, groups[labels], centres, np.flatnonzero(sizes >= LEAST_OF_GROUP))
    return None if options.only else large()


def _measure(
    what: str, rows: np.ndarray, labels: np.ndarray, names: np.ndarray, chosen: np.ndarray
) -> None:
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for label in chosen.tolist():
        one_tag(rows, labels == label, names[label], found)
    print(f"{len(rows)} images, {len(chosen)} {what}")
    print("average precision, right, found, estimated to be right, estimates too high by a tenth,")
    print("pictures found that nobody spoke about, right among these (of all tags together)")
    for asked, values in found.items():
        table = np.array(values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # means of nothing
            means = np.nanmean(table, axis=0)
        if len(means) > 1:
            means[-1] = np.nansum(table[:, -1] * table[:, -2]) / max(1, table[:, -2].sum())
        print(f"{asked:28}", *(f"{share:.3f}" for share in means))


def _groups(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each class's group of similar ones, int (c,), and the groups' centres (g, d)."""
    clustering = faiss.Kmeans(names.shape[1], GROUPS, seed=1, spherical=True)
    clustering.cp.min_points_per_centroid = 1
    clustering.train(names)
    _, groups = clustering.index.search(names, 1)
    return np.asarray(groups)[:, 0], np.asarray(clustering.centroids)


def _embedded(model: str, kept: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return image rows (n, d), their labels (n,), and a row for each class's name (c, d)."""
    if kept is not None and kept.exists():
        known = np.load(kept)
        return known["rows"], known["labels"], known["names"]
    classes = SHARED / "tinyimagenet-classes.json"
    source = PairSource(
        (SHARED / "tinyimagenet-val.tar.gz",),
        labels=SHARED / "tinyimagenet.jsonl",
        classes=classes,
        split="val",
    )
    encoder = fovea.load_model(model)
    pairs, rows = embed_images(encoder, open_pairs(source))
    labels = np.array([int(pair.label or 0) for pair in pairs])
    said = [one["names"][0] for one in json.loads(classes.read_text("utf-8"))]
    names = encoder.encode_texts([f"a photo of a {name}" for name in said])
    if kept is not None:
        np.savez(kept, rows=rows, labels=labels, names=names)
    return rows, labels, names


def one_tag(
    rows: np.ndarray,
    is_so: np.ndarray,
    name: np.ndarray,
    found: dict[str, list[tuple[float, ...]]],
) -> None:
    """Teach one tag, which the pictures ``is_so``, bool (n,), have; add what is measured of it."""
    rng = np.random.default_rng(int(is_so.argmax()))
    own = rng.permutation(np.flatnonzero(is_so))
    others = rng.choice(len(rows), OTHERS, replace=False)
    for count in EXAMPLES:
        rest = np.ones(len(rows), bool)
        rest[own[:count]] = False  # the examples themselves are not to be found
        for what, query in (("its name", name), ("one example", rows[own[0]])):
            scores = rows[rest] @ query
            found[f"{count} left out, {what}"].append((average_precision(scores, is_so[rest]),))
        yes, no, answers = own[:count], own[:0], own[:0]
        for turn in range(ROUNDS + 1):
            named = np.concatenate([yes, no])
            free = np.setdiff1d(np.arange(len(rows)), named)
            unnamed = others[~np.isin(others, named)]
            probe = fit_probe(rows[yes], rows[no], rows[unnamed], np.isin(named, answers).tolist())
            assert probe is not None
            margins = rows @ probe.weights + probe.bias
            chances = probe.probabilities(rows[free])
            probe = settled(probe, chances[chances >= probe.threshold], len(yes))
            new = free[chances >= probe.threshold]
            tagged = np.concatenate([yes, new])
            ranked = margins + 1e3 * np.isin(np.arange(len(rows)), yes)
            ranked -= 1e3 * np.isin(np.arange(len(rows)), no)
            right = float(is_so[tagged].mean())
            estimate = np.nan if probe.right is None else probe.right
            what = f"{count} examples" + (f", {turn * 2 * JUDGED} judged" if turn else "")
            found[what].append(
                (
                    average_precision(ranked[rest], is_so[rest]),
                    right,
                    is_so[tagged].sum() / is_so.sum(),
                    estimate,
                    float(estimate - right > TOO_MUCH) if estimate == estimate else np.nan,
                    len(new),
                    is_so[new].mean() if len(new) else np.nan,
                )
            )
            likely = free[np.argsort(-margins[free])[:JUDGED]]
            line = np.log(probe.threshold / (1 - probe.threshold))
            by_line = free[np.argsort(np.abs(margins[free] - line))]
            judged = np.concatenate([likely, by_line[~np.isin(by_line, likely)][:JUDGED]])
            answers = np.concatenate([answers, judged])
            yes = np.concatenate([yes, judged[is_so[judged]]])
            no = np.concatenate([no, judged[~is_so[judged]]])


def small(rows: np.ndarray, labels: np.ndarray) -> None:
    """Print what a tag finds from few examples in small libraries, the mean of many."""
    for size, own in SMALL:
        for count in FEW:
            rng = np.random.default_rng(0)
            new, right, have = np.zeros((3, TRIALS), int)
            for trial in range(TRIALS):
                label = rng.choice(np.unique(labels))
                with_it = rng.permutation(np.flatnonzero(labels == label))[:own]
                rest = rng.choice(np.flatnonzero(labels != label), size - len(with_it), False)
                library = rows[np.concatenate([with_it, rest])]
                free = np.arange(count, size)
                others = rng.choice(free, min(OTHERS, len(free)), replace=False)
                probe = fit_probe(library[:count], library[:0], library[others])
                assert probe is not None
                chances = probe.probabilities(library[count:])
                probe = settled(probe, chances[chances >= probe.threshold], count)
                found = np.flatnonzero(chances >= probe.threshold) + count
                new[trial], right[trial] = len(found), (found < len(with_it)).sum()
                have[trial] = len(with_it) - count
            print(
                f"{size} pictures, {own} of a class, {count} examples: {new.mean():.1f} others "
                f"found, right {right.sum() / new.sum():.2f}, found {right.sum() / have.sum():.2f}"
            )


def large() -> None:
    """Time a tag in a library of 100,000 pictures: taught, taught more, new pictures, suggested."""
    with tempfile.TemporaryDirectory() as folder:
        with Library.open(Path(folder) / "library", create=True) as library:
            root = library.add_root(folder)
            model = library.set_model("bench", "b" * 64, DIM, "bench")
            number = 0

            def add(count: int, seed: int) -> None:
                nonlocal number
                for batch in clustered(count, LARGE, DIM, seed):
                    images, files = [], []
                    for row in batch.astype(np.float16):
                        number += 1
                        key = number.to_bytes(32, "big")
                        images.append(NewImage(key, 1, ImageMetadata(1, 1, "PNG"), row))
                        path = f"{folder}/{number}.png".encode()
                        files.append(FileWrite(path, root.id, 1, 1, key))
                    library.write_batch(WriteBatch(images, files, model.id))

            add(LARGE, 1)
            say(library, "rex", yes=[n.to_bytes(32, "big") for n in range(1, 11)])
            for what, before in (("taught", 0), ("1,000 new pictures", 1000)):
                if before:
                    add(before, 2)
                started = time.perf_counter()
                refresh(library)
                took = time.perf_counter() - started
                [(count,)] = library.rows("SELECT count(*) FROM tagged")
                print(f"{LARGE:,} pictures, {what}: {took * 1000:.0f} ms, {count} tagged")
            started = time.perf_counter()
            suggestions(library, "rex")
            print(f"suggestions: {(time.perf_counter() - started) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
