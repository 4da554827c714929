"""WordPiece, as the uncased BERT cleans, splits and looks up text.

Devlin et al. 2018 (arXiv:1810.04805), section 3; the splitting takes the longest entry that fits,
as in Wu et al. 2016 (arXiv:1609.08144). The entries belong to a model and are in its folder.

The ``tokenizers`` package does the work, as it does for ``transformers.BertTokenizer``: equal down
to the version of Unicode. Importing it, building it from BERT's 30,522 entries and encoding one
query adds 35 ms to a cold process; reading the entries into a dict alone would add 10 ms.
"""

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from .config import PACKED_VOCABULARY, WORDPIECE_FILES
from .disk import replace_file
from .errors import ModelError

__all__ = ["WordPiece"]

PADDING, UNKNOWN, START, END = REQUIRED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MASK = "[MASK]"  # for pretraining; not every vocabulary has it
LONGEST_WORD = 100  # characters; a longer word is unknown

PLAIN_VOCABULARY, GZIPPED_VOCABULARY = WORDPIECE_FILES
OPTIONS = "tokenizer_config.json"  # where transformers keeps a tokenizer's options

_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_IN_ENTRIES = re.compile("[\r\n\ud800-\udfff]")


class WordPiece:
    """Turn text into the token ids of one vocabulary; an entry's id is its place in it.

    Equal to ``transformers.BertTokenizer``, also for text that contains a special token such as
    "[SEP]": that becomes the token's id. Two differences: "[MASK]" is text if the vocabulary lacks
    it, because a new id would lie outside the model's table; and half a surrogate pair, which
    ``BertTokenizer`` refuses, is dropped.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        """Raise ``ValueError`` for a doubled or impossible entry, or without a special one."""
        _check_entries(entries)
        self.entries = tuple(entries)
        ids = {entry: number for number, entry in enumerate(entries)}
        self._tokenizer = Tokenizer(
            models.WordPiece(ids, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD)
        )
        self._tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._tokenizer.add_special_tokens([t for t in (*REQUIRED, MASK) if t in ids])
        self.vocab_size = len(ids)
        self.start_id, self.end_id, self.pad_id = ids[START], ids[END], ids[PADDING]

    @classmethod
    def from_folder(cls, folder: Path, size: int | None = None) -> "WordPiece":
        """Read the vocabulary in a model's folder: its entries, or else a ``tokenizer.json``.

        Raise ``ModelError`` if there is none, or one that is damaged, not the uncased BERT's kind
        or of another ``size`` than the model's.
        """
        names = (*WORDPIECE_FILES, PACKED_VOCABULARY)
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            raise ModelError(
                f"{folder} has no vocabulary; put {PLAIN_VOCABULARY} or {PACKED_VOCABULARY} beside "
                "its weights"
            )
        if path.name == PACKED_VOCABULARY:
            entries = _read_packed(path)
        else:
            entries = _read_entries(path)
            _check_options(folder / OPTIONS)
        try:
            tokenizer = cls(entries)
        except ValueError as exc:
            raise ModelError(f"the vocabulary {path} is damaged: {exc}; fetch it again") from exc
        if size not in (None, tokenizer.vocab_size):
            raise ModelError(
                f"the vocabulary in {folder} has {tokenizer.vocab_size} entries but the model "
                f"has {size}; put the model's own there"
            )
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without start and end."""
        if _SURROGATE.search(text):  # joins pairs; U+FFFD for a half, as ftfy does for CLIP
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def tokenize(self, texts: Sequence[str], context_length: int) -> np.ndarray:
        """Return int64 (n, context_length): start, the text, end, then padding.

        A longer text is cut before its end token.
        """
        out = np.full((len(texts), context_length), self.pad_id, dtype=np.int64)
        # one by one: the package warns in every process forked after it used threads for a batch
        for row, text in zip(out, texts, strict=True):
            words = self.encode(text)[: context_length - 2]
            ids = [self.start_id, *words, self.end_id]
            row[: len(ids)] = ids
        return out

    def lengths(self, tokens: np.ndarray) -> np.ndarray:
        """Count the positions up to and including the end of each row of ``tokenize``.

        ``tokens`` is int64 (n, l); the result is int64 (n,). The last end token counts: an earlier
        one, or padding before it, was in the text.
        """
        from_right = (tokens == self.end_id)[:, ::-1].argmax(axis=1)
        return (tokens.shape[1] - from_right).astype(np.int64)

    def save(self, folder: Path) -> Path:
        """Write the entries to ``folder``/vocab.txt.gz, the same bytes for the same entries."""
        path = folder / GZIPPED_VOCABULARY
        packed = gzip.compress("\n".join([*self.entries, ""]).encode(), mtime=0)
        replace_file(path, lambda file: file.write(packed))
        return path


def _check_entries(entries: Sequence[str]) -> None:
    """Raise ``ValueError`` unless the entries are distinct lines, the required ones among them."""
    distinct = set(entries)
    if "" in distinct or _NOT_IN_ENTRIES.search("".join(entries)):
        number = next(n for n, e in enumerate(entries) if not e or _NOT_IN_ENTRIES.search(e))
        raise ValueError(f"entry {number}, {entries[number]!r}, is not one line of text")
    missing = [entry for entry in REQUIRED if entry not in distinct]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    if len(distinct) < len(entries):
        entry, times = Counter(entries).most_common(1)[0]
        raise ValueError(f"it lists {entry!r} {times} times")


def _read_entries(path: Path) -> list[str]:
    """Read one entry per line, plain or gzipped."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as exc:
        raise ModelError(f"cannot read the vocabulary {path}: {exc}; fetch it again") from exc
    if not text.strip():
        raise ModelError(f"the vocabulary {path} is empty; fetch it again")
    # not splitlines: an entry may be U+2028
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def _read_packed(path: Path) -> list[str]:
    """Read a ``tokenizer.json``; raise ``ModelError`` unless it is the uncased BERT's kind."""
    try:
        data = json.loads(path.read_text("utf-8"))
        model, normalizer = data["model"], data["normalizer"] or {}
        added = {token["content"]: token["id"] for token in data.get("added_tokens") or ()}
        ids = dict(model["vocab"])
        alike = (
            model.get("type") == "WordPiece"
            and model.get("unk_token", UNKNOWN) == UNKNOWN
            and model.get("continuing_subword_prefix", "##") == "##"
            and model.get("max_input_chars_per_word", LONGEST_WORD) == LONGEST_WORD
            and normalizer.get("type") == "BertNormalizer"
            and normalizer.get("clean_text", True) is True
            and _is_uncased(normalizer, "lowercase", "handle_chinese_chars")
            and (data.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
            and added.keys() <= {*REQUIRED, MASK}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelError(f"cannot read the vocabulary {path}: {exc!r}; fetch it again") from exc
    if not alike:
        raise ModelError(
            f"{path} is not a tokenizer like the uncased BERT's; use a model that has one"
        )
    ids |= added
    if sorted(map(repr, ids.values())) != sorted(map(repr, range(len(ids)))):
        raise ModelError(f"the ids in {path} are not 0 to {len(ids) - 1}; fetch it again")
    return sorted(ids, key=ids.__getitem__)


def _check_options(path: Path) -> None:
    """Raise ``ModelError`` if transformers' options beside a vocabulary ask for another kind."""
    if not path.is_file():
        return
    try:
        alike = _is_uncased(
            json.loads(path.read_text("utf-8")), "do_lower_case", "tokenize_chinese_chars"
        )
    except (OSError, ValueError, AttributeError) as exc:
        raise ModelError(f"cannot read {path}: {exc!r}; fetch it again") from exc
    if not alike:
        raise ModelError(
            f"{path} is not of a tokenizer like the uncased BERT's; use a model that has one"
        )


def _is_uncased(options: Mapping[str, Any], lower: str, chinese: str) -> bool:
    """Return whether all text is put in lower case, without accents, Chinese characters apart."""
    without_accents = options.get("strip_accents")  # None: where lower case is asked for
    return (
        options.get(lower, True) is True
        and options.get(chinese, True) is True
        and without_accents in (None, True)
    )
