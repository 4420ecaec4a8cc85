"""Dropout whose random numbers are drawn 64 bits at a time on a CPU.

torch draws one number an element there, which took a quarter of a training step of `mini`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = 1 << 16  # p is rounded to sixteen bits


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`x` with a share `p` of its elements set to 0 and the others divided by what is left."""
    if not training or p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    n_dropped = round(p * _STEPS)
    if n_dropped == _STEPS:
        return x * 0
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.int16)[: x.numel()].view(x.shape)
    kept = (draws >= n_dropped - _STEPS // 2).to(x.dtype)
    return x * kept.mul_(_STEPS / (_STEPS - n_dropped))
