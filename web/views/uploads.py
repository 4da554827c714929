"""Pictures sent as queries: decoded like indexed ones, never stored."""

from collections.abc import Sequence

import numpy as np

from fovea.indexer.decoding.limits import Refused
from fovea.indexer.workers.decode_pool import Crowded
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine

from .thumbnails import crowded, renderer

__all__ = ["embed_pictures"]


def embed_pictures(engine: Engine, files: Sequence[bytes]) -> list[np.ndarray]:
    """Embed the bytes of pictures; return unit vectors, float32 (d,).

    Raise ``Problem`` 422 for a picture that cannot be decoded, and 503 if too many are waiting.
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
