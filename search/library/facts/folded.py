"""Names as they are compared: one function folds what is stored and what people type.

One name is written in several ways: macOS keeps an accent, a voiced mark or the parts of a Hangul
syllable as characters of their own (NFD), other systems mostly keep one character (NFC), and people
type either. Plain words, ``name:`` and ``in:`` compare what ``fold`` returns; a folder's whole path
is compared as ``canonical_path`` returns it: those that differ in case or accents are different.
"""

import re
import sqlite3
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from .dates import named_date

__all__ = ["canonical_path", "fold", "fold_path", "register", "words"]

# Marks that readers leave out: diacritics, and the points and vowels of Hebrew and Arabic. The
# marks of other scripts are letters to their readers: kana's voiced marks, Indic vowels, nukta.
_LEFT_OUT = (
    "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"  # diacritics
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # Hebrew
    "\u0610-\u061a\u0640\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8"
    "\u06ea-\u06ed\u08d3-\u08e1\u08e3-\u08ff"  # Arabic, and the stroke that stretches a word
)
# Characters without a look of their own (Unicode's Default_Ignorable_Code_Point).
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_DROPPED = re.compile(f"[{_LEFT_OUT}{_INVISIBLE}]+")
# What no table of Unicode's folds: the voiced marks that stand alone, the dotless i (whose capital
# is I, the same as of i), and the slash of a full-width name, which is none between folders.
_ALIKE = str.maketrans({"\u309b": "\u3099", "\u309c": "\u309a"})
_ALSO = str.maketrans({"\u0131": "i", "/": "\u2215"})
_SURROGATE = re.compile("[\ud800-\udfff]")  # a byte that is not UTF-8, as ``os.fsdecode`` gives it
_BYTES = 0x10FF00  # the private characters for such bytes
_WORD = re.compile(r"[^\W_]+")
# Pictographs, also those that this Python's Unicode does not know yet, or takes for modifiers.
_PICTOGRAPHS = "\U0001f000", "\U0001faff"
KEPT = 4096  # folded names that are remembered


def canonical_path(path: str) -> str:
    """Return a path in Unicode's composed form (NFC).

    A byte that is not UTF-8 becomes a private character.
    """
    return path if path.isascii() else _valid(unicodedata.normalize("NFC", path))


def fold(text: str) -> str:
    """Return a name, or a part of one, in the form in which names are compared.

    Alike are: composed and decomposed characters; upper and lower case in all scripts (``ß`` and
    ``ss``, final and other sigmas, I with and without its dot); compatible forms (full and half
    width, ligatures, Arabic's presentation forms); letters with and without diacritics, Hebrew and
    Arabic with and without points and vowels; and what cannot be seen does not count. These are
    Unicode's compatibility caseless match (The Unicode Standard 15, D146) and the marks above. A
    byte that is not UTF-8 becomes a private character. Text of nothing but such marks keeps them.
    """
    if text.isascii():
        return text.lower()
    return _folded(text)


@lru_cache(KEPT)
def _folded(text: str) -> str:
    whole = unicodedata.normalize("NFD", text.translate(_ALIKE)).casefold()
    whole = unicodedata.normalize("NFKD", whole).casefold()
    whole = unicodedata.normalize("NFKD", whole).translate(_ALSO)
    return _valid(unicodedata.normalize("NFC", _DROPPED.sub("", whole) or whole))


def _valid(text: str) -> str:
    """Write the bytes that are not UTF-8 as private characters, for SQLite."""
    return text if text.isascii() else _SURROGATE.sub(_private, text)


def _private(half: re.Match[str]) -> str:
    return chr(_BYTES + ord(half[0]) - 0xDC00) if "\udc80" <= half[0] <= "\udcff" else "\ufffd"


@lru_cache(KEPT)
def fold_path(path: str) -> str:
    """Fold the parts of a path, each by itself."""
    return path.lower() if path.isascii() else "/".join(map(fold, path.split("/")))


def words(text: str) -> list[str]:
    """Return the words of a text, folded: runs of letters and digits, with their marks.

    Each symbol that is not ASCII, such as an emoji or a star, is a word of its own.
    These are the tokens of the table ``names``, which has them separated by spaces.
    """
    return _words(fold(text)).split()


def _words(folded: str) -> str:
    if folded.isascii():
        return " ".join(_WORD.findall(folded))
    kept, in_word = [], False
    for c in folded:
        in_word = c.isalnum() or (in_word and unicodedata.category(c)[0] == "M")
        kept.append(c if in_word else f" {c} " if _is_symbol(c) else " ")
    return " ".join("".join(kept).split())


def _is_symbol(c: str) -> bool:
    first, last = _PICTOGRAPHS
    return not c.isascii() and (first <= c <= last or unicodedata.category(c) == "So")


@lru_cache(KEPT)
def _folder_words(folder: str) -> str:
    return _words(fold(folder))


# In SQL. A path is bytes; triggers call these, so only connections that have them can write files.


def register(conn: sqlite3.Connection) -> None:
    """Give a connection the functions that tables, their triggers and filters use."""
    functions: dict[str, Callable[[object], str]] = {
        "folded_name": lambda path: fold(_parts(path)[1]),
        "folded_folder": lambda path: fold_path(_parts(path)[0]) + "/",
        "folded_words": lambda folded: _words(str(folded)),
        "folder_words": lambda path: _folder_words(_parts(path)[0]),
        "canonical_path": lambda path: canonical_path("/".join(_parts(path))),
    }
    for name, function in functions.items():
        conn.create_function(name, 1, function, deterministic=True)
    conn.create_function("named_date", 1, named_date)  # not deterministic: nothing is from tomorrow


def _parts(path: object) -> tuple[str, str]:
    """Return a path's folder and name; damaged rows may hold anything."""
    text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else str(path)
    folder, _, name = text.rpartition("/")
    return folder, name
