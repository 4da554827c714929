"""An encoder that loads what it needs when it needs it, and embeds words without torch."""

import gc
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.protocols import TextEncoder
from fovea.search.errors import FoveaError

from .info import ModelInfo
from .together import Together

if TYPE_CHECKING:
    from PIL.Image import Image

    from fovea.search.clip.encoders.base import TorchEncoder

__all__ = ["TORCH_AFTER_S", "LazyEncoder", "TextsLater"]

log = logging.getLogger(__name__)

TORCH_AFTER_S = 5.0  # importing torch keeps a core busy for seconds, so the page comes first
REMEMBERED = 4096  # texts whose embeddings are cached, 2 KiB each for 512 dimensions


class LazyEncoder:
    """Loads each tower once, when it is first needed, and caches embeddings of texts.

    Texts go through the text tower in NumPy, which is there before torch has been imported; torch
    is imported for pictures, and on a device or in a precision that NumPy does not have. Safe to
    share between threads.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        dim: int,
        preprocess: Preprocess,
        *,
        open_words: Callable[[], TextEncoder | None],
        load: "Callable[[], TorchEncoder]",
        place: Path | None = None,
    ) -> None:
        self.place = place  # the model's folder or weights file; None for one in memory
        self.name, self.identity, self.dim, self.preprocess = name, identity, dim, preprocess
        self._open_words, self._load = open_words, load
        self._loading, self._opening = threading.Lock(), threading.Lock()
        self._full: TorchEncoder | None = None
        self._words: TextEncoder | None = None
        self._texts: OrderedDict[str, np.ndarray] = OrderedDict()
        self._remembering = threading.Lock()
        self._together = Together(lambda texts: self.words().encode_texts(texts))

    @classmethod
    def of(cls, model: ModelInfo, *, device: str = "auto", dtype: str = "auto") -> "LazyEncoder":
        """Wrap a model on the disk; its files are read on first use."""

        def open_words() -> TextEncoder | None:
            if device not in ("auto", "cpu") or dtype not in ("auto", "float32", "int8"):
                return None
            from fovea.search.clip.encoders.numpy_text import NumpyTextEncoder

            return NumpyTextEncoder.open(model.folder)

        return cls(
            model.name,
            model.identity,
            model.dim,
            model.preprocess,
            open_words=open_words,
            load=lambda: model.load(device=device, dtype=dtype),
            place=model.folder,
        )

    @property
    def logit_scale(self) -> float:
        """The factor that turns cosines into zero-shot logits."""
        return self.full().logit_scale

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as float32 unit rows (n, d); recent ones come from a cache."""
        if not texts:
            return np.empty((0, self.dim), np.float32)
        known = self._recall(texts)
        wanted = [text for text in dict.fromkeys(texts) if text not in known]
        if wanted:
            known |= self._remember(wanted, self._together.embed(wanted))
        return np.stack([known[text] for text in texts])

    def encode_images(self, images: Sequence["Image"]) -> np.ndarray:
        """Embed decoded pictures as float32 unit rows (n, d). The first call imports torch."""
        return self.full().encode_images(images)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embed uint8 (n, s, s, 3) as float32 unit rows (n, d). The first call imports torch."""
        return self.full().encode_pixels(pixels)

    def full(self) -> "TorchEncoder":
        """Return the encoder with both towers; the first call takes seconds to load it."""
        with self._loading:
            if self._full is None:
                self._full = self._load()
            return self._full

    def words(self) -> TextEncoder:
        """Return the text tower alone where it runs without torch, else the full encoder."""
        with self._opening:
            if self._words is None:
                self._words = self._open_words() or self.full()
            return self._words

    def warm(self, closing: threading.Event) -> None:
        """Load the text tower now, and the rest once the page has had time to load."""
        try:
            self.words()
            if not closing.wait(TORCH_AFTER_S):
                self.full()
                gc.freeze()  # torch's objects stay; scanning them would pause all for 0.1 s
        except FoveaError as exc:
            log.warning("cannot load %s in advance: %s", self.name, exc)

    def _recall(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the embeddings (d,) of those texts that are in the cache."""
        with self._remembering:
            known = {text: self._texts[text] for text in texts if text in self._texts}
            for text in known:
                self._texts.move_to_end(text)
        return known

    def _remember(self, texts: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Put embeddings (n, d) into the cache, and return them by their texts."""
        made = {text: row.copy() for text, row in zip(texts, rows, strict=True)}
        with self._remembering:
            self._texts |= made
            while len(self._texts) > REMEMBERED:
                self._texts.popitem(last=False)
        return made


class TextsLater:
    """Embeds texts with an encoder that is looked for once there are any.

    So a library can be browsed, and searched with its own images, without its model.
    """

    def __init__(self, find: Callable[[], TextEncoder]) -> None:
        self._find = find

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as float32 unit rows (n, d)."""
        return self._find().encode_texts(texts)
