"""One process, or several that torchrun started: who writes, and sums over all of them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

# The first process alone reads the records and embeds the labels while the others wait.
LONGEST_WAIT = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class World:
    """This process among all of a run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sums(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Each value summed over all processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor]

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module with its gradients averaged over all processes."""
        if self.size == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        ids = [device.index] if device.type == "cuda" else None
        # A pass may have no caption, and then gives the captioning branch no gradient.
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=True)


def is_torchrun() -> bool:
    """Whether torchrun started this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def join_world(device_type: str) -> Iterator[World]:
    """The world of this process; for several of them the connection is closed at the end."""
    if not is_torchrun():
        yield World()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()
