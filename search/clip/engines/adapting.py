"""Let an encoder use what was measured of it on this machine, and measure while it embeds.

The pictures of a library are the only ones at hand that are like those to come, so an encoder
that embeds a library's pictures keeps its first ones, and measures once it has worked for a while:
a short run is never made longer by more than it took.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from filelock import FileLock, Timeout

from fovea.search.clip.errors import ModelError

from .choose import LEAST, MOST, Measured, Sources, Tower, digest, measured
from .openvino_runtime import INSTALL, OpenVinoTower, is_installed, loaded, packed
from .record import Kept, Record

__all__ = ["Chooser", "adapting"]

log = logging.getLogger(__name__)

T = TypeVar("T")

AFTER_S = 20.0  # of embedding; about what measuring takes with OpenVINO
AFTER_TORCH_S = 3.0  # and without, where two precisions of torch are compared
KILLED = "two processes that measured it were killed, perhaps for their memory"


def adapting(load: Callable[[], T]) -> Callable[[], T]:
    """Return a function that loads an encoder which measures while it embeds, if it is able to."""

    def load_adapting() -> T:
        encoder = load()
        if adapt := getattr(encoder, "adapt", None):
            adapt()
        return encoder

    return load_adapting


class Chooser:
    """Chooses the image tower of one encoder on the CPU. Its caller holds the encoder's lock.

    ``dtype`` is what the user asked for: auto, float32 or int8. ``precision`` is what torch is to
    compute in. Raise ``ModelError`` where int8 is asked for and cannot be had.
    """

    def __init__(self, kept: Kept, name: str, dtype: str, default: str) -> None:
        self._kept, self._name, self._dtype = kept, name, dtype
        self.default = default  # the torch precision that the CPU's instructions suggest
        self.sources: Callable[[], Sources] | None = None  # set by the encoder
        self._tower: Tower | None = None
        self._pixels: list[np.ndarray] | None = None
        self._count, self._seconds = 0, 0.0
        if dtype == "int8" and not is_installed():
            raise ModelError(f"int8 needs OpenVINO and NNCF: {INSTALL}")
        self._record = self._known()
        if dtype == "int8" and self._record is not None and "int8" not in self._record.towers:
            why = self._record.int8
            raise ModelError(f"{name} is not faithful in int8 on this CPU ({why}); use auto")
        self._load()

    @property
    def precision(self) -> str:
        """The precision in which torch computes whatever OpenVINO does not."""
        if self._dtype != "auto":
            return "float32"
        if self._record is not None and self._record.engine == "torch":
            return self._record.precision
        return self.default

    def _known(self) -> Record | None:
        """Read the record. Who asks for int8 has it tried again, unless it was not faithful."""
        record = self._kept.read()
        if self._dtype == "int8" and record is not None and record.int8 is None:
            return None  # it failed for a reason that may be gone
        return record

    def _load(self) -> None:
        """Load the tower that the record names, if OpenVINO computes it.

        Raise ``ModelError`` where int8 is asked for and cannot be loaded.
        """
        record = self._record
        if record is None:
            return
        wanted = record.precision if self._dtype == "auto" else self._dtype
        is_used = record.engine == "openvino" or self._dtype == "int8"
        if not is_used or wanted not in record.towers:
            return
        data = self._kept.tower(record, wanted)
        try:
            self._tower = None if data is None else OpenVinoTower(loaded(data))
        except Exception as exc:  # of many types: the extra may be broken, or the memory full
            problem = f"OpenVINO cannot load {self._name} ({_line(exc)})"
            if self._dtype == "int8":
                raise ModelError(f"{problem}; use auto") from exc
            log.warning("%s; torch is used", problem)
            return
        if self._tower is None:
            self._record = None

    def adapt(self) -> None:
        """Keep the pictures that are embedded from now on, and measure with them."""
        can_differ = is_installed() or self.default != "float32"
        if self._record is None and self._dtype != "float32" and can_differ:
            if self._pixels is None:  # perhaps after a measurement that failed
                self._pixels, self._count, self._seconds = [], 0, 0.0

    def tower(self) -> Tower | None:
        """Return the tower to use; None for torch's, in ``precision``."""
        if self._tower is None and self._dtype == "int8" and self._pixels is None:
            raise ModelError(
                f"{self._name} has no int8 tower on this machine yet: it is made while at least "
                f"{LEAST} pictures are indexed (fovea index --dtype int8); until then use auto"
            )
        return self._tower

    def gives_up(self, exc: Exception) -> bool:
        """Whether to embed with torch from now on, since OpenVINO has failed; say so once.

        Where memory is short, fewer pictures at a time may do.
        """
        if not isinstance(self._tower, OpenVinoTower) or isinstance(exc, MemoryError):
            return False
        self._tower, self._pixels = None, None
        if self._dtype == "int8":
            self._dtype = "float32"
        log.warning("OpenVINO cannot run %s (%s); torch is used", self._name, _line(exc))
        return True

    def saw(self, pixels: np.ndarray, seconds: float) -> bool:
        """Take notice of pictures that took so long to embed; measure if it is time.

        Return whether it has measured.
        """
        if self._pixels is None or self.sources is None:
            return False
        if self._count < MOST:
            self._pixels.append(pixels[: MOST - self._count].copy())
            self._count += len(self._pixels[-1])
        self._seconds += seconds
        least = AFTER_S if is_installed() else AFTER_TORCH_S
        if self._count < LEAST or (self._seconds < least and self._dtype != "int8"):
            return False
        parts, self._pixels = self._pixels, None
        try:
            self._measure(self.sources(), np.concatenate(parts))
        except Timeout:
            log.info("another process measures how %s embeds fastest", self._name)
        except OSError as exc:
            log.warning("cannot write to %s: %s", self._kept.folder, exc.strerror or exc)
        except Exception as exc:  # a lock that the disk does not have, no memory: embedding goes on
            log.warning("%s could not be measured: %s", self._name, _line(exc))
        if self._tower is None and self._dtype == "int8":
            self._dtype = "float32"  # for the rest of this run
        return True

    def _measure(self, sources: Sources, pixels: np.ndarray) -> None:
        """Measure and keep what comes of it, unless that is known by now.

        Raise ``Timeout`` if another process is doing so.
        """
        kept = self._kept
        kept.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.lock_path, timeout=0):
            kept.sweep()
            self._record = self._known()  # another process may just have finished
            if self._record is not None:
                self._load()
                return
            if kept.was_killed and self._dtype == "auto":
                self._leave_out()
                return
            kept.begin()
            try:
                self._keep(sources, pixels)
            finally:
                kept.end()

    def _leave_out(self) -> None:
        """Record that measuring is not to be tried any more."""
        self._record = Record("torch", self.default, "", {}, None, KILLED)
        self._kept.write(self._record, {})
        self._kept.end()
        log.warning("%s is not measured: %s", self._name, KILLED)

    def _keep(self, sources: Sources, pixels: np.ndarray) -> None:
        started = time.monotonic()
        log.info("measuring once how %s embeds fastest on this CPU", self._name)
        try:
            found = measured(sources, pixels)
        except Exception as exc:  # of many types, perhaps for want of memory: embedding goes on
            log.warning("%s could not be measured: %s", self._name, _line(exc))
            return
        record, self._tower = found.record, found.tower
        if self._dtype == "int8":
            self._tower = found.int8
        try:
            record = self._written(found)
        except Exception as exc:  # of many types: OpenVINO hides errors of the disk
            log.warning("what was measured of %s is not kept: %s", self._name, _line(exc))
        self._record = record
        log.info(
            "%s now embeds in %s; measured in %.0f s",
            self._name, record.described(), time.monotonic() - started,
        )  # fmt: skip
        if self._dtype == "int8" and found.int8 is None:
            why = record.int8 or record.problem
            log.warning("%s cannot be had in int8: %s; float32 is used", self._name, why)

    def _written(self, found: Measured) -> Record:
        scratch = self._kept.scratch
        data = {name: packed(model, *scratch) for name, model in found.models.items()}
        towers = {precision: digest(content) for precision, content in data.items()}
        record = replace(found.record, towers=towers)
        self._kept.write(record, data)
        return record


def _line(exc: BaseException) -> str:
    line = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
    return line if isinstance(exc, ModelError) else line[:200]
