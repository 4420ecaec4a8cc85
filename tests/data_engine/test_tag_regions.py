"""Tags to regions: heat maps, boxes, tokens, and the model's view of a region."""

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.checkpoints.bundle import Bundle, embedded_bundle
from ramctl.data_engine.tag_regions import PhotoView, cropped, pooled, whole
from ramctl.inference import boxes
from ramctl.inference.runner import ModelRunner, RunnerOptions
from ramctl.parsing.parser import CaptionParser
from tests.data_engine.conftest import DATA

WHOLE = np.array([0, 0, 1, 1], np.float32)


def test_a_box_holds_the_region_around_the_peak_and_no_other():
    heat = np.zeros((7, 7), np.float32)
    heat[1:3, 4:6] = 1.0
    heat[5, 0] = 0.9
    x0, y0, x1, y1 = boxes.heat_map_box(heat, peak_fraction=0.5)
    assert 3.4 / 7 <= x0 <= 4 / 7
    assert 6 / 7 <= x1 <= 6.6 / 7
    assert 0.4 / 7 <= y0 <= 1 / 7
    assert 3 / 7 <= y1 <= 3.6 / 7


def test_tokens_under_a_box_are_weighted_by_what_it_covers():
    cover = boxes.tokens_under((0.25, 0.5, 1.0, 1.0), 2, 2)
    assert cover.tolist() == [0, 0, 0.5, 1]
    assert boxes.tokens_under(WHOLE, 3, 3).tolist() == [1] * 9


def open_runner(path, **options):
    return ModelRunner(Bundle.open(path), RunnerOptions(**options), captions=True, fold=False)


@pytest.fixture
def runner(engine_bundle):
    return open_runner(engine_bundle)


@pytest.fixture
def photos():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(3)]


@pytest.fixture
def view(runner, photos):
    return PhotoView(runner, photos[0], [7, 1, 0], runner.features(photos)[:1])


@pytest.mark.parametrize("score", [whole, pooled, cropped])
def test_the_whole_photo_as_a_region_scores_as_the_photo(view, score):
    engine = view.runner.engine
    expected = engine.logits(engine.encode(view.features))[0, view.labels]
    scored = score(view, [WHOLE] * 3)
    np.testing.assert_allclose(scored.logits, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(scored.features, axis=1), 1, atol=1e-5)


def test_without_context_a_region_depends_on_the_tokens_under_its_box_alone(runner, view):
    box = np.array([0, 0, 0.5, 0.5], np.float32)
    view.labels = [7]
    before = pooled(view, [box], context=0)
    grid = view.features[:, runner.engine.model.encoder.extra_tokens :]
    outside = torch.from_numpy(boxes.tokens_under(box, view.grid, view.grid)) == 0
    grid[0, outside] += 5.0
    after = pooled(view, [box], context=0)
    np.testing.assert_allclose(after.logits, before.logits, rtol=1e-5)
    np.testing.assert_allclose(after.features, before.features, atol=1e-6)
    grid[0, ~outside] += 5.0
    assert not np.allclose(pooled(view, [box], context=0).logits, before.logits)


def test_a_model_without_scores_of_cells_finds_labels_by_its_attention(runner, photos):
    engine, features = runner.engine, runner.features(photos)
    engine.model.scores_cells = False
    labels, attention = engine.labels_of([0, 2, 4]), []
    heat = engine.heat_maps(features, labels)
    encoded = engine.encode(features)
    with torch.inference_mode():
        engine.model.tag_logits(encoded, labels, attention)
    mean = torch.stack(attention).mean((0, 2)).detach().numpy()  # (B, L, tokens)
    side = heat.shape[-1]
    np.testing.assert_allclose(heat, mean[..., : side * side].reshape(heat.shape), atol=1e-6)
    for box, label_heat in zip(engine.boxes(features[:1], labels), heat[0], strict=True):
        expected = boxes.heat_map_box(label_heat, peak_fraction=boxes.PEAK_FRACTION)
        assert box.tolist() == expected.tolist()


def test_a_caption_is_chosen_by_the_scores_of_its_labels(monkeypatch):
    runner = open_runner(embedded_bundle(), batch=8)
    engine, labels, writer = runner.engine, runner.labels, runner.writer
    paths, read = sorted((DATA / "photos").glob("*.jpg")), runner.preprocess
    photos = read.full_batch([read.resize(Image.open(path)) for path in paths], len(paths))
    seen = engine.encode(photos)
    scores = runner.probabilities(engine.logits(seen))
    write, written, parser = engine.write, [], CaptionParser.closed(labels)
    monkeypatch.setattr(engine, "write", lambda *a: written.extend(write(*a)) or written)
    drafts = writer.drafts(engine, runner.score, seen, [[]] * len(photos))
    for draft, candidates, row in zip(drafts, written, scores, strict=True):
        worth = {}
        for text in map(str.strip, writer._tokenizer.decode(candidates)):
            named = [row[labels.ids(tag)[0]] for tag in parser.tags(text)] or [0.05]
            worth[text] = np.log(np.maximum(named, 0.001)).mean()
        best = max(worth, key=worth.get)
        assert draft == (best, pytest.approx(worth[best], abs=1e-4))
    assert len(written[0]) == 16
    first = runner.bundle.fingerprint
    monkeypatch.setitem(runner.bundle.meta["architecture"]["captioning"], "beams", 5)
    assert runner.bundle.fingerprint != first  # so that --resume tags again
