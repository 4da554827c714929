"""Set rclip up beside fovea, with the same weights, for ``bench/index.py --against rclip``.

rclip (https://github.com/yurijmikhalevich/rclip) searches pictures with ViT-B/32 at 256 pixels. It
is installed from PyPI into an environment of its own, and its model, which comes from a hub, is
replaced by ours, exported to ONNX. Where it cannot be installed, its way of encoding stands in:
``rclip_side.py``. From version 3 on it needs onnxruntime; before, torch, which is left alone.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

SIDE = Path(__file__).with_name("rclip_side.py")
RELEASES = ("3.14", "3.13", "3.12", "3.11")  # of Python, the newest first
PIP = ("-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "20")
INSTALL = ("install", "--quiet", "--only-binary", ":all:")
MODEL = "ViT-B-32-256-datacomp_s34b_b86k"  # the folder in which rclip looks for its model
LEGAL = ("LICENSE", "OPENAI-CLIP-MIT.txt", "README.md", "THIRD_PARTY_NOTICES.md")


@dataclass(frozen=True, slots=True)
class Rclip:
    """An interpreter that can run rclip, or its way of encoding, and what it is given."""

    python: Path
    name: str  # what is measured, for the tables
    is_imitation: bool
    data: Path  # its model and its database


def prepared(wanted: Sequence[str], place: Path, model: Path) -> tuple[Rclip, ...]:
    """Install what is wanted: "rclip", "rclip==3.3.0" or "imitation"; export the model for it.

    ``place`` keeps the environments; ``model`` is a folder of ``write_model``. End with one line if
    neither rclip nor onnxruntime can be had.
    """
    place.mkdir(parents=True, exist_ok=True)
    data = place / "data"
    shutil.rmtree(data, ignore_errors=True)
    _export(model, data / MODEL, place)
    return tuple(_installed(one, place, data) for one in wanted)


def _installed(wanted: str, place: Path, data: Path) -> Rclip:
    said: list[str] = []
    if wanted != "imitation":
        requirement = "rclip>=3" if wanted == "rclip" else wanted
        folder = place / wanted.replace("==", "-")
        if (python := _environment(folder, requirement, "rclip", said)) is not None:
            return Rclip(python, f"rclip {_version(python, 'rclip')}", False, data)
        print(f"no {wanted} here ({said[-1]}); its way of encoding stands in", file=sys.stderr)
    python = Path(sys.executable) if find_spec("onnxruntime") else None
    if python is None:
        folder = place / "onnxruntime"
        python = _environment(folder, "onnxruntime pillow numpy", "onnxruntime", said)
    if python is None:
        sys.exit(f"neither rclip nor onnxruntime can be installed: {said[-1]}; see pip's settings")
    name = f"rclip's way, onnxruntime {_version(python, 'onnxruntime')}"
    return Rclip(python, name, True, data)


def run(rclip: Rclip, folder: Path, vectors: Path) -> dict[str, float]:
    """Index a folder anew; return the ``seconds`` in all and those of ``loading`` its model.

    The vectors go to ``vectors``, an npz of float32 (d,) by file name.
    """
    for database in rclip.data.glob("db.sqlite3*"):
        database.unlink()
    kind = "imitation" if rclip.is_imitation else "rclip"
    settings = {"RCLIP_DATADIR": str(rclip.data), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [rclip.python, SIDE, kind, rclip.data / MODEL, vectors],
        cwd=folder,
        env=_clean() | settings,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{rclip.name} failed: {_last(done.stderr)}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


# Environments


def _environment(folder: Path, requirements: str, package: str, said: list[str]) -> Path | None:
    """Return the interpreter of an environment that has a package, making it if need be.

    None if no Python here can install it; why is added to ``said``.
    """
    python = folder / "bin" / "python"
    if python.exists() and _version(python, package):
        return python
    for base in _interpreters():
        shutil.rmtree(folder, ignore_errors=True)
        made = _call(base, "-m", "venv", str(folder))
        if made.returncode == 0:
            made = _call(python, *PIP, *INSTALL, *requirements.split())
        if made.returncode == 0 and _version(python, package):
            return python
        said.append(f"{base}: {_last(made.stderr)}")
    shutil.rmtree(folder, ignore_errors=True)
    said.append(said[-1] if said else "no Python of 3.11 or newer")
    return None


def _interpreters() -> Iterator[Path]:
    """Yield Pythons that start, one of each release: of the PATH, of pyenv, and this one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for release in RELEASES:
        places: list[str | Path | None] = [
            shutil.which(f"python{release}"),
            *sorted(pyenv.glob(f"{release}.*/bin/python")),
        ]
        if sys.version_info[:2] == tuple(map(int, release.split("."))):
            places.append(sys.executable)
        for place in (Path(place) for place in places if place):
            if _call(place, "-c", "import venv, ensurepip").returncode == 0:
                yield place
                break


def _version(python: Path, package: str) -> str:
    """Return the version of a package that an interpreter finds; empty if there is none."""
    program = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    return _call(python, "-c", program, package).stdout.strip()


def _call(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), *arguments]
    try:
        return subprocess.run(command, env=_clean(), capture_output=True, text=True)
    except OSError as exc:
        return subprocess.CompletedProcess(command, 127, "", str(exc))


def _clean() -> dict[str, str]:
    """Return this process's environment without what would lead another Python to its packages."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and "WARNING" not in line]
    return lines[-1].strip() if lines else "no reason given"


# The model


def _export(model: Path, folder: Path, place: Path) -> None:
    """Write a model's image tower, and blanks for what rclip looks for but does not read."""
    folder.mkdir(parents=True)
    extra = place / "onnx"
    if not find_spec("onnx") and not extra.exists():
        missing = [name for name in ("onnx", "protobuf", "ml_dtypes") if not _has(name)]
        pip = [*PIP, *INSTALL, "--no-deps", "--target", str(extra), *missing]
        made = _call(Path(sys.executable), *pip)
        if made.returncode:
            sys.exit(
                f"the package onnx, which writes rclip's model, is missing: {_last(made.stderr)}"
            )
    paths = os.pathsep.join([str(Path(__file__).resolve().parents[2]), str(extra)])
    program = (
        "import sys; from bench.rivals.beside_rclip import write_onnx; write_onnx(*sys.argv[1:])"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(model), str(folder)]
    done = subprocess.run(
        command, env=_clean() | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"the model cannot be exported to ONNX: {_last(done.stderr)}")
    (folder / "textual.onnx").touch()
    (folder.parent / "tokenizer").mkdir()
    with gzip.open(folder.parent / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz", "wb"):
        pass
    for name in LEGAL:
        (folder.parent / name).touch()


def _has(package: str) -> bool:
    return find_spec({"protobuf": "google.protobuf"}.get(package, package)) is not None


def write_onnx(model: str, folder: str) -> None:
    """Write ``visual.onnx``: normalised float32 (n, 3, size, size) to embeddings (n, d)."""
    import torch

    from fovea.search.clip.checkpoints.checkpoint import Checkpoint, load_clip

    clip, config = load_clip(Path(model)), Checkpoint.open(Path(model)).config

    class Visual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clip = clip

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.clip.encode_image(pixels)

    size = config.vision.image_size
    torch.onnx.export(
        Visual().eval(),
        (torch.zeros(2, 3, size, size),),
        str(Path(folder) / "visual.onnx"),
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "n"}, "output": {0: "n"}},
        dynamo=False,
    )
