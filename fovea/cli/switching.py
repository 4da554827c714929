"""``fovea models use``: another model for the library."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.search.clip.errors import FoveaError
from fovea.search.library.paths import place_of, printable_name

if TYPE_CHECKING:
    from fovea.indexer.switching.switch import SwitchReport
    from fovea.search.clip.encoders.base import TorchEncoder
    from fovea.search.library.library import Library
    from fovea.search.library.rows import ModelRow
    from fovea.search.models.info import ModelInfo
    from fovea.search.query.hits import Answer


from .opening import current_model, open_library, pass_on
from .options import (
    complete_model,
    embedding_options,
    json_option,
    k_option,
    library_option,
    machine_options,
)
from .output import counted, print_json, talk
from .progress import download_bar, switch_bar
from .terminal.results import answer_fields


@click.command("use", short_help="Change the library's model.")
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
    device: str,
    dtype: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Change the library's model to NAME, after embedding all pictures with it.

    Until then the library keeps using the old model, and folders can still be indexed. Repeat the
    command to resume an interrupted change. Going back is instant: old embeddings are kept until
    fovea models remove deletes them.

    \b
    fovea models use ViT-B-32-256
    fovea models use ViT-L/14 --compare "a dog running on a beach"
    """
    from fovea.search.maintenance.changeover import cancel_change, resolve_in

    if query is not None and (background or incomplete):
        raise click.UsageError("--compare changes nothing: omit --background and --incomplete")
    with open_library(folder) as library:
        if query is None:
            library.check_writable()
        model = resolve_in(library, name, progress=download_bar)
        current = library.model()
        if query is not None:
            machine = {"device": device, "dtype": dtype}
            show_sides(query, _compare(library, model, query, k, machine, **options), as_json)
        elif current is not None and current.identity == model.identity:
            cancel_change(library)
            pass_on(library)  # what an interrupted change has left to do
            talk(f"{place_of(library)} already uses {model.name}")
            if as_json:
                print_json({"model": model.name, "switched": False})
        elif background:
            options |= {"device": device, "dtype": dtype, "incomplete": incomplete}
            pid, log = _switch_in_background(library, model, **options)
            talk(
                f"embedding with {model.name} in the background (process {pid}); see fovea status "
                f"for progress and {log} for the result"
            )
            if as_json:
                print_json({"model": model.name, "switched": False, "pid": pid, "log": str(log)})
        else:
            load = partial(model.load, device=device, dtype=dtype)
            report = switch_library(library, model, load, incomplete=incomplete, **options)
            if as_json:
                print_json({"model": model.name, **asdict(report)})
            result = switch_result(report, model, current)
            pass_on(library)
            if not as_json:
                click.echo(result)


def switch_library(
    library: "Library", model: "ModelInfo", load: "Callable[[], TorchEncoder]", **options: Any
) -> "SwitchReport":
    """Change the library's model, showing a progress bar."""
    from fovea.indexer.switching.switch import switch_model

    with switch_bar() as progress:
        return switch_model(library, model=model, load_encoder=load, progress=progress, **options)


def _switch_in_background(
    library: "Library", model: "ModelInfo", **options: Any
) -> tuple[str, Path]:
    """Embed in another process, unless one does already; return its id and its log."""
    from fovea.indexer.switching import background
    from fovea.search.maintenance.changeover import changeover, set_next_model

    before = changeover(library)
    row = library.add_model(model.name, model.identity, model.dim, model.source)
    set_next_model(library, row.id)
    if before is not None and before.pid and before.model.id == row.id:
        pid = before.pid
    else:
        pid = str(background.start(library.folder, **options))
    return pid, background.log_path(library.folder)


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
        raise FoveaError(f"another change of model was requested meanwhile; {kept}")
    if report.stopped:
        raise FoveaError(f"stopped; {kept}; run the command again to go on")
    if not report.switched:
        raise FoveaError(
            f"{kept}, because some pictures could not be embedded: {left_out}; bring them back or "
            f"run fovea index, then try again, or leave them out: fovea models use {model.name} "
            "--incomplete"
        )
    if left_out:
        talk(f"not searchable until fovea index finds them: {left_out}")
    return (
        f"the library now uses {model.name}: {counted(report.images, 'picture')}, "
        f"{report.embedded:,} embedded in {report.seconds:.1f} s"
    )


def _compare(
    library: "Library",
    model: "ModelInfo",
    query: str,
    k: int,
    machine: dict[str, str],
    **options: Any,
) -> "list[tuple[int, Answer]]":
    """Return the answers of the library's model and of another, embedding with that first.

    With each goes the number of images that the model has embedded.
    """
    from fovea.search.errors import LibraryBusy, LibraryReadOnly
    from fovea.search.maintenance.changeover import find_model
    from fovea.search.models.lazy import LazyEncoder
    from fovea.search.models.resolve import resolve_model
    from fovea.search.query.run import Question, Searcher

    current = current_model(library)
    if current.identity == model.identity:
        raise FoveaError(f"{place_of(library)} already uses {model.name}; name another model")
    try:
        load = partial(model.load, **machine)
        switch_library(library, model, load, only_embed=True, **options)
    except LibraryBusy as exc:
        talk(f"{exc}; comparing what is embedded so far")
    except LibraryReadOnly as exc:
        if find_model(library, model.identity) is None:
            raise
        talk(f"{exc}; comparing what is embedded already")
    row = find_model(library, model.identity)
    assert row is not None  # switch_library has added it
    before = resolve_model(None, current, progress=download_bar)
    sides = []
    for known, info in ((current, before), (row, model)):
        searcher = Searcher.of(library, known, LazyEncoder.of(info, **machine))
        assert searcher.index is not None
        sides.append((len(searcher.index), searcher.answer(Question.of(query), k)))
    return sides


def show_sides(query: str, sides: "Sequence[tuple[int, Answer]]", as_json: bool) -> None:
    """Print two answers in two columns; a star marks hits that only one of them has."""
    if as_json:
        answers = [{"embedded": count, **answer_fields(answer)} for count, answer in sides]
        print_json({"query": query, "answers": answers})
        return
    left, right = ({hit.image_id for hit in answer.hits} for _, answer in sides)
    columns = [_column(count, answer, left & right) for count, answer in sides]
    width = max(map(len, columns[0]))
    for first, second in zip_longest(*columns, fillvalue=""):
        click.echo(f"{first:<{width}}  |  {second}".rstrip())
    if left ^ right:
        talk("* appears only in that model's top k")
    talk(f"nothing has changed: the library still uses {sides[0][1].model}")


def _column(embedded: int, answer: "Answer", shared: set[int]) -> list[str]:
    lines = [f"{answer.model}, {counted(embedded, 'picture')}"]
    for hit in answer.hits:
        score = " " * 5 if hit.score is None else f"{hit.score:.3f}"
        lines.append(f"{score} {' ' if hit.image_id in shared else '*'} {printable_name(hit.path)}")
    return lines
