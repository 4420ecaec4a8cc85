"""Long lists of words: work and memory grow with their number, no faster."""

import sys
from pathlib import Path

import numpy as np
import pytest

from ramctl.checkpoints.bundle import Bundle
from ramctl.device import Runtime
from ramctl.inference import label_rows, onnx_engine, torch_engine
from ramctl.inference.onnx_engine import OnnxEngine
from ramctl.inference.thresholds import choose_labels
from ramctl.inference.torch_engine import TorchEngine
from ramctl.model import ram
from ramctl.tagging.tagger import Tagger
from tests.support import TAGS

PHOTOS = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
PHOTO = Path(__file__).parents[1] / "data" / "photos" / "horses.jpg"
AT_ONCE = 40


@pytest.fixture
def rows(tiny_bundle):
    words = [f"{one} {other}" for one in TAGS for other in TAGS]
    return choose_labels(Bundle.open(tiny_bundle), words, None).rows


def test_the_graph_sees_so_many_words_at_once_and_gives_the_same_scores(
    tiny_bundle, rows, monkeypatch
):
    bundle = Bundle.open(tiny_bundle)
    expected = OnnxEngine(bundle, "model.onnx", rows, 1).scores(PHOTOS)
    monkeypatch.setattr(onnx_engine, "LABELS_AT_ONCE", AT_ONCE)
    engine, seen = OnnxEngine(bundle, "model.onnx", rows, 1), []
    run = onnx_engine._outputs
    monkeypatch.setattr(
        onnx_engine, "_outputs", lambda part, feed: (seen.append(feed), run(part, feed))[1]
    )
    for scores, _ in engine.scores_each([PHOTOS, PHOTOS]):
        np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert [len(some) for feed in seen for some in feed.values()] == [2, 2, 40, 40, 20]  # once
    assert expected.shape == (2, 100)


def test_torch_sees_so_many_words_at_once_and_gives_the_same_scores(tiny_bundle, rows, monkeypatch):
    bundle, runtime = Bundle.open(tiny_bundle), Runtime.choose("cpu")
    expected = TorchEngine.open(bundle, runtime, rows=rows).scores(PHOTOS)
    monkeypatch.setattr(torch_engine, "LABELS_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(ram, "ROWS_AT_ONCE", 2 * AT_ONCE)  # of two photos
    seen, prepare = [], ram.RAM.prepare_labels
    monkeypatch.setattr(
        ram.RAM,
        "prepare_labels",
        lambda self, some: (seen.append(len(some)), prepare(self, some))[1],
    )
    engine = TorchEngine.open(bundle, runtime, rows=rows)
    assert not seen
    np.testing.assert_allclose(engine.scores(PHOTOS), expected, atol=1e-6)
    assert seen == [40, 40, 20]


def calls_of(tiny_bundle, path, number, monkeypatch) -> tuple[int, int]:
    """How often functions are called to tag a photo by a list, and the words that borrow."""
    lines = [f"{TAGS[n % 10]} {TAGS[n // 10 % 10]} {'a' * (n // 100)}" for n in range(number)]
    path.write_text("\n".join(lines))
    calls, lent, borrowed = 0, [], label_rows.borrowed

    def count(frame, event, argument) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    monkeypatch.setattr(
        label_rows,
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
    block = label_rows.BLOCK
    calls_of(tiny_bundle, tmp_path / "words", block, monkeypatch)  # what is loaded once
    few, more, most = (
        calls_of(tiny_bundle, tmp_path / "words", n * block, monkeypatch) for n in (2, 4, 8)
    )
    assert (few[1], more[1], most[1]) == (2 * block, 4 * block, 8 * block)
    assert most[0] - more[0] == pytest.approx(2 * (more[0] - few[0]), rel=0.02)
