import json
import os
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image

from fovea.indexer.embedding import exchange
from fovea.indexer.embedding.here import Here
from fovea.search.errors import FoveaError
from toys import ColourEncoder

NAMES = ["a.png", "b.png", "c.png", "d.png", "e.png"]


def tree(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def foreign(embed, pa):
    """Parts as clip-retrieval writes them, with a manifest that vouches for their model."""
    for kind in ("img_emb", "metadata"):
        (embed.folder / kind).mkdir(parents=True)
    for number in range(2):
        np.save(embed.folder / f"img_emb/img_emb_{number}.npy", np.eye(3, dtype="float16"))
        table = pa.table({"image_path": ["/1.png", "/2.png", "/3.png"]})
        pa.parquet.write_table(table, embed.folder / f"metadata/metadata_{number}.parquet")
    model = {name: getattr(embed.model, name) for name in ("name", "identity", "dim", "source")}
    about = {"format": "fovea embeddings", "version": 1, "model": model}
    (embed.folder / "manifest.json").write_text(json.dumps(about))


@pytest.mark.parametrize("away", ["metadata", "img_emb", "metadata/metadata_00000001.parquet"])
def test_parts_that_are_incomplete_are_left_alone(embed, photos, tmp_path, away):
    embed(photos, part=2)
    (embed.folder / away).rename(tmp_path / "away")
    before = tree(embed.folder)
    with pytest.raises(FoveaError, match="bring them back"):
        embed(photos)
    assert tree(embed.folder) == before
    (tmp_path / "away").rename(embed.folder / away)
    assert embed(photos).unchanged == 6


@pytest.mark.parametrize("lacks", [False, True])
def test_parts_of_another_program_are_left_alone(embed, photos, lacks):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet  # noqa: F401

    foreign(embed, pa)
    if lacks:
        (embed.folder / "metadata" / "metadata_1.parquet").unlink()
    before = tree(embed.folder)
    with pytest.raises(FoveaError, match="has no rows" if lacks else "no column id"):
        embed(photos)
    assert tree(embed.folder) == before


@pytest.mark.parametrize("names", [["id"], ["id", "shard"]])
def test_ids_of_another_kind_are_refused(embed, photos, names):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    embed(photos)
    path = embed.folder / "metadata" / "metadata_00000000.parquet"
    table = pa.table({name: [1, 2, 3, 4, 5] for name in names})
    pa.parquet.write_table(table, path)
    with pytest.raises(FoveaError, match="no column id"):
        embed(photos)


@pytest.mark.parametrize("folders", ["5", "null", '"/"'])
def test_folders_that_are_no_list_are_refused(embed, photos, folders):
    embed(photos)
    path = embed.folder / "manifest.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"folders": json.loads(folders)}))
    with pytest.raises(FoveaError, match="is not a manifest"):
        embed(photos)


@pytest.mark.parametrize("name", ["manifest.json", "embedding.part"])
def test_a_first_run_that_is_killed_early_can_be_repeated(embed, photos, monkeypatch, name):
    replace_file = exchange.replace_file

    def killed(path, write):
        if path.name == name:
            path.with_name(f"{name}.part").write_bytes(b"{")
            raise KeyboardInterrupt
        replace_file(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(exchange, "replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            embed(photos)
    assert embed(photos).embedded == 5


def engine(embed, after):
    """This machine, but for ``after``, which is called with the number of results so far."""

    class Engine:
        def results(self, orders):
            run = embed.run()
            size, stop = embed.model.preprocess, threading.Event()
            here = Here(size, 3, embed.load, run.limits, 1, 1, stop)
            for count, result in enumerate(one for one in here.results(orders) if one is not None):
                yield result
                after(count)

    return Engine()


@pytest.mark.parametrize("error", [FoveaError("Ray: a node went"), MemoryError("no memory")])
def test_what_is_done_is_kept_when_an_engine_fails(embed, photos, error):
    def fail(count):
        if count == 2:
            raise error

    with pytest.raises(type(error), match=str(error)):
        embed(photos, engine=engine(embed, fail))
    kept = embed.names() + embed.names("failed")
    assert len(kept) == 3
    embed(photos)
    assert sorted(embed.names()) == NAMES


def test_a_list_that_breaks_off_loses_nothing(embed, photos, monkeypatch):
    from fovea.indexer.embedding import sources

    def names(place, column):
        yield os.fsencode(photos / "a.png")
        raise FoveaError("cannot read list.parquet: gone")

    monkeypatch.setattr(sources, "names_in", names)
    report = embed(photos.parent / "list.parquet", photos / "inner")
    [(_, reason)] = report.problems
    assert "breaks off: cannot read" in reason
    assert sorted(embed.names()) == ["a.png", "d.png", "e.png"]


def test_a_run_that_is_stopped_midway_keeps_what_it_has_counted(embed, photos, monkeypatch):
    for number in range(60):
        Image.new("RGB", (8, 8), (number, 9, 9)).save(photos / f"{number:02d}.png")
    stop = threading.Event()
    encode, batches = ColourEncoder.encode_pixels, []

    def encode_and_stop(self, pixels):
        batches.append(len(pixels))
        if len(batches) == 10:
            stop.set()
        return encode(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(ColourEncoder, "encode_pixels", encode_and_stop)
        report = embed(photos, stop=stop, batch_size=1)
    assert report.stopped and 10 <= report.embedded < 65
    before = embed.names()
    assert len(before) == report.embedded
    after = embed(photos)
    assert after.embedded == 65 - report.embedded
    names = embed.names()
    assert len(names) == len(set(names)) == 65


def test_a_failure_that_stays_is_written_once(embed, tmp_path):
    source = tmp_path / "list.parquet"
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table({"url": ["memory://nowhere/x.png"]}), source)
    for _ in range(3):
        assert embed(source).failed == 1
    assert len(embed.rows("failed")) == 1


def test_what_an_engine_loses_beside_shards_is_noticed(embed, photos, tmp_path):
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for name in ("a.png", "b.png", "c.png"):
                archive.add(photos / name, arcname=name)

    class Losing:
        def __init__(self, whole):
            self.whole = whole

        def results(self, orders):
            here = engine(embed, lambda count: None)
            for result in here.results(orders):
                item = result.item
                is_lost = item.name.endswith((b"0.tar/b.png", b"inner/d.png", b"1.tar"))
                if self.whole or not is_lost:
                    yield result

    sources = photos, tmp_path / "{0..1}.tar"
    report = embed(*sources, engine=Losing(False))
    assert (report.missing, report.shards) == (3, 0)
    report = embed(*sources, engine=Losing(True))
    assert (report.missing, report.embedded, report.shards) == (0, 2, 2)
