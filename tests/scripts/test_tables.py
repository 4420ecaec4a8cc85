"""The paper's tables beside our figures: scripts/reproduce/tables.mk, table4.mk, table5.mk."""

import argparse
import csv
import json
import os
import sys
from pathlib import Path

import limits
import looks
import numpy as np
import pytest
import rivals
import table5
from tables import Tables

from ramctl.classes import read_map
from ramctl.labels import normalise
from tests.conftest import REPOSITORY, SHARED
from tests.support import captured, lines, read_rows

FOLDER = REPOSITORY / "scripts" / "reproduce"


@pytest.fixture(autouse=True)
def scripts(monkeypatch, tmp_path):
    """The scripts note looks in a file of the test's own."""
    log = tmp_path / "looks.jsonl"
    monkeypatch.setattr(looks.log, "__defaults__", (log,))
    return log


def noted(log: Path) -> list[tuple[str, str]]:
    found = read_rows(log) if log.exists() else []
    return [(look["set"], look["model"]) for look in found]


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
    for system, skill in (("mini", 0.9), ("probe", 0.2), ("imagenet", 0.1), ("RAM-14M", 0.95)):
        for name in ("flickr8k_test", "coco80_val"):
            given(found, system, name, skill)
    return argparse.Namespace(
        shared=shared, data=tmp_path / "data", weights=None, predictions=found,
        work=tmp_path / "work", sets=["flickr8k_test", "coco80_val"],
    )  # fmt: skip


def test_a_cell_says_what_was_measured_what_it_needs_and_what_the_paper_has(options, scripts):
    Tables(options).table("map")
    text = (options.work / "table2.md").read_text("utf-8")
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "|" in line}
    assert "| private (86.9) | needs [" in lines["ML-Decoder"].replace("82.4+", "86.9")
    assert "`ram_swin_large_14m.pth` in WEIGHTS" not in text.split("Needs:")[0]
    rows = list(csv.DictReader((options.work / "table2.csv").open(encoding="utf-8")))
    by = {(row["row"], row["column"]): row for row in rows}
    assert by["ML-Decoder", "OpenImages-common"]["setting"].startswith("supervised")
    assert by["RAM-4M", "COCO-80"]["setting"].startswith("has seen training photos")
    assert by["RAM-4M", "ADE20k"]["setting"] == "zero-shot"
    assert by["MKT", "OPPO-common"]["status"] == "private"
    assert by["Tag2Text-4M", "ADE20k"]["status"] == "not evaluated"
    assert by["MKT", "COCO-80"]["status"] == "needs"
    assert by["MKT", "COCO-80"]["needs"] == "annotations/instances_val2017.json in DATA"
    measured = by["RAM-14M", "Flickr8k"]
    assert (measured["status"], measured["ours"]) == ("measured", "100.0")
    assert by["mini", "Flickr8k"]["ours"].endswith(" t")
    content = json.loads((options.work / "table2.json").read_text("utf-8"))
    assert content["cells"][0].keys() == rows[0].keys()
    gains = content["differences"]
    assert gains["probe"]["difference"] > 0.05 and gains["probe"]["ci"][0] > 0
    assert abs(gains["RAM-14M"]["difference"]) < 0.02
    assert "- mini - probe: +" in text


def test_each_look_is_noted_once_and_a_second_table_looks_no_more(options, scripts):
    Tables(options).table("map")
    expected = {
        (name, system)
        for name in ("flickr8k_test", "coco80_val")
        for system in ("mini", "probe", "imagenet", "RAM-14M")
    }
    assert len(noted(scripts)) == len(expected) and set(noted(scripts)) == expected
    Tables(options).table("map")
    Tables(options).table("pr")
    assert len(noted(scripts)) == len(expected)
    given(options.predictions, "RAM-14M", "coco80_val", 0.3)  # new predictions: a new look
    Tables(options).table("map")
    assert noted(scripts)[len(expected) :] == [("coco80_val", "RAM-14M")]


def test_development_photos_may_be_looked_at_without_a_note(scripts):
    looks.log("flickr8k_dev", "mini", "anything")
    assert noted(scripts) == []
    looks.log("voc5_val", "mini", "mAP")
    assert noted(scripts) == [("voc5_val", "mini")]


def test_every_look_on_file_has_all_fields():
    on_file = read_rows(FOLDER / "looks.jsonl")
    assert on_file
    for look in on_file:
        assert list(look) == ["date", "commit", "set", "model", "looked_at"]


def test_precision_is_matched_to_that_of_mini_on_shared_sets(options):
    tables = Tables(options)
    tables.table("pr")
    wanted = tables.figures("mini", "coco80_val")["CP"]
    for system in ("probe", "RAM-14M"):
        found = tables.figures(system, "coco80_val")
        assert found["CP"] >= wanted or found["note"].startswith("as given")
    assert "/" in json.loads((options.work / "table3.json").read_text())["cells"][-1]["ours"]


def test_the_probe_never_sees_the_photo_that_it_scores():
    random = np.random.default_rng(0)
    features = random.normal(size=(100, 20)).astype(np.float32)
    noise = random.integers(0, 2, (100, 3)).astype(np.int8)
    own = rivals.out_of_fold(features, noise, 1e-6)
    right = [np.corrcoef(own[:, c], noise[:, c])[0, 1] for c in range(3)]
    assert max(np.abs(right)) < 0.35  # fitted on themselves it is 1
    real = (features[:, :3] > 0).astype(np.int8)
    own = rivals.out_of_fold(features, real, 1e-2)
    assert min(np.corrcoef(own[:, c], real[:, c])[0, 1] for c in range(3)) > 0.6


def test_imagenet_names_stand_for_the_class_that_they_are_a_kind_of(monkeypatch):
    names = ["sports car, sport car", "car wheel", "freight car", "tabby, tabby cat", "oar"]
    monkeypatch.setattr(rivals, "class_names", lambda: names)
    probabilities = np.array([[0.1, 0.2, 0.3, 0.15, 0.25]])
    found = rivals.by_names(probabilities, {"car": ["car"], "cat": ["cat"], "sea": ["sea"]})
    assert {name: own.tolist() for name, own in found.items()} == {
        "car": pytest.approx([0.4]), "cat": pytest.approx([0.15]),
    }  # fmt: skip


def test_classes_that_one_system_does_not_know_count_nothing_for_it():
    full = {"mAP_unknown_zero": 0.5, "resampled": [0.4, 0.5, 0.6]}
    half = {"mAP_unknown_zero": 0.25, "resampled": [0.2, 0.25, 0.3]}
    found = looks.mean_difference([full, full], [half, full])
    assert found["sets"] == [0.25, 0.0] and found["difference"] == 0.125


def test_counting_words_are_true_where_two_captions_use_them(tmp_path):
    photos = tmp_path / "data" / "photos"
    photos.mkdir(parents=True)
    captions = ["Two dogs", "two dogs run", "three dogs run", "a dog", "dogs"]
    (photos / "flickr8k-dev.jsonl").write_text(json.dumps({"image": "a", "captions": captions}))
    where = limits.counting_truth(argparse.Namespace(shared=tmp_path, work=tmp_path / "work"))
    (row,) = read_rows(where)
    assert (row["tags"], row["uncertain"]) == (["two"], ["three"])


def test_a_tagger_that_sees_the_companion_in_place_of_the_thing_is_found_out(tmp_path):
    truth, own = tmp_path / "t.jsonl", tmp_path / "p.jsonl"
    (tmp_path / "t_classes.txt").write_text("fork\nplate\n")
    kinds = [["fork", "plate"], ["fork"], ["plate"], []]
    rows = [{"image": f"{n}.jpg", "tags": kinds[n % 4]} for n in range(80)]
    rows += [{"image": f"more{n}.jpg", "tags": ["fork", "plate"]} for n in range(20)]
    rows += [{"image": f"none{n}.jpg", "tags": []} for n in range(20)]
    truth.write_bytes(lines(rows))
    # A plate is always seen; so is a fork wherever a plate is.
    seen = [(row["image"], 0.9 if "plate" in row["tags"] else 0.1) for row in rows]
    own.write_bytes(lines({"image": n, "scores": {"plate": s, "fork": s}} for n, s in seen))
    comparison = looks.Truth.of_set("t", tmp_path, None).compared(own)
    assert limits.companions(comparison) == [(0, 1), (1, 0)]
    found = limits.co_occurrence(comparison)
    assert (found["classes"], found["recall_with"], found["recall_without"]) == (2, 1.0, 0.5)
    assert (found["false_with"], found["false_without"]) == (0.5, 0.0)


def drawn(path, **options):
    return list(table5.draw(argparse.Namespace(files=[path], **options)))


def test_photos_are_drawn_by_their_names_and_a_larger_fraction_holds_the_smaller(tmp_path):
    path = tmp_path / "photos.jsonl"
    rows = [{"image": f"{number}.jpg", "captions": ["a dog"]} for number in range(400)]
    path.write_bytes(lines(rows))
    quarter, half = drawn(path, fraction=0.25), drawn(path, fraction=0.5)
    assert 70 < len(quarter) < 130 and 160 < len(half) < 240
    assert all(row in half for row in quarter)
    assert drawn(path, fraction=1) == rows


def test_files_may_stand_behind_options_as_in_the_makefile(tmp_path, monkeypatch, capsys):
    records = tmp_path / "photos.jsonl"
    records.write_bytes(lines([{"image": "1.jpg"}]))
    monkeypatch.setattr(sys, "argv", ["table5.py", "draw", "--fraction", "1", str(records)])
    table5.main()
    assert json.loads(capsys.readouterr().out) == {"image": "1.jpg"}


def test_a_detector_that_is_not_sure_says_nothing(tmp_path):
    path, records = tmp_path / "boxes.jsonl", tmp_path / "records.jsonl"
    boxes = [["cat", 0.3, 0, 0, 1, 1], ["dog", 0.9, 0, 0, 1, 1], ["dog", 0.2, 0, 0, 1, 1],
             ["cow", 0.05, 0, 0, 1, 1]]  # fmt: skip
    path.write_bytes(lines({"image": f"a.tar#{n}.jpg", "boxes": boxes} for n in (1, 2)))
    records.write_bytes(lines([{"image": "a.tar#1.jpg", "origin": "who/what:1.jpg"}]))
    assert list(table5.detected(argparse.Namespace(files=[path], records=records))) == [
        {"image": "a.tar#1.jpg", "origin": "who/what:1.jpg", "tags": ["dog"], "uncertain": ["cat"]}
    ]


@pytest.fixture
def table5_rows(tmp_path):
    """The lines of table 5 by row, where the skill of each row's models is given."""
    skills = {"parsed": 0.1, "generated": 0.1, "cleaned": 0.9, "tuned": 0.9, "longer": 0.1}
    records = [{"image": f"{n}.jpg", "tags": ["dog", "sea"]} for n in range(4)]
    for size in table5.SIZES:
        for row, skill in skills.items():
            for seed in table5.SEEDS:
                folder = tmp_path / "predictions" / size
                given(folder, "truth", f"{row}-{seed}", skill)
        (tmp_path / "records" / size).mkdir(parents=True)
        for row in ("parsed", "generated", "cleaned"):
            (tmp_path / "records" / size / f"{row}.jsonl").write_bytes(lines(records))
    labels, truth = tmp_path / "labels.jsonl", tmp_path / "truth.jsonl"
    labels.write_bytes(lines([{"tag": "dog"}, {"tag": "sea"}]))
    (tmp_path / "classes.txt").write_text("dog\nsea\n")

    def rows(origins: bool) -> dict[str, str]:
        kinds = [["dog"], ["sea"], ["dog", "sea"], []]
        names = ({"origin": f"who/{n // 4}:{n}.jpg"} if origins else {} for n in range(40))
        truth.write_bytes(lines(
            {"image": f"{n}.jpg", "tags": kinds[n % 4], **name} for n, name in enumerate(names)
        ))  # fmt: skip
        asked = [[str(truth), str(tmp_path / "classes.txt"), "what is there"]]
        options = argparse.Namespace(work=tmp_path, truth=asked)
        text = "\n".join([*table5.tags(options), *table5.tables(options)])
        found = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()}
        return found | {"text": text}

    return rows


def test_table_5_says_what_a_row_gains_over_photos_and_over_origins(table5_rows, scripts):
    rows = table5_rows(origins=True)
    assert "**mAP by what is there** (40 photos of 10 origins, 2 labels)" in rows["text"]
    assert "| 4 photos | gain (95 % over photos; origins) |" in rows["text"]
    assert rows["+ generated"].count("| +0.00 (+0.00 to +0.00; +0.00 to +0.00) |") == 2
    assert rows["+ cleaned"].count("| **+") == 2 and "; +" in rows["+ cleaned"]
    assert rows["fine-tuned - as many steps without the good set"].count("| **+") == 2
    assert "The larger set against the smaller: parsed: +0.00" in rows["text"]
    assert noted(scripts) == [("truth", "the models of table 5")]


def test_table_5_has_the_papers_figures_beside_ours_and_one_interval_without_origins(table5_rows):
    rows = table5_rows(origins=False)
    paper = next(line for line in rows["text"].splitlines() if line.startswith("| + cleaned"))
    assert "(39.8M) | (82.83) | (84.94)" in paper and "(121.5M) | (83.52)" in paper
    assert rows["+ generated"].count("| +0.00 (+0.00 to +0.00) |") == 2


def test_the_engine_on_kept_features_adds_and_removes_what_the_commands_do(ramctl, tmp_path):
    pictures = REPOSITORY / "tests" / "data" / "pictures"
    names = sorted(path.name for path in pictures.glob("*.jpg"))[:3]
    records = tmp_path / "records.jsonl"
    records.write_bytes(lines({"image": name, "tags": ["boat"]} for name in names))
    common = ["--root", str(pictures), "-j", "1", "-q"]
    steps = {"generate": ["--captions", "0"], "clean": ["--threshold", "0.01"]}
    found = {}
    for program in (["-m", "ramctl"], [str(FOLDER / "kept.py"), str(tmp_path / "cache")]):
        last = records
        for command, more in steps.items():
            out = tmp_path / f"{command}-{len(program[0])}.jsonl"
            done = captured(
                [sys.executable, *program, command, str(last), *common, *more, "-o", str(out)],
                cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-2000:]
            found.setdefault(command, []).append([row["tags"] for row in read_rows(out)])
            last = out
    for real, kept in found.values():
        assert real == kept
    assert sum(map(len, found["generate"][0])) > 6


SETS = {"coco80": "coco80_val", "flickr8k": "flickr8k_test", "voc5": "voc5_val"}


@pytest.mark.shared
@pytest.mark.parametrize("name", SETS)
def test_every_line_of_a_map_is_of_a_class_and_asks_for_clean_tags(name):
    classes = (SHARED / "data" / "eval" / f"{SETS[name]}_classes.txt").read_text().splitlines()
    for class_name, tags in read_map(FOLDER / "maps" / f"{name}.tsv").items():
        assert class_name in classes
        assert tags[0] == class_name
        assert [normalise(tag) for tag in tags] == tags
        assert len(set(tags)) == len(tags) > 1


@pytest.mark.slow
def test_table_4_trains_predicts_and_says_which_step_helps(tmp_path, scripts):
    """A toy run of the makefile: one seed, four steps, on a few made photos."""
    from PIL import Image

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
        "make", "-f", "scripts/reproduce/table4.mk", "dev", f"PYTHON={sys.executable}",
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
    assert not scripts.exists()  # development photos
