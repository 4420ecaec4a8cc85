"""How training is spread and compiled: processes that torchrun started, and torch.compile."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ramctl.model.ram import RAM

# The first process alone reads the records and embeds the labels while the others wait.
LONGEST_WAIT = timedelta(hours=12)
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class World:
    """This process among all of a run."""

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
        """All processes' values, in each of them."""
        if self.size == 1:
            return dict(values)
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, dict(values))
        return {key: value for own in found for key, value in own.items()}

    def collected(self, value: V) -> list[V] | None:
        """What each process has, in the first; None in the others."""
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, found)
        return found

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
    """The world of this process; with several, the connection is closed at the end."""
    if not is_torchrun():
        yield World()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        torch.cuda.set_device(local)
    # Numbers on the host go by gloo also where gradients go by nccl: no wait for the GPU.
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()


class CompiledParts:
    """Image encoder, tag decoder and captioning branch, compiled in place.

    The parts and not the whole: what lies between them depends on the batch (sampled labels,
    photos without a caption) and would be compiled again and again. Weights keep their names.
    """

    def __init__(self, model: RAM) -> None:
        parts = [model.encoder, model.tag_decoder, model.captioning]
        self.parts: list[nn.Module] = [part for part in parts if part is not None]
        for part in self.parts:
            part.compile()

    @contextmanager
    def off(self) -> Iterator[None]:
        """The parts without compilation: for validation, export and copies."""
        calls = [part._compiled_call_impl for part in self.parts]
        for part in self.parts:
            part._compiled_call_impl = None
        try:
            yield
        finally:
            for part, call in zip(self.parts, calls, strict=True):
                part._compiled_call_impl = call


def why_not_compiled(device: torch.device) -> str | None:
    """Why torch.compile does not work on a device, in one line; None when it does."""
    try:
        torch.compile(lambda x: (x * 2).sigmoid() + 1, fullgraph=True)(torch.ones(8, device=device))
    except Exception as error:  # whatever the compiler, its driver or the linker reports
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    return None
