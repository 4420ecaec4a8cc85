"""The graph's engine: which runtime is chosen, and scores that depend on the photo alone."""

import numpy as np
import pytest

from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.label_set import own_labels
from ramctl.inference.onnx_engine import OnnxEngine, choose_runtime, sigmoid


def test_scores_do_not_depend_on_the_place_in_the_batch(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    engine = OnnxEngine(bundle, "model.onnx", own_labels(bundle).rows, 1)
    photos = np.random.default_rng(0).normal(size=(8, 3, 64, 64)).astype(np.float32)
    scores = engine.scores(photos)
    order = np.random.default_rng(1).permutation(8)
    np.testing.assert_array_equal(engine.scores(photos[order]), scores[order])


def test_scores_do_not_depend_on_the_number_of_threads(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    photos = np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)
    one, three = (
        OnnxEngine(bundle, "model.onnx", own_labels(bundle).rows, threads).scores(photos)
        for threads in (1, 3)
    )
    np.testing.assert_array_equal(one, three)


def test_runtime_device_and_number_format_that_cannot_be_had_are_told(colours):
    bundle = Bundle.open(colours)
    assert choose_runtime(bundle, "auto", "auto", "auto") == "model.onnx"
    assert choose_runtime(bundle, "auto", "cpu", "bf16") == "torch"
    assert choose_runtime(bundle, "auto", "cuda", "auto") == "torch"
    with pytest.raises(UsageProblem, match="CPU"):
        choose_runtime(bundle, "onnx", "cuda", "auto")
    with pytest.raises(RunProblem, match="int8"):
        choose_runtime(bundle, "auto", "cpu", "int8")


def test_sigmoid_holds_far_out():
    logits = np.array([-1000, -5, 0, 5, 1000], np.float32)
    expected = [0, 1 / (1 + np.exp(5)), 0.5, 1 / (1 + np.exp(-5)), 1]
    np.testing.assert_allclose(sigmoid(logits), expected, atol=1e-7)
    small = np.array([-70, -40, -17], np.float32)
    np.testing.assert_allclose(sigmoid(small), np.exp(small.astype(float)), rtol=1e-5)
