"""Save what answers need beside a library, so that no search has to make it."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fovea.search.clip.protocols import IndexingEncoder
from fovea.search.errors import LibraryError
from fovea.search.index.save import is_saved
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow
from fovea.search.query.likelihood import Background
from fovea.search.query.measured import measured_in

__all__ = ["prepare"]

log = logging.getLogger(__name__)


def prepare(
    library: Library, model: ModelRow, load_encoder: Callable[[], IndexingEncoder], place: Path
) -> None:
    """Save a model's index snapshot, and the background that likelihoods need if it is missing.

    A model that was never measured needs none.

    ``place`` is the model's folder or weights file, where what was measured of it lies. The encoder
    is loaded for the background alone. It may take minutes where the index is trained. Both are
    caches: what cannot be saved is logged.
    """
    try:
        if not is_saved(library, model, IndexOptions()):
            VectorIndex.open(library, model.id).save()
    except LibraryError as exc:
        log.warning("the index is not saved: %s", exc)
    signs = measured_in(place, model.identity, model.dim)
    known = Background.load(library.folder, model.identity)
    if known is not None:
        if known.signs != signs:  # measured since
            replace(known, signs=signs).save(library.folder)
        return
    if signs is None:  # then there are no likelihoods
        return
    try:
        Background.of(model.identity, load_encoder(), signs).save(library.folder)
    except Exception as exc:  # whatever a model's text tower raises: the library is whole without
        log.warning("likelihoods are not prepared: %s", exc)
