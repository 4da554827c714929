"""Errors and deaths at every write, fsync and rename of an indexing run: commits included.

SQLite writes in C, where Python cannot interfere, so a small library is compiled and preloaded:
``shim.c`` counts the calls that concern the library's folder, and fails one of them. This needs
Linux and a C compiler.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from fovea.search.library.library import Library

from .ground import (
    CHECKOUT,
    Plan,
    Tally,
    Toy,
    child,
    draw,
    examined,
    index,
    left_behind,
    shown,
    workplace,
)

ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "a full disk": errno.ENOSPC, "death": 0}


def injected(plan: Plan) -> Tally:
    """Run the trials in a process that has the library preloaded; ``plan.count`` 0 means all."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        return Tally(note="not tried: this needs Linux and a C compiler")
    with workplace() as place:
        shim = place / "shim.so"
        source = Path(__file__).with_name("shim.c")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(shim), str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        module = [sys.executable, "-m", __name__]
        run = subprocess.run(
            [*module, str(place / "trials"), str(plan.count), str(plan.seed)],
            cwd=CHECKOUT,
            env=os.environ | {"LD_PRELOAD": str(shim)},
            capture_output=True,
            text=True,
        )
        if run.returncode:
            raise RuntimeError(run.stderr)
        return Tally(**json.loads(run.stdout.splitlines()[-1]))


def _trials(place: Path, count: int, seed: int) -> Tally:
    tally, root, before = Tally(), place / "photos", place / "before"
    _first(root)
    began = child(lambda: bool(index(before, root)))
    assert began.value, began
    _then(root)
    calls = child(lambda: _armed(_copied(before, place / "counted"), root, 0, 0, False)).value
    cases = [
        (name, place_in) for place_in in range(1, calls["calls"] + 1) for name in _kinds(place_in)
    ]
    chosen = cases if not count else Plan(count, seed).random("injected").sample(cases, count)
    for number, (name, at) in enumerate(chosen):
        library = _copied(before, place / f"{number}")
        _trial(library, root, name, at, tally)
        shutil.rmtree(library)
    tally.tried = len(chosen)
    tally.note = f"{calls['calls']} calls in a run"
    return tally


def _kinds(at: int) -> tuple[str, ...]:
    """Death at each call, and in turn one of the errors."""
    return "death", ("EIO", "ENOSPC", "a full disk")[at % 3]


def _first(root: Path) -> None:
    for number in range(8):
        draw(root / ("a" if number < 4 else "b") / f"{number}.png", number)


def _then(root: Path) -> None:
    """A move, a change, a deletion and new pictures, for the run that meets the fault."""
    (root / "a").rename(root / "c")
    draw(root / "b" / "4.png", 104)
    (root / "b" / "5.png").unlink()
    for number in range(8, 14):
        draw(root / "d" / f"{number}.png", number)


def _copied(library: Path, to: Path) -> Path:
    shutil.copytree(library, to)
    return to


def _armed(library: Path, root: Path, at: int, number: int, lasting: bool) -> dict[str, Any]:
    shim = ctypes.CDLL(None)
    shim.fault_arm(os.fsencode(library), ctypes.c_long(at), number, int(lasting))
    report = index(library, root)
    return {"calls": int(shim.fault_count()), "embedded": report.embedded}


def _trial(library: Path, root: Path, name: str, at: int, tally: Tally) -> None:
    where = f"{name} at call {at}"
    before = _contents(library)
    ended = child(lambda: _armed(library, root, at, ERRORS[name], name == "a full disk"))
    if ended.failure and not (name == "death" and "SIGKILL" in ended.failure):
        tally.add("unaccounted", f"{where}: {ended.failure}")
    if ended.error and "\n" in ended.error.strip():
        tally.add("unaccounted", f"{where}: more than one line: {ended.error!r}")
    if name != "death":  # what a killed process leaves, the next run removes
        for left in left_behind(library):
            tally.add("unaccounted", f"{where}: {left} was left behind")
    still = {(root / "b" / "5.png"), (root / "b" / "4.png")}  # deleted, changed
    lost = before - _contents(library)
    if len(lost) > len(still):
        tally.add("lost", f"{where}: {len(lost)} pictures left the answers", len(lost))
    tally.take(child(lambda: examined(library, [root], Toy(), False)).value or {}, where)
    again = child(lambda: bool(index(library, root)))
    if not again.value:
        tally.add("unaccounted", f"after {where}: {again.failure or again.error}")
    tally.take(child(lambda: examined(library, [root], Toy(), True)).value or {}, f"after {where}")


def _contents(library: Path) -> set[str]:
    """Hex SHA-256 of what a library shows."""

    def read() -> list[str]:
        with Library.open(library) as opened:
            return [digest.hex() for digest in shown(opened).values()]

    return set(child(read).value or ())


if __name__ == "__main__":
    found = _trials(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(found.__dict__))
