"""``fovea map``: the map of a library.

Start reading at ``maps.py``.
"""

from .maps import maps

__all__ = ["maps"]
