"""Training by several processes, started by torchrun."""

import os
from collections.abc import Callable, Iterator, Mapping
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

    def from_main(self, make: Callable[[], V]) -> V:
        """The value that the first process makes, in every process."""
        value = [make() if self.is_main else None]
        if self.size > 1:
            dist.broadcast_object_list(value, device=torch.device("cpu"))
        return value[0]  # type: ignore[return-value]

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
        gathered: list[Any] = [values] * self.size
        if self.size > 1:
            dist.all_gather_object(gathered, dict(values))
        return {key: value for part in gathered for key, value in part.items()}

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """A block in which the others find the files that the first process has written."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

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
def join_world(device: str) -> Iterator[World]:
    """Connect this process to the others, until the end of the block; `device` as of `--device`."""
    if not is_torchrun():
        yield World()
        return
    local, backend = int(os.environ.get("LOCAL_RANK", "0")), "gloo"
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        torch.cuda.set_device(local)
        # Numbers on the host go by gloo also where gradients go by nccl: no wait for the GPU.
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=MAX_WAIT)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()
