"""The committed `--map` files fit the evaluation sets they were written for."""

import pytest

from ramctl.evaluation.classes import read_map
from ramctl.labels import normalise
from tests.conftest import REPOSITORY

MAPS = REPOSITORY / "scripts" / "reproduce" / "maps"
SETS = {"coco80": "coco80_val", "flickr8k": "flickr8k_test", "voc5": "voc5_val"}


@pytest.mark.shared
@pytest.mark.parametrize("name", SETS)
def test_every_line_is_of_a_class_and_asks_for_clean_tags(name, shared):
    classes = (shared / "data" / "eval" / f"{SETS[name]}_classes.txt").read_text().splitlines()
    for class_name, tags in read_map(MAPS / f"{name}.tsv").items():
        assert class_name in classes
        assert tags[0] == class_name
        assert [normalise(tag) for tag in tags] == tags
        assert len(set(tags)) == len(tags) > 1
