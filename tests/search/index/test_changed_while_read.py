"""Files that are shortened or rewritten in place while a process reads them: nobody is ended."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from fovea.search.index.snapshot import UnusableSnapshot, read_snapshot
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.index.view import snapshot_path
from places import CHECKOUT
from vectors import clustered, store

DIM = 64
KINDS = {"exhaustive": IndexOptions(at_once=1), "ivf": IndexOptions(exhaustive_below=2000)}
DAMAGES = {
    "emptied": lambda content: b"",
    "cut in its middle": lambda content: content[: len(content) // 2],
    "cut by a byte": lambda content: content[:-1],
    "overwritten with zeros": lambda content: bytes(len(content)),
    "overwritten with another's vectors": lambda content: content[:4096] + content[4096:][::-1],
}
PROGRAM = """
    import json, sys
    from pathlib import Path
    import numpy as np
    from fovea.search.index.vector_index import IndexOptions, VectorIndex
    from fovea.search.library.library import Library

    with Library.open(Path({folder!r})) as library:
        index = VectorIndex.open(library, {model}, options=IndexOptions({below}))
        queries = np.load({queries!r})
        for _ in sys.stdin:
            found = index.search(queries, 20)
            print(json.dumps([index.kind, found.ids.tolist(), index.check()]), flush=True)
"""


def overwrite(path: Path, content: bytes) -> None:
    """Change a file in place, as ``truncate``, ``cp`` and ``rsync --inplace`` do."""
    with path.open("r+b") as file:
        file.truncate(len(content))
        file.write(content)


@pytest.mark.parametrize("kind", KINDS)
def test_a_searching_process_survives_with_right_answers(library, tmp_path, kind):
    model = library.set_model("wide", "d" * 64, DIM, "test")
    count = 3000
    vectors = clustered(count, DIM)
    store(library, vectors)
    options = KINDS[kind]
    index = VectorIndex.open(library, model.id, options=options)
    index.save()
    path = snapshot_path(library, model.id)
    whole = path.read_bytes()
    assert index.kind == kind and len(whole) > count * DIM * 2
    np.save(tmp_path / "queries.npy", vectors[:40])
    program = textwrap.dedent(PROGRAM).format(
        folder=str(library.folder), model=model.id, queries=str(tmp_path / "queries.npy"),
        below="" if kind == "exhaustive" else "exhaustive_below=2000",
    )  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT,
    )  # fmt: skip
    with child:
        child.stdin.write("\n")
        child.stdin.flush()
        before = child.stdout.readline()
        assert before.startswith(f'["{kind}"') and before.endswith(", []]\n")
        for name, damage in DAMAGES.items():
            overwrite(path, damage(whole))
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == before, f"after the snapshot was {name}"
            overwrite(path, whole)
        child.stdin.close()
        assert child.wait(60) == 0


@pytest.mark.parametrize("name", DAMAGES)
def test_a_snapshot_that_changes_as_it_is_read_is_refused(library, monkeypatch, name):
    import os

    model = library.set_model("wide", "d" * 64, DIM, "test")
    store(library, clustered(300, DIM))
    VectorIndex.open(library, model.id, options=IndexOptions(at_once=1))
    path = snapshot_path(library, model.id)
    content, real, calls = path.read_bytes(), os.preadv, []

    def late(descriptor, buffers, offset):
        if not calls:  # after its header and its size have been read
            overwrite(path, DAMAGES[name](content))
        calls.append(offset)
        return real(descriptor, buffers, offset)

    monkeypatch.setattr("fovea.search.index.snapshot.os.preadv", late)
    with pytest.raises(UnusableSnapshot):
        read_snapshot(path)
    assert calls


def test_what_has_been_read_cannot_be_changed(library):
    model = library.set_model("wide", "d" * 64, DIM, "test")
    store(library, clustered(300, DIM))
    VectorIndex.open(library, model.id, options=IndexOptions(at_once=1))
    rows = read_snapshot(snapshot_path(library, model.id)).rows
    with pytest.raises(ValueError, match="read-only"):
        rows.vectors[0] = 0
    assert rows.vectors.ctypes.data % 64 == 0
