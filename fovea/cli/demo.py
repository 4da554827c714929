"""``fovea demo``."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fovea.search.clip.errors import FoveaError

if TYPE_CHECKING:
    pass


from .indexing import save_background
from .opening import current_model
from .options import machine_options, model_option
from .output import talk
from .progress import download_bar
from .searching import show_answer, timed_answer


@click.command()
@model_option("Embed with this model.  [default: the best on this disk, else the bundled one]")
@machine_options
def demo(name: str | None, device: str, dtype: str) -> None:
    """Index a few photographs that come with scikit-image, and answer some queries.

    Your own library is not touched.

    \b
    fovea demo
    """
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from fovea.data import demo_photographs
    from fovea.indexer.scanning.scan import index_folders
    from fovea.search.index.vector_index import VectorIndex
    from fovea.search.library.library import Library
    from fovea.search.models.resolve import best_on_disk, resolve_model
    from fovea.search.query.run import search as search_library

    photographs, queries = (
        demo_photographs(),
        ("a cat", "a motorcycle", "a cup of coffee", "grass"),
    )
    if not photographs:
        raise FoveaError("the demo needs scikit-image's pictures: pip install 'fovea[demo]'")
    model = resolve_model(name or best_on_disk(), progress=download_bar)
    if model.source == "bundled":
        talk("this is the small bundled model; a better one: fovea demo --model ViT-B/32")
    encoder = model.load(device=device, dtype=dtype)
    with (
        TemporaryDirectory(prefix="fovea-demo-") as place,
        Library.open(Path(place) / "library", create=True) as library,
    ):
        folder = _link_all(photographs, Path(place) / "photographs")
        report = index_folders(library, [folder], model=model, load_encoder=lambda: encoder)
        click.echo(f"{report.embedded} photographs embedded by {model.name}")
        save_background(library, model, device, dtype)
        vectors = VectorIndex.open(library, current_model(library).id)
        for query in queries:
            click.echo(f'\nfovea search "{query}" -k 3')
            started = time.perf_counter()
            hits = search_library(library, vectors, encoder, text=query, k=3)
            hits = [replace(hit, path=Path(hit.path).name) for hit in hits]
            show_answer(timed_answer(query, model, started, hits), as_json=False)
    click.echo("\nNow your own: fovea index FOLDER, then fovea search WORDS")


def _link_all(files: "Iterable[Path]", folder: Path) -> Path:
    import shutil

    folder.mkdir()
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return folder
