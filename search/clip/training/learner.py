"""Update the weights: the loss of a batch, its gradients, the optimizers.

As in Radford et al. 2021 (arXiv:2103.00020), sections 2.3 and 2.5, AdamW does not decay gains and
biases, and the learned temperature is clipped at 100. A batch too large for memory is computed in
slices as in Gao et al. 2021 (arXiv:2101.06983): every pair is still contrasted with the whole
batch.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fovea.search.clip.checkpoints.shapes import is_projection, tower_of
from fovea.search.clip.encoders.base import pick_dtype, send
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP, VisionTransformer

from .augment import vary_colour
from .batches import Batch
from .distributed import World, gather_rows, gather_tags, own_device
from .guide import ClassGuide
from .losses import contrastive_loss, hidden_negatives
from .muon import Muon
from .partial import choose_trainable, freeze_batch_norm
from .recipe import TrainOptions
from .split import Halves

log = logging.getLogger(__name__)

LARGEST_SCALE = 100.0  # Radford et al. 2021, section 2.5
USUAL_INPUTS = 256  # most inputs of a matrix that learns at the full rate
LARGEST_GRADIENT = 1.0  # norm over all weights, to which larger ones are clipped


class Diverged(ModelError):
    """A loss, gradient, weight or embedding is not finite."""


class Learner:
    """A model in training on this process's device."""

    def __init__(self, model: CLIP, options: TrainOptions, world: World) -> None:
        self.world, self.slices = world, options.accumulate
        self.options = options
        self.guide: ClassGuide | None = None  # for the losses ``distil`` and ``virtual``
        self.device = own_device(options.device, world)
        self.dtype = training_dtype(options.dtype, self.device)
        choose_trainable(model, options.tuned_image, options.tuned_text)
        model.train()
        freeze_batch_norm(model, options.tuned_image)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = make_optimizers(self.model, options)
        self.halves: Halves | None = None  # for batches of kept views
        self.network: nn.Module = self.model
        if options.views:
            texts = len(model.text_blocks)
            if options.tuned_text != "all":
                texts = int(options.tuned_text)
            self.network = self.halves = Halves(self.model, int(options.tuned_image), texts)
            self.halves.keeps_texts = options.augmentation.words == 0
        if world.size > 1:
            self._join_others(options.tuned_image)
        self.average = Average(self.model, options.average) if options.average else None
        config = model.config
        self._mean = torch.tensor(config.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(config.std, device=self.device).view(1, 3, 1, 1)

    def _join_others(self, tune: str) -> None:
        """Average gradients, and statistics of trained batch norms, over all processes."""
        on_gpu = self.device.type == "cuda"
        has_batch_norm = not isinstance(self.model.visual, VisionTransformer)
        if has_batch_norm and tune == "all":
            if on_gpu:
                self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
            elif self.world.leads:
                log.warning("on CPUs each process uses its own batch statistics")
        self.network = DistributedDataParallel(
            self.model,
            device_ids=[self.device.index] if on_gpu else None,
        )

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has its averaged weights, if they are kept."""
        return self.average.applied() if self.average else nullcontext()

    @property
    def scale(self) -> float:
        """The factor of the cosines: the inverse temperature."""
        return self.model.logit_scale.exp().item()

    def state(self) -> dict[str, Any]:
        """Return everything that an update changes, for ``restore``.

        Raise ``Diverged`` if a weight is not finite.
        """
        optimizers = {name: each.state_dict() for name, each in self.optimizers.items()}
        average = {"average": self.average.rows} if self.average else {}
        return {"model": finite(self.model.state_dict()), "optimizers": optimizers} | average

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.average:
            self.average.rows = [row.to(self.device) for row in state["average"]]

    def update(self, batch: Batch, rate: float) -> float:
        """Make one update at this learning rate and return the loss; see ``apply_update``."""
        backward = partial(self._backward, batch)
        loss = apply_update(self.model, self.optimizers.values(), rate, backward, batch.step)
        if self.average:
            self.average.add()
        return loss

    def _backward(self, batch: Batch) -> Tensor:
        """Compute the joint loss and its gradients; return the loss."""
        images, tokens = self._images(batch), send(batch.tokens, self.device)
        marks = self._marks(batch)
        if self.slices > 1:
            return self._backward_by_slices(images, tokens, marks)
        rows = self._embed(images, tokens)
        loss = self._loss(*rows, *marks)
        if self.guide is not None:
            loss = self._guided(loss, self.guide, batch, rows)
        loss.backward()
        return loss.detach()

    def _guided(
        self, loss: Tensor, guide: ClassGuide, batch: Batch, rows: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        """Add the guide's losses, weighted, to that of a batch with these rows and scale."""
        assert batch.pooled is not None
        images, _, scale = rows
        pooled = send(batch.pooled, self.device).float()
        with mixed_precision(self.device, self.dtype):
            distilled, virtual = guide.losses(images, pooled, scale, batch.step)
        return loss + self.options.distil * distilled + self.options.virtual * virtual

    def _images(self, batch: Batch) -> Tensor:
        """Return a batch's features, or its pixels, varied in colour and normalised."""
        if batch.features is not None:
            features = send(batch.features, self.device).float()
            if features.ndim == 4:
                features = features.contiguous(memory_format=torch.channels_last)
            return features
        images = send(batch.pixels, self.device).permute(0, 3, 1, 2).float().div_(255)
        images = vary_colour(images, batch.colours)
        images = (images - self._mean) / self._std
        return images.contiguous(memory_format=torch.channels_last)

    def _embed(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with mixed_precision(self.device, self.dtype):
            out: tuple[Tensor, Tensor, Tensor] = self.network(images, tokens)
        return out

    def _marks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return owners (t,) and hidden negatives (n, t) of the joint batch of all processes."""
        images, texts = len(batch.pixels), len(batch.tokens)
        own = np.column_stack([batch.owners, batch.sources, batch.tags])
        marks = gather_tags(send(own, self.device), self.world)
        ranks = torch.arange(self.world.size, device=self.device)
        first = (ranks[:, None] * texts + torch.arange(images, device=self.device)).flatten()
        offset = (ranks * images).repeat_interleave(texts)
        owners = torch.where(marks[:, 0] < 0, -1, marks[:, 0] + offset)
        return owners, hidden_negatives(marks[:, 2:], owners, marks[:, 1], first)

    def _loss(
        self, images: Tensor, texts: Tensor, scale: Tensor, owners: Tensor, hidden: Tensor
    ) -> Tensor:
        world = self.world
        joint = gather_rows(images, world), gather_rows(texts, world)
        return contrastive_loss(*joint, scale, owners, hidden)

    def _backward_by_slices(
        self, images: Tensor, tokens: Tensor, marks: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Do as ``_backward`` with one slice of the batch in memory at a time.

        First embed all slices without a graph, then compute the loss and the gradients of the
        embeddings, then embed each slice again and propagate its gradients through the towers.
        """
        parts_of = (rows.tensor_split(self.slices) for rows in (images, tokens))
        slices = list(zip(*parts_of, strict=True))
        parts = self._embed_without_graph(slices)
        rows = [torch.cat([part[side] for part in parts]).requires_grad_() for side in (0, 1)]
        scale = parts[0][2].requires_grad_()
        loss = self._loss(rows[0], rows[1], scale, *marks)
        to_images, to_texts, to_scale = torch.autograd.grad(loss, (*rows, scale))
        wanted = (gradient.tensor_split(self.slices) for gradient in (to_images, to_texts))
        shares = zip(*wanted, strict=True)
        for number, (part, (to_image, to_text)) in enumerate(zip(slices, shares, strict=True), 1):
            last = number == self.slices
            alone = self.world.size > 1 and not last
            with self.network.no_sync() if alone else nullcontext():  # type: ignore[operator]
                image_rows, text_rows, out_scale = self._embed(*part)
                total = (image_rows * to_image).sum() + (text_rows * to_text).sum()
                # the temperature's gradient counts once; other slices add it with weight zero,
                # since every parameter must take part in a distributed backward pass
                total = total + out_scale * (to_scale if last else 0)
                total.backward()
        return loss.detach()

    @torch.no_grad()
    def _embed_without_graph(
        self, slices: list[tuple[Tensor, Tensor]]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Embed each slice; keep running statistics, which the pass with a graph updates."""
        before = [buffer.clone() for buffer in self.model.buffers()]
        parts = [self._embed(*part) for part in slices]
        for buffer, old in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(old)
        return parts


class Average:
    """The exponential moving average of a model's trainable weights.

    Averaging the iterates is due to Polyak and Juditsky 1992; the bias towards the zeros that the
    average starts from is corrected as in Kingma and Ba 2014 (arXiv:1412.6980), section 3. The
    statistics of batch norms are not averaged: they are moving averages already.
    """

    def __init__(self, model: CLIP, decay: float) -> None:
        self._weights = [tensor for tensor in model.parameters() if tensor.requires_grad]
        self._decay = decay
        # a row for each weight; the last sums up what the others' terms were multiplied by
        self.rows = [torch.zeros_like(tensor) for tensor in (*self._weights, model.logit_scale)]

    @torch.no_grad()
    def add(self) -> None:
        """Add the present weights."""
        one = torch.ones_like(self.rows[-1])
        for row, weight in zip(self.rows, (*self._weights, one), strict=True):
            row.lerp_(weight, 1 - self._decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the weights' place, if there is one yet, and back afterwards."""
        if not self.rows[-1] > 0:
            yield
            return
        kept = [weight.detach().clone() for weight in self._weights]
        try:
            with torch.no_grad():
                for weight, row in zip(self._weights, self.rows[:-1], strict=True):
                    weight.copy_(row / self.rows[-1])
            yield
        finally:
            with torch.no_grad():
                for weight, old in zip(self._weights, kept, strict=True):
                    weight.copy_(old)


def apply_update(
    model: CLIP,
    optimizers: Collection[torch.optim.Optimizer],
    rate: float,
    backward: Callable[[], Tensor],
    step: int,
) -> float:
    """Make one update at this learning rate and return the loss that ``backward`` computes.

    Raise ``Diverged``, with the weights unchanged, if the loss or its gradient is not finite.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        optimizer.zero_grad(set_to_none=True)
    loss = backward().item()
    norm = nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT).item()
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise Diverged(
            f"the loss is {loss} and its gradient {norm} at step {step}; lower the learning rate "
            "and write to another folder"
        )
    for optimizer in optimizers:
        optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(LARGEST_SCALE))
    return loss


def finite(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights; raise ``Diverged`` if one is not finite."""
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise Diverged(f"{name} has values that are not finite; lower the learning rate")
    return state


def training_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of products in training; weights are always float32.

    ``auto`` is bfloat16 if the device multiplies it, else float32. Raise ``ModelError`` for any
    other name, float16 included, in which gradients would vanish without loss scaling.
    """
    if name not in ("auto", "bfloat16", "float32"):
        raise ModelError(f"cannot train in {name}; choose auto, bfloat16 or float32")
    if name != "auto" or device.type == "cpu":
        return pick_dtype(name, device)
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def mixed_precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Compute products in this precision, unless it is float32."""
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def make_optimizers(model: CLIP, options: TrainOptions) -> dict[str, torch.optim.Optimizer]:
    """Return AdamW for the trainable parameters and, if asked for, Muon for hidden matrices.

    Each group has a ``share`` of the run's learning rate.
    """
    hidden = []
    if options.muon:
        hidden = [  # inside a tower: not its input, output, embedding or pool
            weight
            for name, weight in model.named_parameters()
            if weight.requires_grad and weight.ndim > 1 and _is_inner(name, weight)
        ]
    optimizers: dict[str, torch.optim.Optimizer] = {
        "adamw": make_adamw(model, options.weight_decay, hidden, _shares(options))
    }
    if hidden:
        group = {"params": hidden, "share": options.muon / options.lr}
        optimizers["muon"] = Muon([group], weight_decay=options.weight_decay)
    return optimizers


def _shares(options: TrainOptions) -> dict[str, float]:
    """Return each tower's share of the learning rate."""
    rates = {"image": options.image_lr, "text": options.text_lr}
    return {tower: 1.0 if rate is None else rate / options.lr for tower, rate in rates.items()}


def _is_inner(name: str, weight: Tensor) -> bool:
    """Whether a parameter belongs to a block inside a tower and mixes its inputs.

    A depthwise convolution does not: each of its channels sees only itself.
    """
    if weight.ndim == 4 and weight.shape[1] == 1:
        return False
    inside = ("resblocks.", "bert.encoder.layer.", "visual.blocks.")
    return any(part in name for part in inside) or name.startswith("visual.layer")


def make_adamw(
    model: CLIP,
    weight_decay: float,
    without: Collection[Tensor] = (),
    shares: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """Return AdamW for the trainable parameters; vectors and scalars are not decayed.

    Each group has a ``share`` of the learning rate: that of ``rate_share``, times, below the
    projections, the share in ``shares`` of the parameter's tower, "image" or "text".
    """
    left_out = {id(tensor) for tensor in without}
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, tensor in model.named_parameters():
        if tensor.requires_grad and id(tensor) not in left_out:
            decay = weight_decay if tensor.ndim > 1 else 0.0
            share = rate_share(model, name)
            if shares and not is_projection(name):
                share *= shares[tower_of(name) or "text"]
            groups.setdefault((decay, share), []).append(tensor)
    settings = [
        {"params": tensors, "weight_decay": decay, "share": share}
        for (decay, share), tensors in groups.items()
    ]
    # betas and epsilon: Radford et al. 2021, table 18 (those of the Vision Transformers)
    return torch.optim.AdamW(settings, lr=0.0, betas=(0.9, 0.98), eps=1e-6)


def rate_share(model: CLIP, name: str) -> float:
    """Return a parameter's share of the learning rate, 1 for nearly all.

    AdamW moves every weight by about the rate, so an output moves in proportion to the number of
    its inputs (Yang et al. 2022, arXiv:2203.03466, section 4). The attention pool of a ResNet has
    thousands, unnormalised and non-negative: at the full rate its logits grow into the hundreds
    within a few thousand updates, it attends to a single position, and the gradients below it are
    noise. For queries and keys, which are multiplied, the share is squared.
    """
    if not name.startswith("visual.attnpool."):
        return 1.0
    share = min(1.0, USUAL_INPUTS / model.get_parameter("visual.attnpool.v_proj.weight").shape[1])
    return share**2 if name.split(".")[2] in ("q_proj", "k_proj") else share
