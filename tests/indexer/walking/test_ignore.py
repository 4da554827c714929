"""Ignore files of any editor, and those that cannot be used."""

import codecs
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.indexer.walking.ignore import IGNORE_FILE, BadIgnoreFile, Ignore, ignore_lines
from fovea.indexer.walking.walk import Closed, walk
from fovea.search.errors import FoveaError

LINES = ["# für mich", "private/", "", "*.tmp.jpg", "사진/", "!keep.jpg"]
ENCODINGS = [
    (b"", "utf-8"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (b"", "utf-16-le"),
    (b"", "utf-16-be"),
]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("mark", "encoding"), ENCODINGS)
def test_whichever_editor_wrote_it(mark, encoding, end):
    assert ignore_lines(mark + end.join(LINES).encode(encoding)) == LINES


def test_marks_of_files_that_were_joined_are_no_part_of_a_pattern():
    assert ignore_lines("\ufeff\ufeffa/\n\ufeffb/".encode()) == ["a/", "b/"]


def test_only_line_ends_end_a_line():
    assert ignore_lines("a\u3000b\nc\u00a0d".encode()) == ["a\u3000b", "c\u00a0d"]


NO_TEXT = ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")


@given(st.lists(st.text(st.characters(exclude_categories=NO_TEXT))))
def test_utf16_is_told_by_its_mark_or_refused(lines):
    text = "\n".join(lines)
    for mark, encoding in ENCODINGS[:4]:
        assert ignore_lines(mark + text.encode(encoding)) == text.split("\n")
    for _, encoding in ENCODINGS[6:]:
        try:
            read = ignore_lines(text.encode(encoding))
        except ValueError:
            continue
        if "\n" in text:  # else a few bytes may happen to be UTF-8
            assert read == text.split("\n")


BAD = {
    "latin-1": ("geh\xe9im/\n".encode("latin-1"), "line 1 is not UTF-8 text"),
    "latin-1 later": ("a/\r\nb/\rgeh\xe9im/".encode("latin-1"), "line 3 is not UTF-8 text"),
    "a picture": (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "null bytes"),
    "zeros": (bytes(64), "null bytes"),
    "a zero": (b"private/\0\n", "null bytes"),
    "half of UTF-16": (codecs.BOM_UTF16_LE + b"a\0b", "not UTF-16"),
    "cut UTF-32": (codecs.BOM_UTF32_BE + b"\0\0\0", "not UTF-32"),
    "UTF-16 with zeros": (codecs.BOM_UTF16_BE + b"\0a\0\0\0b", "control characters"),
    "escapes": (b"a/\n\x1b[1mb/\n", "line 2 is not text"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_text_is_refused(tmp_path, case):
    data, reason = BAD[case]
    (tmp_path / os.fsdecode(IGNORE_FILE)).write_bytes(data)
    with pytest.raises(BadIgnoreFile) as caught:
        Ignore.for_root(os.fsencode(tmp_path))
    assert str(tmp_path / os.fsdecode(IGNORE_FILE)) in str(caught.value)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


PATTERNS = ["!", "\\", "private\\", "[z-a]", "[a", "[]", "/", "[[:alpha:]]x", "a[^[:digit:]]"]


UNSEEN = [
    "\u200bPrivate/",
    "Private/\u200b",
    "\u200ePrivate/",
    "\ufeff\u2066Private/\u2069",
    "Private\u00ad",
]


@pytest.mark.parametrize("pattern", UNSEEN)
def test_what_nobody_sees_at_the_ends_of_a_line_is_no_part_of_it(tmp_path, pattern):
    (tmp_path / os.fsdecode(IGNORE_FILE)).write_text(f"ok/\n{pattern}\n", "utf-8")
    assert Ignore.for_root(os.fsencode(tmp_path)).reason(b"Private", b"Private", True)


@pytest.mark.parametrize("hidden", ["\u2028", "\u2029", "\u200b", "\u200f", "\u00ad", "\u200d"])
def test_what_nobody_sees_within_a_line_is_refused(tmp_path, hidden):
    path = tmp_path / os.fsdecode(IGNORE_FILE)
    path.write_text(f"ok/\nPrivate/{hidden}Other/\n", "utf-8")
    with pytest.raises(BadIgnoreFile, match="line 2 has invisible characters"):
        Ignore.for_root(os.fsencode(tmp_path))


@pytest.mark.parametrize("name", ["می\u200cخواهم", "क्\u200dष", "👩\u200d👧"])
def test_joiners_within_a_word_stay(tmp_path, name):
    (tmp_path / os.fsdecode(IGNORE_FILE)).write_text(f"{name}/\n", "utf-8")
    ignore = Ignore.for_root(os.fsencode(tmp_path))
    assert ignore.reason(name.encode(), name.encode(), True)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("./Private/", "is a path"),
        ("!./Private/", "is a path"),
        ("../x", "is a path"),
        ("~/Photos/Private", "is a path"),
        ("HERE/Private/", "is a whole path"),
        ("HERE", "is a whole path"),
        ("Private\\Sub", "has a backslash"),
        ("a/b\\é*", "has a backslash"),
    ],
)
def test_a_path_that_no_pattern_can_match_is_refused(tmp_path, pattern, reason):
    line = pattern.replace("HERE", os.fspath(tmp_path))
    (tmp_path / os.fsdecode(IGNORE_FILE)).write_text(f"ok/\n{line}\n")
    with pytest.raises(BadIgnoreFile, match=f"line 2 {reason}"):
        Ignore.for_root(os.fsencode(tmp_path))
    if "HERE" not in pattern:
        with pytest.raises(FoveaError, match=reason):
            Ignore([pattern])


def test_escapes_and_quotation_marks_are_parts_of_names(tmp_path):
    Ignore([r"\#a", r"\!b", r"c\ ", r"\[d\]", r"e\*", r"# f\g", '"h"', "...", ".i/", "~j"])
    assert Ignore(['"h"']).reason(b'"h"', b'"h"', False)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_line_that_is_no_pattern_is_named_by_its_number(tmp_path, pattern):
    (tmp_path / os.fsdecode(IGNORE_FILE)).write_text(f"ok/\n\n{pattern}\n")
    with pytest.raises(BadIgnoreFile, match="line 3 is not a valid pattern"):
        Ignore.for_root(os.fsencode(tmp_path))
    with pytest.raises(FoveaError, match="invalid ignore pattern"):
        Ignore([pattern])


def test_what_is_not_a_readable_file_is_refused(tmp_path):
    path, root = tmp_path / os.fsdecode(IGNORE_FILE), os.fsencode(tmp_path)
    path.mkdir()
    with pytest.raises(BadIgnoreFile, match="a folder"):
        Ignore.for_root(root)
    path.rmdir()
    path.symlink_to("nowhere")
    with pytest.raises(BadIgnoreFile, match="a symbolic link"):
        Ignore.for_root(root)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadIgnoreFile, match="a named pipe"):
        Ignore.for_root(root)
    path.unlink()
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(BadIgnoreFile, match="too large"):
        Ignore.for_root(root)
    path.write_bytes(b"private/\n")
    path.chmod(0)
    if not os.access(path, os.R_OK):  # root may read anything
        with pytest.raises(BadIgnoreFile, match="Permission denied"):
            Ignore.for_root(root)


@pytest.mark.parametrize("pattern", ["한라산/", "Été*.jpg", "ガ?.jpg", "*ệ.jpg"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_a_pattern_matches_a_name_in_any_form(pattern, written, stored):
    ignore = Ignore([unicodedata.normalize(written, pattern)])
    named = pattern.strip("/").replace("*", "x").replace("?", "y")
    name = unicodedata.normalize(stored, named).encode()
    assert ignore.reason(name, name, pattern.endswith("/"))
    assert (
        ignore.reason(b"z" + name, b"z" + name, pattern.endswith("/")) is None or "*" == pattern[0]
    )


def test_names_that_are_not_utf8_are_matched_by_wildcards():
    assert Ignore(["caf?.jpg"]).reason(b"caf\xe9.jpg", b"caf\xe9.jpg", False)


def test_a_folder_below_has_patterns_of_its_own(tmp_path):
    for path in ("a.png", "in/a.png", "in/b.png", "in/deep/a.png", "out/b.png", "bad/a.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    name = os.fsdecode(IGNORE_FILE)
    (tmp_path / name).write_text("b.png\n")
    (tmp_path / "in" / name).write_text("/a.png\n!b.png\n")
    (tmp_path / "bad" / name).write_bytes(b"\xff\xff")
    root = os.fsencode(tmp_path)
    refusals, closed = {}, []
    for entry in walk(root, Ignore.for_root(root)):
        if isinstance(entry, Closed):
            closed.append(entry)
        else:
            refusals[os.fsdecode(entry.path[len(root) + 1 :])] = entry.refusal is not None
    assert refusals == {
        "a.png": False,
        "in/a.png": True,
        "in/b.png": False,
        "in/deep/a.png": False,
        "out/b.png": True,
    }
    [bad] = closed
    assert (bad.path, bad.rules) == (root + b"/bad", root + b"/bad/" + IGNORE_FILE)
    rules = Ignore.for_root(root)
    for path, refused in refusals.items():
        assert (rules.covers(root + b"/" + path.encode(), root) is not None) == refused
    with pytest.raises(BadIgnoreFile):
        rules.covers(root + b"/bad/a.png", root)
