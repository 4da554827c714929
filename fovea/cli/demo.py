"""``fovea demo``."""

import shutil
from dataclasses import replace
from pathlib import Path

import click

from fovea.search.errors import FoveaError

from .options import machine_options, model_option
from .output import talk
from .progress import download_bar
from .terminal.results import show_answer

QUERIES = ("a cat", "a motorcycle", "a cup of coffee", "someone taking a photo")


@click.command(short_help="Index a few sample photographs and search them.")
@model_option("Embed with this model.  [default: the best on this disk, else the bundled one]")
@machine_options
def demo(name: str | None, device: str, dtype: str) -> None:
    """Index a few photographs from scikit-image in a temporary library, and search them.

    \b
    fovea demo
    """
    from tempfile import TemporaryDirectory

    import fovea
    from fovea.data import demo_photographs

    photographs = demo_photographs()
    if not photographs:
        raise FoveaError("the demo needs scikit-image's photographs: pip install 'fovea[demo]'")
    with (
        TemporaryDirectory(prefix="fovea-demo-") as place,
        fovea.Library.open(
            Path(place) / "library",
            create=True,
            device=device,
            dtype=dtype,
            on_download=download_bar,
        ) as library,
    ):
        folder = Path(place) / "photographs"
        folder.mkdir()
        for photograph in photographs:
            shutil.copyfile(photograph, folder / photograph.name)
        report = library.index(folder, model=name)
        if (offer := library.better_model()) and name is None:
            talk(
                f"using the small bundled model; for a better one: fovea demo --model {offer.name}"
            )
        click.echo(f"{report.embedded} photographs embedded by {library.model}")
        for query in QUERIES:
            click.echo(f'\nfovea search "{query}" -k 3')
            answer = library.search(query, k=3)
            hits = tuple(replace(hit, path=Path(hit.path).name) for hit in answer.hits)
            show_answer(replace(answer, hits=hits), as_json=False)
    click.echo('\nNow try your own pictures: fovea index FOLDER, then fovea search "WORDS"')
