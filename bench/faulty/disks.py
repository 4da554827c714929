"""Full disks, two indexers, folders that vanish, files replaced while they are read, memory."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.common import apart
from fovea.indexer.scanning.pipeline import Progress
from fovea.search.errors import LibraryBusy
from fovea.search.library.library import Library

from .ground import (
    Plan,
    Started,
    Tally,
    Toy,
    child,
    draw,
    examined,
    index,
    left_behind,
    on_disk,
    shown,
    workplace,
)

SIGNS = ("full", "room", "space", "too large")  # one of them is in an error about a full disk
MEMORY_MB = 64  # by which a run may grow after its first thousand files


# Full disks


def disks_full(plan: Plan) -> Tally:
    """Index onto a disk of some size, then again with room: nothing is lost, one line is said."""
    tally = Tally()
    with workplace() as place:
        root, disk = place / "photos", place / "disk"
        for number in range(60):
            draw(root / f"{number}.png", number)
        disk.mkdir()
        need = _need(place / "measured", root)
        mounted = _mount(disk, need)
        if mounted:
            _unmount(disk)
        tally.note = "a small tmpfs" if mounted else "RLIMIT_FSIZE, since nothing can be mounted"
        for number in range(plan.count):
            size = 4096 * (1 + round((number + 0.5) / plan.count * need / 4096))
            if mounted:
                _onto_tmpfs(disk, size, root, tally)
            else:
                _within_limit(place / f"library-{number}", size, root, tally)
            tally.tried += 1
    return tally


def _need(library: Path, root: Path) -> int:
    """Index with room; return the bytes that it took, and some more."""

    def work() -> int:
        most = 0

        def note(progress: Progress) -> None:
            nonlocal most
            most = max(most, sum(path.stat().st_blocks * 512 for path in library.iterdir()))

        index(library, root, progress=note)
        return most

    ended = child(work)
    assert ended.value, ended
    return int(1.2 * ended.value)


def _mount(disk: Path, size: int) -> bool:
    if sys.platform != "linux" or os.geteuid() or not (mount := shutil.which("mount")):
        return False
    command = [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    return subprocess.run(command, capture_output=True).returncode == 0


def _unmount(disk: Path) -> None:
    subprocess.run(["umount", str(disk)], capture_output=True, check=True)


def _onto_tmpfs(disk: Path, size: int, root: Path, tally: Tally) -> None:
    assert _mount(disk, size)
    try:
        library = disk / "library"
        _judge_full(library, root, size, tally)
        more = ["mount", "-o", f"remount,size={20 << 20}", str(disk)]
        subprocess.run(more, capture_output=True, check=True)
        _then_with_room(library, root, size, tally)
    finally:
        _unmount(disk)


def _within_limit(library: Path, size: int, root: Path, tally: Tally) -> None:
    _judge_full(library, root, size, tally, limit=True)
    _then_with_room(library, root, size, tally)


def _judge_full(library: Path, root: Path, size: int, tally: Tally, limit: bool = False) -> None:
    def work() -> list[str]:
        if limit:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        index(library, root)
        return left_behind(library)

    where = f"a disk of {size} bytes"
    for _ in range(2):  # as people try again
        ended = child(work)
        if ended.failure:
            tally.add("unaccounted", f"{where}: {ended.failure}")
        elif ended.error and not any(sign in ended.error for sign in SIGNS):
            tally.add("wrong", f"{where}: does not say that the disk is full: {ended.error}")
    for name in left_behind(library) if library.is_dir() else ():
        tally.add("unaccounted", f"{where}: {name} was left behind")


def _then_with_room(library: Path, root: Path, size: int, tally: Tally) -> None:
    before = child(lambda: _shown(library)).value or []
    ended = child(lambda: bool(index(library, root)))
    where = f"after a disk of {size} bytes"
    if not ended.value:
        tally.add("unaccounted", f"{where}: {ended.failure or ended.error}")
        return
    found = child(lambda: examined(library, [root], Toy(), True)).value or {}
    tally.take(found, where)
    if gone := set(before) - set(child(lambda: _shown(library)).value or []):
        tally.add("lost", f"{where}: {len(gone)} pictures", len(gone))


def _shown(library: Path) -> list[str]:
    if not (library / "library.db").exists():
        return []
    with Library.open(library) as opened:
        return [digest.hex() for digest in shown(opened).values()]


# Two indexers


def two_indexers(plan: Plan) -> Tally:
    """Start two at once: one indexes, the other says so in a line; then all is there, once."""
    tally, rng, told = Tally(), plan.random("two indexers"), 0
    with workplace() as place:
        for number in range(plan.count):
            root, library = place / f"{number}" / "photos", place / f"{number}" / "library"
            for picture in range(30):
                draw(root / f"{picture}.png", rng.randrange(1 << 30))
            ready = time.time() + 0.3
            waits = [rng.choice((0.0, 0.0, 60.0)) for _ in range(2)]
            pair = [Started(partial(_at, ready, library, root, wait_s)) for wait_s in waits]
            ended = [one.ended() for one in pair]
            answers = [(one.value or "", one.failure or one.error) for one in ended]
            tally.tried += 1
            for value, problem in answers:
                if problem:
                    tally.add("unaccounted", f"pair {number}: {problem}")
                told += value == "busy"
            if all(value != "done" for value, _ in answers):
                tally.add("lost", f"pair {number}: neither has indexed: {answers}")
            else:
                tally.take(examined(library, [root], Toy(), True), f"pair {number}")
    tally.note = f"{told} were told that another one indexes"
    return tally


def _at(moment: float, library: Path, root: Path, wait_s: float) -> str:
    time.sleep(max(0.0, moment - time.time()))
    try:
        index(library, root, toy=Toy(slow_s=0.02), wait_s=wait_s)
    except LibraryBusy:
        return "busy"
    return "done"


# Folders that vanish


def roots_vanishing(plan: Plan) -> Tally:
    """Rename a root, or a folder in it, away during a run, and back after it."""
    tally, rng = Tally(), plan.random("roots vanishing")
    with workplace() as place:
        for number in range(plan.count):
            first, other = place / f"{number}" / "first", place / f"{number}" / "other"
            library, picture = place / f"{number}" / "library", 0
            for root in (first, other):
                for _ in range(12):
                    picture += 1
                    draw(root / "ab"[picture % 2] / f"{picture}.png", picture)
            began = time.monotonic()
            child(lambda: bool(index(library, first, other)))  # noqa: B023
            usual = time.monotonic() - began
            for _ in range(6):
                picture += 1
                draw(first / "a" / f"{picture}.png", picture)
            what = rng.choice((first, first / "a"))
            keeps_mount = what == first and rng.random() < 0.5
            with _vanishing(what, rng.uniform(0.0, usual), keeps_mount):
                before = set(_shown(library))
                ended = child(lambda: bool(index(library, first, other, toy=Toy(slow_s=0.02))))  # noqa: B023
            where = f"trial {number}, {what.name}/ away"
            tally.tried += 1
            if ended.failure or ended.error:
                tally.add("unaccounted", f"{where}: {ended.failure or ended.error}")
            gone = before - set(_shown(library))
            if what == first and gone:
                tally.add("lost", f"{where}: {len(gone)} pictures", len(gone))
            again = child(lambda: bool(index(library, first, other)))  # noqa: B023
            if not again.value:
                tally.add("unaccounted", f"back after {where}: {again.failure or again.error}")
            tally.take(examined(library, [first, other], Toy(), True), f"back after {where}")
    return tally


@contextlib.contextmanager
def _vanishing(what: Path, after_s: float, keeps_mount: bool) -> Iterator[None]:
    """Rename a folder away after a while, leaving an empty one or none; back in the end."""
    away = what.with_name(f"{what.name}-away")

    def vanish() -> None:
        time.sleep(after_s)
        what.rename(away)
        if keeps_mount:
            what.mkdir()

    vanishing = Started(vanish)
    try:
        yield
    finally:
        vanishing.ended()
        if what.is_dir():
            what.rmdir()
        away.rename(what)


# Files replaced while they are read


def files_replaced(plan: Plan) -> Tally:
    """Replace files, by renaming and in place, as fast as possible while runs read them."""
    tally, rng = Tally(), plan.random("files replaced")
    with workplace() as place:
        root, library = place / "photos", place / "library"
        files = [draw(root / f"{number}.png", number) for number in range(60)]
        replacing = Started(partial(_replace, files, place / "new.png", plan.count, rng))
        runs = 0
        while not replacing.is_done or runs < 3:
            ended = child(lambda: bool(index(library, root, alone=runs % 4 != 0)))  # noqa: B023
            runs += 1
            if ended.failure or ended.error:
                tally.add("unaccounted", f"run {runs}: {ended.failure or ended.error}")
        tally.tried = replacing.ended().value or 0
        for _ in range(2):
            child(lambda: bool(index(library, root)))
        tally.take(examined(library, [root], Toy(), True), "in the end")
        tally.note = f"during {runs} runs"
    return tally


def _replace(files: list[Path], new: Path, count: int, rng: random.Random) -> int:
    """Replace random files by random pictures, by renaming or in place; return how often."""
    for number in range(count):
        path, new = rng.choice(files), draw(new, 1000 + number)
        if rng.random() < 0.5:
            os.replace(new, path)
        else:
            _rewrite(path, new.read_bytes(), rng)
        time.sleep(0.002)
    return count


def _rewrite(path: Path, data: bytes, rng: random.Random) -> None:
    """Write other content in place, in two steps, as a copying program does."""
    with open(path, "wb", buffering=0) as file:
        half = rng.randrange(1, len(data))
        file.write(data[:half])
        file.write(data[half:])


# Memory


def memory(plan: Plan) -> Tally:
    """Index many files with processes; memory must not grow with their number."""
    tally = Tally()
    with workplace() as place:
        root, library = place / "photos", place / "library"
        for number in range(plan.count):
            draw(root / f"{number // 500}" / f"{number}.png", number)
        early, late, workers = apart(_measured, library, root)  # new: with nothing loaded before
        tally.tried = plan.count
        if late - early > MEMORY_MB:
            tally.add("wrong", f"from {early:.0f} MB to {late:.0f} MB")
        tally.note = f"{early:.0f} MB after a tenth, {late:.0f} MB at the end; "
        tally.note += f"a worker at most {workers:.0f} MB"
        missing = set(on_disk(root)) - {
            path for path in map(bytes.fromhex, child(lambda: _paths(library)).value or [])
        }
        if missing:
            tally.add("lost", f"{len(missing)} files are not shown", len(missing))
    return tally


def _paths(library: Path) -> list[str]:
    with Library.open(library) as opened:
        return [path.hex() for path in shown(opened)]


def _measured(library: Path, root: Path) -> tuple[float, float, float]:
    """Index; return memory in MB after a tenth, at the end, and the most of a worker."""
    total = sum(1 for _ in root.rglob("*.png"))
    seen: list[tuple[int, float]] = []

    def note(progress: Progress) -> None:
        seen.append((progress.done, _resident()))

    index(library, root, alone=False, batch_size=32, workers=2, progress=note)
    early = next((size for done, size in seen if done >= total // 10), seen[-1][1])
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return early, seen[-1][1], workers


def _resident() -> float:
    """Resident memory of this process, in MB."""
    try:
        text = Path("/proc/self/statm").read_text()
        return int(text.split()[1]) * resource.getpagesize() / (1 << 20)
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
