"""Label systems from captions: counts, merges, limits, review, mapping, closed mode."""

from typing import NamedTuple

import pytest

from ramctl.errors import RunProblem
from ramctl.labels import LabelSystem
from ramctl.parsing.closed_mode import LabelMapper
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.label_building.label_builder import (
    LabelBuilder,
    Sizes,
    read_review,
    write_review,
)
from ramctl.parsing.label_building.tag_counts import TagCounts
from ramctl.parsing.parser import CaptionParser

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
    labels: LabelSystem
    candidates: list


def build(decisions=()) -> Built:
    counts = TagCounts(CaptionParser.open().parse(CAPTIONS))
    return Built(*LabelBuilder(counts, Lexicon.shared(), Sizes()).build(dict(decisions)))


@pytest.fixture(scope="module")
def built():
    return build()


def test_the_same_captions_give_the_same_system(built):
    assert build().labels.to_bytes() == built.labels.to_bytes()


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
