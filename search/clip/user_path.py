"""Paths as people write them: what they cannot mean is an error, never another place."""

import os
from pathlib import Path

from fovea.search.clip.errors import FoveaError

__all__ = ["check_path", "check_working_directory", "user_path"]


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
