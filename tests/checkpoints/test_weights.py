"""Files of other projects: read whatever their format, or one line that says what they are."""

import argparse
import os
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from ramctl.checkpoints.official import convert_official
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


NONE = "not a checkpoint of torch's or safetensors, or damaged; download it again"
MODULE = r"refused, .+ \(torch.nn.modules.linear.Linear\)"
WRONG = {
    "page": (lambda p: p.write_text("\n<!DOCTYPE html>\n<html>"), NONE),
    "empty": (lambda p: p.write_bytes(b""), NONE),
    "cut zip": (cut(lambda p: torch.save(WEIGHTS, p)), NONE),
    "damaged zip": (damaged_zip, NONE),
    "cut pickle": (cut(lambda p: save_old(WEIGHTS, p)), NONE),
    "cut safetensors": (cut(lambda p: save_file(WEIGHTS, p)), NONE),
    "compressed": (compressed, NONE),
    "noise": (lambda p: p.write_bytes(bytes(range(256))), NONE),
    "arguments": (
        lambda p: torch.save({"model": WEIGHTS, "args": argparse.Namespace()}, p),
        r"refused, .+ \(argparse.Namespace\)",
    ),
    "module": (lambda p: torch.save(torch.nn.Linear(2, 2), p), MODULE),
    "module, old format": (lambda p: save_old(torch.nn.Linear(2, 2), p), MODULE),
    "list": (lambda p: torch.save([1, 2], p), "one list, not a dictionary of weights"),
    "folder": (lambda p: p.mkdir(), "cannot read the checkpoint: Is a directory"),
    "pipe": (lambda p: os.mkfifo(p), "cannot read the checkpoint: not a file"),
    "nothing": (lambda p: None, "cannot read the checkpoint: No such file"),
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


def test_what_has_no_name_is_no_tensor_of_a_checkpoint(tmp_path):
    torch.save({"model": {1: torch.ones(1), "a.bias": torch.ones(2)}}, tmp_path / "x.pth")
    assert [*tensors_of(read_checkpoint(tmp_path / "x.pth"))] == ["a.bias"]


TABLE = "visual_encoder.layers.0.blocks.0.attn.relative_position_bias_table"


@pytest.mark.parametrize(
    "changes",
    [
        {"label_embed": torch.ones(())},
        {"label_embed": torch.ones(2)},
        {"tagging_head.encoder.layer.0.intermediate.dense.weight": torch.ones(3)},
        {TABLE: torch.ones(())},
        {TABLE: torch.ones(1, 1).expand(10**10, 1)},
        {"visual_encoder.norm.weight": torch.ones(())},
        {"visual_encoder.patch_embed.proj.weight": torch.ones(1).expand(10**9)},
        {"visual_encoder.patch_embed.proj.weight": torch.ones(0, 3, 4, 4)},
        {"visual_encoder.norm.weight": torch.ones(1).expand(10**12)},
        {"image_proj.weight": torch.ones(1, 1).expand(10**12, 1)},
    ],
    ids=lambda changes: " ".join(f"{name[-20:]} {[*t.shape]}" for name, t in changes.items()),
)
def test_sizes_that_no_checkpoint_has_are_said_in_one_line(changes):
    tensors = {
        "label_embed": torch.ones(2, 512),
        "wordvec_proj.weight": torch.ones(768, 512),
        "visual_encoder.norm.weight": torch.ones(192),
        "visual_encoder.patch_embed.proj.weight": torch.ones(24, 3, 4, 4),
        TABLE: torch.ones(9, 1),
        "tagging_head.encoder.layer.0.intermediate.dense.weight": torch.ones(8, 4),
    } | changes
    with pytest.raises(RunProblem, match=r"ram checkpoint|does not fit"):
        convert_official("ram", tensors, 2)
