"""Which parts of a label were typed."""

import re
from collections.abc import Sequence

from fovea.search.library.facts.folded import fold

__all__ = ["matched"]

WORD = re.compile(r"[^\W_]+")


def matched(label: str, tokens: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return where words of a label begin with folded tokens: start and end, in characters.

    In a script without spaces, where a token is found inside a word.
    """
    found: list[tuple[int, int]] = []
    for word in WORD.finditer(label):
        folded = fold(word[0])
        begun = [token for token in tokens if token and folded.startswith(token)]
        if begun:
            length = _length(word[0], max(map(len, begun)))
            found.append((word.start(), word.start() + length))
            continue
        inside = [token for token in tokens if not token.isascii() and token in folded]
        if inside and len(folded) == len(word[0]):
            start = word.start() + folded.index(inside[0])
            found.append((start, start + len(inside[0])))
    return tuple(found)


def _length(word: str, folded: int) -> int:
    """Return how many characters of a word fold to so many, or to a few more."""
    for length in range(1, len(word) + 1):
        if len(fold(word[:length])) >= folded:
            while length < len(word) and fold(word[: length + 1]) == fold(word[:length]):
                length += 1  # a mark that is left out belongs to its letter
            return length
    return len(word)
