"""The tokenizer against ``transformers.CLIPTokenizer`` and against cases worked out by hand."""

import gzip
import json
import random
import unicodedata
import warnings
from collections import Counter
from itertools import pairwise

import ftfy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.search.clip.errors import ModelError
from fovea.search.clip.tokenizer import END, START, Tokenizer, clean, learn_merges, read_merges

LETTERS = "abcdefghijklmnopqrstuvwxyz"
OTHERS = "éüñßøåçœæþàêïдопсмятαβγδλ中文字日本語かなカナ한국어עבריתقطةहिंदीไทย"
SYMBOLS = "!?.,:;-_+*/&%$#@()[]{}'\"<>|~^`°€£·…–—"
PICTURES = "😀🐕🌅👍🏽🇩🇪👨‍👩‍👧☀️"
DIGITS = "0123456789٣४²½"


def byte_symbols():
    """GPT-2's printable character for each byte, by its published rule."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols, extra = {byte: chr(byte) for byte in kept}, 0
    for byte in range(256):
        if byte not in symbols:
            symbols[byte] = chr(256 + extra)
            extra += 1
    return [symbols[byte] for byte in [*kept, *(b for b in range(256) if b not in kept)]]


def write_vocabulary(folder, rng, count=1500):
    """Write merges of frequent-looking pieces as both readers take them; return the merges."""
    symbols = byte_symbols()
    latin = [s for s in symbols if s in LETTERS]
    known = symbols + [symbol + "</w>" for symbol in symbols]
    merges, listed = [], set(known)
    while len(merges) < count:
        pool = latin if rng.random() < 0.3 else known[-400:] + latin
        left = rng.choice(pool)
        right = rng.choice(known if rng.random() < 0.3 else pool + [s + "</w>" for s in latin])
        if left.endswith("</w>") or left + right in listed or len(left + right) > 14:
            continue
        merges.append((left, right))
        known.append(left + right)
        listed.add(left + right)
    vocabulary = symbols + [s + "</w>" for s in symbols] + ["".join(m) for m in merges]
    ids = {symbol: number for number, symbol in enumerate([*vocabulary, START, END])}
    (folder / "vocab.json").write_text(json.dumps(ids))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return merges


def cleaned_strings(rng, count):
    """Strings that cleaning would leave alone: one space, lower case, NFC, nothing to mend."""
    alphabets = [LETTERS] * 6 + [LETTERS + OTHERS, OTHERS, SYMBOLS, DIGITS, PICTURES]
    contractions = ["it's", "don't", "we're", "i've", "i'm", "she'll", "he'd", "o'clock", "''s"]
    for _ in range(count):
        words = []
        for _ in range(rng.randrange(0, 12)):
            if rng.random() < 0.08:
                words.append(rng.choice(contractions))
                continue
            alphabet = rng.choice(alphabets)
            word = "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 11)))
            words.append(word + (rng.choice(SYMBOLS) if rng.random() < 0.1 else ""))
        text = unicodedata.normalize("NFC", " ".join(words)).lower()
        yield " ".join(text.split())


def test_merging_equals_that_of_transformers(tmp_path, monkeypatch):
    rng = random.Random(20)
    write_vocabulary(tmp_path, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import CLIPTokenizer

        oracle = CLIPTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_folder(tmp_path)
    monkeypatch.setattr("fovea.search.clip.tokenizer.clean", lambda text: text)
    texts = list(cleaned_strings(rng, 10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = oracle(texts, add_special_tokens=False)["input_ids"]
    assert sum(map(len, wanted)) > 100_000
    different = [
        (text, ids, ours.encode(text))
        for text, ids in zip(texts, wanted, strict=True)
        if ours.encode(text) != ids
    ]
    assert different == []


def test_generated_strings_are_already_clean():
    texts = cleaned_strings(random.Random(21), 300)
    plain = [text for text in texts if text.isascii() and "&" not in text]
    assert len(plain) > 50
    assert [clean(text) for text in plain] == plain


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("A Photo of a DOG", "a photo of a dog"),
        ("  two \t\n words\u00a0here  ", "two words here"),
        ("fish &amp; chips", "fish & chips"),
        ("fish &amp;amp; chips", "fish & chips"),
        ("&lt;b&gt;bold&lt;/b&gt;", "<b>bold</b>"),
        ("&amp;eacute;t&amp;#233;", "été"),
        ("“curly” ‘quotes’ it’s", "\"curly\" 'quotes' it's"),
        ("ﬁre ﬂow oﬀice", "fire flow office"),
        ("ＦＵＬＬ ｗｉｄｔｈ １２３！", "full width 123!"),
        ("cafÃ© schÃ¶n", "café schön"),
        ("donâ€™t", "don't"),
        ("cafe\u0301", "café"),
        ("con\x00trol\x08 charac\x7fters", "control characters"),
        ("line\r\nbreak\u2028here", "line break here"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("DOG 🐕 Sunset 🌅", "dog 🐕 sunset 🌅"),
        ("👍🏽", "👍🏽"),
        ("ÉCOLE ÜBER İ", "école über i̇"),
        ("", ""),
        (" \n\t ", ""),
        ("\ufeffbom", "bom"),
        ("zero\u200bwidth", "zero\u200bwidth"),
        ("&notanentity;", "&notanentity;".replace("&not", "¬")),
    ],
)
def test_cleaning(raw, cleaned):
    assert clean(raw) == cleaned


@pytest.fixture
def tokenizer():
    return Tokenizer([("t", "h"), ("th", "e</w>"), ("d", "o"), ("do", "g</w>")])


@given(st.from_regex(r"[A-Za-z0-9 .,!?'-]{0,40}", fullmatch=True))
def test_ftfy_would_leave_plain_text_as_it_is(text):
    assert ftfy.fix_text(text) == text


def test_ids_are_those_worked_out_by_hand(tokenizer):
    assert tokenizer.vocab_size == 512 + 4 + 2
    the, dog = 512 + 1, 512 + 3
    d, o, s_end = ord("d") - 33, ord("o") - 33, 256 + ord("s") - 33
    assert tokenizer.encode("The dog") == [the, dog]
    do = 512 + 2
    g = ord("g") - 33
    assert tokenizer.encode("dogs") == [do, g, s_end]
    assert tokenizer.encode("d") == [256 + d]
    assert tokenizer.encode("od") == [o, 256 + d]
    assert tokenizer.encode("") == []


def test_rows_start_end_and_are_padded_with_zeros(tokenizer):
    rows = tokenizer.tokenize(["the dog", ""], 6)
    assert rows.dtype == np.int64
    assert rows.tolist() == [[516, 513, 515, 517, 0, 0], [516, 517, 0, 0, 0, 0]]


def test_a_row_has_77_positions_and_keeps_the_end_of_a_longer_text(tokenizer):
    rows = tokenizer.tokenize(["the " * count for count in (74, 75, 76, 500)])
    assert rows[0].tolist() == [516, *[513] * 74, 517, 0]
    assert rows[1:].tolist() == [[516, *[513] * 75, 517]] * 3


def test_a_row_is_as_long_as_up_to_its_first_end(tokenizer):
    rows = tokenizer.tokenize(["the dog", "", "the " * 9, f"the {END} the"], 6)
    lengths = tokenizer.lengths(rows)
    assert lengths.dtype == np.int64 and lengths.tolist() == [4, 2, 6, 3]


def test_special_tokens_in_a_text_are_ids(tokenizer):
    assert tokenizer.encode(f"{START} the {END}") == [516, 513, 517]


@pytest.mark.parametrize("name", ["bpe_simple_vocab_16e6.txt.gz", "bpe.txt.gz", "merges.txt"])
def test_each_vocabulary_file_is_read(tmp_path, tokenizer, name):
    text = "#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in tokenizer.merges)
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    read = Tokenizer.from_folder(tmp_path)
    assert read.merges == tokenizer.merges
    assert read.vocab_size == tokenizer.vocab_size


def test_the_published_file_is_cut_where_its_models_stop(tmp_path):
    pairs = [f"a{number} b{number}" for number in range(262_144)]
    text = "\n".join(["#version", *pairs])
    (tmp_path / "bpe.txt.gz").write_bytes(gzip.compress(text.encode(), 1))
    merges = read_merges(tmp_path / "bpe.txt.gz")
    assert len(merges) == 49152 - 256 - 2 - 256 + 256
    assert merges[-1] == ("a48893", "b48893")


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b broken", gzip.compress(b"v\na b c\n", mtime=0)]
)
def test_a_damaged_vocabulary_gets_one_line(tmp_path, content):
    (tmp_path / "bpe.txt.gz").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        Tokenizer.from_folder(tmp_path).encode("a")
    assert "\n" not in str(caught.value)


def test_a_folder_without_vocabulary_is_named(tmp_path):
    with pytest.raises(ModelError, match="has no vocabulary"):
        Tokenizer.from_folder(tmp_path)


def merges_by_hand(texts, count):
    """Count every pair afresh before each merge."""
    words = Counter(word for text in texts for word in clean(text).split())
    parts = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while len(merges) < count:
        pairs = Counter()
        for word, times in words.items():
            for pair in pairwise(parts[word]):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        for word, old in parts.items():
            new = []
            for part in old:
                whole = new and (new[-1], part) == best and "".join(best)
                new = [*new[:-1], whole] if whole else [*new, part]
            parts[word] = new
    return merges


@pytest.mark.parametrize("seed", range(4))
def test_merges_are_learned_in_the_order_of_their_frequency(seed):
    rng = random.Random(seed)
    texts = [
        " ".join("".join(rng.choices("abcd", k=rng.randint(1, 7))) for _ in range(6))
        for _ in range(30)
    ]
    learned = learn_merges(texts, 60)
    assert learned == merges_by_hand(texts, 60) and len(learned) == 60
    assert learn_merges(texts, 10_000) == merges_by_hand(texts, 10_000)


def test_a_learned_vocabulary_spells_words_with_few_tokens(tmp_path):
    tokenizer = Tokenizer(learn_merges(["a red square", "a red circle"] * 3, 100))
    assert len(tokenizer.encode("a red square")) == 3
    tokenizer.save(tmp_path)
    assert Tokenizer.from_folder(tmp_path).merges == tokenizer.merges
