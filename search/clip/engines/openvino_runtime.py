"""OpenVINO, quietly: without its telemetry, its progress bars and its warnings.

When imported, OpenVINO and NNCF report to their makers, and write an id into the home folder, if
``openvino_telemetry`` can be imported. They do without where it cannot.
"""

import contextlib
import importlib.metadata
import importlib.util
import logging
import sys
import threading
import warnings
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from fovea.search.clip.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "INSTALL",
    "OpenVinoTower",
    "converted",
    "is_installed",
    "loaded",
    "nncf",
    "packed",
    "quietly",
    "versions",
]

INSTALL = "pip install 'fovea[openvino]'"
PACKAGES = ("openvino", "nncf")
_TELEMETRY = "openvino_telemetry"
_MEMBERS = ("tower.xml", "tower.bin")
_importing = threading.Lock()


def is_installed() -> bool:
    """Whether the extra is installed; imports nothing of it."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


def versions(*names: str) -> dict[str, str | None]:
    """Return the versions of packages, None for those that are missing; imports none of them."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def openvino() -> Any:
    """Import OpenVINO; raise ``ModelError`` where the extra is missing."""
    return _imported("openvino")


def nncf() -> Any:
    """Import NNCF; raise ``ModelError`` where the extra is missing."""
    _imported("openvino")
    module = _imported("nncf")
    # Not its own function for this, which also changes the handlers of the root logger.
    logging.getLogger("nncf").setLevel(logging.CRITICAL)
    return module


def _imported(name: str) -> Any:
    """Import a package as if there were no telemetry for it to use."""
    with _importing:
        if name in sys.modules:
            return sys.modules[name]
        before, loggers = sys.modules.get(_TELEMETRY), logging.getLoggerClass()
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import then fails
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return importlib.import_module(name)
        except Exception as exc:  # a broken installation raises anything
            reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
            raise ModelError(f"{name} cannot be imported ({reason}); {INSTALL}") from exc
        finally:
            logging.setLoggerClass(loggers)  # NNCF's would be that of all later loggers
            del sys.modules[_TELEMETRY]
            if before is not None:
                sys.modules[_TELEMETRY] = before


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep NNCF's progress bars off the terminal, and tracing's warnings from everybody.

    OpenVINO's converter sets the level of the root logger, on which ours depend: put it back.
    """
    import rich

    console, root = rich.get_console(), logging.getLogger()
    before, console.quiet = console.quiet, True
    level, filters, handlers = root.level, [*root.filters], [*root.handlers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        console.quiet = before
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers


def converted(module: "nn.Module", size: int) -> Any:
    """Convert a torch module, from uint8 (n, size, size, 3) to float32 (n, d), in memory."""
    import torch

    ov = openvino()
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    shape = ov.PartialShape([-1, size, size, 3])
    with quietly(), torch.inference_mode():
        return ov.convert_model(module, example_input=example, input=[shape])


def packed(model: Any, scratch: Path, prefix: str) -> bytes:
    """Return a model as the bytes of one archive.

    ``scratch`` is a folder for large files: they lie in one of their own there, whose name starts
    with ``prefix``. Raise ``OSError`` or ``RuntimeError`` if the disk is full.
    """
    data = BytesIO()
    with TemporaryDirectory(dir=scratch, prefix=prefix, suffix=".part") as place:
        openvino().save_model(model, Path(place) / _MEMBERS[0], compress_to_fp16=False)
        with zipfile.ZipFile(data, "w") as archive:
            for name in _MEMBERS:
                archive.write(Path(place) / name, name)
    return data.getvalue()


def loaded(data: bytes) -> Any:
    """Read what ``packed`` has written; its SHA-256 has been checked before."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        text, weights = (archive.read(name) for name in _MEMBERS)
    ov = openvino()
    tensor = ov.Tensor(np.frombuffer(weights, np.uint8).copy())
    return ov.Core().read_model(text, tensor)


class OpenVinoTower:
    """An image tower that OpenVINO computes on this CPU, with as many threads as torch uses."""

    def __init__(self, model: Any) -> None:
        import torch

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",  # of what is not int8
            "ENABLE_CPU_PINNING": False,  # the decoders share the cores
        }
        compiled = openvino().Core().compile_model(model, "CPU", settings)
        self._request = compiled.create_infer_request()

    def __call__(self, pixels: "Tensor") -> "Tensor":
        """Embed uint8 (n, s, s, 3) as float32 (n, d), not yet of unit length."""
        import torch

        out = self._request.infer([pixels.contiguous().numpy()])[0]
        return torch.from_numpy(np.array(out, np.float32))
