"""Features of locked layers, computed once for several views of each image and kept on the disk.

For s see ``model.py``; m is the number of images of a part.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image

from fovea.search.clip.datasets.pairs import PairSet
from fovea.search.clip.datasets.stored_array import StoredArray
from fovea.search.clip.disk import reason_of, replace_file
from fovea.search.clip.efficientnet import EfficientNetLite
from fovea.search.clip.errors import ModelError

from .augment import Augmentation, draw_colours, random_crop, vary_colour
from .split import Halves

__all__ = ["KeptView", "KeptViews"]

log = logging.getLogger(__name__)

ROWS = 64  # views in one pass; fixed, so that the same images give the same bits
PART = 16  # passes to a part, which a stopped run need not repeat
OPEN = 100  # parts open at a time: each takes two of the process's open files

OpenImage = Callable[[int, int], Image.Image | None]  # by source and number in it


@dataclass(frozen=True, slots=True)
class KeptView:
    """One view: features float16 (…), and what the locked tower pools, float16 (1280,) or (0,)."""

    features: np.ndarray
    pooled: np.ndarray


class KeptViews:
    """Views of every image of several sources: the first whole, the others random crops.

    ``views`` are the numbers of views of an image, by source; the first is the whole image, resized
    to a square. The features are those at the cut of ``halves``, float16. ``pooled`` is read at the
    top of the tower as it is before training, and only for an EfficientNet.

    Files in ``folder`` serve every run with the same ``identity``, sources, sizes of the images in
    bytes, views, seed and augmentation; a run that was stopped computes only the parts that are
    missing. They do not notice an image that changes and keeps its name and size. ``broken`` are
    the images, by source and number, that could not be opened. Raise ``ModelError`` if the folder
    cannot be made.
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
        sizes = [pairs.sizes_digest() for pairs in sets]
        text = json.dumps(
            [identity, self.views, seed, self._counts, sizes, str(augmentation)], sort_keys=True
        )
        self._folder = folder / sha256(text.encode()).hexdigest()[:16]
        self._steps = [max(1, ROWS * PART // each) for each in self.views]  # images to a part
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            reason = reason_of(exc, self._folder)
            raise ModelError(f"cannot make the folder {self._folder}: {reason}") from exc
        self._opened = lru_cache(OPEN)(self._read)

    def compute(
        self,
        open_image: OpenImage,
        size: int,
        workers: int,
        on_done: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compute the parts that are missing, from images of ``size`` pixels a side.

        So is a part with a broken image that can be opened now. Images are opened and cropped by
        this many threads. ``on_done`` is called after each part with the images done and all of
        them. While another process computes the same features, wait for it. Raise ``ModelError``
        if a part cannot be written.
        """
        done, is_alone = 0, False
        with ExitStack() as held, ThreadPoolExecutor(max(1, workers)) as pool:
            for source, number in self._parts():
                missing = self._is_missing(source, number, open_image)
                if missing and not is_alone:  # not sooner: a folder may be there to be read only
                    held.enter_context(self._alone())
                    is_alone = True
                    missing = self._is_missing(source, number, open_image)
                if missing:
                    self._compute_part(source, number, open_image, size, pool)
                done += len(self._numbers(source, number))
                if on_done is not None:
                    on_done(done, sum(self._counts))

    def _is_missing(self, source: int, number: int, open_image: OpenImage) -> bool:
        """Whether a part is missing, or has a broken image that can be opened now."""
        broken = self._broken_in(source, number)
        if broken is None or any(open_image(source, n) is not None for n in broken):
            return True
        self.broken |= {(source, n) for n in broken}
        return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time compute; the system frees the lock when a process ends."""
        lock = FileLock(self._folder / "lock")
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.warning(
                    "waiting for another run that computes the features in %s", self._folder
                )
                lock.acquire()
        except (OSError, NotImplementedError) as exc:
            raise ModelError(
                f"cannot lock {self._folder}: {getattr(exc, 'strerror', None) or exc}; keep the "
                "features on another disk"
            ) from exc
        try:
            yield
        finally:
            lock.release()

    def get(self, source: int, index: int, view: int) -> KeptView:
        """Return one view of an image."""
        number, row = divmod(index, self._steps[source])
        features, pooled = self._opened(source, number)
        try:
            return KeptView(*(np.asarray(part[row, view]) for part in (features, pooled)))
        except OSError as exc:
            raise self._unreadable() from exc

    def whole(self) -> Iterator[np.ndarray]:
        """Yield what is pooled from the first view of every image, float16 (m, 1280) by parts."""
        for source, number in self._parts():
            _, pooled = self._opened(source, number)
            numbers = self._numbers(source, number)
            try:
                rows = np.asarray(pooled)
            except OSError as exc:
                raise self._unreadable() from exc
            yield rows[:, 0][[(source, index) not in self.broken for index in numbers]]

    def _parts(self) -> Iterator[tuple[int, int]]:
        """Yield every part: its source and its number in it."""
        for source, (count, step) in enumerate(zip(self._counts, self._steps, strict=True)):
            yield from ((source, number) for number in range(-(-count // step)))

    def _numbers(self, source: int, number: int) -> range:
        """Return the numbers, in their source, of the images of a part."""
        start = number * self._steps[source]
        return range(start, min(start + self._steps[source], self._counts[source]))

    def _read(self, source: int, number: int) -> tuple[StoredArray, StoredArray]:
        """Return a part; raise ``ModelError`` if it is missing or damaged."""
        part = self._stored(source, number)
        if part is None:
            raise self._unreadable()
        return part

    def _unreadable(self) -> ModelError:
        return ModelError(
            f"the features in {self._folder} cannot be read back; check the disk, delete them and "
            "repeat the command"
        )

    def _path(self, source: int, number: int, kind: str) -> Path:
        return self._folder / f"{source}-{number * self._steps[source]}-{kind}"

    def _broken_in(self, source: int, number: int) -> list[int] | None:
        """Return the broken images of a part; None if it is missing or damaged."""
        try:
            path = self._path(source, number, "broken.json")
            broken: Any = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        numbers = self._numbers(source, number)
        if not isinstance(broken, list) or not all(type(n) is int and n in numbers for n in broken):
            return None
        return None if self._stored(source, number) is None else broken

    def _stored(self, source: int, number: int) -> tuple[StoredArray, StoredArray] | None:
        """Open features (m, views, …) and pooled ones (m, views, 1280), or return None."""
        rows = (len(self._numbers(source, number)), self.views[source])
        try:
            features, pooled = (
                StoredArray.open(self._path(source, number, f"{kind}.npy"))
                for kind in ("features", "pooled")
            )
            known = (features.dtype, pooled.dtype, pooled.ndim) == (np.float16, np.float16, 3)
            whole = known and features.shape[:2] == pooled.shape[:2] == rows
        except Exception:  # a damaged file makes numpy raise almost anything
            return None
        return (features, pooled) if whole else None

    def _compute_part(
        self,
        source: int,
        number: int,
        open_image: OpenImage,
        size: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        numbers = self._numbers(source, number)
        self.broken -= {(source, n) for n in numbers}
        with suppress(OSError):  # no part until it is complete; writing tells what is wrong
            self._path(source, number, "broken.json").unlink()
        drawn = list(pool.map(lambda n: self._draw((source, n), open_image, size), numbers))
        pixels = np.concatenate([pixels for pixels, _ in drawn])  # (m * views, s, s, 3)
        colours = np.concatenate([colours for _, colours in drawn])  # (m * views, 4)
        rows = [
            self._pass(pixels[at : at + ROWS], colours[at : at + ROWS])
            for at in range(0, len(pixels), ROWS)
        ]
        features, pooled = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        self._write(source, number, "features", features)
        self._write(source, number, "pooled", pooled)
        broken = json.dumps([n for n in numbers if (source, n) in self.broken]).encode()
        last = self._path(source, number, "broken.json")  # a part with it is complete
        replace_file(last, lambda file: file.write(broken))
        self._read(source, number)

    def _write(self, source: int, number: int, kind: str, rows: np.ndarray) -> None:
        """Write rows (m * views, …) as (m, views, …)."""
        views = self.views[source]
        values = rows.reshape(len(rows) // views, views, *rows.shape[1:])
        path = self._path(source, number, f"{kind}.npy")
        replace_file(path, lambda file: np.save(file, values))

    def _draw(
        self, place: tuple[int, int], open_image: OpenImage, size: int
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
        """Return float16 features (n, …), and pooled ones (n, 1280) or (n, 0)."""
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
        # always in float32: bfloat16 turns the features of a Lite0 by up to a cosine of 0.996, far
        # more than float16, in which they are kept
        features = self._halves.lower_images(x)
        if isinstance(model.visual, EfficientNetLite):
            pooled = model.visual.pool(self._halves.top_images(features))
        found = (features.half().cpu().numpy(), pooled.half().cpu().numpy())
        return np.ascontiguousarray(found[0]), found[1]
