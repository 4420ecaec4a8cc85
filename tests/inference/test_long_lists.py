"""Long lists of words: work and memory grow with their number, no faster."""

import sys
from pathlib import Path

import numpy as np
import pytest

from ramctl.checkpoints.bundle import Bundle
from ramctl.inference import onnx_engine, torch_engine, vocabulary
from ramctl.inference.onnx_engine import OnnxEngine
from ramctl.inference.tagger import Tagger
from ramctl.inference.torch_engine import TorchEngine
from ramctl.inference.vocabulary import open_vocabulary
from ramctl.model import ram
from ramctl.model.device import Runtime
from tests.support import TAGS

PHOTOS = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
PHOTO = Path(__file__).parents[1] / "data" / "photos" / "horses.jpg"
AT_ONCE = 40


def test_both_engines_score_so_many_words_at_once_with_the_same_logits(tiny_bundle, monkeypatch):
    bundle, seen = Bundle.open(tiny_bundle), []
    words = [f"{one} {other}" for one in TAGS for other in TAGS]
    labels, prepare = open_vocabulary(bundle, words).labels, ram.RAM.prepare_labels

    def logits_of(engine):
        return engine.logits(engine.encode(PHOTOS))

    def opened():
        torch = TorchEngine.open(bundle, Runtime.choose("cpu"), labels=labels)
        return torch, OnnxEngine(bundle, labels, 1)

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


def calls_of(tiny_bundle, path, number, monkeypatch) -> tuple[int, int]:
    """How often functions are called to tag a photo by a list, and the words that borrow."""
    lines = [f"{TAGS[n % 10]} {TAGS[n // 10 % 10]} {n // 100:03}" for n in range(number)]
    path.write_text("\n".join(lines))
    calls, lent, borrowed = 0, [], vocabulary.borrowed

    def count(frame, event, argument) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    monkeypatch.setattr(
        vocabulary,
        "borrowed",
        lambda words, *own: (lent.append(len(words)), borrowed(words, *own))[1],
    )
    sys.setprofile(count)
    try:
        tagger = Tagger.from_pretrained(tiny_bundle, labels=str(path), threshold=0.0, jobs=1)
        result = tagger.tag(PHOTO)
    finally:
        sys.setprofile(None)
        monkeypatch.undo()
    assert len(result.tags) == number
    return calls, sum(lent)


def test_twice_the_words_are_twice_the_calls(tiny_bundle, tmp_path, monkeypatch):
    block = vocabulary.BLOCK
    calls_of(tiny_bundle, tmp_path / "words", block, monkeypatch)  # what is loaded once
    few, more, most = (
        calls_of(tiny_bundle, tmp_path / "words", n * block, monkeypatch) for n in (2, 4, 8)
    )
    assert (few[1], more[1], most[1]) == (2 * block, 4 * block, 8 * block)
    assert most[0] - more[0] == pytest.approx(2 * (more[0] - few[0]), rel=0.02)
