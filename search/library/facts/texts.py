"""Text in pictures: the tables that hold it, and the forms in which it is found."""

import re

from .folded import words

__all__ = ["LETTERS", "TABLES", "UNSPACED", "text_run", "text_words"]

# Scripts without spaces between words: each character is a word of its own here, so that a run of
# them is found as a phrase, wherever it stands. Thai, Lao, Burmese, Khmer, kana, Chinese, Hangul.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]"
)
LETTERS = 3  # characters of a trigram

# A picture's text belongs to its analysis (``analyses``), with which it comes and goes. Words are
# split here, so that SQLite's tokenizer has only to split at spaces; runs are lines without their
# spaces, since readers of pictures lose some, and find others inside of words.
TABLES = (
    """
    CREATE TABLE texts (
        image_id INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
        lines TEXT NOT NULL  -- JSON, top to bottom: [text, confidence, [x, y, … of four corners]]
    )
    """,
    "CREATE VIRTUAL TABLE text_words USING fts5(words, tokenize = 'ascii')",
    "CREATE VIRTUAL TABLE text_runs USING fts5(runs, tokenize = 'trigram')",
    """
    CREATE TRIGGER analyses_lose_texts AFTER DELETE ON analyses WHEN old.kind = 'text' BEGIN
        DELETE FROM texts WHERE image_id = old.image_id;
    END
    """,
    """
    CREATE TRIGGER texts_lose_words AFTER DELETE ON texts BEGIN
        DELETE FROM text_words WHERE rowid = old.image_id;
        DELETE FROM text_runs WHERE rowid = old.image_id;
    END
    """,
)


def text_words(text: str) -> list[str]:
    """Return the words of text as text in pictures is compared: folded, as names are.

    A character of a script without spaces is a word.
    """
    return UNSPACED.sub(r" \g<0> ", " ".join(words(text))).split()


def text_run(text: str) -> str:
    """Return text as its words without anything between them."""
    return "".join(text_words(text))
