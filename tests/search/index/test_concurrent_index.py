import logging
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fovea.search.index.snapshot import read_snapshot
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import Library
from fovea.search.library.locks import exclusive
from places import CHECKOUT
from vectors import (
    DIM,
    QUERIES,
    check_answers,
    clustered,
    delete,
    exhaustive,
    opened,
    recall,
    store,
)


def test_a_second_saver_leaves_it_to_the_first(library, model):
    store(library, clustered(50, DIM))
    index = opened(library)
    with exclusive(library.folder, f"index-{model.id}"):
        assert not index.save()
    assert index.save()


def test_a_kill_while_saving_leaves_the_old_snapshot(library, model, caplog):
    vectors = clustered(300, DIM)
    ids = store(library, vectors[:100])
    opened(library).save()
    ids = np.concatenate([ids, store(library, vectors[100:], first=100)])
    script = f"""
        import os, signal
        from fovea.search.index.vector_index import VectorIndex
        from fovea.search.library.library import Library
        from fovea.search.index.snapshot import SnapshotWriter
        SnapshotWriter.publish = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        VectorIndex.open(Library.open({str(library.folder)!r}), 1).save()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=CHECKOUT)
    assert done.returncode == -9
    assert len([path for path in library.folder.iterdir() if path.suffix == ".tmp"]) >= 1
    index = opened(library)
    assert caplog.text == ""  # the old one is still believed
    assert read_snapshot(snapshot_path(library, model.id)).header.count == 100
    check_answers(index, vectors, ids)
    assert index.save()
    assert [path for path in library.folder.glob("index-*.tmp")] == []


def test_readers_see_whole_batches_while_an_indexer_writes_and_saves(library, model):
    vectors = clustered(1200, DIM)
    store(library, vectors[:300])
    problems: list[BaseException] = []

    def write():
        try:
            with Library.open(library.folder) as mine:
                index = VectorIndex.open(mine, model.id)
                for start in range(300, 1200, 30):
                    ids = store(mine, vectors[start : start + 30], first=start)
                    delete(mine, ids[:10])
                    index.save()
        except BaseException as exc:  # any error is what this test looks for
            problems.append(exc)

    writer = threading.Thread(target=write)
    writer.start()
    shared = opened(library)
    sizes = []
    while writer.is_alive():
        shared.refresh()
        fresh = opened(library)
        for index in (shared, fresh):
            found = index.search(QUERIES[:2], 5)
            assert (found.ids > 0).all() and (np.diff(found.scores) <= 0).all()
            sizes.append(len(index))
    writer.join()
    assert problems == []
    assert {(size - 300) % 30 for size in sizes} <= {0, 20, 10}
    shared.refresh()
    assert len(shared) == 300 + 30 * 20 and shared.check() == []


def test_one_index_serves_several_threads(library, model):
    vectors = clustered(500, DIM)
    ids = store(library, vectors[:400])
    index = opened(library)
    problems: list[BaseException] = []

    def serve():
        try:
            with Library.open(library.folder) as mine:
                for _ in range(20):
                    index.refresh(mine)
                    assert (index.search(QUERIES, 5).ids > 0).all()
        except BaseException as exc:  # any error is what this test looks for
            problems.append(exc)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    ids = np.concatenate([ids, store(library, vectors[400:], first=400)])
    for thread in threads:
        thread.join()
    assert problems == []
    index.refresh()
    check_answers(index, vectors, ids)


def test_a_small_library_is_searched_without_faiss(library, model):
    store(library, clustered(200, DIM))
    opened(library).save()
    script = f"""
        import sys, numpy as np
        from fovea.search.index.vector_index import VectorIndex
        from fovea.search.library.library import Library
        index = VectorIndex.open(Library.open({str(library.folder)!r}), 1)
        assert index.search(np.eye(16, dtype="f4"), 3).ids.min() > 0
        assert not {{"faiss", "torch", "PIL"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, cwd=CHECKOUT)


class IndexMachine(RuleBasedStateMachine):
    """Any order of writing, deleting, saving and opening leads to the answers of the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="fovea-index-"))
        self.library = Library.open(self.folder, create=True)
        self.library.set_model("toy", "a" * 64, DIM, "test")
        self.options = IndexOptions(exhaustive_below=200, at_once=60, share=0.1)
        self.index = VectorIndex.open(self.library, 1, options=self.options)
        self.rows: dict[int, np.ndarray] = {}
        self.written = 0

    @rule(count=st.integers(1, 120))
    def add(self, count):
        vectors = clustered(count, DIM, seed=self.written, centres=5)
        ids = store(self.library, vectors, first=self.written)
        self.rows.update(zip(ids.tolist(), vectors, strict=True))
        self.written += count

    @rule(share=st.floats(0, 1), seed=st.integers(0, 9))
    def remove(self, share, seed):
        chosen = [n for n in self.rows if np.random.default_rng(seed + n).random() < share]
        delete(self.library, np.array(chosen, int))
        for image_id in chosen:
            del self.rows[image_id]

    @rule()
    def save(self):
        self.index.save()

    @rule()
    def reopen(self):
        self.index = VectorIndex.open(self.library, 1, options=self.options)

    @rule(at=st.floats(0, 0.999))
    def damage(self, at):
        path = snapshot_path(self.library, 1)
        if path.exists():
            data = bytearray(path.read_bytes())
            data[int(at * len(data))] ^= 0xFF
            path.unlink()  # who has it open keeps it
            path.write_bytes(data)

    @invariant()
    def answers_are_right(self):
        self.index.refresh()
        assert len(self.index) == len(self.rows)
        found = self.index.search(QUERIES, 5)
        there = min(5, len(self.rows))
        assert (found.ids[:, :there] > 0).all() and (found.ids[:, there:] == -1).all()
        if there:
            ids = np.array(list(self.rows))
            vectors = np.stack(list(self.rows.values()))
            truth = ids[exhaustive(vectors, QUERIES, there)[1]]
            assert recall(found.ids[:, :there], truth) >= 0.9

    def teardown(self):
        assert self.index.check() == []
        self.library.close()
        shutil.rmtree(self.folder)


class TestAnyOrder(IndexMachine.TestCase):
    settings = settings(max_examples=12, stateful_step_count=12, deadline=None)

    def setUp(self):
        logging.getLogger("search").setLevel(logging.ERROR)

    def tearDown(self):
        logging.getLogger("search").setLevel(logging.NOTSET)
