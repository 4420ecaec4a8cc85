"""Files of other projects: read whatever their format, or one line that says what they are."""

import argparse
import gzip
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ramctl.checkpoints.weights import read_checkpoint, tensors_of
from ramctl.errors import RunProblem

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"model": WEIGHTS, "epoch": 3},
        {"state_dict": WEIGHTS},
        {"model": {f"module.{name}": tensor for name, tensor in WEIGHTS.items()}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_weights_are_found_in_both_of_torchs_formats(tmp_path, content, zipped, recwarn):
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    tensors = tensors_of(read_checkpoint(tmp_path / "x.pth"))
    assert tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in WEIGHTS.items())
    assert not recwarn.list


def test_safetensors_are_read_whatever_the_files_name(tmp_path):
    save_file(WEIGHTS, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").keys() == WEIGHTS.keys()
    torch.save(WEIGHTS, tmp_path / "x.safetensors")
    with pytest.raises(RunProblem, match=r"not safetensors; rename it to .pth"):
        read_checkpoint(tmp_path / "x.safetensors")


def cut(save):
    def write(path):
        save(path)
        path.write_bytes(path.read_bytes()[:-40])

    return write


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def zip_of_text(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/weights.txt", "1 2 3")


def tar_of_text(path):
    path.with_suffix(".txt").write_text("1 2 3")
    with tarfile.open(path, "w") as archive:
        archive.add(path.with_suffix(".txt"), "weights.txt")


def damaged_zip(path):
    torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x01\x03"))


def compressed(path):
    """A checkpoint of a few bytes whose content could be of any size."""
    torch.save(WEIGHTS, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5625634877\n"
MODULE = r"refused, .+ \(torch.nn.modules.linear.Linear\); save them alone"
WRONG = {
    "page": (lambda p: p.write_text("\n<!DOCTYPE html>\n<html>"), "an HTML page.*/resolve/"),
    "page without doctype": (lambda p: p.write_text("<html lang=en>"), "an HTML page"),
    "pointer": (lambda p: p.write_text(POINTER), "a Git LFS pointer.*git lfs pull"),
    "message": (
        lambda p: p.write_text('{"error":"Entry not found"}'),
        "text, not a checkpoint .*Entry not found.*download it again",
    ),
    "empty": (lambda p: p.write_bytes(b""), "the file is empty; download it again"),
    "cut zip": (cut(lambda p: torch.save(WEIGHTS, p)), r"cut off after \d+ bytes; download"),
    "damaged zip": (damaged_zip, "damaged; download it again"),
    "cut pickle": (
        cut(lambda p: save_old(WEIGHTS, p)),
        r"damaged or cut off \(.+\); download it again",
    ),
    "cut safetensors": (cut(lambda p: save_file(WEIGHTS, p)), "damaged or cut off"),
    "compressed": (compressed, r"damaged .+compressed, unlike torch's files\); download it again"),
    "zip": (zip_of_text, "a zip archive, but not one of torch's; unpack it"),
    "tar": (tar_of_text, "a tar archive; unpack it"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"weights")), "gzip; unpack it"),
    "noise": (lambda p: p.write_bytes(bytes(range(256))), "in no format of torch's"),
    "arguments": (
        lambda p: torch.save({"model": WEIGHTS, "args": argparse.Namespace()}, p),
        r"refused, .+ \(argparse.Namespace\); save them alone .+ torch.save\(",
    ),
    "module": (lambda p: torch.save(torch.nn.Linear(2, 2), p), MODULE),
    "module, old format": (lambda p: save_old(torch.nn.Linear(2, 2), p), MODULE),
    "numpy": (lambda p: p.write_bytes(pickle.dumps({"a": np.ones(2)})), "refused, .+; save them"),
    "tensor": (lambda p: torch.save(torch.ones(3, 2), p), r"one Tensor of shape \[3, 2\], not a"),
    "list": (lambda p: torch.save([1, 2], p), "one list, not a dictionary of weights"),
    "folder": (lambda p: p.mkdir(), "cannot read the checkpoint: Is a directory"),
    "nothing": (lambda p: None, "cannot read the checkpoint: No such file"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_no_checkpoint_is_said_in_one_plain_line_with_the_remedy(tmp_path, name):
    write, expected = WRONG[name]
    write(tmp_path / "x.pth")
    with pytest.raises(RunProblem, match=expected) as caught:
        read_checkpoint(tmp_path / "x.pth")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'x.pth'}: ")
    assert message.isprintable()  # one line, and no colours of torch's
    assert len(message) - len(str(tmp_path)) < 240
