"""Folders and tar files of images, read by name in any order."""

import bz2
import gzip
import lzma
import os
import tarfile
import tempfile
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from fovea.search.clip.errors import ModelError

COPY_BYTES = 1 << 20
OPENERS: dict[bytes, Callable[[Path], Any]] = {  # by a file's first bytes
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


class Archive(Protocol):
    """A set of named files; reading is safe from several threads."""

    @property
    def names(self) -> list[str]:
        """The files' names, in the order they are stored in."""

    def read(self, name: str) -> bytes:
        """Return one file's bytes; raise ``KeyError`` for an unknown name."""

    def size(self, name: str) -> int:
        """Return a file's size in bytes, 0 if it has gone; ``name`` is one of ``names``."""


def open_archive(path: Path) -> Archive:
    """Open a folder or a tar file, compressed or not; raise ``ModelError`` for anything else."""
    if path.is_dir():
        return FolderArchive(path)
    if path.is_file():
        return TarArchive(path)
    raise ModelError(f"{path} is neither a folder nor a tar file; check the path")


class FolderArchive:
    """The files below a folder, named by their relative path with forward slashes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def names(self) -> list[str]:
        """Every file's name, sorted."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in files)

    def read(self, name: str) -> bytes:
        """Return one file's bytes; a name that leads out of the folder counts as unknown."""
        parts = PurePosixPath(name)
        path = self.folder / parts
        if parts.is_absolute() or ".." in parts.parts or not path.is_file():
            raise KeyError(name)
        return path.read_bytes()

    def size(self, name: str) -> int:
        """Return a file's size in bytes, 0 if it has gone."""
        try:
            return (self.folder / name).stat().st_size
        except OSError:
            return 0


class TarArchive:
    """The regular files of a tar, read at their offsets; names lose a leading ``./``.

    A compressed tar is unpacked once into an unnamed temporary file, to save memory.
    """

    def __init__(self, path: Path) -> None:
        self._file = _plain_tar(path)
        weakref.finalize(self, self._file.close)
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                self._offsets = {
                    member.name.removeprefix("./"): (member.offset_data, member.size)
                    for member in tar
                    if member.isfile() and not member.issparse()
                }
        except (tarfile.TarError, OSError) as exc:
            self._file.close()
            raise ModelError(f"{path} is not a readable tar file: {exc}; fetch it again") from exc

    @property
    def names(self) -> list[str]:
        """The files' names in the tar's order."""
        return list(self._offsets)

    def read(self, name: str) -> bytes:
        """Return one member's bytes."""
        offset, size = self._offsets[name]
        return os.pread(self._file.fileno(), size, offset)

    def size(self, name: str) -> int:
        """Return a member's size in bytes."""
        return self._offsets[name][1]


def _plain_tar(path: Path) -> IO[bytes]:
    """Open ``path``, or a decompressed copy of it in a temporary file."""
    try:
        file = path.open("rb")
    except OSError as exc:
        raise ModelError(f"cannot open {path}: {exc.strerror}") from exc
    magic = file.peek()
    opener = next((OPENERS[mark] for mark in OPENERS if magic.startswith(mark)), None)
    if opener is None:
        return file
    file.close()
    copy = tempfile.TemporaryFile()  # lives as long as the archive
    try:
        with opener(path) as source:
            while block := source.read(COPY_BYTES):
                _append(copy, block)
        copy.seek(0)
    except ModelError:
        copy.close()
        raise
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as exc:
        copy.close()
        raise ModelError(f"{path} is damaged: {exc}; fetch it again") from exc
    return copy


def _append(copy: IO[bytes], block: bytes) -> None:
    try:
        copy.write(block)
        copy.flush()
    except OSError as exc:
        raise ModelError(
            f"cannot unpack a tar into {tempfile.gettempdir()}: {exc.strerror}; make room there, "
            "or set TMPDIR to a folder with more"
        ) from exc
