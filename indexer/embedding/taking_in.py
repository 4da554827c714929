"""Take embeddings from files into a library: ``fovea index --from-embeddings``.

A file is trusted to be the one that was embedded if its size and time are as they were then, which
is what ``fovea index`` goes by, too. Otherwise it is read again, and taken only if its hash is the
recorded one. What ``fovea index`` leaves out is left out here.
"""

import os
import shlex
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fovea.indexer.decoding.formats import (
    RAW_EXTENSIONS,
    RAW_REASON,
    extension,
    raw_available,
)
from fovea.indexer.decoding.limits import Gone, Limits, Refused, one_line
from fovea.indexer.decoding.reading import read_file, what_is
from fovea.indexer.scanning.changes import root_of
from fovea.indexer.scanning.interrupting import interruptible
from fovea.indexer.scanning.named import check_folder, root_path
from fovea.indexer.scanning.pipeline import Progress
from fovea.search.errors import FoveaError
from fovea.search.library.facts.stamps import stamps_of
from fovea.search.library.library import Library
from fovea.search.library.paths import printable_name
from fovea.search.models.info import ModelInfo

from .done import Done
from .exchange import Manifest, parts_in, read_manifest
from .foreign.facts import FACTS, sound_facts
from .foreign.parts import Part, Row, open_part, rows_of
from .foreign.rules import Rules
from .into_library import NO_ROOT, ONLY_FILES, IntoLibrary
from .items import ID_BYTES, PICTURES, Item, Result
from .lists import arrow

__all__ = ["Embeddings", "TakenReport", "check_embeddings", "take_in"]

LENGTH_ERROR = 1e-2  # by which the length of an embedding may differ from 1
PATHS = ("path", "image_path")  # fovea's own, and that of clip-retrieval
COLUMNS = (*PATHS, "hash", "where", "size", "mtime_ns", *FACTS)
REPORT_S = 0.1
UNIT = "its embedding is not a unit vector"
GONE = "no longer there"


@dataclass(slots=True)
class TakenReport:
    """What was taken in: ``rows`` is the sum of the counts that follow, unless it was stopped."""

    rows: int = 0
    taken: int = 0
    unchanged: int = 0  # in the library already
    left: int = 0  # for the reasons in ``reasons``
    hashed: int = 0  # of those taken: read again, since their stamps differed
    seconds: float = 0.0
    stopped: bool = False
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)  # reason -> a file
    folders: list[bytes] = field(default_factory=list)  # of the manifest, the library's from now on
    problems: list[str] = field(default_factory=list)  # parts of which not all could be read


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A folder of embeddings: its manifest and its parts, whose headers go with the model."""

    manifest: Manifest
    parts: tuple[Part, ...]


def check_embeddings(folder: Path, model: ModelInfo) -> Embeddings:
    """Look at a folder of embeddings, but not at their rows yet.

    Raise ``FoveaError`` if they are another model's, naming both, and for a part that is damaged,
    or where vectors and metadata differ in number or shape.
    """
    about, name = read_manifest(folder), printable_name(folder)
    if about is None:
        raise FoveaError(
            f"{name} has no manifest.json that names its model, so its vectors cannot be "
            "compared with any; embed the pictures again, or write one (docs/embedding.md)"
        )
    theirs = about["model"]
    if theirs["identity"] != model.identity:
        called = one_line(theirs["name"], 100)
        raise FoveaError(
            f"{name} holds embeddings of {called}, not {model.name}; for a new library: "
            f"--model {shlex.quote(called)}"
        )
    if theirs["dim"] != model.dim:
        raise FoveaError(
            f"{name} holds vectors of {theirs['dim']} values; {model.name} has {model.dim}"
        )
    return Embeddings(about, tuple(_parts(folder, model.dim)))


def take_in(
    library: Library,
    folder: Path | Embeddings,
    roots: Sequence[bytes | str | Path] = (),
    *,
    model: ModelInfo,
    limits: Limits | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TakenReport:
    """Write the embeddings in a folder into a library; the last part counts where a file is twice.

    ``roots`` are the folders that the library is to have, by default those that the manifest names
    and of which a row is taken, but never all of the file system. Rows of files that are elsewhere,
    gone, changed, in shards, or that ``fovea index`` would not take are counted and left out. Raise
    ``FoveaError`` as ``check_embeddings`` does, before anything is written; of a part whose rows
    turn out to be damaged, those before the damage are taken.
    """
    started, stop = time.monotonic(), stop or threading.Event()
    found = folder if isinstance(folder, Embeddings) else check_embeddings(folder, model)
    own, named, pa = root_path(library.folder), [root_path(root) for root in roots], arrow()
    report = TakenReport()
    with library.writing(), interruptible(stop):
        into = IntoLibrary(library, model)
        into.prepare(named)
        proposed = frozenset() if named else _proposed(found.manifest, own)
        rules, is_known = Rules(lambda: into.roots, own), into.known().done.__contains__
        taking = _Taking(into, is_known, limits or Limits(), report, proposed, rules)
        total, reported = sum(part.rows for part in found.parts), 0.0
        for part in reversed(found.parts):
            for row, vector in _readable(part, pa, report.problems):
                if stop.is_set():
                    break
                taking.take(row, vector)
                if progress is not None and time.monotonic() - reported > REPORT_S:
                    reported = time.monotonic()
                    done, rate = report.taken, report.taken / (reported - started)
                    left = report.left
                    progress(Progress(total, report.rows, done, left, 0, rate, walking=False))
            if stop.is_set():
                break
        into.finish()
        for name, reason in into.problems:
            report.taken -= 1
            taking.leave(reason, name)
    report.seconds, report.stopped = round(time.monotonic() - started, 3), stop.is_set()
    return report


def _parts(folder: Path, dim: int) -> list[Part]:
    """Return the parts, checked as far as their headers say what they hold."""
    pa, metadata = arrow(), dict(parts_in(folder, "metadata"))
    vectors = dict(parts_in(folder, "img_emb"))
    lost = metadata.keys() - vectors.keys()
    if lost:
        name = printable_name(metadata[min(lost)])
        raise FoveaError(f"{name} has no vectors in img_emb; bring them back")
    # Vectors without metadata are what a killed run left; their files were embedded again.
    found = [
        open_part(path, metadata[key], dim, COLUMNS, pa)
        for key, path in vectors.items()
        if key in metadata
    ]
    if not found:
        name = printable_name(folder)
        raise FoveaError(f"no embeddings in {name}; look for img_emb and metadata there")
    for part in found:
        if not any(name in part.texts for name in PATHS):
            name = printable_name(part.metadata)
            raise FoveaError(f"{name} has no column {' or '.join(PATHS)} with text")
    return found


def _readable(part: Part, pa: Any, problems: list[str]) -> Iterator[tuple[Row, np.ndarray]]:
    """Yield the rows of a part, or those before the damage, which is added to the problems."""
    try:
        yield from rows_of(part, pa)
    except FoveaError as exc:
        problems.append(str(exc))


def _proposed(about: Manifest, own: bytes) -> frozenset[bytes]:
    """Return the folders of a manifest that can become a library's, but never ``/``."""
    found = set()
    for text in about.get("folders", ()):
        if not os.path.isabs(text) or not os.path.isdir(text):
            continue
        path = root_path(text)
        try:
            if not os.path.samefile(path, b"/"):
                check_folder(path, own)
                found.add(path)
        except (OSError, FoveaError):
            continue
    return frozenset(found)


@dataclass(slots=True)
class _Taking:
    """Decides about rows one by one."""

    into: IntoLibrary
    is_known: Callable[[bytes], bool]
    limits: Limits
    report: TakenReport
    proposed: Collection[bytes]  # folders that become the library's with their first picture
    rules: Rules
    _met: Done = field(default_factory=Done)  # files
    _hashes: Done = field(default_factory=Done)

    def take(self, row: Row, vector: np.ndarray) -> None:
        """Take a row, or count why not."""
        self.report.rows += 1
        path = _path(row)
        if path is None:
            self.leave("its row has no path, or too long a one", b"-")
            return
        try:
            result = self._judged(row, path, vector)
        except (Refused, Gone) as exc:
            self.leave(str(exc) if isinstance(exc, Refused) else GONE, path)
            return
        self._met.add(Item(path).id)
        if result is None:
            self.report.unchanged += 1
            return
        self._hashes.add(result.hash[:ID_BYTES])
        self.report.taken += 1
        self.into.take(result)

    def leave(self, reason: str, path: bytes) -> None:
        """Count a row that is left out."""
        self.report.left += 1
        reason = one_line(reason, 200)
        self.report.reasons[reason] = self.report.reasons.get(reason, 0) + 1
        self.report.examples.setdefault(reason, os.fsdecode(path))

    def _judged(self, row: Row, path: bytes, vector: np.ndarray) -> Result | None:
        """Return what is to be written; None if it is. Raise ``Refused`` or ``Gone``."""
        if Item(path).id in self._met:
            raise Refused("another row is of the same file")
        if row.get("where") == b"shard" or b"://" in path:
            raise Refused(ONLY_FILES)
        if not os.path.isabs(path) or b"\0" in path or os.path.normpath(path) != path:
            raise Refused("its path is not absolute")
        ending = extension(os.path.basename(path))
        if ending not in PICTURES:
            raise Refused("not a picture by its name")
        if ending in RAW_EXTENSIONS and not raw_available():
            raise Refused(RAW_REASON)
        root = root_of(path, self.into.roots) or root_of(path, self.proposed)
        if root is None:
            raise Refused(f"{NO_ROOT}; name its folder: fovea index FOLDER --from-embeddings")
        try:
            if (reason := self.rules.refusal(path, root)) is not None:
                raise Refused(reason)
            status = os.lstat(path)
        except OSError as exc:
            raise Gone(str(exc)) from exc
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"not a file but {what_is(status.st_mode)}")
        with np.errstate(all="ignore"):
            length = float(np.linalg.norm(vector))
        if not abs(length - 1) < LENGTH_ERROR:  # nor one with nan
            raise Refused(UNIT)
        result = self._checked(row, path, vector / length, status)
        if root not in self.into.roots:
            self.into.add(root)
            self.report.folders.append(root)
        return result

    def _checked(
        self, row: Row, path: bytes, vector: np.ndarray, status: os.stat_result
    ) -> Result | None:
        """Compare a row with its file; None if the library has it as it is."""
        size, mtime_ns, ctime_ns = stamps_of(status)
        item = Item(path, "file", size, mtime_ns, ctime_ns)
        if self.is_known(item.id):
            return None
        recorded, length = _digest(row.get("hash")), size
        is_same = (row.get("size"), row.get("mtime_ns")) == (size, mtime_ns)
        if recorded is None or not is_same or self._is_met(recorded):
            contents = read_file(path, self.limits)
            digest = sha256(contents.data).digest()
            if recorded is not None and digest != recorded:
                raise Refused("its content has changed since it was embedded")
            recorded, length = digest, len(contents.data)
            size, mtime_ns, ctime_ns = contents.size, contents.mtime_ns, contents.ctime_ns
            self.report.hashed += 1
        facts = sound_facts(row)
        return Result(
            item, "embedded", None, recorded, length, facts, vector, size, mtime_ns, ctime_ns
        )

    def _is_met(self, digest: bytes) -> bool:
        """Whether a content is another file's, too, whose embedding it would get."""
        if digest[:ID_BYTES] in self._hashes:
            return True
        return bool(self.into.library.rows("SELECT 1 FROM images WHERE hash = ?", (digest,)))


def _path(row: Row) -> bytes | None:
    """Return a row's path: fovea's own bytes, or the text that clip-retrieval writes."""
    for name in PATHS:
        value = row.get(name)
        if isinstance(value, bytes) and value:
            return value
    return None


def _digest(text: object) -> bytes | None:
    """Return the SHA-256 that a row has; None if it has none."""
    try:
        digest = bytes.fromhex(text.decode("ascii")) if isinstance(text, bytes) else b""
    except ValueError:
        return None
    return digest if len(digest) == 32 else None
