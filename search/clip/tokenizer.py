"""Byte-level byte-pair encoding, as CLIP cleans, splits and merges text.

Byte-pair encoding: Sennrich et al. 2016 (arXiv:1508.07909). The byte alphabet is GPT-2's (Radford
et al. 2019, section 2.2); the lower-casing and the end-of-word mark are CLIP's (Radford et al.
2021, arXiv:2103.00020, section 2.4). The merges belong to a model and are in its folder.

``open_tokenizer`` also opens the other kind, of ``wordpiece.py``.
"""

import gzip
import html
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import regex

from .config import (
    PACKED_VOCABULARY,
    PUBLISHED_VOCABULARY_SIZE,
    VOCABULARY_FILES,
    TokenizerKind,
)
from .disk import replace_file
from .errors import ModelError

if TYPE_CHECKING:
    from .protocols import TextTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"

Merge = tuple[str, str]

_WORD = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
_SPACE = regex.compile(r"\s+")
_SOUND = regex.compile(r"[A-Za-z0-9 .,!?'-]*")  # text that ftfy never changes


def clean(text: str) -> str:
    """Repair encoding errors, unescape HTML twice, collapse white space and lower the case."""
    if not _SOUND.fullmatch(text):
        import ftfy  # takes 0.1 s, so only for text that it might change

        text = str(ftfy.fix_text(text))
    text = html.unescape(html.unescape(text)).strip()
    return _SPACE.sub(" ", text).strip().lower()


def open_tokenizer(folder: Path, kind: TokenizerKind, size: int | None = None) -> "TextTokenizer":
    """Read the vocabulary of this kind in a model's folder.

    Raise ``ModelError`` if there is none, or one of another ``size`` than the model's.
    """
    if kind == "bpe":
        return Tokenizer.from_folder(folder, size)
    if kind == "wordpiece":
        from .wordpiece import WordPiece  # imports a package that the other kind does not need

        tokenizer = WordPiece.from_folder(folder, size)
        if tokenizer.pad_id:  # the text tower tells padding by its id
            raise ModelError(
                f"the vocabulary in {folder} has [PAD] as entry {tokenizer.pad_id}, not 0; fetch "
                "it again"
            )
        return tokenizer
    raise ValueError(f"a tokenizer is bpe or wordpiece, not {kind}")


class Tokenizer:
    """Turn text into the token ids of one vocabulary.

    The ids are 256 bytes, 256 bytes that end a word, one per merge, then start and end of text.
    """

    pad_id = 0  # also an entry of the vocabulary: only what lies behind the end is padding

    def __init__(self, merges: Sequence[Merge]) -> None:
        symbols = list(_byte_symbols().values())
        symbols += [symbol + "</w>" for symbol in symbols]
        symbols += ["".join(pair) for pair in merges] + [START, END]
        self.merges = tuple(merges)
        self._ids = {symbol: number for number, symbol in enumerate(symbols)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._symbol_of_byte = _byte_symbols()
        self._cache: dict[str, list[int]] = {}
        self.vocab_size = len(symbols)
        self.start_id, self.end_id = len(symbols) - 2, len(symbols) - 1

    @classmethod
    def from_folder(cls, folder: Path, size: int | None = None) -> "Tokenizer":
        """Read the vocabulary in a model's folder.

        Raise ``ModelError`` if there is none, or one of another ``size`` than the model's.
        """
        merges = next((folder / n for n in VOCABULARY_FILES if (folder / n).is_file()), None)
        if merges is not None:
            tokenizer = cls(read_merges(merges))
            _check_ids(tokenizer, folder / "vocab.json")
        elif (folder / PACKED_VOCABULARY).is_file():
            tokenizer = _from_packed(folder / PACKED_VOCABULARY)
        else:
            names = " or ".join(VOCABULARY_FILES)
            raise ModelError(f"{folder} has no vocabulary; put {names} beside its weights")
        if size not in (None, tokenizer.vocab_size):
            raise ModelError(
                f"the vocabulary in {folder} has {tokenizer.vocab_size} entries but the model "
                f"has {size}; put the model's own there"
            )
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` after ``clean``, without start and end."""
        ids: list[int] = []
        for word in _WORD.findall(clean(text)):
            ids += self._word(word)
        return ids

    def tokenize(self, texts: Sequence[str], context_length: int = 77) -> np.ndarray:
        """Return int64 (n, context_length): start, the text, end, then zeros.

        A longer text is cut before its end token.
        """
        out = np.zeros((len(texts), context_length), dtype=np.int64)
        for row, text in zip(out, texts, strict=True):
            words = self.encode(text)[: context_length - 2]
            ids = [self.start_id, *words, self.end_id]
            row[: len(ids)] = ids
        return out

    def lengths(self, tokens: np.ndarray) -> np.ndarray:
        """Count the positions up to and including the end of each row of ``tokenize``.

        ``tokens`` is int64 (n, l); the result is int64 (n,). The end token has the highest id; the
        first one counts, also where it was in the text.
        """
        return (tokens.argmax(axis=1) + 1).astype(np.int64)

    def save(self, folder: Path) -> Path:
        """Write the merges to ``folder``/bpe.txt.gz, the same bytes for the same merges."""
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges)]
        path = folder / "bpe.txt.gz"
        packed = gzip.compress("\n".join([*lines, ""]).encode(), mtime=0)
        replace_file(path, lambda file: file.write(packed))
        return path

    def _word(self, word: str) -> list[int]:
        known = self._cache.get(word)
        if known is None:
            if word in (START, END):
                known = [self._ids[word]]
            else:
                symbols = "".join(self._symbol_of_byte[byte] for byte in word.encode("utf-8"))
                known = [self._ids[part] for part in self._merge(symbols)]
            if len(self._cache) < 1 << 16:
                self._cache[word] = known
        return known

    def _merge(self, word: str) -> list[str]:
        """Apply the merges to one word, the earliest learned first, until none applies."""
        parts = [*word[:-1], word[-1] + "</w>"]
        last = len(self._ranks)
        while len(parts) > 1:
            best = min(zip(parts, parts[1:], strict=False), key=lambda p: self._ranks.get(p, last))
            if best not in self._ranks:
                break
            parts = _joined(parts, best)
        return parts


def read_merges(path: Path) -> list[Merge]:
    """Read merges, one pair per line after a version line, plain or gzipped.

    Lines beyond the published vocabulary's size are ignored: the published file lists more merges
    than its models use.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as exc:
        raise ModelError(f"cannot read the vocabulary {path}: {exc}; fetch it again") from exc
    if not text.strip():
        raise ModelError(f"the vocabulary {path} is empty; fetch it again")
    lines = text.strip().split("\n")[1:]
    lines = lines[: PUBLISHED_VOCABULARY_SIZE - 512 - 2]
    pairs = [tuple(line.split()) for line in lines]
    if not all(len(pair) == 2 for pair in pairs):
        raise ModelError(f"{path} is not a list of merges; fetch it again")
    return [(left, right) for left, right in pairs]


def learn_merges(texts: Iterable[str], count: int) -> list[Merge]:
    """Learn at most ``count`` merges from ``texts``, the most frequent pair first.

    Stop when no pair occurs twice. Ties go to the pair that sorts first, so that the
    same texts give the same merges.
    """
    symbol_of = _byte_symbols()
    counts = Counter(word for text in texts for word in _WORD.findall(clean(text)))
    words = [[symbol_of[byte] for byte in word.encode("utf-8")] for word in counts]
    for word in words:
        word[-1] += "</w>"
    times = list(counts.values())
    frequency: Counter[Merge] = Counter()
    where: defaultdict[Merge, set[int]] = defaultdict(set)
    for number, word in enumerate(words):
        for pair in zip(word, word[1:], strict=False):
            frequency[pair] += times[number]
            where[pair].add(number)
    merges: list[Merge] = []
    queue = [(-number, pair) for pair, number in frequency.items()]  # entries may be out of date
    heapify(queue)
    while len(merges) < count and queue:
        number, best = heappop(queue)
        if -number != frequency[best]:
            continue
        if -number < 2:
            break
        merges.append(best)
        changed: set[Merge] = set()
        for place in where.pop(best):
            for pair in zip(words[place], words[place][1:], strict=False):
                frequency[pair] -= times[place]
                changed.add(pair)
            words[place] = _joined(words[place], best)
            for pair in zip(words[place], words[place][1:], strict=False):
                frequency[pair] += times[place]
                where[pair].add(place)
                changed.add(pair)
        for pair in changed:
            if frequency[pair] > 0:
                heappush(queue, (-frequency[pair], pair))
    return merges


def _joined(parts: Sequence[str], pair: Merge) -> list[str]:
    out: list[str] = []
    at = 0
    while at < len(parts):
        if at + 1 < len(parts) and (parts[at], parts[at + 1]) == pair:
            out.append(parts[at] + parts[at + 1])
            at += 2
        else:
            out.append(parts[at])
            at += 1
    return out


@cache
def _byte_symbols() -> dict[int, str]:
    """Map each byte to a printable character: its own in Latin-1, else the next from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    rest = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols |= {byte: chr(256 + number) for number, byte in enumerate(rest)}
    return symbols


def _from_packed(path: Path) -> Tokenizer:
    """Read a ``tokenizer.json``; raise ``ModelError`` if it is not a tokenizer like CLIP's."""
    try:
        model = json.loads(path.read_text("utf-8"))["model"]
        merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
        vocabulary, kind = model["vocab"], model.get("type", "BPE")
        suffix = model.get("end_of_word_suffix")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelError(f"cannot read the vocabulary {path}: {exc!r}; fetch it again") from exc
    if kind != "BPE" or suffix != "</w>" or not all(len(pair) == 2 for pair in merges):
        raise ModelError(f"{path} is not a tokenizer like CLIP's; put merges.txt beside it")
    tokenizer = Tokenizer([(left, right) for left, right in merges])
    _compare_ids(tokenizer, vocabulary, path)
    return tokenizer


def _check_ids(tokenizer: Tokenizer, path: Path) -> None:
    """Raise ``ModelError`` if the ids in ``vocab.json`` are not those that the merges imply."""
    if not path.is_file():
        return
    try:
        listed = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise ModelError(f"cannot read {path}: {exc}; fetch it again") from exc
    _compare_ids(tokenizer, listed, path)


def _compare_ids(tokenizer: Tokenizer, listed: object, path: Path) -> None:
    if not isinstance(listed, dict) or any(
        listed.get(symbol, number) != number for symbol, number in tokenizer._ids.items()
    ):
        raise ModelError(f"{path} and the merges beside it disagree; fetch both again")
