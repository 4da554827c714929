"""Measure how many copies are found, and what is mistaken for one, against hashes alone.

    python bench/duplicates.py FOLDER [--pictures 146] [--held-out] [--cost] [--generated 100000]

Of each picture in the folder, copies are drawn: at a quarter of the size and at three quarters, as
JPEGs of quality 30, cropped by up to a tenth at each side, recoloured, turned by up to two degrees,
watermarked, mirrored, and several of these at once. Beside them, moments: what is in the middle of
the picture has moved by 4, 8 or 15 % of its width, and the camera a little. All are indexed by the
bundled model. A pair counts as found if both are in one group, and is right if both are copies of
one picture; moments are of no other's. Hashes alone are a DCT hash (Zauner 2010) and a difference
hash of 64 bits each, at the distances that are usual for them. What decides about a pair was fitted
to copies and moments of the even ones of 146 photographs: --held-out counts the odd ones alone.

With --generated, so many random signatures and clustered vectors are grouped, a tenth of them
copies of another. With --cost, photographs are decoded as indexing does, in turn with and without
a signature.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LONGEST = 1024  # pixels of an original
Draw = Callable[[Image.Image, np.random.Generator], Image.Image]


def main() -> None:
    """Print recall by kind of copy, the share of moments mistaken, and the time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="a folder of different pictures")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--generated", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="count the odd ones alone")
    parser.add_argument("--cost", action="store_true", help="only time decoding with signatures")
    options = parser.parse_args()
    if options.folder is not None and options.cost:
        cost(options.folder, options.pictures)
    elif options.folder is not None:
        with tempfile.TemporaryDirectory() as scratch:
            quality(options.folder, options.pictures, Path(scratch), options.held_out)
    if options.generated:
        with tempfile.TemporaryDirectory() as scratch:
            speed(options.generated, Path(scratch))


# Copies and moments


def scaled(share: float) -> Draw:
    """Return what scales a picture."""
    return lambda image, rng: image.resize(
        (max(1, int(image.width * share)), max(1, int(image.height * share)))
    )


def cropped(most: float) -> Draw:
    """Return what crops a picture by up to this share at each side."""

    def draw(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        left, top, right, bottom = rng.uniform(0, most, 4)
        width, height = image.size
        box = (left * width, top * height, width - right * width, height - bottom * height)
        return image.crop(tuple(int(side) for side in box))  # type: ignore[arg-type]

    return draw


def recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change colour, brightness and contrast by up to a fifth."""
    for change in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        image = change(image).enhance(float(rng.uniform(0.8, 1.2)))
    return image


def rotated(most: float) -> Draw:
    """Return what turns a picture by up to so many degrees; the corners become black."""
    return lambda image, rng: image.rotate(
        float(rng.uniform(-most, most)), resample=Image.Resampling.BICUBIC
    )


def watermarked(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Write a line into a picture, half transparent."""
    layer = Image.new("RGBA", image.size)
    place = (image.width * rng.uniform(0.02, 0.5), image.height * rng.uniform(0.02, 0.9))
    font = ImageFont.load_default(max(12, image.width // 14))
    ImageDraw.Draw(layer).text(place, "© sample photo", fill=(255, 255, 255, 160), font=font)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def mirrored(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Flip left and right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def several(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Watermark, crop, recolour, turn and scale a picture."""
    for draw in (watermarked, cropped(0.07), recoloured, rotated(1), scaled(0.4)):
        image = draw(image, rng)
    return image


def moment(share: float) -> Draw:
    """Return what draws another moment: an oval in the middle moves by a share of the width."""

    def draw(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        width, height = image.size
        size = int(width * rng.uniform(0.2, 0.4)), int(height * rng.uniform(0.25, 0.5))
        x = int(width * rng.uniform(0.35, 0.65) - size[0] / 2)
        y = int(height * rng.uniform(0.4, 0.6) - size[1] / 2)
        subject = image.crop((x, y, x + size[0], y + size[1]))
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).ellipse((0, 0, *size), fill=255)
        moved = image.copy()
        across = int(width * share * rng.choice([-1, 1]))
        down = int(height * share * rng.uniform(-0.5, 0.5))
        moved.paste(subject, (x + across, y + down), mask)
        return cropped(0.03)(rotated(0.5)(moved, rng), rng)

    return draw


COPIES: dict[str, tuple[Draw, int]] = {  # with the quality of the JPEG
    "a quarter of the size": (scaled(0.25), 90),
    "three quarters": (scaled(0.75), 85),
    "quality 30": (lambda image, rng: image, 30),
    "cropped": (cropped(0.1), 90),
    "recoloured": (recoloured, 90),
    "turned": (rotated(2), 90),
    "mirrored": (mirrored, 90),
    "watermarked": (watermarked, 90),
    "several of these": (several, 60),
}
MOMENTS = {f"moved by {share:.0%}": moment(share) for share in (0.04, 0.08, 0.15)}
ORIGINAL = "original"


def drawn(source: Path, most: int, folder: Path) -> None:
    """Write the originals, copies and moments: NUMBER-KIND.jpg."""
    rng = np.random.default_rng(0)
    paths = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    for number, path in enumerate(paths[:most]):
        with Image.open(path) as file:
            file.draft("RGB", (LONGEST, LONGEST))
            image = file.convert("RGB")
        image.thumbnail((LONGEST, LONGEST))
        image.save(folder / f"{number}-{ORIGINAL}.jpg", quality=92)
        for kind, (draw, quality) in COPIES.items():
            draw(image, rng).save(folder / f"{number}-{kind}.jpg", quality=quality)
        for kind, draw in MOMENTS.items():
            draw(image, rng).save(folder / f"{number}-{kind}.jpg", quality=92)


# Finding


def quality(source: Path, most: int, scratch: Path, held_out: bool) -> None:
    """Print precision and recall of fovea, and of hashes alone."""
    import fovea

    folder = scratch / "pictures"
    folder.mkdir()
    drawn(source, most, folder)
    with fovea.Library.open(scratch / "library", create=True) as library:
        library.index(folder)
        began = time.perf_counter()
        groups = [
            [Path(one.path).name for one in (group.best, *group.others)]
            for group in library.duplicates().groups
        ]
        took = time.perf_counter() - began
    names = sorted(
        path.name
        for path in folder.iterdir()
        if not held_out or int(path.name.partition("-")[0]) % 2
    )
    counted = set(names)
    tell(
        f"fovea ({took:.1f} s)",
        names,
        {pair for group in groups for pair in pairs(sorted(counted & set(group)))},
    )
    for name, hash_of, distances in (("DCT hash", dct, (4, 8, 12)), ("dHash", dhash, (4, 8, 12))):
        found = np.array([hash_of(folder / name) for name in names], np.uint64)
        apart = np.bitwise_count(found[:, None] ^ found[None, :])
        for distance in distances:
            near = {
                (names[a], names[b])
                for a, b in zip(*np.nonzero(apart <= distance), strict=True)
                if a < b
            }
            tell(f"{name}, {distance} bits", names, near)


def pairs(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each pair, in order."""
    return combinations(sorted(names), 2)


def parsed(name: str) -> tuple[str, str]:
    """Return number and kind of a picture's name."""
    number, _, kind = name.removesuffix(".jpg").partition("-")
    return number, kind


def tell(who: str, names: list[str], found: set[tuple[str, str]]) -> None:
    """Print what somebody found."""
    is_right = {
        pair: parsed(pair[0])[0] == parsed(pair[1])[0]
        and not {parsed(name)[1] for name in pair} & set(MOMENTS)
        for pair in found
    }
    copies = [name for name in names if parsed(name)[1] not in MOMENTS]
    wanted = sum(parsed(a)[0] == parsed(b)[0] for a, b in pairs(copies))
    right = sum(is_right.values())
    print(f"{who}: precision {right / max(len(found), 1):.3f}, recall {right / max(wanted, 1):.3f}")
    numbers = len({parsed(name)[0] for name in names})
    parts = []
    for kind in (*COPIES, *MOMENTS):
        count = sum(
            tuple(sorted((f"{number}-{ORIGINAL}.jpg", f"{number}-{kind}.jpg"))) in found
            for number in sorted({parsed(name)[0] for name in names})
        )
        parts.append(f"{kind} {count / numbers:.2f}")
    others = sum(parsed(a)[0] != parsed(b)[0] for a, b in found)
    print(f"  with the original: {', '.join(parts)}; of different pictures: {others} pairs")


def dct(path: Path) -> int:
    """Return the DCT hash of a file."""
    from fovea.search.duplicates.signature import hashes

    with Image.open(path) as image:
        grey = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX), np.uint8)
    return int(hashes(grey[None])[0])


def dhash(path: Path) -> int:
    """Return the difference hash of a file: whether a pixel is darker than its right neighbour."""
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS), np.int16)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    return int(bits.view(">u8")[0])


# Time


def cost(source: Path, most: int) -> None:
    """Print how long decoding takes with and without signatures."""
    from fovea.indexer.decoding import pillow
    from fovea.indexer.decoding.limits import Limits
    from fovea.search.clip.preprocess import Preprocess
    from fovea.search.duplicates.signature import signature_of

    paths = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    files = [path.read_bytes() for path in paths[:most]]
    makers = {"with": signature_of, "without": lambda image: None}
    took: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(5):
        for name, make in makers.items():
            setattr(pillow, "signature_of", make)  # noqa: B010
            used = time.process_time()
            for data in files:
                pillow.decode(data, Preprocess(224), Limits())
            took[name].append((time.process_time() - used) / len(files) * 1000)
    means = {name: float(np.median(each)) for name, each in took.items()}
    print(
        f"{len(files)} photographs, {sum(map(len, files)) / len(files) / 1e6:.2f} MB each: decoded "
        + ", ".join(f"{name} a signature in {mean:.1f} ms" for name, mean in means.items())
    )


def speed(count: int, scratch: Path) -> None:
    """Print how long the groups of so many generated pictures take."""
    from bench.common import clustered
    from fovea.search.duplicates.groups import find_duplicates
    from fovea.search.duplicates.signature import signature_of
    from fovea.search.library.library import Library
    from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch

    rng = np.random.default_rng(0)
    originals = count - count // 10
    vectors = np.concatenate(list(clustered(originals, originals, 512, 1)))
    root = scratch / "pictures"
    root.mkdir()
    with Library.open(scratch / "library", create=True) as library:
        library.set_model("generated", "0" * 64, 512, "generated")
        root_id = library.add_root(root).id
        kept: list[Image.Image] = []
        for start in range(0, count, 1000):
            images, files = [], []
            for number in range(start, min(start + 1000, count)):
                if number < originals:
                    coarse = rng.integers(0, 256, (8, 8), np.uint8)
                    picture = Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)
                    vector = vectors[number]
                    if number < count - originals:
                        kept.append(picture)
                else:
                    at = number - originals
                    picture = cropped(0.05)(kept[at].resize((256, 256)), rng)
                    noise = rng.standard_normal(512, np.float32) * 0.01
                    vector = vectors[at] + noise
                    vector /= np.linalg.norm(vector)
                key = number.to_bytes(32, "big")
                known = ImageMetadata(1000, 1000, "JPEG")
                images.append(NewImage(key, 1000, known, vector, signature_of(picture)))
                path = bytes(root / f"{number}.jpg")
                files.append(FileWrite(path, root_id, 1000, 1, key))
            library.write_batch(WriteBatch(images, files))
        began, used = time.perf_counter(), time.process_time()
        found = find_duplicates(library)
        took, used = time.perf_counter() - began, time.process_time() - used
    right = sum(
        len(group.others) == 1
        and abs(int(Path(group.best.path).stem) - int(Path(group.others[0].path).stem)) == originals
        for group in found.groups
    )
    print(
        f"{count:,} generated pictures: {took:.1f} s ({used:.1f} of processors), "
        f"{right:,} of {count - originals:,} copies "
        f"found, {len(found.groups) - right} wrong groups"
    )
    shutil.rmtree(scratch / "library", ignore_errors=True)


if __name__ == "__main__":
    main()
