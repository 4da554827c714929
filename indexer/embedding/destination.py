"""What a destination of embeddings can do, and what it knows before a run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .done import Done
from .items import Result

__all__ = ["Destination", "Known", "Stamp", "StampOf", "differ"]

# A shard's size in bytes, and in nanoseconds since 1970 when it changed; None where nobody knows.
Stamp = tuple[int | None, int | None]
StampOf = Callable[[str], Stamp]  # of a shard, by its name as it is recorded


def differ(one: Stamp, other: Stamp) -> bool:
    """Whether two stamps cannot be of the same file, unchanged."""
    return any(None not in pair and pair[0] != pair[1] for pair in zip(one, other, strict=True))


@dataclass(frozen=True, slots=True)
class Known:
    """What needs nothing any more: ids of files, shards that are whole, and ids of others."""

    done: Done
    whole: frozenset[str] = frozenset()
    begun: dict[str, frozenset[bytes]] = field(default_factory=dict)


class Destination(Protocol):
    """Takes results, and writes them in batches, each whole or not at all."""

    def known(self, stamp_of: StampOf | None = None) -> Known:
        """Say what is there. A shard is whole if ``stamp_of`` says of it what was recorded."""

    def take(self, result: Result) -> None:
        """Take a result; it may be written later."""

    def finish(self) -> None:
        """Write what is left."""

    @property
    def problems(self) -> list[tuple[bytes, str]]:
        """What could not be written or was left as it was, and why."""
