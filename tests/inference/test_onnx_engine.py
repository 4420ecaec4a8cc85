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


def test_processors_that_add_two_products_in_16_bits_get_the_same_sums(mini):
    graph = onnx.load(mini.path / PHOTO_GRAPH, load_external_data=False).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer
               if tensor.data_type == onnx.TensorProto.INT8}  # fmt: skip
    weights = [tensors[node.input[3]] for node in graph.node if node.op_type == "QLinearConv"]
    for each in weights:
        rows = each.astype(int).transpose(0, 2, 3, 1).reshape(len(each), -1)
        pairs = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2)
        highest = 255 * max(pairs.clip(0).sum(2).max(), (-pairs).clip(0).sum(2).max())
        assert highest <= np.iinfo(np.int16).max or each.shape[1] == 1  # depthwise
    assert len(weights) == 49


def test_one_photo_and_several_get_the_same_bits(mini):
    engine = OnnxEngine(mini, label_rows(mini))
    photos = np.random.default_rng(0).uniform(-1, 1, (4, 3, 256, 256)).astype(np.float32)
    together, pairs = engine.encode(photos), [engine.encode(photos[i : i + 2]) for i in range(3)]
    for name, values in together.items():
        np.testing.assert_array_equal(values[:3], np.concatenate([p[name][:1] for p in pairs]))


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
