"""Tags to regions: heat maps, boxes, tokens, and the model's view of a region."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.checkpoints.bundle import Bundle, embedded_bundle
from ramctl.data_engine.tag_regions import PhotoView, cropped, pooled, whole
from ramctl.inference import boxes, torch_engine
from ramctl.inference.runner import ModelRunner, RunnerOptions
from ramctl.model.preset import load_preset
from ramctl.parsing.parser import CaptionParser
from tests.data_engine.conftest import DATA
from tests.support import fits

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


def test_a_flat_map_gives_the_whole_photo():
    flat = np.full((7, 7), 0.02, np.float32)
    assert boxes.heat_map_box(flat, peak_fraction=0.5).tolist() == [0, 0, 1, 1]


def test_a_map_below_zero_has_a_box_as_the_same_map_above_it():
    heat = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    above = boxes.heat_map_box(heat + 10, peak_fraction=0.6).tolist()
    assert boxes.heat_map_box(heat - 10, peak_fraction=0.6).tolist() == above != [0, 0, 1, 1]


def test_a_cell_counts_with_its_neighbours():
    logits = np.zeros((2, 3, 16), np.float32)
    logits[0, 1, 0] = 9.0  # a corner stands for what would be beside it
    logits[1, 2, 6] = 9.0  # row 1, column 2
    heat = boxes.cell_heat(logits)
    assert heat.shape == (2, 3, 4, 4)
    corner = [[4, 2, 0, 0], [2, 1, 0, 0], [0] * 4, [0] * 4]
    middle = [[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], [0] * 4]
    np.testing.assert_allclose(heat[0, 1], corner, atol=1e-5)
    np.testing.assert_allclose(heat[1, 2], middle, atol=1e-5)
    heat[0, 1], heat[1, 2] = 0, 0
    assert np.abs(heat).max() < 1e-5


def test_labels_are_looked_for_in_larger_photos_where_cells_are_scored():
    mini, swin = load_preset("mini"), load_preset("ram-swin-b")
    at_256 = replace(mini.preprocess, size=256)
    assert boxes.enlarged(at_256, mini.model) == replace(mini.preprocess, size=448)
    assert boxes.enlarged(swin.preprocess, swin.model) == swin.preprocess
    assert boxes.enlarged(at_256, replace(mini.model, prior=None)) == at_256


def test_tokens_under_a_box_are_weighted_by_what_it_covers():
    cover = boxes.tokens_under((0.25, 0.5, 1.0, 1.0), 2, 2)
    assert cover.tolist() == [0, 0, 0.5, 1]
    assert boxes.tokens_under(WHOLE, 3, 3).tolist() == [1] * 9


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.5, 0.5), (1, 1, 1, 1), (0, 0, 1e-9, 1e-9)])
def test_the_smallest_box_covers_a_token_and_a_pixel(box):
    assert boxes.tokens_under(box, 7, 7).sum() > 0
    left, top, right, bottom = boxes.crop_pixels(box, 10, 5)
    assert 0 <= left < right <= 10
    assert 0 <= top < bottom <= 5


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


def test_a_box_is_where_a_label_finds_what_it_owns(runner):
    """Of two things in opposite corners of a photo each label finds its own."""
    engine = runner.engine
    features = engine.features(np.zeros((1, 3, 160, 160), np.float32)).clone()  # 5 by 5 cells
    model = engine.model
    with torch.no_grad():
        model.labels.own.zero_()
        model.labels.own[2, 0] = model.labels.own[4, 1] = 300.0
        towards = torch.linalg.pinv(model.prior.own_projection.weight)  # (C, R)
        features[0, 0] += towards[:, 0]
        features[0, -1] += towards[:, 1]
    labels = engine.labels_of([2, 4])
    first, last = engine.boxes(features, labels)
    (maps,) = engine.heat_maps(features, labels)
    for box, heat in zip((first, last), maps, strict=True):
        expected = boxes.heat_map_box(heat, peak_fraction=boxes.CELL_PEAK_FRACTION)
        assert box.tolist() == expected.tolist()
    assert first[:2].tolist() == [0, 0]
    assert last[2:].tolist() == [1, 1]
    assert max(first[2:]) < min(last[:2])


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


def test_a_short_batch_gives_the_features_of_a_full_one(engine_bundle):
    runner = open_runner(engine_bundle, batch=4)
    random = np.random.default_rng(1)
    photos = [Image.fromarray(random.integers(0, 255, (50, 80, 3), np.uint8)) for _ in range(6)]
    together = runner.features(photos)
    assert torch.equal(together[4:], runner.features(photos[4:]))


def test_regions_that_do_not_fit_in_memory_are_done_in_parts(runner, photos, view, monkeypatch):
    view.labels = [7, 1, 0, 7, 1, 0]
    features, scored = runner.features(photos), pooled(view, [WHOLE] * 6)
    engine, messages = runner.engine, []
    monkeypatch.setattr(engine, "notify", messages.append)
    model = engine.model
    monkeypatch.setattr(model.encoder, "forward", fits(model.encoder.forward, 2, len))

    def number(_model, _features, regions, _labels):
        return len(regions.label)

    monkeypatch.setattr(torch_engine, "region_logits", fits(torch_engine.region_logits, 4, number))
    np.testing.assert_allclose(runner.features(photos), features, atol=1e-5)
    parts = pooled(view, [WHOLE] * 6)
    np.testing.assert_allclose(parts.logits, scored.logits, atol=1e-5)
    np.testing.assert_allclose(parts.features, scored.features, atol=1e-6)
    assert [message.partition(": ")[2] for message in messages] == [
        "out of memory with 4 photos, going on with 2",
        "out of memory with 6 regions, going on with 3",
    ]


def test_captions_that_do_not_fit_in_memory_are_done_in_parts(runner, monkeypatch):
    photos = np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)
    engine, writer = runner.engine, runner.writer
    seen = engine.encode(photos)
    logits, tags = engine.logits(seen), [["horse"], ["field", "sky"], [], ["man"]]
    expected = writer.write(engine, runner.score, seen, tags)
    model, branch = engine.model, engine.model.captioning
    monkeypatch.setattr(branch, "start", fits(branch.start, 2, lambda tokens, *others: len(tokens)))
    monkeypatch.setattr(model.encoder, "forward", fits(model.encoder.forward, 2, len))
    again = engine.encode(photos)
    np.testing.assert_allclose(engine.logits(again), logits, atol=1e-5)
    assert writer.write(engine, runner.score, again, tags) == expected


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
