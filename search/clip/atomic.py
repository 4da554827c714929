"""Replace a file atomically: either all of it or nothing."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from .disk import FULL, room_advice
from .errors import ModelError


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a new file, then replace the one at ``path`` with it.

    A kill or a power failure leaves either the old file or the new one, complete. The new one's
    permissions follow the user's umask. Raise ``ModelError`` if it cannot be written, for example
    because the disk is full; the old one is then unchanged.
    """
    partial = path.with_name(f"{path.name}.part")
    watched = None
    try:
        with partial.open("wb") as file:
            watched = _Watched(file)
            write(cast(IO[bytes], watched))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as exc:  # torch turns errors of the disk into a RuntimeError
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        cause = (watched and watched.error) or exc
        reason = (isinstance(cause, OSError) and cause.strerror) or cause
        whole = "; the earlier file is unchanged" if path.exists() else ""
        if isinstance(cause, OSError) and cause.errno in FULL:
            reason = room_advice(path.parent, cause)
        raise ModelError(f"cannot write {path}: {reason}{whole}") from exc


class _Watched:
    """A file that keeps the error of a failed write, which its writer may disguise."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write to the file."""
        try:
            return self._file.write(data)
        except OSError as exc:
            self.error = exc
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def sync_folder(folder: Path) -> None:
    """Make a rename durable; only POSIX systems can synchronise a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
