"""The measures of scripts/reproduce/planted.mk: what is planted, what goes, what is back."""

import argparse
from functools import partial

import numpy as np
import pytest
from planted_damage import write_damaged
from planted_returned import count_returned
from planted_rules import Rule, read_scored

from ramctl.labels import Label, LabelSystem
from tests.data_engine.conftest import lines, read

CAPTIONS = ["A dog and a man on a lawn .", "A man with his dog ."]


def test_what_is_planted_is_named_by_no_caption_and_implied_by_no_tag(tmp_path):
    labels = [
        Label("dog"), Label("man", parents=("person",)), Label("grass", synonyms=("lawn",)),
        Label("person"), Label("car"),
    ]  # fmt: skip
    rows = [
        {
            "image": f"{number}.jpg", "captions": CAPTIONS, "tags": ["dog", "man", "grass"],
            "caption_tags": [["dog", "man", "grass"], ["man", "dog"]],
            "kinds": {"dog": "object", "man": "object", "grass": "object"},
        }
        for number in range(30)
    ] + [
        {"image": f"c{n}.jpg", "captions": ["A person ."], "tags": ["car", "person"],
         "caption_tags": [["car", "person"]], "kinds": {"car": "object", "person": "object"}}
        for n in range(30)
    ]  # fmt: skip
    (tmp_path / "parsed.jsonl").write_bytes(lines(rows))
    LabelSystem(labels).write(tmp_path / "labels.jsonl")
    totals = write_damaged(
        argparse.Namespace(
            records=tmp_path / "parsed.jsonl", labels=tmp_path / "labels.jsonl", kind="random",
            share=0.5, drop=0.3, min_count=5, seed=0, out=tmp_path,
        )
    )  # fmt: skip
    damaged = [row for i in (0, 1) for row in read((tmp_path / f"fold-{i}.jsonl").read_bytes())]
    with_dog = [row for row in damaged if row["image"][0] != "c"]
    assert totals["photos"] == len(damaged) == 60 and totals["dropped"] and totals["planted"]
    assert {tag for row in with_dog for tag in row["truth"]["planted"]} == {"car"}
    for row in with_dog:
        truth = row["truth"]
        assert truth["right"] == ["dog", "man"] and truth["once"] == ["grass"]
        kept = {"dog", "man", "grass"} - set(truth["dropped"])
        assert set(row["tags"]) == kept | set(truth["planted"])


def test_returned_tags_are_counted_by_hand():
    names = ["dog", "man", "grass", "person", "car"]
    truth = {"right": ["dog", "man"], "once": ["grass"], "dropped": ["dog", "grass"]}
    row = {
        "image": "0.jpg", "tags": ["man"],
        "kinds": dict.fromkeys(names[:1] + names[2:], "object") | {"man": "object"},
        "truth": truth | {"planted": [], "implied": ["person"]},
    }  # fmt: skip
    # The once named and the implied count neither way: a car comes before the dog that was wanted.
    found = count_returned(
        [[row], []], [np.array([[0.3, 0.9, 0.8, 0.7, 0.4]]), np.zeros((0, 5))], names
    )
    assert found["all"]["candidates"] == 2 and found["all"]["dropped"] == 1
    assert set(found["all"]["precision_at_recall"].values()) == {0.5}


@pytest.mark.parametrize(("outliers", "form", "number"), [(0.2, "", None), (0.0, "", 0.48)])
def test_a_rule_removes_what_the_command_removes(
    run_here, engine_bundle, photo_records, tmp_path, outliers, form, number
):
    truth = {"planted": ["sky"], "right": ["horse"]}
    rows = [{**row, "id": n, "truth": truth} for n, row in enumerate(photo_records * 3)]
    clean = partial(run_here, "clean", "--model", engine_bundle, "-q", "--work", "regions")
    clean("--stage", "detect", stdin=lines(rows))
    rule = ["--outliers", outliers, "--threshold", number or 0]
    clean("--stage", "cluster", *rule)
    out = read(clean("--stage", "apply").stdout)
    removed = [
        tag in {entry["tag"] for entry in after.get("removed", [])}
        for before, after in zip(rows, out, strict=True)
        for tag in before["tags"]
        if before["kinds"][tag] in ("object", "scene")
    ]
    marks = Rule(outliers, form, number).marks(read_scored(tmp_path / "regions"))
    assert marks.tolist() == removed and any(removed)
