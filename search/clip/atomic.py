"""Replace a file whole or not at all, whatever happens on the way."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from .errors import ModelError


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a new file, which then takes the place of the one at ``path``.

    A kill or a power failure leaves the old file or the new one, whole. The new one has the
    permissions that the user's umask asks for. Raise ``ModelError`` where it cannot be written, a
    full disk included; the old one is still there then.
    """
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as exc:  # torch tells of a full disk as a RuntimeError
        partial.unlink(missing_ok=True)
        raise ModelError(f"cannot write {path}: {exc}; what was there before is whole") from exc


def _sync_folder(folder: Path) -> None:
    """Make a renaming last; only POSIX systems let a folder be synchronised."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
