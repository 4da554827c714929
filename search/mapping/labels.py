"""The labels that may name clusters, embedded by the library's model where they are not yet."""

import logging

from fovea.search.library.library import Library
from fovea.search.models.resolve import resolve_model
from fovea.search.query.likelihood import Background

__all__ = ["labels_of"]

log = logging.getLogger(__name__)


def labels_of(library: Library) -> Background | None:
    """Embed the labels that ship with fovea by the library's model; None where it is missing.

    That loads the model, and takes seconds.
    """
    model = library.model()
    if model is None:
        return None
    try:
        encoder = resolve_model(None, model, network=False).load(device="cpu")
        return Background.of(model.identity, encoder)
    except Exception as exc:  # whatever a text tower raises: the map is whole without names
        log.warning("clusters of the map have no names: %s", exc)
        return None
