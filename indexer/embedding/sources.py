"""What is to be embedded: folders, shards and lists, and the orders that they make."""

import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fovea.indexer.decoding.formats import (
    RAW_EXTENSIONS,
    RAW_REASON,
    VIDEO_EXTENSIONS,
    extension,
    raw_available,
)
from fovea.indexer.decoding.limits import UNEXPECTED
from fovea.indexer.decoding.reading import what_is
from fovea.indexer.scanning.named import check_folder, root_path
from fovea.indexer.walking.ignore import BadIgnoreFile, Ignore
from fovea.indexer.walking.walk import Closed, is_empty, walk
from fovea.search.clip.user_path import user_path
from fovea.search.errors import FoveaError
from fovea.search.library.facts.stamps import stamps_of

from .done import Done
from .items import NOT_THERE, PICTURES, Files, Item, Order, Shard, escaped
from .lists import arrow, names_in
from .remote import check_url, file_system, is_url, normal, said
from .shards import expand

__all__ = ["Source", "Work", "source_of"]

TOGETHER = 64  # files in one order
VIDEO_REASON = "a video: fovea index takes those"
NOWHERE = b"\0"  # no folder is below it
KERNEL = frozenset({b"/dev", b"/proc", b"/sys"})  # left out of folders around them


@dataclass(frozen=True, slots=True)
class Source:
    """A folder, a pattern of shards or a list, as it was named."""

    kind: str  # "folder", "shards" or "list"
    place: str  # absolute, or a URL; a pattern of shards may stand for many

    @property
    def is_remote(self) -> bool:
        """Whether it is a URL."""
        return is_url(self.place)


def source_of(text: str, *, shared: bool = False) -> Source:
    """Tell what a source is. Raise ``FoveaError`` if nothing here can read it.

    ``shared`` says that other machines have to read it, too.
    """
    check_url(text, shared=shared)
    lower = text.lower()
    text = normal(text) if is_url(text) else os.path.abspath(user_path(text))
    if lower.endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")):
        raise FoveaError(f"{text} is compressed; shards are read as plain .tar: unpack it first")
    if lower.endswith(".tar"):
        expand(text)
        return Source("shards", text)
    if lower.endswith(".parquet"):
        arrow()
        return Source("list", text)
    if not is_url(text):
        check_folder(root_path(text), NOWHERE)
        text = os.fsdecode(root_path(text))
    return Source("folder", text)


@dataclass(slots=True)
class Work:
    """Goes through sources once, and makes orders of what is not done yet.

    ``done`` has the ids of what needs nothing, ``whole`` the shards that were read to their end,
    ``begun`` the ids of what is known of others; both have shards' names ``escaped``.
    """

    sources: Sequence[Source]
    done: Done
    whole: frozenset[str] = frozenset()
    begun: dict[str, frozenset[bytes]] = field(default_factory=dict)
    ignore: Sequence[str] = ()
    column: str | None = None
    excluded: frozenset[bytes] = frozenset()  # folders to leave out
    halt: threading.Event = field(default_factory=threading.Event)
    found: int = 0  # files, but for those in shards
    before: int = 0  # of them done already
    skipped: int = 0
    shards_before: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)  # (place, reason)
    _shards: set[str] = field(default_factory=set)

    @property
    def shards(self) -> int:
        """How many shards were handed out."""
        return len(self._shards)

    def orders(self) -> Iterator[Order]:
        """Yield what is to be done, in the order of the sources."""
        for source in self.sources:
            if source.kind == "shards":
                yield from self._of_shards(source)
                continue
            items = self._of_list(source) if source.kind == "list" else self._of_folder(source)
            yield from self._together(items)

    def _together(self, items: Iterable[Item]) -> Iterator[Files]:
        chunk: list[Item] = []
        for item in items:
            self.found += 1
            one = item.id
            if one in self.done:
                self.before += 1
                continue
            self.done.add(one)  # sources may overlap
            chunk.append(item)
            if len(chunk) >= TOGETHER:
                yield Files(tuple(chunk))
                chunk = []
        if chunk:
            yield Files(tuple(chunk))

    def _of_shards(self, source: Source) -> Iterator[Shard]:
        for url in expand(source.place):
            if self.halt.is_set():
                return
            recorded = escaped(url)
            if recorded in self.whole:
                self.shards_before += 1
            elif url not in self._shards:
                self._shards.add(url)
                yield Shard(url, self.begun.get(recorded, frozenset()))

    def _of_list(self, source: Source) -> Iterator[Item]:
        is_begun = False
        try:
            for item in self._listed(source):
                is_begun = True
                yield item
        except FoveaError as exc:
            if not is_begun:
                raise
            self.problems.append((source.place, f"the list breaks off: {exc}"))

    def _listed(self, source: Source) -> Iterator[Item]:
        for name in names_in(source.place, self.column):
            if self.halt.is_set():
                return
            text = os.fsdecode(name)
            if b"\0" in name:
                yield Item(name, refusal="no path: it has a null character")
                continue
            if not is_url(text):
                yield self._judged(_looked_at(name))
                continue
            try:
                check_url(text)
            except FoveaError as exc:
                yield Item(name, "url", refusal=str(exc))
            else:
                yield self._judged(Item(name, "url"))

    def _judged(self, item: Item) -> Item:
        """Refuse what is not to be opened, by its name."""
        if extension(os.path.basename(item.name)) in VIDEO_EXTENSIONS:
            return replace(item, refusal=VIDEO_REASON)
        if extension(os.path.basename(item.name)) in RAW_EXTENSIONS and not raw_available():
            return replace(item, refusal=RAW_REASON)
        return item

    def _of_folder(self, source: Source) -> Iterator[Item]:
        try:
            if source.is_remote:
                yield from self._of_store(source)
            else:
                yield from self._walked(os.fsencode(source.place))
        except BadIgnoreFile as exc:
            self.problems.append((os.fsdecode(exc.path), exc.reason))
        except OSError as exc:
            self.problems.append((source.place, said(exc)))

    def _walked(self, root: bytes) -> Iterator[Item]:
        if is_empty(root):
            self.problems.append((os.fsdecode(root), "offline: the folder is empty"))
            return
        rules = Ignore.for_root(root, self.ignore)
        for entry in walk(root, rules, KERNEL | self.excluded, self.halt):
            if isinstance(entry, Closed):
                self.problems.append((os.fsdecode(entry.path), entry.reason))
                continue
            refusal = entry.refusal
            is_picture = extension(os.path.basename(entry.path)) in PICTURES
            is_ignored = refusal and not refusal.startswith(("unreadable", UNEXPECTED))
            if is_ignored or not is_picture:
                self.found, self.skipped = self.found + 1, self.skipped + 1
                continue
            item = Item(entry.path, "file", entry.size, entry.mtime_ns, entry.ctime_ns)
            if refusal is not None:
                item = Item(entry.path, "file", entry.size, entry.mtime_ns, refusal=refusal)
            yield self._judged(item)

    def _of_store(self, source: Source) -> Iterator[Item]:
        """List the pictures below a URL, folder by folder; hidden names are ignored."""
        try:
            system, top = file_system(source.place)
            if not system.isdir(top):
                self.problems.append((source.place, "unreadable: there is no such folder"))
                return
            scheme = source.place.partition("://")[0]
            if not top.strip("/") and scheme != "memory":
                self.problems.append((source.place, "unreadable: it names no bucket"))
                return
            folders = [top]
            while folders and not self.halt.is_set():
                folder = folders.pop()
                try:
                    found = list(system.ls(folder, detail=True))
                except Exception as exc:  # of as many kinds as there are stores
                    self.problems.append((f"{scheme}://{folder.lstrip('/')}", said(exc)))
                    continue
                inner, items = self._of_folder_in_store(scheme, folder, found)
                folders += reversed(inner)
                yield from items
        except Exception as exc:  # as above
            self.problems.append((source.place, said(exc)))

    def _of_folder_in_store(
        self, scheme: str, folder: str, found: Iterable[dict[str, Any]]
    ) -> tuple[list[str], list[Item]]:
        """Return the folders in a folder, and its pictures, both in order."""
        folders: list[str] = []
        items: list[Item] = []
        for details in sorted(found, key=lambda one: str(one["name"])):
            path = str(details["name"]).rstrip("/")
            name = path.rpartition("/")[2]
            if name.startswith(".") or path == folder.rstrip("/"):
                continue
            if details.get("type") == "directory":
                folders.append(path)
            elif extension(os.fsencode(name)) in PICTURES:
                url = f"{scheme}://{path.lstrip('/')}"
                size = details.get("size")
                size = -1 if size is None else int(size)
                items.append(self._judged(Item(os.fsencode(url), "url", size)))
        return folders, items


def _looked_at(name: bytes) -> Item:
    """Return a file that a list names, with its stamps: as it is known by in its folder."""
    try:
        status = os.lstat(name)
    except (FileNotFoundError, NotADirectoryError):
        return Item(name, refusal=NOT_THERE)  # in a folder, it would just have gone meanwhile
    except (OSError, ValueError):  # whoever opens it says why
        return Item(name)
    refusal = None
    if not stat.S_ISREG(status.st_mode):
        refusal = f"not a file but {what_is(status.st_mode)}"
    return Item(name, "file", *stamps_of(status), refusal=refusal)
