"""``fovea map``: lay the map of a library out, and say what is on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.cli.opening import existing_library, open_library
from fovea.cli.options import SubjectGroup, json_option, library_option
from fovea.cli.output import counted, print_json, talk
from fovea.cli.progress import map_bar

if TYPE_CHECKING:
    from fovea.search.mapping.clusters import Cluster
    from fovea.search.mapping.stored import PictureMap

SHOWN = 2  # levels of clusters that are printed


@click.group("map", cls=SubjectGroup, alone="status")
def maps() -> None:
    """Lay pictures out by likeness, and list the clusters.

    The page shows the map: fovea serve, then /map.

    \b
    fovea map build
    """


@maps.command()
@library_option
@json_option()
def build(folder: Path | None, as_json: bool) -> None:
    """Lay the map out anew, from all pictures.

    It takes up to two minutes for 100,000 pictures. New pictures are placed on the map without
    that, and move no other. Needs scikit-learn: pip install "fovea[map]".

    \b
    fovea map build
    """
    import fovea

    with fovea.Library.open(existing_library(folder)) as library, map_bar() as progress:
        found = library.map(anew=True, progress=progress)
    assert found is not None
    _show(found, as_json)


@maps.command()
@library_option
@json_option()
def status(folder: Path | None, as_json: bool) -> None:
    """Say whether there is a map, and list its clusters.

    A cluster is named by the labels that set it apart from the library; "-" stands for none.

    \b
    fovea map status
    """
    import fovea

    with fovea.Library.open(existing_library(folder)) as library:
        found = library.map(build=False)
    if found is not None:
        _show(found, as_json)
    elif as_json:
        print_json({"pictures": 0, "laid_out": None, "outgrown": False, "clusters": []})
    else:
        talk("there is no map yet; to lay it out: fovea map build")


@maps.command()
@library_option
def remove(folder: Path | None) -> None:
    """Delete the map; it can be laid out again.

    \b
    fovea map remove
    """
    from fovea.search.mapping.build import remove_maps

    with open_library(folder) as library:
        removed = remove_maps(library)
    click.echo("removed the map" if removed else "there was no map")


def _show(found: "PictureMap", as_json: bool) -> None:
    if as_json:
        print_json(_document(found))
        return
    clusters = counted(len(found.clusters), "cluster")
    click.echo(f"map\t{counted(len(found), 'picture')} in {clusters}")
    for cluster in _in_order(found.clusters):
        if cluster.level < SHOWN and cluster.count:
            names = ", ".join(cluster.names) or "-"
            click.echo(f"{'  ' * cluster.level}{cluster.count:,}\t{'  ' * cluster.level}{names}")
    if found.is_outgrown:
        talk("most pictures have come since the map was laid out; to do so anew: fovea map build")


def _document(found: "PictureMap") -> dict[str, Any]:
    return {
        "pictures": len(found),
        "laid_out": found.laid_out,
        "outgrown": found.is_outgrown,
        "clusters": [
            {
                "id": one.id,
                "level": one.level,
                "parent": one.parent,
                "names": list(one.names),
                "count": one.count,
                "x": one.x,
                "y": one.y,
                "radius": one.radius,
                "image_id": one.image_id,
            }
            for one in found.clusters
        ],
    }


def _in_order(clusters: "tuple[Cluster, ...]", parent: int | None = None) -> "list[Cluster]":
    """Return clusters as a list in which each is followed by those within it."""
    found = []
    for one in clusters:
        if one.parent == parent:
            found += [one, *_in_order(clusters, one.id)]
    return found
