"""Tags to regions: heat maps, boxes, tokens, and the baseline's view of a region."""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.data_engine.baseline import Baseline, BaselineOptions, PhotoView
from ramctl.data_engine.region_detectors import cropped, pooled
from ramctl.data_engine.tags import TWICE, requested_tags, source_bits
from ramctl.inference import boxes, torch_engine
from ramctl.inference.caption_writer import CaptionWriter
from ramctl.labels import Labels
from ramctl.model.preset import load_preset
from ramctl.parsing.parser import CaptionParser
from tests.data_engine.conftest import DATA, LABELS
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


@pytest.fixture
def baseline(engine_bundle):
    return Baseline.load(str(engine_bundle), BaselineOptions())


@pytest.fixture
def photos():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(3)]


@pytest.fixture
def seen(baseline, photos):
    return PhotoView(baseline, photos[0], [7, 1, 0], baseline.features(photos)[:1])


@pytest.mark.parametrize("embedder", [pooled, cropped], ids=["pool", "crop"])
def test_the_whole_photo_as_a_region_scores_as_the_photo(seen, embedder):
    expected = seen.baseline.engine.scores(seen.features)[0, seen.labels]
    embedded = embedder(seen, [(label, WHOLE) for label in seen.labels])
    np.testing.assert_allclose(embedded.scores, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(embedded.features, axis=1), 1, atol=1e-5)


def test_without_context_a_region_depends_on_the_tokens_under_its_box_alone(seen):
    embedder = partial(pooled, context=0)
    box = np.array([0, 0, 0.5, 0.5], np.float32)
    before = embedder(seen, [(7, box)])
    grid = seen.features[:, seen.baseline.engine.model.encoder.extra_tokens :]
    outside = torch.from_numpy(boxes.tokens_under(box, seen.grid, seen.grid)) == 0
    grid[0, outside] += 5.0
    after = embedder(seen, [(7, box)])
    np.testing.assert_allclose(after.scores, before.scores, rtol=1e-6)
    np.testing.assert_allclose(after.features, before.features, atol=1e-6)
    grid[0, ~outside] += 5.0
    assert not np.allclose(embedder(seen, [(7, box)]).scores, before.scores)


def test_a_box_is_where_a_label_finds_what_it_owns(baseline):
    """Of two things in opposite corners of a photo each label finds its own."""
    engine = baseline.engine
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


def test_a_model_without_scores_of_cells_finds_labels_by_its_attention(baseline, photos):
    engine, features = baseline.engine, baseline.features(photos)
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


def test_a_tag_counts_as_named_twice_where_two_captions_name_it():
    tags = {"tags": ["horse", "sky", "man"], "caption_tags": [["horse", "sky", "sky"], ["horse"]]}
    wanted = requested_tags(tags, Labels(LABELS), ("object",), Counter())
    assert [tag.sources for tag in wanted] == [source_bits([TWICE]), 0, 0]


def test_a_short_batch_gives_the_features_of_a_full_one(engine_bundle):
    baseline = Baseline.load(str(engine_bundle), BaselineOptions(batch=4))
    random = np.random.default_rng(1)
    photos = [Image.fromarray(random.integers(0, 255, (50, 80, 3), np.uint8)) for _ in range(6)]
    together = baseline.features(photos)
    assert torch.equal(together[4:], baseline.features(photos[4:]))


def test_regions_that_do_not_fit_in_memory_are_done_in_parts(baseline, photos, seen, monkeypatch):
    asked = [(label, WHOLE) for label in [*seen.labels] * 2]
    features, whole = baseline.features(photos), pooled(seen, asked)
    engine, said = baseline.engine, []
    monkeypatch.setattr(engine, "notify", said.append)
    model = engine.model
    monkeypatch.setattr(model.encoder, "forward", fits(model.encoder.forward, 2, len))

    def number(_model, _features, asked, _labels):
        return len(asked.label)

    monkeypatch.setattr(torch_engine, "region_logits", fits(torch_engine.region_logits, 4, number))
    np.testing.assert_allclose(baseline.features(photos), features, atol=1e-5)
    parts = pooled(seen, asked)
    np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-6)
    np.testing.assert_allclose(parts.features, whole.features, atol=1e-6)
    assert [message.partition(": ")[2] for message in said] == [
        "out of memory with 4 photos, going on with 2",
        "out of memory with 6 regions, going on with 3",
    ]


def test_captions_that_do_not_fit_in_memory_are_done_in_parts(engine_bundle, monkeypatch):
    baseline = Baseline.load(str(engine_bundle), BaselineOptions(batch=4), captioning=True)
    photos = np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)
    engine, writer = baseline.engine, CaptionWriter(baseline.bundle)
    encoded, scores = engine.encode_and_score(photos)
    tags = [["horse"], ["field", "sky"], [], ["man"]]
    expected = writer.write(engine, encoded, tags)
    model, branch = engine.model, engine.model.captioning
    monkeypatch.setattr(branch, "start", fits(branch.start, 2, lambda tokens, *others: len(tokens)))
    monkeypatch.setattr(model.encoder, "forward", fits(model.encoder.forward, 2, len))
    again, in_parts = engine.encode_and_score(photos)
    np.testing.assert_allclose(in_parts, scores, atol=1e-6)
    assert writer.write(engine, again, tags) == expected


def test_a_caption_is_chosen_by_the_scores_of_its_labels(monkeypatch):
    baseline = Baseline.load("mini", BaselineOptions(batch=8), captioning=True)
    engine, labels, parser = baseline.engine, baseline.labels, CaptionParser.closed(baseline.labels)
    paths, read = sorted((DATA / "photos").glob("*.jpg")), baseline.preprocess
    photos = read.full_batch([read.resize(Image.open(path)) for path in paths], len(paths))
    encoded, scores = engine.encode_and_score(photos)
    write, writer, seen = engine.write, CaptionWriter(baseline.bundle), []
    monkeypatch.setattr(engine, "write", lambda *inputs: seen.extend(write(*inputs)) or seen)
    drafts = writer.drafts(engine, encoded, [[]] * len(photos))
    for draft, candidates, row in zip(drafts, seen, scores, strict=True):
        worth = {}
        for text in map(str.strip, writer._tokenizer.decode(candidates)):
            named = [row[labels.ids(tag)[0]] for tag in parser.tags(text)] or [0.05]
            worth[text] = np.log(np.maximum(named, 0.001)).mean()
        best = max(worth, key=worth.get)
        assert draft == (best, pytest.approx(worth[best], abs=1e-4))
    assert len(seen[0]) == 16
    first = baseline.bundle.fingerprint
    monkeypatch.setitem(baseline.bundle.meta["architecture"]["captioning"], "beams", 5)
    assert baseline.bundle.fingerprint != first  # so that --resume tags again
