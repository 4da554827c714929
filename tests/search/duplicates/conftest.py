"""Drawn scenes, and a library that holds what tests put there."""

import hashlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fovea.search.duplicates.signature import signature_of
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch

DIM = 8


def _drawn(seed: int, size: tuple[int, int] = (480, 320)) -> Image.Image:
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 256, (6, 9, 3), np.uint8)
    image = Image.fromarray(ground).resize((480, 320), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(25):
        x, y = rng.uniform(0, 480), rng.uniform(0, 320)
        wide, high = rng.uniform(15, 70, 2)
        fill = tuple(int(part) for part in rng.integers(0, 256, 3))
        draw.ellipse((x, y, x + wide, y + high), fill=fill)
    return image.resize(size)


@pytest.fixture
def scene():
    """A function that draws a picture of many shapes; another seed is another picture."""
    return _drawn


@pytest.fixture
def put(library, tmp_path):
    """A function that stores a picture as indexing does, and returns its file's name."""
    root = library.add_root(tmp_path)
    library.set_model("toy", "0" * 64, DIM, "test")

    def store(name, image, likeness=0, signed=True, **known):
        data = BytesIO()
        image.save(data, known.get("format", "PNG"))
        content = data.getvalue()
        (tmp_path / name).write_bytes(content)
        digest = hashlib.sha256(content).digest()
        vector = np.random.default_rng(likeness).standard_normal(DIM).astype(np.float32)
        facts = {"width": image.width, "height": image.height, "format": "PNG"} | known
        new = NewImage(
            digest,
            known.pop("bytes", len(content)),
            ImageMetadata(**facts),
            vector / np.linalg.norm(vector),
            signature_of(image) if signed else None,
        )
        file = FileWrite(bytes(tmp_path / name), root.id, len(content), 1, digest)
        library.write_batch(WriteBatch([new], [file]))
        return name

    return store
