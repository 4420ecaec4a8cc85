"""Padding as part of the convolution that it belongs to, instead of a copy of the photo before it.

TensorFlow's "same" padding (timm's Conv2dSame) has another width left than right. A convolution of
torch cannot say so, one of ONNX can: the runtime then neither pads nor reorders the pixels.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn

Pads = list[int]  # top, left, bottom, right


def same_padding(encoder: nn.Module, photos: Tensor) -> list[Pads]:
    """What the "same" convolutions of the encoder add to photos (B, 3, H, W), in their order."""
    found: list[Pads] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        facts: Any = module
        sizes = inputs[0].shape[-2:]
        sides = zip(sizes, facts.kernel_size, facts.stride, facts.dilation, strict=True)
        total = [int(get_same_padding(*side)) for side in sides]
        found.append([*(n // 2 for n in total), *(n - n // 2 for n in total)])

    convolutions = [module for module in encoder.modules() if isinstance(module, Conv2dSame)]
    hooks = [module.register_forward_pre_hook(note) for module in convolutions]
    with torch.no_grad():
        encoder(photos)
    for hook in hooks:
        hook.remove()
    return found


def join_padding(graph: Any, pads: Sequence[Pads]) -> None:
    """Give the convolutions of an exported graph the padding that stands before them.

    `pads` in the order of the graph's Pad nodes; where their number is another, nothing changes.
    """
    readers = Counter(name for node in graph.node for name in node.input)
    padded = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Pad" and readers[node.output[0]] == 1
    }
    pairs = [
        (padded[node.input[0]], node)
        for node in graph.node
        if node.op_type == "Conv" and node.input[0] in padded
    ]
    if len(pairs) != len(pads):
        return
    for (before, convolution), widths in zip(pairs, pads, strict=True):
        convolution.input[0] = before.input[0]
        for attribute in convolution.attribute:
            if attribute.name == "pads":
                own = zip(attribute.ints, widths, strict=True)
                attribute.ints[:] = [first + second for first, second in own]
        graph.node.remove(before)
