"""All rules on one caption: from part-of-speech tags to image tags, in open mode."""

from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.rules import attributes, nouns, verbs
from ramctl.parsing.english.rules.exclusions import exclude_words
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    NOUNS,
    VERBS,
    Findings,
    read_sentence,
    read_word,
)
from ramctl.parsing.english.rules.tag_corrections import correct_tags
from ramctl.parsing.english.wordnet import VERB
from ramctl.parsing.parsed_caption import Mention, ParsedCaption

MAX_TAG_WORDS = 4


def read_caption(written: list[str], tags: list[str], lexicon: Lexicon) -> ParsedCaption:
    """Every tag of a caption of words with Penn Treebank tags."""
    findings = apply_rules(written, tags, lexicon)
    read = findings.sentence
    if 0 < len(read) <= MAX_TAG_WORDS:  # it may be a tag, without a sentence to read it from
        text = " ".join(read.words)
        kind = _kind_of_phrase(text, lexicon) if len(read) > 1 else _kind_of_word(text, lexicon)
        if kind is not None:
            mention = Mention(0, text, kind, " ".join(read.written), "the whole text")
            return ParsedCaption((mention,))
    return ParsedCaption.of(findings.mentions, findings.phrases)


def apply_rules(written: list[str], tags: list[str], lexicon: Lexicon) -> Findings:
    """The findings of the rules, every mention, in words with Penn Treebank tags."""
    read = read_sentence(written, tags, lexicon.spelling)
    # The order matters: exclusions and compounds rely on corrected tags, and a compound must not
    # contain an excluded word.
    correct_tags(read, lexicon)
    exclude_words(read, lexicon)
    nouns.find_compounds(read, lexicon)
    findings = Findings(read, lexicon)
    i = 0
    while i < len(read):
        i = _step(findings, i)
    return findings


def _kind_of_phrase(text: str, lexicon: Lexicon) -> str | None:
    first, _, last = text.rpartition(" ")
    if text in lexicon.attribute_phrases or (
        last in attributes.SECOND_PARTS - attributes.GIVES_FIRST_PART
        and " " not in first
        and first not in attributes.LIGHTNESS | lexicon.stop_adjectives
    ):
        return "attribute"
    is_lemma = lexicon.is_listed(text) and lexicon.noun(text) == text
    return lexicon.noun_kind(text) if is_lemma else None


def _kind_of_word(word: str, lexicon: Lexicon) -> str | None:
    if word in lexicon.noun_actions:
        return "action"
    if word == "top":
        return "object"  # the garment; other tops are no tags
    if word in lexicon.stop_nouns:
        # "view" and "point" are tags only as actions.
        is_verb = lexicon.wordnet.has(word, VERB) and word not in lexicon.stop_verbs
        if word in lexicon.standalone_actions or (is_verb and not lexicon.is_hardly_verb(word)):
            return "action"
        return "attribute" if lexicon.is_attribute(word) else None
    return lexicon.kind_alone(word)


def _step(findings: Findings, i: int) -> int:
    """Note what starts at an index; returns the index after it."""
    read = findings.sentence
    if read.excluded[i]:
        return i + 1
    tag = read.tags[i]
    if i in read.compounds:
        return nouns.noun_phrase(findings, i)
    if (tag in NOUNS or tag in ADJECTIVES) and attributes.is_second_part(read, i + 1):
        return read_word(attributes.PAIR_RULES, findings, i)
    if tag in NOUNS:
        return nouns.noun_phrase(findings, i)
    if tag in ADJECTIVES:
        return read_word(attributes.ADJECTIVE_RULES, findings, i)
    if tag in VERBS:
        return read_word(verbs.RULES, findings, i)
    return i + 1
