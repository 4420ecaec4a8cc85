"""Training by several processes, started by torchrun."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

# The first process alone reads the records and embeds the labels while the others wait.
MAX_WAIT = timedelta(hours=12)
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class World:
    """The place of this process among all processes of a run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and messages."""
        return self.rank == 0

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value summed over all processes, without waiting for a GPU."""
        total = self.total(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, total.tolist(), strict=True))

    def total(self, tensor: Tensor) -> Tensor:
        """The tensor summed over all processes, in double precision where there are several."""
        if self.size == 1:
            return tensor
        tensor = tensor.double()
        dist.all_reduce(tensor)
        return tensor

    def union(self, values: Mapping[K, V]) -> dict[K, V]:
        """The values of all processes, in each of them."""
        if self.size == 1:
            return dict(values)
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, dict(values))
        return {key: value for part in gathered for key, value in part.items()}

    def collected(self, value: V) -> list[V]:
        """The values of all processes in the first one; none in the others."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size if self.is_main else []
        dist.gather_object(value, gathered or None)
        return gathered

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
        # A pass without captions gives the captioning branch no gradient.
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=True)


def is_torchrun() -> bool:
    """Whether torchrun started this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def join_world(device_type: str) -> Iterator[World]:
    """Connect this process to the others, until the end of the block."""
    if not is_torchrun():
        yield World()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        torch.cuda.set_device(local)
    # Numbers on the host go by gloo also where gradients go by nccl: no wait for the GPU.
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=MAX_WAIT)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()
