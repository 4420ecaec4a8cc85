"""What holds of the tags of any caption."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ramctl.parsing.parser import CaptionParser
from ramctl.records.labels import Label, Labels

QUICK = settings(
    max_examples=40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
#: Words of every class, so that the rules for compounds, states and doings meet.
VOCABULARY = """
a the two red wooden parked dark orange brick city street fire hydrant hot dog dogs man woman
children leaves glasses shorts tattoo locomotive water wave top front building riding rides
sits looking wearing holds plays tennis with without in on of and near black white snow
covered painting photo people surfing , . is are camera
"""
WORDS = st.sampled_from(VOCABULARY.split())
CAPTIONS = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)


@pytest.fixture(scope="module")
def parser() -> CaptionParser:
    return CaptionParser.open()


@pytest.fixture(scope="module")
def closed() -> CaptionParser:
    labels = [
        Label("photo", "object"),
        Label("front", "scene"),
        Label("city street", "scene", synonyms=("street of a city",)),
        Label("hot dog", "object"),
        Label("person", "object", synonyms=("man", "woman", "child")),
        Label("dog", "object"),
        Label("ride", "action", synonyms=("riding",)),
        Label("black and white", "attribute"),
    ]
    return CaptionParser.closed(Labels(labels))


@QUICK
@given(caption=CAPTIONS)
def test_a_tag_parses_to_itself(parser, caption):
    tags = parser.tags(caption)
    assert [parser.tags(tag) for tag in tags] == [[tag] for tag in tags]


@QUICK
@given(captions=st.lists(CAPTIONS, min_size=2, max_size=5), at=st.randoms())
def test_the_order_of_captions_does_not_matter(parser, captions, at):
    by_caption = {c: p.tags for c, p in zip(captions, parser.parse(captions), strict=True)}
    shuffled = list(captions)
    at.shuffle(shuffled)
    for caption, parsed in zip(shuffled, parser.parse(shuffled), strict=True):
        assert parsed.tags == by_caption[caption]


@QUICK
@given(caption=CAPTIONS)
def test_parsing_twice_gives_the_same_and_each_tag_once(parser, caption):
    tags = parser.tags(caption)
    assert tags == parser.tags(caption)
    assert len(tags) == len(set(tags))
    assert all(tag == " ".join(tag.lower().split()) for tag in tags)


@pytest.mark.parametrize(
    ("string", "label"),
    [
        ("photo", "photo"),
        ("front", "front"),
        ("a dog in front of a house", "dog"),  # only by itself
        ("city street", "city street"),
        ("Street of a city", "city street"),
        ("woman", "person"),
        ("riding", "ride"),
        ("black and white", "black and white"),
    ],
)
def test_a_label_is_found_by_itself_though_no_sentence_gives_it(closed, string, label):
    assert closed.tags(string) == [label]


@QUICK
@given(caption=CAPTIONS)
def test_the_tags_of_the_closed_mode_parse_to_themselves(closed, caption):
    tags = closed.tags(caption)
    assert [closed.tags(tag) for tag in tags] == [[tag] for tag in tags]
