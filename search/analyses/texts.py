"""Text in pictures: what a library holds of it, and SQL that finds it."""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fovea.search.library.facts.texts import LETTERS, UNSPACED, text_run, text_words
from fovea.search.library.library import Library

__all__ = [
    "KIND",
    "Line",
    "matching",
    "store_lines",
    "text_of",
    "texted_images",
    "texts_begun",
    "wanted_words",
]

KIND = "text"  # the kind of analysis that finds it
GLUED = 8  # characters from which words are looked for without the spaces between them, too
BEGUN = 200, 20_000  # pictures whose text is looked at for suggestions, and its characters
RANKED, PAGES = 5000, 8  # pictures with all the words that are ranked at a time, and how often
LAST = 2**63 - 1  # no id is higher
WORDY = re.compile("[\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]")
DIGITS = 4  # of confidences and coordinates

Ids = np.ndarray


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text in a picture."""

    text: str
    confidence: float  # 0 to 1, as the engine says
    corners: tuple[float, ...]  # x, y of four corners from the top left one clockwise, each 0 to 1


def store_lines(conn: sqlite3.Connection, image_id: int, lines: Sequence[Line]) -> None:
    """Insert the text of an image that has none; nothing where there are no lines."""
    if not lines:
        return
    written = [
        [
            _valid(line.text),
            round(line.confidence, DIGITS),
            [round(at, DIGITS) for at in line.corners],
        ]
        for line in lines
    ]
    conn.execute(
        "INSERT INTO texts VALUES (?, ?)", (image_id, json.dumps(written, ensure_ascii=False))
    )
    words = " ".join(word for line in lines for word in text_words(line.text))
    conn.execute("INSERT INTO text_words (rowid, words) VALUES (?, ?)", (image_id, words))
    runs = "\n".join(text_run(line.text) for line in lines)
    conn.execute("INSERT INTO text_runs (rowid, runs) VALUES (?, ?)", (image_id, runs))


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair is not text to SQLite


def text_of(library: Library, image_id: int) -> tuple[Line, ...]:
    """Return the lines of text in an image, top to bottom; none where none is known."""
    rows = library.rows("SELECT lines FROM texts WHERE image_id = ?", [image_id])
    lines: list[list[Any]] = json.loads(rows[0][0]) if rows else []
    return tuple(Line(text, confidence, tuple(at)) for text, confidence, at in lines)


def matching(value: str) -> tuple[str, list[str]] | None:
    """Return SQL for the ids of images that show these words one after another, and its values.

    Long ones, and those of scripts without spaces, are found inside of longer runs as well, where
    an engine has lost the spaces. None for a value without a word.
    """
    words = text_words(value)
    if not words:
        return None
    sql, values = "SELECT rowid FROM text_words WHERE text_words MATCH ?", [_quoted(*words)]
    run = "".join(words)
    if len(run) >= (LETTERS if UNSPACED.search(run) else GLUED):
        sql += " UNION SELECT rowid FROM text_runs WHERE text_runs MATCH ?"
        values.append(_quoted(run))
    return sql, values


def wanted_words(words: str) -> str | None:
    """Return an FTS5 expression for all of these words, in any order; None where they are too few.

    A run of characters of a script without spaces is wanted as it stands. A single character
    suffices only where it is a word: one of Chinese, or a syllable of Hangul.
    """
    parts = [text_words(part) for part in words.split()]
    phrases = [phrase for part in parts for phrase in _phrases(part)]
    if not any(len("".join(phrase)) > 1 or WORDY.match(phrase[0]) for phrase in phrases):
        return None
    return " AND ".join(_quoted(*phrase) for phrase in phrases)


def _phrases(words: list[str]) -> list[list[str]]:
    """Join characters of scripts without spaces that follow each other."""
    found: list[list[str]] = []
    for before, word in zip(["", *words], words, strict=False):
        if found and UNSPACED.match(word) and UNSPACED.match(before):
            found[-1].append(word)
        else:
            found.append([word])
    return found


def _quoted(*words: str) -> str:
    return '"' + " ".join(words) + '"'  # no word has a quotation mark


def texted_images(
    library: Library,
    words: str,
    limit: int,
    allowed: Ids | None = None,
    exclude: Ids | None = None,
) -> list[int]:
    """Return at most ``limit`` searchable images whose text has all words, the best first.

    Best is by BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework"): where
    the words are rare, and much of the text; of very many, only the newest are ranked. ``allowed``
    limits them and ``exclude`` keeps some out, both ascending ids.
    """
    wanted = wanted_words(words)
    if wanted is None:
        return []
    asked = [("text_words", wanted)]
    if len(run := text_run(words)) >= GLUED and not UNSPACED.search(run):
        asked.append(("text_runs", _quoted(run)))
    found: dict[int, None] = {}
    for table, expression in asked:
        found |= dict.fromkeys(_best(library, table, expression, limit, allowed, exclude))
    return list(found)[:limit]


def _best(
    library: Library,
    table: str,
    expression: str,
    limit: int,
    allowed: Ids | None,
    exclude: Ids | None,
) -> list[int]:
    """Return the permitted images among the newest that match, the best first.

    A page of matches is ranked; further pages are looked at while too few images are permitted.
    """
    if allowed is not None and not len(allowed):
        return []
    first, last = (0, LAST) if allowed is None else (int(allowed[0]), int(allowed[-1]))
    sql = (
        f"SELECT rowid, rank FROM {table} WHERE {table} MATCH ? AND rowid BETWEEN ? AND ? "
        "ORDER BY rowid DESC LIMIT ?"
    )
    kept: list[tuple[float, int]] = []
    for _ in range(PAGES):
        rows = library.rows(sql, [expression, first, last, RANKED])
        ids = np.array([image_id for image_id, _ in rows], dtype=np.int64)
        is_kept = np.ones(len(ids), bool) if allowed is None else np.isin(ids, allowed)
        if exclude is not None:
            is_kept &= ~np.isin(ids, exclude)
        kept += [
            (rank, image_id) for (image_id, rank), keep in zip(rows, is_kept, strict=True) if keep
        ]
        if len(rows) < RANKED or len(kept) >= limit:
            break
        last = rows[-1][0] - 1
    return [image_id for _, image_id in sorted(kept)]


def texts_begun(library: Library, value: str, most: int) -> list[str]:
    """Return at most ``most`` runs of words, folded, of pictures, which begin like a value.

    Its last word may be unfinished. The newest pictures that show such are looked at, without
    hidden ones; the most frequent run comes first.
    """
    begun = text_words(value)
    if not begun:
        return []
    pictures, length = BEGUN
    rows = library.rows(
        f"SELECT substr(words, 1, {length}) FROM text_words WHERE text_words MATCH ? "
        "AND rowid IN (SELECT image_id FROM shown) "
        "AND rowid NOT IN (SELECT image_id FROM hidden) ORDER BY rowid DESC LIMIT ?",
        [f"{_quoted(*begun)} *", pictures],
    )
    wanted = re.compile(rf"(?<!\S){re.escape(' '.join(begun))}\S*")
    found = Counter(run for (shown,) in rows for run in set(wanted.findall(shown)))
    return [_APART.sub("", run) for run, _ in found.most_common(most)]


_APART = re.compile(f"(?<={UNSPACED.pattern}) (?={UNSPACED.pattern})")
