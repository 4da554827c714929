"""A library changes its model: the former one answers until the new one has embedded everything."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.scanning.scan import ModelChanged, index_folders
from fovea.indexer.switching.switch import switch_model
from fovea.search.errors import FoveaError, LibraryBusy
from fovea.search.index.vector_index import VectorIndex
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import Library
from fovea.search.maintenance.changeover import (
    cancel_change,
    changeover,
    changing,
    next_model,
    set_next_model,
)
from fovea.search.query.likelihood import Background
from places import CHECKOUT
from small_clips import write_signs
from toys import COLOURS, FORMER, NEW, THIRD, TolerantEncoder, WideEncoder, described, switch


@pytest.fixture
def indexed(library, photos):
    """The library of the eight photos, by the former model."""
    index(library, photos)
    return library


def index(library, *folders, identity=FORMER, **options):
    encoder = TolerantEncoder() if identity == FORMER else WideEncoder()
    return index_folders(
        library, folders, model=described(identity), load_encoder=lambda: encoder, workers=1,
        **options,
    )  # fmt: skip


def embedded(library, identity):
    """The names of the files whose images a model has embedded."""
    rows = library.rows(
        "SELECT path FROM files JOIN embeddings ON embeddings.image_id = files.image_id "
        "JOIN models ON models.id = model_id WHERE identity = ? AND state = 'indexed'",
        (identity,),
    )
    return {Path(os.fsdecode(path)).stem for (path,) in rows}


def test_the_new_model_embeds_everything_and_then_answers(indexed):
    encoder = WideEncoder()
    report = switch(indexed, encoder=encoder)
    assert (report.switched, report.images, report.embedded) == (True, 8, 8)
    assert indexed.model().identity == NEW and next_model(indexed) is None
    assert encoder.encoded == 8
    assert embedded(indexed, NEW) == embedded(indexed, FORMER) == set(COLOURS)
    index = VectorIndex.open(indexed, indexed.model().id)
    assert len(index) == 8 and index.check() == []


def test_the_former_model_answers_until_the_last_picture_is_embedded(indexed):
    seen = []

    def look(batch):
        with Library.open(indexed.folder) as other:
            seen.append((other.model().identity, changeover(other).embedded))

    switch(indexed, encoder=WideEncoder(look))
    assert seen == [(FORMER, 0), (FORMER, 3), (FORMER, 6)]


def test_a_picture_deleted_by_an_indexer_meanwhile_is_passed_over(indexed, monkeypatch):
    rows = indexed.rows
    path = next(path for (path,) in rows("SELECT path FROM files") if b"red" in path)

    def deleting(sql, *arguments):
        found = rows(sql, *arguments)
        if "JOIN images" in sql and found:
            with Library.open(indexed.folder) as other, other.transaction() as conn:
                conn.execute("UPDATE files SET state = 'missing' WHERE path = ?", (path,))
        return found

    monkeypatch.setattr(indexed, "rows", deleting)
    report = switch(indexed)
    assert (report.switched, report.images, report.embedded) == (True, 7, 7)
    assert embedded(indexed, NEW) == set(COLOURS) - {"red"}


def test_the_library_is_prepared_before_the_model_is_activated(indexed, tmp_path):
    there, model = [], described(NEW)
    model.folder = tmp_path
    write_signs(tmp_path, NEW, model.dim)

    class Looking(WideEncoder):
        def encode_texts(self, texts):
            model = next_model(indexed)
            there.append((indexed.model().identity, snapshot_path(indexed, model.id).exists()))
            return super().encode_texts(texts)

    switch(indexed, encoder=Looking(), model=model)
    assert set(there) == {(FORMER, True)}
    assert Background.load(indexed.folder, NEW) is not None


def test_a_switch_that_is_stopped_goes_on_where_it_ended(indexed):
    stop = threading.Event()
    report = switch(indexed, encoder=WideEncoder(lambda batch: stop.set()), stop=stop)
    assert (report.stopped, report.switched, report.embedded) == (True, False, 3)
    assert indexed.model().identity == FORMER
    under_way = changeover(indexed)
    assert (under_way.model.identity, under_way.embedded, under_way.pid) == (NEW, 3, None)
    encoder = WideEncoder()
    report = switch(indexed, encoder=encoder)
    assert report.switched and (report.embedded, encoder.encoded) == (5, 5)


KILLED = """
import os, signal, sys
sys.path[:0] = [sys.argv[1], os.path.join(sys.argv[1], "tests", "helpers")]
from fovea.search.library.library import Library
from toys import WideEncoder, switch
with Library.open(sys.argv[2]) as library:
    die = lambda batch: batch == 3 and os.kill(os.getpid(), signal.SIGKILL)
    switch(library, encoder=WideEncoder(die))
"""


def test_a_switch_that_is_killed_loses_the_batch_in_flight_at_most(indexed):
    checkout = CHECKOUT
    command = [sys.executable, "-c", KILLED, str(checkout), str(indexed.folder)]
    run = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert indexed.model().identity == FORMER
    assert changeover(indexed).embedded == 6 and changeover(indexed).pid is None
    assert switch(indexed).embedded == 2
    assert indexed.model().identity == NEW


def test_switching_back_reads_no_file_and_loads_no_model(indexed, photos, monkeypatch):
    switch(indexed)
    shutil.rmtree(photos)
    monkeypatch.setattr("fovea.indexer.switching.switch.Pool", None)

    def load():
        pytest.fail("loaded")

    for identity in (FORMER, NEW, FORMER):
        model = described(identity)
        report = switch_model(indexed, model=model, load_encoder=load)
        assert report.switched and report.embedded == 0
        assert indexed.model().identity == identity


def test_an_encoder_may_measure_with_the_pictures_of_a_change(indexed, monkeypatch):
    asked = []
    monkeypatch.setattr(WideEncoder, "adapt", lambda self: asked.append(1), raising=False)
    switch(indexed)
    assert asked == [1]


# Files that are not as they were


def test_a_changed_file_is_left_to_indexing(indexed, photos):
    Image.new("RGB", (32, 24), "orange").save(photos / "red.png")
    report = switch(indexed)
    assert (report.switched, report.embedded, report.changed) == (True, 7, 1)
    assert embedded(indexed, NEW) == set(COLOURS) - {"red"}
    report = index(indexed, identity=NEW)
    assert (report.embedded, report.unchanged) == (1, 7)
    assert embedded(indexed, NEW) == set(COLOURS)


def test_a_file_that_cannot_be_told_from_what_it_was_is_read_and_compared(indexed, photos):
    before = os.stat(photos / "red.png")
    data = (photos / "red.png").read_bytes()
    Image.new("RGB", (32, 24), "#fe0000").save(photos / "red.png")
    assert len((photos / "red.png").read_bytes()) == len(data)
    os.utime(photos / "red.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert switch(indexed).changed == 1
    assert "red" not in embedded(indexed, NEW)


def test_a_deleted_file_does_not_hold_the_switch_up(indexed, photos):
    (photos / "red.png").unlink()
    report = switch(indexed)
    assert report.switched and report.changed == 1


def test_one_copy_that_is_as_it_was_is_enough(indexed, photos):
    shutil.copy(photos / "red.png", photos / "a.png")
    shutil.copy(photos / "red.png", photos / "z.png")
    index(indexed)
    (photos / "a.png").unlink()
    Image.new("RGB", (3, 3), "orange").save(photos / "red.png")
    report = switch(indexed)
    assert (report.switched, report.embedded, report.changed) == (True, 8, 0)


def test_files_that_cannot_be_decoded_now_are_counted(indexed):
    report = switch(indexed, limits=Limits(pixels=10))
    assert (report.switched, report.failed) == (False, 8), "too many at once to leave behind"
    assert indexed.model().identity == FORMER


def test_too_many_changed_files_hold_the_switch_up_until_it_is_meant(indexed, photos):
    for colour in COLOURS[:6]:
        Image.new("RGB", (5, 5), colour).save(photos / f"{colour}.png")
    report = switch(indexed)
    assert (report.switched, report.embedded, report.changed) == (False, 2, 6)
    assert indexed.model().identity == FORMER and next_model(indexed).identity == NEW
    assert switch(indexed, incomplete=True).switched
    assert indexed.model().identity == NEW


@pytest.fixture
def second(tmp_path, indexed):
    """Another root, with one picture."""
    folder = tmp_path / "second"
    folder.mkdir()
    Image.new("RGB", (9, 9), "navy").save(folder / "navy.png")
    index(indexed, folder)
    return folder


@pytest.mark.parametrize("empty", [True, False], ids=["empty", "missing"])
def test_a_root_that_is_offline_holds_the_switch_up_until_it_is_back(indexed, second, empty):
    away = second.with_name("away")
    second.rename(away)
    if empty:
        second.mkdir()
    report = switch(indexed)
    assert (report.switched, report.unreachable, report.embedded) == (False, 1, 8)
    assert indexed.model().identity == FORMER
    if empty:
        second.rmdir()
    away.rename(second)
    report = switch(indexed)
    assert (report.switched, report.embedded) == (True, 1)


def test_what_was_left_behind_is_embedded_once_its_root_is_back(indexed, second):
    away = second.with_name("away")
    second.rename(away)
    assert switch(indexed, incomplete=True).switched
    index(indexed, identity=NEW)
    assert "navy" not in embedded(indexed, NEW)
    away.rename(second)
    assert index(indexed, identity=NEW).embedded == 1
    assert "navy" in embedded(indexed, NEW)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_files_that_may_not_be_read_now_hold_the_switch_up(indexed, photos):
    (photos / "red.png").chmod(0)
    report = switch(indexed)
    assert (report.switched, report.unreachable) == (False, 1)


def test_pictures_that_the_model_has_no_vector_for_are_counted(indexed):
    class Failing(WideEncoder):
        def encode_pixels(self, pixels):
            rows = super().encode_pixels(pixels)
            rows[pixels[:, 0, 0].tolist().index([255, 0, 0])] = np.nan
            return rows

    report = switch(indexed, encoder=Failing(), batch_size=8)
    assert (report.switched, report.embedded, report.failed) == (True, 7, 1)


def test_a_model_that_gives_no_vector_at_all_is_an_error(indexed):
    class Failing(WideEncoder):
        def encode_pixels(self, pixels):
            return np.full((len(pixels), 4), np.nan, np.float32)

    with pytest.raises(FoveaError, match="gave no embedding for any"):
        switch(indexed, encoder=Failing())
    assert indexed.model().identity == FORMER


# Others at the same time


def elsewhere(library, act):
    """Do something as another process would: with a connection of its own."""
    with Library.open(library.folder) as other:
        return act(other)


def test_what_is_indexed_meanwhile_has_both_models_embeddings_when_it_is_activated(indexed, photos):
    def add(batch):
        if batch == 1:
            Image.new("RGB", (32, 24), "navy").save(photos / "navy.png")
            assert elsewhere(indexed, index).embedded == 1

    report = switch(indexed, encoder=WideEncoder(add))
    assert (report.switched, report.embedded, report.images) == (True, 9, 9)
    assert embedded(indexed, NEW) == embedded(indexed, FORMER) == {*COLOURS, "navy"}


def test_what_is_deleted_meanwhile_is_passed_over(indexed, photos):
    def forget(batch):
        if batch == 1:
            elsewhere(indexed, lambda other: other.delete_files(map(os.fsencode, photos.iterdir())))

    report = switch(indexed, encoder=WideEncoder(forget))
    assert report.switched and report.images == 0
    assert indexed.rows("SELECT count(*) FROM embeddings") == [(0,)]


def test_activation_waits_for_whoever_indexes_and_embeds_what_that_has_added(indexed, photos):
    begun, told = threading.Event(), threading.Event()

    def index_slowly():
        def slowly(progress):
            begun.set()
            assert told.wait(30)

        with Library.open(indexed.folder) as other:
            Image.new("RGB", (32, 24), "navy").save(photos / "navy.png")
            index(other, progress=slowly)

    waited = []

    def progress(now):
        if now.waiting:
            waited.append((now.waiting, elsewhere(indexed, Library.model).identity))
            told.set()

    other = threading.Thread(target=index_slowly)
    other.start()
    assert begun.wait(30)
    report = switch(indexed, progress=progress)
    other.join()
    assert report.switched
    assert f"pid {os.getpid()}) is indexing into" in waited[0][0] and waited[0][1] == FORMER
    assert embedded(indexed, NEW) == {*COLOURS, "navy"}


def test_a_switch_that_waits_can_be_stopped(indexed):
    stop = threading.Event()
    with Library.open(indexed.folder) as other, other.writing():
        report = switch(indexed, stop=stop, progress=lambda now: now.waiting and stop.set())
    assert report.stopped and not report.switched
    assert indexed.model().identity == FORMER


def test_one_process_at_a_time_embeds(indexed):
    with (
        Library.open(indexed.folder) as other,
        changing(other),
        pytest.raises(LibraryBusy, match="is embedding for a change of model"),
    ):
        switch(indexed)


@pytest.mark.parametrize("wanted", [None, THIRD])
def test_another_decision_ends_a_switch(indexed, wanted):
    def decide(batch):
        def act(other):
            if wanted is None:
                cancel_change(other)
            else:
                model = described(wanted)
                set_next_model(other, other.add_model(model.name, wanted, model.dim, "test").id)

        elsewhere(indexed, act)

    report = switch(indexed, encoder=WideEncoder(decide))
    assert (report.superseded, report.switched, report.embedded) == (True, False, 3)
    assert indexed.model().identity == FORMER


# Indexing before and after


def test_indexing_goes_on_by_the_new_model_after_the_switch(indexed, photos):
    switch(indexed)
    Image.new("RGB", (32, 24), "navy").save(photos / "navy.png")
    report = index(indexed, identity=NEW)
    assert (report.embedded, report.unchanged) == (1, 8)
    assert "navy" in embedded(indexed, NEW) and "navy" not in embedded(indexed, FORMER)
    assert switch(indexed, FORMER).embedded == 1, "and switching back catches up"


def test_an_indexing_that_comes_after_the_switch_does_not_switch_back(indexed):
    switch(indexed)
    with pytest.raises(ModelChanged, match="uses model-d1, not model-c0"):
        index(indexed, identity=FORMER)
    assert indexed.model().identity == NEW


def test_an_empty_library_takes_the_model_at_once(library):
    report = switch(library)
    assert (report.switched, report.images) == (True, 0)
    assert library.model().identity == NEW


def test_embedding_alone_changes_nothing(indexed):
    report = switch(indexed, only_embed=True)
    assert (report.switched, report.embedded) == (False, 8)
    assert indexed.model().identity == FORMER and next_model(indexed) is None
    assert switch(indexed).embedded == 0
