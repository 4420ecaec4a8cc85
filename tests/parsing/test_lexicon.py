"""Lemmas, kinds and WordNet as the package ships it."""

import pytest

from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.wordnet import WordNet


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.shared()


# WordNet does not list the last two: their spelling tells.
VERBS = "riding=ride rode=ride sitting=sit skiing=ski falling=fall hoping=hope hopping=hop " \
    "singing=sing juggling=juggle lying=lie carried=carry tied=tie watches=watch flies=fly " \
    "racing=race picnicking=picnic dressed=dress breathing=breathe " \
    "blogging=blog butterflied=butterfly"  # fmt: skip
NOUNS = "cookies=cookie ladies=lady knives=knife leaves=leaf buses=bus women=woman cola=cola " \
    "people=person sunglasses=sunglasses shorts=shorts woods=woods species=species boxes=box " \
    "horses=horse potatoes=potato glasses=glasses skis=ski " \
    "skies=sky chilies=chili soles=sole"  # fmt: skip


def test_words_come_to_their_base_form(lexicon):
    pairs = [pair.split("=") for pair in VERBS.split()]
    assert {form: lexicon.verb(form) for form, _ in pairs} == dict(pairs)
    pairs = [pair.split("=") for pair in NOUNS.split()]
    assert {form: lexicon.noun(form) for form, _ in pairs} == dict(pairs)


@pytest.mark.parametrize(
    ("noun", "kind"),
    [("dog", "object"), ("kitchen", "scene"), ("dusk", "scene"), ("tennis", "action"),
     ("front", None), ("idea", None), ("austin", None), ("selfie", "object"),
     # Of no list: mostly visible, a place, a kind of what its head is, a name.
     ("knot", "object"), ("boathouse", "scene"), ("air cover", "object"),
     ("battle of marathon", None)],
)  # fmt: skip
def test_a_noun_has_its_kind(lexicon, noun, kind):
    assert lexicon.noun_kind(noun) == kind


def test_adjectives_of_belonging_are_no_attributes(lexicon):
    assert lexicon.is_attribute("furry")
    assert not lexicon.is_attribute("dental")


def test_wordnet_knows_senses_hypernyms_and_irregular_forms():
    wordnet = WordNet.shared()
    dog = wordnet.synsets("dog", "n")[0]
    assert dog.file == "noun.animal"
    assert "domestic dog" in dog.lemmas
    above = [wordnet.synset(number).lemmas[0] for number in wordnet.hypernym_path(dog.number)]
    assert "animal" in above
    assert above[-1] == "entity"
    assert wordnet.entry("geese").base_forms == {"n": ("goose",)}
    assert not wordnet.has("no such word", "n")
