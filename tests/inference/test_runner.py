"""How photos reach a model: in both runtimes, whole and in parts, with boxes and captions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from ramctl import Tagger
from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.load import load_model
from ramctl.inference.boxes import cell_heat, heat_map_box
from ramctl.inference.tagger import TaggerOptions, open_runner
from ramctl.model.preprocess import Preprocess
from ramctl.model.preset import load_preset, write_table
from ramctl.model.regions import cell_logits
from ramctl.parsing.parser import CaptionParser
from ramctl.photos.decoding import load_photo
from ramctl.records.output_formats import line_format, table_lines
from ramctl.records.record import Record
from tests.support import DATA, TAGS, with_caption_threshold

pytestmark = pytest.mark.filterwarnings("ignore:Palette images with Transparency")
PHOTOS = sorted((DATA / "photos").iterdir())
SIZE = 384


def test_scores_are_the_same_in_both_runtimes_and_in_batches_side_by_side(tiny_bundle):
    def scores(**way):
        return [
            row.dense for row in Tagger.from_pretrained(tiny_bundle, dense=True, **way).tag(PHOTOS)
        ]

    onnx = scores(runtime="onnx", jobs=1)
    one, three = (scores(runtime="torch", device="cpu", jobs=n, batch=1) for n in (1, 3))
    assert len(onnx) == len(PHOTOS) > 4 and one == three
    np.testing.assert_allclose(onnx, one, atol=1e-4)


@pytest.mark.parametrize("thorough", [False, True])
def test_boxes_and_captions_come_beside_the_same_tags_whatever_is_beside_a_photo(
    tiny_bundle, thorough
):
    plain = Tagger.from_pretrained(tiny_bundle, threshold=0.3, thorough=thorough)
    looking = Tagger.from_pretrained(
        tiny_bundle, threshold=0.3, thorough=thorough, boxes=True, caption=True
    )
    together = looking.tag(PHOTOS)
    assert [looking.tag(photo) for photo in PHOTOS[:3]] == together[:3]
    for before, after in zip(plain.tag(PHOTOS), together, strict=True):
        assert {name: after.record[name] for name in before.record} == before.record
        things = [tag for tag in after.tags if tag not in ("stand", "red")]  # a doing, a colour
        assert list(after.boxes) == things
        for tag, ((x0, y0, x1, y1), score) in after.record["boxes"].items():
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
            assert after.boxes[tag] == (x0, y0, x1, y1)
            assert score == after.scores[tag]
        assert after.record["generated_captions"] == [after.caption]


def test_a_caption_whose_labels_score_below_the_bundle_s_threshold_is_none(tiny_bundle, tmp_path):
    def tagged(model):
        return Tagger.from_pretrained(model, caption=True, dense=True).tag(PHOTOS[0])

    usual = tagged(tiny_bundle)
    (parsed,) = CaptionParser.closed(Bundle.open(tiny_bundle).labels).parse([usual.caption])
    confidence = np.log([usual.dense[TAGS.index(tag)] for tag in parsed.tags]).mean()
    assert 1 < len(parsed.tags) < len(TAGS)
    below = with_caption_threshold(tiny_bundle, tmp_path, confidence - 0.01)
    assert tagged(below).caption == usual.caption
    none = tagged(with_caption_threshold(tiny_bundle, tmp_path, confidence + 0.01))
    assert none.caption is None and none.record["generated_captions"] == []
    shown = table_lines(none.record).decode().splitlines()
    assert shown[1:] == [f"  {score:.2f}  {tag}" for tag, score in none.scores.items()]
    assert line_format("csv", caption=True).encode(none.record).endswith(b",\n")


def test_boxes_are_found_in_larger_photos_and_are_of_the_photo(tiny_bundle):
    """By the bundle's model itself: cells of the photo at 1.75 times the size, in steps of 32."""
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
        expected = heat_map_box(heat[TAGS.index(tag)], peak_fraction=0.6)
        assert list(box) == pytest.approx(expected.tolist(), abs=1e-4)
    flat = heat_map_box(np.ones((3, 3), np.float32), peak_fraction=0.6)
    assert flat.tolist() == [0, 0, 1, 1]


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
    (row,) = ramctl("tag", "-q", PHOTOS[0], "--thorough").rows
    assert row["scores"] == thorough.tag(PHOTOS[0]).scores != plain.tag(PHOTOS[0]).scores
    assert thorough.tag(np.zeros((1, 300, 3), np.uint8)).dense


# ram/transform.py of github.com/xinyu1205/recognize-anything, commit 7cb804a.
authors = transforms.Compose(
    [
        lambda photo: photo.convert("RGB"),
        transforms.Resize((SIZE, SIZE)),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


@pytest.fixture(scope="module")
def official(mini):
    """A runner with the preprocessing of a converted bundle."""
    preprocess = write_table(load_preset("ram-swin-l").preprocess)
    preprocess |= {"size": SIZE, "loader": "official"}
    runner, _ = open_runner(
        Bundle(mini.path, mini.meta | {"preprocess": preprocess}), TaggerOptions()
    )
    return runner


def seen(runner, path: Path) -> np.ndarray:
    photo = runner.read(Record({"image": path.name}, "list", 1, path.parent))
    return runner.preprocess.full_batch([photo.pixels], 1)[0]


@pytest.mark.shared
def test_the_fixture_photos_are_seen_as_by_the_authors(official, shared):
    odd = shared / "data" / "photos" / "odd"
    rows = map(json.loads, (odd / "index.jsonl").read_text("utf-8").splitlines())
    paths = [odd / row["file"] for row in rows if row["expect"] == "ok"]
    paths += (shared / "data" / "photos" / "fullsize").glob("*.jpg")
    paths += (shared / "parity").glob("preproc_*.png")
    assert len(paths) > 35
    differ = [
        path.name
        for path in paths
        if not np.array_equal(seen(official, path), authors(Image.open(path)).numpy())
    ]
    assert differ == []
