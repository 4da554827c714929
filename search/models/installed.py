"""The models that can be named, those of them on this disk, and deleting their files."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fovea.data import BUNDLED, bundled_model, former_models, former_name
from fovea.search.clip.engines.record import forget
from fovea.search.errors import ModelError
from fovea.search.library.rows import ModelRow

from .hub import forget_hub_model, hub_models
from .info import ENGINES, ModelInfo, describe_model
from .named_hub import NAMED_HUB_MODELS, RECOMMENDED, find_named
from .openai import OPENAI_MODELS, find_openai, on_disk
from .store import models_folder
from .url import find_url_model, url_models

__all__ = [
    "KnownModel",
    "available_models",
    "best_on_disk",
    "better_bundled",
    "bundled",
    "delete_files",
    "files_identity",
    "former",
    "former_bundled",
    "known_models",
    "models_on_disk",
    "name_of",
]

log = logging.getLogger(__name__)

KEPT = ("bundled", "published", "hub", "address")  # sources of models that fovea keeps itself


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that can be asked for by name; ``folder`` is None until it is pulled."""

    name: str
    source: str
    folder: Path | None


def known_models() -> list[KnownModel]:
    """List the bundled model, OpenAI's, the recommended ones, and those pulled from hub or URL."""
    known = [KnownModel(BUNDLED, "bundled", bundled_model())]
    known += [KnownModel(model.name, "published", on_disk(model)) for model in OPENAI_MODELS]
    pulled = hub_models()
    known += [
        KnownModel(model.name, "hub", pulled.pop(model.hub_id, None)) for model in NAMED_HUB_MODELS
    ]
    known += [KnownModel(name, "hub", folder) for name, folder in sorted(pulled.items())]
    known += [KnownModel(model.name, "address", model.folder) for model in url_models()]
    return known


def available_models() -> list[str]:
    """List the names that ``load_model`` and ``fovea models pull`` take."""
    return [model.name for model in known_models()]


def models_on_disk() -> Iterator[ModelInfo]:
    """Describe every model on the disk that can be read: known ones and former bundled ones."""
    for known in [*known_models(), *_former_models()]:
        if known.folder is not None:
            try:
                yield describe_model(known.folder, known.name, known.source)
            except ModelError:
                continue


def bundled() -> ModelInfo:
    """Describe the bundled model. Raise ``ModelError`` where it was left out."""
    folder = bundled_model()
    if folder is None:
        raise ModelError(
            "this copy of fovea comes without its bundled model; install fovea again, "
            f"or name another model, such as {RECOMMENDED.name}"
        )
    return describe_model(folder, BUNDLED, "bundled")


def former(name: str) -> ModelInfo | None:
    """Describe the former bundled model of this name; None for any other name.

    Such a model is for the libraries that use it: no list of models to choose from has it.
    """
    wanted = name.lower()
    known = next((model for model in _former_models() if model.name == wanted), None)
    if known is None or known.folder is None:
        return None
    return describe_model(known.folder, known.name, known.source)


def former_bundled(row: ModelRow | ModelInfo | None) -> bool:
    """Whether a library's model is a former bundled one, which the bundled one should replace.

    False where the bundled one was left out.
    """
    if row is None or row.source != "bundled" or bundled_model() is None:
        return False
    return former_name(row.identity) is not None


def better_bundled(row: ModelRow | None) -> str | None:
    """Return the name of the bundled model where it is better than a library's; else None.

    Only of a former bundled model is that known.
    """
    return BUNDLED if former_bundled(row) else None


def best_on_disk() -> ModelInfo | None:
    """Describe the most accurate published model on the disk; None without any."""
    pulled = hub_models()
    found = [(model.accuracy, model.name, "published", on_disk(model)) for model in OPENAI_MODELS]
    found += [
        (model.accuracy, model.name, "hub", pulled.get(model.hub_id)) for model in NAMED_HUB_MODELS
    ]
    for _, name, source, folder in sorted(found, key=lambda model: model[0], reverse=True):
        if folder is not None:
            try:
                return describe_model(folder, name, source)
            except ModelError as exc:
                log.warning("ignoring %s: %s", name, exc)
    return None


def name_of(row: ModelRow) -> str:
    """Return the name to ask for a library's model by: its folder, where it is the user's own."""
    return row.name if row.source in KEPT else row.source


def delete_files(name: str, row: ModelRow | None = None) -> int:
    """Delete the files of a model that fovea has put on the disk; return their bytes.

    ``row`` is what a library knows it by. Raise ``ModelError`` for a model that is not on the disk,
    and for one that fovea did not put there.
    """
    known = _kept(name, row)
    if known.source == "bundled":
        raise ModelError(f"{known.name} is part of fovea and cannot be deleted")
    if known.folder is None:
        raise ModelError(f"{known.name} is not on this disk")
    folder = known.folder
    if known.source == "hub":
        named = find_named(known.name)
        folder = forget_hub_model(named.hub_id if named else known.name, folder)
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    identity = files_identity(name, row)
    try:
        shutil.rmtree(folder)
    except OSError as exc:
        raise ModelError(f"cannot delete {folder}: {exc.strerror or exc}") from exc
    return size + (forget(models_folder() / ENGINES, identity) if identity else 0)


def files_identity(name: str, row: ModelRow | None = None) -> str | None:
    """Return the identity of the model that ``delete_files`` would delete, if it can be read."""
    known = _kept(name, row)
    if known.folder is None:
        return None
    try:
        return describe_model(known.folder, known.name, known.source).identity
    except ModelError:
        return None


def _kept(name: str, row: ModelRow | None) -> KnownModel:
    name = name if row is None else name_of(row)
    model = find_openai(name) or find_named(name) or find_url_model(name)
    wanted = (model.name if model else name).lower()
    for known in [*known_models(), *_former_models()]:
        if known.name.lower() == wanted:
            return known
    raise ModelError(f"{name!r} was not downloaded by fovea; delete it yourself")


def _former_models() -> list[KnownModel]:
    return [KnownModel(name, "bundled", folder) for name, folder in former_models().items()]
