"""Texts as numbers: no name, folder or camera ever becomes part of an expression.

What filters compare of a picture's names is broken into parts, of each of which the entity has
63 bits of a hash. Two of ten million different parts have the same with a probability of 10⁻⁵.
"""

import hashlib
import os
from collections.abc import Iterable
from functools import lru_cache

from fovea.search.library.facts.folded import canonical_path, fold, fold_path, words

__all__ = [
    "LONGEST_END",
    "LONGEST_FOLDER",
    "number_of",
    "of_file",
    "parts_of_folder",
    "parts_of_name",
    "parts_of_word",
    "token",
]

LONGEST_FOLDER = 8  # parts of a path that are one token together
LONGEST_END = 8  # characters at the beginning or end of a name
LONGEST_PART = 3  # characters within a name
NUMBER_BITS = 53  # of an image's id: what JSON's readers keep exact
NUMBERS = 4  # ids that a content may have, should another have the same


@lru_cache(1 << 16)  # folders and the parts of names come again and again
def token(kind: str, text: str) -> int:
    """Return the number that stands for a text of some kind, 0 to 2⁶³ - 1."""
    data = f"{kind}\0{text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) >> 1


def number_of(digest: bytes, place: int = 0) -> int:
    """Return an image's id from the SHA-256 of its content; never 0.

    ``place``, below ``NUMBERS``, asks for another one where that is taken by another content.
    """
    part = digest[7 * place : 7 * place + 7]
    return (int.from_bytes(part) & ((1 << NUMBER_BITS) - 1)) or 1


def of_file(path: bytes, root: bytes) -> set[int]:
    """Return all tokens of a file: of its folders, its name, and the words of both."""
    folder, _, name = os.fsdecode(path).rpartition("/")
    below, whole = [], canonical_path(folder).split("/")
    for end in range(1, len(whole) + 1):
        below.append(token("below", "/".join(whole[:end])))
    parts = fold_path(folder).strip("/").split("/") if folder.strip("/") else []
    inside = [
        token("in", "/".join(parts[first:last]))
        for first in range(len(parts))
        for last in range(first + 1, min(first + LONGEST_FOLDER, len(parts)) + 1)
    ]
    folded = fold(name)
    found = {*below, *inside, *_tokens_of_name(folded)}
    found |= {token("word", word) for word in words(folded)}
    within = os.fsdecode(path[len(root) :]).rpartition("/")[0]
    return found | {token("folder word", word) for word in words(within)}


def _tokens_of_name(folded: str) -> Iterable[int]:
    for length in range(1, LONGEST_PART + 1):
        for first in range(len(folded) - length + 1):
            yield token("part", folded[first : first + length])
    for length in range(1, min(LONGEST_END, len(folded)) + 1):
        yield token("first", folded[:length])
        yield token("last", folded[-length:])


def parts_of_folder(value: str) -> tuple[list[int], bool]:
    """Return the tokens of a folder's last parts, and whether a path with all of them is below it.

    ``value`` is a folder's whole path, or the last parts of one.
    """
    if value.startswith("/"):
        return [token("below", canonical_path(value.rstrip("/")))], True
    parts = fold_path(value).strip("/").split("/")
    windows = [
        "/".join(parts[first : first + LONGEST_FOLDER])
        for first in range(max(1, len(parts) - LONGEST_FOLDER + 1))
    ]
    return [token("in", window) for window in windows], len(windows) == 1


def parts_of_name(value: str) -> tuple[list[int], bool]:
    """Return the tokens of a name's filter, and whether every name with all of them meets it."""
    if "*" not in value and "?" not in value:
        part = fold(value)
        return parts_of_word(part), len(part) <= LONGEST_PART
    if "?" in value:
        pieces = [fold(piece) for piece in value.replace("?", "*").split("*")]
        inner = pieces
        return [number for piece in inner for number in parts_of_word(piece)], False
    first, *middle, last = map(fold, value.split("*"))
    found = [token("first", first[:LONGEST_END])] if first else []
    found += [token("last", last[-LONGEST_END:])] if last else []
    found += [number for piece in middle for number in parts_of_word(piece)]
    pieces = [piece for piece in (first, *middle, last) if piece]
    is_end = pieces in ([first], [last]) and not any(middle)
    is_part = len(pieces) == 1 and any(middle)
    longest = LONGEST_END if is_end else LONGEST_PART
    return found, not pieces or ((is_end or is_part) and len(pieces[0]) <= longest)


def parts_of_word(text: str) -> list[int]:
    """Return tokens that every name has with this folded text in it."""
    if len(text) <= LONGEST_PART:
        return [token("part", text)] if text else []
    windows = {text[at : at + LONGEST_PART] for at in range(len(text) - LONGEST_PART + 1)}
    return [token("part", window) for window in sorted(windows)]
