"""Find photographs by the names of what they show.

    python bench/photographs.py FOLDER --labels labels.tsv [--model NAME]...

``labels.tsv`` has the columns file, wnid and label. Each photograph is searched for among all that
it names, by "a photo of a LABEL"; others with the same label count as neither right nor wrong, and
a tie with another label counts against the model. The baseline is chance; further models are
measured in the same run. Models have to be on the disk already.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from fovea.search.models.resolve import resolve_model

DEPTHS = (1, 10)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--labels", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--model", "names", multiple=True, default=["fovea-small"], show_default=True)
@click.option("--each", is_flag=True, help="Print the place of each photograph.")
def main(folder: Path, labels: Path, names: Sequence[str], each: bool) -> None:
    """Print the share of photographs at the first place and among the first ten."""
    with labels.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    images = [Image.open(folder / row["file"]) for row in rows]
    label_of = np.array([row["label"] for row in rows])
    for name in names:
        model = resolve_model(name, network=False).load()
        embedded = model.encode_images(images)
        texts = model.encode_texts([f"a photo of a {label}" for label in label_of])
        scores = texts @ embedded.T  # (n, n)
        own = scores.diagonal()[:, None]
        others = label_of[:, None] != label_of
        ranks = 1 + ((scores >= own) & others).sum(axis=1)
        if each:
            for rank, row in zip(ranks, rows, strict=True):
                print(f"{rank:5d}  {row['file']}  {row['label']}")
        found = ", ".join(f"@{k} {100 * (ranks <= k).mean():.1f} %" for k in DEPTHS)
        print(f"{name}: {found} of {len(rows)} photographs")
    print("chance: " + ", ".join(f"@{k} {100 * min(1, k / len(rows)):.1f} %" for k in DEPTHS))


if __name__ == "__main__":
    main()
