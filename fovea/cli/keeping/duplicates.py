"""``fovea duplicates``: groups of copies, as text, JSON, paths or a script. It deletes nothing."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fovea.cli.opening import open_library
from fovea.cli.options import FILE, json_option, library_option
from fovea.cli.output import counted, print_json, print_paths, size_text, talk
from fovea.cli.progress import analysis_bar
from fovea.search.errors import FoveaError, LibraryBusy
from fovea.search.library.paths import path_fields, printable, printable_name

if TYPE_CHECKING:
    from fovea.search.duplicates.groups import Duplicate, DuplicateGroup, Duplicates
    from fovea.search.library.library import Library


@click.command(short_help="Group copies of one picture, the best original first.")
@click.option("--bursts", is_flag=True, help="Also group what one camera took within seconds.")
@click.option("--paths", is_flag=True, help="Print the paths of all but the best, one a line.")
@click.option("-0", "--null", is_flag=True, help="The same, each ended by a null: for xargs -0.")
@click.option(
    "--script",
    metavar="FILE",
    type=FILE,
    help="Write a shell script that moves or removes all but the best, once you run it.",
)
@library_option
@json_option()
def duplicates(
    bursts: bool,
    paths: bool,
    null: bool,
    script: Path | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Group files that show one picture, the best original of each group first.

    Copies may be resized, stored anew, cropped a little, recoloured, watermarked or mirrored. fovea
    moves and deletes nothing: read a script before you run it.

    \b
    fovea duplicates
    fovea duplicates --script tidy.sh; sh tidy.sh; sh tidy.sh ~/copies
    fovea duplicates -0 | xargs -0 mv -t ~/copies --
    """
    if sum([as_json, paths or null, script is not None]) > 1:
        raise click.UsageError("--json, --paths or -0, and --script exclude each other")
    from fovea.search.duplicates.groups import find_duplicates

    with open_library(folder) as library:
        _prepare(library)
        found = find_duplicates(library, bursts=bursts)
    if as_json:
        print_json(document(found))
    elif paths or null:
        print_paths([one.path for one in _others(found)], b"\0" if null else b"\n")
    elif script is not None:
        _write_script(found, script)
    else:
        _show(found)
    if found.waiting:
        talk(
            f"{counted(found.waiting, 'picture')} compared by content alone: offline, or fovea "
            "analyse copies is yet to run"
        )


def _prepare(library: "Library") -> None:
    """Make the signatures that are missing, where the library can be changed."""
    from fovea.indexer.analysing.analyse import analyse, has_work
    from fovea.indexer.analysing.kinds import chosen
    from fovea.search.analyses.stored import is_off
    from fovea.search.library.facts.signatures import KIND

    if is_off(library, KIND):
        talk("only equal files are found: fovea analyse --on copies switches copies on")
        return
    kinds = chosen([KIND])
    if not library.is_writable or not has_work(library, kinds):
        return
    with contextlib.suppress(LibraryBusy), analysis_bar() as progress:
        report = analyse(library, kinds, progress=progress)
        if report.stopped:
            raise click.ClickException("stopped; run the command again to go on")


def document(found: "Duplicates") -> dict[str, object]:
    """Return the JSON document of ``--json``."""
    return {
        "pictures": found.pictures,
        "waiting": found.waiting,
        "groups": [
            {
                "kind": group.kind,
                "best": _entry(group.best),
                "others": [{**_entry(one), "lacks": list(one.lacks)} for one in group.others],
            }
            for group in found.groups
        ],
    }


def _entry(one: "Duplicate") -> dict[str, object]:
    names = ("offline", "width", "height", "format", "bytes", "taken_at", "sharpness")
    fields = {name: getattr(one, name) for name in names}
    return {"id": one.image_id, **path_fields(one.path), **fields}


def _others(found: "Duplicates") -> list["Duplicate"]:
    return [one for group in found.groups for one in group.others]


def _write_script(found: "Duplicates", target: Path) -> None:
    from fovea.search.duplicates.script import script_of

    try:
        with target.open("xb") as file:
            file.writelines(script_of(found.groups))
    except OSError as exc:
        raise FoveaError(f"cannot write {printable_name(target)}: {exc.strerror}") from exc
    name = printable_name(target)
    click.echo(
        f"wrote {name}, for {counted(len(_others(found)), 'file')}; nothing has been moved. "
        f"Read it; sh {name} says what it would do"
    )


def _show(found: "Duplicates") -> None:
    for group in found.groups:
        _show_group(group)
    copies = sum(group.kind == "copies" for group in found.groups)
    said = counted(copies, "group") + " of copies"
    if len(found.groups) > copies:
        said += f", {counted(len(found.groups) - copies, 'burst')}"
    said += f" among {counted(found.pictures, 'picture')}"
    if spare := sum(group.spare for group in found.groups):
        said += f"; the others take {size_text(spare)}"
    talk(said)


def _show_group(group: "DuplicateGroup") -> None:
    from fovea.search.duplicates.best import LACKS

    mark = "best" if group.kind == "copies" else "best of burst"
    click.echo(f"{printable_name(group.best.path)}\t{_facts(group.best)}\t{mark}")
    for one in group.others:
        lacks = ", ".join(LACKS[name] for name in one.lacks) or "lacks nothing"
        click.echo(f"  {printable_name(one.path)}\t{_facts(one)}\t{lacks}")
    click.echo()


def _facts(one: "Duplicate") -> str:
    size = f"{one.width:,} x {one.height:,} " if one.width and one.height else ""
    return f"{size}{printable(one.format or 'unknown')}, {size_text(one.bytes)}"
