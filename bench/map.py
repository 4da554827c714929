"""Measure how long maps take to lay out, how true they are, and how smoothly the page moves them.

    python bench/map.py [--images 100000] [--library FOLDER] [--page]

Without a library, one of generated clustered vectors (bench/common.py) is made, and its map laid
out as fovea does. Kept: of a picture's 10 (100) nearest pictures by embedding, how many are among
the 10 (100) nearest on the map. Trustworthiness (Venna and Kaski 2001, ICANN) is 1 where the 10
nearest on the map are all near by embedding, and 0.5 by chance. The same of the first two principal
components is the baseline. ``--page`` opens the map in Chromium, pans and zooms it by script, and
counts the frames and how long drawing one takes.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from bench.common import clustered

ASKED = 500  # pictures whose neighbours are looked at
NEAR = 10
# Pans and zooms for so many milliseconds; how long each frame took, and how long the script drew.
MOVES = """(milliseconds) => new Promise((done) => {
    const stage = document.querySelector(".map-over");
    const { left, top, width, height } = stage.getBoundingClientRect();
    const at = (x, y) => ({ clientX: left + x, clientY: top + y, bubbles: true, pointerId: 1 });
    const frames = [];
    const started = performance.now();
    let last = started;
    const step = (now) => {
        frames.push(now - last);
        last = now;
        const part = (now - started) / milliseconds;
        if (part >= 1) return done(frames);
        const x = width / 2 + Math.cos(part * 40) * width / 5;
        const y = height / 2 + Math.sin(part * 40) * height / 5;
        const turn = part < 0.5 ? -24 : 24;
        const wheel = { ...at(x, y), deltaY: turn, cancelable: true };
        stage.dispatchEvent(new WheelEvent("wheel", wheel));
        requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
})"""


def main() -> None:
    """Print one line for each measurement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--library", type=Path, help="an indexed one; its map is made anew")
    parser.add_argument("--page", action="store_true", help="measure the page in Chromium, too")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as place:
        folder = options.library or generated(Path(place), options.images)
        measure(folder)
        if options.page:
            measure_page(folder)


def generated(folder: Path, images: int) -> Path:
    """Make a library of clustered vectors, 512 wide; its files do not exist."""
    from fovea.search.library.library import Library
    from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch

    with Library.open(folder / "library", create=True) as library:
        model = library.set_model("random", "0" * 64, 512, "random")
        root = library.add_root(folder / "pictures")
        number = 0
        for rows in clustered(images, images, 512, 1):
            new, files = [], []
            for row in rows:
                digest = np.random.default_rng(number).bytes(32)
                path = os.fsencode(folder / "pictures" / f"{number}.jpg")
                new.append(NewImage(digest, 1, ImageMetadata(640, 480, "JPEG"), row))
                files.append(FileWrite(path, root.id, 1, 0, digest))
                number += 1
            library.write_batch(WriteBatch(new, files, model.id))
    return folder / "library"


def measure(folder: Path) -> None:
    """Lay the map out, and compare it with the principal components."""
    from fovea.search.library.library import Library
    from fovea.search.mapping.build import MapProgress, build_map, current_map

    steps: dict[str, float] = {}

    def note(now: MapProgress) -> None:
        steps.setdefault(now.step, time.perf_counter())

    with Library.open(folder) as library:
        started, busy = time.perf_counter(), time.process_time()
        found = build_map(library, progress=note)
        took, busy = time.perf_counter() - started, time.process_time() - busy
        began = [*steps.values(), started + took]
        parts = ", ".join(
            f"{name} {after - before:.1f} s"
            for name, before, after in zip(steps, began[:-1], began[1:], strict=True)
        )
        print(f"{len(found):,} pictures, {len(found.landmarks):,} landmarks: {took:.1f} s", end="")
        print(f" ({busy:.1f} s of one core): {parts}", flush=True)
        started = time.perf_counter()
        current_map(library)
        print(f"opened in {time.perf_counter() - started:.2f} s", flush=True)
        rows = library.rows("SELECT image_id, vector FROM embeddings ORDER BY image_id")
    kept = np.isin([number for number, _ in rows], found.image_ids)
    vectors = np.frombuffer(b"".join(v for _, v in rows), "<f2").reshape(len(rows), -1)[kept]
    named = sum(bool(one.names) for one in found.clusters)
    print(f"{named} of {len(found.clusters)} clusters have names")
    report("map", vectors, found.positions.astype(np.float32))
    apart = found.landmarks.astype(np.float32)
    _, _, axes = np.linalg.svd(apart - apart.mean(axis=0), full_matrices=False)
    report("principal components", vectors, vectors.astype(np.float32) @ axes[:2].T)


def report(name: str, vectors: np.ndarray, places: np.ndarray) -> None:
    """Print how true a layout (n, 2) is to embeddings (n, d)."""
    rng, count = np.random.default_rng(0), len(vectors)
    asked = rng.choice(count, min(ASKED, count), replace=False)
    kept: dict[int, list[float]] = {NEAR: [], 10 * NEAR: []}
    wrong = 0.0
    for at in asked.tolist():
        alike = np.argsort(-(vectors.astype(np.float32) @ vectors[at].astype(np.float32)))
        alike = alike[alike != at]
        away = ((places - places[at]) ** 2).sum(axis=1)
        away[at] = np.inf
        near = np.argsort(away, kind="stable")
        for k, shares in kept.items():
            shares.append(float(np.isin(alike[:k], near[:k]).mean()))
        rank = np.empty(count, np.int64)
        rank[alike] = np.arange(1, count)
        wrong += float(np.maximum(rank[near[:NEAR]] - NEAR, 0).sum())
    trust = 1 - 2 * wrong / (len(asked) * NEAR * (2 * count - 3 * NEAR - 1))
    said = ", ".join(f"kept {np.mean(found):.3f} of {k}" for k, found in kept.items())
    print(f"{name}: {said}, trustworthiness {trust:.3f}", flush=True)


def measure_page(folder: Path) -> None:
    """Open the map in Chromium, and move it."""
    from browsing import launched, served

    with launched() as browser, served(folder) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        started = time.perf_counter()
        page.goto(f"{address}/map")
        page.wait_for_selector(".map[data-points]")
        print(f"page with its map after {time.perf_counter() - started:.2f} s")
        session = context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = busy(session)
        found: Any = page.evaluate(MOVES, 6000)
        after = busy(session)
        frames = np.array(found[1:])
        late = (frames > 1000 / 60 * 1.5).mean()
        slow = np.quantile(frames, 0.95)
        print(f"{1000 / frames.mean():.0f} frames a second, 95 % within {slow:.1f} ms", end="")
        print(f", {100 * late:.1f} % late")
        spent = 1000 * (after - before) / len(frames)
        print(f"{spent:.1f} ms of the page's processor time for each frame, of {1000 / 60:.1f}")


def busy(session: Any) -> float:
    """Return the seconds of processor time that the page's thread has taken so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


if __name__ == "__main__":
    main()
