"""Compare a walk with the library: what is new, what has changed, what has disappeared."""

import os
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from fovea.indexer.decoding.formats import (
    RAW_EXTENSIONS,
    RAW_REASON,
    VIDEO_REASON,
    extension,
    is_video,
    raw_available,
    video_available,
)
from fovea.indexer.decoding.limits import DECODING, UNEXPECTED, unexpected
from fovea.indexer.walking.ignore import BadIgnoreFile, Ignore, check_above
from fovea.indexer.walking.walk import Closed, Found, Stamped, found, is_empty, look, pieces
from fovea.indexer.workers.pool import Task
from fovea.search.library.library import Library
from fovea.search.library.rows import FileRow, FileState, FileWrite, Root

from .known import Known, OrderedRows

DECODERS = ("fovea", "pillow", "pillow-heif", "rawpy", "av")


class LostFile(NamedTuple):
    """A file that the library knows, and that a walk did not find or must not open."""

    path: bytes
    root_id: int
    row: FileRow
    refusal: str | None  # why it is not to be opened; None if it is gone


def known_files(
    library: Library,
    roots: Iterable[Root],
    model_id: int | None,
    thread: Executor | None = None,
) -> Known:
    """Prepare to compare a walk of some roots; None is a model new to the library.

    The walk has the rows read from ``library`` by a ``thread``, or without one by itself.
    """
    if model_id is None:
        unembedded = library.rows("SELECT id FROM images")
    else:
        unembedded = _unembedded(library, model_id)
    otherwise = _decoded_otherwise(library, [root.id for root in roots])
    return Known(library, (image_id for (image_id,) in unembedded), otherwise, thread)


def adds_model(library: Library, *details: object) -> bool:
    """Whether a run with a model of this name, identity, width and source writes these."""
    models = library.models()
    return details not in [(row.name, row.identity, row.dim, row.source) for row in models]


def _unembedded(library: Library, model_id: int) -> list[tuple[int]]:
    """Return the images that a model has yet to embed; quickly, if there are none."""
    [(images, embedded)] = library.rows(
        "SELECT (SELECT count(*) FROM images), (SELECT count(*) FROM embeddings "
        "INDEXED BY embeddings_model_id WHERE model_id = ?)",
        (model_id,),
    )
    if images == embedded:  # each embedding is of one image, and another of each
        return []
    return library.rows(
        "SELECT id FROM images WHERE NOT EXISTS "
        "(SELECT 1 FROM embeddings WHERE image_id = images.id AND model_id = ?)",
        (model_id,),
    )


def known_at(library: Library, paths: Iterable[bytes]) -> Known:
    """Read what the library knows of the files at some paths, which are read in any case."""
    known = Known(library)
    known.files = known.rows_of(list(paths))
    return known


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
    walked: set[int] = field(default_factory=set)  # ids of the roots that were walked to the end
    raw: bool = field(default_factory=lambda: raw_available())
    video: bool = field(default_factory=lambda: video_available())
    videos: int = 0  # passed over without the extra
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
        rules = self.rules(root)
        if self.only:
            yield from self._look(root, rules, stops)
            return
        known, others = self.known, [other.path for other in self.roots if other.id != root.id]
        rows = OrderedRows(known.ask, root.path, others)
        for piece in pieces(root.path, rules, stops, self.halt):
            if isinstance(piece, Closed):
                self.closed.append(piece)
                continue
            if not piece:
                continue
            self.found += len(piece)
            stamps_decide = not self.scopes and not known.unembedded
            if stamps_decide and rows.take(piece):
                self.unchanged += len(piece)  # nearly always, without a look at any single file
            else:
                yield from self._sift(root, piece, rows.until(piece[-1][0]), stamps_decide)
        while not self.halt.is_set() and (lost := rows.rest()):
            known.files |= known.rows_of([row[0] for row in lost])
        self.walked.add(root.id)

    def _look(
        self, root: Root, rules: Ignore, stops: frozenset[bytes]
    ) -> Iterator[Task | FileWrite]:
        paths = sorted(path for path in self.scopes if root_of(path, self._all) == root.path)
        for entry in look(root.path, paths, rules, stops):
            if isinstance(entry, Closed):
                self.closed.append(entry)
            else:
                self.found += 1
                yield from self._compare(root, entry, self.known.files.pop(entry.path, None))

    def _sift(
        self, root: Root, piece: list[Stamped | Found], rows: list[Stamped], stamps_decide: bool
    ) -> Iterator[Task | FileWrite]:
        """Compare some pictures with the rows that there are of them, and of files now gone."""
        lost: list[bytes]
        if stamps_decide:
            same = set(rows).intersection(piece)
            changed = [picture for picture in piece if picture not in same]
            lost = [row[0] for row in rows if row not in same]
        else:
            changed, lost = piece, [row[0] for row in rows]
        self.unchanged += len(piece) - len(changed)
        known = self.known.rows_of(lost)
        for picture in changed:
            yield from self._compare(root, found(picture), known.pop(picture[0], None))
        self.known.files |= known

    def _compare(self, root: Root, entry: Found, row: FileRow | None) -> Iterator[Task | FileWrite]:
        """Yield what one file needs: to be read, to be recorded, or nothing."""
        try:
            change = self._judge(root, entry, row)
        except Exception as exc:  # whatever it is, it is the failure of this file
            change = self._refused(root, entry._replace(refusal=unexpected(exc)), row)
        if change is None:
            self.unchanged += 1
        else:
            yield change

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
        if refusal is None and not self.video and is_video(entry.path):
            refusal = VIDEO_REASON
            self.videos += 1
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
    noted = dict(library.rows("SELECT key, value FROM library WHERE key LIKE 'decoders:%'"))
    keys = [key for root_id in root_ids if noted.get(key := f"decoders:{root_id}") != today]
    if keys:
        with library.transaction() as conn:
            conn.executemany(
                "INSERT OR REPLACE INTO library (key, value) VALUES (?, ?)",
                [(key, today) for key in keys],
            )
