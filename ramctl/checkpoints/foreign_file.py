"""What the weights file of another project holds, or what it is instead, and the remedy."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ramctl.errors import RunProblem

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how torch's formats begin, newer and older
_HEAD = 512  # bytes that tell the kinds of files apart
_HTML = (b"<!doctype", b"<html", b"<head", b"<?xml")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of another project's file: a pickle of torch, or safetensors.

    Nothing in the file is executed: a pickle that holds anything but tensors and plain containers
    is refused. Raises RunProblem for such a file, and for one that is something else, damaged or
    cut off, with what to do about it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        reason = error.strerror or error
        raise RunProblem(f"{path}: cannot read the checkpoint: {reason}") from error
    if problem := _what_instead(path, head):
        raise RunProblem(f"{path}: {problem}")
    try:
        content = load_file(path) if _is_safetensors(head) else _load_pickle(path)
    except pickle.UnpicklingError as error:
        unknown = re.search(r"GLOBAL (\S+)", str(error))
        named = f" ({unknown[1]})" if unknown else ""
        raise RunProblem(
            f"{path}: refused, the file holds more than weights{named}; save them alone with the "
            "program that wrote it: torch.save({'model': model.state_dict()}, 'weights.pth')"
        ) from error
    except Exception as error:  # of a damaged file torch raises what its parts raise
        reason = _first_sentence(error)
        raise RunProblem(f"{path}: damaged or cut off ({reason}); download it again") from error
    if not isinstance(content, dict):
        shape = f" of shape {list(content.shape)}" if isinstance(content, Tensor) else ""
        what = f"one {type(content).__name__}{shape}"
        raise RunProblem(f"{path}: holds {what}, not a dictionary of weights")
    return content


def tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, at its top, in `model` or `state_dict`, without `module.`."""
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return {
        name.removeprefix("module."): tensor  # what DistributedDataParallel puts before each name
        for name, tensor in content.items()
        if isinstance(tensor, Tensor)
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


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30


def _what_instead(path: Path, head: bytes) -> str:
    """What a file is that is no checkpoint, and the remedy; empty where it may be one."""
    if path.suffix == ".safetensors" and head.startswith((_ZIP, _PICKLE)):
        return "a file of torch's, not safetensors; rename it to .pth"  # torch goes by the name
    if head.startswith(_ZIP):
        try:
            if not zipfile.is_zipfile(path):
                return f"cut off after {path.stat().st_size} bytes; download it again"
            with zipfile.ZipFile(path) as archive:
                has_weights = any(name.endswith("data.pkl") for name in archive.namelist())
        except Exception:  # of a damaged archive zipfile raises what its parts raise
            return "damaged; download it again"
        return "" if has_weights else "a zip archive, but not one of torch's; unpack it"
    if head.startswith(_PICKLE) or _is_safetensors(head):
        return ""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.lower().startswith(_HTML):
        page = "an HTML page, not a checkpoint; download the file itself"
        return f"{page}: on a hub its address has /resolve/ where that of the page has /blob/"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights; `git lfs pull` fetches them"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it, or if torch wrote it, load and save it with a newer torch"
    if head.startswith(b"\x1f\x8b"):
        return "compressed by gzip; unpack it"
    if not text:
        return "the file is empty; download it again"
    if all(byte >= 9 for byte in head):
        line = text.split(b"\n")[0][:40].decode("utf-8", "replace")
        return f"text, not a checkpoint ({line!r}); download it again"
    return "in no format of torch's or safetensors"


def _first_sentence(error: Exception) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()  # torch's colours
    return re.split(r"\n|\. |\.$", text)[0] or type(error).__name__
