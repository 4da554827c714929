"""What is written to a library, and read for copying it: pictures with all that is known of them.

A picture is known by the SHA-256 of its content. Writing it twice is writing it once, so that a run
that was broken off is simply repeated.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fovea.search.library.rows import FileState, ImageMetadata, ModelRow, NewImage

__all__ = ["FileAt", "Kept", "Unread", "Writing"]


@dataclass(frozen=True, slots=True)
class FileAt:
    """A file that shows a picture."""

    path: bytes
    root: bytes  # the folder that was indexed
    size: int
    mtime_ns: int
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture with its embedding, its files and its place by name.

    ``place`` is as ``places.moving`` writes it, None where none is known.
    """

    image: NewImage
    files: tuple[FileAt, ...]
    place: dict[str, Any] | None = None

    @property
    def hash(self) -> bytes:
        """The SHA-256 of its content."""
        return self.image.hash

    @property
    def metadata(self) -> ImageMetadata:
        """What its content says of it."""
        return self.image.metadata


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that shows no picture, and why."""

    path: bytes
    root: bytes
    state: FileState
    reason: str | None
    size: int = 0
    mtime_ns: int = 0


class Writing(Protocol):
    """A library as those see it who fill it or copy it, for the model that it uses."""

    @property
    def model(self) -> ModelRow | None:
        """The model of its embeddings; None before anything is indexed."""

    def use_model(self, name: str, identity: str, dim: int, source: str) -> ModelRow:
        """Make a model the one that the library uses, once it is empty or has none yet."""

    def upsert(self, pictures: Sequence[Kept], *, roots: Collection[bytes] | None = None) -> None:
        """Write a batch; pictures that are there are replaced, and their files with them.

        With ``roots``, only their files below these folders are replaced.
        """

    def roots(self) -> set[bytes]:
        """Return the folders whose files there are, or were."""

    def delete(self, hashes: Iterable[bytes]) -> None:
        """Remove pictures; those that are not there do not matter."""

    def account(self, files: Sequence[Unread]) -> None:
        """Note files that show no picture; those noted before are replaced."""

    def known(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Return which of the pictures are there with an embedding."""

    def pictures(self) -> Iterator[list[Kept]]:
        """Yield all searchable pictures that have an embedding, in batches."""

    def unread(self) -> Iterator[list[Unread]]:
        """Yield the files that show no picture, in batches."""

    def count(self) -> int:
        """Count the pictures that ``pictures`` yields."""
