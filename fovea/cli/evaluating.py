"""``fovea evaluate``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fovea.search.clip.errors import FoveaError

if TYPE_CHECKING:
    from fovea.search.clip.datasets.pairs import PairSet
    from fovea.search.clip.evaluation.evaluate import Embedded


from .opening import any_model
from .options import (
    FILE,
    POSITIVE,
    complete_model,
    json_option,
    library_option,
    machine_options,
    model_option,
    value_option,
)
from .output import print_json, talk
from .progress import counting_bar
from .training import data_options


@click.command(short_help="Measure a model by retrieval or zero-shot classification.")
@data_options(required=True, images="Images; repeatable.")
@model_option("Model to measure.  [default: the library's, else the best available]")
@click.option(
    "--against", metavar="NAME|DIR", shell_complete=complete_model, help="Also measure this model."
)
@value_option(
    "--report", "Write a page of example queries and their first hits.", "FILE.html", FILE
)
@value_option("--examples", "Number of queries on that page.", "N", POSITIVE, 24)
@library_option
@machine_options
@json_option()
def evaluate(
    captions: Path | None,
    labels: Path | None,
    classes: Path | None,
    images: tuple[Path, ...],
    more: tuple[Path, ...],
    split: str | None,
    name: str | None,
    against: str | None,
    report: Path | None,
    examples: int,
    folder: Path | None,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Measure a model: retrieval by --captions, or zero-shot classification by --labels.

    \b
    fovea evaluate --captions flickr8k.jsonl --images flickr8k.tar.gz --split dev
    fovea evaluate --labels val.jsonl --classes classes.json --images val.tar.gz
    """
    images += more
    if (captions is None) == (labels is None):
        raise click.UsageError("give either --captions or --labels")
    if (labels is None) != (classes is None):
        raise click.UsageError("--labels and --classes go together")
    if report is not None and not report.absolute().parent.is_dir():
        raise FoveaError(
            f"cannot write {report}: there is no folder {report.parent}; create it first"
        )
    from fovea.search.clip.datasets.pairs import PairSource, open_pairs
    from fovea.search.clip.evaluation.evaluate import embed_pairs

    found = open_pairs(PairSource(images, captions, labels, classes, split))
    models = [any_model(name, folder)]
    models += [any_model(against, folder)] if against is not None else []
    measured = []
    for model in models:
        encoder = model.load(device=device, dtype=dtype)
        with counting_bar("img") as progress:
            measured.append(embed_pairs(encoder, found, progress))
    results = [one.figures().to_dict() for one in measured]
    if report is not None:
        names = [model.name for model in models]
        _write_report(report, names, found, measured, count=examples, split=split)
    if as_json:
        print_json({**results[0], "against": results[1]} if against is not None else results[0])
        return
    _show_figures([_flat(result) for result in results])


def _flat(result: Mapping[str, object]) -> dict[str, object]:
    """Flatten nested figures under names such as "text to image recall@10"."""
    flat: dict[str, object] = {}
    for field, value in result.items():
        for key, figure in value.items() if isinstance(value, dict) else [("", value)]:
            flat[f"{field} {key}".strip().replace("_", " ")] = figure
    return flat


def _show_figures(results: Sequence[Mapping[str, object]]) -> None:
    """Print a line per figure, with a column per model."""
    for name in results[0]:
        shown = [
            f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
            for value in (result[name] for result in results)
        ]
        click.echo("\t".join([name, *shown]))


def _write_report(
    path: Path,
    names: list[str],
    found: "PairSet",
    measured: "list[Embedded]",
    *,
    count: int,
    split: str | None,
) -> None:
    from fovea.search.clip.disk import replace_file
    from fovea.search.clip.evaluation.examples import pick_examples
    from fovea.web.report import Report, page

    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
    figures = [_flat(one.figures().to_dict()) for one in measured]
    examples = pick_examples(found, measured, count=count)
    data = ", ".join(path.name for path in found.paths) + (f", {split}" if split else "")
    text = page(Report(names, figures, examples, len(measured[0].pairs), data))
    replace_file(path, lambda file: file.write(text.encode()))
    talk(f"report saved to {path}")
