"""Lemmas, kinds and WordNet as the package ships it."""

import gzip
from importlib import resources

import pytest

from ramctl.errors import RunProblem
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.wordnet import NO_ENTRY, WordNet


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


@pytest.mark.parametrize("pair", VERBS.split())
def test_verbs_come_to_their_base_form(lexicon, pair):
    form, lemma = pair.split("=")
    assert lexicon.verb(form) == lemma


@pytest.mark.parametrize("pair", NOUNS.split())
def test_nouns_come_to_their_singular(lexicon, pair):
    form, lemma = pair.split("=")
    assert lexicon.noun(form) == lemma


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


def test_every_word_is_found_again():
    wordnet = WordNet.shared()
    packed = resources.files("ramctl.parsing.english").joinpath("data/wordnet.gz").read_bytes()
    header, *lines = gzip.decompress(packed).decode().split("\n")
    words = [line.partition("\t")[0] for line in lines[: int(header.split()[2])]]
    assert words == sorted(words, key=str.encode)
    assert all(wordnet.entry(word) != NO_ENTRY for word in words[::97])


def test_a_file_of_another_version_is_refused():
    with pytest.raises(RunProblem, match="unknown version"):
        WordNet(gzip.decompress(gzip.compress(b"ramctl-wordnet 9 0 0\n")))
