"""Fixtures of these tests."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fovea.indexer.embedding.embed import Run, embed_into_files, embed_into_library
from fovea.indexer.embedding.sources import source_of
from fovea.indexer.embedding.taking_in import take_in
from scanner import Scanner
from toys import ColourEncoder


@pytest.fixture
def scan(library):
    return Scanner(library)


class Embedder:
    """Embed with a toy encoder, and read what was written."""

    def __init__(self, folder, model):
        self.folder, self.model, self.asked = folder, model, 0

    def load(self):
        self.asked += 1
        return ColourEncoder()

    def run(self, **options):
        return Run(self.model, self.load, workers=1, **options)

    def __call__(self, *sources, part=None, **options):
        found = [source_of(os.fspath(source)) for source in sources]
        return embed_into_files(found, self.folder, self.run(**options), part=part)

    def into(self, library, *sources, **options):
        found = [source_of(os.fspath(source)) for source in sources]
        return embed_into_library(found, library, self.run(**options))

    def taken_in(self, library, *roots, **options):
        return take_in(library, self.folder, roots, model=self.model, **options)

    def rewrite(self, number=0, vectors=None, **columns):
        """Change a part: its vectors, or the value that all of its rows have in some columns."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        path = self.folder / "metadata" / f"metadata_{number:08d}.parquet"
        table = parquet.read_table(path)
        for name, value in columns.items():
            place = table.schema.get_field_index(name)
            kind = table.schema.field(name).type
            table = table.set_column(place, name, pa.array([value] * len(table), kind))
        parquet.write_table(table, path)
        if vectors is not None:
            np.save(self.folder / "img_emb" / f"img_emb_{number:08d}.npy", vectors)

    def rows(self, kind="metadata"):
        """All rows of one kind, part after part."""
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
        files = sorted((self.folder / kind).glob("*.parquet"))
        return [row for file in files for row in parquet.read_table(file).to_pylist()]

    def names(self, kind="metadata"):
        return [os.path.basename(row["image_path"]) for row in self.rows(kind)]


@pytest.fixture
def embed(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow, of fovea[cluster], is not installed")
    from fovea.search.clip.preprocess import Preprocess

    model = SimpleNamespace(
        name="colour", identity="c0" * 32, dim=3, preprocess=Preprocess(8), source="test",
        folder=tmp_path / "no",
    )  # fmt: skip
    return Embedder(tmp_path / "embeddings", model)


@pytest.fixture
def photos(tmp_path):
    """Five pictures of one colour each, two of them in a folder, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    colours = {"a": "red", "b": "lime", "c": "blue", "inner/d": "cyan", "inner/e": "maroon"}
    for name, colour in colours.items():
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
        os.utime(folder / f"{name}.png", (1e9, 1e9))
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def filled(embed, photos):
    """The photos, embedded into three parts."""
    embed(photos, part=2)
    return embed
