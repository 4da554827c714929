"""``fovea mark`` and ``fovea searches``: what people keep in a library.

Start reading at ``marks.py``.
"""

from .marks import mark
from .searches import searches

__all__ = ["mark", "searches"]
