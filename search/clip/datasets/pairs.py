"""Pairs of an image and its captions or label, for training and evaluation."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from fovea.search.clip.errors import ModelError
from fovea.search.clip.formats import FORMATS

from .archive import Archive, open_archive
from .captions import (
    CAPTION_FIELDS,
    finder,
    first_of,
    read_captions,
    read_classes,
    read_labels,
    texts_of,
)

log = logging.getLogger(__name__)

# What Pillow reads by itself.
IMAGE_SUFFIXES = frozenset(
    suffix for entry in FORMATS if entry.plugins.startswith("PIL.") for suffix in entry.suffixes
)

# Captions made from class names; the first is drawn as often as all others together.
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
FIRST_DRAWN = 0.6  # share of a class's captions that certainly use its first name
HYPERNYMS_DRAWN = 0.25  # share of a class's captions that use a hypernym, if it has one


T = TypeVar("T")
Member = tuple[int, str]  # the archive's number and the name in it
AMBIGUOUS: Member = (-1, "")


@dataclass(frozen=True, slots=True)
class PairSource:
    """A set of images and the files of their captions or labels, as the user gives it.

    With neither ``captions`` nor ``labels`` the archives are WebDataset shards, with ``key.txt`` or
    ``key.json`` beside each image. ``weight`` is the share of a batch drawn from here, relative to
    other sources. ``exclude`` holds words (see ``captions.finder``): images with one of them in a
    caption are left out, and so are classes with one in a name. ``hypernyms`` maps a general word
    to the classes, by any of their names, that it covers; captions use it too, and no class that
    it covers is contrasted with it. ``views`` overrides the number of kept views of each image.
    """

    images: tuple[Path, ...]
    captions: Path | None = None
    labels: Path | None = None
    classes: Path | None = None
    split: str | None = None
    weight: float = 1.0
    exclude: tuple[str, ...] = ()
    hypernyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    views: int | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """One image with its captions; ``label`` is -1 if it has none."""

    file: str
    archive: int  # which of the set's archives holds it
    captions: tuple[str, ...]
    label: int = -1


class Caption(NamedTuple):
    """A text for an image, and the class name or hypernym that it was made from, if any."""

    text: str
    name: str = ""


@dataclass(frozen=True)
class PairSet:
    """The pairs of one source and the archives, at ``paths``, of their images.

    ``hypernyms`` maps a word to the labels of the classes that it covers. ``empty_captions``
    captions and ``without_words`` images were left out.
    """

    archives: Sequence[Archive]
    paths: Sequence[Path]
    pairs: Sequence[Pair]
    class_names: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    weight: float = 1.0
    hypernyms: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    empty_captions: int = 0
    without_words: int = 0

    def read(self, pair: Pair) -> bytes:
        """Return the encoded bytes of a pair's image."""
        return self.archives[pair.archive].read(pair.file)

    def caption(self, pair: Pair, rng: np.random.Generator) -> Caption:
        """Draw one of a pair's captions, or put a name of its class into a template."""
        if pair.label < 0:
            return Caption(pair.captions[int(rng.integers(len(pair.captions)))])
        general = self._hypernyms_of.get(pair.label)
        if general and rng.random() < HYPERNYMS_DRAWN:
            return _wrap(general[int(rng.integers(len(general)))], rng)
        return self.class_prompt(pair.label, rng)

    def more_captions(
        self, pair: Pair, first: Caption, count: int, rng: np.random.Generator
    ) -> list[Caption]:
        """Draw ``count`` more captions, different from the first as far as the pair has them."""
        if pair.label >= 0:
            return [self.caption(pair, rng) for _ in range(count)]
        others = [text for text in pair.captions if text != first.text] or [first.text]
        order = rng.permutation(len(others))
        return [Caption(others[int(order[number % len(others)])]) for number in range(count)]

    def class_prompt(self, label: int, rng: np.random.Generator) -> Caption:
        """Put one of a class's own names into a template."""
        return name_prompt(self.class_names[label], rng)

    def tags(self, pair: Pair, caption: Caption) -> list[int]:
        """Return the tags, from 0 to 2⁶³ - 1, that a pair must not share with its negatives.

        They stand for its image, the drawn caption and all its captions or, for a label, the names
        of its class and of all classes that the caption covers.
        """
        image = f"{self.paths[pair.archive]}\0{pair.file}"
        if pair.label < 0:
            return [tag(image), *_text_tags((caption.text, *pair.captions))]
        return [tag(image), *self.class_tags(pair.label, caption)]

    def class_tags(self, label: int, caption: Caption) -> list[int]:
        """Return the tags of a class's caption, with or without an image."""
        covered = self.hypernyms.get(caption.name, ())
        names = (name for each in {label, *covered} for name in self.class_names[each])
        return _text_tags((caption.text, *names))

    @cached_property
    def _hypernyms_of(self) -> dict[int, list[str]]:
        """The hypernyms of each label."""
        found: dict[int, list[str]] = {}
        for name, labels in self.hypernyms.items():
            for label in labels:
                found.setdefault(label, []).append(name)
        return found

    def digest(self) -> str:
        """Return a hex digest of the files, captions and classes in their order.

        It does not depend on the archives' paths. A million pairs take about two seconds.
        """
        digest = blake2b(digest_size=16)
        for pair in self.pairs:
            line = "\0".join((pair.file, str(pair.archive), str(pair.label), *pair.captions, "\n"))
            digest.update(line.encode("utf-8", "surrogatepass"))
        digest.update(json.dumps(list(self.class_names.items())).encode())
        return digest.hexdigest()

    def sizes_digest(self) -> str:
        """Return a hex digest of the images' sizes in bytes, in their order."""
        sizes = [self.archives[pair.archive].size(pair.file) for pair in self.pairs]
        return blake2b(np.array(sizes, "<i8").tobytes(), digest_size=16).hexdigest()

    @property
    def most_tags(self) -> int:
        """The most tags that a pair has."""
        captions = (len(pair.captions) for pair in self.pairs)
        names = {label: len(found) for label, found in self.class_names.items()}
        covered = (sum(names[label] for label in labels) for labels in self.hypernyms.values())
        return 2 + max((*captions, *names.values(), *covered), default=0)


def name_prompt(names: Sequence[str], rng: np.random.Generator) -> Caption:
    """Draw one of a class's names, most often the first, and put it into a template."""
    name = names[0] if rng.random() < FIRST_DRAWN else names[int(rng.integers(len(names)))]
    return _wrap(name, rng)


def _wrap(name: str, rng: np.random.Generator) -> Caption:
    """Put a name into a template."""
    plain = rng.random() < 0.5
    template = LABEL_TEMPLATES[0 if plain else int(rng.integers(len(LABEL_TEMPLATES)))]
    return Caption(template.format(name), name)


def _text_tags(texts: Iterable[str]) -> list[int]:
    return [tag(text.strip().lower()) for text in texts]


def tag(text: str) -> int:
    """Hash a text to a number from 0 to 2⁶³ - 1."""
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()) >> 1


def open_pairs(source: PairSource) -> PairSet:
    """Read a source's captions or labels and find their images.

    A line may give an image's whole name in a folder or tar, or its last part if that is
    unambiguous. An image on several lines is one pair with all their captions. Lines whose image
    is missing, empty captions and images without captions are left out and counted in the log.
    Raise ``ModelError`` if nothing is left or a file has the wrong content.
    """
    _check(source)
    archives = [open_archive(path) for path in source.images]
    class_names: dict[int, tuple[str, ...]] = {}
    hypernyms: dict[str, tuple[int, ...]] = {}
    if source.labels is not None and source.classes is not None:
        class_names = read_classes(source.classes)
        hypernyms = _covered(source.hypernyms, class_names, source.classes)
        labels = read_labels(source.labels, source.split)
        listed = []
        for (number, file), label in _found(labels, archives, source):
            if label not in class_names:
                raise ModelError(
                    f"{source.labels} gives {file} the label {label}, which is not a class"
                )
            listed.append(Pair(file, number, (), label))
        pairs = listed
    elif source.captions is not None:
        captions = read_captions(source.captions, source.split)
        texts: dict[Member, tuple[str, ...]] = {}
        for member, more in _found(captions, archives, source):
            texts[member] = texts.get(member, ()) + more
        listed = [Pair(file, number, words) for (number, file), words in texts.items()]
        pairs = _with_words(listed)
    else:
        listed = list(_shard_pairs(archives, source.images))
        pairs = _with_words(listed)
    if not pairs:
        raise _nothing(source, len(listed))
    empty = sum(not text for pair in listed for text in pair.captions)
    without = len(listed) - len(pairs)
    words = source.labels or source.captions or source.images[0]
    if empty:
        log.warning("left out %d empty captions of %s", empty, words)
    if without:
        log.warning("left out %d of %d images of %s: no words", without, len(listed), words)
    if source.exclude:
        pairs, class_names, hypernyms = _less(source.exclude, pairs, class_names, hypernyms)
        if not pairs:
            raise ModelError(f"every image of {words} matches an excluded word; exclude fewer")
    weight = source.weight
    return PairSet(archives, source.images, pairs, class_names, weight, hypernyms, empty, without)


def _nothing(source: PairSource, found: int) -> ModelError:
    """Explain why a source has no pairs, although it has ``found`` images."""
    if words := source.labels or source.captions:
        split = f" with split {source.split!r}" if source.split else ""
        if found:
            return ModelError(f"{words} has no captions for its {found} images{split}")
        return ModelError(f"{words} lists no image{split} that is in the given folders or tars")
    place = source.images[0]
    if found:
        return ModelError(
            f"the {found} images in {place} have no captions beside them (a.txt or a.json for "
            "a.jpg); give --captions or --labels"
        )
    return ModelError(f"there are no images in {place}; check the path")


def _check(source: PairSource) -> None:
    if not source.images:
        raise ModelError("there are no images to read; give a folder or a tar")
    if source.captions is not None and source.labels is not None:
        raise ModelError(f"give captions ({source.captions}) or labels ({source.labels}), not both")
    if source.labels is not None and source.classes is None:
        raise ModelError(f"the labels in {source.labels} need a file of classes; give it too")
    if source.classes is not None and source.labels is None:
        raise ModelError(f"the classes in {source.classes} need a file of labels; give it too")
    if source.hypernyms and source.classes is None:
        raise ModelError("hypernyms need files of labels and classes; give them too")
    if source.split is not None and source.captions is None and source.labels is None:
        raise ModelError(f"shards have no split {source.split!r}; list only the shards you want")


def _found(
    rows: Iterable[tuple[str, T]], archives: Sequence[Archive], source: PairSource
) -> Iterator[tuple[Member, T]]:
    """Yield each row with the member that holds its image; log how many are missing."""
    members = _members(archives)
    lines, lost = 0, 0
    for file, words in rows:
        member = members.get(file.removeprefix("./"))
        lines += 1
        if member is AMBIGUOUS:
            raise ModelError(f"{file} is in the given folders or tars more than once")
        if member is None:
            lost += 1
        else:
            yield member, words
    if 0 < lost < lines:
        path = source.captions or source.labels
        log.warning("left out %d of %d lines of %s: their images are missing", lost, lines, path)


def _members(archives: Sequence[Archive]) -> dict[str, Member]:
    """Return the member of each name, and of each name's last part if no other ends so."""
    whole: dict[str, Member] = {}
    last: dict[str, Member] = {}
    for number, archive in enumerate(archives):
        for name in archive.names:
            end = name.rpartition("/")[2]
            whole[name] = AMBIGUOUS if name in whole else (number, name)
            last[end] = AMBIGUOUS if end in last else (number, name)
    return last | whole


def _with_words(pairs: Iterable[Pair]) -> list[Pair]:
    """Return the pairs with captions, without the empty ones."""
    kept = []
    for pair in pairs:
        words = tuple(filter(None, pair.captions))
        if words:
            kept.append(pair if len(words) == len(pair.captions) else replace(pair, captions=words))
    return kept


def _less(
    words: Iterable[str],
    pairs: Iterable[Pair],
    class_names: Mapping[int, tuple[str, ...]],
    hypernyms: Mapping[str, tuple[int, ...]],
) -> tuple[list[Pair], dict[int, tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """Return the pairs and the classes that mention none of these words, and their hypernyms."""
    named = finder(words)

    def mentions(texts: Iterable[str]) -> bool:
        return any(named.search(text) for text in texts)

    classes = {label: names for label, names in class_names.items() if not mentions(names)}
    kept = [
        pair
        for pair in pairs
        if (pair.label in classes if pair.label >= 0 else not mentions(pair.captions))
    ]
    left = {
        name: tuple(label for label in labels if label in classes)
        for name, labels in hypernyms.items()
    }
    return kept, classes, {name: labels for name, labels in left.items() if labels}


def _covered(
    hypernyms: Mapping[str, tuple[str, ...]], class_names: Mapping[int, tuple[str, ...]], path: Path
) -> dict[str, tuple[int, ...]]:
    """Return the labels that each hypernym covers; ``path`` is that of the classes."""
    labels = {name.lower(): label for label, names in class_names.items() for name in names}
    covered = {}
    for general, names in hypernyms.items():
        if unknown := [name for name in names if name.lower() not in labels]:
            raise ModelError(f"{unknown[0]!r}, listed under {general!r}, is not a class in {path}")
        covered[general] = tuple(sorted({labels[name.lower()] for name in names}))
    return covered


def _shard_pairs(archives: Sequence[Archive], paths: Sequence[Path]) -> Iterator[Pair]:
    """Join ``key.jpg`` with ``key.txt``, else ``key.json``, as WebDataset does.

    A key is a name without its last suffix, folders included; suffixes may be upper case.
    """
    for number, (archive, path) in enumerate(zip(archives, paths, strict=True)):
        names = archive.names
        known = {_lower_suffix(name): name for name in names}
        for name in names:
            key, _, suffix = _lower_suffix(name).rpartition(".")
            is_hidden = name.rpartition("/")[2].startswith(".")
            if f".{suffix}" not in IMAGE_SUFFIXES or is_hidden:
                continue
            texts: tuple[str, ...] = ()
            for beside in (f"{key}.txt", f"{key}.json"):
                if beside in known and not any(texts):
                    texts = _shard_captions(archive, path, known[beside])
            yield Pair(name, number, texts)


def _lower_suffix(name: str) -> str:
    key, dot, suffix = name.rpartition(".")
    return f"{key}{dot}{suffix.lower()}"


def _shard_captions(archive: Archive, path: Path, name: str) -> tuple[str, ...]:
    text = archive.read(name).decode("utf-8-sig", errors="replace")
    if name.lower().endswith(".txt"):
        return (text.strip(),)
    try:
        row = json.loads(text)
    except ValueError as exc:
        raise ModelError(f"{name} in {path} is not JSON: {exc}") from exc
    texts = texts_of(first_of(row, CAPTION_FIELDS) if isinstance(row, dict) else row)
    if texts is None:
        raise ModelError(f"{name} in {path} should hold a 'caption' or 'captions', as text")
    return texts
