"""``fovea mark``: favourites and hidden pictures, and all that is kept as JSON."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fovea.cli.opening import existing_library
from fovea.cli.options import FILE, SubjectGroup, json_option, library_option
from fovea.cli.output import counted, print_json, talk
from fovea.search.clip.errors import FoveaError
from fovea.search.library.paths import printable_name

if TYPE_CHECKING:
    import fovea

LARGEST = 1 << 30  # bytes of a document


@click.group(cls=SubjectGroup, short_help="Mark favourites, hide pictures, export and import both.")
def mark() -> None:
    """Mark favourites, hide pictures, and export or import both with the saved searches.

    Marks belong to what is in the files: copies share them, and they outlast moves.

    \b
    fovea mark favourite beach.jpg
    fovea search is:favourite
    """


query_option = click.option(
    "--query", metavar="FILTERS", help="Also the pictures that these filters leave: in:Screenshots."
)


@mark.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=FILE)
@query_option
@click.option("--remove", is_flag=True, help="They are favourites no longer.")
@library_option
@json_option()
def favourite(
    files: tuple[Path, ...], query: str | None, remove: bool, folder: Path | None, as_json: bool
) -> None:
    """Make the pictures in FILEs favourites; is:favourite finds them.

    \b
    fovea mark favourite beach.jpg sunset.jpg
    fovea mark favourite --query in:best
    """
    with _opened(files, query, folder) as library:
        changed = library.favourite(*pictures_of(library, files, query), on=not remove)
    _tell(changed, "taken out of the favourites" if remove else "added to the favourites", as_json)


@mark.command(short_help="Keep pictures out of all answers but is:hidden.")
@click.argument("files", nargs=-1, metavar="[FILE]...", type=FILE)
@query_option
@click.option("--remove", is_flag=True, help="Show them again.")
@library_option
@json_option()
def hide(
    files: tuple[Path, ...], query: str | None, remove: bool, folder: Path | None, as_json: bool
) -> None:
    """Keep the pictures in FILEs out of all answers but those to is:hidden.

    The files stay as they are.

    \b
    fovea mark hide --query in:Screenshots
    fovea mark hide --query is:hidden --remove
    """
    with _opened(files, query, folder) as library:
        changed = library.hide(*pictures_of(library, files, query), on=not remove)
    _tell(changed, "shown again" if remove else "hidden", as_json)


def _opened(files: tuple[Path, ...], query: str | None, folder: Path | None) -> "fovea.Library":
    import fovea

    if not files and query is None:
        raise click.UsageError("nothing to mark; name FILEs, or give --query FILTERS")
    return fovea.Library.open(existing_library(folder))


def pictures_of(
    library: "fovea.Library", files: tuple[Path, ...], query: str | None
) -> list[Path | int]:
    if query is None:
        return list(files)
    from fovea.search.query.language import parse

    asked = parse(query)
    if not asked.terms and not asked.filters:  # an unset variable, and not every picture
        raise click.UsageError("--query has no filter; give one, such as in:Screenshots")
    if asked.terms:
        raise click.UsageError(
            "--query takes filters only, such as in:Screenshots; words leave no picture out"
        )
    found = library.search(query, k=library.counts().images)
    return [*files, *(hit.image_id for hit in found.hits)]


def _tell(changed: int, said: str, as_json: bool) -> None:
    if as_json:
        print_json({"changed": changed})
    else:
        click.echo(f"{counted(changed, 'picture')} {said}")


@mark.command("export", short_help="Write all that is kept as JSON.")
@click.argument("target", metavar="[FILE]", type=FILE, required=False)
@library_option
def export_marks(target: Path | None, folder: Path | None) -> None:
    """Write favourites, hidden pictures, tags and saved searches as JSON to FILE, or print them.

    Pictures are named by the SHA-256 of their content, so that any library can import it.

    \b
    fovea mark export marks.json
    """
    import fovea

    with fovea.Library.open(existing_library(folder)) as library:
        document = library.export_marks()
    if target is None:
        print_json(document)
        return
    try:
        target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as exc:
        raise FoveaError(f"cannot write {printable_name(target)}: {exc.strerror}") from exc
    counts = [
        counted(len(document["favourites"]), "favourite"),
        f"{len(document['hidden']):,} hidden",
        counted(len(document["searches"]), "saved search", "saved searches"),
        *([counted(len(document["tags"]), "tag")] if document["tags"] else []),
    ]
    click.echo(f"wrote {', '.join(counts)} to {printable_name(target)}")


@mark.command("import", short_help="Add what another library exported.")
@click.argument("source", metavar="FILE", type=FILE)
@library_option
@json_option()
def import_marks(source: Path, folder: Path | None, as_json: bool) -> None:
    """Add what another library exported to FILE; - reads standard input.

    What is there already stays. Marks of pictures that the library does not have wait for them.

    \b
    fovea mark import marks.json
    """
    import fovea

    document = _document(source)
    with fovea.Library.open(existing_library(folder)) as library:
        report = library.import_marks(document)
    if as_json:
        print_json(
            {
                "favourites": report.favourites,
                "hidden": report.hidden,
                "searches": report.searches,
                "tags": report.tags,
                "absent": report.absent,
            }
        )
        return
    counts = [
        counted(report.favourites, "favourite"),
        f"{report.hidden:,} hidden",
        counted(report.searches, "saved search", "saved searches"),
        *([f"{counted(report.tags, 'example')} of tags"] if report.tags else []),
    ]
    click.echo(f"added {', '.join(counts)}")
    if report.absent:
        talk(
            f"{counted(report.absent, 'marked picture')} not in this library now; the marks wait "
            "for them"
        )


def _document(source: Path) -> dict[str, object]:
    name = printable_name(source)
    try:
        with sys.stdin.buffer if str(source) == "-" else source.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as exc:
        raise FoveaError(f"cannot read {name}: {exc.strerror}") from exc
    if len(data) > LARGEST:
        raise FoveaError(f"{name} is larger than {LARGEST >> 30} GiB; it is not an export")
    try:
        found: dict[str, object] = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise FoveaError(f"{name} is not JSON: name a file that fovea mark export wrote") from exc
    return found
