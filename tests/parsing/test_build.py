"""Label systems from captions: counts, merges, limits, review, mapping, closed mode."""

from typing import NamedTuple

import pytest

from ramctl.errors import RunProblem
from ramctl.labels import Label, LabelSystem
from ramctl.parsing import CaptionParser
from ramctl.parsing.closed_mode import LabelMapper
from ramctl.parsing.english.dictionary.lexicon import Lexicon
from ramctl.parsing.label_building.build import LabelBuilder, Sizes, read_review, write_review
from ramctl.parsing.label_building.tag_counts import TagCounts

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


DEFAULTS = Sizes()


def build(sizes: Sizes = DEFAULTS, decisions=()) -> Built:
    counts = TagCounts(CaptionParser.open().parse(CAPTIONS))
    return Built(*LabelBuilder(counts, Lexicon.shared(), sizes).build(dict(decisions)))


@pytest.fixture(scope="module")
def built():
    return build()


def test_synonyms_and_spellings_are_merged(built):
    labels = built.labels
    assert labels.canonical("kid") == labels.canonical("child")
    assert labels.canonical("sofa") == labels.canonical("couch")
    assert labels.canonical("surf board") == labels.canonical("surfboard")


def test_rare_words_of_one_sense_are_synonyms(built):
    assert built.labels.canonical("sport utility vehicle") == "suv"


def test_a_free_phrase_is_no_spelling(built):
    assert built.labels.canonical("green house") is None
    assert built.labels.canonical("greenhouse") == "greenhouse"


def test_games_are_found_as_what_is_played(built):
    assert built.labels.canonical("play tennis") == built.labels.canonical("tennis")


def test_compounds_of_two_tags_rank_below_words(built):
    tags = built.labels.tags
    assert tags.index("brick wall") > tags.index("wall")


def test_labels_have_kind_count_and_parents(built):
    by_tag = {label.tag: label for label in built.labels}
    assert by_tag["soccer field"].kind == "scene"
    assert by_tag["golden retriever"].parents[:2] == ("retriever", "dog")
    assert by_tag["beach"].count == 12


def test_a_doing_that_is_a_thing_too_has_a_label_of_its_own(built):
    kinds = {label.tag: label.kind for label in built.labels}
    assert kinds["fish"] == "object"
    assert kinds["fishing"] == "action"


def test_the_same_captions_give_the_same_system(built):
    assert build().labels.to_bytes() == built.labels.to_bytes()


def test_sizes_drop_the_rarest():
    small = build(Sizes(max_labels=3, max_strings=4))
    assert len(small.labels) == 3
    assert sum(1 + len(label.synonyms) for label in small.labels) <= 4


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


LABELS = LabelSystem(
    [
        Label("train", "object"),
        Label("dog", "object", synonyms=("puppy",)),
        Label("ride", "action", synonyms=("riding",)),
        Label("soccer field", "scene"),
        Label("bear", "object"),
        Label("retriever", "object"),
    ]
)


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("A man rides a train.", ["ride", "train"]),
        ("A woman trains a puppy.", ["dog"]),
        ("girls on a soccer field", ["soccer field"]),
        ("a girl holds a teddy bear", []),
        ("a golden retriever without a dog", ["retriever"]),
    ],
)
def test_closed_mode_gives_labels_in_their_sense(caption, tags):
    assert CaptionParser.closed(LABELS).tags(caption) == tags


def test_a_plain_word_list_takes_its_kinds_from_the_lexicon():
    words = LabelSystem.from_tags(["train", "ride", "red"])
    parsed = next(CaptionParser.closed(words).parse(["A man rides a red train."]))
    assert parsed.kinds == {"ride": "action", "red": "attribute", "train": "object"}


def test_closed_mode_agrees_with_open_mode_and_mapping(built):
    mapper = LabelMapper(built.labels, Lexicon.shared())
    captions = list(dict.fromkeys(CAPTIONS))
    mapped = [mapper.map(parsed).tags for parsed in CaptionParser.open().parse(captions)]
    closed = [parsed.tags for parsed in CaptionParser.closed(built.labels).parse(captions)]
    same = sum(len(set(a) & set(b)) for a, b in zip(mapped, closed, strict=True))
    assert same >= 0.95 * sum(map(len, mapped))
