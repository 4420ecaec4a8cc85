"""`clean --detector grounding-dino:WEIGHTS`, with small random weights."""

import numpy as np
import pytest
from PIL import Image

from ramctl.checkpoints.bundle import Bundle
from ramctl.data_engine.tag_regions import PhotoView, open_detector
from ramctl.errors import UsageProblem
from ramctl.inference.peers.grounding_dino import GroundingDino
from ramctl.inference.runner import ModelRunner, RunnerOptions
from ramctl.model.device import Runtime
from tests.peers.small_dino import bert_base_tokenizer, save_port
from tests.support import lines


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_port(tmp_path_factory.mktemp("port"), bert_base_tokenizer())


@pytest.fixture
def runner(engine_bundle):
    return ModelRunner(Bundle.open(engine_bundle), RunnerOptions(workers=2))


@pytest.mark.slow
def test_the_boxes_are_the_detectors_for_each_photos_own_tags(runner, weights):
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 255, (64, 48, 3)).astype(np.uint8) for _ in range(2)]
    photos = [Image.fromarray(photo) for photo in pixels]
    assert runner.side_by_side == 2
    detector = open_detector(f"grounding-dino:{weights}", runner)
    boxes = [
        detector(PhotoView(runner, photo, labels, None))
        for photo, labels in zip(photos, [[0, 2], [4]], strict=True)
    ]
    assert runner.side_by_side == 1  # there is no memory for another batch
    model = GroundingDino(weights, (), Runtime.choose("auto", "fp32"))
    for own, photo, tags in zip(boxes, pixels, [["horse", "sky"], ["man"]], strict=True):
        found = model.detect(photo, tags)
        np.testing.assert_allclose(np.stack(own), [detection.box for detection in found])


def test_records_are_cleaned_by_the_crops_of_its_boxes(
    command, engine_bundle, weights, photo_records
):
    done = command(
        "clean", "--model", engine_bundle, "--detector", f"grounding-dino:{weights}",
        "--rule", "paper", "--threshold", 1, stdin=lines(photo_records),
    )  # fmt: skip
    out = done.rows
    assert [row["id"] for row in out] == [row["id"] for row in photo_records]
    entries = [entry for row in out for entry in row["removed"]]
    assert {entry["tag"] for entry in entries} == {"horse", "field", "sky"}
    assert len({tuple(entry["box"]) for entry in entries}) > len(photo_records)


@pytest.mark.parametrize("name", ["grounding-dino:", "sam:weights", "attention:x"])
def test_a_detector_that_nobody_knows_is_wrong_usage(runner, name):
    with pytest.raises(UsageProblem, match="expected attention or grounding-dino:WEIGHTS"):
        open_detector(name, runner)
