"""The int8 graph: made by `convert`, run by `tag`, independent of neighbours."""

import json

import numpy as np
import pytest

from ramctl import Tagger
from ramctl.checkpoints.bundle import INT8_GRAPH, INT8_THRESHOLDS, Bundle, embedded_bundle
from ramctl.checkpoints.bundle import PHOTOS as INPUT
from ramctl.decide.thresholds import bundle_labels, thresholds_of
from ramctl.engine.onnx_engine import OnnxEngine
from tests.command import Ramctl
from tests.conftest import REPOSITORY

onnx = pytest.importorskip("onnx")
PHOTOS = sorted((REPOSITORY / "tests" / "data" / "photos").iterdir())


def convert(*arguments) -> int:
    return Ramctl(REPOSITORY)("convert", *arguments).returncode


@pytest.fixture(scope="module")
def int8_bundle(tiny_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    records = [
        {"image": str(photo), "tags": ["horse", "sky"][i % 2 :]} for i, photo in enumerate(PHOTOS)
    ]
    (folder / "val.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    code = convert(
        tiny_bundle, "--to", "onnx", "--dtype", "int8", "--calibrate", PHOTOS[0].parent,
        "--val", folder / "val.jsonl", "--out", folder / "bundle",
    )  # fmt: skip
    assert code == 0
    return Bundle.open(folder / "bundle", verify=True)


def dense(bundle, dtype):
    tagger = Tagger.from_pretrained(str(bundle.path), dtype=dtype, dense=True, threshold=0)
    return np.array([row.dense for row in tagger.tag(PHOTOS)])


def test_scores_stay_close_to_those_of_the_fp32_graph(int8_bundle):
    moved = np.abs(dense(int8_bundle, "int8") - dense(int8_bundle, "fp32"))
    assert 0 < moved.max() < 0.02


def test_encoder_and_tag_decoder_are_rounded_and_the_rest_is_stored_once(int8_bundle):
    graph = onnx.load(int8_bundle.path / INT8_GRAPH, load_external_data=False).graph
    quantised = [n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"]
    assert all("encoder" in name or "tag_decoder" in name or name == INPUT for name in quantised)
    assert any("tag_decoder" in name for name in quantised)
    rounded = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    sizes = {i.name: i.dims for i in graph.initializer}
    weights = [n.input for n in graph.node if n.op_type == "DequantizeLinear"]
    scales = [sizes[scale] for weight, scale, _ in weights if weight in sizes]
    assert scales and all(scales)  # one for each channel of a weight
    convolutions = [n for n in graph.node if n.op_type == "Conv"]
    assert convolutions
    assert all(rounded.issuperset(n.input) for n in convolutions)
    assert not any(n.op_type == "BatchNormalization" for n in graph.node)
    inside = [i for i in graph.initializer if i.data_location != 1 and i.data_type == 1]
    assert max(np.prod(i.dims) for i in inside) <= 256


def test_thresholds_and_the_default_format_belong_to_the_bundle(int8_bundle, tiny_bundle):
    assert int8_bundle.dtype == "int8"
    assert Bundle.open(tiny_bundle).dtype == "fp32"
    own = thresholds_of(int8_bundle, "int8")
    assert own == [float(line) for line in (int8_bundle.path / INT8_THRESHOLDS).open()]
    assert thresholds_of(int8_bundle, "fp32") == thresholds_of(int8_bundle)
    tagger = Tagger.from_pretrained(str(int8_bundle.path))
    assert "int8" in tagger.runner.description
    assert tagger.label_set.thresholds.tolist() == own
    fp32 = Tagger.from_pretrained(str(int8_bundle.path), dtype="fp32")
    assert fp32.label_set.thresholds.tolist() == thresholds_of(int8_bundle)


def test_scores_do_not_depend_on_the_place_in_the_batch(int8_bundle):
    predictor = OnnxEngine(int8_bundle, INT8_GRAPH, bundle_labels(int8_bundle).rows, 1)
    photos = np.random.default_rng(0).normal(size=(8, 3, 64, 64)).astype(np.float32)
    photos[3:] *= 9  # a range that follows the batch would notice
    scores = predictor.scores(photos)
    order = np.random.default_rng(1).permutation(8)
    np.testing.assert_array_equal(predictor.scores(photos[order]), scores[order])
    blank = photos.copy()
    blank[1:] = 0
    np.testing.assert_array_equal(predictor.scores(blank)[0], scores[0])


def test_new_words_can_be_asked_of_the_int8_graph(int8_bundle, tmp_path):
    (tmp_path / "words.txt").write_text("horse train\nsky\n")
    words = tmp_path / "words.txt"
    tagger = Tagger.from_pretrained(str(int8_bundle.path), labels=words, threshold=0)
    assert sorted(tagger.tag(PHOTOS[0]).tags) == ["horse train", "sky"]


def test_a_graph_is_not_written_into_the_program_and_takes_no_options_of_checkpoints(tiny_bundle):
    graph = embedded_bundle() / "model.onnx"
    before = graph.stat().st_mtime_ns
    assert convert("mini", "--to", "onnx") == 2
    assert graph.stat().st_mtime_ns == before
    assert convert(tiny_bundle, "--to", "onnx", "--tags", "none.txt") == 2


def test_photos_are_needed_for_the_ranges(tiny_bundle, tmp_path):
    assert convert(tiny_bundle, "--to", "onnx", "--dtype", "int8") == 2
    assert convert(tiny_bundle, "--to", "onnx", "--calibrate", tmp_path) == 2  # fp32 has no ranges
    (tmp_path / "empty").mkdir()
    to_int8 = [tiny_bundle, "--to", "onnx", "--dtype", "int8"]
    assert convert(*to_int8, "--calibrate", tmp_path / "empty") == 1
