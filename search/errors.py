"""The errors that a user can meet and put right."""

from .clip.errors import FoveaError, ModelError

__all__ = ["FoveaError", "LibraryBusy", "LibraryError", "ModelError", "Unreachable"]


class LibraryError(FoveaError):
    """The library, its database or its index cannot be used as asked."""


class LibraryBusy(LibraryError):
    """Another process is writing to the library."""


class Unreachable(ModelError):
    """A model is not on the disk, and the network or its server does not answer."""
