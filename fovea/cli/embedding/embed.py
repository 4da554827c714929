"""``fovea embed``."""

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.cli.opening import is_on_milvus, library_folder, pass_on, tell_of_better
from fovea.cli.options import (
    POSITIVE,
    UserPath,
    embedding_options,
    json_option,
    machine_options,
    model_option,
    value_option,
)
from fovea.cli.output import counted, print_json
from fovea.cli.progress import download_bar, scan_bar
from fovea.search.errors import FoveaError

from .telling import check_here, manifest_model, tell_all

if TYPE_CHECKING:
    from fovea.indexer.embedding.embed import EmbedReport
    from fovea.indexer.embedding.sources import Source
    from fovea.search.library.rows import ModelRow
    from fovea.search.models.info import ModelInfo

DESTINATION = UserPath(path_type=Path, readable=False)
KINDS = ("files", "library")


@click.command(short_help="Embed each SOURCE into a library or into files.")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--to",
    "place",
    metavar="DEST",
    type=DESTINATION,
    required=True,
    help="A folder for the result, or a library on Milvus.",
)
@click.option(
    "--as",
    "kind",
    type=click.Choice(KINDS),
    help="What DEST is.  [default: what it is already; files if it is new]",
)
@value_option(
    "--ray", 'A Ray cluster: "local", "auto", HOST:PORT or ray://HOST:PORT.', "ADDRESS", str
)
@model_option("Embed with this model.  [default: that of DEST, else the best at hand]")
@value_option("--part", "Pictures in a part of the files.  [default: 2000]", "N", POSITIVE)
@value_option("--column", "Column of a parquet file with paths or URLs.", "NAME", str)
@click.option(
    "--ignore",
    metavar="PATTERN",
    multiple=True,
    help="Ignore files that match, as in .gitignore; repeatable.",
)
@machine_options
@embedding_options
@json_option()
def embed(
    sources: tuple[str, ...],
    place: Path,
    kind: str | None,
    ray: str | None,
    name: str | None,
    part: int | None,
    device: str,
    dtype: str,
    workers: int | None,
    batch_size: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Embed each SOURCE: a folder, WebDataset shards, or a parquet file of paths or URLs.

    Shards are named with {000..999}. The files are those of clip-retrieval and LAION: img_emb and
    metadata. What DEST has already is not embedded again, so a run that was stopped is repeated.

    \b
    fovea embed ~/Pictures --to ~/embeddings
    fovea embed "/data/{0000..0999}.tar" --to /data/embeddings --ray auto
    """
    from fovea.cli.indexing import check_machine
    from fovea.indexer.embedding.embed import Run
    from fovea.indexer.embedding.exchange import read_manifest
    from fovea.indexer.embedding.sources import source_of
    from fovea.search.models.resolve import resolve_model

    check_machine(device, dtype)
    if is_on_milvus(place):
        if kind == "files":
            raise FoveaError("milvus:// is a library; name a folder for files")
        place, kind = library_folder(place), "library"
    else:
        check_here(place)
    is_library = _is_library(place, kind)
    found = [source_of(text, shared=ray not in (None, "local")) for text in sources]
    current = _model_of(place) if is_library else None
    about = None if is_library else read_manifest(place)
    if name is None and about is not None:
        model = manifest_model(about, place)
    else:
        model = resolve_model(name, current, progress=download_bar)
    if name is None and current is None and is_library:
        from fovea.search.models.better import better_model

        tell_of_better(place, better_model(model), None)
    load = cache(partial(model.load, device=device, dtype=dtype))
    run = Run(model, load, workers, batch_size, **options)
    if ray is not None:
        from fovea.indexer.embedding.on_ray import OnRay

        run.engine = OnRay(ray, model, device, dtype, run.limits, workers, batch_size, run.stop)
    with scan_bar(False) as run.progress:
        report = _run(found, place, is_library, run, part)
    _show(report, model, as_json)
    if report.stopped:
        raise click.ClickException("stopped; run the command again to go on")
    if report.missing:
        raise click.ClickException(
            f"{counted(report.missing, 'file')} had no result; run the command again to go on"
        )
    if report.problems:
        raise click.ClickException("not everything could be read; see above")


def _run(
    sources: "list[Source]", place: Path, is_library: bool, run: Any, part: int | None
) -> "EmbedReport":
    from fovea.indexer.embedding.embed import embed_into_files, embed_into_library
    from fovea.search.library.library import Library

    if not is_library:
        return embed_into_files(sources, place, run, part=part)
    with Library.open(place, create=True) as library:
        report = embed_into_library(sources, library, run)
        pass_on(library)
        return report


def _is_library(place: Path, kind: str | None) -> bool:
    """Tell what the destination is to be. Raise ``FoveaError`` if it is something else already."""
    from fovea.indexer.embedding.exchange import read_manifest
    from fovea.search.library.library import has_library

    if has_library(place):
        if kind == "files":
            raise FoveaError(f"{place} is a library; choose another folder for files")
        return True
    if kind == "library" and read_manifest(place) is not None:
        raise FoveaError(f"{place} holds embeddings in files; choose another folder for a library")
    return kind == "library"


def _model_of(place: Path) -> "ModelRow | None":
    """Return the model of a library, if there is one that has one."""
    from fovea.cli.opening import open_library
    from fovea.search.library.library import has_library

    if not has_library(place):
        return None
    with open_library(place) as library:
        library.check_writable()
        return library.model()


def _show(report: "EmbedReport", model: "ModelInfo", as_json: bool) -> None:
    tell_all(report.problems, lambda one: f"{one[0]}: {one[1]}", "problems")
    tell_all(report.failures, lambda one: f"{counted(one[1], 'file')} failed: {one[0]}", "reasons")
    fields = ("found", "embedded", "unchanged", "failed", "skipped", "seconds")
    if as_json:
        also = {name: getattr(report, name) for name in ("shards", "shards_unchanged", "missing")}
        counts = {name: getattr(report, name) for name in fields}
        print_json(counts | {name: count for name, count in also.items() if count})
        return
    parts = [f"{report.found:,} found", f"{report.embedded:,} embedded by {model.name}"]
    parts += [f"{count:,} {name}" for name in fields[2:5] if (count := getattr(report, name))]
    if report.shards or report.shards_unchanged:
        parts.append(counted(report.shards, "shard"))
    if report.shards_unchanged:
        parts.append(f"{counted(report.shards_unchanged, 'shard')} unchanged")
    click.echo(f"{', '.join(parts)} in {report.seconds:.1f} s")
