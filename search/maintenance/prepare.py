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
from fovea.search.tags.scoring import refresh_if_possible

from .labelling import label_pictures, labels_wanted

__all__ = ["prepare"]

log = logging.getLogger(__name__)


def prepare(
    library: Library, model: ModelRow, load_encoder: Callable[[], IndexingEncoder], place: Path
) -> None:
    """Save a model's index snapshot, and the background that likelihoods need if it is missing.

    A model that was never measured needs none. New pictures are compared with the tags that people
    taught.

    ``place`` is the model's folder or weights file, where what was measured of it lies. The encoder
    is loaded for the background alone. It may take minutes where the index is trained. Both are
    caches: what cannot be saved is logged.
    """
    try:
        if not is_saved(library, model, IndexOptions()):
            VectorIndex.open(library, model.id).save()
    except LibraryError as exc:
        log.warning("the index is not saved: %s", exc)
    _save_background(library, model, load_encoder, place)
    _tag_pictures(library, model, load_encoder)


def _save_background(
    library: Library, model: ModelRow, load_encoder: Callable[[], IndexingEncoder], place: Path
) -> None:
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


def _tag_pictures(
    library: Library, model: ModelRow, load_encoder: Callable[[], IndexingEncoder]
) -> None:
    """Compare new pictures with the tags that were taught, and with labels where they are on."""
    refresh_if_possible(library)
    try:
        wanted = labels_wanted(library)
        if wanted is not None:
            background = Background.load(library.folder, model.identity)
            encoder = load_encoder() if wanted.own else None
            after = wanted.last if wanted.identity == model.identity else 0
            label_pictures(library, model, background, wanted.own, encoder, after, wanted.right)
    except LibraryError as exc:
        log.warning("pictures get no labels: %s", exc)
