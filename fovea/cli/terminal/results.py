"""What becomes of an answer: a table, JSON, paths, pictures, copies, or a viewer."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fovea.cli.options import FOLDER, Command
from fovea.cli.output import counted, print_json, print_paths, talk
from fovea.search.clip.errors import FoveaError
from fovea.search.library.facts.moments import clock
from fovea.search.library.paths import path_fields, printable, printable_name

if TYPE_CHECKING:
    from fovea import Library
    from fovea.search.query.hits import Answer, Hit

    from .copying import Check

    Draw = Callable[[Hit], None]
    CheckOf = Callable[[Hit], Check]

__all__ = ["Delivery", "answer_fields", "nothing_found", "result_options", "show_answer"]

LIKELY_END = "the likely matches end here; the nearest other pictures follow"
NEAREST = "nearest first"
NAMED = "names that match, and the nearest, first"
SHOWN = "names and text that match, and the nearest, first"
NONE_LIKELY = "no likely matches; the nearest pictures follow"
ROOTS = "; fovea roots lists those that are indexed"
NO_HITS = "no pictures found; change the query, or index more folders: fovea index FOLDER"

PLAIN_TERMINALS = ("", "dumb", "linux")  # values of TERM for those that know no links
MOST_OPENED = 20  # viewers at a time


def result_options(command: Command) -> Command:
    """Add ``--paths``, ``-0``, ``--preview``, ``--open`` and ``--copy-to``."""
    for add in (
        click.option(
            "--copy-to",
            metavar="DIR",
            type=FOLDER,
            help="Also copy the hits into this folder; nothing is overwritten.",
        ),
        click.option(
            "--open",
            "opens",
            is_flag=True,
            help="Also open the best hit in the system's viewer, or with -k all N.",
        ),
        click.option("--preview", is_flag=True, help="Draw the pictures in the terminal."),
        click.option(
            "-0", "--null", is_flag=True, help="Print paths, each ended by a null: for xargs -0."
        ),
        click.option("--paths", is_flag=True, help="Print paths alone, one per line."),
    ):
        command = add(command)
    return command


class Delivery:
    """Prints an answer as a command's options say, and opens or copies its files."""

    def __init__(self, ctx: click.Context, options: dict[str, Any]) -> None:
        """Raise ``UsageError`` for a combination of options that means nothing."""
        self.as_json: bool = options["as_json"]
        self.paths: bool = options["paths"] or options["null"]
        self.end = b"\0" if options["null"] else b"\n"
        self.preview: bool = options["preview"]
        self.opens: bool = options["opens"]
        self.copy_to: Path | None = options["copy_to"]
        self.opens_all = ctx.get_parameter_source("k") is not ParameterSource.DEFAULT
        self._draw: Draw | None = None
        self._target = b""  # the folder to copy to, once it is checked
        self._check_of: CheckOf | None = None  # where files have to be checked
        forms = {"--json": self.as_json, "--paths": self.paths, "--preview": self.preview}
        chosen = [name for name, is_wanted in forms.items() if is_wanted]
        if len(chosen) > 1:
            raise click.UsageError(f"{chosen[0]} and {chosen[1]} cannot be combined; choose one")

    @contextmanager
    def of(self, library: "Library") -> "Iterator[Callable[[Answer], None]]":
        """Get ready for answers of a library, and return what delivers one.

        That raises ``Exit``, at its end, if a file could not be opened or copied. Raise
        ``FoveaError``, before anything is searched, for a folder that cannot be copied to.
        """
        if self.copy_to is not None:
            from .copying import checked_target

            self._target = checked_target(self.copy_to, library.roots)
        with ExitStack() as opened:
            if self.copy_to is not None or self.opens:
                self._check_of = opened.enter_context(checking(library.folder))
            if self.preview:
                from .preview import drawing

                self._draw = opened.enter_context(drawing(library.folder))
            yield self._deliver

    def _deliver(self, answer: "Answer") -> None:
        if self.paths:
            _print_paths(answer, self.end)
        else:
            show_answer(answer, self.as_json, self._draw)
        failed = 0
        if self.copy_to is not None and answer.hits:
            failed += copy_hits(answer.hits, self._target, self._check_of)
        if self.opens and answer.hits:
            hits = answer.hits if self.opens_all else answer.hits[:1]
            failed += open_hits(hits, self._check_of)
        if failed:
            raise click.exceptions.Exit(1)


@contextmanager
def checking(folder: Path) -> "Iterator[CheckOf | None]":
    """Return what tells of a hit whether an open file is its picture; None where all files are.

    ``folder`` is the library's; of one on Milvus, that of the rows that are held here.
    """
    from fovea.search.library.library import Library
    from fovea.search.library.marks import contents
    from fovea.search.seam.proof import is_shared, may_be_shown

    with Library.open(folder) as library:

        def check_of(hit: "Hit") -> "Check":
            digest = contents(library, [hit.image_id]).get(hit.image_id, b"")
            return lambda descriptor, path: may_be_shown(library, descriptor, path, digest)

        yield check_of if is_shared(library) else None


def show_answer(answer: "Answer", as_json: bool, draw: "Draw | None" = None) -> None:
    """Print an answer: one line per hit, or one JSON document; ``draw`` prints a hit's picture."""
    if as_json:
        print_json(answer_fields(answer))
        return
    if answer.hits and answer.likely is None and answer.order == "nearest":
        shown, named = (
            any(getattr(hit, by) for hit in answer.hits) for by in ("by_text", "by_name")
        )
        talk(SHOWN if shown else NAMED if named else NEAREST)
    line = _row if is_terminal() else _record
    if answer.hits and line is _row:
        click.secho(f"{'score':>6}  {'date':10}  path", bold=True)
    for place, hit in enumerate(answer.hits):
        if place == answer.likely:
            talk(LIKELY_END if place else NONE_LIKELY)
        click.echo(line(hit))
        if draw is not None:
            draw(hit)
    if not answer.hits:
        talk(nothing_found(answer))


def nothing_found(answer: "Answer", otherwise: str = NO_HITS) -> str:
    """Say that there are no hits, and why where that is known; what to do ``otherwise``."""
    from fovea.search.query.empty import LANGUAGE

    hints = [hint for hint in answer.hints if hint.code != LANGUAGE]
    if not hints:
        return otherwise
    why = printable("; ".join(hint.message for hint in hints))
    codes = {hint.code for hint in hints if "near" not in hint.params}
    if "unlikely" in codes:
        return f"{why}; without --likely, the nearest pictures are printed"
    return f"no pictures found: {why}" + (ROOTS if "filter.in" in codes else "")


def is_terminal() -> bool:
    return sys.stdout.isatty()


def _record(hit: "Hit") -> str:
    """One line for programs: score, path, a video's time, whether it is offline, between tabs."""
    note = "\t(offline)" if hit.offline else ""
    at = "" if hit.time is None else f"\t{clock(round(1000 * hit.time))}"
    return f"{_score(hit)}\t{printable_name(hit.path)}{at}{note}"


def _row(hit: "Hit") -> str:
    """One line for people, of the same columns in every answer."""
    score, date = f"{_score(hit):>6}", f"{(hit.date or '')[:10]:10}"
    return "  ".join([score, date, _linked(hit), *notes(hit)])


def notes(hit: "Hit") -> list[str]:
    """Return what to say beside a path: the time of a video, that its file is offline, that
    the picture shows the words."""
    said = {"(offline)": hit.offline, "(text matches)": hit.by_text}
    time = [] if hit.time is None else [clock(round(1000 * hit.time))]
    return time + [note for note, holds in said.items() if holds]


def _score(hit: "Hit") -> str:
    return "-" if hit.score is None else f"{hit.score:.3f}"


def _linked(hit: "Hit") -> str:
    """Return a path that a click opens, where the terminal knows links (OSC 8)."""
    shown = printable_name(hit.path)
    if hit.offline or not os.path.isabs(hit.path) or os.environ.get("TERM", "") in PLAIN_TERMINALS:
        return shown
    from urllib.parse import quote_from_bytes

    # The host tells the terminal of a session over SSH that the file is not its own.
    address = f"file://{_host()}{quote_from_bytes(os.fsencode(hit.path))}"
    return f"\x1b]8;;{address}\x1b\\{shown}\x1b]8;;\x1b\\"


@lru_cache(maxsize=1)
def _host() -> str:
    import socket
    from urllib.parse import quote_from_bytes

    return quote_from_bytes(os.fsencode(socket.gethostname()), safe="")


def _print_paths(answer: "Answer", end: bytes) -> None:
    """Print the path of each hit and nothing else."""
    hits = answer.hits
    print_paths([hit.path for hit in hits], end)
    if offline := sum(hit.offline for hit in hits):
        talk(f"{counted(offline, 'picture')} of these cannot be reached: offline")
    if not hits:
        talk(nothing_found(answer))


def copy_hits(hits: "Sequence[Hit]", target: bytes, check_of: "CheckOf | None" = None) -> int:
    """Copy the files of hits into a folder; say what failed, and return for how many."""
    from .copying import copy_file

    failed = 0
    for hit in hits:
        try:
            copy_file(hit.paths, target, None if check_of is None else check_of(hit))
        except FoveaError as exc:
            talk(str(exc))
            failed += 1
    copied = counted(len(hits) - failed, "picture")
    talk(f"copied {copied} to {printable_name(os.fsdecode(target))}")
    return failed


def open_hits(hits: "Sequence[Hit]", check_of: "CheckOf | None" = None) -> int:
    """Open the files of hits in their viewer; say what failed, and return for how many."""
    from .viewer import file_at_hand, open_files

    if len(hits) > MOST_OPENED:
        talk(f"opening the first {MOST_OPENED} of {len(hits):,} pictures")
        hits = hits[:MOST_OPENED]
    files, problems = [], []
    for hit in hits:
        try:
            files.append(file_at_hand(hit.paths, None if check_of is None else check_of(hit)))
        except FoveaError as exc:
            problems.append(f"cannot open {exc}")
    problems += open_files(files)
    for problem in problems:
        talk(problem)
    return len(problems)


def answer_fields(answer: "Answer") -> dict[str, Any]:
    """Return an answer as members of a JSON document."""
    fields = {"query": answer.query, "model": answer.model, "took_ms": answer.took_ms}
    counts = {"total": answer.total, "likely": answer.likely, "order": answer.order}
    hints = {"hints": [asdict(hint) for hint in answer.hints]} if answer.hints else {}
    return {**fields, **counts, **hints, "hits": [hit_fields(hit) for hit in answer.hits]}


def hit_fields(hit: "Hit") -> dict[str, Any]:
    fields: dict[str, Any] = {
        "rank": hit.rank,
        "score": hit.score,
        "date": hit.date,
        **({} if hit.place is None else {"place": hit.place}),
        **({} if hit.duration is None else {"duration": hit.duration}),
        **({} if hit.time is None else {"time": hit.time}),
        "image_id": hit.image_id,
        **path_fields(hit.path),
        "paths": list(hit.paths),
    }
    if hit.likelihood is not None:
        fields["likelihood"] = round(hit.likelihood, 4)
    marks = {"offline": hit.offline, "by_name": hit.by_name, "by_text": hit.by_text}
    marks |= {"favourite": hit.favourite, "hidden": hit.hidden}
    return fields | {name: True for name, holds in marks.items() if holds}
