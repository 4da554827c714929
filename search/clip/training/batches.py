"""Draw, decode and augment training batches in advance, reproducibly."""

import io
import logging
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import Image

from fovea.search.clip.datasets.pairs import Pair, PairSet
from fovea.search.clip.errors import ModelError
from fovea.search.clip.preprocess import to_rgb
from fovea.search.clip.protocols import TextTokenizer

from .augment import Augmentation, draw_colours, drop_words, random_crop
from .kept import KeptView, KeptViews

log = logging.getLogger(__name__)

AHEAD = 3  # batches prepared in advance, or one more than there are workers
STORED_SIDE = 256  # pixels; the short side of a cached image is at most this,
STORED_MORE = 8 / 7  # or this times the model's input if that is more


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's images and texts.

    ``pixels`` is uint8 (n, s, s, 3). ``tokens`` is int64 (t, l), cut at the longest text: each
    image's caption in the first n rows, then further captions and prompts of classes. ``owners``
    int64 (t,) is the image that a text describes, or -1 for a prompt, which is only a negative.
    ``sources`` int64 (t,) is each text's source. ``tags`` int64 (t, m), padded with -1, must not be
    shared with negatives. ``colours`` float32 (n, 4) are each image's factors of
    ``augment.vary_colour``.

    Where locked layers' features are kept, ``features`` float16 (n, …) and ``pooled`` float16
    (n, 1280) or (n, 0) replace the pixels, which are then (n, 0).
    """

    step: int
    pixels: np.ndarray
    tokens: np.ndarray
    owners: np.ndarray
    sources: np.ndarray
    tags: np.ndarray
    colours: np.ndarray
    features: np.ndarray | None = None
    pooled: np.ndarray | None = None


class BatchText(NamedTuple):
    """A text of a ``Batch``, with any number of tags."""

    text: str
    owner: int
    source: int
    tags: list[int]


class ImageCache:
    """Decoded RGB images, cached until ``limit`` bytes are used; later ones are not.

    ``side`` is the largest short side, in pixels. Safe to share between threads.
    """

    def __init__(self, limit: int, side: int = STORED_SIDE) -> None:
        self.limit, self.side = limit, side
        self.used = 0
        self.broken: set[tuple[int, int]] = set()
        self._pixels: dict[tuple[int, int], np.ndarray] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int], pairs: PairSet, pair: Pair) -> Image.Image | None:
        """Return the image, or None (logged once) if it cannot be decoded."""
        pixels = self._pixels.get(key)
        if pixels is not None:
            return Image.fromarray(pixels)
        if key in self.broken:
            return None
        try:
            image = _decode(pairs.read(pair), self.side)
        except Exception as exc:  # decoders raise almost anything for a damaged file
            with self._lock:
                if key not in self.broken:
                    self.broken.add(key)
                    log.warning("left out %s: %s", pair.file, exc or repr(exc))
            return None
        pixels = np.asarray(image)
        with self._lock:
            if key not in self._pixels and self.used + pixels.nbytes <= self.limit:
                self.used += pixels.nbytes
                self._pixels[key] = pixels
        return image


class Batches:
    """An endless, repeatable stream of batches from several sources.

    Each image comes with ``captions`` of its texts. With ``class_prompts`` each batch also has a
    prompt for every class of a labelled source, so that images are contrasted with all classes and
    not only with those of the batch.

    Every draw depends on the seed and the sample's position in the stream, so that a resumed run
    sees the same batches, and several processes share a joint batch: process ``rank`` of ``world``
    gets every ``world``-th pair. An image that cannot be decoded is replaced by the next one.
    """

    def __init__(
        self,
        sets: Sequence[PairSet],
        tokenizer: TextTokenizer,
        *,
        image_size: int,
        batch_size: int,
        context_length: int,
        augmentation: Augmentation,
        captions: int = 1,
        class_prompts: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 2,
        cache_bytes: int = 4 << 30,
    ) -> None:
        self.sets, self.tokenizer = sets, tokenizer
        self.image_size, self.context_length = image_size, context_length
        self.augmentation, self.seed = augmentation, seed
        self.captions, self.class_prompts = captions, class_prompts
        self.rank, self.world = rank, world
        self.workers = workers
        self.cache = ImageCache(cache_bytes, max(STORED_SIDE, round(image_size * STORED_MORE)))
        self._tags = max((pairs.most_tags for pairs in sets), default=0)
        self._shares = _shares([pairs.weight for pairs in sets], batch_size)
        self.kept: KeptViews | None = None  # whose views then replace crops of the images

    @property
    def left_out(self) -> int:
        """The number of images that could not be decoded so far."""
        return len(self.kept.broken if self.kept else self.cache.broken)

    def open_image(self, source: int, index: int) -> Image.Image | None:
        """Return an image upright and as RGB, or None if it cannot be decoded."""
        pairs = self.sets[source]
        return self.cache.get((source, index), pairs, pairs.pairs[index])

    def from_step(self, step: int) -> Generator[Batch, None, None]:
        """Yield the batches from this step on, without end."""
        waiting: list[Future[Batch]] = []
        ahead = max(AHEAD, self.workers + 1)
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            try:
                while True:
                    while len(waiting) < ahead:
                        waiting.append(pool.submit(self.batch, step + len(waiting)))
                    yield waiting.pop(0).result()
                    step += 1
            finally:
                for future in waiting:
                    future.cancel()

    def batch(self, step: int) -> Batch:
        """Build this process's part of one step's batch."""
        places = islice(self._places(step), self.rank, None, self.world)
        samples = [self._sample(*place, owner) for owner, place in enumerate(places)]
        texts = [own for _, own, _ in samples]
        texts += [text for _, _, more in samples for text in more]
        texts += self._prompts(step)
        tokens = self.tokenizer.tokenize([text.text for text in texts], self.context_length)
        rng = np.random.default_rng((self.seed, 1 << 33, step))
        colours = draw_colours(sum(self._shares), self.augmentation, rng)
        tags = np.full((len(texts), self._tags), -1, dtype=np.int64)
        for row, text in zip(tags, texts, strict=True):
            row[: len(text.tags)] = text.tags
        longest = int(self.tokenizer.lengths(tokens).max())
        views = [view for view, _, _ in samples]
        kept = [view for view in views if isinstance(view, KeptView)]
        drawn = [view for view in views if not isinstance(view, KeptView)]
        return Batch(
            step,
            np.stack(drawn) if drawn else np.empty((len(views), 0), np.uint8),
            tokens[:, :longest],
            np.array([text.owner for text in texts]),
            np.array([text.source for text in texts]),
            tags,
            colours[self.rank :: self.world],
            np.stack([view.features for view in kept]) if kept else None,
            np.stack([view.pooled for view in kept]) if kept else None,
        )

    def _prompts(self, step: int) -> list[BatchText]:
        """Draw a prompt for each class; every process gets the same number of them."""
        if not self.class_prompts:
            return []
        rng = np.random.default_rng((self.seed, 1 << 34, step))
        prompts = []
        for number, pairs in enumerate(self.sets):
            for label in pairs.class_names:
                prompt = pairs.class_prompt(label, rng)
                prompts.append(BatchText(prompt.text, -1, number, pairs.class_tags(label, prompt)))
        prompts += prompts[: -len(prompts) % self.world]
        return prompts[self.rank :: self.world]

    def _places(self, step: int) -> Iterator[tuple[int, int]]:
        """Yield (source, position in its stream) for every pair of a joint batch."""
        for number, share in enumerate(self._shares):
            yield from ((number, step * share + offset) for offset in range(share))

    def _sample(
        self, number: int, position: int, owner: int
    ) -> tuple[np.ndarray | KeptView, BatchText, list[BatchText]]:
        """Return the pixels or kept features, the caption and further ones of one pair."""
        pairs = self.sets[number]
        rng = np.random.default_rng((self.seed, number, position))
        epoch, place = divmod(position, len(pairs.pairs))
        index = int(_order(self.seed, number, epoch, len(pairs.pairs))[place])
        for _ in range(len(pairs.pairs)):
            pair = pairs.pairs[index]
            view = self._view(number, index, rng)
            if view is not None:
                break
            index = (index + 1) % len(pairs.pairs)
        else:
            raise ModelError(f"none of the {len(pairs.pairs)} images of a source can be decoded")
        first = pairs.caption(pair, rng)
        captions = first, *pairs.more_captions(pair, first, self.captions - 1, rng)
        lost = self.augmentation.words if pair.label < 0 else 0.0
        own, *more = (
            BatchText(drop_words(caption.text, lost, rng), owner, number, pairs.tags(pair, caption))
            for caption in captions
        )
        return view, own, more

    def _view(
        self, number: int, index: int, rng: np.random.Generator
    ) -> np.ndarray | KeptView | None:
        """Return a crop of an image or one of its kept views; None if it cannot be decoded."""
        if self.kept is not None:
            view = int(rng.integers(self.kept.views[number]))
            is_broken = (number, index) in self.kept.broken
            return None if is_broken else self.kept.get(number, index, view)
        image = self.open_image(number, index)
        if image is None:
            return None
        return random_crop(image, self.image_size, self.augmentation, rng)


def _decode(data: bytes, side: int) -> Image.Image:
    """Return an image upright and as RGB, its short side at most ``side`` pixels."""
    with Image.open(io.BytesIO(data)) as file:
        file.draft(None, (side, side))
        image = to_rgb(file)
    if min(image.size) > side:
        scale = side / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)))
    return image


@lru_cache(maxsize=64)
def _order(seed: int, number: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng((seed, number, epoch, 1 << 32)).permutation(length)


def _shares(weights: Sequence[float], total: int) -> list[int]:
    """Split ``total`` in proportion to ``weights``; every source gets at least one.

    Each further place goes to the source with the most weight per place.
    """
    if len(weights) > total:
        raise ModelError(f"a batch of {total} cannot hold pairs of {len(weights)} sources")
    if min(weights) <= 0:
        raise ModelError(f"a source's weight is {min(weights):g}; it should be above 0")
    shares = [1] * len(weights)
    for _ in range(total - len(weights)):
        shares[int(np.argmax(np.divide(weights, shares)))] += 1
    return shares
