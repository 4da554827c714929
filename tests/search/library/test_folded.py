"""What counts as one name, by an oracle that only knows Unicode's own tables."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.search.library.facts.folded import canonical_path, fold, fold_path, words

FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("한라산", "\u1112\u1161\u11ab\u1105\u1161\u1109\u1161\u11ab"),
        ("ガラス", "カ\u3099ラス"),
        ("ガラス", "ｶﾞﾗｽ"),
        ("ガラス", "カ゛ラス"),
        ("パリ", "ﾊﾟﾘ"),
        ("Đà Nẵng", "đa\u0300 na\u0306\u0303ng"),
        ("Huế", "hue"),
        ("café", "CAFE\u0301"),
        ("Straße", "STRASSE"),
        ("ΟΔΟΣ", "οδος"),
        ("Αθήνα", "ΑΘΗΝΑ"),
        ("МОСКВА", "москва"),
        ("Ёлка", "е\u0308лка"),
        ("İstanbul", "istanbul"),
        ("IŞIK", "ışık"),
        ("ＩＭＧ＿１２", "img_12"),
        ("ﷲ", "الله"),
        ("كتاب", "كـتـاب"),
        ("مُحَمَّد", "محمد"),
        ("\ufe8d\ufedf", "ال"),
        ("שָׁלוֹם", "שלום"),
        ("क\u093cिताब", "\u0958िताब"),
        ("ﬁnal", "FINAL"),
        ("ᏣᎳᎩ", "ꮳꮃꭹ"),
        ("a\u200bb\u00adc\ufe0f", "abc"),
        ("①②", "12"),
    ],
)
def test_what_readers_take_for_one_name_is_folded_alike(one, other):
    assert fold(one) == fold(other)
    assert words(one) == words(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("か", "が"),
        ("ハ", "バ"),
        ("हिन्दी", "हिन्दि"),
        ("한", "하"),
        ("и", "ы"),
        ("أ", "ب"),
        ("a", "b"),
    ],
)
def test_what_readers_tell_apart_stays_apart(one, other):
    assert fold(one) != fold(other)


def caseless(text):
    """Unicode's compatibility caseless match (D146)."""
    first = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKD", first.casefold())


SPOKEN = st.text(
    st.sampled_from(
        "aZéßıİſĳΣςσάЖёﬁ２ガガﾊﾟ한ᄒ\u1161\u11ab"
        "ก\u0e33ลहिन्दी\u093cمـَأﻻש\u05b8𝔘①_ .-\u0301\u0323\u200d"
    )
)


@given(SPOKEN | st.text())
def test_folding_is_one_whatever_the_form_and_done_once(text):
    folded = fold(text)
    assert fold(folded) == folded
    assert {fold(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")} == {folded}
    assert unicodedata.is_normalized("NFC", folded)
    folded.encode()  # SQLite takes it


@given(SPOKEN, st.sampled_from(FORMS), st.booleans())
def test_names_alike_to_unicode_are_folded_alike(text, form, upper):
    other = unicodedata.normalize(form, text.upper() if upper else text.casefold())
    if caseless(other) == caseless(text):
        assert fold(other) == fold(text)


def test_every_character_can_be_folded_and_keeps_folders_apart():
    for number in set(range(sys.maxunicode + 1)) - {ord("/")}:
        folded = fold(chr(number))
        assert folded and "/" not in folded
        assert folded.isascii() or unicodedata.is_normalized("NFC", folded)


@given(st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b"")))
def test_names_that_are_not_utf8_stay_apart(raw):
    text = raw.decode("utf-8", "surrogateescape")
    for folded in (fold(text), fold_path(text), canonical_path(text)):
        folded.encode()
    strange = [c for c in text if "\udc80" <= c <= "\udcff"]
    assert [chr(ord(c) - 0x10FF00 + 0xDC00) for c in fold(text) if c > "\U0010ff00"] == strange


def test_a_path_is_folded_by_its_parts():
    assert fold_path("/Fotos/Ça／va/\u0301x") == "/fotos/ca\u2215va/x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IMG_1.heic", ["img", "1", "heic"]),
        ("हिन्दी चित्र", ["हिन्दी", "चित्र"]),
        ("l’été—ici", ["l", "ete", "ici"]),
        ("\u0301 😀 …", ["😀"]),
        ("🌅sunset🌅.jpg", ["🌅", "sunset", "🌅", "jpg"]),
        ("★★☆ ❤\ufe0f", ["★", "★", "☆", "❤"]),
        ("👩\u200d💻👍🏽", ["👩", "💻", "👍", "🏽"]),
        ("20°C + a^b `x` «y»", ["20", "°", "c", "a", "b", "x", "y"]),
        ("1\ufe0f\u20e3 🇫🇷", ["1", "🇫", "🇷"]),
        ("家庭/小猫.jpg", ["家庭", "小猫", "jpg"]),
        ("＿ａ．ｂ", ["a", "b"]),
        ("\udcffx", ["x"]),
    ],
)
def test_words_are_letters_and_digits_with_their_marks(text, expected):
    assert words(text) == expected
