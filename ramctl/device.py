"""Where and how a torch model runs: device, number format, threads and memory."""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch

from ramctl.errors import RunProblem, UsageProblem


@dataclass(frozen=True, slots=True)
class Runtime:
    """A device, and whether matrices are multiplied in bfloat16 on it."""

    device: torch.device
    bf16: bool = False

    @classmethod
    def choose(cls, device: str = "auto", dtype: str = "auto") -> "Runtime":
        """The runtime that `--device` and `--dtype` ask for; raises what `choose_device` raises."""
        if dtype not in ("auto", "fp32", "bf16"):
            raise UsageProblem(f"--dtype {dtype}: this model runs in fp32 or bf16")
        chosen = choose_device(device)
        return cls(chosen, uses_bf16(dtype, chosen))

    @property
    def dtype(self) -> str:
        """The number format as `--dtype` names it."""
        return "bf16" if self.bf16 else "fp32"

    def precision(self) -> AbstractContextManager[object]:
        """The context in which to call a model."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


def choose_device(name: str, *, local_rank: int | None = None) -> torch.device:
    """The device called `name`, on which `local_rank` picks the GPU; for `auto` the best one.

    UsageProblem when the name is no device's, RunProblem when the machine has no such device.
    """
    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageProblem(f"--device {name}: not a device such as cpu, cuda:0 or mps") from error
    is_there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if device.type in is_there and not is_there[device.type]():
        raise RunProblem(f"--device {name}: torch finds none on this machine")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RunProblem(f"--device {name}: there are {torch.cuda.device_count()} GPUs")
    if device.type == "cuda" and device.index is None and local_rank is not None:
        return torch.device("cuda", local_rank)
    return device


def uses_bf16(dtype: str, device: torch.device, *, on_cpu: bool = False) -> bool:
    """Whether to compute in bf16: where `dtype` says so, and for `auto` where the GPU has it.

    `on_cpu` extends `auto` to processors with matrix units for bf16 (AMX). Training asks for that;
    tagging does not, because its scores should be those of the fp32 graph on every CPU.
    """
    if dtype != "auto":
        return dtype == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return on_cpu and device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())


@cache
def usual_threads() -> int:
    """As many threads as torch takes by itself, whatever `set_up_cpu` has said since."""
    return torch.get_num_threads()


def set_up_cpu(threads: int | None) -> None:
    """Let torch use so many threads (None: as many as it likes), and keep freed memory.

    glibc returns each large buffer to the kernel and asks for it again at the next layer; keeping
    them makes tagging 1.3 to 2 times and training 1.6 times as fast. The numbers are M_MMAP_MAX,
    M_TRIM_THRESHOLD and M_TOP_PAD of malloc.h; other C libraries have no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 256 * 2**20)):
            mallopt(parameter, value)
    usual_threads()
    if threads is not None:
        torch.set_num_threads(threads)
