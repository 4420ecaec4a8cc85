"""`--compile`: the model's parts through torch.compile, where there is a compiler."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ramctl.model.ram import RAM


class CompiledParts:
    """Image encoder, tag decoder and captioning branch, compiled in place.

    The parts and not the whole: what is between them depends on the batch (sampled labels, photos
    without a caption) and would be compiled again and again. Names of weights do not change.
    """

    def __init__(self, model: RAM) -> None:
        parts = [model.encoder, model.tag_decoder, model.captioning]
        self.parts: list[nn.Module] = [part for part in parts if part is not None]
        for part in self.parts:
            part.compile()

    @contextmanager
    def off(self) -> Iterator[None]:
        """The parts as they are without compilation: for validation, export and copies."""
        calls = [part._compiled_call_impl for part in self.parts]
        for part in self.parts:
            part._compiled_call_impl = None
        try:
            yield
        finally:
            for part, call in zip(self.parts, calls, strict=True):
                part._compiled_call_impl = call


def why_not_compiled(device: torch.device) -> str | None:
    """The reason why torch.compile does not work on a device, in one line; None when it does."""
    try:
        torch.compile(_probe, fullgraph=True)(torch.ones(8, device=device))
    except Exception as error:  # whatever the compiler, its driver or the linker has to say
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    return None


def _probe(x: torch.Tensor) -> torch.Tensor:
    return (x * 2).sigmoid() + 1
