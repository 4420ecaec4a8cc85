"""Nouns and noun compounds to tags (guidelines: forms, compounds, people, empty words)."""

from __future__ import annotations

from ramctl.parsing.attributes import SECOND_PARTS
from ramctl.parsing.found import Findings
from ramctl.parsing.lists import word_set
from ramctl.parsing.sentence import ADJECTIVES, NOUNS

PHRASE = NOUNS | ADJECTIVES
#: What is drunk from glasses is named so many words from them.
NEAR = 20
#: Stuff that a tool or garment is for rather than made of: "a snow shovel"; and what is made of it.
STUFF_TO_USE_ON = frozenset({"snow", "water", "ice", "dirt", "rock", "sand"})
BALL_GAMES = frozenset({"baseball", "basketball", "football", "softball", "volleyball"})
#: The files of a colour's word and of a compound that ends in it.
COLOR_FILES = (("noun.attribute", "noun.attribute"), ("noun.attribute", "noun.substance"))
WORN = frozenset({"wear", "wears", "wearing", "wore", "dressed"})
WEARERS = frozenset({"wear", "wears", "wearing", "wore", "with", "in", "has", "his", "her", "their",
                     "dark", "reading", "and", "sun", "safety"})  # fmt: skip
DRINKS = frozenset({"wine", "beer", "drinking", "champagne", "water", "juice", "milk", "cocktail",
                    "martini", "shot", "empty", "full", "filled", "table", "bottle", "bottles",
                    "drink", "drinks", "pitcher", "plates", "plate"})  # fmt: skip


def noun_phrase(findings: Findings, start: int) -> int:
    """Note the tags of the nouns that start at a place; the place after them."""
    sentence = findings.sentence
    parts: list[tuple[int, int, str]] = []
    i = start
    while i < len(sentence) and not sentence.muted[i]:
        if i in sentence.units:
            end, lemma = sentence.units[i]
            if parts and _is_doing(findings, i):
                break
            parts.append((i, end, lemma))
            i = end
        elif parts and sentence.word(i + 1) in SECOND_PARTS and sentence.tag(i + 2) in PHRASE:
            break  # "a robot themed party"
        elif sentence.tags[i] in NOUNS:
            parts.append((i, i + 1, _singular(findings, i)))
            i += 1
        else:
            break
    while len(parts) > 1 and _is_name(findings, parts[-1][0]):
        parts.pop()
    if sentence.words[i - 1] in word_set("shades") and sentence.word(i) in findings.lexicon.colors:
        parts.pop()
    if not parts:
        return i
    *modifiers, head = parts
    # "a kitchen design" is of a kitchen; "a shirt with designs" has them.
    head_is_tag = not (modifiers and head[2] == "design") and _head(findings, *head)
    if modifiers and head_is_tag:
        findings.phrases.append(f"{modifiers[-1][2]} {head[2]}")
    for modifier in modifiers:
        is_thing = not head_is_tag and (
            head[2] in word_set("portions") or sentence.tags[modifier[0]] == "NNS"
        )
        _modifier(findings, *modifier, head=head[2], is_thing=is_thing)
    return i


def _is_doing(findings: Findings, i: int) -> bool:
    """Whether the compound at a place is a doing of the noun before it: "man rock climbing"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    end, lemma = sentence.units[i]
    return sentence.tags[end - 1] == "VBG" and lexicon.noun_kind(lemma) == "action"


def _is_name(findings: Findings, i: int) -> bool:
    return findings.sentence.tags[i] in ("NNP", "NNPS") and i not in findings.sentence.units


def _singular(findings: Findings, i: int) -> str:
    sentence, word = findings.sentence, findings.sentence.words[i]
    if word == "glasses":
        around = set(sentence.words[max(i - NEAR, 0) : i + NEAR])
        worn = sentence.word(i - 1) in WEARERS or sentence.tag(i - 1) in ADJECTIVES
        if sentence.word(i + 1) in ("of", "filled", "full") or (
            not (worn and sentence.word(i - 1) not in DRINKS) and around & DRINKS
        ):
            return "glass"
    if sentence.tags[i] in ("NN", "NNP") and word in findings.lexicon.objects:
        return word
    return findings.lexicon.noun(word)


def _head(findings: Findings, start: int, end: int, lemma: str) -> bool:
    lexicon, sentence = findings.lexicon, findings.sentence
    if start in findings.doings:
        findings.add(start, end, findings.doings[start], "action", "light verb and noun")
        return True
    if sentence.tags[end - 1] in ("NNP", "NNPS") and start not in sentence.units:
        return False
    if (
        lemma in lexicon.colors
        and sentence.tags[start] != "NNS"
        and not _is_thing_of_color(findings, start)
    ):
        findings.add(start, end, lemma, "attribute", "colour")
        return True
    if lemma.endswith("ing") and end - start == 1 and _is_gerund(findings, lemma):
        verb = lexicon.verb(lemma)
        if verb in lexicon.stop_verbs:
            return False
        findings.add(start, end, verb, "action", "gerund")
        return True
    kind = "object" if lemma == "top" and _is_garment(findings, start) else lexicon.noun_kind(lemma)
    if end - start > 1 and _shade(findings, start, end, lemma):
        return True
    if kind is None:
        return False
    if lemma in BALL_GAMES and _is_played(findings, start):
        kind = "action"
    if lemma == "school" and [sentence.word(end), sentence.word(end + 2)] == ["of", "fish"]:
        kind = "object"
    if end - start > 1:
        _first_part(findings, start, lemma)
    findings.add(start, end, lemma, kind, "compound" if end - start > 1 else "noun")
    return True


def _shade(findings: Findings, start: int, end: int, lemma: str) -> bool:
    """Note the colour that a compound ends in: "cerulean blue"; whether it does."""
    color = lemma.rpartition(" ")[2]
    lexicon = findings.lexicon
    files = (lexicon.first_file(color), lexicon.first_file(lemma))
    if color not in lexicon.colors or files not in COLOR_FILES:
        return False  # "ice cream", "brain coral"
    findings.add(start, end, color, "attribute", "colour")
    return True


def _is_played(findings: Findings, i: int) -> bool:
    """Whether a ball's name is the game: "playing basketball", not "a basketball"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    return lexicon.verb(sentence.word(i - 1)) == "play"


def _is_garment(findings: Findings, i: int) -> bool:
    """Whether "top" is worn: "in a pink top", not "on the top of", "a red top of a box"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    before = sentence.words[max(i - 6, 0) : i]
    described = not lexicon.colors.isdisjoint(before[-3:]) and "on" not in before[-4:]
    return sentence.word(i + 1) != "of" and (described or not WORN.isdisjoint(before))


def _first_part(findings: Findings, start: int, lemma: str) -> None:
    """Note the material of a "straw hat" and the colour of a "black bear" too: they are true."""
    word, lexicon = findings.sentence.words[start], findings.lexicon
    if word in word_set("materials") and len(lemma.split()) == 2:
        findings.add(start, start + 1, word, "attribute", "material")
    elif (
        word in lexicon.colors
        and len(lemma.split()) == 2
        and lexicon.first_file(lemma) == "noun.animal"
    ):
        findings.add(start, start + 1, word, "attribute", "colour")


def _modifier(
    findings: Findings, start: int, end: int, lemma: str, head: str, is_thing: bool
) -> None:
    lexicon, sentence = findings.lexicon, findings.sentence
    if is_thing and _is_name(findings, start) and sentence.shown[start][:1].isupper():
        return  # "the Seattle Space Needle scene"
    kind = lexicon.noun_kind(lemma)
    if lemma in lexicon.colors and end - start == 1:
        findings.add(start, end, lemma, "attribute", "colour")
    elif lemma in lexicon.visible_adjectives:
        findings.add(start, end, lemma, "attribute", "adjective")
    elif end - start == 1 and (
        lemma in lexicon.modifier_tags or (kind and lexicon.first_file(lemma) == "noun.substance")
    ):
        if lemma in STUFF_TO_USE_ON and lexicon.first_file(head) == "noun.artifact" and (
            head not in word_set("made_of_it")
        ):  # fmt: skip
            return
        if lemma == "rock" and lexicon.first_file(head) in (
            "noun.person",
            "noun.group",
            "noun.event",
        ):
            return
        if kind != "scene" and not is_thing:
            kind = "attribute"
        findings.add(start, end, lemma, kind or "attribute", "material")
    elif (
        kind
        and lexicon.first_file(head) == "noun.body"
        and lexicon.first_file(lemma) in ("noun.person", "noun.animal", "noun.Tops")
    ):
        findings.add(start, end, lemma, kind, "owner of a body part")
    elif is_thing and kind:
        findings.add(start, end, lemma, kind, "thing before an empty head")
    elif end - start == 1 and kind and lexicon.first_file(lemma) == "noun.plant":
        findings.add(start, end, lemma, "object", "plant before a noun")
    elif end - start > 1 and kind:
        findings.add(start, end, lemma, kind, "compound before a noun")


def _is_gerund(findings: Findings, lemma: str) -> bool:
    lexicon = findings.lexicon
    return (
        lemma not in lexicon.ing_things
        and lemma not in lexicon.objects
        and lemma not in lexicon.scenes
        and lexicon.verb(lemma) != lemma
        and lexicon.is_plain_verb(lemma)
    )


def _is_thing_of_color(findings: Findings, i: int) -> bool:
    sentence, lexicon = findings.sentence, findings.lexicon
    if sentence.word(i - 1) in ("in", "is", "are") or sentence.tag(i - 1) == "CC":
        return False
    file = lexicon.first_file(lexicon.noun(sentence.words[i]))
    return file in ("noun.food", "noun.plant", "noun.animal", "noun.artifact")
