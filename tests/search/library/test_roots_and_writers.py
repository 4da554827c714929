import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fovea.search.errors import LibraryBusy, LibraryError
from fovea.search.library.library import Library
from fovea.search.library.locks import exclusive
from fovea.search.library.rows import FileWrite, NewImage, WriteBatch
from places import CHECKOUT
from vectors import content, images, paths, put

pytestmark = pytest.mark.usefixtures("nothing_is_unreachable")


def test_adding_a_root_twice_gives_the_same_root(library, tmp_path):
    first = library.add_root(tmp_path)
    assert library.add_root(str(tmp_path) + "/") == first
    assert library.add_root(os.fsencode(tmp_path) + b"/x/..") == first


def test_a_root_remembers_that_it_is_offline_and_when_it_was_scanned(library):
    root = library.add_root(b"/p")
    library.set_root_state(root.id, "offline")
    library.set_root_state(root.id, "online", scanned_at="2025-01-02T03:04:05+00:00")
    library.set_root_state(root.id, "offline")
    [root] = library.roots()
    assert (root.state, root.scanned_at) == ("offline", "2025-01-02T03:04:05+00:00")


def test_removing_a_root_keeps_what_another_one_covers(library):
    outer, inner = library.add_root(b"/p"), library.add_root(b"/p/in")
    deeper = library.add_root(b"/p/in/deep")
    put(library, outer.id, b"/p/a", 1)
    put(library, inner.id, b"/p/in/b", 2)
    put(library, inner.id, b"/p/in/deep/c", 3)
    put(library, outer.id, b"/p/in/d", 4)
    assert library.remove_root(inner.id) == 0
    owners = dict(library.rows("SELECT path, root_id FROM files"))
    assert owners == {
        b"/p/a": outer.id, b"/p/in/b": outer.id, b"/p/in/d": outer.id,
        b"/p/in/deep/c": deeper.id,
    }  # fmt: skip
    assert library.remove_root(outer.id) == 3
    assert paths(library) == {b"/p/in/deep/c": "indexed"}
    assert images(library) == [3]


def test_removing_the_last_root_leaves_no_image(colour_library):
    [root] = colour_library.roots()
    assert colour_library.remove_root(root.id) == 8
    assert colour_library.roots() == []
    assert images(colour_library) == []
    assert colour_library.counts().files == {}
    assert colour_library.rows("SELECT count(*) FROM tombstones") == [(8,)]


def test_a_removed_roots_id_is_not_given_to_the_next(library):
    first = library.add_root(b"/p")
    library.remove_root(first.id)
    assert library.add_root(b"/q").id > first.id


def test_a_second_writer_is_told_who_the_first_is(library):
    script = f"""
        import sys
        from fovea.search.library.library import Library
        with Library.open({str(library.folder)!r}) as library, library.writing():
            print("locked", flush=True)
            sys.stdin.readline()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT,
    )  # fmt: skip
    with child:
        assert child.stdout.readline() == "locked\n"
        with (
            pytest.raises(LibraryBusy, match=rf"another fovea \(pid {child.pid}\)"),
            library.writing(),
        ):
            raise AssertionError("both wrote")
        child.stdin.write("\n")
        child.stdin.flush()
        with library.writing(wait_s=30):
            assert child.wait(30) == 0


def test_a_lock_that_cannot_be_taken_says_what_to_do(library):
    (library.folder / "odd.lock").mkdir()
    with (
        pytest.raises(LibraryError, match="cannot lock .*; make the folder writable, or use"),
        exclusive(library.folder, "odd"),
    ):
        pass


def test_the_lock_of_a_killed_writer_is_free(library):
    script = f"""
        import os, signal
        from fovea.search.library.library import Library
        with Library.open({str(library.folder)!r}) as library, library.writing():
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=CHECKOUT)
    assert done.returncode == -signal.SIGKILL, "it was killed while it wrote"
    with library.writing():
        assert library.add_root(b"/p").path == b"/p"


def test_two_libraries_in_one_process_exclude_each_other(library):
    with Library.open(library.folder) as other, library.writing():
        with pytest.raises(LibraryBusy), other.writing():
            raise AssertionError("both wrote")
        library.add_root(b"/p")


def test_writers_and_readers_of_several_threads_never_find_it_locked(library):
    root = library.add_root(b"/p")
    library.set_model("toy", "a" * 64, 3, "test")
    problems = []

    def write(offset: int) -> None:
        try:
            with Library.open(library.folder) as mine:
                for number in range(offset, offset + 25):
                    put(mine, root.id, b"/p/%d" % number, number)
        except Exception as exc:  # any error is the failure that this test looks for
            problems.append(exc)

    threads = [threading.Thread(target=write, args=(n * 100,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        count = library.counts()
        assert count.images >= count.embeddings or library.counts().images >= count.embeddings
    for thread in threads:
        thread.join()
    assert problems == []
    assert library.counts().files == {"indexed": 100}


def test_several_processes_may_create_one_library_at_once(tmp_path):
    script = f"""
        from fovea.search.library.library import Library
        with Library.open({str(tmp_path / "lib")!r}, create=True) as library:
            print(library.id)
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            stdout=subprocess.PIPE, text=True, cwd=CHECKOUT,
        )
        for _ in range(4)
    ]  # fmt: skip
    ids = {child.communicate(timeout=60)[0] for child in children}
    assert [child.returncode for child in children] == [0] * 4
    assert len(ids) == 1


def test_a_kill_loses_at_most_the_batch_in_flight(library):
    root = library.add_root(b"/p")
    library.set_model("toy", "a" * 64, 3, "test")
    script = f"""
        import itertools, numpy as np
        from fovea.search.library.library import Library
        from fovea.search.library.rows import FileWrite, NewImage, WriteBatch
        vector = np.array([1, 0, 0], "float32")
        with Library.open({str(library.folder)!r}) as library, library.writing():
            for batch in itertools.count():
                numbers = range(batch * 16, batch * 16 + 16)
                hashes = [n.to_bytes(32, "big") for n in numbers]
                library.write_batch(WriteBatch(
                    [NewImage(h, 1, vector=vector) for h in hashes],
                    [FileWrite(b"/p/%d" % n, {root.id}, 1, 1, h)
                     for n, h in zip(numbers, hashes)],
                ))
                print(batch, flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE, text=True, cwd=CHECKOUT,
    )  # fmt: skip
    with child:
        for line in child.stdout:
            if int(line) == 20:
                break
        child.kill()
        reported = [20, *(int(line) for line in child.stdout)]
    with Library.open(library.folder) as reopened:
        counts = reopened.counts()
        batches, rest = divmod(counts.images, 16)
        assert rest == 0
        assert batches in (reported[-1] + 1, reported[-1] + 2)
        assert counts.embeddings == counts.images == counts.files["indexed"]
        assert reopened.rows("PRAGMA integrity_check") == [("ok",)]
        assert reopened.rows("PRAGMA foreign_key_check") == []


def test_an_error_in_a_transaction_undoes_all_of_it(library):
    with pytest.raises(RuntimeError), library.transaction() as conn:
        conn.execute("INSERT INTO roots (path, added_at) VALUES (x'00', '')")
        raise RuntimeError
    assert library.roots() == []


def test_importing_the_package_imports_nothing_heavy():
    script = """
        import sys, fovea.search.library.library, fovea.search.library.rows
        assert not {"torch", "faiss", "PIL", "transformers"} & set(sys.modules), sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, cwd=CHECKOUT)


FILE_STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "missing", "present"]),
              st.integers(0, 3), st.integers(0, 3)),
    max_size=12,
)  # fmt: skip


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=FILE_STEPS)
def test_images_are_those_of_the_files_after_any_steps(library, steps):
    root = library.add_root(b"/p")
    library.delete_files([entry.path for entry in library.entries()])
    shown: dict[bytes, tuple[int, str]] = {}
    for step, place, number in steps:
        path = b"/p/%d" % place
        if step == "put":
            put(library, root.id, path, number)
            shown[path] = (number, "indexed")
        elif step == "delete":
            library.delete_files([path])
            shown.pop(path, None)
        elif path in shown:
            state = "missing" if step == "missing" else "indexed"
            (library.mark_missing if step == "missing" else library.mark_present)([path])
            shown[path] = (shown[path][0], state)
    assert paths(library) == {path: state for path, (_, state) in shown.items()}
    stored = {row[0] for row in library.rows("SELECT hash FROM images")}
    assert stored == {content(number) for number, _ in shown.values()}
    assert library.rows("SELECT count(*) FROM images") == library.rows(
        "SELECT count(*) FROM embeddings"
    )


def test_a_root_inside_another_takes_over_its_files(library):
    outer = library.add_root("/photos")
    for path in (b"/photos/a.jpg", b"/photos/trip/b.jpg", b"/photos/trip/day/c.jpg"):
        library.write_batch(WriteBatch(files=[FileWrite(path, outer.id, 1, 1, None, "failed")]))
    innermost = library.add_root("/photos/trip/day")
    inner = library.add_root("/photos/trip")
    library.add_root("/photos/trip")
    owners = dict(library.rows("SELECT path, root_id FROM files"))
    assert owners == {
        b"/photos/a.jpg": outer.id,
        b"/photos/trip/b.jpg": inner.id,
        b"/photos/trip/day/c.jpg": innermost.id,
    }


def test_a_note_changes_no_state_and_goes_when_the_file_is_back(library):
    root = library.add_root("/photos")
    write = FileWrite(b"/photos/a.jpg", root.id, 1, 1, b"h" * 32)
    library.write_batch(WriteBatch([NewImage(b"h" * 32, 1)], [write]))
    library.note([b"/photos/a.jpg"], "not found")
    assert library.rows("SELECT state, reason FROM files") == [("indexed", "not found")]
    library.mark_missing([b"/photos/a.jpg"], "deleted")
    assert library.rows("SELECT state, reason FROM files") == [("missing", "deleted")]
    library.mark_present([b"/photos/a.jpg"])
    assert library.rows("SELECT state, reason FROM files") == [("indexed", None)]
