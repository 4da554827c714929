"""Compare a walk with the library: what is new, what has changed, what has disappeared."""

import json
import os
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from fovea.indexer.decoding.formats import RAW_EXTENSIONS, RAW_REASON, extension, raw_available
from fovea.indexer.decoding.limits import DECODING, UNEXPECTED, unexpected
from fovea.indexer.walking.ignore import BadIgnoreFile, Ignore, check_above
from fovea.indexer.walking.walk import Closed, Found, is_empty, look, walk
from fovea.indexer.workers.pool import Task
from fovea.search.library.library import Library
from fovea.search.library.rows import FileRow, FileState, FileWrite, Root

from .refusals import UNEMBEDDED, UNSTORED

RETRIED = tuple(
    f"reason LIKE '{start.strip()}%'" for start in ("unreadable:", UNEMBEDDED, UNSTORED, UNEXPECTED)
)
DECODERS = ("fovea", "pillow", "pillow-heif", "rawpy")


class LostFile(NamedTuple):
    """A file that the library knows, and that a walk did not find or must not open."""

    path: bytes
    root_id: int
    row: FileRow
    refusal: str | None  # why it is not to be opened; None if it is gone


@dataclass(frozen=True, slots=True)
class Known:
    """What the library knows before a walk: read once, so that the walk needs no database."""

    files: dict[bytes, FileRow]  # under all roots; a walk takes out what it finds
    noted: frozenset[bytes]  # indexed files with a remark: kept though not found or not readable
    retry: frozenset[bytes]  # failed, but not because of their content, or with other decoders
    unembedded: set[int]  # images that the model has yet to embed


def known_files(library: Library, roots: Sequence[Root], model_id: int | None) -> Known:
    """Read what a walk of these roots is compared with; None is a model new to the library."""
    files: dict[bytes, FileRow] = {}
    for root in _outermost(roots):
        files |= library.files_under(root.path)
    noted = library.rows("SELECT path FROM files WHERE state = 'indexed' AND reason IS NOT NULL")
    retry = library.rows(
        f"SELECT path FROM files WHERE state = 'failed' AND ({' OR '.join(RETRIED)} "
        "OR root_id IN (SELECT value FROM json_each(?)))",
        [json.dumps(_decoded_otherwise(library, [root.id for root in roots]))],
    )
    if model_id is None:
        unembedded = {row.image_id for row in files.values() if row.image_id is not None}
    else:
        rows = library.rows(
            "SELECT id FROM images WHERE id NOT IN "
            "(SELECT image_id FROM embeddings WHERE model_id = ?)",
            (model_id,),
        )
        unembedded = {image_id for (image_id,) in rows}
    return Known(files, _paths(noted), _paths(retry), unembedded)


def known_at(library: Library, paths: Iterable[bytes]) -> Known:
    """Read what the library knows of the files at some paths, which are read in any case."""
    sql = "SELECT path, id, size, mtime_ns, state, image_id, ctime_ns FROM files WHERE path = ?"
    rows = [row for path in paths for row in library.rows(sql, (path,))]
    files = {path: FileRow(*rest) for path, *rest in rows}
    return Known(files, frozenset(), frozenset(), set())


def _paths(rows: Iterable[tuple[bytes]]) -> frozenset[bytes]:
    return frozenset(path for (path,) in rows)


def _outermost(roots: Iterable[Root]) -> list[Root]:
    chosen: list[Root] = []
    for root in sorted(roots, key=lambda root: len(root.path)):
        if not any(inside(root.path, other.path) for other in chosen):
            chosen.append(root)
    return chosen


def inside(path: bytes, folder: bytes) -> bool:
    """Say whether a path lies in a folder, or is it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def covers(scopes: Collection[bytes], path: bytes) -> bool:
    """Say whether a path is one of some files and folders, or lies in one of them."""
    return root_of(path, scopes) is not None


def root_of(path: bytes, roots: Collection[bytes]) -> bytes | None:
    """Return the innermost of some roots that a path lies in, or is."""
    while path not in roots:
        path, inner = os.path.dirname(path), path
        if path == inner:
            return None
    return path


@dataclass(slots=True)
class Survey:
    """One walk of some roots, and what it noticed on the way.

    Iterate over ``changes`` to the end; what is left in ``known.files`` was not found.
    """

    roots: Sequence[Root]
    known: Known
    ignore: Sequence[str] = ()
    excluded: frozenset[bytes] = frozenset()  # folders to leave out, such as the library's own
    found: int = 0
    unchanged: int = 0
    scopes: frozenset[bytes] = frozenset()  # files and folders to read whatever their stamps say
    only: bool = False  # look at the scopes, which are files, and at nothing else
    registered: frozenset[bytes] = frozenset()  # all roots of the library, walked or not
    present: list[bytes] = field(default_factory=list)  # back again, or without a remark now
    stamped: list[tuple[bytes, int]] = field(default_factory=list)  # (path, ctime), not known yet
    refused: list[LostFile] = field(
        default_factory=list
    )  # pictures that must not be opened any more
    closed: list[Closed] = field(default_factory=list)
    offline: dict[int, str] = field(default_factory=dict)  # root id -> why
    barred: dict[int, BadIgnoreFile] = field(default_factory=dict)  # root id -> what bars it
    totals: dict[int, int] = field(default_factory=dict)  # root id -> files found there
    raw: bool = field(default_factory=lambda: raw_available())
    halt: threading.Event = field(default_factory=threading.Event)  # ends the walk early

    def changes(self) -> Iterator[Task | FileWrite]:
        """Walk all roots; yield a task for each file to read, and a row for each other change."""
        stops = self.excluded | {root.path for root in self.roots}
        for root in self.roots:
            before = self.found
            try:
                if is_empty(root.path):
                    self.offline[root.id] = "the folder is empty"
                    continue
                yield from self._walk(root, stops)
                if is_empty(root.path):  # unmounted meanwhile
                    self.offline[root.id] = "the folder is empty"
            except BadIgnoreFile as exc:
                self.barred[root.id] = exc
            except OSError as exc:
                self.offline[root.id] = exc.strerror or type(exc).__name__
            self.totals[root.id] = self.found - before

    def _walk(self, root: Root, stops: frozenset[bytes]) -> Iterator[Task | FileWrite]:
        take, files = self.known.files.pop, self.known.files
        noted, unembedded, scopes = self.known.noted, self.known.unembedded, self.scopes
        for entry in self._entries(root, stops):
            if isinstance(entry, Closed):
                self.closed.append(entry)
                continue
            self.found += 1
            path, size, mtime_ns, refusal, ctime_ns = entry
            row = take(path, None) if files else None
            if (
                row is not None
                and refusal is None
                and row.state == "indexed"
                and row.mtime_ns == mtime_ns
                and row.size == size
                and row.ctime_ns == ctime_ns
                and row.image_id not in unembedded
                and path not in noted
                and not (scopes and covers(scopes, path))
            ):
                self.unchanged += 1  # nearly always, so this path is as short as Python allows
                continue
            try:
                change = self._judge(root, entry, row)
            except Exception as exc:  # whatever it is, it is the failure of this file
                change = self._refused(root, entry._replace(refusal=unexpected(exc)), row)
            if change is None:
                self.unchanged += 1
            else:
                yield change

    def _entries(self, root: Root, stops: frozenset[bytes]) -> Iterator[Found | Closed]:
        rules = self.rules(root)
        if not self.only:
            return walk(root.path, rules, stops, self.halt)
        paths = sorted(path for path in self.scopes if root_of(path, self._all) == root.path)
        return look(root.path, paths, rules, stops)

    @property
    def _all(self) -> frozenset[bytes]:
        return self.registered | {root.path for root in self.roots}

    def rules(self, root: Root) -> Ignore:
        """Read what a root ignores.

        Raise ``BadIgnoreFile`` if its own ignore file cannot be used, or one above it within a root
        around it, which bars everything below; ``OSError`` if that cannot be known.
        """
        around = [other for other in self._all if inside(root.path, other)]
        check_above(root.path, min(around, key=len))
        return Ignore.for_root(root.path, self.ignore)

    def _judge(self, root: Root, entry: Found, row: FileRow | None) -> Task | FileWrite | None:
        """Decide what to do about one file: read it, record why not, or nothing."""
        same = row is not None and _is_same(entry, row)
        refusal = entry.refusal
        if refusal is None and not self.raw and extension(entry.path) in RAW_EXTENSIONS:
            refusal = RAW_REASON
        if refusal is not None:
            return self._refused(root, entry._replace(refusal=refusal), row)
        if self.scopes and covers(self.scopes, entry.path):
            return _task(root, entry, row)._replace(force=True, reread=same)
        if not same or row is None or self._to_be_read(entry.path, row):
            return _task(root, entry, row)
        if row.ctime_ns is None and entry.ctime_ns is not None:  # of a library that had none yet
            self.stamped.append((entry.path, entry.ctime_ns))
        if row.state in ("missing", "skipped") or entry.path in self.known.noted:
            self.present.append(entry.path)
        return None

    def _refused(self, root: Root, entry: Found, row: FileRow | None) -> FileWrite | None:
        """Decide what to do about a file that must not or cannot be opened."""
        refusal = entry.refusal or ""
        failed = refusal.startswith(("unreadable", UNEXPECTED))
        state: FileState = "failed" if failed else "skipped"
        if row is not None and row.image_id is not None:
            if entry.size < 0 or refusal.startswith(UNEXPECTED):
                self.closed.append(Closed(entry.path, f"{refusal}; kept as it was"))
            elif row.state != state:  # what is known of it stays; ``missing`` decides about it
                self.refused.append(LostFile(entry.path, root.id, row, refusal))
            return None
        if row is not None and row.state == state and _is_same(entry, row):
            return None
        stamps = entry.size, entry.mtime_ns
        return FileWrite(
            entry.path, root.id, *stamps, None, state, refusal, ctime_ns=entry.ctime_ns
        )

    def _to_be_read(self, path: bytes, row: FileRow) -> bool:
        """Say whether an unchanged file must be read nevertheless."""
        if row.image_id is not None:
            if row.image_id in self.known.unembedded:
                self.known.unembedded.discard(row.image_id)  # one of its files is enough
                return True
            return False
        if row.state == "failed":  # because of its permissions: again once they allow it
            return path in self.known.retry and os.access(path, os.R_OK)
        return True  # skipped or gone before it was ever read


def _is_same(entry: Found, row: FileRow) -> bool:
    """Say whether a file has the stamps that the library knows.

    An edit that keeps size and mtime changes the inode's ctime. A ctime that is not known, on
    either side, is not compared: a library may be older than the column.
    """
    if (row.size, row.mtime_ns) != (entry.size, entry.mtime_ns):
        return False
    return row.ctime_ns == entry.ctime_ns or row.ctime_ns is None or entry.ctime_ns is None


def _task(root: Root, entry: Found, row: FileRow | None) -> Task:
    image_id = None if row is None else row.image_id
    return Task(entry.path, root.id, entry.size, entry.mtime_ns, image_id, ctime_ns=entry.ctime_ns)


# A failure is worth another attempt when the program or a decoder has another version


def decoder_versions() -> str:
    """Name the packages that decode, with their versions, and the version of our own decoding."""
    return ", ".join([*(f"{name} {_version(name)}" for name in DECODERS), f"decoding {DECODING}"])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def _decoded_otherwise(library: Library, root_ids: Iterable[int]) -> list[int]:
    """Return those of the roots that were last scanned to the end by other decoders."""
    rows = library.rows("SELECT key, value FROM library WHERE key LIKE 'decoders:%'")
    noted, today = dict(rows), decoder_versions()
    return [root_id for root_id in root_ids if noted.get(f"decoders:{root_id}", today) != today]


def note_decoders(library: Library, root_ids: Iterable[int]) -> None:
    """Remember that these roots have been scanned to the end by today's decoders."""
    today = decoder_versions()
    with library.transaction() as conn:
        conn.executemany(
            "INSERT INTO library (key, value) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [(f"decoders:{root_id}", today) for root_id in root_ids],
        )
