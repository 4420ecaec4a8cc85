"""Long lists of words: work and memory grow with their number, no faster."""

import numpy as np

from ramctl.checkpoints.bundle import Bundle
from ramctl.inference import onnx_engine, torch_engine
from ramctl.inference.onnx_engine import OnnxEngine
from ramctl.inference.torch_engine import TorchEngine
from ramctl.inference.vocabulary import open_vocabulary
from ramctl.model import ram
from ramctl.model.device import Runtime
from tests.support import TAGS

PHOTOS = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
AT_ONCE = 40


def test_both_engines_score_so_many_words_at_once_with_the_same_logits(tiny_bundle, monkeypatch):
    bundle, seen = Bundle.open(tiny_bundle), []
    words = [f"{one} {other}" for one in TAGS for other in TAGS]
    labels, prepare = open_vocabulary(bundle, words).labels, ram.RAM.prepare_labels

    def logits_of(engine):
        return engine.logits(engine.encode(PHOTOS))

    def opened():
        torch = TorchEngine.open(bundle, Runtime.choose("cpu"), labels=labels)
        return torch, OnnxEngine(bundle, labels)

    expected = logits_of(opened()[0])
    monkeypatch.setattr(onnx_engine, "ROWS_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(torch_engine, "MAX_PREPARED", AT_ONCE)
    monkeypatch.setattr(ram, "ROWS_AT_ONCE", 2 * AT_ONCE)  # of two photos
    monkeypatch.setattr(
        ram.RAM,
        "prepare_labels",
        lambda self, some: (seen.append(len(some)), prepare(self, some))[1],
    )
    for engine in opened():
        np.testing.assert_allclose(logits_of(engine), expected, atol=1e-4)
    assert seen == [40, 40, 20] and expected.shape == (2, 100)
