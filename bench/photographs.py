"""Count the photographs that a model finds by their label.

    python bench/photographs.py --labels labels.tsv --classes classes.json FOLDER

``labels.tsv`` has the columns file, wnid and label; ``classes.json`` lists the classes that the
model was trained on, with their wnid. Each photograph of such a class is searched for in all of
FOLDER by "a photo of a LABEL"; the baseline is chance.
"""

import csv
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fovea.indexer.scanning.scan import index_folders
from fovea.search.library.library import Library
from fovea.search.models.resolve import resolve_model
from fovea.search.query.rank import Picture
from fovea.search.query.run import Question, Searcher

K = 10


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--labels", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--classes", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--model", "name", default="fovea-small", show_default=True)
def main(folder: Path, labels: Path, classes: Path, name: str) -> None:
    """Print one line per photograph, and how many are among the first ten."""
    known = {entry["wnid"] for entry in json.loads(classes.read_text("utf-8"))}
    with labels.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["wnid"] in known]
    model = resolve_model(name, network=False)
    encoder = model.load()
    with TemporaryDirectory() as place, Library.open(Path(place), create=True) as library:
        report = index_folders(library, [folder], model=model, load_encoder=lambda: encoder)
        searcher = Searcher.of(library, library.model(), encoder)
        ranks = []
        for row in rows:
            # as a vector, since words also match file names
            [vector] = encoder.encode_texts([f"a photo of a {row['label']}"])
            hits = searcher.answer(Question.of("", Picture(vector)), k=report.embedded).hits
            ranks.append(next(hit.rank for hit in hits if Path(hit.path).name == row["file"]))
            print(f"{ranks[-1]:5d}  {row['file']}  {row['label']}")
    found = sum(rank <= K for rank in ranks)
    chance = len(ranks) * min(1.0, K / report.embedded)
    print(f"{found} of {len(ranks)} in the first {K} of {report.embedded}; by chance {chance:.1f}")


if __name__ == "__main__":
    main()
