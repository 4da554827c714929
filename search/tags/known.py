"""What a tag that nobody has made may mean."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from fovea.search.errors import Unanswerable
from fovea.search.library.facts.tags import tag_words
from fovea.search.library.library import Library

from .scoring import refresh_if_possible

__all__ = ["check_tags", "tagged_images"]

NEAR = 3  # names that are suggested
NAMED = 8  # tags that are listed where no name is like the one asked for
SIMILAR = 0.6  # difflib's ratio, from which a name is worth suggesting

_NONE = "there are no tags in this library yet; fovea teach NAME --yes FILE makes one"
_UNKNOWN = "there is no tag {found}."


def check_tags(library: Library, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> None:
    """Bring the tags up to date where a query names some.

    Raise ``Unanswerable`` where it wants one that is not there; one that leaves pictures out may
    have another name: then there are none to leave out.
    """
    if not wanted and not unwanted:
        return
    refresh_if_possible(library)
    known = dict(library.rows("SELECT folded, name FROM tags ORDER BY folded"))
    for value in wanted:
        if tag_words(value) in known:
            continue
        if not known:
            raise Unanswerable(_NONE, "query.no_tags")
        found = repr(value if len(value) <= 20 else f"{value[:19]}…")
        message = _UNKNOWN.format(found=found)
        near = get_close_matches(tag_words(value), known, NEAR, SIMILAR)
        if near:
            said = ", ".join(known[words] for words in near)
            raise Unanswerable(
                f"{message} Did you mean {said}?", "query.unknown_tag_near", found=found, near=said
            )
        some = ", ".join([*known.values()][:NAMED])
        raise Unanswerable(
            f"{message} There are: {some}", "query.unknown_tag", found=found, tags=some
        )


def tagged_images(value: str) -> tuple[str, list[Any]]:
    """Return SQL for the ids of the images that have the tag of a filter's value."""
    sql = "SELECT image_id FROM tagged JOIN tags ON tags.id = tag_id WHERE folded = ?"
    return sql, [tag_words(value)]
