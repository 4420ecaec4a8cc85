"""The exported graph equals the torch model, for every architecture."""

import numpy as np
import pytest
import torch

from ramctl.checkpoints.onnx_graph import export_graph
from ramctl.checkpoints.weights import load_weights, save_weights
from tests.model.test_ram import PRIOR, build

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def run(path, photos, rows):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {"photos": photos.numpy(), "label_queries": rows.detach().numpy()}
    if len(session.get_inputs()) > 2:  # of a model with a global branch, asked about all labels
        feeds |= {"offsets": np.zeros(len(rows), np.float32), "shortlist": np.array([len(rows)])}
    return session.run(["logits"], feeds)[0]


@pytest.mark.shared
def test_graph_takes_another_number_of_descriptions(ram_plus, tmp_path):
    export_graph(ram_plus.model, 96, tmp_path / "model.onnx")
    rows = ram_plus.io["openset.label_embed"].view(6, 5, -1)
    logits = run(tmp_path / "model.onnx", ram_plus.io["image"], rows)
    np.testing.assert_allclose(logits, ram_plus.io["openset.logits"].numpy(), atol=1e-3)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return build(PRIOR, n_labels=7)


@pytest.mark.parametrize("half", [False, True])
def test_weights_are_stored_once(tiny, tmp_path, half):
    weights = tmp_path / "model.safetensors"
    save_weights(tiny, weights, half=half)
    load_weights(tiny, weights)
    export_graph(tiny, 64, tmp_path / "model.onnx", weights=weights)
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    inside = [i for i in graph.graph.initializer if i.data_location != 1 and np.prod(i.dims) > 64]
    assert not inside
    photos, rows = torch.randn(3, 3, 64, 64), tiny.labels()
    with torch.no_grad():
        expected = tiny(photos, rows).logits.total.numpy()
    np.testing.assert_allclose(run(tmp_path / "model.onnx", photos, rows), expected, atol=1e-3)


def test_unseen_labels_have_zeros_for_what_seen_ones_own(tiny, tmp_path):
    export_graph(tiny, 64, tmp_path / "model.onnx")
    text = torch.randn(2, 32)
    rows = torch.cat([text, torch.zeros(2, sum(tiny.labels.widths) - 32)], 1)
    photos = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        encoded = tiny.encode(tiny.encoder(photos))
        expected = tiny.tag_logits(encoded, text).total.numpy()
    np.testing.assert_allclose(run(tmp_path / "model.onnx", photos, rows), expected, atol=1e-3)
