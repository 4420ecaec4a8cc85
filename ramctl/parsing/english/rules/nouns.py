"""Nouns and noun compounds to tags (guidelines: forms, compounds, people, empty words)."""

from ramctl.parsing.english.dictionary.lexicon import NATURAL_KINDS, Lexicon, word_set
from ramctl.parsing.english.rules.attributes import SECOND_PARTS
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    DETERMINERS,
    NOUNS,
    VERBS,
    Findings,
    Sentence,
)

ENDS_COMPOUND = NOUNS | {"VBG", "RB", "JJ", "VBN", "RP", "VBD", "VB", "MD", "VBZ", "VBP"}
# Heads that keep their meaning after an adjective: "primitive people", "a working man".
GENERAL_PEOPLE = frozenset({"person", "man", "woman", "boy", "girl", "child", "lady"})
BEFORE_VERB = NOUNS | {",", "PRP", "VBZ", "VBP", "VBD", "RB", "TO", "MD"}
PHRASE = NOUNS | ADJECTIVES
# How many words away from its glasses a drink may be named.
NEAR = 20
# Substances that an artifact is used on rather than made of: "a snow shovel".
STUFF_TO_USE_ON = frozenset({"snow", "water", "ice", "dirt", "rock", "sand"})
BALL_GAMES = frozenset({"baseball", "basketball", "football", "softball", "volleyball"})
# Lexicographer files of a colour and of a compound that ends in it.
COLOR_FILES = (("noun.attribute", "noun.attribute"), ("noun.attribute", "noun.substance"))
WORN = frozenset({"wear", "wears", "wearing", "wore", "dressed"})
WEARERS = word_set("wearers")
DRINKS = word_set("drinks")


def find_compounds(sentence: Sentence, lexicon: Lexicon) -> None:
    """Fill `sentence.compounds` with the lexicon's compounds, the longest first, left to right."""
    words, tags, longest = sentence.words, sentence.tags, lexicon.compounds.longest
    i, n = 0, len(words)
    while i < n:
        first = lexicon.noun(words[i]) if sentence.word(i + 1) == "of" else words[i]
        reach = min(longest.get(first, 0), n - i)
        for length in range(reach, 1, -1):
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
    if phrase in lexicon.irregular:
        return lexicon.irregular[phrase]
    if len(words) > 2 and words[1] == "of":  # "bodies of water"
        phrase = " ".join([lexicon.noun(words[0]), *words[1:]])
        return phrase if phrase in lexicon.compounds else None
    last = "glass" if words[-1] == "glasses" else lexicon.noun(words[-1])
    lemma = " ".join([*words[:-1], last])
    if lemma in lexicon.plural_only or phrase in lexicon.plural_only:
        return phrase
    for form in (lemma, phrase):
        if form in lexicon.compounds:
            return form
    return None


def _is_compound_here(sentence: Sentence, i: int, end: int, lemma: str, lexicon: Lexicon) -> bool:
    words, tags = sentence.words, sentence.tags
    if lexicon.noun_kind(lemma) is None:
        return False
    if any(tag in (",", "CC", ".", "POS", "DT", "TO") for tag in tags[i:end]):
        return lemma in lexicon.added_compounds
    named = lemma in lexicon.added_compounds and tags[end - 1] in NOUNS
    if named and (
        tags[i] == "VBN" or (tags[i] == "VBG" and _is_lifeless(sentence, i - 1, lexicon))
    ):
        return True  # "stained glass windows", "a bamboo cutting board"
    if tags[i] in VERBS and sentence.tag(i - 1) in BEFORE_VERB:
        bare = tags[i] in ("VB", "VBP") and tags[end - 1] == "NN"
        return bare and lemma in lexicon.added_compounds
    # A longer noun phrase goes on: "drinking water spray", "cowboy hat rack".
    if tags[end - 1] in VERBS | {"RB", "RP", "JJ", "MD"} and lemma not in lexicon.added_compounds:
        return False
    if tags[end - 1] in ("VBZ", "VBP", "VBG") and sentence.tag(end) in DETERMINERS:
        return False
    if lemma in lexicon.added_compounds:
        return True
    if tags[i] in ADJECTIVES and lemma.rpartition(" ")[2] in GENERAL_PEOPLE:
        return False
    if lexicon.is_relational(words[i]):
        return True  # "military uniform"
    if words[i] in lexicon.colors or words[i] in lexicon.stop_adjectives:
        # A black bear and white wine are kinds, a blue flag (an iris) is a flag that is blue.
        head = lexicon.first_file(lemma.rpartition(" ")[2])
        if head not in NATURAL_KINDS and lexicon.first_file(words[i]) == "noun.attribute":
            return False
        synsets = lexicon.wordnet.synsets(lemma, "n")
        return any(s.file in NATURAL_KINDS for s in synsets)
    return True


def _is_lifeless(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    if sentence.tag(i) not in NOUNS:
        return False
    file = lexicon.first_file(lexicon.noun(sentence.words[i]))
    return file not in ("noun.person", "noun.animal", "noun.Tops", "noun.group")


def noun_phrase(findings: Findings, start: int) -> int:
    """Note the tags of the nouns that start at an index; returns the index after them."""
    sentence = findings.sentence
    parts: list[tuple[int, int, str]] = []
    i = start
    while i < len(sentence) and not sentence.excluded[i]:
        if i in sentence.compounds:
            end, lemma = sentence.compounds[i]
            if parts and _is_action_of_noun(findings, i):
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


def _is_action_of_noun(findings: Findings, i: int) -> bool:
    """Whether the compound is what the noun before it does: "man rock climbing"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    end, lemma = sentence.compounds[i]
    return sentence.tags[end - 1] == "VBG" and lexicon.noun_kind(lemma) == "action"


def _is_name(findings: Findings, i: int) -> bool:
    return findings.sentence.tags[i] in ("NNP", "NNPS") and i not in findings.sentence.compounds


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
    if start in findings.actions_at:
        findings.add(start, end, findings.actions_at[start], "action", "light verb and noun")
        return True
    if sentence.tags[end - 1] in ("NNP", "NNPS") and start not in sentence.compounds:
        return False
    is_hue = sentence.tags[start] != "NNS" or lexicon.noun_kind(lemma) is None  # "muted blues"
    if lemma in lexicon.colors and is_hue and not _is_thing_of_color(findings, start):
        findings.add(start, end, lemma, "attribute", "colour")
        return True
    if lemma.endswith("ing") and end - start == 1 and _is_gerund(findings, lemma):
        verb = lexicon.verb(lemma)
        if verb in lexicon.stop_verbs:
            return False
        findings.add(start, end, verb, "action", "gerund")
        return True
    if end - start == 1 and not _is_evident(findings, start, lemma):
        return False
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


def _is_evident(findings: Findings, i: int, lemma: str) -> bool:
    """Whether a word is known, or stands where English names a thing: after "a", "red", "her"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    if lexicon.is_known(lemma) or lemma in lexicon.coined or lemma in lexicon.plural_only:
        return True
    before = sentence.word(i - 1)
    described = sentence.tag(i - 1) in ADJECTIVES and lexicon.is_plain_adjective(before)
    if before == "of":  # "a bowl of pho"
        holder = lexicon.noun(sentence.word(i - 2))
        return holder in lexicon.portions or lexicon.first_file(holder) == "noun.artifact"
    return before in lexicon.determiners or before in lexicon.colors or described


def _shade(findings: Findings, start: int, end: int, lemma: str) -> bool:
    """Note the colour that a compound ends in ("cerulean blue"); returns whether it does."""
    color = lemma.rpartition(" ")[2]
    lexicon = findings.lexicon
    files = (lexicon.first_file(color), lexicon.first_file(lemma))
    if color not in lexicon.colors or files not in COLOR_FILES:
        return False  # "ice cream", "brain coral"
    findings.add(start, end, color, "attribute", "colour")
    return True


def _is_played(findings: Findings, i: int) -> bool:
    """Whether a ball's name means the game: "playing basketball", not "a basketball"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    return lexicon.verb(sentence.word(i - 1)) == "play"


def _is_garment(findings: Findings, i: int) -> bool:
    """Whether "top" is a garment: "in a pink top", not "on the top of", "a red top of a box"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    before = sentence.words[max(i - 6, 0) : i]
    described = not lexicon.colors.isdisjoint(before[-3:]) and "on" not in before[-4:]
    return sentence.word(i + 1) != "of" and (described or not WORN.isdisjoint(before))


def _first_part(findings: Findings, start: int, lemma: str) -> None:
    """Also note the material of a "straw hat" and the colour of a "black bear": both are true."""
    word, lexicon = findings.sentence.words[start], findings.lexicon
    if word in word_set("materials") and len(lemma.split()) == 2:
        findings.add(start, start + 1, word, "attribute", "material")
    elif (
        word in lexicon.colors
        and len(lemma.split()) == 2
        and lexicon.first_file(lemma) in ("noun.animal", "noun.plant")
    ):
        findings.add(start, start + 1, word, "attribute", "colour")


def _modifier(
    findings: Findings, start: int, end: int, lemma: str, head: str, is_thing: bool
) -> None:
    lexicon, sentence = findings.lexicon, findings.sentence
    if is_thing and _is_name(findings, start) and sentence.written[start][:1].isupper():
        return  # "the Seattle Space Needle scene"
    kind = lexicon.noun_kind(lemma)
    if end - start == 1 and not _is_evident(findings, start, lemma):
        kind = None
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
    elif (
        kind
        and lexicon.first_file(lemma) == "noun.animal"
        and not lexicon.is_game(lemma)
        and lexicon.first_file(head) == "noun.person"
    ):
        findings.add(start, end, lemma, kind, "animal before a person")
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
