"""Read and write weights; names and shapes are checked, for files of other projects too."""

import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ramctl.errors import RunProblem

RELATIVE_POSITIONS = "relative_position_bias_table"  # the end of the names of Swin's tables
_REQUIRES_GRAD = Tensor.requires_grad_  # changes no value
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class NoInitialValues(TorchFunctionMode):
    """A context in which new parameters are not initialised, for models whose weights are read.

    Drawing random numbers for Swin-L takes ten times as long as reading its weights.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function, unless it would change a parameter in place."""
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        changes = function.__name__.endswith("_") and not function.__name__.endswith("__")
        if isinstance(target, nn.Parameter) and changes and function is not _REQUIRES_GRAD:
            return target
        return function(*args, **kwargs)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; tied ones once, under their first name."""
    persistent = module.state_dict(keep_vars=True)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor for name, tensor in tensors.items() if name in persistent}


def save_weights(module: nn.Module, path: Path, *, half: bool = False) -> None:
    """Write the module's weights; with `half` matrices are stored as fp16."""
    tensors = {}
    for name, tensor in weights_of(module).items():
        tensor = tensor.detach().cpu().contiguous()
        # Vectors (biases, norms, statistics) are small, and variances can leave fp16's range.
        if half and tensor.dim() > 1 and tensor.is_floating_point():
            tensor = tensor.half()
        tensors[name] = tensor
    save_file(tensors, path, metadata={"format": "pt"})


def load_weights(
    module: nn.Module, path: Path, *, without: str | None = None, resize: bool = False
) -> None:
    """Load weights that `save_weights` wrote into a module of the same architecture.

    Tensors whose name starts with `without` are skipped; `resize` fits Swin's relative-position
    tables to another window size. RunProblem names missing, unknown and mis-shaped tensors.
    """
    targets = weights_of(module)
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunProblem(f"{path}: cannot read the weights: {error}") from error
    for name in list(stored):
        if without is not None and name.startswith(without):
            del stored[name]
        elif resize and name.endswith(RELATIVE_POSITIONS) and name in targets:
            stored[name] = resize_table(stored[name], len(targets[name]))
    check_shapes(str(path), targets, {name: tensor.shape for name, tensor in stored.items()})
    with torch.no_grad():
        for name, tensor in targets.items():
            tensor.copy_(stored[name])


def check_shapes(
    where: str, expected: Mapping[str, Tensor], stored: Mapping[str, Sequence[int]]
) -> None:
    """Raise RunProblem naming the first ten tensors that are missing, unknown or mis-shaped."""
    problems = [f"missing {name}" for name in expected if name not in stored]
    problems += [f"unknown {name}" for name in stored if name not in expected]
    problems += [
        f"{name} has shape {list(stored[name])}, expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in stored and list(stored[name]) != list(tensor.shape)
    ]
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise RunProblem(f"{where}: {'; '.join(problems[:10])}{more}")


def resize_table(table: Tensor, rows: int) -> Tensor:
    """Resize Swin's relative-position table (source rows, heads) to (2 window - 1)^2 rows.

    Near positions keep their spacing, far ones are spread in a geometric progression, as in BEiT,
    which the authors' code follows (with a function that scipy has dropped).
    """
    if len(table) == rows:
        return table
    from scipy.interpolate import RectBivariateSpline  # heavy, and needed only here

    source, target = round(len(table) ** 0.5), round(rows**0.5)
    positions = _source_positions(source, target)
    new_positions = np.arange(target) - target // 2
    heads = table.double().t().reshape(-1, source, source).numpy()
    resized = [
        RectBivariateSpline(positions, positions, head)(new_positions, new_positions)
        for head in heads
    ]
    stacked = torch.from_numpy(np.stack(resized)).reshape(len(heads), rows)
    return stacked.t().contiguous().to(table.dtype)


def _source_positions(source: int, target: int) -> NDArray[np.float64]:
    """The places of the source's entries on the target's integer grid, symmetric around 0."""
    half, reach = source // 2, target // 2
    low, high = 1.01, 1.5  # the range of the ratio in BEiT
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**half) / (1 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    steps = np.cumsum(ratio ** np.arange(half))
    return np.concatenate([-steps[::-1], [0.0], steps])


def count_blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Count the numbered blocks of a model: `prefix` is followed by a block's number."""
    names = (name.removeprefix(prefix) for name in tensors if name.startswith(prefix))
    return len({name.partition(".")[0] for name in names})


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> nn.Module:
    """Load the tensors into a module; RunProblem if one is missing or unknown."""
    expected = module.state_dict()
    # Not every normalisation layer counts its batches, and inference does not use the count.
    counts = {name for name in expected if name.endswith(".num_batches_tracked")}
    needed = {n: tensor for n, tensor in expected.items() if n not in counts - set(tensors)}
    check_shapes(str(where), needed, {name: tensor.shape for name, tensor in tensors.items()})
    module.load_state_dict(tensors, strict=False)
    return module


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of another project: safetensors by its suffix, else torch's format.

    Nothing in the file is executed. RunProblem for a pickle that holds anything but tensors and
    plain containers, and for a file of another kind, damaged or cut off.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns the authors of the file
            # Only torch's newer format, which is a zip archive, can be mapped into memory.
            is_zip = zipfile.is_zipfile(path)
            return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip))
    except OSError as error:
        raise RunProblem(f"{path}: cannot read the checkpoint: {error}") from error
    except Exception as error:  # a damaged file may raise anything inside torch
        unknown = re.search(r"GLOBAL (\S+)", str(error))
        reason = "not a checkpoint of torch's or safetensors, or damaged"
        if unknown:
            reason = f"refused, the file holds more than weights ({unknown[1]})"
        raise RunProblem(f"{path}: {reason}") from error


def tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint: at its top, in `model` or in `state_dict`."""
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return {
        name.removeprefix("module."): tensor  # the prefix of DistributedDataParallel
        for name, tensor in content.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
