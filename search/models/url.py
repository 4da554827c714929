"""Models from a user-supplied URL: downloaded once, checked against a SHA-256, kept as a folder.

The URL leads to weights alone, taken for a CLIP of the original release, or to an archive (zip or
tar) of a model's folder. Nothing is used before its checksum has been checked.
"""

import contextlib
import json
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from fovea.data import BUNDLED, FORMER
from fovea.search.clip.checkpoints.checkpoint import WEIGHTS_FILES, convert, read_config
from fovea.search.clip.config import PUBLISHED_VOCABULARY_SIZE
from fovea.search.errors import ModelError, ModelUnreachable

from .info import check_vocabulary, describe_model
from .named_hub import find_named
from .openai import VOCABULARY, find_openai
from .store import models_folder, new_folder

if TYPE_CHECKING:
    from .download import Reporter

__all__ = ["UrlModel", "find_url_model", "is_url", "pull_url", "url_models"]

_ENDINGS = re.compile(r"\.(tar\.gz|tar\.xz|tar\.bz2|tgz|tar|zip|safetensors|pt|pth|bin)$", re.I)
_SAYS_NOTHING = {
    *("", "model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model"),
    *("blob", "download", "files", "latest", "main", "master", "raw", "resolve"),
}
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")
_SHA256 = re.compile("[0-9a-f]{64}")
MEMBERS = 10_000  # files of an archive that are considered


@dataclass(frozen=True, slots=True)
class UrlModel:
    """A model that was downloaded from a URL, and its folder."""

    name: str
    url: str
    sha256: str  # of the downloaded file
    folder: Path


def is_url(name: str) -> bool:
    """Whether a name begins as a URL does."""
    return re.match(r"[a-z][a-z0-9+.-]*://", name, re.IGNORECASE) is not None


def url_models() -> list[UrlModel]:
    """List the models on the disk that were downloaded from a URL."""
    found = []
    for note in sorted((models_folder() / "fetched").glob("*/source.json")):
        try:
            said = json.loads(note.read_text("utf-8"))
            found.append(
                UrlModel(note.parent.name, str(said["url"]), str(said["sha256"]), note.parent)
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue  # ``pull_url`` did not write it
    return found


def find_url_model(name: str) -> UrlModel | None:
    """Return the downloaded model of this name or URL."""
    wanted = {name, _without_secrets(name)} if is_url(name) else {name}
    return next(
        (m for m in url_models() if m.url in wanted or m.name.lower() == name.lower()), None
    )


def pull_url(
    url: str,
    sha256: str,
    progress: "Reporter | None" = None,
    *,
    network: bool = True,
) -> UrlModel:
    """Download the file at a URL unless it is here, check it, and make a model's folder of it.

    ``sha256`` is the file's, in hex. Raise ``ModelUnreachable`` without a network, ``ModelError``
    for any other failure, such as a file that is not a model.
    """
    sha256 = sha256.strip().lower()
    if not _SHA256.fullmatch(sha256):
        raise ModelError(f"{sha256[:80]!r} is not a SHA-256 (64 hex digits)")
    file_name = _file_name(url)
    for model in url_models():
        if model.sha256 == sha256:
            return model
    if not network:
        raise ModelUnreachable(f"{url} is not on this disk, and downloads are switched off")
    from .download import download

    downloads = models_folder() / "downloads"
    path = download(
        quote(url, safe="%/:=&?~#+!$,;'@()*[]"),
        downloads / f"{sha256[:16]}-{file_name}",
        sha256=sha256,
        progress=progress(file_name) if progress else None,
    )
    model = _install(path, url, sha256, progress)
    path.unlink(missing_ok=True)
    return model


def _file_name(url: str) -> str:
    """Return the last part of a URL. Raise ``ModelError`` for one that cannot be downloaded."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ModelError(f"{url} cannot be downloaded; give a URL such as https://HOST/FILE")
    return re.sub(r"[^A-Za-z0-9._-]", "-", unquote(PurePosixPath(parts.path).name))[-80:] or "model"


def _without_secrets(url: str) -> str:
    """Return the URL without a user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _name(url: str, sha256: str) -> str:
    """Name the model after its file, or after the last part of the URL that says something."""
    parts = urlsplit(url)
    places = [unquote(place) for place in parts.path.split("/")]
    plain = [re.sub(r"[^A-Za-z0-9._-]", "-", _ENDINGS.sub("", place)) for place in places]
    told = [place.strip(".-") for place in plain]
    name = next((t for t in reversed(told) if t.lower() not in _SAYS_NOTHING), parts.hostname or "")
    name = name[:60].strip(".-") or "model"
    folder = models_folder() / "fetched" / name
    ours = name.lower() in (BUNDLED, *FORMER) or find_openai(name) or find_named(name)
    if ours or folder.exists():
        return f"{name}-{sha256[:8]}"
    return name


# From a file to a folder


def _install(path: Path, url: str, sha256: str, progress: "Reporter | None") -> UrlModel:
    """Make the folder whole or not at all; a file that is not a model is deleted."""
    name = _name(url, sha256)
    folder = models_folder() / "fetched" / name
    model = UrlModel(name, _without_secrets(url), sha256, folder)
    with new_folder(folder) as unfinished:
        try:
            with _members(path) as members:
                _extract(members, unfinished, url)
            if not members:
                _take_weights(path, unfinished, url, progress)
            check_vocabulary(describe_model(unfinished, name, "address"))
        except ModelUnreachable:
            raise  # it is the vocabulary that is missing: keep the downloaded file
        except ModelError as exc:
            path.unlink(missing_ok=True)
            said = str(exc)
            for inside in (unfinished / "model.safetensors", unfinished, path):
                said = said.replace(str(inside), url)
            raise ModelError(said.replace(unfinished.name, name)) from exc
        note = json.dumps({"url": model.url, "sha256": sha256}, indent=1)
        (unfinished / "source.json").write_text(note, encoding="utf-8")
    return model


def _take_weights(path: Path, folder: Path, url: str, progress: "Reporter | None") -> None:
    """Put bare weights into a folder, as a CLIP whose configuration their shapes tell."""
    with path.open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"
    if is_safetensors:  # kept as it is: its checksum is its identity
        shutil.copyfile(path, folder / "model.safetensors")
        config = read_config(folder)
        text = json.dumps(config.to_dict(), indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
    else:
        convert(path, folder)
        config = read_config(folder)
    if config.text.vocab_size != PUBLISHED_VOCABULARY_SIZE:
        raise ModelError(
            f"the model at {url} has its own vocabulary ({config.text.vocab_size} tokens); "
            "download it as an archive of its folder"
        )
    vocabulary = VOCABULARY.fetch(progress)
    shutil.copyfile(vocabulary, folder / vocabulary.name)


@dataclass(frozen=True, slots=True)
class _Member:
    """A file in an archive."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes] | None]


@contextlib.contextmanager
def _members(path: Path) -> Iterator[list[_Member]]:
    """Yield the files of an archive; none for any other file, and for weights that are a zip."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found = [
                    _Member(PurePosixPath(e.filename), e.file_size, partial(archive.open, e))
                    for e in archive.infolist()[:MEMBERS]
                    if not (e.is_dir() or stat.S_ISLNK(e.external_attr >> 16) or e.flag_bits & 1)
                ]  # bit 0 of the flags: encrypted
                pickles = ("data.pkl", "constants.pkl")
                yield [] if any(member.path.name in pickles for member in found) else found
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                yield [
                    _Member(PurePosixPath(e.name), e.size, partial(archive.extractfile, e))
                    for e in islice(archive, MEMBERS)
                    if e.isreg()
                ]
        else:
            yield []
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as exc:
        raise ModelError(f"{path} is a damaged archive ({exc})") from exc


def _extract(members: list[_Member], folder: Path, url: str) -> None:
    """Copy the weights and the files beside them into ``folder``; no folder, link or program."""
    if not members:
        return
    homes = {m.path.parent for m in members if m.path.name in WEIGHTS_FILES}
    homes = homes or {m.path.parent for m in members if m.path.suffix in _WEIGHTS}
    if not homes:
        raise ModelError(f"the archive at {url} has no weights ({', '.join(WEIGHTS_FILES)})")
    home = min(homes, key=lambda place: (len(place.parts), str(place)))
    wanted = {
        m.path.name: m
        for m in members
        if m.path.parent == home and m.path.suffix != ".py" and not m.path.name.startswith(".")
    }
    needed = sum(member.size for member in wanted.values())
    if needed > shutil.disk_usage(folder).free:
        raise ModelError(f"{url} unpacks to {needed / 1e9:.1f} GB; make room in {folder.parent}")
    for name, member in wanted.items():
        source = member.open()
        assert source is not None  # a regular file's
        with source, (folder / name).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
