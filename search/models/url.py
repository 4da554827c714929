"""Models from an address of one's own: fetched once, checked against a SHA-256, kept as a folder.

The address leads to weights alone, taken for a CLIP of the original release, or to an archive (zip
or tar) of a model's folder. Nothing that comes is used before its checksum is that which was named.
"""

import contextlib
import json
import lzma
import os
import re
import shutil
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

from fovea.search.clip.checkpoints.checkpoint import WEIGHTS_FILES, convert, read_config
from fovea.search.clip.errors import ModelError
from fovea.search.errors import Unreachable

from .openai import VOCABULARY, find_published, models_folder

if TYPE_CHECKING:
    from fovea.search.clip.config import ClipConfig

    from .download import Patience, Progress

__all__ = ["Addressed", "addressed_models", "find_addressed", "is_address", "pull_address"]

_ENDINGS = re.compile(r"\.(tar\.gz|tar\.xz|tar\.bz2|tgz|tar|zip|safetensors|pt|pth|bin)$", re.I)
_SAYS_NOTHING = {
    *("", "model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model"),
    *("blob", "download", "files", "latest", "main", "master", "raw", "resolve"),
}
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")
_SHA256 = re.compile("[0-9a-f]{64}")
_VOCABULARY_SIZE = 49408  # of the published vocabulary
MEMBERS = 10_000  # files of an archive that are looked at


@dataclass(frozen=True, slots=True)
class Addressed:
    """A model that was fetched from an address, and its folder."""

    name: str
    url: str
    sha256: str  # of what was fetched
    folder: Path


def is_address(name: str) -> bool:
    """Whether a name is that of a file on the network."""
    return re.match(r"[a-z][a-z0-9+.-]*://", name, re.IGNORECASE) is not None


def addressed_models() -> list[Addressed]:
    """The models on the disk that were fetched from an address."""
    found = []
    for note in sorted((models_folder() / "fetched").glob("*/source.json")):
        try:
            said = json.loads(note.read_text("utf-8"))
            found.append(
                Addressed(note.parent.name, str(said["url"]), str(said["sha256"]), note.parent)
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not one that ``pull_address`` left
    return found


def find_addressed(name: str) -> Addressed | None:
    """The fetched model of this name or address."""
    wanted = {name, _without_secrets(name)} if is_address(name) else {name}
    return next(
        (m for m in addressed_models() if m.url in wanted or m.name.lower() == name.lower()), None
    )


def pull_address(
    url: str,
    sha256: str,
    progress: "Callable[[str], Progress] | None" = None,
    *,
    check: Callable[[Path], object] = lambda folder: None,
    network: bool = True,
    patience: "Patience | None" = None,
) -> Addressed:
    """Fetch what lies at an address, unless it is here, check it, and make a model's folder of it.

    ``sha256`` is what the file must have, in hex. ``check`` is given the folder before it counts,
    and raises ``ModelError`` for one that is no model. Raise ``Unreachable`` without a network, and
    ``ModelError`` for whatever else goes wrong.
    """
    sha256 = sha256.strip().lower()
    if not _SHA256.fullmatch(sha256):
        raise ModelError(f"{sha256[:80]!r} is no SHA-256: that has 64 digits, 0 to 9 and a to f")
    file_name = _file_name(url)
    for model in addressed_models():
        if model.sha256 == sha256:
            return model
    if not network:
        raise Unreachable(f"{url} is not on this disk, and nothing may be downloaded now")
    from .download import download

    downloads = models_folder() / "downloads"
    path = download(
        quote(url, safe="%/:=&?~#+!$,;'@()*[]"),
        downloads / f"{sha256[:16]}-{file_name}",
        sha256=sha256,
        progress=progress(file_name) if progress else None,
        patience=patience,
    )
    made = _made(path, url, sha256, check, progress, patience)
    path.unlink(missing_ok=True)
    return made


def _file_name(url: str) -> str:
    """The last part of an address. Raise ``ModelError`` for what is no address of a file."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ModelError(f"{url} is no address that fovea fetches: https://HOST/FILE")
    return re.sub(r"[^A-Za-z0-9._-]", "-", unquote(PurePosixPath(parts.path).name))[-80:] or "model"


def _without_secrets(url: str) -> str:
    """The address without a user's name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _name(url: str, sha256: str) -> str:
    """What the model is called: its file's name, or the last part before it that says something."""
    parts = urlsplit(url)
    places = [unquote(place) for place in parts.path.split("/")]
    plain = [re.sub(r"[^A-Za-z0-9._-]", "-", _ENDINGS.sub("", place)) for place in places]
    told = [place.strip(".-") for place in plain]
    name = next((t for t in reversed(told) if t.lower() not in _SAYS_NOTHING), parts.hostname or "")
    name = name[:60].strip(".-") or "model"
    if (
        find_published(name)
        or name == "fovea-small"
        or (models_folder() / "fetched" / name).exists()
    ):
        return f"{name}-{sha256[:8]}"
    return name


# From a file to a folder


def _made(
    path: Path,
    url: str,
    sha256: str,
    check: Callable[[Path], object],
    progress: "Callable[[str], Progress] | None",
    patience: "Patience | None",
) -> Addressed:
    """Make the folder whole or not at all. What turns out to be no model is deleted."""
    name = _name(url, sha256)
    folder = models_folder() / "fetched" / name
    unfinished = folder.with_name(f".{name}.{os.getpid()}.part")
    made = Addressed(name, _without_secrets(url), sha256, folder)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with _members(path) as members:
            _extract(members, unfinished, url)
        if not members:
            _take_weights(path, unfinished, url, progress, patience)
        check(unfinished)
        note = json.dumps({"url": made.url, "sha256": sha256}, indent=1)
        (unfinished / "source.json").write_text(note, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    except Unreachable:
        raise  # of the vocabulary: what is here already need not come again
    except ModelError as exc:
        path.unlink(missing_ok=True)
        said = str(exc)
        for inside in (unfinished / "model.safetensors", unfinished, path):
            said = said.replace(str(inside), url)
        said = said.replace(unfinished.name, name)
        raise ModelError(said) from exc
    except OSError as exc:
        raise ModelError(f"cannot write {folder}: {exc.strerror or exc}; make room there") from exc
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return made


def _take_weights(
    path: Path,
    folder: Path,
    url: str,
    progress: "Callable[[str], Progress] | None",
    patience: "Patience | None",
) -> None:
    """Put weights without anything beside them into a folder, as a CLIP of the original release."""
    from .download import download

    config = _configuration(path, folder)
    if config.text.vocab_size != _VOCABULARY_SIZE:
        raise ModelError(
            f"{url} has a vocabulary of its own ({config.text.vocab_size} tokens); fetch it as an "
            "archive of its folder"
        )
    vocabulary = download(
        VOCABULARY.address,
        models_folder() / "downloads" / VOCABULARY.file_name,
        sha256=VOCABULARY.sha256,
        progress=progress(VOCABULARY.file_name) if progress else None,
        patience=patience,
    )
    shutil.copyfile(vocabulary, folder / vocabulary.name)


def _configuration(path: Path, folder: Path) -> "ClipConfig":
    """Put the weights in place, and their configuration, which their shapes tell, beside them."""
    with path.open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"
    if not is_safetensors:
        convert(path, folder)
        return read_config(folder)
    shutil.copyfile(path, folder / "model.safetensors")  # as it is: its checksum is its identity
    config = read_config(folder)
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    return config


@dataclass(frozen=True, slots=True)
class _Member:
    """A file in an archive."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes] | None]


@contextlib.contextmanager
def _members(path: Path) -> Iterator[list[_Member]]:
    """The files of an archive; none for what is no archive, weights that are a zip among it."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found = list(_zipped(archive))
                pickles = ("data.pkl", "constants.pkl")
                yield [] if any(member.path.name in pickles for member in found) else found
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                yield list(_tarred(archive))
        else:
            yield []
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as exc:
        raise ModelError(f"{path} is a damaged archive ({exc})") from exc


def _zipped(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for entry in archive.infolist()[:MEMBERS]:
        is_link = entry.external_attr >> 16 & 0o170000 == 0o120000
        if not entry.is_dir() and not is_link and not entry.flag_bits & 1:  # nor encrypted
            yield _Member(
                PurePosixPath(entry.filename), entry.file_size, partial(archive.open, entry)
            )


def _tarred(archive: tarfile.TarFile) -> Iterator[_Member]:
    for entry in islice(archive, MEMBERS):
        if entry.isreg():
            yield _Member(
                PurePosixPath(entry.name), entry.size, partial(archive.extractfile, entry)
            )


def _extract(members: list[_Member], folder: Path, url: str) -> None:
    """Copy the files that lie beside the weights into ``folder``; no folder, link or program."""
    if not members:
        return
    homes = {m.path.parent for m in members if m.path.name in WEIGHTS_FILES}
    homes = homes or {m.path.parent for m in members if m.path.suffix in _WEIGHTS}
    if not homes:
        raise ModelError(f"{url} is an archive without weights ({', '.join(WEIGHTS_FILES)})")
    home = min(homes, key=lambda place: (len(place.parts), str(place)))
    wanted = {
        m.path.name: m
        for m in members
        if m.path.parent == home and m.path.suffix != ".py" and not m.path.name.startswith(".")
    }
    needed = sum(member.size for member in wanted.values())
    if needed > shutil.disk_usage(folder).free:
        raise ModelError(f"{url} needs {needed / 1e9:.1f} GB of room in {folder.parent}")
    for name, member in wanted.items():
        source = member.open()
        assert source is not None  # a regular file's
        with source, (folder / name).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
