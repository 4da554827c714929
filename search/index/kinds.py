"""The kinds of index that a snapshot can store; without one, search is exhaustive.

To add a kind, write an ``IndexKind`` and give it a name here; ``IndexOptions.kind`` chooses it.
"""

from . import train_ivf
from .base import IndexKind

__all__ = ["KINDS"]

KINDS: dict[str, IndexKind] = {"ivf": train_ivf}
