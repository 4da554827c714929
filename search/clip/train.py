"""Train or fine-tune a CLIP on image-caption pairs.

The objective and the recipe's outline (symmetric contrastive loss, learned temperature clipped at
100, AdamW without decay on gains and biases, warm-up and cosine) are those of Radford et al. 2021
(arXiv:2103.00020), sections 2.3 and 2.5. A batch too large for memory is computed in slices as by
Gao et al. 2021 (arXiv:2101.06983): every pair is still contrasted with the whole batch.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .augment import vary_colour
from .batches import Batch, Batches
from .checkpoint import load_clip
from .distributed import World, gather_keys, gather_rows, joined_world
from .encoder import pick_device, pick_dtype
from .errors import ModelError
from .export import save_model
from .losses import contrastive_loss
from .memory import keep_allocations
from .model import CLIP, AttentionPool2d, VisionTransformer, initialise
from .options import TrainOptions
from .pairs import PairSet, open_pairs
from .tokenizer import Tokenizer, learn_merges

log = logging.getLogger(__name__)

LARGEST_SCALE = 100.0  # Radford et al. 2021, section 2.5
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Metrics:
    """One line of a run's record; rates are over the interval since the line before."""

    step: int
    steps: int
    samples: int
    loss: float
    lr: float
    scale: float
    images_per_s: float


def train(options: TrainOptions, on_metrics: Callable[[Metrics], None] | None = None) -> Path:
    """Train as asked and return the folder of the model, ``options.out``/model.

    Start from ``options.out``/checkpoint.pt where an interrupted run left one; on a CPU the
    weights are then bit for bit those of a run without a stop. ``metrics.jsonl`` in the same
    folder gets a line every ``log_every`` steps. Raise ``ModelError`` for data that cannot be
    read, a checkpoint of another run, and a loss that is not a number.
    """
    keep_allocations()
    with joined_world() as world:
        run = _Run.start(options, world)
        run.resume()
        for metrics in run.steps():
            if world.leads:
                _append(options.out / "metrics.jsonl", asdict(metrics))
                if on_metrics is not None:
                    on_metrics(metrics)
        if world.leads:
            save_model(run.model, run.tokenizer, options.out / "model")
    return options.out / "model"


class _Run:
    """The moving parts of one training run."""

    def __init__(
        self,
        options: TrainOptions,
        world: World,
        model: CLIP,
        tokenizer: Tokenizer,
        sets: Sequence[PairSet],
    ) -> None:
        if options.batch_size % (world.size * options.accumulate):
            raise ModelError(
                f"a batch of {options.batch_size} does not split into {world.size} processes "
                f"times {options.accumulate} slices; choose a multiple"
            )
        self.options, self.world, self.tokenizer = options, world, tokenizer
        name = f"cuda:{world.local_rank}" if torch.cuda.is_available() else "cpu"
        self.device = pick_device(options.device if world.size == 1 else name)
        self.dtype = pick_dtype(options.dtype, self.device)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        choose_trainable(model, options.tune)
        self.optimizer = make_optimizer(model, options.weight_decay)
        self.network: nn.Module = self.model
        if world.size > 1:
            ids = [world.local_rank] if self.device.type == "cuda" else None
            if ids and model.config.vision.is_resnet:
                self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
            self.network = DistributedDataParallel(self.model, device_ids=ids)
        config = model.config
        self.batches = Batches(
            sets,
            tokenizer,
            image_size=config.vision.image_size,
            batch_size=options.batch_size,
            context_length=config.text.context_length,
            augmentation=options.augmentation,
            seed=options.seed,
            rank=world.rank,
            world=world.size,
            workers=options.workers,
            cache_bytes=int(options.cache_gb * (1 << 30)),
        )
        self.mean = torch.tensor(config.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(config.std).view(1, 3, 1, 1)
        self.step = 0

    @classmethod
    def start(cls, options: TrainOptions, world: World) -> "_Run":
        """Open the data and build the model, from scratch or from ``options.init``."""
        if not options.sources:
            raise ModelError("nothing to train on; name captions and images")
        sets = [open_pairs(source) for source in options.sources]
        torch.manual_seed(options.seed)
        if options.init is not None:
            model = load_clip(options.init)
            tokenizer = Tokenizer.from_folder(options.init)
            if options.image_size:
                model = resized(model, options.image_size)
        else:
            tokenizer = Tokenizer(learn_merges(_all_texts(sets), options.merges))
            model = CLIP(options.config(tokenizer.vocab_size))
            initialise(model)
        options.out.mkdir(parents=True, exist_ok=True)
        return cls(options, world, model, tokenizer, sets)

    def resume(self) -> None:
        """Continue after the last checkpoint of the same run, where there is one."""
        path = self.options.out / CHECKPOINT
        if not path.is_file():
            return
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
            if saved["run"] != self._identity():
                raise ModelError(
                    f"{path} belongs to a run with other options; repeat those, or choose "
                    "another folder with --out"
                )
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = int(saved["step"])
        except ModelError:
            raise
        except Exception as exc:  # a damaged file makes torch raise almost anything
            raise ModelError(f"cannot resume from {path}: {exc}; delete it to start anew") from exc

    def save(self) -> None:
        """Write a checkpoint whole or not at all."""
        if not self.world.leads:
            return
        state = {
            "run": self._identity(),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        path = self.options.out / CHECKPOINT
        partial = path.with_suffix(".part")
        try:
            torch.save(state, partial)
            os.replace(partial, path)
        except (OSError, RuntimeError) as exc:  # a full disk reaches us as RuntimeError
            partial.unlink(missing_ok=True)
            raise ModelError(
                f"cannot write {path}: {exc}; the last checkpoint before it is whole"
            ) from exc

    def steps(self) -> Iterator[Metrics]:
        """Make every update that is left, yielding the record now and then."""
        options = self.options
        losses: list[float] = []
        began, since = time.monotonic(), self.step
        self.network.train()
        freeze_batch_norm(self.model, options.tune)
        end = min(options.steps, options.stop_after or options.steps)
        for batch in self.batches.from_step(self.step):
            if self.step >= end:
                break
            rate = learning_rate(self.step, options)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            losses.append(self._update(batch))
            self.step += 1
            last = self.step == end
            if self.step % options.log_every == 0 or last:
                now = time.monotonic()
                done = (self.step - since) * options.batch_size
                yield Metrics(
                    step=self.step,
                    steps=options.steps,
                    samples=self.step * options.batch_size,
                    loss=sum(losses) / len(losses),
                    lr=rate,
                    scale=self.model.logit_scale.exp().item(),
                    images_per_s=done / (now - began),
                )
                losses, began, since = [], now, self.step
            if self.step % options.save_every == 0 or last:
                self.save()

    def _update(self, batch: Batch) -> float:
        """Make one update and return the loss; raise ``ModelError`` where it is not finite."""
        images, tokens, keys = self._tensors(batch)
        self.optimizer.zero_grad(set_to_none=True)
        if self.options.accumulate == 1:
            loss = self._loss(*self._embed(images, tokens), keys)
            loss.backward()
        else:
            loss = self._sliced_backward(images, tokens, keys)
        value = loss.item()
        if not math.isfinite(value):
            raise ModelError(
                f"the loss is {value} at step {self.step}; lower the learning rate with --lr and "
                "train into another folder with --out"
            )
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(LARGEST_SCALE))
        return value

    def _tensors(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        images = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2).float().div_(255)
        images = vary_colour(images, batch.colours)
        images = (images - self.mean) / self.std
        images = images.contiguous(memory_format=torch.channels_last).to(self.device)
        tokens = torch.from_numpy(batch.tokens).to(self.device)
        return images, tokens, torch.from_numpy(batch.tags).to(self.device)

    def _embed(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            out: tuple[Tensor, Tensor, Tensor] = self.network(images, tokens)
        return out

    def _loss(self, images: Tensor, texts: Tensor, scale: Tensor, keys: Tensor) -> Tensor:
        world = self.world
        return contrastive_loss(
            gather_rows(images, world),
            gather_rows(texts, world),
            scale,
            gather_keys(keys, world),
        )

    def _sliced_backward(self, images: Tensor, tokens: Tensor, keys: Tensor) -> Tensor:
        """Accumulate the gradients of the joint loss, a slice of the batch in memory at a time.

        The embeddings come first, without a graph; the loss gives their gradients; then each
        slice runs again and takes its share of them back through the towers.
        """
        count = self.options.accumulate
        slices = list(zip(images.chunk(count), tokens.chunk(count), strict=True))
        state = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        with torch.no_grad():
            parts = [self._embed(*part) for part in slices]
            for name, buffer in self.model.named_buffers():
                buffer.copy_(state[name])  # the second pass updates the running statistics
        rows = [torch.cat([part[side] for part in parts]).requires_grad_() for side in (0, 1)]
        scale = parts[0][2].detach().requires_grad_()
        loss = self._loss(rows[0], rows[1], scale, keys)
        to_rows = torch.autograd.grad(loss, (*rows, scale))
        wanted = zip(to_rows[0].chunk(count), to_rows[1].chunk(count), strict=True)
        for number, (part, (to_images, to_texts)) in enumerate(zip(slices, wanted, strict=True)):
            last = number == count - 1
            alone = self.world.size > 1 and not last
            with self.network.no_sync() if alone else nullcontext():  # type: ignore[operator]
                out_images, out_texts, out_scale = self._embed(*part)
                total = (out_images * to_images).sum() + (out_texts * to_texts).sum()
                # the temperature's share once: the other slices carry it with weight zero, since
                # every parameter must take part in a distributed backward pass
                total = total + out_scale * (to_rows[2] if last else 0)
                total.backward()
        return loss.detach()

    def _identity(self) -> dict[str, Any]:
        """What must agree between a checkpoint and the run that resumes from it."""
        options = self.options
        return {
            "config": json.dumps(self.model.config.to_dict()),
            "seed": options.seed,
            "batch_size": options.batch_size,
            "samples": options.samples,
            "lr": options.lr,
            "weight_decay": options.weight_decay,
            "warmup": options.warmup,
            "tune": options.tune,
            "pairs": [len(pairs.pairs) for pairs in self.batches.sets],
        }


def learning_rate(step: int, options: TrainOptions) -> float:
    """Return the rate of this step: a linear rise, then half a cosine down to zero."""
    rise = max(1, round(options.warmup * options.steps))
    if step < rise:
        return options.lr * (step + 1) / rise
    done = (step - rise) / max(1, options.steps - rise)
    return options.lr * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(model: CLIP, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters; vectors and scalars are not decayed."""
    learning = [tensor for tensor in model.parameters() if tensor.requires_grad]
    groups = [
        {
            "params": [tensor for tensor in learning if tensor.ndim > 1],
            "weight_decay": weight_decay,
        },
        {
            "params": [tensor for tensor in learning if tensor.ndim <= 1],
            "weight_decay": 0.0,
        },
    ]
    # betas and epsilon: Radford et al. 2021, table 18 (those of the Vision Transformers)
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-6)


def choose_trainable(model: CLIP, tune: str) -> None:
    """Mark what learns: "all", or the last ``tune`` blocks of each tower and the projections."""
    if tune == "all":
        return
    if not tune.isdigit():
        raise ModelError(f"tune is {tune!r}; give 'all' or a number of blocks, such as 2")
    for tensor in model.parameters():
        tensor.requires_grad_(False)
    count = int(tune)
    parts: list[nn.Module] = [model.ln_final]
    parts += _last(model.transformer.resblocks, count)
    visual = model.visual
    if isinstance(visual, VisionTransformer):
        parts += [visual.ln_post, *_last(visual.transformer.resblocks, count)]
        visual.proj.requires_grad_(True)
    else:
        blocks = [block for number in (1, 2, 3, 4) for block in getattr(visual, f"layer{number}")]
        parts += [visual.attnpool, *_last(blocks, count)]
    for part in parts:
        part.requires_grad_(True)
    model.text_projection.requires_grad_(True)
    model.logit_scale.requires_grad_(True)


def _last(blocks: Iterable[nn.Module], count: int) -> list[nn.Module]:
    found = list(blocks)
    return found[max(0, len(found) - count) :]


def freeze_batch_norm(model: CLIP, tune: str) -> None:
    """Keep the statistics of a tower that is only partly tuned: small sets would spoil them."""
    if tune == "all":
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def resized(model: CLIP, image_size: int) -> CLIP:
    """Return the model for another input size: its position embeddings are interpolated.

    The grid part is resampled bicubically (Dosovitskiy et al. 2020, arXiv:2010.11929, section
    3.2); the first row, the class token's or the mean's, is kept.
    """
    old = model.config
    config = replace(old, vision=replace(old.vision, image_size=image_size))
    new = CLIP(config)
    state = model.state_dict()
    pool = isinstance(getattr(model.visual, "attnpool", None), AttentionPool2d)
    name = f"visual.{'attnpool.' if pool else ''}positional_embedding"
    wanted = len(new.state_dict()[name])
    state[name] = _resampled(state[name], wanted)
    new.load_state_dict(state)
    return new


def _resampled(rows: Tensor, wanted: int) -> Tensor:
    """Resample the grid in rows 1 onward of (1 + side², w) to ``wanted`` rows in all."""
    if len(rows) == wanted:
        return rows
    first, grid = rows[:1], rows[1:]
    side, new = math.isqrt(len(grid)), math.isqrt(wanted - 1)
    square = grid.T.reshape(1, -1, side, side).float()  # (1, w, side, side)
    square = F.interpolate(square, (new, new), mode="bicubic", align_corners=False)
    return torch.cat([first, square.flatten(2)[0].T.to(rows.dtype)])


def _all_texts(sets: Sequence[PairSet]) -> Iterator[str]:
    """Yield the captions, and each class's names as often as its images ask for."""
    for pairs in sets:
        for pair in pairs.pairs:
            yield from pair.captions
        for names in pairs.class_names.values():
            yield from names * max(2, len(pairs.pairs) // (10 * len(pairs.class_names)))


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
