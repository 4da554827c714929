"""Which better model a library could use, and what it costs to get it.

Nothing here downloads anything, or imports torch.
"""

from dataclasses import dataclass

from fovea.data import BUNDLED
from fovea.search.library.rows import ModelRow

from .hub import is_offline
from .info import ModelInfo
from .installed import best_on_disk, former_bundled
from .named_hub import RECOMMENDED
from .openai import find_openai

__all__ = ["Offer", "better_model"]


@dataclass(frozen=True, slots=True)
class Offer:
    """A better model than the one in use: ``fovea models use NAME`` switches to it."""

    name: str
    bytes: int  # of its download, about; 0 if it is on this disk


def better_model(current: ModelRow | ModelInfo | None) -> Offer | None:
    """Return the model to switch to from ``current``; None if there is no reason to, or no way.

    ``current`` is what a library uses, or None for what a new one would use. Only a library with a
    bundled model is offered another. From a former one that is the best on the disk, or else the
    bundled one, so that no library is embedded twice on its way. Else it is the recommended one, or
    the best on the disk where that is as good, or all that can be had because downloads are
    switched off.
    """
    if current is not None and current.source != "bundled":
        return None
    here = best_on_disk()
    if former_bundled(current):
        return Offer(BUNDLED if here is None else here.name, 0)
    if current is None and here is not None:
        return None  # it will be used anyway
    if here is not None and (is_offline() or _accuracy(here) >= RECOMMENDED.accuracy):
        return Offer(here.name, 0)
    return None if is_offline() else Offer(RECOMMENDED.name, RECOMMENDED.bytes)


def _accuracy(model: ModelInfo) -> float:
    """Return the published accuracy of the best model on the disk, per cent."""
    published = find_openai(model.name)
    return published.accuracy if published else RECOMMENDED.accuracy
