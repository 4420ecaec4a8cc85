"""Photos as a Python program has them, options, and how good the embedded model is."""

import io
import json
import os
import pickle
import re
import tarfile
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import ramctl
from ramctl import RamctlError, RecordProblem, Tagger, TagResult, UsageProblem
from ramctl.checkpoints.bundle import embedded_bundle
from ramctl.records.labels import Labels
from tests.inference.conftest import save_photo
from tests.support import changed_bundle

RED = ["red", "colour"]
ALL = ["colour", "red", "blue"]
PURPLE = np.full((30, 40, 3), (255, 0, 255), np.uint8)


@pytest.fixture(scope="module")
def tagger(colours):
    return Tagger.from_pretrained(colours)


@pytest.fixture
def red(tmp_path) -> Path:
    return save_photo(tmp_path / "red.png", "red")


def test_every_form_of_a_photo_alone_and_in_a_list_has_the_same_tags(tagger, red, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(red, "red.png")
    content = red.read_bytes()
    picture = Image.open(red)
    array = np.asarray(picture.convert("RGB"))
    forms = [
        str(red), red, f"{tmp_path}/photos.tar#red.png", content, picture, picture.convert("P"),
        array, array[:, ::-1],
    ]  # fmt: skip
    results = tagger.tag(forms)
    assert [result.tags for result in results] == [RED] * len(forms)
    assert {tuple(result.scores.values()) for result in results} == {(0.9975, 0.9526)}
    for photo, several in zip(forms, results, strict=True):
        result = tagger.tag(photo)
        assert isinstance(result, TagResult) and result == several
        assert (result.boxes, result.caption, result.dense) == ({}, None, None)
        with pytest.raises(TypeError, match="photos: not a list or an iterator of photos"):
            tagger.outcomes(photo)
    named = [result.image for result in results]
    assert named == [str(red), str(red), f"{tmp_path}/photos.tar#red.png", *[None] * 5]


def test_a_list_gives_a_list_and_an_iterator_is_followed(tagger, red):
    assert [one.tags for one in tagger.tag([red, PURPLE])] == [RED, ALL]
    assert tagger.tag([]) == []
    taken = []

    def endless():
        while True:
            taken.append(red)
            yield red

    assert next(tagger.tag(endless())).tags == RED
    assert len(taken) < 1000


@pytest.mark.parametrize(
    ("photo", "code", "message"),
    [
        (b"", "unreadable_image", r"photos\[1\]: the file is empty"),
        ("none.png", "missing_image", "none.png: no such file"),
        (PURPLE.astype(np.float32), "unreadable_image", r"photos\[1\]: .*float32 \(30, 40, 3\)"),
        (PURPLE.transpose(2, 0, 1), "unreadable_image", r"uint8 \(3, 30, 40\), not of"),
        (Image.new("RGB", (0, 5)), "unreadable_image", "without pixels"),
    ],
)
def test_what_cannot_be_tagged_is_a_record_problem_and_the_rest_is_done(
    photo, code, message, tagger, red
):
    before, problem, after = tagger.outcomes([red, photo, red])
    assert before.tags == after.tags == RED
    assert isinstance(problem, RecordProblem)
    assert problem.code == code
    with pytest.raises(RecordProblem, match=message):
        tagger.tag([red, photo])


@pytest.mark.parametrize("thing", [3, {"image": "red.png"}, io.BytesIO()])
def test_what_is_no_photo_is_a_type_error(thing, tagger, red):
    with pytest.raises(TypeError, match="not a photo"):
        tagger.tag([red, thing])


@pytest.mark.parametrize("thing", [None, 3, {"image": "red.png"}, {"red.png"}])
def test_what_is_neither_photo_nor_photos_names_the_argument(thing, tagger):
    with pytest.raises(TypeError, match=f"photos: not a .* but a {type(thing).__name__}"):
        tagger.tag(thing)


def test_labels_and_thresholds_are_also_objects(colours, tmp_path):
    def tags(**options):
        return Tagger.from_pretrained(colours, **options).tag(PURPLE).tags

    (tmp_path / "words").write_text("purple\n")
    (tmp_path / "thresholds").write_text('{"tag": "red", "threshold": 0.99}\n')
    for labels in (["purple"], tmp_path / "words", Labels.from_tags(["purple"])):
        assert tags(labels=labels) == ["purple"]
    assert tags(threshold=0.9) == ["colour"]
    for threshold in ({"red": 0.99}, tmp_path / "thresholds"):
        assert tags(threshold=threshold) == ["colour", "blue"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "no-such"}, "no-such"),
        ({"labels": ["dog", 3]}, "labels: not a list of words"),
        ({"threshold": {"dog": 0.5}}, "no label is called 'dog'"),
        ({"threshold": 0.5, "precision": 0.8}, "precision"),
        ({"precision": 1.5}, r"precision 1\.5 is not between"),
        ({"top": 0}, "top 0 is less than 1"),
        ({"runtime": "onx"}, "runtime 'onx' is not one of auto, onnx, torch"),
        ({"batch": 0}, "^batch 0 is less than 1"),
        ({"model": "clip:x"}, "name some with --labels$"),
        ({"model": "clip:x", "labels": ["dog"], "boxes": True}, "^--boxes needs a bundle"),
        ({"model": "clip:x", "labels": ["dog"], "embedding": True}, "^--embedding needs a bundle"),
        ({"model": "clip:x", "labels": ["dog"], "runtime": "onnx"}, "^runtime onnx needs a bundle"),
        ({"model": "ram"}, "`ramctl convert ram` downloads it"),
    ],
)
def test_wrong_options_are_problems_of_ramctl(options, message, colours):
    with pytest.raises(UsageProblem, match=message) as raised:
        Tagger.from_pretrained(options.pop("model", colours), **options)
    assert isinstance(raised.value, RamctlError)


def test_whatever_changes_a_record_changes_the_fingerprint(colours, tiny_bundle, tmp_path):
    def fingerprint(model, **options):
        return repr(Tagger.from_pretrained(model, **options).fingerprint)

    choices = [
        {}, {"threshold": 0.7}, {"threshold": {"red": 0.7}}, {"top": 1}, {"lang": "zh"},
        {"dense": True}, {"labels": ["red", "purple"]}, {"thorough": True},
    ]  # fmt: skip
    ways = [{}, {"runtime": "torch"}, {"dtype": "fp32"}, {"boxes": True}, {"caption": True}]
    changes = [{"caption": -1.5}, {"threshold": 0.4}]
    bundles = [
        changed_bundle(tiny_bundle, tmp_path / str(number), thresholds=table)
        for number, table in enumerate(changes)
    ]
    found = [fingerprint(colours, **options) for options in choices]
    found += [fingerprint(tiny_bundle, **options) for options in ways]
    found += map(fingerprint, bundles)
    assert len({*found}) == len(found)
    assert fingerprint(colours, batch=3, jobs=1) == found[0]


def test_public_names_are_there_and_pickle(tagger, red):
    assert set(ramctl.__all__) == {name for name in dir(ramctl)}
    assert all(getattr(ramctl, name) for name in ramctl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Taggr'"):
        _ = ramctl.Taggr
    result = tagger.tag(os.fspath(red))
    assert pickle.loads(pickle.dumps(result)) == result
    assert result.record == {"image": str(red), "tags": RED, "scores": result.scores}


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
