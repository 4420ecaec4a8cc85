"""Files of other projects: read whatever their format, or one line that says what they are."""

import argparse

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


def test_safetensors_are_read_by_their_name(tmp_path):
    save_file(WEIGHTS, tmp_path / "y.safetensors")
    assert read_checkpoint(tmp_path / "y.safetensors").keys() == WEIGHTS.keys()
    torch.save(WEIGHTS, tmp_path / "x.safetensors")
    with pytest.raises(RunProblem, match="not a checkpoint of torch's or safetensors"):
        read_checkpoint(tmp_path / "x.safetensors")


def cut(save):
    def write(path):
        save(path)
        path.write_bytes(path.read_bytes()[:-40])

    return write


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


NONE = "not a checkpoint of torch's or safetensors, or damaged"
MODULE = r"refused, .+ \(torch.nn.modules.linear.Linear\)"
WRONG = {
    "page": (lambda p: p.write_text("\n<!DOCTYPE html>\n<html>"), NONE),
    "empty": (lambda p: p.write_bytes(b""), NONE),
    "cut zip": (cut(lambda p: torch.save(WEIGHTS, p)), NONE),
    "cut safetensors": (cut(lambda p: save_file(WEIGHTS, p)), NONE),
    "arguments": (
        lambda p: torch.save({"model": WEIGHTS, "args": argparse.Namespace()}, p),
        r"refused, .+ \(argparse.Namespace\)",
    ),
    "module": (lambda p: torch.save(torch.nn.Linear(2, 2), p), MODULE),
    "module, old format": (lambda p: save_old(torch.nn.Linear(2, 2), p), MODULE),
    "list": (lambda p: torch.save([1, 2], p), NONE),
    "folder": (lambda p: p.mkdir(), "cannot read the checkpoint: .*Is a directory"),
    "nothing": (lambda p: None, "cannot read the checkpoint: .*No such file"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_no_checkpoint_is_said_in_one_plain_line(tmp_path, name):
    write, expected = WRONG[name]
    write(tmp_path / "x.pth")
    with pytest.raises(RunProblem, match=expected) as caught:
        read_checkpoint(tmp_path / "x.pth")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'x.pth'}: ")
    assert message.isprintable()  # one line, and no colours of torch's
    assert len(message) - len(str(tmp_path)) < 240
