"""WordPiece against ``transformers.BertTokenizerFast`` and against cases worked out by hand.

The oracle is the fast class, whose rules are those of the package ``tokenizers``; from version 5 on
``transformers`` calls it ``BertTokenizer`` too. The slow class of earlier versions is not compared.
"""

import gzip
import json
import random
import unicodedata
import warnings

import numpy as np
import pytest
from ftfy.fixes import fix_surrogates
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.search.clip.errors import ModelError
from fovea.search.clip.tokenizer import Tokenizer, open_tokenizer
from fovea.search.clip.wordpiece import WordPiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL = [*SPECIAL, "a", "dog", "##s", "un", "##aff", "##able", ",", "cafe", "中", "[", "]", "sep"]

LATIN = "abcdefghijklmnopqrstuvwxyz"
SCRIPTS = {
    "latin": LATIN + LATIN.upper(),
    "accents": "éÉüÜñÑåÅçÇøØœŒæÆþðāĂęłŁşŞğĞơưạẶ",
    "turkish": "İIıiŞşĞğ",
    "german": "ßẞÄäÖö",
    "greek": "ΣσςΑάΈηΐϊΩώᾳᾼ",
    "cyrillic": "ЁёЙйЖжДдЇїЂђІіҚқ",
    "hangul": "한국어김치가각힣각ㄱㅏ",
    "kana": "かがぱカガパｶﾞｱーゝヴ",
    "cjk": "中文字日本語汉漢\u3400\u4dbf\u9fff\uf900\ufaff"
    "\U00020000\U0002a6df\U0002a700\U0002b740\U0002b820\U0002ceaf\U0002f800\U00030000",
    "arabic": "العربيةآأإؤئًٌٍَُِّ٠١٢،؟ـ",
    "hebrew": "עבריתשָׁלוֹם",
    "devanagari": "हिन्दीक्षत्रज्ञकड़ज़ॐ०१२।",
    "thai": "ไทยน้ำเก่ง๑๒",
    "digits": "0123456789²½٣４Ⅳ",
    "punctuation": "!?.,:;-_+*/&%$#@()[]{}'\"<>|~^`°€£·…–—«»“”‘’、。「」！？¿¡§",
    "emoji": "😀🐕🌅☀❤👩",
    "joined": "\u200d\ufe0f\U0001f3fd\U0001f1e9\U0001f1ea\u20e3",
    "control": "\x00\x01\x08\x1b\x7f\x80\x85\x9f\u00ad\ufffd\ufeff\u200b\u200c\u200e\u202e\u2060"
    "\ue000\U000e0041\U0010ffff",
    "marks": "\u0300\u0301\u0302\u0303\u0308\u030a\u0327\u0328\u0345\u0489\u3099\u309a\u20d0",
    "space": " \t\n\r\x0b\x0c\x1c\u00a0\u1680\u2002\u2009\u2028\u2029\u202f\u205f\u3000",
}
WRITTEN = [s for s in SCRIPTS if s not in ("control", "marks", "space", "joined")]
PHRASES = [
    *("[SEP]", "[MASK]", "[CLS]", "[PAD]", "[UNK]", "[sep]", "[ SEP ]", "a[SEP]b", "##s", "[SEP"),
    *("ΟΔΥΣΣΕΥΣ", "İSTANBUL", "STRASSE Straße", "👩\u200d👩\u200d👧", "👍\U0001f3fd", "🇩🇪", "1️⃣"),
    *("ﬁre", "Ǆ", "ℌ", "é", "e\u0301", "ệ", "e\u0302\u0323", "don't", "AT&T", "C++", "3.14"),
]


def plain(char):
    """One character as an uncased vocabulary has it: in lower case, without accents."""
    apart = unicodedata.normalize("NFD", char.lower())
    return "".join(c for c in apart if unicodedata.category(c) not in ("Mn", "Cc", "Cf", "Zs"))


def large_vocabulary(rng, count=6000):
    """Entries of one to five characters of each script, as words and as continuations."""
    entries = dict.fromkeys(SPECIAL)
    alphabets = {}
    for script in WRITTEN:
        kept = sorted({c for char in SCRIPTS[script] for c in plain(char) if not c.isspace()})
        alphabets[script] = kept
        for char in kept:
            if rng.random() < 0.9:  # the others are unknown
                entries |= {char: None, f"##{char}": None}
    while len(entries) < count:
        alphabet = alphabets[rng.choice(["latin", "latin", *alphabets])]
        word = "".join(rng.choices(alphabet, k=rng.randint(2, 5)))
        entries[rng.choice(["", "##"]) + word] = None
    return list(entries)


def generated_strings(rng, count, entries):
    """Texts of every script, mixed within words and between them, composed and decomposed."""
    heads = [entry for entry in entries if not entry.startswith("##")]
    tails = [entry.removeprefix("##") for entry in entries if entry.startswith("##")]
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(0, 10)):
            drawn = rng.random()
            if drawn < 0.1:
                parts.append(rng.choice(PHRASES))
            elif drawn < 0.115:
                parts.append(rng.choice(LATIN + "É中") * rng.randint(95, 210))
            elif drawn < 0.2:
                parts.append("".join(rng.choices("".join(SCRIPTS.values()), k=rng.randint(1, 12))))
            elif drawn < 0.5:
                word = rng.choice(heads) + "".join(rng.choices(tails, k=rng.randrange(3)))
                parts.append(rng.choice([word, word, word.upper(), word.title()]))
            else:
                alphabet = SCRIPTS[rng.choice(["latin", *SCRIPTS])]
                parts.append("".join(rng.choices(alphabet, k=rng.randint(1, 12))))
            if rng.random() < 0.7:
                parts.append(rng.choice([" ", " ", " ", *SCRIPTS["space"]]))
            elif rng.random() < 0.3:
                parts.append(rng.choice(SCRIPTS["marks"] + SCRIPTS["control"]))
        text = "".join(parts)
        form = rng.choice([None, None, "NFC", "NFD", "NFKD"])
        yield unicodedata.normalize(form, text) if form else text


def write_vocabulary(folder, entries):
    (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in entries), "utf-8")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder with a vocabulary of thousands of entries."""
    folder = tmp_path_factory.mktemp("large")
    write_vocabulary(folder, large_vocabulary(random.Random(40)))
    return folder


@pytest.fixture(scope="module")
def oracle(large):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers", reason="needs the extra 'transformers'")
        return transformers.BertTokenizerFast.from_pretrained(large, do_lower_case=True)


@pytest.fixture(scope="module")
def ours(large):
    return WordPiece.from_folder(large)


@pytest.fixture
def small(tmp_path):
    write_vocabulary(tmp_path, SMALL)
    return WordPiece.from_folder(tmp_path)


def test_ids_are_those_of_transformers(oracle, ours):
    texts = list(generated_strings(random.Random(41), 10_000, ours.entries))
    wanted = oracle(texts, add_special_tokens=False, verbose=False)["input_ids"]
    different = [
        (text, ids, ours.encode(text))
        for text, ids in zip(texts, wanted, strict=True)
        if ours.encode(text) != ids
    ]
    assert different == []
    seen = [number for ids in wanted for number in ids]
    assert len(seen) > 100_000 and len(set(seen)) > 3000  # most of the vocabulary
    assert 0.01 < seen.count(ours.encode("[UNK]")[0]) / len(seen) < 0.5


@settings(deadline=None)
@given(st.text())
def test_any_text_has_the_ids_of_transformers(oracle, ours, text):
    assert ours.encode(text) == oracle(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("length", [2, 3, 16, 200])
def test_rows_are_cut_and_padded_as_by_transformers(oracle, ours, length):
    texts = list(generated_strings(random.Random(42), 500, ours.entries))
    wanted = oracle(texts, padding="max_length", truncation=True, max_length=length)
    rows = ours.tokenize(texts, length)
    assert rows.dtype == np.int64 and rows.shape == (500, length)
    assert rows.tolist() == wanted["input_ids"]
    lengths = ours.lengths(rows)
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [sum(mask) for mask in wanted["attention_mask"]]


def test_special_ids_are_those_of_transformers(oracle, ours):
    ids = [ours.start_id, ours.end_id, ours.pad_id, ours.vocab_size]
    assert ids == [oracle.cls_token_id, oracle.sep_token_id, oracle.pad_token_id, len(oracle)]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        (" \t\n\u00a0", []),
        ("A DOG", ["a", "dog"]),
        ("dogs,dog", ["dog", "##s", ",", "dog"]),
        ("unaffable", ["un", "##aff", "##able"]),
        ("unaffably", ["[UNK]"]),  # a word is known as a whole or not at all
        ("Café CAFE\u0301", ["cafe", "cafe"]),
        ("dog中dog", ["dog", "中", "dog"]),
        ("do\x00g \ufffd d\u200bog", ["dog", "dog"]),
        ("dog" + 97 * "s", ["dog", *97 * ["##s"]]),
        ("dog" + 98 * "s", ["[UNK]"]),
        ("dog [SEP] [MASK]", ["dog", "[SEP]", "[MASK]"]),
        ("[sep]", ["[", "sep", "]"]),
        ("dog &amp; dog", ["dog", "[UNK]", "[UNK]", "[UNK]", "dog"]),  # HTML stays as it is
    ],
)
def test_ids_are_those_worked_out_by_hand(small, text, entries):
    assert small.encode(text) == [SMALL.index(entry) for entry in entries]


def test_rows_start_end_and_are_padded(small):
    assert small.vocab_size == 17
    rows = small.tokenize(["a dog", "", "a a a a a a"], 6)
    assert rows.tolist() == [[2, 5, 6, 3, 0, 0], [2, 3, 0, 0, 0, 0], [2, 5, 5, 5, 5, 3]]
    assert small.tokenize([], 6).shape == (0, 6)


def test_padding_is_the_entry_of_that_name(tmp_path):
    tokenizer = WordPiece(["a", "[SEP]", "[CLS]", "[UNK]", "[PAD]"])
    assert tokenizer.tokenize(["a b"], 6).tolist() == [[2, 0, 3, 1, 4, 4]]


def test_special_tokens_in_a_text_do_not_shorten_its_row(small):
    rows = small.tokenize(["a [SEP] [PAD] a", "a", "[SEP]"], 9)
    assert rows[0].tolist() == [2, 5, 3, 0, 5, 3, 0, 0, 0]
    assert small.lengths(rows).tolist() == [6, 3, 3]


def test_without_a_mask_in_the_vocabulary_the_word_is_text():
    tokenizer = WordPiece([*SPECIAL[:4], "[", "]", "mask"])
    assert tokenizer.encode("[MASK]") == [4, 6, 5]


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (b"caf\xe9 dog".decode("utf-8", "surrogateescape"), "caf dog"),
        ("\udce9", ""),
        ("dog\ud83d", "dog"),
        ("\ud83d\ude00 a", "😀 a"),
        ("\ud83d\ud83d\ude00\ude00", "😀"),
    ],
)
def test_half_a_surrogate_pair_is_dropped(ours, text, repaired):
    assert ours.encode(text) == ours.encode(repaired)
    assert ours.encode(text) == ours.encode(fix_surrogates(text))  # what CLIP's tokenizer sees


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=0x1FFFF, exclude_categories=())))
def test_surrogates_are_repaired_as_ftfy_does(ours, text):
    assert ours.encode(text) == ours.encode(fix_surrogates(text))


def packed(entries, **changes):
    """A ``tokenizer.json`` as ``tokenizers`` writes it; changes by the dotted path of a field."""
    data = {
        "added_tokens": [{"id": n, "content": entry} for n, entry in enumerate(SPECIAL)],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {entry: number for number, entry in enumerate(entries)},
        },
    }
    for path, value in changes.items():
        *outer, last = path.split("__")
        inner = data
        for name in outer:
            inner = inner[name]
        inner[last] = value
    return json.dumps(data)


LINES = "".join(f"{entry}\n" for entry in SMALL).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.txt", LINES),
        ("vocab.txt", LINES.removesuffix(b"\n")),
        ("vocab.txt", LINES.replace(b"\n", b"\r\n")),
        ("vocab.txt.gz", gzip.compress(LINES, mtime=0)),
        ("tokenizer.json", packed(SMALL).encode()),
        ("tokenizer.json", packed(SMALL, normalizer__strip_accents=True).encode()),
        (
            "tokenizer.json",
            packed(SMALL, model__vocab=dict(reversed([*zip(SMALL, range(17), strict=True)]))),
        ),
    ],
)
def test_each_vocabulary_file_is_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert WordPiece.from_folder(tmp_path, 17).entries == tuple(SMALL)


def test_a_file_that_transformers_saved_is_read(tmp_path, oracle, ours):
    oracle.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").unlink(missing_ok=True)
    assert WordPiece.from_folder(tmp_path).entries == ours.entries


def test_an_entry_may_be_a_line_separator(tmp_path):
    write_vocabulary(tmp_path, [*SMALL, "\u2028", "\x85"])
    assert WordPiece.from_folder(tmp_path).entries[-2:] == ("\u2028", "\x85")


def test_a_saved_vocabulary_is_the_same_bytes_and_the_same_entries(tmp_path, ours):
    path = ours.save(tmp_path)
    assert path == tmp_path / "vocab.txt.gz"
    first = path.read_bytes()
    assert first[4:8] == bytes(4)  # the time
    again = WordPiece.from_folder(tmp_path, ours.vocab_size)
    assert again.entries == ours.entries
    assert again.save(tmp_path).read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("vocab.txt", b"", "is empty"),
        ("vocab.txt", b"\n \n", "is empty"),
        ("vocab.txt", b"[PAD]\n\xff\n", "cannot read"),
        ("vocab.txt", b"a\n" + LINES + b"\n", "entry 18, '', is not one line"),
        ("vocab.txt", LINES + b"dog\n", "lists 'dog' 2 times"),
        ("vocab.txt", b"a\nb\n", r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\]"),
        ("vocab.txt", LINES.replace(b"[SEP]\n", b""), r"lacks \[SEP\]"),
        ("vocab.txt", b"x" + LINES, r"lacks \[PAD\]"),
        ("vocab.txt.gz", b"", "is empty"),
        ("vocab.txt.gz", LINES, "cannot read"),
        ("vocab.txt.gz", gzip.compress(LINES, mtime=0)[:-12], "cannot read"),
        ("vocab.txt.gz", gzip.compress(LINES, mtime=0)[:20] + b"damage" * 9, "cannot read"),
        ("tokenizer.json", "", "cannot read"),
        ("tokenizer.json", "[]", "cannot read"),
        ("tokenizer.json", "{}", "cannot read"),
        ("tokenizer.json", packed(SMALL, model__vocab=["a"]), "cannot read"),
        ("tokenizer.json", packed(SMALL, added_tokens=[{"id": 3}]), "cannot read"),
        ("tokenizer.json", packed(SMALL, model__type="BPE"), "uncased"),
        ("tokenizer.json", packed(SMALL, model__max_input_chars_per_word=50), "uncased"),
        ("tokenizer.json", packed(SMALL, model__continuing_subword_prefix="@"), "uncased"),
        ("tokenizer.json", packed(SMALL, model__unk_token="<unk>"), "uncased"),
        ("tokenizer.json", packed(SMALL, normalizer=None), "uncased"),
        ("tokenizer.json", packed(SMALL, normalizer__lowercase=False), "uncased"),
        ("tokenizer.json", packed(SMALL, normalizer__strip_accents=False), "uncased"),
        ("tokenizer.json", packed(SMALL, normalizer__clean_text=False), "uncased"),
        ("tokenizer.json", packed(SMALL, normalizer__handle_chinese_chars=False), "uncased"),
        ("tokenizer.json", packed(SMALL, pre_tokenizer=None), "uncased"),
        ("tokenizer.json", packed(SMALL, added_tokens=[{"id": 5, "content": "a"}]), "uncased"),
        ("tokenizer.json", packed(SMALL, model__vocab__a=4), "ids in"),
        ("tokenizer.json", packed(SMALL, model__vocab__a=99), "ids in"),
        ("tokenizer.json", packed(SMALL, model__vocab__a=5.0), "ids in"),
        ("tokenizer.json", packed(SMALL, model__vocab__a=[5]), "ids in"),
        ("tokenizer.json", packed([*SMALL, "\ud800"]), "not one line"),
        ("tokenizer.json", packed([*SMALL, "b\nc"]), "not one line"),
        ("tokenizer.json", packed(["a", "b"], added_tokens=[]), r"lacks \[PAD\]"),
    ],
)
def test_a_damaged_or_foreign_vocabulary_gets_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=said) as caught:
        WordPiece.from_folder(tmp_path)
    message = str(caught.value)
    assert "\n" not in message and str(tmp_path / name) in message
    assert message.endswith(("; fetch it again", "; use a model that has one"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"do_lower_case": False}, "uncased"),
        ({"strip_accents": False}, "uncased"),
        ({"tokenize_chinese_chars": False}, "uncased"),
        ([], "cannot read"),
    ],
)
def test_options_for_another_kind_of_text_are_not_ignored(tmp_path, options, said):
    write_vocabulary(tmp_path, SMALL)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
    with pytest.raises(ModelError, match=said) as caught:
        WordPiece.from_folder(tmp_path)
    assert "tokenizer_config.json" in str(caught.value)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert WordPiece.from_folder(tmp_path).vocab_size == 17


def test_a_vocabulary_of_another_size_is_refused(tmp_path):
    write_vocabulary(tmp_path, SMALL)
    with pytest.raises(ModelError, match="has 17 entries but the model has 18; put the model's"):
        WordPiece.from_folder(tmp_path, 18)


@pytest.mark.parametrize(
    ("kind", "expected", "missing"),
    [("bpe", Tokenizer, "merges.txt"), ("wordpiece", WordPiece, "vocab.txt")],
)
def test_a_tokenizer_is_opened_by_its_kind(tmp_path, kind, expected, missing):
    with pytest.raises(ModelError, match=f"has no vocabulary; put .*{missing}"):
        open_tokenizer(tmp_path, kind)
    Tokenizer([("a", "b")]).save(tmp_path)
    WordPiece(SMALL).save(tmp_path)
    opened = open_tokenizer(tmp_path, kind)
    assert type(opened) is expected
    assert type(open_tokenizer(tmp_path, kind, opened.vocab_size)) is expected
    with pytest.raises(ModelError, match="but the model has 9"):
        open_tokenizer(tmp_path, kind, 9)
    rows = opened.tokenize(["a", "a a"], 7)
    assert opened.lengths(rows).tolist() == [3, 4]
    assert (rows[:, 0] == opened.start_id).all() and (rows[0, 3:] == opened.pad_id).all()
    assert [rows[0, 2], rows[1, 3]] == [opened.end_id] * 2


def test_an_unknown_kind_of_tokenizer_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="bpe or wordpiece, not unigram"):
        open_tokenizer(tmp_path, "unigram")
