"""The graphs' engine: when it is chosen, the likeliest labels, what is refused."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch as torch_library

from ramctl.checkpoints.bundle import PHOTO_GRAPH, WEIGHTS, Bundle
from ramctl.errors import RunProblem
from ramctl.inference import onnx_engine
from ramctl.inference.onnx_engine import ONNX, TORCH, Branch, OnnxEngine, choose_runtime
from ramctl.inference.torch_engine import TorchEngine
from ramctl.inference.vocabulary import label_rows
from ramctl.model.device import Runtime
from ramctl.model.preset import finetuning_preset, load_preset, preset_to_meta
from ramctl.records.labels import Labels

PHOTOS = sorted((Path(__file__).parents[1] / "data" / "photos").glob("*.jpg"))
PIXELS = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
FEW = 4


@pytest.mark.parametrize(
    ("asked", "n_bytes", "gpu", "expected"),
    [
        ({}, 800_000_000, True, TORCH),  # a large model gains by the GPU
        ({}, 800_000_000, False, ONNX),
        ({}, 20_000_000, True, ONNX),  # decoding takes longer than a small one
        ({"device": "cpu"}, 800_000_000, True, ONNX),
        ({"runtime": "onnx"}, 800_000_000, True, ONNX),
        ({"dtype": "int8"}, 800_000_000, True, ONNX),
        ({"device": "cuda"}, 20_000_000, True, TORCH),
        ({"dtype": "fp16"}, 20_000_000, False, TORCH),
        ({"dtype": "bf16", "device": "cpu"}, 20_000_000, False, TORCH),
        ({"runtime": "torch"}, 20_000_000, False, TORCH),
    ],
)
def test_one_rule_chooses_what_runs_a_model(monkeypatch, asked, n_bytes, gpu, expected):
    monkeypatch.setattr("ramctl.inference.onnx_engine.has_gpu", lambda: gpu)
    options = {"runtime": "auto", "device": "auto", "dtype": "auto"} | asked
    files = {PHOTO_GRAPH: {"bytes": 1000}, WEIGHTS: {"bytes": n_bytes}}
    meta = {"files": files, "dtype": "int8"}
    meta |= preset_to_meta(finetuning_preset(load_preset("ram-swin-l")))
    assert choose_runtime(Bundle(Path("x"), meta), **options) == expected


def change(folder, graph, location):
    """Damage a graph, or let its weights lie elsewhere."""
    if location is None:
        (folder / graph).write_bytes((folder / graph).read_bytes()[:-5])
        return
    shutil.copy(folder / WEIGHTS, folder.parent / "outside.bin")
    model = onnx.load(folder / graph, load_external_data=False)
    stored = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    for entry in stored.external_data:
        entry.value = location if entry.key == "location" else entry.value
    onnx.save(model, folder / graph)


@pytest.mark.parametrize(
    ("graph", "location", "said"),
    [
        (PHOTO_GRAPH, None, ""),
        ("labels.onnx", "../outside.bin", ".*xternal"),
    ],
)
def test_damaged_graphs_and_weights_outside_of_the_bundle_are_refused_in_one_line(
    graph, location, said, mini, tmp_path
):
    folder, labels = shutil.copytree(mini.path, tmp_path / "bundle"), label_rows(mini)
    change(folder, graph, location)
    with pytest.raises(RunProblem, match=f"{graph}: onnxruntime cannot load it: {said}") as told:
        OnnxEngine(Bundle(folder, mini.meta), Labels.with_rows(labels[:9], labels.rows[:9]))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [("x86_64", "avx512f", True), ("AMD64", "avx512_vnni", False), ("aarch64", "", False)],
)
def test_processors_that_add_in_16_bits_are_known(monkeypatch, machine, flags, expected):
    monkeypatch.setattr(onnx_engine.platform, "machine", lambda: machine)
    monkeypatch.setattr(onnx_engine.Path, "read_text", lambda path, *_: f"flags : avx2 {flags}")
    assert onnx_engine._adds_in_16_bits() is expected


def with_headroom(bundle: Bundle) -> Labels:
    """The labels with a curve each, whose decoder adds at most 1 to 10."""
    labels = label_rows(bundle)
    curved = (
        label.changed(headroom=float(i), calibration=(1 + i / 5, -i / 2))
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


@pytest.mark.parametrize("words", [[], ["--threshold", "0.001"]])
def test_tags_and_scores_do_not_depend_on_what_else_is_asked_for(ramctl, words):
    tag = partial(ramctl, "tag", "-q", *words, *PHOTOS)
    alone = tag().rows
    for option in ("--dense", "--embedding"):
        for before, after in zip(alone, tag(option).rows, strict=True):
            assert before.items() <= after.items()
