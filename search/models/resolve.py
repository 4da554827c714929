"""Which model to use: by name, the library's own, the best at hand, or the bundled one.

Nothing here imports torch, but for turning a downloaded archive into a folder.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fovea.data import BUNDLED, bundled_model
from fovea.search.clip.checkpoints.checkpoint import find_weights, read_config, weights_sha256
from fovea.search.clip.checkpoints.families import Family, check_usable, family_of
from fovea.search.clip.preprocess import Preprocess
from fovea.search.errors import ModelError, Unreachable
from fovea.search.library.rows import ModelRow

from .hub import VOCABULARIES, forget_hub_model, hub_models, is_hub_id, is_offline, pull_hub
from .openai import (
    DEFAULT,
    PUBLISHED,
    Published,
    find_published,
    models_folder,
    on_disk,
    pull_published,
)
from .url import addressed_models, find_addressed, is_address, pull_address

if TYPE_CHECKING:
    from PIL.Image import Image

    from fovea.search.clip.encoders.base import TorchEncoder
    from fovea.search.clip.encoders.numpy_text import NumpyTextEncoder

    from .download import Patience, Progress

__all__ = [
    "KnownModel",
    "LazyEncoder",
    "ModelInfo",
    "available_models",
    "best_on_disk",
    "delete_files",
    "files_identity",
    "foreseen",
    "known_models",
    "load_model",
    "pull",
    "resolve_known",
    "resolve_model",
]

log = logging.getLogger(__name__)

Reporter = Callable[[str], "Progress"]  # a file's name -> what is told its bytes

KEPT = ("bundled", "published", "hub", "address")  # sources of models that fovea keeps itself
_JUST_WRITTEN_S = 2.0  # a file this young may change again without its time showing it


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model on the disk: what indexing and searching need to know before it is loaded."""

    name: str
    folder: Path  # or its weights file
    identity: str  # the weights' SHA-256, hex
    dim: int
    preprocess: Preprocess
    source: str  # "bundled", "published", "hub", "address", or the absolute path of one's own
    family: str = "clip"  # or the kind of model that transformers knows it as

    def load(self, *, device: str = "auto", dtype: str = "auto") -> "TorchEncoder":
        """Return the encoder, as ``clip.encoder.load_encoder`` does. This imports torch."""
        from fovea.search.clip.encoders.load import load_encoder

        encoder = load_encoder(self.folder, name=self.name, device=device, dtype=dtype)
        encoder.identity = self.identity  # known already: spare the reading of all weights
        return encoder


class LazyEncoder:
    """An encoder that imports torch when it must: for pictures, or on a device asked for.

    Words alone go through the text tower in NumPy, which answers before torch is imported.
    """

    def __init__(self, model: ModelInfo, *, device: str = "auto", dtype: str = "auto") -> None:
        self.name, self.identity, self.dim = model.name, model.identity, model.dim
        self.preprocess = model.preprocess
        self._model, self._device, self._dtype = model, device, dtype

    def load(self) -> "TorchEncoder":
        """The encoder itself; this imports torch."""
        return self._encoder

    def encode_images(self, images: Sequence["Image"]) -> np.ndarray:
        """Embed decoded pictures as float32 unit rows (n, d)."""
        return self._encoder.encode_images(images)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embed uint8 (n, s, s, 3) as float32 unit rows (n, d)."""
        return self._encoder.encode_pixels(pixels)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as float32 unit rows (n, d)."""
        words = None if "_encoder" in self.__dict__ else self._words
        return (words or self._encoder).encode_texts(texts)

    @cached_property
    def _encoder(self) -> "TorchEncoder":
        return self._model.load(device=self._device, dtype=self._dtype)

    @cached_property
    def _words(self) -> "NumpyTextEncoder | None":
        if self._device not in ("auto", "cpu") or self._dtype not in ("auto", "float32"):
            return None
        from fovea.search.clip.encoders.numpy_text import NumpyTextEncoder

        return NumpyTextEncoder.open(self._model.folder)


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that can be asked for by name; ``folder`` is None until it is pulled."""

    name: str
    source: str
    folder: Path | None


def known_models() -> list[KnownModel]:
    """The bundled model, the published ones, and what was pulled from the hub or an address."""
    known = [KnownModel(BUNDLED, "bundled", bundled_model())]
    known += [KnownModel(model.name, "published", on_disk(model)) for model in PUBLISHED]
    known += [KnownModel(name, "hub", folder) for name, folder in sorted(hub_models().items())]
    known += [KnownModel(model.name, "address", model.folder) for model in addressed_models()]
    return known


def available_models() -> list[str]:
    """Return the names that ``load_model`` and ``fovea models pull`` take."""
    return [model.name for model in known_models()]


def load_model(
    name: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    network: bool = True,
    on_download: Reporter | None = None,
) -> "TorchEncoder":
    """Load a model for embedding pictures and texts, downloading it if need be. Imports torch.

    ``name`` is as in ``resolve_model``; None chooses the best model at hand. ``device`` is auto,
    cpu, cuda, cuda:N or mps; ``dtype`` auto, float32, bfloat16 or float16. Raise ``ModelError``
    for a model, device or precision that is not available. ``on_download`` is called with the name
    of what is fetched, and returns what is called with the bytes so far and in all.
    """
    if isinstance(name, Path):
        name = str(name.expanduser().absolute())  # never mistaken for a published name
    model = resolve_model(name, network=network, progress=on_download)
    return model.load(device=device, dtype=dtype)


def resolve_model(
    requested: str | None = None,
    current: ModelRow | None = None,
    *,
    network: bool = True,
    progress: Reporter | None = None,
    patience: "Patience | None" = None,
) -> ModelInfo:
    """Return the model asked for, or choose one.

    ``requested`` is a published model's name, the bundled one's, a folder or weights file,
    "owner/name" on the hub, or the name or address of one fetched from there. Without it:
    ``current``, the library's; else the best on the disk; else ViT-B/32, downloaded; else the
    bundled one, and the log says why. ``network=False`` downloads nothing. Raise
    ``ModelError`` for a model that cannot be had.
    """
    network = network and not is_offline()
    if requested is not None:
        return _requested(requested, network, progress, patience)
    if current is not None:
        return _remembered(current, network, progress, patience)
    if best := _best_on_disk():
        return best
    if network:
        from .download import HASTY

        default = find_published(DEFAULT)
        assert default is not None  # it is one of them
        try:
            folder = pull_published(default, progress, patience=patience or HASTY)
            return describe(folder, DEFAULT, "published")
        except ModelError as exc:
            reason = str(exc)
    else:
        reason = "that is not on this disk, and nothing may be downloaded now"
    bundled = _bundled()
    log.warning(
        "using the small bundled model, not %s: %s",
        DEFAULT,
        reason,
    )
    return bundled


def foreseen(requested: str | None, current: ModelRow | None = None) -> ModelInfo:
    """What ``resolve_model`` would try to return; nothing is downloaded.

    Where that is a download, the name alone is right: nothing else is known of it yet.
    """
    if requested is None and current is None and not is_offline() and not _best_on_disk():
        return replace(_bundled(), name=DEFAULT)
    return resolve_model(requested, current, network=False)


def pull(
    name: str,
    progress: Reporter | None = None,
    *,
    sha256: str | None = None,
    patience: "Patience | None" = None,
) -> ModelInfo:
    """Put a model on the disk, if it is not there yet; ``name`` as in ``resolve_model``.

    Or an address, with the ``sha256`` that the file there must have.
    """
    network = not is_offline()
    if sha256 is None:
        return _requested(name, network, progress, patience)
    if not is_address(name):
        raise ModelError(f"a SHA-256 goes with an address, https://HOST/FILE; {name!r} is none")
    model = pull_address(
        name,
        sha256,
        progress,
        check=lambda folder: with_words(describe(folder, folder.name, "address")),
        network=network,
        patience=patience,
    )
    return with_words(describe(model.folder, model.name, "address"))


def _requested(
    name: str, network: bool, progress: Reporter | None, patience: "Patience | None"
) -> ModelInfo:
    if name.lower() == BUNDLED:
        return _bundled()
    looks_like_path = name.startswith((".", "~", os.sep)) or Path(name).is_absolute()
    if not looks_like_path and (model := find_published(name)):
        return _fetched(model, network, progress, patience)
    place = Path(name).expanduser()
    if name and place.exists():
        place = place.absolute()
        label = place.stem if place.is_file() else place.name
        return with_words(describe(place, label, _path_text(place)))
    if fetched := find_addressed(name):
        return with_words(describe(fetched.folder, fetched.name, "address"))
    if is_address(name):
        raise ModelError(
            f"{name} is not on this disk; fetch it by its checksum: "
            "fovea models pull ADDRESS --sha256 HEX"
        )
    if not looks_like_path and is_hub_id(name):
        return with_words(describe(pull_hub(name, network=network), name, "hub"))
    names = ", ".join([BUNDLED, *(model.name for model in PUBLISHED)])
    raise ModelError(
        f"there is no model {name!r}; name one of {names}, a folder, or owner/name on the hub"
    )


def _fetched(
    model: Published, network: bool, progress: Reporter | None, patience: "Patience | None"
) -> ModelInfo:
    if on_disk(model) is None and not network:
        raise Unreachable(f"{model.name} is not on this disk: fovea models pull {model.name}")
    try:
        folder = pull_published(model, progress, patience=patience)
    except Unreachable as exc:
        raise Unreachable(
            f"cannot fetch {model.name}: {exc}; try again when online, name a mirror in "
            f"FOVEA_MODELS_URL, or do with the bundled model: --model {BUNDLED}"
        ) from exc
    return describe(folder, model.name, "published")


def _remembered(
    row: ModelRow, network: bool, progress: Reporter | None, patience: "Patience | None"
) -> ModelInfo:
    """The library's model, or what to do without it."""
    try:
        return resolve_known(row, network=network, progress=progress, patience=patience)
    except ModelError as exc:
        raise ModelError(
            f"this library answers by {row.name}, which cannot be used: {exc}. "
            "Bring it back, or let another one embed all pictures: fovea models use MODEL"
        ) from exc


def resolve_known(
    row: ModelRow,
    *,
    network: bool = True,
    progress: Reporter | None = None,
    patience: "Patience | None" = None,
) -> ModelInfo:
    """Return a model that a library has known: where it was, or wherever its weights are now.

    Raise ``ModelError``, which says why, where they cannot be had.
    """
    reason = "its weights have changed"
    try:
        name = row.name if row.source in KEPT else row.source
        info = _requested(name, network and not is_offline(), progress, patience)
        if info.identity == row.identity:
            return info
    except ModelError as exc:
        reason = str(exc)
    for info in _on_disk():
        if info.identity == row.identity:
            return info
    raise ModelError(reason)


def delete_files(name: str, row: ModelRow | None = None) -> int:
    """Delete the files of a model that fovea has put on the disk; return their bytes.

    ``row`` is what a library knows it by. Raise ``ModelError`` for a model that is not there, and
    for one that fovea did not put there.
    """
    known = _kept(name, row)
    if known.source == "bundled":
        raise ModelError(f"{known.name} comes with fovea, and stays")
    if known.folder is None:
        raise ModelError(f"{known.name} is not on this disk")
    folder = known.folder
    if known.source == "hub":
        folder = forget_hub_model(known.name, folder)
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    try:
        shutil.rmtree(folder)
    except OSError as exc:
        raise ModelError(f"cannot delete {folder}: {exc.strerror or exc}") from exc
    return size


def files_identity(name: str, row: ModelRow | None = None) -> str | None:
    """The identity of the model whose files ``delete_files`` would delete, if they can be read."""
    known = _kept(name, row)
    if known.folder is None:
        return None
    try:
        return describe(known.folder, known.name, known.source).identity
    except ModelError:
        return None


def _kept(name: str, row: ModelRow | None) -> KnownModel:
    if row is not None:
        name = row.name if row.source in KEPT else row.source
    published = find_published(name)
    wanted = (published.name if published else name).lower()
    for known in known_models():
        if known.name.lower() == wanted:
            return known
    if fetched := find_addressed(name):
        return KnownModel(fetched.name, "address", fetched.folder)
    raise ModelError(f"fovea has put no model {name!r} on this disk; it deletes no others")


def best_on_disk() -> str:
    """The name of the best model that needs no download."""
    best = _best_on_disk()
    return BUNDLED if best is None else best.name


def _best_on_disk() -> ModelInfo | None:
    """The published model on the disk that recognises most."""
    there = [(model.accuracy, model, folder) for model in PUBLISHED if (folder := on_disk(model))]
    for _, model, folder in sorted(there, key=lambda entry: entry[0], reverse=True):
        try:
            return describe(folder, model.name, "published")
        except ModelError as exc:
            log.warning("passing over %s: %s", model.name, exc)
    return None


def _on_disk() -> Iterator[ModelInfo]:
    """Describe every known model on the disk that can be read."""
    for known in known_models():
        if known.folder is not None:
            try:
                yield describe(known.folder, known.name, known.source)
            except ModelError:
                continue


def _bundled() -> ModelInfo:
    folder = bundled_model()
    if folder is None:
        raise ModelError(
            "this copy of fovea comes without its bundled model; install it again, or name "
            f"another with --model, such as {DEFAULT}"
        )
    return describe(folder, BUNDLED, "bundled")


def describe(place: Path, name: str, source: str) -> ModelInfo:
    """Look at a model's folder or weights file. Raise ``ModelError`` if it is no CLIP."""
    try:
        family = family_of(place)
        if family is None:
            config = read_config(place)
            family = Family("clip", config.embed_dim, Preprocess.from_config(config))
        identity = _identity(find_weights(place))
    except OSError as exc:
        raise ModelError(f"cannot read {place}: {exc.strerror or exc}") from exc
    return ModelInfo(name, place, identity, family.dim, family.preprocess, source, family.kind)


def with_words(model: ModelInfo) -> ModelInfo:
    """Return the model if it has a vocabulary: say now, not at the first search, if not."""
    folder = model.folder if model.folder.is_dir() else model.folder.parent
    if model.family != "clip":
        check_usable(model.family, folder)
        return model
    if not any((folder / name).is_file() for name in (*VOCABULARIES, "tokenizer.json")):
        raise ModelError(
            f"{folder} has no vocabulary; put {' or '.join(VOCABULARIES)} beside its weights"
        )
    return model


def _path_text(place: Path) -> str:
    text = str(place)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ModelError(f"{place!a} is not UTF-8; rename the model's folder") from exc
    return text


# The weights' SHA-256 takes up to a second: it is remembered until size or time change.


def _identity(weights: Path) -> str:
    if weights.name.endswith(".index.json"):
        return weights_sha256(weights)  # several files: not worth remembering
    status = weights.stat()
    mark = [status.st_size, status.st_mtime_ns]
    path = models_folder() / "identities.json"
    known = _read_identities(path)
    key = str(weights.resolve())
    entry = known.get(key)
    if isinstance(entry, list) and entry[:2] == mark and len(entry) == 3:
        return str(entry[2])
    identity = weights_sha256(weights)
    if time.time_ns() - status.st_mtime_ns > _JUST_WRITTEN_S * 1e9:
        _write_identities(path, {**known, key: [*mark, identity]})
    return identity


def _read_identities(path: Path) -> dict[str, object]:
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_identities(path: Path, known: dict[str, object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # only a short cut
