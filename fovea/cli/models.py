"""``fovea models``: list, pull, info, remove."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.search.errors import FoveaError
from fovea.search.library.paths import printable, printable_name

if TYPE_CHECKING:
    from fovea.search.models.info import ModelInfo
    from fovea.search.query.measured import Measured, Signs

from .opening import any_model, library_folder, open_library
from .options import SubjectGroup, complete_model, json_option, library_option
from .output import print_json, size_text
from .progress import download_bar


@click.group(cls=SubjectGroup, alone="list")
def models() -> None:
    """List, download, describe and remove models.

    \b
    fovea models pull ViT-B-32-256
    """


@models.command("list")
@json_option()
def list_models(as_json: bool) -> None:
    """List the models that can be used by name.

    \b
    fovea models list
    """
    from fovea.search.models.installed import known_models

    known = known_models()
    if as_json:
        print_json(
            [
                {
                    "name": model.name,
                    "source": model.source,
                    "folder": str(model.folder) if model.folder else None,
                }
                for model in known
            ]
        )
        return
    for model in known:
        place = printable_name(str(model.folder)) if model.folder else "not on this disk"
        click.echo(f"{model.name}\t{model.source}\t{place}")


@models.command("pull")
@click.argument("name", metavar="NAME|URL", shell_complete=complete_model)
@click.option("--sha256", metavar="HEX", help="The SHA-256 of the file at URL.")
def pull_model(name: str, sha256: str | None) -> None:
    """Download a model, unless it is on this disk already.

    NAME is one of those that fovea models lists, or owner/name on the Hugging Face hub. URL points
    to a weights file, or to a zip or tar of a model's folder, and needs --sha256.

    \b
    fovea models pull ViT-B-32-256
    fovea models pull openai/clip-vit-base-patch16
    fovea models pull https://example.com/photos-clip.zip --sha256 3f5a...
    """
    from fovea.search.models.resolve import pull

    model = pull(name, download_bar, sha256=sha256)
    click.echo(f"{model.name}\t{printable_name(str(model.folder))}")


@models.command("info", short_help="Describe a model on this disk.")
@click.argument("name", metavar="[NAME|DIR]", required=False, shell_complete=complete_model)
@library_option
@json_option()
def model_info(name: str | None, folder: Path | None, as_json: bool) -> None:
    """Describe a model on this disk, by default the one that would be used.

    \b
    fovea models info fovea-small
    """
    from fovea.search.query.measured import measured_in

    model = any_model(name, folder, network=False)
    signs = measured_in(model.folder, model.identity, model.dim)
    fields = {
        "name": model.name,
        "folder": str(model.folder),
        "source": model.source,
        "sha256": model.identity,
        "family": model.family,
        "dim": model.dim,
        "image_size": model.preprocess.size,
    }
    if as_json:
        print_json(fields | _engine_fields(model) | _worth_fields(signs))
        return
    fields |= _engine_texts(model) | _worth_texts(signs)
    for field, value in fields.items():
        click.echo(f"{field}\t{printable(str(value))}")


def _engine_fields(model: "ModelInfo") -> dict[str, Any]:
    """Return what was measured of embedding pictures on this CPU; null where nothing was."""
    record = model.kept.read()
    if record is None:
        return {"embeds_in": None}
    fields = asdict(record) | {"described": record.described()}
    del fields["towers"]
    return {"embeds_in": fields}


def _engine_texts(model: "ModelInfo") -> dict[str, str]:
    record, advice = model.kept.read(), model.kept.advice()
    told = "not measured on this CPU yet, so as its instructions suggest"
    if record is not None:
        told = record.described()
    return {"embeds in": f"{told}; {advice}" if advice else told}


def _worth_fields(signs: "Measured | None") -> dict[str, Any]:
    """Return what a model's line and labels were measured to be worth; null for what was not."""
    line: dict[str, Any] = {}
    for kind in ("words", "pictures"):
        part: Signs | None = getattr(signs, kind, None)
        line[kind] = part and {**asdict(part.worth), "drawn": part.worth.is_drawn}
    labels = signs and signs.labels
    return {"line": line, "labels": labels and {**asdict(labels), "used": labels.are_shown}}


def _worth_texts(signs: "Measured | None") -> dict[str, str]:
    found = _worth_fields(signs)
    texts = {}
    for kind, worth in found["line"].items():
        texts[f"line for {kind}"] = "not measured, so not drawn"
        if worth is not None:
            told, chance = f"{100 * worth['told']:.0f} %", f"{100 * worth['chance']:.0f} %"
            texts[f"line for {kind}"] = (
                f"{'drawn' if worth['drawn'] else 'not drawn'}: it tells {told} of "
                f"{worth['answers']:,} answers rightly, a random one {chance}"
            )
    texts["labels"] = "not measured, so not shown"
    if (labels := found["labels"]) is not None:
        right, shown = f"{100 * labels['right']:.0f} %", f"{100 * labels['shown']:.0f} %"
        texts["labels"] = (
            f"{'shown' if labels['used'] else 'not shown'}: {shown} of the pictures get any, and "
            f"the first is right for {right} of them"
        )
    return texts


@models.command("remove")
@click.argument("name", metavar="NAME|SHA256", shell_complete=complete_model)
@click.option("--files", is_flag=True, help="Also delete the model's files from this disk.")
@library_option
def remove_model(name: str, files: bool, folder: Path | None) -> None:
    """Delete the embeddings of the model NAME from the library.

    The model that the library uses cannot be removed. --files also deletes the model's files, if
    fovea has downloaded them.

    \b
    fovea models remove ViT-B/32
    fovea models remove ViT-B/32 --files
    """
    from fovea.search.library.library import has_library
    from fovea.search.maintenance.changeover import check_removable, find_model, remove_model
    from fovea.search.models.installed import delete_files, files_identity

    place, known = library_folder(folder), None
    if has_library(place):
        with open_library(folder) as library:
            known = find_model(library, name)
            if known is not None:
                check_removable(library, known.identity)
            if files:
                check_removable(library, files_identity(name, known))
            if known is not None:
                gone = remove_model(library, known)
                freed = size_text(gone.bytes)
                click.echo(f"deleted {gone.embeddings:,} embeddings by {known.name}: {freed} freed")
    if files:
        click.echo(f"deleted {size_text(delete_files(name, known))} of files")
    elif known is None:
        raise FoveaError(f"{place} has no embeddings by {name}; fovea status lists its models")
