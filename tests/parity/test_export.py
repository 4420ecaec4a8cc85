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


@pytest.mark.parametrize(("kind", "half"), [*((kind, False) for kind in KINDS), ("prior", True)])
def test_graphs_of_each_kind_give_torchs_logits_and_store_no_weights(kind, half, tmp_path):
    torch.manual_seed(0)
    overrides, options = KINDS[kind]
    model = build(overrides, n_labels=7, **options)
    export(model, 64, tmp_path, half=half)
    photos, rows = torch.randn(3, 3, 64, 64), model.labels()
    fewer = rows[2:4, :2] if kind == "descriptions" else rows[2:4]  # of each, at most 2
    for some, part in ((photos, rows), (photos[:1], fewer)):
        with torch.no_grad():
            expected = model(some, part).logits.total.numpy()
        found = run(tmp_path, some, part)
        np.testing.assert_allclose(found, expected, atol=1e-3 if half else 1e-4)
    for name in GRAPHS:
        tensors = onnx.load(tmp_path / name, load_external_data=False).graph.initializer
        assert not [i for i in tensors if i.data_location != 1 and np.prod(i.dims) > 64]
