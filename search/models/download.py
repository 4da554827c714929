"""Download a file: resumable, checked, and quick to give up where the network is dead or stalls."""

import contextlib
import errno
import hashlib
import http.client
import os
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from fovea.search.clip.disk import FULL, full_text
from fovea.search.errors import ModelDamaged, ModelError, ModelUnreachable

from .store import models_folder

__all__ = ["USUAL", "ModelRefused", "Patience", "Progress", "Reporter", "answers", "download"]

BLOCK = 1 << 18  # bytes read at a time
AGENT = "fovea"

T = TypeVar("T")
Progress = Callable[[int, int | None], None]  # bytes so far, and in all if the server says
Reporter = Callable[[str], Progress]  # is told a file's name; returns what is told its bytes


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a download waits, in seconds."""

    first: float = 3.0  # from the start to the first bytes, name look-up included
    silence: float = 20.0  # between two blocks later on
    slowest: float = 1600.0  # bytes a second; fewer count as silence
    tries: int = 4  # interruptions in a row that brought nothing


USUAL = Patience()


class ModelRefused(ModelError):
    """A server that answers with an error; ``answer`` says who and which."""

    def __init__(self, answer: str) -> None:
        super().__init__(f"{answer}; check the URL")
        self.answer = answer


class _Interrupted(Exception):
    """The connection ended early or fell silent; what was received is kept."""


class _Misplaced(Exception):
    """The server cannot resume where the kept part ends."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Download a file to ``path`` and return it, checked against its SHA-256 (hex).

    A partial download is kept as ``path``.part, and a later call resumes it. Raise
    ``ModelUnreachable`` if nothing comes within ``patience.first`` seconds or the download stalls,
    ``ModelDamaged`` for a file with another SHA-256, and ``ModelError`` for any other failure, such
    as a full disk.
    """
    patience = patience or USUAL
    part = path.with_name(path.name + ".part")
    with _alone(path):
        if path.is_file() and _sha256(path) == sha256:
            return path
        resumed = _size(part) > 0
        if not (resumed and _sha256(part) == sha256):
            _complete(url, part, patience, progress)
        if resumed and _sha256(part) != sha256:  # the kept part may belong to another file
            part.unlink()
            _complete(url, part, patience, progress)
        found = _sha256(part)
        if found != sha256:
            part.unlink()
            raise ModelDamaged(
                f"{_shown(url)} has the SHA-256 {found[:16]}…, not {sha256[:16]}…, so it is "
                "another file; try again, or use another network"
            )
        os.replace(part, path)
    return path


def answers(url: str, seconds: float) -> bool:
    """Whether a server answers HTTP within so many seconds, name look-up included."""

    def ask() -> bool:
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": AGENT})
        try:
            with urllib.request.urlopen(request, timeout=seconds):
                return True
        except urllib.error.HTTPError as exc:
            exc.close()
            return True

    try:
        return _within(seconds, ask)
    except (OSError, http.client.HTTPException, TimeoutError):
        return False


def _complete(url: str, part: Path, patience: Patience, progress: Progress | None) -> None:
    """Download until the part is complete, resuming after interruptions."""
    failures, answered, last = 0, False, ""
    while True:
        before = _size(part)
        try:
            _resume(url, part, before, patience, progress)
            return
        except _Misplaced:
            part.unlink(missing_ok=True)
            failures, last = failures + 1, "the server cannot resume it"
        except _Interrupted as exc:
            answered, last = True, str(exc)
            failures = 0 if _size(part) > before else failures + 1
        except ModelUnreachable as exc:
            if not answered:
                raise
            failures, last = failures + 1, str(exc)
            time.sleep(1)
        if failures >= patience.tries:
            raise ModelUnreachable(
                f"the download of {_shown(url)} keeps stopping ({last}); try again to resume it"
            )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _resume(
    url: str, part: Path, start: int, patience: Patience, progress: Progress | None
) -> None:
    """Append the bytes from ``start`` on, up to the end or an interruption."""
    response, block = _first_block(url, start, patience)
    with contextlib.closing(response), _writing(part):
        start, total = _place(response, start)
        if total is not None:
            _check_room(part, total - start)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            done = start
            for piece in _blocks(response, block, patience):
                file.write(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, total)
    if total is not None and done != total:
        if done > total:
            part.unlink()
        raise _Interrupted(f"only {done} of {total} bytes arrived")


def _first_block(
    url: str, start: int, patience: Patience
) -> tuple[http.client.HTTPResponse, bytes]:
    """Open the URL and read its first bytes within ``patience.first`` seconds."""
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)

    def begin() -> tuple[http.client.HTTPResponse, bytes]:
        response = urllib.request.urlopen(request, timeout=patience.silence)
        try:
            return response, response.read1(BLOCK)
        except BaseException:
            response.close()
            raise

    try:
        return _within(patience.first, begin, lambda late: late[0].close())
    except urllib.error.HTTPError as exc:
        exc.close()
        if exc.code == 416 and start:  # nothing follows: it was complete, or another file
            raise _Misplaced from exc
        if exc.code in (408, 429, 500, 502, 503, 504):
            raise ModelUnreachable(
                f"{_shown(url)} answered {exc.code} {exc.reason}; try again later"
            ) from exc
        raise ModelRefused(f"{_shown(url)} answered {exc.code} {exc.reason}") from exc
    except (OSError, http.client.HTTPException, TimeoutError) as exc:
        reason = getattr(exc, "reason", None) or exc
        where = urlsplit(url).hostname
        raise ModelUnreachable(f"{where} does not answer ({_words(reason)})") from exc


def _place(response: http.client.HTTPResponse, start: int) -> tuple[int, int | None]:
    """Return where the bytes of a response belong, and the size of the file if known."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        return 0, int(length) if length else None
    span, _, total = response.headers.get("Content-Range", "").partition("/")
    if not span.startswith(f"bytes {start}-"):
        raise _Misplaced
    return start, int(total) if total.isdecimal() else None


def _blocks(
    response: http.client.HTTPResponse, block: bytes, patience: Patience
) -> Iterator[bytes]:
    """Yield blocks until the end; a trickle counts as silence."""
    began, size = time.monotonic(), 0
    while block:
        yield block
        size += len(block)
        now = time.monotonic()
        if now - began > patience.silence:
            if size < patience.slowest * (now - began):
                raise _Interrupted(f"{size} bytes in {now - began:.0f} s")
            began, size = now, 0
        try:
            block = response.read1(BLOCK)
        except (OSError, http.client.HTTPException) as exc:
            raise _Interrupted(_words(exc)) from exc


def _within(
    seconds: float, act: Callable[[], T], discard: Callable[[T], object] | None = None
) -> T:
    """Do something that may hang, such as a name look-up, for at most so many seconds.

    Raise ``TimeoutError`` after that; a late result goes to ``discard``.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(act())
        except BaseException as exc:  # whatever it is belongs to the caller
            future.set_exception(exc)

    def drop(late: Future[T]) -> None:
        exc = late.exception()
        if isinstance(exc, urllib.error.HTTPError):
            exc.close()
        elif exc is None and discard is not None:
            discard(late.result())

    threading.Thread(target=run, daemon=True).start()
    if not wait([future], seconds).done:
        future.add_done_callback(drop)
        raise TimeoutError(f"nothing arrived within {seconds:g} s")
    return future.result()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time download this file."""
    lock = FileLock(path.with_name(path.name + ".lock"), timeout=0)
    try:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout as exc:
        raise ModelError(
            f"another fovea is downloading {path.name}; wait until it has finished"
        ) from exc
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an error into one that names the file and what to do."""
    try:
        yield
    except Timeout:
        raise
    except OSError as exc:
        setting = "FOVEA_MODELS" if path.is_relative_to(models_folder()) else "HF_HOME"
        advice = str(exc.strerror or exc)
        if exc.errno in FULL and advice == os.strerror(exc.errno):  # not ``_check_room``'s words
            advice = full_text(path.parent, exc)
        raise ModelError(
            f"cannot write {path}: {advice}; make room, or set {setting} to another folder"
        ) from exc


def _check_room(path: Path, needed: int) -> None:
    """Raise ``OSError`` where the disk has less room than a file is going to take, in bytes."""
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        reason = f"{needed / 1e6:,.0f} MB are needed, and {free / 1e6:,.0f} MB are free"
        raise OSError(errno.ENOSPC, reason)


def _shown(url: str) -> str:
    """Return a URL for messages, without its query, which may be a secret."""
    return url.partition("?")[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _words(reason: object) -> str:
    if isinstance(reason, socket.gaierror):
        return "its name cannot be looked up"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    return str(reason) or type(reason).__name__
