"""Every row of the rule tables does what its examples say."""

import pytest

from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.rules import attributes, exclusions, nouns, tag_corrections, verbs
from ramctl.parsing.english.rules.apply import apply_rules
from ramctl.parsing.parsed_caption import clean
from ramctl.parsing.parser import PosTagger, batches

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
        findings = apply_rules(words, tags, Lexicon.shared())
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
