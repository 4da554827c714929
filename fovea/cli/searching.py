"""``fovea search``, ``similar`` and ``classify``."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.search.clip.errors import FoveaError
from fovea.search.library.paths import path_fields, printable, printable_name

if TYPE_CHECKING:
    from fovea.search.query.hits import Answer, Hit


from .opening import any_model, searchable
from .options import FILE, json_option, k_option, library_option, machine_options, model_option
from .output import counted, print_json, talk

LIKELY_END = "the likely matches end here; the nearest other pictures follow"
NEAREST = "nearest first"
NAMED = "names that match, and the nearest, first"
NONE_LIKELY = "no likely matches; the nearest pictures follow"


class QueryCommand(click.Command):
    """A command whose argument may begin with a minus, which click takes for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            if exc.option_name.startswith("--"):
                raise
            raise click.UsageError(
                f"there is no option {exc.option_name}; put -- before a query that begins with a "
                'minus: fovea search -- "-people"',
                ctx,
            ) from exc


@click.command(
    cls=QueryCommand, short_help="Print the pictures nearest to words, a picture, or both."
)
@click.argument("words", nargs=-1, metavar="[QUERY]")
@k_option
@click.option("--image", metavar="FILE", type=FILE, help="Search by this picture.")
@library_option
@machine_options
@json_option()
def search(
    words: tuple[str, ...],
    k: int,
    image: Path | None,
    folder: Path | None,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Print the pictures nearest to QUERY, to a picture, or to both, best first.

    A QUERY has words to add or subtract, and filters: in:, name:, on:, after:, before:, camera:,
    format:, is:, size:, near:. Filters alone, or an empty QUERY, print the newest pictures first.

    \b
    fovea search "a dog running on a beach"
    fovea search "beach -people in:holidays after:2019"
    fovea search "at night" --image street.jpg
    """
    if not words and image is None:
        raise click.UsageError("nothing to search for; give a QUERY, --image FILE, or both")
    if len(words) > 1:
        raise click.UsageError(
            f'put the query in quotation marks: fovea search "{" ".join(words)}"'
        )
    [query] = words or ("",)
    with searchable(folder, device, dtype) as library:
        answer = library.search(query, image=image, k=k)
        show_answer(replace(answer, query=query or str(image or "")), as_json)


@click.command(short_help="Print the pictures nearest to a given one.")
@click.argument("file", type=FILE)
@k_option
@library_option
@machine_options
@json_option()
def similar(
    file: Path, k: int, folder: Path | None, device: str, dtype: str, as_json: bool
) -> None:
    """Print the pictures nearest to the one in FILE, which need not be in the library.

    \b
    fovea similar ~/Pictures/beach.jpg
    """
    with searchable(folder, device, dtype) as library:
        known = library.find(file)
        paths = () if known is None else library.paths(known)
        if paths and os.path.realpath(file) not in map(os.path.realpath, paths):
            talk(f"the library has this picture as {paths[0]}")
        show_answer(replace(library.similar(file, k=k), query=str(file)), as_json)


def show_answer(answer: "Answer", as_json: bool) -> None:
    """Print an answer: one line per hit, or one JSON document."""
    if as_json:
        print_json(answer_fields(answer))
        return
    if answer.hits and answer.likely is None and answer.order == "nearest":
        talk(NAMED if any(hit.by_name for hit in answer.hits) else NEAREST)
    for place, hit in enumerate(answer.hits):
        if place == answer.likely:
            talk(LIKELY_END if place else NONE_LIKELY)
        note = "\t(offline)" if hit.offline else ""
        mark = (hit.date or "")[:10] if hit.score is None else f"{hit.score:.3f}"
        click.echo(f"{mark}\t{printable_name(hit.path)}{note}")
    if not answer.hits:
        talk("no pictures found; change the query, or index more folders: fovea index FOLDER")


def answer_fields(answer: "Answer") -> dict[str, Any]:
    """Return an answer as members of a JSON document."""
    fields = {"query": answer.query, "model": answer.model, "took_ms": answer.took_ms}
    counts = {"total": answer.total, "likely": answer.likely, "order": answer.order}
    return {**fields, **counts, "hits": [hit_fields(hit) for hit in answer.hits]}


def hit_fields(hit: "Hit") -> dict[str, Any]:
    fields: dict[str, Any] = {
        "rank": hit.rank,
        "score": hit.score,
        "image_id": hit.image_id,
        **path_fields(hit.path),
        "paths": list(hit.paths),
    }
    if hit.likelihood is not None:
        fields["likelihood"] = round(hit.likelihood, 4)
    marks = {"offline": hit.offline, "by_name": hit.by_name}
    marks |= {"favourite": hit.favourite, "hidden": hit.hidden}
    return fields | {name: True for name, holds in marks.items() if holds}


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
