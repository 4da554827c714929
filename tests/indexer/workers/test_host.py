import errno
import os
import socket
import subprocess
import sys

import pytest
from PIL import Image

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.workers import host
from fovea.indexer.workers.decode_pool import Renderer
from fovea.indexer.workers.host import SESSION
from fovea.indexer.workers.pool import Pool, Task
from fovea.search.clip.preprocess import Preprocess
from places import CHECKOUT
from worker_programs import running_first

PROGRAM = """
import os
from fovea.indexer.workers.host import SESSION, step_back
before = os.nice(0)
step_back(3)
print(os.nice(0) - before, *SESSION.read_text().split()[-1:] if SESSION.exists() else "")
"""
# Where the kernel groups nothing, the file is missing or empty.
weighs_sessions = pytest.mark.skipif(
    not (SESSION.exists() and SESSION.read_text()), reason="this system does not weigh sessions"
)


def levels(**options):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=CHECKOUT, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stderr
    process, _, session = done.stdout.strip().partition(" ")
    return int(process), session


@pytest.mark.skipif(not hasattr(os, "nice"), reason="this system has no niceness")
def test_a_process_steps_back():
    assert levels()[0] == 3


@weighs_sessions
def test_a_session_of_its_own_steps_back_with_it():
    process, session = levels(start_new_session=True)
    assert process == 3 and int(session) == os.nice(0) + 3


@weighs_sessions
def test_a_session_with_others_in_it_stays():
    before = SESSION.read_text().split()[-1]
    assert levels()[1] == before


def decoded(tmp_path):
    """The mean colours of some pictures, as workers decode them."""
    found = {}
    for place in range(12):
        Image.new("RGB", (20, 20), (place, 0, 0)).save(tmp_path / f"{place}.png")
    tasks = [Task(os.fsencode(path), 1) for path in tmp_path.glob("*.png")]
    with Pool(Preprocess(8), Limits(), workers=2, batch_size=4) as pool:
        for outcome in pool.outcomes(iter(tasks)):
            if outcome is not None:
                colour = pool.pixels[outcome.slot].mean(axis=(0, 1)).tolist()
                found[os.path.basename(os.fsdecode(outcome.task.path))] = colour
                pool.release(outcome.slot)
    return found


DECODED = {f"{place}.png": [place, 0, 0] for place in range(12)}


@pytest.mark.parametrize(
    "lack",
    [
        "import os; del os.nice",
        "import signal; del signal.setitimer",
        "import resource; del resource.RLIMIT_AS, resource.RLIMIT_CORE",
        # macOS: "current limit exceeds maximum limit"
        "import resource\ndef setrlimit(*limit): raise ValueError\nresource.setrlimit = setrlimit",
        # no /proc
        "import builtins\nreal = open\ndef missing(name, *rest, **options):\n"
        "    if str(name).startswith('/proc'): raise FileNotFoundError(name)\n"
        "    return real(name, *rest, **options)\nbuiltins.open = missing",
    ],
)
def test_workers_do_without_what_their_system_lacks(tmp_path, monkeypatch, lack):
    monkeypatch.setattr(host, "command", running_first(lack))
    assert decoded(tmp_path) == DECODED
    renderer = Renderer(processes=1)
    try:
        assert renderer.thumbnails((tmp_path / "1.png").read_bytes(), (8,), raw=False)[8]
    finally:
        renderer.close()


def refuse(*arguments):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_a_worker_is_held_to_its_memory_all_in_all(monkeypatch):
    limits = {}
    monkeypatch.setattr(host, "_limit", lambda name, most: limits.update({name: most}))
    monkeypatch.setattr(host, "step_back", lambda by: None)
    monkeypatch.setattr(host, "_address_space", lambda: 160 << 20)
    for memory, most in ((1024, 1024), (512, 512), (128, 160 + 64)):
        host._confine(memory << 20)
        assert limits["RLIMIT_AS"] == most << 20


def test_memory_is_shared_where_it_cannot_be_anonymous(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    assert decoded(tmp_path) == DECODED
    monkeypatch.delattr(os, "memfd_create")
    assert decoded(tmp_path) == DECODED


@pytest.mark.parametrize("most", [0, 1 << 14])
def test_connections_take_the_buffers_that_the_system_grants(tmp_path, monkeypatch, most):
    real = socket.socket.setsockopt

    def limited(self, level, option, size):
        if size > most:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        real(self, level, option, size)

    monkeypatch.setattr(socket.socket, "setsockopt", limited)
    assert decoded(tmp_path) == DECODED
