"""``fovea status``, ``verify``, ``roots`` and ``library``."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.search.library.paths import path_fields, printable, printable_name

from .keeping.analysing import analysis_line
from .opening import (
    existing_library,
    is_on_milvus,
    library_folder,
    open_library,
    pass_on,
    tell_of_better,
)
from .options import FILE, SubjectGroup, json_option, library_option
from .output import counted, print_json, talk
from .progress import bytes_bar, counting_bar, rows_bar

if TYPE_CHECKING:
    from fovea.indexer.analysing.accounts import Accounts, VideoCounts
    from fovea.search.library.library import Library
    from fovea.search.library.rows import Counts, ModelRow
    from fovea.search.maintenance.changeover import Changeover
    from fovea.search.places.stored import PlaceCounts
    from fovea.search.tags.counts import TagCounts


@click.command()
@library_option
@json_option()
def status(folder: Path | None, as_json: bool) -> None:
    """Show the library's model, pictures, files and folders.

    \b
    fovea status
    """
    from fovea.search.models.better import better_model

    with open_library(folder) as library:
        found = _Status.of(library)
        elsewhere = _on_milvus(library)
    offer = better_model(found.model) if found.better else None
    if as_json:
        print_json(found.document() | ({"milvus": elsewhere} if elsewhere else {}))
    else:
        if elsewhere:
            model = elsewhere["model"] or "no model yet"
            click.echo(f"on Milvus\t{elsewhere['images']:,} pictures, by {model}")
        found.show()
    tell_of_better(found.place, offer, found.name)


def _on_milvus(library: "Library") -> dict[str, Any] | None:
    """Return what a library on Milvus has in all, given what this machine knows of it."""
    from fovea.search.library.paths import is_ledger

    if not is_ledger(library):
        return None
    from fovea.search.cluster.ledger import size_of

    model, images = size_of(library)
    return {"model": model, "images": images}


@dataclass(frozen=True, slots=True)
class _Status:
    """What ``fovea status`` tells."""

    place: Path
    is_writable: bool
    model: "ModelRow | None"
    better: str | None  # the bundled model that is better
    counts: "Counts"
    accounts: "Accounts"
    change: "Changeover | None"
    embedded: dict[int, int]  # by the id of a model
    others: "list[ModelRow]"
    roots: list[dict[str, Any]]

    @classmethod
    def of(cls, library: "Library") -> "_Status":
        from fovea.indexer.analysing.accounts import Accounts
        from fovea.search.maintenance.changeover import changeover, embedded_counts
        from fovea.search.models.installed import better_bundled

        model = library.model()
        return cls(
            library.folder,
            library.is_writable,
            model,
            better_bundled(model),
            library.counts(),
            Accounts.of(library),
            changeover(library),
            embedded_counts(library),
            [known for known in library.models() if model is None or known.id != model.id],
            [
                {
                    **path_fields(os.fsdecode(root.path)),
                    "state": root.state,
                    "scanned": root.scanned_at,
                }
                for root in library.roots_now()
            ],
        )

    @property
    def name(self) -> str | None:
        return self.model.name if self.model else None

    def document(self) -> dict[str, Any]:
        """Return it as one JSON document."""
        change = self.change and {
            "model": self.change.model.name,
            "images": self.change.images,
            "embedded": self.change.embedded,
            "pid": self.change.pid,
        }
        former = [
            {"model": known.name, "sha256": known.identity, "embedded": self.embedded[known.id]}
            for known in self.others
        ]
        own = {("library" + key[4:]): text for key, text in path_fields(str(self.place)).items()}
        return {
            **own,
            "read_only": not self.is_writable,
            "model": self.name,
            "better_bundled": self.better,
            "images": self.counts.images,
            "embeddings": self.counts.embeddings,
            "files": self.counts.files,
            **self.accounts.fields(),
            "roots": self.roots,
            "changeover": change,
            "former": former,
        }

    def show(self) -> None:
        """Print it, a subject per line."""
        counts, accounts = self.counts, self.accounts
        places = accounts.places
        files = ", ".join(f"{count:,} {state}" for state, count in counts.files.items())
        click.echo(f"library\t{printable_name(str(self.place))}")
        if not self.is_writable:
            click.echo("access\tread-only: it can be searched, but not changed here")
        click.echo(f"model\t{self.name or 'none yet'}")
        self._show_models()
        click.echo(f"images\t{counts.images:,}, of which {counts.embeddings:,} embedded")
        click.echo(f"files\t{files or 'none yet'}")
        if places.is_off:
            click.echo("places\toff; to look them up: fovea index --places")
        elif places.located:
            click.echo(f"places\t{_places(places)}")
        if accounts.tags.tags:
            click.echo(f"tags\t{_tags(accounts.tags)}")
        if accounts.videos.videos or accounts.videos.waiting:
            click.echo(f"videos\t{_videos(accounts.videos)}")
        for kind, state in accounts.analyses.items():
            click.echo(f"{kind}\t{analysis_line(kind, state)}")
        if accounts.mapped is not None:
            mapped = counted(accounts.mapped, "picture")
            click.echo(f"map\t{mapped}, and later ones when it is looked at")
        for root in self.roots:
            when = f"scanned {root['scanned']}" if root["scanned"] else "not scanned yet"
            click.echo(f"root\t{printable_name(str(root['path']))}\t{root['state']}, {when}")

    def _show_models(self) -> None:
        """Print a change of model that goes on, and what is kept of others."""
        change = self.change
        if change is not None:
            done = f"{change.embedded:,} of {change.images:,} pictures"
            step = f"interrupted; to resume: fovea models use {shlex.quote(change.model.name)}"
            if change.pid:
                step = f"process {change.pid} is embedding"
            click.echo(f"switching\tto {change.model.name}, {done}; {step}")
        for known in self.others:
            if self.embedded[known.id] and (change is None or known.id != change.model.id):
                click.echo(f"kept\t{self.embedded[known.id]:,} embeddings by {known.name}")


def _tags(tags: "TagCounts") -> str:
    """Say how many tags there are, and how many pictures have any."""
    said = (
        f"{tags.tags:,}, of which {tags.taught:,} taught by examples; {tags.pictures:,} pictures "
        f"have one, {tags.said:,} were spoken about"
    )
    wait = f"; {tags.waiting:,} wait to be compared: fovea tag does so"
    return said + (wait if tags.waiting else "")


def _videos(counts: "VideoCounts") -> str:
    """Say how many videos can be searched, and how many wait for the extra."""
    from fovea.indexer.decoding.formats import VIDEO_INSTALL

    said = f"{counts.videos:,} with {counts.moments:,} moments"
    wait = f"; {counts.waiting:,} wait for {VIDEO_INSTALL}, then fovea index"
    return said + (wait if counts.waiting else "")


def _places(places: "PlaceCounts") -> str:
    """Say of how many pictures the place is known by name, and what the others wait for."""
    said = f"{places.named:,} of {places.located:,} pictures with coordinates are near a town"
    if not places.waiting:
        return said
    from fovea.indexer.placing.gazetteer import INSTALL, data_version

    step = "fovea index" if data_version() else f"{INSTALL}, then fovea index"
    return f"{said}; {places.waiting:,} wait for {step}"


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

    place, differing, on_milvus = existing_library(folder), [], is_on_milvus(folder)
    with fovea.Library.open(place) as library:
        report = library.verify(quick=quick)
    if on_milvus:
        from fovea.search.cluster.ledger import compared

        with open_library(folder) as stored:
            differing = compared(stored)
    analyses = {}
    if report.database_ok:
        from fovea.indexer.analysing.accounts import analysis_states

        with open_library(folder) as stored:
            analyses = analysis_states(stored)
    for problem in [*report.problems, *differing]:
        talk(problem)
    if as_json:
        files = [
            {**path_fields(file.path), "state": file.state, "reason": file.reason}
            for file in report.files
        ]
        states = {kind: state.fields() for kind, state in analyses.items()}
        counts: dict[str, Any] = {"damaged": report.damaged, "analyses": states}
        if on_milvus:
            counts["milvus"] = {"ok": not differing, "problems": differing}
        print_json({"ok": report.ok and not differing, **counts, "files": files})
    else:
        for file in report.files:
            reason = f"\t{printable(file.reason)}" if file.reason else ""
            click.echo(f"{file.state}\t{printable_name(file.path)}{reason}")
        if report.damaged:
            pictures = counted(report.damaged, "damaged picture")
            talk(f"{pictures} among them; the query is:damaged finds what is left of them")
    if report.unplaced:
        talk(f"{counted(report.unplaced, 'picture')} with coordinates wait for their place's name")
    for kind, state in analyses.items():
        if state.pending or state.failed:
            talk(f"{kind}: {analysis_line(kind, state)}")
    if not report.database_ok:
        raise click.ClickException(f"the database is damaged; {REMEDY}")
    if differing:
        raise click.ClickException("Milvus is behind what was indexed here; run fovea index again")
    if not report.ok:
        raise click.ClickException(
            "the index and the database disagree, and which is right cannot be told: go back to "
            "a backup with fovea library restore, or delete index-*.snapshot in the library's "
            "folder, so that searches read the database"
        )


@click.group(cls=SubjectGroup, alone="list")
def roots() -> None:
    """List the indexed folders, or remove one.

    \b
    fovea roots remove ~/Pictures/old
    """


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
    with open_library(folder) as stored:
        pass_on(stored)
    click.echo(f"removed {counted(gone, 'file')} of {printable_name(os.path.abspath(root))}")


@click.group(cls=SubjectGroup)
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


@library.command()
@click.argument("source", metavar="FROM", type=FILE)
@click.argument("target", metavar="TO", type=FILE)
@json_option()
def copy(source: Path, target: Path, as_json: bool) -> None:
    """Copy a library to another one, each in a folder or on Milvus, and check what arrived.

    Pictures with their embeddings, files and places go over. Marks do not: between two folders,
    fovea mark export and import carry them. Repeat a copy that was broken off.

    \b
    fovea library copy ~/photos.library milvus://localhost:19530/photos
    """
    from dataclasses import asdict

    from fovea.search.cluster.copying import copy_library, opened_store

    with opened_store(source) as one, opened_store(target, create=True) as other:
        with counting_bar(" pictures") as progress:
            copied = copy_library(one, other, progress)
    if not is_on_milvus(target):
        _prepare(target)
    if as_json:
        print_json(asdict(copied))
        return
    click.echo(
        f"copied {counted(copied.pictures, 'picture')} and the reasons of "
        f"{counted(copied.unread, 'file')}; all arrived"
    )


def _prepare(place: Path) -> None:
    """Save beside a library what its answers need, if its model is on this machine."""
    from fovea.search.clip.errors import ModelError
    from fovea.search.library.library import Library
    from fovea.search.maintenance.prepare import prepare
    from fovea.search.models.resolve import resolve_model

    with Library.open(place) as library:
        row = library.model()
        if row is None:
            return
        try:
            model = resolve_model(None, row, network=False)
        except ModelError:  # fovea index will say how to get it
            return
        prepare(library, row, model.load, model.folder)
