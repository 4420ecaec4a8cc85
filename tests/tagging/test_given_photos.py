"""Photos as a Python program has them: names, contents, pictures, arrays."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ramctl
from ramctl import RamctlError, RecordProblem, Tagger, TagResult, UsageProblem
from ramctl.inference.tagger import TaggerOptions
from ramctl.records.labels import Labels
from tests.tagging.conftest import save_photo

RED = ["red", "colour"]
ALL = ["colour", "red", "blue"]
PURPLE = np.full((30, 40, 3), (255, 0, 255), np.uint8)


@pytest.fixture(scope="module")
def tagger(colours):
    return Tagger.from_pretrained(colours)


@pytest.fixture
def red(tmp_path) -> Path:
    return save_photo(tmp_path / "red.png", "red")


def test_every_form_of_a_photo_has_the_same_tags(tagger, red, tmp_path):
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
    named = [result.image for result in results]
    assert named == [str(red), str(red), f"{tmp_path}/photos.tar#red.png", *[None] * 5]


def test_one_photo_gives_one_result_and_is_not_taken_for_several(tagger, red):
    for photo in (str(red), red, red.read_bytes(), Image.open(red)):
        result = tagger.tag(photo)
        assert isinstance(result, TagResult)
        assert result.tags == RED
        assert list(result.scores) == RED
        assert (result.boxes, result.caption, result.dense) == ({}, None, None)
        with pytest.raises(TypeError, match="one photo, where a list"):
            tagger.outcomes(photo)


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
        (b"hello, world", "unreadable_image", r"photos\[1\]: damaged, or not a photo"),
        ("none.png", "missing_image", "none.png: no such file"),
        (PURPLE.astype(np.float32), "unreadable_image", r"photos\[1\]: .*float32 \(30, 40, 3\)"),
        (PURPLE.transpose(2, 0, 1), "unreadable_image", r"uint8 \(3, 30, 40\), not of"),
        (Image.new("RGB", (0, 5)), "unreadable_image", "without pixels"),
        (np.zeros((200, 200), np.uint8), "unreadable_image", r"photos\[1\]: .*uint8 \(200, 200\)"),
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


@pytest.mark.parametrize("thing", [3, None, ["red.png"], {"image": "red.png"}, io.BytesIO()])
def test_what_is_no_photo_is_a_type_error(thing, tagger, red):
    with pytest.raises(TypeError, match="not a photo"):
        tagger.tag([red, thing])
    if not isinstance(thing, list | dict | io.BytesIO):
        with pytest.raises(TypeError):
            tagger.tag(thing)


def test_several_processes_take_photos_in_memory(colours, red):
    two = Tagger.from_pretrained(colours, device="cpu,cpu", jobs=1)
    results = two.tag([red.read_bytes(), PURPLE, Image.open(red)])
    assert [one.tags for one in results] == [RED, ALL, RED]


def test_labels_are_words_files_or_systems(colours, tmp_path):
    (tmp_path / "words.txt").write_text("purple\n")
    for labels in (["purple"], tmp_path / "words.txt", Labels.from_tags(["purple"])):
        assert Tagger.from_pretrained(colours, labels=labels).tag(PURPLE).tags == ["purple"]
    besides = Tagger.from_pretrained(colours, labels=f"+{tmp_path / 'words.txt'}")
    assert besides.tag(PURPLE).tags == ["purple", *ALL]


@pytest.fixture
def tags(colours):
    """The tags of a purple photo with these options."""
    return lambda **options: Tagger.from_pretrained(colours, **options).tag(PURPLE).tags


def test_thresholds_are_a_number_numbers_of_tags_or_a_file(tags, tmp_path):
    (tmp_path / "thresholds").write_text('{"tag": "red", "threshold": 0.99}\n')
    assert tags(threshold=0.9) == ["colour"]
    for threshold in ({"red": 0.99}, tmp_path / "thresholds"):
        assert tags(threshold=threshold) == ["colour", "blue"]


@pytest.mark.parametrize(
    ("options", "problem", "message"),
    [
        ({"model": "no-such"}, UsageProblem, "no-such"),
        ({"labels": ["dog", 3]}, UsageProblem, "labels: not a list of words"),
        ({"threshold": 1.5}, UsageProblem, "not between 0 and 1"),
        ({"threshold": {"dog": 0.5}}, UsageProblem, "no label is called 'dog'"),
        ({"threshold": 0.5, "precision": 0.8}, UsageProblem, "precision"),
        ({"precision": 1.5}, UsageProblem, r"precision 1\.5 is not between"),
        ({"top": 0}, UsageProblem, "top 0 is less than 1"),
        ({"runtime": "onx"}, UsageProblem, "runtime 'onx' is not one of auto, onnx, torch"),
        ({"batch": 0}, UsageProblem, "^batch 0 is less than 1"),
        ({"jobs": 0}, UsageProblem, "^jobs 0 is less than 1"),
        ({"lang": "xx"}, UsageProblem, "^language 'xx': the labels have names in zh$"),
        ({"model": "clip:x"}, UsageProblem, "name some with --labels$"),
        ({"model": "ram"}, UsageProblem, "`ramctl convert ram` downloads it"),
    ],
)
def test_wrong_options_are_problems_of_ramctl(options, problem, message, colours):
    with pytest.raises(problem, match=message) as raised:
        Tagger.from_pretrained(options.pop("model", colours), **options)
    assert isinstance(raised.value, RamctlError)


def test_defaults_of_python_are_those_of_the_command(monkeypatch):
    opened = []
    monkeypatch.setattr(Tagger, "open", lambda model, options: opened.append((model, options)))
    Tagger.from_pretrained()
    assert opened == [("mini", TaggerOptions())]


def test_public_names_are_there_and_pickle(tagger, red):
    assert set(ramctl.__all__) == {name for name in dir(ramctl)}
    assert all(getattr(ramctl, name) for name in ramctl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Taggr'"):
        _ = ramctl.Taggr
    result = tagger.tag(os.fspath(red))
    assert pickle.loads(pickle.dumps(result)) == result
    assert result.record == {"image": str(red), "tags": RED, "scores": result.scores}
