"""``fovea search``, ``similar`` and ``classify``."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from fovea.search.errors import FoveaError, Unanswerable
from fovea.search.library.paths import path_fields, printable, printable_name

from .opening import any_model, searchable
from .options import (
    FILE,
    at_option,
    json_option,
    k_option,
    library_option,
    likely_option,
    machine_options,
    model_option,
)
from .output import counted, print_json, talk
from .terminal.results import Delivery, result_options
from .terminal.words import QueryCommand, complete_query, joined


@click.command(
    cls=QueryCommand, short_help="Print the pictures nearest to words, a picture, or both."
)
@click.argument("words", nargs=-1, metavar="[QUERY]...", shell_complete=complete_query)
@k_option
@click.option("--image", metavar="FILE", type=FILE, help="Search by this picture.")
@at_option("--image")
@likely_option
@result_options
@library_option
@machine_options
@json_option()
@click.pass_context
def search(
    ctx: click.Context,
    words: tuple[str, ...],
    k: int,
    image: Path | None,
    at: float | None,
    likely: bool,
    folder: Path | None,
    device: str,
    dtype: str,
    **results: Any,
) -> None:
    """Print the pictures nearest to QUERY, to a picture, or to both, best first.

    A QUERY has words to add or subtract, and filters: in:, name:, on:, after:, before:, camera:,
    lens:, format:, is:, size:, longer:, near:, place:, text:, tag:. Filters alone, or an empty
    QUERY, print the newest pictures first.

    \b
    fovea search a dog running on a beach
    fovea search beach -people in:holidays after:2019
    fovea search at night --image street.jpg
    fovea search -0 sunset | xargs -0 feh
    """
    if not words and image is None:
        raise click.UsageError("nothing to search for; give a QUERY, --image FILE, or both")
    if at is not None and image is None:
        raise click.UsageError("--at is a moment of the video in --image FILE; give that, too")
    from fovea.search.query.empty import LANGUAGE

    query, delivery = joined(words), Delivery(ctx, results)
    with searchable(folder, device, dtype) as library, delivery.of(library) as deliver:
        answer = library.search(query, image=image, at=at, k=k, likely_only=likely)
        for hint in answer.hints:
            if hint.code == LANGUAGE:  # others say why there are no hits
                talk(hint.message)
        deliver(replace(answer, query=query or str(image or "")))


@click.command(short_help="Print the pictures nearest to a given one.")
@click.argument("file", type=FILE)
@at_option("FILE")
@k_option
@likely_option
@result_options
@library_option
@machine_options
@json_option()
@click.pass_context
def similar(
    ctx: click.Context,
    file: Path,
    at: float | None,
    k: int,
    likely: bool,
    folder: Path | None,
    device: str,
    dtype: str,
    **results: Any,
) -> None:
    """Print the pictures nearest to the one in FILE, which need not be in the library.

    \b
    fovea similar ~/Pictures/beach.jpg
    """
    delivery = Delivery(ctx, results)
    with searchable(folder, device, dtype) as library, delivery.of(library) as deliver:
        known = library.find(file)
        paths = () if known is None else library.paths(known)
        if paths and os.path.realpath(file) not in map(os.path.realpath, paths):
            talk(f"the library has this picture as {paths[0]}")
        try:
            answer = library.similar(file, at=at, k=k, likely_only=likely)
        except Unanswerable as exc:
            if exc.code != "query.no_video":
                raise
            raise FoveaError(f"{printable_name(file)} is not a video; leave out --at") from exc
        deliver(replace(answer, query=str(file)))


@click.command(short_help="Print how likely each label is for a picture.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE)
@click.option("--label", "labels", multiple=True, required=True, help="A label; repeatable.")
@click.option(
    "--template",
    "templates",
    multiple=True,
    default=("a photo of a {}.",),
    show_default=True,
    help="A prompt with {} for the label; repeat it to average several.",
)
@model_option("Classify with this model.  [default: the library's, else the best at hand]")
@library_option
@machine_options
@json_option("Print one JSON document per file, each on its own line.")
def classify(
    files: tuple[Path, ...],
    labels: tuple[str, ...],
    templates: tuple[str, ...],
    name: str | None,
    folder: Path | None,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Print the probability of each label for the picture in each FILE.

    \b
    fovea classify pet.jpg --label cat --label dog
    """
    if not all("{}" in template for template in templates):
        raise click.UsageError("each --template needs {} where the label goes")
    from fovea.indexer.workers.query_image import QueryImageDecoder
    from fovea.search.clip.zeroshot import class_embeddings, class_probabilities

    model = any_model(name, folder)
    labels = tuple(dict.fromkeys(labels))
    unread = 0
    with QueryImageDecoder(model.preprocess) as decoder:
        encoder = model.load(device=device, dtype=dtype)
        classes = class_embeddings(encoder, labels, templates)  # (c, d)
        for file in files:
            try:
                pixels = decoder.pixels(file)
            except FoveaError as exc:
                talk(str(exc))
                unread += 1
                continue
            rows = encoder.encode_pixels(pixels[None])
            [row] = class_probabilities(rows, classes, encoder.logit_scale).tolist()
            show_labels(file, dict(zip(labels, row, strict=True)), as_json)
    if unread:
        raise click.ClickException(
            f"{unread} of {counted(len(files), 'file')} could not be classified"
        )


def show_labels(file: Path, labels: dict[str, float], as_json: bool) -> None:
    """Print one file's labels with their probabilities, the likeliest first."""
    ranked = dict(sorted(labels.items(), key=lambda entry: entry[1], reverse=True))
    if as_json:
        print_json({**path_fields(str(file)), "labels": ranked})
        return
    for label, probability in ranked.items():
        click.echo(f"{probability:.3f}\t{printable(label)}\t{printable_name(str(file))}")
