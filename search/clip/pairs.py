"""Image-caption pairs for training and evaluation: which image goes with which words."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .archive import Archive, open_archive
from .errors import ModelError

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
)

# How a class name becomes a caption in training; the first one is drawn as often as the rest.
LABEL_TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "a close-up photo of a {}.",
    "a cropped photo of a {}.",
    "a blurry photo of a {}.",
    "a small {}.",
    "one {}.",
    "{}",
)


@dataclass(frozen=True, slots=True)
class Source:
    """One set of images and the words for them, as a user names it.

    With neither ``captions`` nor ``labels``, the archives are WebDataset shards, which carry
    ``key.txt`` or ``key.json`` beside each image. ``weight`` is the share of a batch drawn from
    here, relative to the other sources.
    """

    images: tuple[Path, ...]
    captions: Path | None = None
    labels: Path | None = None
    classes: Path | None = None
    split: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Pair:
    """One image with its captions; ``label`` is -1 where the image has none."""

    file: str
    archive: int  # which of the set's archives holds it
    captions: tuple[str, ...]
    label: int = -1


@dataclass(frozen=True)
class PairSet:
    """The pairs of one source and the archives that hold their images."""

    archives: Sequence[Archive]
    pairs: Sequence[Pair]
    class_names: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    weight: float = 1.0

    def read(self, pair: Pair) -> bytes:
        """Return the encoded bytes of a pair's image."""
        return self.archives[pair.archive].read(pair.file)

    def caption(self, pair: Pair, rng: np.random.Generator) -> str:
        """Draw one of a pair's captions, or wrap one of its class's names in a template."""
        if pair.label < 0:
            return pair.captions[int(rng.integers(len(pair.captions)))]
        names = self.class_names[pair.label]
        name = names[0] if rng.random() < 0.6 else names[int(rng.integers(len(names)))]
        plain = rng.random() < 0.5
        return LABEL_TEMPLATES[0 if plain else int(rng.integers(len(LABEL_TEMPLATES)))].format(name)


def open_pairs(source: Source) -> PairSet:
    """Read a source's captions or labels and find their images.

    Lines whose image is in none of the archives and empty captions are left out; raise
    ``ModelError`` if nothing is left, or if a file does not hold what it should.
    """
    archives = [open_archive(path) for path in source.images]
    names = {name: number for number, archive in enumerate(archives) for name in archive.names}
    class_names: dict[int, tuple[str, ...]] = {}
    if source.labels is not None:
        if source.classes is None:
            raise ModelError(f"{source.labels} gives labels; name the classes' file too")
        class_names = read_classes(source.classes)
        found = _labelled(source.labels, source.split, names, class_names)
    elif source.captions is not None:
        found = _captioned(read_captions(source.captions, source.split), names)
    else:
        found = _shard_pairs(archives)
    pairs = list(found)
    if not pairs:
        words = source.labels or source.captions or source.images[0]
        split = f" with split {source.split!r}" if source.split else ""
        raise ModelError(f"{words} names no image{split} that is in the given folders or tars")
    return PairSet(archives, pairs, class_names, source.weight)


def read_captions(path: Path, split: str | None = None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (file, captions) from JSON Lines (``file`` and ``captions`` or ``caption``) or from a
    table separated by tabs with such columns; only lines of ``split`` where one is given."""
    for number, row in _rows(path):
        if split is not None and row.get("split") != split:
            continue
        file = row.get("file") or row.get("filepath") or row.get("image")
        texts = row.get("captions") or row.get("caption") or row.get("title") or ()
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(file, str) or not all(isinstance(text, str) for text in texts):
            raise ModelError(f"{path}, line {number}: 'file' and 'captions' should be text")
        kept = tuple(text for text in texts if text.strip())
        if kept:
            yield file, kept


def read_labels(path: Path, split: str | None = None) -> Iterator[tuple[str, int]]:
    """Yield (file, label) from JSON Lines with ``file``, ``label`` and perhaps ``split``."""
    for number, row in _rows(path):
        if split is not None and row.get("split") != split:
            continue
        file, label = row.get("file"), row.get("label")
        if not isinstance(file, str) or not str(label).isdigit():
            raise ModelError(f"{path}, line {number}: needs 'file' and a whole number 'label'")
        yield file, int(str(label))


def read_classes(path: Path) -> dict[int, tuple[str, ...]]:
    """Read label → names from a JSON list of objects with ``label`` and ``names``."""
    try:
        listed = json.loads(path.read_text("utf-8"))
        return {int(entry["label"]): tuple(map(str, entry["names"])) for entry in listed}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ModelError(
            f"cannot read the classes in {path}: {exc!r}; it should be a list of "
            '{"label": 0, "names": ["cat"]}'
        ) from exc


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each line's number and fields, from JSON Lines or a table with a head line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix.lower() in (".tsv", ".csv"):
                delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
                yield from enumerate(csv.DictReader(file, delimiter=delimiter), start=2)
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ModelError(f"{path}, line {number}: a JSON object was expected")
                    yield number, row
    except (OSError, ValueError, csv.Error) as exc:
        raise ModelError(f"cannot read {path}: {exc}") from exc


def _captioned(
    rows: Iterable[tuple[str, tuple[str, ...]]], names: Mapping[str, int]
) -> Iterator[Pair]:
    for file, captions in rows:
        if file in names:
            yield Pair(file, names[file], captions)


def _labelled(
    path: Path,
    split: str | None,
    names: Mapping[str, int],
    class_names: Mapping[int, tuple[str, ...]],
) -> Iterator[Pair]:
    for file, label in read_labels(path, split):
        if label not in class_names:
            raise ModelError(f"{path} gives {file} the label {label}, which is no class")
        if file in names:
            yield Pair(file, names[file], (), label)


def _shard_pairs(archives: Sequence[Archive]) -> Iterator[Pair]:
    """Join ``key.jpg`` with ``key.txt`` or ``key.json``, as WebDataset does."""
    for number, archive in enumerate(archives):
        names = archive.names
        words = {_stem(name): name for name in names if name.endswith((".txt", ".json"))}
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES) and _stem(name) in words:
                captions = _shard_captions(archive, words[_stem(name)])
                if captions:
                    yield Pair(name, number, captions)


def _stem(name: str) -> str:
    """Return the key: everything before the first dot of the last path component."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.split('.', 1)[0]}"


def _shard_captions(archive: Archive, name: str) -> tuple[str, ...]:
    text = archive.read(name).decode("utf-8", errors="replace")
    if name.endswith(".json"):
        try:
            row = json.loads(text)
        except ValueError as exc:
            raise ModelError(f"{name} in a shard is not JSON: {exc}") from exc
        found = row.get("captions") or row.get("caption") or row.get("text") or ()
        texts = [found] if isinstance(found, str) else [str(entry) for entry in found]
    else:
        texts = [text]
    return tuple(entry.strip() for entry in texts if entry.strip())
