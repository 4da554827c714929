"""The command line: one verb a command; each parses, calls one function and prints."""

import contextlib
import errno
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from fovea.search.clip.errors import FoveaError
from fovea.search.paths import path_fields

if TYPE_CHECKING:
    import numpy as np

    from fovea.indexer import Progress, ScanReport, SwitchProgress, SwitchReport, Tuned
    from fovea.search.clip.encoder import PixelEncoder
    from fovea.search.clip.evaluate import Embedded
    from fovea.search.clip.pairs import PairSet
    from fovea.search.clip.train import Metrics
    from fovea.search.compare import Side
    from fovea.search.hits import Answer, Hit
    from fovea.search.library import Library
    from fovea.search.models import ModelInfo
    from fovea.search.records import ModelRow

Command = TypeVar("Command", bound=Callable[..., Any])

_ESCAPES = frozenset("\\nrtxuU")  # what follows the backslash in an escape
NONE_LIKELY = "no likely matches; the nearest ones follow"
DEVICES = "auto, cpu, cuda, cuda:N or mps."
DTYPES = ("auto", "float32", "bfloat16", "float16")


class LibraryGroup(click.Group):
    """Commands that show a ``FoveaError`` as one line, not a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except FoveaError as exc:
            raise click.ClickException(plain(str(exc))) from exc


def main() -> None:
    """Run the command line: the ``fovea`` script."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream that somebody put there
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        cli(prog_name="fovea")
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) or exc.filename:
            raise  # files have a name; standard output has none
        _let_go(sys.stdout)
        talk(f"cannot write the results: {exc.strerror}; make room, or write them elsewhere")
        sys.exit(1)


def _let_go(stream: IO[str]) -> None:
    """Drop what a stream still holds, or the interpreter would try to write it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"fovea {version('fovea')}")
        except PackageNotFoundError:
            click.echo("fovea, not installed")
        ctx.exit()


@click.group(cls=LibraryGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    expose_value=False,
    is_eager=True,
    help="Show the version and exit.",
)
def cli() -> None:
    """Find photographs by what is in them.

    \b
    fovea index ~/Pictures
    fovea search "a dog running on a beach"
    """
    _log_to_stderr()


def _log_to_stderr() -> None:
    """Show what the rooms below log as one printable line each."""
    import logging

    class OneLine(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return plain(super().format(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("fovea: %(message)s"))
    logger = logging.getLogger("fovea")
    logger.handlers, logger.propagate = [handler], False


# Options that several commands share


def library_option(command: Command) -> Command:
    """Add ``--library``."""
    return click.option(
        "--library",
        "folder",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="The library's folder.  [default: FOVEA_LIBRARY, or the user's data folder]",
    )(command)


def machine_options(command: Command) -> Command:
    """Add ``--device`` and ``--dtype``."""
    command = click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        default="auto",
        show_default=True,
        help="Precision; auto takes what the device multiplies fastest.",
    )(command)
    return click.option(
        "--device", metavar="D", default="auto", show_default=True, help=f"Where to run: {DEVICES}"
    )(command)


def _complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from fovea.search.models import known_models

    return [model.name for model in known_models() if model.name.startswith(incomplete)]


def model_option(text: str) -> Callable[[Command], Command]:
    """Add ``--model``."""
    return click.option(
        "--model", "name", metavar="NAME|DIR", shell_complete=_complete_model, help=text
    )


def json_option(text: str = "Print one JSON document.") -> Callable[[Command], Command]:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def embedding_options(command: Command) -> Command:
    """Add ``--workers`` and ``--batch-size``."""
    command = click.option(
        "--batch-size",
        metavar="N",
        type=click.IntRange(min=1),
        default=32,
        show_default=True,
        help="Pictures embedded at a time.",
    )(command)
    return click.option(
        "--workers",
        metavar="N",
        type=click.IntRange(min=1),
        help="Processes that decode.  [default: one a core]",
    )(command)


k_option = click.option(
    "-k", default=10, show_default=True, type=click.IntRange(min=1), help="Number of hits."
)
FILE = click.Path(path_type=Path, readable=False)  # whoever reads it says in one line why not


# Indexing


@cli.command()
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=FILE)
@library_option
@model_option("Embed with this model.  [default: the library's, else the best at hand]")
@click.option("--switch-model", is_flag=True, help="Let the library answer by --model from now on.")
@machine_options
@embedding_options
@click.option(
    "--ignore",
    metavar="PATTERN",
    multiple=True,
    help="Pass over what matches, as in .gitignore; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Say what would happen; write nothing.")
@click.option("--confirm-deletions", is_flag=True, help="Believe that many files are gone at once.")
@json_option()
def index(
    folders: tuple[Path, ...],
    folder: Path | None,
    name: str | None,
    switch_model: bool,
    device: str,
    dtype: str,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Bring the library up to date with each FOLDER, or with all of its folders.

    \b
    fovea index ~/Pictures /mnt/photos
    """
    from fovea.indexer import index_folders

    _check_machine(device, dtype)
    place = _library_folder(folder)
    current = _model_before(place, folders)
    model = _model_to_index(place, current, name, switch_model, dry_run)
    with _library_to_write(place, dry_run) as library:
        with _scan_bar(dry_run) as progress:
            report = index_folders(
                library,
                folders,
                model=model,
                load_encoder=lambda: model.load(device=device, dtype=dtype),
                dry_run=dry_run,
                progress=progress,
                keeps_model=not switch_model,
                **options,
            )
        if not dry_run:
            _save_index(library)
        if not dry_run and (report.embedded or report.deleted):
            _save_background(library, model, device, dtype)
    _show_report(report, library.folder, model, dry_run, as_json)
    if report.stopped:
        raise click.ClickException("stopped; run the command again to go on")


def _model_before(place: Path, folders: Sequence[Path]) -> "ModelRow | None":
    """The library's model, if it has one already.

    Raise ``FoveaError``, before anything is made, where nothing could come into a new library.
    """
    from fovea.indexer.scan import check_folder, root_path
    from fovea.search.library import Library, has_library

    if folders and not has_library(place):
        for folder in folders:
            check_folder(root_path(folder), root_path(place))
        return None
    with Library.open(place) as library:
        return library.model()


def _check_machine(device: str, dtype: str) -> None:
    """Refuse what this machine has not, before anything is done; torch is asked if it must be."""
    if device not in ("auto", "cpu") or dtype == "float16":
        from fovea.search.clip.encoder import pick_device, pick_dtype

        pick_dtype(dtype, pick_device(device))


@contextlib.contextmanager
def _library_to_write(place: Path, dry_run: bool) -> "Iterator[Library]":
    """Open or make the library; a dry run without one makes none."""
    from tempfile import TemporaryDirectory

    from fovea.search.library import Library, has_library

    with contextlib.ExitStack() as stack:
        if dry_run and not has_library(place):
            place = Path(stack.enter_context(TemporaryDirectory()))
        yield stack.enter_context(Library.open(place, create=True))


def _model_to_index(
    place: Path, current: "ModelRow | None", name: str | None, switch: bool, dry_run: bool
) -> "ModelInfo":
    """Choose the model; another one than the library's only if that is meant."""
    from fovea.search.models import foreseen, resolve_model

    if dry_run:
        model = foreseen(name, current)
    else:
        model = resolve_model(name, current, progress=_download_bar)
    if current is not None and current.identity != model.identity and not switch:
        raise FoveaError(
            f"{place} answers by {current.name}, not by {model.name}; to embed all its "
            f"pictures by {model.name} and answer by that: fovea models use {name}; to keep both, "
            "choose another folder with --library"
        )
    return model


def _save_index(library: "Library") -> None:
    """Spare the next search the work: it would read from the database what the snapshot lacks."""
    from fovea.search.index import VectorIndex

    model = library.model()
    if model is not None:
        VectorIndex.open(library, model.id).save()


def _save_background(library: "Library", model: "ModelInfo", device: str, dtype: str) -> None:
    """Leave beside the library what likelihoods take: seconds with a large model, once."""
    from fovea.search.likelihood import Background

    if Background.load(library.folder, model.identity) is None:
        encoder = model.load(device=device, dtype=dtype)
        Background.of(model.identity, encoder).save(library.folder)


def _show_report(
    report: "ScanReport", folder: Path, model: "ModelInfo", dry_run: bool, as_json: bool
) -> None:
    fields = ("found", "embedded", "unchanged", "moved", "deleted", "failed", "skipped", "seconds")
    for problem in report.problems:
        talk(f"{plain_name(os.fsdecode(problem.path))}: {problem.reason}")
    if report.passed_over:
        talk(
            f"{report.passed_over} pictures {'would ' if dry_run else ''}leave the answers: an "
            "ignore pattern or a link covers them; without it they come back at no cost"
        )
    if report.unembedded:
        talk(
            f"{report.unembedded} pictures in folders that are offline are not embedded by "
            f"{model.name} yet; bring them back and run again: until then the library answers "
            "by its former model"
        )
    if report.failed and not dry_run:
        talk(f"{report.failed} files could not be read; fovea verify says which, and why")
    if as_json:
        also = {"held": report.held, "passed_over": report.passed_over}
        counts = {field: getattr(report, field) for field in fields}
        print_json(counts | {field: count for field, count in also.items() if count})
        return
    verb = "would be " if dry_run else ""
    parts = [f"{report.found:,} found", f"{report.embedded:,} {verb}embedded by {model.name}"]
    parts += [f"{value:,} {field}" for field in fields[2:7] if (value := getattr(report, field))]
    click.echo(f"{', '.join(parts)} in {report.seconds:.1f} s")


# Searching


@cli.command()
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
    from fovea.search.answer import Picture
    from fovea.search.index import VectorIndex
    from fovea.search.models import LazyEncoder
    from fovea.search.neighbours import answer
    from fovea.search.query import parse

    asked = parse(query or "")
    with _library(folder) as library:
        model = _library_model(library)
        encoder: LazyEncoder | PixelEncoder = LazyEncoder(model, device=device, dtype=dtype)
        pictures = []
        if image is not None:
            encoder, vector = _embedded(model, image, device, dtype)
            pictures.append(Picture(vector))
        index = VectorIndex.open(library, _current(library).id)
        started = time.perf_counter()
        found = answer(library, index, encoder, asked, pictures=pictures, k=k)
        show_answer(_answer(query or str(image), model, started, found), as_json)


def _embedded(
    model: "ModelInfo", file: Path, device: str, dtype: str
) -> "tuple[PixelEncoder, np.ndarray]":
    """The loaded model, and the unit vector (d,) of the picture in a file."""
    from fovea.indexer.asked import Asked

    with Asked(model.preprocess) as asked:  # its process starts while torch is imported
        encoder = model.load(device=device, dtype=dtype)
        [vector] = encoder.encode_pixels(asked.pixels(file)[None])
    return encoder, vector


@cli.command()
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
    from fovea.search.index import VectorIndex
    from fovea.search.models import LazyEncoder
    from fovea.search.neighbours import known_image, similar_to

    with _library(folder) as library:
        model = _library_model(library)
        encoder = LazyEncoder(model, device=device, dtype=dtype)
        index = VectorIndex.open(library, _current(library).id)
        started = time.perf_counter()

        def embed() -> "np.ndarray":
            return _embedded(model, file, device, dtype)[1]

        known = known_image(library, file)
        hits = similar_to(library, index, encoder, known, embed=embed, k=k)
        if known is not None:
            _say_known(library, known, file)
        show_answer(_answer(str(file), model, started, hits), as_json)


def _say_known(library: "Library", image_id: int, file: Path) -> None:
    """Name the file of the library that a file is a copy of."""
    from fovea.search.hits import places

    place = places(library, [image_id]).get(image_id)
    if place is not None and os.path.realpath(file) not in map(os.path.realpath, place.paths):
        talk(f"the library has this picture as {place.paths[0]}")


def _answer(query: str, model: "ModelInfo", started: float, hits: "Sequence[Hit]") -> "Answer":
    from fovea.search.hits import Answer

    return Answer(query, model.name, round((time.perf_counter() - started) * 1000, 1), hits)


def show_answer(answer: "Answer", as_json: bool) -> None:
    """Print an answer: a line a hit, or one JSON document."""
    if as_json:
        hits = [_hit_fields(hit) for hit in answer.hits]
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


def _hit_fields(hit: "Hit") -> dict[str, Any]:
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


# Serving


@cli.command()
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=FILE)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; any but this machine's own needs a token, which is printed.",
)
@click.option(
    "--port",
    metavar="N",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="The port; 0 takes a free one.",
)
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
@library_option
@model_option("Embed with this model in a new library.  [default: the best at hand]")
def serve(
    folders: tuple[Path, ...],
    host: str,
    port: int,
    no_browser: bool,
    folder: Path | None,
    name: str | None,
) -> None:
    """Serve the library as a web page, and index each FOLDER meanwhile.

    \b
    fovea serve ~/Pictures
    """
    # Each request computes on one core: products that want them all at once wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from fovea.web.app import create_app
    from fovea.web.security import bound_names, is_loopback, new_token
    from fovea.web.server import serve as serve_app

    for place in folders:
        if not place.is_dir():
            raise FoveaError(f"{place} is no folder; name one that holds pictures")
    token = None if is_loopback(host) else new_token()
    app = create_app(_library_folder(folder), model=name, token=token, hosts=bound_names(host))

    def ready(bound: int) -> None:
        addresses = _addresses(host, bound, token)
        _say_where(addresses, host)
        app.extensions["fovea"].warm()
        if folders:
            app.extensions["fovea.scans"].start([place.absolute() for place in folders])
        if not no_browser:
            _open_browser(addresses[0])

    try:
        serve_app(app, host, port, on_ready=ready)
    finally:
        app.extensions["fovea"].close()
    talk("ended")


def _addresses(host: str, port: int, token: str | None) -> list[str]:
    """What a browser opens; for a wildcard, by this machine's name and by its address."""
    import socket

    from fovea.web.security import outward_address

    names: list[str | None] = [host]
    if host in ("", "0.0.0.0", "::"):
        names = [socket.gethostname(), outward_address()]
    ending = f"?token={token}" if token else ""
    return [
        f"http://{f'[{name}]' if ':' in name else name}:{port}/{ending}" for name in names if name
    ]


def _say_where(addresses: list[str], host: str) -> None:
    from fovea.web.security import is_loopback

    if not is_loopback(host):
        talk(
            "the photos will be visible to the network: whoever has this address, which is shown "
            "only now, sees all of them, and what is sent is not encrypted"
        )
    click.echo(f"fovea: open {' or '.join(addresses)} (Ctrl-C ends it)")


def _open_browser(address: str) -> None:
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


# Classifying


@cli.command()
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
    from fovea.indexer.asked import Asked
    from fovea.search.clip.zeroshot import class_embeddings, class_probabilities

    model = _any_model(name, folder)
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


# The library


@cli.command()
@library_option
@json_option()
def status(folder: Path | None, as_json: bool) -> None:
    """Show what the library holds.

    \b
    fovea status
    """
    from fovea.search.changeover import changeover, embedded_counts

    with _library(folder) as library:
        counts, model, change = library.counts(), library.model(), changeover(library)
        embedded = embedded_counts(library)
        others = [known for known in library.models() if model is None or known.id != model.id]
        roots = [
            {**path_fields(os.fsdecode(root.path)), "state": root.state, "scanned": root.scanned_at}
            for root in library.roots_now()
        ]
        place = library.folder
    if as_json:
        print_json(
            {
                **{("library" + key[4:]): text for key, text in path_fields(str(place)).items()},
                "model": model.name if model else None,
                "images": counts.images,
                "embeddings": counts.embeddings,
                "files": counts.files,
                "roots": roots,
                "changeover": change
                and {
                    "model": change.model.name,
                    "images": change.images,
                    "embedded": change.embedded,
                    "pid": change.pid,
                },
                "former": [
                    {"model": known.name, "sha256": known.identity, "embedded": embedded[known.id]}
                    for known in others
                ],
            }
        )
        return
    files = ", ".join(f"{count:,} {state}" for state, count in counts.files.items())
    click.echo(f"library\t{plain_name(str(place))}")
    click.echo(f"model\t{model.name if model else 'none yet'}")
    if change is not None:
        done = f"{change.embedded:,} of {change.images:,} pictures"
        step = f"interrupted: fovea models use {shlex.quote(change.model.name)} goes on"
        if change.pid:
            step = f"process {change.pid} embeds"
        click.echo(f"switching\tto {change.model.name}, {done}; {step}")
    for known in others:
        if embedded[known.id] and (change is None or known.id != change.model.id):
            click.echo(f"kept\t{embedded[known.id]:,} embeddings by {known.name}")
    click.echo(f"images\t{counts.images:,}, of which {counts.embeddings:,} embedded")
    click.echo(f"files\t{files or 'none yet'}")
    for root in roots:
        when = f"looked at {root['scanned']}" if root["scanned"] else "not looked at yet"
        click.echo(f"root\t{plain_name(str(root['path']))}\t{root['state']}, {when}")


@cli.command()
@library_option
@json_option()
def verify(folder: Path | None, as_json: bool) -> None:
    """Account for every file ever seen, and compare the index with the database.

    Exit with 1 where those disagree; broken files alone are no reason.

    \b
    fovea verify
    """
    from fovea.indexer import verify as verify_library

    with _library(folder) as library:
        report = verify_library(library)
    for problem in report.problems:
        talk(problem)
    if as_json:
        files = [
            {**path_fields(file.path), "state": file.state, "reason": file.reason}
            for file in report.files
        ]
        print_json({"ok": report.ok, "files": files})
    else:
        for file in report.files:
            reason = f"\t{plain(file.reason)}" if file.reason else ""
            click.echo(f"{file.state}\t{plain_name(file.path)}{reason}")
    if not report.ok:
        raise click.ClickException("the index and the database disagree")


@cli.group(invoke_without_command=True)
@click.pass_context
def roots(ctx: click.Context) -> None:
    """List or remove the folders that the library covers.

    \b
    fovea roots remove ~/Pictures/old
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_roots)


@roots.command("list")
@library_option
@json_option()
def list_roots(folder: Path | None, as_json: bool) -> None:
    """List the folders.

    \b
    fovea roots list
    """
    with _library(folder) as library:
        found = library.roots_now()
    if as_json:
        print_json([{**path_fields(os.fsdecode(root.path)), "state": root.state} for root in found])
        return
    for root in found:
        click.echo(f"{root.state}\t{plain_name(os.fsdecode(root.path))}")


@roots.command("remove")
@click.argument("root", metavar="FOLDER", type=FILE)
@library_option
def remove_root(root: Path, folder: Path | None) -> None:
    """Forget FOLDER and its pictures; the files themselves stay as they are.

    \b
    fovea roots remove ~/Pictures/old
    """
    from fovea.search.forget import forget_root

    with _library(folder) as library:
        names = {os.path.abspath(os.fsencode(root)), os.path.realpath(os.fsencode(root))}
        found = [known for known in library.roots() if known.path in names]
        if not found:
            raise FoveaError(f"{root} is no root of this library; fovea roots lists them")
        gone = forget_root(library, found[0].id)
    click.echo(f"forgot {gone:,} files of {plain_name(os.fsdecode(found[0].path))}")


# Models


@cli.group(invoke_without_command=True)
@click.pass_context
def models(ctx: click.Context) -> None:
    """List, fetch and describe models.

    \b
    fovea models pull ViT-B/32
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_models)


@models.command("list")
@json_option()
def list_models(as_json: bool) -> None:
    """List the models that can be asked for by name.

    \b
    fovea models list
    """
    from fovea.search.models import known_models

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
        place = plain_name(str(model.folder)) if model.folder else "not on this disk"
        click.echo(f"{model.name}\t{model.source}\t{place}")


@models.command("pull")
@click.argument("name", metavar="NAME|ADDRESS", shell_complete=_complete_model)
@click.option("--sha256", metavar="HEX", help="What the file at ADDRESS must have.")
def pull_model(name: str, sha256: str | None) -> None:
    """Download the model NAME, unless it is here: a published one, or owner/name of the hub.

    Or what is at ADDRESS: weights, or a zip or tar of a model's folder. Its checksum must be known.

    \b
    fovea models pull ViT-L/14
    fovea models pull openai/clip-vit-base-patch16
    fovea models pull https://example.com/photos-clip.zip --sha256 3f5a...
    """
    from fovea.search.models import pull

    model = pull(name, _download_bar, sha256=sha256)
    click.echo(f"{model.name}\t{plain_name(str(model.folder))}")


@models.command("info")
@click.argument("name", metavar="[NAME|DIR]", required=False, shell_complete=_complete_model)
@library_option
@json_option()
def model_info(name: str | None, folder: Path | None, as_json: bool) -> None:
    """Describe a model that is here: by default the one that would be used.

    \b
    fovea models info fovea-small
    """
    model = _any_model(name, folder, network=False)
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
        print_json(fields)
        return
    for field, value in fields.items():
        click.echo(f"{field}\t{plain(str(value))}")


@models.command("use")
@click.argument("name", metavar="NAME|DIR", shell_complete=_complete_model)
@click.option("--background", is_flag=True, help="Return at once; embed at low priority.")
@click.option(
    "--compare", "query", metavar="QUERY", help="Switch nothing: show both answers side by side."
)
@click.option("--incomplete", is_flag=True, help="Leave pictures behind that cannot be read now.")
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
    """Let the library answer by the model NAME once that has embedded all its pictures.

    Until then the former model answers, and folders can be indexed. An interrupted switch goes on
    when the command is repeated. Going back is instant: embeddings stay until models remove.

    \b
    fovea models use ViT-L/14
    fovea models use ViT-L/14 --compare "a dog running on a beach"
    """
    from fovea.search.changeover import call_off, resolve_in

    with _library(folder) as library:
        model = resolve_in(library, name, progress=_download_bar)
        current = library.model()
        if query is not None:
            show_sides(query, _compare(library, model, query, k, options), as_json)
        elif current is not None and current.identity == model.identity:
            call_off(library)
            talk(f"{library.folder} answers by {model.name}, and stays with it")
        elif background:
            _switch_in_background(library, model, incomplete=incomplete, **options)
        else:
            report = _switch(library, model, incomplete=incomplete, **options)
            _show_switch(report, model, current, as_json)


def _switch(
    library: "Library", model: "ModelInfo", *, device: str, dtype: str, **options: Any
) -> "SwitchReport":
    """Embed what is missing, and flip unless told otherwise; the encoder is loaded once."""
    from functools import cache

    from fovea.indexer import switch_model
    from fovea.search.likelihood import Background

    load = cache(lambda: model.load(device=device, dtype=dtype))

    def prepare() -> None:
        if Background.load(library.folder, model.identity) is None:
            Background.of(model.identity, load()).save(library.folder)

    with _switch_bar() as progress:
        return switch_model(
            library, model=model, load_encoder=load, prepare=prepare, progress=progress, **options
        )


def _switch_in_background(library: "Library", model: "ModelInfo", **options: Any) -> None:
    from fovea.indexer import detached
    from fovea.search.changeover import announce, changeover

    before = changeover(library)
    row = library.add_model(model.name, model.identity, model.dim, model.source)
    announce(library, row.id)
    if before is not None and before.pid and before.model.id == row.id:
        pid = before.pid
    else:
        pid = str(detached.start(library.folder, **options))
    talk(
        f"process {pid} embeds by {model.name}; fovea status says how far it is, and "
        f"{detached.log_path(library.folder)} what has become of it"
    )


def _show_switch(
    report: "SwitchReport", model: "ModelInfo", before: "ModelRow | None", as_json: bool
) -> None:
    from dataclasses import asdict

    counts = {
        "out of reach": report.unreachable,
        "changed or gone since they were indexed": report.changed,
        "not to be decoded now": report.failed,
    }
    amiss = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    answers = before.name if before is not None else "no model"
    if as_json:
        print_json({"model": model.name, **asdict(report)})
    if report.superseded:
        raise FoveaError(f"another model was asked for meanwhile; {answers} answers until then")
    if report.stopped:
        raise FoveaError(f"stopped, and {answers} answers; run the command again to go on")
    if not report.switched:
        raise FoveaError(
            f"{answers} goes on answering, since some pictures are not embedded: {amiss}; bring "
            "them back, or run fovea index, and repeat this; or leave them behind: --incomplete"
        )
    if amiss:
        talk(f"in no answer until fovea index finds them: {amiss}")
    if not as_json:
        click.echo(
            f"{model.name} answers: {report.images:,} pictures, {report.embedded:,} embedded in "
            f"{report.seconds:.1f} s"
        )


def _compare(
    library: "Library", model: "ModelInfo", query: str, k: int, options: dict[str, Any]
) -> "list[Side]":
    """What the library's model and another one answer, once that has embedded what there is."""
    from fovea.search.changeover import find_model
    from fovea.search.compare import answered
    from fovea.search.errors import LibraryBusy
    from fovea.search.models import LazyEncoder

    current = _current(library)
    if current.identity == model.identity:
        raise FoveaError(f"{library.folder} answers by {model.name} already; name another one")
    try:
        _switch(library, model, flips=False, **options)
    except LibraryBusy as exc:
        talk(f"{exc}; the answer is from what is embedded by now")
    row = find_model(library, model.identity)
    assert row is not None  # added at the least
    machine = {name: options[name] for name in ("device", "dtype")}
    pairs = ((current, _library_model(library)), (row, model))
    return [answered(library, r, LazyEncoder(info, **machine), query, k) for r, info in pairs]


def show_sides(query: str, sides: "Sequence[Side]", as_json: bool) -> None:
    """Print two answers in two columns; a star marks what only one of them has."""
    if as_json:
        answers = [
            {
                "model": side.model.name,
                "embedded": side.embedded,
                "took_ms": side.took_ms,
                "hits": [_hit_fields(hit) for hit in side.hits],
            }
            for side in sides
        ]
        print_json({"query": query, "answers": answers})
        return
    left, right = ({hit.image_id for hit in side.hits} for side in sides)
    columns = [_column(side, left & right) for side in sides]
    width = max(map(len, columns[0]))
    for first, second in zip_longest(*columns, fillvalue=""):
        click.echo(f"{first:<{width}}  |  {second}".rstrip())
    if left ^ right:
        talk("a star marks what is among the first of one answer alone")
    talk(f"nothing is switched: {sides[0].model.name} answers")


def _column(side: "Side", shared: set[int]) -> list[str]:
    lines = [f"{side.model.name}, {side.embedded:,} pictures"]
    for hit in side.hits:
        score = " " * 5 if hit.score is None else f"{hit.score:.3f}"
        lines.append(f"{score} {' ' if hit.image_id in shared else '*'} {plain_name(hit.path)}")
    return lines


@models.command("remove")
@click.argument("name", metavar="NAME|SHA256", shell_complete=_complete_model)
@click.option("--files", is_flag=True, help="Delete the model itself from this disk, too.")
@library_option
def remove_model(name: str, files: bool, folder: Path | None) -> None:
    """Forget what the model NAME has embedded in the library, and free the space.

    Never the model that answers. Files go only with --files, and only those that fovea has put
    there.

    \b
    fovea models remove ViT-B/32
    fovea models remove ViT-B/32 --files
    """
    from fovea.search.changeover import check_removable, find_model, remove_model
    from fovea.search.library import DATABASE
    from fovea.search.models import delete_files, files_identity

    place, known = _library_folder(folder), None
    if (place / DATABASE).is_file():
        with _library(folder) as library:
            known = find_model(library, name)
            if known is not None:
                check_removable(library, known.identity)
            if files:
                check_removable(library, files_identity(name, known))
            if known is not None:
                gone = remove_model(library, known)
                freed = _size(gone.bytes)
                click.echo(f"forgot {gone.embeddings:,} embeddings by {known.name}: {freed}")
    if files:
        click.echo(f"deleted {_size(delete_files(name, known))} of files")
    elif known is None:
        raise FoveaError(f"{place} has nothing embedded by {name}; fovea status says by what")


# Training

# So that --images takes several at once: what follows the first is an argument to click.
more_images = click.argument("more", nargs=-1, metavar="[FOLDER|TAR]...", type=FILE)


def train_option(
    name: str, kind: click.ParamType | type | None, text: str, metavar: str | None, default: object
) -> Callable[[Command], Command]:
    """Add an option of a training run, which a recipe may set too: no default of its own."""
    return click.option(name, type=kind, metavar=metavar, help=f"{text}  [default: {default}]")


@cli.command()
@more_images
@click.option("--out", metavar="DIR", required=True, type=FILE, help="Where the run is kept.")
@click.option("--recipe", metavar="FILE.toml", type=FILE, help="Options and data, as a file.")
@click.option(
    "--data",
    metavar="DIR",
    type=FILE,
    help="What the recipe's paths start from.  [default: its own]",
)
@click.option("--captions", metavar="FILE", type=FILE, help="JSON Lines or TSV: file, captions.")
@click.option("--labels", metavar="FILE", type=FILE, help="JSON Lines: file, label.")
@click.option("--classes", metavar="FILE", type=FILE, help="JSON: label, names.")
@click.option(
    "--images",
    metavar="FOLDER|TAR",
    multiple=True,
    type=FILE,
    help="The images, one or more. Alone: WebDataset shards.",
)
@click.option("--split", metavar="NAME", help="Only lines of this split.  [default: all]")
@click.option("--init", "initial", metavar="NAME|DIR", help="Fine-tune this model.")
@train_option("--tune", None, "What learns: all, or the last N blocks.", "all|N", "all")
@train_option("--image-size", click.IntRange(min=8), "Pixels a side.", "N", "the model's, or 64")
@train_option("--batch-size", click.IntRange(min=2), "Pairs a step, in all processes.", "N", 256)
@train_option("--accumulate", click.IntRange(min=1), "Slices that a batch is cut into.", "N", 1)
@train_option("--samples", click.IntRange(min=1), "Pairs seen in all.", "N", 1_000_000)
@train_option("--lr", float, "The highest learning rate.", "X", 0.001)
@train_option("--weight-decay", float, "Decay of the matrices.", "X", 0.1)
@train_option("--muon", float, "The highest rate of Muon, for hidden matrices.", "X", "0, AdamW")
@train_option("--warmup", click.FloatRange(0, 1), "Share of the steps that rise.", "X", 0.05)
@train_option("--stop-after", click.IntRange(min=1), "End at this step.", "N", "the last")
@train_option("--seed", int, "Of everything that is drawn.", "N", 0)
@train_option("--workers", click.IntRange(min=1), "Threads that decode.", "N", 2)
@train_option("--log-every", click.IntRange(min=1), "Steps a line of metrics.", "N", 20)
@train_option("--save-every", click.IntRange(min=1), "Steps a checkpoint.", "N", 200)
@train_option("--device", None, f"Where to run: {DEVICES}", "D", "auto")
@train_option("--dtype", click.Choice(DTYPES[:3]), "Precision of the products.", None, "auto")
@train_option("--measure-every", click.IntRange(min=1), "Steps a measuring.", "N", 1000)
@click.option(
    "--plot", is_flag=True, help="Draw DIR/metrics.png afterwards, or of a run that is there."
)
def train(
    out: Path,
    recipe: Path | None,
    data: Path | None,
    captions: Path | None,
    labels: Path | None,
    classes: Path | None,
    images: tuple[Path, ...],
    more: tuple[Path, ...],
    split: str | None,
    initial: str | None,
    plot: bool,
    **options: Any,
) -> None:
    """Train a CLIP, or fine-tune one, on images and captions.

    A line of metrics, JSON, is printed every --log-every steps. A run that was stopped goes on
    from its last checkpoint when the command is repeated. The model is left in DIR/model. An
    option that is not given has the recipe's value, and only then its default. On several GPUs:
    torchrun --nproc-per-node N -m fovea train ...

    \b
    fovea train --out runs/mine --captions captions.jsonl --images photos.tar
    fovea train --out runs/mine --plot
    """
    images += more
    if recipe is None and not images:
        if not plot:
            raise click.UsageError("say what to train on: --images, or a --recipe that does")
        return _draw_run(out)
    from fovea.search.clip.options import TrainOptions, read_recipe
    from fovea.search.clip.pairs import Source
    from fovea.search.clip.train import train as run
    from fovea.search.models import resolve_model

    chosen = {name: value for name, value in options.items() if value is not None}
    if images:
        chosen["sources"] = (Source(images, captions, labels, classes, split),)
    if initial is not None:
        chosen["init"] = resolve_model(initial, progress=_download_bar).folder
    if recipe is not None:
        todo = read_recipe(recipe, folder=data, out=out, **chosen)
    else:
        todo = TrainOptions(out=out, **chosen)
    leads = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts
    with _training_bar(todo.steps, shown=leads) as on_metrics:
        model = run(todo, on_metrics)
    if leads:
        talk(f"the model is in {model}")
        if plot:
            _draw_run(out)


def _draw_run(out: Path) -> None:
    from fovea.search.clip.plot import draw_run

    draw_run(out / "metrics.jsonl", out / "metrics.png")
    talk(f"its course is drawn in {out / 'metrics.png'}")


@cli.command()
@click.option(
    "--from",
    "folder",
    metavar="LIBRARY",
    type=click.Path(path_type=Path, file_okay=False),
    help="The library to learn from.  [default: FOVEA_LIBRARY, or the user's data folder]",
)
@click.option(
    "--captions",
    metavar="FILE",
    type=FILE,
    help="Learn these: JSON Lines, TSV or CSV: file, captions.",
)
@click.option(
    "--words",
    multiple=True,
    type=click.Choice(("names", "keywords")),
    help="Learn names of files and folders, or what is written into pictures; repeatable.  "
    "[default: both, or neither where --captions is given]",
)
@click.option("--list", "only_list", is_flag=True, help="Print the captions found; train nothing.")
@model_option("Begin with this model.  [default: the library's]")
@click.option("--out", metavar="DIR", type=FILE, help="Where it is kept.  [default: LIBRARY/tuned]")
@click.option(
    "--tune",
    metavar="N",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Last blocks of each tower that learn, with the projections.",
)
@click.option(
    "--epochs",
    metavar="N",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Times that every picture is seen.",
)
@click.option(
    "--batch-size",
    metavar="N",
    type=click.IntRange(min=2),
    default=128,
    show_default=True,
    help="Pictures a step.",
)
@click.option(
    "--lr",
    metavar="X",
    type=float,
    help="The highest learning rate.  [default: 0.001 for small models, else 0.0001]",
)
@click.option(
    "--keep",
    metavar="X",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Weight of what the model knew before.",
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="The most pictures to learn from.",
)
@click.option("--seed", metavar="N", default=0, show_default=True, help="Of all that is drawn.")
@click.option(
    "--least-agreement",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    help="Refuse a model that knows less than this of what it knew before.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    help="Processes that decode.  [default: one a core]",
)
@click.option("--use", is_flag=True, help="Let the library answer by it, unless it is refused.")
@click.option("--device", metavar="D", default="auto", show_default=True, help=f"Where: {DEVICES}")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES[:3]),
    default="auto",
    show_default=True,
    help="Precision of the products.",
)
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
    descriptions in pictures and XMP files. A part of the pictures is held out, and the recall on it
    shown before and after. The model stays as it is: the new one is kept beside it, and refused
    where it got worse. A run that was stopped goes on when the command is repeated. With --use the
    library is switched to it, as by models use, and back again by the same.

    \b
    fovea finetune --from ~/photos-library --captions captions.tsv
    """
    from fovea.indexer import Wanted
    from fovea.indexer.material import SOURCES, listed_captions

    chosen = words or (() if captions is not None else SOURCES)
    wanted = Wanted(captions=captions, words=chosen, limit=limit)
    with _library(folder) as library:
        if only_list:
            for path, texts in listed_captions(library, wanted, workers=workers):
                show_captions(path, texts, as_json)
            return
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
            raise FoveaError(f"not to be used: {tuned.refusal}; it is in {tuned.folder}")
        if use:
            machine = {key: options[key] for key in ("device", "dtype")}
            return _use_tuned(library, tuned, workers=workers, **machine)
        command = ["fovea", "models", "use", str(tuned.folder), "--library", str(library.folder)]
    talk(f"to answer by it: {shlex.join(command)}")


def _finetuned(
    library: "Library", name: str | None, options: dict[str, Any], **settings: Any
) -> "Tuned":
    """Fine-tune the model of this name, or the library's, under two progress bars."""
    from fovea.indexer import finetune_library
    from fovea.search.clip.finetune import TuneOptions
    from fovea.search.models import resolve_model

    model = resolve_model(name, _current(library), progress=_download_bar)
    with _counting_bar("img") as progress, _tuning_bar() as on_metrics:
        return finetune_library(
            library,
            model,
            options=TuneOptions(**options),
            on_progress=progress,
            on_metrics=on_metrics,
            **settings,
        )


def _use_tuned(library: "Library", tuned: "Tuned", **options: Any) -> None:
    """Switch the library to a tuned model; raise ``FoveaError`` where it stays as it was."""
    from fovea.search.changeover import resolve_in

    model, before = resolve_in(library, str(tuned.folder)), _current(library)
    report = _switch(library, model, incomplete=False, **options)
    if not report.switched:
        _show_switch(report, model, before, as_json=False)
    talk(f"{library.folder} answers by it; to go back: fovea models use {before.name}")


def show_captions(path: bytes, captions: Sequence[str], as_json: bool) -> None:
    """Print a picture's captions: a line each, or one of JSON."""
    file = os.fsdecode(path)
    if as_json:
        fields = path_fields(file)
        fields["file"] = fields.pop("path")
        print_json({**fields, "captions": captions})
        return
    for caption in captions:
        click.echo(f"{plain_name(file)}\t{plain(caption)}")


def show_tuned(tuned: "Tuned", as_json: bool) -> None:
    """Print what fine-tuning has brought: a table, or one JSON document."""
    found = tuned.comparison
    if as_json:
        fields: dict[str, Any] = {"model": str(tuned.folder), "pictures": tuned.pictures}
        fields |= {"captions": tuned.captions, "left_out": tuned.left_out, **found.to_dict()}
        print_json({**fields, "refusal": tuned.refusal})
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


@cli.command()
@more_images
@click.option("--captions", metavar="FILE", type=FILE, help="JSON Lines or TSV: file, captions.")
@click.option("--labels", metavar="FILE", type=FILE, help="JSON Lines: file, label.")
@click.option("--classes", metavar="FILE", type=FILE, help="JSON: label, names.")
@click.option(
    "--images",
    metavar="FOLDER|TAR",
    multiple=True,
    required=True,
    type=FILE,
    help="The images, one or more.",
)
@click.option("--split", metavar="NAME", help="Only lines of this split.  [default: all]")
@model_option("Measure this model.  [default: the library's, else the best at hand]")
@click.option(
    "--against", metavar="NAME|DIR", shell_complete=_complete_model, help="Measure this one, too."
)
@click.option(
    "--report",
    metavar="FILE.html",
    type=FILE,
    help="Write a page with example queries and their first hits.",
)
@click.option(
    "--examples",
    metavar="N",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    help="Queries on that page.",
)
@library_option
@machine_options
@json_option()
def evaluate(
    captions: Path | None,
    labels: Path | None,
    classes: Path | None,
    images: tuple[Path, ...],
    more: tuple[Path, ...],
    split: str | None,
    name: str | None,
    against: str | None,
    report: Path | None,
    examples: int,
    folder: Path | None,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Measure a model: retrieval by --captions, or zero-shot classification by --labels.

    \b
    fovea evaluate --captions flickr8k.jsonl --images flickr8k.tar.gz --split dev
    fovea evaluate --labels val.jsonl --classes classes.json --images val.tar.gz
    """
    images += more
    if (captions is None) == (labels is None):
        raise click.UsageError("give either --captions or --labels")
    if (labels is None) != (classes is None):
        raise click.UsageError("--labels and --classes go together")
    if report is not None and not report.absolute().parent.is_dir():
        raise FoveaError(f"there is no folder {report.parent} for {report.name}; make it first")
    from fovea.search.clip.evaluate import embed_pairs
    from fovea.search.clip.pairs import Source, open_pairs

    found = open_pairs(Source(images, captions, labels, classes, split))
    models = [_any_model(name, folder)]
    models += [_any_model(against, folder)] if against is not None else []
    measured = []
    for model in models:
        encoder = model.load(device=device, dtype=dtype)
        with _counting_bar("img") as progress:
            measured.append(embed_pairs(encoder, found, progress))
    results = [one.figures().to_dict() for one in measured]
    if report is not None:
        names = [model.name for model in models]
        _write_report(report, names, found, measured, count=examples, split=split)
    if as_json:
        print_json({**results[0], "against": results[1]} if against is not None else results[0])
        return
    show_figures([_flat(result) for result in results])


def _flat(result: Mapping[str, object]) -> dict[str, object]:
    """Name each figure in words: "text to image recall@10"."""
    flat: dict[str, object] = {}
    for field, value in result.items():
        for key, figure in value.items() if isinstance(value, dict) else [("", value)]:
            flat[f"{field} {key}".strip().replace("_", " ")] = figure
    return flat


def show_figures(results: Sequence[Mapping[str, object]]) -> None:
    """Print a line a figure, with a column for each model."""
    for name in results[0]:
        shown = [
            f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
            for value in (result[name] for result in results)
        ]
        click.echo("\t".join([name, *shown]))


def _write_report(
    path: Path,
    names: list[str],
    found: "PairSet",
    measured: "list[Embedded]",
    *,
    count: int,
    split: str | None,
) -> None:
    from fovea.search.clip.atomic import replace_file
    from fovea.search.clip.examples import pick_examples
    from fovea.web.report import Report, page

    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
    figures = [_flat(one.figures().to_dict()) for one in measured]
    examples = pick_examples(found, measured, count=count)
    data = ", ".join(place.name for place in found.places) + (f", {split}" if split else "")
    text = page(Report(names, figures, examples, len(measured[0].pairs), data))
    replace_file(path, lambda file: file.write(text.encode()))
    talk(f"the page is {path}")


# Trying it out


@cli.command()
@model_option("Embed with this model.  [default: the best on this disk, else the bundled one]")
@machine_options
def demo(name: str | None, device: str, dtype: str) -> None:
    """Index a few photographs that come with scikit-image, and answer some queries.

    Your own library is not touched.

    \b
    fovea demo
    """
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from fovea.data import demo_photographs
    from fovea.indexer import index_folders
    from fovea.search.index import VectorIndex
    from fovea.search.library import Library
    from fovea.search.models import best_on_disk, resolve_model
    from fovea.search.neighbours import search as search_library

    photographs, queries = (
        demo_photographs(),
        ("a cat", "a motorcycle", "a cup of coffee", "grass"),
    )
    if not photographs:
        raise FoveaError("the demo needs scikit-image's pictures: pip install 'fovea[demo]'")
    model = resolve_model(name or best_on_disk(), progress=_download_bar)
    if model.source == "bundled":
        talk("this is the small bundled model; a better one: fovea demo --model ViT-B/32")
    encoder = model.load(device=device, dtype=dtype)
    with (
        TemporaryDirectory(prefix="fovea-demo-") as place,
        Library.open(Path(place) / "library", create=True) as library,
    ):
        folder = _link_all(photographs, Path(place) / "photographs")
        report = index_folders(library, [folder], model=model, load_encoder=lambda: encoder)
        click.echo(f"{report.embedded} photographs embedded by {model.name}")
        _save_background(library, model, device, dtype)
        vectors = VectorIndex.open(library, _current(library).id)
        for query in queries:
            click.echo(f'\nfovea search "{query}" -k 3')
            started = time.perf_counter()
            hits = search_library(library, vectors, encoder, text=query, k=3)
            hits = [replace(hit, path=Path(hit.path).name) for hit in hits]
            show_answer(_answer(query, model, started, hits), as_json=False)
    click.echo("\nNow your own: fovea index FOLDER, then fovea search WORDS")


def _link_all(files: "Iterable[Path]", folder: Path) -> Path:
    import shutil

    folder.mkdir()
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return folder


# Libraries and models that commands work on


def _library_folder(folder: Path | None) -> Path:
    from fovea.search.library import default_library_folder

    return folder if folder is not None else default_library_folder()


def _library(folder: Path | None) -> "Library":
    from fovea.search.library import Library

    return Library.open(_library_folder(folder))


def _current(library: "Library") -> "ModelRow":
    model = library.model()
    if model is None:
        raise FoveaError(f"nothing is indexed in {library.folder} yet: fovea index FOLDER")
    return model


def _library_model(library: "Library") -> "ModelInfo":
    """The model that the library answers by, on the disk."""
    from fovea.search.models import resolve_model

    return resolve_model(None, _current(library), progress=_download_bar)


def _any_model(name: str | None, folder: Path | None, *, network: bool = True) -> "ModelInfo":
    """The model asked for, else that of the library if there is one, else the best at hand."""
    from fovea.search.library import has_library
    from fovea.search.models import resolve_model

    current = None
    if name is None and has_library(_library_folder(folder)):
        with _library(folder) as library:
            current = library.model()
    return resolve_model(name, current, network=network, progress=_download_bar)


# Printing


def plain(text: str) -> str:
    """Escape what is not printable, so that a name is one line and changes no terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain_name(name: str) -> str:
    """Escape a file's name as ``plain`` does, so that no two names look the same.

    A backslash of its own is doubled where it would look like the beginning of an escape.
    """
    return "".join(
        "\\\\" if c == "\\" and (after in _ESCAPES or plain(after) != after) else plain(c)
        for c, after in zip_longest(name, name[1:], fillvalue=" ")
    )


def talk(text: str) -> None:
    """Say something that is no result."""
    click.echo(f"fovea: {plain(text)}", err=True)


def _size(length: int) -> str:
    return f"{length / 1e6:,.1f} MB" if length >= 1e6 else f"{length / 1e3:,.1f} kB"


def print_json(value: object) -> None:
    """Print one document on one line; bytes that are not UTF-8 as surrogate escapes."""
    click.echo(json.dumps(value))


@contextlib.contextmanager
def _scan_bar(dry_run: bool) -> "Iterator[Callable[[Progress], None]]":
    from tqdm import tqdm

    name = "looking" if dry_run else "indexing"
    with tqdm(desc=name, unit=" files", disable=None, smoothing=0.1, leave=False) as bar:

        def show(progress: "Progress") -> None:
            bar.total = None if progress.walking else progress.found
            bar.n = progress.done
            failed = f", {progress.failed} failed" if progress.failed else ""
            bar.set_postfix_str(f"{progress.rate:.1f} img/s{failed}", refresh=False)
            bar.refresh()

        yield show


@contextlib.contextmanager
def _switch_bar() -> "Iterator[Callable[[SwitchProgress], None]]":
    from tqdm import tqdm

    waits: list[str] = []
    with tqdm(desc="embedding", unit=" pictures", disable=None, leave=False) as bar:

        def show(progress: "SwitchProgress") -> None:
            bar.total, bar.n = progress.images, progress.embedded
            bar.set_postfix_str(f"{progress.rate:.1f} img/s", refresh=False)
            bar.refresh()
            if progress.waiting and progress.waiting not in waits:
                waits.append(progress.waiting)
                talk(f"all is embedded; to switch, {progress.waiting}")

        yield show


def _download_bar(name: str) -> "Callable[[int, int | None], None]":
    from tqdm import tqdm

    talk(f"downloading {name}")
    bar = tqdm(unit="B", unit_scale=True, unit_divisor=1024, disable=None, desc=name)

    def show(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return show


@contextlib.contextmanager
def _counting_bar(unit: str) -> "Iterator[Callable[[int, int], None]]":
    from tqdm import tqdm

    with tqdm(unit=unit, disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


@contextlib.contextmanager
def _training_bar(steps: int, *, shown: bool) -> "Iterator[Callable[[Metrics], None]]":
    from dataclasses import asdict

    from tqdm import tqdm

    with tqdm(total=steps, unit="step", disable=None if shown else True) as bar:

        def show(metrics: "Metrics") -> None:
            print_json(asdict(metrics))
            bar.set_postfix_str(f"loss {metrics.loss:.3f}", refresh=False)
            bar.update(metrics.step - bar.n)

        yield show


@contextlib.contextmanager
def _tuning_bar() -> "Iterator[Callable[[Metrics], None]]":
    from tqdm import tqdm

    with tqdm(unit="step", disable=None, leave=False) as bar:

        def show(metrics: "Metrics") -> None:
            bar.total = metrics.steps
            recall = metrics.held_out.get("held out: recall@10", 0.0)
            text = f"loss {metrics.loss:.3f}, held out recall@10 {recall:.3f}"
            bar.set_postfix_str(text, refresh=False)
            bar.update(metrics.step - bar.n)

        yield show
