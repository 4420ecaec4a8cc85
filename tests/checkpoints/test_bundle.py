"""The bundle folder: written whole, opened with checks."""

import errno

import numpy as np
import pytest
from safetensors.numpy import save_file

from ramctl.checkpoints.bundle import Bundle, BundleWriter, resolve_model
from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.labels import Labels


def write(target, value=1.0):
    with BundleWriter(target) as writer:
        Labels.from_tags(["dog", "cat"]).write(writer.path / "labels.jsonl")
        save_file({"x": np.full(3, value, np.float32)}, writer.path / "model.safetensors")
        writer.meta = {"thresholds": {"threshold": 0.3}, "preprocess": {}}


def test_a_written_bundle_opens_and_verifies(tmp_path):
    write(tmp_path / "model")
    bundle = Bundle.open(tmp_path / "model")
    assert bundle.labels.tags == ["dog", "cat"]
    assert bundle.threshold == 0.3
    assert bundle.tensors(["x"])["x"].tolist() == [1.0, 1.0, 1.0]


def test_a_failed_writer_leaves_the_old_bundle(tmp_path):
    write(tmp_path / "model")
    no_full_disk = FileNotFoundError(errno.ENOENT, "No such file", "elsewhere")
    with pytest.raises(FileNotFoundError), BundleWriter(tmp_path / "model") as writer:
        (writer.path / "half").write_text("")
        raise no_full_disk
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    Bundle.open(tmp_path / "model")


def test_opening_says_which_file_is_wrong(tmp_path):
    write(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    weights.write_bytes(content[:-1])
    with pytest.raises(RunProblem, match=r"model\.safetensors: \d+ bytes instead of"):
        Bundle.open(tmp_path / "model")
    weights.unlink()
    with pytest.raises(RunProblem, match=r"model\.safetensors: missing"):
        Bundle.open(tmp_path / "model")


def test_another_format_is_refused_in_one_line(tmp_path):
    write(tmp_path / "model")
    meta = tmp_path / "model" / "bundle.json"
    meta.write_text(meta.read_text().replace('"format": 2', '"format": 1'))
    remedy = "format 1, this ramctl reads 2: convert or train it again"
    with pytest.raises(RunProblem, match=remedy) as told:
        Bundle.open(tmp_path / "model")
    assert "\n" not in str(told.value)


def test_models_are_found_by_folder_and_on_the_shelf(tmp_path, monkeypatch):
    write(tmp_path / "shelf" / "pets")
    monkeypatch.setenv("RAMCTL_MODELS", str(tmp_path / "shelf"))
    monkeypatch.chdir(tmp_path)
    assert resolve_model("pets") == tmp_path / "shelf" / "pets"
    assert str(resolve_model("shelf/pets")) == "shelf/pets"
    with pytest.raises(UsageProblem, match="model 'birds'"):
        resolve_model("birds")
