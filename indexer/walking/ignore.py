"""Decide which names a walk ignores."""

import codecs
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable

from pathspec import GitIgnoreSpec

from fovea.indexer.decoding.limits import Gone, Limits, Refused, Unreachable
from fovea.indexer.decoding.reading import read_file
from fovea.search.clip.errors import FoveaError
from fovea.search.library.paths import printable_name

IGNORE_FILE = b".foveaignore"

# Besides everything whose name begins with a dot: folders without anybody's photographs, or with
# copies that other programs keep. A pattern ("!lost+found/") includes one again.
IGNORED_NAMES = frozenset(
    {
        b"#recycle",
        b"#snapshot",
        b"$RECYCLE.BIN",
        b"@Recently-Snapshot",
        b"@Recycle",
        b"@eaDir",
        b"System Volume Information",
        b"__MACOSX",
        b"__pycache__",
        b"lost+found",
        b"node_modules",
        b"site-packages",
    }
)


# The byte order marks of text that is not UTF-8; those of UTF-32 first, which begin like UTF-16's.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BACKSLASH = re.compile(r"(?<!\\)(?:\\\\)*\\\w")  # as in Windows's paths
_CLASS = re.compile(r"\[.*\[:[a-z]+:\].*\]")
_LINE_END = re.compile(r"\r\n|\r|\n")
_JOINERS = re.compile("(?<=[^\\s/])[\u200c\u200d](?=[^\\s/])")  # within words and emoji
_NO_TEXT = frozenset({"Cc", "Cn", "Co", "Cs"})  # categories: control, unassigned, private, half


class BadIgnoreFile(Exception):
    """An ignore file that cannot be used: what it means to hide is unknown."""

    def __init__(self, path: bytes, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"cannot use {printable_name(os.fsdecode(path))}: {reason}")


class Ignore:
    """The built-in rules of one root, and the patterns that come after them.

    Patterns follow .gitignore: the last one that matches decides, ``!`` includes a name again,
    and nothing inside an ignored folder is included. A folder's own ignore file, once the folder is
    entered, goes before those above it. Unicode's composed and decomposed forms of a name are one.
    Raise ``FoveaError`` for an invalid pattern.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        lines = list(patterns)
        for line in lines:
            if wrong := _wrong(line):
                raise FoveaError(f"invalid ignore pattern {line!r}: {wrong}; correct it")
        self._spec = _spec(lines)
        self._inner: dict[bytes, GitIgnoreSpec] = {}  # relative folder -> what its own file says

    @classmethod
    def for_root(cls, root: bytes, patterns: Iterable[str] = ()) -> "Ignore":
        """Take the patterns in the root's ``.foveaignore``, if any, and then ``patterns``.

        Raise ``BadIgnoreFile`` if that file cannot be used, ``OSError`` if it is unknown whether
        there is one.
        """
        return cls([*_ignore_file(root), *patterns])

    @property
    def has_patterns(self) -> bool:
        """Whether anything but the built-in rules decides."""
        return self._spec is not None or bool(self._inner)

    def reason(self, name: bytes, relative: bytes, folder: bool) -> str | None:
        """Return why a name is ignored, or None if it is not.

        ``relative`` is the path from the root, with ``/`` between its parts.
        """
        built_in = name.startswith(b".") or name in IGNORED_NAMES
        if self.has_patterns:
            asked = self._asked(relative, folder)
            if asked is not None:
                return "ignored: matches an ignore pattern" if asked else None
        if not built_in:
            return None
        return (
            "ignored: hidden" if name.startswith(b".") else "ignored: not a folder of photographs"
        )

    def enter(self, folder: bytes, relative: bytes) -> None:
        """Take the patterns of an ignore file in a folder below the root, if any.

        Raise ``BadIgnoreFile`` or ``OSError`` as ``for_root`` does.
        """
        if relative not in self._inner and (spec := _spec(_ignore_file(folder))) is not None:
            self._inner[relative] = spec

    def _asked(self, relative: bytes, folder: bool) -> bool | None:
        """Return whether the patterns ignore a path (True) or include it; None if none matches."""
        end = b"/" if folder else b""
        above = relative.rpartition(b"/")[0] if self._inner else b""
        while above:
            if (spec := self._inner.get(above)) is not None:
                asked = _match(spec, relative[len(above) + 1 :] + end)
                if asked is not None:
                    return asked
            above = above.rpartition(b"/")[0]
        return None if self._spec is None else _match(self._spec, relative + end)

    def covers(self, path: bytes, root: bytes) -> str | None:
        """Return why a walk of the root ignores a path below it, or None if it does not.

        Ignore files on the way are read. Raise ``BadIgnoreFile`` or ``OSError`` as ``enter`` does.
        """
        relative = path[len(root.rstrip(b"/")) + 1 :]
        parts = relative.split(b"/")
        for depth, name in enumerate(parts, 1):
            folder = depth < len(parts)
            reason = self.reason(name, b"/".join(parts[:depth]), folder)
            if reason is not None:
                return f"{reason} (its folder)" if folder else reason
            if folder:
                inner = b"/".join(parts[:depth])
                self.enter(os.path.join(root, inner), inner)
        return None


def check_above(folder: bytes, top: bytes) -> None:
    """Raise ``BadIgnoreFile`` if an ignore file above a folder, up to ``top``, cannot be used.

    Raise ``OSError`` if that cannot be known.
    """
    while folder != top:
        folder = os.path.dirname(folder)
        _ignore_file(folder)


def _spec(lines: Iterable[str]) -> GitIgnoreSpec | None:
    kept = [unicodedata.normalize("NFC", line) for line in lines if line.strip()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ``re``, about odd sets of characters
        return GitIgnoreSpec.from_lines(kept) if kept else None


def _match(spec: GitIgnoreSpec, relative: bytes) -> bool | None:
    text = os.fsdecode(relative)
    return spec.check_file(text if text.isascii() else unicodedata.normalize("NFC", text)).include


def _ignore_file(root: bytes) -> list[str]:
    path = os.path.join(root, IGNORE_FILE)
    try:
        os.lstat(path)  # tells a missing file from a folder that cannot be entered
        contents = read_file(path, Limits(file_bytes=1 << 20))
    except (Gone, FileNotFoundError, NotADirectoryError):
        return []
    except Unreachable as exc:
        assert isinstance(exc.__cause__, OSError)
        raise exc.__cause__ from None
    except Refused as exc:
        raise BadIgnoreFile(path, f"{exc}; remove or repair it") from exc
    try:
        lines = ignore_lines(contents.data)
    except ValueError as exc:
        raise BadIgnoreFile(path, f"{exc}; save it as UTF-8 text") from exc
    for number, line in enumerate(lines, 1):
        if wrong := _wrong(line, root):
            raise BadIgnoreFile(path, f"line {number} {wrong}: {line!r}; correct it")
    return lines


def ignore_lines(data: bytes) -> list[str]:
    """Return the lines of an ignore file, whichever editor wrote it.

    It is UTF-8, with or without a byte order mark; UTF-16 or UTF-32 with one; or UTF-16 without
    one, if the other byte order makes no text of it. Lines end in LF, CRLF or CR. Raise
    ``ValueError``, with what is wrong, for anything else.
    """
    text = _decoded(data)
    lines = [_shown(line) for line in _LINE_END.split(text)]  # joined files have several marks
    for number, line in enumerate(lines, 1):
        if not _is_text(line, frozenset({"Cc", "Cs"})):
            raise ValueError(f"line {number} is not text, but has control characters")
        unseen = {"Zl", "Zp"} if line.startswith("#") else {"Cf", "Zl", "Zp"}
        if not _is_text(_JOINERS.sub("", line), frozenset(unseen)):
            raise ValueError(f"line {number} has invisible characters")
    return lines


def _shown(line: str) -> str:
    """Remove what nobody sees at the ends of a line: byte order marks, directions, joiners."""
    start, end = 0, len(line)
    while start < end and unicodedata.category(line[start]) == "Cf":
        start += 1
    while end > start and unicodedata.category(line[end - 1]) == "Cf":
        end -= 1
    return line[start:end]


def _decoded(data: bytes) -> str:
    for mark, encoding in MARKS:
        if data.startswith(mark):
            try:
                return data.removeprefix(mark).decode(encoding)
            except UnicodeDecodeError as exc:
                name = encoding[:6].upper()
                raise ValueError(f"it begins as {name} text, but is not {name}") from exc
    if b"\0" in data:
        return _unmarked(data)
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        line = len(_LINE_END.split(data[: exc.start].decode()))
        raise ValueError(f"line {line} is not UTF-8 text") from exc


def _unmarked(data: bytes) -> str:
    """Decode UTF-16 without a byte order mark. Raise ``ValueError`` unless the order is certain."""
    texts = _as_utf16(data)
    if len(texts) != 1:
        raise ValueError("it is not text, but has null bytes")
    return texts[0]


def _as_utf16(data: bytes) -> list[str]:
    """Return what text the bytes can be in either order; half of its characters are ASCII."""
    found = []
    for encoding in ("utf-16-le", "utf-16-be"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        lines = _LINE_END.split(text)
        is_usual = 2 * sum(c < "\x80" for c in text) >= len(text)  # for patterns
        if is_usual and all(_is_text(line, _NO_TEXT) for line in lines):
            found.append(text)
    return found


def _is_text(line: str, excluded: frozenset[str]) -> bool:
    return not any(unicodedata.category(c) in excluded and c != "\t" for c in line)


def _wrong(line: str, root: bytes | None = None) -> str | None:
    """Say why a line hides nothing that it seems to hide; None if it does not."""
    if not _is_pattern(line):
        return "is not a valid pattern"
    text = line.strip().removeprefix("!")
    if text.startswith(("./", "../", "~/")):
        return "is a path, which nothing matches: patterns begin below their folder"
    if root is not None and root != b"/" and _is_below(text, os.fsdecode(root)):
        return "is a whole path, which nothing matches: patterns begin below their folder"
    if not line.startswith("#") and _BACKSLASH.search(text):
        return "has a backslash before a letter, which separates nothing: write /"
    return None


def _is_below(text: str, root: str) -> bool:
    """Say whether a pattern begins with the path of its own folder."""
    one, other = (unicodedata.normalize("NFC", each) for each in (text, root))
    return one == other or one.startswith(other + "/")


def _is_pattern(line: str) -> bool:
    """Whether a line is blank, a comment, or a pattern that can match something."""
    if not line.strip() or line.startswith("#"):
        return True
    if _CLASS.search(line):
        return False  # pathspec takes the names of POSIX's classes for their letters
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ``re``, about odd sets of characters
            spec = GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return all(pattern.include is not None for pattern in spec.patterns)
