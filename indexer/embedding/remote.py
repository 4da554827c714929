"""Open files by path or URL: this machine's own, and those that fsspec knows how to reach."""

import errno
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import IO, Any

from fovea.indexer.decoding.limits import Limits, megabytes, one_line
from fovea.indexer.decoding.reading import what_is
from fovea.search.errors import FoveaError

from .items import NOT_THERE, UNREACHED, Item

__all__ = [
    "STREAMED",
    "check_url",
    "fetched",
    "file_system",
    "is_url",
    "normal",
    "open_stream",
    "said",
]

STREAMED = 128 << 20  # bytes that a file may have which is held in memory before it is decoded
FETCHERS = 8  # files fetched at once
NO_WAITING = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
SCHEMES = {
    "file": None,
    "memory": None,
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
}  # scheme -> the package that it needs beside fsspec
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*(?:::[A-Za-z0-9+.-]+)*)://")


def is_url(text: str) -> bool:
    """Whether a text names its scheme."""
    return URL.match(text) is not None


def normal(text: str) -> str:
    """Return a URL with its scheme in small letters, and the path of one that is ``file://``."""
    scheme, _, rest = text.partition("://")
    if scheme.lower() == "file":
        return rest if rest.startswith("/") else os.path.abspath(rest)
    return f"{scheme.lower()}://{rest}"


def check_url(text: str, *, shared: bool = False) -> None:
    """Raise ``FoveaError`` for a URL that cannot be opened here; ``shared``: or on other machines.

    Nothing is imported or asked for yet.
    """
    from importlib.util import find_spec

    match = URL.match(text)
    if match is None:
        return
    scheme = match.group(1).lower()
    if scheme in ("http", "https"):
        raise FoveaError(f"{scheme}:// is not read; download first, with img2dataset for example")
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise FoveaError(f"{scheme}:// is not read; use a path, or one of {known}")
    if SCHEMES[scheme] is not None and "@" in text[match.end() :].partition("/")[0]:
        raise FoveaError(
            f"an address with credentials ({scheme}://…@…) is refused, since lists of processes "
            f"show it; {SCHEMES[scheme]} takes them from the environment"
        )
    if scheme == "file":
        return
    if find_spec("fsspec") is None:
        raise FoveaError(f"{scheme}:// needs fsspec: pip install 'fovea[cluster]'")
    package = SCHEMES[scheme]
    if package is not None and find_spec(package) is None:
        raise FoveaError(f"{scheme}:// needs {package}: pip install {package}")
    if shared and scheme == "memory":
        raise FoveaError("memory:// is of one process; a cluster cannot read it")


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path there, in which ``::`` means nothing."""
    import fsspec

    scheme, _, rest = url.partition("://")
    system = fsspec.filesystem(scheme.lower())
    if scheme.lower() == "memory":  # it has its own way with colons
        rest = rest.strip("/")
        return system, f"/{rest}" if rest else ""
    return system, str(system._strip_protocol(url))


def open_stream(place: str) -> IO[bytes]:
    """Open a path or URL to be read from its beginning on. Raise ``OSError``.

    That never waits for a pipe or a device, which are refused.
    """
    if not is_url(place):
        descriptor = os.open(place, os.O_RDONLY | NO_WAITING)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise OSError(errno.EINVAL, f"not a file but {what_is(mode)}")
            return open(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    system, path = file_system(place)
    stream: IO[bytes] = system.open(path, "rb")
    return stream


def said(exc: BaseException) -> str:
    """Say in one line why something could not be opened or read."""
    if isinstance(exc, FileNotFoundError):
        return NOT_THERE
    text = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return UNREACHED + one_line(str(text))


def fetched(items: Iterable[Item], limits: Limits) -> Iterator[Item]:
    """Yield items with their contents, in order; those that are files of this machine as they are.

    Up to ``FETCHERS`` are fetched at once, each held to ``STREAMED`` bytes.
    """
    most = min(limits.file_bytes, STREAMED)
    waiting: deque[Future[Item] | Item] = deque()
    with ThreadPoolExecutor(FETCHERS) as threads:
        try:
            for item in items:
                far = item.where == "url" and item.refusal is None
                waiting.append(threads.submit(_fetch, item, most) if far else item)
                if len(waiting) >= FETCHERS:
                    yield _given(waiting.popleft())
            while waiting:
                yield _given(waiting.popleft())
        finally:
            for one in waiting:
                if isinstance(one, Future):
                    one.cancel()


def _given(one: "Future[Item] | Item") -> Item:
    return one.result() if isinstance(one, Future) else one


def _fetch(item: Item, most: int) -> Item:
    try:
        with open_stream(os.fsdecode(item.name)) as stream:
            data = stream.read(most + 1)
    except Exception as exc:  # of as many kinds as there are stores
        return replace(item, refusal=said(exc))
    if len(data) > most:
        return replace(item, refusal=f"too large: the limit of a fetched file is {megabytes(most)}")
    return replace(item, data=data)
