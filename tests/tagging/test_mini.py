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
@pytest.mark.parametrize("photos", ["judged_dev", "judged_other"])
def test_printed_tags_are_right_and_name_the_subject_as_often_as_the_card_says(shared, photos):
    card = (embedded_bundle() / "README.md").read_text("utf-8")
    (row,) = re.findall(rf"^\| {photos} \|.*$", card, re.MULTILINE)
    _, n_photos, n_tags, strict, _, _, subject, first_two, _ = map(str.strip, row.split("|")[1:-1])
    folder = shared / "data" / "eval"
    judge = SimpleNamespace(**run_path(folder / "judge.py"))
    truth = [json.loads(line) for line in (folder / f"{photos}.jsonl").open()]
    beside = folder / f"{photos}_main.jsonl"
    lines = beside.open() if beside.is_file() else map(json.dumps, truth)
    main = {row["image"]: row["main"] for row in map(json.loads, lines)}
    tagger = Tagger.from_pretrained("mini", dtype="int8")
    records = tagger.tag([folder / record["image"] for record in truth])
    n_right = n_printed = n_subjects = n_telling = 0
    for judged, record in zip(truth, records, strict=True):
        right = {judge.fold(tag) for tag in judged["right"]}
        printed = list(map(judge.fold, record.tags))
        things = [set(map(judge.fold, thing)) for thing in main[judged["image"]]]
        n_printed += len(printed)
        n_right += sum(tag in right for tag in printed)
        n_subjects += bool(things[0] & set(printed))
        n_telling += any(tag in thing for tag in printed[:2] for thing in things)
    assert len(truth) == int(n_photos)
    assert n_printed / len(truth) > float(n_tags) - 0.5
    assert n_right / n_printed > float(strict) - 0.02
    assert n_subjects / len(truth) > float(subject) - 0.02
    assert n_telling / len(truth) > float(first_two) - 0.02
