"""The errors that a user can meet and put right."""

from fovea.search.clip.errors import FoveaError, ModelError

__all__ = [
    "FoveaError",
    "LibraryBusy",
    "LibraryError",
    "ModelError",
    "ModelUnreachable",
    "Unanswerable",
]


class LibraryError(FoveaError):
    """The library, its database or its index cannot be used as asked."""


class LibraryBusy(LibraryError):
    """Another process is writing to the library."""


class Unanswerable(LibraryError):
    """A query that can be read but has no answer; ``code`` and ``params`` say why to programs."""

    def __init__(self, message: str, code: str, **params: str | int) -> None:
        super().__init__(message)
        self.code, self.params = code, params


class ModelUnreachable(ModelError):
    """A model is not on the disk, and the network or its server does not answer."""
