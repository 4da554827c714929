"""Paths as people write them: what they cannot mean is an error, never another place."""

import os
import re
import socket
from pathlib import Path
from urllib.parse import unquote_to_bytes

from fovea.search.clip.errors import FoveaError

__all__ = [
    "OTHER_COMPUTER",
    "check_path",
    "check_working_directory",
    "read_path",
    "typed_path",
    "user_path",
]

QUOTES = ('""', "''", "“”", "‘’", "„“", "«»", "「」")
UNSEEN = "\u200b\u200e\u200f\u202a\u202c\u2060\ufeff"  # that copied paths begin or end with
FILE_URL = re.compile(r"file:(?://([^/]*))?(/.*)", re.IGNORECASE | re.DOTALL)

OTHER_COMPUTER = "is another computer"  # in the message about the address of a file there


def typed_path(text: str) -> str:
    """Return the path that somebody typed or pasted.

    One that exists as it stands is left so; others are read by ``read_path``, which may raise
    ``FoveaError``.
    """
    try:
        is_there = bool(text) and os.path.lexists(text)
    except ValueError:  # what no name has; reading it says so
        is_there = False
    if is_there:
        return os.path.abspath(text) if text.startswith("~") else text
    return read_path(text)


def read_path(text: str) -> str:
    """Read a path without looking at the disk: what it means, and what only came along with it.

    Spaces and line breaks around it are removed, then quotation marks; a ``file://`` address is
    decoded, and ``~`` replaced. Raise ``FoveaError`` as ``user_path`` does, and for the address of
    another host, whose message has ``OTHER_COMPUTER``.
    """
    text = _bare(text)
    if len(text) > 1 and any(text[0] + text[-1] == pair for pair in QUOTES):
        text = _bare(text[1:-1])
    if address := FILE_URL.fullmatch(text):
        return check_path(_path_of(*address.groups()))
    return os.fspath(user_path(text)) if text.startswith("~") else check_path(text)


def _bare(text: str) -> str:
    """Remove white space and invisible marks around a text."""
    before = None
    while text != before:
        before, text = text, text.strip().strip(UNSEEN)
    return text


def _path_of(host: str | None, path: str) -> str:
    """Decode the path of a ``file:`` URL (RFC 8089), whose ``?`` and ``#`` are part of the name."""
    here = ("", "localhost", "127.0.0.1", socket.gethostname().lower())
    if host is not None and host.lower() not in here:
        raise FoveaError(f"{host} {OTHER_COMPUTER}; name the folder where this one has its files")
    if os.name == "nt":
        path = path.lstrip("/")  # /C:/Users
    return os.fsdecode(unquote_to_bytes(path))


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with its ``~`` replaced by the folder of that user; it need not exist.

    Raise ``FoveaError`` for what ``check_path`` refuses, and for an unknown user's folder.
    """
    text = check_path(path)
    found = Path(text)
    if not text.startswith("~"):
        return found  # expanduser would take ./~ for ~
    try:
        return found.expanduser()
    except RuntimeError as exc:
        user = found.parts[0][1:]
        raise FoveaError(
            f"there is no user {user!a} with a folder of their own; "
            f"for a folder of that name, write ./~{user}"
        ) from exc


def check_path(path: str | bytes | os.PathLike[str]) -> str:
    """Return a path as text, with the bytes that are not UTF-8 as ``os.fsdecode`` gives them.

    Raise ``FoveaError`` for an empty path, which would be the working directory; for a relative
    one where that directory is gone; and for characters that no name has.
    """
    text = os.fsdecode(path)
    if not text:
        raise FoveaError("the path is empty; name a folder or a file, . for the working directory")
    if "\0" in text:
        raise FoveaError(f"the path {text!a} contains a null character; remove it")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as exc:
        raise FoveaError(f"the path {text!a} contains half a character; correct it") from exc
    if not text.startswith((os.sep, "~")):
        check_working_directory()
    return text


def check_working_directory() -> None:
    """Raise ``FoveaError`` if the working directory is gone."""
    try:
        os.getcwd()
    except OSError as exc:
        raise FoveaError(
            f"the working directory cannot be used ({exc.strerror}); change to another one, "
            "such as: cd ~"
        ) from exc
