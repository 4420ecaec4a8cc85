"""The graphs' engine: logits of the photo alone, the likeliest labels, what is refused."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch as torch_library

from ramctl.checkpoints.bundle import PHOTO_GRAPH, Bundle, embedded_bundle
from ramctl.errors import RunProblem
from ramctl.inference import onnx_engine
from ramctl.inference.onnx_engine import Branch, OnnxEngine
from ramctl.inference.torch_engine import TorchEngine
from ramctl.inference.vocabulary import label_rows
from ramctl.model.device import Runtime
from ramctl.records.labels import Labels

PHOTOS = sorted((Path(__file__).parents[1] / "data" / "photos").glob("*.jpg"))
PIXELS = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
FEW = 4


@pytest.fixture(scope="module")
def mini():
    return Bundle.open(embedded_bundle())


def few_labels(mini):
    labels = label_rows(mini)
    return Labels.with_rows(labels[:9], labels.rows[:9])


def test_a_damaged_graph_is_told_in_one_line(mini, tmp_path):
    shutil.copytree(mini.path, tmp_path / "broken")
    (tmp_path / "broken" / PHOTO_GRAPH).write_bytes((mini.path / PHOTO_GRAPH).read_bytes()[:-5])
    with pytest.raises(RunProblem, match=f"{PHOTO_GRAPH}: onnxruntime cannot load it: ") as told:
        OnnxEngine(Bundle(tmp_path / "broken", mini.meta), few_labels(mini))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("location", ["../outside.bin", "link/outside.bin"])
def test_onnxruntime_refuses_weights_outside_of_the_bundle(mini, tmp_path, location):
    onnx = pytest.importorskip("onnx")
    outside, folder = tmp_path / "outside.bin", tmp_path / "bundle"
    shutil.copytree(mini.path, folder)
    shutil.copy(mini.path / "model.safetensors", outside)
    (folder / "link").symlink_to(tmp_path)
    graph = onnx.load(folder / "labels.onnx", load_external_data=False)
    stored = next(tensor for tensor in graph.graph.initializer if tensor.external_data)
    for entry in stored.external_data:
        entry.value = location if entry.key == "location" else entry.value
    onnx.save(graph, folder / "labels.onnx")
    with pytest.raises(RunProblem, match=r"labels\.onnx: onnxruntime cannot load it: .*xternal"):
        OnnxEngine(Bundle(folder, mini.meta), few_labels(mini))


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags : avx2 avx512f", True),
        ("x86_64", "flags : avx2 avx512_vnni", False),
        ("AMD64", None, True),
        ("aarch64", None, False),
    ],
)
def test_processors_that_add_in_16_bits_are_known(monkeypatch, machine, flags, expected):
    def read(path, *_):
        if flags is None:
            raise FileNotFoundError(path)
        return flags

    monkeypatch.setattr(onnx_engine.platform, "machine", lambda: machine)
    monkeypatch.setattr(onnx_engine.Path, "read_text", read)
    assert onnx_engine._adds_in_16_bits() is expected


def with_headroom(bundle: Bundle) -> Labels:
    """The labels with a curve each, whose decoder adds at most 1 to 10."""
    labels = label_rows(bundle)
    curved = (
        replace(label, headroom=float(i), calibration=(1 + i / 5, -i / 2))
        for i, label in enumerate(labels, 1)
    )
    return Labels.with_rows(curved, labels.rows)


def test_the_likeliest_labels_are_those_of_torchs_branch_and_have_their_logits(ranked, monkeypatch):
    labels = with_headroom(ranked)
    everything = OnnxEngine(ranked, labels)  # ten are no more than are listed
    assert np.isfinite(everything.logits(everything.encode(PIXELS))).all()
    monkeypatch.setattr(onnx_engine, "MIN_LISTED", FEW)
    torch = TorchEngine.open(ranked, Runtime.choose("cpu"), labels=labels)
    with torch_library.inference_mode():
        by_text, by_label = torch.model.branch_logits(torch.encode(PIXELS), torch.labels)
    branch = (by_text + by_label).numpy() + np.arange(1, 11)
    slopes, offsets = labels.curves.T
    likeliest = np.argsort(-(slopes * branch + offsets), axis=1)[:, :FEW]
    listed = np.zeros((3, 10), bool)
    np.put_along_axis(listed, likeliest, True, axis=1)
    seen = everything.encode(PIXELS)
    np.testing.assert_array_equal(Branch(ranked, labels).likeliest(seen), listed)
    few = OnnxEngine(ranked, labels).logits(seen)
    np.testing.assert_allclose(few, np.where(listed, everything.logits(seen), -np.inf), atol=1e-5)
    alone = OnnxEngine(ranked, labels, scores_all=True)
    assert np.isfinite(alone.logits(seen)).all()


@pytest.mark.parametrize("dtype", ["int8", "fp32", "bf16"])
def test_tags_and_scores_do_not_depend_on_what_else_is_asked_for(ramctl, dtype):
    tag = partial(ramctl, "tag", "-q", "--dtype", dtype, *PHOTOS)
    alone = tag().rows
    for option in ("--dense", "--embedding"):
        for before, after in zip(alone, tag(option).rows, strict=True):
            assert before.items() <= after.items()
