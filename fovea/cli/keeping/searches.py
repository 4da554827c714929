"""``fovea searches``: saved searches."""

from pathlib import Path

import click

from fovea.cli.opening import existing_library, searchable
from fovea.cli.options import SubjectGroup, json_option, k_option, library_option, machine_options
from fovea.cli.output import print_json
from fovea.cli.terminal.results import show_answer
from fovea.search.library.paths import printable


@click.group(cls=SubjectGroup, alone="list")
def searches() -> None:
    """List the saved searches, run one, or change them.

    \b
    fovea searches save "Beach days" "beach -people"
    fovea searches run "Beach days"
    """


@searches.command("list")
@library_option
@json_option()
def list_searches(folder: Path | None, as_json: bool) -> None:
    """List the saved searches: name and query.

    \b
    fovea searches list
    """
    import fovea

    with fovea.Library.open(existing_library(folder)) as library:
        found = library.saved_searches()
    if as_json:
        print_json(
            [{"name": one.name, "query": one.query, "saved_at": one.saved_at} for one in found]
        )
        return
    for one in found:
        click.echo(f"{printable(one.name)}\t{printable(one.query)}")


@searches.command("run", short_help="Print the pictures that NAME finds.")
@click.argument("name")
@k_option
@library_option
@machine_options
@json_option()
def run_search(
    name: str, k: int, folder: Path | None, device: str, dtype: str, as_json: bool
) -> None:
    """Print the pictures that the saved search NAME finds, as fovea search does.

    \b
    fovea searches run "Beach days" -k 20
    """
    with searchable(folder, device, dtype) as library:
        show_answer(library.search(library.saved_search(name).query, k=k), as_json)


@searches.command(
    "save",
    short_help="Save QUERY under NAME.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("name")
@click.argument("query")
@library_option
def save_search(name: str, query: str, folder: Path | None) -> None:
    """Save QUERY under NAME; its words and filters are those of fovea search.

    \b
    fovea searches save Portraits "is:portrait is:favourite"
    """
    import fovea

    with fovea.Library.open(existing_library(folder)) as library:
        made = library.save_search(name, query)
    click.echo(f"saved {printable(made.name)}")


@searches.command("edit")
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="A new name.")
@click.option("--query", metavar="QUERY", help="A new query.")
@click.option("--place", metavar="N", type=click.IntRange(min=1), help="Where in the list, from 1.")
@library_option
def edit_search(
    name: str, new_name: str | None, query: str | None, place: int | None, folder: Path | None
) -> None:
    """Change the name, the query or the place of the saved search NAME.

    \b
    fovea searches edit Portraits --name "Best portraits" --place 1
    """
    import fovea

    if new_name is None and query is None and place is None:
        raise click.UsageError("nothing to change; give --name, --query or --place")
    with fovea.Library.open(existing_library(folder)) as library:
        at = None if place is None else place - 1
        made = library.edit_search(name, new_name=new_name, query=query, place=at)
    click.echo(f"{printable(made.name)}\t{printable(made.query)}")


@searches.command("delete")
@click.argument("name")
@library_option
def delete_search(name: str, folder: Path | None) -> None:
    """Delete the saved search NAME.

    \b
    fovea searches delete Portraits
    """
    import fovea

    with fovea.Library.open(existing_library(folder)) as library:
        library.delete_search(name)
    click.echo(f"deleted {printable(name)}")
