"""Captions from the names of files and folders, without what cameras write there."""

import os
import re
import unicodedata

# What cameras, phones and programs call pictures and folders by themselves.
_CODES = frozenset(
    """
    img image images pic pics pict picture pictures photo photos foto fotos bild bilder dsc dscn
    dscf dcim dscim mvi mov vid video pano panorama pxl gopr gopro burst cover hdr raw jpg jpeg png
    heic webp tif tiff scan scans scanned screenshot screenshots capture snapshot whatsapp signal
    telegram messenger facebook instagram fb fbimg received snapchat camera cameras kamera roll
    uploads upload download downloads desktop documents export exports exported edit edited edits
    copy copies kopie copie copia duplicate original originals final new neu untitled unnamed
    unsorted misc various tmp temp test backup backups archive archived folder ordner album albums
    canon nikon sony fuji olymp msdcf media portrait night live lightroom photoshop resized
    thumb thumbs thumbnail wallpaper default nomedia 副本 图片 照片 截图 未命名
    """.split()
)
_MONTHS = frozenset(
    """
    jan january januar feb february februar mar march märz apr april may mai jun june juni jul july
    juli aug august sep sept september oct october okt oktober nov november dec december dez
    dezember
    """.split()
)
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_CAMEL = re.compile(r"(?<=[a-zß-öø-ÿ])(?=[A-ZÀ-ÖØ-Þ])")
_NUMBERED = re.compile(r"^\d*([^\W\d_]{4,})\d*$")  # "Paris2019"
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d")
_VOWEL = re.compile(r"[aeiouyà-ÿ]", re.IGNORECASE)
_LEAST = 3  # letters that words have together, unless they are not of the Latin alphabet


def name_captions(path: bytes, root: bytes) -> tuple[str, ...]:
    """Return what a file's name and the folders between it and its root say about the picture.

    First the name alone, then the name with the nearest folder that says something; or that folder
    alone. Nothing if people have named neither.
    """
    inner = os.path.relpath(path, root).decode("utf-8", "ignore")
    *folders, name = inner.split(os.sep)
    own = words_in(os.path.splitext(name)[0])
    around = next((words for folder in reversed(folders) if (words := words_in(folder))), "")
    if own and around and around.casefold() not in own.casefold():
        return own, f"{own}, {around}"
    return tuple(text for text in (own or around,) if text)


def words_in(name: str) -> str:
    """Return the words of a name: no numbers, dates, codes, or what cameras and programs add."""
    text = unicodedata.normalize("NFC", name).replace("_", " ")
    dated = _YEAR.search(text) is not None
    tokens = (token for token in _TOKEN.findall(text) if token.casefold() not in _CODES)
    words = [word for token in tokens for word in _CAMEL.split(token)]
    kept = [word for word in map(_plain, words) if word and not (dated and _is_month(word))]
    letters = "".join(kept)
    latin = letters.isascii()
    if latin and (len(letters) < _LEAST or all(len(word) == 1 for word in kept)):
        return ""
    return " ".join(kept)


def _plain(word: str) -> str:
    """Return a word without the number on it; nothing for a code."""
    if any(c.isdigit() for c in word):
        numbered = _NUMBERED.match(word)
        if numbered is None:
            return ""
        word = numbered[1]
    low = word.casefold()
    if low in _CODES or (len(word) == 1 and word.isascii() and low != "a"):
        return ""
    if word.isascii() and len(word) >= 4 and not _VOWEL.search(word):
        return ""  # not a word of any language in these letters
    if len(word) >= 8 and set(low) <= set("abcdef"):
        return ""  # a part of a hash
    return word


def _is_month(word: str) -> bool:
    return word.casefold() in _MONTHS
