"""Measure what lies near a picture: the share of its five nearest that show the same class.

    python bench/similar.py --images tinyimagenet-val.tar.gz --labels tinyimagenet.jsonl \\
        --classes tinyimagenet-classes.json --split val [--model NAME]...

Every image is compared with all others. The baseline is chance; further models are measured in the
same run.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fovea
from fovea.search.clip.datasets.pairs import PairSource, open_pairs
from fovea.search.clip.evaluation.evaluate import embed_images

NEAREST = 5
FILE = click.Path(path_type=Path, exists=True)


@click.command()
@click.option("--images", type=FILE, required=True)
@click.option("--labels", type=FILE, required=True)
@click.option("--classes", type=FILE, required=True)
@click.option("--split")
@click.option("--model", "names", multiple=True, default=["fovea-small", "fovea-small-1"])
def main(
    images: Path, labels: Path, classes: Path, split: str | None, names: Sequence[str]
) -> None:
    """Print the share for each model, in percent."""
    source = PairSource((images,), labels=labels, classes=classes, split=split)
    found = open_pairs(source)
    for name in names:
        pairs, rows = embed_images(fovea.load_model(name), found)
        classes_of = np.array([pair.label for pair in pairs])
        right = []
        for start in range(0, len(rows), 1000):
            scores = rows[start : start + 1000] @ rows.T
            scores[np.arange(len(scores)), start + np.arange(len(scores))] = -2  # itself
            nearest = np.argpartition(-scores, NEAREST, axis=1)[:, :NEAREST]
            own = classes_of[start : start + len(scores), None]
            right.append((classes_of[nearest] == own).mean())
        print(f"{name}: {100 * np.mean(right):.1f} % of the {NEAREST} nearest, {len(rows)} images")
    counts = np.bincount(classes_of)
    chance = (counts * (counts - 1)).sum() / (len(rows) * (len(rows) - 1))
    print(f"chance: {100 * chance:.1f} %")


if __name__ == "__main__":
    main()
