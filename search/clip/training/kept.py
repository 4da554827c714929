"""Features of locked layers, computed once for several views of each image and kept on the disk."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fovea.search.clip.atomic import replace_file
from fovea.search.clip.datasets.pairs import PairSet
from fovea.search.clip.efficientnet import EfficientNetLite
from fovea.search.clip.encoders.base import pick_dtype
from fovea.search.clip.errors import ModelError

from .augment import Augmentation, draw_colours, random_crop, vary_colour
from .split import Halves

__all__ = ["KeptView", "KeptViews"]

log = logging.getLogger(__name__)

ROWS = 64  # images in one pass; fixed, so that the same images give the same bits
PART = 16  # passes to a part, which a stopped run need not repeat

Open = Callable[[int, int], Image.Image | None]  # by source and number in it


@dataclass(frozen=True, slots=True)
class KeptView:
    """One view: features float16 (…), and what the locked tower pools, float16 (1280,) or (0,)."""

    features: np.ndarray
    pooled: np.ndarray


class KeptViews:
    """Views of every image of several sources: the first whole, the others random crops.

    ``views`` are their numbers, by source.

    The features are those at the cut of ``halves``. ``pooled`` is read at the top of the tower as
    it is before training, and is kept for EfficientNets only. Files in ``folder`` serve every run
    with the same ``identity``; a run that was stopped goes on where it was.
    """

    def __init__(
        self,
        folder: Path,
        halves: Halves,
        sets: Sequence[PairSet],
        views: Sequence[int],
        augmentation: Augmentation,
        *,
        seed: int,
        identity: Mapping[str, Any],
    ) -> None:
        self.views, self.broken = list(views), set[tuple[int, int]]()
        self._halves, self._how, self._seed = halves, augmentation, seed
        self._counts = [len(pairs.pairs) for pairs in sets]
        text = json.dumps(
            [identity, self.views, seed, self._counts, str(augmentation)], sort_keys=True
        )
        self._folder = folder / sha256(text.encode()).hexdigest()[:16]
        self._steps = [max(1, ROWS * PART // each) for each in self.views]  # images to a part
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ModelError(f"cannot make the folder {self._folder}: {exc.strerror}") from exc
        self._parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in self.views]

    def compute(self, open_image: Open, size: int, workers: int) -> None:
        """Compute the parts that are missing, from images of ``size`` pixels a side.

        Raise ``ModelError`` if one cannot be written. Images that cannot be opened are ``broken``.
        """
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for source, (count, step) in enumerate(zip(self._counts, self._steps, strict=True)):
                for start in range(0, count, step):
                    numbers = range(start, min(start + step, count))
                    part = self._stored(source, numbers)
                    if part is None:
                        part = self._computed(source, numbers, open_image, size, pool)
                        log.info("features of %d of %d images", numbers[-1] + 1, count)
                    self._parts[source].append(part)

    def get(self, source: int, index: int, view: int) -> KeptView:
        """Return one view of an image."""
        part, row = divmod(index, self._steps[source])
        features, pooled = self._parts[source][part]
        return KeptView(features[row, view], pooled[row, view])

    def whole(self) -> np.ndarray:
        """Return what is pooled from the first view of every image, float16 (n, 1280)."""
        parts = [part for parts in self._parts for part in parts]
        rows = np.concatenate([np.asarray(pooled[:, 0]) for _, pooled in parts])
        return rows[rows.any(axis=1)]

    def _path(self, source: int, start: int, kind: str) -> Path:
        return self._folder / f"{source}-{start}-{kind}"

    def _stored(self, source: int, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
        start = numbers[0]
        try:
            broken = json.loads(self._path(source, start, "broken.json").read_text("utf-8"))
            features, pooled = (
                np.load(self._path(source, start, f"{kind}.npy"), mmap_mode="r")
                for kind in ("features", "pooled")
            )
        except (OSError, ValueError):
            return None
        if len(features) != len(numbers) or len(pooled) != len(numbers):
            return None
        self.broken |= {(source, int(index)) for index in broken}
        return features, pooled

    def _computed(
        self,
        source: int,
        numbers: Sequence[int],
        open_image: Open,
        size: int,
        pool: ThreadPoolExecutor,
    ) -> tuple[np.ndarray, np.ndarray]:
        drawn = list(pool.map(lambda n: self._draw((source, n), open_image, size), numbers))
        pixels = np.concatenate([pixels for pixels, _ in drawn])  # (n * views, s, s, 3)
        colours = np.concatenate([colours for _, colours in drawn])
        rows = [
            self._pass(pixels[at : at + ROWS], colours[at : at + ROWS])
            for at in range(0, len(pixels), ROWS)
        ]
        for kind, parts in zip(("features", "pooled"), zip(*rows, strict=True), strict=True):
            found = np.concatenate(parts)
            values = found.reshape(len(numbers), self.views[source], *found.shape[1:])
            path = self._path(source, numbers[0], f"{kind}.npy")
            replace_file(path, lambda file, values=values: np.save(file, values))  # type: ignore[misc]
        broken = json.dumps([n for n in numbers if (source, n) in self.broken]).encode()
        last = self._path(source, numbers[0], "broken.json")  # a part with it is complete
        replace_file(last, lambda file: file.write(broken))
        part = self._stored(source, numbers)
        if part is None:
            raise ModelError(f"the features in {last.parent} cannot be read back; check the disk")
        return part

    def _draw(
        self, place: tuple[int, int], open_image: Open, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels uint8 (views, s, s, 3) and colours float32 (views, 4) of an image."""
        more = self.views[place[0]] - 1
        rng = np.random.default_rng((self._seed, 1 << 36, *place))
        image = open_image(*place)
        if image is None:
            self.broken.add(place)
            image = Image.new("RGB", (size, size))
        whole = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
        crops = [random_crop(image, size, self._how, rng) for _ in range(more)]
        colours = draw_colours(more, self._how, rng)
        return np.stack([whole, *crops]), np.concatenate([np.ones((1, 4), np.float32), colours])

    @torch.no_grad()
    def _pass(self, pixels: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        model = self._halves.model
        device = model.logit_scale.device
        x = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
        x = vary_colour(x, colours)
        mean, std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (model.config.mean, model.config.std)
        )
        x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
        pooled = torch.zeros(len(x), 0)
        # in the fastest precision: float16 keeps no more, and nothing is learned through it
        dtype = pick_dtype("auto", device)
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            features = self._halves.lower_images(x)
            if isinstance(model.visual, EfficientNetLite):
                pooled = model.visual.pool(self._halves.top_images(features))
        found = (features.half().cpu().numpy(), pooled.half().cpu().numpy())
        return np.ascontiguousarray(found[0]), found[1]
