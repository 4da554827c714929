"""What was measured of a model on this machine, and the towers made for it: files in one folder.

A record is JSON and says which engine and precision ``auto`` takes, and why. Its name is a digest
of all that the measurement depends on: the weights, the versions of the packages, the CPU and
fovea's own format. A tower is an archive of OpenVINO's two files; the record has its SHA-256, which
is checked whenever it is read. Nothing here imports torch or OpenVINO.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from fovea.search.clip.disk import replace_file
from fovea.search.clip.errors import ModelError

from .faithful import Agreement
from .openvino_runtime import INSTALL, is_installed, versions

__all__ = ["Kept", "Record", "cpu_features", "forget"]

log = logging.getLogger(__name__)

FORMAT = 1  # counts changes of what is measured, of the methods and of the towers
ENGINES = {"torch": "torch", "openvino": "OpenVINO"}
_PRECISIONS = ("float32", "bfloat16", "int8")
_CPU_FIELDS = ("model name", "CPU part", "flags", "Features")
_FEATURES = ("sse4", "ssse3", "avx", "amx", "fma", "f16c", "asimd", "sve", "sme", "i8mm", "bf16")
_DAMAGED = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
_SWITCHES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


@dataclass(frozen=True, slots=True)
class Record:
    """What a measurement found; speeds are in pictures a second."""

    engine: str  # "torch" or "openvino": what ``auto`` takes
    precision: str  # "float32", "bfloat16" or "int8"
    method: str  # how it was quantised; "" where it was not
    speeds: dict[str, float]  # by "engine precision"
    int8: Agreement | None  # of the best int8 tower; None if none was made
    problem: str = ""  # why there is no int8 tower, if that is no matter of faith
    towers: dict[str, str] = field(default_factory=dict)  # precision -> SHA-256 of its file
    seconds: float = 0.0  # that making it took

    def described(self) -> str:
        """Say in one line what is used, and why."""
        name = f"{self.engine} {self.precision}"
        told = f"{self.precision} ({ENGINES[self.engine]})"
        exact, own = self.speeds.get("torch float32"), self.speeds.get(name)
        if exact and own and name != "torch float32":
            told += f": {own / exact:.1f} x torch float32"
        elif own and (half := self.speeds.get("torch bfloat16")):
            told += f": {own / half:.1f} x torch bfloat16"
        if self.precision == "int8":
            return f"{told}, {self.int8}"
        if self.int8 is not None and not self.int8.is_faithful:
            return f"{told}; int8 is not faithful: {self.int8}"
        if self.int8 is not None:
            return f"{told}; int8 is faithful but not faster: {self.speed('openvino int8')}"
        return f"{told}; no int8: {self.problem}" if self.problem else told

    def speed(self, name: str) -> str:
        """Write a speed for people."""
        return f"{self.speeds.get(name, 0.0):.1f} pictures a second"


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the record and the towers of one model on this machine are."""

    folder: Path
    identity: str  # of the weights: their SHA-256, hex

    @property
    def name(self) -> str:
        """The common start of the files' names: the model, then all else that counts."""
        packages = versions("torch", *(("openvino", "nncf") if is_installed() else ()))
        told = {"format": FORMAT, "cpu": cpu_features(), "versions": packages}
        told["model"] = self.identity
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        return f"{self.identity[:16]}-{digest[:24]}"

    @property
    def record_path(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def lock_path(self) -> Path:
        """Locked by the process that measures."""
        return self.folder / f"{self.identity[:16]}.lock"

    @property
    def trying_paths(self) -> tuple[Path, Path]:
        """The first is there while a process measures, and stays if that process is killed.

        The second likewise, for a process that finds the first: one kill may have any reason.
        """
        return self.folder / f"{self.name}.trying", self.folder / f"{self.name}.again"

    @property
    def was_killed(self) -> bool:
        """Whether two processes were killed while they measured."""
        return all(path.exists() for path in self.trying_paths)

    def begin(self) -> None:
        """Note that this process measures."""
        for path in self.trying_paths:
            if not path.exists():
                path.touch()
                return

    def end(self) -> None:
        """Note that this process has come to the end of it."""
        for path in self.trying_paths:
            path.unlink(missing_ok=True)

    @property
    def scratch(self) -> tuple[Path, str]:
        """A folder for large files, and the start of their names."""
        return self.folder, f".{self.identity[:16]}-"

    def sweep(self) -> None:
        """Delete what a killed process has left in the scratch folder; hold the lock."""
        folder, prefix = self.scratch
        for left in folder.glob(f"{prefix}*.part"):
            shutil.rmtree(left, ignore_errors=True)

    def tower_path(self, precision: str) -> Path:
        return self.folder / f"{self.name}-{precision}.tower"

    def read(self) -> Record | None:
        """Return the record; None where there is none, or where it is damaged."""
        try:
            return _record(json.loads(self.record_path.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            log.warning("cannot read %s: %s", self.record_path, exc.strerror or exc)
            return None
        except _DAMAGED:
            log.warning("%s is damaged; it will be made again", self.record_path)
            return None

    def write(self, record: Record, towers: Mapping[str, bytes]) -> None:
        """Write the towers, then the record that vouches for them, each whole or not at all.

        Files of the same model made before, by other versions or for another CPU, go. Raise
        ``ModelError`` if the disk refuses.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ModelError(f"cannot make {self.folder}: {exc.strerror or exc}") from exc
        for precision, data in towers.items():
            replace_file(self.tower_path(precision), partial(_fill, data))
        text = json.dumps(asdict(record) | {"cpu": cpu_features()}, indent=1)
        replace_file(self.record_path, partial(_fill, text.encode()))
        for file in self.folder.glob(f"{self.identity[:16]}-*"):
            if not file.name.startswith(self.name):
                with contextlib.suppress(OSError):
                    file.unlink()

    def advice(self) -> str | None:
        """Say what would embed faster on this CPU; None if nothing is known to."""
        told = cpu_features()
        if is_installed() or told["machine"].lower() not in ("x86_64", "amd64"):
            return None
        flags = told.get("features", [])
        if any("bf16" in flag for flag in flags) or "avx2" not in flags:
            return None
        return f"OpenVINO would probably be faster on this CPU: {INSTALL}"

    def tower(self, record: Record, precision: str) -> bytes | None:
        """Return a tower that is as the record says; None, after one line, where it is not."""
        path = self.tower_path(precision)
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == record.towers.get(precision):
                return data
        except OSError:
            pass
        log.warning("%s is missing or damaged; it will be made again", path)
        with contextlib.suppress(OSError):
            self.record_path.unlink()
        return None


def _fill(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def _record(told: dict[str, Any]) -> Record:
    """Check what a file says; raise one of ``_DAMAGED``."""
    agreed = told["int8"]
    speeds = {str(name): _number(value) for name, value in told["speeds"].items()}
    towers = {str(name): str(value) for name, value in told["towers"].items()}
    record = Record(
        told["engine"],
        told["precision"],
        str(told["method"]),
        speeds,
        None if agreed is None else _agreement(agreed),
        str(told["problem"]),
        towers,
        _number(told["seconds"]),
    )
    if record.engine not in ENGINES or record.precision not in _PRECISIONS:
        raise ValueError(f"{record.engine} {record.precision}")
    if record.engine == "openvino" and record.precision not in towers:
        raise ValueError("no tower")
    if record.engine == "torch" and record.precision == "int8":
        raise ValueError("torch has no int8")
    if record.precision == "int8" and not (record.int8 and record.int8.is_faithful):
        raise ValueError("not faithful")
    return record


def _agreement(told: dict[str, Any]) -> Agreement:
    mean, worst, recall = (_number(told[name]) for name in ("mean", "worst", "recall"))
    return Agreement(mean, worst, recall, int(told["pictures"]))


def _number(told: Any) -> float:
    value = float(told)
    if not math.isfinite(value):
        raise ValueError(f"{value} is no measurement")
    return value


def cpu_features() -> dict[str, Any]:
    """Describe the CPU: its kind, its vector instructions, and the switches that hide some."""
    found: dict[str, Any] = {"machine": platform.machine()}
    with contextlib.suppress(OSError):
        told: dict[str, str] = {}
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _CPU_FIELDS:
                told.setdefault(name.strip(), value.strip())
        found["model"] = told.get("model name") or told.get("CPU part")
        flags = (told.get("flags") or told.get("Features") or "").split()
        found["features"] = sorted({flag for flag in flags if flag.startswith(_FEATURES)})
    found["model"] = found.get("model") or platform.processor()
    return found | {name: os.environ[name] for name in _SWITCHES if name in os.environ}


def forget(folder: Path, identity: str) -> int:
    """Delete what is kept of a model; return the bytes freed."""
    freed = 0
    for file in folder.glob(f"{identity[:16]}*"):
        with contextlib.suppress(OSError):
            size = file.stat().st_size
            file.unlink()
            freed += size
    return freed
