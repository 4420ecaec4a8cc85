"""Captions to the tags of a label system."""

import pytest

from ramctl.parsing.closed_mode import LabelMapper, label_kinds
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.parsed_caption import Mention, ParsedCaption
from ramctl.parsing.parser import CaptionParser
from ramctl.records.labels import Label, Labels, normalise
from tests.support import DATA, read_rows

LABELS = Labels([
    Label("train", "object"), Label("train", "object", synonyms=("Steam Train",), count=3),
    Label("ride", "action"), Label("soccer field", "scene"),
    Label("field", "scene", synonyms=("Meadow",)), Label("retriever", "object"),
    Label("bear", "object"), Label("light", "object"), Label("orange", "attribute"),
    Label("wood", "object", synonyms=("wooden",)), Label("male", "attribute"),
])  # fmt: skip


@pytest.fixture(scope="module")
def mapper() -> LabelMapper:
    return LabelMapper(LABELS, Lexicon.shared())


def parsed(*tags, kind="object", phrases=()) -> ParsedCaption:
    found = (Mention(i, tag, kind, f"{tag}s", "noun") for i, tag in enumerate(tags))
    return ParsedCaption(tuple(found), phrases)


@pytest.mark.parametrize(
    ("tag", "options", "labels"),
    [
        ("field", {"phrases": ("soccer field",)}, ["soccer field"]),  # free compounds come first
        ("field", {"phrases": ("corn field",)}, ["field"]),
        ("golden retriever", {}, ["retriever"]),  # a kind of its head, as a teddy bear is not
        ("teddy bear", {}, []),
        ("train", {}, ["train"]),
        ("train", {"kind": "action"}, []),  # kinds must agree
        ("light", {"kind": "attribute"}, []),
        ("light", {}, ["light"]),
        ("orange", {}, []),  # the fruit
        ("wooden", {"kind": "attribute"}, ["wood"]),  # but these mean one thing
        ("male", {}, ["male"]),
    ],
)
def test_a_tag_gives_the_label_that_means_it(mapper, tag, options, labels):
    assert mapper.map(parsed(tag, **options)).tags == labels


def test_synonyms_count_whatever_their_case(mapper):
    found = mapper.map(parsed("meadow", "field"))
    assert (found.tags, found.mentions[0].words) == (["field"], "meadows")
    assert mapper.find("STEAM TRAIN").tag == "train"
    assert mapper.find("train").count is None  # the first of two labels with one name


def test_vague_nouns_of_a_built_system_are_not_found():
    built = Labels([Label("photo", "object", count=9), Label("dog", "object", count=9)])
    assert CaptionParser.closed(built).tags("two photos of a dog in a house") == ["dog"]


def test_a_plain_list_parses_the_same_once_its_labels_have_their_kinds():
    plain = Labels.from_tags(["photo", "dog", "run", "snow-field", "red", "lake"])
    kinds = label_kinds(plain)
    assert kinds == ["object", "object", "action", "scene", "attribute", "scene"]
    named = Labels(Label(tag, kind) for tag, kind in zip(plain.tags, kinds, strict=True))
    caption = "two photos of a dog that runs in a red snow field by the lake"
    found = [CaptionParser.closed(labels).tags(caption) for labels in (plain, named)]
    assert found[0] == found[1] and "photo" in found[0]


@pytest.mark.parametrize(
    ("words", "caption", "expected"),
    [
        (["stand", "sit"], "a man stands beside a dog that sits", ["stand", "sit"]),
        (["clogs", "casting"], "a clog beside a man who casts a shadow", ["clogs", "casting"]),
        (["glasses"], "a glass of water", []),  # eyewear
        (["shipping"], "a ship at sea", []),  # no base form of a thing's name
        (["street", "road"], "an empty street", ["street"]),
        (["quail", "wood"], "a man winces at a wooden door", ["wood"]),
        (["spire"], "the steeple of a church", ["spire"]),  # WordNet's only sense of both
        (["woman", "miss"], "a young woman guiding a horse", ["woman"]),
        (["photo"], "photo", ["photo"]),
        (["point", "dog"], "a man points at a dog", ["point", "dog"]),
        (["point", "dog"], "the point of a dog", ["dog"]),
    ],
)
def test_a_plain_list_matches_any_kind_inflections_and_synonyms(words, caption, expected):
    assert CaptionParser.closed(Labels.from_tags(words)).tags(caption) == expected


def test_labels_of_a_plain_list_have_the_kind_that_the_caption_gives_them():
    closed = CaptionParser.closed(Labels.from_tags(["stand"]))
    assert next(closed.parse(["a man stands"])).kinds == {"stand": "action"}
    assert next(closed.parse(["the stand is by the road"])).kinds == {"stand": "object"}


@pytest.mark.shared
def test_the_list_of_the_authors_loses_no_mention(shared):
    """At most 0.5 % of the open tags whose word is a label give neither it nor a compound of it."""
    listed = Labels.read(shared / "labels" / "ram" / "ram_tag_list.txt")
    gold = (shared / "data" / "gold" / "parse_gold_public.jsonl", DATA / "parse_gold.jsonl")
    captions = [row["caption"] for path in gold for row in read_rows(path)]
    opened, closed = CaptionParser.open(), CaptionParser.closed(listed)
    names = {normalise(tag) for tag in listed.tags}
    named = lost = 0
    for found, labels in zip(opened.parse(captions), closed.parse(captions), strict=True):
        given = {normalise(tag) for tag in labels.tags}
        for tag in names.intersection(found.tags):
            named += 1
            lost += not any(label == tag or label.endswith(f" {tag}") for label in given)
    assert named > 1000
    assert lost <= 0.005 * named
