"""Several training processes, started by ``torchrun``, that act as one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


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
def joined_world() -> Iterator[World]:
    """Join the processes that ``torchrun`` announced in the environment; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(dist.get_rank(), size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()


def gather_keys(keys: Tensor, world: World) -> Tensor:
    """Stack every process's int64 rows (n, m) in order of rank."""
    if world.size == 1:
        return keys
    parts = [torch.empty_like(keys) for _ in range(world.size)]
    dist.all_gather(parts, keys)
    return torch.cat(parts)


class _GatherRows(torch.autograd.Function):
    """All processes' rows; backward sums what every process wants of this one's rows."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor, world: World) -> Tensor:
        ctx.world, ctx.count = world, len(rows)  # type: ignore[attr-defined]
        return gather_keys(rows.contiguous(), world)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        world, count = ctx.world, ctx.count  # type: ignore[attr-defined]
        total = grad.contiguous()
        dist.all_reduce(total)
        return total[world.rank * count : (world.rank + 1) * count], None


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
