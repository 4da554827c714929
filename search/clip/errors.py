"""Errors that a user can fix."""


class FoveaError(Exception):
    """Base of the errors that a user can fix; its message is one line with the next step."""


class ModelError(FoveaError):
    """A model, its files or its device cannot be used as asked."""
