"""``fovea analyse``, and what ``index`` and ``status`` say of the same."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.cli.opening import open_library
from fovea.cli.options import json_option, library_option, workers_option
from fovea.cli.output import counted, print_json, talk
from fovea.cli.progress import analysis_bar
from fovea.search.errors import LibraryBusy

if TYPE_CHECKING:
    from fovea.indexer.analysing.accounts import AnalysisState
    from fovea.indexer.analysing.analyse import Analysed, AnalysisReport
    from fovea.search.library.library import Library


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from fovea.indexer.analysing.kinds import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


def _switch_option(name: str, text: str) -> Any:
    return click.option(
        f"--{name}", name, metavar="KIND", multiple=True, shell_complete=_complete, help=text
    )


@click.command(short_help="Find what pictures hold beyond their embedding.")
@click.argument("kinds", nargs=-1, metavar="[KIND]...", shell_complete=_complete)
@_switch_option("on", "Switch a kind on again, and run it; repeatable.")
@_switch_option("off", "Switch a kind off, and forget what it found; repeatable.")
@workers_option
@library_option
@json_option()
def analyse(
    kinds: tuple[str, ...],
    on: tuple[str, ...],
    off: tuple[str, ...],
    workers: int | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Run each KIND of analysis, or all, on the pictures that it has not seen.

    fovea index does the same at its end. Ctrl-C stops it; the next run goes on from there.

    \b
    fovea analyse
    fovea analyse --off text
    """
    from fovea.indexer.analysing.analyse import analyse as run
    from fovea.indexer.analysing.kinds import chosen
    from fovea.search.analyses.stored import switch

    wanted, switched = chosen(kinds or on), {kind.kind: kind for kind in chosen([*on, *off] or ())}
    with open_library(folder) as library:
        for kind in (*on, *off):
            switch(library, switched[kind].kind, kind in on)
        if off and not (on or kinds):
            if as_json:
                print_json({"off": list(off)})
            return
        with analysis_bar() as progress:
            report = run(library, wanted, workers=workers, progress=progress)
    if as_json:
        print_json(
            {
                "kinds": {one.kind: _fields(one) for one in report.kinds},
                "seconds": report.seconds,
                "stopped": report.stopped,
            }
        )
    else:
        for one in report.kinds:
            click.echo(f"{one.kind}\t{_said(one)}")
    if report.stopped:
        raise click.ClickException("stopped; run the command again to go on")


def _fields(one: "Analysed") -> dict[str, object]:
    counts = {"done": one.done, "failed": one.failed, "pending": one.pending}
    return {**counts, "off": one.is_off, "missing": one.missing}


def _said(one: "Analysed") -> str:
    if one.is_off:
        return f"off; to switch it on: fovea analyse --on {one.kind}"
    if one.missing:
        return f"needs {one.missing}; {counted(one.pending, 'picture')} wait"
    parts = [f"{counted(one.done, 'picture')} analysed"]
    parts += [f"{one.failed:,} failed"] if one.failed else []
    parts += [f"{one.pending:,} wait"] if one.pending else []
    return ", ".join(parts)


def analyse_after(folder: Path | None, is_new: bool, workers: int | None = None) -> None:
    """After indexing, run the analyses that run by themselves, with a bar of their own.

    ``is_new`` says whether pictures are new, so that what is passed over is said once.
    """
    from fovea.indexer.analysing.analyse import analyse as run
    from fovea.indexer.analysing.analyse import has_work
    from fovea.indexer.analysing.kinds import automatic

    kinds = automatic()
    if not kinds:
        return
    with open_library(folder) as library:
        if is_new:
            _tell_missing(library)
        if not has_work(library, kinds):
            return
        report: AnalysisReport | None = None
        with contextlib.suppress(LibraryBusy), analysis_bar() as progress:
            report = run(library, kinds, workers=workers, progress=progress)
    for one in () if report is None else report.kinds:
        if one.done or one.failed:
            talk(f"{one.kind}: {_said(one)}")
    if report is not None and report.stopped:
        talk("the analyses were stopped; all pictures are searchable; to go on: fovea analyse")


def _tell_missing(library: "Library") -> None:
    from fovea.indexer.analysing.kinds import automatic
    from fovea.search.analyses.stored import analysis_counts

    for kind in automatic():
        missing = kind.missing()
        if missing and (waiting := analysis_counts(library, kind.kind, None).pending):
            talk(
                f"{kind.said} not looked for in {counted(waiting, 'picture')}: {missing}; "
                f"fovea analyse --off {kind.kind} turns this off"
            )


def analysis_line(kind: str, state: "AnalysisState") -> str:
    """Say the state of one kind in one line."""
    if state.is_off:
        return f"off; to switch it on: fovea analyse --on {kind}"
    said = f"{state.done:,} pictures done"
    said += f", {state.failed:,} failed" if state.failed else ""
    if not state.pending:
        return said
    step = f"{state.missing}, then fovea analyse" if state.missing else "fovea analyse"
    return f"{said}; {state.pending:,} wait for {step}"
