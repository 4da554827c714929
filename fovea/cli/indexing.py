"""``fovea index``."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.search.errors import FoveaError
from fovea.search.library.paths import printable_name

if TYPE_CHECKING:
    from fovea.indexer.scanning.scan import ScanReport
    from fovea.search.clip.encoders.base import TorchEncoder
    from fovea.search.library.library import Library
    from fovea.search.library.rows import ModelRow
    from fovea.search.models.info import ModelInfo


from .opening import library_folder, open_library, pass_on, tell_of_better
from .options import (
    FOLDER,
    PLACE,
    embedding_options,
    json_option,
    library_option,
    machine_options,
    model_option,
)
from .output import counted, print_json, talk
from .progress import download_bar, scan_bar
from .switching import switch_library, switch_result


@click.command(short_help="Index each FOLDER, or update all folders of the library.")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=PLACE)
@library_option
@model_option("Embed with this model.  [default: the library's, else the best at hand]")
@click.option("--switch-model", is_flag=True, help="Change the library's model to --model.")
@machine_options
@embedding_options
@click.option(
    "--ignore",
    metavar="PATTERN",
    multiple=True,
    help="Ignore files that match, as in .gitignore; repeatable.",
)
@click.option(
    "--reread",
    is_flag=True,
    help="Read all files anew, or those in each FOLDER; it may be a file, too.",
)
@click.option("--dry-run", is_flag=True, help="Say what would happen; write nothing.")
@click.option(
    "--confirm-deletions", is_flag=True, help="Remove pictures even if many are gone at once."
)
@click.option(
    "--places/--no-places",
    default=None,
    help="Look up places by name, now and later; --no-places forgets them.",
)
@click.option(
    "--from-embeddings",
    "embeddings",
    metavar="DIR",
    type=FOLDER,
    help="Take in what fovea embed has written, instead of embedding.",
)
@json_option()
def index(
    folders: tuple[Path, ...],
    folder: Path | None,
    name: str | None,
    switch_model: bool,
    device: str,
    dtype: str,
    reread: bool,
    dry_run: bool,
    places: bool | None,
    embeddings: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Bring the library up to date with each FOLDER, or with all of its folders.

    A file is read if its size or times have changed. --reread reads it whatever these say.

    \b
    fovea index ~/Pictures /mnt/photos
    """
    if switch_model and name is None:
        raise click.UsageError("--switch-model needs --model NAME|DIR")
    from fovea.indexer.scanning.scan import index_folders
    from fovea.search.models.better import better_model
    from fovea.search.models.installed import former_bundled
    from fovea.search.models.resolve import resolve_model

    check_machine(device, dtype)
    place = library_folder(folder)
    if embeddings is not None:
        if reread or dry_run or switch_model or options["ignore"]:
            raise click.UsageError(
                "--from-embeddings goes without --reread, --dry-run, --switch-model and --ignore"
            )
        from .embedding.taking import index_from

        index_from(embeddings, place, folders, name, device=device, dtype=dtype, as_json=as_json)
        return
    current = _model_before(place, folders, name, switch_model, reread, dry_run)
    model = resolve_model(name, current, network=not dry_run, progress=download_bar)
    if name is None and not dry_run:
        former = model.name if former_bundled(model) else None
        tell_of_better(place, better_model(model), former)
    load = cache(partial(model.load, device=device, dtype=dtype))
    with _library_to_write(place, dry_run) as library:
        if switch_model and current is not None:
            shared = {name: options[name] for name in ("workers", "batch_size")}
            folders = _switched(library, model, load, current, folders, dry_run, as_json, **shared)
        if places is not None and not dry_run:
            from fovea.search.places.stored import switch

            switch(library, places)
        if not reread:
            _tell_of_overlaps(library, folders)
        with scan_bar(dry_run) as progress:
            report = index_folders(
                library,
                folders,
                model=model,
                load_encoder=load,
                reread=reread,
                dry_run=dry_run,
                progress=progress,
                **options,
            )
        if not dry_run:
            pass_on(library)
    _show_report(report, model, dry_run, as_json)
    if report.stopped:
        raise click.ClickException("stopped; run the command again to go on")
    if not dry_run:
        from .keeping.analysing import analyse_after

        analyse_after(place, bool(report.embedded), options["workers"])
    if report.barred:
        raise click.ClickException(
            f"{counted(report.barred, 'folder')} left as before, since what to ignore there is not "
            "known; correct the ignore file, and run the command again"
        )


def _tell_of_overlaps(library: "Library", folders: Sequence[Path]) -> None:
    """Say of each new folder in which others it lies, or which lie in it."""
    from fovea.indexer.scanning.named import Overlap, root_path

    known = {root.path for root in library.roots()}
    for path in dict.fromkeys(map(root_path, folders)):
        overlap = Overlap.of(path, known)
        if path in known or (overlap.inside is None and not overlap.around):
            continue
        name = printable_name(os.fsdecode(path))
        others = [overlap.inside] if overlap.inside is not None else overlap.around
        named = ", ".join(printable_name(os.fsdecode(other)) for other in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        lies = f"lies in {named}" if overlap.inside is not None else f"contains {named}{more}"
        talk(f"{name} {lies}, in the library too: its pictures are indexed once")


def _switched(
    library: "Library",
    model: "ModelInfo",
    load: "Callable[[], TorchEncoder]",
    current: "ModelRow",
    folders: tuple[Path, ...],
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> tuple[Path, ...]:
    """Change the library's model as ``models use`` does; return the folders to index then.

    Files that have changed do not prevent it: they are indexed afterwards, in all folders. Raise
    ``FoveaError`` if the library keeps its model.
    """
    from fovea.search.maintenance.changeover import cancel_change

    known = [root.path for root in library.roots()]
    everything = (*(Path(os.fsdecode(path)) for path in known), *folders)
    if current.identity == model.identity:
        if not dry_run:
            cancel_change(library)
        return folders
    if dry_run:
        return everything
    report = switch_library(library, model, load, **options)
    if not (report.switched or report.stopped or report.superseded or report.unreachable):
        report = switch_library(library, model, load, incomplete=True, **options)
    if as_json and not report.switched:
        print_json({"model": model.name, **asdict(report)})
    talk(switch_result(report, model, current))
    return everything if report.changed or report.failed else folders


def _model_before(
    place: Path,
    folders: Sequence[Path],
    name: str | None,
    switch: bool,
    reread: bool,
    dry_run: bool,
) -> "ModelRow | None":
    """Return the library's model, if it has one already.

    Raise ``FoveaError``, before a library is made or a model downloaded, for what cannot be done.
    """
    from fovea.indexer.scanning.named import check_folder, root_path
    from fovea.indexer.scanning.scan import check_request
    from fovea.search.library.library import has_library

    if folders and not has_library(place):
        for folder in folders:
            check_folder(root_path(folder), root_path(place))
        return None
    with open_library(place) as library:
        if not dry_run:
            library.check_writable()
        check_request(library, folders, None if switch else name, reread=reread)
        return library.model()


def check_machine(device: str, dtype: str) -> None:
    """Refuse a device or precision that this machine lacks, importing torch only if needed."""
    if dtype == "int8":
        from fovea.search.clip.engines.openvino_runtime import INSTALL, is_installed

        if not is_installed():
            raise FoveaError(f"int8 needs OpenVINO and NNCF: {INSTALL}")
        if device not in ("auto", "cpu"):
            raise FoveaError("int8 is for models on the CPU: add --device cpu, or use --dtype auto")
    elif device not in ("auto", "cpu") or dtype == "float16":
        from fovea.search.clip.encoders.base import pick_device, pick_dtype

        pick_dtype(dtype, pick_device(device))


@contextlib.contextmanager
def _library_to_write(place: Path, dry_run: bool) -> "Iterator[Library]":
    """Open or make the library; a dry run without one uses a temporary one."""
    from tempfile import TemporaryDirectory

    from fovea.search.library.library import Library, has_library

    with contextlib.ExitStack() as stack:
        if dry_run and not has_library(place):
            place = Path(stack.enter_context(TemporaryDirectory()))
        yield stack.enter_context(Library.open(place, create=True))


def _show_report(report: "ScanReport", model: "ModelInfo", dry_run: bool, as_json: bool) -> None:
    fields = ("found", "embedded", "unchanged", "moved", "deleted", "failed", "skipped", "seconds")
    for problem in report.problems:
        talk(f"{printable_name(os.fsdecode(problem.path))}: {problem.reason}")
    if report.passed_over:
        talk(
            f"{'would no longer be' if dry_run else 'no longer'} searchable: "
            f"{counted(report.passed_over, 'picture')} that an ignore pattern or a symbolic link "
            "now covers; undo that and run again to bring back what it covers"
        )
    if report.failed and not dry_run:
        talk(
            f"{counted(report.failed, 'file')} could not be read; fovea verify says which, and why"
        )
    if report.videos:
        from fovea.indexer.decoding.formats import VIDEO_INSTALL

        talk(f"{counted(report.videos, 'video')} passed over; to search in them: {VIDEO_INSTALL}")
    if report.unplaced:
        from fovea.indexer.placing.gazetteer import INSTALL

        talk(
            f"{counted(report.unplaced, 'picture')} could be found by place:, with {INSTALL}; "
            "--no-places turns this off"
        )
    if as_json:
        also = {"held": report.held, "passed_over": report.passed_over, "barred": report.barred}
        counts = {field: getattr(report, field) for field in fields}
        print_json(counts | {field: count for field, count in also.items() if count})
        return
    verb = "would be " if dry_run else ""
    parts = [f"{report.found:,} found", f"{report.embedded:,} {verb}embedded by {model.name}"]
    parts += [f"{value:,} {field}" for field in fields[2:7] if (value := getattr(report, field))]
    click.echo(f"{', '.join(parts)} in {report.seconds:.1f} s")
