"""The exported graphs equal the torch model, for every architecture."""

import numpy as np
import pytest
import torch

from ramctl.checkpoints.onnx_graph import export_graphs
from ramctl.checkpoints.weights import load_weights, save_weights
from tests.model.test_ram import DESCRIBED, PRIOR, build

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

NO_BRANCH = ["model.prior=false", "model.labels.own_width=0"]
KINDS = {
    "text": (NO_BRANCH, {}),
    "learnt": ([*NO_BRANCH, "model.labels.kind=learnt"], {}),
    "descriptions": (DESCRIBED, {"description_counts": [2, 5, 1, 2, 1, 1, 3]}),
    "prior": ([*PRIOR, "model.prior.class_sharpness=3.0"], {}),
}
GRAPHS = ("photo.onnx", "labels.onnx")


def export(model, size, folder, *, half=False):
    save_weights(model, folder / "model.safetensors", half=half)
    load_weights(model, folder / "model.safetensors")
    export_graphs(model, size, folder)


def run(folder, photos, rows):
    """The logits by both graphs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    photo, labels = (
        onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
        for name in GRAPHS
    )
    names = [output.name for output in photo.get_outputs()]
    seen = dict(zip(names, photo.run(names, {"photos": photos.numpy()}), strict=True))
    taken = {given.name for given in labels.get_inputs()} - {"rows"}
    feeds = {name: seen[name] for name in taken} | {"rows": rows.detach().numpy()}
    return labels.run(["logits"], feeds)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_of_each_kind_give_torchs_logits(kind, tmp_path):
    torch.manual_seed(0)
    overrides, options = KINDS[kind]
    model = build(overrides, n_labels=7, **options)
    export(model, 64, tmp_path)
    photos, rows = torch.randn(3, 3, 64, 64), model.labels()
    for some, part in ((photos, rows), (photos[:1], rows[2:4])):
        with torch.no_grad():
            expected = model(some, part).logits.total.numpy()
        np.testing.assert_allclose(run(tmp_path, some, part), expected, atol=1e-4)


@pytest.mark.shared
def test_graph_takes_another_number_of_descriptions(ram_plus, tmp_path):
    export(ram_plus.model, 96, tmp_path)
    rows = ram_plus.io["openset.label_embed"].view(6, 5, -1)
    logits = run(tmp_path, ram_plus.io["image"], rows)
    np.testing.assert_allclose(logits, ram_plus.io["openset.logits"].numpy(), atol=1e-3)


@pytest.mark.parametrize("half", [False, True])
def test_weights_are_stored_once(tmp_path, half):
    torch.manual_seed(0)
    model = build(PRIOR, n_labels=7)
    export(model, 64, tmp_path, half=half)
    for name in GRAPHS:
        graph = onnx.load(tmp_path / name, load_external_data=False)
        tensors = graph.graph.initializer
        assert not [i for i in tensors if i.data_location != 1 and np.prod(i.dims) > 64]
    photos, rows = torch.randn(3, 3, 64, 64), model.labels()
    with torch.no_grad():
        expected = model(photos, rows).logits.total.numpy()
    np.testing.assert_allclose(run(tmp_path, photos, rows), expected, atol=1e-3)
