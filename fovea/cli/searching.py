"""``fovea search``, ``similar`` and ``classify``."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.search.clip.errors import FoveaError
from fovea.search.library.paths import path_fields

if TYPE_CHECKING:
    import numpy as np

    from fovea.search.clip.encoders.base import PixelEncoder
    from fovea.search.library.library import Library
    from fovea.search.models.resolve import ModelInfo
    from fovea.search.query.hits import Answer, Hit


from .opening import any_model, current_model, library_model, open_library
from .options import FILE, json_option, k_option, library_option, machine_options, model_option
from .output import plain, plain_name, print_json, talk

NONE_LIKELY = "no likely matches; the nearest ones follow"


@click.command()
@click.argument("query", required=False)
@k_option
@click.option("--image", metavar="FILE", type=FILE, help="A picture to search by.")
@library_option
@machine_options
@json_option()
def search(
    query: str | None,
    k: int,
    image: Path | None,
    folder: Path | None,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Print the pictures nearest to QUERY, to a picture, or to both, best first.

    A QUERY has words to add and take away, and filters; filters alone print the newest first.
    docs/queries.md has them all.

    \b
    fovea search "a dog running on a beach"
    fovea search "beach -people in:holidays after:2019"
    fovea search "at night" --image street.jpg
    """
    if not (query and query.strip()) and image is None:
        raise click.UsageError("say what to search for: words, --image FILE, or both")
    from fovea.search.index.vector_index import VectorIndex
    from fovea.search.models.resolve import LazyEncoder
    from fovea.search.query.language import parse
    from fovea.search.query.rank import Picture
    from fovea.search.query.run import answer

    asked = parse(query or "")
    with open_library(folder) as library:
        model = library_model(library)
        encoder: LazyEncoder | PixelEncoder = LazyEncoder(model, device=device, dtype=dtype)
        pictures = []
        if image is not None:
            encoder, vector = _embedded(model, image, device, dtype)
            pictures.append(Picture(vector))
        index = VectorIndex.open(library, current_model(library).id)
        started = time.perf_counter()
        found = answer(library, index, encoder, asked, pictures=pictures, k=k)
        show_answer(timed_answer(query or str(image), model, started, found), as_json)


def _embedded(
    model: "ModelInfo", file: Path, device: str, dtype: str
) -> "tuple[PixelEncoder, np.ndarray]":
    """The loaded model, and the unit vector (d,) of the picture in a file."""
    from fovea.indexer.workers.query_image import Asked

    with Asked(model.preprocess) as asked:  # its process starts while torch is imported
        encoder = model.load(device=device, dtype=dtype)
        [vector] = encoder.encode_pixels(asked.pixels(file)[None])
    return encoder, vector


@click.command()
@click.argument("file", type=FILE)
@k_option
@library_option
@machine_options
@json_option()
def similar(
    file: Path, k: int, folder: Path | None, device: str, dtype: str, as_json: bool
) -> None:
    """Print the pictures nearest to that in FILE, which need not be in the library.

    \b
    fovea similar ~/Pictures/beach.jpg
    """
    from fovea.search.index.vector_index import VectorIndex
    from fovea.search.models.resolve import LazyEncoder
    from fovea.search.query.run import known_image, similar_to

    with open_library(folder) as library:
        model = library_model(library)
        encoder = LazyEncoder(model, device=device, dtype=dtype)
        index = VectorIndex.open(library, current_model(library).id)
        started = time.perf_counter()

        def embed() -> "np.ndarray":
            return _embedded(model, file, device, dtype)[1]

        known = known_image(library, file)
        hits = similar_to(library, index, encoder, known, embed=embed, k=k)
        if known is not None:
            _say_known(library, known, file)
        show_answer(timed_answer(str(file), model, started, hits), as_json)


def _say_known(library: "Library", image_id: int, file: Path) -> None:
    """Name the file of the library that a file is a copy of."""
    from fovea.search.query.hits import places

    place = places(library, [image_id]).get(image_id)
    if place is not None and os.path.realpath(file) not in map(os.path.realpath, place.paths):
        talk(f"the library has this picture as {place.paths[0]}")


def timed_answer(query: str, model: "ModelInfo", started: float, hits: "Sequence[Hit]") -> "Answer":
    from fovea.search.query.hits import Answer

    return Answer(query, model.name, round((time.perf_counter() - started) * 1000, 1), hits)


def show_answer(answer: "Answer", as_json: bool) -> None:
    """Print an answer: a line a hit, or one JSON document."""
    if as_json:
        hits = [hit_fields(hit) for hit in answer.hits]
        print_json(
            {
                "query": answer.query,
                "model": answer.model,
                "took_ms": answer.took_ms,
                "hits": hits,
            }
        )
        return
    likely = sum((hit.likelihood or 0) >= 0.5 or hit.by_name for hit in answer.hits)
    for place, hit in enumerate(answer.hits):
        if hit.likelihood is not None and place == likely:
            talk("the likely matches end here; the nearest ones follow" if place else NONE_LIKELY)
        note = "\t(offline)" if hit.offline else ""
        mark = (hit.date or "")[:10] if hit.score is None else f"{hit.score:.3f}"
        click.echo(f"{mark}\t{plain_name(hit.path)}{note}")
    if not answer.hits:
        talk("no picture is found; is a folder indexed? fovea index FOLDER")


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
    return fields | {name: True for name, holds in marks.items() if holds}


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE)
@click.option("--label", "labels", multiple=True, required=True, help="A class; repeatable.")
@click.option(
    "--template",
    "templates",
    multiple=True,
    default=("a photo of a {}.",),
    show_default=True,
    help="A prompt around {}, the label; repeatable: an ensemble.",
)
@model_option("Classify by this model.  [default: the library's, else the best at hand]")
@library_option
@machine_options
@json_option("Print one JSON document a file, a line each.")
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
    """Say how likely each label is for the picture in each FILE.

    \b
    fovea classify pet.jpg --label cat --label dog
    """
    if not all("{}" in template for template in templates):
        raise click.UsageError("a --template needs {} where the label goes")
    from fovea.indexer.workers.query_image import Asked
    from fovea.search.clip.zeroshot import class_embeddings, class_probabilities

    model = any_model(name, folder)
    labels = tuple(dict.fromkeys(labels))
    unread = 0
    with Asked(model.preprocess) as asked:
        encoder = model.load(device=device, dtype=dtype)
        classes = class_embeddings(encoder, labels, templates)  # (c, d)
        for file in files:
            try:
                pixels = asked.pixels(file)
            except FoveaError as exc:
                talk(str(exc))
                unread += 1
                continue
            rows = encoder.encode_pixels(pixels[None])
            [row] = class_probabilities(rows, classes, encoder.logit_scale).tolist()
            show_labels(file, dict(zip(labels, row, strict=True)), as_json)
    if unread:
        raise click.ClickException(f"{unread} of {len(files)} files could not be classified")


def show_labels(file: Path, labels: dict[str, float], as_json: bool) -> None:
    """Print one file's labels, the likeliest first."""
    ranked = dict(sorted(labels.items(), key=lambda entry: entry[1], reverse=True))
    if as_json:
        print_json({**path_fields(str(file)), "labels": ranked})
        return
    for label, probability in ranked.items():
        click.echo(f"{probability:.3f}\t{plain(label)}\t{plain_name(str(file))}")
