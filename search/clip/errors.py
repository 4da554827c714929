"""The errors that a user can meet and put right."""


class FoveaError(Exception):
    """Base of the errors a user can meet and put right: one line, with the next step."""


class ModelError(FoveaError):
    """A model, its files or its device cannot be used as asked."""
