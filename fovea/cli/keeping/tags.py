"""``fovea teach`` and ``fovea tag``: tags that people teach by examples."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fovea.cli.opening import existing_library
from fovea.cli.options import (
    FILE,
    FOLDER,
    POSITIVE,
    SubjectGroup,
    json_option,
    library_option,
    value_option,
)
from fovea.cli.output import counted, print_json, talk
from fovea.search.library.paths import path_fields, printable, printable_name

from .marks import pictures_of

if TYPE_CHECKING:
    import fovea
    from fovea.search.tags.stored import Tag

Command = TypeVar("Command", bound=Callable[..., Any])

ENOUGH = 5  # examples from which a tag is usually good


class GreedyCommand(click.Command):
    """A command whose repeatable options take all words up to the next option: --yes A B C."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        greedy = {
            name
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and param.multiple
            for name in param.opts
        }
        found: list[str] = []
        rest: list[str] = []  # words of no option
        current, is_value = None, False  # the option that takes what follows; it has one already
        for place, arg in enumerate(args):
            if arg == "--":
                rest += args[place + 1 :]
                break
            if arg.startswith("-") and len(arg) > 1:
                if current and not is_value:
                    found.append(current)  # click says what is missing
                current, is_value = (arg, False) if arg in greedy else (None, False)
                if current is None:
                    found.append(arg)
            elif current:
                found += [current, arg]
                is_value = True
            else:
                found.append(arg)
        if current and not is_value:
            found.append(current)
        return super().parse_args(ctx, [*found, "--", *rest] if rest else found)


def _files(name: str, text: str) -> Callable[[Command], Command]:
    return click.option(name, name[2:], metavar="FILE...", type=FILE, multiple=True, help=text)


@click.command(cls=GreedyCommand, short_help="Teach a tag by examples: tag:rex finds more.")
@click.argument("name")
@_files("--yes", "Pictures that have the tag.")
@_files("--no", "Pictures that have not.")
@_files("--neither", "Take back what was said of them.")
@click.option(
    "--query", metavar="FILTERS", help="Also the pictures that these filters leave have it."
)
@click.option("--suggested", is_flag=True, help="fovea tag suggest NAME named these pictures.")
@library_option
@json_option()
def teach(
    name: str,
    yes: tuple[Path, ...],
    no: tuple[Path, ...],
    neither: tuple[Path, ...],
    query: str | None,
    suggested: bool,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Say which pictures show NAME, and which do not; tag:NAME then finds others that do.

    It takes three pictures that show it, better five or more, and gets better with each that
    fovea tag suggest NAME proposes and you confirm or reject: add --suggested then, since ten such
    answers tell how many of the pictures found are right. What you say belongs to what is in the
    files: copies share it, and it outlasts moves and changes of model.

    \b
    fovea teach rex --yes rex1.jpg rex2.jpg rex3.jpg --no other-dog.jpg
    fovea search tag:rex
    """
    import fovea

    if not yes and not no and not neither and query is None:
        raise click.UsageError("nothing to teach; give --yes FILE, --no FILE or --query FILTERS")
    with fovea.Library.open(existing_library(folder)) as library:
        tag = library.teach(
            name, pictures_of(library, yes, query), no, neither, suggested=suggested
        )
    if as_json:
        print_json(tag.fields())
        return
    click.echo(_told(tag))
    if not tag.is_taught and not tag.by_label:
        talk(
            f"too few examples to find others; give {ENOUGH} pictures that show it, and index "
            "some that do not"
        )


@click.group(
    cls=SubjectGroup, alone="list", short_help="List tags, get suggestions, rename, forget."
)
def tag() -> None:
    """List tags, see which pictures to confirm or reject, rename and forget tags.

    \b
    fovea tag
    fovea tag suggest rex
    """


@tag.command("list")
@library_option
@json_option()
def list_tags(folder: Path | None, as_json: bool) -> None:
    """List the tags: pictures that have them, and what was said.

    \b
    fovea tag list
    """
    with _opened(folder) as library:
        found = library.tags()
    if as_json:
        print_json([one.fields() for one in found])
        return
    for one in found:
        click.echo(_told(one))
    if not found:
        talk("no tags yet; fovea teach NAME --yes FILE... makes one")


@tag.command(short_help="Print pictures to confirm or reject.")
@click.argument("name")
@value_option("-k", "Number of pictures of each kind.", "N", POSITIVE, 10)
@library_option
@json_option()
def suggest(name: str, k: int, folder: Path | None, as_json: bool) -> None:
    """Print pictures that probably show NAME, and those that are the least certain.

    Saying of these whether they do makes the tag better: fovea teach NAME --suggested
    --yes FILE --no FILE.

    \b
    fovea tag suggest rex
    """
    with _opened(folder) as library:
        found = library.tag_suggestions(name, k)
        paths = {
            image_id: library.paths(image_id)[0] for image_id in (*found.likely, *found.uncertain)
        }
        enough = library.tag(name).is_taught
    listed = [
        {"kind": kind, "image_id": image_id, **path_fields(paths[image_id])}
        for kind in ("likely", "uncertain")
        for image_id in getattr(found, kind)
    ]
    if as_json:
        print_json(listed)
        return
    for one in listed:
        click.echo(f"{one['kind']}\t{printable_name(paths[one['image_id']])}")
    if not enough:
        talk(f"too few examples for suggestions; fovea teach {printable(name)} --yes FILE...")


@tag.command(short_help="Tag pictures by labels: what they most probably show.")
@click.argument("labels", metavar="shipped|off|FILE")
@click.option(
    "--right", metavar="PERCENT", type=click.IntRange(1, 100), help="Labels measured to be right."
)
@library_option
def label(labels: str, right: int | None, folder: Path | None) -> None:
    """Give pictures the tag that they most probably show, now and when they are indexed.

    shipped: 514 everyday labels. FILE adds your own: a name on each line, or "name: prompt |
    prompt"; lines that begin with # are comments. off forgets all that nobody has spoken about. A
    picture gets one label, and only where labels so probable were measured to be right for the
    model: 60 % of the time, or as often as --right says, for fewer pictures. fovea teach corrects
    them.

    \b
    fovea tag label shipped
    fovea search tag:dog -tag:document
    """
    with _opened(folder) as library:
        if labels == "off":
            library.unlabel()
            click.echo("pictures get no labels any more")
            return
        count = library.label(
            None if labels == "shipped" else labels, right=None if right is None else right / 100
        )
    click.echo(f"{counted(count, 'picture')} labelled")


def _sidecar_options(command: Command) -> Command:
    command = library_option(command)
    text = "The sidecars beside the pictures, and no folder."
    command = click.option("--beside", is_flag=True, help=text)(command)
    return click.argument("target", metavar="[DIR]", type=FOLDER, required=False)(command)


@tag.command("export", short_help="Write XMP sidecars for other programs.")
@click.option("--found", is_flag=True, help="Also tags that nobody has confirmed.")
@_sidecar_options
def export_sidecars(target: Path | None, beside: bool, found: bool, folder: Path | None) -> None:
    """Write confirmed tags as keywords, and favourites as five stars, into XMP sidecars in DIR.

    DIR gets the tree of the indexed folders, and may not lie in one. Files that other programs
    wrote are left as they are, also with --beside, which writes beside the pictures. fovea's own
    are removed where there is nothing to say of the picture any more.

    \b
    fovea tag export ~/sidecars
    """
    _check_target(target, beside)
    with _opened(folder) as library:
        report = library.export_sidecars(target, beside=beside, found=found)
    click.echo(f"{counted(report.pictures, 'sidecar')} written")
    if report.removed:
        talk(f"{counted(report.removed, 'sidecar')} removed: nothing to say of these pictures now")
    if report.left:
        talk(f"{counted(report.left, 'sidecar')} of other programs left as they are")
    if report.failed:
        talk(f"{counted(report.failed, 'sidecar')} could not be written or removed")


@tag.command("import", short_help="Teach the keywords of XMP sidecars as tags.")
@_sidecar_options
def import_sidecars(target: Path | None, beside: bool, folder: Path | None) -> None:
    """Teach the keywords of the sidecars in DIR as tags; five stars make favourites.

    DIR is one that fovea tag export wrote and other programs may have changed; --beside reads the
    sidecars beside the pictures. What was said stays.

    \b
    fovea tag import --beside
    """
    from fovea.search.tags.stored import MOST

    _check_target(target, beside)
    with _opened(folder) as library:
        report = library.import_sidecars(target, beside=beside)
    new = counted(report.pictures, "picture")
    click.echo(f"{counted(report.read, 'sidecar')} read, which said something new of {new}")
    if report.refused:
        kept_out = counted(report.refused, "keyword")
        talk(f"{kept_out} ignored: a library has at most {MOST:,} tags; forget some")
    if report.failed:
        talk(f"{counted(report.failed, 'sidecar')} could not be read")


def _check_target(target: Path | None, beside: bool) -> None:
    if (target is None) != beside:
        raise click.UsageError("give a folder DIR, or --beside for sidecars beside the pictures")


@tag.command()
@click.argument("name")
@click.argument("new_name")
@library_option
def rename(name: str, new_name: str, folder: Path | None) -> None:
    """Give the tag NAME another name.

    \b
    fovea tag rename rex "Rex the dog"
    """
    with _opened(folder) as library:
        click.echo(_told(library.rename_tag(name, new_name)))


@tag.command()
@click.argument("name")
@library_option
def forget(name: str, folder: Path | None) -> None:
    """Forget the tag NAME and all that was said about it; pictures stay as they are.

    \b
    fovea tag forget rex
    """
    with _opened(folder) as library:
        library.forget_tag(name)
    click.echo(f"forgot {printable(name)}")


def _opened(folder: Path | None) -> "fovea.Library":
    import fovea

    return fovea.Library.open(existing_library(folder))


def _told(tag: "Tag") -> str:
    said = f"{tag.yes:,} yes, {tag.no:,} no"
    right = "" if not tag.is_taught and tag.right is None else ", unproven"
    if tag.is_taught and tag.right is not None and tag.pictures <= tag.yes:
        right = ", no others are likely enough"
    elif tag.right is not None:
        right = f", about {tag.right:.0%} of them right"
    return f"{printable(tag.name)}\t{counted(tag.pictures, 'picture')}{right} ({said})"
