"""Let several training processes, started by ``torchrun``, act as one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from fovea.search.clip.encoders.base import pick_device
from fovea.search.clip.errors import ModelError


@dataclass(frozen=True, slots=True)
class World:
    """This process's rank among all."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # the number of its GPU on its machine

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0


@contextmanager
def joined_world(device: str = "auto") -> Iterator[World]:
    """Join the processes that ``torchrun`` describes in the environment, and leave afterwards.

    They communicate through NCCL if each has a GPU, through Gloo on CPUs. A process group that the
    caller has initialised is used and kept, so that one start may train several times. Raise
    ``ModelError`` if the environment is incomplete or the device cannot be shared.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield World()
        return
    try:
        world = World(*(int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except (KeyError, ValueError) as exc:
        raise ModelError(
            f"WORLD_SIZE asks for several processes, but this one's rank is missing: {exc}; start "
            "them with torchrun, or unset WORLD_SIZE"
        ) from exc
    started = dist.is_initialized()
    if not started:
        _start(own_device(device, world))
    try:
        yield world
    finally:
        if not started:
            dist.destroy_process_group()


def _start(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as exc:
        raise ModelError(
            f"the training processes cannot connect: {exc}; start them with torchrun"
        ) from exc


def own_device(name: str, world: World) -> torch.device:
    """Return this process's device; each of several processes has its own GPU."""
    if world.size == 1:
        return pick_device(name)
    if name not in ("auto", "cpu", "cuda"):
        raise ModelError(f"{world.size} processes cannot share {name}; use --device auto")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return pick_device(f"cuda:{world.local_rank}")


def agree(number: int, world: World, device: torch.device) -> bool:
    """Return whether every process has the same number."""
    numbers = gather_tags(torch.tensor([number], device=device), world)
    return bool((numbers == number).all())


def gather_tags(tags: Tensor, world: World) -> Tensor:
    """Stack every process's int64 rows (n, m) in order of rank."""
    if world.size == 1:
        return tags
    parts = [torch.empty_like(tags) for _ in range(world.size)]
    dist.all_gather(parts, tags.contiguous())
    return torch.cat(parts)


def gather_rows(rows: Tensor, world: World) -> Tensor:
    """Stack every process's rows (n, d) in order of rank, differentiably.

    Each process computes the joint loss, so the gradients of its own rows arrive once from each
    process: their sum, averaged over processes by DistributedDataParallel, is the gradient of
    that one loss.
    """
    if world.size == 1:
        return rows
    return torch.cat(all_gather(rows.contiguous()))
