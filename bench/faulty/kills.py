"""Processes killed (SIGKILL) at random moments: indexing, switching the model, removing a root."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

from fovea.indexer.switching.switch import switch_model
from fovea.search.library.library import Library
from fovea.search.maintenance.forget import forget_root

from .ground import (
    Plan,
    Tally,
    Toy,
    child,
    draw,
    examined,
    index,
    on_disk,
    state_of,
    workplace,
)

SLOW_S = 0.01  # for the toy model's batch, so that there is something to interrupt
BETWEEN = 4  # kills of one run before it may end


def kills(plan: Plan) -> Tally:
    """Half of the kills hit indexing, a quarter each switching and removing."""
    tally, rng = Tally(), plan.random("kills")
    counts = {"indexing": 0, "switching": 0, "removing": 0}
    wanted = {"indexing": plan.count // 2, "switching": plan.count // 4}
    wanted["removing"] = plan.count - sum(wanted.values())
    kinds = {"indexing": _indexing, "switching": _switching, "removing": _removing}
    with workplace() as place:
        for name, kind in kinds.items():
            while (most := wanted[name] - counts[name]) > 0:
                counts[name] += kind(place / f"{name} {most}", most, rng, tally)
    tally.tried = sum(counts.values())
    tally.note = ", ".join(f"{name} {count}" for name, count in counts.items())
    return tally


def _run(library: Path, *roots: Path) -> Any:
    """Index with processes of workers, as the program does; return the report's figures."""
    report = index(library, *roots, toy=Toy(slow_s=SLOW_S), alone=False)
    return {"held": report.held, "problems": len(report.problems)}


def _indexing(place: Path, most: int, rng: random.Random, tally: Tally) -> int:
    """Change a folder and kill the run that notices, several times; then let it end."""
    root, library, number, killed = place / "photos", place / "library", rng.randrange(1 << 30), 0
    for folder in "abc":
        for _ in range(8):
            number += 1
            draw(root / folder / f"{number}.png", number)
    began = time.monotonic()
    child(lambda: _run(library, root))
    usual = time.monotonic() - began
    while killed < min(most, 12):
        number = _change(root, number, rng)
        for _ in range(min(BETWEEN, most - killed)):
            before = set(state_of(library)["shown"].values())
            ended = child(lambda: _run(library, root), kill_after=rng.uniform(0.02, 1.2 * usual))
            killed += ended.killed
            _judge(ended, tally, "indexing")
            tally.take(examined(library, [root], Toy(), whole=False), "after a kill of indexing")
            there = {digest.hex() for digest in on_disk(root).values()}
            if gone := before & there - set(state_of(library)["shown"].values()):
                tally.add("lost", f"{len(gone)} pictures by a kill of indexing", len(gone))
        ended = child(lambda: _run(library, root))
        _judge(ended, tally, "the complete run")
        if ended.value and ended.value["held"]:
            tally.add("wrong", f"{ended.value['held']} files held back though they had only moved")
        tally.take(examined(library, [root], Toy(), whole=True), "after the complete run")
    return killed


def _change(root: Path, number: int, rng: random.Random) -> int:
    """Rename a folder, add pictures, edit one, and delete one."""
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    moved = rng.choice(folders)
    moved.rename(root / f"{moved.name[0]}{number}")
    for folder in rng.sample(sorted(root.iterdir()), 2):
        for _ in range(6):
            number += 1
            draw(folder / f"{number}.png", number)
    files = sorted(root.rglob("*.png"))
    draw(rng.choice(files), number + 1)
    rng.choice(files).unlink()
    return number + 1


def _switching(place: Path, most: int, rng: random.Random, tally: Tally) -> int:
    """Kill changes of model; one way or the other, every picture can be found by one model."""
    root, library, killed = place / "photos", place / "library", 0
    for number in range(24):
        draw(root / f"{number}.png", rng.randrange(1 << 30))
    child(lambda: _run(library, root))
    toys = [Toy(number, SLOW_S) for number in range(2, 8)]
    usual = 0.6
    for toy in toys:
        for _ in range(min(BETWEEN, most - killed)):
            ended = child(lambda: _switch(library, toy), kill_after=rng.uniform(0.02, usual))  # noqa: B023
            killed += ended.killed
            _judge(ended, tally, "switching")
            now = state_of(library)
            used = next(t for t in [Toy(), *toys] if t.identity == now["model"])
            tally.take(examined(library, [root], used, whole=False), "after a kill of switching")
            if len(now["shown"]) != 24:
                tally.add("lost", f"{24 - len(now['shown'])} pictures by a kill of switching")
        began = time.monotonic()
        ended = child(lambda: _switch(library, toy))  # noqa: B023
        usual = max(0.3, time.monotonic() - began)
        _judge(ended, tally, "the complete switch")
        if state_of(library)["model"] != toy.identity:
            tally.add("wrong", "the library keeps its former model after a complete switch")
        tally.take(examined(library, [root], toy, whole=True), "after the complete switch")
        if killed >= most:
            break
    return killed


def _switch(library: Path, toy: Toy) -> None:
    with Library.open(library) as opened:
        options = {"model": toy.info, "load_encoder": lambda: toy, "workers": 1}
        switch_model(opened, batch_size=4, wait_s=30.0, **options)  # type: ignore[arg-type]


def _removing(place: Path, most: int, rng: random.Random, tally: Tally) -> int:
    """Kill the removal of a root: it is there whole or not at all, and the other one is whole."""
    keep, gone, library, killed = place / "keep", place / "gone", place / "library", 0
    for number in range(16):
        shared = rng.randrange(1 << 30)
        draw(keep / f"{number}.png", shared)
        draw(gone / f"{number}.png", shared if number % 2 else shared + 1)
    usual = 0.08
    for _ in range(min(most, 12)):
        index_both = child(lambda: bool(index(library, keep, gone)))
        _judge(index_both, tally, "indexing again")
        began = time.monotonic()
        ended = child(lambda: _remove(library, gone), kill_after=rng.uniform(0.0, usual))
        killed += ended.killed
        if not ended.killed:
            usual = max(0.02, time.monotonic() - began)
        _judge(ended, tally, "removing")
        tally.take(examined(library, [keep, gone], Toy(), whole=False), "after a kill of removing")
        paths = [bytes.fromhex(path) for path in state_of(library)["shown"]]
        for root, fine in ((keep, (16,)), (gone, (0, 16))):
            count = sum(path.startswith(os.fsencode(root) + b"/") for path in paths)
            if count not in fine:
                tally.add("lost", f"{count} of 16 pictures are left in {root.name}/")
    return killed


def _remove(library: Path, root: Path) -> int:
    with Library.open(library) as opened:
        [known] = [entry for entry in opened.roots() if entry.path == os.fsencode(root)]
        return forget_root(opened, known.id, wait_s=30.0)


def _judge(ended: Any, tally: Tally, what: str) -> None:
    """Count a traceback, an error where none is due, and processes that outlive their parent."""
    if problem := ended.failure or ended.error:
        tally.add("unaccounted", f"{what}: {problem}")
    if ended.orphans:
        tally.add("unaccounted", f"{what}: its workers outlived it")
