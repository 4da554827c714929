"""Models of the Hugging Face hub, through its own client: cache, mirrors and offline switch."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fovea.search.clip.checkpoints.checkpoint import WEIGHTS_FILES
from fovea.search.clip.checkpoints.families import TOKENIZER_FILES, kind_of
from fovea.search.clip.checkpoints.image_processor import read_json
from fovea.search.errors import FoveaError, ModelError, Unreachable

from .openai import models_folder

__all__ = ["VOCABULARIES", "forget_hub_model", "hub_models", "is_hub_id", "is_offline", "pull_hub"]

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_ID = re.compile(f"{_PART}/{_PART}")
VOCABULARIES = ("bpe_simple_vocab_16e6.txt.gz", "bpe.txt.gz", "merges.txt")  # a CLIP's
_CONFIGS = ("config.json", "open_clip_config.json")
_BESIDE = (  # what a model needs beside its weights and configuration
    "preprocessor_config.json",
    "vocab.json",
    "merges.txt",
    "bpe.txt.gz",
    "bpe_simple_vocab_16e6.txt.gz",
    "README.md",
)
_BESIDE_FOREIGN = (  # what one of another family needs, too
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    *TOKENIZER_FILES,
)
_PROBE_S = 3.0  # seconds that a dead network may cost


def is_hub_id(name: str) -> bool:
    """Whether a name looks like ``owner/name``."""
    return _ID.fullmatch(name) is not None


def is_offline() -> bool:
    """Whether ``FOVEA_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids the network."""
    names = ("FOVEA_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


def hub_models() -> dict[str, Path]:
    """The hub's models that were pulled here and are still on the disk, by id."""
    try:
        known = json.loads(_register().read_text("utf-8"))
        return {str(name): Path(path) for name, path in known.items() if Path(path).is_dir()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # only a short cut: the hub's own cache knows as well


def pull_hub(name: str, *, network: bool = True) -> Path:
    """Return the folder of a hub's model, downloading what is not in the hub's cache.

    ``network=False`` downloads nothing.
    Raise ``Unreachable`` without a network, ``ModelError`` for a model that is not there or is not
    a CLIP.
    """
    if found := hub_models().get(name):
        return found
    folder = _cached(name)
    if folder is None:
        if not network or is_offline():
            raise Unreachable(f"{name} is not on this disk: fovea models pull {name}")
        folder = _downloaded(name)
    _remember(name, folder)
    return folder


def forget_hub_model(name: str, folder: Path) -> Path:
    """Take a model out of the register; return the folder of the hub's cache to delete.

    That holds all its revisions; ``folder`` is the one that was pulled.
    """
    known = {key: str(value) for key, value in hub_models().items() if key != name}
    _write_register(known)
    cached = folder.parent.parent
    is_cache = cached.name == "models--" + name.replace("/", "--")
    return cached if is_cache else folder


def _cached(name: str) -> Path | None:
    """The folder of a model that the hub's cache holds whole."""
    from huggingface_hub import try_to_load_from_cache

    for weights in WEIGHTS_FILES:
        found = try_to_load_from_cache(name, weights)
        if isinstance(found, str) and _is_whole(Path(found)):
            return Path(found).parent
    return None


def _is_whole(weights: Path) -> bool:
    """Whether the shards are there, where weights come in several files, and a configuration.

    Of another family, whether a tokenizer is.
    """
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


def _downloaded(name: str) -> Path:
    from huggingface_hub import HfApi, constants, hf_hub_download

    from .download import answers

    endpoint = constants.ENDPOINT
    if not answers(endpoint, _PROBE_S):
        raise Unreachable(
            f"cannot fetch {name}: {endpoint} does not answer; try again when online, or name a "
            "mirror in HF_ENDPOINT"
        )
    try:
        there = [file.rfilename for file in HfApi().model_info(name).siblings or ()]
        configs = [Path(hf_hub_download(name, file)) for file in _CONFIGS if file in there]
        wanted = _wanted(name, there, _kind(name, configs))
        # The weights last: where they are in the cache, so is the rest.
        folders = {Path(hf_hub_download(name, file)).parent for file in reversed(wanted)}
    except FoveaError:
        raise
    except Exception as exc:  # the client's own, its transport's, the disk's: whatever they are
        raise ModelError(f"cannot fetch {name} from {endpoint}: {_first_line(exc)}") from exc
    if len(folders) > 1:  # its owner wrote a new revision at this moment
        raise ModelError(f"{name} has just changed on the hub; pull it again")
    return folders.pop()


def _kind(name: str, configs: Sequence[Path]) -> str | None:
    """The family of a model by its configuration, before its weights are fetched.

    None for a CLIP. Raise ``ModelError`` for what is neither.
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


def _wanted(name: str, files: Iterable[str], kind: str | None = None) -> list[str]:
    """One set of weights, and what is to lie beside it; ``kind`` is that of another family."""
    there = set(files)
    weights = next((file for file in WEIGHTS_FILES if file in there), None)
    if weights is None:
        raise ModelError(f"{name} holds no weights that fovea reads ({', '.join(WEIGHTS_FILES)})")
    if kind and ".safetensors" not in weights:
        raise ModelError(
            f"{name} has its weights as {weights}; fovea reads a {kind} from safetensors alone"
        )
    beside = [*_CONFIGS, *_BESIDE]
    if kind:
        beside += _BESIDE_FOREIGN
    elif not there & set(VOCABULARIES):
        beside.append("tokenizer.json")
    wanted = [weights, *(file for file in dict.fromkeys(beside) if file in there)]
    if weights.endswith(".index.json"):
        stem, suffix = weights.removesuffix(".index.json").rsplit(".", 1)
        shard = re.compile(rf"{re.escape(stem)}-[0-9]+-of-[0-9]+\.{suffix}")
        wanted += sorted(filter(shard.fullmatch, there))
    return wanted


def _register() -> Path:
    return models_folder() / "hub.json"


def _remember(name: str, folder: Path) -> None:
    _write_register({key: str(value) for key, value in hub_models().items()} | {name: str(folder)})


def _write_register(known: dict[str, str]) -> None:
    path = _register()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # only a short cut


def _first_line(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[0] if lines else type(exc).__name__
