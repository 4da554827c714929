"""Features of images, computed once and stored, from which a model is fine-tuned."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fovea.search.clip.datasets.stored_array import StoredArray
from fovea.search.clip.disk import reason_of, replace_file
from fovea.search.clip.encoders.base import pick_device
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP
from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.training.augment import Augmentation, draw_colours, random_crop, vary_colour
from fovea.search.clip.training.learner import mixed_precision, training_dtype
from fovea.search.clip.training.split import Halves

ROWS = 64  # in one pass; fixed, so that the same images give the same bits
MARGIN = 8 / 7  # side of the square that views are cut from, relative to the model's input
VIEWS = Augmentation(area=(0.6, 1.0), aspect=(0.8, 1.25), flip=0.5, colour=0.1, grey=0.0)


class LowerHalf:
    """The lower half of a model's image tower, which turns images into features."""

    def __init__(
        self, model: CLIP, tune: int, *, device: str = "auto", dtype: str = "auto"
    ) -> None:
        self.device = pick_device(device)
        self.dtype = training_dtype(dtype, self.device)
        self.preprocess = Preprocess.from_config(model.config)
        self.side = round(self.preprocess.size * MARGIN)  # of the squares that it takes
        self._halves = Halves(model, tune, tune).eval().to(self.device)

    def features(
        self, squares: Sequence[np.ndarray], contents: Sequence[bytes], views: int
    ) -> np.ndarray:
        """Return float16 (n, views, …) for images, uint8 (side, side, 3) each.

        The first view is the whole square; the others are random crops, seeded by the image's
        content.
        """
        pixels, colours = [], []
        for square, content in zip(squares, contents, strict=True):
            rng = np.random.default_rng(list(content[:16]))
            image = Image.fromarray(square)
            size = (self.preprocess.size, self.preprocess.size)
            pixels.append(np.asarray(image.resize(size, Image.Resampling.BICUBIC)))
            colours.append(np.ones(4, np.float32))
            for factors in draw_colours(views - 1, VIEWS, rng):
                pixels.append(random_crop(image, self.preprocess.size, VIEWS, rng))
                colours.append(factors)
        rows = [
            self._pass(np.stack(pixels[at : at + ROWS]), np.stack(colours[at : at + ROWS]))
            for at in range(0, len(pixels), ROWS)
        ]
        found = np.concatenate(rows)
        return found.reshape(len(squares), views, *found.shape[1:])

    @torch.no_grad()
    def _pass(self, pixels: np.ndarray, colours: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255
        x = vary_colour(x, colours)
        mean, std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (self.preprocess.mean, self.preprocess.std)
        )
        with mixed_precision(self.device, self.dtype):
            features = self._halves.lower_images((x - mean) / std)
        out: np.ndarray = features.half().cpu().numpy()
        return out


@dataclass(frozen=True, slots=True)
class FeaturePart:
    """Some images: notes on them, as JSON, and float16 features (n, views, …)."""

    notes: Any
    features: StoredArray


class FeatureStore:
    """Parts in a folder, each written atomically; ``settings`` is what all of them depend on.

    A part is found by its images' contents in their order, so that it serves every later run over
    the same images.
    """

    def __init__(self, folder: Path, settings: Any) -> None:
        self.folder = folder
        self._settings = json.dumps(settings, sort_keys=True)
        self._used: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            reason = reason_of(exc, folder)
            raise ModelError(f"cannot make the folder {folder}: {reason}") from exc

    def get(self, contents: Sequence[bytes]) -> FeaturePart | None:
        """Return the part made from these contents, or None."""
        name = self._name(contents)
        try:
            rows, notes = json.loads((self.folder / f"{name}.json").read_text("utf-8"))
            path = self.folder / f"{name}.npy"
            features = StoredArray.open(path)
        except (OSError, ValueError, TypeError, EOFError):
            return None
        if len(features) != rows:
            return None
        self._used.add(name)
        return FeaturePart(notes, features)

    def put(self, contents: Sequence[bytes], notes: Any, features: np.ndarray) -> FeaturePart:
        """Store a part; raise ``ModelError`` if it cannot be written."""
        name = self._name(contents)
        values = np.ascontiguousarray(features, np.float16)
        replace_file(self.folder / f"{name}.npy", lambda file: np.save(file, values))
        text = json.dumps([len(values), notes]).encode()  # last: a part with notes is complete
        replace_file(self.folder / f"{name}.json", lambda file: file.write(text))
        part = self.get(contents)
        if part is None:
            raise ModelError(f"{self.folder / name}.npy cannot be read back; check the disk")
        return part

    def drop_others(self) -> None:
        """Delete the parts that have not been requested from this store."""
        for path in self.folder.iterdir():
            if path.name.partition(".")[0] not in self._used:
                path.unlink(missing_ok=True)

    def _name(self, contents: Iterable[bytes]) -> str:
        digest = sha256(self._settings.encode())
        for content in contents:
            digest.update(b"\0" + content)
        return digest.hexdigest()[:32]
