"""Several training processes, started by ``torchrun``, that act as one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from fovea.search.clip.encoders.base import pick_device
from fovea.search.clip.errors import ModelError


@dataclass(frozen=True, slots=True)
class World:
    """This process's place among all of them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # which of its machine's GPUs is its own

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and talks."""
        return self.rank == 0


@contextmanager
def joined_world(device: str = "auto") -> Iterator[World]:
    """Join the processes that ``torchrun`` announced in the environment; alone without it.

    They talk through NCCL where each has a GPU, through Gloo on CPUs, and part afterwards. A
    process group that the caller has made already is used and left as it is, so that one start may
    train several times. Raise ``ModelError`` for an announcement that is not complete, and for a
    device that cannot be shared out.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield World()
        return
    world, started = _announced(), dist.is_initialized()
    if not started:
        _start(own_device(device, world))
    try:
        yield world
    finally:
        if not started:
            dist.destroy_process_group()


def _announced() -> World:
    try:
        rank, size, local = (int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except (KeyError, ValueError) as exc:
        raise ModelError(
            f"WORLD_SIZE announces several processes, but not which one this is: {exc}; start "
            "them with torchrun, or unset WORLD_SIZE"
        ) from exc
    return World(rank, size, local)


def _start(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as exc:
        raise ModelError(
            f"the training processes do not find each other: {exc}; start them with torchrun"
        ) from exc


def own_device(name: str, world: World) -> torch.device:
    """Return this process's device: of several processes, each one has a GPU of its own."""
    if world.size == 1:
        return pick_device(name)
    if name not in ("auto", "cpu", "cuda"):
        raise ModelError(f"{world.size} processes cannot share {name}; use --device auto")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return pick_device(f"cuda:{world.local_rank}")


def agree(number: int, world: World, device: torch.device) -> bool:
    """Return whether every process comes with the same number."""
    numbers = gather_tags(torch.tensor([number], device=device), world)
    return bool((numbers == number).all())


def gather_tags(tags: Tensor, world: World) -> Tensor:
    """Stack every process's int64 rows (n, m) in order of rank."""
    if world.size == 1:
        return tags
    return _stacked(tags, world)


def gather_rows(rows: Tensor, world: World) -> Tensor:
    """Stack every process's rows (n, d) in order of rank, differentiably.

    Each process computes the joint loss, so the gradients of its own rows arrive once from each
    process: their sum, averaged over processes by DistributedDataParallel, is the gradient of
    that one loss.
    """
    if world.size == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, world)
    return gathered


class _GatherRows(torch.autograd.Function):
    """All processes' rows; backward sums what every process wants of this one's rows."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor, world: World) -> Tensor:
        ctx.world, ctx.count = world, len(rows)  # type: ignore[attr-defined]
        return _stacked(rows, world)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        world, count = ctx.world, ctx.count  # type: ignore[attr-defined]
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[world.rank * count : (world.rank + 1) * count], None


def _stacked(rows: Tensor, world: World) -> Tensor:
    rows = rows.contiguous()
    parts = [torch.empty_like(rows) for _ in range(world.size)]
    dist.all_gather(parts, rows)
    return torch.cat(parts)
