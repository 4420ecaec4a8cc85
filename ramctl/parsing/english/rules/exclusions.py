"""Words that give no tags: idioms, compared, awaited and absent things, written text."""

from ramctl.parsing.english.lexicon import Lexicon, word_set
from ramctl.parsing.english.rules import names, remarks
from ramctl.parsing.english.rules.sentence import (
    BOUNDARIES,
    DETERMINERS,
    NOUNS,
    VERBS,
    Rule,
    RuleTable,
    Sentence,
    Span,
    subject_of,
)

QUOTES_OPEN = frozenset({"``", "''"})
QUOTES = frozenset('"\u201c\u201d')
# The files of things in figures of speech: a waterfall of curls, a forest of cranes.
FIGURED = frozenset({"noun.body", "noun.artifact", "noun.person", "noun.animal", "noun.plant",
                      "noun.shape"})  # fmt: skip
FREE_OF = frozenset({"free", "empty", "devoid", "lack", "absence", "instead", "void", "absent",
                     "reminiscent", "evocative"})  # fmt: skip
BARE_PHRASE_STARTS = NOUNS | {"DT", "PRP$", "CD"}
# How many words after "nobody" its verb may be.
NEAR_VERB = 6
HABIT = frozenset({"once", "usually", "normally", "often", "formerly"})
SIGNS = frozenset({"sign", "signs", "symbol", "symbols", "zone"})


def exclude_words(sentence: Sentence, lexicon: Lexicon) -> None:
    """Mark the words that give no tags, each with the name of the rule."""
    for start, end in lexicon.idioms.spans(sentence.words):
        if end > start + 1:
            sentence.exclude(start, end, "idiom")
    tagged = list(enumerate(zip(sentence.words, sentence.tags, strict=True)))
    quotes = [i for i, (w, tag) in tagged if w in QUOTES or (tag in QUOTES_OPEN and w != "'")]
    for start, end in zip(quotes[::2], quotes[1::2], strict=False):
        sentence.exclude(start, end + 1, "quotation")
    for i, (word, tag) in tagged:
        for rule in RULES.rows_at(word, tag):
            if not sentence.excluded[i] and (span := rule.pattern(sentence, i, lexicon)):
                sentence.exclude(span[0], span[1], rule.name)


def _figure(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if sentence.word(i + 1) != "of":
        return None
    head = lexicon.noun(sentence.words[i])
    of = lexicon.noun(sentence.words[sentence.phrase_end(i + 2) - 1])
    if f"{head}={of}" in lexicon.figures:
        return i, i + 1
    # A waterfall of curls, but a waterfall of water, a rainbow of light, a river of ice.
    is_figure = head in lexicon.figure_heads and lexicon.first_file(of) in FIGURED
    return (i, i + 1) if is_figure else None


def _as_if(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    is_likened = sentence.word(i + 1) in ("if", "though")
    return (i, sentence.text_end(i + 2, BOUNDARIES | {","})) if is_likened else None


def _in_shape_of(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    is_shape = sentence.word(i - 1) in ("shape", "form")
    is_likened = is_shape and sentence.words[i - 3 : i - 1] == ["in", "the"]
    return (i - 3, sentence.phrase_end(i + 1)) if is_likened else None


def _pack(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if sentence.word(i + 1) == "of" and sentence.tag(i + 2) == "CD":
        return i, i + 3
    is_sold = sentence.words[i] == "pack" and sentence.word(i - 1).isdigit()
    return (i, i + 1) if is_sold else None  # "black [2-pack]"


def _steps(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    return (i, i + 1) if sentence.tag(i - 1) == "CD" and sentence.word(i - 2) == "in" else None


def _simile(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    starts = sentence.word(i + 1) in ("a", "an")
    if sentence.words[i] == "as":
        is_simile = sentence.word(i - 2) == "as" and (starts or sentence.tag(i + 1) in NOUNS)
    else:
        is_simile = starts and sentence.tag(i - 1) in ("JJR", "RBR")  # "no bigger than a teacup"
    return (i, sentence.phrase_end(i + 1)) if is_simile else None


def _evoked(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    is_evoked = lexicon.verb(sentence.words[i]) in lexicon.evoking
    return (i, sentence.phrase_end(i + 1)) if is_evoked else None


def _reported(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    k = i - 1
    while sentence.tag(k) == "RB" or sentence.word(k) in lexicon.be:
        k -= 1
    is_subject = sentence.tags[i] != "VBG" and "IN" not in sentence.tags[max(k - 2, 0) : max(k, 0)]
    if is_subject and lexicon.noun(sentence.word(k)) in lexicon.picture_words:
        return i, i + 1  # "the composition is balanced"
    if lexicon.verb(sentence.words[i]) not in lexicon.reporting:
        return None
    file = lexicon.first_file(subject_of(sentence, i, lexicon))
    return None if file in ("noun.person", "noun.animal") else (i, i + 1)


def _turned_into(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if lexicon.verb(sentence.words[i]) not in ("turn", "transform"):
        return None
    head = lexicon.noun(sentence.word(sentence.phrase_end(i + 2) - 1))
    is_way = sentence.word(i + 1) == "into" and head in lexicon.landmarks
    return (i, i + 1) if "into" in sentence.words[i + 1 : i + 6] and not is_way else None


def _for_whom(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if sentence.word(i + 1) not in ("'s", "'"):
        return None
    if sentence.tag(i - 1) in DETERMINERS - {"CD"} and sentence.word(i - 1) not in ("a", "an"):
        return None
    return i, i + 2


def _foreign(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    words = sentence.words
    is_foreign = sum(word in lexicon.foreign for word in words) > 1
    return (0, len(words)) if is_foreign and lexicon.english.isdisjoint(words) else None


def _awaited(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    verb = lexicon.verb(sentence.word(max(sentence.skip_back(i - 1, {"RB", "RP"}), 0)))
    is_awaited = f"{verb}={sentence.words[i]}" in lexicon.awaited
    return (i, sentence.phrase_end(i + 1)) if is_awaited else None


def _blues(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    near = (*sentence.words[max(i - 3, 0) : i], *sentence.words[i + 1 : i + 4])
    # "Greens and blues" are colours.
    is_color = any(lexicon.noun(word) in lexicon.colors for word in near)
    return None if is_color else (i, i + 1)


def _compared(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if sentence.tags[i] != "IN":
        return None
    end = sentence.phrase_end(i + 1)
    if sentence.word(end) in ("of", "from"):
        end = max(sentence.phrase_end(end + 1), end)  # "like a frame from a film"
    return i, end


def _written(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if lexicon.verb(sentence.words[i]) not in ("say", "read", "spell", "state"):
        return None
    is_quoted = sentence.tag(i + 1) in QUOTES_OPEN
    if not is_quoted and subject_of(sentence, i, lexicon) not in lexicon.written_on:
        return None
    return i, sentence.text_end(i + 1, BOUNDARIES | {"IN"})


def _negated(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    words, start = sentence.words, i
    if sentence.word(i + 1) in ("only", "just"):
        return None
    if undone := _neither_does(sentence, i, lexicon):
        return undone
    i = sentence.skip(i + 1, ("RB", "RBR")) - 1  # "no longer holding", "not really wet"
    end = sentence.phrase_end(i + 1)
    if words[start] == "no" and words[end - 1] in SIGNS:
        return start, end - 1
    to_do = sentence.tag(i + 1) == "TO"  # "hoping not to fall"
    if end == i + 1 and sentence.tag(end + to_do) in VERBS:
        end += to_do
        end = sentence.phrase_end(end + 1)
    while sentence.word(end) in ("or", "nor") or _continues(sentence, end):
        end = max(sentence.phrase_end(end + 1), end + 1)
    return start, end


def _neither_does(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    """The verb and object that two things do not do: "neither the dog nor the cat wears a hat"."""
    start = i
    while sentence.word(start) != "neither":
        if start == max(i - NEAR_VERB, 0) or sentence.words[i] != "nor":
            return None
        start -= 1
    middle = sentence.phrase_end(start + 1)
    verb = sentence.phrase_end(middle + 1)
    does = sentence.skip(verb, VERBS | {"RB", "MD"})
    is_doing = not lexicon.be.issuperset(sentence.words[verb:does])
    if sentence.word(middle) != "nor" or not is_doing:
        return None
    return verb, sentence.clause_end(verb)


def _free_of(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    word, before = sentence.words[i], sentence.word(i - 1)
    if (before not in FREE_OF) if word == "of" else (before != "rather"):
        return None
    done = sentence.tag(i + 1) in VERBS  # "instead of walking a dog"
    end = sentence.phrase_end(i + done + 1)
    while sentence.word(end) in ("and", "or") and sentence.tag(end + 1) in NOUNS:
        end = sentence.phrase_end(end + 1)
    return i, end


def _missing(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if sentence.tag(i - 1) in DETERMINERS or sentence.tag(i + 1) not in BARE_PHRASE_STARTS:
        return None
    end = sentence.phrase_end(i + 1)
    while sentence.word(end) == "and" and sentence.tag(end + 1) in DETERMINERS:
        end = sentence.phrase_end(end + 1)
    return i, end


def _nobody_does(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    word, after = sentence.words[i], sentence.word(i + 1)
    if word in ("none", "neither") and after == "of":
        start = i
    elif word in ("nobody", "noone") or (word in ("no", "none") and after == "one"):
        start = i + (after == "one")
    else:
        return None
    verb = min(sentence.text_end(start + 1, VERBS), start + NEAR_VERB)
    whom = word not in ("none", "neither") or sentence.word(i + 2) in ("whom", "which", "them")
    return (i if whom else verb), sentence.clause_end(verb)


def _would(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    end = sentence.text_end(i + 1, BOUNDARIES | {",", "CC"})
    return None if sentence.word(i + 1) == "like" else (i, end)


def _no_more(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    end = sentence.phrase_end(i + 1)
    if sentence.words[end : end + 2] == ["used", "to"]:
        end += 2
    elif sentence.word(end) not in HABIT:
        return None
    return (i, sentence.clause_end(end)) if end > i + 1 else None


def _continues(sentence: Sentence, i: int) -> bool:
    """Whether a list of bare nouns that ends in "or" goes on: "no chairs, tables or lamps"."""
    end = sentence.phrase_end(i + 1)
    return sentence.word(i) == "," and end > i + 1 and sentence.word(end) == "or"


RULES = RuleTable((
    Rule("figure of speech", _figure, "A sea of people in a stadium.", "A river of water.", NOUNS),
    Rule("nobody does it", _nobody_does, "Nobody is sitting on the bench.",
         "Somebody is sitting on the bench.", {"nobody", "noone", "no", "none", "neither"}),
    Rule("negation", _negated, "A man without a hat.", "A man not only with a hat.",
         word_set("negators")),
    Rule("free of", _free_of, "A street empty of cars.", "A street full of cars.", {"of", "than"}),
    Rule("missing", _missing, "A car missing a wheel.", "A missing dog on a poster.", {"missing"}),
    Rule("would", _would, "He would rather have tea, but drinks coffee.",
         "A man would like a beer.", {"would"}),
    Rule("no more", _no_more, "A field where a barn once stood.", "A field where a barn is.",
         {"where"}),
    Rule("as if", _as_if, "She looks as if she held a baby.", "She looks as pale as before.",
         {"as"}),
    Rule("in the shape of", _in_shape_of, "A cake in the shape of a guitar.",
         "A cake and the sound of a guitar.", {"of"}),
    Rule("pack of so many", _pack, "Pack of 3 shirts", "A pack of dogs",
         {"pack", "box", "case", "bag"}),
    Rule("in so many steps", _steps, "How to fold a shirt in 6 steps",
         "A cat on the steps of a house", {"steps"}),
    Rule("simile", _simile, "A dog as big as a horse.", "A dog as well as a horse.",
         {"as", "than"}),
    Rule("comparison", _compared, "Clouds like mountains.", "A man would like a beer.", {"like"}),
    Rule("evoked", _evoked, "A cloud resembling a rabbit.", "A cloud hiding a rabbit.", VERBS),
    Rule("reported", _reported, "The picture captures a cat.", "A cat captures a mouse.", VERBS),
    Rule("turned into", _turned_into, "Fog turns the hill into an island.",
         "A car turns at the hill.", VERBS),
    Rule("for whom", _for_whom, "A children's book on a table.", "The children's hands.",
         word_set("for_whom")),
    Rule("awaited", _awaited, "A man waiting for a bus.", "A man looking at a bus.",
         {"for", "of", "about", "after"}),
    Rule("music style", _blues, "A blues band on a stage.", "Greens and blues on a wall.",
         {"blues"}),
    *remarks.RULES,
    *names.RULES,
    Rule("not English", _foreign, "ein Hund und eine Katze auf dem Sofa",
         "a cafe beside the Rue de Rivoli", word_set("foreign")),
    Rule("written text", _written, "A sign that says welcome.", "A man that says a prayer.", VERBS),
))  # fmt: skip
