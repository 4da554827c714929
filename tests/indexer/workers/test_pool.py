"""Workers decode apart, without torch, and whoever is late, too large or dead is replaced."""

import hashlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fovea.indexer.decoding.limits import MB, Limits
from fovea.indexer.workers import host
from fovea.indexer.workers.pool import Pool, Task, WorkersError
from fovea.search.clip.preprocess import Preprocess
from places import CHECKOUT
from worker_programs import running_first

PREPROCESS = Preprocess(16)


def png(path, colour="red", size=(20, 20)):
    Image.new("RGB", size, colour).save(path)
    return os.fsencode(path)


def slow_jpeg(path, scans=3000):
    """A progressive JPEG that takes many seconds to decode."""
    file = io.BytesIO()
    Image.new("L", (6000, 6000), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    path.write_bytes(data[:-2] + data[last:-2] * scans + b"\xff\xd9")
    return os.fsencode(path)


def run(paths, *, limits=None, workers=1, batch_size=4, known=(), **changes):
    """Put the files through a pool; return path -> (outcome, reason, mean colour)."""
    found = {}
    limits = limits or Limits()
    with Pool(PREPROCESS, limits, workers=workers, batch_size=batch_size, known=known) as pool:
        for outcome in pool.outcomes(iter([Task(path, 1, **changes) for path in paths])):
            if outcome is None:
                continue
            mean = None
            if outcome.slot is not None:
                mean = pool.pixels[outcome.slot].mean(axis=(0, 1)).round().tolist()
                pool.release(outcome.slot)
            found[outcome.task.path] = (outcome.outcome, outcome.reason, mean)
    return found


def test_pixels_come_back_for_every_file(tmp_path):
    colours = {png(tmp_path / f"{n}.png", (n, 0, 255 - n)): n for n in range(60)}
    found = run(colours, workers=2)
    assert {path: mean for path, (_, _, mean) in found.items()} == {
        path: [n, 0, 255 - n] for path, n in colours.items()
    }


def test_what_is_known_of_a_file_comes_back_with_it(tmp_path):
    path = png(tmp_path / "a.png", size=(40, 30))
    content = Path(os.fsdecode(path)).read_bytes()
    with Pool(PREPROCESS, Limits(), workers=1, batch_size=1) as pool:
        [outcome] = [found for found in pool.outcomes(iter([Task(path, 7)])) if found]
    status = os.stat(path)
    assert outcome.hash == hashlib.sha256(content).digest()
    assert (outcome.size, outcome.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert (outcome.bytes, outcome.task.root_id) == (len(content), 7)
    assert (outcome.facts["width"], outcome.facts["height"]) == (40, 30)
    assert outcome.facts["format"] == "PNG"


def test_known_contents_are_not_decoded_unless_forced(tmp_path):
    broken = tmp_path / "a.jpg"
    broken.write_bytes(b"nothing that could be decoded")
    path, digest = os.fsencode(broken), hashlib.sha256(broken.read_bytes()).digest()
    others = [bytes([number]) * 32 for number in range(256)]
    assert run([path], known=[digest, *others]) == {path: ("known", None, None)}
    assert run([path], known=[digest], force=True)[path][0] == "failed"
    assert run([path], known=others)[path][0] == "failed"


def test_a_late_worker_is_replaced_and_only_its_file_fails(tmp_path):
    slow = slow_jpeg(tmp_path / "slow.jpg")
    fine = [png(tmp_path / f"{n}.png") for n in range(6)]
    found = run([fine[0], slow, *fine[1:]], limits=Limits(seconds=1.5, scans=10**6))
    assert found[slow][:2] == ("failed", "too slow: not decoded within 1.5 seconds")
    assert all(found[path][0] == "pixels" for path in fine)


def test_a_worker_that_grows_too_large_loses_only_its_file(tmp_path):
    large = tmp_path / "large.png"
    Image.new("1", (9000, 9000)).save(large)  # 81 MB as one byte a pixel, 324 MB as RGB
    fine = png(tmp_path / "fine.png")
    found = run([os.fsencode(large), fine], limits=Limits(memory=128 * MB))
    outcome, reason, _ = found[os.fsencode(large)]
    assert (outcome, reason) == ("failed", "too large: decoding needs more than 128 MB of memory")
    assert found[fine][0] == "pixels"


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """Have workers note what they begin with; return (process id, path) of each, in order."""
    notes = tmp_path / "begun"

    def start(growth=host.GROWTH):
        notes.write_bytes(b"")
        program = (
            "import os\nfrom fovea.indexer.workers import host, worker\n"
            f"host.GROWTH, answer = {growth}, worker.Worker.answer\n"
            "def noted(self, request, path):\n"
            f"    with open({str(notes)!r}, 'ab') as file:\n"
            "        file.write(b'%d %s\\n' % (os.getpid(), path))\n"
            "    return answer(self, request, path)\n"
            "worker.Worker.answer = noted"
        )
        monkeypatch.setattr(host, "command", running_first(program))

    def read():
        lines = [line.split(b" ", 1) for line in notes.read_bytes().splitlines()]
        return [(int(pid), path) for pid, path in lines]

    read.start = start
    start()
    return read


@pytest.mark.parametrize(("growth", "workers"), [(1, 1), (-1, 4)])
def test_a_worker_that_stays_large_is_replaced_and_nothing_is_lost(
    tmp_path, begun, growth, workers
):
    begun.start(growth)
    paths = [png(tmp_path / f"{n}.png") for n in range(4)]
    assert {outcome for outcome, _, _ in run(paths).values()} == {"pixels"}
    assert len({pid for pid, _ in begun()}) == workers


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGSEGV, "broken: its decoder crashed (SIGSEGV)"),
        (signal.SIGKILL, "too large: the system ended its decoder"),
    ],
)
def test_a_worker_that_dies_is_replaced(tmp_path, begun, number, reason):
    slow = slow_jpeg(tmp_path / "slow.jpg")
    fine = png(tmp_path / "fine.png")
    found, tasks = {}, [Task(slow, 1), Task(fine, 1)]
    with Pool(PREPROCESS, Limits(seconds=60, scans=10**6), workers=1, batch_size=4) as pool:
        for outcome in pool.outcomes(iter(tasks)):
            if outcome is not None:
                found[outcome.task.path] = outcome
            elif slow not in found and (pool.process_ids[:1], slow) in [
                ([pid], path) for pid, path in begun()
            ]:
                os.kill(pool.process_ids[0], number)
    assert found[slow].outcome == "failed" and found[slow].reason.startswith(reason)
    assert found[fine].outcome == "pixels"


def test_a_file_that_has_vanished_is_gone(tmp_path):
    path = os.fsencode(tmp_path / "a.png")
    assert run([path]) == {path: ("gone", None, None)}


def test_few_files_start_few_workers(tmp_path):
    paths = [png(tmp_path / f"{n}.png") for n in range(4)]
    with Pool(PREPROCESS, Limits(), workers=8, batch_size=4) as pool:
        most = 0
        for outcome in pool.outcomes(Task(path, 1) for path in paths):
            most = max(most, len(pool.process_ids))
            if outcome is not None:
                pool.release(outcome.slot)
    assert most == 1


def test_slots_kept_hold_the_tasks_back(tmp_path):
    path = png(tmp_path / "a.png")
    drawn = 0

    def tasks():
        nonlocal drawn
        while True:
            drawn += 1
            yield Task(path, 1)

    with Pool(PREPROCESS, Limits(), workers=1, batch_size=2) as pool:
        kept = 0
        for outcome in pool.outcomes(tasks()):
            kept += outcome is not None
            if kept == pool.slots:
                break
        assert drawn == kept


def test_a_widened_pool_lets_its_caller_hold_more(tmp_path):
    paths = [png(tmp_path / f"{n}.png", (n, 0, 0)) for n in range(100)]
    held = {}
    with Pool(PREPROCESS, Limits(), workers=1, batch_size=2) as pool:
        tasks = iter([Task(path, 1) for path in paths])
        for outcome in pool.outcomes(tasks):
            if outcome is None:
                if len(held) < 100:  # all slots are taken
                    pool.widen(60)
                continue
            held[outcome.slot] = outcome.task.path
        assert len(held) == 100  # none was handed out twice
        for slot, path in held.items():
            assert pool.pixels[slot, 0, 0, 0] == paths.index(path)


def test_workers_import_no_torch(tmp_path):
    program = (
        "import sys; from fovea.indexer.decoding.pillow import prepare; "
        "import fovea.indexer.workers.worker, fovea.indexer.decoding.raw; "
        "prepare(); print(sorted({'torch', 'faiss', 'transformers', 'sqlite3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    with Pool(PREPROCESS, Limits(), workers=1, batch_size=1) as pool:
        for outcome in pool.outcomes(iter([Task(png(tmp_path / "a.png"), 1)])):
            if outcome is not None:
                maps = Path(f"/proc/{pool.process_ids[0]}/maps").read_text()
    assert "torch" not in maps and "numpy" in maps


def test_the_callers_main_module_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n"
        "print('once', flush=True)\n"
        "from fovea.indexer.workers.pool import *\n"
        f"task = Task({png(tmp_path / 'a.png')!r}, 1)\n"
        "with Pool(Preprocess(16), Limits(), workers=1, batch_size=1) as pool:\n"
        "    print([o.outcome for o in pool.outcomes(iter([task])) if o])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["once", "['pixels']"]
    assert done.stderr == ""


def test_workers_that_cannot_start_are_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "command", running_first("raise SystemExit('no such library')"))
    with pytest.raises(WorkersError, match="cannot start a worker process: no such library"):
        run([png(tmp_path / "a.png")])


def test_nothing_is_left_behind(tmp_path):
    descriptors = len(os.listdir("/proc/self/fd"))
    path = png(tmp_path / "a.png")
    with Pool(PREPROCESS, Limits(), workers=1, batch_size=1) as pool:
        for outcome in pool.outcomes(iter([Task(path, 1)])):
            ids = pool.process_ids
            assert outcome is None or isinstance(pool.pixels, np.ndarray)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    for process_id in ids:
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)
