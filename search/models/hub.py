"""Models on the Hugging Face hub, through its own client: cache, mirrors and offline switch."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fovea.search.clip.checkpoints.checkpoint import WEIGHTS_FILES
from fovea.search.clip.checkpoints.families import TOKENIZER_FILES, kind_of
from fovea.search.clip.checkpoints.image_processor import read_json
from fovea.search.clip.config import PACKED_VOCABULARY, VOCABULARY_FILES, WORDPIECE_FILES
from fovea.search.errors import FoveaError, ModelError, ModelUnreachable

from .store import read_notes, write_notes

if TYPE_CHECKING:
    from .download import Reporter

__all__ = [
    "files_to_fetch",
    "forget_hub_model",
    "hub_models",
    "is_hub_id",
    "is_offline",
    "not_on_disk",
    "pull_hub",
]

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_ID = re.compile(f"{_PART}/{_PART}")
_SHA256 = re.compile("[0-9a-f]{64}")
REGISTER = "hub.json"
_CONFIGS = ("config.json", "open_clip_config.json")
_BESIDE = (  # what a CLIP needs beside its weights and configuration
    "preprocessor_config.json",
    "vocab.json",
    *VOCABULARY_FILES,
    *WORDPIECE_FILES,
    "README.md",
)
_BESIDE_FOREIGN = (  # what a model of another family needs, too
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    *TOKENIZER_FILES,
)
_LARGE = (".safetensors", ".bin")
PROBE_S = 3.0  # seconds to wait on a dead network


def is_hub_id(name: str) -> bool:
    """Whether a name looks like ``owner/name``."""
    return _ID.fullmatch(name) is not None


def is_offline() -> bool:
    """Whether ``FOVEA_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids the network."""
    return bool(_offline_settings())


def _offline_settings() -> list[str]:
    """Return those of the two environment variables that are on."""
    names = ("FOVEA_OFFLINE", "HF_HUB_OFFLINE")
    yes = ("1", "true", "yes", "on")
    return [name for name in names if os.environ.get(name, "").lower() in yes]


def not_on_disk(name: str) -> ModelUnreachable:
    """Make the error for a model that is missing and must not be downloaded now."""
    step = f"to download it: fovea models pull {name}"
    if settings := _offline_settings():
        step = f"to allow downloads, unset {' and '.join(settings)}"
    return ModelUnreachable(f"{name} is not on this disk; {step}")


def hub_models() -> dict[str, Path]:
    """Return the folders of the hub's models that were pulled and are still on the disk, by id.

    Where the register is lost, the hub's own cache still knows them.
    """
    known = read_notes(REGISTER)
    return {name: Path(str(path)) for name, path in known.items() if Path(str(path)).is_dir()}


def pull_hub(
    name: str,
    progress: "Reporter | None" = None,
    *,
    network: bool = True,
    called: str | None = None,
) -> Path:
    """Return the folder of a model on the hub, downloading what is not in the hub's cache.

    Its weights resume where an interrupted download ended, and their SHA-256 must be the hub's.
    ``progress`` is told the name of each weights file and returns what is told its bytes.
    ``network=False`` downloads nothing. ``called`` is the model's short name, for messages. Raise
    ``ModelUnreachable`` without a network, ``ModelDamaged`` for weights with another SHA-256,
    ``ModelError`` for a model that does not exist or is not a CLIP.
    """
    if found := hub_models().get(name):
        return found
    folder = _cached(name)
    if folder is None:
        if not network or is_offline():
            raise not_on_disk(called or name)
        folder = _downloaded(name, progress)
    _write_register(hub_models() | {name: folder})
    return folder


def forget_hub_model(name: str, folder: Path) -> Path:
    """Remove a model from the register; return the folder of the hub's cache to delete.

    It has all revisions; ``folder`` is the one that was pulled.
    """
    _write_register({key: value for key, value in hub_models().items() if key != name})
    cached = folder.parent.parent
    is_cache = cached.name == "models--" + name.replace("/", "--")
    return cached if is_cache else folder


def _cached(name: str) -> Path | None:
    """Return the folder of a model that is complete in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    for weights in WEIGHTS_FILES:
        found = try_to_load_from_cache(name, weights)
        if isinstance(found, str) and _is_whole(Path(found)):
            return Path(found).parent
    return None


def _is_whole(weights: Path) -> bool:
    """Whether the configuration and every shard are there, and a tokenizer for other families."""
    configs = [weights.parent / name for name in _CONFIGS if (weights.parent / name).is_file()]
    if not configs:
        return False
    is_foreign = kind_of(read_json(configs[0])) is not None
    if is_foreign and not any((weights.parent / name).is_file() for name in TOKENIZER_FILES):
        return False
    if not weights.name.endswith(".index.json"):
        return True
    shards = set(json.loads(weights.read_text("utf-8")).get("weight_map", {}).values())
    return all((weights.parent / shard).is_file() for shard in shards)


def _downloaded(name: str, progress: "Reporter | None") -> Path:
    from huggingface_hub import HfApi, constants, hf_hub_download

    from .download import answers

    endpoint = constants.ENDPOINT
    if not answers(endpoint, PROBE_S):
        raise ModelUnreachable(
            f"cannot fetch {name}: {endpoint} does not answer; try again when online, or name a "
            "mirror in HF_ENDPOINT"
        )
    try:
        there = [file.rfilename for file in HfApi().model_info(name).siblings or ()]
        configs = [Path(hf_hub_download(name, file)) for file in _CONFIGS if file in there]
        wanted = files_to_fetch(name, there, _kind(name, configs))
        for file in wanted:
            if file.endswith(_LARGE):
                _fetch_blob(name, file, progress)
        # The weights last: where they are in the cache, so is the rest.
        folders = {Path(hf_hub_download(name, file)).parent for file in reversed(wanted)}
    except FoveaError:
        raise
    except Exception as exc:  # the client's, its transport's, the disk's: no common base
        lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
        reason = lines[0] if lines else type(exc).__name__
        kind = ModelUnreachable if _is_of_network(exc) else ModelError
        raise kind(f"cannot fetch {name} from {endpoint}: {reason}; try again") from exc
    if len(folders) > 1:  # its owner has just pushed a new revision
        raise ModelError(f"{name} has just changed on the hub; pull it again")
    return folders.pop()


def _fetch_blob(name: str, file: str, progress: "Reporter | None", *, again: bool = True) -> None:
    """Download a large file into the hub's cache, where its client then finds it.

    The client itself would begin anew after an interruption, and compares no checksum. A file
    without one, or one that only the client's token opens, is left to the client. An address that
    no longer works is asked for ``again``, once: signed ones expire.
    """
    from huggingface_hub import constants, get_hf_file_metadata, get_token, hf_hub_url

    from .download import ModelRefused, download

    found = get_hf_file_metadata(hf_hub_url(name, file))
    place = urlsplit(found.location)
    if place.scheme not in ("http", "https"):
        raise ModelError(
            f"cannot fetch {name}: the hub leads to {place.scheme}: instead of https:; "
            "name another mirror in HF_ENDPOINT"
        )
    at_hub = place.netloc == urlsplit(constants.ENDPOINT).netloc
    if found.etag is None or not _SHA256.fullmatch(found.etag) or (at_hub and get_token()):
        return
    cache = Path(constants.HF_HUB_CACHE) / ("models--" + name.replace("/", "--"))
    try:
        download(
            found.location,
            cache / "blobs" / found.etag,
            sha256=found.etag,
            progress=progress(file) if progress else None,
        )
    except ModelRefused as exc:
        if not again:
            raise ModelError(f"cannot fetch {name}: {exc.answer}; try again later") from exc
        _fetch_blob(name, file, progress, again=False)


def _is_of_network(exc: BaseException) -> bool:
    """Whether an error of the hub's client is its transport's, which comes as one of two."""
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(exc).__mro__}
    return any(
        re.fullmatch(r"(httpx2?|requests)\..*(TransportError|ConnectionError|Timeout)", kind)
        for kind in kinds
    )


def _kind(name: str, configs: Sequence[Path]) -> str | None:
    """Return the family of a model by its configuration, before its weights are downloaded.

    None for a CLIP. Raise ``ModelError`` for anything else.
    """
    for path in configs:
        config = read_json(path)
        if kind := kind_of(config):
            return kind
        if config.get("model_type", "clip") != "clip":
            raise ModelError(
                f"{name} cannot be used: its configuration describes {config['model_type']}, "
                "not a CLIP"
            )
    return None


def files_to_fetch(name: str, files: Iterable[str], kind: str | None = None) -> list[str]:
    """Choose one set of weights and the files it needs; ``kind`` names another family than CLIP."""
    there = set(files)
    weights = next((file for file in WEIGHTS_FILES if file in there), None)
    if weights is None:
        raise ModelError(f"{name} has no weights that fovea can read ({', '.join(WEIGHTS_FILES)})")
    if kind and ".safetensors" not in weights:
        raise ModelError(
            f"{name} has its weights in {weights}; fovea reads a {kind} only from safetensors"
        )
    beside = [*_CONFIGS, *_BESIDE]
    if kind:
        beside += _BESIDE_FOREIGN
    elif not there & {*VOCABULARY_FILES, *WORDPIECE_FILES}:
        beside.append(PACKED_VOCABULARY)
    wanted = [weights, *(file for file in dict.fromkeys(beside) if file in there)]
    if weights.endswith(".index.json"):
        stem, suffix = weights.removesuffix(".index.json").rsplit(".", 1)
        shard = re.compile(rf"{re.escape(stem)}-[0-9]+-of-[0-9]+\.{suffix}")
        wanted += sorted(filter(shard.fullmatch, there))
    return wanted


def _write_register(known: dict[str, Path]) -> None:
    write_notes(REGISTER, {name: str(folder) for name, folder in known.items()})
