"""Replace a file whole or not at all, whatever happens on the way."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from .errors import ModelError

FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk, or of what its user may have of it


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a new file, which then takes the place of the one at ``path``.

    A kill or a power failure leaves the old file or the new one, whole. The new one has the
    permissions that the user's umask asks for. Raise ``ModelError`` where it cannot be written, a
    full disk included; the old one is still there then.
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
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as exc:  # torch makes a RuntimeError of what the disk says
        partial.unlink(missing_ok=True)
        cause = (watched and watched.error) or exc
        reason = (isinstance(cause, OSError) and cause.strerror) or cause
        whole = "; what was there before is whole" if path.exists() else ""
        full = isinstance(cause, OSError) and cause.errno in FULL
        room = "; make room there and repeat the command" if full else ""
        raise ModelError(f"cannot write {path}: {reason}{whole}{room}") from exc


class _Watched:
    """A file that remembers why it could not be written, whatever its writer makes of that."""

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


def _sync_folder(folder: Path) -> None:
    """Make a renaming last; only POSIX systems let a folder be synchronised."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
