"""Label systems from captions: counts, merges, limits, review, mapping, closed mode."""

from typing import NamedTuple
from unittest.mock import patch

import pytest

from ramctl.errors import RecordProblem, RunProblem
from ramctl.parsing.closed_mode import LabelMapper
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.label_building.label_builder import (
    Candidate,
    LabelBuilder,
    read_class_list,
    read_review,
    write_review,
)
from ramctl.parsing.label_building.tag_counts import TagCounts
from ramctl.parsing.parser import CaptionParser
from ramctl.parsing.stage import ParseStage, build_label_file, read_explained
from ramctl.records.labels import Labels
from ramctl.records.record import Record
from ramctl.records.report import Rejects, Report

CAPTIONS = [
    *["a child plays with a ball on a beach", "a kid plays with a ball on a beach"] * 6,
    *["a sofa in a living room", "a couch in a living room"] * 6,
    *["a girl on a soccer field with a soccer ball"] * 20,
    *["a man rides a train past a golden retriever", "a woman trains a dog"] * 6,
    *["a surfboard on the sand", "a surf board on the sand"] * 6,
    *["a panda at the zoo", "a panda bear at the zoo", "men play tennis at night"] * 6,
    "a sport utility vehicle on a road",
    *["an suv on a road"] * 6,
    *["a green house by a lake", "plants in a greenhouse at a farm"] * 6,
    *["a brick wall by a road", "a brick by a road", "a wall by a road"] * 20,
    *["two men fishing in a lake", "a fish in a bowl", "a fish in the water"] * 6,
]


class Built(NamedTuple):
    labels: Labels
    candidates: list


def build(decisions=()) -> Built:
    counts = TagCounts(CaptionParser.open().parse(CAPTIONS))
    return Built(*LabelBuilder(counts, Lexicon.shared()).build(dict(decisions)))


@pytest.fixture(scope="module")
def built():
    return build()


def test_the_same_captions_give_the_same_system(built):
    assert build().labels.to_bytes() == built.labels.to_bytes()


def test_parsed_parts_of_a_corpus_give_the_system_of_the_whole(built, tmp_path):
    """Records of `parse --explain` are not parsed again, whichever parts they come in."""
    stage = ParseStage(explain=True)
    records = [Record({"captions": [text]}, "in.jsonl", n + 1) for n, text in enumerate(CAPTIONS)]
    rows = [row for part in (records[:100], records[100:]) for rows in stage(iter([part]))
            for row in rows]  # fmt: skip
    report = Report("parse", quiet=True)
    with patch.object(CaptionParser, "parse", return_value=iter(())) as parse:
        items = (Record(row, "in.jsonl", n + 1) for n, row in enumerate(rows))
        build_label_file(items, Rejects(report, None), tmp_path / "l.jsonl")
    assert all(call.args == ([],) for call in parse.call_args_list)
    assert (tmp_path / "l.jsonl").read_bytes() == built.labels.to_bytes()


@pytest.mark.parametrize(
    "explain", [[], {"dog": 3}, {"dog": [{"caption": 7, "words": "dog", "rule": "noun"}]},
                {"dog": [{}]}],
    ids=str,
)  # fmt: skip
def test_a_damaged_explanation_is_a_reject(explain, tmp_path):
    fields = {"captions": ["a dog"], "kinds": {"dog": "object"}, "explain": explain}
    report = Report("parse", quiet=True)
    items = [Record({"captions": ["a cat"]}, "in.jsonl", 1), Record(fields, "in.jsonl", 2)]
    if explain == []:
        with pytest.raises(RecordProblem):
            read_explained(fields)
        return
    build_label_file(iter(items * 5), Rejects(report, None), tmp_path / "l.jsonl")
    assert report.rejects == {"bad_field": 5}
    assert Labels.read(tmp_path / "l.jsonl").tags == ["cat"]


def test_class_lists_join_the_labels_and_the_table_says_what_each_name_met(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text(
        "/m/01,Sofa\n7\tballs\nn01440764 tench, Tinca tinca\nLorry\nbank\ntruck\nroad\n"
    )
    names = read_class_list(path)
    assert names == ["sofa", "balls", "tench", "lorry", "bank", "truck", "road"]
    listed = dict.fromkeys([*names, "automobile", "brick wall"], "classes.txt")
    counts = TagCounts(CaptionParser.open().parse([*CAPTIONS, *["a car on a road"] * 9]))
    labels, candidates = LabelBuilder(counts, Lexicon.shared(), listed, 9, 20).build({})
    found = {c.tag: (c.decision, c.of, c.reason.rpartition("classes.txt: ")[2]) for c in candidates}
    assert found["ball"] == ("label", "", "same label")
    assert found["sofa"][0] == "synonym" and found["sofa"][2] == "synonym"
    assert found["tench"] == ("label", "", "new")
    assert found["automobile"] == ("synonym", "car", "synonym")
    assert found["road"] == ("label", "", "same label")
    assert {"tench", "ball", "road", "lorry", "brick wall"} <= set(labels.tags)
    assert "automobile" in labels[labels.ids("car")[0]].synonyms
    # A person's decision stands.
    dropped = {"tench": Candidate("tench", "drop", "", "object", 0, "a fish")}
    assert not LabelBuilder(counts, Lexicon.shared(), listed).build(dropped)[0].ids("tench")


def test_an_edited_review_wins_and_is_stable(built, tmp_path):
    path = tmp_path / "review.tsv"
    write_review(path, built.candidates)
    edited = path.read_text().replace("sand\tlabel\t\t", "sand\tdrop\t\t")
    path.write_text(edited)
    again = build(decisions=read_review(path))
    assert not again.labels.ids("sand")
    assert built.labels.ids("sand")
    write_review(path, again.candidates)
    assert path.read_text() == edited


def test_a_broken_review_names_its_line(tmp_path):
    path = tmp_path / "review.tsv"
    path.write_text("tag\tdecision\tof\tkind\tcount\treason\ndog\tmaybe\t\tobject\t3\t\n")
    with pytest.raises(RunProblem, match=r"review.tsv:2: needs"):
        read_review(path)


def test_closed_mode_is_open_mode_and_mapping(built):
    mapper = LabelMapper(built.labels, Lexicon.shared())
    captions = list(dict.fromkeys(CAPTIONS))
    mapped = [mapper.map(parsed).tags for parsed in CaptionParser.open().parse(captions)]
    assert [one.tags for one in CaptionParser.closed(built.labels).parse(captions)] == mapped
