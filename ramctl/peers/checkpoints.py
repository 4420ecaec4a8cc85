"""The authors' own checkpoint files, read without running what a pickle may hold."""

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ramctl.errors import RunProblem

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; RunProblem when it is not one, or holds more than data."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, ValueError, EOFError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise RunProblem(f"{path}: cannot read the checkpoint: {reason}") from error
    if not isinstance(content, dict):
        raise RunProblem(f"{path}: not a dictionary of weights")
    return content


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint; raises as `read_checkpoint`."""
    return weights_in(read_checkpoint(path))


def weights_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, at its top, in `model` or `state_dict`, without `module.`."""
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return {
        name.removeprefix("module."): tensor
        for name, tensor in content.items()
        if isinstance(tensor, Tensor)
    }


def folder_of(path: Path) -> Path:
    """The folder that a weights file lies in, or the folder itself."""
    return path if path.is_dir() else path.parent


def weight_files(path: Path) -> list[Path]:
    """The weight files of a folder, by name, or the file itself."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES)


def count_blocks(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered blocks a model has: `prefix` is followed by a block's number."""
    numbers = (name.removeprefix(prefix) for name in weights if name.startswith(prefix))
    return len({number.partition(".")[0] for number in numbers})


def load_strictly(
    module: nn.Module, weights: Mapping[str, Tensor], where: Path, *, unused: Collection[str] = ()
) -> None:
    """Load the weights; RunProblem unless all are there, with none left over but `unused`."""
    try:
        missing, extra = module.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise RunProblem(f"{where}: weights of another shape: {reason}") from error
    # Not every normalisation layer counts its batches, and inference does not use the count.
    missing = [name for name in missing if not name.endswith(".num_batches_tracked")]
    extra = [name for name in extra if name not in unused]
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"has the unknown {extra[0]}"
        raise RunProblem(f"{where}: {what} ({len(missing)} weights missing, {len(extra)} unknown)")
