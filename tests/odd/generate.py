"""Write pictures that are odd, broken or dear to decode: python tests/odd/generate.py

The files in files/ and manifest.tsv beside this script come from it and are committed, since
another Pillow may write other bytes. A line of the manifest is a file's name, what indexing makes
of it (``indexed``, or the kind of its failure) and, of what is indexed, the size as shown.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, PngImagePlugin

FILES = Path(__file__).with_name("files")
MANIFEST = Path(__file__).with_name("manifest.tsv")
SIZE = (64, 48)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCRIPT = "\"><img src=x onerror=alert(1)><script>alert('&')</script>"

pillow_heif.register_heif_opener()


def picture(width: int = SIZE[0], height: int = SIZE[1]) -> Image.Image:
    """An RGB picture whose four corners differ, so that turning it shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.dstack([x, y, 255 - x / 2]).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG (ISO/IEC 15948, section 5.3)."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of filtered rows, whatever they are; ``extra`` chunks come before them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    return SIGNATURE + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def zeros(width: int, height: int, bits: int, colour: int = 0, extra: bytes = b"") -> bytes:
    """A black PNG, each row with its filter byte."""
    samples = 3 if colour == 2 else 1
    row = bytes(1 + (width * bits * samples + 7) // 8)
    return png(width, height, bits, colour, row * height, extra)


def with_scans(jpeg: bytes, count: int) -> bytes:
    """Repeat the last scan of a progressive JPEG, and the Huffman table before it."""
    table, end = jpeg.rindex(b"\xff\xc4"), jpeg.rindex(b"\xff\xd9")
    return jpeg[:end] + jpeg[table:end] * count + jpeg[end:]


def resized(jpeg: bytes, width: int, height: int) -> bytes:
    """Let a baseline JPEG claim another size."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def tiff_without_end() -> bytes:
    """A TIFF whose two directories each name the other as the next."""
    entries = [(256, 4), (257, 4), (258, 8), (262, 1), (273, 200), (279, 16)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    length = 2 + len(body) + 4
    first = struct.pack("<H", len(entries)) + body + struct.pack("<I", 8 + length)
    second = struct.pack("<H", len(entries)) + body + struct.pack("<I", 8)
    return (b"II*\0" + struct.pack("<I", 8) + first + second).ljust(200, b"\0") + bytes(range(16))


def exif(orientation: int, **texts: str) -> Image.Exif:
    made = Image.Exif()
    made[274] = orientation
    for tag, text in texts.items():
        made[{"description": 270, "make": 271, "model": 272, "date": 306}[tag]] = text
    return made


def turned(orientation: int) -> Image.Image:
    """The picture as a camera stores it that is held so (EXIF 2.32, tag 274)."""
    backwards = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return picture().transpose(backwards[orientation]) if orientation > 1 else picture()


def indexed() -> Iterator[tuple[str, bytes, tuple[int, int]]]:
    """Files that are to be indexed: name, content, and the size that is shown."""
    plain = picture()
    jpeg, frames = encoded(plain, "JPEG"), [plain, plain.rotate(180), plain.convert("L")]
    moving = {"save_all": True, "append_images": frames[1:], "duration": 80}
    for orientation in range(1, 9):
        yield (
            f"orientation-{orientation}.jpg",
            encoded(turned(orientation), "JPEG", quality=90, exif=exif(orientation)),
            SIZE,
        )
    yield "orientation-9.jpg", encoded(plain, "JPEG", exif=exif(9)), SIZE
    junk = exif(1, description=SCRIPT, make=SCRIPT, model="A\x1b[2J\r\nB", date="0000:99:99 99:99")
    yield "exif-script.jpg", encoded(plain, "JPEG", exif=junk), SIZE
    yield (
        "exif-garbage.jpg",
        encoded(plain, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" * 9),
        SIZE,
    )
    yield "html-after-the-end.jpg", jpeg + b"<html><script>alert(1)</script></html>", SIZE
    yield "cmyk.jpg", encoded(plain.convert("CMYK"), "JPEG"), SIZE
    yield "grey.jpg", encoded(plain.convert("L"), "JPEG"), SIZE
    yield "progressive.jpg", encoded(plain, "JPEG", progressive=True), SIZE
    yield "png-named.jpg", encoded(plain, "PNG"), SIZE
    yield "jpeg-named.png", jpeg, SIZE
    yield "UPPER.JPEG", jpeg, SIZE
    yield (
        "16-bit-grey.png",
        png(
            *SIZE,
            16,
            0,
            b"".join(b"\0" + struct.pack(">64H", *range(y, 65536, 1024)) for y in range(48)),
        ),
        SIZE,
    )
    yield "16-bit-rgba.png", png(*SIZE, 16, 6, (b"\0" + bytes(range(256)) * 2) * 48), SIZE
    yield "1-bit.png", encoded(plain.convert("1"), "PNG"), SIZE
    yield "palette-transparent.png", encoded(plain.quantize(16), "PNG", transparency=3), SIZE
    yield "grey-alpha.png", encoded(plain.convert("LA"), "PNG"), SIZE
    yield "interlaced.gif", encoded(plain, "GIF", interlace=1), SIZE
    yield "animated.gif", encoded(plain, "GIF", **moving), SIZE
    yield "animated.webp", encoded(plain, "WEBP", **moving), SIZE
    yield "animated.png", encoded(plain, "PNG", **moving), SIZE
    yield "pages.tif", encoded(plain, "TIFF", save_all=True, append_images=frames[1:]), SIZE
    yield "cmyk.tif", encoded(plain.convert("CMYK"), "TIFF", compression="tiff_lzw"), SIZE
    yield "lab.tif", encoded(Image.merge("LAB", plain.split()), "TIFF"), SIZE
    yield "float.tif", encoded(plain.convert("F"), "TIFF"), SIZE
    yield "plain.bmp", encoded(plain, "BMP"), SIZE
    yield "plain.ppm", encoded(plain, "PPM"), SIZE
    yield "plain.jp2", encoded(plain, "JPEG2000"), SIZE
    yield "plain.heic", encoded(plain, "HEIF"), SIZE
    yield "plain.avif", encoded(plain, "AVIF"), SIZE
    yield "lossless.webp", encoded(plain, "WEBP", lossless=True), SIZE
    yield "directories-in-a-circle.tif", tiff_without_end(), (4, 4)
    yield "one-pixel.png", encoded(picture(1, 1), "PNG"), (1, 1)
    yield "one-pixel.gif", encoded(picture(1, 1), "GIF"), (1, 1)
    yield "one-pixel.jpg", encoded(picture(1, 1), "JPEG"), (1, 1)
    yield "wide.png", zeros(20_000, 1, 8, 2), (20_000, 1)
    yield "tall.png", zeros(1, 20_000, 8, 2), (1, 20_000)
    text = PngImagePlugin.PngInfo()
    text.add_text("Description", SCRIPT)
    text.add_itxt("Title", SCRIPT)
    yield "text-script.png", encoded(plain, "PNG", pnginfo=text), SIZE
    inflated = zlib.compress(bytes(20 << 20), 9)
    large, whole = encoded(picture(640, 480), "JPEG"), encoded(plain, "PNG")
    yield "truncated.jpg", large[: len(large) // 2], (640, 480)
    yield "truncated.png", whole[: len(whole) // 2], SIZE
    yield "text-of-20-megabytes.png", zeros(8, 8, 8, 0, chunk(b"zTXt", b"k\0\0" + inflated)), (8, 8)
    yield (
        "profile-of-20-megabytes.png",
        zeros(8, 8, 8, 0, chunk(b"iCCP", b"p\0\0" + inflated)),
        (8, 8),
    )
    yield "many-texts.png", zeros(8, 8, 8, 0, chunk(b"tEXt", b"k\0v") * 1200), (8, 8)


def failing() -> Iterator[tuple[str, bytes, str]]:
    """Files that must fail: name, content, and the kind of the reason."""
    plain = picture()
    jpeg, whole = encoded(picture(640, 480), "JPEG"), encoded(plain, "PNG")
    yield "empty.jpg", b"", "broken"
    yield "one-byte.png", b"\x89", "broken"
    yield "start-of-a.jpg", b"\xff\xd8\xff", "broken"
    yield "truncated.heic", encoded(plain, "HEIF")[:-60], "broken"
    yield "truncated.webp", encoded(plain, "WEBP", lossless=True)[:-60], "broken"
    yield "damaged.png", whole.replace(b"IDAT", b"IDAU"), "broken"
    yield "svg.jpg", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', "broken"
    yield "html.jpg", b"<!doctype html><script>alert(1)</script>", "broken"
    yield "pdf.jpg", b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n", "broken"
    yield (
        "postscript.jpg",
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"),
        "broken",
    )
    noise = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8).tobytes()
    yield "noise.jpg", noise, "broken"
    yield "noise-as-raw.cr2", b"II*\0\x10\0\0\0CR\2\0" + noise, "raw"
    yield "noise-as-raw.nef", noise, "raw"
    yield "bomb-of-225-megapixels.png", zeros(15_000, 15_000, 1), "too large"
    yield "claims-4-gigapixels.png", png(65_535, 65_535, 1, 0, bytes(1000)), "too large"
    yield "claims-4-gigapixels.jpg", resized(jpeg, 65_500, 65_500), "too large"
    yield "many-scans.jpg", with_scans(encoded(plain, "JPEG", progressive=True), 120), "too slow"


def main() -> None:
    """Write every file and the manifest."""
    FILES.mkdir(exist_ok=True)
    for old in FILES.iterdir():
        old.unlink()
    lines = []
    for name, data, (width, height) in indexed():
        (FILES / name).write_bytes(data)
        lines.append(f"{name}\tindexed\t{width}x{height}\n")
    for name, data, kind in failing():
        (FILES / name).write_bytes(data)
        lines.append(f"{name}\t{kind}\t\n")
    MANIFEST.write_text("".join(sorted(lines)))


if __name__ == "__main__":
    main()
