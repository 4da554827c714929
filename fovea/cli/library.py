"""``fovea status``, ``verify`` and ``roots``."""

import os
import shlex
from pathlib import Path

import click

from fovea.search.library.paths import path_fields, printable, printable_name

from .opening import existing_library, open_library, tell_of_better
from .options import FILE, json_option, library_option
from .output import counted, print_json, talk


@click.command()
@library_option
@json_option()
def status(folder: Path | None, as_json: bool) -> None:
    """Show the library's model, pictures, files and folders.

    \b
    fovea status
    """
    from fovea.search.maintenance.changeover import changeover, embedded_counts
    from fovea.search.models.better import better_model
    from fovea.search.models.installed import better_bundled

    with open_library(folder) as library:
        counts, model, change = library.counts(), library.model(), changeover(library)
        embedded = embedded_counts(library)
        others = [known for known in library.models() if model is None or known.id != model.id]
        roots = [
            {**path_fields(os.fsdecode(root.path)), "state": root.state, "scanned": root.scanned_at}
            for root in library.roots_now()
        ]
        place = library.folder
    name, better = model.name if model else None, better_bundled(model)
    offer = better_model(model) if better else None
    if as_json:
        print_json(
            {
                **{("library" + key[4:]): text for key, text in path_fields(str(place)).items()},
                "model": name,
                "better_bundled": better,
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
        tell_of_better(place, offer, name)
        return
    files = ", ".join(f"{count:,} {state}" for state, count in counts.files.items())
    click.echo(f"library\t{printable_name(str(place))}")
    click.echo(f"model\t{name or 'none yet'}")
    if change is not None:
        done = f"{change.embedded:,} of {change.images:,} pictures"
        step = f"interrupted; to resume: fovea models use {shlex.quote(change.model.name)}"
        if change.pid:
            step = f"process {change.pid} is embedding"
        click.echo(f"switching\tto {change.model.name}, {done}; {step}")
    for known in others:
        if embedded[known.id] and (change is None or known.id != change.model.id):
            click.echo(f"kept\t{embedded[known.id]:,} embeddings by {known.name}")
    click.echo(f"images\t{counts.images:,}, of which {counts.embeddings:,} embedded")
    click.echo(f"files\t{files or 'none yet'}")
    for root in roots:
        when = f"scanned {root['scanned']}" if root["scanned"] else "not scanned yet"
        click.echo(f"root\t{printable_name(str(root['path']))}\t{root['state']}, {when}")
    tell_of_better(place, offer, name)


@click.command()
@library_option
@json_option()
def verify(folder: Path | None, as_json: bool) -> None:
    """List the state of every file ever seen, and check the index.

    Exits with 1 if the index disagrees with the database, but not for files that cannot be read.

    \b
    fovea verify
    """
    import fovea

    with fovea.Library.open(existing_library(folder)) as library:
        report = library.verify()
    for problem in report.problems:
        talk(problem)
    if as_json:
        files = [
            {**path_fields(file.path), "state": file.state, "reason": file.reason}
            for file in report.files
        ]
        print_json({"ok": report.ok, "damaged": report.damaged, "files": files})
    else:
        for file in report.files:
            reason = f"\t{printable(file.reason)}" if file.reason else ""
            click.echo(f"{file.state}\t{printable_name(file.path)}{reason}")
        if report.damaged:
            pictures = counted(report.damaged, "damaged picture")
            talk(f"{pictures} among them; the query is:damaged finds what is left of them")
    if not report.ok:
        raise click.ClickException(
            "the index and the database disagree; delete index-*.snapshot in the library's folder, "
            "so that searches read the database instead"
        )


@click.group(invoke_without_command=True)
@click.pass_context
def roots(ctx: click.Context) -> None:
    """List the indexed folders, or remove one.

    \b
    fovea roots remove ~/Pictures/old
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_roots)


@roots.command("list")
@library_option
@json_option()
def list_roots(folder: Path | None, as_json: bool) -> None:
    """List the indexed folders.

    \b
    fovea roots list
    """
    with open_library(folder) as library:
        found = library.roots_now()
    if as_json:
        print_json([{**path_fields(os.fsdecode(root.path)), "state": root.state} for root in found])
        return
    for root in found:
        click.echo(f"{root.state}\t{printable_name(os.fsdecode(root.path))}")


@roots.command("remove")
@click.argument("root", metavar="FOLDER", type=FILE)
@library_option
def remove_root(root: Path, folder: Path | None) -> None:
    """Remove FOLDER and its pictures from the library, not from the disk.

    \b
    fovea roots remove ~/Pictures/old
    """
    import fovea

    with fovea.Library.open(existing_library(folder)) as library:
        gone = library.forget(root)
    click.echo(f"removed {counted(gone, 'file')} of {printable_name(os.path.abspath(root))}")
