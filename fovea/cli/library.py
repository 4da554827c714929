"""``fovea status``, ``verify``, ``roots`` and ``library``."""

import os
import shlex
from pathlib import Path

import click

from fovea.search.library.paths import path_fields, printable, printable_name

from .opening import existing_library, library_folder, open_library, tell_of_better
from .options import FILE, json_option, library_option
from .output import counted, print_json, talk
from .progress import bytes_bar, rows_bar


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
        place, is_writable = library.folder, library.is_writable
    name, better = model.name if model else None, better_bundled(model)
    offer = better_model(model) if better else None
    if as_json:
        print_json(
            {
                **{("library" + key[4:]): text for key, text in path_fields(str(place)).items()},
                "read_only": not is_writable,
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
    if not is_writable:
        click.echo("access\tread-only: it can be searched, but not changed here")
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
@click.option(
    "--quick", is_flag=True, help="Read no embeddings, and leave out SQLite's own full check."
)
@library_option
@json_option()
def verify(quick: bool, folder: Path | None, as_json: bool) -> None:
    """List the state of every file ever seen, and check the library.

    Exits with 1 if either is damaged, but not for files that cannot be read.

    \b
    fovea verify
    """
    import fovea
    from fovea.search.library.connection import REMEDY

    with fovea.Library.open(existing_library(folder)) as library:
        report = library.verify(quick=quick)
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
    if not report.database_ok:
        raise click.ClickException(f"the database is damaged; {REMEDY}")
    if not report.ok:
        raise click.ClickException(
            "the index and the database disagree, and which is right cannot be told: go back to "
            "a backup with fovea library restore, or delete index-*.snapshot in the library's "
            "folder, so that searches read the database"
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


@click.group()
def library() -> None:
    """Back the library up, restore or salvage it.

    \b
    fovea library backup /mnt/backups/photos
    """


@library.command()
@click.argument("target", metavar="DIR", type=FILE)
@library_option
@json_option()
def backup(target: Path, folder: Path | None, as_json: bool) -> None:
    """Copy the database into DIR, and check the copy.

    DIR is a new or empty folder. Searching and indexing can go on meanwhile. Pictures are not
    copied.

    \b
    fovea library backup /mnt/backups/photos
    """
    import fovea

    with fovea.Library.open(existing_library(folder)) as opened, bytes_bar("copying") as progress:
        report = opened.backup(target, progress=progress)
    if as_json:
        place = path_fields(str(report.folder))
        print_json(place | {"images": report.images, "files": report.files, "bytes": report.bytes})
        return
    click.echo(
        f"backed up {counted(report.images, 'picture')} in {counted(report.files, 'file')}, "
        f"{report.bytes / 1e6:,.1f} MB, to {printable_name(str(report.folder))}"
    )


@library.command()
@click.argument("source", metavar="DIR", type=FILE)
@library_option
@json_option()
def restore(source: Path, folder: Path | None, as_json: bool) -> None:
    """Replace the library by the backup in DIR.

    The backup is checked first. The library before is kept, in a folder beside.

    \b
    fovea library restore /mnt/backups/photos
    """
    import fovea

    with bytes_bar("copying") as progress:
        report = fovea.Library.restore(source, library_folder(folder), progress=progress)
    if as_json:
        aside = {} if report.aside is None else path_fields(str(report.aside))
        aside = {f"aside{key[4:]}": text for key, text in aside.items()}
        print_json({"images": report.images, "files": report.files, "aside": None, **aside})
        return
    click.echo(f"restored {counted(report.images, 'picture')} in {counted(report.files, 'file')}")
    if report.aside is not None:
        talk(f"the library before is in {printable_name(str(report.aside))}; delete it if you like")


@library.command()
@click.argument("target", metavar="DIR", type=FILE)
@library_option
@json_option()
def salvage(target: Path, folder: Path | None, as_json: bool) -> None:
    """Save what is whole of a damaged library in DIR.

    DIR is a new folder. Index the new library afterwards: that finds the files that were lost, and
    embeds only pictures whose embeddings were.

    \b
    fovea library salvage ~/photos.saved
    """
    import fovea

    place = existing_library(folder)
    with rows_bar() as progress:
        report = fovea.Library.salvage(place, target, progress=progress)
    if as_json:
        print_json({"kept": report.kept, "lost": report.lost})
    else:
        for kind, number in report.kept.items():
            click.echo(f"{kind}\t{number:,} kept, {report.lost[kind]:,} lost")
    talk(f"now run: fovea index --library {shlex.quote(str(target))}")
