"""Batch norms as part of the convolutions before them: one pass over the activations less each.

Only for tagging: statistics and weights are constants then.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batchnorms(module: nn.Module, photos: Tensor) -> int:
    """Fold the batch norms of a module in evaluation mode; how many there were.

    `photos` (B, 3, H, W) run through it once: a batch norm is folded where its input is the very
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
    """The convolutions whose output goes into a batch norm."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is kept: its id must stay its own
    pairs: list[tuple[nn.Conv2d, nn.Module]] = []

    def note_output(convolution: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(convolution, nn.Conv2d)
        made[id(output)] = (convolution, output)

    def note_input(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], norm))

    hooks = [
        m.register_forward_hook(note_output) for m in module.modules() if isinstance(m, nn.Conv2d)
    ]
    hooks += [
        m.register_forward_pre_hook(note_input)
        for m in module.modules()
        if isinstance(m, nn.BatchNorm2d)
    ]
    with torch.inference_mode():
        module(photos)
    for hook in hooks:
        hook.remove()
    return pairs
