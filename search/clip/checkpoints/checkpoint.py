"""Find, check and read the weights of a CLIP in any of the three dialects.

Of safetensors files only the requested tensors are read. Pickles go through
``torch.load(weights_only=True)``, and TorchScript archives, which that refuses, through their own
loader in a child process. Nothing here unpickles without restriction.
"""

import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fovea.search.clip.config import ClipConfig
from fovea.search.clip.errors import ModelError

from .dialects import (
    TensorPlan,
    config_from_json,
    is_open_clip,
    shapes_of,
    tensor_plans,
    with_preprocessing,
)
from .image_processor import has_preprocessing, preprocess_of, read_json
from .int8 import SCALE, check_pair, dequantise
from .shapes import Shape, config_from_shapes, expected_shapes, tower_of
from .stored_tensors import open_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from fovea.search.clip.model import CLIP

Reader = Callable[[Iterable[str]], dict[str, "Tensor"]]

TOWERS = ("image", "text")
WEIGHTS_FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_CONFIG_FILES = ("config.json", "open_clip_config.json")
_CONVERSION_S = 600  # limit for the child process that reads an archive


@dataclass(frozen=True)
class Checkpoint:
    """Weights whose names and shapes match their configuration, not yet read."""

    path: Path
    config: ClipConfig
    _plan: Mapping[str, TensorPlan]
    _read: Reader

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """Open a model's folder or weights file.

        Raise ``ModelError`` if it is damaged, incomplete or not a CLIP.
        """
        path = find_weights(path)
        stored, read = _look_into(path)
        plan = tensor_plans(stored)
        config = _configuration(path) or _inferred_config(path, plan)
        _check(path, plan, config)
        _check_scales(path, plan, stored)
        return cls(path, config, plan, read)

    def state(self, towers: Iterable[str] = TOWERS) -> dict[str, "Tensor"]:
        """Read these towers' tensors (and ``logit_scale``) under the published names.

        They keep their stored precision, but int8 becomes float32, and may be mapped from the
        file: copy before changing.
        """
        wanted = {
            name: part for name, part in self._plan.items() if tower_of(name) in {*towers, None}
        }
        stored = self._read([name for part in wanted.values() for name in part.stored])
        _widen(self.path, stored)
        state = {name: _assemble(part, stored) for name, part in wanted.items()}
        for name, tensor in state.items():
            if not tensor.is_floating_point() and not name.endswith("num_batches_tracked"):
                without = f" without {name}{SCALE}" if tensor.dtype.itemsize == 1 else ""
                raise ModelError(
                    f"{self.path}: {name} is {tensor.dtype}{without}; it should be float"
                )
        return state


def find_weights(path: Path) -> Path:
    """Return the weights file in a model's folder, or ``path`` itself if it is a file.

    Sharded weights are found by their index. A file of another name counts if it is the only one.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise ModelError(f"{path} does not exist; give a model's folder or its weights file")
    for name in WEIGHTS_FILES:
        if (path / name).is_file():
            return path / name
    others = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    if len(others) == 1:
        return others[0]
    found = f"{len(others)} files that could be" if others else "none"
    raise ModelError(f"{path} should hold weights as {WEIGHTS_FILES[0]}; it has {found}")


def weights_sha256(path: Path) -> str:
    """Return the SHA-256, in hex, of a weights file, or of the shards of an index in order."""
    digest = hashlib.sha256()
    for shard in _shards(path):
        with shard.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def read_config(path: Path) -> ClipConfig:
    """Return the configuration beside the weights, or else one inferred from their shapes.

    With a ``config.json`` or safetensors it reads no weights and imports no torch.
    """
    path = find_weights(path)
    return _configuration(path) or _inferred_config(path, tensor_plans(_look_into(path)[0]))


def stored_shapes(path: Path) -> dict[str, Shape]:
    """Return the shapes of all tensors in a weights file, by their names in it."""
    return _look_into(path)[0]


def read_tensors(path: Path, names: Iterable[str]) -> dict[str, "Tensor"]:
    """Read some tensors of a weights file by their names in it.

    Raise ``ModelError`` if one is missing.
    """
    stored, read = _look_into(path)
    for name in (names := list(names)):
        if name not in stored:
            raise ModelError(f"{path} lacks {name}; it is damaged")
    return read(names)


def load_clip(path: Path) -> "CLIP":
    """Return the reference model, in float32 and evaluation mode."""
    import torch

    from fovea.search.clip.model import CLIP

    checkpoint = Checkpoint.open(path)
    with torch.device("meta"):
        model = CLIP(checkpoint.config)
    copies = {
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in checkpoint.state().items()
    }
    for name in model.state_dict():
        if name.endswith("num_batches_tracked"):
            copies.setdefault(name, torch.tensor(0))
    model.load_state_dict(copies, assign=True)
    return model.eval()


def convert(archive: Path, folder: Path) -> Path:
    """Write a checkpoint as ``model.safetensors``, whose path it returns, and ``config.json``.

    The precision stays as stored, but for int8, which becomes float32, and the same weights give
    the same bytes.
    """
    from safetensors.torch import save_file

    checkpoint = Checkpoint.open(archive)
    state = {name: tensor.contiguous() for name, tensor in checkpoint.state().items()}
    folder.mkdir(parents=True, exist_ok=True)
    out, unfinished = folder / "model.safetensors", folder / "model.safetensors.part"
    save_file(state, unfinished, metadata={"format": "pt"})
    text = json.dumps(checkpoint.config.to_dict(), indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    return unfinished.replace(out)


def _configuration(path: Path) -> ClipConfig | None:
    """Read the configuration beside ``path``; for open_clip's weights, prefer its own file."""
    names = reversed(_CONFIG_FILES) if path.name.startswith("open_clip") else _CONFIG_FILES
    for name in names:
        file = path.with_name(name)
        if file.is_file():
            data = read_json(file)
            try:
                config = config_from_json(data)
                if is_open_clip(data) or not has_preprocessing(path.parent):
                    return config
                return with_preprocessing(
                    config, preprocess_of(path.parent, config.vision.image_size)
                )
            except ModelError as exc:
                raise ModelError(f"{file} cannot be used: {exc}") from exc
    return None


def _inferred_config(path: Path, plan: Mapping[str, TensorPlan]) -> ClipConfig:
    try:
        return config_from_shapes(shapes_of(plan))
    except ModelError as exc:
        raise ModelError(f"{path} cannot be used: {exc}; is it a CLIP?") from exc


def _check(path: Path, plan: Mapping[str, TensorPlan], config: ClipConfig) -> None:
    """Raise ``ModelError`` unless the weights are exactly those of ``config``."""
    expected, found = expected_shapes(config), shapes_of(plan)
    missing = [n for n in expected if n not in found and not n.endswith("num_batches_tracked")]
    if missing:
        raise ModelError(f"{path} lacks {some(missing)}; it is damaged or not a CLIP")
    unknown = [name for name in found if name not in expected]
    if unknown:
        raise ModelError(f"{path} has tensors that a CLIP does not have: {some(unknown)}")
    for name, shape in expected.items():
        if (
            name in found
            and found[name] != shape
            and (name != "logit_scale" or found[name] != (1,))
        ):
            raise ModelError(
                f"{path} and its configuration disagree: {name} is {found[name]}, not {shape}"
            )


def _check_scales(path: Path, plan: Mapping[str, TensorPlan], stored: Mapping[str, Shape]) -> None:
    """Raise ``ModelError`` unless the scales of int8 matrices have one value per row."""
    for scale in (name for part in plan.values() for name in part.scales):
        rows = stored[scale.removesuffix(SCALE)][:1]
        if stored[scale] != rows:
            raise ModelError(
                f"{path} is damaged: {scale} is {stored[scale]}, not {rows}; fetch it again"
            )


def some(names: Sequence[str]) -> str:
    """Name the first three and count the rest, for messages."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _widen(path: Path, stored: dict[str, "Tensor"]) -> None:
    """Replace matrices stored as int8 by float32; raise ``ModelError`` for an unsound pair."""
    import torch

    for name, tensor in stored.items():
        scale = stored.get(name + SCALE)
        if scale is not None:
            kinds = (str(tensor.dtype)[6:], str(scale.dtype)[6:])  # after "torch."
            check_pair(path, name, kinds, scale.double().numpy())
            stored[name] = torch.from_numpy(dequantise(tensor.numpy(), scale.numpy()))


def _assemble(part: TensorPlan, stored: Mapping[str, "Tensor"]) -> "Tensor":
    import torch

    if len(part.sources) > 1:
        return torch.cat([stored[source] for source in part.sources])
    tensor = stored[part.sources[0]]
    return tensor.t() if part.is_transposed else tensor


def _shards(path: Path) -> list[Path]:
    """Return the files with the weights: ``path`` itself, or those listed in an index."""
    if not path.name.endswith(".index.json"):
        return [path]
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{path} lists no files; fetch it again")
    shards = [path.with_name(Path(str(name)).name) for name in sorted(set(names.values()))]
    for shard in shards:
        if not shard.is_file():
            raise ModelError(f"{shard} is missing but listed in {path.name}; fetch it again")
    return shards


def _look_into(path: Path) -> tuple[dict[str, Shape], Reader]:
    """Return the shapes of all stored tensors and a function that reads some of them."""
    shards = _shards(path)
    if all(_is_safetensors(shard) for shard in shards):
        found = {shard: _safetensors_shapes(shard) for shard in shards}
        homes = {name: shard for shard, names in found.items() for name in names}
        shapes = {name: found[shard][name] for name, shard in homes.items()}
        return shapes, partial(_read_safetensors, homes)
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        tensors |= _tensors_of_archive(shard) if _is_torchscript(shard) else _unpickle(shard)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return shapes, lambda names: {name: tensors[name] for name in names}


def _is_safetensors(path: Path) -> bool:
    """Whether the suffix says so, or the ninth byte, with which the header's JSON begins."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _safetensors_shapes(path: Path) -> dict[str, Shape]:
    try:
        with open_tensors(path) as file:
            return {name: stored.shape for name, stored in file.found.items()}
    except (OSError, ValueError) as exc:
        raise _damaged(path, exc) from exc


def _read_safetensors(homes: Mapping[str, Path], names: Iterable[str]) -> dict[str, "Tensor"]:
    wanted: dict[Path, list[str]] = {}
    for name in names:
        wanted.setdefault(homes[name], []).append(name)
    tensors: dict[str, Tensor] = {}
    for path, listed in wanted.items():
        try:
            with open_tensors(path) as file:
                tensors |= {name: file.tensor(name) for name in listed}
        except (OSError, ValueError, KeyError) as exc:
            raise _damaged(path, exc) from exc
    return tensors


def _unpickle(path: Path) -> dict[str, "Tensor"]:
    import pickle
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; real problems raise
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise ModelError(
            f"{path} is damaged or not a model of tensors only, and fovea unpickles nothing "
            "else; fetch it again, as safetensors if available"
        ) from exc
    except Exception as exc:  # of many types, depending on where the file is broken
        raise _damaged(path, exc) from exc
    if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
        data = data["state_dict"]  # as training programs save it
    if not isinstance(data, dict) or not all(isinstance(t, torch.Tensor) for t in data.values()):
        raise ModelError(f"{path} is not a state dict of tensors; is it a CLIP?")
    return {str(name): tensor for name, tensor in data.items()}


def _tensors_of_archive(path: Path) -> dict[str, "Tensor"]:
    """Read a TorchScript archive, whose tensors a child process copies to a file."""
    script = Path(__file__).with_name("torchscript.py")
    with TemporaryDirectory(prefix="fovea-", ignore_cleanup_errors=True) as folder:
        out = Path(folder) / "archive.safetensors"
        command = [sys.executable, "-P", str(script), str(path.resolve()), str(out)]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=_CONVERSION_S)
        except subprocess.TimeoutExpired as exc:
            raise _damaged(path, exc) from exc
        if run.returncode:
            lines = run.stderr.strip().splitlines() or [f"its reader died ({run.returncode})"]
            raise _damaged(path, lines[-1])
        names = _safetensors_shapes(out)
        return _read_safetensors(dict.fromkeys(names, out), names)


def _damaged(path: Path, reason: object) -> ModelError:
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return ModelError(f"{path} is damaged or not a model ({lines[0][:160]}); fetch it again")
