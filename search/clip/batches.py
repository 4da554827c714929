"""Draw, decode and augment training batches ahead of the model, the same ones in every run."""

import io
import logging
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
from PIL import Image

from .augment import Augmentation, draw_colours, random_crop
from .errors import ModelError
from .pairs import Pair, PairSet
from .tokenizer import Tokenizer

log = logging.getLogger(__name__)

AHEAD = 3  # batches prepared before they are asked for
STORED_SIDE = 256  # pixels; a decoded image waits in memory no larger than this on its short side


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's pairs.

    ``pixels`` is uint8 (n, s, s, 3); ``tokens`` int64 (n, l), cut at the longest text; ``keys``
    int64 (n, 3): image, label and caption, -1 where there is none; ``colours`` float32 (n, 3):
    the factors by which each image's colours are to vary.
    """

    step: int
    pixels: np.ndarray
    tokens: np.ndarray
    keys: np.ndarray
    colours: np.ndarray


class ImageCache:
    """Decoded RGB images, kept until the limit of bytes is reached; later ones are not kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.broken: set[tuple[int, int]] = set()
        self._pixels: dict[tuple[int, int], np.ndarray] = {}

    def get(self, key: tuple[int, int], pairs: PairSet, pair: Pair) -> Image.Image | None:
        """Return the image, or None if it cannot be decoded, which is logged once."""
        pixels = self._pixels.get(key)
        if pixels is not None:
            return Image.fromarray(pixels)
        if key in self.broken:
            return None
        try:
            image = _decode(pairs.read(pair))
        except (
            OSError,
            ValueError,
            SyntaxError,
            KeyError,
            Image.DecompressionBombError,
        ) as exc:
            self.broken.add(key)
            log.warning("left out %s: %s", pair.file, exc)
            return None
        size = image.width * image.height * 3
        if self.used + size <= self.limit:
            self.used += size
            self._pixels[key] = np.asarray(image)
        return image


class Batches:
    """An endless, repeatable stream of batches from several sources.

    Every draw follows from the seed and a sample's place in the stream, so that a run that stops
    and resumes at a step sees the same batches, and several processes share one joint batch:
    process ``rank`` of ``world`` gets every ``world``-th pair of it. An image that cannot be
    decoded gives its place to the next one.
    """

    def __init__(
        self,
        sets: Sequence[PairSet],
        tokenizer: Tokenizer,
        *,
        image_size: int,
        batch_size: int,
        context_length: int,
        augmentation: Augmentation,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 2,
        cache_bytes: int = 4 << 30,
    ) -> None:
        self.sets, self.tokenizer = sets, tokenizer
        self.image_size, self.context_length = image_size, context_length
        self.augmentation, self.seed = augmentation, seed
        self.rank, self.world = rank, world
        self.workers = workers
        self.cache = ImageCache(cache_bytes)
        self._shares = _shares([pairs.weight for pairs in sets], batch_size)

    def from_step(self, step: int) -> Iterator[Batch]:
        """Yield the batches from this step on, without end."""
        waiting: list[Future[Batch]] = []
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                while True:
                    while len(waiting) < AHEAD:
                        waiting.append(pool.submit(self.batch, step + len(waiting)))
                    yield waiting.pop(0).result()
                    step += 1
            finally:
                for future in waiting:
                    future.cancel()

    def batch(self, step: int) -> Batch:
        """Build this process's part of one step's batch."""
        places = islice(self._places(step), self.rank, None, self.world)
        samples = [self._sample(number, position) for number, position in places]
        texts = [text for _, text, _ in samples]
        tokens = self.tokenizer.tokenize(texts, self.context_length, truncate=True)
        rng = np.random.default_rng((self.seed, 1 << 33, step))
        colours = draw_colours(sum(self._shares), self.augmentation, rng)
        longest = int((tokens == self.tokenizer.end_id).argmax(axis=1).max()) + 1
        return Batch(
            step,
            np.stack([pixels for pixels, _, _ in samples]),
            tokens[:, :longest],
            np.array([keys for _, _, keys in samples], dtype=np.int64),
            colours[self.rank :: self.world],
        )

    def _places(self, step: int) -> Iterator[tuple[int, int]]:
        """Yield (source, position in its stream) for every pair of a joint batch."""
        for number, share in enumerate(self._shares):
            yield from ((number, step * share + offset) for offset in range(share))

    def _sample(self, number: int, position: int) -> tuple[np.ndarray, str, tuple[int, int, int]]:
        pairs = self.sets[number]
        rng = np.random.default_rng((self.seed, number, position))
        epoch, place = divmod(position, len(pairs.pairs))
        index = int(_order(self.seed, number, epoch, len(pairs.pairs))[place])
        for _ in range(len(pairs.pairs)):
            pair = pairs.pairs[index]
            image = self.cache.get((number, index), pairs, pair)
            if image is not None:
                break
            index = (index + 1) % len(pairs.pairs)
        else:
            raise ModelError(f"none of the {len(pairs.pairs)} images of a source can be decoded")
        text = pairs.caption(pair, rng)
        source = number << 40
        label = source | pair.label if pair.label >= 0 else -1
        keys = (source | index, label, zlib.crc32(text.strip().lower().encode()))
        return random_crop(image, self.image_size, self.augmentation, rng), text, keys


def _decode(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as file:
        file.draft("RGB", (STORED_SIDE, STORED_SIDE))
        image = file.convert("RGB")
    if min(image.size) > STORED_SIDE:
        scale = STORED_SIDE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)))
    return image


@lru_cache(maxsize=16)
def _order(seed: int, number: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng((seed, number, epoch, 1 << 32)).permutation(length)


def _shares(weights: Sequence[float], total: int) -> list[int]:
    """Split ``total`` in proportion to ``weights``; every source gets at least one."""
    if len(weights) > total:
        raise ModelError(f"a batch of {total} cannot hold pairs of {len(weights)} sources")
    shares = [max(1, int(total * weight / sum(weights))) for weight in weights]
    shares[int(np.argmax(shares))] += total - sum(shares)
    return shares
