"""Draw pictures for a gallery where there are no photographs: python tests/odd/draw.py

The JPEGs in drawings/ come from it and are committed. They are named as those in ../shared/photos,
which tests prefer: p080.jpg shows a computer keyboard, p052.jpg a moving van, the others shapes.
"""

import random
from pathlib import Path

from PIL import Image, ImageDraw

FOLDER = Path(__file__).with_name("drawings")
COUNT = 80
SIZES = ((480, 360), (480, 320), (360, 480), (320, 480), (400, 400))


def keyboard() -> Image.Image:
    """A computer keyboard from above: five rows of keys on a desk."""
    image = Image.new("RGB", (480, 320), (168, 132, 96))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((12, 62, 468, 258), 12, fill=(48, 48, 52))
    letters = iter("QWERTYUIOPASDFGHJKLZXCVBNM")
    for row in range(5):
        for column in range(13):
            left, top = 24 + 33 * column + 4 * (row % 2), 74 + 35 * row
            if row == 4 and 3 <= column <= 8:  # the space bar
                if column == 3:
                    draw.rounded_rectangle((left, top, left + 194, top + 29), 4, fill=(222,) * 3)
                continue
            draw.rounded_rectangle((left, top, left + 28, top + 29), 4, fill=(222, 222, 222))
            if 1 <= row <= 3 and 1 <= column <= 10 and (letter := next(letters, "")):
                draw.text((left + 10, top + 8), letter, fill=(20, 20, 20))
    return image


def van() -> Image.Image:
    """A moving van from its side, on a road."""
    image = Image.new("RGB", (480, 320), (150, 196, 232))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 190, 480, 232), fill=(96, 140, 72))
    draw.rectangle((0, 232, 480, 320), fill=(88, 88, 92))
    draw.rectangle((60, 70, 330, 236), fill=(240, 240, 236), outline=(90, 90, 90), width=3)
    draw.rectangle((60, 150, 330, 176), fill=(224, 112, 32))
    draw.polygon([(332, 120), (392, 120), (424, 172), (432, 236), (332, 236)], fill=(224, 112, 32))
    draw.polygon([(344, 130), (386, 130), (410, 170), (344, 170)], fill=(60, 80, 100))
    for x in (120, 376):
        draw.ellipse((x - 30, 206, x + 30, 266), fill=(24, 24, 24))
        draw.ellipse((x - 13, 223, x + 13, 249), fill=(170, 170, 170))
    return image


def shapes(number: int) -> Image.Image:
    """Some shapes on a plain ground, others for each number."""
    chosen = random.Random(number)
    width, height = chosen.choice(SIZES)

    def colour() -> tuple[int, ...]:
        return tuple(chosen.randrange(256) for _ in range(3))

    image = Image.new("RGB", (width, height), colour())
    draw = ImageDraw.Draw(image)
    for _ in range(chosen.randrange(2, 7)):
        left, top = chosen.randrange(width - 60), chosen.randrange(height - 60)
        side = chosen.randrange(40, 220)
        kind = chosen.choice([draw.ellipse, draw.rectangle])
        kind((left, top, left + side, top + chosen.randrange(40, 220)), fill=colour())
    return image


def main() -> None:
    """Write all drawings."""
    FOLDER.mkdir(exist_ok=True)
    special = {52: van, 80: keyboard}
    for number in range(1, COUNT + 1):
        image = special[number]() if number in special else shapes(number)
        image.save(FOLDER / f"p{number:03d}.jpg", quality=50, optimize=True)


if __name__ == "__main__":
    main()
