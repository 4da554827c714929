"""Train or fine-tune a CLIP on image-caption pairs.

The objective and the recipe's outline (symmetric contrastive loss, AdamW, warm-up and cosine) are
those of Radford et al. 2021 (arXiv:2103.00020), sections 2.3 and 2.5.
"""

import copy
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from fovea.search.clip.checkpoints.checkpoint import find_weights, load_clip, weights_sha256
from fovea.search.clip.checkpoints.export import save_model
from fovea.search.clip.datasets.pairs import PairSet, open_pairs
from fovea.search.clip.efficientnet import EfficientNetLite
from fovea.search.clip.encoders.base import keep_allocations
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP, initialise
from fovea.search.clip.parts.finishing import finished
from fovea.search.clip.parts.joining import joined, with_class_gain
from fovea.search.clip.parts.packaged import (
    IMAGE_PARTS,
    TEXT_PARTS,
    class_names,
    open_image_part,
    open_text_part,
)
from fovea.search.clip.protocols import TextTokenizer
from fovea.search.clip.tokenizer import Tokenizer, learn_merges, open_tokenizer
from fovea.search.clip.user_path import user_path
from fovea.search.clip.wordpiece import WordPiece

from .batches import Batches
from .distributed import World, agree, joined_world
from .guide import ClassGuide, check_guidable
from .held_out import HeldOut
from .kept import KeptViews
from .learner import Diverged, Learner
from .partial import freeze_batch_norm, resized
from .recipe import TrainOptions
from .run_folder import RunFolder
from .split import Halves

# the options whose values must be equal for a run to resume, as they are
_IDENTIFYING = (
    *("seed", "batch_size", "samples", "lr", "weight_decay", "warmup"),
    *("captions_per_image", "class_prompts", "muon", "image_lr", "text_lr", "views"),
    *("class_gain", "distil", "virtual", "classes_drawn", "average"),
)


@dataclass(frozen=True, slots=True)
class Metrics:
    """One line of a run's record; means and rates are over the interval since the line before.

    ``left_out`` counts the images that could not be decoded: those met since the run last started
    or, with kept views, all of them. ``empty_captions`` and images ``without_words`` were left out
    before the first step. ``held_out`` holds the figures of ``held_out.HeldOut``, empty where
    nothing was measured.
    """

    step: int
    steps: int
    samples: int
    loss: float
    lr: float
    scale: float
    images_per_s: float
    left_out: int = 0
    empty_captions: int = 0
    without_words: int = 0
    held_out: dict[str, float] = field(default_factory=dict)


def train(
    options: TrainOptions,
    on_metrics: Callable[[Metrics], None] | None = None,
    on_features: Callable[[int, int], None] | None = None,
) -> Path:
    """Train as asked and return the folder of the model, ``options.out``/model.

    Resume from ``options.out``/checkpoint.pt if an interrupted run left one; on a CPU the weights
    are then bit for bit those of an uninterrupted run. ``metrics.jsonl`` in the same folder gets a
    line every ``log_every`` steps and for each measurement. Where views are kept, ``on_features``
    is called before the first step with the images done and all of them. Raise ``ModelError`` for
    unreadable data, a checkpoint of another run, a full disk and a loss that is not finite; the
    last checkpoint stays intact.
    """
    keep_allocations()
    with joined_world(options.device) as world:
        run = _Run(options, world, on_features)
        for metrics in run.steps():
            if world.leads:
                run.folder.append(asdict(metrics))
                if on_metrics is not None:
                    on_metrics(metrics)
        if world.leads:
            with run.learner.averaged():
                model = finished(run.learner.model, options.finish)
                folder = options.out / "model"
                save_model(model, run.tokenizer, folder, int8_text=options.int8_text)
    return options.out / "model"


class _Run:
    """One training run after ``step`` updates: its data, learner and folder.

    ``losses`` are those since the last line of metrics.
    """

    def __init__(
        self,
        options: TrainOptions,
        world: World,
        on_features: Callable[[int, int], None] | None = None,
    ) -> None:
        if options.batch_size % (world.size * options.accumulate):
            raise ModelError(
                f"a batch of {options.batch_size} cannot be split evenly into {world.size} "
                f"processes times {options.accumulate} slices; choose a multiple"
            )
        if not options.sources:
            raise ModelError("nothing to train on; give captions and images")
        if options.views and world.size > 1:
            raise ModelError(
                f"views are kept by one process, not by {world.size}; leave views out, or start "
                "without torchrun"
            )
        self.options, self.world = options, world
        sets = [open_pairs(source) for source in options.sources]
        self.held_out = HeldOut(options.measure) if world.leads and options.measure else None
        model, self.tokenizer = _first_model(options, sets)
        if options.distil or options.virtual:
            check_guidable(model)
        self.batches = Batches(
            sets,
            self.tokenizer,
            image_size=model.config.vision.image_size,
            batch_size=options.batch_size,
            context_length=model.config.text.context_length,
            augmentation=options.augmentation,
            captions=options.captions_per_image,
            class_prompts=options.class_prompts,
            seed=options.seed,
            rank=world.rank,
            world=world.size,
            workers=options.workers,
            # kept views need each image once
            cache_bytes=0 if options.views else int(options.cache_gb * (1 << 30) / world.size),
        )
        self.learner = Learner(model, options, world)
        identity = _identity(options, model, sets, self.tokenizer)
        self.folder = RunFolder(options.out, identity, partial(_completed, identity))
        if self.learner.halves is not None:
            self._keep_views(self.learner.halves, identity, on_features)
        self.losses: list[float] = []
        self.step = self._resume()

    def _keep_views(
        self,
        halves: Halves,
        identity: Mapping[str, Any],
        on_features: Callable[[int, int], None] | None,
    ) -> None:
        """Compute the locked layers' features, or find those of an earlier start."""
        options, model = self.options, self.learner.model
        size = model.config.vision.image_size
        known = {name: identity[name] for name in ("init", "image_tower", "data", "tune_image")}
        if options.teacher is not None:
            halves = Halves(_teacher(model, options.teacher, halves), int(options.tuned_image), 0)
            known |= {"init": None, "image_tower": identity["teacher"]}
        kept = KeptViews(
            options.features or options.out / "features",
            halves.eval(),
            self.batches.sets,
            [options.views if source.views is None else source.views for source in options.sources],
            replace(options.augmentation, words=0.0),  # which is no matter of images
            seed=options.seed,
            identity=known | {"size": size},
        )
        kept.compute(self.batches.open_image, size, options.workers, on_features)
        self.batches.kept = kept
        if isinstance(model.visual, EfficientNetLite) and (options.distil or options.virtual):
            self.learner.guide = ClassGuide(
                model,
                self.tokenizer,
                class_names(model.visual.classes),
                kept.whole(),
                classes=options.classes_drawn,
                seed=options.seed,
            )
        model.train()
        freeze_batch_norm(model, options.tuned_image)

    def _resume(self) -> int:
        """Restore the last checkpoint, if there is one; return its step."""
        saved = self.folder.load()
        step = int(saved["step"]) if saved else 0
        if not agree(step, self.world, self.learner.device):
            raise ModelError(
                f"not every process finds the same checkpoint in {self.options.out}; put --out on "
                "a disk that all machines share"
            )
        if saved:
            self.learner.restore(saved)
            self.losses = saved["losses"]
        if self.world.leads:
            self.folder.rewind(step)
        return step

    def steps(self) -> Iterator[Metrics]:
        """Make the remaining updates; yield the metrics when they are due."""
        options = self.options
        made, began = 0, time.perf_counter()
        end = min(options.steps, options.stop_after or options.steps)
        with closing(self.batches.from_step(self.step)) as batches:
            for batch in islice(batches, max(0, end - self.step)):
                rate = learning_rate(self.step, options.steps, options.lr, options.warmup)
                with self._explained():
                    self.losses.append(self.learner.update(batch, rate))
                self.step, made = self.step + 1, made + 1
                measuring = bool(options.measure) and self._due(options.measure_every, end)
                if self._due(options.log_every, end) or measuring:
                    speed = made * options.batch_size / max(time.perf_counter() - began, 1e-9)
                    yield self._metrics(rate, speed, measuring)
                    self.losses = []
                    made, began = 0, time.perf_counter()
                if self.world.leads and self._due(options.save_every, end):
                    self._save()

    def _due(self, interval: int, end: int) -> bool:
        return self.step % interval == 0 or self.step == end

    def _save(self) -> None:
        with self._explained():
            state = self.learner.state()
        self.folder.save(self.step, {**state, "losses": self.losses})

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Add to the error of a diverging run what remains of it."""
        try:
            yield
        except Diverged as exc:
            raise ModelError(f"{exc}; {self.folder.last_good('--stop-after')}") from exc

    def _metrics(self, rate: float, speed: float, measuring: bool) -> Metrics:
        """Return a line of metrics, with the held-out figures in the first process only."""
        figures, learner = {}, self.learner
        if measuring and self.held_out is not None:
            with learner.averaged():
                figures = self.held_out.figures(
                    learner.model, self.tokenizer, learner.device, learner.dtype
                )
        return Metrics(
            step=self.step,
            steps=self.options.steps,
            samples=self.step * self.options.batch_size,
            loss=sum(self.losses) / len(self.losses),
            lr=rate,
            scale=learner.scale,
            images_per_s=speed,
            left_out=self.batches.left_out,
            empty_captions=sum(pairs.empty_captions for pairs in self.batches.sets),
            without_words=sum(pairs.without_words for pairs in self.batches.sets),
            held_out=figures,
        )


def learning_rate(step: int, steps: int, highest: float, warmup: float) -> float:
    """Return the rate of one step of ``steps``: a linear rise, then half a cosine down to zero.

    ``warmup`` is the share of the steps that rise to the ``highest`` rate.
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return highest * (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return highest * 0.5 * (1 + math.cos(math.pi * done))


def _first_model(options: TrainOptions, sets: Sequence[PairSet]) -> tuple[CLIP, TextTokenizer]:
    """Load the model to fine-tune, join parts, or initialise a model.

    The vocabulary of an initialised one is learned from the data.
    """
    torch.manual_seed(options.seed)
    if options.image_tower is not None and options.text_tower is not None:
        image, text = open_image_part(options.image_tower), open_text_part(options.text_tower)
        if options.class_names and not image.classes:
            raise ModelError(
                f"class_names needs a classifier, but {options.image_tower} has none; leave it out"
            )
        model = joined(
            image,
            text,
            embed_dim=options.embed_dim,
            image_size=options.image_size,
            hidden=options.hidden,
            queries=options.queries,
            names=class_names(image.classes) if options.class_names else (),
        )
        return with_class_gain(model, options.class_gain), text.tokenizer
    if options.init is None:
        learned = Tokenizer(learn_merges(_all_texts(sets), options.merges))
        model = CLIP(options.config(learned.vocab_size))
        initialise(model)
        return model, learned
    model = with_class_gain(load_clip(options.init), options.class_gain)
    config = model.config
    folder = find_weights(options.init).parent
    tokenizer = open_tokenizer(folder, config.text.tokenizer, config.text.vocab_size)
    return resized(model, options.image_size) if options.image_size else model, tokenizer


def _teacher(model: CLIP, part: str, halves: Halves) -> CLIP:
    """Return a copy of a model with the image part's own weights, as before it was trained.

    Raise ``ModelError`` if the part is another network, if the model's locked layers, their running
    statistics included, are not the part's but for rounding to float16, and if none is locked.
    """
    locked = [f"visual.{name}" for name in halves.locked_names()]
    if not locked:
        raise ModelError(
            "teacher is for a model with locked blocks, but tune_image trains all of them; lower "
            "it, or leave teacher out"
        )
    teacher = copy.deepcopy(model)
    own = teacher.state_dict()
    state = {
        name: tensor
        for name, tensor in open_image_part(part).state.items()
        if name in own or not name.startswith("visual.fc.")  # which a model may do without
    }
    for name in sorted({*state, *locked}):
        fits = name in state and name in own and own[name].shape == state[name].shape
        if fits and name in locked:
            fits = torch.allclose(own[name].cpu().float(), state[name].float(), 1e-3, 1e-6)
        if not fits:
            raise ModelError(f"the model was not made of {part}: {name} differs; leave teacher out")
    teacher.load_state_dict(state, strict=False)
    return teacher


def _all_texts(sets: Sequence[PairSet]) -> Iterator[str]:
    """Yield the captions, and each class's names in proportion to its images."""
    for pairs in sets:
        for pair in pairs.pairs:
            yield from pair.captions
        for names in pairs.class_names.values():
            yield from names * max(2, len(pairs.pairs) // (10 * len(pairs.class_names)))


def _identity(
    options: TrainOptions, model: CLIP, sets: Sequence[PairSet], tokenizer: TextTokenizer
) -> dict[str, Any]:
    """Return what must be equal for a run to resume from a checkpoint."""
    own_views = [source.views for source in options.sources]
    return {
        **{name: getattr(options, name) for name in _IDENTIFYING},
        **({"source_views": own_views} if any(own_views) else {}),
        "image_tower": _part_identity(options.image_tower, IMAGE_PARTS),
        "text_tower": _part_identity(options.text_tower, TEXT_PARTS),
        **({"teacher": _part_identity(options.teacher, IMAGE_PARTS)} if options.teacher else {}),
        "augmentation": json.dumps(asdict(options.augmentation)),
        "config": json.dumps(model.config.to_dict()),
        "tune_image": options.tuned_image,
        "tune_text": options.tuned_text,
        "vocabulary": _vocabulary(tokenizer),
        **({"names": _names_crc(model)} if _names_classes(options) else {}),
        "init": options.init and weights_sha256(find_weights(options.init)),
        "pairs": [len(pairs.pairs) for pairs in sets],
        "data": [pairs.digest() for pairs in sets],
        "weights": [pairs.weight for pairs in sets],
        "hypernyms": json.dumps([dict(pairs.hypernyms) for pairs in sets]),
    }


def _completed(identity: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a checkpoint with what one from before newer options does not say.

    It then had their usual values, and ``tune`` for both towers. Which names classes had was not
    noted at first: they are those of ``identity``.
    """
    usual = {entry.name: entry.default for entry in fields(TrainOptions)}
    known = {name: usual[name] for name in (*_IDENTIFYING, "image_tower", "text_tower")}
    known |= {tower: run.get("tune", "all") for tower in ("tune_image", "tune_text")}
    known |= {name: identity[name] for name in ("names",) if name in identity}
    return known | {name: value for name, value in run.items() if name != "tune"}


def _names_classes(options: TrainOptions) -> bool:
    """Whether the names of the classifier's classes change what a run learns."""
    return bool(options.class_names or options.distil or options.virtual)


def _names_crc(model: CLIP) -> int:
    """Hash the names of the classifier's classes."""
    assert isinstance(model.visual, EfficientNetLite)
    return zlib.crc32(json.dumps(class_names(model.visual.classes)).encode())


def _part_identity(part: str | None, named: Mapping[str, object]) -> str | None:
    """Return the name of a packaged part, or the SHA-256 of the weights in a folder."""
    if part is None or part in named:
        return part
    return weights_sha256(find_weights(user_path(part)))


def _vocabulary(tokenizer: TextTokenizer) -> int:
    """Hash the vocabulary, of either kind."""
    assert isinstance(tokenizer, Tokenizer | WordPiece)
    found = tokenizer.merges if isinstance(tokenizer, Tokenizer) else tokenizer.entries
    return zlib.crc32(repr(tuple(found)).encode())
