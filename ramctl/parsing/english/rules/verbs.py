"""Verbs to tags: actions, gerunds, light verbs, figures of speech (guidelines: actions)."""

from ramctl.parsing.english.dictionary.lexicon import word_set
from ramctl.parsing.english.rules import attributes
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    DETERMINERS,
    NOUNS,
    Findings,
    subject_of,
)

SEEMING = frozenset({"look", "feel", "sound", "smell", "taste"})
PARTICLES = frozenset({"up", "out", "down", "over", "through", "off"})
LIVING_OR_MOVING = frozenset({"noun.animal", "noun.person", "noun.object", "noun.phenomenon",
                              "noun.event", "noun.body"})  # fmt: skip
TAKING = frozenset({"take", "get", "snap", "shoot"})
LAND = frozenset({"noun.location", "noun.object"})
# "In a standing position" means that somebody stands.
POSTURES = frozenset({"position", "pose", "posture"})
# Verbs that are their own participles or adjectives.
OWN_PARTICIPLES = frozenset({"cut", "shut", "split", "open"})
SHAPES_OF_LAND = word_set("shapes_of_land")
TALL_THINGS = frozenset({"building", "house", "tree", "mountain", "crane", "skyscraper", "tower"})


def verb(findings: Findings, i: int) -> int:
    """Note the action at an index; returns the index after it."""
    sentence, lexicon = findings.sentence, findings.lexicon
    word, tag = sentence.words[i], sentence.tags[i]
    if tag in ("VBN", "VBD") and attributes.participle(findings, i):
        return i + 1
    lemma = "sit" if word == "seated" else lexicon.verb(word)
    if i == 0 and word in OWN_PARTICIPLES and sentence.tag(1) in NOUNS:
        return attributes.as_attribute(findings, i)  # "cut branches"
    if word in lexicon.colors:
        findings.add(i, i + 1, word, "attribute", "colour")
        return i + 1
    if lemma == "prepare" and sentence.word(i + 1) in ("to", "for"):
        return i + 1
    if lemma in lexicon.light_verbs:
        _note_act_noun(findings, i)
    if lexicon.is_hardly_verb(lemma):
        return i + 1  # "to front", "to picture"
    if lemma in lexicon.stop_verbs or not lemma.isalpha() or len(lemma) < 2:
        return i + 1
    if lemma in SEEMING and _is_seeming(findings, i):
        return i + 1
    if lemma in lexicon.terrain_verbs | lexicon.course_verbs and _subject_is(
        findings, i, lemma in lexicon.course_verbs
    ):
        return i + 1
    if tag == "VBG" and (_is_purpose(findings, i) or _is_lie_of_land(findings, i, lemma)):
        is_look = word in lexicon.visible_adjectives  # "a winding road"
        return attributes.as_attribute(findings, i) if is_look else i + 1
    if _is_modifier(findings, i) or (word == "held" and _is_held_event(findings, i)):
        return i + 1
    if not lexicon.is_plain_verb(word):
        return i + 1
    findings.add(i, i + 1, lemma, "action", "verb")
    return i + 1


def _note_act_noun(findings: Findings, i: int) -> None:
    """Remember the noun of "take a photograph", "do a back flip"."""
    sentence, act_nouns = findings.sentence, findings.lexicon.act_nouns
    verb = findings.lexicon.verb(sentence.words[i])
    for k in range(i + 1, min(i + 6, len(sentence))):
        tag = sentence.tags[k]
        lemma = findings.lexicon.noun(sentence.words[k])
        after_determiner = sentence.tags[k - 1] in ADJECTIVES | DETERMINERS
        if lemma in act_nouns and (tag in NOUNS or (tag in ("VB", "VBP") and after_determiner)):
            if act_nouns[lemma] == "photograph" and verb not in TAKING:
                return
            findings.actions_at[k] = act_nouns[lemma]
            sentence.tags[k] = "NN"
            sentence.excluded[k] = ""
            return
        if tag not in NOUNS and tag not in ADJECTIVES and tag not in DETERMINERS:
            return


def _is_seeming(findings: Findings, i: int) -> bool:
    sentence = findings.sentence
    if sentence.tags[i] == "VBG" and sentence.tag(i - 1) in ADJECTIVES:
        return True
    k = sentence.skip(i + 1, {"RB"})
    after = sentence.tag(k)
    if after in ADJECTIVES or after == "VBN":
        return sentence.tag(k + 1) not in NOUNS
    return sentence.word(k) in ("like", "as")


def _subject_is(findings: Findings, i: int, lifeless: bool) -> bool:
    """Whether the verb's subject is land or a building; with `lifeless`, anything not alive."""
    lexicon = findings.lexicon
    subject = subject_of(findings.sentence, i, lexicon)
    if not subject:
        return False
    file = lexicon.first_file(subject)
    if lexicon.noun_kind(subject) == "scene" or file in LAND or subject in TALL_THINGS:
        return True
    return lifeless and file in (
        "noun.artifact",
        "noun.shape",
        "noun.substance",
        "noun.body",
        "noun.attribute",
    )


def _is_purpose(findings: Findings, i: int) -> bool:
    """Whether an -ing word says what a thing is for: "a serving dish", not "a crashing wave"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    if sentence.tag(i + 1) not in NOUNS or sentence.tag(i - 1) not in DETERMINERS | ADJECTIVES:
        return False
    head = _head_after(findings, i)
    return head not in POSTURES and lexicon.thing_file(head) not in LIVING_OR_MOVING


def _head_after(findings: Findings, i: int) -> str:
    """The singular of the last noun of the phrase that continues after an index; empty if none."""
    sentence = findings.sentence
    start = sentence.skip(i + 1, ADJECTIVES)
    end = sentence.skip(start, NOUNS)
    return findings.lexicon.noun(sentence.words[end - 1]) if end > start else ""


def _is_lie_of_land(findings: Findings, i: int, lemma: str) -> bool:
    """Whether an -ing word describes the shape of the land after it: "rolling green hills"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    head = _head_after(findings, i)
    if lemma not in SHAPES_OF_LAND or not head or sentence.tag(i - 1) in NOUNS | {"PRP"}:
        return False
    return lexicon.noun_kind(head) == "scene" or lexicon.first_file(head) in LAND


def _is_modifier(findings: Findings, i: int) -> bool:
    """Whether a verb and its particle describe the noun after them: "a pull out sofa"."""
    sentence = findings.sentence
    if sentence.tags[i] not in ("VB", "VBP") or sentence.word(i + 1) not in PARTICLES:
        return False
    return sentence.tag(i - 1) in ("DT", "IN", "JJ", "PRP$") and sentence.tag(i + 2) in NOUNS


def _is_held_event(findings: Findings, i: int) -> bool:
    """Whether what is held is an event: "a premiere held during the festival"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    is_passive = sentence.tag(i + 1) in ("IN", "")
    return is_passive and lexicon.noun_kind(subject_of(sentence, i, lexicon)) == "scene"
