"""The graph's engine: scores of the photo alone, labels built in as good as fed, overflow."""

import shutil

import numpy as np
import onnxruntime
import pytest

from ramctl.checkpoints.bundle import (
    GRAPH,
    LABEL_QUERIES,
    LOGITS,
    OFFSETS,
    PHOTOS,
    SHORTLIST,
    Bundle,
    resolve_model,
)
from ramctl.errors import RunProblem
from ramctl.inference import onnx_engine
from ramctl.inference.graph_parts import Graph
from ramctl.inference.log_odds import score_logits
from ramctl.inference.onnx_engine import OnnxEngine
from ramctl.inference.thresholds import bundle_labels


@pytest.fixture(scope="module")
def mini():
    return Bundle.open(resolve_model("mini"))


def test_scores_equal_those_of_the_graph_as_stored(mini):
    rows = bundle_labels(mini).rows[:50]
    photos = np.random.default_rng(0).uniform(-1, 1, (2, 3, 256, 256)).astype(np.float32)
    session = onnxruntime.InferenceSession(mini.path / GRAPH, providers=["CPUExecutionProvider"])
    everything = {OFFSETS: np.zeros(50, np.float32), SHORTLIST: np.array([50])}
    (logits,) = session.run([LOGITS], {PHOTOS: photos, LABEL_QUERIES: rows, **everything})
    scores = OnnxEngine(mini, GRAPH, rows, 1).scores(photos)
    np.testing.assert_allclose(scores, score_logits(logits), atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x3a\xff\xff", b"\x3a", b"\x08\xff"])
def test_what_is_no_such_graph_is_refused(content):
    with pytest.raises(ValueError):
        Graph(content)


def test_a_damaged_graph_is_told_in_one_line(mini, tmp_path):
    shutil.copytree(mini.path, tmp_path / "broken")
    (tmp_path / "broken" / GRAPH).write_bytes((mini.path / GRAPH).read_bytes()[:-5])
    rows = bundle_labels(mini).rows
    with pytest.raises(RunProblem, match=f"{GRAPH}: onnxruntime cannot load it: ") as told:
        OnnxEngine(Bundle(tmp_path / "broken", mini.meta), GRAPH, rows, 1)
    assert "\n" not in str(told.value)


OUTSIDE = ["ABSOLUTE", "../outside.bin", "text/../../outside.bin", "link/outside.bin", "file"]


@pytest.mark.parametrize("location", OUTSIDE)
def test_weights_outside_of_the_bundle_are_not_read(mini, tmp_path, monkeypatch, location):
    """By whatever version of onnxruntime: it is not asked."""
    onnx = pytest.importorskip("onnx")
    outside, folder = tmp_path / "outside.bin", tmp_path / "bundle"
    shutil.copytree(mini.path, folder)
    shutil.copy(mini.path / "model.safetensors", outside)
    (folder / "link").symlink_to(tmp_path)
    (folder / "file").symlink_to(outside)
    location = str(outside) if location == "ABSOLUTE" else location
    graph = onnx.load(folder / GRAPH, load_external_data=False)
    for entry in graph.graph.initializer[7].external_data:
        entry.value = location if entry.key == "location" else entry.value
    onnx.save(graph, folder / GRAPH)
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    with pytest.raises(RunProblem) as told:
        OnnxEngine(Bundle(folder, mini.meta), GRAPH, bundle_labels(mini).rows[:9], 1)
    said = f"{folder / GRAPH}: onnxruntime cannot load it: weights outside its folder: {location!r}"
    assert told.value.message == said


def test_files_of_weights_are_found_wherever_a_graph_may_hold_a_tensor(mini):
    onnx = pytest.importorskip("onnx")
    helper, names = onnx.helper, iter("abcdefghij")

    def tensor():
        made = onnx.TensorProto(name="w", data_location=onnx.TensorProto.EXTERNAL)
        made.external_data.add(key="offset", value="location")
        made.external_data.add(key="location", value=next(names))
        return made

    def node(**attributes):
        return helper.make_node("If", [], ["y"], alpha=0.5, **attributes)

    def graph(*nodes, tensors=(), sparse=()):
        made = helper.make_graph(nodes, "g", [], [], tensors)
        made.sparse_initializer.extend(sparse)
        return made

    sparse = onnx.SparseTensorProto(values=tensor(), indices=tensor(), dims=[1])
    inner = graph(node(value=tensor()), tensors=[tensor()])
    main = graph(node(then=inner, branches=[graph(tensors=[tensor()])]), sparse=[sparse])
    function = helper.make_function("d", "f", [], ["y"], [node(value=tensor())], [])
    function.attribute_proto.append(helper.make_attribute("t", tensor()))
    model = helper.make_model(main, functions=[function])
    model.training_info.add(algorithm=graph(tensors=[tensor()]))
    model.doc_string = "location"
    assert Graph(model.SerializeToString()).files == {*"abcdefgh"}
    assert Graph((mini.path / GRAPH).read_bytes()).files == {"model.safetensors"}


@pytest.mark.parametrize("size", [1, 255, 4096])
def test_a_graph_for_photos_of_another_size_is_named(mini, size):
    meta = mini.meta | {"preprocess": mini.meta["preprocess"] | {"size": size}}
    with pytest.raises(RunProblem, match=f"{GRAPH}: takes photos of 256 px, .* has {size}"):
        OnnxEngine(Bundle(mini.path, meta), GRAPH, bundle_labels(mini).rows[:50], 1)


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


def test_scores_do_not_depend_on_the_place_in_the_batch(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    one, three = (OnnxEngine(bundle, GRAPH, bundle_labels(bundle).rows, n) for n in (1, 3))
    photos = np.random.default_rng(0).normal(size=(8, 3, 64, 64)).astype(np.float32)
    scores = one.scores(photos)
    order = np.random.default_rng(1).permutation(8)
    np.testing.assert_array_equal(one.scores(photos[order]), scores[order])
    np.testing.assert_array_equal(three.scores(photos), scores)  # nor on the number of threads


def test_sigmoid_holds_far_out():
    logits = np.array([-1000, -5, 0, 5, 1000], np.float32)
    expected = [0, 1 / (1 + np.exp(5)), 0.5, 1 / (1 + np.exp(-5)), 1]
    np.testing.assert_allclose(score_logits(logits), expected, atol=1e-7)
    small = np.array([-70, -40, -17], np.float32)
    np.testing.assert_allclose(score_logits(small), np.exp(small.astype(float)), rtol=1e-5)
