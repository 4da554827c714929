"""What is being typed: the item or the words of a query that end at the caret.

The text is unfinished, so that this reads what ``language.parse`` would refuse, by its expressions.
Whether a query is valid is for ``parse`` alone to say.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fovea.search.query.language import PREFIX, QUOTED, WORD

__all__ = ["MOST_WORDS", "Typed", "typed_at"]

MOST_WORDS = 4  # at the caret that may be one name or date
ENDING = re.compile(r"\s+$")


@dataclass(frozen=True, slots=True)
class Typed:
    """One reading of what ends at the caret."""

    sign: str  # "", "-" or "+"
    key: str  # of a filter, as "in"; "" for plain words
    value: str  # after the colon, or the words; without quotation marks, even if one is missing
    rest: str  # the query without it
    is_alone: bool  # no plain words before it
    is_finished: bool = False  # white space follows the words


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    sign: str
    weight: str
    key: str
    value: str
    value_start: int
    is_quoted: bool

    @property
    def is_plain(self) -> bool:
        return not (self.sign or self.weight or self.key or self.is_quoted)


def typed_at(text: str, at: int) -> list[Typed]:
    """Return what may be meant by the text up to the character ``at``, most words first.

    Empty where nothing is being typed, as after a filter and a space.
    """
    head, tail = text[:at], text[at:]
    pieces = list(_pieces(head))
    if not pieces:
        return []
    last, is_finished = pieces[-1], bool(ENDING.search(head))
    if is_finished and not last.is_plain and last.end < at:
        return []
    if last.end == at:  # what follows without a space belongs to it
        tail = _after_item(text, last, at)
    plain = [piece for piece in pieces if piece.is_plain]
    if last.is_quoted and not last.key:
        return []  # words that are to be left alone
    if not last.is_plain:
        if last.weight:
            return []
        rest = _joined(head[: last.start], tail)
        return [Typed(last.sign, last.key, last.value, rest, not plain)]
    run: list[_Piece] = []
    for piece in reversed(pieces):
        if not piece.is_plain or len(run) == MOST_WORDS:
            break
        run.insert(0, piece)
    return [
        Typed(
            "",
            "",
            " ".join(piece.value for piece in run[number:]),
            _joined(head[: run[number].start], tail),
            len(plain) == len(run) - number,
            is_finished,
        )
        for number in range(len(run))
    ]


def _after_item(text: str, last: _Piece, at: int) -> str:
    """Return what follows the item in which the caret stands."""
    if last.is_quoted and (whole := QUOTED.match(text, last.value_start)):
        return text[max(at, whole.end()) :]
    word = WORD.match(text, at)
    return text[at:] if word is None or last.is_quoted else text[word.end() :]


def _joined(before: str, after: str) -> str:
    return f"{before.rstrip()} {after.lstrip()}".strip()


def _pieces(text: str) -> Iterator[_Piece]:
    position = 0
    while word := WORD.search(text, position):
        start = word.start()
        prefix = PREFIX.match(text, start)
        assert prefix is not None  # each of its parts is optional
        if word[0] in ("+", "-"):
            yield _Piece(start, word.end(), "", "", "", word[0], start, False)
            position = word.end()
            continue
        sign, weight, key = prefix[1], prefix[2] or "", (prefix[3] or "").lower()
        at, end = prefix.end(), word.end()
        is_quoted = text[at : at + 1] == '"'
        value = text[at:end]
        if is_quoted:
            quoted = QUOTED.match(text, at)
            end = quoted.end() if quoted else len(text)
            value = re.sub(r"\\(.)", r"\1", quoted[1] if quoted else text[at + 1 :], flags=re.S)
        yield _Piece(start, end, sign, weight, key, value, at, is_quoted)
        position = end
