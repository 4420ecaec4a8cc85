"""Weights in safetensors: each tensor once, strictly checked when read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ramctl.checkpoints.relative_positions import TABLES, resize_table
from ramctl.errors import RunProblem

TENSORS_AT_ONCE = 16


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; tied ones once, under their first name."""
    persistent = module.state_dict(keep_vars=True)
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor for name, tensor in named.items() if name in persistent}


def save_weights(module: nn.Module, path: Path, *, half: bool = False) -> None:
    """Write the module's weights; with `half` matrices are stored as fp16.

    Vectors (biases, norms, running statistics) stay as they are: they are small, and variances
    leave fp16's range.
    """
    tensors = {}
    for name, tensor in weights_of(module).items():
        tensor = tensor.detach().cpu().contiguous()
        if half and tensor.dim() > 1 and tensor.is_floating_point():
            tensor = tensor.half()
        tensors[name] = tensor
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes it unreadable for others


def load_weights(
    module: nn.Module, path: Path, *, without: str | None = None, resize: bool = False
) -> None:
    """Read what `save_weights` wrote into a module of the same architecture.

    Tensors whose name starts with `without` are passed over; `resize` fits Swin's
    relative-position tables to another window. Raises RunProblem that names missing, unknown and
    mis-shaped tensors.
    """
    wanted = weights_of(module)
    try:
        with safe_open(path, "pt") as file:
            names = [n for n in file.keys() if without is None or not n.startswith(without)]  # noqa: SIM118
            tables = [n for n in names if resize and n.endswith(TABLES) and n in wanted]
            shapes = {n: list(file.get_slice(n).get_shape()) for n in names}
            shapes |= {n: list(wanted[n].shape) for n in tables}
        check_shapes(wanted, shapes, str(path))
        names = list(wanted)
        for start in range(0, len(names), TENSORS_AT_ONCE):
            # Opened anew: the mapped file's pages would add up to a second copy of the weights.
            with safe_open(path, "pt") as file, torch.no_grad():
                for name in names[start : start + TENSORS_AT_ONCE]:
                    stored, tensor = file.get_tensor(name), wanted[name]
                    if name in tables:
                        stored = resize_table(stored, len(tensor))
                    tensor.copy_(stored)
                    del stored
    except (SafetensorError, OSError) as error:
        raise RunProblem(f"{path}: cannot read the weights: {error}") from error


def check_shapes(wanted: Mapping[str, Tensor], stored: Mapping[str, Any], where: str) -> None:
    """Raise RunProblem unless both have the same names and shapes."""
    problems = [f"missing {name}" for name in wanted if name not in stored]
    problems += [f"unknown {name}" for name in stored if name not in wanted]
    problems += [
        f"{name} has shape {list(stored[name])}, expected {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in stored and list(stored[name]) != list(tensor.shape)
    ]
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise RunProblem(f"{where}: {'; '.join(problems[:10])}{more}")
