"""Where and how a torch model runs: device, number format, threads and memory."""

import ctypes
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import torch

from ramctl.errors import RunProblem, UsageProblem

Dtype = Literal["fp32", "bf16", "fp16"]
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Runtime:
    """A device, and the number format in which matrices are multiplied on it."""

    device: torch.device
    dtype: Dtype = "fp32"

    @classmethod
    def choose(cls, device: str = "auto", dtype: str = "auto") -> "Runtime":
        """The runtime that `--device` and `--dtype` ask for; raises what `choose_device` raises."""
        chosen = choose_device(device)
        return cls(chosen, number_format(dtype, chosen))

    @property
    def half(self) -> torch.dtype | None:
        """The type in which matrices are multiplied; None for fp32."""
        return _HALF.get(self.dtype)

    def precision(self) -> AbstractContextManager[object]:
        """The context in which to call a model."""
        half = self.half
        return nullcontext() if half is None else torch.autocast(self.device.type, half)


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
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type == "mps" and not torch.backends.mps.is_available():
        count = 0
    if (device.index or 0) >= count:
        raise RunProblem(f"--device {name}: torch finds {count or 'none'} on this machine")
    if device.type == "cuda" and device.index is None and local_rank is not None:
        return torch.device("cuda", local_rank)
    return device


def number_format(dtype: str, device: torch.device, *, is_training: bool = False) -> Dtype:
    """The number format that `dtype` names; for `auto` what the device multiplies fastest.

    On a GPU that is bf16 where it has it. Older ones have fp16 only, which tagging takes; training
    takes it only by name, because small gradients vanish in it. Training takes bf16 also on
    processors with matrix units for it (AMX); tagging does not, because its scores should be those
    of the fp32 graph on every CPU. UsageProblem for other formats.
    """
    if dtype in ("fp32", "bf16", "fp16"):
        return cast(Dtype, dtype)
    if dtype != "auto":
        raise UsageProblem(f"--dtype {dtype}: this model runs in fp32, bf16 or fp16")
    if device.type == "cuda":
        # Without emulation, which torch counts as support.
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp32" if is_training else "fp16"
    has_units = device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
    return "bf16" if is_training and has_units else "fp32"


def set_up_cpu(threads: int | None) -> None:
    """Let torch use this number of threads (None: its default), and keep freed memory.

    glibc returns each large buffer to the kernel and asks for it again at the next layer; keeping
    them makes tagging 1.3 to 2 times and training 1.6 times as fast. The numbers are M_MMAP_MAX,
    M_TRIM_THRESHOLD and M_TOP_PAD of malloc.h; other C libraries have no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 256 * 2**20)):
            mallopt(parameter, value)
    if threads is not None:
        torch.set_num_threads(threads)
