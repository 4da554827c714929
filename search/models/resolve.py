"""Which model to use: by name, the library's own, the best on the disk, or the bundled one.

Nothing here imports torch, except to load a model or convert a downloaded archive.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fovea.data import BUNDLED
from fovea.search.clip.user_path import user_path
from fovea.search.errors import ModelError, ModelUnreachable
from fovea.search.library.rows import ModelRow

from .hub import is_hub_id, is_offline, not_on_disk, pull_hub
from .info import ModelInfo, check_vocabulary, describe_model
from .installed import best_on_disk, bundled, former, known_models, models_on_disk, name_of
from .named_hub import NAMED_HUB_MODELS, find_named
from .openai import OPENAI_MODELS, OpenAIModel, find_openai, on_disk, pull_openai
from .url import find_url_model, is_url, pull_url

if TYPE_CHECKING:
    from fovea.search.clip.encoders.base import TorchEncoder

    from .download import Reporter

__all__ = ["load_model", "pull", "resolve_known", "resolve_listed", "resolve_model"]


def load_model(
    name: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    network: bool = True,
    on_download: "Reporter | None" = None,
) -> "TorchEncoder":
    """Load a model for embedding pictures and texts, downloading it if need be. Imports torch.

    ``name`` is as in ``resolve_model``; None chooses the best model at hand. ``device`` is auto,
    cpu, cuda, cuda:N or mps; ``dtype`` auto, float32, bfloat16, float16 or, on a CPU, int8. Raise
    ``ModelError`` for a model, device or precision that is not available.
    """
    if isinstance(name, Path):
        name = str(user_path(name).absolute())  # never mistaken for a published name
    model = resolve_model(name, network=network, progress=on_download)
    return model.load(device=device, dtype=dtype)


def resolve_model(
    requested: str | None = None,
    current: ModelRow | None = None,
    *,
    network: bool = True,
    progress: "Reporter | None" = None,
) -> ModelInfo:
    """Return the model asked for, or choose one.

    ``requested`` is the name of one of OpenAI's models, of a recommended one, of the bundled one or
    a former bundled one, a folder or weights file, "owner/name" on the hub, or the name or URL of
    one fetched from a URL. Without it: ``current``, the library's; else the best on the disk; else
    the bundled one, at once: nothing is downloaded that was not asked for. ``network=False``
    downloads nothing at all. Raise ``ModelError`` for a model that is not available.
    """
    network = network and not is_offline()
    if requested is not None:
        return _requested(requested, network, progress)
    if current is not None:
        try:
            return resolve_known(current, network=network, progress=progress)
        except ModelError as exc:
            raise ModelError(
                f"this library uses {current.name}, which is not available: {exc}. "
                "Bring it back, or embed all pictures with another model: fovea models use MODEL"
            ) from exc
    return best_on_disk() or bundled()


def pull(
    name: str,
    progress: "Reporter | None" = None,
    *,
    sha256: str | None = None,
) -> ModelInfo:
    """Download a model, unless it is on the disk; ``name`` as in ``resolve_model``.

    Or a URL, with the ``sha256`` that the file there must have.
    """
    network = not is_offline()
    if sha256 is None:
        return _requested(name, network, progress)
    if not is_url(name):
        raise ModelError(f"--sha256 needs a URL, https://HOST/FILE, but {name!r} is not one")
    model = pull_url(name, sha256, progress, network=network)
    return check_vocabulary(describe_model(model.folder, model.name, "address"))


def _requested(name: str, network: bool, progress: "Reporter | None") -> ModelInfo:
    if name.lower() == BUNDLED:
        return bundled()
    if former_model := former(name):
        return former_model
    looks_like_path = name.startswith((".", "~", os.sep)) or Path(name).is_absolute()
    if not looks_like_path and (model := find_openai(name)):
        return _openai(model, network, progress)
    if not looks_like_path and (named := find_named(name)):
        folder = pull_hub(named.hub_id, progress, network=network, called=named.name)
        return check_vocabulary(describe_model(folder, named.name, "hub"))
    place = user_path(name) if name else Path()
    if name and place.exists():
        place = place.absolute()
        label = place.stem if place.is_file() else place.name
        try:
            str(place).encode()
        except UnicodeEncodeError as exc:
            raise ModelError(f"the name {place!a} is not UTF-8; rename the model's folder") from exc
        return check_vocabulary(describe_model(place, label, str(place)))
    if fetched := find_url_model(name):
        return check_vocabulary(describe_model(fetched.folder, fetched.name, "address"))
    if is_url(name):
        raise ModelError(
            f"{name} is not on this disk; download it with its checksum: "
            "fovea models pull URL --sha256 HEX"
        )
    if not looks_like_path and is_hub_id(name):
        return check_vocabulary(
            describe_model(pull_hub(name, progress, network=network), name, "hub")
        )
    published = [model.name for model in OPENAI_MODELS]
    names = ", ".join([BUNDLED, *published, *(model.name for model in NAMED_HUB_MODELS)])
    raise ModelError(
        f"there is no model {name!r}; choose {names}, a folder, or owner/name on the hub"
    )


def _openai(model: OpenAIModel, network: bool, progress: "Reporter | None") -> ModelInfo:
    if on_disk(model) is None and not network:
        raise not_on_disk(model.name)
    try:
        folder = pull_openai(model, progress)
    except ModelUnreachable as exc:
        raise ModelUnreachable(
            f"cannot fetch {model.name}: {exc}; try again when online, name a mirror in "
            f"FOVEA_MODELS_URL, or use the bundled model, {BUNDLED}"
        ) from exc
    return describe_model(folder, model.name, "published")


def resolve_listed(name: str, *, progress: "Reporter | None" = None) -> ModelInfo:
    """Return a model by exactly the name that ``known_models`` lists, downloading it if need be.

    Unlike ``resolve_model``, take no file or folder of that name for it. Raise ``ModelError`` for
    one that is not available.
    """
    known = next((known for known in known_models() if known.name == name), None)
    if known is None:
        raise ModelError(f"there is no model {name!r}; fovea models lists those that there are")
    if known.folder is not None:
        return check_vocabulary(describe_model(known.folder, known.name, known.source))
    return resolve_model(name, progress=progress)


def resolve_known(
    row: ModelRow,
    *,
    network: bool = True,
    progress: "Reporter | None" = None,
) -> ModelInfo:
    """Return a model that a library knows, from where it was or wherever its weights are now.

    Raise ``ModelError``, which says why, if neither has them.
    """
    reason = "its weights have changed"
    try:
        info = _requested(name_of(row), network and not is_offline(), progress)
        if info.identity == row.identity:
            return info
    except ModelError as exc:
        reason = str(exc)
    for info in models_on_disk():
        if info.identity == row.identity:
            return info
    raise ModelError(reason)
