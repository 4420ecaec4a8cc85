"""English: what the lexicon knows of words, and that every rule does what its examples say."""

import pytest

from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.rules import attributes, exclusions, nouns, tag_corrections, verbs
from ramctl.parsing.english.rules.apply import apply_rules
from ramctl.parsing.parsed_caption import clean
from ramctl.parsing.parser import PosTagger, batches

LEXICON = Lexicon.shared()
ROWS = [
    *tag_corrections.NAMES,
    *tag_corrections.WORDS,
    *tag_corrections.RULES,
    *exclusions.RULES,
    *attributes.ADJECTIVE_RULES,
    *attributes.PAIR_RULES,
    *nouns.HEADS,
    *nouns.MODIFIERS,
    *verbs.RULES,
]


@pytest.fixture(scope="module")
def acting() -> dict[str, set[str]]:
    """The names of the rules that act in each example."""
    captions = [caption for row in ROWS for caption in (row.fires, row.spares)]
    texts = batches(map(clean, captions))
    tagged = [tagged for batch in texts for tagged in PosTagger.shared().tag(batch)]
    names = {}
    for caption, (words, tags) in zip(captions, tagged, strict=True):
        findings = apply_rules(words, tags, LEXICON)
        read = findings.sentence
        corrected = (name for names_there in read.corrected.values() for name in names_there)
        names[caption] = {*read.excluded, *corrected, *findings.read}
    return names


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_rule_fires_where_it_says_and_spares_what_it_must(acting, row):
    assert row.name in acting[row.fires]
    assert row.name not in acting[row.spares]


def test_rules_have_names_of_their_own():
    assert len({row.name for row in ROWS}) == len(ROWS)


# WordNet does not list the last two: their spelling tells.
VERBS = "riding=ride rode=ride sitting=sit skiing=ski falling=fall hoping=hope hopping=hop " \
    "singing=sing juggling=juggle lying=lie carried=carry tied=tie watches=watch flies=fly " \
    "racing=race picnicking=picnic dressed=dress breathing=breathe " \
    "blogging=blog butterflied=butterfly"  # fmt: skip
NOUNS = "cookies=cookie ladies=lady knives=knife leaves=leaf buses=bus women=woman cola=cola " \
    "people=person sunglasses=sunglasses shorts=shorts woods=woods species=species boxes=box " \
    "horses=horse potatoes=potato glasses=glasses skis=ski " \
    "skies=sky chilies=chili soles=sole"  # fmt: skip


def test_words_come_to_their_base_form():
    pairs = [pair.split("=") for pair in VERBS.split()]
    assert {form: LEXICON.verb(form) for form, _ in pairs} == dict(pairs)
    pairs = [pair.split("=") for pair in NOUNS.split()]
    assert {form: LEXICON.noun(form) for form, _ in pairs} == dict(pairs)


@pytest.mark.parametrize(
    ("noun", "kind"),
    [("dog", "object"), ("kitchen", "scene"), ("dusk", "scene"), ("tennis", "action"),
     ("front", None), ("idea", None), ("austin", None), ("selfie", "object"),
     # Of no list: mostly visible, a place, a kind of what its head is, a name.
     ("knot", "object"), ("boathouse", "scene"), ("air cover", "object"),
     ("battle of marathon", None)],
)  # fmt: skip
def test_a_noun_has_its_kind(noun, kind):
    assert LEXICON.noun_kind(noun) == kind


def test_adjectives_of_belonging_are_no_attributes():
    assert LEXICON.is_attribute("furry")
    assert not LEXICON.is_attribute("dental")
