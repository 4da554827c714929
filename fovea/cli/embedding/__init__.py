"""``fovea embed``, and taking embeddings in.

Start reading at ``embed.py``.
"""

from .embed import embed

__all__ = ["embed"]
