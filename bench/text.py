"""How well text in pictures is read and found: python bench/text.py [--count N]

Draws pages, signs and slides in several fonts, sizes, rotations and JPEG qualities, reads them with
the engine of the extra ``fovea[ocr]``, and prints for each kind the character accuracy (1 - edit
distance / length, without spaces), how many are found first, among all, by their first line, and
pictures a second of processor time, in one thread. Chinese pages are drawn, too, where ``--cjk
FONT`` names a font.
"""

import argparse
import io
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fovea.indexer.analysing.text import ANALYSIS
from fovea.search.analyses.stored import Done, store
from fovea.search.analyses.texts import KIND, Line, store_lines, texted_images
from fovea.search.library.facts.texts import text_run
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch

FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Bold.ttf")
WORDS = (
    "airport balance boarding bridge captain ceiling coffee counter departure engine factory "
    "garden gravel harbour invoice island journey kitchen ladder library machine market meeting "
    "mountain museum number office orchard passenger platform quarter receipt river schedule "
    "season signal station summer ticket travel tunnel umbrella valley village weather window"
).split()
CHINESE = (
    "上海北京车站机场登机牌出口入口票价图书馆会议室咖啡花园市场博物馆时间地址电话天气山河湖海桥"
)
# Kind -> size, lines, words a line, height of letters, colours, most degrees of rotation.
KINDS = {
    "page": ((1200, 1600), 22, 6, (24, 34), (("#111", "#fff"), ("#222", "#f4efe2")), 3),
    "sign": ((1000, 700), 2, 2, (70, 100), (("#fff", "#123c8c"), ("#111", "#ffd60a")), 12),
    "slide": ((1600, 900), 6, 4, (40, 64), (("#222", "#fff"), ("#eee", "#20242c")), 0),
}


def drawn(kind: str, rng: random.Random, cjk: str | None) -> tuple[Image.Image, list[str]]:
    """Return a picture, through JPEG, and its lines."""
    size, count, words, heights, colours, turn = KINDS[kind]
    ink, ground = rng.choice(colours)
    height = rng.randint(*heights)
    font = ImageFont.truetype(cjk or rng.choice(FONTS), height)
    if cjk:
        lines = ["".join(rng.choices(CHINESE, k=3 * words)) for _ in range(count)]
    else:
        lines = [f"{' '.join(rng.choices(WORDS, k=words))}" for _ in range(count)]
        lines[0] = f"{lines[0]} {rng.randint(1000, 9999)}"
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    top = size[1] // 8
    for at, line in enumerate(lines):
        while draw.textlength(line, font) > 0.86 * size[0]:
            line = line[:-1] if cjk else line.rpartition(" ")[0]
        lines[at] = line
        draw.text((0.07 * size[0], top), line, fill=ink, font=font)
        top += int(1.6 * height)
    image = image.rotate(rng.uniform(-turn, turn), Image.Resampling.BICUBIC, fillcolor=ground)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.choice((30, 60, 90)))
    return Image.open(file).convert("RGB"), lines


def distance(a: str, b: str) -> int:
    """Return the edit distance (Levenshtein 1966)."""
    before = np.arange(len(b) + 1)
    codes = np.array([ord(c) for c in b])
    for at, character in enumerate(a, start=1):
        row = np.minimum(before[1:] + 1, before[:-1] + (codes != ord(character)))
        row = np.concatenate([[at], row])
        before = np.minimum.accumulate(row - np.arange(len(row))) + np.arange(len(row))
    return int(before[-1])


@dataclass
class Tally:
    """What became of the pictures of one kind."""

    wrong: int = 0  # characters, by edit distance
    length: int = 0
    seconds: float = 0.0
    first: int = 0


def measured(fonts: dict[str, str | None], count: int) -> dict[str, Tally]:
    """Draw and read ``count`` pictures of each kind, and ask one library of all for each."""
    read = ANALYSIS.opened()
    tallies = {kind: Tally() for kind in fonts}
    asked = []
    with tempfile.TemporaryDirectory() as place, Library.open(place, create=True) as library:
        root = library.add_root(Path(place) / "none")
        for kind, font in fonts.items():
            rng, tally = random.Random(f"{kind} {count}"), tallies[kind]
            for number in range(count):
                image, lines = drawn(kind.rpartition(" ")[2], rng, font)
                started = time.process_time()
                found = [Line(text, sure, tuple(at)) for text, sure, at in read(image)]
                tally.seconds += time.process_time() - started
                truth, said = (
                    "".join(map(text_run, texts)) for texts in (lines, [f.text for f in found])
                )
                tally.wrong += min(len(truth), distance(truth, said))
                tally.length += len(truth)
                digest = sha256(f"{kind} {number}".encode()).digest()
                path = f"{place}/none/{kind} {number}.jpg".encode()
                new = NewImage(digest, 1, ImageMetadata(*image.size, "JPEG"), None)
                library.write_batch(WriteBatch([new], [FileWrite(path, root.id, 1, 1, digest)]))
                image_id = library.image_by_hash([digest])[digest]
                store(library, KIND, "1", [Done(image_id, found)], store_lines)
                asked.append((tally, image_id, lines[0]))
        for tally, image_id, words in asked:
            tally.first += texted_images(library, words, 1) == [image_id]
    return tallies


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="pictures of each kind")
    parser.add_argument("--cjk", help="a font with Chinese characters")
    asked = parser.parse_args()
    if (missing := ANALYSIS.missing()) is not None:
        parser.exit(1, f"text.py: needs {missing}\n")
    fonts: dict[str, str | None] = dict.fromkeys(KINDS)
    if asked.cjk:
        fonts["Chinese page"] = asked.cjk
    print(f"{ANALYSIS.version}\n\n| kind | characters right | found first | pictures/s |")
    print("| --- | --- | --- | --- |")
    for kind, tally in measured(fonts, asked.count).items():
        right = f"{1 - tally.wrong / tally.length:.1%}"
        cells = kind, right, f"{tally.first} of {asked.count}", f"{asked.count / tally.seconds:.2f}"
        print(f"| {' | '.join(cells)} |")
    plain = Image.effect_noise((1600, 1200), 40).convert("RGB")
    read, started = ANALYSIS.opened(), time.process_time()
    lines = len(read(plain))
    print(f"\nwithout text ({lines} lines): {1 / (time.process_time() - started):.2f} pictures/s")


if __name__ == "__main__":
    main()
