"""`clean --detector grounding-dino:WEIGHTS`, with small random weights."""

import pytest

from tests.peers.small_dino import bert_base_tokenizer, save_port
from tests.support import lines


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_port(tmp_path_factory.mktemp("port"), bert_base_tokenizer())


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
