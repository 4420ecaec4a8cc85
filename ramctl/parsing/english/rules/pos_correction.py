"""Corrections of part-of-speech tags that captions need: the lexicon and the neighbours decide.

The second half is about nouns tagged as something else: "a locomotive/JJ at a station".
"""

from ramctl.parsing.english.dictionary.lexicon import VISIBLE_FILES, Lexicon, word_set
from ramctl.parsing.english.dictionary.wordnet import ADJECTIVE, ADVERB, NOUN, VERB
from ramctl.parsing.english.rules.sentence import ADJECTIVES, DETERMINERS, NOUNS, VERBS, Sentence

# Tags that may follow a verb that was tagged as a noun.
AFTER_VERB = frozenset({"DT", "PRP$", "IN", "RP", "TO", "RB", "PRP", "CC", "", ".", ",", "VBG"})
# Tags before an -ing word that is a verb with an object: "sitting and drinking water".
BEFORE_GERUND = NOUNS | VERBS | {"CC", ",", "PRP", "RB", ""}
# Where a person stands in a picture, between commas.
PLACES_OF_PEOPLE = frozenset({"left", "right", "center", "centre", "above", "below", "pictured"})
ONE = frozenset({"a", "an", "this", "one", "another", "each", "every"})
MAKES_NOUN = DETERMINERS | ADJECTIVES
BARE_SUBJECTS = word_set("bare_subjects")
BE = word_set("be")
# Tags that spaCy gives words it does not know.
RARELY_NOUNS = frozenset({"RB", "RBR", "RBS", "PRP", "XX", "AFX", "RP", "MD"})
NEVER_NOUNS = word_set("never_nouns")
# Before "to" and a place: "next to pole", "the path leading to sand".
LEADING_TO = frozenset({"next", "close", "adjacent", "attached", "leading", "connected", "tied"})
PHRASE = NOUNS | ADJECTIVES | {"VBN", "HYPH"}
# Tags that follow the last noun of a phrase.
AFTER_HEAD = frozenset({"", ".", ":", "IN", "VBZ", "VBP", "VBD", "WDT", "WP", "RB", "RP", "''"})
AFTER_BARE_HEAD = (AFTER_HEAD | {","}) - {"RB", "RP"}
# Tags that may follow it or continue the phrase.
AFTER_SURE_HEAD = AFTER_HEAD | {",", "CC", "VBG", "TO", "DT"}


def correct_tags(sentence: Sentence, lexicon: Lexicon) -> None:
    """Correct the tags of a sentence in place."""
    words, tags = sentence.words, sentence.tags
    for i, word in enumerate(words):
        tag = tags[i]
        if tag in ("NNP", "NNPS"):
            tag = tags[i] = _common_noun(sentence, i, lexicon)
        if tag in ("NN", "NNS"):
            tags[i] = _noun_reading(sentence, i, lexicon)
        elif tag == "VBG":
            tags[i] = _gerund_reading(sentence, i, lexicon)
        elif tag in ADJECTIVES:
            if tag == "JJ" or lexicon.is_plain_noun(word):
                tag = tags[i] = _adjective_reading(word, tag, lexicon)
                if tag in ADJECTIVES and _is_only_verb(sentence, i, lexicon):
                    tag = tags[i] = "VBP"
            if tag in ADJECTIVES and _heads_its_phrase(sentence, i, lexicon):
                tags[i] = "NN" if lexicon.noun(word) == word else "NNS"
        elif tag in ("VBZ", "VBP", "VB", "VBD", "VBN") and _is_noun_after_all(sentence, i, lexicon):
            tags[i] = "NNS" if word.endswith("s") else "NN"
        elif tag in ("FW", "UH") and lexicon.is_plain_noun(lexicon.noun(word)):
            tags[i] = "NN"
        elif tag in ("FW", "UH", "RB") and word in lexicon.colors | lexicon.visible_adjectives:
            tags[i] = "JJ"
        elif tag in RARELY_NOUNS and _is_mistaken_noun(sentence, i, lexicon):
            tags[i] = "NN" if lexicon.noun(word) == word else "NNS"


def _common_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> str:
    word, shown = sentence.words[i], sentence.written[i]
    lower = shown[:1].islower() or sentence.is_title or i == 0
    next_to_name = any(
        sentence.tag(k) in ("NNP", "NNPS") and sentence.written[k][:1].isupper()
        for k in (i - 1, i + 1)
        if 0 <= k < len(sentence)
    )
    if word in lexicon.colors and (lower or not next_to_name):
        return "JJ"
    lemma = lexicon.noun(word)
    if not lower and lexicon.is_also_name(word) and lemma not in lexicon.objects:
        return sentence.tags[i]
    if sentence.tags[i] == "NNP" and not lower and _is_bare_subject(sentence, i, lexicon):
        return "NNP"  # "as Arsenal beat Chelsea"
    if lexicon.noun_kind(lemma) and lexicon.is_plain_noun(lemma) and (lower or not next_to_name):
        return "NNS" if lemma != word else "NN"
    if lower and not lexicon.is_plain_noun(lemma) and lexicon.is_plain_adjective(word):
        return "JJ"
    if (
        shown.islower()
        and lexicon.noun_kind(lemma) is None
        and lexicon.is_plain_verb(word)
        and sentence.tag(i - 1) in NOUNS
        and sentence.tag(i + 1) in ("IN", "DT", "PRP$")
    ):
        return "VBP"  # "a person march towards"
    return sentence.tags[i]


def _is_bare_subject(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a thing in the singular does something without an article."""
    bare = sentence.tag(i - 1) not in MAKES_NOUN | NOUNS | {".", ":", "``"}
    does = sentence.tag(i + 1) in ("VBZ", "VBD", "VBP")
    made = lexicon.first_file(sentence.words[i]) in ("noun.artifact", "noun.animal", "noun.plant")
    return bare and does and made


def _noun_reading(sentence: Sentence, i: int, lexicon: Lexicon) -> str:
    word, tag = sentence.words[i], sentence.tags[i]
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    if after in NOUNS and word in lexicon.stop_adjectives and lexicon.is_plain_adjective(word):
        return "JJ"  # "an ornamental gourd"
    if after in NOUNS | ADJECTIVES and word in lexicon.visible_adjectives:
        return "JJ"  # "a matte gray wall"
    if _is_among_colors(sentence, i, lexicon):
        return "JJ"
    if word.endswith("ing") and len(word) > 4:
        if lexicon.noun(word) in lexicon.ing_things or word in lexicon.objects:
            return tag
        is_verb = lexicon.is_plain_verb(word) and lexicon.verb(word) != word
        if is_verb and (after not in NOUNS or before in BEFORE_GERUND):
            return "VBG"
    if not lexicon.is_plain_noun(lexicon.noun(word)) and (other := _no_noun(sentence, i, lexicon)):
        return other
    if (
        word in lexicon.colors
        and (word not in ("orange", "gold", "silver", "salmon") or after in ADJECTIVES | {"VBN"})
        and (after in NOUNS or after in ADJECTIVES | {"VBN"} or sentence.word(i - 1) == "in")
    ):
        return "JJ"
    if (
        word in lexicon.verb_forms
        and (before in NOUNS or before == "RB" or _is_worn_color(sentence, i - 1, lexicon))
        and after in AFTER_VERB
        and sentence.word(i + 1) not in ("of", "'s")
        and (word != "leaves" or _is_person_or_animal(sentence, i - 1, lexicon))
    ):
        return "VBZ" if word.endswith("s") else "VBP"
    if before == "," and sentence.word(i - 2) in PLACES_OF_PEOPLE and lexicon.is_plain_verb(word):
        return "VBZ" if word.endswith("s") else "VBP"  # "person , left , shops with"
    if tag == "NNS" and lexicon.is_plain_verb(word) and _is_bare_verb(sentence, i, lexicon):
        return "VBZ"
    if after not in AFTER_VERB or not lexicon.is_plain_verb(word):
        return tag
    if tag == "NN" and lexicon.verb(word) == word and _has_plural_subject(sentence, i, lexicon):
        return "VBP"
    if tag == "NNS" and before == "NN" and _starts_with_one(sentence, i):
        lemma, verb = lexicon.noun(word), lexicon.verb(word)
        is_noun = lexicon.wordnet.count(lemma, NOUN) > 2 * lexicon.wordnet.count(verb, VERB)
        has_object = after in ("DT", "PRP$", "PRP")
        doing = has_object or not is_noun or _is_person_or_animal(sentence, i - 1, lexicon)
        return "VBZ" if doing else tag
    return tag


def _no_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """The tag of a "noun" that no dictionary has as one; None where it has it as nothing else."""
    word, tag = sentence.words[i], sentence.tags[i]
    if lexicon.is_plain_adjective(word):
        return "JJ"
    if tag == "NNS" and lexicon.is_plain_verb(word):
        return "VBZ"
    if tag == "NN" and sentence.tag(i - 1) == "CC" and lexicon.is_plain_verb(word):
        return "VBP"  # "stand or recline"
    return None


def _is_among_colors(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a colour (that is no food) stands beside another: "green, violet and tan"."""
    word, words = sentence.words[i], sentence.words
    if word not in lexicon.colors:
        return False
    joined = (words[i - 2 : i][::-1], words[i + 1 : i + 3])
    beside = any(w[:1] in ([","], ["and"]) and w[1:] and w[1] in lexicon.colors for w in joined)
    return beside and all(s.file != "noun.food" for s in lexicon.wordnet.synsets(word, NOUN))


def _is_worn_color(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a colour is what somebody wears: "a man in red leaves"."""
    phrase = sentence.words[max(i - 3, 0) : i]
    return sentence.word(i) in lexicon.colors and not {"in", "wearing"}.isdisjoint(phrase)


def _is_bare_verb(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a "plural" is a verb: it has one subject and an object, or names nothing visible."""
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    lemma, verb = lexicon.noun(word), lexicon.verb(word)
    as_noun = lexicon.wordnet.count(lemma, NOUN)
    as_verb = lexicon.wordnet.count(verb, VERB)
    if before == "NN" and after in ("NN", "NNS", "JJ"):
        return as_verb > as_noun and _starts_with_one(sentence, i)
    if before == "," and after in ("IN", "DT", "PRP$"):
        one = sentence.tag(i - 2) == "NN" and _starts_with_one(sentence, i - 1)
        return lexicon.noun_kind(lemma) is None and (one or sentence.tag(i - 3) == ",")
    return False


def _has_plural_subject(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether people or animals stand before it: "dogs drink", "a zebra and a giraffe stand"."""
    if sentence.tag(i - 1) not in NOUNS or not _is_person_or_animal(sentence, i - 1, lexicon):
        return False
    word = sentence.words[i]
    as_noun = lexicon.wordnet.count(word, NOUN)
    if as_noun >= 6 and as_noun > 5 * lexicon.wordnet.count(word, VERB):
        return word in lexicon.verb_forms  # "on a mans lap", "feeding four giraffes grass"
    return sentence.tag(i - 1) == "NNS" or "and" in sentence.words[max(i - 5, 0) : i]


def _starts_with_one(sentence: Sentence, i: int) -> bool:
    """Whether the noun phrase of a plural starts with "a": then the plural is a verb."""
    k = i - 1
    while k >= 0 and sentence.tags[k] in NOUNS | ADJECTIVES | {"VBN", "VBG"}:
        if sentence.tags[k] == "VBG" and sentence.tag(k - 1) in NOUNS:
            return False  # "a suit including small air tanks"
        k -= 1
    return sentence.word(k) in ONE


def _gerund_reading(sentence: Sentence, i: int, lexicon: Lexicon) -> str:
    word = sentence.words[i]
    if word not in lexicon.ing_things:
        return "VBG"
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    after_word = sentence.word(i + 1)
    if after in ("DT", "PRP$", "PRP") or sentence.word(i - 1) in BE:
        return "VBG"
    if before in NOUNS and _is_person_or_animal(sentence, i - 1, lexicon) and after not in NOUNS:
        return "VBG"  # "a boy drawing in a notepad"
    if before in MAKES_NOUN or sentence.word(i - 1) in word_set("placing"):
        return "NN"
    if before in ("VBG", "VBZ", "TO") and after in ("", ".", "IN") and word != "crossing":
        return "NN"
    if after_word == "of" or before in ("", "."):
        return "NN"
    return "NN" if before in ("CC", ",", "NN") and after in ("IN", "", ".") else "VBG"


def _is_only_verb(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether an "adjective" is a verb and nothing else: "an entertainer and a person rehearse"."""
    word = sentence.words[i]
    return (
        lexicon.verb(word) == word
        and lexicon.is_plain_verb(word)
        and not lexicon.is_plain_adjective(word)
        and not lexicon.is_plain_noun(word)
        and sentence.tag(i - 1) in NOUNS
        and sentence.tag(i + 1) not in NOUNS
    )


def _adjective_reading(word: str, tag: str, lexicon: Lexicon) -> str:
    known = word in lexicon.colors or word in lexicon.stop_adjectives
    if known or lexicon.is_plain_adjective(word):
        return tag
    if lexicon.is_plain_noun(word) and word not in lexicon.visible_adjectives:
        return tag if _is_comparative(word, lexicon) else "NN"
    lemma = lexicon.noun(word)
    if lemma != word and lexicon.is_plain_noun(lemma) and word not in lexicon.visible_adjectives:
        return "NNS"  # "ducks and geese"
    if word.endswith("ed") and lexicon.is_plain_verb(word):
        return "VBN"
    if word.endswith("ing") and lexicon.is_plain_verb(word):
        return "VBG"
    return tag


def _heads_its_phrase(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether an "adjective" that can be a noun heads its phrase: "a locomotive at"."""
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    lemma = lexicon.noun(word)
    kind = lexicon.noun_kind(lemma) if lexicon.is_plain_noun(lemma) else None
    if word in lexicon.colors or kind is None or after not in AFTER_SURE_HEAD:
        return False
    if _is_comparative(word, lexicon):
        return before in ("DT", "PRP$", "POS") and after in AFTER_HEAD
    as_noun, as_adjective = _uses(lemma, NOUN, lexicon), _uses(word, ADJECTIVE, lexicon)
    if word in lexicon.stop_adjectives:
        is_person = lexicon.first_file(lemma) == "noun.person" and as_noun > 0
        of_its_own = before == "PRP$" and lexicon.first_file(lemma) in VISIBLE_FILES  # "its sole"
        return ((is_person and before == "DT") or of_its_own) and after in AFTER_SURE_HEAD
    if after not in AFTER_HEAD or word in lexicon.visible_adjectives:
        surely = as_noun > as_adjective or (
            as_noun == as_adjective and word not in lexicon.visible_adjectives
        )
        goes_on = (after == "CC" and sentence.tag(i + 2) not in DETERMINERS) or (
            after == "," and as_adjective >= 0
        )
        return before in MAKES_NOUN | {"NN"} and surely and not goes_on
    if before in MAKES_NOUN:
        return as_noun >= as_adjective or _is_determined(sentence, i)
    if before == "NN":
        return as_noun >= as_adjective or kind == "scene"
    if sentence.word(i - 1) in BE or before in VERBS - {"VBG"} | {"RB", "NNS"}:
        return False
    return as_adjective == 0 and not (before == "CC" and sentence.tag(i - 2) in ADJECTIVES)


def _is_person_or_animal(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether the word at an index is a person or an animal."""
    lemma = lexicon.noun(sentence.words[i]) if i >= 0 else ""
    return lemma == "person" or lexicon.first_file(lemma) in ("noun.person", "noun.animal")


def _is_determined(sentence: Sentence, i: int) -> bool:
    """Whether only adjectives stand between the word and its determiner."""
    k = i - 1
    while sentence.tag(k) in ADJECTIVES:
        k -= 1
    return sentence.tag(k) in ("DT", "PRP$", "POS") and sentence.word(k) not in BARE_SUBJECTS


def _uses(word: str, pos: str, lexicon: Lexicon) -> int:
    """How often WordNet's texts use a word as this part of speech; -1 if it has no such sense."""
    return lexicon.wordnet.count(word, pos) if lexicon.wordnet.has(word, pos) else -1


def _is_comparative(word: str, lexicon: Lexicon) -> bool:
    """Whether it is a form of an adjective: "a lighter shade", "the cleaner side"."""
    stems = (word[:-2], word[:-1], word[:-3]) if word.endswith("er") else (word[:-3], word[:-2])
    return word.endswith(("er", "est")) and any(
        len(stem) > 2 and lexicon.is_plain_adjective(stem) for stem in stems
    )


def _is_mistaken_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a word with a rare tag can only be a noun: "fire hydrant/RB"."""
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    lemma = lexicon.noun(word)
    is_tag = lexicon.is_plain_noun(lemma) and lexicon.noun_kind(lemma) is not None
    if len(word) < 2 or word in NEVER_NOUNS or not is_tag or _is_comparative(word, lexicon):
        return False
    if sentence.tags[i] == "MD":
        return before in PHRASE | DETERMINERS and after in AFTER_HEAD - {"RB", "VBP", "VBZ"}
    if lexicon.wordnet.has(word, ADVERB) or lexicon.is_plain_adjective(word):
        return (
            before in MAKES_NOUN
            and after in ("IN", ".", "")
            and sentence.tags[i] == "RB"
            and lexicon.wordnet.count(lemma, NOUN) > 0
        )
    return after not in ("DT", "PRP$")


def _is_noun_after_all(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a "verb" cannot be one: it has no verb sense, or a determiner stands before it."""
    word, tag = sentence.words[i], sentence.tags[i]
    lemma = lexicon.noun(word)
    if not lexicon.wordnet.has(lemma, NOUN) or word in NEVER_NOUNS:
        return False
    if not lexicon.is_plain_verb(word):
        return True
    if tag not in ("VBD", "VBN") and _is_noun_by_use(sentence, i, lexicon):
        return True
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    determined = before in ("DT", "PRP$", "POS") and sentence.word(i - 1) not in BARE_SUBJECTS
    in_color = sentence.word(i - 1) in lexicon.colors and sentence.tag(i - 2) == "DT"
    described = determined or before in ADJECTIVES or in_color
    if tag == "VBD" and described and after not in NOUNS:
        return lexicon.noun_kind(lemma) is not None  # "a yellow rose next to"
    if tag in ("VBD", "VBN"):
        return (
            determined or before in ADJECTIVES or sentence.word(i - 1) in lexicon.colors
        ) and after in ("IN", ".", "", "CC", "RP")
    if determined:
        return True
    if before in ("CC", ",", "IN") and word not in lexicon.verb_forms:
        verb_uses = lexicon.wordnet.count(lexicon.verb(word), VERB)
        return verb_uses == 0 and lexicon.wordnet.count(lemma, NOUN) > 0
    return before in ADJECTIVES and tag != "VBZ" and after not in VERBS


def _is_noun_by_use(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a "verb" that mostly is a noun has no fitting subject: "a chef hat/VBP"."""
    word, tag = sentence.words[i], sentence.tags[i]
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    lemma = lexicon.noun(word)
    if after in ("DT", "PRP$", "PRP") or lexicon.noun_kind(lemma) is None:
        return False
    if word == "leaves":
        return before in ADJECTIVES or (
            before in NOUNS | {""}
            and after in AFTER_HEAD | {",", "CC"}
            and not _is_person_or_animal(sentence, i - 1, lexicon)
        )
    as_noun = lexicon.wordnet.count(lemma, NOUN)
    as_verb = lexicon.wordnet.count(lexicon.verb(word), VERB)
    if i == 0 and tag == "VBZ":
        return after == "IN" and as_noun > 2 * as_verb
    if i == 0 and tag in ("VB", "VBP"):
        return as_noun > 2 * as_verb or (as_noun == as_verb == 0)
    if tag == "VB" and before == "TO":
        return as_noun > as_verb and sentence.word(i - 2) in LEADING_TO
    if tag in ("VB", "VBP") and before == "CC":  # "a robe and hat"
        return (
            sentence.tag(i - 2) in NOUNS
            and as_noun > 2 * as_verb
            and after in AFTER_BARE_HEAD
            and word not in lexicon.verb_forms
        )
    if tag == "VBP" and before == "NN":
        two = "and" in sentence.words[max(i - 5, 0) : i]
        return as_noun > 4 * as_verb and not two and after in AFTER_SURE_HEAD
    if tag in ("VBP", "VBZ") and before in NOUNS and after in AFTER_SURE_HEAD:
        return as_noun >= 8 and as_noun > 10 * as_verb and after not in ("RP", "RB")
    return False
