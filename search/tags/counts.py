"""How many tags a library has, and how far they are kept up to date, for ``fovea status``."""

from dataclasses import dataclass

from fovea.search.library.library import Library

__all__ = ["TagCounts", "tag_counts"]


@dataclass(frozen=True, slots=True)
class TagCounts:
    """What is known of a library's tags."""

    tags: int
    taught: int  # by enough examples to find pictures
    pictures: int  # with at least one tag
    said: int  # pictures of which somebody said whether they have one
    waiting: int  # pictures not compared yet with some tag that was taught


def tag_counts(library: Library) -> TagCounts:
    """Count them; what waits is compared at the end of a scan, or when a tag is asked for."""
    model = library.model()
    [(tags, taught, scored_to)] = library.rows(
        "SELECT count(*), count(coefficients), min(scored_to) FILTER (WHERE coefficients NOT NULL) "
        "FROM tags LEFT JOIN tag_probes ON tag_id = tags.id"
    )
    [(pictures, said)] = library.rows(
        "SELECT (SELECT count(DISTINCT image_id) FROM tagged), "
        "(SELECT count(DISTINCT hash) FROM tag_examples)"
    )
    waiting = 0
    if model is not None and scored_to is not None:
        [(waiting,)] = library.rows(
            "SELECT count(*) FROM embeddings INDEXED BY embeddings_model_id "
            "WHERE model_id = ? AND id > ?",
            [model.id, scored_to],
        )
    return TagCounts(tags, taught, pictures, said, waiting)
