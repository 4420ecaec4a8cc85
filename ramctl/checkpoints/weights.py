"""Weights in files, ours and those of other projects: every name and shape checked when read."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ramctl.errors import RunProblem
from ramctl.records.files import is_device

TENSORS_AT_ONCE = 16
RELATIVE_POSITIONS = "relative_position_bias_table"  # what the names of Swin's tables end with
_REQUIRES_GRAD = Tensor.requires_grad_  # changes no value
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class NoInitialValues(TorchFunctionMode):
    """A context that leaves new parameters unset: those of a model whose weights are read next.

    Random numbers for Swin-L take ten times as long as reading its weights, and memory that is
    written once is not given back.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """The function's result, or the parameter that it was to change as it is."""
        named = kwargs or {}
        target = args[0] if args else named.get("tensor")
        changes = function.__name__.endswith("_") and not function.__name__.endswith("__")
        if isinstance(target, nn.Parameter) and changes and function is not _REQUIRES_GRAD:
            return target
        return function(*args, **named)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; tied ones once, under their first name."""
    persistent = module.state_dict(keep_vars=True)
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor for name, tensor in named.items() if name in persistent}


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
    path.chmod(0o644)  # safetensors makes files that only their owner can read


def load_weights(
    module: nn.Module, path: Path, *, without: str | None = None, resize: bool = False
) -> None:
    """Read what `save_weights` wrote into a module of the same architecture.

    Tensors whose name starts with `without` are skipped; `resize` fits Swin's relative-position
    tables to another window size. Raises RunProblem that names missing, unknown and mis-shaped
    tensors.
    """
    wanted = weights_of(module)
    try:
        with safe_open(path, "pt") as file:
            names = [n for n in file.keys() if without is None or not n.startswith(without)]  # noqa: SIM118
            tables = [n for n in names if resize and n.endswith(RELATIVE_POSITIONS) and n in wanted]
            shapes = {n: list(file.get_slice(n).get_shape()) for n in names}
            shapes |= {n: list(wanted[n].shape) for n in tables}
        check_shapes(str(path), wanted, shapes)
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


def check_shapes(
    where: str, wanted: Mapping[str, Tensor], stored: Mapping[str, Sequence[int]]
) -> None:
    """Raise RunProblem naming the first ten tensors that are missing, unknown or mis-shaped."""
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


def resize_table(table: Tensor, rows: int) -> Tensor:
    """Swin's relative-position table (source rows, heads) as (rows, heads): (2 window - 1)^2 rows.

    Near positions keep their spacing, far ones are spread in a geometric progression. Source: the
    BEiT recipe that the authors' code means to use; theirs calls a function that scipy has dropped.
    """
    if len(table) == rows:
        return table
    from scipy.interpolate import RectBivariateSpline  # heavy, and needed only here

    source, target = round(len(table) ** 0.5), round(rows**0.5)
    positions = _source_positions(source, target)
    wanted = np.arange(target) - target // 2
    heads = table.double().t().reshape(-1, source, source).numpy()
    resized = [RectBivariateSpline(positions, positions, head)(wanted, wanted) for head in heads]
    stacked = torch.from_numpy(np.stack(resized)).reshape(len(heads), rows)
    return stacked.t().contiguous().to(table.dtype)


def _source_positions(source: int, target: int) -> NDArray[np.float64]:
    """Where the source's entries stand on the target's integer grid, symmetric around 0."""
    half, reach = source // 2, target // 2
    low, high = 1.01, 1.5  # BEiT's bounds of the ratio
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**half) / (1 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    steps = np.cumsum(ratio ** np.arange(half))
    return np.concatenate([-steps[::-1], [0.0], steps])


def only_weight_file(path: Path, suffixes: Collection[str] = SUFFIXES) -> Path:
    """The one weight file of a folder, or the file itself, whatever its name; else RunProblem."""
    files = [path] if path.is_file() else [f for f in path.iterdir() if f.suffix in suffixes]
    if len(files) != 1:
        raise RunProblem(f"{path}: expected one of {', '.join(suffixes)}, found {len(files)}")
    return files[0]


def count_blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered blocks a model has: `prefix` is followed by a block's number."""
    names = (name.removeprefix(prefix) for name in tensors if name.startswith(prefix))
    return len({name.partition(".")[0] for name in names})


def load_strictly(
    module: nn.Module, tensors: Mapping[str, Tensor], where: Path, *, unused: Collection[str] = ()
) -> nn.Module:
    """The module with the tensors; RunProblem unless all are there, and no other but `unused`."""
    wanted = module.state_dict()
    # Not every normalisation layer counts its batches, and inference does not use the count.
    counts = {name for name in wanted if name.endswith(".num_batches_tracked")}
    needed = {name: tensor for name, tensor in wanted.items() if name not in counts - set(tensors)}
    used = {name: tensor for name, tensor in tensors.items() if name not in unused}
    check_shapes(str(where), needed, {name: tensor.shape for name, tensor in used.items()})
    module.load_state_dict(used, strict=False)
    return module


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of another project's file: a pickle of torch, or safetensors.

    Nothing in the file is executed: a pickle that holds anything but tensors and plain containers
    is refused. Raises RunProblem for such a file, and for one that is something else, damaged or
    cut off.
    """
    if is_device(path):  # which could be waited for, or have no end
        raise RunProblem(f"{path}: cannot read the checkpoint: not a file")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        reason = error.strerror or error
        raise RunProblem(f"{path}: cannot read the checkpoint: {reason}") from error
    is_safetensors = head[8:] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30
    try:
        content = load_file(path) if is_safetensors else _load_pickle(path)
    except Exception as error:  # of a damaged file torch raises what its parts raise
        reason = "not a checkpoint of torch's or safetensors, or damaged; download it again"
        unknown = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and unknown:
            reason = f"refused, the file holds more than weights ({unknown[1]})"
        raise RunProblem(f"{path}: {reason}") from error
    if not isinstance(content, dict):
        raise RunProblem(f"{path}: holds one {type(content).__name__}, not a dictionary of weights")
    return content


def tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, at its top, in `model` or `state_dict`, without `module.`."""
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return {
        name.removeprefix("module."): tensor  # what DistributedDataParallel puts before each name
        for name, tensor in content.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }


def _load_pickle(path: Path) -> Any:
    # Only torch's newer format, which is a zip archive, can be mapped into memory.
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                # A small file may hold terabytes of zeros; torch itself never compresses.
                raise ValueError("what is in it is compressed, unlike torch's files")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice to those who wrote the file
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
