"""The nine published CLIPs: where they lie, what they must weigh in, and how they come here.

Radford et al. 2021, arXiv:2103.00020. An archive is fetched once, checked, turned into a folder
(weights, configuration, vocabulary, card) and thrown away.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fovea.search.errors import ModelError

if TYPE_CHECKING:
    from .download import Patience, Progress

__all__ = ["DEFAULT", "PUBLISHED", "VOCABULARY", "Published", "find_published", "models_folder"]

_ARCHIVES = "https://openaipublic.azureedge.net/clip/models/"
_MIRROR = "FOVEA_MODELS_URL"

DEFAULT = "ViT-B/32"


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on the network and what it must be."""

    url: str
    sha256: str

    @property
    def address(self) -> str:
        """The address to fetch it from: a mirror's, where ``FOVEA_MODELS_URL`` names one."""
        if mirror := os.environ.get(_MIRROR):
            return f"{mirror.rstrip('/')}/{self.file_name}"
        return self.url

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Published:
    """One of the published models; ``accuracy`` ranks them."""

    name: str
    archive: Remote
    accuracy: float  # zero-shot ImageNet, per cent: table 11 of the paper

    @property
    def folder_name(self) -> str:
        """The name without what a file name cannot hold."""
        return self.name.replace("/", "-").replace("@", "-")


def _published(name: str, file: str, sha256: str, accuracy: float) -> Published:
    return Published(name, Remote(f"{_ARCHIVES}{sha256}/{file}", sha256), accuracy)


VOCABULARY = Remote(
    "https://raw.githubusercontent.com/openai/CLIP/3bee28119e6b28e75b82b811b87b56935314e6a5/"
    "clip/bpe_simple_vocab_16e6.txt.gz",
    "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
)

PUBLISHED = (
    _published(
        "RN50",
        "RN50.pt",
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        59.6,
    ),
    _published(
        "RN101",
        "RN101.pt",
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        62.2,
    ),
    _published(
        "RN50x4",
        "RN50x4.pt",
        "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
        65.8,
    ),
    _published(
        "RN50x16",
        "RN50x16.pt",
        "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
        70.5,
    ),
    _published(
        "RN50x64",
        "RN50x64.pt",
        "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
        73.6,
    ),
    _published(
        "ViT-B/32",
        "ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        63.2,
    ),
    _published(
        "ViT-B/16",
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        68.6,
    ),
    _published(
        "ViT-L/14",
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        75.3,
    ),
    _published(
        "ViT-L/14@336px",
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        76.2,
    ),
)


def models_folder() -> Path:
    """``FOVEA_MODELS``, else the place where this platform keeps a user's data."""
    if named := os.environ.get("FOVEA_MODELS"):
        return Path(named).expanduser()
    from platformdirs import user_data_path

    return user_data_path("fovea", appauthor=False) / "models"


def find_published(name: str) -> Published | None:
    """The published model of this name, however its punctuation and case are written."""
    wanted = _plain(name)
    return next((model for model in PUBLISHED if _plain(model.name) == wanted), None)


def folder_of(model: Published) -> Path:
    """Where the model is kept, there or not."""
    return models_folder() / model.folder_name


def on_disk(model: Published) -> Path | None:
    """The model's folder, if it is there; it is put there whole or not at all."""
    folder = folder_of(model)
    return folder if (folder / "model.safetensors").is_file() else None


def pull_published(
    model: Published,
    progress: "Callable[[str], Progress] | None" = None,
    *,
    vocabulary: Remote | None = None,
    patience: "Patience | None" = None,
) -> Path:
    """Download, check and convert a model unless it is there; return its folder.

    ``progress`` is told each file's name and returns what is told its bytes. Raise ``Unreachable``
    without a network, ``ModelError`` for what goes wrong otherwise.
    """
    if found := on_disk(model):
        return found
    from .download import download

    vocabulary = vocabulary or VOCABULARY
    downloads = models_folder() / "downloads"
    files = []
    for remote in (vocabulary, model.archive):
        listen = progress(remote.file_name) if progress else None
        files.append(
            download(
                remote.address,
                downloads / remote.file_name,
                sha256=remote.sha256,
                progress=listen,
                patience=patience,
            )
        )
    folder = _assemble(model, *files)
    files[1].unlink()
    return folder


def _assemble(model: Published, vocabulary: Path, archive: Path) -> Path:
    """Make the model's folder from what was downloaded."""
    from fovea.search.clip.checkpoints.checkpoint import convert

    folder = folder_of(model)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        convert(archive, unfinished)
        shutil.copyfile(vocabulary, unfinished / vocabulary.name)
        (unfinished / "README.md").write_text(_card(model), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    except OSError as exc:
        raise ModelError(f"cannot write {folder}: {exc.strerror or exc}") from exc
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _card(model: Published) -> str:
    return f"""# {model.name}

A CLIP as published with Radford et al. 2021, "Learning Transferable Visual Models From Natural
Language Supervision" (arXiv:2103.00020). Converted from {model.archive.url}
(SHA-256 {model.archive.sha256}); tensors and precision are unchanged.
"""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
