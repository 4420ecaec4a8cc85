"""Full-size checkpoints: every key of the authors' state dicts is used or derivable."""

import pickle
from pathlib import Path

import pytest
import torch

from ramctl.checkpoints.official import (
    build_official,
    check_official_keys,
    convert_official,
    infer_preset,
    official_targets,
    read_official,
)
from ramctl.errors import RunProblem

FULL_SIZE = {
    "ram": ("full_size_keys_ram_swin_large.txt", 4585, 384),
    "ram-plus": ("full_size_keys_ram_plus_swin_large.txt", 4585, 384),
    "tag2text": ("full_size_keys_tag2text_swin.txt", 3429, 384),
}


def full_size_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors without memory, of the names and shapes in the list."""
    tensors = {}
    for line in path.read_text("utf-8").splitlines():
        name, shape, dtype, *_ = line.split("\t")
        sizes = [int(size) for size in shape.strip("()").split(",") if size.strip()]
        tensors[name] = torch.empty(sizes, dtype=getattr(torch, dtype), device="meta")
    return tensors


@pytest.mark.shared
@pytest.mark.parametrize("architecture", list(FULL_SIZE))
def test_every_full_size_key_is_used_or_derivable(parity, architecture):
    name, n_labels, size = FULL_SIZE[architecture]
    tensors = full_size_tensors(parity / name)
    preset = infer_preset(architecture, tensors)
    assert preset.preprocess.size == size
    with torch.device("meta"):
        model = build_official(preset, tensors, n_labels)
    check_official_keys(official_targets(model), tensors)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop("fc.weight"), "missing fc.weight"),
        (lambda t: t.update(surprise=torch.zeros(1)), "unknown surprise"),
        (lambda t: t.update({"fc.weight": torch.zeros(1, 5)}), r"fc.weight has shape \[1, 5\]"),
        (lambda t: t.pop("label_embed"), "missing label_embed"),
        (
            lambda t: t.update(
                {"tagging_head.encoder.layer.0.output.LayerNorm.bias": torch.ones(96)}
            ),
            "must equal",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_an_error_that_names_the_key(parity, change, complaint):
    tensors = read_official(parity / "ram_tiny.safetensors")
    change(tensors)
    with pytest.raises(RunProblem, match=complaint):
        convert_official("ram", tensors, 24)


@pytest.mark.shared
def test_a_tag_list_of_another_length_is_an_error(parity):
    tensors = read_official(parity / "ram_tiny.safetensors")
    with pytest.raises(RunProblem, match="24 labels, the tag list 23"):
        convert_official("ram", tensors, 23)
    tensors = read_official(parity / "ram_plus_tiny.safetensors")
    with pytest.raises(RunProblem, match="1224 descriptions do not divide into 23"):
        convert_official("ram-plus", tensors, 23)


class Malicious:
    """Pickles to a call that writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path):
    trace = tmp_path / "trace"
    for name, content in {
        "torch.pth": {"model": {"weight": torch.zeros(1), "bad": Malicious(trace)}},
        "plain.pth": Malicious(trace),
    }.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malicious(trace)))
    for name in ("torch.pth", "plain.pth", "raw.pth"):
        with pytest.raises(RunProblem):
            read_official(tmp_path / name)
    assert not trace.exists()


def test_a_checkpoint_file_without_tensors_is_an_error(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(RunProblem, match="no table of tensors"):
        read_official(tmp_path / "x.pth")
    (tmp_path / "y.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(RunProblem):
        read_official(tmp_path / "y.pth")
