"""Pictures that somebody searches by: decoded like indexed ones, never stored."""

from collections.abc import Sequence

import numpy as np

from fovea.indexer.decoding.limits import Refused
from fovea.indexer.workers.decode_pool import Crowded
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine

from .thumbnails import crowded, renderer

__all__ = ["embed_pictures"]


def embed_pictures(engine: Engine, files: Sequence[bytes]) -> list[np.ndarray]:
    """The unit vectors, float32 (d,), of pictures' bytes.

    Raise ``Problem`` 422 for one that cannot be decoded, saying which and why, and 503 where too
    many wait for it.
    """
    if not files:
        return []
    encoder = engine.encoder()
    pixels = []
    for number, data in enumerate(files, 1):
        try:
            pixels.append(renderer().pixels(data, encoder.preprocess))
        except Refused as exc:
            raise Problem(
                422,
                "Unprocessable Content",
                f"picture {number}: {exc}",
                code="picture",
                params={"number": number},
            ) from exc
        except Crowded as exc:
            raise crowded(exc) from exc
    return list(encoder.encode_pixels(np.stack(pixels)))
