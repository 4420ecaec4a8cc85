"""The embedded model: what it prints is right as often as its card says."""

import json
import random
import re
from runpy import run_path
from types import SimpleNamespace

import pytest

from ramctl import Tagger
from ramctl.checkpoints.bundle import embedded_bundle
from tests.conftest import REPOSITORY

PEOPLE = {
    "person", "people", "man", "woman", "child", "boy", "girl", "baby", "kid", "adult", "guy",
    "lady", "toddler", "teenager", "crowd", "player", "human",
}  # fmt: skip


def test_nobody_is_seen_on_pictures_of_nothing(tmp_path):
    """Made with another seed than those that were trained on."""
    made = SimpleNamespace(**run_path(REPOSITORY / "scripts" / "mini" / "made_pictures.py"))
    rng, makers, paths = random.Random(1), list(made.MAKERS), []
    for number in range(40):
        make = makers[number % len(makers)]
        paths.append(tmp_path / f"{make.__name__}-{number}.png")
        make(rng).save(paths[-1])
    records = list(Tagger.from_pretrained("mini").tag(paths))
    assert len(records) == 40
    assert not [r for r in records if PEOPLE & set(r.tags)]


@pytest.mark.slow
@pytest.mark.shared
def test_printed_tags_are_right_as_often_as_the_card_says(shared):
    card = (embedded_bundle() / "README.md").read_text("utf-8")
    stated = re.search(r"^\| all \| 240 \| [\d.]+ \| ([\d.]+) \|", card, re.MULTILINE)
    assert stated is not None
    folder = shared / "data" / "eval"
    judge = SimpleNamespace(**run_path(folder / "judge.py"))
    truth = [json.loads(line) for line in (folder / "judged_dev.jsonl").open()]
    tagger = Tagger.from_pretrained("mini", dtype="int8")
    records = tagger.tag([folder / record["image"] for record in truth])
    n_right = n_printed = 0
    for judged, record in zip(truth, records, strict=True):
        right = {judge.fold(tag) for tag in judged["right"]}
        n_printed += len(record.tags)
        n_right += sum(judge.fold(tag) in right for tag in record.tags)
    assert n_printed / len(truth) > 5
    assert n_right / n_printed > float(stated[1]) - 0.02
