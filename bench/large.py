"""Make a large library with plausible rows: folders, dates, cameras, places, copies, failures.

    python bench/large.py FOLDER [--images 1000000]

The files need not exist and do not. Embeddings are generated in clusters, as wide as the bundled
model's. Everything is written by the library's own writer, 10,000 pictures at a time, then the
index and the background, as indexing does; a library that is there already is kept. A million
pictures take 2.5 GB of disk.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import apart, clustered
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.rows import FileState, FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.models.resolve import resolve_model
from fovea.search.query.likelihood import Background
from fovea.search.query.measured import measured_in

__all__ = ["MODEL", "large_library", "prepare"]

MODEL = "fovea-small"
DONE = "complete"  # a file that says so

# Camera, its share of the pictures, the years of its pictures, width and height, format.
CAMERAS = (
    ("Canon EOS 350D DIGITAL", 0.10, (2005, 2010), 3456, 2304, "JPEG"),
    ("NIKON D90", 0.12, (2009, 2015), 4288, 2848, "JPEG"),
    ("Canon EOS 6D", 0.20, (2013, 2020), 5472, 3648, "JPEG"),
    ("SONY ILCE-7M3", 0.15, (2018, 2026), 6000, 4000, "JPEG"),
    ("Apple iPhone 6s", 0.13, (2015, 2019), 4032, 3024, "JPEG"),
    ("Apple iPhone 13", 0.20, (2021, 2026), 4032, 3024, "HEIF"),
    (None, 0.10, (2008, 2026), 1600, 1200, "PNG"),
)
EVENTS = ("Wedding", "Beach", "Mountains", "Birthday", "Garden", "City", "Zoo", "Christmas")
TOWNS = ("Wien", "Paris", "北京", "Zürich", "Lisboa", "New York", "Kyōto", "Graz")
HOUR_NS = 3_600_000_000_000


def main() -> None:
    """Make the library, and say how long it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1_000_000)
    options = parser.parse_args()
    large_library(options.folder, options.images)


def large_library(folder: Path, count: int) -> Path:
    """Return the library in ``folder``, made unless it is there. Exit if it has another size."""
    place, mark = folder / "library", folder / DONE
    if mark.exists():
        if (found := mark.read_text()) != str(count):
            raise SystemExit(f"{folder} has a library of {found} pictures; choose another folder")
        return place
    folder.mkdir(parents=True, exist_ok=True)
    for work, name in ((fill, "rows"), (prepare, "index and background")):
        started = time.perf_counter()
        apart(work, place, *((folder / "photos", count) if work is fill else ()))
        print(f"{name} of {count:,} pictures: {time.perf_counter() - started:.0f} s", flush=True)
    mark.write_text(str(count))
    return place


def prepare(place: Path) -> None:
    """Write the index and the background, as indexing does."""
    model = resolve_model(MODEL, network=False)
    with Library.open(place) as library:
        row = library.model()
        assert row is not None
        VectorIndex.open(library, row.id).save()
        signs = measured_in(model.folder, model.identity, model.dim)
        Background.of(model.identity, model.load(), signs).save(place)


def fill(place: Path, photos: Path, count: int) -> None:
    """Write the rows."""
    model = resolve_model(MODEL, network=False)
    with Library.open(place, create=True) as library, library.writing():
        row = library.set_model(model.name, model.identity, model.dim, model.source)
        roots = []
        for name in ("Pictures", "Phone", "Archive"):
            (photos / name).mkdir(parents=True, exist_ok=True)
            (photos / name / "here").touch()  # an empty folder counts as not mounted
            roots.append(library.add_root(photos / name))
        owners = {root.path: root.id for root in roots}
        rng = np.random.default_rng(5)
        start = 0
        for vectors in clustered(count, count, model.dim, seed=1):
            shots = list(drawn(rng, start, len(vectors)))
            images = [
                NewImage(shot.hash, shot.size, shot.metadata, vector)
                for shot, vector in zip(shots, vectors, strict=True)
            ]
            files = [file for shot in shots for file in shot.files(photos, owners)]
            library.write_batch(WriteBatch(images, files, row.id))
            start += len(vectors)


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture, and where its files lie."""

    number: int
    size: int
    metadata: ImageMetadata
    event: str
    is_copied: bool
    fails: bool

    @property
    def hash(self) -> bytes:
        return self.number.to_bytes(8, "little") * 4

    def files(self, photos: Path, owners: dict[bytes, int]) -> Iterator[FileWrite]:
        """Yield its file, a copy for some, and beside some a file that cannot be read."""
        camera, taken = self.metadata.camera, self.metadata.taken_at
        day = (taken or "2008-01-01")[:10]
        suffix = {"JPEG": "JPG", "HEIF": "HEIC", "PNG": "png"}[self.metadata.format or ""]
        name = f"IMG_{self.number:07d}.{suffix}"
        if camera is None:
            name = f"Screenshot {self.number:07d}.{suffix}"
        elif camera.startswith("NIKON"):
            name = f"DSC_{self.number:07d}.{suffix}"
        if camera is None or camera.startswith("Apple"):
            root, folder = (
                photos / "Phone",
                day[:7] if taken else f"Screenshots/{self.number // 50_000}",
            )
        else:
            root, folder = photos / "Pictures", f"{day[:4]}/{day} {self.event}"
        places = [(root, folder, name)]
        if self.is_copied:
            places.append((photos / "Archive", f"{day[:4]}/{self.number // 50_000}", name))
        mtime_ns = 1_200_000_000_000_000_000 + self.number * HOUR_NS // 2000
        for root, folder, name in places:
            owner = owners[os.fsencode(root)]
            path = os.fsencode(root / folder / name)
            yield FileWrite(path, owner, self.size, mtime_ns, self.hash, ctime_ns=mtime_ns)
        if self.fails:
            path = os.fsencode(root / folder / f"{name}.broken.jpg")
            state: FileState = "failed" if self.number % 2 else "skipped"
            yield FileWrite(path, owner, 100, mtime_ns, None, state, "it is not a picture")


def drawn(rng: np.random.Generator, start: int, count: int) -> Iterator[Shot]:
    """Yield pictures whose cameras, days and places follow the table above."""
    cameras = rng.choice(len(CAMERAS), count, p=[share for _, share, *_ in CAMERAS])
    where, when = rng.integers(0, len(TOWNS), count), rng.random(count)
    upright, chance = rng.random(count) < 0.3, rng.random((4, count))
    for at in range(count):
        camera, _, (first, last), width, height, kind = CAMERAS[cameras[at]]
        days = int(when[at] * 365 * (last - first)) // 3 * 3  # some days have many pictures
        taken = np.datetime64(f"{first}-01-01") + days
        second = int(chance[0, at] * 40_000) + 25_000
        clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        has_place = camera is not None and camera.startswith("Apple") and chance[1, at] < 0.8
        yield Shot(
            start + at,
            int(width * height * (0.2 + 0.3 * chance[2, at])),
            ImageMetadata(
                *((height, width) if upright[at] else (width, height)),
                kind,
                taken_at=None if camera is None else f"{taken}T{clock}",
                camera=camera,
                latitude=48.2 + chance[3, at] - 0.5 if has_place else None,
                longitude=16.4 + 10 * float(where[at]) if has_place else None,
                dated_by=None if camera is None else "DateTimeOriginal",
            ),
            f"{EVENTS[days % len(EVENTS)]} {TOWNS[days % 7]}",
            bool(chance[1, at] > 0.98),
            bool(chance[2, at] > 0.995),
        )


if __name__ == "__main__":
    main()
