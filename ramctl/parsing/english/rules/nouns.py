"""Nouns and noun compounds to tags (guidelines: forms, compounds, people, empty words).

A phrase is its last noun, the head, and the nouns before it. Each is read by the first row that
matches: `HEADS` for the head, `MODIFIERS` for the others, most of which describe the head.
"""

from typing import NamedTuple

from ramctl.parsing.english.lexicon import NATURAL_KINDS, Lexicon, word_set
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    NOUNS,
    VERBS,
    Findings,
    Rule,
    RuleTable,
    Sentence,
    is_person_or_animal,
)

NAMES = frozenset({"NNP", "NNPS"})
BALL_GAMES = frozenset({"baseball", "basketball", "football", "softball", "volleyball"})
WORN = frozenset({"wear", "wears", "wearing", "wore", "dressed"})
COLORS = word_set("colors")
COLORED_KINDS = frozenset({"noun.animal", "noun.plant"})
ENDS_COMPOUND = NOUNS | {"VBG", "RB", "JJ", "VBN", "RP", "VBD", "VB", "MD", "VBZ", "VBP"}
BEFORE_VERB = NOUNS | {",", "PRP", "VBZ", "VBP", "VBD", "RB", "TO", "MD"}
# Heads that keep their meaning after an adjective: "primitive people", "a working man".
GENERAL_PEOPLE = frozenset({"person", "man", "woman", "boy", "girl", "child", "lady"})


class Noun(NamedTuple):
    """A noun or compound of a phrase: its span and lemma."""

    start: int
    end: int
    lemma: str
    head: str = ""  # of the phrase, before which it stands
    is_thing: bool = False  # itself a thing, since the head is no tag

    @property
    def is_word(self) -> bool:
        """Whether it is no compound."""
        return self.end - self.start == 1


# A tag with its kind; NOTHING where the noun gives no tag; None where the row does not match.
Tag = tuple[str, str]
NOTHING: Tag = ("", "")


def find_compounds(sentence: Sentence, lexicon: Lexicon) -> None:
    """Fill `sentence.compounds` with the lexicon's compounds, the longest first, left to right."""
    words, tags, longest = sentence.words, sentence.tags, lexicon.compounds.longest
    i, n = 0, len(words)
    while i < n:
        first = lexicon.noun(words[i]) if sentence.word(i + 1) == "of" else words[i]
        for length in range(min(longest.get(first, 0), n - i), 1, -1):
            end = i + length
            if any(sentence.excluded[i:end]) or tags[end - 1] not in ENDS_COMPOUND:
                continue
            lemma = _listed_compound(words[i:end], lexicon)
            if lemma and _is_compound_here(sentence, i, end, lemma, lexicon):
                sentence.compounds[i] = (end, lemma)
                i = end - 1
                break
        i += 1


def _listed_compound(words: list[str], lexicon: Lexicon) -> str | None:
    phrase = " ".join(words)
    if len(words) > 2 and words[1] == "of":  # "bodies of water"
        phrase = " ".join([lexicon.noun(words[0]), *words[1:]])
        return phrase if phrase in lexicon.compounds else None
    last = "glass" if words[-1] == "glasses" else lexicon.noun(words[-1])
    lemma = " ".join([*words[:-1], last])
    if lemma in lexicon.plural_only or phrase in lexicon.plural_only:
        return phrase
    return next((form for form in (lemma, phrase) if form in lexicon.compounds), None)


def _is_compound_here(sentence: Sentence, i: int, end: int, lemma: str, lexicon: Lexicon) -> bool:
    words, tags = sentence.words, sentence.tags
    if lexicon.noun_kind(lemma) is None:
        return False
    if any(tag in (",", "CC", ".", "POS", "DT", "TO") for tag in tags[i:end]):
        return lemma in lexicon.added_compounds
    is_added = lemma in lexicon.added_compounds and tags[end - 1] in NOUNS
    is_thing = sentence.tag(i - 1) in NOUNS and not is_person_or_animal(sentence, i - 1, lexicon)
    if is_added and (tags[i] == "VBN" or (tags[i] == "VBG" and is_thing)):
        return True  # "stained glass windows", "a bamboo cutting board"
    if tags[i] in VERBS and sentence.tag(i - 1) in BEFORE_VERB:  # "they are playing field hockey"
        bare = tags[i] in ("VB", "VBP") and tags[end - 1] == "NN"
        return bare and lemma in lexicon.added_compounds
    if lemma in lexicon.added_compounds:
        return True
    # A longer noun phrase goes on: "drinking water spray", "cowboy hat rack".
    if tags[end - 1] in VERBS | {"RB", "RP", "JJ", "MD"}:
        return False
    if tags[i] in ADJECTIVES and lemma.rpartition(" ")[2] in GENERAL_PEOPLE:
        return False
    if lexicon.is_relational(words[i]):
        return True  # "military uniform"
    if words[i] in lexicon.colors or words[i] in lexicon.stop_adjectives:
        # A black bear and white wine are kinds.
        return any(s.file in NATURAL_KINDS for s in lexicon.wordnet.synsets(lemma, "n"))
    return True


def noun_phrase(findings: Findings, start: int) -> int:
    """Note the tags of the nouns that start at an index; returns the index after them."""
    parts, end = _parts(findings, start)
    if not parts:
        return end
    *modifiers, head = parts
    # "a kitchen design" is of a kitchen; "a shirt with designs" has them.
    is_empty = bool(modifiers) and head.lemma == "design"
    head_is_tag = not is_empty and _read(findings, HEADS, head)
    if modifiers and head_is_tag:
        findings.phrases.append(f"{modifiers[-1].lemma} {head.lemma}")
    for part in modifiers:
        is_thing = not head_is_tag and (
            head.lemma in word_set("portions") or findings.sentence.tags[part.start] == "NNS"
        )
        _read(findings, MODIFIERS, Noun(part.start, part.end, part.lemma, head.lemma, is_thing))
    return end


def _parts(findings: Findings, start: int) -> tuple[list[Noun], int]:
    """The nouns of the phrase that starts at an index, and the index after it."""
    sentence = findings.sentence
    parts: list[Noun] = []
    i = start
    while i < len(sentence) and not sentence.excluded[i]:
        word = sentence.words[i]
        if i in sentence.compounds:
            end, lemma = sentence.compounds[i]
            is_action = findings.lexicon.noun_kind(lemma) == "action"
            if parts and is_action and sentence.tags[end - 1] == "VBG":
                break  # "man rock climbing": what the noun before it does
            parts.append(Noun(i, end, lemma))
            i = end
        elif sentence.tags[i] in NOUNS:
            holds = word == "glasses" and sentence.word(i + 1) in ("of", "filled", "full")
            parts.append(Noun(i, i + 1, "glass" if holds else findings.lexicon.noun(word)))
            i += 1
        else:
            break
    while len(parts) > 1 and _is_name(findings, parts[-1].start):
        parts.pop()
    if sentence.words[i - 1] in word_set("shades") and sentence.word(i) in findings.lexicon.colors:
        parts.pop()
    return parts, i


def _read(findings: Findings, rows: RuleTable, noun: Noun) -> bool:
    """Add the tag of the first row that matches; returns whether there is one."""
    for row in rows.rows_at(noun.lemma, findings.sentence.tags[noun.end - 1]):
        tag = row.pattern(findings, noun)
        if tag is not None:
            findings.read.add(row.name)
            if tag == NOTHING:
                return False
            name, kind = tag
            findings.add(noun.start, noun.end, name, kind, row.name)
            return True
    return False


def _is_name(findings: Findings, i: int) -> bool:
    return findings.sentence.tags[i] in NAMES and i not in findings.sentence.compounds


def _light_verb(findings: Findings, noun: Noun) -> Tag | None:
    action = findings.actions_at.get(noun.start)
    return (action, "action") if action else None


def _name(findings: Findings, noun: Noun) -> Tag | None:
    return NOTHING if _is_name(findings, noun.start) else None


def _color(findings: Findings, noun: Noun) -> Tag | None:
    sentence, lexicon, i = findings.sentence, findings.lexicon, noun.start
    is_hue = sentence.tags[i] != "NNS" or lexicon.noun_kind(noun.lemma) is None  # "muted blues"
    says_how = sentence.word(i - 1) in ("in", "is", "are") or sentence.tag(i - 1) == "CC"
    file = lexicon.first_file(lexicon.noun(sentence.words[i]))
    is_thing = file in ("noun.food", "noun.plant", "noun.animal", "noun.artifact")
    return (noun.lemma, "attribute") if is_hue and (says_how or not is_thing) else None


def _unknown(findings: Findings, noun: Noun) -> Tag | None:
    return NOTHING if noun.is_word and not _is_evident(findings, noun) else None


def _is_evident(findings: Findings, noun: Noun) -> bool:
    """Whether a word is known, or stands where English names a thing: after "a", "red", "her"."""
    sentence, lexicon, i, lemma = findings.sentence, findings.lexicon, noun.start, noun.lemma
    if lexicon.is_known(lemma) or lemma in lexicon.coined or lemma in lexicon.plural_only:
        return True
    before = sentence.word(i - 1)
    described = sentence.tag(i - 1) in ADJECTIVES and lexicon.is_plain_adjective(before)
    if before == "of":  # "a bowl of pho"
        holder = lexicon.noun(sentence.word(i - 2))
        return holder in lexicon.portions or lexicon.first_file(holder) == "noun.artifact"
    return before in lexicon.determiners or before in lexicon.colors or described


def _garment(findings: Findings, noun: Noun) -> Tag | None:
    """ "In a pink top", not "on the top of", "a red top of a box"."""
    sentence, lexicon, i = findings.sentence, findings.lexicon, noun.start
    before = sentence.words[max(i - 6, 0) : i]
    described = not lexicon.colors.isdisjoint(before[-3:]) and "on" not in before[-4:]
    is_garment = described or not WORN.isdisjoint(before)
    return ("top", "object") if is_garment and sentence.word(i + 1) != "of" else None


def _played(findings: Findings, noun: Noun) -> Tag | None:
    before = findings.sentence.word(noun.start - 1)
    return (noun.lemma, "action") if findings.lexicon.verb(before) == "play" else None


def _noun(findings: Findings, noun: Noun) -> Tag | None:
    kind = findings.lexicon.noun_kind(noun.lemma)
    return (noun.lemma, kind) if kind and noun.is_word else None


def _compound(findings: Findings, noun: Noun) -> Tag | None:
    """Besides, the material of a "straw hat" and the colour of a "black bear": both are true."""
    lexicon, lemma = findings.lexicon, noun.lemma
    kind, first = lexicon.noun_kind(lemma), findings.sentence.words[noun.start]
    if kind is None:
        return None
    if len(lemma.split()) == 2:
        if first in word_set("materials"):
            findings.add(noun.start, noun.start + 1, first, "attribute", "material")
        elif first in lexicon.colors and lexicon.first_file(lemma) in COLORED_KINDS:
            findings.add(noun.start, noun.start + 1, first, "attribute", "colour")
    return lemma, kind


def _color_before_noun(findings: Findings, noun: Noun) -> Tag | None:
    return (noun.lemma, "attribute") if noun.is_word else None


def _kind(findings: Findings, noun: Noun) -> str | None:
    """The kind of a noun before the head, where it is one."""
    if noun.is_word and not _is_evident(findings, noun):
        return None
    return findings.lexicon.noun_kind(noun.lemma)


def _material(findings: Findings, noun: Noun) -> Tag | None:
    lexicon, kind = findings.lexicon, _kind(findings, noun)
    is_stuff = kind and lexicon.first_file(noun.lemma) == "noun.substance"
    if not noun.is_word or not (is_stuff or noun.lemma in lexicon.modifier_tags):
        return None
    is_of_head = kind != "scene" and not noun.is_thing
    return noun.lemma, "attribute" if is_of_head else kind or "attribute"


def _animal(findings: Findings, noun: Noun) -> Tag | None:
    lexicon, kind = findings.lexicon, _kind(findings, noun)
    is_animal = lexicon.first_file(noun.lemma) == "noun.animal" and not lexicon.is_game(noun.lemma)
    has_person = lexicon.first_file(noun.head) == "noun.person"
    return (noun.lemma, kind) if kind and is_animal and has_person else None


def _thing(findings: Findings, noun: Noun) -> Tag | None:
    kind = _kind(findings, noun)
    return (noun.lemma, kind) if kind and noun.is_thing else None


def _plant(findings: Findings, noun: Noun) -> Tag | None:
    is_plant = findings.lexicon.first_file(noun.lemma) == "noun.plant"
    return (noun.lemma, "object") if is_plant and noun.is_word and _kind(findings, noun) else None


def _compound_before_noun(findings: Findings, noun: Noun) -> Tag | None:
    kind = _kind(findings, noun)
    return (noun.lemma, kind) if kind and not noun.is_word else None


HEADS = RuleTable((
    Rule("light verb and noun", _light_verb, "a man does a flip", "a flip chart"),
    Rule("name of its own", _name, "a boy with Bryan", "a boy with a bat", NAMES),
    Rule("colour", _color, "dressed in a deep red", "an orange on a table", COLORS),
    Rule("unknown word", _unknown, "flibberation in style", "a flibberation"),
    Rule("garment", _garment, "a girl in a pink top", "a bird on the top of a tree", {"top"}),
    Rule("game of ball", _played, "boys play basketball", "a basketball on the floor", BALL_GAMES),
    Rule("noun", _noun, "a dog", "a stop sign"),
    Rule("compound", _compound, "a stop sign", "a dog"),
))  # fmt: skip

MODIFIERS = RuleTable((
    Rule("colour before a noun", _color_before_noun, "a gold ring", "a dog house", COLORS),
    Rule("material", _material, "a brick wall", "a dog house"),
    Rule("animal before a person", _animal, "a dog owner", "a dog house"),
    Rule("thing before an empty head", _thing, "a pizza slice", "a dog house"),
    Rule("plant before a noun", _plant, "a tree limb on a lawn", "a dog house"),
    Rule("compound before a noun", _compound_before_noun, "a cowboy hat rack", "a dog house"),
))  # fmt: skip
