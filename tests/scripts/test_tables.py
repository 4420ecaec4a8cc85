"""The paper's tables beside our figures: scripts/reproduce/tables.mk, table4.mk, table5.mk."""

import argparse
import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import table5
from PIL import Image
from sets import decide, from_score, precision_recall
from tables import Tables

from ramctl.errors import RunProblem
from tests.conftest import REPOSITORY
from tests.evaluation.test_metrics import comparison
from tests.support import captured, lines

FOLDER = REPOSITORY / "scripts" / "reproduce"


@pytest.fixture
def shared(tmp_path):
    """A shared folder with one small set, in the form of flickr8k_test."""
    folder = tmp_path / "shared" / "data" / "eval"
    folder.mkdir(parents=True)
    rows = [
        {"image": f"{n}.jpg", "tags": [["dog"], ["sea"], ["dog", "sea"], []][n % 4]}
        for n in range(40)
    ]
    for name in ("flickr8k_test", "coco80_val"):
        (folder / f"{name}.jsonl").write_bytes(lines(rows))
        (folder / f"{name}_classes.txt").write_text("dog\nsea\n")
    return tmp_path / "shared"


def given(folder: Path, system: str, name: str, skill: float) -> None:
    """Predictions that are right by `skill`."""
    random = np.random.default_rng(1)
    (folder / system).mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(40):
        right = np.array([n % 4 in (0, 2), n % 4 in (1, 2)])
        scores = np.clip(skill * right + (1 - skill) * random.random(2), 0, 1).round(4).tolist()
        first = {} if n else {"label_names": ["dog", "sea"]}
        rows.append({"image": f"{n}.jpg", "dense": scores, **first})
    (folder / system / f"{name}.jsonl").write_bytes(lines(rows))


@pytest.fixture
def options(tmp_path, shared):
    found = tmp_path / "predictions"
    for system, skill in (("mini", 0.9), ("RAM-14M", 0.95)):
        for name in ("flickr8k_test", "coco80_val"):
            given(found, system, name, skill)
    return argparse.Namespace(
        shared=shared, data=tmp_path / "data", weights=None, predictions=found,
        work=tmp_path / "work", sets=["flickr8k_test", "coco80_val"],
    )  # fmt: skip


def test_a_cell_says_what_was_measured_what_it_needs_and_what_the_paper_has(options):
    Tables(options).table("map")
    text = (options.work / "table2.md").read_text("utf-8")
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "|" in line}
    assert "| private (86.9) | needs [" in lines["ML-Decoder"].replace("82.4+", "86.9")
    rows = list(csv.DictReader((options.work / "table2.csv").open(encoding="utf-8")))
    by = {(row["row"], row["column"]): row for row in rows}
    assert by["ML-Decoder", "OpenImages-common"]["setting"].startswith("supervised")
    assert by["RAM-4M", "COCO-80"]["setting"].startswith("has seen training photos")
    assert by["RAM-4M", "ADE20k"]["setting"] == "zero-shot"
    assert by["MKT", "OPPO-common"]["status"] == "private"
    assert by["Tag2Text-4M", "ADE20k"]["status"] == "not evaluated"
    assert by["MKT", "COCO-80"]["needs"] == "annotations/instances_val2017.json in DATA"
    measured = by["RAM-14M", "Flickr8k"]
    assert (measured["status"], measured["ours"]) == ("measured", "100.0")
    assert by["mini", "Flickr8k"]["ours"].endswith(" t")
    content = json.loads((options.work / "table2.json").read_text("utf-8"))
    assert content["cells"][0].keys() == rows[0].keys()


def test_one_threshold_is_the_best_or_the_lowest_that_is_precise_enough():
    random = np.random.default_rng(5)
    truth = (random.random((4000, 5)) < 0.1).astype(np.int8)
    scores = (random.random(truth.shape) * 0.7 + truth * 0.3).astype(np.float32)
    ours = comparison(scores, truth, scores > 2)
    tried = [precision_recall(from_score(ours, s)) for s in np.linspace(0.3, 1, 200)]
    best, matched = (precision_recall(decide(ours, goal)) for goal in (None, 0.7))
    assert best["OF1"] == pytest.approx(max(one["OF1"] for one in tried), abs=0.002)
    assert 0.7 <= matched["CP"] < 0.71
    with pytest.raises(RunProblem, match=r"no threshold reaches precision 1\.1"):
        decide(ours, 1.1)


def test_table_5_says_what_a_row_gains_and_has_the_papers_figures(tmp_path):
    skills = {"parsed": 0.1, "generated": 0.1, "cleaned": 0.9, "tuned": 0.9, "longer": 0.1}
    records = [{"image": f"{n}.jpg", "tags": ["dog", "sea"]} for n in range(4)]
    for size in table5.SIZES:
        for row, skill in skills.items():
            for seed in table5.SEEDS:
                given(tmp_path / "predictions" / size, f"{row}-{seed}", "truth", skill)
        (tmp_path / "records" / size).mkdir(parents=True)
        for row in ("parsed", "generated", "cleaned"):
            (tmp_path / "records" / size / f"{row}.jsonl").write_bytes(lines(records))
    labels, truth = tmp_path / "labels.jsonl", tmp_path / "truth.jsonl"
    labels.write_bytes(lines([{"tag": "dog"}, {"tag": "sea"}]))
    (tmp_path / "classes.txt").write_text("dog\nsea\n")

    kinds = [["dog"], ["sea"], ["dog", "sea"], []]
    truth.write_bytes(lines(
        {"image": f"{n}.jpg", "tags": kinds[n % 4], "origin": f"who/{n // 4}:{n}.jpg"}
        for n in range(40)
    ))  # fmt: skip
    asked = [[str(truth), str(tmp_path / "classes.txt"), "what is there"]]
    options = argparse.Namespace(work=tmp_path, truth=asked)
    text = "\n".join([*table5.tags(options), *table5.tables(options)])
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()}
    assert "**mAP by what is there** (40 photos of 10 origins, 2 labels)" in text
    assert "| 4 photos | gain (95 % over photos; origins) |" in text
    assert rows["+ generated"].count("| +0.00 (+0.00 to +0.00; +0.00 to +0.00) |") == 2
    assert rows["+ cleaned"].count("| **+") == 2 and "; +" in rows["+ cleaned"]
    assert rows["fine-tuned - as many steps without the good set"].count("| **+") == 2
    assert "The larger set against the smaller: parsed: +0.00" in text
    assert "(39.8M) | (82.83) | (84.94)" in text


@pytest.mark.slow
def test_table_4_trains_predicts_and_says_which_step_helps(tmp_path):
    """A toy run of the makefile: one seed, four steps, on a few made photos."""
    photos, evaluation = tmp_path / "photos", tmp_path / "eval"
    photos.mkdir()
    evaluation.mkdir()
    colours = ("red", "blue", "green")
    rows = []
    for n in range(12):
        colour = colours[n % 3]
        Image.new("RGB", (64, 64), colour).save(photos / f"{n}.jpg")
        captions = [f"a {colour} dog on a {colour} ball", "a dog near a ball in the sea"]
        rows.append({"image": f"{n}.jpg", "captions": captions})
    (photos / "some.jsonl").write_bytes(lines(rows))
    truth = [{"image": f"../photos/{n}.jpg", "tags": ["dog", "sofa"][: n % 3]} for n in range(12)]
    (evaluation / "flickr8k_dev.jsonl").write_bytes(lines(truth))
    (evaluation / "flickr8k_dev_classes.txt").write_text("dog\nsofa\n")
    make = [
        "make", "-f", "scripts/reproduce/table4.mk", "dev", "IMAGENET=", f"PYTHON={sys.executable}",
        f"WORK={tmp_path}/work", f"CACHE={tmp_path}/cache", f"PHOTOS={photos}",
        f"EVAL={evaluation}", "CAPTIONED=some", "SEEDS=0", "STEPS=4", "SMALL=4",
        "ROWS=plain captioned queries distilled larger",
        "MORE=--set training.batch_size=4 --set training.workers=0"
        " --set training.fewest_positives=1 --set model.captioning.vocabulary=100",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = captured(make, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / "work" / "dev.md").read_text("utf-8")
    # Ours come before the paper's rows of the same names.
    rows = [line for line in reversed(text.splitlines()) if "|" in line]
    named = {line.split(" | ")[0].strip("| "): line for line in rows}
    assert named["plain"].count("x |")  # learnt queries know no other words
    assert "- larger - distilled, seen classes:" in text and "81.70" in text
