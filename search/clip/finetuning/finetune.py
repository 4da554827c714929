"""Fine-tune the last blocks and the projections of a model on precomputed features.

The loss is CLIP's own (Radford et al. 2021, arXiv:2103.00020, figure 3) plus that of learning
without forgetting (Li and Hoiem 2016, arXiv:1606.09282), which keeps the model's likelihoods of
general labels for each image as they were. Images without captions are rehearsed with the others
(Rebuffi et al. 2017, arXiv:1611.07725): their embeddings, and the labels', should not move.
"""

import json
import logging
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.search.clip.config import ClipConfig
from fovea.search.clip.datasets.pairs import tag
from fovea.search.clip.datasets.stored_array import StoredArray
from fovea.search.clip.encoders.base import pick_device
from fovea.search.clip.errors import ModelError
from fovea.search.clip.evaluation.evaluate import shared_recalls
from fovea.search.clip.model import CLIP
from fovea.search.clip.protocols import TextTokenizer
from fovea.search.clip.training.learner import (
    Diverged,
    apply_update,
    finite,
    make_adamw,
    mixed_precision,
    training_dtype,
)
from fovea.search.clip.training.losses import contrastive_loss, hidden_negatives
from fovea.search.clip.training.partial import choose_trainable
from fovea.search.clip.training.run_folder import RunFolder
from fovea.search.clip.training.split import Halves
from fovea.search.clip.training.train import Metrics, learning_rate

log = logging.getLogger(__name__)

ROWS = 64  # in one pass without gradients; fixed, so that results are the same bits
PROMPT = "a photo of a {}."
SMALL_WIDTH = 256  # largest text width of a small model, such as the bundled one


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """The options of fine-tuning.

    ``tune`` is the number of last blocks of each tower to train, with the projections; ``keep`` the
    weight of earlier knowledge relative to the new captions. ``lr`` is the highest learning rate,
    by default ``usual_rate``.
    """

    tune: int = 3
    epochs: int = 20
    batch_size: int = 128
    lr: float | None = None
    weight_decay: float = 0.1
    warmup: float = 0.1
    keep: float = 1.0
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    log_every: int = 10
    save_every: int = 50

    def __post_init__(self) -> None:
        """Raise ``ModelError`` for invalid values."""
        least = {"tune": 0, "epochs": 1, "batch_size": 2, "seed": 0}
        least |= {"log_every": 1, "save_every": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ModelError(f"{name} is {getattr(self, name)}; give a number of {low} or more")
        for name in ("lr", "weight_decay", "warmup", "keep"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ModelError(f"{name} is {value}; give a number of 0 or more")


def usual_rate(config: ClipConfig) -> float:
    """Return the default learning rate: lower for wide models, which know more."""
    return 1e-3 if config.text.width <= SMALL_WIDTH else 1e-4


@dataclass(frozen=True, slots=True)
class TuningExample:
    """An image: ``features`` float16 (views, …), the first view uncropped."""

    content: bytes  # its SHA-256
    captions: tuple[str, ...]
    features: np.ndarray | StoredArray


@dataclass(frozen=True, slots=True)
class Figures:
    """Recall of the held-out images by their captions, and the reverse."""

    pictures: int
    captions: int
    text_to_image: dict[int, float]  # recall by k, 0 to 1
    image_to_text: dict[int, float]

    @property
    def mean(self) -> float:
        """The mean of all recalls, which depends little on single images."""
        recalls = [*self.text_to_image.values(), *self.image_to_text.values()]
        return sum(recalls) / len(recalls)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model before and after fine-tuning.

    ``agreement`` is the share of the ``general`` images, none of them trained on, whose likeliest
    general label before is among the five likeliest now.
    """

    before: Figures
    after: Figures
    agreement: float
    general: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TuningSet:
    """Images to train on, to measure with, and to remember.

    ``labels`` are general words, and the model's answers for the ``general`` images show whether
    it forgets them. The ``rehearsed`` images have no captions; their embeddings should not move.
    """

    learned: Sequence[TuningExample]
    held_out: Sequence[TuningExample]
    general: Sequence[TuningExample]
    labels: Sequence[str]
    rehearsed: Sequence[TuningExample] = ()


def finetune(
    model: CLIP,
    tokenizer: TextTokenizer,
    material: TuningSet,
    options: TuneOptions,
    folder: Path,
    on_metrics: Callable[[Metrics], None] | None = None,
) -> Comparison:
    """Tune ``model`` in place and compare it with the original.

    ``folder`` keeps the checkpoint and ``metrics.jsonl``; a repeated call resumes a killed run, on
    a CPU to the same weights bit for bit. Raise ``ModelError`` for a loss that is not finite and a
    full disk; the last checkpoint stays intact.
    """
    tuner = _Tuner(model, tokenizer, material, options)
    before, agreed = tuner.figures(), tuner.likeliest(1)
    run = RunFolder(folder, tuner.identity())
    if saved := run.load():
        tuner.restore(saved)
    run.rewind(tuner.step)
    for metrics in _steps(tuner, run):
        run.append(asdict(metrics))
        if on_metrics is not None:
            on_metrics(metrics)
    now = tuner.likeliest(5)
    agreement = float((now == agreed).any(axis=1).mean()) if len(now) else 1.0
    return Comparison(before, tuner.figures(), agreement, len(now))


def _steps(tuner: "_Tuner", run: RunFolder) -> Iterator[Metrics]:
    """Make the remaining updates; yield the metrics when they are due."""
    options, end = tuner.options, tuner.steps
    made, began = 0, time.perf_counter()
    while tuner.step < end:
        try:
            tuner.losses.append(tuner.update())
            made += 1
            if tuner.step % options.log_every == 0 or tuner.step == end:
                speed = made * tuner.batch_size / max(time.perf_counter() - began, 1e-9)
                yield tuner.metrics(speed)
                tuner.losses = []
                made, began = 0, time.perf_counter()
            if tuner.step % options.save_every == 0 or tuner.step == end:
                run.save(tuner.step, tuner.state())
        except Diverged as exc:
            raise ModelError(f"{exc}; {run.last_good()}") from exc


class _Tuner:
    """A model's upper half after ``step`` updates.

    ``losses`` are those since the last line of metrics.
    """

    def __init__(
        self, model: CLIP, tokenizer: TextTokenizer, material: TuningSet, options: TuneOptions
    ) -> None:
        if not material.learned or not material.held_out:
            raise ModelError("tuning needs captioned pictures both to learn from and to hold out")
        self.options, self.material = options, material
        self.device = pick_device(options.device)
        self.dtype = training_dtype(options.dtype, self.device)
        choose_trainable(model, str(options.tune), str(options.tune))
        self.halves = Halves(model, options.tune, options.tune).eval().to(self.device)
        self.optimizer = make_adamw(model, options.weight_decay)
        self.batch_size = min(options.batch_size, len(material.learned))
        self.steps = math.ceil(len(material.learned) / self.batch_size) * options.epochs
        self.lr = usual_rate(model.config) if options.lr is None else options.lr
        self.step = 0
        self.losses: list[float] = []
        prompts = [PROMPT.format(label) for label in material.labels]
        captioned = (*material.learned, *material.held_out)
        texts = [text for example in captioned for text in example.captions]
        self.texts = _Texts(self.halves, tokenizer, [*texts, *prompts], self._compute)
        self._prompts = self.texts.numbers(prompts)
        self._views = len(material.learned[0].features)
        self._keep = options.keep if prompts else 0.0
        if self._keep:
            self._remember()

    def _remember(self) -> None:
        """Remember the original embeddings of images and labels."""
        self._old_scale = self.halves.model.logit_scale.exp().item()
        self._old_labels = self.embed_texts(self._prompts)
        self._old_rows, self._rehearsed_rows = (
            [self.embed_images(examples, view).half() for view in range(self._views)]
            for examples in (self.material.learned, self.material.rehearsed)
        )

    def _compute(self) -> torch.autocast:
        return mixed_precision(self.device, self.dtype)

    def _rate(self, step: int) -> float:
        return learning_rate(step, self.steps, self.lr, self.options.warmup)

    # One update

    def update(self) -> float:
        """Make one update and return its loss; see ``apply_update``."""
        model, rate = self.halves.model, self._rate(self.step)
        loss = apply_update(model, [self.optimizer], rate, self._backward, self.step)
        self.step += 1
        return loss

    def _backward(self) -> Tensor:
        loss = self._loss(*self._draw())
        loss.backward()
        return loss.detach()

    def _draw(self) -> tuple[list[int], int, list[str], list[int]]:
        """Return the numbers of this step's images, their common view, a caption of each, and the
        numbers of the images to rehearse."""
        learned, rng = self.material.learned, np.random.default_rng((self.options.seed, self.step))
        numbers = []
        for place in range(self.step * self.batch_size, (self.step + 1) * self.batch_size):
            epoch, offset = divmod(place, len(learned))
            numbers.append(int(_order(self.options.seed, epoch, len(learned))[offset]))
        view = int(rng.integers(self._views))
        captions = [learned[n].captions for n in numbers]
        drawn = [texts[int(rng.integers(len(texts)))] for texts in captions]
        known = len(self.material.rehearsed) if self._keep else 0
        rehearsed = rng.permutation(known)[: self.batch_size].tolist()
        return numbers, view, drawn, rehearsed

    def _loss(self, numbers: list[int], view: int, captions: list[str], known: list[int]) -> Tensor:
        learned = [self.material.learned[number] for number in numbers]
        rehearsed = [self.material.rehearsed[number] for number in known]
        features = self._features([*learned, *rehearsed], view)
        wanted = [*self.texts.numbers(captions), *(self._prompts if self._keep else ())]
        with self._compute():
            images = self.halves.upper_images(features)
            texts = self.halves.upper_texts(*self.texts.features(wanted))
        count = len(numbers)
        scale = self.halves.model.logit_scale.exp()
        owners = torch.arange(count, device=self.device)
        hidden = hidden_negatives(self._tags(learned), owners, torch.zeros_like(owners), owners)
        loss = contrastive_loss(images[:count], texts[:count], scale, owners, hidden)
        if self._keep:
            labels = texts[count:]
            old = self._old_rows[view][numbers], self._rehearsed_rows[view][known]
            lost = self._forgotten(images, labels, torch.cat(old).float())
            lost = lost + self._moved(labels, self._old_labels)
            if known:
                lost = lost + self._moved(images[count:], old[1].float())
            loss = loss + self._keep * lost
        return loss

    def _moved(self, rows: Tensor, old: Tensor) -> Tensor:
        """Return how far unit rows (n, d) have moved: the mean drop, in nats, of each row's logit
        with its original."""
        return self._old_scale * (1 - (rows * old).sum(dim=1)).mean()

    def _forgotten(self, images: Tensor, labels: Tensor, old: Tensor) -> Tensor:
        """Return how far the labels' likelihoods have moved: a divergence in nats per image.

        ``old`` are the images' original rows.
        """
        then = (self._old_scale * old @ self._old_labels.T).log_softmax(dim=1)
        now = (self._old_scale * images @ labels.T).log_softmax(dim=1)
        return F.kl_div(now, then, reduction="batchmean", log_target=True)

    def _tags(self, examples: Sequence[TuningExample]) -> Tensor:
        """Return int64 (n, m): the tags that an image must not share with its negatives."""
        rows = [[tag(text.strip().lower()) for text in example.captions] for example in examples]
        width = max(map(len, rows)) + 1
        filled = [
            [tag(example.content.hex()), *row, *[-1] * (width - 1 - len(row))]
            for example, row in zip(examples, rows, strict=True)
        ]
        return torch.tensor(filled, device=self.device)

    def _features(self, examples: Sequence[TuningExample], view: int) -> Tensor:
        rows = np.stack([example.features[view] for example in examples])
        return torch.from_numpy(rows).to(self.device).float()

    # Measuring

    @torch.no_grad()
    def embed_images(self, examples: Sequence[TuningExample], view: int = 0) -> Tensor:
        """Return unit rows (n, d) of one view of each image."""
        rows = [torch.empty(0, self.halves.model.config.embed_dim, device=self.device)]
        for start in range(0, len(examples), ROWS):
            features = self._features(examples[start : start + ROWS], view)
            with self._compute():
                rows.append(self.halves.upper_images(features))
        return torch.cat(rows)

    @torch.no_grad()
    def embed_texts(self, numbers: Sequence[int]) -> Tensor:
        """Return unit rows (n, d) of texts, given by their numbers in ``texts``."""
        rows = []
        for start in range(0, len(numbers), ROWS):
            with self._compute():
                features = self.texts.features(numbers[start : start + ROWS])
                rows.append(self.halves.upper_texts(*features))
        return torch.cat(rows)

    def figures(self) -> Figures:
        """Measure on the held-out images; a caption that several share is right for each.

        Raise ``Diverged`` if an embedding is not finite.
        """
        held_out = self.material.held_out
        captions = sorted({text for example in held_out for text in example.captions})
        place = {text: number for number, text in enumerate(captions)}
        right = np.zeros((len(held_out), len(captions)), bool)
        for row, example in zip(right, held_out, strict=True):
            row[[place[text] for text in example.captions]] = True
        images = self.embed_images(held_out).cpu().numpy()
        texts = self.embed_texts(self.texts.numbers(captions)).cpu().numpy()
        if not (np.isfinite(images).all() and np.isfinite(texts).all()):
            hint = "lower the learning rate" if self.step else "fetch the model again"
            raise Diverged(f"the embeddings are not finite after {self.step} updates; {hint}")
        return Figures(len(held_out), len(captions), **shared_recalls(images, texts, right))

    def likeliest(self, k: int) -> np.ndarray:
        """Return int (n, k): the labels nearest to each general image."""
        if not self.material.general or not self._prompts:
            return np.empty((0, k), np.int64)
        scores = self.embed_images(self.material.general) @ self.embed_texts(self._prompts).T
        found: np.ndarray = scores.topk(min(k, scores.shape[1]), dim=1).indices.cpu().numpy()
        return found

    def metrics(self, speed: float) -> Metrics:
        """Return a line of metrics, with the held-out figures."""
        recall = self.figures().text_to_image
        return Metrics(
            step=self.step,
            steps=self.steps,
            samples=self.step * self.batch_size,
            loss=sum(self.losses) / len(self.losses),
            lr=self._rate(self.step - 1),
            scale=self.halves.model.logit_scale.exp().item(),
            images_per_s=speed,
            held_out={f"held out: recall@{k}": share for k, share in recall.items()},
        )

    # Resuming

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for a run to resume from a checkpoint."""
        names = ("tune", "epochs", "batch_size", "weight_decay", "warmup", "keep", "seed")
        return {
            **{name: getattr(self.options, name) for name in names},
            "lr": self.lr,
            "config": json.dumps(self.halves.model.config.to_dict()),
            "pictures": fingerprint(self.material),
        }

    def state(self) -> dict[str, Any]:
        """Return everything that an update changes; raise ``Diverged`` if it is not finite."""
        tuned = {
            name: tensor.detach()
            for name, tensor in self.halves.model.named_parameters()
            if tensor.requires_grad
        }
        optimizer = self.optimizer.state_dict()
        return {"tuned": finite(tuned), "optimizer": optimizer, "losses": self.losses}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.halves.model.load_state_dict(saved["tuned"], strict=False)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.losses = int(saved["step"]), saved.get("losses", [])


class _Texts:
    """The features of texts, computed once and kept in memory as float16."""

    def __init__(
        self,
        halves: Halves,
        tokenizer: TextTokenizer,
        texts: Sequence[str],
        compute: Callable[[], torch.autocast],
    ) -> None:
        unique = sorted(set(texts), key=lambda text: (len(text), text))  # similar lengths together
        self._places = {text: number for number, text in enumerate(unique)}
        self._device = halves.model.logit_scale.device
        self._rows: list[np.ndarray] = []  # (l, w) each
        length = halves.model.config.text.context_length
        for start in range(0, len(unique), ROWS):
            tokens = tokenizer.tokenize(unique[start : start + ROWS], length)
            lengths = tokenizer.lengths(tokens)
            tokens = tokens[:, : int(lengths.max())]
            with torch.no_grad(), compute():
                rows = halves.lower_texts(torch.from_numpy(tokens).to(self._device))
            for row, own in zip(rows.half().cpu().numpy(), lengths, strict=True):
                self._rows.append(row[:own].copy())

    def numbers(self, texts: Sequence[str]) -> list[int]:
        """Return the numbers of these texts."""
        return [self._places[text] for text in texts]

    def features(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return features (n, l, w), padded to the longest, and each text's length, (n,)."""
        rows = [self._rows[number] for number in numbers]
        lengths = np.array([len(row) for row in rows])
        out = np.zeros((len(rows), int(lengths.max()), rows[0].shape[1]), np.float32)
        for place, row in zip(out, rows, strict=True):
            place[: len(row)] = row
        return torch.from_numpy(out).to(self._device), torch.from_numpy(lengths).to(self._device)


def fingerprint(material: TuningSet) -> int:
    """Hash the images, captions and labels, on which a run's results depend."""
    parts = [
        [(example.content.hex(), example.captions) for example in examples]
        for examples in (material.learned, material.held_out, material.general, material.rehearsed)
    ]
    return zlib.crc32(json.dumps([parts, list(material.labels)]).encode())


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, 1 << 32)).permutation(length)
