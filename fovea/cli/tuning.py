"""``fovea finetune``."""

import os
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.search.clip.errors import FoveaError
from fovea.search.library.paths import path_fields, place_of, printable, printable_name

if TYPE_CHECKING:
    from fovea.indexer.learning.finetune import Tuned
    from fovea.search.library.library import Library


from .opening import current_model, open_library
from .options import (
    DTYPES,
    FILE,
    FOLDER,
    POSITIVE,
    json_option,
    machine_options,
    model_option,
    value_option,
    workers_option,
)
from .output import print_json, talk
from .progress import counting_bar, download_bar, tuning_bar
from .switching import switch_library, switch_result


@click.command()
@click.option(
    "--from",
    "folder",
    metavar="LIBRARY",
    type=FOLDER,
    help="The library to learn from.  [default: FOVEA_LIBRARY, or the user's data folder]",
)
@value_option(
    "--captions", "Learn from the captions in this file: JSON Lines, TSV or CSV.", "FILE", FILE
)
@click.option(
    "--words",
    multiple=True,
    type=click.Choice(("names", "keywords")),
    help="Learn from names of files and folders, or from keywords and descriptions in pictures; "
    "repeatable.  [default: both, or neither with --captions]",
)
@click.option("--list", "only_list", is_flag=True, help="Print the captions found; train nothing.")
@model_option("Start from this model.  [default: the library's]")
@value_option("--out", "Folder for the new model.  [default: LIBRARY/tuned]", "DIR", FILE)
@value_option(
    "--tune",
    "How many of each tower's last blocks to train, besides the projections.",
    "N",
    click.IntRange(min=0),
    3,
)
@value_option("--epochs", "How many times to go through the pictures.", "N", POSITIVE, 20)
@value_option("--batch-size", "Pictures per step.", "N", click.IntRange(min=2), 128)
@value_option(
    "--lr", "The highest learning rate.  [default: 0.001 for small models, else 0.0001]", "X", float
)
@value_option(
    "--keep", "Weight of staying close to the original model.", "X", click.FloatRange(min=0), 1.0
)
@value_option("--limit", "Learn from at most this many pictures.", "N", POSITIVE, 10_000)
@value_option("--seed", "Random seed.", "N", int, 0)
@value_option(
    "--least-agreement",
    "Refuse a model that agrees with the original on less than this share of pictures.",
    "SHARE",
    click.FloatRange(0, 1),
    0.8,
)
@workers_option
@click.option(
    "--use", is_flag=True, help="Make the library use the new model, unless it is refused."
)
@partial(machine_options, dtypes=DTYPES[:3])
@json_option()
def finetune(
    folder: Path | None,
    captions: Path | None,
    words: tuple[str, ...],
    only_list: bool,
    name: str | None,
    out: Path | None,
    limit: int,
    least_agreement: float,
    workers: int | None,
    use: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fine-tune a model on a library's own pictures and words.

    The words are captions from a file, the names of files and folders, and keywords and
    descriptions in pictures and XMP files. Some of the pictures are held out, and the recall on
    them is shown before and after. The original model is not changed: the new one is stored beside
    it, and refused if it got worse. Repeat the command to resume a stopped run. --use makes the
    library use the new model; fovea models use changes it back.

    \b
    fovea finetune --from ~/photos-library --captions captions.tsv
    """
    from fovea.indexer.learning.training_set import SOURCES, Wanted, listed_captions

    chosen = words or (() if captions is not None else SOURCES)
    wanted = Wanted(captions=captions, words=chosen, limit=limit)
    with open_library(folder) as library:
        if only_list:
            for path, texts in listed_captions(library, wanted, workers=workers):
                show_captions(path, texts, as_json)
            return
        if out is None or use:
            library.check_writable()
        tuned = _finetuned(
            library,
            name,
            options,
            wanted=wanted,
            out=out,
            workers=workers,
            least_agreement=least_agreement,
        )
        show_tuned(tuned, as_json)
        if tuned.refusal:
            raise FoveaError(f"the new model was refused: {tuned.refusal}; it is in {tuned.folder}")
        if use:
            machine = {key: options[key] for key in ("device", "dtype")}
            return _use_tuned(library, tuned, workers=workers, **machine)
        command = ["fovea", "models", "use", str(tuned.folder), "--library", str(library.folder)]
    talk(f"to use it: {shlex.join(command)}")


def _finetuned(
    library: "Library", name: str | None, options: dict[str, Any], **settings: Any
) -> "Tuned":
    """Fine-tune the model of this name, or the library's, under two progress bars."""
    from fovea.indexer.learning.finetune import finetune_library
    from fovea.search.clip.finetuning.finetune import TuneOptions
    from fovea.search.models.resolve import resolve_model

    model = resolve_model(name, current_model(library), progress=download_bar)
    with counting_bar("img") as progress, tuning_bar() as on_metrics:
        return finetune_library(
            library,
            model,
            options=TuneOptions(**options),
            on_progress=progress,
            on_metrics=on_metrics,
            **settings,
        )


def _use_tuned(
    library: "Library", tuned: "Tuned", *, workers: int | None, device: str, dtype: str
) -> None:
    """Change the library's model to a tuned one; raise ``FoveaError`` if it keeps its model."""
    from fovea.search.maintenance.changeover import resolve_in

    model, before = resolve_in(library, str(tuned.folder)), current_model(library)
    load = partial(model.load, device=device, dtype=dtype)
    switch_result(switch_library(library, model, load, workers=workers), model, before)
    talk(f"{place_of(library)} now uses it; to go back: fovea models use {before.name}")


def show_captions(path: bytes, captions: Sequence[str], as_json: bool) -> None:
    """Print a picture's captions: a line each, or one of JSON."""
    file = os.fsdecode(path)
    if as_json:
        fields = path_fields(file)
        fields["file"] = fields.pop("path")
        print_json({**fields, "captions": captions})
        return
    for caption in captions:
        click.echo(f"{printable_name(file)}\t{printable(caption)}")


def show_tuned(tuned: "Tuned", as_json: bool) -> None:
    """Print what fine-tuning has achieved: a table, or one JSON document."""
    found = tuned.comparison
    if as_json:
        print_json({"model": str(tuned.folder), **tuned.to_dict()})
        return
    left_out = "".join(f", {count:,} {reason}" for reason, count in tuned.left_out.items())
    click.echo(f"pictures\t{tuned.pictures:,} with {tuned.captions:,} captions{left_out}")
    click.echo(f"held out\t{found.after.pictures:,} pictures, {found.after.captions:,} captions")
    click.echo("\tbefore\tafter")
    for way in ("text_to_image", "image_to_text"):
        before, after = getattr(found.before, way), getattr(found.after, way)
        for k in before:
            name = f"{way.replace('_', ' ')} recall@{k}"
            click.echo(f"{name}\t{before[k]:.4f}\t{after[k]:.4f}")
    click.echo(f"agreement\t\t{found.agreement:.4f}")
