"""Verbs to tags: actions, gerunds, light verbs, figures of speech (guidelines: actions)."""

from ramctl.parsing.english.rules import attributes
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    DETERMINERS,
    NOUNS,
    Findings,
    Rule,
    RuleTable,
    subject_of,
)

SEEMING = frozenset({"look", "feel", "sound", "smell", "taste"})
LIVING_OR_MOVING = frozenset({"noun.animal", "noun.person", "noun.object", "noun.phenomenon",
                              "noun.event", "noun.body"})  # fmt: skip
LAND = frozenset({"noun.location", "noun.object"})
LIFELESS = frozenset({"noun.artifact", "noun.shape", "noun.substance", "noun.body",
                      "noun.attribute"})  # fmt: skip
TALL_THINGS = frozenset({"building", "house", "tree", "mountain", "crane", "skyscraper", "tower"})


def _lemma(findings: Findings, i: int) -> str:
    word = findings.sentence.words[i]
    return "sit" if word == "seated" else findings.lexicon.verb(word)


def _no_doing(findings: Findings, i: int) -> int | None:
    sentence, lexicon, lemma = findings.sentence, findings.lexicon, _lemma(findings, i)
    if lemma == "prepare" and sentence.word(i + 1) in ("to", "for"):
        return i + 1
    if lemma in lexicon.light_verbs:
        _note_act_noun(findings, i)
    vague = lexicon.is_hardly_verb(lemma) or lemma in lexicon.stop_verbs  # "to front", "to be"
    is_word = lemma.isalpha() and len(lemma) > 1 and lexicon.is_plain_verb(sentence.words[i])
    return i + 1 if vague or not is_word else None


def _seeming(findings: Findings, i: int) -> int | None:
    sentence = findings.sentence
    if _lemma(findings, i) not in SEEMING:
        return None
    k = sentence.skip(i + 1, {"RB"})
    if sentence.tag(k) in ADJECTIVES or sentence.tag(k) == "VBN":
        is_seeming = sentence.tag(k + 1) not in NOUNS
    else:
        is_seeming = sentence.word(k) in ("like", "as")
    return i + 1 if is_seeming else None


def _course(findings: Findings, i: int) -> int | None:
    """Verbs of land and buildings, some of anything lifeless: "a road cuts through"."""
    lexicon, lemma = findings.lexicon, _lemma(findings, i)
    if lemma not in lexicon.terrain_verbs | lexicon.course_verbs:
        return None
    subject = subject_of(findings.sentence, i, lexicon)
    file = lexicon.first_file(subject)
    is_land = lexicon.noun_kind(subject) == "scene" or file in LAND or subject in TALL_THINGS
    is_lifeless = lemma in lexicon.course_verbs and file in LIFELESS
    return i + 1 if subject and (is_land or is_lifeless) else None


def _purpose(findings: Findings, i: int) -> int | None:
    lexicon, head = findings.lexicon, _head_after(findings, i)
    is_before_land = lexicon.noun_kind(head) == "scene" or lexicon.first_file(head) in LAND
    # "Rolling green hills".
    is_shape = _lemma(findings, i) in lexicon.shapes_of_land and is_before_land
    if not is_shape and not _is_purpose(findings, i):
        return None
    word = findings.sentence.words[i]
    if word in lexicon.visible_adjectives:  # "a winding road"
        findings.add(i, i + 1, word, "attribute", "adjective")
    return i + 1


def _action(findings: Findings, i: int) -> int | None:
    return findings.add(i, i + 1, _lemma(findings, i), "action", "verb")


def _note_act_noun(findings: Findings, i: int) -> None:
    """Remember the noun of "take a photograph", "do a back flip"."""
    sentence, act_nouns = findings.sentence, findings.lexicon.act_nouns
    for k in range(i + 1, min(i + 6, len(sentence))):
        tag = sentence.tags[k]
        lemma = findings.lexicon.noun(sentence.words[k])
        after_determiner = sentence.tags[k - 1] in ADJECTIVES | DETERMINERS
        if lemma in act_nouns and (tag in NOUNS or (tag in ("VB", "VBP") and after_determiner)):
            findings.actions_at[k] = act_nouns[lemma]
            sentence.tags[k] = "NN"
            sentence.excluded[k] = ""
            return
        if tag not in NOUNS and tag not in ADJECTIVES and tag not in DETERMINERS:
            return


def _is_purpose(findings: Findings, i: int) -> bool:
    """Whether an -ing word names a purpose: "a serving dish", not "a crashing wave"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    is_made_of = sentence.word(i - 1) in lexicon.modifier_tags  # "velvet dining chairs"
    described = is_made_of or sentence.tag(i - 1) in DETERMINERS | ADJECTIVES
    if sentence.tag(i + 1) not in NOUNS or not described:
        return False
    if lexicon.verb(sentence.words[i]) in lexicon.visible_actions:
        return False  # "a steaming cup"
    return lexicon.thing_file(_head_after(findings, i)) not in LIVING_OR_MOVING


def _head_after(findings: Findings, i: int) -> str:
    """The singular of the last noun of the phrase that continues after an index; empty if none."""
    sentence = findings.sentence
    start = sentence.skip(i + 1, ADJECTIVES)
    end = sentence.skip(start, NOUNS)
    return findings.lexicon.noun(sentence.words[end - 1]) if end > start else ""


RULES = RuleTable((
    Rule("participle", attributes.participle, "a parked car", "a man rides a horse",
         {"VBN", "VBD"}),
    Rule("no doing", _no_doing, "a man is happy", "a man sits"),
    Rule("seeming", _seeming, "a woman looks nice", "a woman looks at a dog"),
    Rule("course", _course, "the road cuts through a forest", "a man cuts a cake"),
    Rule("purpose", _purpose, "a riding helmet on a shelf", "a crashing wave", {"VBG"}),
    Rule("verb", _action, "a man rides a horse", "a man is happy"),
))  # fmt: skip
