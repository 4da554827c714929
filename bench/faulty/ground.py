"""Drawn pictures, a toy model, processes to end, and what a library must be afterwards."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.scanning import pipeline
from fovea.indexer.scanning.scan import ScanReport, index_folders
from fovea.indexer.scanning.verify import verify
from fovea.indexer.workers.pool import Outcome, Task, outcome_of
from fovea.indexer.workers.worker import Worker
from fovea.search.clip.preprocess import Preprocess
from fovea.search.errors import FoveaError
from fovea.search.library.files import HELD_REASON
from fovea.search.library.library import Library
from fovea.search.models.info import ModelInfo

CHECKOUT = Path(__file__).resolve().parents[2]
PICTURES = 40  # of the library by the bundled model
SIDE = 8  # pixels of what the toy model sees
EXAMPLES = 200  # of what went wrong, kept for the report
GONE_S = 20.0  # for workers to notice that their indexer was killed
BATCH = 4


@dataclass
class Tally:
    """What became of the trials of one fault."""

    tried: int = 0
    lost: int = 0  # pictures that left the answers, or never came back
    wrong: int = 0  # answers or rows that say what is not so
    unaccounted: int = 0  # tracebacks, deaths, files and processes left behind
    note: str = ""
    examples: list[str] = field(default_factory=list)

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count something ``lost``, ``wrong`` or ``unaccounted``, and keep the first examples."""
        setattr(self, kind, getattr(self, kind) + count)
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{kind}: {example}")

    def take(self, found: dict[str, list[str]], where: str) -> None:
        """Add what a check has found: kind -> complaints."""
        for kind, complaints in found.items():
            for complaint in complaints:
                self.add(kind, f"{where}: {complaint}")


@dataclass(frozen=True)
class Plan:
    """How much to try, and from which random numbers."""

    count: int
    seed: int
    quick: bool = False

    def random(self, name: str) -> random.Random:
        return random.Random(f"{self.seed} {name}")


# A model that needs no weights


class Toy:
    """Embeds a picture as its pixels, shrunk to 4 × 4; ``number`` tells models apart."""

    device, dtype, logit_scale = "cpu", "float32", 100.0

    def __init__(self, number: int = 1, slow_s: float = 0.0) -> None:
        self.name, self.identity, self.dim = (
            f"toy-{number}",
            sha256(bytes([number])).hexdigest(),
            48,
        )
        self.preprocess, self._turn, self._slow_s = Preprocess(SIDE), number % 48, slow_s

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(self.name, Path("no"), self.identity, self.dim, self.preprocess, "bench")

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, 8, 8, 3) -> float32 (n, 48), unit rows."""
        time.sleep(self._slow_s)
        blocks = pixels.astype(np.float32).reshape(len(pixels), 4, 2, 4, 2, 3).mean((2, 4))
        rows = np.roll(blocks.reshape(len(pixels), 48), self._turn, axis=1) + 1.0
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows.astype(np.float32)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.encode_pixels(np.stack([self.preprocess.pixels(image) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Any text is grey."""
        return self.encode_pixels(np.full((len(texts), SIDE, SIDE, 3), 128, np.uint8))


def draw(path: Path, number: int, side: int = 24) -> Path:
    """Write a PNG of 16 colours, another for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST).save(path)
    return path


def expected(content: Path, toy: Toy) -> np.ndarray:
    """The embedding of a file, computed apart from indexing: float32 (48,)."""
    with Image.open(content) as image:
        row: np.ndarray = toy.encode_images([image.convert("RGB")])[0]
        return row


class OneProcess:
    """A pool of workers without their processes, for many short runs."""

    def __init__(
        self, preprocess: Preprocess, limits: Limits, *, workers: int, batch_size: int, known: Any
    ) -> None:
        self.pixels = np.empty((2 * batch_size, SIDE, SIDE, 3), np.uint8)
        self._again: deque[Task] = deque()
        self._free = list(range(2 * batch_size))
        prefixes = np.frombuffer(b"".join(digest[:8] for digest in known), "<u8")
        self._worker = Worker(preprocess, limits, self.pixels, np.sort(prefixes))
        self.release, self.retry = self._free.append, self._again.append

    def __enter__(self) -> OneProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    in_hand: tuple[bytes, ...] = ()

    def widen(self, batch_size: int) -> None:
        """Give no more room than there is: toy encoders take the usual batch."""

    @property
    def retrying(self) -> bool:
        return bool(self._again)

    def outcomes(self, tasks: Iterator[Task | None]) -> Iterator[Outcome]:
        while self._again:
            yield self._outcome(self._again.popleft())
        yield from (self._outcome(task) for task in tasks if task is not None)

    def _outcome(self, task: Task) -> Outcome:
        slot = self._free.pop()
        answer, _ = self._worker.answer({"slot": slot, "force": task.force}, task.path)
        outcome = outcome_of(task, slot, answer)
        if outcome.slot is None:
            self.release(slot)
        return outcome


def index(
    library: Path, *folders: Path, toy: Toy | None = None, alone: bool = True, **options: Any
) -> ScanReport:
    """Index folders with the toy model, ``alone`` in this process; create the library."""
    toy = toy or Toy()
    if alone:
        vars(pipeline)["Pool"] = OneProcess
    settings = {"workers": 1, "batch_size": BATCH} | options
    with Library.open(library, create=True) as opened:
        return index_folders(opened, folders, model=toy.info, load_encoder=lambda: toy, **settings)


@cache
def bundled_library() -> tuple[Path, dict[str, str]]:
    """A library of 40 pictures in ``photos/0`` to ``2``, by the bundled model, until the end.

    With the environment of commands that are to use it.
    """
    place = Path(tempfile.mkdtemp(prefix="fovea-faults-")).resolve()
    atexit.register(_forget, place, os.getpid())
    environment = os.environ | {"FOVEA_OFFLINE": "1", "FOVEA_MODELS": str(place / "models")}
    root, library = place / "photos", place / "library"
    for number in range(PICTURES):
        draw(root / f"{number % 3}" / f"{number}.png", number)
    command = [sys.executable, "-m", "fovea", "index", str(root), "--library", str(library)]
    command += ["--model", "fovea-small"]
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, capture_output=True)
    return library, environment


def _forget(place: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a forked process
        shutil.rmtree(place, ignore_errors=True)


# Processes


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    value: Any  # what the work returned, through JSON
    error: str | None  # a ``FoveaError``, which is one line to people
    failure: str | None  # a traceback, or the signal that ended it
    killed: bool  # by us, before it was done
    orphans: bool  # its own processes outlived it for long


class Started:
    """A forked process that does some work; the parent has no threads when it forks."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reading)
            _be_child(work, writing)
        os.close(writing)

    @property
    def is_done(self) -> bool:
        return bool(select.select([self._reading], [], [], 0.0)[0])

    def ended(self, kill_after: float | None = None, limit: float = 120.0) -> Ended:
        """Wait for its end; kill it after so many seconds if it still runs."""
        parts: list[bytes] = []
        killed = not self._read(parts, time.monotonic() + (kill_after or limit))
        if killed:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._reading)
        orphans = _outlived(self.pid)
        if killed:
            late = None if kill_after else f"it did not end within {limit:.0f} s"
            return Ended(None, None, late, True, orphans)
        if status or not parts:
            return Ended(None, None, f"it ended by {_cause(status)}", False, orphans)
        told = json.loads(b"".join(parts))
        return Ended(told.get("value"), told.get("error"), told.get("failure"), False, orphans)

    def _read(self, parts: list[bytes], ends: float) -> bool:
        while select.select([self._reading], [], [], max(0.0, ends - time.monotonic()))[0]:
            if not (part := os.read(self._reading, 1 << 16)):
                return True
            parts.append(part)
        return False


def child(work: Callable[[], Any], kill_after: float | None = None, limit: float = 120.0) -> Ended:
    """Do some work in a forked process, and kill it after so many seconds if it still runs."""
    return Started(work).ended(kill_after, limit)


def _be_child(work: Callable[[], Any], writing: int) -> None:
    told: dict[str, Any] = {}
    try:
        os.setpgid(0, 0)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            os.dup2(nowhere.fileno(), 1)
        told["value"] = work()
    except FoveaError as exc:
        told["error"] = str(exc)
    except BaseException as exc:
        told["failure"] = brief(exc)
    with contextlib.suppress(BaseException):
        os.write(writing, json.dumps(told).encode())
    os._exit(0)


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def brief(exc: BaseException) -> str:
    """An exception as one line that says where it came from."""
    places = [f for f in traceback.extract_tb(exc.__traceback__) if "/bench/" not in f.filename]
    where = f" at {Path(places[-1].filename).name}:{places[-1].lineno}" if places else ""
    return f"{type(exc).__name__}: {exc}{where}"


def _outlived(group: int) -> bool:
    """Wait for the rest of a process group; end it, and say so, if it does not end by itself."""
    ends = time.monotonic() + GONE_S
    while time.monotonic() < ends:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return False
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    return True


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="fovea-faults-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# What a library must be


def on_disk(*roots: Path) -> dict[bytes, bytes]:
    """Path -> SHA-256 of every picture under some roots."""
    return {
        os.fsencode(path): sha256(path.read_bytes()).digest()
        for root in roots
        for path in sorted(root.rglob("*.png"))
    }


def shown(library: Library) -> dict[bytes, bytes]:
    """Path -> SHA-256 of every file that answers show."""
    return dict(
        library.rows(
            "SELECT path, hash FROM files JOIN images ON images.id = image_id "
            "WHERE state = 'indexed'"
        )
    )


def state_of(library: Path) -> dict[str, Any]:
    """What a library shows, in JSON: hex path -> hex SHA-256; and what ``verify`` says of it."""
    with Library.open(library) as opened:
        found = {path.hex(): digest.hex() for path, digest in shown(opened).items()}
        model = opened.model()
        return {
            "shown": found,
            "problems": verify(opened).problems,
            "model": model and model.identity,
        }


def examined(library: Path, roots: list[Path], toy: Toy, whole: bool) -> dict[str, list[str]]:
    """Compare a library with the disk: complaints by kind.

    ``whole``: after a complete run, which must show every file and leave nothing behind.
    """
    found: dict[str, list[str]] = {"lost": [], "wrong": [], "unaccounted": []}
    there = on_disk(*roots)
    contents = {digest: path for path, digest in there.items()}
    with Library.open(library) as opened:
        found["wrong"] += verify(opened).problems
        rows = opened.rows(
            "SELECT path, hash, vector, files.reason FROM files "
            "JOIN images ON images.id = files.image_id "
            "LEFT JOIN embeddings ON embeddings.image_id = images.id AND model_id = "
            "(SELECT id FROM models WHERE identity = ?) WHERE state = 'indexed'",
            (toy.identity,),
        )
    seen = {path: digest for path, digest, _, _ in rows}
    for path, digest, vector, reason in rows:
        name = os.path.basename(os.fsdecode(path))
        if vector is None:
            found["lost"].append(f"{name} has no embedding")
        elif digest in contents:
            right = expected(Path(os.fsdecode(contents[digest])), toy)
            if np.abs(np.frombuffer(vector, "<f2") - right).max() > 2e-3:
                found["wrong"].append(f"{name} has the embedding of another picture")
        if whole and path not in there and reason != HELD_REASON:
            found["wrong"].append(f"{name} is shown, and is not there")
    if whole:
        for path, digest in there.items():
            if seen.get(path) != digest:
                found["lost"].append(f"{os.path.basename(os.fsdecode(path))} is not shown as it is")
        found["unaccounted"] += [f"{name} was left behind" for name in left_behind(library)]
    return found


def left_behind(library: Path) -> list[str]:
    """Temporary files in a library's folder."""
    return [
        str(path.relative_to(library))
        for pattern in ("*.tmp", "*.part", "*.pid", "*-journal")
        for path in library.rglob(pattern)
    ]
