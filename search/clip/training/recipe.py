"""The options of a training run and the recipe file that sets them."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fovea.search.clip.config import ClipConfig
from fovea.search.clip.datasets.pairs import PairSource
from fovea.search.clip.errors import ModelError
from fovea.search.clip.parts.finishing import Finish
from fovea.search.clip.parts.packaged import IMAGE_PARTS, TEXT_PARTS
from fovea.search.clip.user_path import user_path

from .augment import Augmentation

# the least value of each whole number
_LEAST = {
    "embed_dim": 1,
    "merges": 0,
    "image_size": 1,
    "batch_size": 1,
    "accumulate": 1,
    "hidden": 0,
    "queries": 0,
    "views": 0,
    "classes_drawn": 2,
    "samples": 1,
    "stop_after": 1,
    "seed": 0,
    "captions_per_image": 1,
    "workers": 0,
    "log_every": 1,
    "save_every": 1,
    "measure_every": 1,
}
_KINDS: dict[str, tuple[Any, str]] = {
    "out": (Path, "a path"),
    "init": (Path | None, "a model's folder"),
    "vision": (Mapping, "a table of its fields"),
    "text": (Mapping, "a table of its fields"),
    "device": (str, "auto, cpu, cuda or mps, as text"),
    "class_prompts": (bool, "true or false"),
    "class_names": (bool, "true or false"),
    "int8_text": (bool, "true or false"),
    "image_tower": (str | None, "the name of a part or a folder"),
    "text_tower": (str | None, "the name of a part or a folder"),
    "teacher": (str | None, "the name of a part or a folder"),
    "features": (Path | None, "a folder"),
    "augmentation": (Augmentation, "a table of its fields"),
    "finish": (Finish, "a table of its fields"),
}
# the fields of each tower in a recipe; the vocabulary's size follows from the captions
_SHAPE = {
    "vision": ("image_size", "layers", "width", "heads", "patch_size"),
    "text": ("context_length", "width", "heads", "layers"),
}
# the parts of each tower that have names
_NAMED: dict[str, Mapping[str, object]] = {
    "image_tower": IMAGE_PARTS,
    "text_tower": TEXT_PARTS,
    "teacher": IMAGE_PARTS,
}
_NEW_WIDTH = 256  # of the embeddings of a new model without parts
_GREATEST_SEED = (1 << 64) - 1  # that torch takes


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """One training run.

    ``batch_size`` is the joint batch of all processes, computed in ``accumulate`` slices to save
    memory. ``samples`` is the total number of pairs seen. ``lr`` is the highest rate of AdamW and
    ``muon``, unless it is 0, that of Muon, which then updates the hidden matrices; ``warmup`` is
    the share of the steps over which the rates rise. ``tune`` is "all" or the number of last
    blocks of each tower to train (see ``partial.choose_trainable``). ``stop_after`` ends the run
    early, at that step of its schedule. ``cache_gb`` is the memory for decoded images, in GiB over
    all processes. Each image of a batch comes with ``captions_per_image`` texts; ``class_prompts``
    contrasts the images of a labelled source with all its classes in every step. The model is
    measured on the sources ``measure`` every ``measure_every`` steps and at the end.

    With ``image_tower`` and ``text_tower`` a new model starts from parts, each a name or a folder
    (see ``parts.packaged``). Its image head has a hidden layer ``hidden`` wide, so many ``queries``
    and, with ``class_names``, what the image part's classifier sees (see ``joining.joined``);
    ``class_gain`` sets how much that counts (see ``joining.with_class_gain``), at first 1.
    ``embed_dim`` is the width of its embeddings: by default the text part's, and 256 without parts.

    ``tune_image`` and ``tune_text`` are ``tune`` for one tower; "0" locks it. ``image_lr`` and
    ``text_lr`` are the highest rates of AdamW below the projections, for which ``lr`` remains.
    With ``views``, that many views of each image are drawn once and their features, below the
    trained layers, kept in the folder ``features``, by default ``out``/features, where another run
    may find them (see ``kept.KeptViews``); with 0 new ones are drawn in each step. ``distil`` and
    ``virtual`` are the weights of the losses of ``guide.ClassGuide``, over ``classes_drawn``
    classes in each step. For a model of ``init``, ``teacher`` is the image part that it was made
    of, whose classifier then judges the images as it did before training. ``average`` is the decay
    per step of the moving average of the weights (see ``learner.Average``), which is then measured
    and written; with 0 the weights themselves are. ``int8_text`` writes the text tower's matrices
    as int8, ``finish`` changes the weights that are written, not those that are measured.
    """

    out: Path
    sources: tuple[PairSource, ...]
    init: Path | None = None
    vision: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)
    embed_dim: int | None = None
    merges: int = 6000
    image_tower: str | None = None
    text_tower: str | None = None
    hidden: int = 0
    queries: int = 0
    class_names: bool = False
    class_gain: float | None = None
    tune: str = "all"
    tune_image: str | None = None
    tune_text: str | None = None
    image_lr: float | None = None
    text_lr: float | None = None
    views: int = 0
    features: Path | None = None
    teacher: str | None = None
    distil: float = 0.0
    virtual: float = 0.0
    classes_drawn: int = 128
    average: float = 0.0
    int8_text: bool = False
    finish: Finish = field(default_factory=Finish)
    captions_per_image: int = 1
    class_prompts: bool = False
    image_size: int | None = None
    batch_size: int = 256
    accumulate: int = 1
    samples: int = 1_000_000
    lr: float = 1e-3
    weight_decay: float = 0.1
    muon: float = 0.0
    warmup: float = 0.05
    stop_after: int | None = None
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    workers: int = 2
    cache_gb: float = 4.0
    log_every: int = 20
    save_every: int = 200
    measure: tuple[PairSource, ...] = ()
    measure_every: int = 1000
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        """Raise ``ModelError`` for invalid values."""
        for name, (kind, wanted) in _KINDS.items():
            if not isinstance(getattr(self, name), kind):
                raise ModelError(f"{name} is {getattr(self, name)!r}; give {wanted}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not _is_whole(value, least):
                raise ModelError(f"{name} is {value!r}; give a whole number of {least} or more")
        rates = ("lr", "image_lr", "text_lr", "weight_decay", "muon", "warmup", "cache_gb")
        for name in (*rates, "distil", "virtual", "average", "class_gain"):
            value = getattr(self, name)
            if value is None and name in ("image_lr", "text_lr", "class_gain"):
                continue
            if not _is_number(value) or not 0 <= value < math.inf:
                raise ModelError(f"{name} is {value!r}; give a number of 0 or more")
        if self.class_gain == 0:
            raise ModelError("class_gain is 0; give a number above 0")
        if self.warmup > 1:
            raise ModelError(
                f"warmup is {self.warmup}, a share of the steps; give a number from 0 to 1"
            )
        if self.average >= 1:
            raise ModelError(f"average is {self.average}; give a decay from 0 to below 1")
        if self.seed > _GREATEST_SEED:
            raise ModelError(f"seed is {self.seed}; give one up to {_GREATEST_SEED}")
        for name in ("muon", "image_lr", "text_lr"):
            is_set = bool(self.muon) if name == "muon" else getattr(self, name) is not None
            if is_set and not self.lr:
                raise ModelError(f"{name} also needs the rate of the rest; give an lr above 0")
        if self.samples < self.batch_size:
            raise ModelError(
                f"samples is {self.samples}, less than one batch of {self.batch_size}; give more "
                "samples or a smaller batch_size"
            )
        self._check_shape()
        self._check_start()
        self._check_views()

    def _check_shape(self) -> None:
        """Check the fields of the towers."""
        for tower, known in _SHAPE.items():
            for name, value in getattr(self, tower).items():
                if name not in known:
                    raise ModelError(f"{tower} has no field {name!r}; it has {', '.join(known)}")
                is_list = (tower, name) == ("vision", "layers") and isinstance(value, list | tuple)
                if not all(_is_whole(number, 1) for number in (value if is_list else [value])):
                    raise ModelError(
                        f"{tower}: {name} is {value!r}; give whole numbers of 1 or more"
                    )
        is_vit = isinstance(self.vision.get("layers"), int)
        if is_vit != ("patch_size" in self.vision):
            raise ModelError(
                "vision: patch_size and one whole number of layers go together, as in "
                "'layers = 6' and 'patch_size = 16'; a ResNet has four stages and no patches"
            )

    def _check_start(self) -> None:
        """Check that what is trained and the model's shape agree with where training starts."""
        for name in ("tune", "tune_image", "tune_text"):
            value = getattr(self, name)
            if value not in (None, "all") and not str(value).isdecimal():
                raise ModelError(
                    f"{name} is {value!r}; give 'all' or a number of blocks, such as 2"
                )
        if (self.image_tower is None) != (self.text_tower is None):
            raise ModelError("image_tower and text_tower go together; give both")
        has_parts, is_new = self.image_tower is not None, self.init is None
        if has_parts and not is_new:
            raise ModelError(
                f"a model starts from image_tower and text_tower or from init ({self.init}), not "
                "both; leave one out"
            )
        if is_new and not has_parts and (self.tuned_image, self.tuned_text) != ("all", "all"):
            raise ModelError(
                "tune is for pretrained towers, but a new model is trained whole; give the model "
                "as --init, or its parts as --image-tower and --text-tower"
            )
        usual = {entry.name: entry.default for entry in fields(TrainOptions)}
        for name in ("hidden", "queries", "class_names"):
            if getattr(self, name) and not has_parts:
                raise ModelError(f"{name} is for a model made of parts; leave it out")
        shaped = [name for name in ("vision", "text", "merges") if self._is_set(name, usual)]
        if self.class_gain is not None and is_new and not self.class_names:
            raise ModelError(
                "class_gain is for a model with class names; set class_names or init, or leave it "
                "out"
            )
        if has_parts and shaped:
            raise ModelError(f"{shaped[0]} is for a model without parts; leave it out")
        if not is_new and (shaped or self.embed_dim is not None):
            name = [*shaped, "embed_dim"][0]
            raise ModelError(
                f"{name} is for a new model, but {self.init} has its own; leave one out"
            )

    def _is_set(self, name: str, usual: Mapping[str, Any]) -> bool:
        value = getattr(self, name)
        return bool(value) if isinstance(value, Mapping) else value != usual[name]

    def _check_views(self) -> None:
        """Check what needs, or is for, kept views."""
        if not self.views and any(source.views is not None for source in self.sources):
            raise ModelError("a source has views, but the run keeps none; set its views too")
        if self.views and self.tuned_image == "all":
            raise ModelError(
                f"views is {self.views}, but only locked layers' features can be kept; set "
                "tune_image to a number of blocks, or leave views out"
            )
        for name in ("features", "teacher"):
            if getattr(self, name) is not None and not self.views:
                raise ModelError(f"{name} is for kept views; set views to 1 or more")
        if self.teacher is not None and self.init is None:
            raise ModelError("teacher is for a model of init; a new one has its image_tower")
        for name in ("distil", "virtual"):
            if getattr(self, name) and not self.views:
                raise ModelError(f"{name} needs kept views; set views to 1 or more")
            if getattr(self, name) and self.accumulate > 1:
                raise ModelError(f"{name} needs the whole batch; leave accumulate out")

    @property
    def tuned_image(self) -> str:
        """What of the image tower is trained: "all" or a number of blocks."""
        return self.tune if self.tune_image is None else self.tune_image

    @property
    def tuned_text(self) -> str:
        """What of the text tower is trained: "all" or a number of blocks."""
        return self.tune if self.tune_text is None else self.tune_text

    @property
    def steps(self) -> int:
        """The number of updates."""
        return self.samples // self.batch_size

    def config(self, vocab_size: int) -> ClipConfig:
        """Return the configuration of a new model: a small ResNet by default.

        The run's ``image_size`` takes precedence over that of ``vision``.
        """
        vision = {"image_size": 64, "layers": [2, 2, 3, 2], "width": 32} | dict(self.vision)
        if self.image_size:
            vision["image_size"] = self.image_size
        text = {"width": 256, "heads": 4, "layers": 4} | dict(self.text)
        shape = {
            "embed_dim": self.embed_dim or _NEW_WIDTH,
            "vision_cfg": vision,
            "quick_gelu": True,
        }
        return ClipConfig.from_dict(shape | {"text_cfg": text | {"vocab_size": vocab_size}})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= least


def read_recipe(path: Path, *, folder: Path | None = None, **overrides: Any) -> TrainOptions:
    """Read options from a TOML recipe; its paths are relative to ``folder`` or the recipe's own.

    ``[[sources]]`` and ``[[measure]]`` tables hold ``images`` (a list), ``captions`` or ``labels``
    and ``classes``, ``split``, ``weight``, ``exclude`` (a list), ``views``, ``hypernyms`` (a table
    of lists); ``[augmentation]`` the fields of ``Augmentation``; ``[vision]`` and ``[text]`` the
    shape; everything else has the options' own names. Towers that are not the name of a part are
    paths. Overrides that are None leave the recipe's value. Raise ``ModelError`` for anything
    unknown.
    """
    folder = path.parent if folder is None else folder
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise ModelError(f"cannot read the recipe {path}: {exc}") from exc
    for name, parts in _NAMED.items():
        if isinstance(data.get(name), str) and data[name] not in parts:
            data[name] = str(_placed(data[name], folder))
    data |= {name: value for name, value in overrides.items() if value is not None}
    known = {entry.name for entry in fields(TrainOptions)}
    if unknown := sorted(set(data) - known):
        raise ModelError(f"{path}: unknown option {unknown[0]!r}; use {', '.join(sorted(known))}")
    if "sources" not in data:
        raise ModelError(f"{path} has no data; add [[sources]], or give --images")
    try:
        for name in ("sources", "measure"):
            if name in data and not isinstance(data[name], tuple):
                data[name] = _sources(name, data[name], folder)
        if isinstance(data.get("augmentation"), dict):
            data["augmentation"] = _augmentation(data["augmentation"])
        if isinstance(data.get("finish"), dict):
            data["finish"] = Finish.from_dict(data["finish"])
    except ModelError as exc:
        raise ModelError(f"{path} is not a training recipe: {exc}") from exc
    for name in ("init", "out", "features"):
        if isinstance(data.get(name), str):
            data[name] = _placed(data[name], folder)
    for name in ("tune", "tune_image", "tune_text"):
        if _is_whole(data.get(name), 0):
            data[name] = str(data[name])
    return TrainOptions(**data)


def _placed(path: str, folder: Path) -> Path:
    """Return a recipe's path, of which a relative one lies in ``folder``."""
    return folder / user_path(path)


def _sources(name: str, entries: Any, folder: Path) -> tuple[PairSource, ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{name} is {entries!r}; give tables, as [[{name}]]")
    return tuple(_source(entry, folder) for entry in entries)


def _source(entry: Mapping[str, Any], folder: Path) -> PairSource:
    known = [field.name for field in fields(PairSource)]
    if unknown := sorted(entry.keys() - known):
        raise ModelError(f"a source has no field {unknown[0]!r}; it has {', '.join(known)}")
    if not entry.get("images"):
        raise ModelError("a source has no images; give it a list of folders or tars")
    files = {
        name: _placed(_text(name, entry[name]), folder)
        for name in ("captions", "labels", "classes")
        if name in entry
    }
    hypernyms, weight = entry.get("hypernyms", {}), entry.get("weight", 1.0)
    if not isinstance(hypernyms, dict):
        raise ModelError(f"hypernyms is {hypernyms!r}; give a table of lists")
    if not _is_number(weight) or not 0 < weight < math.inf:
        raise ModelError(f"a source's weight is {weight!r}; give a number above 0")
    views = entry.get("views")
    if views is not None and not _is_whole(views, 1):
        raise ModelError(f"a source's views is {views!r}; give a whole number of 1 or more")
    return PairSource(
        views=views,
        images=tuple(_placed(path, folder) for path in _words("images", entry["images"])),
        split=_text("split", entry["split"]) if "split" in entry else None,
        weight=float(weight),
        exclude=_words("exclude", entry.get("exclude", [])),
        hypernyms={name: _words(name, names) for name, names in hypernyms.items()},
        **files,
    )


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ModelError(f"a source's {name} is {value!r}; give it as text")
    return value


def _words(name: str, value: Any) -> tuple[str, ...]:
    """Return a field's list of texts; raise ``ModelError`` for anything else."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(w, str) and w.strip("* ") for w in words):
        raise ModelError(f"a source's {name} is {value!r}; give a list of words")
    return tuple(words)


def _augmentation(entry: Mapping[str, Any]) -> Augmentation:
    known = [field.name for field in fields(Augmentation)]
    if unknown := sorted(entry.keys() - known):
        raise ModelError(f"augmentation has no field {unknown[0]!r}; it has {', '.join(known)}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()
    }
    return Augmentation(**values)
