"""Measure what decoding a photograph costs, step by step, and what other decoders would bring.

    python bench/decode.py [--photos FOLDER] [--size 256] [--count 40] [--turbojpeg LIBRARY]

One thread, milliseconds of CPU time a picture, the best of three rounds: photographs as they are,
the same enlarged to 12 megapixels (few details for their size), and 64 of them side by side in 12
megapixels (many). simplejpeg and PyTurboJPEG are measured where they are installed; the latter may
need to be told where libturbojpeg is. The difference is that of the model's input from what a full
decode by Pillow gives, of 0 to 255 in the mean.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.index import enlarged
from fovea.indexer.decoding.limits import Limits
from fovea.indexer.decoding.pillow import decode, prepare
from fovea.indexer.decoding.precheck import screened
from fovea.search.clip.preprocess import Preprocess

ROUNDS, TILES, PREVIEW = 3, 8, (1620, 1215)  # a stored preview's usual size in pixels

Decoder = Callable[[bytes], Image.Image]


def main() -> None:
    """Print a table for each kind of picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    photos = Path(__file__).resolve().parents[2] / "shared" / "photos"
    parser.add_argument("--photos", type=Path, default=photos, help="folder of JPEGs")
    parser.add_argument("--size", type=int, default=256, help="pixels a side of the model's input")
    parser.add_argument("--count", type=int, default=40, help="photographs; large ones are 4")
    parser.add_argument("--turbojpeg", help="path of libturbojpeg")
    options = parser.parse_args()
    paths = sorted(options.photos.glob("*.jpg"))[: options.count]
    if not paths:
        sys.exit(f"no JPEGs in {options.photos}; name a folder with --photos")
    prepare()
    print(f"Pillow's libjpeg-turbo {features.version_feature('libjpeg_turbo')}")
    small = [path.read_bytes() for path in paths]
    large = [enlarged(data) for data in small[:4]]
    print_table("as they are", small, options)
    print_table("12 megapixels, few details", large, options)
    print_table("12 megapixels, many details", [tiled(small, n) for n in range(4)], options)
    print_table("12 megapixels, progressive", [saved(d, progressive=True) for d in large], options)


def print_table(kind: str, pictures: Sequence[bytes], options: argparse.Namespace) -> None:
    """Print what each step and each decoder takes for these pictures."""
    preprocess, limits = Preprocess(options.size), Limits()
    size = sum(map(len, pictures)) / len(pictures) / 1e3
    print(f"\n{kind}: {len(pictures)} of {size:,.0f} kB{'':<20}      ms  difference")
    decoders = all_decoders(options.size, options.turbojpeg)
    drafted = [bare(decoders["Pillow, draft"](data)) for data in pictures]
    whole = [preprocess.pixels(bare(decoders["Pillow, in full"](data))) for data in pictures]
    for name, step, given in (
        ("all of decoding", lambda d: decode(d, preprocess, limits), pictures),
        ("SHA-256", lambda d: sha256(d).digest(), pictures),
        ("counting scans", lambda d: screened(d, limits), pictures),
        ("resizing", preprocess.pixels, drafted),
    ):
        print(f"{name:<48}{milliseconds(step, given):8.2f}")
    for name, decoder in decoders.items():
        found = [preprocess.pixels(bare(decoder(data))) for data in pictures]
        pairs = zip(found, whole, strict=True)
        apart = float(np.mean([np.abs(a.astype(int) - b.astype(int)).mean() for a, b in pairs]))
        print(f"JPEG: {name:<42}{milliseconds(decoder, pictures):8.2f}  {apart:8.2f}")
    if len(pictures) <= 4:
        previews = [preview(data) for data in pictures]
        print(f"{'JPEG: a preview of 1620 x 1215':<48}", end="")
        print(f"{milliseconds(decoders['Pillow, draft'], previews):8.2f}")


def milliseconds(step: Callable[[Any], object], given: Sequence[Any]) -> float:
    """Return the CPU time that a step takes for each, in the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for one in given:
            step(one)
        best = min(best, time.process_time() - started)
    return best / len(given) * 1e3


# Decoders


def all_decoders(size: int, turbojpeg: str | None) -> dict[str, Decoder]:
    """Return the decoders that are there, by name; each gives a picture as large as needed."""

    def draft(data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.draft(None, (size, size))
        image.load()
        return image

    def full(data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image

    found: dict[str, Decoder] = {"Pillow, draft": draft, "Pillow, in full": full}
    if find_spec("simplejpeg"):
        found |= simple(size)
    if find_spec("turbojpeg"):
        found |= turbo(size, turbojpeg)
    return found


def simple(size: int) -> dict[str, Decoder]:
    """Return what simplejpeg can do: scales of eighths, fewer interpolated colours."""
    import simplejpeg  # type: ignore[import-not-found]  # optional

    def made(**options: Any) -> Decoder:
        return lambda data: Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", **options))

    scaled = {"min_height": size, "min_width": size, "min_factor": 1}
    return {
        "simplejpeg, in full": made(),
        "simplejpeg, scaled": made(**scaled),
        "simplejpeg, scaled, fast": made(**scaled, fastdct=True, fastupsample=True),
    }


def turbo(size: int, place: str | None) -> dict[str, Decoder]:
    """Return what PyTurboJPEG can do, at the scales that Pillow has."""
    from turbojpeg import TJPF_RGB, TurboJPEG  # type: ignore[import-not-found]  # optional

    try:
        library = TurboJPEG(place)
    except RuntimeError as exc:  # no such library, or one that is too old
        print(f"PyTurboJPEG is left out: {' '.join(str(exc).split())}", file=sys.stderr)
        return {}

    def scaled(data: bytes) -> Image.Image:
        width, height, *_ = library.decode_header(data)
        scale = next(n for n in (8, 4, 2, 1) if n == 1 or min(width, height) >= size * n)
        return Image.fromarray(library.decode(data, TJPF_RGB, (1, scale)))

    return {"PyTurboJPEG, scaled": scaled}


# Pictures


def bare(image: Image.Image) -> Image.Image:
    """Return a picture as RGB, without what was read with it."""
    return Image.fromarray(np.asarray(image.convert("RGB")))


def saved(data: bytes, **options: Any) -> bytes:
    """Return a JPEG saved again."""
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def preview(data: bytes) -> bytes:
    """Return the preview that a camera would store with a JPEG."""
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).resize(PREVIEW).save(file, "JPEG", quality=90)
    return file.getvalue()


def tiled(pictures: Sequence[bytes], first: int) -> bytes:
    """Return a JPEG of 4000 x 3000 pixels, made of 64 photographs of 0.19 megapixels."""
    whole = Image.new("RGB", (4000, 3000))
    for place, data in enumerate(islice(cycle(pictures), first, first + TILES**2)):
        with Image.open(io.BytesIO(data)) as image:
            tile = image.convert("RGB").resize((4000 // TILES, 3000 // TILES))
        whole.paste(tile, (place % TILES * tile.width, place // TILES * tile.height))
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
