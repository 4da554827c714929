"""``fovea models use``: another model for the library."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.search.clip.errors import FoveaError
from fovea.search.library.paths import printable_name

if TYPE_CHECKING:
    from fovea.indexer.switching.switch import SwitchReport
    from fovea.search.clip.encoders.base import TorchEncoder
    from fovea.search.library.library import Library
    from fovea.search.library.rows import ModelRow
    from fovea.search.models.info import ModelInfo
    from fovea.search.query.hits import Answer


from .opening import current_model, library_model, open_library
from .options import (
    complete_model,
    embedding_options,
    json_option,
    k_option,
    library_option,
    machine_options,
)
from .output import print_json, talk
from .progress import download_bar, switch_bar
from .searching import answer_fields


@click.command("use")
@click.argument("name", metavar="NAME|DIR", shell_complete=complete_model)
@click.option("--background", is_flag=True, help="Return at once; embed at low priority.")
@click.option(
    "--compare",
    "query",
    metavar="QUERY",
    help="Change nothing; show both models' answers side by side.",
)
@click.option("--incomplete", is_flag=True, help="Leave out pictures that cannot be read now.")
@k_option
@library_option
@machine_options
@embedding_options
@json_option()
def use_model(
    name: str,
    background: bool,
    query: str | None,
    incomplete: bool,
    k: int,
    folder: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Change the library's model to NAME, once that has embedded all its pictures.

    Until then the library uses the former model, and folders can be indexed. An interrupted change
    resumes when the command is repeated. Going back is instant: embeddings stay until fovea models
    remove.

    \b
    fovea models use ViT-L/14
    fovea models use ViT-L/14 --compare "a dog running on a beach"
    """
    from fovea.search.maintenance.changeover import cancel_change, resolve_in

    with open_library(folder) as library:
        model = resolve_in(library, name, progress=download_bar)
        current = library.model()
        if query is not None:
            show_sides(query, _compare(library, model, query, k, options), as_json)
        elif current is not None and current.identity == model.identity:
            cancel_change(library)
            talk(f"{library.folder} already uses {model.name}")
        elif background:
            _switch_in_background(library, model, incomplete=incomplete, **options)
        else:
            report = switch_library(library, model, incomplete=incomplete, **options)
            show_switch(report, model, current, as_json)


def switch_library(
    library: "Library", model: "ModelInfo", *, device: str, dtype: str, **options: Any
) -> "SwitchReport":
    """Change the library's model, showing a progress bar."""
    from fovea.indexer.switching.switch import switch_model

    def load() -> "TorchEncoder":
        return model.load(device=device, dtype=dtype)

    with switch_bar() as progress:
        return switch_model(library, model=model, load_encoder=load, progress=progress, **options)


def _switch_in_background(library: "Library", model: "ModelInfo", **options: Any) -> None:
    from fovea.indexer.switching import background
    from fovea.search.maintenance.changeover import changeover, set_next_model

    before = changeover(library)
    row = library.add_model(model.name, model.identity, model.dim, model.source)
    set_next_model(library, row.id)
    if before is not None and before.pid and before.model.id == row.id:
        pid = before.pid
    else:
        pid = str(background.start(library.folder, **options))
    talk(
        f"process {pid} embeds with {model.name}; fovea status shows its progress, and "
        f"{background.log_path(library.folder)} its result"
    )


def show_switch(
    report: "SwitchReport", model: "ModelInfo", before: "ModelRow | None", as_json: bool
) -> None:
    """Print what a switch did; raise ``FoveaError`` if the library keeps its model."""
    from dataclasses import asdict

    if as_json:
        print_json({"model": model.name, **asdict(report)})
    result = switch_result(report, model, before)
    if not as_json:
        click.echo(result)


def switch_result(report: "SwitchReport", model: "ModelInfo", before: "ModelRow | None") -> str:
    """Say in one line what a switch did; raise ``FoveaError`` if the library keeps its model."""
    counts = {
        "unreachable": report.unreachable,
        "changed or gone since they were indexed": report.changed,
        "cannot be decoded now": report.failed,
    }
    left_out = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    kept = f"the library still uses {before.name if before is not None else 'no model'}"
    if report.superseded:
        raise FoveaError(f"another model was asked for meanwhile; {kept}")
    if report.stopped:
        raise FoveaError(f"stopped; {kept}; run the command again to go on")
    if not report.switched:
        raise FoveaError(
            f"{kept}, since some pictures are not embedded: {left_out}; bring them back, or run "
            f"fovea index, and try again; or leave them out: fovea models use {model.name} "
            "--incomplete"
        )
    if left_out:
        talk(f"not searchable until fovea index finds them: {left_out}")
    return (
        f"{model.name} is used now: {report.images:,} pictures, {report.embedded:,} embedded in "
        f"{report.seconds:.1f} s"
    )


def _compare(
    library: "Library", model: "ModelInfo", query: str, k: int, options: dict[str, Any]
) -> "list[Side]":
    """Return the answers of the library's model and of another, embedding with that first."""
    from fovea.search.errors import LibraryBusy
    from fovea.search.maintenance.changeover import find_model
    from fovea.search.models.lazy import LazyEncoder
    from fovea.search.query.run import Question, Searcher

    current = current_model(library)
    if current.identity == model.identity:
        raise FoveaError(f"{library.folder} already uses {model.name}; name another model")
    try:
        switch_library(library, model, only_embed=True, **options)
    except LibraryBusy as exc:
        talk(f"{exc}; the comparison takes what is embedded so far")
    row = find_model(library, model.identity)
    assert row is not None  # switch_library has added it
    machine = {name: options[name] for name in ("device", "dtype")}
    sides = []
    for known, info in ((current, library_model(library)), (row, model)):
        searcher = Searcher.of(library, known, LazyEncoder.of(info, **machine))
        assert searcher.index is not None
        sides.append(Side(len(searcher.index), searcher.answer(Question.of(query), k)))
    return sides


@dataclass(frozen=True, slots=True)
class Side:
    """One model's answer, and among how many images."""

    embedded: int
    answer: "Answer"


def show_sides(query: str, sides: "Sequence[Side]", as_json: bool) -> None:
    """Print two answers in two columns; a star marks hits that only one of them has."""
    if as_json:
        answers = [{"embedded": side.embedded, **answer_fields(side.answer)} for side in sides]
        print_json({"query": query, "answers": answers})
        return
    left, right = ({hit.image_id for hit in side.answer.hits} for side in sides)
    columns = [_column(side, left & right) for side in sides]
    width = max(map(len, columns[0]))
    for first, second in zip_longest(*columns, fillvalue=""):
        click.echo(f"{first:<{width}}  |  {second}".rstrip())
    if left ^ right:
        talk("* appears only in that model's top k")
    talk(f"nothing has changed: the library uses {sides[0].answer.model}")


def _column(side: "Side", shared: set[int]) -> list[str]:
    lines = [f"{side.answer.model}, {side.embedded:,} pictures"]
    for hit in side.answer.hits:
        score = " " * 5 if hit.score is None else f"{hit.score:.3f}"
        lines.append(f"{score} {' ' if hit.image_id in shared else '*'} {printable_name(hit.path)}")
    return lines
