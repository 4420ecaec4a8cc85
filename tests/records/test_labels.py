"""The label system: lookup, doubles, files, thresholds."""

import gzip

import pytest

from ramctl.errors import RunProblem
from ramctl.inference.thresholds import read_thresholds
from ramctl.records.labels import Label, Labels


def test_lookup_is_exact_first_then_loose_and_tags_win_over_synonyms():
    system = Labels([Label("t shirt"), Label("T-Shirt"), Label("sofa", synonyms=("couch",))])
    assert system.ids("T-Shirt") == (1,)
    assert system.ids("t shirt") == (0,)
    assert system.ids("T_SHIRT") == (0, 1)
    assert system.ids("zebra") == ()
    tag_and_synonym = Labels([Label("orange"), Label("fruit", synonyms=("orange",))])
    assert tag_and_synonym.ids("orange") == (0,)
    doubled = Labels([Label("train"), Label("dog"), Label("train", kind="action")])
    assert doubled.ids("train") == (0, 2)


def test_a_name_is_of_the_language_that_is_asked_for_else_english():
    boot, boat = Label("boot", names={"de": "Stiefel"}), Label("boat", names={"de": "Boot"})
    system = Labels([boot, boat, Label("dog", names={"de": "Hund", "it": "cane"})])
    assert system.by_name("boot", "de") == system.by_name("boat", "de") == (1,)
    assert system.by_name("Stiefel", "de") == system.by_name("Boot") == (0,)
    assert system.by_name("hund", "de") == system.by_name("dog", "it") == (2,)
    assert system.by_name("Hund") == system.by_name("cane", "de") == ()


def test_written_systems_are_read_back(tmp_path):
    system = Labels(
        [
            Label("sofa", synonyms=("couch",), parents=("furniture",), count=3, threshold=0.4),
            Label("red", "attribute", calibration=(1.5, -0.25), salience=-1.5, rate=-3.0),
            Label("paw", part_of=("animal",), headroom=0.5, mention_rate=0.25, validated=False),
        ]
    )  # fmt: skip
    system.write(tmp_path / "labels.jsonl")
    again = Labels.read(tmp_path / "labels.jsonl")
    assert again == system
    assert again.sha256 == system.sha256
    assert again.curves.tolist() == [[1, 0], [1.5, -0.25], [1, 0]]
    assert again.thresholds(0.5).tolist() == [0.4, 0.5, 1]  # never without evidence


def test_a_word_list_is_a_label_system(tmp_path):
    (tmp_path / "words.txt").write_text("zebra\n\n red car \n", "utf-8")
    assert Labels.read(tmp_path / "words.txt").tags == ["zebra", "red car"]


def test_a_bad_label_names_file_and_line(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"tag":"dog"}\n{"tag":"cat","kind":"pet"}\n', "utf-8")
    with pytest.raises(RunProblem, match=r"labels\.jsonl:2: not a label: kind is not one of"):
        Labels.read(path)


def test_thresholds_come_by_tag_or_by_position(tmp_path):
    system = Labels.from_tags(["dog", "cat"])
    by_tag, by_position = tmp_path / "by_tag", tmp_path / "by_position"
    by_tag.write_text('{"tag":"cat","threshold":0.7}\n')
    by_position.write_text("0.1\n0.2\n")
    assert read_thresholds(by_tag, system, 0.5) == [0.5, 0.7]
    assert read_thresholds(by_position, system, 0.5) == [0.1, 0.2]
    by_position.write_text("0.1\n")
    with pytest.raises(RunProblem, match="1 thresholds for 2 labels"):
        read_thresholds(by_position, system, 0.5)


def test_a_damaged_gz_file_is_said_in_a_line(tmp_path):
    path = tmp_path / "labels.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"tag":"dog"}\n{"tag":"cat"}\n')[:-5])
    with pytest.raises(RunProblem, match=str(path)):
        Labels.read(path)
