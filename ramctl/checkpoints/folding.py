"""Batch norms folded into the convolutions before them: a pass less, for inference only."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batchnorms(module: nn.Module, photos: Tensor) -> int:
    """Fold the batch norms of a module in evaluation mode; the number that was folded.

    `photos` (B, 3, H, W) run through it once, to find the batch norms whose input is exactly the
    output of a convolution. Results change by rounding only.
    """
    if not any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        return 0
    pairs = _pairs(module, photos)
    for convolution, norm in pairs:
        facts: Any = norm
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, facts.running_mean, facts.running_var,
            facts.eps, facts.weight, facts.bias,
        )  # fmt: skip
    folded = {id(norm) for _, norm in pairs}
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if id(child) in folded:
                setattr(parent, name, getattr(child, "act", nn.Identity()))
    return len(pairs)


def _pairs(module: nn.Module, photos: Tensor) -> list[tuple[nn.Conv2d, nn.Module]]:
    """The convolutions whose output goes into a batch norm, and that batch norm."""
    # By the output's id; the tensor is kept alive, else another one could take over its id.
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.Module]] = []

    def note_output(convolution: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(convolution, nn.Conv2d)
        made[id(output)] = (convolution, output)

    def note_input(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], norm))

    hooks = []
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            hooks.append(part.register_forward_hook(note_output))
        if isinstance(part, nn.BatchNorm2d):
            hooks.append(part.register_forward_pre_hook(note_input))
    with torch.inference_mode():
        module(photos)
    for hook in hooks:
        hook.remove()
    return pairs
