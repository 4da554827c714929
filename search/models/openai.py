"""The nine CLIPs that OpenAI published: their URLs, their checksums, and downloading them.

Radford et al. 2021, arXiv:2103.00020. An archive is downloaded once, checked, turned into a folder
(weights, configuration, vocabulary, card) and deleted.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .named_hub import plain_name
from .store import models_folder, new_folder

if TYPE_CHECKING:
    from .download import Patience, Reporter

__all__ = [
    "OPENAI_MODELS",
    "VOCABULARY",
    "OpenAIModel",
    "Remote",
    "find_openai",
    "on_disk",
    "pull_openai",
]

_ARCHIVES = "https://openaipublic.azureedge.net/clip/models/"

CARD = """# {model.name}

A CLIP as published with Radford et al. 2021, "Learning Transferable Visual Models From Natural
Language Supervision" (arXiv:2103.00020). Converted from {model.archive.url}
(SHA-256 {model.archive.sha256}); tensors and precision are unchanged.
"""


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on the network and what it must be."""

    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    def fetch(
        self,
        progress: "Reporter | None" = None,
        patience: "Patience | None" = None,
    ) -> Path:
        """Download the file to the folder of downloads, unless it is there; return its path.

        It comes from a mirror where ``FOVEA_MODELS_URL`` names one.
        """
        from .download import download

        mirror = os.environ.get("FOVEA_MODELS_URL")
        return download(
            f"{mirror.rstrip('/')}/{self.file_name}" if mirror else self.url,
            models_folder() / "downloads" / self.file_name,
            sha256=self.sha256,
            progress=progress(self.file_name) if progress else None,
            patience=patience,
        )


@dataclass(frozen=True, slots=True)
class OpenAIModel:
    """One of the published models; ``accuracy`` ranks them."""

    name: str
    archive: Remote
    accuracy: float  # zero-shot ImageNet, per cent: table 11 of the paper

    @property
    def folder(self) -> Path:
        """Where the model is kept, there or not."""
        return models_folder() / self.name.replace("/", "-").replace("@", "-")


VOCABULARY = Remote(
    "https://raw.githubusercontent.com/openai/CLIP/3bee28119e6b28e75b82b811b87b56935314e6a5/"
    "clip/bpe_simple_vocab_16e6.txt.gz",
    "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
)

OPENAI_MODELS = tuple(
    OpenAIModel(name, Remote(f"{_ARCHIVES}{sha256}/{file}", sha256), accuracy)
    for name, file, accuracy, sha256 in (
        ("RN50", "RN50.pt", 59.6,
         "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
        ("RN101", "RN101.pt", 62.2,
         "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"),
        ("RN50x4", "RN50x4.pt", 65.8,
         "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"),
        ("RN50x16", "RN50x16.pt", 70.5,
         "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"),
        ("RN50x64", "RN50x64.pt", 73.6,
         "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"),
        ("ViT-B/32", "ViT-B-32.pt", 63.2,
         "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
        ("ViT-B/16", "ViT-B-16.pt", 68.6,
         "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
        ("ViT-L/14", "ViT-L-14.pt", 75.3,
         "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
        ("ViT-L/14@336px", "ViT-L-14-336px.pt", 76.2,
         "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"),
    )
)  # fmt: skip


def find_openai(name: str) -> OpenAIModel | None:
    """Return the model of this name, whatever its punctuation and case."""
    wanted = plain_name(name)
    return next((model for model in OPENAI_MODELS if plain_name(model.name) == wanted), None)


def on_disk(model: OpenAIModel) -> Path | None:
    """Return the model's folder if it is there; it is put there whole or not at all."""
    return model.folder if (model.folder / "model.safetensors").is_file() else None


def pull_openai(
    model: OpenAIModel,
    progress: "Reporter | None" = None,
    *,
    patience: "Patience | None" = None,
) -> Path:
    """Download, check and convert a model unless it is there; return its folder.

    ``progress`` is told each file's name and returns what is told its bytes. Raise
    ``ModelUnreachable`` without a network, ``ModelError`` for any other failure.
    """
    if found := on_disk(model):
        return found
    from fovea.search.clip.checkpoints.checkpoint import convert

    vocabulary = VOCABULARY.fetch(progress, patience)
    archive = model.archive.fetch(progress, patience)
    with new_folder(model.folder) as folder:
        convert(archive, folder)
        shutil.copyfile(vocabulary, folder / vocabulary.name)
        (folder / "README.md").write_text(CARD.format(model=model), encoding="utf-8")
    archive.unlink()
    return model.folder
