"""``fovea index --from-embeddings``."""

import os
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from fovea.cli.opening import pass_on
from fovea.cli.output import counted, print_json, talk
from fovea.cli.progress import download_bar, scan_bar
from fovea.search.errors import FoveaError
from fovea.search.library.paths import printable_name

from .telling import PROBLEMS, check_here, manifest_model, tell_all

if TYPE_CHECKING:
    from fovea.indexer.embedding.taking_in import TakenReport
    from fovea.search.models.info import ModelInfo

__all__ = ["index_from"]


def index_from(
    embeddings: Path,
    place: Path,
    folders: Sequence[Path],
    name: str | None,
    *,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Take embeddings into the library in ``place``, made if need be, and say what was taken."""
    from fovea.indexer.decoding.limits import one_line
    from fovea.indexer.embedding.embed import settle_library
    from fovea.indexer.embedding.exchange import read_manifest
    from fovea.indexer.embedding.taking_in import check_embeddings, take_in
    from fovea.search.library.library import Library, has_library
    from fovea.search.models.resolve import resolve_model

    check_here(embeddings)
    if not embeddings.exists():
        raise FoveaError(f"there is no folder {embeddings}; check its name")
    about, current = read_manifest(embeddings), None
    if has_library(place):
        with Library.open(place) as library:
            library.check_writable()
            current = library.model()
    if about is not None and current is not None and name is None:
        theirs = about["model"]
        if theirs["identity"] != current.identity:
            raise FoveaError(
                f"{embeddings} holds embeddings of {one_line(theirs['name'], 100)}, but {place} "
                f"uses {current.name}; choose another library"
            )
    if name is None and current is None and about is not None:
        model = manifest_model(about, embeddings)
    else:
        model = resolve_model(name, current, progress=download_bar)
    found = check_embeddings(embeddings, model)  # before a library is made
    load, stop = cache(partial(model.load, device=device, dtype=dtype)), Event()
    with Library.open(place, create=True) as library:
        with scan_bar(False) as progress:
            report = take_in(library, found, folders, model=model, stop=stop, progress=progress)
        settle_library(library, model, load, stop)
        pass_on(library)
    _show(report, model, as_json)
    if report.stopped:
        raise click.ClickException("stopped; run the command again to go on")
    if report.problems:
        raise click.ClickException("not everything could be read; see above")


def _show(report: "TakenReport", model: "ModelInfo", as_json: bool) -> None:
    tell_all(report.problems, str, "problems")
    for folder in report.folders:
        name = printable_name(os.fsdecode(folder))
        talk(f"{name}, where the embeddings are from, is a folder of the library from now on")
    for reason, count in sorted(report.reasons.items(), key=lambda one: -one[1])[:PROBLEMS]:
        example = printable_name(report.examples[reason])
        talk(f"{counted(count, 'row')} left out, {example} first: {reason}")
    fields = ("rows", "taken", "unchanged", "left", "hashed", "seconds")
    if as_json:
        print_json({name: getattr(report, name) for name in fields})
        return
    parts = [f"{report.rows:,} rows", f"{report.taken:,} taken of {model.name}"]
    if report.unchanged:
        parts.append(f"{report.unchanged:,} unchanged")
    if report.left:
        parts.append(f"{report.left:,} left out")
    if report.hashed:
        parts.append(f"{counted(report.hashed, 'file')} read again")
    click.echo(f"{', '.join(parts)} in {report.seconds:.1f} s")
