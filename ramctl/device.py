"""Where and in which precision a torch model runs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from ramctl.errors import RunProblem, UsageProblem


@dataclass(frozen=True, slots=True)
class Runtime:
    """A device and whether matrices are multiplied in bfloat16."""

    device: torch.device
    bf16: bool = False

    @classmethod
    def choose(cls, device: str = "auto", dtype: str = "auto") -> "Runtime":
        """The runtime of `--device` and `--dtype`; `auto` is bf16 on a CUDA device, else fp32.

        Raises RunProblem when the device is not there, UsageProblem for another dtype.
        """
        if dtype not in ("auto", "fp32", "bf16"):
            raise UsageProblem(f"--dtype {dtype}: this model runs in fp32 or bf16")
        chosen = choose_device(device)
        return cls(chosen, dtype == "bf16" or (dtype == "auto" and chosen.type == "cuda"))

    @property
    def dtype(self) -> str:
        return "bf16" if self.bf16 else "fp32"

    def precision(self) -> AbstractContextManager[object]:
        """The context in which a model is called."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


def choose_device(name: str) -> torch.device:
    """The device of that name, the best one for `auto`; RunProblem when it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RunProblem(f"device {name!r}: not a device such as cpu, cuda:0 or mps") from error
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if device.type in there and not there[device.type]():
        raise RunProblem(f"device {name}: torch finds none on this machine")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RunProblem(f"device {name}: there are {torch.cuda.device_count()} GPUs, from cuda:0")
    return device
