"""One model's encoder for all threads: words are answered before torch has been imported."""

import gc
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.protocols import TextEncoder
from fovea.search.errors import FoveaError
from fovea.search.models.info import ModelInfo

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SharedEncoder"]

log = logging.getLogger(__name__)

TORCH_AFTER_S = 5.0  # its import keeps a core busy for seconds
REMEMBERED = 4096  # texts; 2 KiB each where embeddings have 512 values


class PictureEncoder(TextEncoder, Protocol):
    """What turns words and pictures into embeddings."""

    @property
    def logit_scale(self) -> float: ...

    def encode_images(self, images: Sequence["Image"]) -> np.ndarray:
        """float32 (n, d), unit rows."""
        ...

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, s, s, 3) -> float32 (n, d), unit rows."""
        ...


class SharedEncoder:
    """Loads each tower once, when it is first needed, and remembers the embeddings of texts."""

    def __init__(
        self,
        name: str,
        identity: str,
        dim: int,
        preprocess: Preprocess,
        *,
        open_words: Callable[[], TextEncoder | None],
        load: Callable[[], PictureEncoder],
    ) -> None:
        self.name, self.identity, self.dim, self.preprocess = name, identity, dim, preprocess
        self._open_words, self._load = open_words, load
        self._loading, self._opening = threading.Lock(), threading.Lock()
        self._full: PictureEncoder | None = None
        self._words: TextEncoder | None = None
        self._texts: OrderedDict[str, np.ndarray] = OrderedDict()
        self._remembering = threading.Lock()

    @classmethod
    def of(cls, model: ModelInfo) -> "SharedEncoder":
        """The encoder of a model on the disk; nothing is read yet."""

        def open_words() -> TextEncoder | None:
            from fovea.search.clip.encoders.numpy_text import NumpyTextEncoder

            return NumpyTextEncoder.open(model.folder)

        return cls(
            model.name,
            model.identity,
            model.dim,
            model.preprocess,
            open_words=open_words,
            load=model.load,
        )

    @property
    def logit_scale(self) -> float:
        """The factor of cosines in zero-shot logits."""
        return self.full().logit_scale

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as float32 unit rows (n, d); those asked for lately are remembered."""
        if not texts:
            return np.empty((0, self.dim), np.float32)
        return np.stack([self._recall(text) for text in texts])

    def encode_images(self, images: Sequence["Image"]) -> np.ndarray:
        """Embed decoded pictures as float32 unit rows (n, d). The first call imports torch."""
        return self.full().encode_images(images)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embed uint8 (n, s, s, 3) as float32 unit rows (n, d). The first call imports torch."""
        return self.full().encode_pixels(pixels)

    def full(self) -> PictureEncoder:
        """The encoder with both towers; loading it takes seconds, once."""
        with self._loading:
            if self._full is None:
                self._full = self._load()
            return self._full

    def words(self) -> TextEncoder:
        """The text tower alone, where it can be had without torch."""
        with self._opening:
            if self._words is None:
                self._words = self._open_words() or self.full()
            return self._words

    def warm(self, closing: threading.Event) -> None:
        """Load what will be needed, the words at once; torch waits until the page is there."""
        try:
            self.words()
            if not closing.wait(TORCH_AFTER_S):
                self.full()
                gc.freeze()  # what torch brought stays; to look through it takes all a tenth second
        except FoveaError as exc:
            log.warning("%s is not loaded ahead: %s", self.name, exc)

    def _recall(self, text: str) -> np.ndarray:
        """The embedding (d,) of one text."""
        with self._remembering:
            known = self._texts.get(text)
            if known is not None:
                self._texts.move_to_end(text)
                return known
        [row] = self.words().encode_texts([text])
        row.flags.writeable = False
        with self._remembering:
            self._texts[text] = row
            while len(self._texts) > REMEMBERED:
                self._texts.popitem(last=False)
        return row
