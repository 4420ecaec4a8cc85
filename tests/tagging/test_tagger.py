"""The library behind `ramctl tag`: scores of both runtimes, labels, the Python interface."""

from dataclasses import replace

import numpy as np
import pytest

from ramctl import Tagger
from ramctl.checkpoints.bundle import Bundle
from ramctl.inference.caption_writer import CaptionWriter
from ramctl.inference.selection import SelectionOptions, TagSelector
from ramctl.inference.vocabulary import Vocabulary
from ramctl.model.regions import cell_logits
from ramctl.photos.decoding import load_photo
from ramctl.records.labels import Labels
from ramctl.records.output_formats import line_format, table_lines
from tests.conftest import REPOSITORY
from tests.support import with_caption_threshold

PHOTOS = sorted((REPOSITORY / "tests" / "data" / "photos").iterdir())


def test_onnx_and_torch_scores_are_the_same(tiny_bundle):
    rows = {}
    for runtime in ("onnx", "torch"):
        tagger = Tagger.from_pretrained(tiny_bundle, runtime=runtime, dense=True, jobs=1)
        rows[runtime] = [row.dense for row in tagger.tag(PHOTOS)]
    assert len(rows["onnx"]) == len(PHOTOS) > 4
    np.testing.assert_allclose(rows["onnx"], rows["torch"], atol=1e-4)


def test_a_small_torch_model_scores_batches_side_by_side_with_the_same_result(tiny_bundle):
    def tag(workers):
        way = {"runtime": "torch", "device": "cpu", "jobs": workers, "batch": 1}
        tagger = Tagger.from_pretrained(tiny_bundle, **way, dense=True)
        return [(row.image, list(row.dense)) for row in tagger.tag(PHOTOS)]

    assert tag(3) == tag(1)


def selector(labels, threshold, **options):
    plain = Vocabulary(labels, np.full(len(labels), threshold))
    return TagSelector(plain, SelectionOptions(**options))


def test_a_tag_is_given_above_its_threshold_before_rounding():
    choose = selector(Labels.from_tags(["a", "b", "c"]), 0.5)
    assert choose(np.array([0.50001, 0.5, 0.49999], np.float32)).scores == {"a": 0.5}


def test_labels_that_share_a_name_give_it_their_highest_score():
    labels = Labels.from_tags(["bow", "cat", "bow"])
    choose = selector(labels, 0.1)
    assert choose(np.array([0.2, 0.5, 0.9], np.float32)).scores == {"bow": 0.9, "cat": 0.5}


def test_boxes_and_captions_come_beside_the_same_tags(tiny_bundle):
    plain = Tagger.from_pretrained(str(tiny_bundle), threshold=0.3)
    looking = Tagger.from_pretrained(str(tiny_bundle), threshold=0.3, boxes=True, caption=True)
    for before, after in zip(plain.tag(PHOTOS), looking.tag(PHOTOS), strict=True):
        assert {name: after.record[name] for name in before.record} == before.record
        things = [tag for tag in after.tags if tag not in ("stand", "red")]  # a doing, a colour
        assert list(after.boxes) == things
        for tag, ((x0, y0, x1, y1), score) in after.record["boxes"].items():
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
            assert after.boxes[tag] == (x0, y0, x1, y1)
            assert score == after.scores[tag]
        assert after.record["generated_captions"] == [after.caption]


def test_a_caption_below_the_bundle_s_threshold_is_none(tiny_bundle, tmp_path, monkeypatch):
    def tagged(threshold):
        copy = with_caption_threshold(tiny_bundle, tmp_path, threshold)
        return Tagger.from_pretrained(copy, caption=True).tag(PHOTOS[:4])

    usual = Tagger.from_pretrained(str(tiny_bundle), caption=True).tag(PHOTOS[:4])
    assert [result.caption for result in tagged(-100)] == [result.caption for result in usual]
    for result in tagged(0):  # no label is certain
        assert result.caption is None
        assert result.record["generated_captions"] == []
        shown = table_lines(result.record).decode().splitlines()
        assert shown[1:] == [f"  {score:.2f}  {tag}" for tag, score in result.scores.items()]
        assert line_format("csv", caption=True).encode(result.record).endswith(b",\n")
    drafts = [("a cat", -1.6), ("a dog", -1.4), ("", -1.0), ("a kite", -1.5)]
    monkeypatch.setattr(CaptionWriter, "drafts", lambda *inputs: drafts[: len(inputs[3])])
    assert [result.caption for result in tagged(-1.5)] == [None, "a dog", None, "a kite"]


def test_boxes_are_found_in_larger_photos_and_are_of_the_photo(tiny_bundle):
    """By the bundle's model itself: cells of the photo at 1.75 times the size, in steps of 32."""
    import torch

    from ramctl.checkpoints.load import load_model
    from ramctl.inference.boxes import cell_heat, heat_map_box
    from ramctl.model.preprocess import Preprocess

    tagger = Tagger.from_pretrained(str(tiny_bundle), threshold=0.3, boxes=True)
    bundle = Bundle.open(tiny_bundle)
    model = load_model(bundle).eval()
    size = round(bundle.preprocess.size * 1.75 / 32) * 32
    photo = load_photo(str(PHOTOS[0]), target=bundle.preprocess.size)
    pixels = Preprocess(replace(bundle.preprocess, size=size))(photo)[None]
    with torch.no_grad():
        features = model.encoder(torch.from_numpy(pixels))
        logits = cell_logits(model, features, model.prepare_labels(model.labels()))
    (heat,) = cell_heat(logits.numpy())
    assert heat.shape[1:] == (size // 32, size // 32)
    found = tagger.tag(PHOTOS[0]).boxes
    assert found
    for tag, box in found.items():
        (label,) = bundle.labels.ids(tag)
        expected = heat_map_box(heat[label], peak_fraction=0.6)
        assert list(box) == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_thorough_look_is_at_the_whole_and_at_the_part_that_says_most(ramctl):
    photo = np.asarray(load_photo(str(PHOTOS[0])))
    (height, width), (rows, columns) = photo.shape[:2], np.round(0.6 * np.array(photo.shape[:2]))
    down, right = int(height - rows), int(width - columns)
    places = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    parts = [photo[y : y + int(rows), x : x + int(columns)] for y, x in places]
    plain, thorough = (Tagger.from_pretrained(dense=True, thorough=way) for way in (False, True))
    scores = np.array([one.dense for one in plain.tag([photo, *parts])]).clip(1e-6, 1 - 1e-6)
    odds = np.log(scores / (1 - scores))
    expected = (odds[0] + odds[1:].max(0)) / 2
    found = np.array(thorough.tag(photo).dense).clip(1e-6, 1 - 1e-6)
    np.testing.assert_allclose(np.log(found / (1 - found)), expected, atol=1e-3)
    assert plain.fingerprint != thorough.fingerprint
    (row,) = ramctl("tag", "-q", PHOTOS[0], "--thorough").rows
    assert row["scores"] == thorough.tag(PHOTOS[0]).scores != plain.tag(PHOTOS[0]).scores
    assert thorough.tag(np.zeros((1, 300, 3), np.uint8)).dense


@pytest.mark.parametrize("thorough", [False, True])
def test_boxes_and_captions_do_not_depend_on_neighbours(tiny_bundle, thorough):
    way = {"threshold": 0.3, "boxes": True, "caption": True, "thorough": thorough}
    tagger = Tagger.from_pretrained(str(tiny_bundle), **way)
    together = tagger.tag(PHOTOS)
    assert [tagger.tag(photo) for photo in PHOTOS] == together
