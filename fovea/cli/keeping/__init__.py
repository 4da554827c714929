"""``mark``, ``teach``, ``tag``, ``searches``, ``analyse``, ``duplicates``: beside the index.

Start reading at ``marks.py``.
"""

from .analysing import analyse
from .duplicates import duplicates
from .marks import mark
from .searches import searches
from .tags import tag, teach

__all__ = ["analyse", "duplicates", "mark", "searches", "tag", "teach"]
